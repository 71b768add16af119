//! The task of one torrent: verdicts of the disk threads, time, trackers, saving, stopping.

use std::future::pending;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use tokio::sync::{oneshot, watch};

use super::beginning::{Opening, Ready, described, opened, prepare};
use super::dht::{Found, Searches};
use super::metadata::{self, Grant};
use super::opening;
use super::reach::{dht_port, remapped};
use super::saving::{self, Saved};
use super::shared::{News, NoSuchMetadata, Shared};
use super::trackers::Trackers;
use super::trouble::{Past, Trouble, mended};
use super::{Durability, Event, Failure, Fault, Inner, Network, Outcome, Phase, Spec, State, ratio};
use crate::base::{Bitfield, PieceIndex, printable};
use crate::disk::{Completions, DiskPool, Done, Verdict};
use crate::metainfo::Metainfo;
use crate::net::lsd::Membership;
use crate::net::nat::Mappings;
use crate::net::tracker::TrackerClient;
use crate::net::web_seed::RangeClient;
use crate::resume::Ledger;
use crate::storage::state_file::Lock;
use crate::storage::{Progress, Storage, StorageError};
use crate::swarm::{self, Source, Spilled, Swarm, SwarmConfig};
use crate::tracker::Totals;

/// What was verified is synced and noted down at least so often...
const SAVE_INTERVAL: Duration = Duration::from_secs(30);

/// ...or when so many bytes of it have gathered.
const SAVE_BYTES: u64 = 256 << 20;

/// The disk begins to write when so many bytes more have gathered, so that the sync at the end is short.
const WRITE_BACK_BYTES: u64 = 64 << 20;

/// Fewer peers than this, known and connected, are reason to ask trackers for more.
const FEW_PEERS: u32 = 20;

/// How long farewells may take when nobody says how long.
const FAREWELL: Duration = Duration::from_secs(5);

/// How often goals, and the want of peers, are looked at.
const LOOK: Duration = Duration::from_secs(1);

/// What trackers are told is missing while it is not known how much that is: nothing would make us a seed.
const LEFT_UNKNOWN: u64 = 16 << 10;

pub(super) struct Task {
    pub(super) inner: Arc<Inner>,
    pub(super) shared: Arc<Shared>,
    /// For web seeds.
    pub(super) ranges: RangeClient,
    pub(super) trackers: Trackers,
    /// The search for peers in the local network.
    pub(super) lsd: Option<Membership>,
    pub(super) dht: Searches,
    /// What routers make of our ports.
    pub(super) mappings: Option<watch::Receiver<Mappings>>,
    pub(super) spec: Spec,
    /// What the disk threads make of what peers sent: what the torrent is, or what was missing of that.
    pub(super) describing: Option<oneshot::Receiver<Result<Metainfo, Failure>>>,
    /// The files being opened.
    pub(super) opening: Option<Opening>,
    pub(super) memory: Grant,
    /// Bytes that would be of use for fetching the metadata.
    pub(super) memory_wanted: u64,
    pub(super) saved: Saved,
    /// Nobody else works on the files and the state.
    pub(super) lock: Option<Lock>,
    /// Which pieces may be claimed; none before the files are open.
    pub(super) ledger: Option<Ledger>,
    /// What is wrong with the disk.
    pub(super) trouble: Option<Trouble>,
    pub(super) past_trouble: Option<Past>,
    /// Pieces that each file still lacks, by its number.
    pub(super) missing: Vec<u32>,
    /// Bytes verified since the last save.
    pub(super) unsaved: u64,
    /// Those of them that the disk has not been told to write.
    pub(super) held_back: u64,
    pub(super) last_save: Instant,
    pub(super) saving: Option<Saving>,
    /// When all that is wanted was there.
    pub(super) completed: Option<Instant>,
    /// The last save was of a torrent that has ended, and nothing has happened since.
    pub(super) saved_for_good: bool,
}

/// A save under way at the disk threads.
type Saving = oneshot::Receiver<Result<(), StorageError>>;

/// Waits until the torrent is told to stop.
pub(super) async fn told(stop: &mut watch::Receiver<Option<Instant>>) {
    // The sender lives as long as the torrent.
    let _ = stop.wait_for(Option::is_some).await;
}

/// Waits for the save under way, for ever if there is none.
async fn saved(saving: &mut Option<Saving>) -> Result<(), StorageError> {
    match saving {
        Some(saving) => saving.await.unwrap_or(Ok(())),
        None => pending().await,
    }
}

/// The next peer in the local network.
async fn found(lsd: &mut Option<Membership>) -> SocketAddr {
    match lsd {
        Some(lsd) => lsd.found().await,
        None => pending().await,
    }
}

/// Why the loop was left.
pub(super) enum Left {
    /// All that was asked for is done.
    Done,
    /// Told to stop.
    Stop,
    Failed(Failure),
}

/// Runs a torrent from its opening to its end.
pub(super) async fn run(
    inner: Arc<Inner>,
    spec: Spec,
    disk: Arc<DiskPool>,
    network: Arc<Network>,
    client: TrackerClient,
    progress: Arc<Progress>,
) {
    let origin = &spec.torrent.origin;
    inner.tell(Event::Added { info_hash: origin.info_hash(), name: origin.name() });
    let mut stop = inner.stop.subscribe();
    let left = match prepare(&inner, spec, &disk, &progress, &mut stop).await {
        Err(left) => left,
        Ok(ready) => {
            let mut task = Task::new(inner.clone(), ready, disk, network, client);
            let left = task.serve(&mut stop).await;
            task.announce_end(&left);
            let deadline = stop.borrow().unwrap_or_else(|| Instant::now() + FAREWELL);
            task.wind_up(deadline).await;
            left
        }
    };
    end(&inner, left);
}

/// The task has ended in the middle of something, which is our fault. Whoever waits for it is told, and nobody is left
/// connected; other torrents are not concerned.
pub(super) fn panicked(inner: &Inner) {
    tracing::error!("the task of a torrent panicked: this is a bug");
    let shared = inner.shared();
    let message = format!("{}: internal error, please report it", printable(&inner.origin.name()));
    end(inner, Left::Failed(Failure::new(Fault::Internal, message)));
    if let Some(shared) = shared {
        shared.turn(|swarm, _| swarm.stop());
    }
}

/// The last words.
fn end(inner: &Inner, left: Left) {
    let outcome = match left {
        Left::Done => Outcome::Finished { ended: true },
        Left::Stop => Outcome::Stopped { ended: true },
        Left::Failed(failure) => {
            if !matches!(&*inner.outcome.borrow(), Outcome::Failed { .. }) {
                tell_failure(inner, &failure);
            }
            inner.end(State::Failed, Some(failure.message.clone()));
            inner.outcome.send_replace(Outcome::Failed { failure, ended: true });
            return;
        }
    };
    // Before those are woken who wait for the end.
    inner.end(State::Stopped, None);
    // A torrent that had finished before it was told to stop has finished.
    inner.outcome.send_modify(|current| match current {
        Outcome::Finished { ended } => *ended = true,
        _ => *current = outcome,
    });
    inner.tell(Event::Stopped);
}

fn tell_failure(inner: &Inner, failure: &Failure) {
    inner.tell(Event::Failed(failure.clone()));
}

impl Task {
    fn new(inner: Arc<Inner>, ready: Ready, disk: Arc<DiskPool>, network: Arc<Network>, client: TrackerClient) -> Self {
        let Ready { spec, metainfo, opened } = ready;
        let origin = &spec.torrent.origin;
        let now = Instant::now();
        let config = SwarmConfig {
            info_hash: origin.info_hash().wire(),
            peer_id: spec.peer_id,
            listen_port: spec.listen.first().map(std::net::SocketAddr::port),
            dht_port: spec.listen.first().filter(|_| spec.dht.is_some()).map(std::net::SocketAddr::port),
            max_peers: spec.max_peers,
            block_memory: spec.block_memory,
            limit_up: network.limits.up.rate(),
            sequential: spec.torrent.sequential,
            super_seed: spec.torrent.super_seed,
            pex: spec.use_pex && !origin.is_private(),
            holepunch: network.dialer.has_utp() && !origin.is_private(),
            many_per_address: false,
        };
        let mut swarm = Swarm::unknown(now, origin.info_hash(), config, random());
        swarm.handle_ip_filter(network.ip_filter());
        for address in &spec.listen {
            // With every interface listened on, our own address is known only from others.
            if !address.ip().is_unspecified() {
                swarm.handle_own_address(*address);
            }
        }
        let memory = Grant::none(network.metadata_memory.clone());
        let (info_hash, events) = (origin.info_hash(), inner.events.clone());
        let lsd = network.lsd.as_ref().filter(|_| !origin.is_private()).map(|lsd| lsd.join(info_hash.wire_forms()));
        let dht = Searches::new(now, spec.dht.clone(), dht_port(&spec), info_hash.wire_forms());
        let mappings = network.mappings.clone();
        let (peer_id, client_of_dht) = (spec.peer_id, spec.dht.clone());
        let shared = Shared::new(swarm, info_hash, disk, Completions::new(), network, events, peer_id, client_of_dht);
        let mut task = Self {
            shared: Arc::new(shared),
            ranges: client.ranges().clone(),
            trackers: Trackers::new(now, &spec, client, random()),
            lsd,
            dht,
            mappings,
            inner,
            spec,
            describing: None,
            opening: None,
            memory,
            memory_wanted: 0,
            saved: Saved::default(),
            lock: None,
            ledger: None,
            trouble: None,
            past_trouble: None,
            missing: Vec::new(),
            unsaved: 0,
            held_back: 0,
            last_save: now,
            saving: None,
            completed: None,
            saved_for_good: false,
        };
        if let Some(metainfo) = metainfo {
            task.describe(metainfo);
        }
        if let Some(opened) = opened {
            task.open(opened);
        }
        task.inner.set_phase(Phase::Running(task.shared.clone()));
        task
    }

    async fn serve(&mut self, stop: &mut watch::Receiver<Option<Instant>>) -> Left {
        let peers = self.spec.torrent.peers.clone();
        self.shared.turn(|swarm, now| swarm.handle_candidates(now, Source::Manual, &peers));
        self.ask_for_peers_of_link();
        self.begin_with_mappings();
        if self.shared.storage().is_some()
            && let Some(left) = self.begin().await
        {
            return left;
        }
        let mut next_look = Instant::now() + LOOK;
        let mut done = Vec::new();
        loop {
            let now = Instant::now();
            if self.trackers.poll_timeout(now).is_some_and(|due| due <= now) {
                self.trackers.poll(now, self.totals());
            }
            if self.dht.poll_timeout().is_some_and(|due| due <= now) {
                self.dht.poll(now, self.completed.is_some());
            }
            let swarm_time = self.shared.turn_quietly(|swarm| swarm.poll_timeout());
            let times = [self.trackers.poll_timeout(now), self.dht.poll_timeout(), Some(swarm_time)];
            let wake = times.into_iter().flatten().fold(next_look, Instant::min);
            tokio::select! {
                () = told(stop) => return Left::Stop,
                () = self.shared.verdicts.ready() => {
                    self.shared.verdicts.drain(&mut done);
                    self.handle_done(&mut done);
                }
                () = self.shared.wake.notified() => {
                    if let Some(left) = self.handle_news().await {
                        return left;
                    }
                }
                described = described(&mut self.describing) => {
                    self.describing = None;
                    if let Some(left) = self.on_described(described).await {
                        return left;
                    }
                }
                opened = opened(&mut self.opening) => {
                    self.opening = None;
                    if let Some(left) = self.on_opened(opened).await {
                        return left;
                    }
                }
                saved = saved(&mut self.saving) => {
                    self.saving = None;
                    self.on_saved(saved);
                }
                outcome = mended(&mut self.trouble) => self.on_mended(outcome),
                answer = self.trackers.answer() => {
                    let found = self.trackers.handle_answer(Instant::now(), answer, &self.inner);
                    self.shared.turn(|swarm, now| {
                        if let Some(external) = found.external {
                            swarm.handle_external_address(external);
                        }
                        match found.told_by {
                            Some(tracker) => swarm.handle_told(now, Source::Tracker, tracker, &found.peers),
                            None => swarm.handle_candidates(now, Source::Tracker, &found.peers),
                        }
                    });
                }
                address = found(&mut self.lsd) => {
                    self.shared.turn(|swarm, now| swarm.handle_candidates(now, Source::Lsd, &[address]));
                }
                mappings = remapped(&mut self.mappings) => self.handle_mappings(&mappings),
                found = self.dht.found() => self.handle_found(found),
                () = tokio::time::sleep_until(wake.into()) => self.shared.turn(Swarm::handle_timeout),
            }
            if Instant::now() >= next_look {
                next_look = Instant::now() + LOOK;
                if let Some(left) = self.look() {
                    return left;
                }
            }
        }
    }

    /// Looks at goals, at the want of peers, and at what should be saved.
    fn look(&mut self) -> Option<Left> {
        if self.memory.bytes() < self.memory_wanted {
            self.take_memory();
        }
        let (totals, complete) = self.shared.turn_quietly(|s| (s.totals(Instant::now()), s.is_complete()));
        if totals.peers + totals.candidates < FEW_PEERS {
            self.trackers.want_more_peers(Instant::now());
            self.dht.want_more_peers();
        }
        if let (true, Some(since), Some(goal)) = (complete, self.completed, self.spec.torrent.seed) {
            let wanted = self.inner.wanted_bytes.load(Ordering::Relaxed);
            let by_ratio = goal.ratio.is_some_and(|goal| ratio(totals.uploaded, wanted) >= goal);
            let by_time = goal.time.is_some_and(|goal| since.elapsed() >= goal);
            if by_ratio || by_time {
                return Some(Left::Done);
            }
        }
        if self.unsaved > 0 && self.last_save.elapsed() >= SAVE_INTERVAL {
            self.save_aside();
        }
        self.try_to_mend(Instant::now());
        None
    }

    /// What a search of the DHT has brought.
    fn handle_found(&mut self, found: Found) {
        match found {
            Found::Peers { told_by, peers } => {
                self.shared.turn(|swarm, now| swarm.handle_told(now, Source::Dht, told_by.ip(), &peers));
            }
            Found::Done(summary) => self.inner.tell(Event::Dht {
                answered: summary.answered,
                peers: summary.peers,
                announced: summary.stored,
            }),
        }
    }

    fn save_aside(&mut self) {
        if self.saving.is_none() && self.trouble.is_none() {
            self.saving = self.start_save(false);
        }
    }

    fn totals(&self) -> Totals {
        let left = if self.shared.storage().is_some() { self.inner.missing_bytes() } else { LEFT_UNKNOWN };
        let totals = self.shared.turn_quietly(|swarm| swarm.totals(Instant::now()));
        Totals { uploaded: totals.uploaded, downloaded: totals.downloaded, left }
    }

    /// What the disk threads have done.
    fn handle_done(&mut self, done: &mut Vec<Done>) {
        let mut failed = None;
        self.shared.turn(|swarm, now| {
            for done in done.drain(..) {
                match done {
                    Done::Verified { piece, verdict, blocks } => {
                        let verdict = match verdict {
                            Verdict::Good => swarm::Verdict::Good,
                            Verdict::Bad => swarm::Verdict::Bad,
                            Verdict::DiskFailed(error) => {
                                // Before it is asked for again.
                                swarm.pause_fetching(now);
                                failed.get_or_insert(error);
                                swarm::Verdict::DiskFailed
                            }
                        };
                        swarm.handle_verdict(now, piece, &verdict, blocks);
                    }
                    Done::Spilled { piece, begin, outcome, blocks } => {
                        let outcome = outcome.map_or_else(
                            |error| {
                                swarm.pause_fetching(now);
                                failed.get_or_insert(error);
                                Spilled::DiskFailed
                            },
                            Spilled::Written,
                        );
                        swarm.handle_spilled(now, piece, begin, &outcome, blocks);
                    }
                    Done::Synced(_) => {}
                }
            }
        });
        if let Some(error) = failed {
            self.on_disk_error(error, &[]);
        }
    }

    /// Deals with what has happened in the swarm since the last time.
    async fn handle_news(&mut self) -> Option<Left> {
        let mut news = self.shared.take_news();
        if let Some(wanted) = news.memory {
            self.memory_wanted = wanted;
            self.take_memory();
        }
        match news.metadata.take() {
            Some(Ok(bytes)) => {
                let origin = self.spec.torrent.origin.clone();
                self.describing = Some(self.shared.disk.call(move || metadata::parse(&bytes, &origin)));
                self.memory_wanted = 0;
                self.memory.resize(0);
            }
            Some(Err(NoSuchMetadata)) => {
                let why = "the two info-hashes of the link name different torrents";
                return Some(Left::Failed(Failure::new(Fault::Torrent, why)));
            }
            None => {}
        }
        if let (Some(layers), Some(metainfo)) = (news.layers.take(), self.shared.metainfo().cloned()) {
            self.describing = Some(self.shared.disk.call(move || metadata::with_layers(&metainfo, layers)));
        }
        let unreadable = std::mem::take(&mut news.unreadable);
        for (piece, error) in unreadable {
            self.on_disk_error(error, &[piece]);
        }
        if self.handle_pieces(&news) { self.on_complete(true).await } else { None }
    }

    /// Tells of pieces and files that are there now. True if that was all that is wanted.
    fn handle_pieces(&mut self, news: &News) -> bool {
        let Some(storage) = self.shared.storage().cloned() else { return false };
        for piece in &news.pieces {
            let len = u64::from(storage.geometry().data_len(*piece));
            self.unsaved += len;
            self.held_back += len;
            let bytes = opening::bytes_of(&storage, std::iter::once(*piece));
            self.inner.have_bytes.fetch_add(bytes, Ordering::Relaxed);
            self.inner.tell(Event::Piece { piece: piece.get() });
        }
        if !news.pieces.is_empty() {
            self.on_written();
        }
        self.tell_whole_files(&storage, &news.pieces);
        if news.complete {
            return true;
        }
        if self.unsaved >= SAVE_BYTES {
            self.save_aside();
        } else if self.held_back >= WRITE_BACK_BYTES {
            self.held_back = 0;
            drop(self.shared.disk.call(move || storage.start_writing_back()));
        }
        false
    }

    fn tell_whole_files(&mut self, storage: &Storage, pieces: &[PieceIndex]) {
        let geometry = storage.geometry();
        let Some(info) = self.shared.metainfo().map(|metainfo| &metainfo.info) else { return };
        for piece in pieces {
            let (position, len) = (geometry.position(*piece), u64::from(geometry.piece_len(*piece)));
            for file in storage.file_map().files(position, len).filter(|f| storage.is_wanted(*f)) {
                let Some(missing) = self.missing.get_mut(file as usize) else { continue };
                *missing = missing.saturating_sub(1);
                if *missing == 0
                    && let Some(file) = info.files().get(file as usize)
                {
                    self.inner.tell(Event::File { path: info.disk_path(file) });
                }
            }
        }
    }

    /// All that is wanted is there: makes it last, and goes on to seed if that is asked for.
    pub(super) async fn on_complete(&mut self, news: bool) -> Option<Left> {
        self.completed = Some(Instant::now());
        if news && !self.save(self.spec.torrent.seed.is_none()).await {
            // What may be lost is missing again.
            return None;
        }
        self.saved.completed.get_or_insert_with(saving::seconds_since_1970);
        self.inner.tell(Event::Complete);
        self.trackers.handle_completed(Instant::now());
        self.dht.handle_completed(Instant::now());
        if self.spec.torrent.seed.is_none() {
            self.saved_for_good = news;
            return Some(Left::Done);
        }
        self.inner.tell(Event::Seeding);
        None
    }

    /// Syncs what was written, then notes down that it is there, and waits for it. False if it is not certain to be there.
    async fn save(&mut self, clean: bool) -> bool {
        if let Some(earlier) = self.saving.take() {
            let outcome = earlier.await.unwrap_or(Ok(()));
            if !self.on_saved(outcome) {
                return false;
            }
        }
        match self.start_save(clean) {
            Some(saving) => {
                let outcome = saving.await.unwrap_or(Ok(()));
                self.on_saved(outcome)
            }
            None => true,
        }
    }

    /// The same without waiting. One at a time. `None` if there is nothing to save, because no files are open.
    fn start_save(&mut self, clean: bool) -> Option<Saving> {
        let storage = self.shared.storage().cloned()?;
        let metainfo = self.shared.metainfo().cloned()?;
        self.unsaved = 0;
        self.held_back = 0;
        self.last_save = Instant::now();
        let totals = self.shared.turn_quietly(|swarm| swarm.totals(Instant::now()));
        let mut saved = self.saved.clone();
        saved.uploaded += totals.uploaded;
        saved.downloaded += totals.downloaded;
        saved.peers = self.shared.turn_quietly(|swarm| swarm.remembered_addresses());
        let complete = self.completed.is_some();
        if complete {
            saved.completed.get_or_insert_with(saving::seconds_since_1970);
        }
        let lazy = self.spec.torrent.durability == Durability::Lazy;
        let have: Bitfield = self.shared.turn_quietly(|swarm| swarm.have().clone());
        let ledger = self.ledger.as_mut()?;
        let claims = if lazy {
            ledger.lasting().clone()
        } else {
            ledger.begin(&have);
            have
        };
        Some(self.shared.disk.call(move || {
            if complete {
                storage.apply_attributes()?;
            }
            if !lazy {
                storage.sync()?;
            }
            if let Err(error) = saving::save(&saved, &metainfo.info, &storage, claims, clean && !lazy) {
                // The data is safe; what is lost is the time to check it again.
                tracing::warn!(%error, "state is not saved");
            }
            Ok(())
        }))
    }

    /// A save has ended. False if it is not certain that all is there.
    fn on_saved(&mut self, outcome: Result<(), StorageError>) -> bool {
        let Some(ledger) = &mut self.ledger else { return true };
        match outcome {
            Ok(()) => {
                ledger.done();
                true
            }
            Err(error) => {
                let have = self.shared.turn_quietly(|swarm| swarm.have().clone());
                let doubt = ledger.failed(&have);
                self.on_disk_error(error, &doubt);
                false
            }
        }
    }

    /// Says how it ended as soon as that is certain, before the farewells.
    fn announce_end(&mut self, left: &Left) {
        match left {
            Left::Done => {
                self.inner.outcome.send_replace(Outcome::Finished { ended: false });
            }
            Left::Stop => {}
            Left::Failed(failure) => {
                tell_failure(&self.inner, failure);
                self.inner.outcome.send_replace(Outcome::Failed { failure: failure.clone(), ended: false });
            }
        }
    }

    /// Saves, closes all connections, tells trackers.
    async fn wind_up(&mut self, deadline: Instant) {
        if let Some(opening) = &self.opening {
            opening.progress.cancel.store(true, Ordering::Relaxed);
        }
        self.shared.turn(|swarm, _| swarm.stop());
        // Pieces at the disk threads are not lost.
        let mut done = Vec::new();
        while self.shared.turn_quietly(|swarm| swarm.awaits_disk()) && Instant::now() < deadline {
            tokio::select! {
                () = self.shared.verdicts.ready() => {}
                () = tokio::time::sleep_until(deadline.into()) => break,
            }
            self.shared.verdicts.drain(&mut done);
            self.handle_done(&mut done);
        }
        let news = self.shared.take_news();
        self.handle_pieces(&news);
        let totals = self.totals();
        let farewell = async {
            if self.saved_for_good {
                return;
            }
            if !self.save(true).await {
                tracing::warn!("not all that was received is saved");
            }
        };
        // State first: it is what must not be lost.
        if tokio::time::timeout_at(deadline.into(), farewell).await.is_ok() {
            self.trackers.stop(totals, deadline).await;
        }
    }
}

fn random() -> u64 {
    let mut bytes = [0; 8];
    match getrandom::fill(&mut bytes) {
        Ok(()) => u64::from_le_bytes(bytes),
        // What follows from it is the order of pieces and peers, no secret.
        Err(_) => fastrand::u64(..),
    }
}
