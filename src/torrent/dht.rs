//! One torrent in the DHT: when to look for peers, and to say that we are one.

use std::net::SocketAddr;
use std::task::Poll;
use std::time::{Duration, Instant};

use tokio::sync::mpsc;

use crate::dht::{Command, Event, NodeId, Summary};
use crate::net::dht::DhtClient;

/// Between two announces: nodes keep peers for half an hour at least.
const INTERVAL: Duration = Duration::from_secs(15 * 60);

/// With few peers, the next search comes so soon after one in vain; then later and later, up to [`INTERVAL`].
const FIRST_RETRY: Duration = Duration::from_secs(60);

/// The next search when no node answered: the table is being filled, or the network is down.
const NO_NODES_RETRY: Duration = Duration::from_secs(10);

/// What a search has brought.
pub(super) enum Found {
    /// A node named peers.
    Peers { told_by: SocketAddr, peers: Vec<SocketAddr> },
    /// A search is over.
    Done(Summary),
}

/// The searches of one torrent: a hybrid torrent has two, one for each of its swarms.
pub(super) struct Searches {
    client: Option<DhtClient>,
    port_v4: Option<u16>,
    port_v6: Option<u16>,
    searches: Vec<Search>,
}

struct Search {
    info_hash: NodeId,
    running: Option<mpsc::Receiver<Event>>,
    next: Instant,
    retry: Duration,
    last: Instant,
    /// Ports have changed since it began.
    stale: bool,
}

impl Searches {
    /// The torrent of `info_hashes`, whose peers reach us at `port`; none is the port of the DHT's socket as others see
    /// it. Without a client nothing is ever sent.
    pub(super) fn new(
        now: Instant,
        client: Option<DhtClient>,
        port: Option<u16>,
        info_hashes: impl Iterator<Item = [u8; 20]>,
    ) -> Self {
        let mut searches = Self { client, port_v4: port, port_v6: port, searches: Vec::new() };
        searches.join(now, info_hashes);
        searches
    }

    /// The torrent has turned out to have these names, besides those that it had.
    pub(super) fn join(&mut self, now: Instant, info_hashes: impl Iterator<Item = [u8; 20]>) {
        for info_hash in info_hashes.map(NodeId) {
            if !self.searches.iter().any(|search| search.info_hash == info_hash) {
                self.searches.push(Search {
                    info_hash,
                    running: None,
                    next: now,
                    retry: FIRST_RETRY,
                    last: now,
                    stale: false,
                });
            }
        }
    }

    /// Nothing is sent any more.
    pub(super) fn leave(&mut self) {
        (self.client, self.searches) = (None, Vec::new());
    }

    /// Peers reach us at other ports: nodes that have told of others are told.
    pub(super) fn set_ports(&mut self, now: Instant, port_v4: Option<u16>, port_v6: Option<u16>) {
        if (self.port_v4, self.port_v6) == (port_v4, port_v6) {
            return;
        }
        (self.port_v4, self.port_v6) = (port_v4, port_v6);
        for search in &mut self.searches {
            search.stale = true;
            search.next = search.next.min((search.last + FIRST_RETRY).max(now));
        }
    }

    /// Begins the searches that are due. `seed`: we have everything.
    pub(super) fn poll(&mut self, now: Instant, seed: bool) {
        let Some(client) = &self.client else { return };
        for search in self.searches.iter_mut().filter(|search| search.running.is_none() && search.next <= now) {
            let command =
                Command::Announce { info_hash: search.info_hash, port_v4: self.port_v4, port_v6: self.port_v6, seed };
            search.running = Some(client.command(command));
            (search.last, search.stale) = (now, false);
        }
    }

    /// When [`Searches::poll`] has something to do.
    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        self.client.as_ref()?;
        self.searches.iter().filter(|search| search.running.is_none()).map(|search| search.next).min()
    }

    /// There are few peers: the next search comes as early as it may.
    pub(super) fn want_more_peers(&mut self) {
        for search in &mut self.searches {
            search.next = search.next.min(search.last + search.retry);
        }
    }

    /// Everything is there: the others are told.
    pub(super) fn handle_completed(&mut self, now: Instant) {
        self.searches.iter_mut().for_each(|search| search.next = search.next.min(now));
    }

    /// What the searches bring.
    pub(super) async fn found(&mut self) -> Found {
        std::future::poll_fn(|cx| {
            for search in &mut self.searches {
                let Some(events) = &mut search.running else { continue };
                while let Poll::Ready(event) = events.poll_recv(cx) {
                    match event {
                        Some(Event::Peers { from, peers, .. }) => {
                            return Poll::Ready(Found::Peers { told_by: from, peers });
                        }
                        Some(Event::Done { summary, .. }) => return Poll::Ready(search.end(summary)),
                        Some(_) => {}
                        None => return Poll::Ready(search.end(Summary::default())),
                    }
                }
            }
            Poll::Pending
        })
        .await
    }
}

impl Search {
    fn end(&mut self, summary: Summary) -> Found {
        self.running = None;
        let now = Instant::now();
        self.retry = if summary.peers > 0 { FIRST_RETRY } else { (self.retry * 2).min(INTERVAL) };
        self.next = now
            + match summary.answered {
                0 => NO_NODES_RETRY,
                _ if self.stale => FIRST_RETRY,
                _ => INTERVAL,
            };
        Found::Done(summary)
    }
}
