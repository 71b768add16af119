//! The session's ports on the router, and who is told what comes of it.

use std::time::Duration;

use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::net::dht::DhtClient;
use crate::net::egress::Egress;
use crate::net::nat::{Mapper, Mappings, NatConfig, Protocol, Wanted};
use crate::net::udp::UdpHub;

/// How long mappings may take to be removed when we stop. They end by themselves, too; nobody has to wait for a router.
const REMOVAL: Duration = Duration::from_secs(2);

/// Mappings that are kept as long as this lives.
pub(super) struct Nat {
    mapper: Mapper,
    telling: Option<JoinHandle<()>>,
}

impl Nat {
    /// Has the ports of these sockets mapped, if there is anything to map.
    pub(super) fn start(
        tcp: &[TcpListener],
        udp: Option<&UdpHub>,
        egress: &Egress,
        config: &NatConfig,
        dht: Option<&DhtClient>,
    ) -> Option<Self> {
        let tcp = tcp.iter().filter_map(|listener| listener.local_addr().ok());
        let wanted = tcp.map(|address| Wanted { address, protocol: Protocol::Tcp });
        let udp = udp.map(UdpHub::addresses).unwrap_or_default().into_iter();
        let wanted = wanted.chain(udp.map(|address| Wanted { address, protocol: Protocol::Udp }));
        let mapper = Mapper::start(&wanted.collect::<Vec<_>>(), egress, config)?;
        let telling = dht.map(|dht| tokio::spawn(tell(mapper.mappings(), dht.clone())));
        Some(Self { mapper, telling })
    }

    pub(super) fn mappings(&self) -> watch::Receiver<Mappings> {
        self.mapper.mappings()
    }

    /// Gives everything back.
    pub(super) async fn stop(&self, deadline: Duration) {
        self.mapper.stop(deadline.min(REMOVAL)).await;
    }
}

impl Drop for Nat {
    fn drop(&mut self) {
        if let Some(telling) = &self.telling {
            telling.abort();
        }
    }
}

/// Tells the DHT node our address whenever a router says another one. What nodes see weighs more, once enough have told.
async fn tell(mut mappings: watch::Receiver<Mappings>, dht: DhtClient) {
    let mut told = [None; 2];
    loop {
        let now = { mappings.borrow_and_update().clone() };
        for (told, v4) in told.iter_mut().zip([true, false]) {
            let ip = now.of(v4).ip();
            if let Some(ip) = ip.filter(|_| ip != *told) {
                *told = Some(ip);
                dht.external(ip);
            }
        }
        if mappings.changed().await.is_err() {
            return;
        }
    }
}
