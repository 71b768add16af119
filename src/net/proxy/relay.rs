//! Datagrams through a SOCKS5 proxy.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use socket2::{Domain, Protocol, Type};
use tokio::net::{TcpStream, UdpSocket};

use super::{MAX_UDP_HEADER, Target, unwrap, wrap};
use crate::net::egress::Egress;

/// A relay for datagrams, which the proxy keeps for as long as the connection by which it was asked for stands.
#[derive(Debug)]
pub struct Association {
    control: TcpStream,
    socket: UdpSocket,
}

impl Association {
    pub(super) async fn new(egress: &Egress, control: TcpStream, relay: SocketAddr) -> io::Result<Self> {
        let any = if relay.is_ipv4() { IpAddr::V4(Ipv4Addr::UNSPECIFIED) } else { Ipv6Addr::UNSPECIFIED.into() };
        let socket = egress.socket(Domain::for_address(relay), Type::DGRAM, Protocol::UDP)?;
        socket.bind(&SocketAddr::new(any, 0).into())?;
        let socket = UdpSocket::from_std(socket.into())?;
        // What comes from elsewhere is dropped by the system.
        socket.connect(relay).await?;
        Ok(Self { control, socket })
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
    /// As the system says; `ConnectionAborted` when the proxy has ended the association.
    pub async fn receive(&self, buffer: &mut [u8]) -> io::Result<(SocketAddr, std::ops::Range<usize>)> {
        loop {
            let len = tokio::select! {
                received = self.socket.recv(buffer) => received?,
                () = self.ended() => return Err(io::Error::new(io::ErrorKind::ConnectionAborted, "the proxy ended the relay")),
            };
            if let Some((from, payload)) = unwrap(buffer.get(..len).unwrap_or_default()) {
                let begin = len - payload.len();
                return Ok((from, begin..len));
            }
        }
    }

    /// Waits until the proxy ends the association.
    pub async fn ended(&self) {
        // Nothing is ever said there after the beginning; an end or an error makes it readable for good.
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

    /// The relay's socket, which is connected to it, and the connection that keeps it alive.
    pub fn into_parts(self) -> (UdpSocket, TcpStream) {
        (self.socket, self.control)
    }
}
