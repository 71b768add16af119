//! The driver of the DHT node: it joins [`Node`] to the UDP sockets, the clock and the names of hosts.
//!
//! One task owns the node. What is wanted of it goes in as requests by [`DhtClient`], which is cheap to clone; what comes
//! of an operation goes out on a channel of its own. The task ends when the last client is gone.
//!
//! Names are looked up whenever the node calls for help: at once, then less and less often (`dht/maintain.rs`). The
//! system's resolver runs on threads of its own and is given some seconds, so that a dead one holds up nothing.

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use tokio::sync::{mpsc, oneshot};

use super::egress::Egress;
use super::http::{Reach, lookup};
use super::udp::{Packet, Route, UdpHub};
use crate::dht::{Command, Event, Node, NodeConfig, OperationId, SavedState, Stats};

/// Where everybody begins who knows nobody.
pub const ROUTERS: [(&str, u16); 4] = [
    ("router.bittorrent.com", 6881),
    ("dht.transmissionbt.com", 6881),
    ("router.utorrent.com", 6881),
    ("dht.libtorrent.org", 25401),
];

/// Requests that may wait for the node.
const REQUESTS: usize = 1_024;

/// Events of one operation that may wait to be taken: more than an operation has.
const EVENTS: usize = 1_024;

/// Names of nodes that are kept, from the configuration and from torrents.
const MAX_NAMES: usize = 64;

/// Addresses of one name that are asked.
const MAX_ADDRESSES: usize = 8;

/// How long a name may take.
const LOOKUP_TIMEOUT: Duration = Duration::from_secs(10);

/// Packets that are taken in a row before requests and time are looked at.
const BURST: usize = 64;

/// What a node begins with.
#[derive(Clone, Debug, Default)]
pub struct DhtConfig {
    /// Hosts and ports of nodes to begin with.
    pub nodes: Vec<(String, u16)>,
    /// The same, of well-known ones that are asked for others and nothing else.
    pub routers: Vec<(String, u16)>,
    /// BEP 43.
    pub read_only: bool,
    /// What an earlier run has left.
    pub saved: SavedState,
}

impl DhtConfig {
    /// Begins with [`ROUTERS`].
    pub fn well_known() -> Self {
        Self { routers: ROUTERS.map(|(host, port)| (host.to_owned(), port)).to_vec(), ..Self::default() }
    }
}

/// Speaks to the node of this process.
#[derive(Clone, Debug)]
pub struct DhtClient {
    requests: mpsc::Sender<Request>,
    nodes: Arc<AtomicUsize>,
}

#[derive(Debug)]
enum Request {
    Start(Command, mpsc::Sender<Event>),
    AddNode(SocketAddr),
    External(IpAddr),
    AddNames(Vec<(String, u16)>),
    Stats(oneshot::Sender<Stats>),
    Save(oneshot::Sender<SavedState>),
}

impl DhtClient {
    /// Starts a node on the sockets of `hub`, which looks up names by way of `egress`; none if there is one on them already.
    ///
    /// # Errors
    /// Without entropy of the operating system.
    pub fn start(hub: Arc<UdpHub>, egress: &Egress, config: DhtConfig) -> io::Result<Option<Self>> {
        let Some(packets) = hub.dht_packets() else { return Ok(None) };
        let mut seed = [0; 32];
        getrandom::fill(&mut seed).map_err(io::Error::other)?;
        let node_config = NodeConfig { read_only: config.read_only };
        let node = Node::new(Instant::now(), &hub.addresses(), node_config, seed, &config.saved);
        let (requests, inbox) = mpsc::channel(REQUESTS);
        let (found_names, names_found) = mpsc::channel(MAX_NAMES);
        let names = |names: Vec<(String, u16)>, router| names.into_iter().map(move |name| Name { name, router });
        let nodes = Arc::new(AtomicUsize::new(0));
        let driver = Driver {
            hub,
            egress: egress.clone(),
            node,
            names: names(config.nodes, false).chain(names(config.routers, true)).take(MAX_NAMES).collect(),
            found_names,
            looking_up: 0,
            watching: HashMap::new(),
            nodes: nodes.clone(),
        };
        tokio::spawn(driver.run(packets, inbox, names_found));
        Ok(Some(Self { requests, nodes }))
    }

    /// Begins an operation. What comes of it can be received; the last is [`Event::Done`], and then, or when the node is
    /// gone, nothing more. Who drops the receiver ends the operation.
    pub fn command(&self, command: Command) -> mpsc::Receiver<Event> {
        let (sender, receiver) = mpsc::channel(EVENTS);
        // If there is no room the sender is dropped, and the receiver is at its end.
        let _ = self.requests.try_send(Request::Start(command, sender));
        receiver
    }

    /// A node that a peer runs, as it says (BEP 5, `port`).
    pub fn add_node(&self, address: SocketAddr) {
        let _ = self.requests.try_send(Request::AddNode(address));
    }

    /// Our address, as a router says (BEP 42).
    pub fn external(&self, ip: IpAddr) {
        let _ = self.requests.try_send(Request::External(ip));
    }

    /// Nodes that a torrent names (BEP 5, `nodes`).
    pub fn add_names(&self, names: &[(String, u16)]) {
        if !names.is_empty() {
            let names = names.iter().take(MAX_NAMES).cloned().collect();
            let _ = self.requests.try_send(Request::AddNames(names));
        }
    }

    /// Nodes in the table, of both families.
    pub fn node_count(&self) -> usize {
        self.nodes.load(Ordering::Relaxed)
    }

    /// What the node is like; none if it is gone.
    pub async fn stats(&self) -> Option<Stats> {
        let (sender, receiver) = oneshot::channel();
        self.requests.send(Request::Stats(sender)).await.ok()?;
        receiver.await.ok()
    }

    /// What is to be kept for the next run; none if the node is gone.
    pub async fn save(&self) -> Option<SavedState> {
        let (sender, receiver) = oneshot::channel();
        self.requests.send(Request::Save(sender)).await.ok()?;
        receiver.await.ok()
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Name {
    name: (String, u16),
    router: bool,
}

/// A name has led to these addresses, or to none.
type NameFound = (Vec<SocketAddr>, bool);

struct Driver {
    hub: Arc<UdpHub>,
    egress: Egress,
    node: Node,
    names: Vec<Name>,
    found_names: mpsc::Sender<NameFound>,
    /// Names that are being looked up.
    looking_up: usize,
    /// Who wants to hear of an operation.
    watching: HashMap<OperationId, mpsc::Sender<Event>>,
    nodes: Arc<AtomicUsize>,
}

impl Driver {
    async fn run(
        mut self,
        mut packets: mpsc::Receiver<Packet>,
        mut requests: mpsc::Receiver<Request>,
        mut names_found: mpsc::Receiver<NameFound>,
    ) {
        loop {
            self.settle(None);
            let due = self.node.poll_timeout();
            tokio::select! {
                packet = packets.recv() => {
                    let Some(packet) = packet else { return };
                    self.receive(&packet);
                    for _ in 1..BURST {
                        let Ok(packet) = packets.try_recv() else { break };
                        self.receive(&packet);
                    }
                }
                request = requests.recv() => {
                    let Some(request) = request else { return };
                    self.handle_request(request);
                }
                found = names_found.recv() => {
                    self.looking_up = self.looking_up.saturating_sub(1);
                    if let Some((addresses, router)) = found {
                        self.node.bootstrap(Instant::now(), &addresses, router);
                    }
                }
                () = tokio::time::sleep_until(due.into()) => {
                    self.end_unwatched();
                    self.node.handle_timeout(Instant::now());
                }
            }
        }
    }

    fn receive(&mut self, packet: &Packet) {
        let route = &packet.route;
        self.node.handle_datagram(Instant::now(), route.socket(), route.remote, &packet.bytes);
        self.settle(Some(route));
    }

    fn handle_request(&mut self, request: Request) {
        let now = Instant::now();
        match request {
            Request::Start(command, sender) => {
                let operation = self.node.start(now, command);
                self.watching.insert(operation, sender);
            }
            Request::AddNode(address) => self.node.add_node(now, address),
            Request::External(ip) => self.node.handle_external(now, ip),
            Request::AddNames(names) => {
                for name in names {
                    let name = Name { name, router: false };
                    if self.names.len() < MAX_NAMES && !self.names.contains(&name) {
                        self.look_up(&name);
                        self.names.push(name);
                    }
                }
            }
            // Who asked may have gone away.
            Request::Stats(sender) => drop(sender.send(self.node.stats(now))),
            Request::Save(sender) => drop(sender.send(self.node.save(now))),
        }
    }

    /// Sends what the node has to send, and tells what it has to tell. `route` is how the datagram came that all this
    /// may be the answer to: answers leave by the address that was asked.
    fn settle(&mut self, route: Option<&Route>) {
        while let Some(transmit) = self.node.poll_transmit() {
            let back = route.filter(|route| route.remote == transmit.to && route.socket() == transmit.via);
            let sent = match back {
                Some(route) => self.hub.answer(route, &transmit.bytes),
                None => self.hub.send_by(transmit.via, transmit.to, &transmit.bytes),
            };
            if let Err(error) = sent {
                tracing::trace!(to = %transmit.to, %error, "not sent");
            }
        }
        while let Some(event) = self.node.poll_event() {
            self.tell(event);
        }
        self.nodes.store(self.node.node_count(), Ordering::Relaxed);
    }

    fn tell(&mut self, event: Event) {
        let operation = match &event {
            Event::WantBootstrap => return self.look_up_all(),
            Event::External { ip, .. } => return tracing::info!(%ip, "our address, as DHT nodes or a router see it"),
            Event::Peers { operation, .. }
            | Event::Item { operation, .. }
            | Event::Samples { operation, .. }
            | Event::Done { operation, .. } => *operation,
        };
        let over = matches!(event, Event::Done { .. });
        let Some(sender) = self.watching.get(&operation) else { return };
        if let Err(mpsc::error::TrySendError::Closed(_)) = sender.try_send(event) {
            self.node.cancel(Instant::now(), operation);
            self.watching.remove(&operation);
        } else if over {
            self.watching.remove(&operation);
        }
    }

    /// Ends operations that nobody waits for.
    fn end_unwatched(&mut self) {
        let gone: Vec<_> = self.watching.iter().filter(|(_, sender)| sender.is_closed()).map(|(id, _)| *id).collect();
        for operation in gone {
            self.watching.remove(&operation);
            self.node.cancel(Instant::now(), operation);
        }
    }

    fn look_up_all(&mut self) {
        if self.looking_up > 0 {
            return;
        }
        for name in self.names.clone() {
            self.look_up(&name);
        }
    }

    fn look_up(&mut self, name: &Name) {
        self.looking_up += 1;
        let (Name { name: (host, port), router }, found) = (name.clone(), self.found_names.clone());
        let egress = self.egress.clone();
        tokio::spawn(async move {
            let looked_up =
                tokio::time::timeout(LOOKUP_TIMEOUT, lookup(&egress, &host, port, None, Reach::Local)).await;
            let addresses = match looked_up {
                Ok(Ok(mut addresses)) => {
                    addresses.truncate(MAX_ADDRESSES);
                    addresses
                }
                Ok(Err(error)) => {
                    tracing::info!(host = %crate::base::printable(&host), %error, "DHT node not found");
                    Vec::new()
                }
                Err(_) => {
                    tracing::info!(host = %crate::base::printable(&host), "DHT node not found: no answer");
                    Vec::new()
                }
            };
            // If nobody listens any more, the node is gone.
            let _ = found.send((addresses, router)).await;
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dht::{Item, NodeId};
    use std::net::{Ipv4Addr, Ipv6Addr};

    const PATIENCE: Duration = Duration::from_secs(60);

    fn hub(ips: &[IpAddr]) -> Option<Arc<UdpHub>> {
        let sockets = ips.iter().map(|ip| std::net::UdpSocket::bind((*ip, 0))).collect::<io::Result<Vec<_>>>().ok()?;
        sockets.iter().for_each(|socket| socket.set_nonblocking(true).unwrap());
        Some(Arc::new(UdpHub::start(sockets, false).unwrap()))
    }

    async fn done(mut events: mpsc::Receiver<Event>) -> Vec<Event> {
        let mut all = Vec::new();
        let take = async {
            while let Some(event) = events.recv().await {
                all.push(event);
            }
        };
        tokio::time::timeout(PATIENCE, take).await.unwrap();
        assert!(matches!(all.last(), Some(Event::Done { .. })), "{all:?}");
        all
    }

    #[tokio::test]
    async fn nodes_on_loopback_find_each_other_by_name_and_keep_things() {
        let both = [IpAddr::from(Ipv4Addr::LOCALHOST), Ipv6Addr::LOCALHOST.into()];
        let ips = if hub(&both).is_some() { &both[..] } else { &both[..1] };
        let first = hub(ips).unwrap();
        let begin: Vec<_> = first.addresses().iter().map(|at| (at.ip().to_string(), at.port())).collect();
        let mut clients = vec![DhtClient::start(first, &Egress::default(), DhtConfig::default()).unwrap().unwrap()];
        for _ in 0..8 {
            let config = DhtConfig { nodes: begin.clone(), ..DhtConfig::default() };
            clients.push(DhtClient::start(hub(ips).unwrap(), &Egress::default(), config).unwrap().unwrap());
        }
        let info_hash = NodeId([7; 20]);
        let settled = async {
            while clients.iter().any(|client| client.node_count() < 8 * ips.len()) {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        tokio::time::timeout(PATIENCE, settled).await.unwrap();
        done(clients[1].command(Command::Announce {
            info_hash,
            port_v4: Some(6881),
            port_v6: Some(6881),
            seed: false,
        }))
        .await;
        let events = done(clients[2].command(Command::GetPeers { info_hash })).await;
        let mut found: Vec<_> = events
            .iter()
            .filter_map(|event| if let Event::Peers { peers, .. } = event { Some(peers.clone()) } else { None })
            .flatten()
            .collect();
        found.sort();
        assert_eq!(found, ips.iter().map(|ip| SocketAddr::new(*ip, 6881)).collect::<Vec<_>>());
        let item = Item::immutable(b"5:hello").unwrap();
        let target = item.target();
        done(clients[3].command(Command::Put { item: item.clone(), cas: None })).await;
        let events = done(clients[4].command(Command::Get { target, salt: vec![] })).await;
        assert!(matches!(&events[0], Event::Item { item: found, .. } if *found == item));
        // Who lost interest is not waited for.
        drop(clients[5].command(Command::GetPeers { info_hash: NodeId([8; 20]) }));
        let stats = clients[5].stats().await.unwrap();
        assert!(stats.sockets.len() == ips.len() && stats.sockets[0].good == 8, "{stats:?}");
        assert!(clients[5].save().await.unwrap().nodes.len() >= 8);
    }

    /// D-9: names that lead nowhere, and nobody where they lead.
    #[tokio::test]
    async fn dht9_with_nobody_there_an_operation_ends() {
        let nobody = ("127.0.0.1".to_owned(), 9);
        let config = DhtConfig { nodes: vec![nobody, ("no-such-host.invalid".into(), 1)], ..DhtConfig::default() };
        let client =
            DhtClient::start(hub(&[Ipv4Addr::LOCALHOST.into()]).unwrap(), &Egress::default(), config).unwrap().unwrap();
        let events = done(client.command(Command::GetPeers { info_hash: NodeId([1; 20]) })).await;
        assert!(matches!(&events[..], [Event::Done { summary, .. }] if summary.answered == 0));
    }
}
