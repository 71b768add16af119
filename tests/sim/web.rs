//! Web seeds in the pretend world: servers that several nodes fetch from, honest or not.

use std::collections::VecDeque;
use std::time::Duration;

use gannet::base::{Block, PeerKey};
use gannet::swarm::{Fetch, FetchOutcome};

use crate::world::{What, World, mark, transfer};

/// How a server behaves.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Manner {
    Honest,
    /// Corrupts each block with this probability.
    Corrupt(f64),
    /// Refuses connections until this time.
    DownUntil(Duration),
    /// Takes requests and says nothing.
    Silent,
    /// Does not have these pieces.
    Lacks(u32, u32),
    /// Serves so many requests at once, and tells the others to come back after so long.
    Busy(usize, Duration),
    /// Breaks off after so many blocks of each request.
    Breaks(usize),
}

/// A server of the world.
pub(crate) struct Server {
    /// Bytes per second, all requests together.
    pub(crate) rate: u64,
    pub(crate) delay: Duration,
    pub(crate) manner: Manner,
    /// When its line is free.
    free: Duration,
    /// Requests that came.
    pub(crate) requests: usize,
    /// Requests under way.
    active: usize,
    pub(crate) sent: u64,
    /// Requests that came while it was down.
    pub(crate) refused: usize,
}

impl Server {
    pub(crate) fn new(rate: u64, manner: Manner) -> Self {
        let delay = Duration::from_millis(40);
        Self { rate, delay, manner, free: Duration::ZERO, requests: 0, active: 0, sent: 0, refused: 0 }
    }
}

/// A fetch of a node under way.
pub(crate) struct Request {
    server: usize,
    left: VecDeque<Block>,
    sent: usize,
    admitted: bool,
    /// Tells its events from those of an earlier one of the same lane.
    number: u64,
}

impl World {
    /// Node `i` knows that `server` has everything.
    pub(crate) fn add_web_seed(&mut self, i: usize, server: usize) {
        let now = self.instant();
        let number = self.nodes[i].swarm.add_web_seed(now).unwrap();
        assert_eq!(number as usize, self.nodes[i].web_seeds.len());
        self.nodes[i].web_seeds.push(server);
        self.settle(i);
    }

    pub(crate) fn begin_fetch(&mut self, i: usize, fetch: Fetch) {
        let Fetch { key, web_seed, blocks } = fetch;
        assert!(!blocks.is_empty() && blocks.is_sorted());
        self.requests_made += 1;
        let (number, server) = (self.requests_made, self.nodes[i].web_seeds[web_seed as usize]);
        let there = &mut self.servers[server];
        there.requests += 1;
        let admitted = !matches!(there.manner, Manner::Busy(most, _) if there.active >= most);
        there.active += usize::from(admitted);
        let arrives = self.now + there.delay;
        let request = Request { server, left: blocks.into(), sent: 0, admitted, number };
        assert!(self.nodes[i].requests.insert(key, request).is_none(), "a lane has one fetch at once");
        self.at(arrives, i, What::Fetched { key, number, first: true });
    }

    /// The next block of a fetch is there, or its end.
    pub(crate) fn fetched(&mut self, i: usize, key: PeerKey, number: u64, first: bool) {
        let Some(request) = self.nodes[i].requests.get_mut(&key).filter(|r| r.number == number) else { return };
        let server = &mut self.servers[request.server];
        if first {
            let refused = match server.manner {
                Manner::DownUntil(until) if self.now < until => {
                    server.refused += 1;
                    Some(FetchOutcome::Failed)
                }
                Manner::Busy(_, after) if !request.admitted => Some(FetchOutcome::Busy(Some(after))),
                Manner::Silent => return,
                _ => None,
            };
            if let Some(outcome) = refused {
                return self.end_fetch(i, key, &outcome);
            }
        } else if let Some(block) = request.left.pop_front() {
            request.sent += 1;
            server.sent += u64::from(block.len());
            let corrupt = matches!(server.manner, Manner::Corrupt(p) if self.rng.f64() < p);
            let now = self.instant();
            let swarm = &mut self.nodes[i].swarm;
            let mut lent = Vec::new();
            swarm.lend(key, &[block], &mut lent);
            match lent.pop() {
                Some((block, Some(mut buf))) => {
                    mark(&mut buf, corrupt);
                    swarm.handle_fetched(now, key, block, buf);
                }
                Some((_, None)) => {}
                None => {
                    // No memory: it waits.
                    swarm.handle_fetch_waits(now, key);
                    let request = self.nodes[i].requests.get_mut(&key).unwrap();
                    request.left.push_front(block);
                    request.sent -= 1;
                    return self.at(self.now + Duration::from_millis(20), i, What::Fetched { key, number, first });
                }
            }
        }
        let Some(request) = self.nodes[i].requests.get_mut(&key) else { return };
        let server = &mut self.servers[request.server];
        let Some(next) = request.left.front() else { return self.end_fetch(i, key, &FetchOutcome::Done) };
        match server.manner {
            Manner::Breaks(after) if request.sent >= after => return self.end_fetch(i, key, &FetchOutcome::Failed),
            Manner::Lacks(from, to) if (from..to).contains(&next.piece().get()) => {
                return self.end_fetch(i, key, &FetchOutcome::Lacks(from..to));
            }
            _ => {}
        }
        server.free = server.free.max(self.now) + transfer(next.len(), server.rate);
        let when = server.free;
        self.at(when, i, What::Fetched { key, number, first: false });
    }

    pub(crate) fn end_fetch(&mut self, i: usize, key: PeerKey, outcome: &FetchOutcome) {
        let Some(request) = self.nodes[i].requests.remove(&key) else { return };
        self.servers[request.server].active -= usize::from(request.admitted);
        let now = self.instant();
        self.nodes[i].swarm.handle_fetch_ended(now, key, outcome, []);
    }
}
