//! A DHT node among datagrams from anybody: bounded stores, bounded answers, sound events, and it comes to rest.
//!
//! The input is a list of steps. In a datagram `2:TT` stands for the transaction of a query that the node has under way, and
//! `5:TOKEN` for the last token that it gave, so that answers and announces get through.

use std::collections::VecDeque;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::{Duration, Instant};

use gannet::base::bencode::{Dictionary, Limits, string};
use gannet::dht::{
    Command, Event, Item, MAX_DATAGRAM, MAX_ITEMS, MAX_PEERS, MAX_STATE_NODES, MAX_TORRENTS, MAX_VALUE, Node,
    NodeConfig, NodeId, SavedState,
};

use super::tape::Tape;

/// Steps that are taken of one input.
const STEPS: usize = 200;

struct World {
    node: Node,
    now: Instant,
    /// Queries of the node: from which socket, to whom, with which transaction.
    asked: VecDeque<(usize, SocketAddr, Vec<u8>)>,
    token: Vec<u8>,
    sent: u64,
    received: u64,
    started: usize,
    done: usize,
}

pub fn run(data: &[u8]) {
    let mut tape = Tape(data);
    let flags = tape.byte();
    let sockets = [SocketAddr::from((Ipv4Addr::UNSPECIFIED, 6881)), SocketAddr::from((Ipv6Addr::UNSPECIFIED, 6881))];
    let sockets = &sockets[..1 + usize::from(flags & 1)];
    let config = NodeConfig { read_only: flags & 2 != 0 };
    let now = Instant::now();
    let node = Node::new(now, sockets, config, [flags; 32], &SavedState::default());
    let (asked, token) = (VecDeque::new(), Vec::new());
    let mut world = World { node, now, asked, token, sent: 0, received: 0, started: 0, done: 0 };
    for _ in 0..STEPS {
        if tape.is_over() {
            break;
        }
        world.step(&mut tape, sockets.len());
        world.settle();
    }
    let stats = world.node.stats(world.now);
    assert!(stats.stored.0 <= MAX_TORRENTS && stats.stored.1 <= MAX_TORRENTS * MAX_PEERS && stats.items <= MAX_ITEMS);
    let state = world.node.save(world.now);
    assert!(state.nodes.len() <= 2 * MAX_STATE_NODES);
    assert_eq!(SavedState::from_bytes(&state.to_bytes()).as_ref(), Ok(&state));
    // Nobody answers any more: what was begun comes to its end, and it does not ask ever more.
    for _ in 0..2_000 {
        if world.done == world.started {
            return;
        }
        world.now = world.node.poll_timeout().max(world.now);
        world.node.handle_timeout(world.now);
        world.settle();
    }
    panic!("{} of {} operations do not end", world.started - world.done, world.started);
}

impl World {
    fn step(&mut self, tape: &mut Tape<'_>, sockets: usize) {
        let now = self.now;
        match tape.byte() % 8 {
            0 => {
                self.now += Duration::from_millis(u64::from(tape.word()) * 10);
                self.node.handle_timeout(self.now);
            }
            1 => self.command(tape),
            2 => {
                let (v6, address) = (sockets > 1 && tape.flag(), tape.array());
                self.node.bootstrap(now, &[from(v6, address)], tape.flag());
            }
            3 => self.node.add_node(now, from(sockets > 1 && tape.flag(), tape.array())),
            4 => self.node.handle_external(now, from(tape.flag(), tape.array()).ip()),
            kind => {
                let via = tape.below(sockets);
                let address: [u8; 2] = tape.array();
                let len = usize::from(tape.word()) % 1_500;
                let bytes = tape.bytes(len);
                // An answer comes from whom was asked.
                let pending = (kind == 7 && !self.asked.is_empty()).then(|| {
                    let at = usize::from(address[0]) % self.asked.len();
                    self.asked.remove(at).unwrap()
                });
                let (via, from, transaction) = pending.unwrap_or((via, from(via == 1, address), b"aa".to_vec()));
                let bytes = replaced(bytes, b"2:TT", &transaction);
                let bytes = replaced(&bytes, b"5:TOKEN", &self.token);
                self.received += bytes.len() as u64;
                self.node.handle_datagram(now, via, from, &bytes);
            }
        }
    }

    fn command(&mut self, tape: &mut Tape<'_>) {
        let target = NodeId([tape.byte(); 20]);
        let command = match tape.byte() % 6 {
            0 => Command::GetPeers { info_hash: target },
            1 => Command::Announce { info_hash: target, port_v4: Some(6881), port_v6: None, seed: tape.flag() },
            2 => Command::Scrape { info_hash: target },
            3 => Command::Get { target, salt: tape.bytes(2).to_vec() },
            4 => Command::Sample { target },
            _ => match Item::immutable(b"4:item") {
                Ok(item) => Command::Put { item, cas: tape.flag().then_some(1) },
                Err(error) => panic!("{error}"),
            },
        };
        let id = self.node.start(self.now, command);
        self.started += 1;
        if tape.byte() == 7 {
            self.node.cancel(self.now, id);
            self.started -= 1;
        }
    }

    /// Takes what the node has to send and to tell.
    fn settle(&mut self) {
        while let Some(transmit) = self.node.poll_transmit() {
            assert!(transmit.bytes.len() <= MAX_DATAGRAM && transmit.to.port() != 0);
            self.sent += transmit.bytes.len() as u64;
            let message = Dictionary::parse(&transmit.bytes, Limits::DHT).expect("what it sends is bencode");
            let transaction = message.raw(b"t").and_then(string).expect("with a transaction").to_vec();
            if message.raw(b"y").and_then(string) == Some(b"q") {
                self.asked.push_back((transmit.via, transmit.to, transaction));
                self.asked.truncate(64);
            } else if let Ok(Some(answer)) = message.dictionary(b"r")
                && let Some(token) = answer.raw(b"token").and_then(string)
            {
                self.token = token.to_vec();
            }
        }
        while let Some(event) = self.node.poll_event() {
            match event {
                Event::Done { .. } => self.done += 1,
                Event::Peers { peers, .. } => assert!(peers.iter().all(|peer| peer.port() != 0)),
                Event::Item { item, .. } => {
                    assert!(item.value().len() <= MAX_VALUE);
                    let sound = match item.signed() {
                        Some(signed) => Item::verify(signed.clone(), item.value()),
                        None => Item::immutable(item.value()),
                    };
                    assert_eq!(sound.as_ref(), Ok(&item));
                }
                _ => {}
            }
        }
    }
}

/// Somebody on the internet.
fn from(v6: bool, [a, b]: [u8; 2]) -> SocketAddr {
    let port = 1024 + u16::from(b & 3);
    if v6 {
        (Ipv6Addr::new(0x2600, a.into(), b.into(), 0, 0, 0, 0, 1), port).into()
    } else {
        (Ipv4Addr::new(12 + a % 80, a, b, 1), port).into()
    }
}

/// `bytes` with the string `text` in place of the one that stands for it.
fn replaced(bytes: &[u8], stands: &[u8], text: &[u8]) -> Vec<u8> {
    let Some(at) = bytes.windows(stands.len()).position(|window| window == stands) else { return bytes.to_vec() };
    let text = [format!("{}:", text.len()).as_bytes(), text].concat();
    [&bytes[..at], &text, &bytes[at + stands.len()..]].concat()
}
