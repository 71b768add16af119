//! One UDP socket for each listening address, on the port of the TCP listener, shared by uTP and the DHT.
//!
//! A task per socket receives in batches (`recvmmsg`, GRO) and tells by the first bytes whose a datagram is: KRPC is a
//! dictionary and begins with `d`, a uTP header of version 1 has a low nibble of 1 and a type of at most 4 above it.
//! Everything else is dropped.
//!
//! *The DHT* takes its packets once, with [`UdpHub::dht_packets`]: a channel of [`DHT_QUEUE`] packets, each with the
//! [`Route`] it came by. What does not fit is dropped, as the network would. It answers with [`UdpHub::answer`], which
//! leaves by the socket and from the address that was asked, and asks with [`UdpHub::send_to`]. Neither waits: what the
//! system does not take at once is lost like any other datagram. Nothing that is sent may be fragmented on its way, so
//! packets have to stay below the path's MTU: 1,232 bytes go nearly everywhere.
//!
//! *uTP* lives in `utp.rs`; the task of a socket moves its packets, in batches (GSO) where the system can.
//!
//! *Behind a proxy* there is one socket, for the relay of the proxy and nobody else: each datagram has a header that says
//! where it goes or comes from. While there is no relay, nothing is sent.

use std::future::pending;
use std::io::{self, IoSliceMut};
use std::net::{IpAddr, SocketAddr, SocketAddrV6};
use std::sync::{Arc, Mutex, OnceLock, PoisonError, RwLock};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use quinn_udp::{RecvMeta, Transmit, UdpSocketState};
use tokio::io::Interest;
use tokio::net::UdpSocket;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use super::egress::Egress;
use super::moderation::{self, Moderation};
use super::proxy::{self, Target};
use super::utp::{Endpoint, Next, UtpStream};
use crate::sys;
use crate::utp::{self, Path};

/// Packets that may wait for the DHT.
pub const DHT_QUEUE: usize = 256;

/// The longest packet that is passed to the DHT, in bytes. Longer ones do not come unfragmented over Ethernet.
pub const MAX_DHT_PACKET: usize = 1500;

/// Messages that one call receives.
const BATCH: usize = if quinn_udp::BATCH_SIZE < 16 { quinn_udp::BATCH_SIZE } else { 16 };

/// Room for one message. With GRO that is a run of datagrams, up to the most that a UDP length can say.
const MESSAGE: usize = 64 << 10;

/// What a socket may hold while nobody looks, in bytes; the system may allow less.
const SOCKET_BUFFER: usize = 4 << 20;

/// Calls that receive before others have their turn.
const RECEIVES_PER_TURN: usize = 8;

/// Bytes that one call sends: what UDP carries, and a little less.
const MAX_BATCH: usize = 65_000;

/// The system's clock was set if a datagram seems to have waited for longer.
const MAX_AGE: Duration = Duration::from_secs(1);

/// How often it is looked whether all uTP connections have ended.
const END_PAUSE: Duration = Duration::from_millis(10);

/// How long receiving rests after an error that is not about a single datagram.
const ERROR_PAUSE: Duration = Duration::from_millis(100);

/// How long to wait before a proxy is asked for a relay again: at first, and at most.
const FIRST_RELAY_PAUSE: Duration = Duration::from_secs(2);
const MAX_RELAY_PAUSE: Duration = Duration::from_secs(120);

/// Between which addresses a packet goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Route {
    /// The other end.
    pub remote: SocketAddr,
    /// Our address, as far as it is known: a socket may have many.
    local: Option<IpAddr>,
    /// Which socket of the hub.
    socket: usize,
}

impl Route {
    /// The number of the socket, as in [`UdpHub::addresses`].
    pub fn socket(&self) -> usize {
        self.socket
    }
}

/// A datagram for the DHT.
#[derive(Clone, Debug)]
pub struct Packet {
    /// How it came.
    pub route: Route,
    /// What it says.
    pub bytes: Vec<u8>,
}

/// The UDP sockets of a session. Receives until it is dropped.
#[derive(Debug, Default)]
pub struct UdpHub {
    sockets: Vec<Arc<HubSocket>>,
    tasks: Vec<JoinHandle<()>>,
    incoming: Mutex<Vec<mpsc::Receiver<UtpStream>>>,
}

#[derive(Debug)]
struct HubSocket {
    index: usize,
    address: SocketAddr,
    io: UdpSocket,
    state: UdpSocketState,
    dht: OnceLock<mpsc::Sender<Packet>>,
    utp: Option<Arc<Endpoint>>,
    /// Behind a proxy: the only address that it speaks with, if there is one now.
    relay: Option<RwLock<Option<SocketAddr>>>,
}

/// How many bytes a socket may hold: as many as are wanted, and as the system grants.
///
/// # Errors
/// As the system says.
pub fn granted_buffers(egress: &Egress) -> io::Result<(usize, usize)> {
    let socket = egress.socket(socket2::Domain::IPV4, socket2::Type::DGRAM, socket2::Protocol::UDP)?;
    let _ = socket.set_recv_buffer_size(SOCKET_BUFFER);
    let _ = socket.set_send_buffer_size(SOCKET_BUFFER);
    Ok((SOCKET_BUFFER, crate::sys::socket_buffer(&socket)?))
}

impl UdpHub {
    /// Receives from `sockets`, which [`listen::open`](super::listen::open) has bound, and speaks uTP over them if `utp`.
    ///
    /// # Errors
    /// As the system says.
    pub fn start(sockets: Vec<std::net::UdpSocket>, utp: bool) -> io::Result<Self> {
        let mut hub = Self::default();
        for socket in sockets {
            hub.add(socket, utp, None)?;
        }
        Ok(hub)
    }

    /// Sends and receives through the relay of a proxy, which is asked for it again whenever it has taken it back. Speaks
    /// uTP that way if `utp`.
    ///
    /// # Errors
    /// `Unsupported` without a proxy; as the system says. A proxy that has no relay is no error: nothing comes or goes.
    pub async fn start_relayed(egress: &Egress, utp: bool) -> io::Result<Self> {
        let mut hub = Self::default();
        let socket = hub.add(egress.relay_socket().await?, utp, Some(RwLock::default()))?;
        hub.tasks.push(tokio::spawn(keep_relay(socket, egress.clone())));
        Ok(hub)
    }

    fn add(
        &mut self,
        socket: std::net::UdpSocket,
        utp: bool,
        relay: Option<RwLock<Option<SocketAddr>>>,
    ) -> io::Result<Arc<HubSocket>> {
        let state = UdpSocketState::new((&socket).into())?;
        // The default is a few hundred packets. More is a favour, not a need.
        let _ = state.set_recv_buffer_size((&socket).into(), SOCKET_BUFFER);
        let _ = state.set_send_buffer_size((&socket).into(), SOCKET_BUFFER);
        let mut endpoint = None;
        if utp {
            let (of_this, incoming) = Endpoint::new()?;
            endpoint = Some(of_this);
            self.incoming.get_mut().unwrap_or_else(PoisonError::into_inner).push(incoming);
        }
        let (index, address) = (self.sockets.len(), socket.local_addr()?);
        let io = UdpSocket::from_std(socket)?;
        let socket = HubSocket { index, address, io, state, dht: OnceLock::new(), utp: endpoint, relay };
        let socket = Arc::new(socket);
        self.tasks.push(tokio::spawn(Driver::new(socket.clone()).run()));
        self.sockets.push(socket.clone());
        Ok(socket)
    }

    /// Where it receives, but for what a relay passes on: where that is to others, nobody knows.
    pub fn addresses(&self) -> Vec<SocketAddr> {
        self.sockets.iter().filter(|socket| socket.relay.is_none()).map(|socket| socket.address).collect()
    }

    /// The uTP connections that others open, for each socket, from now on. Whoever asks first has them.
    pub fn incoming_utp(&self) -> Vec<mpsc::Receiver<UtpStream>> {
        std::mem::take(&mut *self.incoming.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Opens a uTP connection with what listens at `remote`. It is given up if this is cancelled.
    ///
    /// # Errors
    /// `Unsupported` without uTP, `AddrNotAvailable` without a socket of this family; as the other side has answered, or
    /// `TimedOut` after seven seconds if it has not.
    pub async fn connect_utp(&self, remote: SocketAddr) -> io::Result<UtpStream> {
        let socket = self.socket_for(remote)?;
        let endpoint = socket.utp.as_ref().ok_or(io::ErrorKind::Unsupported)?;
        endpoint.connect(canonical(remote)).await
    }

    /// Whether it speaks uTP with what listens at `remote`.
    pub fn reaches_by_utp(&self, remote: SocketAddr) -> bool {
        self.socket_for(remote).is_ok_and(|socket| socket.utp.is_some())
    }

    /// Waits until those at the other ends know that the uTP connections that were closed have ended, for at most `limit`:
    /// what has not left when the sockets close never does.
    pub async fn utp_ended(&self, limit: Duration) {
        let open = || self.sockets.iter().filter_map(|socket| socket.utp.as_ref()).any(|utp| !utp.is_empty());
        let end = tokio::time::Instant::now() + limit;
        while open() && tokio::time::Instant::now() < end {
            tokio::time::sleep(END_PAUSE).await;
        }
    }

    /// The packets that are for the DHT, from now on. Whoever asks first has them; nobody else does.
    pub fn dht_packets(&self) -> Option<mpsc::Receiver<Packet>> {
        let (sender, receiver) = mpsc::channel(DHT_QUEUE);
        let mut mine = true;
        for socket in &self.sockets {
            mine &= socket.dht.set(sender.clone()).is_ok();
        }
        mine.then_some(receiver)
    }

    /// Sends a datagram to `remote`, by the first socket that can reach it.
    ///
    /// # Errors
    /// `AddrNotAvailable` without such a socket, else as the system says: `WouldBlock` when it has no room.
    pub fn send_to(&self, remote: SocketAddr, bytes: &[u8]) -> io::Result<()> {
        self.socket_for(remote)?.send(remote, None, bytes, None)
    }

    /// Sends a datagram to `remote` by the socket of that number.
    ///
    /// # Errors
    /// `AddrNotAvailable` without such a socket, else as the system says: `WouldBlock` when it has no room.
    pub fn send_by(&self, socket: usize, remote: SocketAddr, bytes: &[u8]) -> io::Result<()> {
        self.sockets.get(socket).ok_or(io::ErrorKind::AddrNotAvailable)?.send(remote, None, bytes, None)
    }

    /// Sends a datagram back by the way `route`, the one that another came by.
    ///
    /// # Errors
    /// As the system says: `WouldBlock` when it has no room.
    pub fn answer(&self, route: &Route, bytes: &[u8]) -> io::Result<()> {
        let socket = self.sockets.get(route.socket).ok_or(io::ErrorKind::AddrNotAvailable)?;
        socket.send(route.remote, route.local, bytes, None)
    }

    fn socket_for(&self, remote: SocketAddr) -> io::Result<&Arc<HubSocket>> {
        let remote = remote.ip().to_canonical();
        // To a relay both are the same.
        let is_of_family = |socket: &HubSocket| socket.relay.is_some() || socket.address.is_ipv4() == remote.is_ipv4();
        let of_family = || self.sockets.iter().filter(|socket| is_of_family(socket));
        // One that is bound to this machine reaches no other, and the other way round.
        let reaches = |socket: &&Arc<HubSocket>| {
            let ip = socket.address.ip();
            ip.is_unspecified() || ip.is_loopback() == remote.is_loopback()
        };
        let socket = of_family().find(reaches).or_else(|| of_family().next());
        socket.ok_or_else(|| io::ErrorKind::AddrNotAvailable.into())
    }
}

impl Drop for UdpHub {
    fn drop(&mut self) {
        self.tasks.iter().for_each(JoinHandle::abort);
    }
}

impl HubSocket {
    fn send(
        &self,
        destination: SocketAddr,
        src_ip: Option<IpAddr>,
        contents: &[u8],
        segment_size: Option<usize>,
    ) -> io::Result<()> {
        let transmit = Transmit { destination, ecn: None, contents, segment_size, src_ip };
        match self.relay() {
            None => self.transmit(&transmit),
            Some(relay) => self.transmit_by(relay?, &transmit),
        }
    }

    fn transmit(&self, transmit: &Transmit<'_>) -> io::Result<()> {
        self.io.try_io(Interest::WRITABLE, || self.state.try_send((&self.io).into(), transmit))
    }

    /// Behind a proxy: its relay, or that there is none now.
    fn relay(&self) -> Option<io::Result<SocketAddr>> {
        let relay = *self.relay.as_ref()?.read().unwrap_or_else(PoisonError::into_inner);
        Some(relay.ok_or_else(|| io::ErrorKind::NotConnected.into()))
    }

    /// Each datagram has a header of its own, so they go one by one.
    fn transmit_by(&self, relay: SocketAddr, transmit: &Transmit<'_>) -> io::Result<()> {
        let mut wrapped = Vec::with_capacity(proxy::MAX_UDP_HEADER + transmit.contents.len());
        proxy::wrap(Target::Ip(transmit.destination), transmit.contents, &mut wrapped);
        let contents = &wrapped[..];
        self.transmit(&Transmit { destination: relay, ecn: None, contents, segment_size: None, src_ip: None })
    }

    fn set_relay(&self, relay: Option<SocketAddr>) {
        if let Some(place) = &self.relay {
            *place.write().unwrap_or_else(PoisonError::into_inner) = relay;
        }
    }

    /// Sends packets of `segment` bytes each, but for the last, which may be shorter. Returns how many bytes were sent or
    /// are lost. One packet alone may be too long for the system; that is an error if it is the first.
    fn send_batch(&self, path: Path, segment: usize, batch: &[u8]) -> io::Result<usize> {
        if batch.len() > segment && self.segments() > 1 {
            match self.send(path.remote, path.local, batch, Some(segment)) {
                Ok(()) => return Ok(batch.len()),
                // The device cannot do it: segments go one by one from now on, these first.
                Err(_) if self.segments() == 1 => {}
                Err(e) => return Err(e),
            }
        }
        let mut sent = 0;
        for packet in batch.chunks(segment) {
            match self.send(path.remote, path.local, packet, None) {
                Err(e) if e.kind() == io::ErrorKind::WouldBlock || quinn_udp::is_msg_size_err(&e) => {
                    return if sent > 0 { Ok(sent) } else { Err(e) };
                }
                // Lost, like others on their way.
                Ok(()) | Err(_) => sent += packet.len(),
            }
        }
        Ok(sent)
    }

    /// Packets of equal length that one call can send.
    fn segments(&self) -> usize {
        if self.relay.is_some() { 1 } else { self.state.max_gso_segments() }
    }

    fn give_to_dht(&self, path: Path, datagram: &[u8]) {
        if let Some(dht) = self.dht.get().filter(|_| datagram.len() <= MAX_DHT_PACKET) {
            let route = Route { remote: path.remote, local: path.local, socket: self.index };
            let _ = dht.try_send(Packet { route, bytes: datagram.to_vec() });
        }
    }

    fn receive(&self, buffers: &mut [u8], meta: &mut [RecvMeta; BATCH]) -> io::Result<usize> {
        let mut slices = buffers.chunks_exact_mut(MESSAGE).map(IoSliceMut::new);
        let mut slices: [IoSliceMut<'_>; BATCH] =
            std::array::from_fn(|_| slices.next().unwrap_or_else(|| IoSliceMut::new(&mut [])));
        self.io.try_io(Interest::READABLE, || self.state.recv((&self.io).into(), &mut slices, meta))
    }
}

/// What receives and sends for one socket.
struct Driver {
    socket: Arc<HubSocket>,
    /// Untouched pages of it take no memory: without GRO each message is one datagram.
    buffers: Vec<u8>,
    meta: [RecvMeta; BATCH],
    /// Packets that the system has not taken yet, and from where on.
    batch: Vec<u8>,
    sent: usize,
    /// How they are to be sent.
    transmit: Option<utp::Transmit>,
    /// When uTP wants to be called.
    due: Option<Instant>,
    moderation: Moderation,
}

impl Driver {
    fn new(socket: Arc<HubSocket>) -> Self {
        let buffers = vec![0; BATCH * MESSAGE];
        let meta = [RecvMeta::default(); BATCH];
        let moderation = Moderation::new(Instant::now());
        Self { socket, buffers, meta, batch: Vec::new(), sent: 0, transmit: None, due: None, moderation }
    }

    async fn run(mut self) {
        loop {
            let socket = self.socket.clone();
            let interest =
                if self.transmit.is_some() { Interest::READABLE | Interest::WRITABLE } else { Interest::READABLE };
            tokio::select! {
                // It fails only when the runtime shuts down.
                ready = socket.io.ready(interest) => if ready.is_err() { return },
                () = has_work(socket.utp.as_deref()) => {}
                () = until(self.due) => {}
            }
            if let Err(error) = self.turn() {
                tracing::debug!(%error, "cannot receive");
                tokio::time::sleep(ERROR_PAUSE).await;
            }
            if self.moderation.pauses(Instant::now()) {
                tokio::time::sleep(moderation::PAUSE).await;
            } else {
                // A socket that never runs dry must not keep a thread to itself.
                tokio::task::yield_now().await;
            }
        }
    }

    /// Receives what there is, for a while, and sends what there is to send.
    fn turn(&mut self) -> io::Result<()> {
        for _ in 0..RECEIVES_PER_TURN {
            let received = match self.socket.receive(&mut self.buffers, &mut self.meta) {
                Ok(count) => count,
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => break,
                // Some systems report here that an earlier datagram found nobody.
                Err(e) if matches!(e.kind(), io::ErrorKind::ConnectionReset | io::ErrorKind::ConnectionRefused) => {
                    break;
                }
                Err(e) => return Err(e),
            };
            self.deliver(received);
            self.send();
        }
        self.send();
        Ok(())
    }

    /// Hands the first `count` messages to those whose they are.
    fn deliver(&mut self, count: usize) {
        let socket = &self.socket;
        let (now, clock) = (Instant::now(), SystemTime::now());
        let relay = socket.relay();
        let mut inbox = socket.utp.as_ref().map(Endpoint::inbox);
        for (meta, message) in self.meta.iter().zip(self.buffers.chunks_exact(MESSAGE)).take(count) {
            let mut path = Path { remote: canonical(meta.addr), local: meta.dst_ip };
            if relay.as_ref().is_some_and(|relay| relay.as_ref().map_or(true, |relay| *relay != path.remote)) {
                continue;
            }
            self.moderation.count(meta.len.div_ceil(meta.stride.max(1)), meta.len);
            let arrived = meta.timestamp.and_then(|at| arrival(now, clock, at)).unwrap_or(now);
            for mut datagram in message.get(..meta.len).unwrap_or_default().chunks(meta.stride.max(1)) {
                if relay.is_some() {
                    let Some((from, payload)) = proxy::unwrap(datagram) else { continue };
                    path = Path { remote: canonical(from), local: None };
                    datagram = payload;
                }
                match (Consumer::of(datagram), &mut inbox) {
                    (Some(Consumer::Dht), _) => socket.give_to_dht(path, datagram),
                    (Some(Consumer::Utp), Some(inbox)) => inbox.put(now, arrived, path, datagram),
                    (Some(Consumer::Utp) | None, _) => {}
                }
            }
        }
        if let Some(inbox) = inbox {
            inbox.close();
        }
    }

    /// Sends what uTP has, as far as the system takes it.
    fn send(&mut self) {
        let Some(endpoint) = self.socket.utp.clone() else { return };
        loop {
            let transmit = match self.transmit.take() {
                Some(transmit) => transmit,
                None => {
                    self.batch.clear();
                    self.sent = 0;
                    match endpoint.next(Instant::now(), self.socket.segments(), MAX_BATCH, &mut self.batch) {
                        Next::Send(transmit) => transmit,
                        Next::Wait(due) => {
                            self.due = due;
                            return;
                        }
                    }
                }
            };
            let done = if transmit.fragment { self.send_fragmented(&transmit) } else { self.send_once(&transmit) };
            match done {
                Ok(sent) => {
                    self.sent += sent;
                    self.moderation.count(sent.div_ceil(transmit.segment.max(1)), sent);
                }
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {
                    self.transmit = Some(transmit);
                    return;
                }
                Err(e) => {
                    // What is lost is sent again, in fragments if need be.
                    self.sent = self.batch.len();
                    if quinn_udp::is_msg_size_err(&e) {
                        endpoint.too_long(&transmit, transmit.segment.min(self.batch.len()));
                    }
                }
            }
            if self.sent < self.batch.len() {
                self.transmit = Some(transmit);
            }
        }
    }

    fn send_once(&self, transmit: &utp::Transmit) -> io::Result<usize> {
        self.socket.send_batch(transmit.path, transmit.segment, &self.batch[self.sent..])
    }

    fn send_fragmented(&self, transmit: &utp::Transmit) -> io::Result<usize> {
        let v6 = self.socket.address.is_ipv6();
        let _ = sys::allow_fragments(&self.socket.io, v6, true);
        let sent = self.send_once(transmit);
        let _ = sys::allow_fragments(&self.socket.io, v6, false);
        sent
    }
}

impl Drop for Driver {
    fn drop(&mut self) {
        if let Some(endpoint) = &self.socket.utp {
            endpoint.stop();
        }
    }
}

async fn has_work(endpoint: Option<&Endpoint>) {
    match endpoint {
        Some(endpoint) => endpoint.has_work().await,
        None => pending().await,
    }
}

async fn until(due: Option<Instant>) {
    match due {
        Some(due) => tokio::time::sleep_until(due.into()).await,
        None => pending().await,
    }
}

/// Sees to it that there is a relay, as far as that can be had.
async fn keep_relay(socket: Arc<HubSocket>, egress: Egress) {
    let mut pause = FIRST_RELAY_PAUSE;
    loop {
        match egress.lease().await {
            Ok(lease) => {
                socket.set_relay(Some(canonical(lease.relay())));
                lease.ended().await;
                socket.set_relay(None);
                tracing::debug!("the proxy has closed its relay for UDP");
                pause = FIRST_RELAY_PAUSE;
            }
            // Said once and clearly: without it there is no DHT and no uTP.
            Err(error) if pause == FIRST_RELAY_PAUSE => tracing::warn!(%error, "no UDP through the proxy for now"),
            Err(error) => tracing::debug!(%error, "no relay for UDP"),
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(MAX_RELAY_PAUSE);
    }
}

/// When the system got a datagram, by the steady clock: it was at `at` of the system's clock, which is at `clock` `now`.
/// Nothing if that clock was set in between.
fn arrival(now: Instant, clock: SystemTime, at: Duration) -> Option<Instant> {
    let age = clock.duration_since(UNIX_EPOCH).ok()?.checked_sub(at)?;
    now.checked_sub(age).filter(|_| age < MAX_AGE)
}

/// Whose a datagram is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Consumer {
    Dht,
    Utp,
}

impl Consumer {
    fn of(datagram: &[u8]) -> Option<Self> {
        match datagram.first()? {
            b'd' => Some(Self::Dht),
            kind if kind & 0x0f == UTP_VERSION && kind >> 4 <= UTP_LAST_TYPE && datagram.len() >= UTP_HEADER => {
                Some(Self::Utp)
            }
            _ => None,
        }
    }
}

/// BEP 29.
const UTP_VERSION: u8 = 1;
const UTP_LAST_TYPE: u8 = 4;
const UTP_HEADER: usize = 20;

/// One form for each address: without the label of the flow, IPv4 as IPv4.
fn canonical(address: SocketAddr) -> SocketAddr {
    match address {
        SocketAddr::V6(v6) if v6.ip().to_ipv4_mapped().is_none() => {
            SocketAddrV6::new(*v6.ip(), v6.port(), 0, v6.scope_id()).into()
        }
        other => SocketAddr::new(other.ip().to_canonical(), other.port()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{Ipv4Addr, Ipv6Addr};

    const PATIENCE: Duration = Duration::from_secs(10);

    fn bind(ip: IpAddr) -> Option<std::net::UdpSocket> {
        std::net::UdpSocket::bind((ip, 0)).ok()
    }

    #[test]
    fn who_gets_what() {
        let utp = [0x41; 20];
        let table: [(&[u8], Option<Consumer>); 7] = [
            (b"d1:ad2:id20:abcdefghij0123456789e1:q4:ping1:t2:aa1:y1:qe", Some(Consumer::Dht)),
            (&utp, Some(Consumer::Utp)),
            (&[0x01; 1400], Some(Consumer::Utp)),
            (&utp[..19], None),
            (&[0x51; 20], None),
            (&[0x02; 20], None),
            (b"", None),
        ];
        for (datagram, expected) in table {
            assert_eq!(Consumer::of(datagram), expected, "{datagram:?}");
        }
    }

    #[tokio::test]
    async fn packets_of_the_dht_come_and_are_answered_by_the_same_way() {
        let ips = [IpAddr::from(Ipv4Addr::LOCALHOST), IpAddr::from(Ipv6Addr::LOCALHOST)];
        // Wildcards: the answer has to come from the address that was asked.
        let wildcards = [IpAddr::from(Ipv4Addr::UNSPECIFIED), IpAddr::from(Ipv6Addr::UNSPECIFIED)];
        let v6_only = |ip: IpAddr| {
            let socket = socket2::Socket::new(socket2::Domain::IPV6, socket2::Type::DGRAM, None).ok()?;
            socket.set_only_v6(true).ok()?;
            socket.bind(&SocketAddr::new(ip, 0).into()).ok()?;
            Some(std::net::UdpSocket::from(socket))
        };
        let sockets = wildcards.iter().filter_map(|ip| if ip.is_ipv4() { bind(*ip) } else { v6_only(*ip) }).collect();
        let hub = UdpHub::start(sockets, false).unwrap();
        let mut packets = hub.dht_packets().unwrap();
        assert!(hub.dht_packets().is_none(), "there is one DHT");
        for at in hub.addresses() {
            let ip = *ips.iter().find(|ip| ip.is_ipv4() == at.is_ipv4()).unwrap();
            let Some(other) = bind(ip) else { continue };
            other.set_read_timeout(Some(PATIENCE)).unwrap();
            other.connect((ip, at.port())).unwrap();
            for noise in [&b"x"[..], &[0x41; 20], &[b'd'; MAX_DHT_PACKET + 1]] {
                other.send(noise).unwrap();
            }
            other.send(b"de").unwrap();
            let packet = tokio::time::timeout(PATIENCE, packets.recv()).await.unwrap().unwrap();
            assert_eq!((&packet.bytes[..], packet.route.remote), (&b"de"[..], other.local_addr().unwrap()));
            hub.answer(&packet.route, b"d1:ae").unwrap();
            // A connected socket hears only the address that it asked.
            let mut answer = [0; 16];
            assert_eq!(other.recv(&mut answer).unwrap(), 5);
            hub.send_to(packet.route.remote, b"dxe").unwrap();
        }
    }

    #[tokio::test]
    async fn a_flood_is_dropped_not_kept() {
        let hub = UdpHub::start(vec![bind(Ipv4Addr::LOCALHOST.into()).unwrap()], false).unwrap();
        let mut packets = hub.dht_packets().unwrap();
        let other = bind(Ipv4Addr::LOCALHOST.into()).unwrap();
        let at = hub.addresses()[0];
        for n in 0..20 * DHT_QUEUE {
            other.send_to(b"de", at).unwrap();
            if n % 64 == 0 {
                tokio::task::yield_now().await;
            }
        }
        let first = tokio::time::timeout(PATIENCE, packets.recv()).await.unwrap();
        assert!(first.is_some() && packets.len() < DHT_QUEUE);
        // It goes on after that.
        let goes_on = async {
            while packets.recv().await.unwrap().bytes != b"d1:xe" {
                other.send_to(b"d1:xe", at).unwrap();
            }
        };
        other.send_to(b"d1:xe", at).unwrap();
        tokio::time::timeout(PATIENCE, goes_on).await.unwrap();
    }
}
