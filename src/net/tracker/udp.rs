//! One socket for each exchange, connected to the tracker: the kernel drops what comes from elsewhere, an ICMP error
//! comes back at once, the port is another random number that a forger would have to guess, and there is no table of
//! transactions to keep or to fill up. The price is one round trip for the connection id, which some trackers tie to
//! the port anyway; announces are minutes apart.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use tokio::net::UdpSocket;
use url::Host;

use super::TrackerClientConfig;
use crate::net::egress::Egress;
use crate::net::http::{LookupError, Reach, has_no_route, lookup};
use crate::net::proxy::Target;
use crate::net::proxy::relay::Association;
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

/// Where a tracker is asked.
enum Place<'a> {
    At(SocketAddr),
    /// Where its name leads is the proxy's affair.
    Named(&'a str, u16),
}

async fn ask(
    config: &TrackerClientConfig,
    tracker: &TrackerUrl,
    family: Family,
    request: Request,
    deadline: Duration,
) -> Result<Response, TrackerError> {
    let egress = &config.http.egress;
    if !egress.takes_udp() {
        return Err(TrackerError::Url("an HTTP proxy cannot reach UDP trackers".into()));
    }
    if egress.proxy().is_some() && family == Family::V6 {
        // The proxy decides over which family it goes: one announce is enough.
        return Err(TrackerError::NoAddress(family));
    }
    let end = tokio::time::Instant::now() + deadline;
    let timed_out = || TrackerError::TimedOut(deadline);
    let places = tokio::time::timeout_at(end, places(egress, tracker, family)).await.map_err(|_| timed_out())??;
    let mut last = timed_out();
    let mut left = u32::try_from(places.len().min(MAX_ADDRESSES)).unwrap_or(1);
    for place in places.into_iter().take(MAX_ADDRESSES) {
        let share = end.saturating_duration_since(tokio::time::Instant::now()) / left.max(1);
        left = left.saturating_sub(1);
        last = match tokio::time::timeout(share, exchange(config, &place, request.clone())).await {
            Ok(Err(error @ TrackerError::Failure { .. })) => return Err(error),
            Ok(Ok(response)) => return Ok(response),
            Ok(Err(error)) => error,
            Err(_) => timed_out(),
        };
    }
    Err(last)
}

async fn places<'a>(egress: &Egress, tracker: &'a TrackerUrl, family: Family) -> Result<Vec<Place<'a>>, TrackerError> {
    // Through a proxy either will do.
    let family = Some(family).filter(|_| egress.proxy().is_none());
    let name = match (tracker.host(), tracker.ip()) {
        (Host::Domain(name), None) => name,
        (_, Some(ip)) if !Reach::Local.allows(ip) => {
            return Err(TrackerError::Unsafe(LookupError::Refused(ip).to_string()));
        }
        (_, Some(ip)) if family.is_none_or(|family| Family::of(ip) == family) => {
            return Ok(vec![Place::At(SocketAddr::new(ip, tracker.port()))]);
        }
        _ => return Err(TrackerError::NoAddress(family.unwrap_or(Family::V4))),
    };
    if egress.leaves_names_to_proxy() {
        return Ok(vec![Place::Named(name, tracker.port())]);
    }
    let found = lookup(egress, name, tracker.port(), family, Reach::Local).await;
    found.map(|found| found.into_iter().map(Place::At).collect()).map_err(|e| match e {
        LookupError::Failed(why) => TrackerError::Lookup(why),
        LookupError::NoFamily(family) => TrackerError::NoAddress(family),
        LookupError::Refused(_) => TrackerError::Unsafe(e.to_string()),
    })
}

async fn exchange(config: &TrackerClientConfig, place: &Place<'_>, request: Request) -> Result<Response, TrackerError> {
    let family = match place {
        Place::At(address) => Family::of(address.ip()),
        // The family only tells how addresses in the answer are written, and nearly all trackers are asked over IPv4.
        Place::Named(..) => Family::V4,
    };
    let broken = |error: io::Error| match has_no_route(&error, family) {
        true => TrackerError::NoAddress(family),
        false => TrackerError::Unreachable(printable(error.to_string().as_bytes(), 120)),
    };
    let way = Way::open(&config.http.egress, place).await.map_err(broken)?;
    let tids = [random()?, random()?];
    let mut exchange = Exchange::new(Instant::now(), request, family, tids, config.udp_first_timeout);
    let mut buffer = vec![0; MAX_DATAGRAM];
    loop {
        if let Some(packet) = exchange.poll_transmit(Instant::now()) {
            way.send(&packet).await.map_err(broken)?;
        }
        tokio::select! {
            received = way.receive(&mut buffer) => {
                let datagram = received.map_err(broken)?;
                if let Some(result) = exchange.handle_datagram(Instant::now(), datagram) {
                    return result.map(|response| match response {
                        Response::Announce(answer) => Response::Announce(AnnounceResponse { from: way.remote(), ..answer }),
                        scrape @ Response::Scrape(_) => scrape,
                    });
                }
            }
            () = tokio::time::sleep_until(exchange.poll_timeout().into()) => exchange.handle_timeout(Instant::now()),
        }
    }
}

/// How datagrams go to one tracker and back.
enum Way<'a> {
    /// A socket that is connected with it.
    Straight(UdpSocket),
    /// The relay of a proxy. Whoever answers knows the transaction, which nobody else has seen.
    Relayed(Association, Target<'a>),
}

impl<'a> Way<'a> {
    async fn open(egress: &Egress, place: &Place<'a>) -> io::Result<Self> {
        let target = match *place {
            Place::At(address) if egress.proxy().is_none() => {
                return straight(egress, address).await.map(Self::Straight);
            }
            Place::At(address) => Target::Ip(address),
            Place::Named(name, port) => Target::Name(name, port),
        };
        Ok(Self::Relayed(egress.associate().await?, target))
    }

    /// Who is at its other end: the tracker, or the proxy.
    fn remote(&self) -> Option<IpAddr> {
        match self {
            Self::Straight(socket) => socket.peer_addr().ok().map(|at| at.ip()),
            Self::Relayed(association, _) => Some(association.relay().ip()),
        }
    }

    async fn send(&self, packet: &[u8]) -> io::Result<()> {
        match self {
            Self::Straight(socket) => socket.send(packet).await.map(drop),
            Self::Relayed(association, target) => association.send_to(*target, packet).await,
        }
    }

    async fn receive<'b>(&self, buffer: &'b mut [u8]) -> io::Result<&'b [u8]> {
        let range = match self {
            Self::Straight(socket) => 0..socket.recv(buffer).await?,
            Self::Relayed(association, _) => association.receive(buffer).await?.1,
        };
        Ok(buffer.get(range).unwrap_or_default())
    }
}

async fn straight(egress: &Egress, tracker: SocketAddr) -> io::Result<UdpSocket> {
    let socket = UdpSocket::from_std(egress.udp_for(tracker)?)?;
    socket.connect(tracker).await?;
    Ok(socket)
}

/// From the operating system: who can guess a transaction id can answer in the tracker's place.
fn random() -> Result<u32, TrackerError> {
    getrandom::u32().map_err(|e| TrackerError::Unreachable(format!("no random numbers: {e}")))
}
