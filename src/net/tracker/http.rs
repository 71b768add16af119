use std::time::Duration;

use url::Url;

use super::MAX_BODY;
use crate::net::http::{Answer, Get, HttpClient};
use crate::tracker::http::{announce_url, failure_in, is_tracker_path, parse_announce, parse_scrape, scrape_url};
use crate::tracker::{Announce, AnnounceResponse, Family, ScrapeResponse, TrackerError, TrackerUrl};

pub(super) async fn announce(
    client: &HttpClient,
    tracker: &TrackerUrl,
    family: Family,
    announce: &Announce,
    deadline: Duration,
) -> Result<AnnounceResponse, TrackerError> {
    let answer = fetch(client, &announce_url(tracker, announce), family, deadline).await?;
    Ok(AnnounceResponse { from: answer.from, ..parse_announce(&answer.body)? })
}

pub(super) async fn scrape(
    client: &HttpClient,
    tracker: &TrackerUrl,
    family: Family,
    hashes: &[[u8; 20]],
    deadline: Duration,
) -> Result<ScrapeResponse, TrackerError> {
    let url = scrape_url(tracker, hashes);
    let url = url.ok_or_else(|| TrackerError::Url("the tracker's URL has no form for scrape".into()))?;
    let answer = fetch(client, &url, family, deadline).await?;
    parse_scrape(&answer.body, hashes)
}

async fn fetch(client: &HttpClient, url: &Url, family: Family, deadline: Duration) -> Result<Answer, TrackerError> {
    if client.is_proxied() && family == Family::V6 {
        // The proxy decides over which family it goes: one announce is enough.
        return Err(TrackerError::NoAddress(family));
    }
    let family = Some(family).filter(|_| !client.is_proxied());
    let answer = client.get(Get { url, family, local: is_tracker_path, limit: MAX_BODY, deadline }).await?;
    if answer.status == 200 {
        return Ok(answer);
    }
    // Many trackers refuse with a status and say why in the body.
    Err(failure_in(&answer.body).unwrap_or(TrackerError::Status(answer.status)))
}
