//! The info dictionary, fetched from peers that have it (BEP 9), for a torrent of which only the info-hash is known.
//!
//! Nothing that a peer says about the dictionary can be checked before all of it is there and hashed. So:
//!
//! - *Sizes.* Peers may name different sizes. Each size is an `Attempt` of its own, fetched only from those that name it, all at
//!   once as far as memory is granted: a liar costs those who are honest nothing.
//! - *Blame.* An attempt that does not hash and came from one peer convicts it. If it came from several, all are
//!   suspects, and from then on each attempt is made with one peer alone, the least suspicious first.
//! - *Patience.* A piece that does not come in time is asked of another peer, too; a late answer still counts. Whoever
//!   refuses, or answers what cannot be, is left alone for a while.
//! - *Memory.* A piece takes memory when it comes. Attempts are begun within what [`MetadataFetch::set_allowance`] grants of
//!   [`MetadataFetch::wanted_memory`].

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use crate::base::{InfoHash, PeerKey};
use crate::hash::{sha1, sha256};
use crate::wire::{MAX_METADATA_LEN, METADATA_PIECE_LEN};

/// Requests out at once, to one peer (`limits.md`).
const IN_FLIGHT: usize = 4;

/// When nothing else is left to ask for, a request so old is made of a second peer as well.
const DOUBLE: Duration = Duration::from_secs(1);

/// A request so old may be made of anybody else, and its peer is asked for nothing more until it answers.
const LAPSE: Duration = Duration::from_secs(5);

/// A request so old will not be answered.
const GIVE_UP: Duration = Duration::from_secs(60);

/// How long a peer is left alone that refuses, does not answer, or answers what cannot be.
const REST: Duration = Duration::from_secs(30);

/// Answers that cannot be, from one peer, until it is convicted.
const MAX_OFFENCES: u32 = 3;

/// How often one peer may name another size than before.
const MAX_CLAIMS: u32 = 3;

/// A peer that is the only one asked gives its place to another when nothing has come for so long.
const ALONE_STALL: Duration = Duration::from_secs(20);

/// An attempt to which nothing has come for so long gives its place and memory back...
const STALE: Duration = Duration::from_secs(60);

/// ...and after so long if there is another size to try.
const STALE_IF_OTHERS_WAIT: Duration = Duration::from_secs(10);

/// Sizes that are tried at once, at most.
const MAX_ATTEMPTS: usize = 8;

/// Bytes that all attempts for one torrent may take together: the longest dictionary, and some shorter ones.
pub const MAX_METADATA_MEMORY: u64 = 40 << 20;

/// Fetches one info dictionary. See the [module](self).
#[derive(Debug)]
pub struct MetadataFetch {
    wanted: InfoHash,
    /// Peers that say that they have it.
    sources: BTreeMap<PeerKey, Source>,
    /// One for each size, in the order in which memory is given out.
    attempts: Vec<Attempt>,
    /// Bytes that may be taken.
    allowance: u64,
    convicted: Vec<PeerKey>,
}

/// A peer that says that it has the dictionary.
#[derive(Debug)]
struct Source {
    /// How long it says the dictionary is, in bytes.
    size: u32,
    /// How often it said something else before.
    claims: u32,
    /// What it was asked for, oldest first.
    asked: Vec<Asked>,
    rest_until: Option<Instant>,
    /// Attempts that it took part in and that did not hash, and those that it was to make alone and did not.
    suspicion: u32,
    /// Answers of its that cannot be.
    offences: u32,
}

#[derive(Clone, Copy, Debug)]
struct Asked {
    piece: u32,
    at: Instant,
}

/// The dictionary as it would be if it had one certain size.
#[derive(Debug)]
struct Attempt {
    size: u32,
    /// Empty while there is no memory for it.
    pieces: Vec<Option<Piece>>,
    missing: usize,
    /// It did not hash once: only one peer at a time is asked.
    exclusive: bool,
    /// That peer.
    alone: Option<PeerKey>,
    /// When something last came.
    progress: Instant,
}

#[derive(Debug)]
struct Piece {
    data: Box<[u8]>,
    from: PeerKey,
}

/// What has come of a piece.
#[derive(Debug, PartialEq, Eq)]
pub enum Fetched {
    /// It is not the last, or was not wanted.
    More,
    /// The dictionary is whole, and is the one that the info-hash names.
    Whole(Vec<u8>),
    /// The dictionary is whole, and is what one of the two info-hashes names, but not the other.
    Contradiction,
}

/// How far the fetch has come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MetadataProgress {
    /// Peers that say that they have it.
    pub sources: u32,
    /// Pieces of 16 KiB that are here.
    pub pieces: u32,
    /// All pieces, if the size that most peers name is right; 0 if none names one.
    pub piece_count: u32,
}

fn piece_count(size: u32) -> u32 {
    size.div_ceil(METADATA_PIECE_LEN)
}

/// Bytes that an attempt may take.
fn memory(size: u32) -> u64 {
    u64::from(piece_count(size)) * u64::from(METADATA_PIECE_LEN)
}

impl Source {
    /// Whether it may be asked for something now.
    fn is_ready(&self, now: Instant) -> bool {
        let lapsed = self.asked.first().is_some_and(|oldest| now.saturating_duration_since(oldest.at) >= LAPSE);
        self.asked.len() < IN_FLIGHT && !lapsed && self.rest_until.is_none_or(|until| until <= now)
    }

    fn rest(&mut self, now: Instant) {
        self.rest_until = Some(now + REST);
    }
}

impl Attempt {
    fn new(now: Instant, size: u32) -> Self {
        Self { size, pieces: Vec::new(), missing: 0, exclusive: false, alone: None, progress: now }
    }

    fn is_begun(&self) -> bool {
        !self.pieces.is_empty()
    }

    /// Has nothing of the dictionary, and room for all of it.
    fn begin(&mut self, now: Instant) {
        self.pieces.clear();
        self.missing = piece_count(self.size) as usize;
        self.pieces.resize_with(self.missing, || None);
        self.progress = now;
    }

    /// Gives the memory back.
    fn drop_pieces(&mut self) {
        self.pieces = Vec::new();
        self.missing = 0;
        self.alone = None;
    }

    /// Somebody else is to be asked alone, from the beginning.
    fn change_alone(&mut self, now: Instant) {
        self.alone = None;
        self.begin(now);
    }

    /// Bytes of piece number `piece`; 0 if there is none.
    fn piece_len(&self, piece: u32) -> usize {
        let begin = piece.saturating_mul(METADATA_PIECE_LEN);
        self.size.saturating_sub(begin).min(METADATA_PIECE_LEN) as usize
    }

    fn senders(&self) -> Vec<PeerKey> {
        let mut senders: Vec<PeerKey> = self.pieces.iter().flatten().map(|piece| piece.from).collect();
        senders.sort_unstable();
        senders.dedup();
        senders
    }
}

impl MetadataFetch {
    /// Nobody is known yet who has the dictionary that `wanted` names.
    pub fn new(wanted: InfoHash) -> Self {
        Self { wanted, sources: BTreeMap::new(), attempts: Vec::new(), allowance: 0, convicted: Vec::new() }
    }

    /// How many bytes may be taken from now on. Less than before takes nothing away from attempts under way.
    pub fn set_allowance(&mut self, now: Instant, bytes: u64) {
        self.allowance = bytes;
        self.plan(now);
    }

    /// How many bytes would be of use, at most [`MAX_METADATA_MEMORY`].
    pub fn wanted_memory(&self) -> u64 {
        let mut sum = 0;
        let mut count = 0;
        for size in self.attempts.iter().map(|attempt| memory(attempt.size)) {
            if count < MAX_ATTEMPTS && sum + size <= MAX_METADATA_MEMORY {
                sum += size;
                count += 1;
            }
        }
        sum
    }

    /// A peer says that it has the dictionary, and how long it is.
    pub fn handle_size(&mut self, now: Instant, key: PeerKey, size: u32) {
        if !(1..=MAX_METADATA_LEN).contains(&size) {
            return;
        }
        let new = Source { size, claims: 0, asked: Vec::new(), rest_until: None, suspicion: 0, offences: 0 };
        let source = self.sources.entry(key).or_insert(new);
        if source.size != size {
            source.claims += 1;
            if source.claims <= MAX_CLAIMS {
                source.size = size;
                source.asked.clear();
                self.no_longer_alone(now, key);
            }
        }
        self.plan(now);
    }

    /// A piece came.
    pub fn handle_data(
        &mut self,
        now: Instant,
        key: PeerKey,
        piece: u32,
        total_size: Option<u32>,
        payload: &[u8],
    ) -> Fetched {
        let Some(source) = self.sources.get_mut(&key) else { return Fetched::More };
        let Some(at) = source.asked.iter().position(|asked| asked.piece == piece) else { return Fetched::More };
        source.asked.remove(at);
        let size = source.size;
        let Some(attempt) = self.attempts.iter_mut().find(|a| a.size == size && a.is_begun()) else {
            return Fetched::More;
        };
        if payload.len() != attempt.piece_len(piece) || total_size.is_some_and(|total| total != size) {
            self.offend(now, key);
            return Fetched::More;
        }
        let Some(place) = attempt.pieces.get_mut(piece as usize) else { return Fetched::More };
        if place.is_some() || attempt.exclusive && attempt.alone != Some(key) {
            return Fetched::More;
        }
        *place = Some(Piece { data: payload.into(), from: key });
        attempt.missing -= 1;
        attempt.progress = now;
        if attempt.missing > 0 { Fetched::More } else { self.judge(now, size) }
    }

    /// A peer refuses a piece: it has none of them, or has given enough.
    pub fn handle_reject(&mut self, now: Instant, key: PeerKey, piece: u32) {
        let Some(source) = self.sources.get_mut(&key) else { return };
        if source.asked.iter().any(|asked| asked.piece == piece) {
            source.asked.retain(|asked| asked.piece != piece);
            source.rest(now);
            self.no_longer_alone(now, key);
        }
    }

    /// A peer is gone. What it sent stays.
    pub fn handle_closed(&mut self, now: Instant, key: PeerKey) {
        if self.sources.remove(&key).is_some() {
            self.no_longer_alone(now, key);
            self.plan(now);
        }
    }

    /// Time has passed.
    pub fn handle_timeout(&mut self, now: Instant) {
        for source in self.sources.values_mut() {
            let before = source.asked.len();
            source.asked.retain(|asked| now.saturating_duration_since(asked.at) < GIVE_UP);
            if source.asked.len() < before {
                source.rest(now);
            }
        }
        let others_wait = self
            .attempts
            .iter()
            .any(|attempt| !attempt.is_begun() && is_anybody_ready(&self.sources, now, attempt.size));
        let stale = if others_wait { STALE_IF_OTHERS_WAIT } else { STALE };
        for attempt in self.attempts.iter_mut().filter(|attempt| attempt.is_begun()) {
            let idle = now.saturating_duration_since(attempt.progress);
            let stalled = attempt.alone.filter(|_| idle >= stale.min(ALONE_STALL));
            // Who says nothing must not come before those who once helped a liar, again and again.
            if let Some(silent) = stalled.and_then(|key| self.sources.get_mut(&key)) {
                silent.suspicion += 1;
            }
            if idle >= stale {
                attempt.drop_pieces();
            } else if stalled.is_some() {
                attempt.change_alone(now);
            }
        }
        self.plan(now);
    }

    /// What is to be asked for now, and of whom. It counts as asked.
    pub fn requests(&mut self, now: Instant) -> Vec<(PeerKey, u32)> {
        let mut requests = Vec::new();
        for at in 0..self.attempts.len() {
            if self.attempts[at].is_begun() {
                self.choose_alone(now, at);
                self.ask_for(now, at, &mut requests);
            }
        }
        requests
    }

    /// A peer that has lied for certain.
    pub fn poll_convicted(&mut self) -> Option<PeerKey> {
        self.convicted.pop()
    }

    /// How far it has come.
    pub fn progress(&self) -> MetadataProgress {
        let best = self.attempts.iter().find(|attempt| attempt.is_begun()).or(self.attempts.first());
        let here = best.map_or(0, |attempt| attempt.pieces.len() - attempt.missing);
        MetadataProgress {
            sources: u32::try_from(self.sources.len()).unwrap_or(u32::MAX),
            pieces: u32::try_from(here).unwrap_or(u32::MAX),
            piece_count: best.map_or(0, |attempt| piece_count(attempt.size)),
        }
    }

    /// Keeps one attempt for each size that is named, gives memory to those that come first, and takes none away.
    fn plan(&mut self, now: Instant) {
        let backers = |size: u32| self.sources.values().filter(|source| source.size == size).count();
        // What has come of a size that nobody names any more may yet be completed by the next who does.
        self.attempts.retain(|attempt| attempt.is_begun() || backers(attempt.size) > 0);
        for source in self.sources.values() {
            if !self.attempts.iter().any(|attempt| attempt.size == source.size) {
                self.attempts.push(Attempt::new(now, source.size));
            }
        }
        let ready = |attempt: &Attempt| attempt.is_begun() || is_anybody_ready(&self.sources, now, attempt.size);
        self.attempts.sort_by_cached_key(|attempt| {
            let begun = attempt.is_begun();
            (!ready(attempt), !begun, Reverse(backers(attempt.size)), attempt.size)
        });
        let (mut left, mut begun) = (self.allowance, 0);
        for attempt in &mut self.attempts {
            if begun < MAX_ATTEMPTS && ready(attempt) && memory(attempt.size) <= left {
                left -= memory(attempt.size);
                begun += 1;
                if !attempt.is_begun() {
                    attempt.begin(now);
                }
            }
        }
    }

    /// Chooses who is asked alone, where only one may be.
    fn choose_alone(&mut self, now: Instant, at: usize) {
        let attempt = &mut self.attempts[at];
        if attempt.exclusive && attempt.alone.is_none() {
            let ready = self.sources.iter().filter(|(_, s)| s.size == attempt.size && s.is_ready(now));
            attempt.alone = ready.min_by_key(|(_, source)| source.suspicion).map(|(key, _)| *key);
            attempt.progress = now;
        }
    }

    /// Asks the sources of one attempt for as much as they may be asked, the least busy first.
    fn ask_for(&mut self, now: Instant, at: usize, requests: &mut Vec<(PeerKey, u32)>) {
        let attempt = &self.attempts[at];
        let mut out: BTreeMap<u32, Vec<(PeerKey, Instant)>> = BTreeMap::new();
        for (key, source) in self.sources.iter().filter(|(_, source)| source.size == attempt.size) {
            for asked in &source.asked {
                out.entry(asked.piece).or_default().push((*key, asked.at));
            }
        }
        let may_ask = |key: PeerKey| !attempt.exclusive || attempt.alone == Some(key);
        let mut askable: Vec<PeerKey> = self.sources.keys().copied().filter(|key| may_ask(*key)).collect();
        loop {
            askable.retain(|key| self.sources.get(key).is_some_and(|s| s.size == attempt.size && s.is_ready(now)));
            let busy = |key: &PeerKey| self.sources.get(key).map_or(0, |source| source.asked.len());
            let Some(key) = askable.iter().copied().min_by_key(busy) else { return };
            let Some(piece) = next_piece(now, attempt, key, &out) else {
                askable.retain(|other| *other != key);
                continue;
            };
            out.entry(piece).or_default().push((key, now));
            if let Some(source) = self.sources.get_mut(&key) {
                source.asked.push(Asked { piece, at: now });
            }
            requests.push((key, piece));
        }
    }

    /// All pieces of an attempt are there.
    fn judge(&mut self, now: Instant, size: u32) -> Fetched {
        let Some(attempt) = self.attempts.iter_mut().find(|attempt| attempt.size == size) else {
            return Fetched::More;
        };
        let slices: Vec<&[u8]> = attempt.pieces.iter().flatten().map(|piece| &*piece.data).collect();
        let v1 = self.wanted.as_v1().map(|wanted| sha1(&slices) == wanted.0);
        let v2 = self.wanted.as_v2().map(|wanted| sha256(&slices) == wanted.0);
        match (v1, v2) {
            (Some(true), Some(true) | None) | (None, Some(true)) => Fetched::Whole(slices.concat()),
            (Some(true), Some(false)) | (Some(false), Some(true)) => Fetched::Contradiction,
            (Some(false), Some(false) | None) | (None, Some(false) | None) => {
                let senders = attempt.senders();
                attempt.exclusive |= senders.len() > 1;
                attempt.change_alone(now);
                if let [liar] = senders.as_slice() {
                    self.convict(now, *liar);
                }
                for key in senders {
                    if let Some(source) = self.sources.get_mut(&key) {
                        source.suspicion += 1;
                    }
                }
                Fetched::More
            }
        }
    }

    /// A peer answered what cannot be, whatever the dictionary is.
    fn offend(&mut self, now: Instant, key: PeerKey) {
        let Some(source) = self.sources.get_mut(&key) else { return };
        source.offences += 1;
        source.rest(now);
        if source.offences >= MAX_OFFENCES {
            self.convict(now, key);
        } else {
            self.no_longer_alone(now, key);
        }
    }

    fn convict(&mut self, now: Instant, key: PeerKey) {
        self.convicted.push(key);
        self.handle_closed(now, key);
    }

    fn no_longer_alone(&mut self, now: Instant, key: PeerKey) {
        for attempt in self.attempts.iter_mut().filter(|attempt| attempt.alone == Some(key)) {
            attempt.change_alone(now);
        }
    }
}

/// Whether somebody who names this size may be asked now.
fn is_anybody_ready(sources: &BTreeMap<PeerKey, Source>, now: Instant, size: u32) -> bool {
    sources.values().any(|source| source.size == size && source.is_ready(now))
}

/// What `key` is to be asked for: the first piece that nobody in time is asked for, else one that another peer has not
/// sent for a while. `out` is who was asked for what.
fn next_piece(
    now: Instant,
    attempt: &Attempt,
    key: PeerKey,
    out: &BTreeMap<u32, Vec<(PeerKey, Instant)>>,
) -> Option<u32> {
    let missing = (0u32..).zip(&attempt.pieces).filter(|(_, piece)| piece.is_none()).map(|(number, _)| number);
    let mut doubled = None;
    for piece in missing {
        let asked = out.get(&piece).map_or([].as_slice(), Vec::as_slice);
        if asked.iter().any(|(other, _)| *other == key) {
            continue;
        }
        let in_time: Vec<Duration> =
            asked.iter().map(|(_, at)| now.saturating_duration_since(*at)).filter(|age| *age < LAPSE).collect();
        match in_time.as_slice() {
            [] => return Some(piece),
            [age] if *age >= DOUBLE => doubled = doubled.or(Some(piece)),
            _ => {}
        }
    }
    doubled
}

#[cfg(test)]
#[path = "metadata_tests.rs"]
mod tests;
