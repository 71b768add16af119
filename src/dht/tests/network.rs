//! Small honest networks: everything that can be asked, over both families of addresses.

use std::net::SocketAddr;
use std::time::Duration;

use super::world::World;
use crate::dht::{Command, Event, Item, NodeConfig, NodeId, SavedState, Summary, mutable_target, public_key};

/// `count` nodes on both families that begin with the first of them.
fn small(count: usize) -> World {
    let mut world = World::new(3);
    let mut first = Vec::new();
    for i in 0..count {
        let addresses = vec![world.address(), world.address_v6()];
        if i == 0 {
            first = addresses.clone();
        }
        let number = world.add(&addresses, &SavedState::default());
        if i > 0 {
            let now = world.now;
            world.nodes[number].bootstrap(now, &first, false);
            world.settle(number);
        }
    }
    world.run(Duration::from_secs(30));
    world
}

fn ask(world: &mut World, who: usize, command: Command) -> (Vec<Event>, Summary) {
    let now = world.now;
    let id = world.nodes[who].start(now, command);
    world.settle(who);
    let mut events = Vec::new();
    let summary = world.wait(who, |event| match event {
        Event::Done { operation, summary } if *operation == id => Some(summary.clone()),
        Event::Peers { .. } | Event::Item { .. } | Event::Samples { .. } => {
            events.push(event.clone());
            None
        }
        _ => None,
    });
    (events, summary)
}

fn peers(events: &[Event]) -> Vec<SocketAddr> {
    let mut all: Vec<_> = events
        .iter()
        .filter_map(|event| match event {
            Event::Peers { peers, .. } => Some(peers.clone()),
            _ => None,
        })
        .flatten()
        .collect();
    all.sort();
    all
}

#[test]
fn peers_are_found_on_both_families() {
    let mut world = small(12);
    let info_hash = NodeId([7; 20]);
    let (_, summary) =
        ask(&mut world, 3, Command::Announce { info_hash, port_v4: Some(6881), port_v6: Some(6881), seed: true });
    assert!(summary.stored >= 14 && summary.refused.is_none(), "{summary:?}");
    let (events, _) = ask(&mut world, 4, Command::Announce { info_hash, port_v4: None, port_v6: None, seed: false });
    assert_eq!(peers(&events).len(), 2);
    let (events, summary) = ask(&mut world, 9, Command::GetPeers { info_hash });
    let found = peers(&events);
    assert_eq!(found.len(), 4, "{found:?}");
    assert!(found.iter().filter(|peer| peer.port() == 6881).count() == 2 && summary.hops == Some(1));
    let stats = world.nodes[4].stats(world.now);
    assert!(found.contains(&stats.sockets[0].local) && found.contains(&stats.sockets[1].local), "the implied port");
    let (_, summary) = ask(&mut world, 10, Command::Scrape { info_hash });
    let scrape = summary.scrape.unwrap();
    assert!((scrape.seeds - 2.0).abs() < 0.1 && (scrape.peers - 2.0).abs() < 0.1, "{scrape:?}");
    let (events, _) = ask(&mut world, 11, Command::Sample { target: NodeId([1; 20]) });
    let sampled = |event: &Event| matches!(event, Event::Samples { hashes, .. } if hashes.contains(&info_hash));
    assert!(events.iter().any(sampled));
}

#[test]
fn items_are_stored_and_found() {
    let mut world = small(12);
    let (secret, item) = ([5; 32], Item::immutable(b"12:Hello World!").unwrap());
    let target = item.target();
    let (_, summary) = ask(&mut world, 1, Command::Put { item: item.clone(), cas: None });
    assert!(summary.stored >= 14, "{summary:?}");
    let (events, _) = ask(&mut world, 7, Command::Get { target, salt: vec![] });
    assert!(matches!(&events[..], [Event::Item { item: found, .. }] if *found == item), "{events:?}");

    let version = |seq| Item::sign(&secret, b"salt", seq, format!("i{seq}e").as_bytes()).unwrap();
    let target = mutable_target(&public_key(&secret), b"salt");
    let newest = |events: &[Event]| match events.last() {
        Some(Event::Item { item, .. }) => item.seq(),
        _ => None,
    };
    ask(&mut world, 2, Command::Put { item: version(1), cas: None });
    ask(&mut world, 2, Command::Put { item: version(3), cas: Some(1) });
    let (events, _) = ask(&mut world, 8, Command::Get { target, salt: b"salt".to_vec() });
    assert_eq!(newest(&events), Some(3));
    let (_, summary) = ask(&mut world, 2, Command::Put { item: version(4), cas: Some(2) });
    assert_eq!((summary.stored, summary.refused.unwrap().0), (0, 301));
    let (_, summary) = ask(&mut world, 2, Command::Put { item: version(2), cas: None });
    assert_eq!((summary.stored, summary.refused.unwrap().0), (0, 302));
    let (events, _) = ask(&mut world, 8, Command::Get { target, salt: b"other".to_vec() });
    assert!(events.is_empty(), "another salt is another item");
}

#[test]
fn a_read_only_node_finds_but_is_not_remembered() {
    let mut world = small(10);
    let info_hash = NodeId([9; 20]);
    ask(&mut world, 1, Command::Announce { info_hash, port_v4: Some(1), port_v6: Some(1), seed: false });
    let first: Vec<_> = world.nodes[0].stats(world.now).sockets.iter().map(|socket| socket.local).collect();
    let quiet = world.address();
    let number = world.add_with(&[quiet], &SavedState::default(), NodeConfig { read_only: true });
    let now = world.now;
    world.nodes[number].bootstrap(now, &first, false);
    world.settle(number);
    let (events, _) = ask(&mut world, number, Command::GetPeers { info_hash });
    assert_eq!(peers(&events).len(), 1);
    world.run(Duration::from_secs(60));
    let knows = |node: &crate::dht::Node| node.save(world.now).nodes.iter().any(|node| node.address == quiet);
    assert!(!world.nodes.iter().any(knows));
}

/// A router tells at once what nodes tell in time; they are believed against it, and it not against them.
#[test]
fn the_id_follows_what_a_router_says_until_nodes_know_better() {
    let mut world = small(12);
    let address = world.address();
    let number = world.add_with(&[address], &SavedState::default(), NodeConfig::default());
    let said: std::net::IpAddr = [9, 9, 9, 9].into();
    let now = world.now;
    world.nodes[number].handle_external(now, said);
    world.nodes[number].handle_external(now, "2001:db8::1".parse().unwrap());
    let socket = world.nodes[number].stats(now).sockets[0];
    assert!(socket.external == Some(said) && socket.id.is_bound_to(said), "{socket:?}");
    let first: Vec<_> = world.nodes[0].stats(now).sockets.iter().map(|socket| socket.local).collect();
    world.nodes[number].bootstrap(now, &first, false);
    world.settle(number);
    world.run(Duration::from_secs(60));
    let now = world.now;
    world.nodes[number].handle_external(now, said);
    let socket = world.nodes[number].stats(now).sockets[0];
    assert!(socket.external == Some(address.ip()) && socket.id.is_bound_to(address.ip()), "{socket:?}");
}

#[test]
fn the_id_follows_the_address_that_others_see() {
    let mut world = small(12);
    for node in &world.nodes {
        for socket in node.stats(world.now).sockets {
            assert_eq!(socket.external, Some(socket.local.ip()));
            assert!(socket.id.is_bound_to(socket.local.ip()), "{socket:?}");
            assert!(socket.nodes >= 9, "{socket:?}");
        }
    }
    // What is saved is enough to be back at once, with the same id, without anybody's help.
    let saved = world.nodes[5].save(world.now);
    let saved = SavedState::from_bytes(&saved.to_bytes()).unwrap();
    let id = world.nodes[5].stats(world.now).sockets[0].id;
    let addresses: Vec<_> = world.nodes[5].stats(world.now).sockets.iter().map(|socket| socket.local).collect();
    let seed = world.seed();
    world.nodes[5] = crate::dht::Node::new(world.now, &addresses, NodeConfig::default(), seed, &saved);
    world.settle(5);
    world.events.clear();
    world.run(Duration::from_secs(10));
    let stats = world.nodes[5].stats(world.now).sockets[0];
    assert!(stats.id == id && stats.good >= 9, "{stats:?}");
    assert!(!world.events.iter().any(|event| event == &(5, Event::WantBootstrap)), "{:?}", world.events);
}

#[test]
fn three_sockets_of_one_family_are_three_nodes() {
    let mut world = small(12);
    let first: Vec<_> = world.nodes[0].stats(world.now).sockets.iter().map(|socket| socket.local).collect();
    let addresses = [world.address(), world.address(), world.address()];
    let number = world.add(&addresses, &SavedState::default());
    let now = world.now;
    world.nodes[number].bootstrap(now, &first, false);
    world.settle(number);
    world.run(Duration::from_secs(60));
    let (_, summary) = ask(
        &mut world,
        number,
        Command::Announce { info_hash: NodeId([4; 20]), port_v4: None, port_v6: None, seed: false },
    );
    assert!(summary.stored >= 16, "{summary:?}");
    let (events, _) = ask(&mut world, 3, Command::GetPeers { info_hash: NodeId([4; 20]) });
    let mut expected = addresses.to_vec();
    expected.sort();
    assert_eq!(peers(&events), expected, "each announced through its own socket (BEP 45)");
    let stats = world.nodes[number].stats(world.now);
    assert!(stats.sockets[0].id != stats.sockets[1].id && stats.sockets.iter().all(|socket| socket.nodes > 8));
}
