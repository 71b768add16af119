//! L4: one running torrent: carries out what its [`Swarm`](crate::swarm) decides.
//!
//! For: the tasks that join sockets, disk threads and trackers to the swarm.
//! Must not know: other torrents, the command line.
//! Main type: [`Torrent`].
//!
//! ```text
//! beginning from what is given, and what peers say about a magnet link, to open files
//! metadata  memory for what peers say, and where it is kept
//! opening   open the files ─► what is on disk? (resume data, else hashing) ─► take the space
//! task      one per torrent: verdicts of the disk threads, time, trackers, saving, stopping
//! conn      one per connection: socket ◄─► swarm, under a short lock per turn
//! trouble   the disk fails, and works again
//! reach     what a router has made of our ports, and who is told
//! web_seed  one per fetch from a web seed: HTTP ─► swarm
//! shared    the swarm behind its lock, and how its actions are carried out
//! ```

mod beginning;
mod conn;
mod dht;
mod event;
mod failure;
mod limits;
mod metadata;
mod network;
mod opening;
mod outgoing;
mod places;
mod reach;
mod saving;
mod shared;
mod spec;
mod task;
mod trackers;
mod trouble;
mod upload;
mod web_plan;
mod web_seed;

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::{broadcast, watch};

pub use event::{Event, MetadataProgress, State, Status, TrackerReport, WebSeedReport, WebSeedState};
pub use failure::{Failure, Fault};
pub use limits::{RateLimit, RateLimits};
pub use network::Network;
pub use places::Place as ConnectionPlace;
pub use spec::{AddTorrent, Choice, Choose, Durability, Origin, SeedGoal, Selected, Spec};

pub use crate::storage::Place;

use crate::base::InfoHash;
use crate::disk::DiskPool;
use crate::metainfo::Metainfo;
use crate::net::dht::DhtClient;
use crate::net::stream::Stream;
use crate::net::tracker::TrackerClient;
use crate::storage::Progress;
use crate::swarm::IpFilter;
use crate::wire::Handshake;
use shared::Shared;

/// Events that a slow reader may fall behind before it loses some.
const EVENT_BACKLOG: usize = 4_096;

/// One running torrent. Cheap to clone.
#[derive(Clone)]
pub struct Torrent {
    inner: Arc<Inner>,
}

/// What the handle and the torrent's task share.
struct Inner {
    origin: Origin,
    /// Once it is known.
    metainfo: watch::Sender<Option<Arc<Metainfo>>>,
    events: broadcast::Sender<Event>,
    /// For the first who asks, so that nothing is missed.
    first_events: Mutex<Option<broadcast::Receiver<Event>>>,
    phase: Mutex<Phase>,
    /// When the torrent is to have stopped, once it is told to stop.
    stop: watch::Sender<Option<Instant>>,
    outcome: watch::Sender<Outcome>,
    /// Bytes of the wanted files, and those of them that are verified.
    wanted_bytes: AtomicU64,
    have_bytes: AtomicU64,
    /// What is wrong with the disk.
    trouble: Mutex<Option<String>>,
}

/// Where the torrent is in its life, with what there is to see of it.
enum Phase {
    /// Nobody can be connected yet.
    Checking(Arc<Progress>),
    /// The same for a torrent that was described by its peers, who are connected.
    Opening(Arc<Shared>, Arc<Progress>),
    Running(Arc<Shared>),
    /// Stopped or failed, and what was there to see at the end.
    Ended(Box<Status>),
}

/// What has become of the torrent.
#[derive(Clone, Debug)]
enum Outcome {
    /// It is under way.
    Running,
    /// All that was asked for is done; it is about to stop, or has.
    Finished { ended: bool },
    /// It cannot go on.
    Failed { failure: Failure, ended: bool },
    /// It was told to stop.
    Stopped { ended: bool },
}

impl Outcome {
    fn ended(&self) -> bool {
        match self {
            Self::Running => false,
            Self::Finished { ended } | Self::Failed { ended, .. } | Self::Stopped { ended } => *ended,
        }
    }
}

/// How a torrent came to its end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum End {
    /// All that was asked for is done.
    Finished,
    /// It was told to stop before.
    Stopped,
}

/// Starts a torrent. What becomes of it is told by its events.
pub fn start(spec: Spec, disk: Arc<DiskPool>, network: Arc<Network>, trackers: TrackerClient) -> Torrent {
    let (events, first) = broadcast::channel(EVENT_BACKLOG);
    let progress = Arc::new(Progress::default());
    let inner = Arc::new(Inner {
        origin: spec.torrent.origin.clone(),
        metainfo: watch::Sender::new(match &spec.torrent.origin {
            Origin::Metainfo(metainfo) => Some(metainfo.clone()),
            Origin::Magnet(_) => None,
        }),
        events,
        first_events: Mutex::new(Some(first)),
        phase: Mutex::new(Phase::Checking(progress.clone())),
        stop: watch::Sender::new(None),
        outcome: watch::Sender::new(Outcome::Running),
        wanted_bytes: AtomicU64::new(0),
        have_bytes: AtomicU64::new(0),
        trouble: Mutex::default(),
    });
    let running = tokio::spawn(task::run(inner.clone(), spec, disk, network, trackers, progress));
    let watched = inner.clone();
    tokio::spawn(async move {
        if running.await.is_err_and(|e| e.is_panic()) {
            task::panicked(&watched);
        }
    });
    Torrent { inner }
}

impl Torrent {
    /// Its identity. Of a hybrid torrent that was added by one of its two hashes the other becomes known with the metainfo.
    pub fn info_hash(&self) -> InfoHash {
        self.metainfo().map_or_else(|| self.inner.origin.info_hash(), |metainfo| metainfo.info.info_hash())
    }

    /// What it was added by.
    pub fn origin(&self) -> &Origin {
        &self.inner.origin
    }

    /// What it is, once that is known.
    pub fn metainfo(&self) -> Option<Arc<Metainfo>> {
        self.inner.metainfo.borrow().clone()
    }

    /// Waits until it is known what it is; `None` if it is stopped before.
    ///
    /// # Errors
    /// What keeps it from going on.
    pub async fn described(&self) -> Result<Option<Arc<Metainfo>>, Failure> {
        let mut metainfo = self.inner.metainfo.subscribe();
        let ended = self.finished();
        tokio::select! {
            biased;
            known = metainfo.wait_for(Option::is_some) => Ok(known.ok().and_then(|known| known.clone())),
            end = ended => end.map(|_| self.metainfo()),
        }
    }

    /// How it stands now.
    pub fn status(&self) -> Status {
        self.inner.status()
    }

    /// What happens: to the first who asks all that has happened, to others what happens from now on. A reader that is
    /// too slow loses the oldest events, and never slows the torrent.
    pub fn events(&self) -> broadcast::Receiver<Event> {
        let first = self.inner.first_events.lock().unwrap_or_else(PoisonError::into_inner).take();
        first.unwrap_or_else(|| self.inner.events.subscribe())
    }

    /// Waits until all that is wanted is verified and synced and the seeding goal, if there is one, is reached; or until
    /// it is stopped.
    ///
    /// # Errors
    /// What keeps it from going on.
    pub async fn finished(&self) -> Result<End, Failure> {
        let mut outcome = self.inner.outcome.subscribe();
        let done = outcome.wait_for(|o| !matches!(o, Outcome::Running)).await;
        match done.as_deref() {
            Ok(Outcome::Finished { .. }) => Ok(End::Finished),
            Ok(Outcome::Failed { failure, .. }) => Err(failure.clone()),
            Ok(Outcome::Stopped { .. } | Outcome::Running) | Err(_) => Ok(End::Stopped),
        }
    }

    /// Tells it to stop: state is saved, then trackers are told, all within `deadline`.
    pub fn stop(&self, deadline: Duration) {
        self.inner.stop.send_if_modified(|stop| {
            let first = stop.is_none();
            stop.get_or_insert(Instant::now() + deadline);
            first
        });
    }

    /// Whether it has stopped, for whatever reason.
    pub fn has_ended(&self) -> bool {
        self.inner.outcome.borrow().ended()
    }

    /// Waits until it has stopped, for whatever reason.
    pub async fn stopped(&self) {
        let mut outcome = self.inner.outcome.subscribe();
        let _ = outcome.wait_for(Outcome::ended).await;
    }

    /// What we say to a peer at `address` that asks for the torrent by the 20 bytes `info_hash`; nothing if it is not
    /// welcome.
    pub fn answer(&self, address: SocketAddr, info_hash: [u8; 20]) -> Option<Handshake> {
        let shared = self.inner.shared()?;
        shared.turn_quietly(|swarm| swarm.admits(address)).ok()?;
        Some(shared.our_handshake(info_hash))
    }

    /// More peers to try, as [`AddTorrent::peers`]. Nothing happens before it is running, or after its end.
    pub fn add_peers(&self, peers: &[SocketAddr]) {
        if let Some(shared) = self.inner.shared() {
            shared.turn(|swarm, now| swarm.handle_candidates(now, crate::swarm::Source::Manual, peers));
        }
    }

    /// Another filter of addresses: connections with those on it are closed. One that is still being opened takes that of
    /// the [`Network`] when it begins.
    pub fn set_ip_filter(&self, ip_filter: &Arc<IpFilter>) {
        if let Some(shared) = self.inner.shared() {
            shared.turn(|swarm, _| swarm.handle_ip_filter(ip_filter.clone()));
        }
    }

    #[cfg(test)]
    fn shared(&self) -> Option<Arc<Shared>> {
        self.inner.shared()
    }

    /// Takes a connection whose handshake is done.
    pub fn accept(&self, stream: Stream, address: SocketAddr, theirs: Handshake, place: ConnectionPlace) {
        if let Some(shared) = self.inner.shared() {
            tokio::spawn(shared.attend(stream, address, false, theirs, place));
        }
    }
}

impl Inner {
    fn set_trouble(&self, trouble: Option<String>) {
        *self.trouble.lock().unwrap_or_else(PoisonError::into_inner) = trouble;
    }

    fn shared(&self) -> Option<Arc<Shared>> {
        match &*self.phase.lock().unwrap_or_else(PoisonError::into_inner) {
            Phase::Running(shared) | Phase::Opening(shared, _) => Some(shared.clone()),
            Phase::Checking(_) | Phase::Ended(_) => None,
        }
    }

    fn set_phase(&self, phase: Phase) {
        *self.phase.lock().unwrap_or_else(PoisonError::into_inner) = phase;
    }

    /// Nothing moves from now on; what was counted stays to be seen.
    fn end(&self, state: State, cause: Option<String>) {
        let last = Status { state, cause, down_rate: 0, up_rate: 0, peers: 0, seeds: 0, eta: None, ..self.status() };
        self.set_phase(Phase::Ended(Box::new(last)));
    }

    fn tell(&self, event: Event) {
        // Nobody need listen.
        let _ = self.events.send(event);
    }

    /// Whether nothing of what is wanted is missing, going by bytes.
    fn missing_bytes(&self) -> u64 {
        self.wanted_bytes.load(Ordering::Relaxed).saturating_sub(self.have_bytes.load(Ordering::Relaxed))
    }

    fn status(&self) -> Status {
        let mut status = Status {
            wanted_bytes: self.wanted_bytes.load(Ordering::Relaxed),
            have_bytes: self.have_bytes.load(Ordering::Relaxed),
            piece_count: self.metainfo.borrow().as_ref().map_or(0, |m| m.info.geometry().piece_count()),
            ..Status::new(State::Stopped)
        };
        let (shared, checking) = match &*self.phase.lock().unwrap_or_else(PoisonError::into_inner) {
            Phase::Checking(progress) => {
                status.state = State::Checking;
                status.checked_bytes = progress.bytes.load(Ordering::Relaxed);
                return status;
            }
            Phase::Ended(last) => return Status::clone(last),
            Phase::Opening(shared, progress) => (shared.clone(), Some(progress.bytes.load(Ordering::Relaxed))),
            Phase::Running(shared) => (shared.clone(), None),
        };
        let dht_nodes = shared.dht.as_ref().map(DhtClient::node_count);
        let trouble = self.trouble.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let (totals, have_pieces, complete, open) = shared.turn_quietly(|swarm| {
            (swarm.totals(Instant::now()), swarm.have().count(), swarm.is_complete(), swarm.is_open())
        });
        status.checked_bytes = checking.unwrap_or(0);
        (status.state, status.cause) = match (checking, open) {
            (Some(_), _) => (State::Checking, None),
            (None, false) => (State::Metadata, Some(early_cause(&totals, dht_nodes))),
            (None, true) if trouble.is_some() => (State::DiskError, trouble),
            (None, true) if complete => (State::Seeding, None),
            (None, true) => (State::Downloading, cause(&totals, dht_nodes)),
        };
        (status.metadata, status.hashes) = (totals.metadata, totals.hashes);
        status.down_rate = totals.down_rate;
        status.up_rate = totals.up_rate;
        status.downloaded = totals.downloaded;
        status.uploaded = totals.uploaded;
        status.wasted = totals.wasted;
        status.have_pieces = have_pieces;
        status.peers = totals.peers;
        status.seeds = totals.seeds;
        status.candidates = totals.candidates;
        status.dht_nodes = shared.dht.as_ref().map(DhtClient::node_count);
        status.web_seeds = totals.web_seeds;
        let missing = self.missing_bytes();
        status.eta = (!complete && totals.down_rate > 0).then(|| Duration::from_secs(missing / totals.down_rate));
        status.ratio = ratio(totals.uploaded, status.wanted_bytes);
        status
    }
}

#[expect(clippy::cast_precision_loss, reason = "a ratio is for people")]
fn ratio(uploaded: u64, wanted: u64) -> f64 {
    if wanted == 0 { 0.0 } else { uploaded as f64 / wanted as f64 }
}

fn no_peers(dht_nodes: Option<usize>) -> String {
    match dht_nodes {
        None => "no peers known".to_owned(),
        Some(0) => "no peers known, and no DHT nodes so far".to_owned(),
        Some(nodes) => format!("no peers known, asking the DHT ({nodes} nodes)"),
    }
}

/// What a torrent waits for of which only the info-hash is known.
fn early_cause(totals: &crate::swarm::Totals, dht_nodes: Option<usize>) -> String {
    let count = |n: u32, what: &str| format!("{n} {what}{}", if n == 1 { "" } else { "s" });
    match (totals.peers, totals.metadata, totals.hashes) {
        (0, ..) if totals.candidates == 0 => no_peers(dht_nodes),
        (0, ..) => format!("trying {}", count(totals.candidates, "known peer")),
        (peers, Some(progress), _) if progress.sources == 0 => {
            let more =
                if totals.candidates > 0 { format!(", {} more known", totals.candidates) } else { String::new() };
            format!("{} connected, none has the metadata so far{more}", count(peers, "peer"))
        }
        (_, Some(progress), _) => format!(
            "{} of {} of the metadata from {}",
            progress.pieces,
            count(progress.piece_count, "part"),
            count(progress.sources, "peer")
        ),
        (_, None, Some((here, all))) => format!("hashes of pieces: {here} of {} are here", count(all, "answer")),
        (_, None, None) => "reading the metadata".to_owned(),
    }
}

/// Why nothing moves, if nothing does.
fn cause(totals: &crate::swarm::Totals, dht_nodes: Option<usize>) -> Option<String> {
    if totals.down_rate > 0 {
        return None;
    }
    let web_seeds = match (totals.web_seeds, totals.resting_web_seeds) {
        (0, 0) => String::new(),
        (0, 1) => ", and the only web seed does not serve".to_owned(),
        (0, n) => format!(", and none of the {n} web seeds serves"),
        _ => return Some("waiting for a web seed".to_owned()),
    };
    let cause = match (totals.peers, totals.candidates, totals.interesting, totals.choking) {
        (0, 0, ..) => no_peers(dht_nodes),
        (0, 1, ..) => "trying the only known peer".to_owned(),
        (0, known, ..) => format!("trying {known} known peers"),
        (1, _, 0, _) => "the only peer has nothing that is missing".to_owned(),
        (connected, _, 0, _) => format!("none of the {connected} peers has what is missing"),
        (_, _, 1, 1) => "choked by the only peer that has more".to_owned(),
        (_, _, interesting, choking) if interesting == choking => {
            format!("choked by all {choking} peers that have more")
        }
        _ => "waiting for data".to_owned(),
    };
    Some(cause + &web_seeds)
}
