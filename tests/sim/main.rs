//! Swarms of pure [`Swarm`](gannet::swarm::Swarm)s on a virtual clock. A failure names its seed; the same seed gives the
//! same run.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test that fails by panicking")]

mod crash;
mod liars;
mod rig;
mod spill;
mod utp;
mod web;
mod web_seeds;
mod world;

use std::time::Duration;

use gannet::base::{Geometry, MAX_PIECE_LENGTH};
use gannet::swarm::SwarmConfig;
use world::{NodeSpec, Temper, World};

const MIB: u64 = 1 << 20;

fn geometry(size: u64, piece_length: u32) -> Geometry {
    Geometry::new(size, piece_length).unwrap()
}

fn minutes(n: u64) -> Duration {
    Duration::from_secs(60 * n)
}

/// One seeder and `n` leechers, all of the same upload rate.
fn equals(n: usize, rate: u64) -> Vec<NodeSpec> {
    let mut specs = vec![NodeSpec::seeder(rate)];
    specs.extend(vec![NodeSpec::leecher(rate); n]);
    specs
}

#[test]
fn everyone_completes() {
    for (n, seed) in [(1, 1), (2, 2), (5, 3), (20, 4), (60, 5)] {
        let mut world = World::new(geometry(4 * MIB + 12_345, 64 << 10), &equals(n, MIB), seed);
        assert!(world.run(minutes(10)), "{n} leechers, seed {seed}");
    }
}

#[test]
fn two_hundred_complete() {
    let mut world = World::new(geometry(2 * MIB, 64 << 10), &equals(199, MIB), 6);
    assert!(world.run(minutes(10)));
}

#[test]
fn same_seed_same_run() {
    let run = |seed| {
        let mut world = World::new(geometry(2 * MIB, 64 << 10), &equals(12, MIB), seed);
        assert!(world.run(minutes(10)));
        (world.trace(), world.now)
    };
    assert_eq!(run(7), run(7));
    assert_ne!(run(7), run(8));
}

/// What the lone seeder can send sets the pace: nobody can be done before it has sent everything once.
fn times_the_bound(n: usize, pieces: u64, seed: u64) -> f64 {
    let (size, rate) = (pieces * (64 << 10), 256 << 10);
    let mut world = World::new(geometry(size, 64 << 10), &equals(n, rate), seed);
    assert!(world.run(minutes(60)), "{n} leechers, seed {seed}");
    world.now.as_secs_f64() / (size as f64 / rate as f64)
}

#[test]
fn a_hundred_equals_near_the_bound() {
    let times = times_the_bound(100, 640, 9);
    assert!(times <= 1.25, "{times:.3} times size / rate");
}

#[test]
fn eight_equals_near_the_bound() {
    let times = times_the_bound(8, 800, 10);
    assert!(times <= 1.2, "{times:.3} times size / rate");
}

/// Fast peers whose limits let a burst through at first: what comes in it says nothing about what will come, and who
/// believes it asks the seeder for more than it can send in seconds, each for pieces that the others ask for as well.
#[test]
fn eight_equals_with_bursts_near_the_bound() {
    let (piece, pieces, rate) = (256 << 10, 800, 20 * MIB);
    let specs = equals(8, rate).into_iter().map(|spec| spec.burst(Duration::from_millis(250))).collect::<Vec<_>>();
    for seed in [11, 12] {
        let config = |config| gannet::swarm::SwarmConfig { block_memory: 64 * MIB, ..config };
        let mut world = World::with_config(geometry(pieces * piece, 256 << 10), &specs, seed, config);
        assert!(world.run(minutes(5)), "seed {seed}");
        let times = world.now.as_secs_f64() / (pieces * piece) as f64 * rate as f64;
        let sent = world.totals(0).uploaded as f64 / (pieces * piece) as f64;
        assert!(times <= 1.04, "{times:.3} times size / rate, the seeder sent {sent:.3} copies, seed {seed}");
    }
}

/// Every liar is found by those who dealt with it, and nobody else is accused.
#[test]
fn corrupt_senders_are_found() {
    for seed in 20..24 {
        let mut specs = equals(16, MIB);
        specs.push(NodeSpec::seeder(MIB).temper(Temper::Corrupt(1.0)));
        specs.push(NodeSpec::seeder(MIB).temper(Temper::Corrupt(0.05)));
        specs.push(NodeSpec::leecher(MIB).temper(Temper::Corrupt(0.3)));
        let mut world = World::new(geometry(8 * MIB, 128 << 10), &specs, seed);
        assert!(world.run(minutes(20)), "seed {seed}");
        let mut found = vec![false; specs.len()];
        for (i, node) in world.nodes.iter().enumerate() {
            for liar in &node.convicted {
                assert_ne!(specs[*liar].temper, Temper::Honest, "node {i} accuses an honest one, seed {seed}");
                found[*liar] = true;
            }
        }
        for (i, spec) in specs.iter().enumerate().filter(|(_, s)| matches!(s.temper, Temper::Corrupt(_))) {
            assert!(found[i] || world.sent_bad(i) == 0, "{spec:?} was not found, seed {seed}");
        }
    }
}

#[test]
fn the_silent_and_the_vanishing_stop_nobody() {
    for seed in 30..34 {
        let mut specs = equals(12, MIB);
        specs.extend([NodeSpec::seeder(MIB).temper(Temper::Silent); 3]);
        specs.extend((1..6).map(|s| NodeSpec::leecher(MIB).temper(Temper::Vanishing(Duration::from_secs(s)))));
        let mut world = World::new(geometry(8 * MIB, 128 << 10), &specs, seed);
        assert!(world.run(minutes(20)), "seed {seed}");
    }
}

/// A slow peer among fast ones must not hold up the end.
#[test]
fn slow_peers_do_not_hold_up_the_end() {
    let mut specs = vec![NodeSpec::leecher(MIB), NodeSpec::seeder(4 * MIB), NodeSpec::seeder(4 * MIB)];
    let alone = {
        let mut world = World::new(geometry(64 * MIB, 256 << 10), &specs, 40);
        assert!(world.run(minutes(10)));
        world.now
    };
    specs.extend([NodeSpec::seeder(16 << 10); 4]);
    let mut world = World::new(geometry(64 * MIB, 256 << 10), &specs, 40);
    assert!(world.run(minutes(10)));
    assert!(world.now <= alone.mul_f64(1.1), "{:?} with slow peers, {alone:?} without", world.now);
}

/// Endgame asks for little twice: 2 % of the torrent, or 16 blocks.
#[test]
fn little_is_fetched_twice() {
    let size = 16 * MIB;
    let mut world = World::new(geometry(size, 256 << 10), &equals(10, MIB), 50);
    assert!(world.run(minutes(10)));
    for i in 0..world.nodes.len() {
        let wasted = world.totals(i).wasted;
        assert!(wasted <= size / 50 + 16 * 16_384, "node {i} fetched {wasted} bytes in vain");
    }
}

/// W13: everybody is slow, and what is left at the end is asked of many. A quarter of the torrent comes in vain at most.
#[test]
fn w13_endgame_among_slow_peers() {
    let size = 2 * MIB;
    let mut specs = vec![NodeSpec::leecher(4 * MIB)];
    specs.extend([NodeSpec::seeder(16 << 10); 30]);
    let mut world = World::new(geometry(size, 256 << 10), &specs, 60);
    assert!(world.run(minutes(10)));
    let wasted = world.totals(0).wasted;
    assert!(wasted <= size / 4, "{wasted} bytes in vain");
}

/// Peers of different rates: all complete, and those who give more are not served worse than those who give little.
#[test]
fn givers_are_not_served_worse() {
    let mut specs = vec![NodeSpec::seeder(MIB)];
    specs.extend([NodeSpec::leecher(2 * MIB); 10]);
    specs.extend([NodeSpec::leecher(64 << 10); 10]);
    let mut world = World::new(geometry(64 * MIB, 256 << 10), &specs, 60);
    assert!(world.run(minutes(60)));
    let mean = |nodes: std::ops::Range<usize>| {
        let n = u32::try_from(nodes.len()).unwrap();
        nodes.map(|i| world.nodes[i].completed.unwrap()).sum::<Duration>() / n
    };
    let (givers, takers) = (mean(1..11), mean(11..21));
    assert!(givers <= takers.mul_f64(1.02), "givers {givers:?}, takers {takers:?}");
}

/// BEP 16: a lone seeder that hides what it has still gets everybody there, and sends each piece about once before
/// it sends any twice.
#[test]
fn super_seeding_completes() {
    let size = 16 * MIB;
    let mut world = World::with_config(geometry(size, 128 << 10), &equals(10, MIB), 70, |config| {
        gannet::swarm::SwarmConfig { super_seed: true, ..config }
    });
    assert!(world.run(minutes(20)));
    let sent = world.totals(0).uploaded;
    assert!(sent <= size * 3 / 2, "the seeder sent {sent} bytes of {size}");
}

/// Nobody is served only by those that came first: who comes late completes too.
#[test]
fn latecomers_complete() {
    let mut specs = equals(10, MIB);
    for (i, spec) in specs.iter_mut().enumerate().skip(1) {
        spec.joins = Duration::from_secs(3 * i as u64);
    }
    let mut world = World::new(geometry(8 * MIB, 128 << 10), &specs, 80);
    assert!(world.run(minutes(20)));
}

/// Only the seeder has a tracker, and dials everybody. The others find each other through it (BEP 11), and are done as soon as
/// if each had asked the tracker itself; without that, the seeder would have to send everything to everyone.
#[test]
fn one_that_knows_everybody_is_enough() {
    let n = 24;
    let run = |tracker_for_all: bool, pex: bool| {
        let config = |config| SwarmConfig { pex, ..config };
        let mut world = World::with_config(geometry(64 * MIB, 128 << 10), &equals(n, MIB), 85, config);
        world.told = Box::new(move |i| tracker_for_all || i == 0);
        // Before anybody can be complete: seeds leave each other.
        world.run(Duration::from_secs(63));
        let fewest = (0..=n).map(|i| world.totals(i).peers).min().unwrap();
        (world.run(minutes(60)), world.now, fewest)
    };
    let (_, by_tracker, _) = run(true, false);
    let (done, by_pex, fewest) = run(false, true);
    assert!(done && by_pex <= by_tracker.mul_f64(1.15), "{by_pex:?}, {by_tracker:?} with trackers");
    assert_eq!(fewest as usize, n, "connections of the one that has fewest");
    let (_, alone, fewest) = run(false, false);
    assert!(fewest <= 1 && alone > by_pex * 10, "{alone:?} without");
}

/// Fifty unequal peers, some of which lie, say nothing or vanish, and pieces of which memory holds two, less than one, or a
/// small part: everybody completes, within its memory, and only liars are accused.
#[test]
fn pieces_larger_than_memory() {
    let piece_length = 2 << 20;
    for (seed, memory, pieces) in [(90, 4 * MIB, 6), (91, MIB, 8), (92, 200 << 10, 3)] {
        let mut specs = vec![NodeSpec::seeder(2 * MIB), NodeSpec::seeder(256 << 10)];
        specs.extend((0..42).map(|i| NodeSpec::leecher([64 << 10, 256 << 10, MIB, 4 * MIB][i % 4])));
        specs.push(NodeSpec::seeder(MIB).temper(Temper::Corrupt(1.0)));
        specs.push(NodeSpec::seeder(MIB).temper(Temper::Corrupt(0.02)));
        specs.push(NodeSpec::leecher(MIB).temper(Temper::Corrupt(0.1)));
        specs.push(NodeSpec::seeder(MIB).temper(Temper::Silent));
        specs.extend([2, 9].map(|s| NodeSpec::leecher(MIB).temper(Temper::Vanishing(Duration::from_secs(s)))));
        let geometry = geometry(pieces * u64::from(piece_length) - 5_000, piece_length);
        // What a node may hold in memory is looked at with everything that happens to it.
        let config = |config| SwarmConfig { block_memory: memory, ..config };
        let mut world = World::with_config(geometry, &specs, seed, config);
        assert!(world.run(minutes(20)), "seed {seed}");
        for (i, spec) in specs.iter().enumerate().filter(|(_, spec)| !spec.seed && spec.temper == Temper::Honest) {
            let totals = world.totals(i);
            let failed = totals.failed_pieces * u64::from(piece_length);
            // Beside bad pieces and endgame, blocks that came too late to find a buffer.
            assert!(totals.wasted <= failed + MIB, "node {i}: {totals:?}, seed {seed}");
            let node = &world.nodes[i];
            assert!(memory > MIB || node.spilled as u64 >= pieces * 64, "node {i} {spec:?} held all, seed {seed}");
            for liar in &node.convicted {
                assert_ne!(specs[*liar].temper, Temper::Honest, "node {i} accuses an honest one, seed {seed}");
            }
        }
    }
}

/// The longest pieces there may be, with the memory that is usual.
#[test]
fn the_longest_pieces() {
    let geometry = geometry(2 * u64::from(MAX_PIECE_LENGTH), MAX_PIECE_LENGTH);
    let specs = [vec![NodeSpec::leecher(0)], vec![NodeSpec::seeder(30 * MIB); 6]].concat();
    let config = |config| SwarmConfig { block_memory: 64 * MIB, ..config };
    let mut world = World::with_config(geometry, &specs, 95, config);
    // Six lines of 30 MiB/s are never kept waiting for memory.
    assert!(world.run(Duration::from_secs(8)), "{:?}", world.totals(0));
    assert_eq!(world.totals(0).failed_pieces, 0);
}
