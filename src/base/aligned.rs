use std::fmt;
use std::ops::Range;

/// A line of the processor's cache. Where the kernel copies between its pages and memory that does not begin on one, some
/// processors take three times as long (measured on Zen 3: `rep movsb`, with which the kernel copies).
const LINE: usize = 64;

/// Bytes that begin on a line of the processor's cache: for what is read from and written to files and sockets.
#[derive(Default)]
pub struct AlignedBytes {
    /// With what may have to be left out in front and behind. Never moves.
    bytes: Box<[u8]>,
}

impl AlignedBytes {
    /// So many zeros.
    pub fn new(len: usize) -> Self {
        Self { bytes: vec![0; len.saturating_add(LINE - 1)].into_boxed_slice() }
    }

    /// Makes it at least so long. What was in it is lost if it has to grow.
    pub fn ensure(&mut self, len: usize) {
        if self.range().len() < len {
            *self = Self::new(len);
        }
    }

    /// All of it.
    pub fn as_slice(&self) -> &[u8] {
        &self.bytes[self.range()]
    }

    /// All of it, to be filled.
    pub fn as_mut_slice(&mut self) -> &mut [u8] {
        let range = self.range();
        &mut self.bytes[range]
    }

    fn range(&self) -> Range<usize> {
        let len = self.bytes.len().saturating_sub(LINE - 1);
        // At most what is to spare; should it not be known, the beginning will do.
        let start = self.bytes.as_ptr().align_offset(LINE).min(self.bytes.len() - len);
        start..start + len
    }
}

impl fmt::Debug for AlignedBytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "AlignedBytes({})", self.range().len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn begins_on_a_line() {
        for len in [0, 1, 64, 1_000, 16_384, 1 << 20] {
            let mut bytes = AlignedBytes::new(len);
            assert_eq!((bytes.as_slice().len(), bytes.as_slice().as_ptr() as usize % LINE), (len, 0));
            bytes.as_mut_slice().fill(1);
            bytes.ensure(len + 1);
            assert_eq!((bytes.as_slice().len(), bytes.as_slice().as_ptr() as usize % LINE), (len + 1, 0));
        }
    }
}
