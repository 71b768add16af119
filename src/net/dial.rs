//! Reaching peers.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::time::timeout;

use super::egress::Egress;
use super::encryption::{Encryption, Greeting};
use super::handshake::{self, Failed};
use super::stream::Stream;
use crate::wire::Handshake;

/// How long a peer may take to answer (`limits.md`).
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// How peers are reached: the one place that knows which ways there are, and in which order they are tried.
#[derive(Debug, Default)]
pub struct Dialer {
    egress: Egress,
    encryption: Encryption,
}

impl Dialer {
    /// Reaches peers by `egress`, and greets them as `encryption` says.
    pub fn new(egress: Egress, encryption: Encryption) -> Self {
        Self { egress, encryption }
    }

    /// Connects with the peer at `address` and greets it. One that hangs up on one greeting gets the other, if there is
    /// another.
    ///
    /// # Errors
    /// What went wrong on the last way that was tried.
    pub async fn dial(&self, address: SocketAddr, ours: &Handshake) -> Result<(Stream, Handshake), Failed> {
        let mut greetings = self.encryption.greetings().iter().peekable();
        loop {
            let Some(greeting) = greetings.next() else { return Err(io::Error::from(io::ErrorKind::NotFound).into()) };
            // If nobody is there, nobody is greeted.
            let mut stream = self.connect(address).await?;
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

    /// Opens a connection with what listens at `address`, and says nothing yet.
    ///
    /// # Errors
    /// What the system or the proxy says, or `TimedOut` after [`CONNECT_TIMEOUT`]; a proxy has twice that time, for it
    /// connects to somebody in turn.
    pub async fn connect(&self, address: SocketAddr) -> io::Result<Stream> {
        let limit = if self.egress.proxy().is_some() { 2 * CONNECT_TIMEOUT } else { CONNECT_TIMEOUT };
        let connected = timeout(limit, self.egress.connect(address)).await;
        connected.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))?.map(Stream::from)
    }
}
