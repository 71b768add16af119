//! Connecting to peers.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::time::timeout;

/// How long a peer may take to answer (`limits.md`).
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// Opens a TCP connection to a peer.
///
/// # Errors
/// What the system says, or [`io::ErrorKind::TimedOut`] after [`CONNECT_TIMEOUT`].
pub async fn dial(address: SocketAddr) -> io::Result<TcpStream> {
    let stream = timeout(CONNECT_TIMEOUT, TcpStream::connect(address))
        .await
        .map_err(|_| io::Error::from(io::ErrorKind::TimedOut))??;
    prepare(&stream);
    Ok(stream)
}

/// What every connection with a peer is set to.
pub fn prepare(stream: &TcpStream) {
    // We write whole turns at once; a request must not wait for the answer to the one before it.
    let _ = stream.set_nodelay(true);
}
