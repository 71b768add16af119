//! libtorrent (of qBittorrent, Deluge) through `libtorrent_peer.py`: v1, v2 and hybrid.

use std::path::Path;
use std::process::Command;

use serde_json::Value;

use super::makers::Torrent;
use super::{Carrier, Crypto, Peer};
use crate::lab::{Lab, python};
use crate::payload::Payload;
use crate::process::{Running, run};

/// The script with the python that can run it.
pub fn command(lab: &Lab) -> Command {
    let mut command = lab.command(python().expect("asked for by Lab::with"));
    command.arg(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/interop/libtorrent_peer.py"));
    command
}

/// The first event of this kind that it has reported.
fn event(process: &Running, kind: &str) -> Option<Value> {
    let events = process.stdout();
    // Only whole lines: the last one may be under way.
    let lines = events.split_inclusive('\n').filter(|line| line.ends_with('\n'));
    lines.filter_map(|line| serde_json::from_str::<Value>(line).ok()).find(|event| event["event"] == kind)
}

fn start(
    lab: &Lab,
    mode: &str,
    torrent: &Torrent,
    dir: &Path,
    peers: &[String],
    crypto: Crypto,
    carrier: Carrier,
) -> Peer {
    let mut command = command(lab);
    command.arg(mode).arg(&torrent.path).arg(dir);
    for peer in peers {
        command.args(["--peer", peer]);
    }
    let encryption = match crypto {
        Crypto::Usual => "plaintext",
        Crypto::Tolerated => "either",
        Crypto::Forced => "rc4",
    };
    command.args(["--encryption", encryption]);
    if carrier == Carrier::Utp {
        command.arg("--utp");
    }
    let mut process = Running::start(&format!("libtorrent-{mode}"), &mut command, &lab.path("logs"));
    let port = process.until("its port", |process| event(process, "listening"));
    let port = port["port"].as_u64().and_then(|port| u16::try_from(port).ok()).expect("a port");
    Peer { process, port }
}

/// Seeds, and calls `peers`; it is up when this returns.
pub fn seed(lab: &Lab, torrent: &Torrent, payload: &Payload, peers: &[String], crypto: Crypto) -> Peer {
    seed_over(lab, torrent, payload, peers, crypto, Carrier::Tcp)
}

/// The same over `carrier`.
pub fn seed_over(
    lab: &Lab,
    torrent: &Torrent,
    payload: &Payload,
    peers: &[String],
    crypto: Crypto,
    carrier: Carrier,
) -> Peer {
    let mut peer = start(lab, "seed", torrent, &payload.parent, peers, crypto, carrier);
    peer.process.until("the data to be checked", |process| event(process, "ready"));
    peer
}

/// Downloads into `out` from `peers` and whom the trackers name.
pub fn leech(lab: &Lab, torrent: &Torrent, out: &Path, peers: &[String], crypto: Crypto) -> Peer {
    leech_over(lab, torrent, out, peers, crypto, Carrier::Tcp)
}

/// The same over `carrier`.
pub fn leech_over(
    lab: &Lab,
    torrent: &Torrent,
    out: &Path,
    peers: &[String],
    crypto: Crypto,
    carrier: Carrier,
) -> Peer {
    start(lab, "leech", torrent, out, peers, crypto, carrier)
}

/// Waits until a download is complete, and compares.
pub fn finish(mut leech: Peer, payload: &Payload, out: &Path) {
    leech.process.until("the end of the download", |process| event(process, "complete"));
    // Everything is on disk once the session has been closed.
    leech.process.close_stdin();
    let status = leech.process.wait(crate::process::PATIENCE);
    assert!(status.success(), "libtorrent: {status}\n{}", leech.process.log());
    payload.assert_same(out);
}

/// What libtorrent reads in a torrent file, in the words of `gannet info --json` (`trackers` without tiers).
pub fn info(lab: &Lab, torrent: &Path) -> Value {
    let shown = run("libtorrent_peer.py info", command(lab).arg("info").arg(torrent));
    serde_json::from_str(&shown).expect("one JSON object")
}
