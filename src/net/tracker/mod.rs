//! Carries out announces and scrapes over HTTP, HTTPS and UDP.
//!
//! For: sockets, names and time limits for what [`tracker`](crate::tracker) wants said.
//! Must not know: when to announce, what comes of the answer.
//! Main type: [`TrackerClient`]. BEPs: 3, 7, 15, 23, 48.
//!
//! What a torrent's tracker may be: over HTTP, a host on the internet with any path, or one on this machine or in its
//! network whose path ends in `/announce` (so that a torrent cannot make us send a request to another service there);
//! no redirect leads from the internet inwards. A UDP tracker may be anywhere but at link-local, multicast and reserved
//! addresses: its first packet is 16 bytes that no other service takes for something.

mod http;
mod udp;

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Semaphore;

use super::http::{HttpClient, HttpConfig, HttpError};
use super::web_seed::RangeClient;
use crate::tracker::udp::FIRST_TIMEOUT;
use crate::tracker::{
    Announce, AnnounceEvent, AnnounceResponse, Family, Job, Scheme, ScrapeResponse, TrackerError, TrackerUrl,
};

/// Bytes of an answer, decompressed: 1,000 peers in the long form are about 100 kB.
const MAX_BODY: usize = 1 << 20;

/// How trackers are asked.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct TrackerClientConfig {
    /// For one announce or scrape, all in all.
    pub timeout: Duration,
    /// For an announce that says `stopped`: somebody waits for us to end.
    pub stop_timeout: Duration,
    /// The first wait for a UDP answer (BEP 15: 15 s).
    pub udp_first_timeout: Duration,
    /// Announces and scrapes at once; the others wait.
    pub concurrent: usize,
    /// How requests leave this machine.
    pub http: HttpConfig,
}

impl Default for TrackerClientConfig {
    fn default() -> Self {
        Self {
            timeout: Duration::from_secs(30),
            stop_timeout: Duration::from_secs(5),
            udp_first_timeout: FIRST_TIMEOUT,
            concurrent: 50,
            http: HttpConfig::default(),
        }
    }
}

/// Talks to trackers. One for a session; cheap to clone.
#[derive(Clone, Debug)]
pub struct TrackerClient {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    config: TrackerClientConfig,
    http: HttpClient,
    ranges: RangeClient,
    running: Semaphore,
    /// Leaving does not queue behind announces to trackers that are dead.
    leaving: Semaphore,
}

impl TrackerClient {
    /// Nothing is opened before the first announce.
    pub fn new(config: TrackerClientConfig) -> Self {
        let http = HttpClient::new(config.http.clone());
        let (running, leaving) = (Semaphore::new(config.concurrent.max(1)), Semaphore::new(config.concurrent.max(1)));
        let ranges = RangeClient::new(&http);
        Self { inner: Arc::new(Inner { config, http, ranges, running, leaving }) }
    }

    /// The client for HTTP requests in general, with the same way out.
    pub fn http(&self) -> &HttpClient {
        &self.inner.http
    }

    /// The client for web seeds, with the same way out.
    pub fn ranges(&self) -> &RangeClient {
        &self.inner.ranges
    }

    /// Carries out a job of a [`Schedule`](crate::tracker::Schedule). Dropping the future gives it up.
    ///
    /// # Errors
    /// Whatever kept the tracker's answer from us; see [`TrackerError`].
    pub async fn announce(&self, job: &Job) -> Result<AnnounceResponse, TrackerError> {
        self.announce_to(&job.tracker, job.family, &job.announce).await
    }

    /// Announces to one tracker over one family.
    ///
    /// # Errors
    /// As [`announce`](Self::announce).
    pub async fn announce_to(
        &self,
        tracker: &TrackerUrl,
        family: Family,
        announce: &Announce,
    ) -> Result<AnnounceResponse, TrackerError> {
        let leaves = announce.event == AnnounceEvent::Stopped;
        let (slots, deadline) = match leaves {
            true => (&self.inner.leaving, self.inner.config.stop_timeout),
            false => (&self.inner.running, self.inner.config.timeout),
        };
        let _slot = slots.acquire().await;
        match tracker.scheme() {
            Scheme::Http | Scheme::Https => http::announce(&self.inner.http, tracker, family, announce, deadline).await,
            Scheme::Udp => udp::announce(&self.inner.config, tracker, family, announce, deadline).await,
        }
    }

    /// Asks a tracker for its counts of some torrents: over IPv4, and if it is not reached so, over IPv6.
    ///
    /// # Errors
    /// As [`announce`](Self::announce); [`TrackerError::Url`] if the tracker has no scrape form (BEP 48).
    pub async fn scrape(&self, tracker: &TrackerUrl, hashes: &[[u8; 20]]) -> Result<ScrapeResponse, TrackerError> {
        let _slot = self.inner.running.acquire().await;
        let first = if tracker.may_have(Family::V4) { Family::V4 } else { Family::V6 };
        match self.scrape_over(tracker, first, hashes).await {
            Err(TrackerError::NoAddress(Family::V4)) if tracker.may_have(Family::V6) => {
                self.scrape_over(tracker, Family::V6, hashes).await
            }
            result => result,
        }
    }

    async fn scrape_over(
        &self,
        tracker: &TrackerUrl,
        family: Family,
        hashes: &[[u8; 20]],
    ) -> Result<ScrapeResponse, TrackerError> {
        let deadline = self.inner.config.timeout;
        match tracker.scheme() {
            Scheme::Http | Scheme::Https => http::scrape(&self.inner.http, tracker, family, hashes, deadline).await,
            Scheme::Udp => udp::scrape(&self.inner.config, tracker, family, hashes, deadline).await,
        }
    }
}

impl From<HttpError> for TrackerError {
    fn from(error: HttpError) -> Self {
        match error {
            HttpError::Unsafe(why) => Self::Unsafe(why),
            HttpError::Lookup(why) => Self::Lookup(why),
            HttpError::NoAddress(family) => Self::NoAddress(family),
            HttpError::Unreachable(why) => Self::Unreachable(why),
            HttpError::TimedOut(after) => Self::TimedOut(after),
            HttpError::Redirect(why) => Self::Redirect(why),
            HttpError::TooLarge(limit) => Self::TooLarge(limit),
        }
    }
}
