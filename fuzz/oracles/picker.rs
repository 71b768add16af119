//! The picker against a plain account of who was asked for what: nothing is asked for that should not be, nobody is left
//! idle, nothing is counted wrong.

use std::collections::{BTreeMap, BTreeSet};

use gannet::base::{BLOCK_LEN, Bitfield, Block, Geometry, PeerKey, PieceIndex, Slab};
use gannet::swarm::Picker;
use gannet::swarm::picker::{Ask, Counted, PieceState, Priority, Received, RunAsk};

use super::tape::Tape;

const PIECES: u32 = 40;
const PEERS: usize = 6;
const STEPS: usize = 250;

struct Peer {
    key: PeerKey,
    have: Bitfield,
    counted: Counted,
}

struct Account {
    picker: Picker,
    geometry: Geometry,
    slab: Slab<()>,
    peers: Vec<Peer>,
    /// Block -> peer -> whether it is late.
    asked: BTreeMap<Block, BTreeMap<PeerKey, bool>>,
    received: BTreeSet<Block>,
    /// A piece that failed before comes from one peer, so that it is known whom to blame: from which, as long as it can.
    owners: BTreeMap<PieceIndex, PeerKey>,
}

pub fn run(data: &[u8]) {
    let mut tape = Tape(data);
    let [blocks, seed] = tape.array();
    let piece_len = BLOCK_LEN * (u32::from(blocks % 3) + 1);
    let geometry = Geometry::new(u64::from(PIECES * piece_len) - 100, piece_len).unwrap();
    let picker = Picker::new(geometry.clone(), &Bitfield::new(PIECES), seed.into());
    let mut account = Account {
        picker,
        geometry,
        slab: Slab::default(),
        peers: Vec::new(),
        asked: BTreeMap::new(),
        received: BTreeSet::new(),
        owners: BTreeMap::new(),
    };
    for _ in 0..STEPS {
        if tape.is_over() {
            break;
        }
        account.step(&mut tape);
        account.check();
    }
    account.finish();
}

impl Account {
    fn step(&mut self, tape: &mut Tape<'_>) {
        let [kind, who, a, b] = tape.array();
        let piece = self.geometry.piece(u32::from(a) % PIECES).unwrap();
        if kind % 24 == 0 {
            return self.join(a, b);
        }
        let at = usize::from(who) % self.peers.len().max(1);
        let Some(peer) = self.peers.get(at) else { return };
        let key = peer.key;
        let mine: Vec<Block> = self.picker.requests_of(key).collect();
        let block = mine.get(usize::from(b) % mine.len().max(1)).copied();
        match kind % 24 {
            1 => {
                self.picker.release_peer(key);
                self.forget_peer(key);
                let Peer { have, counted, .. } = self.peers.swap_remove(at);
                self.picker.remove_peer(counted, &have);
                self.slab.remove(key);
            }
            2 if !peer.have.has(piece) => {
                let peer = &mut self.peers[at];
                peer.have.set(piece);
                self.picker.add_have(&mut peer.counted, piece);
            }
            3 if peer.have.has(piece) => {
                let peer = &mut self.peers[at];
                peer.have.clear(piece);
                self.picker.remove_have(&mut peer.counted, piece);
                // As the swarm does.
                self.picker.disown(key);
                self.disown(key);
            }
            4..8 => self.pick(at, usize::from(b % 40), usize::MAX, kind & 64 != 0),
            8 => self.pick(at, usize::from(b % 40), usize::from(a % 10), kind & 64 != 0),
            9 | 10 => self.pick_run(at, usize::from(b % 40), piece),
            11..16 => {
                if let Some(block) = block {
                    self.receive(key, block);
                }
            }
            16 => {
                let number = u32::from(b) % self.geometry.block_count(piece);
                self.receive(key, self.geometry.block(piece, number).unwrap());
            }
            17 => {
                if let Some(block) = block {
                    assert!(self.picker.release(key, block));
                    assert!(!self.picker.release(key, block), "twice");
                    self.asked.get_mut(&block).unwrap().remove(&key);
                    self.owners.retain(|piece, owner| *piece != block.piece() || *owner != key);
                }
            }
            18 | 19 => {
                let in_time = self.asked.values().filter(|askers| askers.get(&key) == Some(&false)).count();
                assert_eq!(self.picker.lapse_peer(key), in_time);
                self.disown(key);
                self.asked.values_mut().for_each(|askers| {
                    askers.entry(key).and_modify(|late| *late = true);
                });
            }
            20 => {
                let full = self.picker.state(piece) == PieceState::Full;
                if full && b & 1 == 1 {
                    assert!(self.picker.verified(piece));
                    self.forget(piece);
                } else if full {
                    assert!(self.picker.failed(piece));
                    self.forget(piece);
                }
            }
            21 => {
                self.picker.abandon(piece);
                self.forget(piece);
            }
            22 => {
                let priorities = [Priority::Skip, Priority::Low, Priority::Normal, Priority::High];
                self.picker.set_priority(piece, priorities[usize::from(b) % 4]);
            }
            23 if b & 7 == 0 => {
                let had = self.picker.have().has(piece);
                assert_eq!(self.picker.lost(piece), had);
            }
            23 => self.picker.set_sequential(b & 1 == 1),
            _ => {}
        }
    }

    fn join(&mut self, a: u8, b: u8) {
        if self.peers.len() >= PEERS {
            return;
        }
        let mut have = Bitfield::new(PIECES);
        for piece in self.geometry.pieces().filter(|piece| a | b.rotate_left(piece.get()) & 1 != 0) {
            have.set(piece);
        }
        let counted = self.picker.add_peer(&have);
        self.peers.push(Peer { key: self.slab.insert(()), have, counted });
    }

    fn pick(&mut self, at: usize, count: usize, may_open: usize, fast: bool) {
        let missing = self.missing();
        let Peer { key, have, .. } = &self.peers[at];
        let (key, mut out) = (*key, Vec::new());
        let ask = Ask { peer: key, have, allowed: None, suggested: &[], count, may_open, fast, rate: 100_000 };
        self.picker.pick(&ask, &mut out);
        self.picked(at, &out, count, may_open, &missing);
        if out.len() < count && may_open == usize::MAX {
            assert_eq!(self.left_for(at), None, "idle although there is something to ask for");
        }
    }

    fn pick_run(&mut self, at: usize, count: usize, from: PieceIndex) {
        let missing = self.missing();
        let Peer { key, have, .. } = &self.peers[at];
        let (key, mut out) = (*key, Vec::new());
        let may_open = usize::MAX;
        let ask = Ask { peer: key, have, allowed: None, suggested: &[], count, may_open, fast: true, rate: 100_000 };
        self.picker.pick_run(&RunAsk { ask, kin: &[], from: Some(from) }, &mut out);
        self.picked(at, &out, count, may_open, &missing);
        if out.is_empty() && count > 0 {
            assert_eq!(self.left_for(at), None, "idle although there is something to ask for");
        }
    }

    /// Pieces that nobody was asked for.
    fn missing(&self) -> BTreeSet<PieceIndex> {
        self.geometry.pieces().filter(|piece| self.picker.state(*piece) == PieceState::Missing).collect()
    }

    fn picked(&mut self, at: usize, blocks: &[Block], count: usize, may_open: usize, missing: &BTreeSet<PieceIndex>) {
        let (key, have) = (self.peers[at].key, self.peers[at].have.clone());
        assert!(blocks.len() <= count);
        let opened: BTreeSet<PieceIndex> = blocks.iter().map(|block| block.piece()).collect();
        let opened =
            opened.intersection(missing).map(|piece| self.geometry.block_count(*piece) as usize).sum::<usize>();
        assert!(opened <= may_open, "{opened} blocks opened, {may_open} allowed");
        for block in blocks {
            assert!(self.picker.wants(block.piece()) && have.has(block.piece()), "{block:?}");
            assert!(!self.received.contains(block), "{block:?} is there");
            let askers = self.asked.entry(*block).or_default();
            if self.picker.is_exclusive(block.piece()) && askers.values().all(|late| *late) {
                self.owners.insert(block.piece(), key);
            }
            assert!(askers.insert(key, false).is_none(), "asked twice from one peer");
            assert!(askers.values().filter(|late| !**late).count() <= 4);
        }
    }

    /// A block that nobody is asked for in time, and that the peer could be asked for.
    fn left_for(&self, at: usize) -> Option<Block> {
        let Peer { key, have, .. } = &self.peers[at];
        let blocks = self.geometry.pieces().flat_map(|piece| self.geometry.blocks(piece));
        blocks.filter(|block| have.has(block.piece()) && self.picker.wants(block.piece())).find(|block| {
            let askers = self.asked.get(block);
            let free = askers.is_none_or(|askers| askers.values().all(|late| *late));
            let others = self.owners.get(&block.piece()).is_some_and(|owner| owner != key);
            free && !others && !self.received.contains(block) && !askers.is_some_and(|askers| askers.contains_key(key))
        })
    }

    fn receive(&mut self, key: PeerKey, block: Block) {
        let askers = self.asked.get(&block).cloned().unwrap_or_default();
        let there = self.picker.have().has(block.piece()) || self.received.contains(&block);
        match self.picker.receive(key, block) {
            Received::Duplicate => assert!(there),
            Received::Unwanted => assert!(!there && !askers.contains_key(&key)),
            Received::New { piece_full, also_asked } => {
                assert!(!there && askers.contains_key(&key));
                let others: BTreeSet<_> = askers.keys().copied().filter(|other| *other != key).collect();
                assert_eq!(also_asked.into_iter().collect::<BTreeSet<_>>(), others);
                self.asked.remove(&block);
                self.received.insert(block);
                let came = self.received.iter().filter(|other| other.piece() == block.piece()).count();
                assert_eq!(piece_full, came == self.geometry.block_count(block.piece()) as usize);
            }
        }
    }

    fn forget(&mut self, piece: PieceIndex) {
        self.asked.retain(|block, _| block.piece() != piece);
        self.received.retain(|block| block.piece() != piece);
        self.owners.remove(&piece);
    }

    fn disown(&mut self, key: PeerKey) {
        self.owners.retain(|_, owner| *owner != key);
    }

    fn forget_peer(&mut self, key: PeerKey) {
        self.asked.values_mut().for_each(|askers| {
            askers.remove(&key);
        });
        self.disown(key);
    }

    fn check(&self) {
        for piece in self.geometry.pieces() {
            let having = self.peers.iter().filter(|peer| peer.have.has(piece)).count();
            assert_eq!(self.picker.availability(piece) as usize, having, "{piece}");
        }
        let asked: usize = self.asked.values().map(BTreeMap::len).sum();
        let told: usize = self.peers.iter().map(|peer| self.picker.asked_of(peer.key)).sum();
        assert_eq!(asked, told);
        for (block, askers) in &self.asked {
            for key in askers.keys() {
                assert!(self.picker.is_requested_by(*key, *block));
            }
        }
    }

    /// From here on everybody answers, and there is a seed.
    fn finish(&mut self) {
        while self.peers.len() >= PEERS {
            let Peer { key, have, counted } = self.peers.remove(0);
            self.picker.release_peer(key);
            self.forget_peer(key);
            self.picker.remove_peer(counted, &have);
            self.slab.remove(key);
        }
        self.join(255, 255);
        for _ in 0..2_000 {
            for piece in self.geometry.pieces() {
                if self.picker.state(piece) == PieceState::Full {
                    assert!(self.picker.verified(piece));
                    self.forget(piece);
                }
            }
            if self.picker.is_complete() {
                return;
            }
            for at in 0..self.peers.len() {
                self.pick(at, 8, usize::MAX, at % 2 == 0);
                let key = self.peers[at].key;
                for block in self.picker.requests_of(key).collect::<Vec<_>>() {
                    self.receive(key, block);
                }
            }
        }
        panic!("it does not end");
    }
}
