//! Small swarms among liars, ten thousand of them: each seed draws who is there, how fast, how honest, and what the torrent
//! is like. Whoever is honest completes, and nobody honest is accused.
//!
//! `GANNET_SIM_SEED=N cargo test --test sim liars` runs one seed.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use fastrand::Rng;

use super::world::{NodeSpec, Temper, World};
use super::{geometry, minutes};

const SEEDS: u64 = 10_000;

/// Draws and runs the swarm of one seed. How many liars were found out.
fn swarm(seed: u64) -> usize {
    let mut rng = Rng::with_seed(seed);
    let rate = |rng: &mut Rng| 1 << rng.u32(16..22);
    let mut specs = vec![NodeSpec::seeder(rate(&mut rng))];
    specs.extend((0..rng.usize(1..4)).map(|_| NodeSpec::leecher(rate(&mut rng))));
    for _ in 0..rng.usize(1..4) {
        let temper = match rng.u8(..4) {
            0 => Temper::Silent,
            1 => Temper::Vanishing(Duration::from_millis(rng.u64(50..5_000))),
            _ => Temper::Corrupt([0.05, 0.3, 1.0][rng.usize(..3)]),
        };
        let peer = if rng.bool() { NodeSpec::seeder(rate(&mut rng)) } else { NodeSpec::leecher(rate(&mut rng)) };
        specs.push(peer.temper(temper));
    }
    let piece_length = (16 << 10) << rng.u32(..3);
    let size = u64::from(piece_length) * rng.u64(1..10) + rng.u64(1..u64::from(piece_length));
    let mut world = World::new(geometry(size, piece_length), &specs, seed);
    assert!(world.run(minutes(30)), "not complete: {specs:?}");
    let mut found: Vec<usize> = world.nodes.iter().flat_map(|node| node.convicted.iter().copied()).collect();
    found.sort_unstable();
    found.dedup();
    for &accused in &found {
        assert!(matches!(specs[accused].temper, Temper::Corrupt(_)), "number {accused} is accused: {specs:?}");
    }
    found.len()
}

#[test]
fn w11_w12_liars_in_ten_thousand_swarms() {
    if let Ok(seed) = std::env::var("GANNET_SIM_SEED") {
        swarm(seed.parse().expect("a number"));
        return;
    }
    let (next, found) = (AtomicU64::new(0), AtomicU64::new(0));
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().map_or(1, usize::from) {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= SEEDS {
                        return;
                    }
                    let outcome = std::panic::catch_unwind(|| swarm(seed));
                    let liars = outcome
                        .unwrap_or_else(|_| panic!("run again: GANNET_SIM_SEED={seed} cargo test --test sim liars"));
                    found.fetch_add(liars as u64, Ordering::Relaxed);
                }
            });
        }
    });
    // It would be easy to accuse nobody.
    assert!(found.into_inner() > SEEDS / 2);
}
