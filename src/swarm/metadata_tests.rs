//! The fault plan's E cases for the fetch alone, and a property: with one honest peer among any liars it comes to its
//! end, and nobody honest is convicted.

use std::cmp::Reverse as Descending;
use std::collections::BinaryHeap;

use proptest::prelude::*;

use super::*;
use crate::base::{InfoHashV1, InfoHashV2, Slab};

const PIECE: usize = METADATA_PIECE_LEN as usize;

fn dictionary(len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    fastrand::Rng::with_seed(len as u64).fill(&mut bytes);
    bytes
}

fn v1(bytes: &[u8]) -> InfoHash {
    InfoHash::v1(InfoHashV1(sha1(&[bytes])))
}

fn v2(bytes: &[u8]) -> InfoHash {
    InfoHash::v2(InfoHashV2(sha256(&[bytes])))
}

fn hybrid(a: &[u8], b: &[u8]) -> InfoHash {
    InfoHash::hybrid(InfoHashV1(sha1(&[a])), InfoHashV2(sha256(&[b])))
}

/// A fetch with memory enough, peers, and a clock.
struct Rig {
    fetch: MetadataFetch,
    peers: Slab<()>,
    now: Instant,
}

impl Rig {
    fn new(wanted: InfoHash) -> Self {
        let now = Instant::now();
        let mut fetch = MetadataFetch::new(wanted);
        fetch.set_allowance(now, MAX_METADATA_MEMORY);
        Self { fetch, peers: Slab::default(), now }
    }

    fn peer(&mut self, size: usize) -> PeerKey {
        let key = self.peers.insert(());
        self.fetch.handle_size(self.now, key, u32::try_from(size).unwrap());
        key
    }

    fn requests(&mut self) -> Vec<(PeerKey, u32)> {
        self.fetch.requests(self.now)
    }

    fn pass(&mut self, seconds: u64) {
        for _ in 0..seconds * 2 {
            self.now += Duration::from_millis(500);
            self.fetch.handle_timeout(self.now);
        }
    }

    fn give(&mut self, key: PeerKey, piece: u32, dictionary: &[u8]) -> Fetched {
        let total = u32::try_from(dictionary.len()).unwrap();
        let payload = dictionary.chunks(PIECE).nth(piece as usize).unwrap();
        self.fetch.handle_data(self.now, key, piece, Some(total), payload)
    }

    /// Lets everybody answer at once with what `answer` has for them, until nobody is asked any more or all is there.
    fn run(&mut self, answer: impl Fn(PeerKey) -> Option<Vec<u8>>) -> Fetched {
        loop {
            let requests = self.requests();
            if requests.is_empty() {
                return Fetched::More;
            }
            for (key, piece) in requests {
                if let Some(dictionary) = answer(key) {
                    match self.give(key, piece, &dictionary) {
                        Fetched::More => {}
                        end => return end,
                    }
                }
            }
        }
    }

    fn convicted(&mut self) -> Vec<PeerKey> {
        std::iter::from_fn(|| self.fetch.poll_convicted()).collect()
    }
}

#[test]
fn one_piece_from_one_peer() {
    for len in [1, 100, PIECE - 1, PIECE] {
        let dictionary = dictionary(len);
        for wanted in [v1(&dictionary), v2(&dictionary), hybrid(&dictionary, &dictionary)] {
            let mut rig = Rig::new(wanted);
            assert_eq!(rig.requests(), []);
            let peer = rig.peer(len);
            assert_eq!(rig.requests(), [(peer, 0)]);
            assert_eq!(rig.requests(), [], "asked once");
            assert_eq!(rig.give(peer, 0, &dictionary), Fetched::Whole(dictionary.clone()));
        }
    }
}

/// At most four requests are out with one peer; all peers share the work.
#[test]
fn peers_share_the_work() {
    let dictionary = dictionary(9 * PIECE + 5);
    let mut rig = Rig::new(v1(&dictionary));
    let peers = [rig.peer(dictionary.len()), rig.peer(dictionary.len())];
    let requests = rig.requests();
    let mut pieces: Vec<u32> = requests.iter().map(|(_, piece)| *piece).collect();
    pieces.sort_unstable();
    assert_eq!(pieces, (0..8).collect::<Vec<_>>());
    for peer in peers {
        assert_eq!(requests.iter().filter(|(key, _)| *key == peer).count(), IN_FLIGHT);
    }
    for (key, piece) in requests {
        assert_eq!(rig.give(key, piece, &dictionary), Fetched::More);
    }
    assert_eq!(rig.fetch.progress(), MetadataProgress { sources: 2, pieces: 8, piece_count: 10 });
    assert_eq!(rig.run(|_| Some(dictionary.clone())), Fetched::Whole(dictionary.clone()));
}

/// A piece that is late is asked of a second peer, and counts whoever sends it.
#[test]
fn late_pieces_are_asked_twice() {
    let dictionary = dictionary(100);
    let mut rig = Rig::new(v1(&dictionary));
    let (slow, other) = (rig.peer(100), rig.peer(100));
    assert_eq!(rig.requests(), [(slow, 0)]);
    rig.now += DOUBLE;
    assert_eq!(rig.requests(), [(other, 0)]);
    rig.now += DOUBLE;
    assert_eq!(rig.requests(), [], "not of a third, and not again");
    assert_eq!(rig.give(slow, 0, &dictionary), Fetched::Whole(dictionary.clone()));
}

#[test]
fn a_lone_slow_peer_is_waited_for() {
    let dictionary = dictionary(6 * PIECE);
    let mut rig = Rig::new(v1(&dictionary));
    let slow = rig.peer(dictionary.len());
    let mut asked: std::collections::VecDeque<u32> = rig.requests().iter().map(|(_, piece)| *piece).collect();
    for n in 0..6 {
        rig.pass(8);
        let end = rig.give(slow, asked.pop_front().unwrap(), &dictionary);
        assert_eq!(end, if n < 5 { Fetched::More } else { Fetched::Whole(dictionary.clone()) });
        asked.extend(rig.requests().iter().map(|(_, piece)| *piece));
    }
}

#[test]
fn e2_sizes_that_cannot_be_are_not_asked_for() {
    let mut rig = Rig::new(v1(b"x"));
    for size in [0, 33 << 20, 1 << 31, u32::MAX as usize] {
        rig.peer(size);
    }
    assert_eq!((rig.requests(), rig.fetch.wanted_memory()), (vec![], 0));
    rig.peer(32 << 20);
    assert!(!rig.requests().is_empty());
}

/// E3: the liars' sizes stand beside the honest one's and cost it no time.
#[test]
fn e3_liars_about_the_size_hold_nobody_up() {
    let dictionary = dictionary(3 * PIECE + 1);
    let mut rig = Rig::new(v1(&dictionary));
    for n in 0..6 {
        rig.peer(20_000 + n);
        rig.requests();
    }
    rig.peer(32 << 20);
    let honest = rig.peer(dictionary.len());
    let end = rig.run(|key| (key == honest).then(|| dictionary.clone()));
    assert_eq!(end, Fetched::Whole(dictionary));
}

/// More liars than sizes are tried at once: each keeps its place for ten seconds.
#[test]
fn e3_many_silent_sizes_give_their_places_up() {
    let dictionary = dictionary(500);
    let mut rig = Rig::new(v1(&dictionary));
    for n in 1..=MAX_ATTEMPTS {
        rig.peer(n);
    }
    rig.requests();
    let honest = rig.peer(500);
    assert_eq!(rig.requests(), []);
    rig.pass(11);
    assert_eq!(rig.run(|key| (key == honest).then(|| dictionary.clone())), Fetched::Whole(dictionary));
}

/// A peer that names one size after another is believed a few times.
#[test]
fn e3_sizes_that_change() {
    let dictionary = dictionary(2 * PIECE);
    let mut rig = Rig::new(v1(&dictionary));
    let peer = rig.peer(5 * PIECE);
    rig.requests();
    rig.fetch.handle_size(rig.now, peer, u32::try_from(2 * PIECE).unwrap());
    assert_eq!(rig.requests(), [(peer, 0), (peer, 1)]);
    for size in 1..1_000 {
        rig.fetch.handle_size(rig.now, peer, size);
        rig.requests();
    }
    assert!(rig.fetch.attempts.len() <= 4, "{:?}", rig.fetch.attempts.len());
}

#[test]
fn e4_answers_that_cannot_be() {
    let dictionary = dictionary(2 * PIECE + 10);
    let size = u32::try_from(dictionary.len()).unwrap();
    let wrong: [(u32, Option<u32>, usize); 6] = [
        (0, Some(size), PIECE - 1),
        (0, Some(size), 0),
        (0, Some(size - 1), PIECE),
        (2, Some(size), 11),
        (2, Some(size), PIECE),
        (2, Some(u32::MAX), 10),
    ];
    for (piece, total, len) in wrong {
        let mut rig = Rig::new(v1(&dictionary));
        let liar = rig.peer(dictionary.len());
        assert_eq!(rig.requests().len(), 3);
        assert_eq!(rig.fetch.handle_data(rig.now, liar, piece, total, &vec![0; len]), Fetched::More);
        assert_eq!(rig.requests(), [], "left alone for a while");
        // Another one is asked for it at once, and later the first again.
        let honest = rig.peer(dictionary.len());
        assert!(rig.requests().contains(&(honest, piece)));
        assert_eq!((rig.give(honest, piece, &dictionary), rig.convicted()), (Fetched::More, vec![]));
    }
    let mut rig = Rig::new(v1(&dictionary));
    let liar = rig.peer(dictionary.len());
    let requests = rig.requests();
    assert_eq!(requests.len(), MAX_OFFENCES as usize);
    for (_, piece) in requests {
        rig.fetch.handle_data(rig.now, liar, piece, None, b"?");
    }
    assert_eq!(rig.convicted(), [liar]);
}

/// What nobody asked for changes nothing, whatever its numbers.
#[test]
fn e4_unasked_pieces_are_nothing() {
    let dictionary = dictionary(10 * PIECE);
    let mut rig = Rig::new(v1(&dictionary));
    let (peer, other) = (rig.peer(dictionary.len()), rig.peer(7));
    rig.requests();
    for key in [peer, other] {
        for piece in [9, 10, 1 << 20, u32::MAX] {
            rig.fetch.handle_data(rig.now, key, piece, None, &[0; PIECE]);
            rig.fetch.handle_reject(rig.now, key, piece);
        }
    }
    assert_eq!(rig.fetch.progress().pieces, 0);
    assert_eq!(rig.run(|_| None), Fetched::More);
    // A piece that came is not replaced.
    assert_eq!(rig.give(peer, 0, &dictionary), Fetched::More);
    assert_eq!(rig.fetch.handle_data(rig.now, peer, 0, None, &[0; PIECE]), Fetched::More);
    assert_eq!(rig.fetch.progress().pieces, 1);
}

/// Garbage of the right length from the only source.
#[test]
fn e4_garbage_from_one_peer_convicts_it() {
    let dictionary = dictionary(3 * PIECE);
    let mut rig = Rig::new(v2(&dictionary));
    let liar = rig.peer(dictionary.len());
    assert_eq!(rig.run(|_| Some(vec![7; 3 * PIECE])), Fetched::More);
    assert_eq!(rig.convicted(), [liar]);
    let honest = rig.peer(dictionary.len());
    assert_eq!(rig.run(|key| (key == honest).then(|| dictionary.clone())), Fetched::Whole(dictionary.clone()));
}

/// Garbage among the pieces of several: from one peer alone next, until it hashes.
#[test]
fn e4_garbage_from_one_of_many() {
    let dictionary = dictionary(12 * PIECE);
    for liars in 1..5 {
        let mut rig = Rig::new(v1(&dictionary));
        let peers: Vec<PeerKey> = (0..5).map(|_| rig.peer(dictionary.len())).collect();
        let is_liar = |key: PeerKey| peers.iter().position(|p| *p == key).unwrap() < liars;
        let end = rig.run(|key| Some(if is_liar(key) { vec![7; dictionary.len()] } else { dictionary.clone() }));
        assert_eq!(end, Fetched::Whole(dictionary.clone()));
        assert!(rig.convicted().into_iter().all(is_liar));
    }
}

/// The peer that is asked alone says nothing: another one gets its turn.
#[test]
fn e4_silence_of_the_one_asked_alone() {
    let dictionary = dictionary(4 * PIECE);
    let mut rig = Rig::new(v1(&dictionary));
    let (liar, honest) = (rig.peer(dictionary.len()), rig.peer(dictionary.len()));
    let requests = rig.requests();
    for (key, piece) in requests {
        rig.give(key, piece, &if key == liar { vec![0; dictionary.len()] } else { dictionary.clone() });
    }
    let mut seconds = 0;
    loop {
        if rig.run(|key| (key == honest).then(|| dictionary.clone())) == Fetched::Whole(dictionary.clone()) {
            break;
        }
        rig.pass(1);
        seconds += 1;
        assert!(seconds <= 30, "{:?}", rig.fetch);
    }
    assert_eq!(rig.convicted(), []);
}

#[test]
fn e4_rejects_are_waited_out() {
    let dictionary = dictionary(10);
    let mut rig = Rig::new(v1(&dictionary));
    let (a, b) = (rig.peer(10), rig.peer(10));
    assert_eq!(rig.requests(), [(a, 0)]);
    rig.fetch.handle_reject(rig.now, a, 0);
    assert_eq!(rig.requests(), [(b, 0)]);
    rig.fetch.handle_reject(rig.now, b, 0);
    assert_eq!(rig.requests(), []);
    rig.pass(REST.as_secs());
    assert_eq!(rig.run(|_| Some(dictionary.clone())), Fetched::Whole(dictionary.clone()));
}

/// E7: what a peer sent before it went is kept, and completed by the next.
#[test]
fn e7_the_last_piece_is_missing() {
    let dictionary = dictionary(4 * PIECE);
    let mut rig = Rig::new(v1(&dictionary));
    let first = rig.peer(dictionary.len());
    for (key, piece) in rig.requests().into_iter().take(3) {
        rig.give(key, piece, &dictionary);
    }
    rig.fetch.handle_closed(rig.now, first);
    rig.fetch.handle_closed(rig.now, first);
    assert_eq!(rig.requests(), []);
    let second = rig.peer(dictionary.len());
    assert_eq!(rig.requests(), [(second, 3)]);
    assert_eq!(rig.give(second, 3, &dictionary), Fetched::Whole(dictionary.clone()));
}

/// A link whose hashes name two torrents convicts nobody.
#[test]
fn hashes_that_contradict_each_other() {
    let (dictionary, other) = (dictionary(10), dictionary(11));
    for wanted in [hybrid(&dictionary, &other), hybrid(&other, &dictionary)] {
        let mut rig = Rig::new(wanted);
        rig.peer(10);
        assert_eq!(rig.run(|_| Some(dictionary.clone())), Fetched::Contradiction);
        assert_eq!(rig.convicted(), []);
    }
}

#[test]
fn nothing_is_begun_without_memory() {
    let mut rig = Rig::new(v1(b"x"));
    rig.fetch.set_allowance(rig.now, 3 * u64::from(METADATA_PIECE_LEN));
    rig.peer(4 * PIECE);
    assert_eq!(rig.requests(), []);
    assert_eq!(rig.fetch.wanted_memory(), 4 * PIECE as u64);
    let small = rig.peer(PIECE + 1);
    assert_eq!(rig.requests(), [(small, 0), (small, 1)], "a smaller one fits");
    assert_eq!(rig.fetch.wanted_memory(), 6 * PIECE as u64);
    rig.fetch.set_allowance(rig.now, rig.fetch.wanted_memory());
    assert_eq!(rig.requests().len(), 4);
    for _ in 0..10 {
        rig.peer(32 << 20);
        rig.peer((32 << 20) - 1);
    }
    assert!(rig.fetch.wanted_memory() <= MAX_METADATA_MEMORY);
}

/// How a simulated peer behaves.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Temper {
    Honest,
    /// Names a size of its own, and sends zeros of that size or nothing.
    WrongSize {
        size: u32,
        answers: bool,
    },
    /// Garbage, in one piece out of so many.
    Garbage(u32),
    /// Answers what cannot be.
    Malformed,
    Silent,
    Rejects,
    /// Is gone after so many milliseconds.
    Leaves(u64),
}

fn temper() -> impl Strategy<Value = Temper> {
    prop_oneof![
        Just(Temper::Honest),
        (1u32..300_000, any::<bool>()).prop_map(|(size, answers)| Temper::WrongSize { size, answers }),
        (1u32..6).prop_map(Temper::Garbage),
        Just(Temper::Malformed),
        Just(Temper::Silent),
        Just(Temper::Rejects),
        (0u64..5_000).prop_map(Temper::Leaves),
    ]
}

enum What {
    Join(usize),
    Leave(usize),
    Answer(usize, u32),
    Tick,
}

/// Runs a whole fetch; returns how long it took, and who was convicted.
fn simulate(len: usize, peers: &[(Temper, u64, u64)], limit: Duration) -> (Option<Duration>, Vec<Temper>) {
    let dictionary = dictionary(len);
    let mut rig = Rig::new(hybrid(&dictionary, &dictionary));
    let start = rig.now;
    let mut keys = vec![None; peers.len()];
    let mut queue = BinaryHeap::new();
    let mut events = Vec::new();
    let at = |queue: &mut BinaryHeap<_>, events: &mut Vec<What>, when: Duration, what| {
        queue.push(Descending((when, events.len())));
        events.push(what);
    };
    for (n, (temper, joins, _)) in peers.iter().enumerate() {
        at(&mut queue, &mut events, Duration::from_millis(*joins), What::Join(n));
        if let Temper::Leaves(after) = temper {
            at(&mut queue, &mut events, Duration::from_millis(joins + after), What::Leave(n));
        }
    }
    at(&mut queue, &mut events, Duration::ZERO, What::Tick);
    let mut convicted = Vec::new();
    while let Some(Descending((when, number))) = queue.pop() {
        if when > limit {
            return (None, convicted);
        }
        rig.now = start + when;
        match events[number] {
            What::Join(n) => {
                let size = if let Temper::WrongSize { size, .. } = peers[n].0 { size as usize } else { len };
                keys[n] = Some(rig.peer(size));
            }
            What::Leave(n) => rig.fetch.handle_closed(rig.now, keys[n].take().unwrap()),
            What::Answer(n, piece) => {
                let Some(key) = keys[n] else { continue };
                let end = match peers[n].0 {
                    Temper::Honest | Temper::Leaves(_) => rig.give(key, piece, &dictionary),
                    Temper::Garbage(of) if piece.is_multiple_of(of) => rig.give(key, piece, &vec![1; len]),
                    Temper::Garbage(_) => rig.give(key, piece, &dictionary),
                    Temper::WrongSize { size, answers: true } => rig.give(key, piece, &vec![0; size as usize]),
                    Temper::Malformed => rig.fetch.handle_data(rig.now, key, piece, Some(1), b"no"),
                    Temper::Rejects => {
                        rig.fetch.handle_reject(rig.now, key, piece);
                        Fetched::More
                    }
                    Temper::Silent | Temper::WrongSize { .. } => Fetched::More,
                };
                match end {
                    Fetched::More => {}
                    Fetched::Whole(bytes) => {
                        assert_eq!(bytes, dictionary);
                        return (Some(when), convicted);
                    }
                    // Of the one size that another dictionary with one of the two hashes could have.
                    Fetched::Contradiction => panic!("found a collision"),
                }
            }
            What::Tick => {
                rig.fetch.handle_timeout(rig.now);
                at(&mut queue, &mut events, when + Duration::from_millis(500), What::Tick);
            }
        }
        for liar in rig.convicted() {
            let n = keys.iter().position(|key| *key == Some(liar)).unwrap();
            keys[n] = None;
            convicted.push(peers[n].0);
        }
        let taken: u64 =
            rig.fetch.attempts.iter().map(|a| a.pieces.iter().flatten().count() as u64 * PIECE as u64).sum();
        assert!(taken <= MAX_METADATA_MEMORY);
        for (key, piece) in rig.requests() {
            let n = keys.iter().position(|k| *k == Some(key)).unwrap();
            let delay = Duration::from_millis(peers[n].2);
            at(&mut queue, &mut events, when + delay, What::Answer(n, piece));
        }
        for source in rig.fetch.sources.values() {
            assert!(source.asked.len() <= IN_FLIGHT);
        }
    }
    unreachable!("ticks go on for ever")
}

/// An honest peer once helped one that lied. Silent ones, who never helped anybody, must not be asked before it for ever.
#[test]
fn silent_peers_do_not_hold_up_an_honest_suspect() {
    let mut peers: Vec<_> = [226, 703, 703, 703, 704].map(|joins| (Temper::Silent, joins, 1)).into();
    peers.extend([(Temper::Leaves(0), 0, 1), (Temper::Leaves(1573), 703, 1)]);
    peers.extend([(Temper::Garbage(1), 226, 1), (Temper::Honest, 226, 1)]);
    let (took, convicted) = simulate(16_385, &peers, Duration::from_secs(600));
    assert!(took.is_some() && !convicted.contains(&Temper::Honest), "{took:?}, {convicted:?}");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    #[test]
    fn an_honest_peer_among_any_others_is_enough(
        len in 1usize..200_000,
        others in proptest::collection::vec((temper(), 0u64..3_000, 1u64..2_000), 0..12),
        joins in 0u64..3_000,
        delay in 1u64..2_000,
    ) {
        let mut peers = others;
        peers.push((Temper::Honest, joins, delay));
        let (took, convicted) = simulate(len, &peers, Duration::from_secs(600));
        prop_assert!(took.is_some(), "never");
        for temper in convicted {
            let guilty = !matches!(temper, Temper::Honest | Temper::Leaves(_) | Temper::Silent | Temper::Rejects);
            prop_assert!(guilty, "{temper:?} is innocent");
        }
    }

    /// Nothing that comes, asked for or not, in whatever order, breaks anything.
    #[test]
    fn anything_may_come(steps in proptest::collection::vec((0u8..6, 0usize..4, any::<u32>(), 0usize..20_000), 0..200)) {
        let mut rig = Rig::new(v1(b"x"));
        let keys: Vec<PeerKey> = (0..4).map(|n| rig.peer(10_000 << n)).collect();
        for (what, who, number, len) in steps {
            let key = keys[who];
            match what {
                0 => rig.fetch.handle_size(rig.now, key, number),
                1 => rig.fetch.handle_reject(rig.now, key, number % 8),
                2 => rig.fetch.handle_closed(rig.now, key),
                3 => rig.pass(u64::from(number % 40)),
                4 => drop(rig.fetch.handle_data(rig.now, key, number, None, &vec![0; len])),
                _ => drop(rig.fetch.handle_data(rig.now, key, number % 8, Some(number), &vec![0; len.min(PIECE)])),
            }
            rig.requests();
            rig.convicted();
        }
    }
}
