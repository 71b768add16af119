//! gannet itself, as users run it.

use std::env;
use std::ffi::OsString;
use std::path::Path;
use std::process::Command;

use serde_json::Value;

use super::Peer;
use super::makers::Torrent;
use crate::lab::{Lab, again};
use crate::payload::Payload;
use crate::probe::Manner;
use crate::process::{PATIENCE, Running, run};

/// The binary that cargo has just built, or `$GANNET_INTEROP_BINARY`.
fn command(lab: &Lab) -> Command {
    lab.command(binary())
}

/// Where it is.
pub fn binary() -> OsString {
    env::var_os("GANNET_INTEROP_BINARY").unwrap_or_else(|| OsString::from(env!("CARGO_BIN_EXE_gannet")))
}

/// Nothing beyond this machine, nothing left behind.
fn isolated<'a>(lab: &Lab, command: &'a mut Command, name: &str) -> &'a mut Command {
    command
        .args(["--no-dht", "--no-lsd", "--no-port-mapping", "--state-dir"])
        .arg(lab.path(&format!("gannet-{name}-state")))
}

/// Seeds, and calls `peers`; it is up when this returns.
pub fn seed(lab: &Lab, torrent: &Torrent, payload: &Payload, peers: &[String]) -> Peer {
    seed_told(lab, torrent, payload, peers, &[])
}

/// The same with this `--encryption`.
pub fn seed_with(lab: &Lab, torrent: &Torrent, payload: &Payload, peers: &[String], encryption: &str) -> Peer {
    seed_told(lab, torrent, payload, peers, &["--encryption", encryption])
}

/// The same with these options.
pub fn seed_told(lab: &Lab, torrent: &Torrent, payload: &Payload, peers: &[String], options: &[&str]) -> Peer {
    let manner = if options.contains(&"require") { Manner::Encrypted } else { Manner::Plain };
    again(|port| {
        let mut command = command(lab);
        command.arg("seed").arg(&torrent.path).arg(payload.path());
        command.args(["--listen", &format!("127.0.0.1:{port}"), "--json"]).args(options);
        for peer in peers {
            command.args(["--peer", peer]);
        }
        let process = Running::start("gannet-seed", isolated(lab, &mut command, "seed"), &lab.path("logs"));
        Peer { process, port }.offers(torrent.wire_hash, manner)
    })
}

/// Makes a torrent and seeds it with one command; the torrent is what the link that it prints says. It is up when this returns.
pub fn share(lab: &Lab, payload: &Payload, format: &str) -> (Peer, Torrent) {
    let path = lab.folder("torrents").join("shared.torrent");
    let peer = again(|port| {
        let mut command = command(lab);
        command.arg("share").arg(payload.path()).arg("--output").arg(&path).args(["--force", "--format", format]);
        command.args(["--listen", &format!("127.0.0.1:{port}")]);
        let mut process = Running::start("gannet-share", isolated(lab, &mut command, "share"), &lab.path("logs"));
        process.try_until("its link", PATIENCE, |process| process.stdout().ends_with('\n').then_some(()))?;
        let wire_hash = Torrent::load(path.clone()).wire_hash;
        Peer { process, port }.offers(wire_hash, Manner::Plain)
    });
    let (link, wire_hash) = (peer.process.stdout().trim().to_owned(), Torrent::load(path).wire_hash);
    (peer, Torrent { path: link.clone().into(), link, wire_hash })
}

/// Downloads slowly and gives nothing: others are met through it, and that is all it is good for. It takes calls when this
/// returns.
pub fn relay(lab: &Lab, torrent: &Torrent, peers: &[String]) -> Peer {
    again(|port| {
        let mut command = command(lab);
        command.arg("get").arg(&torrent.path).arg("--dir").arg(lab.folder("relay")).args(["--seed", "--json"]);
        command.args(["--limit-up", "1", "--limit-down", "32KiB", "--listen", &format!("127.0.0.1:{port}")]);
        for peer in peers {
            command.args(["--peer", peer]);
        }
        let process = Running::start("gannet-relay", isolated(lab, &mut command, "relay"), &lab.path("logs"));
        Peer { process, port }.answers(torrent.wire_hash, Manner::Plain)
    })
}

/// Seeds by uTP only, and calls `peers`; it is up when this returns.
pub fn seed_by_utp(lab: &Lab, torrent: &Torrent, payload: &Payload, peers: &[String], encryption: &str) -> Peer {
    again(|port| {
        let mut command = command(lab);
        command.arg("seed").arg(&torrent.path).arg(payload.path());
        command.args(["--listen", &format!("127.0.0.1:{port}"), "--json", "--no-tcp", "--encryption", encryption]);
        for peer in peers {
            command.args(["--peer", peer]);
        }
        let mut process = Running::start("gannet-seed", isolated(lab, &mut command, "seed"), &lab.path("logs"));
        process.try_until("the data to be checked", PATIENCE, |process| {
            process.stdout().contains("\"event\":\"seeding\"").then_some(())
        })?;
        Ok(Peer { process, port })
    })
}

/// Downloads into `out` from `peers` and whom the trackers name, compares, and returns what it reported.
pub fn get(lab: &Lab, torrent: &Torrent, payload: &Payload, out: &Path, peers: &[String]) -> Vec<Value> {
    get_with(lab, torrent, payload, out, peers, "allow")
}

/// The same with this `--encryption`.
pub fn get_with(
    lab: &Lab,
    torrent: &Torrent,
    payload: &Payload,
    out: &Path,
    peers: &[String],
    encryption: &str,
) -> Vec<Value> {
    let peers = peers.iter().flat_map(|peer| ["--peer", peer]);
    get_told(lab, torrent, payload, out, &["--encryption", encryption].into_iter().chain(peers).collect::<Vec<_>>())
}

/// The same with these options.
pub fn get_told(lab: &Lab, torrent: &Torrent, payload: &Payload, out: &Path, options: &[&str]) -> Vec<Value> {
    let mut command = command(lab);
    command.arg("get").arg(&torrent.path).arg("--dir").arg(out);
    command.args(["--listen", "127.0.0.1:0", "--timeout", "60s", "--json"]).args(options);
    let mut process = Running::start("gannet-get", isolated(lab, &mut command, "get"), &lab.path("logs"));
    let status = process.wait(PATIENCE * 2);
    assert!(status.success(), "gannet get: {status}\n{}", process.log());
    payload.assert_same(out);
    let events: Vec<Value> = process
        .stdout()
        .lines()
        .map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("not JSON: {error}: {line}")))
        .collect();
    let seen = |kind: &str| events.iter().any(|event| event["event"] == kind);
    assert!(seen("complete") && seen("summary") && !seen("error"), "{}", process.log());
    events
}

/// `gannet create`.
pub fn create(lab: &Lab, payload: &Payload, format: &str, more: &[&str]) -> Torrent {
    let path = lab.folder("torrents").join(format!("gannet-{format}.torrent"));
    let mut command = command(lab);
    command.arg("create").arg(payload.path()).arg("--output").arg(&path).args(["--format", format]).args(more);
    run("gannet create", &mut command);
    Torrent::load(path)
}

/// `gannet info --json`.
pub fn info(lab: &Lab, torrent: &Path) -> Value {
    let mut command = command(lab);
    command.args(["info", "--json", "--listen", "127.0.0.1:0"]).arg(torrent);
    let shown = run("gannet info", isolated(lab, &mut command, "info"));
    serde_json::from_str(&shown).unwrap_or_else(|error| panic!("not one JSON object: {error}: {shown}"))
}
