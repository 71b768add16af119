//! Events as NDJSON: one object per line, each with `event` and `time`.

use std::time::SystemTime;

use serde::Serialize;
use serde_json::{Value, json};

use super::exit::{Failure, without_os_numbers};
use super::time::rfc3339;
use crate::base::{InfoHash, printable};
use crate::session::{Event, State, Status, WebSeedState};

/// One line.
#[derive(Serialize)]
struct Line<'a> {
    event: &'a str,
    time: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    info_hash: Option<String>,
    #[serde(flatten)]
    body: &'a Value,
}

/// The line for an event called `event` at `time`, with the fields of `body` (an object), ending in a line break.
pub(super) fn line(event: &str, time: SystemTime, torrent: Option<&InfoHash>, body: &Value) -> String {
    let line = Line { event, time: rfc3339(time), info_hash: torrent.map(ToString::to_string), body };
    let text = serde_json::to_string(&line).unwrap_or_else(|_| json!({ "event": event }).to_string());
    escape(&text) + "\n"
}

/// A value as one line, ending in a line break.
pub(super) fn object(value: &Value) -> String {
    escape(&value.to_string()) + "\n"
}

/// JSON that says the same, without the characters that it allows and a terminal obeys (C1 controls, DEL) or that deceive
/// the eye. None of them stands outside of strings.
fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        let mut bytes = [0; 4];
        let own = &*c.encode_utf8(&mut bytes);
        if matches!(c, ' '..='~') || printable(own) == own {
            escaped.push(c);
        } else {
            for unit in c.encode_utf16(&mut [0; 2]) {
                escaped.push_str(&format!("\\u{unit:04x}"));
            }
        }
    }
    escaped
}

/// Both hashes, as hex or null.
pub(super) fn hashes(hash: &InfoHash) -> (Value, Value) {
    let text = |h: Option<String>| h.map_or(Value::Null, Value::String);
    (text(hash.as_v1().map(|h| h.to_string())), text(hash.as_v2().map(|h| h.to_string())))
}

/// The body of an `error` event.
pub(super) fn error(failure: &Failure) -> Value {
    json!({
        "code": failure.code as u8,
        "message": failure.to_string(),
        "path": failure.path.as_ref().map(|p| p.to_string_lossy()),
    })
}

/// A state in one word.
pub(super) fn state_word(state: State) -> &'static str {
    match state {
        State::Metadata => "metadata",
        State::Checking => "checking",
        State::Downloading => "downloading",
        State::Seeding => "seeding",
        State::DiskError => "disk_error",
        State::Failed => "failed",
        State::Stopped => "stopped",
    }
}

/// What a web seed does, in one word.
pub(super) fn web_seed_word(state: WebSeedState) -> &'static str {
    match state {
        WebSeedState::Serving => "serving",
        WebSeedState::Lacking => "lacking",
        WebSeedState::Failed => "failed",
        WebSeedState::Banned => "banned",
    }
}

/// The body of a `progress` event.
pub(super) fn progress(status: &Status) -> Value {
    json!({
        "state": state_word(status.state),
        "cause": status.cause,
        "down_rate": status.down_rate,
        "up_rate": status.up_rate,
        "downloaded": status.downloaded,
        "uploaded": status.uploaded,
        "wasted": status.wasted,
        "have_bytes": status.have_bytes,
        "wanted_bytes": status.wanted_bytes,
        "have_pieces": status.have_pieces,
        "piece_count": status.piece_count,
        "checked_bytes": status.checked_bytes,
        "peers": status.peers,
        "seeds": status.seeds,
        "candidates": status.candidates,
        "dht_nodes": status.dht_nodes,
        "metadata": status.metadata.map(|m| json!({
            "sources": m.sources,
            "pieces": m.pieces,
            "piece_count": m.piece_count,
        })),
        "web_seeds": status.web_seeds,
        "eta_seconds": status.eta.map(|eta| eta.as_secs()),
        "ratio": status.ratio,
    })
}

/// Name and body of the line for what a session reports; `None` for what is told in another way.
pub(super) fn event(event: &Event) -> Option<(&'static str, Value)> {
    Some(match event {
        Event::Piece { piece } => ("piece", json!({ "piece": piece })),
        Event::File { path } => ("file", json!({ "path": path.to_string_lossy() })),
        Event::PeerConnected { address, client, encrypted, utp } => {
            let client = printable(client);
            (
                "peer",
                json!({ "address": address, "client": client, "encrypted": encrypted, "utp": utp, "state": "connected" }),
            )
        }
        Event::PeerClosed { address, reason } => {
            ("peer", json!({ "address": address, "reason": printable(reason), "state": "closed" }))
        }
        Event::Tracker(report) => (
            "tracker",
            json!({
                "tracker": report.tracker,
                "peers": report.outcome.as_ref().ok(),
                "error": report.outcome.as_ref().err().map(|e| without_os_numbers(&printable(e))),
                "seeders": report.seeders,
                "leechers": report.leechers,
                "next_seconds": report.next.as_secs(),
            }),
        ),
        Event::Dht { answered, peers, announced } => {
            ("dht", json!({ "answered": answered, "peers": peers, "announced": announced }))
        }
        Event::WebSeed(report) => (
            "web_seed",
            json!({
                "web_seed": report.web_seed,
                "state": web_seed_word(report.state),
                "reason": report.reason.as_ref().map(|reason| without_os_numbers(&printable(reason))),
                "retry_seconds": report.retry.map(|retry| retry.as_secs()),
            }),
        ),
        Event::Warning { message } => ("warning", json!({ "message": printable(message) })),
        Event::DiskError(failure) => {
            let path = failure.path.as_ref().map(|path| path.to_string_lossy());
            ("disk_error", json!({ "message": printable(&failure.message), "path": path }))
        }
        Event::DiskMended => ("disk_mended", json!({})),
        Event::Seeding => ("seeding", json!({})),
        // Added, complete and failed are told by whoever adds torrents and waits for them, so none is ever missed.
        Event::Added { .. } | Event::Complete | Event::Failed(_) | Event::Stopped => return None,
        // What is told of it depends on where its data goes.
        Event::Metadata(_) | Event::PieceLayers(_) => return None,
    })
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use super::*;
    use crate::base::InfoHashV1;

    #[test]
    fn shape_of_a_line() {
        let hash = InfoHash::v1(InfoHashV1([0xab; 20]));
        let text = line("piece", UNIX_EPOCH + Duration::from_millis(1_500), Some(&hash), &json!({ "piece": 7 }));
        assert_eq!(
            text,
            format!(
                "{{\"event\":\"piece\",\"time\":\"1970-01-01T00:00:01.500Z\",\"info_hash\":\"{}\",\"piece\":7}}\n",
                "ab".repeat(20)
            )
        );
        assert_eq!(hashes(&hash).1, Value::Null);
    }

    #[test]
    fn no_character_steers_a_terminal() {
        let value = json!({ "a": "\u{9b}2J \u{7f}\u{202e} \u{e0041} \n é 日" });
        let text = object(&value);
        assert_eq!(text, "{\"a\":\"\\u009b2J \\u007f\\u202e \\udb40\\udc41 \\n é 日\"}\n");
        assert_eq!(serde_json::from_str::<Value>(&text).unwrap(), value);
    }

    #[test]
    fn strangers_words_are_made_safe() {
        let event = Event::PeerClosed { address: ([127, 0, 0, 1], 1).into(), reason: "a\x1b[2Jb\nc".to_owned() };
        let (name, body) = super::event(&event).unwrap();
        assert_eq!((name, body["reason"].as_str()), ("peer", Some("a[2Jb c")));
        let text = line(name, UNIX_EPOCH, None, &body);
        assert_eq!(text.bytes().filter(|b| *b < b' ').count(), 1);
    }
}
