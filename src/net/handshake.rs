//! The first 68 bytes of a connection (BEP 3), within a deadline for all of them together.

use std::io;
use std::time::Duration;

use tokio::time::timeout;

use super::stream::Stream;
use crate::wire::{Handshake, HandshakeError};

/// How long the whole handshake may take; not per read, or one byte every nine seconds would hold a socket for ever.
pub const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);

/// Bytes up to the end of the info-hash: enough to know which torrent is meant.
const PREFIX: usize = 48;

/// Why a handshake failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Failed {
    /// The connection broke, or took too long.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// What came is no handshake.
    #[error(transparent)]
    Handshake(#[from] HandshakeError),
    /// It is about another torrent.
    #[error("the peer speaks of another torrent")]
    WrongTorrent,
}

/// Introduces us to a peer that we dialled.
///
/// # Errors
/// [`Failed`]; the connection is of no use then.
pub async fn greet(stream: &mut Stream, ours: &Handshake) -> Result<Handshake, Failed> {
    within_deadline(async {
        stream.write_all(&ours.encode()).await?;
        let mut bytes = [0; Handshake::LEN];
        stream.read_exact(&mut bytes).await?;
        let theirs = Handshake::parse(&bytes)?;
        if theirs.info_hash == ours.info_hash { Ok(theirs) } else { Err(Failed::WrongTorrent) }
    })
    .await
}

/// Answers a peer that dialled us. `ours` is given the info-hash it asks for, and says who we are in that torrent, or
/// nothing if we do not have it.
///
/// # Errors
/// [`Failed`]; the connection is of no use then.
pub async fn answer(
    stream: &mut Stream,
    ours: impl FnOnce([u8; 20]) -> Option<Handshake>,
) -> Result<Handshake, Failed> {
    within_deadline(async {
        let mut bytes = [0; Handshake::LEN];
        // Some peers send their id only after our answer.
        stream.read_exact(&mut bytes[..PREFIX]).await?;
        let asked = Handshake::parse(&bytes)?.info_hash;
        let ours = ours(asked).ok_or(Failed::WrongTorrent)?;
        stream.write_all(&ours.encode()).await?;
        stream.read_exact(&mut bytes[PREFIX..]).await?;
        Ok(Handshake::parse(&bytes)?)
    })
    .await
}

async fn within_deadline<T>(exchange: impl Future<Output = Result<T, Failed>>) -> Result<T, Failed> {
    match timeout(HANDSHAKE_TIMEOUT, exchange).await {
        Ok(result) => result,
        Err(_) => Err(Failed::Io(io::ErrorKind::TimedOut.into())),
    }
}
