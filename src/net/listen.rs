//! Listening for peers.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::time::Duration;

use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::TcpListener;

use super::egress::Egress;
use super::stream::Stream;

/// Connections that may wait to be accepted.
const BACKLOG: i32 = 256;

/// How long accepting rests when descriptors have run out: trying again at once would only burn a core.
const EXHAUSTED_PAUSE: Duration = Duration::from_millis(500);

/// Ports that are tried where any will do, until one is free for TCP and UDP of both families.
const PORT_TRIES: usize = 32;

/// Which transports are listened for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Transports {
    /// Peers that connect by TCP.
    pub tcp: bool,
    /// uTP and the DHT.
    pub udp: bool,
}

/// Sockets that listen. Those of one address have the same port.
#[derive(Debug, Default)]
pub struct Listeners {
    /// For [`accept`].
    pub tcp: Vec<TcpListener>,
    /// For a [`UdpHub`](super::udp::UdpHub).
    pub udp: Vec<UdpSocket>,
}

impl Listeners {
    /// Where they listen, each address once.
    pub fn addresses(&self) -> Vec<SocketAddr> {
        let udp = self.udp.iter().filter_map(|socket| socket.local_addr().ok());
        let mut addresses: Vec<_> = self.tcp.iter().filter_map(|l| l.local_addr().ok()).collect();
        for address in udp {
            if !addresses.contains(&address) {
                addresses.push(address);
            }
        }
        addresses
    }

    fn add(&mut self, other: Self) {
        self.tcp.extend(other.tcp);
        self.udp.extend(other.udp);
    }

    fn port(&self) -> u16 {
        self.addresses().first().map_or(0, SocketAddr::port)
    }
}

/// Opens the listening sockets.
///
/// With no address given: all of IPv4 and all of IPv6 on one free port, or one of the two where the other does not exist.
/// With a device in `egress` nothing comes in by another.
///
/// # Errors
/// An address that cannot be bound, with the address in the error.
pub fn open(addresses: &[SocketAddr], transports: Transports, egress: &Egress) -> io::Result<Listeners> {
    if addresses.is_empty() {
        return open_everywhere(transports, egress);
    }
    let mut all = Listeners::default();
    for address in addresses {
        all.add(open_at(*address, transports, egress)?);
    }
    Ok(all)
}

fn open_everywhere(transports: Transports, egress: &Egress) -> io::Result<Listeners> {
    let mut tries = PORT_TRIES;
    loop {
        let v4 = open_at((Ipv4Addr::UNSPECIFIED, 0).into(), transports, egress);
        let port = v4.as_ref().map_or(0, Listeners::port);
        let v6 = open_at((Ipv6Addr::UNSPECIFIED, port).into(), transports, egress);
        tries -= 1;
        match (v4, v6) {
            (Ok(_), Err(e)) if e.kind() == io::ErrorKind::AddrInUse && tries > 0 => {}
            (Ok(mut v4), Ok(v6)) => {
                v4.add(v6);
                return Ok(v4);
            }
            (Ok(one), Err(_)) | (Err(_), Ok(one)) => return Ok(one),
            (Err(e), Err(_)) => return Err(e),
        }
    }
}

/// One address; if any port will do, one that is free for all that is wanted.
fn open_at(address: SocketAddr, transports: Transports, egress: &Egress) -> io::Result<Listeners> {
    let mut tries = if address.port() == 0 { PORT_TRIES } else { 1 };
    loop {
        let mut open = Listeners::default();
        if transports.tcp {
            open.tcp.push(bind_tcp(address, egress)?);
        }
        if !transports.udp {
            return Ok(open);
        }
        tries -= 1;
        let port = if transports.tcp { open.port() } else { address.port() };
        match bind_udp(SocketAddr::new(address.ip(), port), egress) {
            Ok(udp) => {
                open.udp.push(udp);
                return Ok(open);
            }
            Err(e) if e.kind() == io::ErrorKind::AddrInUse && tries > 0 => {}
            Err(e) => return Err(e),
        }
    }
}

fn bind_tcp(address: SocketAddr, egress: &Egress) -> io::Result<TcpListener> {
    let bound = bind(address, Type::STREAM, Protocol::TCP, egress).and_then(|socket| {
        socket.listen(BACKLOG)?;
        TcpListener::from_std(socket.into())
    });
    bound.map_err(|e| at(address, &e))
}

fn bind_udp(address: SocketAddr, egress: &Egress) -> io::Result<UdpSocket> {
    bind(address, Type::DGRAM, Protocol::UDP, egress).map(UdpSocket::from).map_err(|e| at(address, &e))
}

fn bind(address: SocketAddr, kind: Type, protocol: Protocol, egress: &Egress) -> io::Result<Socket> {
    let socket = egress.socket(Domain::for_address(address), kind, protocol)?;
    if address.is_ipv6() {
        // IPv4 has its own socket; otherwise the two would fight for the port.
        socket.set_only_v6(true)?;
    }
    if kind == Type::STREAM {
        // Connections that linger from before do not keep the port. With UDP it would let others take our packets.
        socket.set_reuse_address(true)?;
    }
    socket.bind(&address.into())?;
    Ok(socket)
}

fn at(address: SocketAddr, error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{address}: {error}"))
}

/// The next connection. Does not fail: what goes wrong is waited out.
pub async fn accept(listener: &TcpListener) -> (Stream, SocketAddr) {
    loop {
        match listener.accept().await {
            Ok((stream, address)) => return (stream.into(), canonical(address)),
            Err(e) if e.kind() == io::ErrorKind::ConnectionAborted || e.kind() == io::ErrorKind::ConnectionReset => {}
            Err(_) => tokio::time::sleep(EXHAUSTED_PAUSE).await,
        }
    }
}

/// IPv4 addresses that come mapped into IPv6 are IPv4 addresses.
fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOTH: Transports = Transports { tcp: true, udp: true };

    #[tokio::test]
    async fn one_port_for_all() {
        let listeners = open(&[], BOTH, &Egress::default()).unwrap();
        let addresses = listeners.addresses();
        assert!(listeners.tcp.len() == listeners.udp.len() && addresses.len() == listeners.tcp.len());
        assert!(addresses.iter().all(|a| a.port() == addresses[0].port() && a.port() != 0));
        let only_udp =
            open(&[([127, 0, 0, 1], 0).into()], Transports { tcp: false, udp: true }, &Egress::default()).unwrap();
        assert!(only_udp.tcp.is_empty() && only_udp.addresses()[0].port() != 0);
        let only_tcp =
            open(&[([127, 0, 0, 1], 0).into()], Transports { tcp: true, udp: false }, &Egress::default()).unwrap();
        assert!(only_tcp.udp.is_empty() && only_tcp.addresses().len() == 1);
    }

    #[tokio::test]
    async fn a_port_that_udp_has_taken_is_an_error_where_it_was_asked_for() {
        let taken = UdpSocket::bind(("127.0.0.1", 0)).unwrap();
        let address = taken.local_addr().unwrap();
        let error = open(&[address], BOTH, &Egress::default()).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::AddrInUse);
        assert!(error.to_string().contains(&address.to_string()));
    }
}
