//! Every limit in time or number that a swarm keeps towards strangers, each driven with a clock that the test turns:
//! what is just below is let pass, what is just above is not.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use gannet::base::{Bitfield, Geometry, PeerId, PeerKey};
use gannet::swarm::candidates::{Added, Candidates, CandidatesConfig};
use gannet::swarm::{Action, CloseReason, Misbehaved, NewPeer, Receive, Refused, Source, Swarm, SwarmConfig};
use gannet::wire::{Decoder, Item, Message, PieceHeader, Reserved};

const PIECES: u32 = 256;

/// A swarm, and a clock.
struct Rig {
    swarm: Swarm,
    now: Instant,
    next_peer: u8,
}

impl Rig {
    /// With the first `pieces` pieces.
    fn new(pieces: u32, max_peers: usize) -> Self {
        let geometry = Geometry::new(u64::from(PIECES) * 65_536, 65_536).unwrap();
        let mut have = Bitfield::new(PIECES);
        geometry.pieces().take(pieces as usize).for_each(|piece| assert!(have.set(piece)));
        let config = SwarmConfig {
            info_hash: [7; 20],
            peer_id: PeerId([1; 20]),
            listen_port: Some(6881),
            dht_port: None,
            max_peers,
            block_memory: 64 << 20,
            limit_up: None,
            sequential: false,
            super_seed: false,
            pex: true,
            holepunch: false,
            many_per_address: false,
        };
        let now = Instant::now();
        Self { swarm: Swarm::new(now, geometry, &have, &[], config, 42), now, next_peer: 2 }
    }

    fn seeder() -> Self {
        Self::new(PIECES, 100)
    }

    fn leecher() -> Self {
        Self::new(0, 100)
    }

    fn try_peer(&mut self) -> Result<PeerKey, Refused> {
        let address = SocketAddr::from((Ipv4Addr::new(93, 184, self.next_peer, 1), 6881));
        self.try_peer_at(address)
    }

    /// A peer of another name than all before.
    fn try_peer_at(&mut self, address: SocketAddr) -> Result<PeerKey, Refused> {
        let n = self.next_peer;
        self.next_peer += 1;
        let reserved = Reserved::NONE.with_fast().with_extended();
        self.swarm.handle_connected(
            self.now,
            NewPeer { address, outgoing: false, utp: false, id: PeerId([n; 20]), reserved, v2: false },
        )
    }

    fn peer(&mut self) -> PeerKey {
        self.try_peer().unwrap()
    }

    /// A peer that has everything and serves us.
    fn source(&mut self) -> PeerKey {
        let key = self.peer();
        self.says(key, &Message::HaveAll).unwrap();
        self.says(key, &Message::Unchoke).unwrap();
        key
    }

    fn says(&mut self, key: PeerKey, message: &Message<'_>) -> Result<(), Misbehaved> {
        self.swarm.handle_message(self.now, key, message)
    }

    /// Time passes, in steps of the swarm's own, until `time` has passed or somebody is to be closed.
    fn wait(&mut self, time: Duration) -> Vec<(PeerKey, CloseReason)> {
        let until = self.now + time;
        loop {
            self.now = self.swarm.poll_timeout().min(until);
            self.swarm.handle_timeout(self.now);
            let closed = self.closed();
            if !closed.is_empty() || self.now >= until {
                return closed;
            }
        }
    }

    fn closed(&mut self) -> Vec<(PeerKey, CloseReason)> {
        let mut closed = Vec::new();
        while let Some(action) = self.swarm.poll_action() {
            if let Action::Close(key, reason) = action {
                closed.push((key, reason));
            }
        }
        closed
    }

    fn dials(&mut self) -> usize {
        std::iter::from_fn(|| self.swarm.poll_action()).filter(|action| matches!(action, Action::Dial(_))).count()
    }

    /// What we say to a peer. Blocks that it asked for are not taken out.
    fn heard(&mut self, key: PeerKey) -> Vec<String> {
        let mut bytes = Vec::new();
        self.swarm.outbox(key).unwrap().take_control(&mut bytes);
        let mut decoder = Decoder::new(Some(PIECES));
        let mut all = Vec::new();
        while !bytes.is_empty() {
            let n = decoder.feed(&bytes);
            bytes.drain(..n);
            while let Some(item) = decoder.next().unwrap() {
                let Item::Message(message) = item else { panic!("{item:?}") };
                all.push(format!("{message:?}"));
            }
        }
        all
    }

    fn asked(&mut self, key: PeerKey) -> Vec<(u32, u32)> {
        let heard = self.heard(key);
        let numbers = |text: &str| -> Vec<u32> {
            text.split(|c: char| !c.is_ascii_digit()).filter_map(|n| n.parse().ok()).collect()
        };
        heard.iter().filter(|m| m.starts_with("Request")).map(|m| (numbers(m)[0], numbers(m)[1])).collect()
    }

    /// The peer delivers a block.
    fn deliver(&mut self, key: PeerKey, (index, begin): (u32, u32)) {
        let header = PieceHeader { index, begin, len: 16 << 10 };
        match self.swarm.receive_into(self.now, key, header).unwrap() {
            Receive::Into(block, buf) => self.swarm.handle_block(self.now, key, block, buf),
            Receive::Discard => panic!("not asked for"),
        }
        self.swarm.handle_turn(self.now, key);
    }
}

fn secs(n: u64) -> Duration {
    Duration::from_secs(n)
}

const REQUEST: Message<'static> = Message::Request { index: 0, begin: 0, len: 16 << 10 };

/// A piece that peer may not have while it is choked.
fn out_of_reach(heard: &[String]) -> u32 {
    (0..PIECES).find(|n| !heard.contains(&format!("AllowedFast({n})"))).unwrap()
}

#[test]
fn silence_120_s() {
    let mut rig = Rig::seeder();
    let key = rig.peer();
    assert_eq!(rig.wait(secs(119)), []);
    rig.says(key, &Message::KeepAlive).unwrap();
    assert_eq!(rig.wait(secs(119)), []);
    assert_eq!(rig.wait(secs(2)), [(key, CloseReason::Silent)]);
}

#[test]
fn keep_alive_after_100_s() {
    let mut rig = Rig::seeder();
    let key = rig.peer();
    rig.heard(key);
    rig.wait(secs(99));
    assert_eq!(rig.heard(key), [""; 0]);
    rig.wait(secs(2));
    assert_eq!(rig.heard(key), ["KeepAlive"]);
}

/// W12: after 20 s of nothing, others are asked for what the peer was; after 60 s it goes.
#[test]
fn snubbed_after_20_s_and_gone_after_60() {
    let mut rig = Rig::leecher();
    let mute = rig.source();
    let owed = rig.asked(mute);
    assert!(!owed.is_empty());
    assert_eq!(rig.wait(secs(15)), []);
    let honest = rig.source();
    let mut got = Vec::new();
    let mut queue = rig.asked(honest);
    let start = rig.now;
    while !owed.iter().all(|block| got.contains(block)) {
        for block in queue.drain(..queue.len().min(4)) {
            rig.deliver(honest, block);
            got.push(block);
        }
        assert_eq!(rig.wait(Duration::from_millis(250)), []);
        queue.extend(rig.asked(honest));
        let waited = secs(15) + (rig.now - start);
        assert!(waited >= secs(20) || !owed.iter().any(|block| queue.contains(block)), "others after {waited:?}");
        assert!(waited < secs(35), "not asked of another: {owed:?}, but {} others", got.len());
        // Time is left for those that were asked of it before.
        rig.says(mute, &Message::KeepAlive).unwrap();
    }
    let mut rig = Rig::leecher();
    let mute = rig.source();
    assert_eq!(rig.wait(secs(59)), []);
    assert_eq!(rig.wait(secs(2)), [(mute, CloseReason::Stalled)]);
}

#[test]
fn out_of_use_after_600_s_but_only_when_full() {
    for (max_peers, closed) in [(2, true), (3, false)] {
        let mut rig = Rig::new(PIECES, max_peers);
        let keys = [rig.peer(), rig.peer()];
        let mut found = Vec::new();
        for _ in 0..7 {
            for key in keys {
                rig.says(key, &Message::KeepAlive).unwrap();
            }
            found = rig.wait(secs(99));
            if !found.is_empty() {
                break;
            }
        }
        assert_eq!(!found.is_empty(), closed);
        assert!(found.iter().all(|(_, reason)| *reason == CloseReason::Useless));
    }
}

/// A slot of a seed that nobody else wants may be held for nothing; a connection where others find no place may not.
#[test]
fn asks_nothing_for_60_s_but_only_when_full() {
    for (max_peers, closed) in [(2, true), (3, false)] {
        let mut rig = Rig::new(PIECES, max_peers);
        let [idle, busy] = [rig.peer(), rig.peer()];
        for key in [idle, busy] {
            rig.says(key, &Message::Interested).unwrap();
        }
        assert_eq!(rig.wait(secs(1)), []);
        let asks = |rig: &mut Rig| {
            assert!(rig.swarm.outbox(idle).unwrap().piece_count() == 0);
            rig.says(busy, &REQUEST).unwrap();
            let now = rig.now;
            rig.swarm.outbox(busy).unwrap().next_piece().unwrap();
            rig.swarm.handle_sent(now, busy, 16 << 10);
            rig.says(idle, &Message::KeepAlive).unwrap();
        };
        for _ in 0..5 {
            asks(&mut rig);
            assert_eq!(rig.wait(secs(10)), []);
        }
        asks(&mut rig);
        assert_eq!(rig.wait(secs(15)), if closed { vec![(idle, CloseReason::Useless)] } else { vec![] });
    }
}

/// Four connections with an address, however many names it has: all places are not to be had by calling oneself a hundred
/// things. In the local network they may be many.
#[test]
fn four_connections_with_an_address() {
    let mut rig = Rig::seeder();
    let at = |ip: &str, port| SocketAddr::new(ip.parse().unwrap(), port);
    for ip in ["9.9.9.9", "2600::1"] {
        let first = rig.try_peer_at(at(ip, 1000)).unwrap();
        for port in 1001..1004 {
            rig.try_peer_at(at(ip, port)).unwrap();
        }
        for port in 1004..1050 {
            assert_eq!(rig.try_peer_at(at(ip, port)), Err(Refused::SameAddress));
        }
        let now = rig.now;
        rig.swarm.handle_closed(now, first);
        rig.try_peer_at(at(ip, 2000)).unwrap();
    }
    for port in 1000..1040 {
        rig.try_peer_at(at("127.0.0.1", port)).unwrap();
        rig.try_peer_at(at("192.168.1.7", port)).unwrap();
    }
}

#[test]
fn n7_n13_connections_and_half_open_ones() {
    let mut rig = Rig::new(PIECES, 3);
    for _ in 0..3 {
        rig.peer();
    }
    assert_eq!(rig.try_peer(), Err(Refused::Full));
    let far = |n: u32| SocketAddr::new(IpAddr::V4(Ipv4Addr::from_bits(0x0b00_0000 + n)), 6881);
    let many: Vec<SocketAddr> = (0..500).map(far).collect();
    let now = rig.now;
    rig.swarm.handle_candidates(now, Source::Tracker, &many);
    assert_eq!(rig.dials(), 0, "full");
    let mut rig = Rig::leecher();
    let now = rig.now;
    rig.swarm.handle_candidates(now, Source::Tracker, &many);
    assert_eq!(rig.dials(), 64, "half-open");
    rig.swarm.handle_dial_failed(now, far(0));
    assert!(rig.dials() <= 1);
    let mut rig = Rig::new(0, 10);
    let now = rig.now;
    rig.swarm.handle_candidates(now, Source::Tracker, &many);
    assert_eq!(rig.dials(), 10, "no more than there may be connections");
}

#[test]
fn requests_in_vain_300() {
    let mut rig = Rig::seeder();
    let key = rig.peer();
    let index = out_of_reach(&rig.heard(key));
    let request = Message::Request { index, begin: 0, len: 16 << 10 };
    // In the first two seconds a `choke` may have crossed them.
    for _ in 0..1_000 {
        rig.says(key, &request).unwrap();
    }
    rig.now += Duration::from_millis(2_100);
    for _ in 0..300 {
        rig.says(key, &request).unwrap();
    }
    assert_eq!(rig.says(key, &request), Err(Misbehaved::InvalidRequests));
    // For what we lack there is no excuse.
    let mut rig = Rig::leecher();
    let key = rig.peer();
    for _ in 0..300 {
        rig.says(key, &request).unwrap();
    }
    assert_eq!(rig.says(key, &request), Err(Misbehaved::InvalidRequests));
}

#[test]
fn request_queue_2000_and_as_many_again() {
    let mut rig = Rig::seeder();
    let key = rig.peer();
    rig.says(key, &Message::Interested).unwrap();
    rig.wait(secs(1));
    assert!(rig.heard(key).contains(&"Unchoke".to_owned()));
    for _ in 0..2_000 {
        rig.says(key, &REQUEST).unwrap();
    }
    assert_eq!(rig.heard(key), [""; 0]);
    for _ in 0..2_000 {
        rig.says(key, &REQUEST).unwrap();
    }
    assert_eq!(rig.swarm.outbox(key).unwrap().piece_count(), 2_000);
    assert_eq!(rig.heard(key).len(), 2_000, "rejected");
    // Room for one: all is forgiven.
    rig.swarm.outbox(key).unwrap().next_piece();
    for _ in 0..2_001 {
        rig.says(key, &REQUEST).unwrap();
    }
    assert_eq!(rig.says(key, &REQUEST), Err(Misbehaved::TooManyRequests));
}

#[test]
fn allowed_fast_five_pieces_three_times_by_leechers() {
    let mut seeder = Rig::seeder();
    let key = seeder.peer();
    assert!(!seeder.heard(key).iter().any(|m| m.starts_with("AllowedFast")));
    let mut rig = Rig::new(PIECES - 1, 100);
    let key = rig.peer();
    let heard = rig.heard(key);
    let allowed: Vec<u32> =
        heard.iter().filter_map(|m| m.strip_prefix("AllowedFast(")?.strip_suffix(')')?.parse().ok()).collect();
    assert_eq!(allowed.len(), 5);
    rig.now += secs(3);
    for n in 0..61 {
        rig.says(key, &Message::Request { index: allowed[n % 5], begin: 0, len: 16 << 10 }).unwrap();
    }
    assert_eq!(rig.swarm.outbox(key).unwrap().piece_count(), 3 * 5 * 4);
    assert_eq!(rig.heard(key).len(), 1, "the last one is rejected");
}

#[test]
fn changes_of_mind_100_per_second() {
    for pair in [
        [Message::Interested, Message::NotInterested],
        [Message::Choke, Message::Unchoke],
        [Message::HaveAll, Message::HaveNone],
    ] {
        let mut rig = Rig::leecher();
        let key = rig.peer();
        for _ in 0..3 {
            for message in pair.iter().cycle().take(100) {
                rig.says(key, message).unwrap();
            }
            rig.now += secs(1);
        }
        for message in pair.iter().cycle().take(100) {
            rig.says(key, message).unwrap();
        }
        assert_eq!(rig.says(key, &pair[0]), Err(Misbehaved::Flood), "{pair:?}");
    }
}

/// Row 20: what a peer says it has is looked at piece by piece, so of a torrent with two million it may say it less often.
#[test]
fn told_anew_of_two_million_pieces_5_per_second() {
    let pieces = 1 << 21;
    let geometry = Geometry::new(u64::from(pieces) * 16_384, 16_384).unwrap();
    let mut rig = Rig::seeder();
    let config = SwarmConfig {
        info_hash: [7; 20],
        peer_id: PeerId([1; 20]),
        listen_port: None,
        dht_port: None,
        max_peers: 10,
        block_memory: 1 << 20,
        limit_up: None,
        sequential: false,
        super_seed: false,
        pex: false,
        holepunch: false,
        many_per_address: false,
    };
    rig.swarm = Swarm::new(rig.now, geometry, &Bitfield::new(pieces), &[], config, 1);
    let key = rig.peer();
    for _ in 0..3 {
        for message in [Message::HaveAll, Message::HaveNone].iter().cycle().take(5) {
            rig.says(key, message).unwrap();
        }
        rig.now += secs(1);
    }
    for message in [Message::HaveAll, Message::HaveNone].iter().cycle().take(5) {
        rig.says(key, message).unwrap();
    }
    assert_eq!(rig.says(key, &Message::HaveAll), Err(Misbehaved::Flood));
}

/// Row 20: requests that are made and taken back, over and over.
#[test]
fn cancels_20000_per_second() {
    let mut rig = Rig::seeder();
    let key = rig.peer();
    let cancel = Message::Cancel { index: 0, begin: 0, len: 16 << 10 };
    for _ in 0..3 {
        for _ in 0..20_000 {
            rig.says(key, &cancel).unwrap();
        }
        rig.now += secs(1);
    }
    for _ in 0..20_000 {
        rig.says(key, &cancel).unwrap();
    }
    assert_eq!(rig.says(key, &cancel), Err(Misbehaved::Flood));
}

/// Row 20: a piece that comes and goes makes us change our mind, and say so.
#[test]
fn interest_that_others_flip_100_per_second() {
    let mut rig = Rig::leecher();
    let key = rig.peer();
    let id = gannet::wire::Extension::DontHave.our_id();
    let mut outcome = Ok(());
    let mut rounds = 0;
    while outcome.is_ok() && rounds < 1_000 {
        rounds += 1;
        rig.says(key, &Message::Have(7)).unwrap();
        outcome = rig.says(key, &Message::Extended { id, payload: &7u32.to_be_bytes() });
    }
    assert_eq!((outcome, rounds), (Err(Misbehaved::Flood), 101));
    // What changes nothing is nothing.
    let mut rig = Rig::leecher();
    let key = rig.source();
    for _ in 0..1_000 {
        rig.says(key, &Message::Extended { id, payload: &7u32.to_be_bytes() }).unwrap();
        rig.says(key, &Message::Have(7)).unwrap();
    }
}

#[test]
fn control_bytes_1_mib() {
    let mut rig = Rig::seeder();
    let key = rig.peer();
    rig.heard(key);
    // Within the grace of two seconds each one is answered, and nobody takes the answers.
    let request = Message::Request { index: 0, begin: 0, len: 1 };
    for _ in 0..(1 << 20) / 17 + 2 {
        rig.says(key, &request).unwrap();
    }
    assert_eq!(rig.wait(secs(1)), [(key, CloseReason::NotReading)]);
}

#[test]
fn outgoing_requests_500() {
    let mut rig = Rig::leecher();
    let key = rig.source();
    let mut under_way: std::collections::VecDeque<(u32, u32)> = rig.asked(key).into();
    let mut most = 0;
    // As fast as can be: the window grows until it may not.
    for _ in 0..1_000 {
        let Some(block) = under_way.pop_front() else { break };
        rig.now += Duration::from_micros(50);
        rig.deliver(key, block);
        under_way.extend(rig.asked(key));
        most = most.max(under_way.len());
    }
    assert!((2..=500).contains(&most), "{most}");
}

#[test]
fn n13_peer_list() {
    let now = Instant::now();
    let far = |n: u32| SocketAddr::new(IpAddr::V4(Ipv4Addr::from_bits(0x0b00_0000 + n)), 6881);
    // 3,000 in all; one source alone fills it, but leaves room for others.
    let mut list = Candidates::new(CandidatesConfig::default(), 1);
    for n in 0..20_000 {
        list.add(now, far(n), Source::Pex, None);
    }
    assert!(list.len() <= 3_000);
    for n in 100_000..100_750 {
        assert_eq!(list.add(now, far(n), Source::Tracker, None), Added::New, "a quarter is everybody's right");
    }
    assert!(list.len() <= 3_000);
    // Three failures, a minute apart and then two, and it is given up; one dial per minute to an address.
    let mut list = Candidates::new(CandidatesConfig::default(), 1);
    list.add(now, far(1), Source::Tracker, None);
    let mut at = now;
    for wait in [60, 120] {
        assert_eq!(list.next(at).unwrap().addr, far(1));
        list.failed(far(1), at);
        assert_eq!(list.next(at + secs(wait) - Duration::from_millis(1)), None);
        at += secs(wait);
    }
    assert_eq!(list.next(at).unwrap().fails, 2);
    list.failed(far(1), at);
    assert!(list.is_empty());
    assert_eq!(list.add(at + secs(1_000), far(1), Source::Tracker, None), Added::Known, "remembered for a while");
    // One dial per minute, four ports: of one address in all.
    let mut list = Candidates::new(CandidatesConfig::default(), 1);
    let added = (1..=50).filter(|n| {
        let addr = SocketAddr::new(far(9).ip(), 7_000 + n);
        list.add(now, addr, Source::Pex, None) == Added::New
    });
    assert_eq!(added.count(), 4);
    assert!(list.next(now).is_some());
    assert_eq!(list.next(now + secs(59)), None);
}

/// Both dialled at once, and one of the two connections was refused: the address is not dialled again and again.
#[test]
fn a_peer_that_is_connected_is_not_dialled_again() {
    for case in 0..8u8 {
        let (their_id, first_incoming, told_early) = (PeerId([9 * (case & 1); 20]), case & 2 > 0, case & 4 > 0);
        let mut rig = Rig::leecher();
        let now = rig.now;
        let listens = SocketAddr::from(([93, 184, 9, 9], 6881));
        let from = SocketAddr::from(([93, 184, 9, 9], 40_000));
        let reserved = Reserved::NONE.with_extended();
        rig.swarm.handle_candidates(now, Source::Manual, &[listens]);
        assert_eq!(rig.dials(), 1);
        let incoming = NewPeer { address: from, outgoing: false, utp: false, id: their_id, reserved, v2: false };
        let outgoing = NewPeer { address: listens, outgoing: true, utp: false, id: their_id, reserved, v2: false };
        let order = if first_incoming { [incoming, outgoing] } else { [outgoing, incoming] };
        let says = gannet::wire::ExtendedHandshake { p: Some(6881), ..Default::default() }.encode();
        let mut kept = Vec::new();
        for new in order {
            if let Ok(key) = rig.swarm.handle_connected(now, new) {
                kept.push(key);
                if told_early {
                    rig.says(key, &Message::Extended { id: 0, payload: &says }).unwrap();
                }
            }
            for (key, reason) in rig.closed() {
                assert_eq!(reason, CloseReason::Duplicate);
                kept.retain(|kept| *kept != key);
                rig.swarm.handle_closed(now, key);
            }
        }
        let &[key] = &kept[..] else { panic!("{kept:?}") };
        if !told_early {
            rig.says(key, &Message::Extended { id: 0, payload: &says }).unwrap();
        }
        let mut dials = 0;
        for _ in 0..600 {
            rig.now += secs(1);
            let now = rig.now;
            rig.says(key, &Message::KeepAlive).unwrap();
            rig.swarm.handle_timeout(now);
            if rig.dials() > 0 {
                dials += 1;
                assert_eq!(rig.swarm.handle_connected(now, outgoing), Err(Refused::Duplicate));
            }
        }
        assert!(dials <= 1, "dialled {dials} times, case {case}");
    }
}

/// A peer that is connected is met once more at its other address (its IPv6, say): what is under way goes on, whoever has the
/// smaller id, and the other address is left alone until the peer has gone.
#[test]
fn the_other_address_of_a_peer_changes_nothing() {
    for case in 0..8u8 {
        let (their_id, incoming, dialled_again) = (PeerId([9 * (case & 1); 20]), case & 2 > 0, case & 4 > 0);
        let mut rig = Rig::leecher();
        let (first, other) = (SocketAddr::from(([93, 184, 9, 9], 40_000)), SocketAddr::from(([93, 184, 8, 8], 6881)));
        let meet = |address, outgoing| NewPeer {
            address,
            outgoing,
            utp: false,
            id: their_id,
            reserved: Reserved::NONE.with_fast().with_extended(),
            v2: false,
        };
        let key = rig.swarm.handle_connected(rig.now, meet(first, !incoming)).unwrap();
        let says = gannet::wire::ExtendedHandshake { p: Some(6881), ..Default::default() }.encode();
        rig.says(key, &Message::Extended { id: 0, payload: &says }).unwrap();
        rig.now += secs(3);
        if dialled_again {
            rig.swarm.handle_candidates(rig.now, Source::Manual, &[other]);
            assert_eq!(rig.dials(), 1);
        }
        assert_eq!(rig.swarm.handle_connected(rig.now, meet(other, dialled_again)), Err(Refused::Duplicate));
        assert_eq!(rig.closed().len(), 0);
        if !dialled_again {
            continue;
        }
        for _ in 0..600 {
            rig.now += secs(1);
            let now = rig.now;
            rig.says(key, &Message::KeepAlive).unwrap();
            rig.swarm.handle_timeout(now);
            assert_eq!(rig.dials(), 0, "case {case}");
        }
        rig.swarm.handle_closed(rig.now, key);
        rig.now += secs(61);
        rig.swarm.handle_timeout(rig.now);
        assert!(rig.dials() > 0, "case {case}");
    }
}
