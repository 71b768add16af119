//! When to announce, to which tracker, with which event (BEP 3, 12, 27, 31).
//!
//! For: tiers, intervals, back-off, and which tracker is the one in use.
//! Must not know: sockets, the forms of an announce, the clock; `now` and `seed` are passed in.
//! Main types: [`Schedule`], [`Job`], [`TrackerStatus`].
//!
//! For each address family and each tier the first tracker that works is announced to (BEP 12); all tiers at once, as
//! the common clients do, so that a dead tracker delays none of the others. Inside a tier the next one is tried when
//! one fails, and also when one takes longer than [`PATIENCE`]. A private torrent uses one tracker at a time (BEP 27).

mod status;
#[cfg(test)]
mod tests;

use std::time::{Duration, Instant};

pub use status::{TrackerState, TrackerStatus};

use super::announce::{DEFAULT_INTERVAL, MIN_INTERVAL, NUMWANT};
use super::{Announce, AnnounceEvent, AnnounceResponse, Family, Retry, TrackerError, TrackerUrl, host_of};
use crate::base::PeerId;

/// Trackers of one torrent that are used. A list may name any hosts; more than this serves only to make us flood them.
const MAX_TRACKERS: usize = 200;

/// How long a tracker may take before the next one of its tier is asked as well.
const PATIENCE: Duration = Duration::from_secs(5);

/// The wait after a first failure; it doubles with each further one.
const FIRST_BACKOFF: Duration = Duration::from_secs(10);

/// The longest wait after a failure: within this, a tracker that works again is found.
const MAX_BACKOFF: Duration = Duration::from_secs(1800);

/// When more peers are wanted and the tracker has named no `min interval`: not earlier than this after the last answer.
const EARLY_INTERVAL: Duration = Duration::from_secs(300);

/// What all announces of one torrent have in common.
#[derive(Clone, Copy, Debug)]
pub struct ScheduleConfig {
    /// The torrent as trackers know it. A hybrid torrent is in two swarms: it needs one schedule for each hash.
    pub info_hash: [u8; 20],
    /// Our peer id.
    pub peer_id: PeerId,
    /// Random; the same for both families and both hashes of a torrent.
    pub key: u32,
    /// Where we listen on IPv4; `None`: not announced over IPv4.
    pub port_v4: Option<u16>,
    /// Where we listen on IPv6; `None`: not announced over IPv6.
    pub port_v6: Option<u16>,
    /// A private torrent: one tracker at a time (BEP 27).
    pub private: bool,
}

/// The numbers of an announce, in payload bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// Sent in this run.
    pub uploaded: u64,
    /// Received in this run.
    pub downloaded: u64,
    /// Still missing.
    pub left: u64,
}

/// Names one job of one schedule.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct JobId(u64);

/// An announce to carry out. Its result goes to [`Schedule::handle_result`], whatever it is.
#[derive(Clone, Debug)]
pub struct Job {
    /// To be given back with the result.
    pub id: JobId,
    /// Whom to ask.
    pub tracker: TrackerUrl,
    /// Over which family.
    pub family: Family,
    /// What to say.
    pub announce: Announce,
}

/// The trackers of one torrent, and when each is asked.
#[derive(Debug)]
pub struct Schedule {
    config: ScheduleConfig,
    trackers: Vec<Tracker>,
    /// URLs that cannot be asked: what is shown of them, their tier, and why.
    refused: Vec<(String, usize, TrackerError)>,
    endpoints: Vec<Endpoint>,
    /// Per family; tiers that are announced to independently of each other.
    groups: Vec<Group>,
    next_job: u64,
    rng: fastrand::Rng,
    stopping: bool,
}

#[derive(Debug)]
struct Tracker {
    url: TrackerUrl,
    tier: usize,
}

/// Endpoints of which one at a time is in use: the tier, or for a private torrent all tiers in their order.
#[derive(Debug)]
struct Group {
    tiers: Vec<Vec<usize>>,
}

impl Group {
    fn endpoints(&self) -> impl Iterator<Item = usize> {
        self.tiers.iter().flatten().copied()
    }
}

/// One tracker over one family.
#[derive(Debug)]
struct Endpoint {
    /// Index into `trackers`.
    tracker: usize,
    family: Family,
    in_flight: Option<InFlight>,
    /// Not before this, whether after an answer or after a failure.
    next: Instant,
    /// It knows that we are there, and has to be told when we go.
    heard_started: bool,
    completed_owed: bool,
    stopped_owed: bool,
    /// Failures in a row.
    fails: u32,
    /// The port that was told last.
    told_port: u16,
    /// What happened last, and when.
    last: Option<(Instant, Last)>,
    tracker_id: Option<Vec<u8>>,
}

#[derive(Debug, Clone, Copy)]
struct InFlight {
    id: JobId,
    since: Instant,
    event: AnnounceEvent,
}

#[derive(Debug)]
enum Last {
    Answer {
        response: Summary,
        min_interval: Option<Duration>,
    },
    Failed(TrackerError),
    /// Not asked again.
    Disabled(TrackerError),
}

/// What is kept of an answer, to be shown.
#[derive(Debug, Clone, Default)]
struct Summary {
    peers: usize,
    seeders: Option<u32>,
    leechers: Option<u32>,
    downloaded: Option<u32>,
    warning: Option<String>,
}

/// What a group waits for.
enum Turn {
    /// This endpoint is to be asked now.
    Ask(usize),
    /// Nothing to do before this.
    Wait(Option<Instant>),
}

impl Endpoint {
    fn works(&self) -> bool {
        matches!(self.last, Some((_, Last::Answer { .. })))
    }

    fn is_disabled(&self) -> bool {
        matches!(self.last, Some((_, Last::Disabled(_))))
    }
}

impl Schedule {
    /// The trackers of a torrent, tier by tier; each tier is shuffled by `seed` (BEP 12). A URL that comes twice counts
    /// once, at its first place. All are due at once.
    pub fn new(now: Instant, tiers: &[Vec<String>], config: ScheduleConfig, seed: u64) -> Self {
        let mut rng = fastrand::Rng::with_seed(seed);
        let (mut trackers, mut refused) = (Vec::<Tracker>::new(), Vec::new());
        let mut shuffled: Vec<Vec<usize>> = Vec::new();
        for (tier, texts) in tiers.iter().enumerate() {
            let mut order = Vec::new();
            for text in texts {
                if trackers.len() + refused.len() >= MAX_TRACKERS {
                    break;
                }
                match TrackerUrl::parse(text) {
                    Ok(url) if trackers.iter().any(|t| t.url == url) => {}
                    Ok(url) => {
                        order.push(trackers.len());
                        trackers.push(Tracker { url, tier });
                    }
                    Err(error) => refused.push((host_of(text), tier, error)),
                }
            }
            rng.shuffle(&mut order);
            shuffled.push(order);
        }
        let mut endpoints = Vec::new();
        let mut groups = Vec::new();
        for family in [Family::V4, Family::V6] {
            if config.port(family).is_none() {
                continue;
            }
            let mut endpoint = |tracker: usize| {
                trackers[tracker].url.may_have(family).then(|| {
                    endpoints.push(Endpoint {
                        tracker,
                        family,
                        in_flight: None,
                        next: now,
                        heard_started: false,
                        completed_owed: false,
                        stopped_owed: false,
                        fails: 0,
                        told_port: 0,
                        last: None,
                        tracker_id: None,
                    });
                    endpoints.len() - 1
                })
            };
            let tiers = shuffled.iter().map(|tier| tier.iter().filter_map(|t| endpoint(*t)).collect::<Vec<_>>());
            let tiers = tiers.filter(|tier| !tier.is_empty());
            if config.private {
                groups.push(Group { tiers: tiers.collect() });
            } else {
                groups.extend(tiers.map(|tier| Group { tiers: vec![tier] }));
            }
        }
        Self { config, trackers, refused, endpoints, groups, next_job: 0, rng, stopping: false }
    }

    /// The torrent has turned out to be private: from now on one tracker at a time (BEP 27).
    pub fn set_private(&mut self) {
        if std::mem::replace(&mut self.config.private, true) {
            return;
        }
        let mut merged: Vec<(Family, Group)> = Vec::new();
        for group in self.groups.drain(..) {
            let first = group.endpoints().next().and_then(|index| self.endpoints.get(index));
            let Some(family) = first.map(|endpoint| endpoint.family) else { continue };
            match merged.iter_mut().find(|(of, _)| *of == family) {
                Some((_, all)) => all.tiers.extend(group.tiers),
                None => merged.push((family, group)),
            }
        }
        self.groups = merged.into_iter().map(|(_, group)| group).collect();
    }

    /// Peers find us at other ports from now on: trackers that have told them of others are told soon. `None` is no news. A
    /// family that is not announced to stays so, and one that is goes on: its trackers have to hear that we leave.
    pub fn set_ports(&mut self, now: Instant, port_v4: Option<u16>, port_v6: Option<u16>) {
        let config = &mut self.config;
        for (port, new) in [(&mut config.port_v4, port_v4), (&mut config.port_v6, port_v6)] {
            *port = port.and(new.or(*port));
        }
        for endpoint in &mut self.endpoints {
            if let Some((at, Last::Answer { min_interval, .. })) = &endpoint.last
                && Some(endpoint.told_port) != self.config.port(endpoint.family)
            {
                endpoint.next = endpoint.next.min((*at + soon(*min_interval)).max(now));
            }
        }
    }

    /// The next announce to carry out, if one is due. To be called until `None`.
    pub fn poll(&mut self, now: Instant, totals: Totals) -> Option<Job> {
        if let Some(leaving) = self.endpoints.iter().position(|e| e.stopped_owed && e.in_flight.is_none()) {
            return self.begin(now, leaving, totals);
        }
        if self.stopping {
            return None;
        }
        let due = self.groups.iter().find_map(|group| match self.turn(now, group) {
            Turn::Ask(endpoint) => Some(endpoint),
            Turn::Wait(_) => None,
        });
        self.begin(now, due?, totals)
    }

    /// When to [`poll`](Self::poll) again if nothing else happens; `None`: not before a result comes.
    pub fn poll_timeout(&self, now: Instant) -> Option<Instant> {
        if self.endpoints.iter().any(|e| e.stopped_owed && e.in_flight.is_none()) {
            return Some(now);
        }
        if self.stopping {
            return None;
        }
        let next = self.groups.iter().filter_map(|group| match self.turn(now, group) {
            Turn::Ask(_) => Some(now),
            Turn::Wait(until) => until,
        });
        next.min()
    }

    /// What became of a job; returns when that tracker may be asked again. A job that is not known changes nothing.
    pub fn handle_result(
        &mut self,
        now: Instant,
        id: JobId,
        result: Result<&AnnounceResponse, &TrackerError>,
    ) -> Option<Instant> {
        let index = self.endpoints.iter().position(|e| e.in_flight.is_some_and(|f| f.id == id))?;
        let endpoint = self.endpoints.get_mut(index)?;
        let event = endpoint.in_flight.take()?.event;
        if event == AnnounceEvent::Stopped {
            // Told or not: it is told once.
            endpoint.heard_started = false;
        }
        match result {
            Ok(response) => self.handle_answer(now, index, event, response),
            Err(error) => self.handle_failure(now, index, error),
        }
        let endpoint = self.endpoints.get_mut(index)?;
        if self.stopping {
            endpoint.completed_owed &= event == AnnounceEvent::None || event == AnnounceEvent::Started;
            endpoint.stopped_owed = endpoint.heard_started;
        }
        (!self.stopping && !endpoint.is_disabled()).then_some(endpoint.next)
    }

    fn handle_answer(&mut self, now: Instant, index: usize, event: AnnounceEvent, response: &AnnounceResponse) {
        let Some(endpoint) = self.endpoints.get_mut(index) else { return };
        if event != AnnounceEvent::Stopped {
            endpoint.heard_started = true;
        }
        if event == AnnounceEvent::Completed {
            endpoint.completed_owed = false;
        }
        if response.tracker_id.is_some() {
            endpoint.tracker_id.clone_from(&response.tracker_id);
        }
        endpoint.fails = 0;
        let interval = response.interval.unwrap_or(DEFAULT_INTERVAL);
        endpoint.next = now + interval.max(response.min_interval.unwrap_or(interval));
        if endpoint.completed_owed {
            endpoint.next = now;
        }
        if Some(endpoint.told_port) != self.config.port(endpoint.family) {
            endpoint.next = endpoint.next.min(now + soon(response.min_interval));
        }
        let kept = Summary {
            peers: response.peers.len(),
            seeders: response.seeders,
            leechers: response.leechers,
            downloaded: response.downloaded,
            warning: response.warning.clone(),
        };
        endpoint.last = Some((now, Last::Answer { response: kept, min_interval: response.min_interval }));
        if event != AnnounceEvent::Stopped {
            self.promote(index);
        }
    }

    fn handle_failure(&mut self, now: Instant, index: usize, error: &TrackerError) {
        let Some(endpoint) = self.endpoints.get_mut(index) else { return };
        endpoint.fails = endpoint.fails.saturating_add(1);
        let doublings = endpoint.fails.saturating_sub(1).min(16);
        let longest = FIRST_BACKOFF.saturating_mul(1 << doublings).min(MAX_BACKOFF);
        // Jitter, so that the clients of a tracker that comes back do not all come at once.
        let mut wait = longest.mul_f64(0.75 + 0.25 * self.rng.f64());
        let mut disabled = false;
        match error {
            TrackerError::Url(_) => disabled = true,
            TrackerError::Failure { retry: Some(Retry::Never), .. } => disabled = true,
            TrackerError::Failure { retry: Some(Retry::After(asked)), .. } => wait = wait.max(*asked),
            // Nothing to hurry for: hosts seldom get an address of another family, or stop leading to where they must not.
            // Not for ever, either: a name server that blocks, or a sign-in page of a hotel, looks the same.
            TrackerError::NoAddress(_) | TrackerError::Unsafe(_) => wait = MAX_BACKOFF,
            _ => {}
        }
        endpoint.next = now + wait;
        let last = if disabled { Last::Disabled(error.clone()) } else { Last::Failed(error.clone()) };
        endpoint.last = Some((now, last));
    }

    /// The download has become complete: trackers that saw it begin are told.
    pub fn handle_completed(&mut self, now: Instant) {
        for endpoint in &mut self.endpoints {
            let hears_started = endpoint.in_flight.is_some_and(|f| f.event == AnnounceEvent::Started);
            endpoint.completed_owed |= endpoint.heard_started || hears_started;
            if endpoint.completed_owed && endpoint.works() {
                endpoint.next = now;
            }
        }
    }

    /// More peers would help: trackers that work are asked again as early as they allow. May be called often.
    pub fn want_more_peers(&mut self, now: Instant) {
        for endpoint in &mut self.endpoints {
            if let Some((at, Last::Answer { min_interval, .. })) = &endpoint.last {
                let earliest = *at + min_interval.unwrap_or(EARLY_INTERVAL).max(MIN_INTERVAL);
                endpoint.next = endpoint.next.min(earliest.max(now));
            }
        }
    }

    /// The user asks for it, or the network has changed: back-offs end now, and more peers are wanted.
    pub fn announce_now(&mut self, now: Instant) {
        for endpoint in &mut self.endpoints {
            if let Some((_, Last::Failed(error))) = &endpoint.last
                && !matches!(error, TrackerError::Failure { retry: Some(_), .. })
            {
                endpoint.next = endpoint.next.min(now);
            }
        }
        self.want_more_peers(now);
    }

    /// We leave: from now on [`poll`](Self::poll) gives only `stopped`, once for each tracker that heard `started`
    /// (and before it a `completed` that is still owed).
    pub fn stop(&mut self) {
        self.stopping = true;
        for endpoint in &mut self.endpoints {
            // What is in flight may yet be heard: decided when its result comes.
            endpoint.stopped_owed = endpoint.heard_started && endpoint.in_flight.is_none();
        }
    }

    /// Whether after [`stop`](Self::stop) all is said and answered.
    pub fn is_stopped(&self) -> bool {
        self.stopping && self.endpoints.iter().all(|e| !e.stopped_owed && e.in_flight.is_none())
    }

    /// Whether a tracker that has answered before is being told something: it will hear that we leave, too.
    pub fn is_heard(&self) -> bool {
        self.endpoints.iter().any(|e| e.heard_started && e.in_flight.is_some())
    }

    /// Whether there is any tracker that may be asked.
    pub fn is_empty(&self) -> bool {
        self.endpoints.iter().all(Endpoint::is_disabled)
    }

    /// Walks a group in its order: who is to be asked, or until when to wait.
    fn turn(&self, now: Instant, group: &Group) -> Turn {
        let mut until: Option<Instant> = None;
        let mut wait = |at: Instant| until = Some(until.map_or(at, |u| u.min(at)));
        for index in group.endpoints() {
            let Some(endpoint) = self.endpoints.get(index) else { continue };
            if endpoint.is_disabled() {
                continue;
            }
            if let Some(in_flight) = endpoint.in_flight {
                let patient_until = in_flight.since + PATIENCE;
                if self.config.private || in_flight.event == AnnounceEvent::Stopped {
                    break;
                }
                if now < patient_until {
                    wait(patient_until);
                    break;
                }
                continue;
            }
            if endpoint.next <= now {
                return Turn::Ask(index);
            }
            wait(endpoint.next);
            if endpoint.works() {
                break;
            }
        }
        Turn::Wait(until)
    }

    fn begin(&mut self, now: Instant, index: usize, totals: Totals) -> Option<Job> {
        let endpoint = self.endpoints.get_mut(index)?;
        // All that an announce needs, before it counts as under way.
        let port = self.config.port(endpoint.family)?;
        let tracker = self.trackers.get(endpoint.tracker)?.url.clone();
        // A download that ends as soon as it is complete still counts: `completed` goes before `stopped`.
        let event = if endpoint.stopped_owed && !(self.stopping && endpoint.completed_owed) {
            AnnounceEvent::Stopped
        } else if !endpoint.heard_started {
            AnnounceEvent::Started
        } else if endpoint.completed_owed {
            AnnounceEvent::Completed
        } else {
            AnnounceEvent::None
        };
        endpoint.stopped_owed = false;
        self.next_job += 1;
        let id = JobId(self.next_job);
        endpoint.in_flight = Some(InFlight { id, since: now, event });
        endpoint.told_port = port;
        let announce = Announce {
            info_hash: self.config.info_hash,
            peer_id: self.config.peer_id,
            port,
            uploaded: totals.uploaded,
            downloaded: totals.downloaded,
            left: totals.left,
            event,
            numwant: if event == AnnounceEvent::Stopped { 0 } else { NUMWANT },
            key: self.config.key,
            tracker_id: endpoint.tracker_id.clone(),
            ip: None,
        };
        Some(Job { id, tracker, family: endpoint.family, announce })
    }

    /// A tracker that answered goes to the front of its tier (BEP 12), unless one before it works as well.
    fn promote(&mut self, index: usize) {
        let Some(group) = self.groups.iter_mut().find(|g| g.endpoints().any(|e| e == index)) else { return };
        for tier in &mut group.tiers {
            let Some(at) = tier.iter().position(|e| *e == index) else { continue };
            if !tier.iter().take(at).any(|e| self.endpoints.get(*e).is_some_and(Endpoint::works)) {
                tier[..=at].rotate_right(1);
            }
        }
        if self.config.private {
            // One at a time: those that were used before are left.
            for other in group.endpoints().filter(|e| *e != index).collect::<Vec<_>>() {
                if let Some(other) = self.endpoints.get_mut(other) {
                    other.stopped_owed = other.heard_started && other.in_flight.is_none();
                }
            }
        }
    }
}

/// How long after an answer there may be another announce, if there is something to say.
fn soon(min_interval: Option<Duration>) -> Duration {
    min_interval.unwrap_or(MIN_INTERVAL).max(MIN_INTERVAL)
}

impl ScheduleConfig {
    fn port(&self, family: Family) -> Option<u16> {
        match family {
            Family::V4 => self.port_v4,
            Family::V6 => self.port_v6,
        }
    }
}
