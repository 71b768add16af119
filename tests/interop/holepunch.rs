//! Introductions (BEP 55): two peers behind routers that let nobody in, and a third that both can reach.

use std::io::Write as _;
use std::process::{Command, Stdio};

use serde_json::Value;

use crate::clients::gannet;
use crate::clients::libtorrent;
use crate::clients::makers::Torrent;
use crate::lab::{Lab, Tool, find_program};
use crate::namespaces::Net;
use crate::payload::{Payload, Shape};
use crate::process::{PATIENCE, Running};

/// What a router does: its own address stands for all those inside, and whoever has not been asked does not come in.
const NAT: &str = r#"
table ip translation {
    chain postrouting {
        type nat hook postrouting priority 100
        oifname "wan" masquerade
    }
}
table inet wall {
    chain input {
        type filter hook input priority 0
        iifname "wan" ct state new drop
    }
    chain forward {
        type filter hook forward priority 0
        iifname "wan" ct state new drop
    }
}
"#;

/// Everybody listens here.
const PORT: u16 = 6881;

/// The routers, as the relay and each other see them; the relay, as each side sees it.
const ROUTERS: [&str; 2] = ["198.51.100.2", "203.0.113.2"];
const RELAY: [&str; 2] = ["198.51.100.1", "203.0.113.1"];

/// The relay, which is also the internet; and a host behind each of two routers.
struct Internet {
    relay: String,
    hosts: [String; 2],
}

impl Internet {
    fn new(net: &mut Net<'_>) -> Self {
        let relay = net.host();
        forward(net, &relay);
        let hosts = [0, 1].map(|side| {
            let (router, host) = (net.host(), net.host());
            let [near, far] = [RELAY[side], ROUTERS[side]].map(|ip| format!("{ip}/24"));
            let [inside, outside] = [2, 1].map(|n| format!("192.168.{side}.{n}/24"));
            net.cable([(&relay, ["eth0", "eth1"][side], &[&near]), (&router, "wan", &[&far])]);
            net.cable([(&router, "lan", &[&outside]), (&host, "eth0", &[&inside])]);
            net.ip(&format!("-n {router} route add default via {}", RELAY[side]));
            net.ip(&format!("-n {host} route add default via 192.168.{side}.1"));
            forward(net, &router);
            translate(net, &router);
            host
        });
        Self { relay, hosts }
    }
}

fn forward(net: &Net<'_>, host: &str) {
    let mut command = net.command(host, "sh");
    let done = command.args(["-c", "echo 1 > /proc/sys/net/ipv4/ip_forward"]).status();
    assert!(done.expect("a shell").success(), "a host that does not forward");
}

fn translate(net: &Net<'_>, router: &str) {
    let nft = find_program("nft").expect("nft was asked for");
    let mut command = net.command(router, nft);
    let mut nft = command.args(["-f", "-"]).stdin(Stdio::piped()).spawn().expect("nft");
    nft.stdin.take().expect("its input").write_all(NAT.as_bytes()).expect("nft reads");
    assert!(nft.wait().expect("nft").success(), "nft does not take the rules of a router");
}

fn start(lab: &Lab, name: &str, command: &mut Command) -> Running {
    Running::start(name, command, &lab.path("logs"))
}

/// gannet on `host`, with nothing to find peers by but peer exchange.
fn gannet(lab: &Lab, net: &Net<'_>, host: &str, name: &str, arguments: &[&str]) -> Running {
    let mut command = net.command(host, gannet::binary());
    command.args(arguments).args(["--no-dht", "--no-lsd", "--no-port-mapping", "--no-trackers", "--json"]);
    command.args(["--listen", &format!("0.0.0.0:{PORT}"), "--state-dir"]).arg(lab.path(name));
    start(lab, name, &mut command)
}

fn events(process: &Running) -> Vec<Value> {
    process.stdout().lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
}

/// That a process has told of a connection with `ip`.
fn connects(process: &mut Running, ip: &str) {
    process.until(&format!("a connection with {ip}"), |process| {
        let is_it = |event: &Value| {
            event["state"] == "connected" && event["address"].as_str().is_some_and(|at| at.starts_with(ip))
        };
        events(process).iter().any(is_it).then_some(())
    });
}

/// The leecher and the seeder reach the relay, by uTP alone or however they like, and each other only if they are introduced:
/// the seeder has no peer exchange, so it never calls the leecher of its own accord.
fn introduced_by(tools: &[Tool], relay: impl FnOnce(&Lab, &Net<'_>, &str, &Torrent) -> Running, carriers: &[&str]) {
    let Some(lab) = Lab::with(&[&[Tool::Namespaces, Tool::Nft], tools].concat()) else { return };
    let payload = Payload::new(&lab, Shape::Single);
    let torrent = gannet::create(&lab, &payload, "v1", &[]);
    let mut net = Net::new(&lab);
    let internet = Internet::new(&mut net);
    let _relay = relay(&lab, &net, &internet.relay, &torrent);
    let [torrent_path, data, out] =
        [&torrent.path, &payload.path(), &lab.folder("out")].map(|path| path.display().to_string());
    let [of_leecher, of_seeder] = RELAY.map(|ip| format!("{ip}:{PORT}"));

    let seed = [&["seed", &torrent_path, &data, "--no-pex", "--peer", &of_seeder], carriers].concat();
    let mut seed = gannet(&lab, &net, &internet.hosts[1], "seed", &seed);
    connects(&mut seed, RELAY[1]);
    let get = ["get", &torrent_path, "--dir", &out, "--timeout", "60s", "--peer", &of_leecher];
    let mut get = gannet(&lab, &net, &internet.hosts[0], "get", &[&get[..], carriers].concat());
    let status = get.wait(PATIENCE);
    assert!(status.success(), "{status}\n{}\n{}", get.log(), seed.log());
    payload.assert_same(&lab.path("out"));
    let met = |event: &Value| {
        let at = event["address"].as_str().unwrap_or_default();
        event["state"] == "connected" && event["utp"] == true && at.starts_with(ROUTERS[1])
    };
    assert!(events(&get).iter().any(met), "{}", get.log());
}

/// Downloads so slowly that nobody gets anything from it.
fn gannet_relay(lab: &Lab, net: &Net<'_>, host: &str, torrent: &Torrent) -> Running {
    let (torrent, out) = (torrent.path.display().to_string(), lab.folder("relay-out").display().to_string());
    let limits = ["--limit-up", "1", "--limit-down", "16KiB"];
    let mut relay = gannet(lab, net, host, "relay", &[&["get", &torrent, "--dir", &out], &limits[..]].concat());
    relay.until("that it runs", |relay| relay.stdout().contains("\"progress\"").then_some(()));
    relay
}

fn libtorrent_relay(lab: &Lab, net: &Net<'_>, host: &str, torrent: &Torrent) -> Running {
    let plain = libtorrent::command(lab);
    let mut command = net.command(host, plain.get_program());
    command.args(plain.get_args()).arg("leech").arg(&torrent.path).arg(lab.folder("relay-out"));
    // It counts its part of the protocol, too.
    command.args(["--limit-up", "16384", "--limit-down", "16384"]);
    let listen = format!("listen_interfaces=\"0.0.0.0:{PORT}\"");
    for setting in [&listen, "outgoing_interfaces=\"\"", "enable_incoming_utp=true", "enable_outgoing_utp=true"] {
        command.args(["--set", setting]);
    }
    let mut relay = start(lab, "relay", &mut command);
    relay.until("that it listens", |relay| relay.stdout().contains("listening").then_some(()));
    relay
}

#[test]
fn gannet_introduces_gannets_by_utp() {
    introduced_by(&[], gannet_relay, &["--no-tcp"]);
}

/// The relay is called by TCP, and takes the port that they say for the one that their uTP comes from.
#[test]
fn gannet_introduces_gannets_that_called_by_tcp() {
    introduced_by(&[], gannet_relay, &[]);
}

#[test]
fn libtorrent_introduces_gannets() {
    introduced_by(&[Tool::Libtorrent], libtorrent_relay, &["--no-tcp"]);
}
