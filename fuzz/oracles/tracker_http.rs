//! Answers of HTTP trackers: bounded, clamped, printable, and never an address that cannot be dialled.

use std::net::SocketAddr;
use std::time::Duration;

use gannet::tracker::http::{failure_in, is_tracker_path, parse_announce, parse_scrape};
use gannet::tracker::{AnnounceResponse, Retry, TrackerError};

pub fn run(data: &[u8]) {
    match parse_announce(data) {
        Ok(answer) => {
            check(&answer);
            assert!(failure_in(data).is_none());
        }
        Err(error) => check_error(&error),
    }
    let asked = [[b'a'; 20], [b'b'; 20]];
    match parse_scrape(data, &asked) {
        Ok(answer) => {
            assert!(answer.files.iter().all(|file| asked.contains(&file.info_hash)) && answer.files.len() <= 2)
        }
        Err(error) => check_error(&error),
    }
    if let Some(url) = std::str::from_utf8(data).ok().and_then(|text| url::Url::parse(text).ok()) {
        let _ = is_tracker_path(&url);
    }
}

pub(super) fn check(answer: &AnnounceResponse) {
    assert!(answer.peers.len() <= 1_000);
    let dialable = |peer: &SocketAddr| peer.port() != 0 && !peer.ip().is_unspecified() && !peer.ip().is_multicast();
    assert!(answer.peers.iter().all(dialable));
    let sound = Duration::from_secs(60)..=Duration::from_secs(86_400);
    assert!(answer.interval.iter().chain(&answer.min_interval).all(|interval| sound.contains(interval)));
    assert!(answer.warning.as_deref().is_none_or(is_printable));
}

pub(super) fn check_error(error: &TrackerError) {
    let text = error.to_string();
    assert!(is_printable(&text) && text.chars().count() < 1_000, "{text:?}");
    if let TrackerError::Failure { retry: Some(Retry::After(after)), .. } = error {
        assert!(*after <= Duration::from_secs(86_400));
    }
}

fn is_printable(text: &str) -> bool {
    !text.chars().any(char::is_control)
}
