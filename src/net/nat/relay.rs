//! The router, brought to loopback: what others make sockets for goes on from here by the device that was chosen, which
//! they know nothing of.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};

use socket2::{Domain, Type};
use tokio::net::UdpSocket;
use tokio::task::JoinHandle;

use super::Gateway;
use crate::net::egress::Egress;

/// Addresses that are tried: the port cannot be chosen, and somebody may have it.
const TRIES: usize = 8;

/// Bytes of a message of PCP (RFC 6887, section 7: 1,100), and more than one of NAT-PMP.
const MAX_MESSAGE: usize = 1_100;

/// Passes messages on for as long as it lives.
#[derive(Debug)]
pub(super) struct Relay {
    /// Where the router seems to be.
    pub(super) address: Ipv4Addr,
    task: JoinHandle<()>,
}

impl Relay {
    /// For what the router is asked at `port`.
    pub(super) fn start(gateway: &Gateway, port: u16, egress: &Egress) -> io::Result<Self> {
        let mut router = gateway.router;
        router.set_port(port);
        let mut tries = TRIES;
        loop {
            let address = Ipv4Addr::new(127, fastrand::u8(1..), fastrand::u8(..), fastrand::u8(1..255));
            tries -= 1;
            match udp_at(&Egress::default(), (address, port).into()) {
                Ok(near) => return Ok(Self { address, task: tokio::spawn(pass(near, router, egress.clone())) }),
                Err(e) if tries == 0 => return Err(e),
                Err(_) => {}
            }
        }
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// One asks at a time; who asks next hears no answers that come late for others.
async fn pass(near: UdpSocket, router: SocketAddr, egress: Egress) {
    let mut asks: Option<(SocketAddr, UdpSocket)> = None;
    let (mut question, mut answer) = ([0; MAX_MESSAGE], [0; MAX_MESSAGE]);
    loop {
        tokio::select! {
            asked = near.recv_from(&mut question) => {
                let Ok((len, from)) = asked else { continue };
                if asks.as_ref().is_none_or(|(asker, _)| *asker != from) {
                    asks = towards(router, &egress).ok().map(|far| (from, far));
                }
                if let Some((_, far)) = &asks {
                    // What does not get there is not answered.
                    let _ = far.send(question.get(..len).unwrap_or_default()).await;
                }
            }
            answered = hear(&asks, &mut answer) => {
                if let Some((asker, _)) = &asks {
                    let _ = near.send_to(answer.get(..answered).unwrap_or_default(), asker).await;
                }
            }
        }
    }
}

/// The length of what the router answers; waits for ever if nobody asks.
async fn hear(asks: &Option<(SocketAddr, UdpSocket)>, answer: &mut [u8]) -> usize {
    if let Some((_, far)) = asks {
        // An error is said once for each message that was refused.
        while let Ok(()) = far.readable().await {
            if let Ok(len) = far.try_recv(answer) {
                return len;
            }
        }
    }
    std::future::pending().await
}

fn towards(router: SocketAddr, egress: &Egress) -> io::Result<UdpSocket> {
    let socket = egress.udp_for(router)?;
    socket.connect(router)?;
    UdpSocket::from_std(socket)
}

/// A socket of IPv4 bound to `address`.
pub(super) fn udp_at(egress: &Egress, address: SocketAddr) -> io::Result<UdpSocket> {
    let socket = egress.socket(Domain::IPV4, Type::DGRAM, socket2::Protocol::UDP)?;
    socket.bind(&address.into())?;
    UdpSocket::from_std(socket.into())
}
