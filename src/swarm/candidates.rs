//! The addresses that we may dial, and in which order.
//!
//! **Order.** Peers named by the user first. Then the sources take turns, so that ten thousand inventions of one source do not hide
//! the one real peer of another. Within a source: those that were useful before, then the untried, then those that
//! failed; among equals the canonical priority (BEP 40), which makes both ends agree on which connections are worth most.
//!
//! **Bounds.** [`CAPACITY`] addresses. When the list is full a source that holds a quarter of it can only replace its own;
//! one that holds less pushes out the worst of the largest. Addresses given up are forgotten first. Of those that one peer
//! or node names, `MAX_PER_TELLER` are kept at a time.
//!
//! **Manners.** One connection and one dial per minute to each IP address, whatever the port: a list of
//! a thousand ports of one victim is worth one connection a minute. Loopback is exempt, and everybody if asked for.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6};
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::address_filter::{canonical, is_local, may_dial};
use super::bans::{Bans, Identity};
use super::ip_filter::IpFilter;
use super::peer_priority::peer_priority;

/// Addresses of a running torrent (limits.md).
pub const CAPACITY: usize = 3_000;
/// Addresses of a paused torrent (limits.md).
pub const PAUSED_CAPACITY: usize = 1_000;
/// What every source may hold even if it is more than a quarter of a small list.
const SOURCE_FLOOR: usize = 64;
/// Addresses with the same IP: several clients behind one router are real, fifty are an attack.
const MAX_PORTS_PER_IP: usize = 4;
/// Addresses that one peer or node has told us of. Each costs up to three dials: nobody gets to spend more of them.
const MAX_PER_TELLER: usize = 200;
/// Failed dials until an address is given up (limits.md).
const MAX_FAILS: u8 = 3;
/// Least time between two dials to one IP address, and first wait after a failure or a close (limits.md).
const MIN_RECONNECT: Duration = Duration::from_secs(60);
/// The same for local addresses and those named by the user: nobody else is bothered.
const MIN_RECONNECT_LOCAL: Duration = Duration::from_secs(5);
/// Waits double up to this.
const MAX_RECONNECT: Duration = Duration::from_secs(3600);
/// How long an address that was given up is remembered, so that the next announce does not bring it back.
const GIVEN_UP_TIME: Duration = Duration::from_secs(1800);
/// Candidates that [`Candidates::next`] looks at in one call: those that cannot be dialled now are put off.
const MAX_LOOKS: usize = 64;
/// Our own addresses: interfaces, mapped ports, and those that turned out to be us.
const MAX_OWN: usize = 64;

/// Where an address came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Source {
    /// Named by the user. Tried first, never given up.
    Manual,
    /// It connected to us and told its listening port (BEP 10, `p`).
    Incoming,
    /// Local service discovery (BEP 14).
    Lsd,
    /// A tracker (BEP 3, 7, 15, 23).
    Tracker,
    /// The resume file.
    Resume,
    /// Peer exchange (BEP 11).
    Pex,
    /// The DHT (BEP 5).
    Dht,
    /// A magnet link (`x.pe`, BEP 9).
    Magnet,
}

const SOURCES: usize = 8;

impl Source {
    /// Whether it may bring peers of a private torrent (BEP 27).
    fn is_private(self) -> bool {
        match self {
            Self::Manual | Self::Incoming | Self::Tracker | Self::Resume | Self::Magnet => true,
            Self::Lsd | Self::Pex | Self::Dht => false,
        }
    }
}

/// An address to be dialled now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// Where.
    pub addr: SocketAddr,
    /// Who named it first.
    pub source: Source,
    /// Dials that failed since the last success.
    pub fails: u8,
    /// An earlier connection to it was of use.
    pub useful: bool,
}

/// What became of an address that was to be added.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Added {
    /// It is in the list now.
    New,
    /// It was in the list, or has been given up not long ago.
    Known,
    /// It may not be dialled: banned, on the IP filter, ours, not a host's, a service's port, local from afar, too many ports of one IP.
    Refused,
    /// The list is full of addresses that are worth more.
    Full,
}

/// How the list behaves.
#[derive(Clone, Copy, Debug)]
pub struct CandidatesConfig {
    /// Most addresses: [`CAPACITY`] or [`PAUSED_CAPACITY`].
    pub capacity: usize,
    /// Many peers per IP address are expected, as they always are on loopback.
    pub shared_ips: bool,
    /// Dial ports below 1024 other than 80 and 443, whoever named them.
    pub privileged_ports: bool,
}

impl Default for CandidatesConfig {
    fn default() -> Self {
        Self { capacity: CAPACITY, shared_ips: false, privileged_ports: false }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// In `ready`.
    Ready,
    /// In `later`, until then.
    Later(Instant),
    /// In `busy`: being dialled, or connected.
    Busy,
    /// In `given_up`, until then.
    GivenUp(Instant),
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    source: Source,
    /// Who named it, unless many share that address.
    teller: Option<IpAddr>,
    state: State,
    fails: u8,
    /// Connections that were closed since one was useful.
    closes: u8,
    useful: bool,
    priority: u32,
}

impl Entry {
    /// Best first.
    fn rank(&self, addr: SocketAddr) -> Rank {
        let class = if self.fails > 0 { 1 + self.fails } else { u8::from(!self.useful) };
        (class, Reverse(self.priority), addr)
    }
}

type Rank = (u8, Reverse<u32>, SocketAddr);

/// The addresses that we may dial. See the [module](self).
#[derive(Debug)]
pub struct Candidates {
    config: CandidatesConfig,
    seed: u64,
    entries: BTreeMap<SocketAddr, Entry>,
    ready: [BTreeSet<Rank>; SOURCES],
    later: BTreeSet<(Instant, SocketAddr)>,
    given_up: BTreeSet<(Instant, SocketAddr)>,
    counts: [usize; SOURCES],
    /// Addresses that each has named.
    tellers: BTreeMap<IpAddr, usize>,
    /// The source whose turn it was last.
    turn: usize,
    /// Addresses being dialled or connected, whether they are in the list or not.
    busy: BTreeSet<SocketAddr>,
    /// Dials of the last minute, by address and by time.
    dialled: BTreeMap<IpAddr, Instant>,
    dials: VecDeque<(Instant, IpAddr)>,
    own: VecDeque<SocketAddr>,
    external: [Option<SocketAddr>; 2],
    bans: Bans,
    ip_filter: Arc<IpFilter>,
}

impl Candidates {
    /// An empty list. `seed` orders candidates as long as our own address is unknown.
    pub fn new(config: CandidatesConfig, seed: u64) -> Self {
        Self {
            config,
            seed,
            entries: BTreeMap::new(),
            ready: Default::default(),
            later: BTreeSet::new(),
            given_up: BTreeSet::new(),
            counts: [0; SOURCES],
            tellers: BTreeMap::new(),
            turn: 0,
            busy: BTreeSet::new(),
            dialled: BTreeMap::new(),
            dials: VecDeque::new(),
            own: VecDeque::new(),
            external: [None; 2],
            bans: Bans::default(),
            ip_filter: Arc::default(),
        }
    }

    /// Somebody named an address. `told_by` is the tracker, peer or node that did.
    pub fn add(&mut self, now: Instant, addr: SocketAddr, source: Source, told_by: Option<IpAddr>) -> Added {
        let addr = canonical(addr);
        if let Some(entry) = self.entries.get(&addr) {
            if source == Source::Manual && entry.source != Source::Manual {
                self.promote(addr);
            }
            return Added::Known;
        }
        let unwelcome = !may_dial(addr, source, told_by, self.config.privileged_ports)
            || self.own.contains(&addr)
            || self.bans.is_banned(addr)
            || self.ip_filter.blocks(addr.ip())
            || (source != Source::Manual
                && !self.shares_ip(addr.ip())
                && self.entries.range(ports_of(addr)).count() >= MAX_PORTS_PER_IP);
        if unwelcome {
            return Added::Refused;
        }
        self.expire(now);
        // Trackers are few, were chosen by whoever made the torrent, and may be asked through one proxy.
        let teller = told_by.filter(|_| source != Source::Tracker).map(|ip| ip.to_canonical());
        let teller = teller.filter(|ip| !self.shares_ip(*ip));
        if teller.is_some_and(|ip| self.tellers.get(&ip).is_some_and(|count| *count >= MAX_PER_TELLER)) {
            return Added::Full;
        }
        let state = if self.busy.contains(&addr) { State::Busy } else { State::Ready };
        let priority = self.priority(addr);
        let entry = Entry { source, teller, state, fails: 0, closes: 0, useful: false, priority };
        if self.entries.len() >= self.config.capacity && !self.make_room(source, entry.rank(addr)) {
            return Added::Full;
        }
        self.counts[source as usize] += 1;
        if let Some(ip) = teller {
            *self.tellers.entry(ip).or_default() += 1;
        }
        if state == State::Ready {
            self.ready[source as usize].insert(entry.rank(addr));
        }
        self.entries.insert(addr, entry);
        Added::New
    }

    /// The address to dial next; it counts as being dialled until [`Candidates::connected`], [`Candidates::failed`] or
    /// [`Candidates::closed`]. How many per second is the caller's affair. `None` when nobody can be dialled now:
    /// see [`Candidates::next_at`].
    pub fn next(&mut self, now: Instant) -> Option<Candidate> {
        self.expire(now);
        for _ in 0..MAX_LOOKS {
            let source = self.next_source()?;
            let (_, _, addr) = self.ready[source].pop_first()?;
            if self.bans.is_banned(addr) || self.own.contains(&addr) {
                self.forget(addr);
                continue;
            }
            if let Some(free_at) = self.ip_free_at(addr.ip(), now) {
                self.put_off(addr, free_at);
                continue;
            }
            let Some(entry) = self.entries.get_mut(&addr) else { continue };
            entry.state = State::Busy;
            self.turn = source;
            self.busy.insert(addr);
            if !self.shares_ip(addr.ip()) {
                self.dialled.insert(addr.ip(), now);
                self.dials.push_back((now, addr.ip()));
            }
            let entry = self.entries.get(&addr)?;
            return Some(Candidate { addr, source: entry.source, fails: entry.fails, useful: entry.useful });
        }
        None
    }

    /// When to call [`Candidates::next`] again after `None`: the first wait that ends.
    pub fn next_at(&self) -> Option<Instant> {
        self.later.first().map(|later| later.0)
    }

    /// Whether somebody may be ready to be dialled without waiting.
    pub fn has_ready(&self) -> bool {
        self.ready.iter().any(|ready| !ready.is_empty())
    }

    /// A connection to or from `addr` is up. Call it once more with the address where an incoming peer listens, as
    /// soon as that is known, and [`Candidates::closed`] for both, so that it is not dialled meanwhile.
    pub fn connected(&mut self, addr: SocketAddr) {
        let addr = canonical(addr);
        self.busy.insert(addr);
        self.take_out(addr);
        if let Some(entry) = self.entries.get_mut(&addr) {
            entry.state = State::Busy;
            entry.fails = 0;
        }
    }

    /// The dial to `addr` failed, before the end of the handshake.
    pub fn failed(&mut self, addr: SocketAddr, now: Instant) {
        let addr = canonical(addr);
        self.busy.remove(&addr);
        self.take_out(addr);
        let Some(entry) = self.entries.get_mut(&addr) else { return };
        entry.fails = entry.fails.saturating_add(1).min(16);
        if entry.fails >= MAX_FAILS && entry.source != Source::Manual {
            let until = now + GIVEN_UP_TIME;
            entry.state = State::GivenUp(until);
            self.given_up.insert((until, addr));
            return;
        }
        let wait = wait_after(addr, entry.source, entry.fails);
        self.put_off(addr, now + wait);
    }

    /// The connection with `addr` is closed. `was_useful`: payload went over it, in either direction.
    pub fn closed(&mut self, addr: SocketAddr, now: Instant, was_useful: bool) {
        let addr = canonical(addr);
        self.busy.remove(&addr);
        self.take_out(addr);
        let Some(entry) = self.entries.get_mut(&addr) else { return };
        entry.closes = if was_useful { 1 } else { entry.closes.saturating_add(1).min(16) };
        entry.useful |= was_useful;
        let wait = wait_after(addr, entry.source, entry.closes);
        self.put_off(addr, now + wait);
    }

    /// Forgets the addresses from sources that a private torrent must not have (BEP 27). Returns those that are being dialled
    /// or connected.
    pub fn forget_strangers(&mut self) -> Vec<SocketAddr> {
        let strangers: Vec<(SocketAddr, State)> =
            self.entries.iter().filter(|(_, e)| !e.source.is_private()).map(|(addr, e)| (*addr, e.state)).collect();
        for (addr, _) in &strangers {
            self.forget(*addr);
        }
        strangers.into_iter().filter(|(_, state)| *state == State::Busy).map(|(addr, _)| addr).collect()
    }

    /// Bans a peer, and forgets its addresses.
    pub fn ban(&mut self, who: Identity) {
        self.bans.ban(who);
        let addrs: Vec<_> = match who {
            Identity::Ip(ip) => self.entries.range(ports_of(SocketAddr::new(ip, 0))).map(|(&addr, _)| addr).collect(),
            Identity::Addr(addr) => vec![addr],
            Identity::WebSeed(_) => vec![],
        };
        for addr in addrs {
            self.forget(addr);
        }
    }

    /// Whom nobody may connect to or from from now on, not even if the user named him as a peer. Addresses that are known
    /// already are forgotten.
    pub fn set_ip_filter(&mut self, ip_filter: Arc<IpFilter>) {
        self.ip_filter = ip_filter;
        let addrs: Vec<_> = self.entries.keys().filter(|addr| self.is_filtered(**addr)).copied().collect();
        for addr in addrs {
            self.forget(addr);
        }
    }

    /// Whether `addr` is on the IP filter.
    pub fn is_filtered(&self, addr: SocketAddr) -> bool {
        self.ip_filter.blocks(addr.ip())
    }

    /// Whether `addr` is ours.
    pub fn is_own(&self, addr: SocketAddr) -> bool {
        self.own.contains(&canonical(addr))
    }

    /// Whether nothing speaks against a connection with `addr`: it is not ours, not banned, not on the IP filter.
    pub fn is_welcome(&self, addr: SocketAddr) -> bool {
        !self.is_own(addr) && !self.is_banned(addr) && !self.is_filtered(addr)
    }

    /// Whether the peer at `addr` is banned.
    pub fn is_banned(&self, addr: SocketAddr) -> bool {
        self.bans.is_banned(addr)
    }

    /// The identity of the peer at `addr`, by which it is blamed and banned.
    pub fn identity(&self, addr: SocketAddr) -> Identity {
        Identity::of(canonical(addr), self.config.shared_ips)
    }

    /// `addr` is ours: an address that we listen at, or a peer that turned out to have our peer id. Never dialled.
    pub fn add_own(&mut self, addr: SocketAddr) {
        let addr = canonical(addr);
        if !self.own.contains(&addr) {
            self.own.push_back(addr);
            if self.own.len() > MAX_OWN {
                self.own.pop_front();
            }
        }
        self.forget(addr);
    }

    /// Our address and port as others see them: from now on the order is that of BEP 40 for this family.
    pub fn set_external(&mut self, addr: SocketAddr) {
        let addr = canonical(addr);
        self.external[usize::from(addr.is_ipv6())] = Some(addr);
        let addrs: Vec<_> = self.entries.keys().filter(|a| a.is_ipv6() == addr.is_ipv6()).copied().collect();
        for addr in addrs {
            let priority = self.priority(addr);
            let Some(entry) = self.entries.get_mut(&addr) else { continue };
            let old = entry.rank(addr);
            entry.priority = priority;
            let ready = &mut self.ready[entry.source as usize];
            if ready.remove(&old) {
                ready.insert(entry.rank(addr));
            }
        }
    }

    /// Changes the most addresses that are kept; the worst go if there are more.
    pub fn set_capacity(&mut self, capacity: usize) {
        self.config.capacity = capacity;
        while self.entries.len() > capacity {
            let Some(victim) = self.largest_source().and_then(|source| self.worst_of(source)) else { break };
            self.forget(victim);
        }
    }

    /// Addresses that may still be dialled, or are: those given up do not count.
    pub fn len(&self) -> usize {
        self.entries.len() - self.given_up.len()
    }

    /// Whether there is nobody to dial, now or later.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The addresses worth remembering over a restart, the useful ones first.
    pub fn remembered(&self) -> Vec<SocketAddr> {
        let mut alive: Vec<_> =
            self.entries.iter().filter(|(_, e)| !matches!(e.state, State::GivenUp(_)) && e.fails == 0).collect();
        alive.sort_by_key(|(_, entry)| !entry.useful);
        alive.into_iter().map(|(addr, _)| *addr).collect()
    }

    fn shares_ip(&self, ip: IpAddr) -> bool {
        self.config.shared_ips || ip.is_loopback()
    }

    fn is_ip_busy(&self, ip: IpAddr) -> bool {
        self.busy.range(ports_of(SocketAddr::new(ip, 0))).next().is_some()
    }

    /// `None` if `ip` may be dialled now, else when to look again.
    fn ip_free_at(&self, ip: IpAddr, now: Instant) -> Option<Instant> {
        if self.shares_ip(ip) {
            return None;
        }
        if self.is_ip_busy(ip) {
            return Some(now + MIN_RECONNECT);
        }
        let spacing = if is_local(ip) { MIN_RECONNECT_LOCAL } else { MIN_RECONNECT };
        self.dialled.get(&ip).map(|&at| at + spacing).filter(|&free_at| free_at > now)
    }

    /// BEP 40 if we know our address, else an order that nobody can foresee.
    fn priority(&self, addr: SocketAddr) -> u32 {
        let known = self.external[usize::from(addr.is_ipv6())].and_then(|ours| peer_priority(ours, addr));
        known.unwrap_or_else(|| {
            let bytes = match addr.ip() {
                IpAddr::V4(v4) => u128::from(v4.to_bits()),
                IpAddr::V6(v6) => v6.to_bits(),
            };
            let mixed = bytes ^ bytes >> 64 ^ u128::from(addr.port()) << 32;
            let low = u64::try_from(mixed & u128::from(u64::MAX)).unwrap_or(0);
            fastrand::Rng::with_seed(self.seed ^ low.wrapping_mul(0x9e37_79b9_7f4a_7c15)).u32(..)
        })
    }

    fn next_source(&self) -> Option<usize> {
        if !self.ready[Source::Manual as usize].is_empty() {
            return Some(Source::Manual as usize);
        }
        (1..=SOURCES).map(|i| (self.turn + i) % SOURCES).find(|&source| !self.ready[source].is_empty())
    }

    fn expire(&mut self, now: Instant) {
        while let Some(&(at, addr)) = self.later.first()
            && at <= now
        {
            self.later.pop_first();
            if let Some(entry) = self.entries.get_mut(&addr) {
                entry.state = State::Ready;
                self.ready[entry.source as usize].insert(entry.rank(addr));
            }
        }
        while let Some(&(at, addr)) = self.given_up.first()
            && at <= now
        {
            self.forget(addr);
        }
        while let Some(&(at, ip)) = self.dials.front()
            && at + MIN_RECONNECT <= now
        {
            self.dials.pop_front();
            if self.dialled.get(&ip) == Some(&at) {
                self.dialled.remove(&ip);
            }
        }
    }

    /// Out of whatever queue the address is in.
    fn take_out(&mut self, addr: SocketAddr) {
        let Some(entry) = self.entries.get(&addr) else { return };
        match entry.state {
            State::Ready => {
                self.ready[entry.source as usize].remove(&entry.rank(addr));
            }
            State::Later(at) => {
                self.later.remove(&(at, addr));
            }
            State::GivenUp(at) => {
                self.given_up.remove(&(at, addr));
            }
            State::Busy => {}
        }
    }

    fn put_off(&mut self, addr: SocketAddr, until: Instant) {
        if let Some(entry) = self.entries.get_mut(&addr) {
            entry.state = State::Later(until);
            self.later.insert((until, addr));
        }
    }

    fn forget(&mut self, addr: SocketAddr) {
        self.take_out(addr);
        let Some(entry) = self.entries.remove(&addr) else { return };
        self.counts[entry.source as usize] -= 1;
        if let Some(ip) = entry.teller
            && let Some(count) = self.tellers.get_mut(&ip)
        {
            *count -= 1;
            if *count == 0 {
                self.tellers.remove(&ip);
            }
        }
    }

    /// The user names an address that others named before.
    fn promote(&mut self, addr: SocketAddr) {
        self.take_out(addr);
        let Some(entry) = self.entries.get_mut(&addr) else { return };
        self.counts[entry.source as usize] -= 1;
        entry.source = Source::Manual;
        self.counts[Source::Manual as usize] += 1;
        if entry.state != State::Busy {
            entry.fails = 0;
            entry.state = State::Ready;
            self.ready[Source::Manual as usize].insert(entry.rank(addr));
        }
    }

    /// Pushes one out for a newcomer of `source`, if one is worth less.
    fn make_room(&mut self, source: Source, newcomer: Rank) -> bool {
        if let Some(&(_, addr)) = self.given_up.first() {
            self.forget(addr);
            return true;
        }
        let share = (self.config.capacity / 4).max(SOURCE_FLOOR);
        let has_share = self.counts[source as usize] >= share && source != Source::Manual;
        let from = if has_share { Some(source as usize) } else { self.largest_source() };
        let Some(victim) = from.and_then(|from| self.worst_of(from)) else { return false };
        let own = self.entries.get(&victim).filter(|entry| entry.source == source);
        // Among its own a source keeps the best; to another's quarter it has a right.
        if own.is_some_and(|entry| entry.fails == 0 && entry.rank(victim) < newcomer) {
            return false;
        }
        self.forget(victim);
        true
    }

    /// The source with most addresses, not counting the user.
    fn largest_source(&self) -> Option<usize> {
        (1..SOURCES).filter(|&source| self.counts[source] > 0).max_by_key(|&source| self.counts[source])
    }

    /// The address of a source that is worth least and not in use.
    fn worst_of(&self, source: usize) -> Option<SocketAddr> {
        let waiting = || {
            let of_source = |addr: &SocketAddr| self.entries.get(addr).is_some_and(|e| e.source as usize == source);
            self.given_up.iter().chain(self.later.iter().rev()).map(|later| later.1).find(of_source)
        };
        self.ready[source].last().map(|rank| rank.2).or_else(waiting)
    }
}

/// Doubles with every failure or useless connection.
fn wait_after(addr: SocketAddr, source: Source, times: u8) -> Duration {
    let near = is_local(addr.ip()) || source == Source::Manual;
    let first = if near { MIN_RECONNECT_LOCAL } else { MIN_RECONNECT };
    first.saturating_mul(1 << u32::from(times.saturating_sub(1)).min(16)).min(MAX_RECONNECT)
}

/// All ports of an address, in the order of [`SocketAddr`].
fn ports_of(addr: SocketAddr) -> RangeInclusive<SocketAddr> {
    let v4 = |ip: Ipv4Addr, port| SocketAddr::V4(SocketAddrV4::new(ip, port));
    let v6 = |ip: Ipv6Addr, port, scope| SocketAddr::V6(SocketAddrV6::new(ip, port, scope, scope));
    match addr.ip() {
        IpAddr::V4(ip) => v4(ip, 0)..=v4(ip, u16::MAX),
        IpAddr::V6(ip) => v6(ip, 0, 0)..=v6(ip, u16::MAX, u32::MAX),
    }
}

#[cfg(test)]
#[path = "candidates_tests.rs"]
mod tests;
