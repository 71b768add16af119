//! Message Stream Encryption, also called Protocol Encryption: the handshake that hides which protocol is spoken.
//!
//! For: both sides of the handshake as bytes in, bytes out; the cipher that follows it.
//! Must not know: sockets, the clock, randomness, which torrents there are; entropy and torrents are passed in.
//! Main types: [`Exchange`], [`Step`], [`Secured`], [`Rc4`].
//!
//! It is in no BEP; its specification was published with Vuze ("Message Stream Encryption format specification version
//! 1.0"), and all common clients have it. A dials, B answers; S is the secret of a Diffie-Hellman exchange, SKEY the
//! torrent's info-hash, which both have to know; `ENCRYPT` is RC4 with keys made of S and SKEY:
//!
//! ```text
//! 1  A → B   Ya, PadA
//! 2  B → A   Yb, PadB
//! 3  A → B   HASH('req1', S), HASH('req2', SKEY) ^ HASH('req3', S),
//!            ENCRYPT(VC, crypto_provide, len(PadC), PadC, len(IA)), ENCRYPT(IA)
//! 4  B → A   ENCRYPT(VC, crypto_select, len(PadD), PadD), payload as selected
//! 5  A → B   payload as selected
//! ```
//!
//! The pads have random lengths of up to 512 bytes. Whoever waits for 3 looks for `HASH('req1', S)` in as many bytes, and
//! for 4 for the encrypted VC, eight zeros. IA is what A has to say anyway: its handshake of BEP 3.

mod entropy;
mod exchange;
mod key_exchange;
mod rc4;
#[cfg(test)]
mod tests;

pub use entropy::Entropy;
pub use exchange::{Exchange, Step};
pub use key_exchange::{Power, Raised};
pub use rc4::Rc4;

use crate::hash::sha1;

/// Bytes of a public key, and of the secret.
const KEY_LEN: usize = 96;

/// The longest pad, in bytes.
pub const MAX_PAD: u16 = 512;

/// The verification constant.
const VC: [u8; 8] = [0; 8];

/// What may follow the handshake.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Method {
    /// Nothing is encrypted any more.
    Plaintext,
    /// Everything is.
    Rc4,
}

impl Method {
    /// As `crypto_provide` and `crypto_select` have it.
    fn bit(self) -> u32 {
        match self {
            Self::Plaintext => 1,
            Self::Rc4 => 2,
        }
    }
}

/// What both sides have agreed upon.
#[derive(Debug)]
pub struct Secured {
    /// The torrent, by the 20 bytes that peers use for it.
    pub torrent: [u8; 20],
    /// The ciphers for all that follows; none if that is not encrypted.
    pub ciphers: Option<Box<Ciphers>>,
    /// What has come behind the handshake, decrypted.
    pub first: Vec<u8>,
}

/// One side's ciphers.
#[derive(Debug)]
pub struct Ciphers {
    /// For what comes in.
    pub read: Rc4,
    /// For what goes out.
    pub write: Rc4,
}

impl Ciphers {
    fn new(secret: &[u8; KEY_LEN], torrent: &[u8; 20], dialling: bool) -> Self {
        let cipher = |name: &[u8]| Rc4::new(&sha1(&[name, secret, torrent]));
        let (a, b) = (cipher(b"keyA"), cipher(b"keyB"));
        if dialling { Self { read: b, write: a } } else { Self { read: a, write: b } }
    }
}

/// Why there is no encrypted connection. Always the other side's doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum MseError {
    /// It speaks BEP 3 without encryption.
    #[error("the peer does not encrypt")]
    Plaintext,
    /// With such a key anybody knows the secret.
    #[error("encryption: not a public key")]
    Key,
    /// What marks the end of a pad does not come: no encryption, or another torrent.
    #[error("encryption: no common secret")]
    NoSync,
    /// The torrent is none of ours.
    #[error("encryption: a torrent that we do not have")]
    UnknownTorrent,
    /// The verification constant is wrong.
    #[error("encryption: not the right key")]
    Verification,
    /// Longer than [`MAX_PAD`].
    #[error("encryption: a pad of {0} bytes")]
    Pad(u16),
    /// No method that we accept was offered, or another selected than was offered.
    #[error("encryption: no common method (theirs: {0:#x})")]
    Method(u32),
    /// The exchange is over.
    #[error("encryption: the handshake is over")]
    Over,
}

/// HASH('req2', SKEY): what a torrent is known by to those who answer. `torrent` are the 20 bytes that peers use for it.
pub fn torrent_mark(torrent: &[u8; 20]) -> [u8; 20] {
    sha1(&[b"req2", torrent])
}

fn xor(a: [u8; 20], b: [u8; 20]) -> [u8; 20] {
    std::array::from_fn(|i| a[i] ^ b[i])
}
