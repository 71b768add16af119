use proptest::prelude::*;

use super::*;
use crate::base::{BLOCK_LEN, Slab};
use crate::metainfo::{Builder, Format, Metainfo, SourceFile};
use crate::swarm::hash_trees::HashTrees;

/// A v2 torrent with files of so many pieces, of 16 KiB << `level` each. Its hashes are of nothing.
pub(crate) fn torrent(files: &[usize], level: u32) -> Info {
    let piece_length = BLOCK_LEN << level;
    let length = |pieces: &usize| *pieces as u64 * u64::from(piece_length) - 1;
    let sources = files.iter().enumerate();
    let sources = sources.map(|(n, pieces)| SourceFile::new([format!("{n:04}")], length(pieces))).collect();
    let mut builder = Builder::folder("t", sources);
    builder.format = Format::V2;
    builder.piece_length = Some(piece_length);
    let plan = builder.plan().unwrap();
    let hashes: Vec<Hash> = (0..plan.piece_count()).map(|n| merkle::leaf(&n.to_be_bytes())).collect();
    Metainfo::parse(&plan.finish(&[], &hashes).unwrap()).unwrap().info
}

fn bare(info: &Info) -> Info {
    Info::parse(info.raw(), None).unwrap()
}

struct Rig {
    info: Info,
    trees: HashTrees,
    picker: HashPicker,
    peers: Slab<()>,
    now: Instant,
}

impl Rig {
    fn new(files: &[usize], level: u32) -> Self {
        let info = torrent(files, level);
        let picker = HashPicker::new(&bare(&info)).unwrap();
        Self { info, trees: HashTrees::default(), picker, peers: Slab::default(), now: Instant::now() }
    }

    fn peer(&mut self) -> PeerKey {
        let key = self.peers.insert(());
        self.picker.handle_peer(key);
        key
    }

    fn answer(&mut self, request: &HashRequest) -> Vec<u8> {
        self.trees.answer(&self.info, request).unwrap()
    }

    fn pass(&mut self, seconds: u64) {
        for _ in 0..seconds {
            self.now += Duration::from_secs(1);
            self.picker.handle_timeout(self.now);
        }
    }

    /// Everybody answers, and truly.
    fn run(&mut self) -> bool {
        loop {
            let requests = self.picker.requests(self.now);
            if requests.is_empty() {
                return false;
            }
            for (key, request) in requests {
                let answer = self.answer(&request);
                if self.picker.handle_hashes(key, &request, &answer) {
                    return true;
                }
            }
        }
    }

    /// The layers make the torrent whole.
    fn check(self) {
        let mut info = bare(&self.info);
        for (file, layer) in self.picker.into_layers() {
            info.set_piece_layer(file, layer).unwrap();
        }
        assert_eq!(info.missing_layers().count(), 0);
        for file in 0..info.files().len() {
            assert_eq!(info.piece_layer(file), self.info.piece_layer(file));
        }
    }
}

#[test]
fn layers_of_every_length() {
    for level in [0, 3] {
        let mut rig = Rig::new(&[1, 2, 3, 511, 512, 513, 514, 1_025, 2_000], level);
        for _ in 0..3 {
            rig.peer();
        }
        assert!(rig.run());
        assert_eq!(rig.picker.progress(), (15, 15));
        rig.check();
    }
}

/// BEP 52: a power of two of at least two hashes, at a multiple of it, and no layer too many.
#[test]
fn requests_are_sound() {
    let mut rig = Rig::new(&[2, 3, 513, 40_000], 2);
    let key = rig.peer();
    let mut seen = Vec::new();
    loop {
        let requests = rig.picker.requests(rig.now);
        if requests.is_empty() {
            break;
        }
        for (_, request) in requests {
            assert!(request.is_sound() && request.length >= 2 && request.base_layer == 2, "{request:?}");
            let answer = rig.answer(&request);
            rig.picker.handle_hashes(key, &request, &answer);
            seen.push((request.index, request.length, request.proof_layers));
        }
    }
    assert!(seen.starts_with(&[(0, 2, 0), (0, 4, 1), (0, 512, 9), (512, 2, 9), (0, 512, 15)]), "{seen:?}");
}

#[test]
fn files_of_one_root_are_fetched_once() {
    let mut builder = Builder::folder("t", ["a", "b"].map(|n| SourceFile::new([n], 3 * 16_384)).to_vec());
    builder.format = Format::V2;
    builder.piece_length = Some(16_384);
    let plan = builder.plan().unwrap();
    let hashes: Vec<Hash> = (0..6u32).map(|n| merkle::leaf(&(n % 3).to_be_bytes())).collect();
    let info = Metainfo::parse(&plan.finish(&[], &hashes).unwrap()).unwrap().info;
    let picker = HashPicker::new(&bare(&info)).unwrap();
    assert_eq!(picker.progress(), (0, 1));
    let (trees, peers, now) = (HashTrees::default(), Slab::default(), Instant::now());
    let mut rig = Rig { info, trees, picker, peers, now };
    rig.peer();
    assert!(rig.run());
    rig.check();
}

#[test]
fn nothing_is_missing() {
    assert!(HashPicker::new(&torrent(&[5, 6], 0)).is_none());
    assert!(HashPicker::new(&bare(&torrent(&[1, 1], 0))).is_none());
}

/// One wrong hash anywhere convicts, and what it was asked goes to others.
#[test]
fn liars_are_convicted() {
    let mut rig = Rig::new(&[600], 0);
    let (liar, honest) = (rig.peer(), rig.peer());
    let requests = rig.picker.requests(rig.now);
    assert_eq!(requests.len(), 2);
    for (key, request) in requests {
        let mut answer = rig.answer(&request);
        if key == liar {
            let last = answer.len() - 1;
            answer[last] ^= 1;
        }
        assert!(!rig.picker.handle_hashes(key, &request, &answer));
    }
    assert_eq!((rig.picker.poll_convicted(), rig.picker.poll_convicted()), (Some(liar), None));
    let requests = rig.picker.requests(rig.now);
    assert!(matches!(requests.as_slice(), [(key, _)] if *key == honest));
    let answer = rig.answer(&requests[0].1);
    assert!(rig.picker.handle_hashes(honest, &requests[0].1, &answer));
    rig.check();
}

/// Answers to other requests than those that were made, and to requests that were made of others, are nothing.
#[test]
fn unasked_hashes_are_nothing() {
    let mut rig = Rig::new(&[600, 5], 0);
    let (a, b) = (rig.peer(), rig.peer());
    let requests = rig.picker.requests(rig.now);
    for (key, request) in &requests {
        let other = if *key == a { b } else { a };
        let answer = rig.answer(request);
        assert!(!rig.picker.handle_hashes(other, request, &answer));
        for odd in [
            HashRequest { index: request.index + 1, ..*request },
            HashRequest { length: 1, ..*request },
            HashRequest { proof_layers: 0, ..*request },
            HashRequest { base_layer: 1, ..*request },
            HashRequest { index: u32::MAX, ..*request },
            HashRequest { pieces_root: [0; 32], ..*request },
        ] {
            rig.picker.handle_hashes(*key, &odd, &answer);
            rig.picker.handle_reject(rig.now, *key, &odd);
        }
    }
    assert_eq!((rig.picker.progress(), rig.picker.poll_convicted()), ((0, 3), None));
    assert!(!rig.run(), "all is asked for, and nothing is again");
}

#[test]
fn refusals_and_silence_go_to_others() {
    let mut rig = Rig::new(&[3], 0);
    let (a, b) = (rig.peer(), rig.peer());
    let first = rig.picker.requests(rig.now);
    assert_eq!(first.len(), 1);
    rig.picker.handle_reject(rig.now, first[0].0, &first[0].1);
    let second = rig.picker.requests(rig.now);
    assert_eq!(second.len(), 1);
    assert_ne!(second[0].0, first[0].0);
    rig.pass(1);
    assert!(rig.picker.requests(rig.now).is_empty());
    // The other one says nothing; the first is asked again when it has rested.
    rig.pass(LAPSE.as_secs());
    assert!(rig.picker.requests(rig.now).is_empty());
    rig.pass(REST.as_secs());
    let third = rig.picker.requests(rig.now);
    assert_eq!(third[0].0, first[0].0);
    // A late answer counts.
    let answer = rig.answer(&second[0].1);
    assert!(rig.picker.handle_hashes(second[0].0, &second[0].1, &answer));
    assert!([a, b].contains(&third[0].0));
    rig.check();
}

#[test]
fn what_a_peer_was_asked_that_went_goes_to_others() {
    let mut rig = Rig::new(&[5_000], 0);
    let first = rig.peer();
    assert_eq!(rig.picker.requests(rig.now).len(), IN_FLIGHT);
    rig.picker.handle_closed(first);
    rig.picker.handle_closed(first);
    rig.peer();
    assert!(rig.run());
    rig.check();
}

proptest! {
    /// Whatever the peers do, the layers come if one peer has them, and nobody honest is convicted.
    #[test]
    fn one_honest_peer_is_enough(
        files in proptest::collection::vec(1usize..1_500, 1..5),
        others in proptest::collection::vec(0u8..4, 0..6),
        seed in any::<u64>(),
    ) {
        prop_assume!(files.iter().any(|pieces| *pieces > 1));
        let mut rig = Rig::new(&files, 0);
        let mut rng = fastrand::Rng::with_seed(seed);
        let mut tempers: Vec<(PeerKey, u8)> = others.iter().map(|temper| (rig.peer(), *temper)).collect();
        let honest = rig.peer();
        tempers.push((honest, 9));
        for _ in 0..400 {
            for (key, request) in rig.picker.requests(rig.now) {
                let temper = tempers.iter().find(|(k, _)| *k == key).unwrap().1;
                let mut answer = rig.answer(&request);
                let done = match temper {
                    0 => false,
                    1 => {
                        rig.picker.handle_reject(rig.now, key, &request);
                        false
                    }
                    2 if rng.bool() => {
                        let at = rng.usize(..answer.len());
                        answer[at] ^= 1;
                        rig.picker.handle_hashes(key, &request, &answer)
                    }
                    3 if rng.bool() => {
                        rig.picker.handle_closed(key);
                        false
                    }
                    _ => rig.picker.handle_hashes(key, &request, &answer),
                };
                if done {
                    while let Some(liar) = rig.picker.poll_convicted() {
                        prop_assert!(tempers.contains(&(liar, 2)));
                    }
                    rig.check();
                    return Ok(());
                }
            }
            rig.pass(1);
        }
        prop_assert!(false, "never: {:?}", rig.picker.progress());
    }
}
