//! How long it takes to choose a block, in the largest torrents and swarms.
//!
//! One million pieces and 500 peers: 100 seeds, 400 with 5 to 95 % of the pieces. Times are per call; divide by the batch
//! for the time per block.

#![expect(clippy::expect_used, clippy::cast_possible_truncation, reason = "a benchmark")]

use std::collections::VecDeque;
use std::hint::black_box;
use std::time::{Duration, Instant};

use criterion::{Criterion, criterion_group, criterion_main};
use gannet::base::{BLOCK_LEN, Bitfield, Geometry, PeerKey, Slab};
use gannet::swarm::picker::{Ask, Counted, Picker, Received};

const PIECES: u32 = 1_000_000;
const PEERS: usize = 500;
const SEEDS: usize = 100;

struct Peer {
    key: PeerKey,
    have: Bitfield,
    counted: Counted,
    fast: bool,
}

struct World {
    picker: Picker,
    geometry: Geometry,
    peers: Vec<Peer>,
    slab: Slab<()>,
    rng: fastrand::Rng,
}

fn some(geometry: &Geometry, rng: &mut fastrand::Rng, percent: u8) -> Bitfield {
    let mut have = Bitfield::new(geometry.piece_count());
    for piece in geometry.pieces().filter(|_| rng.u8(..100) < percent) {
        have.set(piece);
    }
    have
}

fn ask(peer: &Peer) -> Ask<'_> {
    let Peer { key, have, fast, .. } = peer;
    Ask { peer: *key, have, allowed: None, suggested: &[], count: 1, may_open: usize::MAX, fast: *fast, rate: 0 }
}

impl World {
    fn empty(pieces: u32, blocks: u32) -> Self {
        let length = blocks * BLOCK_LEN;
        let geometry = Geometry::new(u64::from(pieces) * u64::from(length), length).expect("a geometry");
        // Beyond the first pieces, which are any.
        let mut have = Bitfield::new(pieces);
        for piece in geometry.pieces().take(8) {
            have.set(piece);
        }
        let picker = Picker::new(geometry.clone(), &have, 1);
        Self { picker, geometry, peers: Vec::new(), slab: Slab::default(), rng: fastrand::Rng::with_seed(1) }
    }

    fn join(&mut self, have: Bitfield, fast: bool) {
        let key = self.slab.insert(());
        let counted = self.picker.add_peer(&have);
        self.peers.push(Peer { key, have, counted, fast });
    }

    fn full(blocks: u32) -> Self {
        let mut world = Self::empty(PIECES, blocks);
        for i in 0..PEERS {
            let have = match i {
                ..SEEDS => Bitfield::full(PIECES),
                _ => some(&world.geometry, &mut world.rng, 5 + (i % 91) as u8),
            };
            world.join(have, i % 2 == 0);
        }
        world
    }

    /// The time of `calls` picks of `count` blocks from `who`. What was picked comes at once, and full pieces are
    /// missing again, so that the world stays as it is; that is not counted.
    fn pick(&mut self, calls: u64, count: usize, who: impl Fn(&mut fastrand::Rng) -> usize) -> Duration {
        let mut spent = Duration::ZERO;
        let mut out = Vec::with_capacity(count);
        for _ in 0..calls {
            let at = who(&mut self.rng);
            out.clear();
            let ask = Ask { count, ..ask(&self.peers[at]) };
            let began = Instant::now();
            self.picker.pick(black_box(&ask), &mut out);
            spent += began.elapsed();
            for block in &out {
                if let Received::New { piece_full: true, .. } = self.picker.receive(ask.peer, *block) {
                    self.picker.abandon(block.piece());
                }
            }
        }
        spent
    }
}

fn pick(c: &mut Criterion) {
    let mut group = c.benchmark_group("pick");
    for blocks in [1, 16, 256] {
        let mut world = World::full(blocks);
        for count in [1, 8, 64] {
            group.bench_function(format!("{count} of pieces of {blocks} blocks"), |b| {
                b.iter_custom(|calls| world.pick(calls, count, |rng| rng.usize(..PEERS)));
            });
        }
    }
    group.finish();
}

/// A peer with 1 % of the pieces, while hundreds of thousands that it lacks are rarer.
fn bad(c: &mut Criterion) {
    let mut group = c.benchmark_group("bad case");
    let mut world = World::empty(PIECES, 1);
    let one = some(&world.geometry, &mut world.rng, 1);
    world.join(one.clone(), true);
    for _ in 0..50 {
        let mut others = some(&world.geometry, &mut world.rng, 10);
        for piece in one.iter() {
            others.set(piece);
        }
        world.join(others, true);
    }
    for count in [1, 8, 64] {
        group.bench_function(format!("{count} from a peer with 1 % of the pieces"), |b| {
            b.iter_custom(|calls| world.pick(calls, count, |_| 0));
        });
    }
    // And one of whose pieces all are under way.
    let mut few = Bitfield::new(PIECES);
    for piece in world.geometry.pieces().skip(500_000).take(3) {
        few.set(piece);
    }
    world.join(few, true);
    let last = world.peers.len() - 1;
    let mut out = Vec::new();
    let mut picker = std::mem::replace(&mut world.picker, World::empty(100, 1).picker);
    picker.pick(&Ask { count: 3, ..ask(&world.peers[last]) }, &mut out);
    assert_eq!(out.len(), 3);
    group.bench_function("nothing from a peer of whose pieces all are under way", |b| {
        b.iter(|| picker.pick(&ask(&world.peers[last]), &mut out));
    });
    assert_eq!(out.len(), 3);
    group.finish();
}

fn swarm(c: &mut Criterion) {
    let mut group = c.benchmark_group("swarm");
    let mut world = World::full(1);
    // The order is sorted by the first pick.
    world.pick(1, 1, |_| 0);
    group.bench_function("have", |b| {
        let World { picker, geometry, peers, rng, .. } = &mut world;
        b.iter(|| {
            let peer = &mut peers[rng.usize(SEEDS..PEERS)];
            if let Ok(piece) = geometry.piece(rng.u32(..PIECES)) {
                if peer.have.set(piece) {
                    picker.add_have(&mut peer.counted, piece);
                } else {
                    peer.have.clear(piece);
                    picker.remove_have(&mut peer.counted, piece);
                }
            }
        });
    });
    let joining = [Bitfield::full(PIECES), some(&world.geometry, &mut world.rng, 50)];
    for (name, have) in ["seed", "half"].iter().zip(&joining) {
        group.bench_function(format!("a {name} comes, one block is picked, it goes"), |b| {
            b.iter(|| {
                let counted = world.picker.add_peer(have);
                let mut out = Vec::new();
                world.picker.pick(&ask(&world.peers[0]), &mut out);
                world.picker.remove_peer(counted, have);
                for block in &out {
                    world.picker.abandon(block.piece());
                }
            });
        });
    }
    group.bench_function("interest", |b| b.iter(|| world.picker.is_interesting(black_box(&joining[1]))));
    group.finish();
}

/// One block from request to receipt, each piece verified as it is full, with 500 peers in turn and 64 requests each.
fn flow(c: &mut Criterion) {
    let mut group = c.benchmark_group("flow");
    for blocks in [1, 16, 256] {
        let mut world = World::full(blocks);
        let mut queues: Vec<VecDeque<_>> = vec![VecDeque::new(); PEERS];
        let (mut had, mut out) = (VecDeque::new(), Vec::new());
        group.bench_function(format!("a block of pieces of {blocks}"), |b| {
            b.iter(|| {
                let at = world.rng.usize(..PEERS);
                let World { picker, peers, .. } = &mut world;
                let peer = &peers[at];
                let ask = Ask { count: 64 - queues[at].len(), ..ask(peer) };
                picker.pick(&ask, &mut out);
                queues[at].extend(out.drain(..));
                if let Some(block) = queues[at].pop_front()
                    && let Received::New { piece_full: true, .. } = picker.receive(peer.key, block)
                {
                    picker.verified(block.piece());
                    // So that it does not come to an end.
                    had.push_back(block.piece());
                    if had.len() > PIECES as usize / 2
                        && let Some(piece) = had.pop_front()
                    {
                        picker.lost(piece);
                    }
                }
            });
        });
    }
    group.finish();
}

fn endgame(c: &mut Criterion) {
    let mut world = World::empty(500 * 64, 1);
    for i in 0..PEERS {
        world.join(Bitfield::full(500 * 64), i % 2 == 0);
    }
    let mut out = Vec::new();
    for at in 0..PEERS {
        world.picker.pick(&Ask { count: 64, ..ask(&world.peers[at]) }, &mut out);
    }
    // All of the budget is spent at the beginning: what follows finds that nothing is left.
    let mut group = c.benchmark_group("endgame");
    let began = Instant::now();
    let mut calls = 0;
    while out.len() < 500 * 64 + 600 && calls < 5000 {
        let at = calls % PEERS;
        world.picker.pick(&Ask { count: 1, ..ask(&world.peers[at]) }, &mut out);
        calls += 1;
    }
    eprintln!(
        "endgame: {} duplicates in {calls} calls, {:?} each",
        world.picker.duplicates(),
        began.elapsed() / calls as u32
    );
    group.bench_function("budget spent", |b| {
        b.iter(|| world.picker.pick(&ask(&world.peers[0]), &mut out));
    });
    group.finish();
}

criterion_group! {
    name = benches;
    config = Criterion::default().measurement_time(Duration::from_secs(2)).warm_up_time(Duration::from_secs(1)).sample_size(20);
    targets = pick, bad, swarm, flow, endgame
}
criterion_main!(benches);
