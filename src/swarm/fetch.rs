//! What is fetched from web seeds: asking, taking, and what becomes of those that fail.

use std::time::{Duration, Instant};

use super::bans::Identity;
use super::blame::Sender;
use super::picker::{Ask, RunAsk};
use super::requests::{DROP_TIME, SNUB_TIME};
use super::web_seed::{
    FIRST_BLOCKS, Fetch, FetchOutcome, Lane, MAX_REST, MAX_WEB_SEEDS, Pace, UnderWay, WebSeed, WebSeedSummary,
};
use super::{Action, CloseReason, Swarm};
use crate::base::{BLOCK_LEN, Bitfield, Block, BlockBuf, PeerKey, RateMeter};

/// Of the memory for blocks all fetches together may be asked for one part in so many: peers need some, too ...
const ALL_FETCHES: usize = 2;
/// ... and each for one in so many.
const ONE_FETCH: usize = 8;

/// Of what is missing a fetch is for one part in so many at most, so that all who send end at about the same time.
const OF_MISSING: usize = 4;

/// While there is memory for fewer blocks than this, none are asked for, unless no more are wanted: each fetch is a request.
const WORTH_ASKING: usize = 16;

impl Swarm {
    /// A server has the torrent's files. Returns its number, from 0 on; none if there are enough already, or before the
    /// swarm is [open](Swarm::open).
    pub fn add_web_seed(&mut self, now: Instant) -> Option<u32> {
        let number = u32::try_from(self.web_seeds.seeds.len()).ok().filter(|n| (*n as usize) < MAX_WEB_SEEDS)?;
        if !self.is_open() {
            return None;
        }
        let pieces = self.geometry.piece_count();
        let have = Bitfield::full(pieces);
        let counted = Some(self.picker.add_peer(&have));
        // Others may fetch from it, too: what we get first should not be what they get first (BEP 19).
        let next = self.geometry.piece(self.web_seeds.rng.u32(..pieces)).ok();
        let (lanes, pace, banned, down) = (Vec::new(), Pace::default(), false, RateMeter::new(now));
        self.web_seeds.seeds.push(WebSeed { have, counted, lanes, pace, banned, down, next });
        self.fetch_more(now);
        Some(number)
    }

    /// Buffers for the next of a fetch's `blocks`, in their order; none for those that are here by now. Fewer than `blocks`
    /// only for want of memory: then the fetch waits.
    pub fn lend(&mut self, key: PeerKey, blocks: &[Block], lent: &mut impl Extend<(Block, Option<BlockBuf>)>) {
        let Some(fetch) = self.web_seeds.lanes.get_mut(&key).and_then(|lane| lane.fetch.as_mut()) else { return };
        for block in blocks {
            let buf = if self.picker.is_requested_by(key, *block) {
                let Some(buf) = self.pool.take(block.len()) else { return };
                fetch.lent += 1;
                self.receiving += 1;
                Some(buf)
            } else {
                self.totals.wasted += u64::from(block.len());
                None
            };
            lent.extend([(*block, buf)]);
        }
    }

    /// A fetch that brings no block is alive nevertheless: it waits for leave of a rate limit, or for memory.
    pub fn handle_fetch_waits(&mut self, now: Instant, key: PeerKey) {
        if let Some(fetch) = self.web_seeds.lanes.get_mut(&key).and_then(|lane| lane.fetch.as_mut()) {
            fetch.last = now;
        }
    }

    /// A block of a fetch is in, in the buffer that [`Swarm::lend`] gave for it.
    pub fn handle_fetched(&mut self, now: Instant, key: PeerKey, block: Block, data: BlockBuf) {
        let Some(lane) = self.web_seeds.lanes.get_mut(&key) else { return };
        let Some(fetch) = &mut lane.fetch else { return };
        let len = u64::from(block.len());
        fetch.lent = fetch.lent.saturating_sub(1);
        self.receiving = self.receiving.saturating_sub(1);
        fetch.bytes += len;
        (fetch.last, fetch.late) = (now, false);
        self.totals.down.add(now, len);
        let identity = Identity::WebSeed(lane.web_seed);
        if let Some(seed) = self.web_seeds.seeds.get_mut(lane.web_seed as usize) {
            seed.down.add(now, len);
            seed.pace.useful();
        }
        self.take_block(now, Sender { identity, key }, block, data);
    }

    /// A fetch has ended, with buffers that it did not use. Returns for how long its web seed is left alone, if that is new.
    pub fn handle_fetch_ended(
        &mut self,
        now: Instant,
        key: PeerKey,
        outcome: &FetchOutcome,
        unused: impl IntoIterator<Item = BlockBuf>,
    ) -> Option<Duration> {
        let lane = self.web_seeds.lanes.get_mut(&key)?;
        let number = lane.web_seed;
        let mut fetch = lane.fetch.take()?;
        self.receiving = self.receiving.saturating_sub(fetch.lent);
        for buf in unused {
            fetch.lent = fetch.lent.saturating_sub(1);
            self.pool.give(buf);
        }
        self.pool.forget(fetch.lent);
        let freed = self.picker.release_peer(key) > 0;
        let rest = self.judge(now, number, &fetch, outcome);
        if rest.is_some() {
            self.count_web_seed(number, false);
        }
        if freed {
            self.refill_all(now);
        } else {
            self.fetch_more(now);
        }
        rest
    }

    fn judge(&mut self, now: Instant, number: u32, fetch: &UnderWay, outcome: &FetchOutcome) -> Option<Duration> {
        let others = self.web_seeds.active(number);
        let rng = &mut self.web_seeds.rng;
        let seed = self.web_seeds.seeds.get_mut(number as usize)?;
        match outcome {
            // It brought nothing for too long: whatever ended it, that is what is wrong with it.
            FetchOutcome::GivenUp if fetch.late => seed.pace.failed(now, fetch.bytes > 0, rng),
            FetchOutcome::GivenUp => None,
            FetchOutcome::Done => {
                seed.pace.done(fetch.bytes, now.saturating_duration_since(fetch.began));
                None
            }
            FetchOutcome::Busy(after) => seed.pace.busy(now, *after, others, rng),
            FetchOutcome::Failed => seed.pace.failed(now, fetch.bytes > 0, rng),
            FetchOutcome::Lacks(pieces) => {
                let too_many = seed.pace.lacks();
                if let Some(counted) = seed.counted.take() {
                    self.picker.remove_peer(counted, &seed.have);
                }
                for piece in pieces.clone().map_while(|piece| self.geometry.piece(piece).ok()) {
                    seed.have.clear(piece);
                }
                if !self.picker.is_interesting(&seed.have) {
                    seed.pace.rest(now, MAX_REST)
                } else if too_many {
                    seed.pace.failed(now, false, rng)
                } else {
                    self.count_web_seed(number, true);
                    None
                }
            }
        }
    }

    /// Counts a web seed among those that have pieces, or not while it is left alone.
    fn count_web_seed(&mut self, number: u32, present: bool) {
        let Some(seed) = self.web_seeds.at_mut(number) else { return };
        if !present {
            if let Some(counted) = seed.counted.take() {
                self.picker.remove_peer(counted, &seed.have);
            }
        } else if seed.counted.is_none() && !seed.banned && seed.pace.rest_until().is_none() {
            seed.counted = Some(self.picker.add_peer(&seed.have));
        }
    }

    /// Never asks a web seed again.
    pub(super) fn ban_web_seed(&mut self, number: u32) {
        let Some(seed) = self.web_seeds.at_mut(number).filter(|seed| !seed.banned) else { return };
        seed.banned = true;
        for key in seed.lanes.clone() {
            self.close_fetch(key, CloseReason::BadData);
        }
        self.count_web_seed(number, false);
        self.actions.push_back(Action::WebSeedBanned(number));
    }

    /// Tells a fetch to end, if there is one.
    pub(super) fn close_fetch(&mut self, key: PeerKey, reason: CloseReason) {
        let fetch = self.web_seeds.lanes.get_mut(&key).and_then(|lane| lane.fetch.as_mut());
        if let Some(fetch) = fetch.filter(|fetch| !fetch.closing) {
            fetch.closing = true;
            self.close(key, reason);
        }
    }

    /// Tells all fetches to end.
    pub(super) fn close_fetches(&mut self, reason: CloseReason) {
        let keys: Vec<PeerKey> = self.web_seeds.lanes.keys().copied().collect();
        keys.into_iter().for_each(|key| self.close_fetch(key, reason));
    }

    /// Somebody else sent what lane `key` was asked, too.
    pub(super) fn fetch_needs_less(&mut self, key: PeerKey) {
        if self.picker.asked_of(key) == 0 {
            self.close_fetch(key, CloseReason::NotNeeded);
        }
    }

    /// Fetches that bring nothing, web seeds whose rest is over.
    pub(super) fn look_after_web_seeds(&mut self, now: Instant) {
        let mut dead = Vec::new();
        for (key, lane) in &mut self.web_seeds.lanes {
            let Some(fetch) = &mut lane.fetch else { continue };
            let silence = now.saturating_duration_since(fetch.last);
            if silence >= SNUB_TIME && !fetch.late {
                fetch.late = true;
                self.picker.lapse_peer(*key);
            }
            if silence >= DROP_TIME {
                dead.push(*key);
            }
        }
        for key in dead {
            self.close_fetch(key, CloseReason::Stalled);
        }
        for number in 0..self.web_seeds.seeds.len() {
            let Some(seed) = self.web_seeds.seeds.get_mut(number).filter(|seed| !seed.banned) else { continue };
            if seed.pace.wakes(now) {
                if !self.picker.is_interesting(&seed.have) {
                    // That was long ago; what it lacked may be there now.
                    seed.have = Bitfield::full(self.geometry.piece_count());
                }
                self.count_web_seed(u32::try_from(number).unwrap_or(u32::MAX), true);
            }
        }
    }

    /// Begins as many fetches as web seeds and memory allow.
    pub(super) fn fetch_more(&mut self, now: Instant) {
        if self.fetches_nothing() || self.picker.is_complete() {
            return;
        }
        self.web_seeds.starved = false;
        let mut passed = Vec::new();
        while let Some(number) = self.web_seeds.next(&passed) {
            if !self.fetch(now, number) {
                passed.push(number);
            }
        }
    }

    /// Begins one fetch. False if there is nothing to fetch, or no memory for it.
    fn fetch(&mut self, now: Instant, number: u32) -> bool {
        let Some(seed) = self.web_seeds.seeds.get(number as usize) else { return false };
        let Some(count) = self.fetch_len(&seed.pace) else {
            self.web_seeds.starved = true;
            return false;
        };
        let key = self.lane(number);
        let idle = self.web_seeds.active(number) == 0;
        let may_open = self.may_open();
        self.picked.clear();
        self.pick_run(number, key, count, may_open);
        if self.picked.is_empty() && idle {
            // Rather than leave it idle, open a piece that there is no room for, as for peers.
            let may_open = self.may_open_anyway(may_open);
            if may_open > 0 {
                self.pick_run(number, key, count, may_open);
            }
        }
        self.web_seeds.starved |= self.picked.len() < count && may_open < count;
        self.picked.sort_unstable();
        let (Some(last), Some(lane)) = (self.picked.last(), self.web_seeds.lanes.get_mut(&key)) else { return false };
        lane.fetch = Some(UnderWay::new(now));
        if let Some(seed) = self.web_seeds.seeds.get_mut(number as usize) {
            seed.next = self.geometry.piece(last.piece().get() + 1).ok();
        }
        self.actions.push_back(Action::Fetch(Fetch { key, web_seed: number, blocks: self.picked.clone() }));
        true
    }

    /// How many blocks a fetch is to bring; none if memory is so scarce that it is better to wait.
    fn fetch_len(&self, pace: &Pace) -> Option<usize> {
        let ceiling = self.pool.ceiling();
        let most = (ceiling / ONE_FETCH).max(1);
        let whole_pieces = |blocks: usize, least: usize| match self.piece_blocks() {
            piece if piece <= blocks.max(least) => blocks.max(least) / piece * piece,
            _ => blocks,
        };
        let missing = self.piece_blocks().saturating_mul(self.picker.missing_wanted() as usize);
        let wanted = usize::try_from(pace.range() / u64::from(BLOCK_LEN)).unwrap_or(most);
        let wanted = wanted.min((missing / OF_MISSING).max(FIRST_BLOCKS)).clamp(1, most);
        // Of a server that was never asked not even a piece.
        let wanted = if pace.rate() == 0 { wanted } else { whole_pieces(wanted, self.piece_blocks().min(most)) };
        let asked: usize = self.web_seeds.lanes.keys().map(|key| self.picker.asked_of(*key)).sum();
        let room = (ceiling / ALL_FETCHES).max(1).saturating_sub(asked).min(self.may_ask()).min(wanted);
        let room = (room >= wanted.min(WORTH_ASKING)).then_some(room)?;
        Some(if pace.rate() == 0 { room } else { whole_pieces(room, 0) })
    }

    /// A lane of a web seed that has nothing to do: a new one if need be.
    fn lane(&mut self, number: u32) -> PeerKey {
        let idle = |(_, lane): &(&PeerKey, &Lane)| lane.web_seed == number && lane.fetch.is_none();
        if let Some(key) = self.web_seeds.lanes.iter().filter(idle).map(|(key, _)| *key).min() {
            return key;
        }
        let key = self.peers.reserve();
        self.web_seeds.lanes.insert(key, Lane { web_seed: number, fetch: None });
        if let Some(seed) = self.web_seeds.at_mut(number) {
            seed.lanes.push(key);
        }
        key
    }

    fn pick_run(&mut self, number: u32, key: PeerKey, count: usize, may_open: usize) {
        let Some(seed) = self.web_seeds.seeds.get(number as usize) else { return };
        let rate = seed.pace.rate();
        let ask = Ask { peer: key, have: &seed.have, allowed: None, suggested: &[], count, may_open, fast: true, rate };
        self.picker.pick_run(&RunAsk { ask, kin: &seed.lanes, from: seed.next }, &mut self.picked);
    }

    /// Every web seed, by number.
    pub fn web_seeds(&mut self, now: Instant) -> Vec<WebSeedSummary> {
        let active: Vec<usize> =
            (0u32..).take(self.web_seeds.seeds.len()).map(|number| self.web_seeds.active(number)).collect();
        let seeds = self.web_seeds.seeds.iter_mut().zip(active);
        seeds
            .map(|(seed, fetches)| WebSeedSummary {
                down_rate: seed.down.rate(now),
                downloaded: seed.down.total(),
                fetches,
                banned: seed.banned,
                rest_until: seed.pace.rest_until(),
            })
            .collect()
    }
}
