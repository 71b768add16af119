//! Web seeds (BEP 17, BEP 19): how much one is asked for at once, and how long it is left alone when it fails.
//!
//! A web seed is a server that has the files. It has *lanes*: requests that run side by side, each a source of its own for
//! the picker. What a lane is asked for at once is a [`Fetch`]; the next one begins when it has ended.
//!
//! ```text
//! lanes   1, one more with each fetch that succeeds, up to MAX_LANES; fewer if the server says that it is too much
//! fetch   256 KiB at first, then what the lane delivers in RANGE_TIME, up to 16 MiB; whole pieces where these are shorter
//! rest    5 s after a failure, doubling to half an hour; 1 s if something came; what the server says if it is too busy
//! ```

use std::ops::Range;
use std::time::{Duration, Instant};

use fastrand::Rng;
use rustc_hash::FxHashMap;

use super::picker::Counted;
use crate::base::{BLOCK_LEN, Bitfield, Block, PeerKey, PieceIndex, RateMeter};

/// Web seeds of a torrent that are used: a torrent may name hundreds, and all may be the same server.
pub const MAX_WEB_SEEDS: usize = 100;
/// Requests to one web seed at once: what browsers do, and less than most servers allow.
pub const MAX_LANES: usize = 4;
/// Requests to all web seeds of a torrent at once.
pub const MAX_FETCHES: usize = 8;
/// What a web seed is asked for at first, in bytes: if nothing comes of it, endgame can have that much from others.
pub const FIRST_RANGE: u64 = FIRST_BLOCKS as u64 * BLOCK_LEN as u64;
/// The same in blocks. A fetch is never for less, unless there is less.
pub(super) const FIRST_BLOCKS: usize = 16;
/// What a web seed is asked for at once, at most, in bytes: on any line more would save nothing.
pub const MAX_RANGE: u64 = 16 << 20;
/// How long a fetch is meant to last: long enough that the time to ask hardly counts, short enough that the last ones do
/// not hold up the end.
pub const RANGE_TIME: Duration = Duration::from_secs(4);
/// How long a web seed is left alone after it failed once ...
pub const FIRST_REST: Duration = Duration::from_secs(5);
/// ... or broke off, having sent something ...
pub const USEFUL_REST: Duration = Duration::from_secs(1);
/// ... and at most, whatever it says.
pub const MAX_REST: Duration = Duration::from_secs(30 * 60);
/// So many files in a row that a web seed does not have count as a failure: it might lack a million.
pub const MAX_LACKS: u32 = 8;

/// Something to be fetched from a web seed: blocks in the order of the torrent, most of them side by side.
#[derive(Clone, Debug)]
pub struct Fetch {
    /// Names the lane, and with it the fetch, until [`Swarm::handle_fetch_ended`](super::Swarm::handle_fetch_ended).
    pub key: PeerKey,
    /// Which web seed, by the number that [`Swarm::add_web_seed`](super::Swarm::add_web_seed) gave it.
    pub web_seed: u32,
    /// What is wanted.
    pub blocks: Vec<Block>,
}

/// How a fetch ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FetchOutcome {
    /// All of it came.
    Done,
    /// The server has too much to do, and perhaps said for how long.
    Busy(Option<Duration>),
    /// No connection, or no sensible answer.
    Failed,
    /// The server does not have what these pieces, by number, are made of.
    Lacks(Range<u32>),
    /// We gave it up.
    GivenUp,
}

/// How one web seed does: see the [module](self).
#[derive(Clone, Debug)]
pub struct Pace {
    /// Bytes per second of a lane; 0 while unknown.
    rate: u64,
    lanes: usize,
    most_lanes: usize,
    fails: u32,
    lacks: u32,
    rest_until: Option<Instant>,
}

impl Default for Pace {
    fn default() -> Self {
        Self { rate: 0, lanes: 1, most_lanes: MAX_LANES, fails: 0, lacks: 0, rest_until: None }
    }
}

impl Pace {
    /// Bytes per second of one lane; 0 while unknown.
    pub fn rate(&self) -> u64 {
        self.rate
    }

    /// Fetches at once.
    pub fn lanes(&self) -> usize {
        self.lanes
    }

    /// Bytes of the next fetch.
    pub fn range(&self) -> u64 {
        if self.rate == 0 {
            return FIRST_RANGE;
        }
        self.rate.saturating_mul(RANGE_TIME.as_secs()).clamp(FIRST_RANGE, MAX_RANGE)
    }

    /// Until when it is left alone.
    pub fn rest_until(&self) -> Option<Instant> {
        self.rest_until
    }

    /// It delivered something.
    pub fn useful(&mut self) {
        self.lacks = 0;
    }

    /// A fetch of `bytes` succeeded.
    pub fn done(&mut self, bytes: u64, took: Duration) {
        let rate = u128::from(bytes) * 1_000_000 / took.as_micros().max(1);
        let rate = u64::try_from(rate).unwrap_or(u64::MAX).max(1);
        // Rises at once, falls by and by.
        self.rate = if rate > self.rate { rate } else { self.rate - (self.rate - rate) / 4 };
        self.fails = 0;
        self.lanes = (self.lanes + 1).min(self.most_lanes);
    }

    /// The server says that it has too much to do, while `others` of our fetches go on: then it was one too many. Else it is
    /// left alone for as long as it says. Returns how long, if so.
    pub fn busy(&mut self, now: Instant, after: Option<Duration>, others: usize, rng: &mut Rng) -> Option<Duration> {
        if others > 0 {
            self.most_lanes = others.min(self.most_lanes);
            self.lanes = self.most_lanes;
            return None;
        }
        match after {
            Some(after) => self.rest(now, after.max(Duration::from_secs(1))),
            None => self.failed(now, false, rng),
        }
    }

    /// A fetch failed; `useful` if something came of it. Returns how long it is left alone, unless it is already.
    pub fn failed(&mut self, now: Instant, useful: bool, rng: &mut Rng) -> Option<Duration> {
        if self.rest_until.is_some() {
            return None;
        }
        self.lanes = 1;
        let rest = if useful {
            USEFUL_REST
        } else {
            self.fails = self.fails.saturating_add(1);
            FIRST_REST.saturating_mul(1 << (self.fails - 1).min(16)).min(MAX_REST)
        };
        // A server that comes back should not meet all at once.
        self.rest(now, rest.mul_f64(1.0 + rng.f64() / 4.0))
    }

    /// It does not have a file. True if that is one too many in a row.
    pub fn lacks(&mut self) -> bool {
        self.lacks += 1;
        let too_many = self.lacks >= MAX_LACKS;
        if too_many {
            self.lacks = 0;
        }
        too_many
    }

    /// Leaves it alone.
    pub fn rest(&mut self, now: Instant, time: Duration) -> Option<Duration> {
        let time = time.min(MAX_REST);
        self.rest_until = Some(now + time);
        Some(time)
    }

    /// True once, when its rest is over.
    pub fn wakes(&mut self, now: Instant) -> bool {
        self.rest_until.take_if(|until| *until <= now).is_some()
    }
}

/// A web seed, at one moment.
#[derive(Clone, Debug)]
pub struct WebSeedSummary {
    /// Bytes per second.
    pub down_rate: u64,
    /// Payload received.
    pub downloaded: u64,
    /// Fetches under way.
    pub fetches: usize,
    /// Found to send bad data: never asked again.
    pub banned: bool,
    /// Until when it is left alone.
    pub rest_until: Option<Instant>,
}

/// What the swarm knows of its web seeds.
#[derive(Debug)]
pub(super) struct WebSeeds {
    pub(super) seeds: Vec<WebSeed>,
    /// All lanes there have ever been.
    pub(super) lanes: FxHashMap<PeerKey, Lane>,
    /// A fetch waits for memory.
    pub(super) starved: bool,
    pub(super) rng: Rng,
}

#[derive(Debug)]
pub(super) struct WebSeed {
    /// What it has, for all we know: everything, before it says otherwise.
    pub(super) have: Bitfield,
    /// The picker's proof that it counted that; none while it is left alone.
    pub(super) counted: Option<Counted>,
    pub(super) lanes: Vec<PeerKey>,
    pub(super) pace: Pace,
    pub(super) banned: bool,
    pub(super) down: RateMeter,
    /// Behind what it was asked for last.
    pub(super) next: Option<PieceIndex>,
}

/// See the [module](self).
#[derive(Debug)]
pub(super) struct Lane {
    pub(super) web_seed: u32,
    pub(super) fetch: Option<UnderWay>,
}

/// A fetch under way.
#[derive(Debug)]
pub(super) struct UnderWay {
    pub(super) began: Instant,
    /// When it last brought a block.
    pub(super) last: Instant,
    pub(super) bytes: u64,
    /// Buffers that it holds.
    pub(super) lent: usize,
    /// What it was asked for may be had of others.
    pub(super) late: bool,
    /// It was told to end.
    pub(super) closing: bool,
}

impl UnderWay {
    pub(super) fn new(now: Instant) -> Self {
        Self { began: now, last: now, bytes: 0, lent: 0, late: false, closing: false }
    }
}

impl WebSeeds {
    pub(super) fn new(seed: u64) -> Self {
        Self { seeds: Vec::new(), lanes: FxHashMap::default(), starved: false, rng: Rng::with_seed(seed) }
    }

    pub(super) fn at_mut(&mut self, number: u32) -> Option<&mut WebSeed> {
        self.seeds.get_mut(number as usize)
    }

    /// Fetches under way at web seed `number`.
    pub(super) fn active(&self, number: u32) -> usize {
        self.lanes.values().filter(|lane| lane.web_seed == number && lane.fetch.is_some()).count()
    }

    /// The web seed that should get the next fetch, if one may: who has least to do, and of these who was never asked, or is
    /// the fastest. Not one of `passed`.
    pub(super) fn next(&self, passed: &[u32]) -> Option<u32> {
        let under_way = self.lanes.values().filter(|lane| lane.fetch.is_some()).count();
        if under_way >= MAX_FETCHES {
            return None;
        }
        let seeds = (0u32..).zip(&self.seeds);
        let may = seeds.filter(|(number, seed)| seed.counted.is_some() && !passed.contains(number));
        may.map(|(number, seed)| (self.active(number), seed.pace.rate(), number, seed.pace.lanes()))
            .filter(|(active, _, _, lanes)| active < lanes)
            .min_by_key(|(active, rate, number, _)| (*active, *rate > 0, std::cmp::Reverse(*rate), *number))
            .map(|(_, _, number, _)| number)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_follow_the_rate() {
        let mut pace = Pace::default();
        assert_eq!((pace.range(), pace.lanes()), (FIRST_RANGE, 1));
        let second = Duration::from_secs(1);
        for (rate, range) in [(1 << 20, 4 << 20), (30 << 20, MAX_RANGE), (u64::MAX, MAX_RANGE)] {
            pace.done(rate, second);
            assert_eq!(pace.range(), range);
        }
        assert_eq!(pace.lanes(), MAX_LANES);
        for _ in 0..200 {
            pace.done(10, second);
        }
        assert_eq!((pace.rate() < 20, pace.range()), (true, FIRST_RANGE));
        pace.done(1 << 20, Duration::ZERO);
    }

    #[test]
    fn rests_double_and_end() {
        let mut rng = Rng::with_seed(1);
        let mut now = Instant::now();
        let mut pace = Pace::default();
        for n in 0..40 {
            let rest = pace.failed(now, false, &mut rng).unwrap();
            assert_eq!(pace.failed(now, false, &mut rng), None, "it rests already");
            let least = FIRST_REST.saturating_mul(1 << n.min(16)).min(MAX_REST);
            assert!(rest >= least && rest <= least.mul_f64(1.25).min(MAX_REST), "{n}: {rest:?}");
            assert!(!pace.wakes(now + rest - Duration::from_millis(1)));
            now += rest;
            assert!(pace.wakes(now) && !pace.wakes(now));
        }
        // One that delivers, and breaks off now and then, does not wait long.
        assert!(pace.failed(now, true, &mut rng).unwrap() < USEFUL_REST * 2);
    }

    #[test]
    fn busy_servers_say_for_how_long_or_get_fewer_requests() {
        let mut rng = Rng::with_seed(1);
        let now = Instant::now();
        let mut pace = Pace::default();
        (0..9).for_each(|_| pace.done(1000, Duration::from_secs(1)));
        assert_eq!(pace.busy(now, Some(Duration::from_secs(9)), 2, &mut rng), None);
        pace.done(1000, Duration::from_secs(1));
        assert_eq!(pace.lanes(), 2, "it stays so");
        assert_eq!(pace.busy(now, Some(Duration::from_secs(9)), 0, &mut rng), Some(Duration::from_secs(9)));
        let said = |after| Pace::default().busy(now, Some(after), 0, &mut Rng::with_seed(1)).unwrap();
        assert_eq!((said(Duration::ZERO), said(Duration::MAX)), (Duration::from_secs(1), MAX_REST));
        assert!(Pace::default().busy(now, None, 0, &mut rng).unwrap() >= FIRST_REST);
    }
}
