//! The connection with a peer, whatever carries it.

use std::io::{self, IoSliceMut};

use tokio::io::{AsyncReadExt, AsyncWriteExt, Interest, Ready};
use tokio::net::TcpStream;

use crate::sys::Gather;

/// A connection with a peer: what the peer protocol runs over.
///
/// [`read_exact`](Self::read_exact) and [`write_all`](Self::write_all) are for handshakes. After that a connection waits
/// with [`ready`](Self::ready), and reads and sends as much as goes at once.
#[derive(Debug)]
pub struct Stream {
    tcp: TcpStream,
}

impl From<TcpStream> for Stream {
    fn from(tcp: TcpStream) -> Self {
        // We write whole turns at once; a request must not wait for the answer to the one before it.
        let _ = tcp.set_nodelay(true);
        Self { tcp }
    }
}

impl Stream {
    /// Waits until one of what is asked for may be tried, or the connection has broken. Cancelling it loses nothing.
    ///
    /// # Errors
    /// None that a connection outlives.
    pub async fn ready(&self, interest: Interest) -> io::Result<Ready> {
        self.tcp.ready(interest).await
    }

    /// Reads what is there to `places`, in their order. 0 is the end of the stream.
    ///
    /// # Errors
    /// `WouldBlock` if there is nothing; what the system says.
    pub fn try_read_vectored(&mut self, places: &mut [IoSliceMut<'_>]) -> io::Result<usize> {
        self.tcp.try_read_vectored(places)
    }

    /// Takes as much of `gather` as can be sent now. What was taken is on its way, or is sent before anything else.
    ///
    /// # Errors
    /// `WouldBlock` if it takes nothing now, `WriteZero` if there is nothing to take; otherwise as [`Gather::send`].
    pub fn try_send(&mut self, gather: &Gather<'_>) -> io::Result<usize> {
        match self.tcp.try_io(Interest::WRITABLE, || gather.send(&self.tcp))? {
            0 => Err(io::ErrorKind::WriteZero.into()),
            sent => Ok(sent),
        }
    }

    /// Fills `bytes`.
    ///
    /// # Errors
    /// `UnexpectedEof` if the stream ends before; what the system says.
    pub async fn read_exact(&mut self, bytes: &mut [u8]) -> io::Result<()> {
        self.tcp.read_exact(bytes).await.map(drop)
    }

    /// Sends all of `bytes`.
    ///
    /// # Errors
    /// What the system says.
    pub async fn write_all(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.tcp.write_all(bytes).await
    }
}
