//! Reaching peers.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::time::timeout;

use super::egress::Egress;
use super::handshake::{self, Failed};
use super::stream::Stream;
use crate::wire::Handshake;

/// How long a peer may take to answer (`limits.md`).
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// How peers are reached: the one place that knows which ways there are, and in which order they are tried.
#[derive(Debug, Default)]
pub struct Dialer {
    egress: Egress,
}

impl Dialer {
    /// Reaches peers by `egress`.
    pub fn new(egress: Egress) -> Self {
        Self { egress }
    }

    /// Connects with the peer at `address` and greets it.
    ///
    /// # Errors
    /// What went wrong on the last way that was tried.
    pub async fn dial(&self, address: SocketAddr, ours: &Handshake) -> Result<(Stream, Handshake), Failed> {
        let mut stream = self.connect(address).await?;
        let theirs = handshake::greet(&mut stream, ours).await?;
        Ok((stream, theirs))
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
