use std::fmt;

use super::{AlignedBytes, BLOCK_LEN};

/// One block's worth of bytes, reused from piece to piece: fresh memory costs a page fault per 4 KiB.
pub struct BlockBuf {
    bytes: AlignedBytes,
    len: usize,
}

impl BlockBuf {
    fn new() -> Self {
        Self { bytes: AlignedBytes::new(BLOCK_LEN as usize), len: 0 }
    }

    /// The bytes in use.
    pub fn as_slice(&self) -> &[u8] {
        &self.bytes.as_slice()[..self.len]
    }

    /// The bytes in use, to be filled.
    pub fn as_mut_slice(&mut self) -> &mut [u8] {
        &mut self.bytes.as_mut_slice()[..self.len]
    }

    /// Uses so many bytes, at most [`BLOCK_LEN`], with undefined contents.
    pub fn set_len(&mut self, len: u32) {
        self.len = len.min(BLOCK_LEN) as usize;
    }

    /// How many bytes are in use.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether none is in use.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }
}

impl fmt::Debug for BlockBuf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "BlockBuf({})", self.len)
    }
}

/// Lends [`BlockBuf`]s up to a ceiling. Near the ceiling the picker opens no new piece: that is the whole of
/// back-pressure.
#[derive(Debug)]
pub struct BlockPool {
    free: Vec<BlockBuf>,
    lent: usize,
    ceiling: usize,
}

impl BlockPool {
    /// A pool that lends at most `ceiling` bytes, rounded up to whole blocks.
    pub fn new(ceiling: u64) -> Self {
        let blocks = ceiling.div_ceil(u64::from(BLOCK_LEN));
        Self { free: Vec::new(), lent: 0, ceiling: usize::try_from(blocks).unwrap_or(usize::MAX).max(1) }
    }

    /// A buffer of `len` bytes (at most [`BLOCK_LEN`]) with undefined contents, or none at the ceiling.
    pub fn take(&mut self, len: u32) -> Option<BlockBuf> {
        if self.lent >= self.ceiling {
            return None;
        }
        self.lent += 1;
        let mut buf = self.free.pop().unwrap_or_else(BlockBuf::new);
        buf.set_len(len);
        Some(buf)
    }

    /// Takes a buffer back.
    pub fn give(&mut self, buf: BlockBuf) {
        debug_assert!(self.lent > 0, "a buffer came back that was never lent");
        self.lent = self.lent.saturating_sub(1);
        self.free.push(buf);
    }

    /// A lent buffer went down with its owner and will not come back.
    pub fn forget(&mut self, count: usize) {
        self.lent = self.lent.saturating_sub(count);
    }

    /// Frees the memory of buffers that nobody uses, but for `keep` of them.
    pub fn shrink(&mut self, keep: usize) {
        self.free.truncate(keep);
    }

    /// Buffers lent.
    pub fn lent(&self) -> usize {
        self.lent
    }

    /// Buffers that may be lent in all.
    pub fn ceiling(&self) -> usize {
        self.ceiling
    }

    /// Buffers that may still be lent.
    pub fn left(&self) -> usize {
        self.ceiling.saturating_sub(self.lent)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ceiling_and_reuse() {
        let mut pool = BlockPool::new(u64::from(BLOCK_LEN) * 2);
        let a = pool.take(BLOCK_LEN).unwrap();
        let b = pool.take(5).unwrap();
        assert_eq!((a.len(), b.len()), (16_384, 5));
        assert!(pool.take(1).is_none());
        pool.give(a);
        let again = pool.take(7).unwrap();
        assert_eq!((again.as_slice().len(), pool.lent(), pool.left()), (7, 2, 0));
    }
}
