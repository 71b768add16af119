//! Announce and scrape over UDP, without a socket (BEP 15, BEP 41).
//!
//! [`Exchange`] is one request with its connect before it: what to send, what came, when to send again.

use std::time::{Duration, Instant};

use super::announce::{clamp_interval, compact_peers};
use super::{
    Announce, AnnounceEvent, AnnounceResponse, Family, ScrapeEntry, ScrapeResponse, TrackerError, TrackerUrl, printable,
};

/// The number that every connect begins with (BEP 15).
const PROTOCOL_ID: u64 = 0x417_2710_1980;

const CONNECT: u32 = 0;
const ANNOUNCE: u32 = 1;
const SCRAPE: u32 = 2;
const ERROR: u32 = 3;

/// How long a connection id may be used after it came (BEP 15).
pub const CONNECTION_ID_LIFETIME: Duration = Duration::from_secs(60);

/// The first wait for an answer; each further one is twice as long, up to eight doublings (BEP 15).
pub const FIRST_TIMEOUT: Duration = Duration::from_secs(15);

/// Doublings of the wait.
const MAX_DOUBLINGS: u32 = 8;

/// Torrents in one scrape (BEP 15).
pub const MAX_SCRAPE: usize = 74;

/// Bytes of an answer that make sense: the largest datagram.
pub const MAX_DATAGRAM: usize = 65_535;

/// BEP 41: the option that carries path and query, at most 255 bytes at a time.
const URL_DATA: u8 = 2;

/// Bytes of path and query that are sent; more would not fit a packet of 1,200 bytes, which passes everywhere.
const MAX_URL_DATA: usize = 1000;

/// Characters of an error message that we show.
const MAX_TEXT: usize = 200;

/// What is asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Request {
    /// An announce, and path and query of the tracker's URL (BEP 41).
    Announce {
        /// The numbers.
        announce: Announce,
        /// Path and query, or nothing.
        url_data: String,
    },
    /// A scrape of at most [`MAX_SCRAPE`] torrents; more are not asked for.
    Scrape(Vec<[u8; 20]>),
}

impl Request {
    /// An announce to `tracker`.
    pub fn announce(tracker: &TrackerUrl, announce: Announce) -> Self {
        let path = tracker.path_and_query();
        let sent = path != "/" && path.len() <= MAX_URL_DATA;
        Self::Announce { announce, url_data: if sent { path } else { String::new() } }
    }
}

/// What came back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Response {
    /// To an announce.
    Announce(AnnounceResponse),
    /// To a scrape.
    Scrape(ScrapeResponse),
}

/// One request to one address: connect, ask, and both again while no answer comes.
///
/// The owner sends what [`poll_transmit`](Self::poll_transmit) gives, hands in every datagram, calls
/// [`handle_timeout`](Self::handle_timeout) at [`poll_timeout`](Self::poll_timeout), and gives up when it likes.
#[derive(Debug)]
pub struct Exchange {
    request: Request,
    family: Family,
    connect_tid: u32,
    request_tid: u32,
    connection: Option<Connection>,
    first_timeout: Duration,
    doublings: u32,
    timeout: Instant,
    transmit: bool,
}

#[derive(Debug, Clone, Copy)]
struct Connection {
    id: u64,
    expires: Instant,
}

impl Exchange {
    /// Begins. The two transaction ids must be random: they are what keeps others from answering in the tracker's place.
    pub fn new(now: Instant, request: Request, family: Family, tids: [u32; 2], first_timeout: Duration) -> Self {
        let [connect_tid, request_tid] = tids;
        Self {
            request,
            family,
            connect_tid,
            request_tid,
            connection: None,
            first_timeout,
            doublings: 0,
            timeout: now + first_timeout,
            transmit: true,
        }
    }

    /// The packet to send now, if one is due.
    pub fn poll_transmit(&mut self, now: Instant) -> Option<Vec<u8>> {
        if !std::mem::take(&mut self.transmit) {
            return None;
        }
        self.timeout = now + self.first_timeout * 2u32.pow(self.doublings);
        if self.connection.is_some_and(|c| c.expires <= now) {
            self.connection = None;
        }
        Some(match (&self.connection, &self.request) {
            (None, _) => connect_packet(self.connect_tid),
            (Some(c), Request::Announce { announce, url_data }) => {
                announce_packet(c.id, self.request_tid, announce, url_data)
            }
            (Some(c), Request::Scrape(hashes)) => scrape_packet(c.id, self.request_tid, hashes),
        })
    }

    /// When to call [`handle_timeout`](Self::handle_timeout).
    pub fn poll_timeout(&self) -> Instant {
        self.timeout
    }

    /// Nothing came: sends again, and waits twice as long.
    pub fn handle_timeout(&mut self, now: Instant) {
        if now >= self.timeout && !self.transmit {
            self.doublings = (self.doublings + 1).min(MAX_DOUBLINGS);
            self.transmit = true;
        }
    }

    /// A datagram from the tracker's address. `None`: it answers nothing that we asked, or only took us one step
    /// further; `Some` is the end.
    pub fn handle_datagram(&mut self, now: Instant, datagram: &[u8]) -> Option<Result<Response, TrackerError>> {
        let mut rest = datagram;
        let action = take_u32(&mut rest)?;
        let tid = take_u32(&mut rest)?;
        let awaited = if self.connection.is_some() { self.request_tid } else { self.connect_tid };
        if tid != awaited {
            return None;
        }
        match (action, self.connection, &self.request) {
            (ERROR, ..) => {
                let reason = Some(printable(rest, MAX_TEXT)).filter(|text| !text.is_empty());
                let reason = reason.unwrap_or_else(|| "refused without a reason".into());
                Some(Err(TrackerError::Failure { reason, retry: None }))
            }
            (CONNECT, None, _) => {
                let id = u64::from_be_bytes(*rest.first_chunk()?);
                self.connection = Some(Connection { id, expires: now + CONNECTION_ID_LIFETIME });
                self.doublings = 0;
                self.transmit = true;
                None
            }
            (ANNOUNCE, Some(_), Request::Announce { .. }) => {
                let interval = take_u32(&mut rest)?;
                let leechers = take_u32(&mut rest)?;
                let seeders = take_u32(&mut rest)?;
                let mut peers = Vec::new();
                compact_peers(rest, self.family, &mut peers);
                Some(Ok(Response::Announce(AnnounceResponse {
                    peers,
                    seeders: Some(seeders),
                    leechers: Some(leechers),
                    interval: Some(clamp_interval(interval.into())),
                    ..AnnounceResponse::default()
                })))
            }
            (SCRAPE, Some(_), Request::Scrape(asked)) => {
                let mut files = Vec::new();
                for info_hash in asked.iter().take(MAX_SCRAPE) {
                    let (Some(seeders), Some(downloaded), Some(leechers)) =
                        (take_u32(&mut rest), take_u32(&mut rest), take_u32(&mut rest))
                    else {
                        break;
                    };
                    files.push(ScrapeEntry { info_hash: *info_hash, seeders, leechers, downloaded });
                }
                Some(Ok(Response::Scrape(ScrapeResponse { files })))
            }
            _ => None,
        }
    }
}

fn take_u32(rest: &mut &[u8]) -> Option<u32> {
    let (head, tail) = rest.split_first_chunk::<4>()?;
    *rest = tail;
    Some(u32::from_be_bytes(*head))
}

fn connect_packet(tid: u32) -> Vec<u8> {
    let mut packet = Vec::with_capacity(16);
    packet.extend(PROTOCOL_ID.to_be_bytes()); //  0
    packet.extend(CONNECT.to_be_bytes()); //      8
    packet.extend(tid.to_be_bytes()); //         12
    packet
}

fn announce_packet(connection_id: u64, tid: u32, announce: &Announce, url_data: &str) -> Vec<u8> {
    let event: u32 = match announce.event {
        AnnounceEvent::None => 0,
        AnnounceEvent::Completed => 1,
        AnnounceEvent::Started => 2,
        AnnounceEvent::Stopped => 3,
    };
    let ip = match announce.ip {
        Some(std::net::IpAddr::V4(ip)) => ip.octets(),
        _ => [0; 4],
    };
    let mut packet = Vec::with_capacity(98 + url_data.len() + 2 * (url_data.len() / 255 + 1));
    packet.extend(connection_id.to_be_bytes()); //         0
    packet.extend(ANNOUNCE.to_be_bytes()); //              8
    packet.extend(tid.to_be_bytes()); //                  12
    packet.extend(announce.info_hash); //                 16
    packet.extend(announce.peer_id.0); //                 36
    packet.extend(announce.downloaded.to_be_bytes()); //  56
    packet.extend(announce.left.to_be_bytes()); //        64
    packet.extend(announce.uploaded.to_be_bytes()); //    72
    packet.extend(event.to_be_bytes()); //                80
    packet.extend(ip); //                                 84
    packet.extend(announce.key.to_be_bytes()); //         88
    packet.extend(announce.numwant.to_be_bytes()); //     92
    packet.extend(announce.port.to_be_bytes()); //        96
    for part in url_data.as_bytes().chunks(255) {
        packet.push(URL_DATA); //                         98
        packet.push(u8::try_from(part.len()).unwrap_or(0));
        packet.extend(part);
    }
    packet
}

fn scrape_packet(connection_id: u64, tid: u32, hashes: &[[u8; 20]]) -> Vec<u8> {
    let mut packet = Vec::with_capacity(16 + 20 * hashes.len().min(MAX_SCRAPE));
    packet.extend(connection_id.to_be_bytes()); //  0
    packet.extend(SCRAPE.to_be_bytes()); //         8
    packet.extend(tid.to_be_bytes()); //           12
    packet.extend(hashes.iter().take(MAX_SCRAPE).flatten()); // 16
    packet
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::PeerId;
    use proptest::prelude::*;

    fn announce() -> Announce {
        Announce {
            info_hash: [1; 20],
            peer_id: PeerId([2; 20]),
            port: 0x1ae1,
            uploaded: 3,
            downloaded: 4,
            left: 5,
            event: AnnounceEvent::Started,
            numwant: 200,
            key: 0xdead_beef,
            tracker_id: None,
            ip: None,
        }
    }

    const TIDS: [u32; 2] = [0x0102_0304, 0x0506_0708];

    fn exchange(now: Instant, url: &str) -> Exchange {
        let tracker = TrackerUrl::parse(url).unwrap();
        Exchange::new(now, Request::announce(&tracker, announce()), Family::V4, TIDS, FIRST_TIMEOUT)
    }

    fn after(start: Instant, seconds: u64) -> Instant {
        start + Duration::from_secs(seconds)
    }

    fn connected(tid: u32) -> Vec<u8> {
        [&CONNECT.to_be_bytes()[..], &tid.to_be_bytes(), &77u64.to_be_bytes()].concat()
    }

    #[test]
    fn packets_byte_for_byte() {
        let now = Instant::now();
        let mut e = exchange(now, "udp://h:1/announce?x=y");
        assert_eq!(e.poll_transmit(now).unwrap(), b"\0\0\x04\x17\x27\x10\x19\x80\0\0\0\0\x01\x02\x03\x04");
        assert_eq!(e.poll_transmit(now), None);
        assert_eq!(e.handle_datagram(now, &connected(TIDS[0])), None);
        let packet = e.poll_transmit(now).unwrap();
        let expected = [
            b"\0\0\0\0\0\0\0\x4d\0\0\0\x01\x05\x06\x07\x08".as_slice(),
            &[1; 20],
            &[2; 20],
            b"\0\0\0\0\0\0\0\x04\0\0\0\0\0\0\0\x05\0\0\0\0\0\0\0\x03\0\0\0\x02\0\0\0\0\xde\xad\xbe\xef\0\0\0\xc8\x1a\xe1",
            b"\x02\x0d/announce?x=y",
        ];
        assert_eq!(packet, expected.concat());
        let answer = [
            b"\0\0\0\x01\x05\x06\x07\x08\0\0\x07\x08\0\0\0\x09\0\0\0\x0a".as_slice(),
            b"\x0a\0\0\x01\x1a\xe1\x0a\0\0\x02\0\0\xff",
        ];
        let Some(Ok(Response::Announce(answer))) = e.handle_datagram(now, &answer.concat()) else { panic!() };
        assert_eq!(answer.peers, ["10.0.0.1:6881".parse().unwrap()]);
        let numbers = (answer.interval, answer.leechers, answer.seeders);
        assert_eq!(numbers, (Some(Duration::from_secs(1800)), Some(9), Some(10)));
    }

    #[test]
    fn long_paths_are_split() {
        let url = format!("udp://h:1/{}", "a".repeat(299));
        let Request::Announce { url_data, .. } = Request::announce(&TrackerUrl::parse(&url).unwrap(), announce())
        else {
            panic!()
        };
        let packet = announce_packet(0, 0, &announce(), &url_data);
        assert_eq!((packet[98], packet[99], packet[355], packet[356], packet.len()), (2, 255, 2, 45, 402));
        let bare = Request::announce(&TrackerUrl::parse("udp://h:1").unwrap(), announce());
        assert!(matches!(bare, Request::Announce { url_data, .. } if url_data.is_empty()));
    }

    #[test]
    fn v6_answers_have_longer_entries() {
        let now = Instant::now();
        let mut e = Exchange { family: Family::V6, ..exchange(now, "udp://h:1") };
        e.handle_datagram(now, &connected(TIDS[0]));
        let entry = b"\x20\x01\x0d\xb8\0\0\0\0\0\0\0\0\0\0\0\x01\x1a\xe1";
        let answer = [b"\0\0\0\x01\x05\x06\x07\x08\0\0\x07\x08\0\0\0\0\0\0\0\0".as_slice(), entry, entry];
        let Some(Ok(Response::Announce(answer))) = e.handle_datagram(now, &answer.concat()) else { panic!() };
        assert_eq!(answer.peers, vec!["[2001:db8::1]:6881".parse().unwrap(); 2]);
    }

    /// The two timelines of BEP 15, "Examples".
    #[test]
    fn t5_sends_again_at_the_times_of_the_bep() {
        let start = Instant::now();
        let sizes = |e: &mut Exchange, times: &[u64]| -> Vec<usize> {
            times
                .iter()
                .map(|t| {
                    e.handle_timeout(after(start, *t) - Duration::from_millis(1));
                    assert_eq!(e.poll_transmit(after(start, *t)), None);
                    e.handle_timeout(after(start, *t));
                    e.poll_transmit(after(start, *t)).map_or(0, |p| p.len())
                })
                .collect()
        };
        let mut e = exchange(start, "udp://h:1");
        assert_eq!(e.poll_transmit(start).unwrap().len(), 16);
        assert_eq!(sizes(&mut e, &[15, 45, 105, 225]), [16, 16, 16, 16]);

        let mut e = exchange(start, "udp://h:1");
        e.poll_transmit(start);
        e.handle_datagram(after(start, 1), &connected(TIDS[0]));
        assert_eq!(e.poll_transmit(after(start, 2)).unwrap().len(), 98);
        // At 107 s the connection id has expired.
        assert_eq!(sizes(&mut e, &[17, 47, 107, 227]), [98, 98, 16, 16]);
    }

    #[test]
    fn t5_what_answers_nothing_is_ignored() {
        let now = Instant::now();
        let mut e = exchange(now, "udp://h:1");
        let short = &connected(TIDS[0])[..15];
        let announced_too_early = b"\0\0\0\x01\x01\x02\x03\x04\0\0\x07\x08\0\0\0\x09\0\0\0\x0a";
        for junk in [b"".as_slice(), b"\0\0\0", short, &connected(9), &connected(TIDS[1]), announced_too_early] {
            assert_eq!(e.handle_datagram(now, junk), None);
            assert!(e.connection.is_none());
        }
        e.handle_datagram(now, &connected(TIDS[0]));
        let scrape = b"\0\0\0\x02\x05\x06\x07\x08\0\0\x07\x08\0\0\0\x09\0\0\0\x0a";
        let short = b"\0\0\0\x01\x05\x06\x07\x08\0\0\x07\x08\0\0\0\x09\0\0\0";
        for junk in [scrape.as_slice(), short, &connected(TIDS[0]), &connected(TIDS[1])] {
            assert_eq!(e.handle_datagram(now, junk), None);
        }
        let error = b"\0\0\0\x03\x05\x06\x07\x08\x1bunknown";
        let expected = TrackerError::Failure { reason: "unknown".into(), retry: None };
        assert_eq!(e.handle_datagram(now, error), Some(Err(expected)));
    }

    #[test]
    fn scrapes() {
        let now = Instant::now();
        let request = Request::Scrape(vec![[7; 20], [8; 20], [9; 20]]);
        let mut e = Exchange::new(now, request, Family::V4, TIDS, FIRST_TIMEOUT);
        e.handle_datagram(now, &connected(TIDS[0]));
        assert_eq!(e.poll_transmit(now).unwrap().len(), 76);
        let answer =
            b"\0\0\0\x02\x05\x06\x07\x08\0\0\0\x01\0\0\0\x02\0\0\0\x03\0\0\0\x04\0\0\0\x05\0\0\0\x06\0\0\0\x07";
        let Some(Ok(Response::Scrape(answer))) = e.handle_datagram(now, answer) else { panic!() };
        let entry = |hash, [seeders, downloaded, leechers]: [u32; 3]| ScrapeEntry {
            info_hash: [hash; 20],
            seeders,
            leechers,
            downloaded,
        };
        assert_eq!(answer.files, [entry(7, [1, 2, 3]), entry(8, [4, 5, 6])]);
    }

    proptest! {
        #[test]
        fn any_datagrams(datagrams in prop::collection::vec((0..5u32, 0..3usize, prop::collection::vec(any::<u8>(), 0..64)), 0..8)) {
            let now = Instant::now();
            let mut e = exchange(now, "udp://h:1");
            for (action, tid, rest) in datagrams {
                let tid = [TIDS[0], TIDS[1], 0][tid];
                let _ = e.handle_datagram(now, &[&action.to_be_bytes()[..], &tid.to_be_bytes(), &rest].concat());
                let _ = e.poll_transmit(now);
            }
        }
    }
}
