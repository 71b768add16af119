//! Transmission's `transmission-cli`: v1 only. It never calls an address of 127.0.0.0/8, so it has to be called.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use super::makers::Torrent;
use super::{Carrier, Crypto, Peer};
use crate::lab::{Lab, again};
use crate::payload::Payload;
use crate::process::{PATIENCE, Running, poll, run};

/// Its `-f` script leaves this file when a download is complete; the program itself runs on.
const FINISHED: &str = "finished";

fn start(lab: &Lab, name: &str, port: u16, torrent: &Torrent, dir: &Path, crypto: Crypto, carrier: Carrier) -> Peer {
    let (encryption, flag) = if crypto == Crypto::Forced { (2, "-er") } else { (0, "-et") };
    let config = lab.folder(&format!("{name}-{port}"));
    let settings = serde_json::json!({
        "bind-address-ipv4": "127.0.0.1", "bind-address-ipv6": "::1", "dht-enabled": false, "encryption": encryption,
        "lpd-enabled": false, "peer-port": port, "pex-enabled": false, "port-forwarding-enabled": false,
        "rpc-enabled": false, "utp-enabled": carrier == Carrier::Utp,
    });
    fs::write(config.join("settings.json"), settings.to_string()).expect("a settings file");
    let script = config.join("finish");
    fs::write(&script, format!("#!/bin/sh\n: > '{}'\n", lab.path(FINISHED).display())).expect("a script");
    fs::set_permissions(&script, fs::Permissions::from_mode(0o755)).expect("a script that can be run");
    let mut command = lab.command("transmission-cli");
    command.args(["-M", flag, "-p", &port.to_string(), "-g"]).arg(&config).arg("-f").arg(&script);
    command.arg("-w").arg(dir).arg(&torrent.path);
    Peer { process: Running::start(name, &mut command, &lab.path("logs")), port }
}

/// Seeds; it is up when this returns.
pub fn seed(lab: &Lab, torrent: &Torrent, payload: &Payload, crypto: Crypto) -> Peer {
    seed_over(lab, torrent, payload, crypto, Carrier::Tcp)
}

/// The same over `carrier`.
pub fn seed_over(lab: &Lab, torrent: &Torrent, payload: &Payload, crypto: Crypto, carrier: Carrier) -> Peer {
    again(|port| {
        let started = start(lab, "transmission-seed", port, torrent, &payload.parent, crypto, carrier);
        started.offers(torrent.wire_hash, crypto.manner())
    })
}

/// Downloads into `out`; it takes calls when this returns.
pub fn leech(lab: &Lab, torrent: &Torrent, out: &Path, crypto: Crypto) -> Peer {
    leech_over(lab, torrent, out, crypto, Carrier::Tcp)
}

/// The same over `carrier`.
pub fn leech_over(lab: &Lab, torrent: &Torrent, out: &Path, crypto: Crypto, carrier: Carrier) -> Peer {
    again(|port| {
        let started = start(lab, "transmission-leech", port, torrent, out, crypto, carrier);
        started.answers(torrent.wire_hash, crypto.manner())
    })
}

/// By a magnet link. It is not greeted before: whoever has been connected is let in again only after some seconds.
pub fn leech_by_link(lab: &Lab, torrent: &Torrent, out: &Path) -> Peer {
    again(|port| start(lab, "transmission-leech", port, torrent, out, Crypto::Usual, Carrier::Tcp).listens())
}

/// Waits until a download is complete, and compares.
pub fn finish(mut leech: Peer, lab: &Lab, payload: &Payload, out: &Path) {
    leech.process.until("the end of the download", |_| lab.path(FINISHED).exists().then_some(()));
    // The script runs before the last of the files has its final name. Files of no bytes it does not make at all.
    let difference = || payload.difference(&out.join(payload.name), true);
    if poll(PATIENCE / 6, || difference().is_none().then_some(())).is_none() {
        panic!("in {}: {:?}", out.display(), difference());
    }
}

/// The v1 info-hash as Transmission shows it.
pub fn info_hash(lab: &Lab, torrent: &Path) -> String {
    let shown = run("transmission-show", lab.command("transmission-show").arg(torrent));
    let line = shown.lines().find_map(|line| line.trim().strip_prefix("Hash: "));
    line.unwrap_or_else(|| panic!("transmission-show shows no info-hash:\n{shown}")).trim().to_owned()
}
