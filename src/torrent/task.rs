//! The task of one torrent: verdicts of the disk threads, time, trackers, saving, stopping.

use std::future::pending;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use tokio::sync::{oneshot, watch};

use super::dht::{Found, Searches};
use super::opening::{self, Opened};
use super::saving::{self, Saved};
use super::shared::Shared;
use super::trackers::Trackers;
use super::{Event, Failure, Inner, Network, Outcome, Phase, Spec, State, ratio};
use crate::base::{Bitfield, PieceIndex};
use crate::disk::{Completions, DiskPool, Done, Verdict};
use crate::net::lsd::Membership;
use crate::net::tracker::TrackerClient;
use crate::storage::{Progress, StorageError};
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

struct Task {
    inner: Arc<Inner>,
    shared: Arc<Shared>,
    trackers: Trackers,
    /// The search for peers in the local network.
    lsd: Option<Membership>,
    dht: Searches,
    spec: Spec,
    saved: Saved,
    /// Pieces that each file still lacks, by its number.
    missing: Vec<u32>,
    /// Bytes verified since the last save.
    unsaved: u64,
    /// Those of them that the disk has not been told to write.
    held_back: u64,
    last_save: Instant,
    saving: Option<Saving>,
    /// When all that is wanted was there.
    completed: Option<Instant>,
    /// The last save was of a torrent that has ended, and nothing has happened since.
    saved_for_good: bool,
}

/// A save under way at the disk threads.
type Saving = oneshot::Receiver<Result<(), StorageError>>;

async fn finish(saving: Saving) -> Result<(), Failure> {
    saving.await.unwrap_or(Ok(())).map_err(Failure::from)
}

/// Waits until the torrent is told to stop.
async fn told(stop: &mut watch::Receiver<Option<Instant>>) {
    // The sender lives as long as the torrent.
    let _ = stop.wait_for(Option::is_some).await;
}

/// Waits for the save under way, for ever if there is none.
async fn saved(saving: &mut Option<Saving>) -> Result<(), Failure> {
    match saving {
        Some(saving) => saving.await.unwrap_or(Ok(())).map_err(Failure::from),
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
enum Left {
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
    let info = &spec.torrent.metainfo.info;
    inner.tell(Event::Added { info_hash: info.info_hash(), name: info.name().to_owned() });
    let mut stop = inner.stop.subscribe();
    let spec = Arc::new(spec);
    let opened = {
        let (inner, spec, progress) = (inner.clone(), spec.clone(), progress.clone());
        disk.call(move || opening::open(&inner, &spec, &progress))
    };
    let opened = tokio::select! {
        opened = opened => opened.unwrap_or_else(|_| Err(internal())),
        () = told(&mut stop) => {
            progress.cancel.store(true, Ordering::Relaxed);
            inner.end(State::Stopped, None);
            inner.tell(Event::Stopped);
            inner.outcome.send_replace(Outcome::Stopped { ended: true });
            return;
        }
    };
    let left = match opened {
        Err(failure) => Left::Failed(failure),
        Ok(opened) => {
            let spec = Arc::unwrap_or_clone(spec);
            let mut task = Task::new(inner.clone(), spec, opened, disk, network, client);
            let left = task.serve(&mut stop).await;
            task.announce_end(&left);
            let deadline = stop.borrow().unwrap_or_else(|| Instant::now() + FAREWELL);
            task.wind_up(deadline).await;
            left
        }
    };
    end(&inner, left);
}

fn internal() -> Failure {
    Failure { disk: false, message: "internal error, please report it".into(), path: None }
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
    let Failure { disk, message, path } = failure.clone();
    inner.tell(Event::Failed { disk, message, path });
}

impl Task {
    fn new(
        inner: Arc<Inner>,
        spec: Spec,
        opened: Opened,
        disk: Arc<DiskPool>,
        network: Arc<Network>,
        client: TrackerClient,
    ) -> Self {
        let Opened { storage, have, saved } = opened;
        let info = &spec.torrent.metainfo.info;
        let now = Instant::now();
        let config = SwarmConfig {
            info_hash: info.info_hash().wire(),
            peer_id: spec.peer_id,
            listen_port: spec.listen.first().map(std::net::SocketAddr::port),
            dht_port: spec.listen.first().filter(|_| spec.dht.is_some()).map(std::net::SocketAddr::port),
            max_peers: spec.max_peers,
            block_memory: spec.block_memory,
            limit_up: network.limits.up.rate(),
            sequential: spec.torrent.sequential,
            super_seed: spec.torrent.super_seed,
            pex: spec.use_pex && !info.is_private(),
            many_per_address: false,
        };
        let missing = opening::missing_pieces(&storage, &have);
        let priorities = opening::priorities(info.geometry(), &storage);
        let seed = random();
        let mut swarm = Swarm::new(now, info.geometry().clone(), &have, &priorities, config, seed);
        swarm.handle_ip_filter(network.ip_filter());
        for address in &spec.listen {
            // With every interface listened on, our own address is known only from others.
            if !address.ip().is_unspecified() {
                swarm.handle_own_address(*address);
            }
        }
        let shared = Arc::new(Shared::new(
            swarm,
            spec.torrent.metainfo.clone(),
            storage,
            disk,
            Completions::new(),
            network,
            inner.events.clone(),
            spec.peer_id,
            spec.dht.clone(),
        ));
        let trackers = Trackers::new(now, &spec, client, random());
        let port = spec.listen.first().map(std::net::SocketAddr::port).filter(|_| !spec.implied_port);
        let dht = Searches::new(now, spec.dht.clone(), port, info.info_hash().wire_forms());
        if let Some(client) = &spec.dht {
            client.add_names(&spec.torrent.metainfo.nodes);
        }
        inner.set_phase(Phase::Running(shared.clone()));
        let forms = spec.torrent.metainfo.info.info_hash().wire_forms();
        let public = !spec.torrent.metainfo.info.is_private();
        let lsd = shared.network.lsd.as_ref().filter(|_| public).map(|lsd| lsd.join(forms));
        Self {
            inner,
            shared,
            trackers,
            lsd,
            dht,
            spec,
            saved,
            missing,
            unsaved: 0,
            held_back: 0,
            last_save: now,
            saving: None,
            completed: None,
            saved_for_good: false,
        }
    }

    async fn serve(&mut self, stop: &mut watch::Receiver<Option<Instant>>) -> Left {
        let (peers, known) = (self.spec.torrent.peers.clone(), self.saved.peers.clone());
        let complete = self.shared.turn(|swarm, now| {
            swarm.handle_candidates(now, Source::Manual, &peers);
            swarm.handle_candidates(now, Source::Resume, &known);
            swarm.is_complete()
        });
        if complete && let Some(left) = self.on_complete(false).await {
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
                    if let Err(failure) = self.handle_done(&mut done) {
                        return Left::Failed(failure);
                    }
                }
                () = self.shared.wake.notified() => {
                    if self.handle_news() && let Some(left) = self.on_complete(true).await {
                        return left;
                    }
                }
                saved = saved(&mut self.saving) => {
                    self.saving = None;
                    if let Err(failure) = saved {
                        return Left::Failed(failure);
                    }
                }
                answer = self.trackers.answer() => {
                    let found = self.trackers.handle_answer(Instant::now(), answer, &self.inner);
                    self.shared.turn(|swarm, now| {
                        if let Some(external) = found.external {
                            swarm.handle_external_address(external);
                        }
                        swarm.handle_candidates(now, Source::Tracker, &found.peers);
                    });
                }
                address = found(&mut self.lsd) => {
                    self.shared.turn(|swarm, now| swarm.handle_candidates(now, Source::Lsd, &[address]));
                }
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
        if self.saving.is_none() {
            self.saving = Some(self.start_save(false));
        }
    }

    fn totals(&self) -> Totals {
        let left = self.inner.missing_bytes();
        let totals = self.shared.turn_quietly(|swarm| swarm.totals(Instant::now()));
        Totals { uploaded: totals.uploaded, downloaded: totals.downloaded, left }
    }

    /// What the disk threads have done.
    fn handle_done(&mut self, done: &mut Vec<Done>) -> Result<(), Failure> {
        let mut failure = None;
        self.shared.turn(|swarm, now| {
            for done in done.drain(..) {
                match done {
                    Done::Verified { piece, verdict, blocks } => {
                        let verdict = match verdict {
                            Verdict::Good => swarm::Verdict::Good,
                            Verdict::Bad => swarm::Verdict::Bad,
                            Verdict::DiskFailed(error) => {
                                failure = Some(Failure::from(error));
                                swarm::Verdict::DiskFailed
                            }
                        };
                        swarm.handle_verdict(now, piece, &verdict, blocks);
                    }
                    Done::Spilled { piece, begin, outcome, blocks } => {
                        let outcome = outcome.map_or_else(
                            |error| {
                                failure = Some(Failure::from(error));
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
        failure.map_or(Ok(()), Err)
    }

    /// Tells of pieces and files that are there now. True if that was all that is wanted.
    fn handle_news(&mut self) -> bool {
        let news = self.shared.take_news();
        for piece in &news.pieces {
            let len = u64::from(self.shared.storage.geometry().data_len(*piece));
            self.unsaved += len;
            self.held_back += len;
            let bytes = opening::bytes_of(&self.shared.storage, std::iter::once(*piece));
            self.inner.have_bytes.fetch_add(bytes, Ordering::Relaxed);
            self.inner.tell(Event::Piece { piece: piece.get() });
        }
        self.tell_whole_files(&news.pieces);
        if news.complete {
            return true;
        }
        if self.unsaved >= SAVE_BYTES {
            self.save_aside();
        } else if self.held_back >= WRITE_BACK_BYTES {
            self.held_back = 0;
            let storage = self.shared.storage.clone();
            drop(self.shared.disk.call(move || storage.start_writing_back()));
        }
        false
    }

    fn tell_whole_files(&mut self, pieces: &[PieceIndex]) {
        let storage = &self.shared.storage;
        let geometry = storage.geometry();
        let info = &self.spec.torrent.metainfo.info;
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
    async fn on_complete(&mut self, news: bool) -> Option<Left> {
        self.completed = Some(Instant::now());
        self.saved.completed.get_or_insert_with(saving::seconds_since_1970);
        if news && let Err(failure) = self.save(self.spec.torrent.seed.is_none()).await {
            return Some(Left::Failed(failure));
        }
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

    /// Syncs what was written, then notes down that it is there, and waits for it.
    async fn save(&mut self, clean: bool) -> Result<(), Failure> {
        if let Some(earlier) = self.saving.take() {
            finish(earlier).await?;
        }
        finish(self.start_save(clean)).await
    }

    /// The same without waiting. One at a time.
    fn start_save(&mut self, clean: bool) -> Saving {
        self.unsaved = 0;
        self.held_back = 0;
        self.last_save = Instant::now();
        let totals = self.shared.turn_quietly(|swarm| swarm.totals(Instant::now()));
        let mut saved = self.saved.clone();
        saved.uploaded += totals.uploaded;
        saved.downloaded += totals.downloaded;
        saved.peers = self.shared.turn_quietly(|swarm| swarm.remembered_addresses());
        let have: Bitfield = self.shared.turn_quietly(|swarm| swarm.have().clone());
        let (storage, metainfo) = (self.shared.storage.clone(), self.spec.torrent.metainfo.clone());
        let complete = self.completed.is_some();
        self.shared.disk.call(move || {
            if complete {
                storage.apply_attributes()?;
            }
            storage.sync()?;
            if let Err(error) = saving::save(&saved, &metainfo.info, &storage, have, clean) {
                // The data is safe; what is lost is the time to check it again.
                tracing::warn!(%error, "state is not saved");
            }
            Ok(())
        })
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
        self.shared.turn(|swarm, _| swarm.stop());
        // Pieces at the disk threads are not lost.
        let mut done = Vec::new();
        while self.shared.turn_quietly(|swarm| swarm.awaits_disk()) && Instant::now() < deadline {
            tokio::select! {
                () = self.shared.verdicts.ready() => {}
                () = tokio::time::sleep_until(deadline.into()) => break,
            }
            self.shared.verdicts.drain(&mut done);
            if self.handle_done(&mut done).is_err() {
                break;
            }
        }
        self.handle_news();
        let totals = self.totals();
        let farewell = async {
            if self.saved_for_good {
                return;
            }
            if let Err(failure) = self.save(true).await {
                tracing::warn!(%failure, "could not save");
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
