//! Listening for peers.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::TcpListener;

use super::stream::Stream;

/// Connections that may wait to be accepted.
const BACKLOG: i32 = 256;

/// How long accepting rests when descriptors have run out: trying again at once would only burn a core.
const EXHAUSTED_PAUSE: Duration = Duration::from_millis(500);

/// Opens the listening sockets.
///
/// With no address given: all of IPv4 and all of IPv6 on one free port, or one of the two where the other does not exist.
///
/// # Errors
/// An address that cannot be bound, with the address in the error.
pub fn open(addresses: &[SocketAddr]) -> io::Result<Vec<TcpListener>> {
    if !addresses.is_empty() {
        return addresses.iter().map(|address| bind(*address)).collect();
    }
    let v4 = bind((Ipv4Addr::UNSPECIFIED, 0).into());
    let port = v4.as_ref().ok().and_then(|l| l.local_addr().ok()).map_or(0, |a| a.port());
    let v6 = bind((Ipv6Addr::UNSPECIFIED, port).into());
    match (v4, v6) {
        (Ok(v4), Ok(v6)) => Ok(vec![v4, v6]),
        (Ok(one), Err(_)) | (Err(_), Ok(one)) => Ok(vec![one]),
        (Err(e), Err(_)) => Err(e),
    }
}

fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = || -> io::Result<TcpListener> {
        let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
        if address.is_ipv6() {
            // IPv4 has its own socket; otherwise the two would fight for the port.
            socket.set_only_v6(true)?;
        }
        socket.set_reuse_address(true)?;
        socket.set_nonblocking(true)?;
        socket.bind(&address.into())?;
        socket.listen(BACKLOG)?;
        TcpListener::from_std(socket.into())
    };
    socket().map_err(|e| io::Error::new(e.kind(), format!("{address}: {e}")))
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
