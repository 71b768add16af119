//! Reaching peers.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{sleep, timeout};

use super::egress::Egress;
use super::encryption::{Encryption, Greeting};
use super::handshake::{self, Failed};
use super::stream::Stream;
use super::udp::UdpHub;
use crate::wire::Handshake;

/// How long a peer may take to answer (`limits.md`).
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// How long TCP alone is tried. Whoever can be reached by it has nearly always answered by then, and whoever cannot may be
/// behind a router that lets uTP through.
const TCP_AHEAD: Duration = Duration::from_secs(1);

/// How long a peer whose machine refuses TCP is tried by uTP: it is there, or not.
const UTP_AFTER_REFUSAL: Duration = Duration::from_secs(3);

/// How peers are reached: the one place that knows which ways there are, and in which order they are tried.
#[derive(Debug, Default)]
pub struct Dialer {
    egress: Egress,
    encryption: Encryption,
    /// Those who speak uTP do so by these sockets.
    utp: Option<Arc<UdpHub>>,
    utp_only: bool,
}

impl Dialer {
    /// Reaches peers by `egress`, and greets them as `encryption` says.
    pub fn new(egress: Egress, encryption: Encryption) -> Self {
        Self { egress, encryption, utp: None, utp_only: false }
    }

    /// Reaches peers by uTP, too, over the sockets of `hub`; by nothing else if `only`.
    pub fn with_utp(self, hub: Option<Arc<UdpHub>>, only: bool) -> Self {
        Self { utp: hub, utp_only: only, ..self }
    }

    /// Connects with the peer at `address` and greets it. One that hangs up on one greeting gets the other, if there is
    /// another.
    ///
    /// # Errors
    /// What went wrong on the last way that was tried.
    pub async fn dial(&self, address: SocketAddr, ours: &Handshake) -> Result<(Stream, Handshake), Failed> {
        self.dial_over(address, ours, self.utp_only).await
    }

    /// The same by uTP only: the peer does the same now, and the first packets of both open the way for the others (BEP 55).
    ///
    /// # Errors
    /// As [`dial`](Self::dial).
    pub async fn dial_by_utp(&self, address: SocketAddr, ours: &Handshake) -> Result<(Stream, Handshake), Failed> {
        self.dial_over(address, ours, true).await
    }

    /// Whether there is uTP.
    pub fn has_utp(&self) -> bool {
        self.utp.is_some()
    }

    async fn dial_over(
        &self,
        address: SocketAddr,
        ours: &Handshake,
        utp_only: bool,
    ) -> Result<(Stream, Handshake), Failed> {
        let mut greetings = self.encryption.greetings().iter().peekable();
        loop {
            let Some(greeting) = greetings.next() else { return Err(io::Error::from(io::ErrorKind::NotFound).into()) };
            // If nobody is there, nobody is greeted.
            let mut stream = self.connect_over(address, utp_only).await?;
            let greeted = match greeting {
                Greeting::Plain => handshake::greet(&mut stream, ours).await,
                Greeting::Encrypted(methods) => handshake::greet_encrypted(&mut stream, ours, methods).await,
            };
            match greeted {
                Ok(theirs) => return Ok((stream, theirs)),
                Err(error) if greetings.peek().is_some() && error.is_refusal() => {
                    tracing::trace!(%address, %error, ?greeting, "greeted otherwise");
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// The addresses of a peer's `host`, looked up where it is connected from.
    ///
    /// # Errors
    /// As [`Egress::lookup`].
    pub async fn lookup(&self, host: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
        self.egress.lookup(host, port).await
    }

    /// Opens a connection with what listens at `address`, and says nothing yet: by TCP, and after a while by uTP as well;
    /// whichever answers first has it.
    ///
    /// # Errors
    /// What the system or the proxy says, or `TimedOut` after [`CONNECT_TIMEOUT`]; a proxy has twice that time, for it
    /// connects to somebody in turn.
    pub async fn connect(&self, address: SocketAddr) -> io::Result<Stream> {
        self.connect_over(address, self.utp_only).await
    }

    async fn connect_over(&self, address: SocketAddr, utp_only: bool) -> io::Result<Stream> {
        let limit = if self.egress.proxy().is_some() { 2 * CONNECT_TIMEOUT } else { CONNECT_TIMEOUT };
        let hub = self.utp.as_ref().filter(|hub| hub.reaches_by_utp(address));
        let connected = timeout(limit, async {
            match hub {
                _ if utp_only => {
                    let hub = hub.ok_or(io::ErrorKind::AddrNotAvailable)?;
                    hub.connect_utp(address).await.map(Stream::from)
                }
                Some(hub) => self.race(address, hub).await,
                None => self.egress.connect(address).await.map(Stream::from),
            }
        });
        connected.await.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))?
    }

    async fn race(&self, address: SocketAddr, hub: &UdpHub) -> io::Result<Stream> {
        let mut tcp = std::pin::pin!(self.egress.connect(address));
        let refused = tokio::select! {
            connected = &mut tcp => match connected {
                Ok(tcp) => return Ok(tcp.into()),
                Err(refused) => Some(refused),
            },
            () = sleep(TCP_AHEAD) => None,
        };
        let mut utp = std::pin::pin!(hub.connect_utp(address));
        if let Some(refused) = refused {
            return match timeout(UTP_AFTER_REFUSAL, utp).await {
                Ok(Ok(utp)) => Ok(utp.into()),
                // What TCP says is what people know.
                Ok(Err(_)) | Err(_) => Err(refused),
            };
        }
        tokio::select! {
            connected = &mut tcp => match connected {
                Ok(tcp) => Ok(tcp.into()),
                Err(refused) => utp.await.map(Stream::from).map_err(|_| refused),
            },
            connected = &mut utp => match connected {
                Ok(utp) => Ok(utp.into()),
                Err(_) => tcp.await.map(Stream::from),
            },
        }
    }
}
