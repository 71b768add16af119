use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::*;

const PIECES: u32 = 70;

#[derive(Clone, Debug)]
enum Op {
    Join(Have),
    Leave(usize),
    Have(usize, u32),
    DontHave(usize, u32),
    Pick { peer: usize, count: usize, may_open: usize, fast: bool, hints: Option<(u32, bool)> },
    Run { peer: usize, count: usize, may_open: usize, from: u32 },
    Receive(usize, usize),
    Throw(usize, u32, u32),
    Release(usize, usize),
    ReleasePeer(usize),
    LapsePeer(usize),
    Verified(u32),
    Failed(u32),
    Abandon(u32),
    Lost(u32),
    Priority(u32, Priority),
    Sequential(bool),
}

#[derive(Clone, Debug)]
enum Have {
    All,
    Nothing,
    Of(u64, u8),
}

fn op() -> impl Strategy<Value = Op> {
    let piece = 0..PIECES;
    let peer = 0usize..8;
    let have =
        prop_oneof![Just(Have::All), Just(Have::Nothing), (any::<u64>(), 1u8..255).prop_map(|(s, n)| Have::Of(s, n))];
    let priority = prop_oneof![Just(Priority::Skip), Just(Priority::Low), Just(Priority::Normal), Just(Priority::High)];
    let hints = proptest::option::weighted(0.2, (piece.clone(), any::<bool>()));
    let room = prop_oneof![3 => Just(usize::MAX), 1 => 0usize..10];
    let pick = (peer.clone(), 0usize..40, room, any::<bool>(), hints)
        .prop_map(|(peer, count, may_open, fast, hints)| Op::Pick { peer, count, may_open, fast, hints });
    let run = (peer.clone(), 0usize..40, prop_oneof![3 => Just(usize::MAX), 1 => 0usize..10], piece.clone())
        .prop_map(|(peer, count, may_open, from)| Op::Run { peer, count, may_open, from });
    prop_oneof![
        6 => run,
        3 => have.prop_map(Op::Join),
        1 => peer.clone().prop_map(Op::Leave),
        3 => (peer.clone(), piece.clone()).prop_map(|(a, b)| Op::Have(a, b)),
        1 => (peer.clone(), piece.clone()).prop_map(|(a, b)| Op::DontHave(a, b)),
        12 => pick,
        30 => (peer.clone(), 0usize..8).prop_map(|(a, b)| Op::Receive(a, b)),
        1 => (peer.clone(), piece.clone(), 0u32..3).prop_map(|(a, b, c)| Op::Throw(a, b, c)),
        2 => (peer.clone(), 0usize..8).prop_map(|(a, b)| Op::Release(a, b)),
        1 => peer.clone().prop_map(Op::ReleasePeer),
        2 => peer.prop_map(Op::LapsePeer),
        1 => piece.clone().prop_map(Op::Verified),
        1 => piece.clone().prop_map(Op::Failed),
        1 => piece.clone().prop_map(Op::Abandon),
        1 => piece.clone().prop_map(Op::Lost),
        2 => (piece, priority).prop_map(|(a, b)| Op::Priority(a, b)),
        1 => any::<bool>().prop_map(Op::Sequential),
    ]
}

/// A plain account of who was asked for what, kept beside the picker.
struct Watched {
    scene: Scene,
    /// Block -> peer -> whether it is late.
    asked: BTreeMap<Block, BTreeMap<PeerKey, bool>>,
    received: BTreeSet<Block>,
    /// Pieces of which something was asked since they were last missing.
    open: BTreeSet<PieceIndex>,
    duplicates: usize,
    picks: String,
    joined: usize,
}

impl Watched {
    fn new(blocks: u32, seed: u64) -> Self {
        let scene = Scene::draw_seeded(blocks, seed, &[&format!("us {}", ".".repeat(PIECES as usize))]);
        let (asked, received, open) = (BTreeMap::new(), BTreeSet::new(), BTreeSet::new());
        Self { scene, asked, received, open, duplicates: 0, picks: String::new(), joined: 0 }
    }

    fn is_free(&self, block: Block) -> bool {
        let picker = &self.scene.picker;
        picker.wants(block.piece())
            && !self.received.contains(&block)
            && self.asked.get(&block).is_none_or(|askers| askers.values().all(|late| *late))
    }

    fn all_blocks(&self) -> Vec<Block> {
        let geometry = &self.scene.picker.geometry;
        geometry.pieces().flat_map(|piece| geometry.blocks(piece)).collect()
    }

    fn forget(&mut self, piece: PieceIndex) {
        self.asked.retain(|block, _| block.piece() != piece);
        self.received.retain(|block| block.piece() != piece);
        self.open.remove(&piece);
    }

    fn forget_peer(&mut self, key: PeerKey) {
        for askers in self.asked.values_mut() {
            askers.remove(&key);
        }
    }

    fn pick(&mut self, at: usize, count: usize, may_open: usize, fast: bool) {
        let name = self.scene.peers[at].name.clone();
        self.scene.peers[at].fast = fast;
        let blocks = self.scene.pick_blocks(&name, count, may_open);
        self.account(at, &blocks, count, may_open);
        if blocks.len() < count && may_open == usize::MAX {
            assert_eq!(self.left_for(at), None, "idle although there is something to ask for");
        }
    }

    /// The same as of a web seed.
    fn run(&mut self, at: usize, from: u32, count: usize, may_open: usize) {
        let name = self.scene.peers[at].name.clone();
        self.scene.peers[at].allowed = None;
        let blocks = self.scene.run_blocks(&name, &[], Some(from), count, may_open);
        self.account(at, &blocks, count, may_open);
        if blocks.is_empty() && count > 0 && may_open == usize::MAX {
            assert_eq!(self.left_for(at), None, "idle although there is something to ask for");
        }
    }

    /// A block that the peer could be asked for.
    fn left_for(&self, at: usize) -> Option<Block> {
        let Peer { key, have, allowed, .. } = &self.scene.peers[at];
        self.all_blocks().into_iter().find(|block| {
            let ours = self.asked.get(block).is_some_and(|askers| askers.contains_key(key));
            let allowed = allowed.as_ref().is_none_or(|allowed| allowed.contains(&block.piece()));
            self.is_free(*block) && have.has(block.piece()) && allowed && !ours
        })
    }

    fn account(&mut self, at: usize, blocks: &[Block], count: usize, may_open: usize) {
        let Peer { key, have, allowed, .. } = &self.scene.peers[at];
        let (key, have, allowed) = (*key, have.clone(), allowed.clone());
        let all = self.all_blocks();
        let reachable = |w: &Self, block: &Block| w.is_free(*block) && w.scene.picker.availability(block.piece()) > 0;
        assert!(blocks.len() <= count);
        let (mut opened, mut again) = (0, 0);
        let open_before = self.open.clone();
        for block in blocks {
            let piece = block.piece();
            assert!(self.scene.picker.wants(piece) && have.has(piece), "{block:?}");
            assert!(allowed.as_ref().is_none_or(|allowed| allowed.contains(&piece)));
            assert!(!self.received.contains(block));
            opened += usize::from(!open_before.contains(&piece));
            again += usize::from(!self.is_free(*block));
            let askers = self.asked.entry(*block).or_default();
            assert!(askers.insert(key, false).is_none(), "asked twice from one peer");
            assert!(askers.values().filter(|late| !**late).count() <= 4);
            self.open.insert(piece);
        }
        assert!(opened <= may_open);
        // A free block is not left, and nothing asked for twice, as long as there is something that may be asked for.
        let something = all.iter().any(|block| reachable(self, block));
        assert!(again == 0 || !something, "endgame too early");
        self.duplicates += again;
        assert!(self.duplicates <= 16.max(all.len() / 50));
        assert_eq!(self.duplicates, self.scene.picker.duplicates() as usize);
        self.picks += &show(blocks);
        self.picks += "\n";
    }

    fn receive(&mut self, key: PeerKey, block: Block) {
        let askers = self.asked.get(&block).cloned().unwrap_or_default();
        let received = self.scene.picker.receive(key, block);
        let there = self.scene.picker.have().has(block.piece()) || self.received.contains(&block);
        match received {
            Received::Duplicate => assert!(there),
            Received::Unwanted => assert!(!there && !askers.contains_key(&key)),
            Received::New { piece_full, also_asked } => {
                assert!(!there && askers.contains_key(&key));
                let others: BTreeSet<_> = askers.keys().copied().filter(|other| *other != key).collect();
                assert_eq!(also_asked.into_iter().collect::<BTreeSet<_>>(), others);
                self.asked.remove(&block);
                self.received.insert(block);
                let came = self.received.iter().filter(|other| other.piece() == block.piece()).count();
                let blocks = self.scene.picker.geometry.block_count(block.piece());
                assert_eq!(piece_full, came == blocks as usize);
            }
        }
    }

    fn request(&self, at: usize, which: usize) -> Option<(PeerKey, Block)> {
        let key = self.scene.peers[at].key;
        let asked: Vec<_> = self.scene.picker.requests_of(key).collect();
        (!asked.is_empty()).then(|| (key, asked[which % asked.len()]))
    }

    fn apply(&mut self, op: &Op) {
        let peers = self.scene.peers.len();
        let peer = |n: usize| if peers == 0 { None } else { Some(n % peers) };
        let piece = |n: u32| self.scene.piece(n);
        match op {
            Op::Join(_) if peers >= 8 => {}
            Op::Join(have) => {
                let mut bits = Bitfield::new(PIECES);
                match have {
                    Have::All => bits = Bitfield::full(PIECES),
                    Have::Nothing => {}
                    Have::Of(seed, density) => {
                        let mut rng = fastrand::Rng::with_seed(*seed);
                        let some = self.scene.picker.geometry.pieces().filter(|_| rng.u8(..) < *density);
                        for piece in some {
                            bits.set(piece);
                        }
                    }
                }
                self.joined += 1;
                let name = format!("p{}", self.joined);
                self.scene.join(&name, bits);
            }
            Op::Leave(n) => {
                let Some(at) = peer(*n) else { return };
                self.forget_peer(self.scene.peers[at].key);
                let name = self.scene.peers[at].name.clone();
                self.scene.leave(&name);
            }
            Op::Have(n, p) => {
                let (Some(at), piece) = (peer(*n), piece(*p)) else { return };
                let Scene { picker, peers, .. } = &mut self.scene;
                if peers[at].have.set(piece) {
                    picker.add_have(peers[at].counted.as_mut().unwrap(), piece);
                }
            }
            Op::DontHave(n, p) => {
                let (Some(at), piece) = (peer(*n), piece(*p)) else { return };
                let Scene { picker, peers, .. } = &mut self.scene;
                if peers[at].have.clear(piece) {
                    picker.remove_have(peers[at].counted.as_mut().unwrap(), piece);
                }
            }
            Op::Pick { peer: n, count, may_open, fast, hints } => {
                let Some(at) = peer(*n) else { return };
                let pieces = |from: u32| (from..PIECES).take(8).map(piece).collect::<Vec<_>>();
                let (suggested, allowed) = match hints {
                    None => (vec![], None),
                    Some((from, false)) => (pieces(*from), None),
                    Some((from, true)) => (vec![], Some(pieces(*from))),
                };
                self.scene.peers[at].suggested = suggested;
                self.scene.peers[at].allowed = allowed;
                self.pick(at, *count, *may_open, *fast);
            }
            Op::Run { peer: n, count, may_open, from } => {
                let Some(at) = peer(*n) else { return };
                self.run(at, *from, *count, *may_open);
            }
            Op::Receive(n, which) => {
                let Some((key, block)) = peer(*n).and_then(|at| self.request(at, *which)) else { return };
                self.receive(key, block);
                if self.scene.picker.state(block.piece()) == PieceState::Full && which % 4 != 0 {
                    assert!(self.scene.picker.verified(block.piece()));
                    self.forget(block.piece());
                }
            }
            Op::Throw(n, p, number) => {
                let Some(at) = peer(*n) else { return };
                let Ok(block) = self.scene.picker.geometry.block(piece(*p), *number) else { return };
                self.receive(self.scene.peers[at].key, block);
            }
            Op::Release(n, which) => {
                let Some((key, block)) = peer(*n).and_then(|at| self.request(at, *which)) else { return };
                assert!(self.scene.picker.release(key, block));
                assert!(!self.scene.picker.release(key, block));
                self.asked.get_mut(&block).unwrap().remove(&key);
            }
            Op::ReleasePeer(n) => {
                let Some(at) = peer(*n) else { return };
                let key = self.scene.peers[at].key;
                let asked = self.asked.values().filter(|askers| askers.contains_key(&key)).count();
                assert_eq!(self.scene.picker.release_peer(key), asked);
                self.forget_peer(key);
            }
            Op::LapsePeer(n) => {
                let Some(at) = peer(*n) else { return };
                let key = self.scene.peers[at].key;
                self.scene.picker.lapse_peer(key);
                for askers in self.asked.values_mut() {
                    askers.entry(key).and_modify(|late| *late = true);
                }
            }
            Op::Verified(p) => {
                let piece = piece(*p);
                let had = self.scene.picker.have().has(piece);
                assert_eq!(self.scene.picker.verified(piece), !had);
                self.forget(piece);
            }
            Op::Failed(p) | Op::Abandon(p) => {
                let piece = piece(*p);
                let was_open = if matches!(op, Op::Failed(_)) {
                    self.scene.picker.failed(piece)
                } else {
                    self.scene.picker.abandon(piece)
                };
                assert_eq!(was_open, self.open.contains(&piece));
                self.forget(piece);
            }
            Op::Lost(p) => {
                let piece = piece(*p);
                let had = self.scene.picker.have().has(piece);
                assert_eq!(self.scene.picker.lost(piece), had);
            }
            Op::Priority(p, priority) => {
                let piece = piece(*p);
                self.scene.picker.set_priority(piece, *priority);
            }
            Op::Sequential(sequential) => self.scene.picker.set_sequential(*sequential),
        }
        self.scene.check();
    }

    /// From here on everybody answers, and there is a seed.
    fn finish(&mut self) {
        self.scene.join("seed", Bitfield::full(PIECES));
        let open: Vec<_> = self.scene.picker.open_pieces().map(|open| open.piece).collect();
        for piece in open {
            if self.scene.picker.state(piece) == PieceState::Full {
                self.scene.picker.verified(piece);
                self.forget(piece);
            }
        }
        for _ in 0..10_000 {
            if self.scene.picker.is_complete() {
                return;
            }
            for at in 0..self.scene.peers.len() {
                self.scene.peers[at].allowed = None;
                self.pick(at, 5, usize::MAX, at % 2 == 0);
                for block in self.scene.picker.requests_of(self.scene.peers[at].key).collect::<Vec<_>>() {
                    self.receive(self.scene.peers[at].key, block);
                    if self.scene.picker.state(block.piece()) == PieceState::Full {
                        assert!(self.scene.picker.verified(block.piece()));
                        self.forget(block.piece());
                    }
                }
            }
        }
        panic!("it does not end");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, ..ProptestConfig::default() })]

    /// Whatever happens: no block is asked for that should not be, nobody is left idle, the accounts are right, it ends.
    #[test]
    fn whatever_happens(blocks in 1u32..4, seed in any::<u64>(), ops in prop::collection::vec(op(), 1..250)) {
        let mut watched = Watched::new(blocks, seed);
        let mut again = Watched::new(blocks, seed);
        for op in &ops {
            watched.apply(op);
        }
        watched.finish();
        for op in &ops {
            again.apply(op);
        }
        again.finish();
        prop_assert_eq!(watched.picks, again.picks);
    }
}
