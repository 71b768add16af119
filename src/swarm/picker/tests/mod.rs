//! Swarms drawn as strings, and a model that watches random ones.

mod policies;
mod random;
mod runs;

use super::*;
use crate::base::Slab;

/// A swarm drawn as lines of a name and one character for each piece:
///
/// ```text
/// us   ..#.     what we have: '#' or '.'
/// want =+-_     Normal, High, Low, Skip; Normal where the line is missing
/// a    ####     what peer a has
/// ```
struct Scene {
    picker: Picker,
    slab: Slab<()>,
    peers: Vec<Peer>,
}

struct Peer {
    name: String,
    key: PeerKey,
    have: Bitfield,
    counted: Option<Counted>,
    fast: bool,
    rate: u64,
    suggested: Vec<PieceIndex>,
    allowed: Option<Vec<PieceIndex>>,
}

impl Scene {
    /// All pieces have so many `blocks`.
    fn draw(blocks: u32, lines: &[&str]) -> Self {
        Self::draw_seeded(blocks, 1, lines)
    }

    fn draw_seeded(blocks: u32, seed: u64, lines: &[&str]) -> Self {
        let lines: Vec<(&str, &str)> = lines.iter().map(|line| line.split_once(' ').unwrap()).collect();
        let pieces = u32::try_from(lines[0].1.trim().len()).unwrap();
        let length = blocks * BLOCK_LEN;
        let geometry = Geometry::new(u64::from(length) * u64::from(pieces), length).unwrap();
        let drawn = |line: &str| {
            let mut bits = Bitfield::new(pieces);
            assert_eq!(line.trim().len(), pieces as usize, "{line}");
            for (piece, char) in geometry.pieces().zip(line.trim().chars()) {
                if char == '#' {
                    bits.set(piece);
                }
            }
            bits
        };
        assert_eq!(lines[0].0, "us");
        let picker = Picker::new(geometry.clone(), &drawn(lines[0].1), seed);
        let mut scene = Self { picker, slab: Slab::default(), peers: Vec::new() };
        for (name, line) in &lines[1..] {
            if *name == "want" {
                for (piece, char) in geometry.pieces().zip(line.trim().chars()) {
                    let priority = match char {
                        '+' => Priority::High,
                        '=' => Priority::Normal,
                        '-' => Priority::Low,
                        _ => Priority::Skip,
                    };
                    scene.picker.set_priority(piece, priority);
                }
            } else {
                scene.join(name, drawn(line));
            }
        }
        scene
    }

    fn join(&mut self, name: &str, have: Bitfield) -> PeerKey {
        let key = self.slab.insert(());
        let counted = Some(self.picker.add_peer(&have));
        let name = name.to_owned();
        let (fast, rate, suggested, allowed) = (false, 0, vec![], None);
        self.peers.push(Peer { name, key, have, counted, fast, rate, suggested, allowed });
        key
    }

    fn peer(&mut self, name: &str) -> &mut Peer {
        self.peers.iter_mut().find(|peer| peer.name == name).unwrap()
    }

    fn key(&self, name: &str) -> PeerKey {
        self.peers.iter().find(|peer| peer.name == name).unwrap().key
    }

    fn leave(&mut self, name: &str) {
        let at = self.peers.iter().position(|peer| peer.name == name).unwrap();
        let peer = self.peers.remove(at);
        self.picker.release_peer(peer.key);
        self.picker.remove_peer(peer.counted.unwrap(), &peer.have);
        self.slab.remove(peer.key);
    }

    fn piece(&self, number: u32) -> PieceIndex {
        self.picker.geometry.piece(number).unwrap()
    }

    fn block(&self, piece: u32, number: u32) -> Block {
        self.picker.geometry.block(self.piece(piece), number).unwrap()
    }

    fn pick_blocks(&mut self, name: &str, count: usize, may_open: usize) -> Vec<Block> {
        let Peer { key, have, fast, rate, suggested, allowed, .. } =
            self.peers.iter().find(|peer| peer.name == name).unwrap();
        let (peer, fast, allowed) = (*key, *fast, allowed.as_deref());
        let mut out = Vec::new();
        self.picker.pick(&Ask { peer, have, allowed, suggested, count, may_open, fast, rate: *rate }, &mut out);
        self.check();
        out
    }

    fn run_blocks(&mut self, name: &str, kin: &[&str], from: Option<u32>, count: usize, may_open: usize) -> Vec<Block> {
        let kin: Vec<PeerKey> = kin.iter().map(|name| self.key(name)).collect();
        let from = from.map(|piece| self.piece(piece));
        let Peer { key, have, rate, .. } = self.peers.iter().find(|peer| peer.name == name).unwrap();
        let (peer, rate) = (*key, *rate);
        let ask = Ask { peer, have, allowed: None, suggested: &[], count, may_open, fast: true, rate };
        let mut out = Vec::new();
        self.picker.pick_run(&RunAsk { ask, kin: &kin, from }, &mut out);
        self.check();
        out
    }

    /// What is asked from the web seed `name`, as pieces.
    fn run(&mut self, name: &str, kin: &[&str], from: Option<u32>, count: usize) -> String {
        let blocks = self.run_blocks(name, kin, from, count, usize::MAX);
        let mut pieces: Vec<_> = blocks.iter().map(|block| block.piece().to_string()).collect();
        pieces.dedup();
        pieces.join(" ")
    }

    /// What is asked from `name`, as "piece.block ...".
    fn pick(&mut self, name: &str, count: usize) -> String {
        show(&self.pick_blocks(name, count, usize::MAX))
    }

    fn receive(&mut self, name: &str, piece: u32, number: u32) -> Received {
        let (key, block) = (self.key(name), self.block(piece, number));
        let received = self.picker.receive(key, block);
        self.check();
        received
    }

    fn check(&self) {
        check(&self.picker, self.peers.iter().map(|peer| (peer.key, &peer.have)));
    }
}

fn show(blocks: &[Block]) -> String {
    let shown: Vec<_> = blocks.iter().map(|b| format!("{}.{}", b.piece(), b.number())).collect();
    shown.join(" ")
}

/// Panics unless all that the picker keeps fits together.
fn check<'a>(picker: &Picker, peers: impl Iterator<Item = (PeerKey, &'a Bitfield)> + Clone) {
    picker.order.check(picker.availability.each());
    picker.table.check();
    picker.asks.check();
    for piece in picker.geometry.pieces() {
        let having = peers.clone().filter(|(_, have)| have.has(piece)).count();
        assert_eq!(picker.availability(piece) as usize, having, "{piece}");
        let had = picker.have.has(piece);
        let wanted = picker.priority(piece) != Priority::Skip;
        assert_eq!(picker.wants(piece), wanted && !had);
        let open = picker.table.find(piece);
        assert!(!(had && open.is_some()));
        for class in 0..CLASSES {
            let missing = !had && open.is_none() && picker.priority(piece).class() == Some(class);
            assert_eq!(picker.order.contains(class, piece), missing);
        }
        let Some(open) = open else { continue };
        assert_eq!(open.class(), picker.priority(piece).class());
        for (number, block) in (0u32..).zip(open.blocks()) {
            for asker in block.askers() {
                let asked = picker.asks.of(asker.peer);
                assert_eq!(asked.filter(|asked| (asked.piece, asked.number) == (piece, number)).count(), 1);
            }
        }
    }
    let askers = picker.table.iter().flat_map(|open| open.blocks()).map(|block| block.askers().len());
    assert_eq!(askers.sum::<usize>(), peers.map(|(key, _)| picker.asks.of(key).len()).sum::<usize>());
}
