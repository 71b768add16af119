//! T8, and row 30 of `docs/bug-classes.md`: servers on the internet that redirect trackers and web seeds of a torrent to what
//! is on this machine or beside it. Here the internet is an address of a public range on a host of its own.

use std::fs;

use crate::clients::gannet;
use crate::lab::{Lab, Tool};
use crate::namespaces::Net;
use crate::payload::{Payload, Shape};
use crate::process::{PATIENCE, Running, poll};

const SERVER: &str = "9.9.9.9:8000";

/// Each leads to the port at which nobody may knock.
const INWARDS: [&str; 14] = [
    "http://127.0.0.1:9000/announce",
    "http://127.1:9000/announce",
    "http://2130706433:9000/announce",
    "http://0x7f.0.0.1:9000/announce",
    "http://[::1]:9000/announce",
    "http://[::ffff:127.0.0.1]:9000/announce",
    "http://[::ffff:7f00:1]:9000/announce",
    "http://0.0.0.0:9000/announce",
    "http://[::]:9000/announce",
    "http://localhost:9000/announce",
    "//127.0.0.1:9000/announce",
    "http://10.0.0.7:9000/announce",
    "http://169.254.169.254:9000/latest/meta-data/announce",
    // By way of another redirect.
    "http://9.9.9.9:8000/0/announce",
];

#[test]
fn t8_no_redirect_leads_inwards() {
    let Some(lab) = Lab::with(&[Tool::Namespaces, Tool::Python]) else { return };
    let mut net = Net::new(&lab);
    let host = net.host();
    for address in ["9.9.9.9/32", "10.0.0.7/32", "169.254.169.254/32"] {
        net.ip(&format!("-n {host} addr add {address} dev lo"));
    }
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/interop/redirects.py");
    let mut command = net.command(&host, "python3");
    let mut server = Running::start("redirects", command.args([script, "9.9.9.9", "8000", "9000"]), &lab.path("logs"));
    for location in INWARDS {
        server.write_line(location);
    }
    // This one may be followed: the tracker has moved.
    server.write_line("http://9.9.9.9:8000/moved/announce");
    server.close_stdin();
    server.until("that it is ready", |server| server.stdout().contains("ready").then_some(()));
    let payload = Payload::new(&lab, Shape::Single);
    let mut named = Vec::new();
    for n in 0..=INWARDS.len() {
        named.extend(["--tracker".to_owned(), format!("http://{SERVER}/{n}/announce")]);
        named.extend(["--web-seed".to_owned(), format!("http://{SERVER}/{n}/announce")]);
    }
    let named: Vec<&str> = named.iter().map(String::as_str).collect();
    let torrent = gannet::create(&lab, &payload, "v1", &named);
    let mut command = net.command(&host, gannet::binary());
    command.arg("get").arg(&torrent.path).arg("--dir").arg(lab.folder("out")).args(["-vvv", "--timeout", "30s"]);
    command.args(["--no-dht", "--no-lsd", "--no-port-mapping", "--no-utp", "--state-dir"]).arg(lab.path("state"));
    let mut get = Running::start("gannet-get", &mut command, &lab.path("logs"));
    let asked = |what: String| server.stdout().lines().filter(|line| line.starts_with(&what)).count();
    let all = || {
        let each = (0..=INWARDS.len()).all(|n| asked(format!("asked /{n}/announce")) >= 2);
        // As a tracker, and as a web seed.
        (each && asked("asked /moved/announce".to_owned()) >= 2).then_some(())
    };
    assert!(poll(PATIENCE, all).is_some(), "not all were asked\n{}\n{}", server.stdout(), get.log());
    get.interrupt();
    get.wait(PATIENCE);
    let said = server.stdout();
    assert!(!said.contains("knock"), "{said}\n{}", get.log());
    assert!(fs::read_dir(lab.path("out")).unwrap().count() <= 1);
    // The canary is awake.
    net.command(&host, "python3")
        .args(["-c", "import socket; socket.create_connection(('127.0.0.1', 9000))"])
        .status()
        .unwrap();
    server.until("the knock", |server| server.stdout().contains("knock 127.0.0.1").then_some(()));
}
