//! One swarm whose memory holds a few blocks only, among peers and disk threads that do things in any order.

use std::collections::{BTreeMap, HashSet, VecDeque};
use std::net::{Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use gannet::base::{BLOCK_LEN, Bitfield, Block, BlockBuf, Geometry, PeerId, PeerKey, PieceIndex, ShortPiece};
use gannet::hash::keyed_digests;
use gannet::swarm::{Action, CloseReason, FullPiece, NewPeer, Receive, Spill, Spilled, Swarm, SwarmConfig, Verdict};
use gannet::wire::{Decoder, Item, Message, PieceHeader, Reserved};

#[derive(Clone, Debug)]
pub(crate) enum Op {
    Join {
        have: u8,
        fast: bool,
    },
    Leave(usize),
    Have(usize, u32),
    Choke(usize),
    Unchoke(usize),
    /// Begins to send the next block that it was asked for.
    Begin(usize),
    /// Ends with it; corrupted or not.
    End(usize, bool),
    /// Answers some requests in one go.
    Send(usize, usize),
    Reject(usize),
    /// A disk thread ends with one of the jobs.
    Disk(usize),
    Wait(u64),
}

/// Pieces of up to twelve blocks, the last short, one with padding.
fn geometry(pieces: u32, blocks: u32) -> Geometry {
    let length = blocks * BLOCK_LEN;
    let last = ShortPiece { piece: pieces - 1, wire_len: length - 777, data_len: length - 777 };
    let padded = ShortPiece { piece: 0, wire_len: length, data_len: length - 10_000 };
    let short = if pieces == 1 { vec![last] } else { vec![padded, last] };
    Geometry::with_short_pieces(length, pieces, short).unwrap()
}

struct Remote {
    key: PeerKey,
    fast: bool,
    choking: bool,
    asked: VecDeque<Block>,
    receiving: Option<(Block, BlockBuf)>,
}

pub(crate) enum Job {
    Verify(FullPiece),
    Spill(Spill),
    VerifyStored(PieceIndex),
}

pub(crate) struct Rig {
    geometry: Geometry,
    pub(crate) swarm: Swarm,
    pub(crate) now: Instant,
    peers: Vec<Remote>,
    joined: u8,
    pub(crate) jobs: Vec<Job>,
    /// What the first bytes of each block on disk say: see [`mark`].
    disk: BTreeMap<(PieceIndex, u32), [u8; 6]>,
    /// Peers that ever sent a bad block.
    liars: HashSet<PeerKey>,
    have: Bitfield,
    memory: u64,
}

/// The first bytes of every block: where it belongs, and whether it is right.
fn mark(block: Block, bad: bool) -> [u8; 6] {
    let [a, b] = u16::try_from(block.number()).unwrap().to_be_bytes();
    [b'#', u8::try_from(block.piece().get()).unwrap(), a, b, u8::from(bad), 1]
}

impl Rig {
    pub(crate) fn new(pieces: u32, blocks: u32, memory: u64, seed: u64) -> Self {
        let geometry = geometry(pieces, blocks);
        let config = SwarmConfig {
            info_hash: [7; 20],
            peer_id: PeerId([1; 20]),
            listen_port: None,
            dht_port: None,
            max_peers: 20,
            block_memory: memory * u64::from(BLOCK_LEN),
            limit_up: None,
            sequential: seed.is_multiple_of(5),
            super_seed: false,
            pex: true,
            holepunch: false,
            many_per_address: false,
        };
        let now = Instant::now();
        let have = Bitfield::new(pieces);
        Self {
            swarm: Swarm::new(now, geometry.clone(), &have, &[], config, seed),
            geometry,
            now,
            peers: Vec::new(),
            joined: 1,
            jobs: Vec::new(),
            disk: BTreeMap::new(),
            liars: HashSet::new(),
            have,
            memory: memory * u64::from(BLOCK_LEN),
        }
    }

    pub(crate) fn apply(&mut self, op: &Op) {
        let at = |n: usize| if self.peers.is_empty() { None } else { Some(n % self.peers.len()) };
        match *op {
            Op::Join { have, fast } if self.peers.len() < 6 => self.join(have, fast),
            Op::Join { .. } => {}
            Op::Wait(ms) => self.wait(Duration::from_millis(ms)),
            Op::Disk(which) if !self.jobs.is_empty() => self.work(which),
            Op::Disk(_) => {}
            Op::Leave(n) => {
                let Some(n) = at(n) else { return };
                let gone = self.peers.remove(n);
                self.swarm.handle_closed(self.now, gone.key);
            }
            Op::Have(n, piece) => {
                let Some(n) = at(n) else { return };
                self.say(n, &Message::Have(piece % self.geometry.piece_count()));
            }
            Op::Choke(n) => {
                let Some(n) = at(n) else { return };
                self.peers[n].choking = true;
                self.say(n, &Message::Choke);
                if self.peers[n].fast {
                    self.reject(n, usize::MAX);
                }
                self.peers[n].asked.clear();
            }
            Op::Unchoke(n) => {
                let Some(n) = at(n) else { return };
                self.peers[n].choking = false;
                self.say(n, &Message::Unchoke);
            }
            Op::Reject(n) => {
                let Some(n) = at(n) else { return };
                if self.peers[n].fast {
                    self.reject(n, 1);
                }
            }
            Op::Begin(n) => {
                let Some(n) = at(n) else { return };
                self.begin(n);
            }
            Op::End(n, bad) => {
                let Some(n) = at(n) else { return };
                self.end(n, bad);
            }
            Op::Send(n, count) => {
                let Some(n) = at(n) else { return };
                for _ in 0..count {
                    self.begin(n);
                    self.end(n, false);
                }
            }
        }
        self.settle();
    }

    fn join(&mut self, have: u8, fast: bool) {
        self.joined += 1;
        let reserved = if fast { Reserved::NONE.with_fast() } else { Reserved::NONE };
        let address = SocketAddr::from((Ipv4Addr::new(93, 184, self.joined, 1), 6881));
        let new = NewPeer { address, outgoing: false, id: PeerId([self.joined; 20]), reserved, v2: false, utp: false };
        let Ok(key) = self.swarm.handle_connected(self.now, new) else { return };
        let asked = VecDeque::new();
        self.peers.push(Remote { key, fast, choking: true, asked, receiving: None });
        let mut theirs = Bitfield::new(self.geometry.piece_count());
        for piece in self.geometry.pieces().filter(|piece| have >> (piece.get() % 8) & 1 == 1) {
            theirs.set(piece);
        }
        self.say(self.peers.len() - 1, &Message::Bitfield(&theirs.to_wire()));
    }

    fn say(&mut self, n: usize, message: &Message<'_>) {
        self.swarm.handle_message(self.now, self.peers[n].key, message).unwrap();
        self.swarm.handle_turn(self.now, self.peers[n].key);
    }

    fn reject(&mut self, n: usize, count: usize) {
        for _ in 0..count {
            let Some(block) = self.peers[n].asked.pop_front() else { return };
            let (index, begin, len) = (block.piece().get(), block.begin(), block.len());
            self.say(n, &Message::Reject { index, begin, len });
        }
    }

    fn begin(&mut self, n: usize) {
        let peer = &mut self.peers[n];
        if peer.receiving.is_some() || peer.choking {
            return;
        }
        let Some(block) = peer.asked.pop_front() else { return };
        let header = PieceHeader { index: block.piece().get(), begin: block.begin(), len: block.len() };
        if let Receive::Into(block, buf) = self.swarm.receive_into(self.now, peer.key, header).unwrap() {
            peer.receiving = Some((block, buf));
        }
    }

    fn end(&mut self, n: usize, bad: bool) {
        let peer = &mut self.peers[n];
        let Some((block, mut buf)) = peer.receiving.take() else { return };
        buf.as_mut_slice().fill(0);
        buf.as_mut_slice()[..6].copy_from_slice(&mark(block, bad));
        let key = peer.key;
        if bad {
            self.liars.insert(key);
        }
        self.swarm.handle_block(self.now, key, block, buf);
        self.swarm.handle_turn(self.now, key);
        self.settle();
    }

    fn wait(&mut self, time: Duration) {
        let until = self.now + time;
        while self.now < until {
            self.now = self.swarm.poll_timeout().min(until);
            self.swarm.handle_timeout(self.now);
            self.settle();
        }
    }

    /// A disk thread ends with a job.
    fn work(&mut self, which: usize) {
        let at = which % self.jobs.len();
        match self.jobs.swap_remove(at) {
            Job::Verify(FullPiece { piece, blocks }) => {
                let expected: Vec<Block> = self.geometry.blocks(piece).collect();
                assert_eq!(blocks.len(), expected.len());
                let marks: Vec<[u8; 6]> = blocks.iter().map(|buf| buf.as_slice()[..6].try_into().unwrap()).collect();
                let verdict = self.judge(piece, &marks);
                self.swarm.handle_verdict(self.now, piece, &verdict, blocks);
            }
            Job::VerifyStored(piece) => {
                let numbers = 0..self.geometry.block_count(piece);
                let marks: Vec<[u8; 6]> = numbers.map(|number| self.disk[&(piece, number)]).collect();
                let verdict = self.judge(piece, &marks);
                self.swarm.handle_verdict(self.now, piece, &verdict, vec![]);
            }
            Job::Spill(Spill { piece, begin, blocks, digest_key }) => {
                for (number, buf) in (begin / BLOCK_LEN..).zip(&blocks) {
                    self.disk.insert((piece, number), buf.as_slice()[..6].try_into().unwrap());
                    let data = (self.geometry.data_len(piece) - number * BLOCK_LEN).min(BLOCK_LEN) as usize;
                    assert!(buf.as_slice()[data..].iter().all(|byte| *byte == 0));
                }
                let slices: Vec<&[u8]> = blocks.iter().map(BlockBuf::as_slice).collect();
                let outcome = Spilled::Written(keyed_digests(&digest_key, &slices));
                self.swarm.handle_spilled(self.now, piece, begin, &outcome, blocks);
            }
        }
        self.settle();
    }

    /// Every byte in its place, or nothing is worth anything.
    fn judge(&mut self, piece: PieceIndex, marks: &[[u8; 6]]) -> Verdict {
        for (block, found) in self.geometry.blocks(piece).zip(marks) {
            assert_eq!(found[..4], mark(block, false)[..4], "a block in the place of another");
        }
        if marks.iter().any(|mark| mark[4] != 0) {
            return Verdict::Bad;
        }
        assert!(self.have.set(piece), "verified twice");
        Verdict::Good
    }

    /// Carries out what the swarm wants, and looks whether it may want that.
    pub(crate) fn settle(&mut self) {
        while let Some(action) = self.swarm.poll_action() {
            match action {
                Action::Verify(full) => {
                    assert!(!self.at_disk().any(|(piece, _)| piece == full.piece));
                    self.jobs.push(Job::Verify(full));
                }
                Action::DhtNode(_) => {}
                Action::Spill(spill) => {
                    // Disk threads keep no order: of two jobs for one place either may be the last.
                    let first = spill.begin / BLOCK_LEN;
                    let numbers: Vec<u32> = (first..).take(spill.blocks.len()).collect();
                    assert!(!numbers.is_empty() && spill.begin.is_multiple_of(BLOCK_LEN));
                    let free = self.at_disk().all(|(piece, n)| piece != spill.piece || !numbers.contains(&n));
                    assert!(free, "two jobs for one block");
                    self.jobs.push(Job::Spill(spill));
                }
                Action::VerifyStored(piece) => {
                    assert!(!self.at_disk().any(|(other, _)| other == piece), "hashed before all is written");
                    self.jobs.push(Job::VerifyStored(piece));
                }
                Action::Have(piece) => assert!(self.have.has(piece), "not verified"),
                Action::Close(key, reason) => {
                    if reason == CloseReason::BadData {
                        assert!(self.liars.contains(&key), "an honest one is accused");
                    }
                    self.swarm.handle_closed(self.now, key);
                    self.peers.retain(|peer| peer.key != key);
                }
                Action::Dial(_) | Action::Complete => {}
                other => panic!("{other:?}"),
            }
        }
        while self.swarm.poll_wake().is_some() {}
        for n in 0..self.peers.len() {
            self.hear(n);
        }
        assert_eq!(*self.swarm.have(), self.have);
        let at_disk = self.jobs.iter().map(|job| match job {
            Job::Verify(full) => full.blocks.len(),
            Job::Spill(spill) => spill.blocks.len(),
            Job::VerifyStored(_) => 0,
        });
        let out = at_disk.sum::<usize>() + self.peers.iter().filter(|peer| peer.receiving.is_some()).count();
        assert!(out as u64 * u64::from(BLOCK_LEN) <= self.swarm.block_memory());
        assert!(self.swarm.block_memory() <= self.memory);
        assert_eq!(self.swarm.awaits_disk(), !self.jobs.is_empty());
    }

    /// Blocks that disk threads have in their hands.
    fn at_disk(&self) -> impl Iterator<Item = (PieceIndex, u32)> {
        self.jobs.iter().flat_map(|job| {
            let (piece, first, count) = match job {
                Job::Verify(full) => (full.piece, 0, full.blocks.len()),
                Job::Spill(spill) => (spill.piece, spill.begin / BLOCK_LEN, spill.blocks.len()),
                Job::VerifyStored(piece) => (*piece, 0, self.geometry.block_count(*piece) as usize),
            };
            (first..).take(count).map(move |number| (piece, number))
        })
    }

    /// What the swarm says to a peer.
    fn hear(&mut self, n: usize) {
        let peer = &mut self.peers[n];
        let mut bytes = Vec::new();
        if let Some(outbox) = self.swarm.outbox(peer.key) {
            outbox.take_control(&mut bytes);
        }
        let mut decoder = Decoder::new(Some(self.geometry.piece_count()));
        let mut rest = &bytes[..];
        while !rest.is_empty() {
            rest = &rest[decoder.feed(rest)..];
            while let Some(item) = decoder.next().unwrap() {
                let Item::Message(message) = item else { panic!("{item:?}") };
                match message {
                    Message::Request { index, begin, len } => {
                        let block = self.geometry.whole_block(index, begin, len).unwrap();
                        if !peer.choking {
                            peer.asked.push_back(block);
                        }
                    }
                    Message::Cancel { index, begin, len } => {
                        let block = self.geometry.whole_block(index, begin, len).unwrap();
                        peer.asked.retain(|asked| *asked != block);
                    }
                    _ => {}
                }
            }
        }
    }

    /// From here on there is somebody who has everything, all do what they should, and the disk is quick.
    pub(crate) fn finish(&mut self) {
        for n in 0..self.peers.len() {
            if self.peers[n].choking {
                self.apply(&Op::Unchoke(n));
            }
        }
        self.join(u8::MAX, true);
        self.settle();
        let seed = self.peers.last().unwrap().key;
        self.apply(&Op::Unchoke(self.peers.len() - 1));
        for round in 0..2_000 {
            if self.swarm.is_complete() {
                return;
            }
            assert!(self.peers.iter().any(|peer| peer.key == seed), "it was closed");
            let mut n = 0;
            while n < self.peers.len() {
                for _ in 0..4 {
                    if n < self.peers.len() {
                        self.begin(n);
                        self.end(n, false);
                    }
                }
                n += 1;
            }
            while !self.jobs.is_empty() {
                self.work(round);
            }
            self.wait(Duration::from_millis(100));
        }
        panic!("it does not end: {:?}", self.swarm.totals(self.now));
    }
}
