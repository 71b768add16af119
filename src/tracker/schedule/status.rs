use std::time::Instant;

use super::{Endpoint, Last, Schedule, Summary};
use crate::tracker::{Family, TrackerError};

/// How it stands with a tracker over one family.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TrackerState {
    /// Not asked so far: another one of its tier works, or its turn has not come.
    Idle,
    /// Being asked.
    Announcing,
    /// Its last answer was good.
    Working,
    /// The last try failed; it is tried again.
    Failed(TrackerError),
    /// It is not asked any more.
    Disabled(TrackerError),
}

/// A tracker as it may be shown. Holds no secrets of its URL.
#[derive(Clone, Debug)]
pub struct TrackerStatus {
    /// Scheme, host and port.
    pub tracker: String,
    /// Its tier in the torrent, from 0.
    pub tier: usize,
    /// The family of these numbers; `None` if its URL cannot be asked at all.
    pub family: Option<Family>,
    /// How it stands.
    pub state: TrackerState,
    /// Addresses in the last answer.
    pub peers: usize,
    /// Seeders it counts.
    pub seeders: Option<u32>,
    /// Leechers it counts.
    pub leechers: Option<u32>,
    /// How often it has seen the torrent completed.
    pub downloaded: Option<u32>,
    /// Its message to the user.
    pub warning: Option<String>,
    /// Failures in a row.
    pub fails: u32,
    /// When the last answer or failure came.
    pub last: Option<Instant>,
    /// When it may be asked again; `None` if never, or if it is being asked.
    pub next: Option<Instant>,
}

impl Schedule {
    /// All trackers, in the order of their tiers, one row for each family.
    pub fn status(&self) -> Vec<TrackerStatus> {
        let refused = self.refused.iter().map(|(host, tier, error)| TrackerStatus {
            tracker: host.clone(),
            tier: *tier,
            family: None,
            state: TrackerState::Disabled(error.clone()),
            peers: 0,
            seeders: None,
            leechers: None,
            downloaded: None,
            warning: None,
            fails: 0,
            last: None,
            next: None,
        });
        let mut all: Vec<_> = self.endpoints.iter().filter_map(|e| self.row(e)).chain(refused).collect();
        all.sort_by_key(|row| (row.tier, row.family));
        all
    }

    fn row(&self, endpoint: &Endpoint) -> Option<TrackerStatus> {
        let tracker = self.trackers.get(endpoint.tracker)?;
        let (last, outcome) = endpoint.last.as_ref().map(|(at, outcome)| (*at, outcome)).unzip();
        let answer = match outcome {
            Some(Last::Answer { response, .. }) => response.clone(),
            _ => Summary::default(),
        };
        let state = match outcome {
            _ if endpoint.in_flight.is_some() => TrackerState::Announcing,
            None => TrackerState::Idle,
            Some(Last::Answer { .. }) => TrackerState::Working,
            Some(Last::Failed(error)) => TrackerState::Failed(error.clone()),
            Some(Last::Disabled(error)) => TrackerState::Disabled(error.clone()),
        };
        let asked_again = !endpoint.is_disabled() && endpoint.in_flight.is_none() && !self.stopping;
        Some(TrackerStatus {
            tracker: tracker.url.to_string(),
            tier: tracker.tier,
            family: Some(endpoint.family),
            state,
            peers: answer.peers,
            seeders: answer.seeders,
            leechers: answer.leechers,
            downloaded: answer.downloaded,
            warning: answer.warning,
            fails: endpoint.fails,
            last,
            next: asked_again.then_some(endpoint.next),
        })
    }
}
