//! What deciding costs: a whole swarm on the virtual clock of the simulation, where no byte of payload is moved, hashed or
//! written. The time is that of every decision of every peer, and of the encoder and decoder between them.
//!
//! The swarm is the same each time. Divide by the blocks moved (printed first) for the cost of one.
#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a bench that cannot go on may stop")]

#[allow(dead_code, reason = "made for the tests, which ask it for more")]
#[path = "../tests/sim/web.rs"]
mod web;
#[allow(dead_code, reason = "made for the tests, which ask it for more")]
#[path = "../tests/sim/world.rs"]
mod world;

use std::time::Duration;

use criterion::{BatchSize, Criterion, SamplingMode, Throughput, criterion_group, criterion_main};
use gannet::base::{BLOCK_LEN, Geometry};
use world::{NodeSpec, World};

const MIB: u64 = 1 << 20;
/// Bytes of the torrent.
const SIZE: u64 = 16 * MIB;
/// More than it takes, on the virtual clock.
const LIMIT: Duration = Duration::from_secs(600);

/// One seeder and `leechers` leechers, all of the same upload rate.
fn swarm(leechers: usize) -> World {
    let mut specs = vec![NodeSpec::seeder(MIB)];
    specs.extend(vec![NodeSpec::leecher(MIB); leechers]);
    World::new(Geometry::new(SIZE, 256 << 10).expect("a geometry"), &specs, 1)
}

fn sim(c: &mut Criterion) {
    let mut group = c.benchmark_group("sim");
    group.sampling_mode(SamplingMode::Flat);
    for leechers in [1, 20] {
        let blocks = SIZE / u64::from(BLOCK_LEN) * leechers as u64;
        let mut once = swarm(leechers);
        assert!(once.run(LIMIT));
        println!(
            "{leechers} leechers: {blocks} blocks, complete after {:.1} s of virtual time",
            once.now.as_secs_f64()
        );
        group.throughput(Throughput::Elements(blocks));
        group.bench_function(format!("1 seeder, {leechers} leechers, {} MiB", SIZE / MIB), |b| {
            b.iter_batched_ref(|| swarm(leechers), |world| assert!(world.run(LIMIT)), BatchSize::PerIteration);
        });
    }
    group.finish();
}

criterion_group! {
    name = benches;
    config = Criterion::default().sample_size(10).warm_up_time(Duration::from_millis(500)).measurement_time(Duration::from_secs(4));
    targets = sim
}
criterion_main!(benches);
