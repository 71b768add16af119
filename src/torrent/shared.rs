//! What the tasks of one torrent share: the swarm behind its lock, and how its decisions are carried out.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Instant;

use tokio::sync::{Notify, broadcast};

use super::conn;
use super::event::Event;
use super::network::Network;
use super::places::Place;
use super::web_seed::WebSeeds;
use crate::base::{Bitfield, Block, InfoHash, PeerId, PeerKey, PieceIndex};
use crate::disk::{Completions, DiskPool, Job, ReadAheads, ToVerify};
use crate::hash::Expected;
use crate::metainfo::{Info, Metainfo};
use crate::net::dht::DhtClient;
use crate::net::stream::Stream;
use crate::storage::{Storage, StorageError};
use crate::swarm::{Action, CloseReason, Fetch, FullPiece, NewPeer, Priority, Spill, Swarm};
use crate::wire::{Handshake, Reserved, client_name};

/// Pieces that could not be read which the torrent's task hears of in one turn; peers ask for the others again.
const MAX_UNREADABLE: usize = 64;

/// How a connection's task is told things.
#[derive(Debug, Default)]
pub(super) struct Signal {
    /// There is something in the outbox, or `close` is set.
    pub(super) wake: Notify,
    pub(super) close: OnceLock<CloseReason>,
}

impl Signal {
    fn close(&self, reason: CloseReason) {
        let _ = self.close.set(reason);
        self.wake.notify_one();
    }

    /// Waits until it is to close.
    pub(super) async fn closed(&self) {
        while self.close.get().is_none() {
            self.wake.notified().await;
        }
    }
}

struct Inner {
    swarm: Swarm,
    /// By slot of the peer's key.
    signals: Vec<Option<(PeerKey, Arc<Signal>)>>,
    /// What the torrent's own task should hear of.
    news: News,
}

/// What happened since the torrent's task last looked.
#[derive(Debug, Default)]
pub(super) struct News {
    pub(super) pieces: Vec<PieceIndex>,
    pub(super) complete: bool,
    /// Pieces that could not be read for a peer, each once.
    pub(super) unreadable: Vec<(PieceIndex, StorageError)>,
    /// The info dictionary.
    pub(super) metadata: Option<Result<Vec<u8>, NoSuchMetadata>>,
    /// Bytes that would be of use for fetching it.
    pub(super) memory: Option<u64>,
    pub(super) layers: Option<Vec<(usize, Vec<[u8; 32]>)>>,
}

/// The two info-hashes of a link name different torrents.
#[derive(Debug)]
pub(super) struct NoSuchMetadata;

/// See the [module](self).
pub(super) struct Shared {
    inner: Mutex<Inner>,
    /// Its identity, as far as it was known at first.
    origin: InfoHash,
    /// What the torrent is, once that is known.
    described: OnceLock<Arc<Metainfo>>,
    /// The same with hashes that were missing, once they are known.
    completed: OnceLock<Arc<Metainfo>>,
    /// Its files, once they are open.
    storage: OnceLock<Arc<Storage>>,
    pub(super) disk: Arc<DiskPool>,
    /// What is being read ahead for those who download from us.
    pub(super) aheads: Arc<ReadAheads>,
    /// Pieces that the disk threads are done with, for the torrent's task.
    pub(super) verdicts: Arc<Completions>,
    pub(super) network: Arc<Network>,
    /// Its web seeds, once its files are open.
    web_seeds: OnceLock<WebSeeds>,
    pub(super) events: broadcast::Sender<Event>,
    /// Wakes the torrent's task: there is news.
    pub(super) wake: Notify,
    pub(super) peer_id: PeerId,
    /// The DHT, if the torrent may use it.
    pub(super) dht: Option<DhtClient>,
}

/// How a peer is dialled.
#[derive(Clone, Copy, Debug)]
enum Way {
    /// However it can be reached.
    Any,
    /// By uTP, at the same time as it calls us (BEP 55).
    Punch,
}

/// What is to be done outside the lock.
#[derive(Default)]
struct Outside {
    verify: Vec<FullPiece>,
    spill: Vec<Spill>,
    verify_stored: Vec<PieceIndex>,
    dial: Vec<(SocketAddr, Way)>,
    dht_nodes: Vec<SocketAddr>,
    fetch: Vec<(Fetch, Arc<Signal>)>,
    banned_web_seeds: Vec<u32>,
    wake: Vec<Arc<Signal>>,
    news: bool,
}

impl Shared {
    #[expect(clippy::too_many_arguments, reason = "it is a struct literal with a private part")]
    pub(super) fn new(
        swarm: Swarm,
        origin: InfoHash,
        disk: Arc<DiskPool>,
        verdicts: Arc<Completions>,
        network: Arc<Network>,
        events: broadcast::Sender<Event>,
        peer_id: PeerId,
        dht: Option<DhtClient>,
    ) -> Self {
        let inner = Inner { swarm, signals: Vec::new(), news: News::default() };
        Self {
            inner: Mutex::new(inner),
            origin,
            described: OnceLock::new(),
            completed: OnceLock::new(),
            storage: OnceLock::new(),
            disk,
            aheads: ReadAheads::new(),
            verdicts,
            network,
            web_seeds: OnceLock::new(),
            events,
            wake: Notify::new(),
            peer_id,
            dht,
        }
    }

    /// What the torrent is, once that is known.
    pub(super) fn metainfo(&self) -> Option<&Arc<Metainfo>> {
        self.completed.get().or(self.described.get())
    }

    /// Its files, once they are open. Then it is known what it is.
    pub(super) fn storage(&self) -> Option<&Arc<Storage>> {
        self.storage.get()
    }

    /// It is known what the torrent is, or, the second time, what was missing of that.
    pub(super) fn describe(self: &Arc<Self>, metainfo: Arc<Metainfo>) {
        if let Err(completed) = self.described.set(metainfo.clone()) {
            let _ = self.completed.set(completed);
        }
        self.turn(|swarm, now| swarm.set_metainfo(now, metainfo));
    }

    /// Its files are open: pieces can be exchanged.
    pub(super) fn open(self: &Arc<Self>, storage: Arc<Storage>, have: &Bitfield, priorities: &[Priority]) {
        if self.storage.set(storage).is_ok() {
            self.turn(|swarm, now| swarm.open(now, have, priorities));
        }
    }

    /// Its web seeds, once its files are open.
    pub(super) fn web_seeds(&self) -> Option<&WebSeeds> {
        self.web_seeds.get()
    }

    /// Begins to fetch from web seeds. The files are open.
    pub(super) fn use_web_seeds(self: &Arc<Self>, web_seeds: WebSeeds) {
        let count = web_seeds.count();
        if self.web_seeds.set(web_seeds).is_ok() {
            for _ in 0..count {
                self.turn(|swarm, now| swarm.add_web_seed(now));
            }
        }
    }

    /// One turn with the swarm: `f` tells it what happened, then what it decided is carried out. The lock is held for
    /// `f` only, never across I/O or an await.
    pub(super) fn turn<R>(self: &Arc<Self>, f: impl FnOnce(&mut Swarm, Instant) -> R) -> R {
        let mut outside = Outside::default();
        let result = {
            let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
            let result = f(&mut inner.swarm, Instant::now());
            self.collect(&mut inner, &mut outside);
            result
        };
        self.carry_out(outside);
        result
    }

    /// Looks at the swarm, or takes something out, in a way that decides nothing.
    pub(super) fn turn_quietly<R>(&self, f: impl FnOnce(&mut Swarm) -> R) -> R {
        f(&mut self.inner.lock().unwrap_or_else(PoisonError::into_inner).swarm)
    }

    /// Blocks that a peer has asked for could not be read.
    pub(super) fn read_failed(self: &Arc<Self>, key: PeerKey, blocks: &[Block], error: StorageError) {
        self.turn(|swarm, _| blocks.iter().for_each(|block| swarm.handle_read_failed(key, *block)));
        let Some(piece) = blocks.first().map(|block| block.piece()) else { return };
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        let unreadable = &mut inner.news.unreadable;
        if unreadable.len() < MAX_UNREADABLE && !unreadable.iter().any(|(known, _)| *known == piece) {
            unreadable.push((piece, error));
        }
        drop(inner);
        self.wake.notify_one();
    }

    /// Takes the news of pieces and completion.
    pub(super) fn take_news(&self) -> News {
        std::mem::take(&mut self.inner.lock().unwrap_or_else(PoisonError::into_inner).news)
    }

    fn collect(&self, inner: &mut Inner, outside: &mut Outside) {
        while let Some(action) = inner.swarm.poll_action() {
            match action {
                Action::Verify(full) => outside.verify.push(full),
                Action::Spill(spill) => outside.spill.push(spill),
                Action::VerifyStored(piece) => outside.verify_stored.push(piece),
                Action::Dial(address) => outside.dial.push((address, Way::Any)),
                Action::Punch(address) => outside.dial.push((address, Way::Punch)),
                Action::DhtNode(address) => outside.dht_nodes.push(address),
                Action::Fetch(fetch) => {
                    let signal = Arc::new(Signal::default());
                    inner.register(fetch.key, signal.clone());
                    outside.fetch.push((fetch, signal));
                }
                Action::WebSeedBanned(number) => outside.banned_web_seeds.push(number),
                Action::Close(key, reason) => {
                    if let Some(signal) = inner.signal(key) {
                        signal.close(reason);
                    }
                }
                Action::Have(piece) => {
                    inner.news.pieces.push(piece);
                    outside.news = true;
                }
                Action::Complete => {
                    inner.news.complete = true;
                    outside.news = true;
                }
                Action::Metadata(bytes) => {
                    inner.news.metadata = Some(Ok(bytes));
                    outside.news = true;
                }
                Action::NoSuchMetadata => {
                    inner.news.metadata = Some(Err(NoSuchMetadata));
                    outside.news = true;
                }
                Action::MetadataMemory(bytes) => {
                    inner.news.memory = Some(bytes);
                    outside.news = true;
                }
                Action::PieceLayers(layers) => {
                    inner.news.layers = Some(layers);
                    outside.news = true;
                }
            }
        }
        while let Some(key) = inner.swarm.poll_wake() {
            if let Some(signal) = inner.signal(key) {
                outside.wake.push(signal.clone());
            }
        }
    }

    fn carry_out(self: &Arc<Self>, outside: Outside) {
        for full in outside.verify {
            self.verify(full);
        }
        for spill in outside.spill {
            self.spill(spill);
        }
        for piece in outside.verify_stored {
            self.verify_stored(piece);
        }
        for signal in outside.wake {
            signal.wake.notify_one();
        }
        for (address, way) in outside.dial {
            tokio::spawn(self.clone().connect(address, way));
        }
        if let Some(dht) = &self.dht {
            outside.dht_nodes.into_iter().for_each(|address| dht.add_node(address));
        }
        for (fetch, signal) in outside.fetch {
            tokio::spawn(self.clone().fetch(fetch, signal));
        }
        for number in outside.banned_web_seeds {
            if let Some(web_seeds) = self.web_seeds() {
                web_seeds.tell_banned(number, &self.events);
            }
        }
        if outside.news {
            self.wake.notify_one();
        }
    }

    fn verify(&self, full: FullPiece) {
        let Some((storage, expected)) = self.to_verify(full.piece) else { return };
        self.disk.push(Job::Verify(ToVerify {
            storage,
            piece: full.piece,
            blocks: full.blocks,
            expected,
            completions: self.verdicts.clone(),
        }));
    }

    /// The files, and what a piece of them must hash to.
    fn to_verify(&self, piece: PieceIndex) -> Option<(Arc<Storage>, Expected)> {
        let found = self.storage().cloned().zip(self.metainfo().and_then(|m| expected(&m.info, piece)));
        debug_assert!(found.is_some(), "pieces are not fetched without files and hashes");
        found
    }

    fn spill(&self, spill: Spill) {
        let Spill { piece, begin, blocks, digest_key } = spill;
        let Some(storage) = self.storage().cloned() else { return };
        let completions = self.verdicts.clone();
        self.disk.push(Job::Spill { storage, piece, begin, blocks, digest_key, completions });
    }

    fn verify_stored(&self, piece: PieceIndex) {
        let Some((storage, expected)) = self.to_verify(piece) else { return };
        let completions = self.verdicts.clone();
        self.disk.push(Job::VerifyStored { storage, piece, expected, completions });
    }

    /// Its identity, as far as it is known.
    fn info_hash(&self) -> InfoHash {
        self.metainfo().map_or(self.origin, |metainfo| metainfo.info.info_hash())
    }

    /// What we say to peers of this torrent.
    pub(super) fn our_handshake(&self, info_hash: [u8; 20]) -> Handshake {
        let reserved = Reserved::NONE.with_fast().with_extended();
        let private = self.metainfo().is_some_and(|metainfo| metainfo.info.is_private());
        let reserved = if self.dht.is_some() && !private { reserved.with_dht() } else { reserved };
        Handshake { info_hash, peer_id: self.peer_id, reserved }
    }

    /// Dials, greets, and stays with the connection until it ends.
    async fn connect(self: Arc<Self>, address: SocketAddr, way: Way) {
        let fail = || {
            self.turn(|swarm, now| match way {
                Way::Any => swarm.handle_dial_failed(now, address),
                Way::Punch => swarm.handle_punch_failed(now, address),
            });
        };
        let Some(place) = self.network.connection(address.ip()) else { return fail() };
        let ours = self.our_handshake(self.origin.wire());
        let dialer = &self.network.dialer;
        let dialled = self.network.paced(async {
            match way {
                Way::Any => dialer.dial(address, &ours).await,
                Way::Punch => dialer.dial_by_utp(address, &ours).await,
            }
        });
        match dialled.await {
            Ok((stream, theirs)) => self.attend(stream, address, true, theirs, place).await,
            Err(e) => {
                tracing::debug!(%address, ?way, error = %e, "could not connect");
                fail();
            }
        }
    }

    /// Stays with a connection whose handshake is done until it ends.
    pub(super) async fn attend(
        self: Arc<Self>,
        stream: Stream,
        address: SocketAddr,
        outgoing: bool,
        theirs: Handshake,
        place: Place,
    ) {
        let signal = Arc::new(Signal::default());
        let v2 = self.info_hash().as_v2().is_some_and(|hash| hash.truncated() == theirs.info_hash);
        let utp = stream.is_utp();
        let new = NewPeer { address, outgoing, utp, id: theirs.peer_id, reserved: theirs.reserved, v2 };
        // The signal must stand before anybody can learn the key.
        let joined = {
            let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
            let joined = inner.swarm.handle_connected(Instant::now(), new);
            if let Ok(key) = joined {
                inner.register(key, signal.clone());
            }
            joined
        };
        self.turn(|_, _| ());
        let key = match joined {
            Ok(key) => key,
            Err(refused) => {
                tracing::debug!(%address, reason = %refused, "refused");
                return;
            }
        };
        let encrypted = stream.is_encrypted();
        tracing::debug!(%address, outgoing, encrypted, utp, "connected");
        let client = client_name(&theirs.peer_id, None);
        let _ = self.events.send(Event::PeerConnected { address, client, encrypted, utp });
        let closing = Leave { shared: &self, key, address };
        let reason = conn::run(&self, stream, key, &signal).await;
        closing.leave(reason);
        drop(place);
    }

    fn leave(self: &Arc<Self>, key: PeerKey, address: SocketAddr, reason: CloseReason) {
        self.turn(|swarm, now| swarm.handle_closed(now, key));
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        inner.unregister(key);
        drop(inner);
        tracing::debug!(%address, %reason, "closed");
        let _ = self.events.send(Event::PeerClosed { address, reason: reason.to_string() });
        self.wake.notify_one();
    }
}

/// Takes the peer out of the swarm even if its task is dropped half way.
struct Leave<'a> {
    shared: &'a Arc<Shared>,
    key: PeerKey,
    address: SocketAddr,
}

impl Leave<'_> {
    fn leave(self, reason: CloseReason) {
        self.shared.leave(self.key, self.address, reason);
        std::mem::forget(self);
    }
}

impl Drop for Leave<'_> {
    fn drop(&mut self) {
        self.shared.leave(self.key, self.address, CloseReason::Lost);
    }
}

/// What a piece must hash to, in the disk threads' terms.
pub(super) fn expected(info: &Info, piece: PieceIndex) -> Option<Expected> {
    info.piece_hash(piece).map(Expected::from)
}

impl Inner {
    fn signal(&self, key: PeerKey) -> Option<&Arc<Signal>> {
        self.signals.get(key.slot())?.as_ref().filter(|(k, _)| *k == key).map(|(_, signal)| signal)
    }

    fn register(&mut self, key: PeerKey, signal: Arc<Signal>) {
        if self.signals.len() <= key.slot() {
            self.signals.resize_with(key.slot() + 1, || None);
        }
        self.signals[key.slot()] = Some((key, signal));
    }

    fn unregister(&mut self, key: PeerKey) {
        if let Some(place) = self.signals.get_mut(key.slot())
            && place.as_ref().is_some_and(|(k, _)| *k == key)
        {
            *place = None;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::hash;
    use crate::metainfo::{Builder, Format};
    use crate::session::{AddTorrent, Config, Place, SeedGoal, Session, State};

    /// K9: the task of a connection panics, and with the swarm's lock in its hand. That connection is over; the torrent,
    /// its other peers, and what is asked of it go on.
    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn k9_the_task_of_a_peer_panics() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        let data = vec![7; 300_000];
        let mut builder = Builder::file("payload", data.len() as u64);
        (builder.format, builder.piece_length) = (Format::V1, Some(1 << 16));
        let hashes: Vec<[u8; 20]> = data.chunks(1 << 16).map(|piece| hash::sha1(&[piece])).collect();
        let metainfo = Metainfo::parse(&builder.plan().unwrap().finish(&hashes, &[]).unwrap()).unwrap();
        std::fs::write(path("payload"), &data).unwrap();
        let session = async |name: &str| {
            let mut config = Config::new(path(name));
            (config.listen, config.lsd) = (vec![([127, 0, 0, 1], 0).into()], false);
            Session::start(config).await.unwrap()
        };
        let (seeder, leecher) = (session("a").await, session("b").await);
        let mut add = AddTorrent::new(metainfo.clone(), Place::Exact(path("payload")));
        add.seed = Some(SeedGoal::default());
        let seeding = seeder.add(add).await.unwrap();
        let until = async |so: &dyn Fn() -> bool| {
            while !so() {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        until(&|| seeding.status().state == State::Seeding).await;

        let shared = seeding.shared().unwrap();
        let address = ([127, 0, 0, 1], 9).into();
        let (id, reserved) = (PeerId([3; 20]), Reserved::NONE);
        let new = NewPeer { address, outgoing: false, utp: false, id, reserved, v2: false };
        let key = shared.turn(|swarm, now| swarm.handle_connected(now, new)).unwrap();
        assert_eq!(seeding.status().peers, 1);
        let peer = tokio::spawn({
            let shared = shared.clone();
            async move {
                let _leave = Leave { shared: &shared, key, address };
                shared.turn(|_, _| -> () { std::panic::resume_unwind(Box::new("a test's panic")) });
            }
        });
        assert!(peer.await.unwrap_err().is_panic());
        assert!(shared.inner.is_poisoned());
        assert_eq!(seeding.status().peers, 0);

        let mut add = AddTorrent::new(metainfo, Place::Folder(path("out")));
        add.peers = seeder.listen_addresses().to_vec();
        let downloading = leecher.add(add).await.unwrap();
        tokio::time::timeout(Duration::from_secs(60), downloading.finished()).await.unwrap().unwrap();
        assert_eq!(std::fs::read(path("out/payload")).unwrap(), data);
        assert_eq!(seeding.status().state, State::Seeding);
        leecher.stop(Duration::from_secs(5)).await;
        seeder.stop(Duration::from_secs(5)).await;
    }
}
