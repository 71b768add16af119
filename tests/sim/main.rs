//! Swarms of pure [`Swarm`](gannet::swarm::Swarm)s on a virtual clock. A failure names its seed; the same seed gives the
//! same run.

mod world;

use std::time::Duration;

use gannet::base::Geometry;
use world::{NodeSpec, World};

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
    let mut world = World::new(geometry(4 * MIB, 64 << 10), &equals(200, MIB), 6);
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
