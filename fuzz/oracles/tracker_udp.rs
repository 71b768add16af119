//! Announces and scrapes over UDP: only what answers us counts, and it keeps asking at a decent pace.

use std::time::{Duration, Instant};

use gannet::base::PeerId;
use gannet::tracker::udp::{Exchange, FIRST_TIMEOUT, MAX_SCRAPE, Request, Response};
use gannet::tracker::{Announce, AnnounceEvent, Family, TrackerUrl};

use super::tape::Tape;
use super::tracker_http::{check, check_error};

const TIDS: [u32; 2] = [0x0102_0304, 0x0506_0708];

pub fn run(data: &[u8]) {
    let mut tape = Tape(data);
    let flags = tape.byte();
    let request = if flags & 1 == 0 {
        let tracker = TrackerUrl::parse("udp://tracker.example:6969/announce?key=1").unwrap();
        Request::announce(&tracker, announce())
    } else {
        Request::Scrape(vec![[flags; 20]; usize::from(flags)])
    };
    let family = if flags & 2 == 0 { Family::V4 } else { Family::V6 };
    let mut now = Instant::now();
    let mut exchange = Exchange::new(now, request, family, TIDS, FIRST_TIMEOUT);
    let (mut sent, mut waited, mut heard) = (0u32, Duration::ZERO, 0u32);
    while !tape.is_over() {
        while let Some(packet) = exchange.poll_transmit(now) {
            sent += 1;
            assert!((16..=1_500).contains(&packet.len()));
        }
        let step = tape.byte();
        if step & 3 == 0 {
            let wait = Duration::from_millis(u64::from(tape.word()) * 10);
            (now, waited) = (now + wait, waited + wait);
            if now >= exchange.poll_timeout() {
                exchange.handle_timeout(now);
            }
            continue;
        }
        let len = usize::from(tape.word()) % 2_048;
        let mut datagram = tape.bytes(len).to_vec();
        let ours = step & 4 != 0 && datagram.len() >= 8;
        if ours {
            // It cannot guess the transaction: what may be answered is answered.
            datagram[4..8].copy_from_slice(&TIDS[usize::from(step >> 3 & 1)].to_be_bytes());
        }
        heard += 1;
        let known = datagram.get(4..8).is_some_and(|tid| TIDS.iter().any(|ours| ours.to_be_bytes() == tid));
        match exchange.handle_datagram(now, &datagram) {
            None => {}
            Some(_) if !known => panic!("an answer to another's question"),
            Some(Ok(Response::Announce(answer))) => check(&answer),
            Some(Ok(Response::Scrape(answer))) => assert!(answer.files.len() <= MAX_SCRAPE.min(usize::from(flags))),
            Some(Err(error)) => check_error(&error),
        }
    }
    // One at the beginning, one for each answer, and one for every timeout, of which the first is 15 s.
    assert!(u64::from(sent) <= 1 + u64::from(heard) + waited.as_secs() / 15 + 1, "{sent} packets in {waited:?}");
}

fn announce() -> Announce {
    Announce {
        info_hash: [1; 20],
        peer_id: PeerId([2; 20]),
        port: 6881,
        uploaded: 3,
        downloaded: 4,
        left: 5,
        event: AnnounceEvent::Started,
        numwant: 200,
        key: 6,
        tracker_id: None,
        ip: None,
    }
}
