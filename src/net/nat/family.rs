//! What one task does: the mappings of one family, from the first question to their removal.

use std::net::SocketAddr;
use std::num::NonZeroU16;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::relay::Relay;
use super::{Gateway, LEASE, Mapped, Mappings, NatConfig, Protocol, State, Wanted, gateway, pmp, upnp};
use crate::net::egress::Egress;
use crate::swarm::address_filter::is_local;

/// A lease is renewed when half of it is over, but not more often than this, whatever the router grants (RFC 6887, 11.2.1:
/// four seconds).
const MIN_RENEW: Duration = Duration::from_secs(4);

/// How long after a failure the router is asked again: at first, and at most.
const FIRST_PAUSE: Duration = Duration::from_secs(60);
const MAX_PAUSE: Duration = Duration::from_secs(1800);

/// How often the way to the internet is looked at.
const LOOK: Duration = Duration::from_secs(30);

/// When we stop while a lease is being asked for: how long the answer is waited for, so that it can be given back.
const LATE_LEASE: Duration = Duration::from_millis(150);

/// A mapping on a router.
#[derive(Debug)]
enum Lease {
    Pmp(pmp::Lease, Protocol),
    Upnp(upnp::Lease),
    Pinhole(upnp::Pinhole),
}

impl Lease {
    async fn renew(&mut self) -> Result<(), String> {
        match self {
            Self::Pmp(lease, _) => lease.renew().await,
            Self::Upnp(lease) => lease.renew().await,
            Self::Pinhole(pinhole) => pinhole.renew().await,
        }
    }

    async fn remove(self) -> Result<(), String> {
        match self {
            Self::Pmp(lease, _) => lease.remove().await,
            Self::Upnp(lease) => lease.remove().await,
            Self::Pinhole(pinhole) => pinhole.remove().await,
        }
    }

    fn lifetime(&self) -> Duration {
        match self {
            Self::Pmp(lease, _) => lease.lifetime(),
            Self::Upnp(lease) => lease.lifetime(),
            Self::Pinhole(_) => Duration::from_secs(LEASE.into()),
        }
    }

    fn seen(&self) -> Mapped {
        match self {
            Self::Pmp(lease, protocol) => lease.seen(*protocol),
            Self::Upnp(lease) => lease.seen(),
            Self::Pinhole(pinhole) => pinhole.seen(),
        }
    }
}

/// A UPnP device: what it does depends on the family.
#[derive(Clone)]
enum Upnp {
    Router(upnp::Router),
    Firewall(upnp::Firewall),
}

/// A lease, and when it is over.
#[derive(Debug)]
struct Held {
    lease: Lease,
    renew_at: Instant,
    ends_at: Instant,
}

impl Held {
    /// A lease of this moment.
    fn new(lease: Lease) -> Self {
        let now = Instant::now();
        let mut held = Self { lease, renew_at: now, ends_at: now };
        held.begin();
        held
    }

    /// Its time begins again.
    fn begin(&mut self) {
        let now = Instant::now();
        let lifetime = self.lease.lifetime().min(Duration::from_secs(LEASE.into()));
        self.renew_at = now + (lifetime / 2).max(MIN_RENEW);
        self.ends_at = now + lifetime.max(2 * MIN_RENEW);
    }
}

/// Why a family's leases are no longer held.
enum Lost {
    /// The way to the internet has changed.
    Moved,
    /// The router has not renewed them in time.
    Expired(String),
}

/// One family, and the mappings that its task holds.
pub(super) struct Family {
    v4: bool,
    wanted: Vec<Wanted>,
    egress: Egress,
    config: NatConfig,
    report: Arc<watch::Sender<Mappings>>,
    /// A lease that is being asked for, in a task of its own: who stops us then knows of it all the same.
    asking: Option<JoinHandle<Result<Lease, String>>>,
    held: Vec<Held>,
    /// What was told last of why there is no mapping.
    told: String,
}

impl Family {
    pub(super) fn new(
        v4: bool,
        wanted: Vec<Wanted>,
        egress: Egress,
        config: NatConfig,
        report: Arc<watch::Sender<Mappings>>,
    ) -> Self {
        Self { v4, wanted, egress, config, report, asking: None, held: Vec::new(), told: String::new() }
    }

    pub(super) async fn run(mut self, mut stopped: watch::Receiver<bool>) {
        tokio::select! {
            () = self.keep_mapped() => {}
            // It fails only when nobody is left who could stop us.
            _ = stopped.wait_for(|stopped| *stopped) => {}
        }
        self.remove_all().await;
        self.tell(State::Off);
    }

    async fn keep_mapped(&mut self) {
        let mut pause = FIRST_PAUSE;
        loop {
            self.tell(State::Asking);
            let gateway = self.gateway();
            let failed = match self.map_all(gateway.clone()).await {
                Ok(()) => {
                    (pause, self.told) = (FIRST_PAUSE, String::new());
                    match self.hold(gateway.as_ref().ok()).await {
                        Lost::Moved => None,
                        Lost::Expired(why) => Some(why),
                    }
                }
                Err(State::Failed(why)) => Some(why),
                Err(state) => {
                    self.tell(state);
                    self.until_moved(gateway.as_ref().ok(), MAX_PAUSE).await;
                    continue;
                }
            };
            self.remove_all().await;
            let Some(why) = failed else { continue };
            if self.told != why {
                tracing::info!(family = self.name(), "no port mapping: {why}");
                self.told.clone_from(&why);
            }
            self.tell(State::Failed(why));
            if self.until_moved(gateway.as_ref().ok(), pause).await {
                pause = FIRST_PAUSE;
            } else {
                pause = (2 * pause).min(MAX_PAUSE);
            }
        }
    }

    fn name(&self) -> &'static str {
        if self.v4 { "IPv4" } else { "IPv6" }
    }

    fn tell(&self, state: State) {
        self.report.send_if_modified(|mappings| {
            let place = if self.v4 { &mut mappings.v4 } else { &mut mappings.v6 };
            let changed = *place != state;
            *place = state;
            changed
        });
    }

    fn gateway(&self) -> Result<Gateway, String> {
        let given = self.config.gateways.map(|[v4, v6]| if self.v4 { v4 } else { v6 });
        given.map_or_else(
            || gateway::find(&self.egress, self.v4),
            |gateway| gateway.ok_or_else(|| "no router".to_owned()),
        )
    }

    /// Maps every port that is wanted.
    async fn map_all(&mut self, gateway: Result<Gateway, String>) -> Result<(), State> {
        let gateway = gateway.map_err(State::Failed)?;
        if self.v4 && !is_local(gateway.ours) {
            return Err(State::NotNeeded(gateway.ours));
        }
        if !self.v4 && is_local(gateway.ours) {
            return Err(State::Failed("no address that is known outside".to_owned()));
        }
        // What speaks to routers is not ours, and binds no sockets to devices.
        let device = self.egress.device().is_some();
        let relay = device.then(|| Relay::start(&gateway, crab_nat::GATEWAY_PORT, &self.egress)).transpose();
        let relay = relay.map_err(|e| State::Failed(format!("port {}: {e}", crab_nat::GATEWAY_PORT)))?.map(Arc::new);
        let mut router = None;
        for Wanted { address, protocol } in self.wanted.clone() {
            let Some(port) = NonZeroU16::new(address.port()) else { continue };
            if !address.ip().is_unspecified() && address.ip() != gateway.ours {
                continue;
            }
            let ours = SocketAddr::new(gateway.ours, port.get());
            // One port for TCP and UDP, if the router has it: peers expect that.
            let same = self.held.iter().map(|held| held.lease.seen()).find(|seen| seen.port == port.get());
            let outside = same.and_then(|seen| NonZeroU16::new(seen.external.port())).unwrap_or(port);
            let lease = match &router {
                None => {
                    let relay = relay.clone();
                    let by_pmp = async move { pmp::Lease::new(&gateway, relay, protocol, port, outside).await };
                    match self.lease(async move { by_pmp.await.map(|lease| Lease::Pmp(lease, protocol)) }).await {
                        Ok(lease) => lease,
                        Err(why) if self.held.is_empty() && !device => {
                            let found = self.upnp(&gateway).await;
                            let found = found.map_err(|e| State::Failed(format!("{why}; {e}")))?;
                            self.by_upnp(router.insert(found), ours, protocol, outside).await?
                        }
                        Err(why) => return Err(State::Failed(why)),
                    }
                }
                Some(router) => self.by_upnp(router, ours, protocol, outside).await?,
            };
            let Mapped { method, external, router, .. } = lease.seen();
            tracing::info!(%protocol, port, %external, %router, %method, "port mapped");
            self.held.push(Held::new(lease));
        }
        if self.held.is_empty() {
            return Err(State::Failed("we listen at an address that the router does not know".to_owned()));
        }
        Ok(())
    }

    async fn upnp(&self, gateway: &Gateway) -> Result<Upnp, String> {
        if self.v4 {
            upnp::Router::find(gateway, &self.egress, &self.config).await.map(Upnp::Router)
        } else {
            upnp::Firewall::find(gateway, &self.egress, &self.config).await.map(Upnp::Firewall)
        }
    }

    async fn by_upnp(
        &mut self,
        device: &Upnp,
        ours: SocketAddr,
        protocol: Protocol,
        outside: NonZeroU16,
    ) -> Result<Lease, State> {
        let device = device.clone();
        let lease = self.lease(async move {
            match (device, ours) {
                (Upnp::Router(router), ours) => {
                    upnp::Lease::new(&router, protocol, ours, outside).await.map(Lease::Upnp)
                }
                (Upnp::Firewall(firewall), SocketAddr::V6(ours)) => {
                    upnp::Pinhole::new(&firewall, protocol, ours).await.map(Lease::Pinhole)
                }
                (Upnp::Firewall(_), SocketAddr::V4(_)) => Err("UPnP: IPv4 has no holes".to_owned()),
            }
        });
        lease.await.map_err(State::Failed)
    }

    async fn lease(
        &mut self,
        request: impl Future<Output = Result<Lease, String>> + Send + 'static,
    ) -> Result<Lease, String> {
        let lease = self.asking.insert(tokio::spawn(request)).await;
        self.asking = None;
        lease.unwrap_or_else(|_| Err("internal error".to_owned()))
    }

    /// Renews leases until that fails for too long or the network is another one.
    async fn hold(&mut self, gateway: Option<&Gateway>) -> Lost {
        loop {
            self.tell(State::Mapped(self.held.iter().map(|held| held.lease.seen()).collect()));
            let next = self.held.iter().map(|held| held.renew_at).min().unwrap_or_else(Instant::now);
            let wait = next.saturating_duration_since(Instant::now());
            if self.until_moved(gateway, wait).await {
                return Lost::Moved;
            }
            for at in 0..self.held.len() {
                let now = Instant::now();
                let Some(held) = self.held.get_mut(at).filter(|held| held.renew_at <= now) else { continue };
                match held.lease.renew().await {
                    Ok(()) => held.begin(),
                    Err(why) if now >= held.ends_at => return Lost::Expired(why),
                    // Some time is left: half of it, and half of that.
                    Err(_) => held.renew_at = now + ((held.ends_at - now) / 2).max(MIN_RENEW),
                }
            }
        }
    }

    /// Waits for `time`, or until the way to the internet is another one than `gateway`: then true.
    async fn until_moved(&self, gateway: Option<&Gateway>, time: Duration) -> bool {
        let end = Instant::now() + time;
        loop {
            let now = Instant::now();
            if now >= end {
                return false;
            }
            tokio::time::sleep_until(end.min(now + LOOK)).await;
            if self.gateway().ok().as_ref() != gateway {
                return true;
            }
        }
    }

    async fn remove_all(&mut self) {
        if let Some(mut asking) = self.asking.take() {
            match tokio::time::timeout(LATE_LEASE, &mut asking).await {
                Ok(answer) => self.held.extend(answer.into_iter().flatten().map(Held::new)),
                Err(_) => asking.abort(),
            }
        }
        // One after the other: a router that does not answer the first hears of the others no more before we are gone.
        for held in self.held.drain(..) {
            if let Err(why) = held.lease.remove().await {
                tracing::info!("a port mapping could not be removed: {why}");
            }
        }
    }
}
