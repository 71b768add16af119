//! Two thousand nodes of which a fifth is dead and a twentieth lies.

use std::time::{Duration, Instant};

use super::world::World;
use crate::dht::random::Random;
use crate::dht::{Command, Contact, Event, NodeId, SavedState};

const NODES: usize = 2_000;
const DEAD: usize = NODES / 5;
const LIARS: usize = NODES / 20;
const TRIES: usize = 1_000;
/// Lookups at once.
const BATCH: usize = 50;

/// A world where every node begins with a few others, some of them dead or liars, and has had a minute.
fn populated(seed: u64) -> World {
    let mut world = World::new(seed);
    world.loss = 100;
    let mut random = Random::new([1; 32]);
    let contacts: Vec<Contact> = (0..NODES)
        .map(|_| world.address())
        .map(|address| Contact { id: NodeId::bound_to(address.ip(), &mut random), address })
        .collect();
    world.dead = contacts[..DEAD].iter().map(|contact| contact.address).collect();
    world.liars = contacts[DEAD..DEAD + LIARS].iter().map(|contact| contact.address).collect();
    for contact in &contacts[DEAD + LIARS..] {
        let nodes = (0..24).map(|_| contacts[world.rng.usize(..NODES)]).filter(|c| c != contact).collect();
        let saved = SavedState { ids_v4: vec![contact.id], ids_v6: vec![], nodes };
        world.add(&[contact.address], &saved);
    }
    world.run(Duration::from_secs(40));
    world
}

#[test]
fn lookups_find_the_peers_among_the_dead_and_the_liars() {
    let began = Instant::now();
    let mut world = populated(1);
    let mut random = Random::new([2; 32]);
    let honest = world.nodes.len();
    let (mut found, mut hops, mut queries) = (0, Vec::new(), 0);
    eprintln!("populated {:?} real, {:?} virtual", began.elapsed(), world.elapsed());
    for batch in 0..TRIES / BATCH {
        let mut tries = Vec::new();
        for i in 0..BATCH {
            let info_hash = NodeId::random(&mut random);
            let who = world.rng.usize(..honest);
            let port = 1024 + u16::try_from(batch * BATCH + i).unwrap();
            let now = world.now;
            world.nodes[who]
                .start(now, Command::Announce { info_hash, port_v4: Some(port), port_v6: Some(port), seed: false });
            world.settle(who);
            tries.push((info_hash, port));
        }
        world.run(Duration::from_secs(12));
        world.events.clear();
        let mut searches = Vec::new();
        for (info_hash, port) in tries {
            let who = world.rng.usize(..honest);
            let now = world.now;
            let id = world.nodes[who].start(now, Command::GetPeers { info_hash });
            world.settle(who);
            searches.push((who, id, port));
        }
        world.run(Duration::from_secs(12));
        let events = std::mem::take(&mut world.events);
        for (who, id, port) in searches {
            let of_mine = events.iter().filter(|(number, _)| *number == who).map(|(_, event)| event);
            let mut there = false;
            let mut done = None;
            for event in of_mine {
                match event {
                    Event::Peers { operation, peers, .. } if *operation == id => {
                        assert!(!peers.iter().any(|peer| peer.ip().is_loopback()), "what a liar says of loopback");
                        there |= peers.iter().any(|peer| peer.port() == port);
                    }
                    Event::Done { operation, summary } if *operation == id => done = Some(summary.clone()),
                    _ => {}
                }
            }
            let summary = done.expect("it ends");
            queries += summary.asked;
            hops.push(summary.hops.unwrap_or(u8::MAX));
            found += usize::from(there && summary.hops.is_some_and(|hops| hops < 10));
        }
    }
    hops.sort_unstable();
    eprintln!(
        "{found} of {TRIES} found, {} queries each, hops: median {}, 99 % {}; {:?} real",
        queries / TRIES,
        hops[TRIES / 2],
        hops[TRIES * 99 / 100],
        began.elapsed()
    );
    assert!(found >= TRIES * 99 / 100, "{found} of {TRIES}");
}
