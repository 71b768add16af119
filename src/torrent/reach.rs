//! Where others reach us: at the ports that we listen on, or at what a router has made of them.

use std::future::pending;
use std::net::SocketAddr;
use std::time::Instant;

use tokio::sync::watch;

use super::Spec;
use super::task::Task;
use crate::net::nat::{Mappings, Protocol, State};
use crate::swarm::OutsidePorts;

/// Waits until routers say something new, for ever if none is asked.
pub(super) async fn remapped(mappings: &mut Option<watch::Receiver<Mappings>>) -> Mappings {
    while let Some(receiver) = mappings {
        if receiver.changed().await.is_err() {
            *mappings = None;
        } else if let Some(now) = settled(receiver) {
            return now;
        }
    }
    pending().await
}

/// What routers say, unless one is being asked.
fn settled(mappings: &mut watch::Receiver<Mappings>) -> Option<Mappings> {
    let now = mappings.borrow_and_update();
    (now.v4 != State::Asking && now.v6 != State::Asking).then(|| now.clone())
}

/// The port that the DHT is told; none is the port of its own socket as others see it, which uTP listens on as well.
pub(super) fn dht_port(spec: &Spec) -> Option<u16> {
    spec.listen.first().map(SocketAddr::port).filter(|_| !spec.implied_port)
}

impl Task {
    /// Before anybody is told anything.
    pub(super) fn begin_with_mappings(&mut self) {
        if let Some(mappings) = self.mappings.as_mut().and_then(settled) {
            self.handle_mappings(&mappings);
        }
    }

    /// Tells everybody of it.
    pub(super) fn handle_mappings(&mut self, mappings: &Mappings) {
        let now = Instant::now();
        // Whoever is told one port for both takes TCP's for the one.
        let either = |v4| mappings.port(v4, Protocol::Tcp).or_else(|| mappings.port(v4, Protocol::Udp));
        let outside =
            [true, false].map(|v4| OutsidePorts { listen: either(v4), dht: mappings.port(v4, Protocol::Udp) });
        self.trackers.set_outside_ports(now, either(true), either(false));
        let own = dht_port(&self.spec);
        self.dht.set_ports(now, either(true).or(own), either(false).or(own));
        self.shared.turn(|swarm, _| {
            swarm.handle_outside_ports(outside);
            for v4 in [true, false] {
                if let Some(ip) = mappings.of(v4).ip() {
                    swarm.handle_external_address(SocketAddr::new(ip, either(v4).unwrap_or(0)));
                }
            }
        });
    }
}
