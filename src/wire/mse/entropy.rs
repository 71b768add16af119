use std::fmt;

use super::MAX_PAD;

/// The randomness of one handshake: a secret exponent, the lengths of two pads, and the first of them.
#[derive(Clone)]
pub struct Entropy([u8; Entropy::LEN]);

impl Entropy {
    /// Bytes of it.
    pub const LEN: usize = 20 + 4 + MAX_PAD as usize;

    /// Of bytes that nobody can guess.
    pub fn new(random: [u8; Self::LEN]) -> Self {
        Self(random)
    }

    pub(super) fn exponent(&self) -> &[u8; 20] {
        let [exponent @ .., _, _, _, _] = self.head();
        exponent
    }

    /// PadA or PadB.
    pub(super) fn pad(&self) -> &[u8] {
        let [.., high, low, _, _] = self.head();
        &self.0[24..24 + usize::from(pad_len(*high, *low))]
    }

    /// The length of PadC or PadD, which has only zeros.
    pub(super) fn second_pad_len(&self) -> u16 {
        let [.., high, low] = self.head();
        pad_len(*high, *low)
    }

    fn head(&self) -> &[u8; 24] {
        let (head, _) = self.0.as_chunks();
        &head[0]
    }
}

fn pad_len(high: u8, low: u8) -> u16 {
    u16::from_be_bytes([high, low]) % (MAX_PAD + 1)
}

impl fmt::Debug for Entropy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Entropy")
    }
}
