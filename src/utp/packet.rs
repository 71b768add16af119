//! The packets of BEP 29 as they are on the wire.

/// Bytes of the header, without extensions.
pub const HEADER_LEN: usize = 20;

/// The only version there is.
const VERSION: u8 = 1;

/// The extension that says which packets have come out of order.
const SELECTIVE_ACK: u8 = 1;

/// An extension that nobody knows and everybody skips: it makes a packet longer without changing what it says.
const PADDING: u8 = 0x7f;

/// The most bytes of an extension.
pub(super) const MAX_EXTENSION: usize = 255;

/// Bytes before the body of an extension.
pub(super) const EXTENSION_HEADER: usize = 2;

/// What a packet is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Payload.
    Data,
    /// The last of the stream.
    Fin,
    /// An acknowledgement and nothing else.
    State,
    /// The connection is not known, or given up.
    Reset,
    /// The first of a connection.
    Syn,
}

impl Kind {
    fn parse(nibble: u8) -> Option<Self> {
        Some(match nibble {
            0 => Self::Data,
            1 => Self::Fin,
            2 => Self::State,
            3 => Self::Reset,
            4 => Self::Syn,
            _ => return None,
        })
    }

    fn nibble(self) -> u8 {
        match self {
            Self::Data => 0,
            Self::Fin => 1,
            Self::State => 2,
            Self::Reset => 3,
            Self::Syn => 4,
        }
    }
}

/// The fixed part of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// What it is for.
    pub kind: Kind,
    /// Which connection it belongs to.
    pub conn_id: u16,
    /// When it was sent, in microseconds of the sender's clock, whose zero means nothing.
    pub timestamp: u32,
    /// How long the last packet of the other side was under way by the two clocks, in microseconds; 0 if none came yet.
    pub delay: u32,
    /// Bytes that the sender has room for.
    pub window: u32,
    /// The number of this packet; of the next one if it has no payload.
    pub seq: u16,
    /// The last packet up to which all have come.
    pub ack: u16,
}

/// A packet.
#[derive(Clone, Copy, Debug)]
pub struct Packet<'a> {
    /// Its fixed part.
    pub header: Header,
    /// Which packets after the one behind `ack` have come, the first in the lowest bit of the first byte.
    pub selective_ack: Option<&'a [u8]>,
    /// What it carries.
    pub payload: &'a [u8],
}

impl<'a> Packet<'a> {
    /// Takes a datagram apart; nothing if it is none of uTP, or says that it is longer than it is. Extensions that are
    /// not known are skipped.
    pub fn parse(datagram: &'a [u8]) -> Option<Self> {
        let (fixed, mut rest) = datagram.split_first_chunk::<HEADER_LEN>()?;
        let [kind, mut extension, i0, i1, t0, t1, t2, t3, d0, d1, d2, d3, w0, w1, w2, w3, s0, s1, a0, a1] = *fixed;
        if kind & 0x0f != VERSION {
            return None;
        }
        let header = Header {
            kind: Kind::parse(kind >> 4)?,
            conn_id: u16::from_be_bytes([i0, i1]),
            timestamp: u32::from_be_bytes([t0, t1, t2, t3]),
            delay: u32::from_be_bytes([d0, d1, d2, d3]),
            window: u32::from_be_bytes([w0, w1, w2, w3]),
            seq: u16::from_be_bytes([s0, s1]),
            ack: u16::from_be_bytes([a0, a1]),
        };
        let mut selective_ack = None;
        while extension != 0 {
            let ([next, len], body) = rest.split_first_chunk::<EXTENSION_HEADER>()?;
            let (body, after) = body.split_at_checked(usize::from(*len))?;
            if extension == SELECTIVE_ACK {
                selective_ack = Some(body);
            }
            extension = *next;
            rest = after;
        }
        Some(Self { header, selective_ack, payload: rest })
    }
}

impl Header {
    /// Appends a packet of this header alone; payload may follow.
    pub fn encode_into(&self, into: &mut Vec<u8>) {
        self.encode_fixed(0, into);
    }

    /// Appends a packet that tells what came out of order.
    pub(super) fn encode_with_selective_ack(&self, mask: &[u8], into: &mut Vec<u8>) {
        self.encode_fixed(SELECTIVE_ACK, into);
        let len = u8::try_from(mask.len()).unwrap_or(u8::MAX);
        into.extend_from_slice(&[0, len]);
        into.extend_from_slice(&mask[..usize::from(len)]);
    }

    /// Appends a header that is `padding` bytes longer than it need be: at least 2 and room for as many extensions as
    /// that takes. Payload may follow.
    pub(super) fn encode_padded(&self, padding: usize, into: &mut Vec<u8>) {
        self.encode_fixed(if padding == 0 { 0 } else { PADDING }, into);
        let mut left = padding;
        while left > 0 {
            let mut here = left.min(EXTENSION_HEADER + MAX_EXTENSION);
            // One byte alone is no extension.
            if left - here == 1 {
                here -= 1;
            }
            left -= here;
            let len = u8::try_from(here.saturating_sub(EXTENSION_HEADER)).unwrap_or(u8::MAX);
            into.extend_from_slice(&[if left == 0 { 0 } else { PADDING }, len]);
            into.resize(into.len() + usize::from(len), 0);
        }
    }

    fn encode_fixed(&self, extension: u8, into: &mut Vec<u8>) {
        into.extend_from_slice(&[self.kind.nibble() << 4 | VERSION, extension]);
        into.extend_from_slice(&self.conn_id.to_be_bytes());
        for word in [self.timestamp, self.delay, self.window] {
            into.extend_from_slice(&word.to_be_bytes());
        }
        into.extend_from_slice(&self.seq.to_be_bytes());
        into.extend_from_slice(&self.ack.to_be_bytes());
    }
}

/// The number with these low 16 bits that lies nearest to `near`: packets are counted without end here, and modulo
/// 2^16 on the wire.
pub(super) fn widen(wire: u16, near: u64) -> u64 {
    let ahead = wire.wrapping_sub(narrow(near));
    if ahead < 0x8000 { near + u64::from(ahead) } else { near.wrapping_sub(u64::from(ahead.wrapping_neg())) }
}

/// A number as it is on the wire.
pub(super) fn narrow(number: u64) -> u16 {
    let [.., high, low] = number.to_be_bytes();
    u16::from_be_bytes([high, low])
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn header() -> Header {
        Header { kind: Kind::Data, conn_id: 0x1234, timestamp: 1, delay: 2, window: 3, seq: 0xfffe, ack: 5 }
    }

    #[test]
    fn bytes_are_those_of_the_specification() {
        let mut bytes = Vec::new();
        header().encode_into(&mut bytes);
        assert_eq!(bytes, [1, 0, 0x12, 0x34, 0, 0, 0, 1, 0, 0, 0, 2, 0, 0, 0, 3, 0xff, 0xfe, 0, 5]);
        bytes.push(9);
        let packet = Packet::parse(&bytes).unwrap();
        assert_eq!((packet.header, packet.payload, packet.selective_ack), (header(), &[9][..], None));
    }

    #[test]
    fn extensions_are_read_or_skipped() {
        let mut bytes = Vec::new();
        header().encode_with_selective_ack(&[1, 0, 0, 0x80], &mut bytes);
        assert_eq!(Packet::parse(&bytes).unwrap().selective_ack, Some(&[1, 0, 0, 0x80][..]));
        for padding in (2..600).chain([0]) {
            bytes.clear();
            header().encode_padded(padding, &mut bytes);
            assert_eq!(bytes.len(), HEADER_LEN + padding);
            bytes.extend_from_slice(b"payload");
            assert_eq!(Packet::parse(&bytes).unwrap().payload, b"payload");
        }
        // The extension bits of other clients, then a selective ack.
        let mut bytes = Vec::new();
        header().encode_into(&mut bytes);
        bytes[1] = 2;
        bytes.extend_from_slice(&[1, 8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 4, 1, 2, 3, 4, b'x']);
        let packet = Packet::parse(&bytes).unwrap();
        assert_eq!((packet.selective_ack, packet.payload), (Some(&[1, 2, 3, 4][..]), &b"x"[..]));
    }

    #[test]
    fn nonsense_is_refused() {
        let mut bytes = Vec::new();
        header().encode_into(&mut bytes);
        for n in 0..HEADER_LEN {
            assert!(Packet::parse(&bytes[..n]).is_none());
        }
        for (at, value) in [(0, 2), (0, 0x51), (1, 1)] {
            let mut bad = bytes.clone();
            bad[at] = value;
            assert!(Packet::parse(&bad).is_none(), "{at} {value}");
        }
        let mut long = bytes.clone();
        long[1] = 1;
        long.extend_from_slice(&[0, 5, 1, 2, 3, 4]);
        assert!(Packet::parse(&long).is_none());
    }

    proptest! {
        #[test]
        fn anything_may_come(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            if let Some(packet) = Packet::parse(&bytes) {
                let kept = packet.payload.len() + packet.selective_ack.map_or(0, <[u8]>::len);
                prop_assert!(kept + HEADER_LEN <= bytes.len());
            }
        }

        #[test]
        fn numbers_survive_the_wire(near in 0x1_0000u64..u64::MAX / 2, off in -0x8000i64..0x8000) {
            let number = near.wrapping_add_signed(off);
            prop_assert_eq!(widen(narrow(number), near), number);
        }
    }
}
