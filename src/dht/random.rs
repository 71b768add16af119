//! Numbers that nobody else can guess: ids of transactions, the secret behind write tokens.

use crate::hash::sha1;

/// An endless stream of bytes from 32 bytes of the operating system's entropy: SHA-1 of the seed and a counter. What has
/// been sent of it says nothing about the rest, unlike with a fast generator, whose state can be computed from it.
#[derive(Clone)]
pub struct Random {
    seed: [u8; 32],
    counter: u64,
    buffer: [u8; 20],
    used: usize,
}

impl Random {
    /// The same seed gives the same bytes.
    pub fn new(seed: [u8; 32]) -> Self {
        Self { seed, counter: 0, buffer: [0; 20], used: 20 }
    }

    /// Fills `out`.
    pub fn fill(&mut self, out: &mut [u8]) {
        for byte in out {
            if self.used == self.buffer.len() {
                self.buffer = sha1(&[&self.seed, &self.counter.to_be_bytes()]);
                self.counter = self.counter.wrapping_add(1);
                self.used = 0;
            }
            *byte = self.buffer[self.used];
            self.used += 1;
        }
    }

    /// 32 bits.
    pub fn u32(&mut self) -> u32 {
        let mut bytes = [0; 4];
        self.fill(&mut bytes);
        u32::from_be_bytes(bytes)
    }

    /// A number below `end`; zero if that is zero.
    pub fn below(&mut self, end: usize) -> usize {
        (self.u32() as usize).checked_rem(end).unwrap_or(0)
    }

    /// Moves `count` random ones of `items` to the front.
    pub fn pick<T>(&mut self, items: &mut [T], count: usize) {
        for i in 0..count.min(items.len()) {
            let other = i + self.below(items.len() - i);
            items.swap(i, other);
        }
    }
}

impl std::fmt::Debug for Random {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Random").finish_non_exhaustive()
    }
}
