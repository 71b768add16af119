//! Fetching a torrent over HTTP.

use std::time::Duration;

use url::Url;

use super::address::public_part;
use super::exit::Failure;
use crate::net::egress::Egress;
use crate::net::http::{Get, HttpClient, HttpConfig};

/// For everything: a torrent file is small, even over a slow line.
const DEADLINE: Duration = Duration::from_secs(60);

/// The body behind `address`, at most `limit` bytes.
pub(super) async fn fetch(address: &str, limit: usize, egress: &Egress) -> Result<Vec<u8>, Failure> {
    let place = public_part(address);
    let url = Url::parse(address).map_err(|e| Failure::usage(format!("{place}: {e}")))?;
    let client = HttpClient::new(HttpConfig { egress: egress.clone(), ..HttpConfig::default() });
    // The user wrote the address, so it may well be on this machine. Redirects from outside may not lead there.
    let get = Get { url: &url, family: None, local: |_| true, limit, deadline: DEADLINE };
    let answer = client.get(get).await.map_err(|e| Failure::network(format!("{place}: {e}")))?;
    match answer.status {
        200 => Ok(answer.body),
        401 | 403 => Err(Failure::network(format!("{place}: the server wants a login (status {})", answer.status))),
        404 | 410 => Err(Failure::network(format!("{place}: there is no such file on the server"))),
        other => Err(Failure::network(format!("{place}: the server answers with status {other}"))),
    }
}
