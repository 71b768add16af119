//! The fault cases of the DHT: what strangers send, and what comes of it.

use std::collections::BTreeSet;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use super::world::World;
use crate::dht::krpc::{Body, Claim, Contact, Message, Put, Query, Response, Want};
use crate::dht::{Command, Event, Item, Node, NodeConfig, NodeId, SavedState};

const US: &str = "50.0.0.1:6881";
const THEM: NodeId = NodeId(*b"them them them them ");

fn address(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

fn node(now: Instant) -> Node {
    Node::new(now, &[address(US)], NodeConfig::default(), [7; 32], &SavedState::default())
}

/// Bytes that wait to be sent, and how many datagrams they are.
fn sent(node: &mut Node) -> (usize, usize) {
    std::iter::from_fn(|| node.poll_transmit()).fold((0, 0), |(bytes, n), t| (bytes + t.bytes.len(), n + 1))
}

/// The answer to one query from `from`, or the code of the error.
fn ask(node: &mut Node, now: Instant, from: SocketAddr, query: &Query<'_>) -> Result<Vec<u8>, i64> {
    node.handle_datagram(now, 0, from, &query.encode(b"xy", THEM, true));
    let answers: Vec<_> = std::iter::from_fn(|| node.poll_transmit()).filter(|t| t.to == from).collect();
    let [answer] = &answers[..] else { panic!("{} answers", answers.len()) };
    match Message::parse(&answer.bytes).unwrap() {
        Message { transaction: b"xy", body: Body::Response(_), .. } => Ok(answer.bytes.clone()),
        Message { transaction: b"xy", body: Body::Error { code, .. }, .. } => Err(code),
        other => panic!("{other:?}"),
    }
}

fn response(bytes: &[u8]) -> Response<'_> {
    match Message::parse(bytes).unwrap().body {
        Body::Response(response) => *response,
        other => panic!("{other:?}"),
    }
}

fn get_peers(info_hash: NodeId) -> Query<'static> {
    Query::GetPeers { info_hash, want: Want::default(), no_seed: false, scrape: false }
}

/// D-1: ten thousand packets a second from one address.
#[test]
fn dht1_a_flood_from_one_address_is_not_answered() {
    let (start, from) = (Instant::now(), address("9.9.9.9:99"));
    let mut node = node(start);
    let mut rng = fastrand::Rng::with_seed(1);
    let ping = Query::Ping.encode(b"xy", THEM, true);
    let mut answers = 0;
    for i in 0..100_000_u64 {
        let now = start + Duration::from_micros(i * 100);
        let mut bytes = ping.clone();
        if i % 2 == 0 {
            let at = rng.usize(..bytes.len());
            bytes[at] = rng.u8(..);
        }
        node.handle_datagram(now, 0, from, &bytes);
        answers += sent(&mut node).1;
    }
    assert!(answers <= 50, "{answers}");
    let later = start + Duration::from_secs(301);
    assert!(ask(&mut node, later, from, &Query::Ping).is_ok());
}

/// D-2: ten thousand addresses, as a forger has them.
#[test]
fn dht2_ten_thousand_forged_addresses_get_no_more_than_the_budget() {
    let start = Instant::now();
    let mut node = node(start);
    let query = |ro| Query::FindNode { target: THEM, want: Want::default() }.encode(b"xy", THEM, ro);
    let (query, noise) = ([query(true), query(false)], b"d1:ad2:id1:xe1:q4:ping1:t1:x1:y1:qe");
    let mut bytes = 0;
    for i in 0..200_000_u32 {
        let now = start + Duration::from_micros(u64::from(i) * 100);
        let ip = Ipv4Addr::from_bits(0x0900_0000 + (i % 10_000) * 0x101);
        let datagram = if i % 3 == 0 { &noise[..] } else { &query[(i % 2) as usize] };
        node.handle_datagram(now, 0, (ip, 1 + u16::try_from(i % 7).unwrap()).into(), datagram);
        bytes += sent(&mut node).0;
    }
    // Three seconds' worth may have been saved up, twenty have passed.
    assert!(bytes <= 23 * 8_000 + 2_000, "{bytes}");
    assert!(bytes >= 15 * 8_000, "honest ones among them are answered: {bytes}");
}

/// D-3: how much larger answers are than questions.
#[test]
fn dht3_answers_are_at_most_ten_times_the_question() {
    let mut world = World::new(5);
    let main = world.address();
    let number = world.add(&[main], &SavedState::default());
    for _ in 0..30 {
        let other = world.address();
        let other = world.add(&[other], &SavedState::default());
        let now = world.now;
        world.nodes[other].bootstrap(now, &[main], false);
        world.settle(other);
    }
    world.run(Duration::from_secs(20));
    let now = world.now;
    let node = &mut world.nodes[number];
    for i in 0..500_u32 {
        let peer = SocketAddr::from((Ipv4Addr::from_bits(0x0900_0000 + i), 1));
        node.peers.announce(now, NodeId([1; 20]), peer, i % 2 == 0);
        node.peers.announce(now, NodeId(std::array::from_fn(|b| i.to_be_bytes()[b % 4])), peer, false);
    }
    let small = Item::immutable(&[b"300:".as_slice(), &[b'x'; 300]].concat()).unwrap();
    let large = Item::sign(&[1; 32], b"", 1, &[b"996:".as_slice(), &[b'x'; 996]].concat()).unwrap();
    for item in [&small, &large] {
        node.items.put(now, item.clone(), None, NodeId([0; 20])).unwrap();
    }
    let both = Want { v4: true, v6: true };
    let get = |item: &Item| Query::Get { target: item.target(), seq: None, want: both };
    let peers = |scrape, want| Query::GetPeers { info_hash: NodeId([1; 20]), want, no_seed: false, scrape };
    let table = [
        (Query::Ping, 10.0),
        (Query::FindNode { target: THEM, want: both }, 10.0),
        (peers(false, Want::default()), 10.0),
        (peers(true, both), 10.0),
        (Query::Sample { target: THEM, want: both }, 10.0),
        (get(&small), 10.0),
        // An item is answered whole, whatever its size.
        (get(&large), 15.0),
    ];
    for (i, (query, most)) in table.into_iter().enumerate() {
        let from = SocketAddr::from((Ipv4Addr::new(70, 1, u8::try_from(i).unwrap(), 1), 1));
        let now = now + Duration::from_secs(10 * i as u64);
        let asked = query.encode(b"", THEM, true).len();
        let len = ask(node, now, from, &query).unwrap().len();
        let gain = f64::from(u32::try_from(len).unwrap()) / f64::from(u32::try_from(asked).unwrap());
        eprintln!("{asked} bytes -> {len} bytes, {gain:.1} times");
        assert!(gain <= most && len <= 1_400, "{query:?}: {gain}");
    }
}

/// D-4: bad, expired, another address's token; port 0; the implied port.
#[test]
fn dht4_only_a_fresh_token_of_the_same_address_may_write() {
    let now = Instant::now();
    let (from, other) = (address("9.9.9.9:99"), address("9.9.9.8:99"));
    let mut node = node(now);
    let info_hash = NodeId([1; 20]);
    let bytes = ask(&mut node, now, from, &get_peers(info_hash)).unwrap();
    let token = response(&bytes).token.unwrap();
    assert_eq!(token.len(), 8);
    let announce = |port, token| Query::Announce { info_hash, port, seed: false, token };
    assert_eq!(ask(&mut node, now, from, &announce(Some(1), b"forged00")), Err(203));
    assert_eq!(ask(&mut node, now, from, &announce(Some(1), b"")), Err(203));
    assert_eq!(ask(&mut node, now, other, &announce(Some(1), token)), Err(203));
    assert_eq!(ask(&mut node, now, from, &announce(Some(0), token)), Err(203));
    assert_eq!(node.stats(now).stored, (0, 0));
    assert!(ask(&mut node, now, from, &announce(Some(5), token)).is_ok());
    let bytes = ask(&mut node, now, other, &get_peers(info_hash)).unwrap();
    assert_eq!(response(&bytes).values, [address("9.9.9.9:5")]);
    assert!(ask(&mut node, now, from, &announce(None, token)).is_ok());
    let bytes = ask(&mut node, now, other, &get_peers(info_hash)).unwrap();
    assert_eq!(response(&bytes).values, [address("9.9.9.9:99")], "the implied port, in place of the other");
    let late = now + Duration::from_secs(601);
    assert_eq!(ask(&mut node, late, from, &announce(Some(1), token)), Err(203));
}

/// Has `node` ask `from`, and answers in its place.
fn answer_lookup(node: &mut Node, now: Instant, answer: impl Fn(Contact) -> Response<'static>) -> usize {
    let mut asked = 0;
    while let Some(transmit) = node.poll_transmit() {
        let Ok(Message { transaction, body: Body::Query { .. }, .. }) = Message::parse(&transmit.bytes) else {
            continue;
        };
        asked += 1;
        let response = answer(Contact { id: THEM, address: transmit.to });
        node.handle_datagram(now, 0, transmit.to, &response.encode(transaction, address(US)));
    }
    asked
}

/// D-5: a thousand ids in one network, in lists of twenty-five, and our own id.
#[test]
fn dht5_lists_of_false_nodes_do_not_fill_the_table() {
    let now = Instant::now();
    let mut node = node(now);
    let own = node.stats(now).sockets[0].id;
    node.bootstrap(now, &[address("9.9.9.1:1")], false);
    node.start(now, Command::GetPeers { info_hash: NodeId([1; 20]) });
    let list = |round: u64| -> Vec<Contact> {
        let mut rng = fastrand::Rng::with_seed(round);
        let mut id = || NodeId(std::array::from_fn(|_| rng.u8(..)));
        let mut list: Vec<_> =
            (1..=25).map(|n| Contact { id: id(), address: (Ipv4Addr::new(9, 9, 9, n), 1).into() }).collect();
        list.insert(0, Contact { id: own, address: address("8.8.8.8:1") });
        list
    };
    let mut asked = 0;
    for round in 0..1_000 {
        let now = now + Duration::from_millis(round * 100);
        let mut rng = fastrand::Rng::with_seed(round);
        let id = NodeId(std::array::from_fn(|_| rng.u8(..)));
        asked += answer_lookup(&mut node, now, |_| Response {
            id: Some(id),
            nodes: Some(list(round)),
            ..Response::default()
        });
        node.handle_timeout(now);
    }
    assert!(node.stats(now).sockets[0].nodes <= 1);
    assert!(asked < 300, "{asked}");
}

/// D-6: an answer full of peers, most of which cannot be.
#[test]
fn dht6_peers_in_an_answer_are_bounded_and_filtered() {
    let now = Instant::now();
    let mut node = node(now);
    node.bootstrap(now, &[address("9.9.9.1:1")], false);
    answer_lookup(&mut node, now, |_| Response { id: Some(THEM), ..Response::default() });
    let operation = node.start(now, Command::GetPeers { info_hash: NodeId([1; 20]) });
    let mut values: Vec<SocketAddr> = ["127.0.0.1:6881", "0.0.0.0:1", "224.0.0.1:1", "10.0.0.1:6881", "5.5.5.5:0"]
        .iter()
        .map(|text| address(text))
        .collect();
    values.push(address("[2600::1]:1"));
    values.extend((0..150_u32).map(|i| SocketAddr::from((Ipv4Addr::from_bits(0x0800_0000 + i % 100), 6881))));
    let peers = Response { id: Some(THEM), values, token: Some(b"t"), ..Response::default() };
    answer_lookup(&mut node, now, |_| peers.clone());
    let found: Vec<_> = std::iter::from_fn(|| node.poll_event()).collect();
    let [Event::Peers { peers, .. }, Event::Done { operation: done, summary }] = &found[..] else {
        panic!("{found:?}")
    };
    assert!(*done == operation && peers.len() == 100 && summary.peers == 100);
    assert!(peers.iter().all(|peer| peer.ip() >= Ipv4Addr::new(8, 0, 0, 0) && peer.port() == 6881));
    // Ten thousand do not even fit into what is looked at.
    let many = Response { id: Some(THEM), values: vec![address("5.5.5.5:5"); 10_000], ..Response::default() };
    let operation = node.start(now, Command::GetPeers { info_hash: NodeId([1; 20]) });
    answer_lookup(&mut node, now, |_| many.clone());
    assert!(!std::iter::from_fn(|| node.poll_event()).any(|event| matches!(event, Event::Peers { .. })));
    node.cancel(now, operation);
    assert_eq!(node.stats(now).operations, 0);
}

/// D-7: an answer with the right transaction from elsewhere, one without, one that comes twice.
#[test]
fn dht7_answers_from_elsewhere_are_dropped() {
    let now = Instant::now();
    let mut node = node(now);
    node.bootstrap(now, &[address("9.9.9.1:1")], false);
    let query = node.poll_transmit().unwrap();
    let transaction = Message::parse(&query.bytes).unwrap().transaction.to_vec();
    let answer = Response { id: Some(THEM), ..Response::default() };
    node.handle_datagram(now, 0, address("9.9.9.2:1"), &answer.encode(&transaction, address(US)));
    node.handle_datagram(now, 0, address("9.9.9.1:2"), &answer.encode(&transaction, address(US)));
    node.handle_datagram(now, 0, address("9.9.9.1:1"), &answer.encode(b"zzzz", address(US)));
    assert_eq!(node.stats(now).sockets[0].nodes, 0);
    node.handle_datagram(now, 0, address("9.9.9.1:1"), &answer.encode(&transaction, address(US)));
    assert_eq!(node.stats(now).sockets[0].nodes, 1);
    let second = Response { id: Some(NodeId([9; 20])), ..Response::default() };
    node.handle_datagram(now, 0, address("9.9.9.1:1"), &second.encode(&transaction, address(US)));
    assert_eq!(node.save(now).nodes, [Contact { id: THEM, address: address("9.9.9.1:1") }]);
}

/// D-8: too long, badly signed, a negative version, not canonical.
#[test]
fn dht8_what_is_no_item_is_not_stored() {
    let (now, from) = (Instant::now(), address("9.9.9.9:99"));
    let mut node = node(now);
    let get = Query::Get { target: THEM, seq: None, want: Want::default() };
    let bytes = ask(&mut node, now, from, &get).unwrap();
    let token = response(&bytes).token.unwrap().to_vec();
    let mut put = |value: &[u8], signed, cas| {
        ask(&mut node, now, from, &Query::Put(Put { token: &token, value, signed, cas })).err()
    };
    let long = [b"997:".as_slice(), &[b'x'; 997]].concat();
    assert_eq!(put(&long, None, None), Some(205));
    assert_eq!(put(b"d1:b0:1:a0:e", None, None), Some(203));
    let item = Item::sign(&[1; 32], b"salt", 5, b"i5e").unwrap();
    let signed = item.signed().unwrap();
    let sound = Claim { key: &signed.key, salt: &signed.salt, seq: 5, signature: &signed.signature };
    assert_eq!(put(b"i5e", Some(Claim { salt: &[0; 65], ..sound }), None), Some(207));
    assert_eq!(put(b"i5e", Some(Claim { seq: -1, ..sound }), None), Some(203));
    assert_eq!(put(b"i5e", Some(Claim { seq: 6, ..sound }), None), Some(206));
    assert_eq!(put(b"i6e", Some(sound), None), Some(206));
    assert_eq!(put(b"i5e", Some(Claim { key: &[1; 31], ..sound }), None), Some(206));
    assert_eq!(put(b"i5e", Some(Claim { signature: &[1; 63], ..sound }), None), Some(206));
    assert_eq!(put(b"i5e", Some(sound), None), None);
    assert_eq!(put(b"i5e", Some(sound), Some(4)), Some(301));
    let (forged, value) = (Put { token: b"forged00", value: b"i9e", signed: None, cas: None }, item.target());
    assert_eq!(ask(&mut node, now, from, &Query::Put(forged)), Err(203));
    assert_eq!(node.stats(now).items, 1);
    let known = Query::Get { target: value, seq: Some(5), want: Want::default() };
    let bytes = ask(&mut node, now, from, &known).unwrap();
    assert!(response(&bytes).value.is_none() && response(&bytes).seq == Some(5), "who has it need not get it again");
}

/// D-9: everything that one could begin with is dead for ten minutes.
#[test]
fn dht9_a_dead_network_is_asked_again_without_haste() {
    let mut world = World::new(9);
    let (main, dead) = (world.address(), world.address());
    let number = world.add(&[main], &SavedState::default());
    let (mut calls, mut asked) = (0, BTreeSet::new());
    for second in 0..600 {
        world.run(Duration::from_secs(1));
        for (_, event) in std::mem::take(&mut world.events) {
            assert_eq!(event, Event::WantBootstrap);
            calls += 1;
            asked.insert(second);
            let now = world.now;
            world.nodes[number].bootstrap(now, &[dead], true);
            world.settle(number);
        }
    }
    assert!((5..=10).contains(&calls), "{asked:?}");
    assert!(world.wakes < 200, "{} in ten minutes", world.wakes);
    let stats = world.nodes[number].stats(world.now);
    assert!(stats.sent <= 10, "{}", stats.sent);
    // With nobody there an operation ends too, and says so.
    let now = world.now;
    let id = world.nodes[number].start(now, Command::GetPeers { info_hash: THEM });
    world.settle(number);
    let summary = world.wait(number, |event| match event {
        Event::Done { operation, summary } if *operation == id => Some(summary.clone()),
        _ => None,
    });
    assert!(summary.answered == 0 && world.now - now <= Duration::from_secs(16));
    // As soon as somebody is there, all is well.
    let other = world.add(&[dead], &SavedState::default());
    let now = world.now;
    world.nodes[number].bootstrap(now, &[dead], false);
    world.settle(number);
    world.run(Duration::from_secs(5));
    assert!(world.nodes[number].stats(world.now).sockets[0].good == 1);
    assert!(world.nodes[other].stats(world.now).sockets[0].good == 1, "who asks is asked back");
}

/// While the line is down nobody is given up.
#[test]
fn a_dead_line_does_not_empty_the_table() {
    let mut world = World::new(4);
    let main = world.address();
    world.add(&[main], &SavedState::default());
    for _ in 0..12 {
        let other = world.address();
        let other = world.add(&[other], &SavedState::default());
        let now = world.now;
        world.nodes[other].bootstrap(now, &[main], false);
        world.settle(other);
    }
    world.run(Duration::from_secs(60));
    let before = world.nodes[0].stats(world.now).sockets[0].nodes;
    world.loss = 1;
    world.run(Duration::from_secs(3 * 3600));
    assert_eq!(world.nodes[0].stats(world.now).sockets[0].nodes, before);
    world.loss = 0;
    world.run(Duration::from_secs(700));
    assert!(world.nodes[0].stats(world.now).sockets[0].good >= 8);
}

/// Whatever comes, nothing panics, and what waits to be sent stays bounded.
#[test]
fn noise_does_no_harm() {
    let start = Instant::now();
    let mut node = node(start);
    let mut rng = fastrand::Rng::with_seed(6);
    let want = Want { v4: true, v6: true };
    let sound = [
        Query::Ping.encode(b"aa", THEM, false),
        get_peers(THEM).encode(b"bbbb", THEM, false),
        Query::Put(Put { token: b"12345678", value: b"i1e", signed: None, cas: Some(1) }).encode(b"", THEM, false),
        Response { id: Some(THEM), nodes: Some(vec![]), samples: Some(b"x"), ..Response::default() }
            .encode(b"t", address(US)),
        Query::Sample { target: THEM, want }.encode(b"cc", THEM, true),
    ];
    for i in 0..30_000_u64 {
        let now = start + Duration::from_millis(i * 20);
        let mut bytes = rng.choice(&sound).unwrap().clone();
        for _ in 0..rng.usize(..4) {
            let at = rng.usize(..bytes.len());
            bytes[at] = rng.u8(..);
        }
        bytes.truncate(rng.usize(..=bytes.len()).max(bytes.len() * usize::from(rng.bool())));
        let from = SocketAddr::from((Ipv4Addr::from_bits(0x0900_0000 + rng.u32(..100_000) * 7), rng.u16(..)));
        node.handle_datagram(now, usize::from(rng.u8(..) == 0), from, &bytes);
        if node.poll_timeout() <= now {
            node.handle_timeout(now);
        }
        if i % 100 == 0 {
            assert!(sent(&mut node).1 < 4_096);
        }
    }
}
