//! The first 68 bytes of a connection (BEP 3), and what goes before them if it is encrypted, within a deadline for all of
//! it together.

use std::io;
use std::time::Duration;

use tokio::time::timeout;

use super::encryption::Encryption;
use super::mse;
use super::pace::Pace;
use super::stream::Stream;
use crate::wire::mse::{Exchange, Method, MseError};
use crate::wire::{Handshake, HandshakeError};

/// How long the whole handshake may take; not per read, or one byte every nine seconds would hold a socket for ever.
pub const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);

/// Bytes up to the end of the info-hash: enough to know which torrent is meant.
const PREFIX: usize = 48;

/// Powers per second that are computed for peers that dial us and encrypt, after so many at once. Two are needed for each,
/// of about 40 microseconds: a flood of strangers gets a fiftieth of a core for them.
const POWERS_PER_SECOND: u32 = 500;
const POWERS_BURST: u32 = 200;

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
    /// What came is no encrypted handshake.
    #[error(transparent)]
    Encryption(#[from] MseError),
    /// It would not be encrypted.
    #[error("the peer does not encrypt, which is required")]
    Unencrypted,
    /// It is about another torrent.
    #[error("the peer speaks of another torrent")]
    WrongTorrent,
}

impl Failed {
    /// Whether a peer that is greeted otherwise may like it better. One that only takes too long would not.
    pub(super) fn is_refusal(&self) -> bool {
        match self {
            Self::Io(error) => error.kind() != io::ErrorKind::TimedOut,
            Self::Handshake(_) | Self::Encryption(_) => true,
            Self::Unencrypted | Self::WrongTorrent => false,
        }
    }
}

/// Introduces us to a peer that we dialled.
///
/// # Errors
/// [`Failed`]; the connection is of no use then.
pub async fn greet(stream: &mut Stream, ours: &Handshake) -> Result<Handshake, Failed> {
    within_deadline(async {
        stream.write_all(&ours.encode()).await?;
        read_answer(stream, ours).await
    })
    .await
}

/// The same, encrypted, with one of `methods` for what follows.
///
/// # Errors
/// [`Failed`]; the connection is of no use then.
pub async fn greet_encrypted(
    stream: &mut Stream,
    ours: &Handshake,
    methods: &'static [Method],
) -> Result<Handshake, Failed> {
    within_deadline(async {
        let exchange = Exchange::dial(mse::entropy()?, *ours, methods);
        let secured = mse::exchange(stream, exchange, None, |_| None).await?;
        stream.secure(secured);
        read_answer(stream, ours).await
    })
    .await
}

async fn read_answer(stream: &mut Stream, ours: &Handshake) -> Result<Handshake, Failed> {
    let mut bytes = [0; Handshake::LEN];
    stream.read_exact(&mut bytes).await?;
    let theirs = Handshake::parse(&bytes)?;
    if theirs.info_hash == ours.info_hash { Ok(theirs) } else { Err(Failed::WrongTorrent) }
}

/// How peers that dial us are answered.
#[derive(Debug)]
pub struct Answerer {
    encryption: Encryption,
    powers: Pace,
}

impl Answerer {
    /// Lets peers encrypt, or makes them, as `encryption` says.
    pub fn new(encryption: Encryption) -> Self {
        Self { encryption, powers: Pace::new(POWERS_PER_SECOND, POWERS_BURST) }
    }

    /// Answers a peer. `ours` is given the info-hash it asks for, and says who we are in that torrent, or nothing if we do
    /// not have it. `find` gives the info-hash of a torrent by its [mark](crate::wire::mse::torrent_mark).
    ///
    /// # Errors
    /// [`Failed`]; the connection is of no use then.
    pub async fn answer(
        &self,
        stream: &mut Stream,
        find: impl Fn(&[u8; 20]) -> Option<[u8; 20]>,
        ours: impl FnOnce([u8; 20]) -> Option<Handshake>,
    ) -> Result<Handshake, Failed> {
        within_deadline(async {
            let mut bytes = [0; Handshake::LEN];
            let known = Handshake::PREFIX.len();
            let mut len = 0;
            while len < known && bytes[..len] == Handshake::PREFIX[..len] {
                // No further: some peers send their id only after our answer.
                match stream.read(&mut bytes[len..PREFIX]).await? {
                    0 => return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into()),
                    n => len += n,
                }
            }
            let seen = len.min(known);
            let mut agreed = None;
            if bytes[..seen] == Handshake::PREFIX[..seen] {
                if !self.encryption.admits_plain() {
                    return Err(Failed::Unencrypted);
                }
            } else {
                agreed = Some(self.agree(stream, &bytes[..len], find).await?);
                len = 0;
            }
            stream.read_exact(&mut bytes[len..PREFIX]).await?;
            let asked = Handshake::parse(&bytes)?.info_hash;
            if agreed.is_some_and(|agreed| agreed != asked) {
                return Err(Failed::WrongTorrent);
            }
            let ours = ours(asked).ok_or(Failed::WrongTorrent)?;
            stream.write_all(&ours.encode()).await?;
            stream.read_exact(&mut bytes[PREFIX..]).await?;
            Ok(Handshake::parse(&bytes)?)
        })
        .await
    }

    /// The encrypted handshake, which begins with `bytes`. Returns the torrent that it is about.
    async fn agree(
        &self,
        stream: &mut Stream,
        bytes: &[u8],
        find: impl Fn(&[u8; 20]) -> Option<[u8; 20]>,
    ) -> Result<[u8; 20], Failed> {
        let methods = self.encryption.accepted();
        if methods.is_empty() {
            return Err(HandshakeError::ProtocolLength(bytes.first().copied().unwrap_or(0)).into());
        }
        let mut exchange = Exchange::answer(mse::entropy()?, methods);
        exchange.handle_bytes(bytes);
        let secured = mse::exchange(stream, exchange, Some(&self.powers), find).await?;
        let torrent = secured.torrent;
        stream.secure(secured);
        Ok(torrent)
    }
}

async fn within_deadline<T>(exchange: impl Future<Output = Result<T, Failed>>) -> Result<T, Failed> {
    match timeout(HANDSHAKE_TIMEOUT, exchange).await {
        Ok(result) => result,
        Err(_) => Err(Failed::Io(io::ErrorKind::TimedOut.into())),
    }
}
