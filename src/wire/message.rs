use super::frame::{DecodeError, id};
use super::hashes::HashRequest;
use crate::base::Block;

/// One message of the peer protocol but for `piece`, whose body never is in one place (see
/// [`Decoder`](super::Decoder) and [`piece_header`](super::piece_header)).
///
/// Integers are as the wire has them, unchecked: only a [`Geometry`](crate::base::Geometry) knows what they mean.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Message<'a> {
    /// An empty frame, so that the connection is not taken for dead (BEP 3).
    KeepAlive,
    /// Requests will not be served (BEP 3).
    Choke,
    /// Requests will be served (BEP 3).
    Unchoke,
    /// The sender wants pieces that we have (BEP 3).
    Interested,
    /// The sender wants nothing of ours (BEP 3).
    NotInterested,
    /// The sender now has this piece (BEP 3).
    Have(u32),
    /// Which pieces the sender has, most significant bit first (BEP 3).
    Bitfield(&'a [u8]),
    /// Asks for a block (BEP 3).
    Request {
        /// Piece.
        index: u32,
        /// First byte within the piece.
        begin: u32,
        /// Bytes.
        len: u32,
    },
    /// Takes a request back (BEP 3).
    Cancel {
        /// Piece.
        index: u32,
        /// First byte within the piece.
        begin: u32,
        /// Bytes.
        len: u32,
    },
    /// The UDP port of the sender's DHT node (BEP 5).
    Port(u16),
    /// The sender would like to give this piece (BEP 6).
    Suggest(u32),
    /// The sender has every piece (BEP 6).
    HaveAll,
    /// The sender has no piece (BEP 6).
    HaveNone,
    /// A request will not be served (BEP 6).
    Reject {
        /// Piece.
        index: u32,
        /// First byte within the piece.
        begin: u32,
        /// Bytes.
        len: u32,
    },
    /// This piece may be requested even while choked (BEP 6).
    AllowedFast(u32),
    /// Asks for hashes of a file's tree (BEP 52).
    HashRequest(HashRequest),
    /// Hashes of a file's tree (BEP 52). See [`HashRequest::split`].
    Hashes {
        /// What is answered.
        request: HashRequest,
        /// Hashes of 32 bytes each: the base layer, then the uncles, upwards.
        hashes: &'a [u8],
    },
    /// Hashes will not be sent (BEP 52).
    HashReject(HashRequest),
    /// A message of an extension (BEP 10).
    Extended {
        /// 0 for the extended handshake, else an id of the receiver's choice.
        id: u8,
        /// What follows the id.
        payload: &'a [u8],
    },
    /// A message that we do not know, or an `extended` that is too long to be kept. Its payload was passed over.
    Unknown(u8),
}

impl<'a> Message<'a> {
    /// The request for `block`.
    pub fn request(block: Block) -> Self {
        Self::Request { index: block.piece().get(), begin: block.begin(), len: block.len() }
    }

    /// Takes the request for `block` back.
    pub fn cancel(block: Block) -> Self {
        Self::Cancel { index: block.piece().get(), begin: block.begin(), len: block.len() }
    }

    /// Refuses the request for `block`.
    pub fn reject(block: Block) -> Self {
        Self::Reject { index: block.piece().get(), begin: block.begin(), len: block.len() }
    }

    /// Appends the whole frame, length prefix included.
    pub fn encode_into(&self, out: &mut Vec<u8>) {
        match *self {
            Self::KeepAlive => out.extend_from_slice(&[0; 4]),
            Self::Choke => bare(out, id::CHOKE),
            Self::Unchoke => bare(out, id::UNCHOKE),
            Self::Interested => bare(out, id::INTERESTED),
            Self::NotInterested => bare(out, id::NOT_INTERESTED),
            Self::Have(index) => one(out, id::HAVE, index),
            Self::Bitfield(bits) => parts(out, id::BITFIELD, &[], bits),
            Self::Request { index, begin, len } => three(out, id::REQUEST, [index, begin, len]),
            Self::Cancel { index, begin, len } => three(out, id::CANCEL, [index, begin, len]),
            Self::Port(port) => parts(out, id::PORT, &port.to_be_bytes(), &[]),
            Self::Suggest(index) => one(out, id::SUGGEST, index),
            Self::HaveAll => bare(out, id::HAVE_ALL),
            Self::HaveNone => bare(out, id::HAVE_NONE),
            Self::Reject { index, begin, len } => three(out, id::REJECT, [index, begin, len]),
            Self::AllowedFast(index) => one(out, id::ALLOWED_FAST, index),
            Self::HashRequest(request) => parts(out, id::HASH_REQUEST, &request.encode(), &[]),
            Self::Hashes { request, hashes } => parts(out, id::HASHES, &request.encode(), hashes),
            Self::HashReject(request) => parts(out, id::HASH_REJECT, &request.encode(), &[]),
            Self::Extended { id, payload } => parts(out, id::EXTENDED, &[id], payload),
            Self::Unknown(id) => bare(out, id),
        }
    }

    /// The message `id` whose payload is all of `payload`. Lengths were judged by [`admit`](super::frame::admit); what
    /// does not fit is an error all the same.
    #[inline]
    pub(super) fn parse(id: u8, payload: &'a [u8]) -> Result<Self, DecodeError> {
        let message = match id {
            id::CHOKE => Some(Self::Choke),
            id::UNCHOKE => Some(Self::Unchoke),
            id::INTERESTED => Some(Self::Interested),
            id::NOT_INTERESTED => Some(Self::NotInterested),
            id::HAVE => integer(payload).map(Self::Have),
            id::BITFIELD => Some(Self::Bitfield(payload)),
            id::REQUEST => integers(payload).map(|[index, begin, len]| Self::Request { index, begin, len }),
            id::CANCEL => integers(payload).map(|[index, begin, len]| Self::Cancel { index, begin, len }),
            id::PORT => payload.first_chunk().map(|port| Self::Port(u16::from_be_bytes(*port))),
            id::SUGGEST => integer(payload).map(Self::Suggest),
            id::HAVE_ALL => Some(Self::HaveAll),
            id::HAVE_NONE => Some(Self::HaveNone),
            id::REJECT => integers(payload).map(|[index, begin, len]| Self::Reject { index, begin, len }),
            id::ALLOWED_FAST => integer(payload).map(Self::AllowedFast),
            id::EXTENDED => payload.split_first().map(|(id, payload)| Self::Extended { id: *id, payload }),
            id::HASH_REQUEST => HashRequest::parse(payload).map(|(request, _)| Self::HashRequest(request)),
            id::HASHES => HashRequest::parse(payload).map(|(request, hashes)| Self::Hashes { request, hashes }),
            id::HASH_REJECT => HashRequest::parse(payload).map(|(request, _)| Self::HashReject(request)),
            _ => Some(Self::Unknown(id)),
        };
        message.ok_or(DecodeError::Length { id, len: prefix(payload.len()) })
    }
}

fn integer(payload: &[u8]) -> Option<u32> {
    payload.first_chunk().map(|bytes| u32::from_be_bytes(*bytes))
}

fn integers(payload: &[u8]) -> Option<[u32; 3]> {
    Some([integer(payload)?, integer(payload.get(4..)?)?, integer(payload.get(8..)?)?])
}

/// The length prefix of a frame with so many bytes behind its id.
fn prefix(payload: usize) -> u32 {
    u32::try_from(payload).map_or(u32::MAX, |len| len.saturating_add(1))
}

fn bare(out: &mut Vec<u8>, id: u8) {
    out.extend_from_slice(&[0, 0, 0, 1, id]);
}

fn one(out: &mut Vec<u8>, id: u8, integer: u32) {
    let mut frame = [0, 0, 0, 5, id, 0, 0, 0, 0];
    frame[5..].copy_from_slice(&integer.to_be_bytes());
    out.extend_from_slice(&frame);
}

fn three(out: &mut Vec<u8>, id: u8, [index, begin, len]: [u32; 3]) {
    let mut frame = [0; 17];
    frame[3] = 13;
    frame[4] = id;
    frame[5..9].copy_from_slice(&index.to_be_bytes());
    frame[9..13].copy_from_slice(&begin.to_be_bytes());
    frame[13..].copy_from_slice(&len.to_be_bytes());
    out.extend_from_slice(&frame);
}

fn parts(out: &mut Vec<u8>, id: u8, first: &[u8], second: &[u8]) {
    out.reserve(5 + first.len() + second.len());
    out.extend_from_slice(&prefix(first.len() + second.len()).to_be_bytes());
    out.push(id);
    out.extend_from_slice(first);
    out.extend_from_slice(second);
}
