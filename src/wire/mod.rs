//! L1: the peer wire protocol, bytes to messages and back.
//!
//! For: framing, limits per message, the extension handshake and the messages that it names; encryption (`mse`); announces
//! in the local network.
//! Must not know: torrents, sockets, who the peer is; it never decides anything.
//! Main types: [`Decoder`], [`Message`], [`Outbox`], [`Handshake`].
//! BEPs: 3, 6, 9 (messages), 10, 11, 14, 20, 21, 52, 54, 55.

mod bencoding;
mod client_name;
mod decoder;
mod extended;
mod frame;
mod handshake;
mod hashes;
mod lookahead;
mod lsd;
mod message;
mod metadata;
pub mod mse;
mod notices;
mod outbox;
mod pex;

pub use client_name::client_name;
pub use decoder::{Decoder, Item, PieceHeader, Places};
pub use extended::{
    DEFAULT_REQUEST_QUEUE, EXTENDED_HANDSHAKE_ID, ExtendedHandshake, Extension, ExtensionIds, MAX_REQUEST_QUEUE,
};
pub use frame::{DecodeError, MAX_BITFIELD_LEN, MAX_EXTENDED_LEN, MAX_SKIPPED_LEN};
pub use handshake::{Handshake, HandshakeError, Reserved};
pub use hashes::{HashRequest, MAX_HASHES, MAX_PROOF_LAYERS};
pub use lsd::{LSD_V4, LSD_V6, LocalAnnounce, MAX_LSD_HASHES, MAX_LSD_LEN};
pub use message::Message;
pub use metadata::{MAX_METADATA_LEN, METADATA_PIECE_LEN, MetadataMessage};
pub use notices::{DontHave, Holepunch, HolepunchError, UploadOnly};
pub use outbox::{CONTROL_CEILING, Outbox, piece_header};
pub use pex::{MAX_PEX_PEERS, Pex, PexFlags, PexPeer};

/// Why the payload of an extension message cannot be understood. The remote's fault, but rarely worth a quarrel.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ExtensionError {
    /// Not bencode, beyond the limits, or not a dictionary.
    #[error("extension message: {0}")]
    Bencode(#[from] crate::base::bencode::BencodeError),
    /// More or fewer bytes than the message has.
    #[error("extension message of {0} bytes")]
    Length(usize),
    /// A field that the message cannot do without is missing or means nothing.
    #[error("extension message without a usable `{0}`")]
    Field(&'static str),
}
