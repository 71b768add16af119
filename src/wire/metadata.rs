use super::ExtensionError;
use super::bencoding::{integer, put_integer, put_string};
use crate::base::bencode::{Dictionary, Limits};

/// The longest info dictionary that we take from peers, in bytes: twice the longest legal one that was seen.
pub const MAX_METADATA_LEN: u32 = 32 << 20;

/// Bytes of a piece of the info dictionary, but for the last (BEP 9).
pub const METADATA_PIECE_LEN: u32 = 16 << 10;

/// The longest `ut_metadata` message, in bytes: a piece, and room for its header.
const MAX_MESSAGE: usize = 17 << 10;

const REQUEST: u64 = 0;
const DATA: u64 = 1;
const REJECT: u64 = 2;

/// A `ut_metadata` message (BEP 9). Pieces here are 16 KiB of the info dictionary, not of the torrent. Numbers are raw.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MetadataMessage<'a> {
    /// Asks for a piece.
    Request {
        /// Which, from 0.
        piece: u32,
    },
    /// A piece.
    Data {
        /// Which, from 0.
        piece: u32,
        /// Bytes of the whole dictionary, as the sender says; some do not.
        total_size: Option<u32>,
        /// At most [`METADATA_PIECE_LEN`] bytes.
        payload: &'a [u8],
    },
    /// The piece will not be sent.
    Reject {
        /// Which, from 0.
        piece: u32,
    },
    /// Another type of message; to be ignored.
    Unknown,
}

impl<'a> MetadataMessage<'a> {
    /// Reads the payload of a `ut_metadata` message.
    ///
    /// # Errors
    /// Too long, no dictionary in front, no type, or no piece.
    pub fn parse(payload: &'a [u8]) -> Result<Self, ExtensionError> {
        if payload.len() > MAX_MESSAGE {
            return Err(ExtensionError::Length(payload.len()));
        }
        let (header, body) = Dictionary::parse_prefix(payload, Limits::MESSAGE)?;
        let number = |key: &'static str| header.raw(key.as_bytes()).and_then(integer);
        let kind = number("msg_type").ok_or(ExtensionError::Field("msg_type"))?;
        let Some(kind) = u64::try_from(kind).ok().filter(|kind| *kind <= REJECT) else { return Ok(Self::Unknown) };
        let piece = number("piece").and_then(|piece| u32::try_from(piece).ok());
        let piece = piece.ok_or(ExtensionError::Field("piece"))?;
        match kind {
            REQUEST => Ok(Self::Request { piece }),
            REJECT => Ok(Self::Reject { piece }),
            _ if body.len() > METADATA_PIECE_LEN as usize => Err(ExtensionError::Length(payload.len())),
            _ => {
                let total_size = number("total_size").and_then(|size| u32::try_from(size).ok());
                Ok(Self::Data { piece, total_size, payload: body })
            }
        }
    }

    /// Appends the payload. [`MetadataMessage::Unknown`] says nothing and appends nothing.
    pub fn encode_into(&self, out: &mut Vec<u8>) {
        let (kind, piece, total_size, payload) = match *self {
            Self::Request { piece } => (REQUEST, piece, None, [].as_slice()),
            Self::Data { piece, total_size, payload } => (DATA, piece, total_size, payload),
            Self::Reject { piece } => (REJECT, piece, None, [].as_slice()),
            Self::Unknown => return,
        };
        out.push(b'd');
        put_string(out, b"msg_type");
        put_integer(out, kind);
        put_string(out, b"piece");
        put_integer(out, piece.into());
        if let Some(size) = total_size {
            put_string(out, b"total_size");
            put_integer(out, size.into());
        }
        out.push(b'e');
        out.extend_from_slice(payload);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// From BEP 9.
    #[test]
    fn examples_of_the_bep() {
        let table: [(&[u8], MetadataMessage<'_>); 3] = [
            (b"d8:msg_typei0e5:piecei0ee", MetadataMessage::Request { piece: 0 }),
            (
                b"d8:msg_typei1e5:piecei0e10:total_sizei34256eexxxxxxxx",
                MetadataMessage::Data { piece: 0, total_size: Some(34_256), payload: b"xxxxxxxx" },
            ),
            (b"d8:msg_typei2e5:piecei7ee", MetadataMessage::Reject { piece: 7 }),
        ];
        for (bytes, message) in table {
            assert_eq!(MetadataMessage::parse(bytes).as_ref(), Ok(&message));
            let mut out = Vec::new();
            message.encode_into(&mut out);
            assert_eq!(out, bytes);
        }
    }

    #[test]
    fn oddities() {
        fn parse(payload: &[u8]) -> Result<MetadataMessage<'_>, ExtensionError> {
            MetadataMessage::parse(payload)
        }
        assert_eq!(parse(b"d8:msg_typei3e5:piecei0ee"), Ok(MetadataMessage::Unknown));
        assert_eq!(parse(b"d8:msg_typei-1ee"), Ok(MetadataMessage::Unknown));
        assert_eq!(parse(b"d5:piecei0ee"), Err(ExtensionError::Field("msg_type")));
        for piece in ["i-1e", "i4294967296e", "1:0", "le"] {
            let text = format!("d8:msg_typei0e5:piece{piece}e");
            assert_eq!(parse(text.as_bytes()), Err(ExtensionError::Field("piece")));
        }
        for size in ["i-1e", "i4294967296e", "1:0"] {
            let text = format!("d8:msg_typei1e5:piecei0e10:total_size{size}e");
            assert!(matches!(parse(text.as_bytes()), Ok(MetadataMessage::Data { total_size: None, .. })), "{size}");
        }
        assert!(parse(b"").is_err() && parse(b"le").is_err() && parse(&[0; 20_000]).is_err());
        let mut full = Vec::new();
        let payload = &[7; METADATA_PIECE_LEN as usize];
        MetadataMessage::Data { piece: 1, total_size: Some(40_000), payload }.encode_into(&mut full);
        assert!(parse(&full).is_ok());
        full.push(7);
        assert_eq!(parse(&full), Err(ExtensionError::Length(full.len())));
    }
}
