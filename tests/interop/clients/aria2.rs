//! aria2: v1 only. It cannot be given the address of a peer: it is found by tracker, or called.

use std::path::Path;
use std::process::{self, Command};

use super::makers::Torrent;
use super::{Crypto, Peer};
use crate::lab::{Lab, again, free_port};
use crate::payload::Payload;
use crate::process::{PATIENCE, Running, run};

/// Loopback only. It stops should the test be killed. Its DHT has nobody to talk to; it is on because
/// aria2 announces to UDP trackers through the same socket, and without it does not announce to them at all.
fn command(lab: &Lab, port: u16, torrent: &Torrent, dir: &Path, crypto: Crypto) -> Command {
    let mut command = lab.command("aria2c");
    command
        .args(["--no-conf", "--enable-dht=true", "--enable-dht6=false", "--bt-enable-lpd=false"])
        .args([
            "--interface=127.0.0.1",
            "--disable-ipv6=true",
            "--file-allocation=none",
            "--summary-interval=0",
            "--console-log-level=notice",
        ])
        .args(["--enable-color=false", "--show-console-readout=false", "--follow-torrent=mem"])
        .arg(format!("--listen-port={port}"))
        .arg(format!("--dht-listen-port={port}"))
        .arg("--dht-file-path")
        .arg(lab.path(&format!("aria2-dht-{port}")))
        .arg(format!("--stop-with-process={}", process::id()))
        .arg("--dir")
        .arg(dir)
        .arg(&torrent.path);
    if crypto == Crypto::Forced {
        command.args(["--bt-require-crypto=true", "--bt-min-crypto-level=arc4"]);
    }
    command
}

/// Seeds; it is up when this returns.
pub fn seed(lab: &Lab, torrent: &Torrent, payload: &Payload, crypto: Crypto) -> Peer {
    again(|port| {
        let mut command = command(lab, port, torrent, &payload.parent, crypto);
        command.args([
            "--enable-peer-exchange=false",
            "--check-integrity=true",
            "--bt-hash-check-seed=true",
            "--seed-ratio=0",
        ]);
        let process = Running::start("aria2-seed", &mut command, &lab.path("logs"));
        Peer { process, port }.offers(torrent.wire_hash, crypto.manner())
    })
}

/// Downloads into `out` and ends when it is complete; it takes calls when this returns.
pub fn leech(lab: &Lab, torrent: &Torrent, out: &Path, crypto: Crypto) -> Peer {
    start_leech(lab, torrent, out, crypto, false)
}

/// The same, and listens to what peers tell of peers.
pub fn leech_with_pex(lab: &Lab, torrent: &Torrent, out: &Path) -> Peer {
    start_leech(lab, torrent, out, Crypto::Usual, true)
}

/// By a magnet link: it takes no calls before it knows what the torrent is.
pub fn leech_by_link(lab: &Lab, torrent: &Torrent, out: &Path) -> Peer {
    let port = free_port();
    let mut command = command(lab, port, torrent, out, Crypto::Usual);
    command.args(["--seed-time=0", "--bt-stop-timeout=60", "--enable-peer-exchange=false"]);
    Peer { process: Running::start("aria2-leech", &mut command, &lab.path("logs")), port }
}

fn start_leech(lab: &Lab, torrent: &Torrent, out: &Path, crypto: Crypto, pex: bool) -> Peer {
    again(|port| {
        let mut command = command(lab, port, torrent, out, crypto);
        command.args(["--seed-time=0", "--bt-stop-timeout=60"]).arg(format!("--enable-peer-exchange={pex}"));
        let process = Running::start("aria2-leech", &mut command, &lab.path("logs"));
        Peer { process, port }.answers(torrent.wire_hash, crypto.manner())
    })
}

/// Waits for the end of a download, and compares.
pub fn finish(mut leech: Peer, payload: &Payload, out: &Path) {
    let status = leech.process.wait(PATIENCE);
    assert!(status.success(), "aria2: {status}\n{}", leech.process.log());
    payload.assert_same(out);
}

/// The v1 info-hash as aria2 shows it, in lower case.
pub fn info_hash(lab: &Lab, torrent: &Path) -> String {
    let shown = run("aria2c", lab.command("aria2c").args(["--no-conf", "--show-files"]).arg(torrent));
    let line = shown.lines().find_map(|line| line.strip_prefix("Info Hash: "));
    line.unwrap_or_else(|| panic!("aria2 shows no info-hash:\n{shown}")).trim().to_lowercase()
}
