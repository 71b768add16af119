//! Magnet links: what was taken is written so that it is taken again, and no list is longer than it may be.

use gannet::metainfo::Magnet;
use gannet::metainfo::limits::{MAX_MAGNET_RANGES, MAX_MAGNET_URLS};
use gannet::metainfo::{Speaks, WebSeedUrl};
use gannet::tracker::TrackerUrl;

pub fn run(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    if let Ok(url) = TrackerUrl::parse(text) {
        assert!(TrackerUrl::parse(&url.to_string()).is_ok() || url.to_string() != text);
    }
    if let Some(url) = WebSeedUrl::parse(text, Speaks::Files) {
        assert_eq!(url.speaks(), Speaks::Files);
    }
    let Ok(magnet) = Magnet::parse(text) else { return };
    assert!(magnet.trackers.len() <= MAX_MAGNET_URLS && magnet.web_seeds.len() <= MAX_MAGNET_URLS);
    assert!(magnet.peers.len() <= MAX_MAGNET_URLS && magnet.select.len() <= MAX_MAGNET_RANGES);
    assert!(magnet.select.iter().all(|range| range.start() <= range.end()));
    let again = magnet.to_string();
    // What is escaped may make it longer than a link may be; else it says the same.
    if again.len() <= gannet::metainfo::limits::MAX_MAGNET_LEN {
        assert_eq!(Magnet::parse(&again).as_ref(), Ok(&magnet), "{again}");
    }
}
