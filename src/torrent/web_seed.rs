//! Web seeds: carries out the fetches that the swarm wants.
//!
//! One task per fetch. What the socket brings is copied once, from the buffer of the HTTP client into the blocks; those go
//! to the swarm by ownership, all that one read completed under one lock.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::broadcast;
use url::Url;

use super::event::{Event, WebSeedReport, WebSeedState};
use super::shared::{Shared, Signal};
use super::spec::{Origin, Spec};
use super::web_plan::{Step, by_file, by_piece};
use crate::base::{BLOCK_LEN, Block, BlockBuf, PeerKey, printable};
use crate::metainfo::{Metainfo, Speaks, WebSeedUrl};
use crate::net::web_seed::{Address, Body, RangeClient, RangeError};
use crate::storage::{Place, Storage};
use crate::swarm::web_seed::MAX_WEB_SEEDS;
use crate::swarm::{Fetch, FetchOutcome};

/// Buffers that a fetch holds for bytes to come, at most: half a megabyte, as much as one read may bring.
const MAX_HELD: usize = 32;

/// How long a fetch that finds no memory waits before it looks again. What it was asked for has room, nearly always.
const MEMORY_WAIT: Duration = Duration::from_millis(20);

/// The longest wait for leave of the rate limit in one go: the swarm is told that the fetch is alive in between.
const LIMIT_WAIT: Duration = Duration::from_secs(5);

/// How long an address is used that a web seed has redirected to: such addresses are often good for some minutes only.
const MOVED_FOR: Duration = Duration::from_secs(300);

/// Files that a web seed lacks that are told of, each.
const MAX_LACKING_TOLD: u32 = 10;

/// The web seeds of a torrent, by the numbers that the swarm knows them by.
#[derive(Debug)]
pub(super) struct WebSeeds {
    client: RangeClient,
    seeds: Vec<WebSeed>,
}

#[derive(Debug)]
struct WebSeed {
    url: WebSeedUrl,
    /// Which addresses may lead to this machine or its network.
    local: fn(&Url) -> bool,
    state: Mutex<State>,
}

/// What is remembered from fetch to fetch.
#[derive(Debug, Default)]
struct State {
    /// Where the file was redirected to that was asked for last.
    moved: Option<Moved>,
    /// It was told that it serves, and nothing else since.
    serving: bool,
    lacking_told: u32,
}

#[derive(Clone, Debug)]
struct Moved {
    from: Url,
    to: Url,
    outside: bool,
    until: Instant,
}

/// What a torrent names may be asked in the local network only without a query: a plain name is no command.
fn without_query(url: &Url) -> bool {
    url.query().is_none()
}

/// The same for scripts, whose query is ours.
fn with_our_query(url: &Url) -> bool {
    url.query().is_none_or(|query| query.starts_with("info_hash="))
}

fn anywhere(_: &Url) -> bool {
    true
}

impl WebSeeds {
    /// Those that the torrent and the user name. None for a torrent that is only read.
    pub(super) fn new(spec: &Spec, metainfo: &Metainfo, client: &RangeClient) -> Self {
        let torrent = &spec.torrent;
        let mut seeds: Vec<WebSeed> = Vec::new();
        let mut add = |urls: &[String], speaks, local| {
            for url in urls.iter().filter_map(|url| WebSeedUrl::parse(url, speaks)) {
                if seeds.len() < MAX_WEB_SEEDS && seeds.iter().all(|seed| seed.url != url) {
                    seeds.push(WebSeed { url, local, state: Mutex::default() });
                }
            }
        };
        if spec.use_web_seeds && !matches!(torrent.place, Place::Exact(_)) {
            // What the user names comes first: if it is in the torrent, too, the user's word counts.
            add(&torrent.extra_web_seeds, Speaks::Files, anywhere);
            add(&metainfo.web_seeds, Speaks::Files, without_query);
            if let Origin::Magnet(magnet) = &torrent.origin {
                add(&magnet.web_seeds, Speaks::Files, without_query);
            }
            add(&metainfo.http_seeds, Speaks::Pieces, with_our_query);
        }
        Self { client: client.clone(), seeds }
    }

    pub(super) fn count(&self) -> usize {
        self.seeds.len()
    }

    /// Tells that a web seed is not asked any more.
    pub(super) fn tell_banned(&self, number: u32, events: &broadcast::Sender<Event>) {
        if let Some(seed) = self.seeds.get(number as usize) {
            let reason = Some("sent bad data".to_owned());
            seed.tell(WebSeedState::Banned, reason, None, events);
        }
    }
}

impl WebSeed {
    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn tell(
        &self,
        state: WebSeedState,
        reason: Option<String>,
        retry: Option<Duration>,
        events: &broadcast::Sender<Event>,
    ) {
        self.state().serving = state == WebSeedState::Serving;
        let web_seed = self.url.to_string();
        tracing::debug!(%web_seed, ?state, reason, "web seed");
        let _ = events.send(Event::WebSeed(WebSeedReport { web_seed, state, reason, retry }));
    }

    /// Where `url` was redirected to not long ago.
    fn moved(&self, url: &Url) -> Option<Moved> {
        let now = Instant::now();
        self.state().moved.clone().filter(|moved| moved.from == *url && now < moved.until)
    }
}

/// What is fetched, and from where.
#[derive(Clone, Copy)]
struct Source<'a> {
    client: &'a RangeClient,
    seed: &'a WebSeed,
    metainfo: &'a Metainfo,
    storage: &'a Storage,
}

/// A fetch under way.
struct Fetching<'a> {
    shared: &'a Arc<Shared>,
    source: Source<'a>,
    key: PeerKey,
    /// Blocks that have no buffer yet.
    ahead: VecDeque<Block>,
    /// Those that come next; what has no buffer is passed over.
    lent: VecDeque<(Block, Option<BlockBuf>)>,
    /// The one that is being filled, and how many of its bytes are there.
    current: Option<(Block, Option<BlockBuf>)>,
    filled: usize,
    /// Blocks that are full.
    done: Vec<(Block, BlockBuf)>,
    /// How many buffers are worth holding.
    held: usize,
}

/// Why a fetch came to nothing.
enum Failed {
    /// The server does not have a file, by its number.
    Lacks(u32, String),
    Other(RangeError),
}

impl From<RangeError> for Failed {
    fn from(error: RangeError) -> Self {
        Self::Other(error)
    }
}

impl Shared {
    /// Carries out a fetch, until it ends or is told to.
    pub(super) async fn fetch(self: Arc<Self>, fetch: Fetch, signal: Arc<Signal>) {
        let Fetch { key, web_seed, blocks } = fetch;
        let ending = Ending { shared: &self, key };
        let (Some(web_seeds), Some(metainfo), Some(storage)) = (self.web_seeds(), self.metainfo(), self.storage())
        else {
            debug_assert!(false, "fetches begin when the files are open");
            return;
        };
        let Some(seed) = web_seeds.seeds.get(web_seed as usize) else { return };
        let source = Source { client: &web_seeds.client, seed, metainfo, storage };
        let mut fetching = Fetching::new(&self, source, key, &blocks);
        let end = tokio::select! {
            biased;
            () = signal.closed() => None,
            end = fetching.run(&blocks) => Some(end),
        };
        ending.end(fetching, end);
    }

    fn fetch_ended(
        self: &Arc<Self>,
        key: PeerKey,
        outcome: &FetchOutcome,
        done: Vec<(Block, BlockBuf)>,
        unused: impl IntoIterator<Item = BlockBuf>,
    ) -> Option<Duration> {
        self.turn(|swarm, now| {
            for (block, buf) in done {
                swarm.handle_fetched(now, key, block, buf);
            }
            swarm.handle_fetch_ended(now, key, outcome, unused)
        })
    }
}

/// Sees to it that the swarm hears of the end even if the task is dropped half way.
struct Ending<'a> {
    shared: &'a Arc<Shared>,
    key: PeerKey,
}

impl Drop for Ending<'_> {
    fn drop(&mut self) {
        self.shared.fetch_ended(self.key, &FetchOutcome::GivenUp, vec![], []);
    }
}

impl Ending<'_> {
    fn end(self, fetching: Fetching<'_>, end: Option<Result<(), Failed>>) {
        let (shared, key) = (self.shared, self.key);
        std::mem::forget(self);
        let Fetching { source: Source { seed, storage, .. }, lent, current, done, .. } = fetching;
        let unused = lent.into_iter().chain(current).filter_map(|(_, buf)| buf);
        let (outcome, reason) = match end {
            None => (FetchOutcome::GivenUp, None),
            Some(Ok(())) => (FetchOutcome::Done, None),
            Some(Err(Failed::Lacks(file, reason))) => {
                let pieces = storage.file_map().pieces_of(file, storage.geometry().piece_length());
                (FetchOutcome::Lacks(pieces), Some(reason))
            }
            Some(Err(Failed::Other(error))) => {
                let outcome = match error {
                    RangeError::Busy { after, .. } => FetchOutcome::Busy(after),
                    _ => FetchOutcome::Failed,
                };
                (outcome, Some(error.to_string()))
            }
        };
        let lacks = matches!(outcome, FetchOutcome::Lacks(_));
        let rest = shared.fetch_ended(key, &outcome, done, unused);
        if let Some(rest) = rest {
            let reason = reason.unwrap_or_else(|| "sends nothing".to_owned());
            seed.tell(WebSeedState::Failed, Some(reason), Some(rest), &shared.events);
        } else if lacks {
            let mut state = seed.state();
            state.lacking_told += 1;
            let told = state.lacking_told;
            drop(state);
            if told <= MAX_LACKING_TOLD {
                seed.tell(WebSeedState::Lacking, reason, None, &shared.events);
            }
        }
    }
}

impl<'a> Fetching<'a> {
    fn new(shared: &'a Arc<Shared>, source: Source<'a>, key: PeerKey, blocks: &[Block]) -> Self {
        Self {
            shared,
            source,
            key,
            ahead: blocks.iter().copied().collect(),
            lent: VecDeque::new(),
            current: None,
            filled: 0,
            done: Vec::new(),
            held: 2,
        }
    }

    async fn run(&mut self, blocks: &[Block]) -> Result<(), Failed> {
        // Counts among the connections that there may be.
        let Some(_place) = self.shared.network.server_connection() else {
            return Err(RangeError::Wrong("not asked: there are enough connections").into());
        };
        let Source { client, seed, metainfo, storage } = self.source;
        let steps = match seed.url.speaks() {
            Speaks::Files => by_file(storage.file_map(), storage.geometry(), blocks),
            Speaks::Pieces => by_piece(storage.geometry(), blocks),
        };
        for step in steps {
            match step {
                Step::Zeros(len) => self.fill_zeros(len).await,
                Step::File { file, bytes } => {
                    let mut next = bytes.start;
                    while next < bytes.end {
                        let body = self.open_file(file, next..bytes.end).await?;
                        let len = body.left();
                        next += len;
                        self.take(body).await?;
                        if len < u64::from(BLOCK_LEN) && next < bytes.end {
                            return Err(RangeError::Wrong("it sends next to nothing at once").into());
                        }
                    }
                }
                Step::Piece { piece, ranges, len } => {
                    let url = seed.url.piece(&metainfo.info.info_hash().wire(), piece, &ranges);
                    let url = url.ok_or(RangeError::Wrong("no address can be made of it"))?;
                    let body = client.piece(Address { url: &url, local: seed.local, outside: false }, len).await?;
                    self.take(body).await?;
                }
            }
        }
        Ok(())
    }

    /// Asks for a part of a file, where it was found last or where it should be.
    async fn open_file(&self, file: u32, bytes: std::ops::Range<u64>) -> Result<Body, Failed> {
        let Source { client, seed, metainfo, storage } = self.source;
        let info = &metainfo.info;
        let lacks = |why: String| {
            let path = info.files().get(file as usize).map(|file| printable(file.path.as_str())).unwrap_or_default();
            Failed::Lacks(file, format!("{path}: {why}"))
        };
        let url = info.files().get(file as usize).and_then(|file| seed.url.file(info, file));
        let Some(url) = url else { return Err(lacks("no address can be made of its name".to_owned())) };
        let (len, local) = (storage.file_len(file), seed.local);
        if let Some(Moved { to, outside, .. }) = seed.moved(&url) {
            match client.range(Address { url: &to, local, outside }, bytes.clone(), len).await {
                Err(RangeError::Missing(_) | RangeError::Status(_) | RangeError::Http(_)) => {
                    seed.state().moved = None;
                }
                answer => return Ok(answer?),
            }
        }
        match client.range(Address { url: &url, local, outside: false }, bytes, len).await {
            Ok(body) => {
                let (to, outside) = body.came_from();
                if *to != url {
                    let until = Instant::now() + MOVED_FOR;
                    seed.state().moved = Some(Moved { from: url, to: to.clone(), outside, until });
                }
                Ok(body)
            }
            Err(error @ (RangeError::Missing(_) | RangeError::WrongLength { .. } | RangeError::NoRanges)) => {
                Err(lacks(error.to_string()))
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Takes a body into the blocks, as fast as the rate limit allows.
    async fn take(&mut self, mut body: Body) -> Result<(), RangeError> {
        let limit = &self.shared.network.limits.down;
        loop {
            loop {
                let wait = limit.wait(Instant::now());
                if wait.is_zero() {
                    break;
                }
                tokio::time::sleep(wait.min(LIMIT_WAIT)).await;
                self.is_alive();
            }
            let Some(bytes) = body.next().await? else { break };
            limit.spend(Instant::now(), bytes.len());
            self.held = (bytes.len() / BLOCK_LEN as usize + 2).min(MAX_HELD);
            self.fill(bytes.len(), |at, part| part.copy_from_slice(&bytes[at..at + part.len()])).await;
        }
        body.finish().await;
        Ok(())
    }

    fn is_alive(&self) {
        self.shared.turn_quietly(|swarm| swarm.handle_fetch_waits(Instant::now(), self.key));
    }

    async fn fill_zeros(&mut self, len: u64) {
        // Padding within one block, or blocks of it.
        let mut left = len;
        while left > 0 {
            let part = usize::try_from(left).unwrap_or(usize::MAX);
            self.fill(part, |_, part| part.fill(0)).await;
            left -= part as u64;
        }
    }

    /// Fills `len` bytes into the blocks: `put` is told from which of them on a part is to be filled. Then hands over the
    /// blocks that are full.
    async fn fill(&mut self, len: usize, put: impl Fn(usize, &mut [u8])) {
        let mut at = 0;
        while at < len {
            let Some((block, buf)) = &mut self.current else {
                self.current = self.lent.pop_front();
                match self.current {
                    None if self.ahead.is_empty() => return,
                    None => self.hand_over().await,
                    Some(_) => {}
                }
                continue;
            };
            let part = (block.len() as usize - self.filled).min(len - at);
            if let Some(bytes) =
                buf.as_mut().and_then(|buf| buf.as_mut_slice().get_mut(self.filled..self.filled + part))
            {
                put(at, bytes);
            }
            at += part;
            self.filled += part;
            if self.filled == block.len() as usize {
                self.filled = 0;
                if let Some((block, Some(buf))) = self.current.take() {
                    self.done.push((block, buf));
                }
            }
        }
        if !self.done.is_empty() {
            self.hand_over().await;
        }
    }

    /// Hands full blocks to the swarm, and takes buffers for those to come. Returns when there is at least one, or none is
    /// needed.
    async fn hand_over(&mut self) {
        loop {
            if !self.done.is_empty() {
                let seed = self.source.seed;
                let is_news = !std::mem::replace(&mut seed.state().serving, true);
                if is_news {
                    seed.tell(WebSeedState::Serving, None, None, &self.shared.events);
                }
            }
            let key = self.key;
            let wanted = self.held.saturating_sub(self.lent.len()).min(self.ahead.len());
            let (done, ahead, lent) = (&mut self.done, self.ahead.make_contiguous(), &mut self.lent);
            let before = lent.len();
            self.shared.turn(|swarm, now| {
                for (block, buf) in done.drain(..) {
                    swarm.handle_fetched(now, key, block, buf);
                }
                swarm.lend(key, &ahead[..wanted], lent);
                swarm.handle_turn(now, key);
            });
            self.ahead.drain(..self.lent.len() - before);
            if !self.lent.is_empty() || self.ahead.is_empty() {
                return;
            }
            tokio::time::sleep(MEMORY_WAIT).await;
            self.is_alive();
        }
    }
}
