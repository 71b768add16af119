//! One socket for each exchange, connected to the tracker: the kernel drops what comes from elsewhere, an ICMP error
//! comes back at once, the port is another random number that a forger would have to guess, and there is no table of
//! transactions to keep or to fill up. The price is one round trip for the connection id, which some trackers tie to
//! the port anyway; announces are minutes apart.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::{Duration, Instant};

use tokio::net::UdpSocket;
use url::Host;

use super::TrackerClientConfig;
use crate::net::http::{LookupError, Reach, has_no_route, lookup};
use crate::tracker::udp::{Exchange, MAX_DATAGRAM, Request, Response};
use crate::tracker::{Announce, AnnounceResponse, Family, ScrapeResponse, TrackerError, TrackerUrl, printable};

/// Addresses of one tracker that are tried in turn; each gets its share of the time.
const MAX_ADDRESSES: usize = 2;

pub(super) async fn announce(
    config: &TrackerClientConfig,
    tracker: &TrackerUrl,
    family: Family,
    announce: &Announce,
    deadline: Duration,
) -> Result<AnnounceResponse, TrackerError> {
    match ask(config, tracker, family, Request::announce(tracker, announce.clone()), deadline).await? {
        Response::Announce(answer) => Ok(answer),
        Response::Scrape(_) => Err(TrackerError::Body("the answer to something else".into())),
    }
}

pub(super) async fn scrape(
    config: &TrackerClientConfig,
    tracker: &TrackerUrl,
    family: Family,
    hashes: &[[u8; 20]],
    deadline: Duration,
) -> Result<ScrapeResponse, TrackerError> {
    match ask(config, tracker, family, Request::Scrape(hashes.to_vec()), deadline).await? {
        Response::Scrape(answer) => Ok(answer),
        Response::Announce(_) => Err(TrackerError::Body("the answer to something else".into())),
    }
}

async fn ask(
    config: &TrackerClientConfig,
    tracker: &TrackerUrl,
    family: Family,
    request: Request,
    deadline: Duration,
) -> Result<Response, TrackerError> {
    if config.http.proxy.is_some() {
        return Err(TrackerError::Url("UDP trackers are not asked when a proxy is set".into()));
    }
    let end = tokio::time::Instant::now() + deadline;
    let timed_out = || TrackerError::TimedOut(deadline);
    let addresses = tokio::time::timeout_at(end, addresses(tracker, family)).await.map_err(|_| timed_out())??;
    let mut last = timed_out();
    let mut left = u32::try_from(addresses.len().min(MAX_ADDRESSES)).unwrap_or(1);
    for address in addresses.into_iter().take(MAX_ADDRESSES) {
        let share = end.saturating_duration_since(tokio::time::Instant::now()) / left.max(1);
        left = left.saturating_sub(1);
        last = match tokio::time::timeout(share, exchange(config, address, request.clone())).await {
            Ok(Err(error @ TrackerError::Failure { .. })) => return Err(error),
            Ok(Ok(response)) => return Ok(response),
            Ok(Err(error)) => error,
            Err(_) => timed_out(),
        };
    }
    Err(last)
}

async fn addresses(tracker: &TrackerUrl, family: Family) -> Result<Vec<SocketAddr>, TrackerError> {
    let name = match (tracker.host(), tracker.ip()) {
        (Host::Domain(name), None) => name,
        (_, Some(ip)) if !Reach::Local.allows(ip) => {
            return Err(TrackerError::Unsafe(LookupError::Refused(ip).to_string()));
        }
        (_, Some(ip)) if Family::of(ip) == family => return Ok(vec![SocketAddr::new(ip, tracker.port())]),
        _ => return Err(TrackerError::NoAddress(family)),
    };
    lookup(name, tracker.port(), Some(family), Reach::Local).await.map_err(|e| match e {
        LookupError::Failed(why) => TrackerError::Lookup(why),
        LookupError::NoFamily(family) => TrackerError::NoAddress(family),
        LookupError::Refused(_) => TrackerError::Unsafe(e.to_string()),
    })
}

async fn exchange(
    config: &TrackerClientConfig,
    tracker: SocketAddr,
    request: Request,
) -> Result<Response, TrackerError> {
    let family = Family::of(tracker.ip());
    let broken = |error: std::io::Error| match has_no_route(&error, family) {
        true => TrackerError::NoAddress(family),
        false => TrackerError::Unreachable(printable(error.to_string().as_bytes(), 120)),
    };
    let socket = open(config, family).map_err(broken)?;
    socket.connect(tracker).await.map_err(broken)?;
    let tids = [random()?, random()?];
    let mut exchange = Exchange::new(Instant::now(), request, family, tids, config.udp_first_timeout);
    let mut buffer = vec![0; MAX_DATAGRAM];
    loop {
        if let Some(packet) = exchange.poll_transmit(Instant::now()) {
            socket.send(&packet).await.map_err(broken)?;
        }
        tokio::select! {
            received = socket.recv(&mut buffer) => {
                let datagram = buffer.get(..received.map_err(broken)?).unwrap_or_default();
                if let Some(result) = exchange.handle_datagram(Instant::now(), datagram) {
                    return result;
                }
            }
            () = tokio::time::sleep_until(exchange.poll_timeout().into()) => exchange.handle_timeout(Instant::now()),
        }
    }
}

fn open(config: &TrackerClientConfig, family: Family) -> std::io::Result<UdpSocket> {
    use socket2::{Domain, Protocol, Socket, Type};
    let (domain, local) = match family {
        Family::V4 => (Domain::IPV4, IpAddr::V4(config.http.local_v4.unwrap_or(Ipv4Addr::UNSPECIFIED))),
        Family::V6 => (Domain::IPV6, IpAddr::V6(config.http.local_v6.unwrap_or(Ipv6Addr::UNSPECIFIED))),
    };
    let socket = Socket::new(domain, Type::DGRAM, Some(Protocol::UDP))?;
    if let Some(device) = &config.http.device {
        crate::sys::bind_socket(&socket, device)?;
    }
    socket.set_nonblocking(true)?;
    socket.bind(&SocketAddr::new(local, 0).into())?;
    UdpSocket::from_std(socket.into())
}

/// From the operating system: who can guess a transaction id can answer in the tracker's place.
fn random() -> Result<u32, TrackerError> {
    getrandom::u32().map_err(|e| TrackerError::Unreachable(format!("no random numbers: {e}")))
}
