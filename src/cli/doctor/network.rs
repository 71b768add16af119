//! Tries the network, all of it at once, within a time.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use super::facts::{Facts, Family};
use crate::net::egress::Egress;
use crate::net::nat::{self, Protocol, State};
use crate::net::{dht, udp};
use crate::session::{Config, Session};

/// How long a name may take.
const NAME: Duration = Duration::from_secs(5);
/// How long a connection with ourselves by way of the router may take.
const COME_BACK: Duration = Duration::from_secs(3);
/// How often the DHT's table is looked at.
const LOOK: Duration = Duration::from_millis(100);
/// It has grown enough when nothing was added for so long, or with so many nodes.
const SETTLED: Duration = Duration::from_secs(3);
const ENOUGH_NODES: usize = 100;
/// How long saying goodbye may take.
const STOP: Duration = Duration::from_secs(2);

/// Finds out what a session with this configuration can reach.
pub(super) async fn look(config: Config, facts: &mut Facts, patience: Duration) {
    let end = Instant::now() + patience;
    let egress = config.egress.clone();
    facts.device = egress.device().map(str::to_owned);
    facts.proxied = egress.proxy().is_some();
    facts.dht = config.dht.is_some() && (!facts.proxied || egress.takes_udp());
    facts.udp_buffers = udp::granted_buffers(&egress).ok();
    if !facts.offline {
        for (family, v4) in [(&mut facts.v4, true), (&mut facts.v6, false)] {
            family.way = Some(nat::find_gateway(&egress, v4));
        }
    }
    let routes = [&facts.v4, &facts.v6].iter().any(|family| matches!(family.way, Some(Ok(_)))) || facts.proxied;
    let started = tokio::time::timeout(patience, Session::start(config)).await;
    let session = match started {
        Ok(Ok(session)) => session,
        Ok(Err(error)) => return facts.listening = Some(Err(error.to_string())),
        Err(_) => return facts.listening = Some(Err("nobody answers".to_owned())),
    };
    facts.listening = Some(Ok(session.listen_addresses()));
    if !facts.offline && routes {
        let (names, (), ()) = tokio::join!(name(&egress), dht_settled(&session, end), mappings_settled(&session, end));
        facts.names = names;
        let mappings = session.mappings();
        (facts.v4.mapping, facts.v6.mapping) = (mappings.v4, mappings.v6);
        if let Some(stats) = match session.dht() {
            Some(client) => client.stats().await,
            None => None,
        } {
            for socket in stats.sockets {
                let family = if socket.local.is_ipv4() { &mut facts.v4 } else { &mut facts.v6 };
                family.dht_nodes += socket.good;
                family.seen_as = family.seen_as.or(socket.external.filter(|ip| Some(*ip) != family.mapping.ip()));
            }
        }
        let (v4, v6) = tokio::join!(comes_back(&egress, &facts.v4), comes_back(&egress, &facts.v6));
        (facts.v4.comes_back, facts.v6.comes_back) = (v4, v6);
    }
    session.stop(STOP).await;
}

/// Looks up a name that downloads need; none where names are the proxy's.
async fn name(egress: &Egress) -> Option<Result<Duration, String>> {
    if egress.leaves_names_to_proxy() {
        return None;
    }
    let ((host, port), begin) = (dht::ROUTERS[0], Instant::now());
    Some(match tokio::time::timeout(NAME, egress.lookup(host, port)).await {
        Ok(Ok(found)) if !found.is_empty() => Ok(begin.elapsed()),
        Ok(Ok(_)) => Err(format!("{host}: no address")),
        Ok(Err(error)) => Err(format!("{host}: {}", crate::cli::exit::io_words(&error))),
        Err(_) => Err(format!("{host}: the name servers do not answer")),
    })
}

async fn dht_settled(session: &Session, end: Instant) {
    let Some(client) = session.dht() else { return };
    let (mut seen, mut grown) = (0, Instant::now());
    while Instant::now() < end && seen < ENOUGH_NODES && (seen == 0 || grown.elapsed() < SETTLED) {
        tokio::time::sleep(LOOK).await;
        if client.node_count() > seen {
            (seen, grown) = (client.node_count(), Instant::now());
        }
    }
}

async fn mappings_settled(session: &Session, end: Instant) {
    let Some(mut mappings) = session.watch_mappings() else { return };
    let settled =
        mappings.wait_for(|all| all.v4 != State::Asking && all.v6 != State::Asking && *all != Default::default());
    let _ = tokio::time::timeout_at(end.into(), settled).await;
}

/// Many routers lead connections with their own address outside back in, as they would those of others.
async fn comes_back(egress: &Egress, family: &Family) -> Option<bool> {
    let outside: SocketAddr = family.mapping.external(Protocol::Tcp)?;
    let connected = tokio::time::timeout(COME_BACK, egress.connect(outside)).await;
    Some(matches!(connected, Ok(Ok(_))))
}
