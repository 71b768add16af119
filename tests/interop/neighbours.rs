//! Local service discovery (BEP 14) between hosts that know nothing of each other: two network namespaces and a cable.

use std::process::Command;

use crate::clients::makers::{NO_TRACKER, Torrent};
use crate::clients::{gannet, libtorrent, makers};
use crate::lab::{Lab, Tool};
use crate::namespaces::Net;
use crate::payload::{Payload, Shape};
use crate::process::{PATIENCE, Running};

const V4: [&[&str]; 2] = [&["192.168.77.1/24"], &["192.168.77.2/24"]];
const V6: [&[&str]; 2] = [&["fd77::1/64"], &["fd77::2/64"]];

/// Two hosts on one cable.
fn two_hosts(net: &mut Net<'_>, addresses: [&[&str]; 2]) -> [String; 2] {
    let hosts = [net.host(), net.host()];
    net.cable([(&hosts[0], "eth0", addresses[0]), (&hosts[1], "eth0", addresses[1])]);
    hosts
}

fn start(lab: &Lab, name: &str, command: &mut Command) -> Running {
    Running::start(name, command, &lab.path("logs"))
}

/// gannet on `host`, with nothing but local discovery.
fn gannet(lab: &Lab, net: &Net<'_>, host: &str, name: &str, arguments: &[&str]) -> Running {
    let mut command = net.command(host, gannet::binary());
    command.args(arguments).args(["--no-dht", "--no-trackers", "--json", "--state-dir"]).arg(lab.path(name));
    start(lab, name, &mut command)
}

fn gannet_seeds(lab: &Lab, net: &Net<'_>, host: &str, torrent: &Torrent, payload: &Payload, more: &[&str]) -> Running {
    let (torrent, path) = (torrent.path.display().to_string(), payload.path().display().to_string());
    let mut process = gannet(lab, net, host, "gannet-seed", &[&["seed", &torrent, &path], more].concat());
    process.until("that it seeds", |process| process.stdout().contains("\"seeding\"").then_some(()));
    process
}

fn gannet_gets(lab: &Lab, net: &Net<'_>, host: &str, torrent: &Torrent, more: &[&str]) -> Running {
    let (torrent, out) = (torrent.path.display().to_string(), lab.folder("out").display().to_string());
    let patience: &[&str] = if more.contains(&"--timeout") { &[] } else { &["--timeout", "40s"] };
    gannet(lab, net, host, "gannet-get", &[&["get", &torrent, "--dir", &out], patience, more].concat())
}

fn assert_complete(lab: &Lab, payload: &Payload, mut get: Running) {
    let status = get.wait(PATIENCE);
    assert!(status.success(), "{status}\n{}", get.log());
    payload.assert_same(&lab.path("out"));
}

/// gannet among itself, over one family.
fn among_ourselves(addresses: [&[&str]; 2]) {
    let Some(lab) = Lab::with(&[Tool::Namespaces]) else { return };
    let payload = Payload::new(&lab, Shape::Single);
    let torrent = gannet::create(&lab, &payload, "hybrid", &[]);
    let mut net = Net::new(&lab);
    let [a, b] = two_hosts(&mut net, addresses);
    let _seed = gannet_seeds(&lab, &net, &a, &torrent, &payload, &[]);
    assert_complete(&lab, &payload, gannet_gets(&lab, &net, &b, &torrent, &[]));
}

#[test]
fn gannet_finds_gannet_over_ipv4() {
    among_ourselves(V4);
}

#[test]
fn gannet_finds_gannet_over_ipv6() {
    among_ourselves(V6);
}

/// `--no-lsd` on either side: nobody is found, and nothing is said. The third, who would take it, shows that it could
/// have been.
#[test]
fn no_lsd_says_nothing() {
    let Some(lab) = Lab::with(&[Tool::Namespaces]) else { return };
    let payload = Payload::new(&lab, Shape::Single);
    let torrent = gannet::create(&lab, &payload, "v1", &[]);
    let mut net = Net::new(&lab);
    let [a, b] = two_hosts(&mut net, V4);
    let silent = gannet_seeds(&lab, &net, &a, &torrent, &payload, &["--no-lsd"]);
    let mut get = gannet_gets(&lab, &net, &b, &torrent, &["--timeout", "4s"]);
    assert_eq!(get.wait(PATIENCE).code(), Some(5), "{}", get.log());
    drop(silent);
    let _seed = gannet_seeds(&lab, &net, &a, &torrent, &payload, &[]);
    let mut get = gannet_gets(&lab, &net, &b, &torrent, &["--no-lsd", "--timeout", "4s"]);
    assert_eq!(get.wait(PATIENCE).code(), Some(5), "{}", get.log());
    assert_complete(&lab, &payload, gannet_gets(&lab, &net, &b, &torrent, &[]));
}

/// On every interface: each host is in two networks, and only the second has somebody in it.
#[test]
fn every_interface_is_searched() {
    let Some(lab) = Lab::with(&[Tool::Namespaces]) else { return };
    let payload = Payload::new(&lab, Shape::Single);
    let torrent = gannet::create(&lab, &payload, "v1", &[]);
    let mut net = Net::new(&lab);
    let [a, b] = two_hosts(&mut net, V4);
    for (host, address) in [(&a, "10.1.0.1/24"), (&b, "10.2.0.1/24")] {
        let nobody = net.host();
        net.cable([(host, "eth1", &[address]), (&nobody, "eth0", &[])]);
        net.ip(&format!("-n {host} route add default dev eth1"));
    }
    let _seed = gannet_seeds(&lab, &net, &a, &torrent, &payload, &[]);
    assert_complete(&lab, &payload, gannet_gets(&lab, &net, &b, &torrent, &[]));
}

fn libtorrent(lab: &Lab, net: &Net<'_>, host: &str, mode: &str, torrent: &Torrent, dir: &std::path::Path) -> Running {
    let plain = libtorrent::command(lab);
    let mut command = net.command(host, plain.get_program());
    command.args(plain.get_args()).arg(mode).arg(&torrent.path).arg(dir);
    for setting in ["listen_interfaces=\"0.0.0.0:0\"", "outgoing_interfaces=\"\"", "enable_lsd=true"] {
        command.args(["--set", setting]);
    }
    start(lab, &format!("libtorrent-{mode}"), &mut command)
}

#[test]
fn gannet_finds_libtorrent() {
    let Some(lab) = Lab::with(&[Tool::Namespaces, Tool::Libtorrent]) else { return };
    let payload = Payload::new(&lab, Shape::Single);
    let torrent = makers::libtorrent(&lab, &payload, "hybrid", None);
    let mut net = Net::new(&lab);
    let [a, b] = two_hosts(&mut net, V4);
    // Whoever announces first is not heard by the other: it is the second that is found.
    let get = gannet_gets(&lab, &net, &b, &torrent, &[]);
    let _seed = libtorrent(&lab, &net, &a, "seed", &torrent, &payload.parent);
    assert_complete(&lab, &payload, get);
}

#[test]
fn libtorrent_finds_gannet() {
    let Some(lab) = Lab::with(&[Tool::Namespaces, Tool::Libtorrent]) else { return };
    let payload = Payload::new(&lab, Shape::Single);
    let torrent = makers::libtorrent(&lab, &payload, "v1", None);
    let mut net = Net::new(&lab);
    let [a, b] = two_hosts(&mut net, V4);
    let out = lab.folder("out");
    let mut leech = libtorrent(&lab, &net, &b, "leech", &torrent, &out);
    leech.until("its port", |process| process.stdout().contains("listening").then_some(()));
    let _seed = gannet_seeds(&lab, &net, &a, &torrent, &payload, &[]);
    leech.until("the end of the download", |process| process.stdout().contains("\"complete\"").then_some(()));
    leech.close_stdin();
    assert!(leech.wait(PATIENCE).success());
    payload.assert_same(&out);
}

#[test]
fn aria2_and_gannet_find_each_other() {
    let Some(lab) = Lab::with(&[Tool::Namespaces, Tool::Aria2, Tool::Mktorrent]) else { return };
    let payload = Payload::new(&lab, Shape::Single);
    let torrent = makers::mktorrent(&lab, &payload, NO_TRACKER, &[]);
    let mut net = Net::new(&lab);
    let [a, b] = two_hosts(&mut net, V4);
    // aria2 announces by the interface that leads to everybody.
    net.ip(&format!("-n {b} route add default via 192.168.77.1"));
    let _seed = gannet_seeds(&lab, &net, &a, &torrent, &payload, &[]);
    let mut command = net.command(&b, "aria2c");
    command
        .args(["--no-conf", "--enable-dht=false", "--enable-dht6=false", "--enable-peer-exchange=false"])
        .args(["--bt-enable-lpd=true", "--file-allocation=none", "--seed-time=0", "--bt-stop-timeout=40", "--dir"])
        .arg(lab.folder("out"))
        .arg(&torrent.path);
    assert_complete(&lab, &payload, start(&lab, "aria2", &mut command));
}
