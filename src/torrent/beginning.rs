//! From what is given to open files: a metainfo, or a magnet link and what peers say about it.

use std::future::pending;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use tokio::sync::{oneshot, watch};

use super::opening::{self, Opened};
use super::task::{Left, Task, told};
use super::web_seed::WebSeeds;
use super::{Event, Failure, Fault, Inner, Origin, Phase, Spec, metadata};
use crate::disk::DiskPool;
use crate::metainfo::Metainfo;
use crate::resume::Ledger;
use crate::storage::Progress;
use crate::swarm::Source;

/// A torrent before its first connection, with what is known of it without peers.
pub(super) struct Ready {
    pub(super) spec: Spec,
    pub(super) metainfo: Option<Arc<Metainfo>>,
    /// Its files, unless it is not known how to verify them.
    pub(super) opened: Option<Opened>,
}

/// Finds out what is known of the torrent, and opens its files if that is enough.
pub(super) async fn prepare(
    inner: &Arc<Inner>,
    mut spec: Spec,
    disk: &DiskPool,
    progress: &Arc<Progress>,
    stop: &mut watch::Receiver<Option<Instant>>,
) -> Result<Ready, Left> {
    let metainfo = match &spec.torrent.origin {
        Origin::Metainfo(metainfo) => Some(metainfo.clone()),
        Origin::Magnet(magnet) => {
            let (magnet, state_dir) = (magnet.clone(), spec.state_dir.clone());
            let kept = disk.call(move || metadata::load(&state_dir, &magnet)).await;
            kept.ok().flatten().map(Arc::new)
        }
    };
    let Some(metainfo) = metainfo else { return Ok(Ready { spec, metainfo: None, opened: None }) };
    if let Origin::Magnet(_) = spec.torrent.origin {
        inner.metainfo.send_replace(Some(metainfo.clone()));
        inner.tell(Event::Metadata(metainfo.clone()));
    }
    if spec.torrent.metadata_only {
        return Err(Left::Done);
    }
    if !metadata::can_verify(&metainfo.info) {
        return Ok(Ready { spec, metainfo: Some(metainfo), opened: None });
    }
    spec.torrent.selected = metadata::select(&spec.torrent, &metainfo).map_err(Left::Failed)?;
    let mut opening = Opening::start(inner, &spec, metainfo.clone(), disk, progress.clone());
    tokio::select! {
        opened = opening.end() => {
            let opened = Some(opened.map_err(Left::Failed)?);
            Ok(Ready { spec, metainfo: Some(metainfo), opened })
        }
        () = told(stop) => {
            progress.cancel.store(true, Ordering::Relaxed);
            Err(Left::Stop)
        }
    }
}

/// The files of a torrent being opened at the disk threads.
pub(super) struct Opening {
    pub(super) progress: Arc<Progress>,
    opened: oneshot::Receiver<Result<Opened, Failure>>,
}

impl Opening {
    pub(super) fn start(
        inner: &Arc<Inner>,
        spec: &Spec,
        metainfo: Arc<Metainfo>,
        disk: &DiskPool,
        progress: Arc<Progress>,
    ) -> Self {
        let (inner, spec, watched) = (inner.clone(), spec.clone(), progress.clone());
        let opened = disk.call(move || opening::open(&inner, &spec, &metainfo.info, &watched));
        Self { progress, opened }
    }

    pub(super) async fn end(&mut self) -> Result<Opened, Failure> {
        (&mut self.opened).await.unwrap_or_else(|_| Err(internal()))
    }
}

/// Waits for the files, for ever if none are being opened.
pub(super) async fn opened(opening: &mut Option<Opening>) -> Result<Opened, Failure> {
    match opening {
        Some(opening) => opening.end().await,
        None => pending().await,
    }
}

/// Waits for what the disk threads make of what peers sent, for ever if there is nothing.
pub(super) async fn described(
    describing: &mut Option<oneshot::Receiver<Result<Metainfo, Failure>>>,
) -> Result<Metainfo, Failure> {
    match describing {
        Some(describing) => describing.await.unwrap_or_else(|_| Err(internal())),
        None => pending().await,
    }
}

fn internal() -> Failure {
    Failure::new(Fault::Internal, "internal error, please report it")
}

impl Task {
    /// It is known what the torrent is, or what was missing of that.
    pub(super) fn describe(&mut self, metainfo: Arc<Metainfo>) {
        let now = Instant::now();
        self.trackers.handle_metainfo(now, &metainfo);
        let names = || metainfo.info.info_hash().wire_forms();
        if metainfo.info.is_private() {
            // From now on peers come from trackers only (BEP 27).
            self.lsd = None;
            self.dht.leave();
        } else {
            if names().count() > self.spec.torrent.origin.info_hash().wire_forms().count() {
                self.lsd = self.shared.network.lsd.as_ref().map(|lsd| lsd.join(names()));
                self.dht.join(now, names());
            }
            if let Some(client) = &self.spec.dht {
                client.add_names(&metainfo.nodes);
            }
        }
        self.shared.describe(metainfo);
    }

    /// The files are open.
    pub(super) fn open(&mut self, opened: Opened) {
        let Opened { storage, have, lasting, saved, lock } = opened;
        let priorities = opening::priorities(storage.geometry(), &storage);
        self.missing = opening::missing_pieces(&storage, &have);
        self.saved = saved;
        self.lock = lock;
        self.ledger = Some(Ledger::new(lasting));
        self.shared.open(storage, &have, &priorities);
    }

    /// Has the names of peers that a magnet link names looked up.
    pub(super) fn ask_for_peers_of_link(&self) {
        let Origin::Magnet(magnet) = &self.spec.torrent.origin else { return };
        for (host, port) in magnet.peers.clone() {
            let shared = self.shared.clone();
            tokio::spawn(async move {
                let found = metadata::resolve(&shared.network.dialer, &host, port).await;
                shared.turn(|swarm, now| swarm.handle_candidates(now, Source::Magnet, &found));
            });
        }
    }

    /// The files have just been opened.
    pub(super) async fn begin(&mut self) -> Option<Left> {
        let known = self.saved.peers.clone();
        let complete = self.shared.turn(|swarm, now| {
            swarm.handle_candidates(now, Source::Resume, &known);
            swarm.is_complete()
        });
        if complete {
            return self.on_complete(false).await;
        }
        if let Some(metainfo) = self.shared.metainfo() {
            let web_seeds = WebSeeds::new(&self.spec, metainfo, &self.ranges);
            self.shared.use_web_seeds(web_seeds);
        }
        None
    }

    /// What peers sent has been read.
    pub(super) async fn on_described(&mut self, described: Result<Metainfo, Failure>) -> Option<Left> {
        let metainfo = match described {
            Ok(metainfo) => Arc::new(metainfo),
            Err(failure) => return Some(Left::Failed(failure)),
        };
        let news = self.shared.metainfo().is_none();
        self.describe(metainfo.clone());
        self.inner.metainfo.send_replace(Some(metainfo.clone()));
        self.inner.tell(if news { Event::Metadata(metainfo.clone()) } else { Event::PieceLayers(metainfo.clone()) });
        self.keep(&metainfo).await;
        if self.spec.torrent.metadata_only {
            return Some(Left::Done);
        }
        if self.shared.storage().is_some() || self.opening.is_some() || !metadata::can_verify(&metainfo.info) {
            return None;
        }
        match metadata::select(&self.spec.torrent, &metainfo) {
            Ok(selected) => self.spec.torrent.selected = selected,
            Err(failure) => return Some(Left::Failed(failure)),
        }
        let progress = Arc::new(Progress::default());
        self.inner.set_phase(Phase::Opening(self.shared.clone(), progress.clone()));
        self.opening = Some(Opening::start(&self.inner, &self.spec, metainfo, &self.shared.disk, progress));
        None
    }

    pub(super) async fn on_opened(&mut self, opened: Result<Opened, Failure>) -> Option<Left> {
        match opened {
            Ok(opened) => self.open(opened),
            Err(failure) => return Some(Left::Failed(failure)),
        }
        self.inner.set_phase(Phase::Running(self.shared.clone()));
        self.begin().await
    }

    /// Keeps what peers sent, so that the next run need not ask for it.
    pub(super) async fn keep(&self, metainfo: &Arc<Metainfo>) {
        let (metainfo, state_dir) = (metainfo.clone(), self.spec.state_dir.clone());
        let wanted = self.spec.torrent.origin.info_hash();
        let saved = self.shared.disk.call(move || metadata::save(&state_dir, &wanted, &metainfo.info));
        if let Ok(Err(error)) = saved.await {
            tracing::warn!(%error, "the metadata is not kept");
        }
    }

    /// Takes as much memory for the metadata as would be of use, or as there is.
    pub(super) fn take_memory(&mut self) {
        let bytes = self.memory.resize(self.memory_wanted);
        self.shared.turn(|swarm, now| swarm.set_metadata_allowance(now, bytes));
    }
}
