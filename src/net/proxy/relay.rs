//! Datagrams through a SOCKS5 proxy.

use std::io;
use std::net::SocketAddr;
use std::ops::Range;

use tokio::net::{TcpStream, UdpSocket};

use super::{MAX_UDP_HEADER, Target, unwrap, wrap};
use crate::net::egress::Egress;

/// A relay for datagrams. It is ours for as long as the connection stands by which it was asked for.
#[derive(Debug)]
pub struct Lease {
    control: TcpStream,
    relay: SocketAddr,
}

impl Lease {
    pub(super) fn new(control: TcpStream, relay: SocketAddr) -> Self {
        Self { control, relay }
    }

    /// Where datagrams go to, and come from.
    pub fn relay(&self) -> SocketAddr {
        self.relay
    }

    /// Waits until the proxy takes it back.
    pub async fn ended(&self) {
        // Nothing is ever said there after the beginning.
        let mut byte = [0; 1];
        while self.control.readable().await.is_ok() {
            match self.control.try_read(&mut byte) {
                Ok(0) => return,
                Ok(_) => {}
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
                Err(_) => return,
            }
        }
    }
}

/// A relay with a socket of its own.
#[derive(Debug)]
pub struct Association {
    lease: Lease,
    socket: UdpSocket,
}

impl Association {
    pub(in crate::net) async fn new(egress: &Egress, lease: Lease) -> io::Result<Self> {
        let socket = UdpSocket::from_std(egress.udp_for(lease.relay)?)?;
        // What comes from elsewhere is dropped by the system.
        socket.connect(lease.relay).await?;
        Ok(Self { lease, socket })
    }

    /// Where the relay is.
    pub fn relay(&self) -> SocketAddr {
        self.lease.relay
    }

    /// Sends a datagram to `target`.
    ///
    /// # Errors
    /// As the system says.
    pub async fn send_to(&self, target: Target<'_>, payload: &[u8]) -> io::Result<()> {
        let mut datagram = Vec::with_capacity(MAX_UDP_HEADER + payload.len());
        wrap(target, payload, &mut datagram);
        self.socket.send(&datagram).await.map(drop)
    }

    /// The next datagram that fits into `buffer` with its header: who sent it, and where in the buffer it is.
    ///
    /// # Errors
    /// As the system says; `ConnectionAborted` when the proxy has taken the relay back.
    pub async fn receive(&self, buffer: &mut [u8]) -> io::Result<(SocketAddr, Range<usize>)> {
        let gone = || io::Error::new(io::ErrorKind::ConnectionAborted, "the proxy has closed its relay");
        loop {
            let len = tokio::select! {
                received = self.socket.recv(buffer) => received?,
                () = self.lease.ended() => return Err(gone()),
            };
            if let Some((from, payload)) = unwrap(buffer.get(..len).unwrap_or_default()) {
                return Ok((from, len - payload.len()..len));
            }
        }
    }
}
