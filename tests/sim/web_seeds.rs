//! Swarms with web seeds: nobody waits for a server that fails, and nothing is fetched twice.

use std::time::Duration;

use gannet::swarm::SwarmConfig;

use crate::web::{Manner, Server};
use crate::world::{NodeSpec, World};
use crate::{MIB, geometry, minutes};

/// One leecher without peers, and servers.
fn alone(size: u64, piece_length: u32, servers: Vec<Server>, seed: u64) -> World {
    let mut world = World::new(geometry(size, piece_length), &[NodeSpec::leecher(MIB)], seed);
    world.servers = servers;
    (0..world.servers.len()).for_each(|server| world.add_web_seed(0, server));
    world
}

#[test]
fn one_server_is_enough() {
    for (seed, size, piece_length, rate) in
        [(1, 64 * MIB, 256 << 10, 4 * MIB), (2, 64 * MIB + 7, 4 << 20, 100 * MIB), (3, 1, 16 << 10, MIB)]
    {
        let mut world = alone(size, piece_length, vec![Server::new(rate, Manner::Honest)], seed);
        assert!(world.run(minutes(10)), "seed {seed}");
        let (bound, server) = (size as f64 / rate as f64, &world.servers[0]);
        // The first requests find out what the line gives; a round trip is 40 ms.
        assert!(world.now.as_secs_f64() <= bound * 1.1 + 1.0, "{:?} for {bound} s, seed {seed}", world.now);
        assert_eq!(server.sent, size, "nothing is fetched twice, seed {seed}");
        // A node of 8 MiB of memory asks for 1 MiB at once.
        assert!(server.requests as u64 <= size / MIB * 5 / 4 + 4, "{} requests, seed {seed}", server.requests);
    }
}

/// Servers that fail in all ways do not keep an honest one from being used, and come back when they do.
#[test]
fn servers_that_fail() {
    let secs = Duration::from_secs;
    let honest = || Server::new(MIB, Manner::Honest);
    for (seed, manner) in (10..).zip([
        Manner::DownUntil(secs(60)),
        Manner::DownUntil(secs(3600)),
        Manner::Silent,
        Manner::Lacks(3, 40),
        Manner::Busy(1, secs(7)),
        Manner::Busy(0, secs(7)),
        Manner::Breaks(10),
        Manner::Breaks(0),
        Manner::Corrupt(1.0),
        Manner::Corrupt(0.01),
    ]) {
        let mut world = alone(32 * MIB, 256 << 10, vec![Server::new(MIB, manner), honest()], seed);
        assert!(world.run(minutes(5)), "{manner:?}");
        let (bad, good) = (&world.servers[0], &world.servers[1]);
        assert!(bad.refused <= 5 && bad.requests <= 70, "{manner:?}: {} refused of {}", bad.refused, bad.requests);
        assert_eq!(world.nodes[0].banned, if matches!(manner, Manner::Corrupt(_)) { vec![0] } else { vec![] });
        assert!(good.sent + bad.sent <= 36 * MIB, "{manner:?}");
    }
    // Alone: what can be had is had.
    for (seed, manner) in (20..).zip([Manner::DownUntil(secs(60)), Manner::Busy(1, secs(7)), Manner::Breaks(20)]) {
        let mut world = alone(8 * MIB, 256 << 10, vec![Server::new(MIB, manner)], seed);
        assert!(world.run(minutes(10)), "{manner:?}");
    }
    let lacking = |from, to| Server::new(MIB, Manner::Lacks(from, to));
    let mut world = alone(32 * MIB, 256 << 10, vec![lacking(0, 60), lacking(60, 128)], 30);
    assert!(world.run(minutes(5)), "two halves make a whole");
    assert!(world.servers.iter().all(|server| server.requests < 60));
}

/// Lines add up: peers and servers do not fetch the same, and nobody waits for the other.
#[test]
fn peers_and_servers_share_the_work() {
    let size = 128 * MIB;
    let mut specs = vec![NodeSpec::leecher(MIB)];
    specs.extend([NodeSpec::seeder(MIB); 4]);
    let config = |config| SwarmConfig { block_memory: 32 * MIB, ..config };
    let mut world = World::with_config(geometry(size, 256 << 10), &specs, 40, config);
    world.servers = vec![Server::new(3 * MIB, Manner::Honest), Server::new(MIB, Manner::Honest)];
    world.add_web_seed(0, 0);
    world.add_web_seed(0, 1);
    assert!(world.run(minutes(5)));
    let bound = size as f64 / (8 * MIB) as f64;
    assert!(world.now.as_secs_f64() <= bound * 1.2, "{:?} for {bound} s", world.now);
    let totals = world.totals(0);
    assert!(totals.wasted <= size / 50, "{totals:?}");
    assert_eq!(totals.web_seeds, 2);
}

/// Ten peers and one server, no other source: they spread what they get, and the server need not send it ten times.
#[test]
fn a_server_and_its_swarm() {
    let size = 32 * MIB;
    let mut world = World::new(geometry(size, 256 << 10), &vec![NodeSpec::leecher(2 * MIB); 10], 50);
    world.servers = vec![Server::new(2 * MIB, Manner::Honest)];
    (0..10).for_each(|i| world.add_web_seed(i, 0));
    assert!(world.run(minutes(10)));
    let sent = world.servers[0].sent;
    assert!(sent <= 5 * size, "{} MiB of {} were sent by the server", sent / MIB, 10 * size / MIB);
    let alone = 10.0 * size as f64 / (2 * MIB) as f64;
    assert!(world.now.as_secs_f64() <= alone / 2.0, "{:?}; without each other {alone} s", world.now);
}

/// Pieces of which memory holds few, or none.
#[test]
fn little_memory() {
    for (seed, memory, piece_length) in [(60, 4 * MIB, 2 << 20), (61, MIB, 2 << 20), (62, 200 << 10, 2 << 20)] {
        let config = |config| SwarmConfig { block_memory: memory, ..config };
        let specs = [NodeSpec::leecher(MIB), NodeSpec::seeder(MIB / 4)];
        let mut world = World::with_config(geometry(20 * MIB - 5_000, piece_length), &specs, seed, config);
        world.servers = vec![Server::new(4 * MIB, Manner::Honest)];
        world.add_web_seed(0, 0);
        assert!(world.run(minutes(5)), "seed {seed}");
        assert!(world.totals(0).wasted <= MIB, "{:?}", world.totals(0));
    }
}
