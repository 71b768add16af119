use std::fmt;

/// Bytes of key stream that Message Stream Encryption throws away before the first is used.
const DROPPED: usize = 1024;

/// The stream cipher RC4, for one direction of one connection.
///
/// Written here because what the crates offer works at less than half the speed, and an encrypted connection spends most
/// of its time in it (`benches/mse.rs` has both). The state lies in words of 32 bits, which processors forward from
/// a store to a load sooner than bytes, and each element is loaded before the swap of the step before it, so that no step
/// waits for the stores of another.
#[derive(Clone)]
pub struct Rc4 {
    state: [u32; 256],
    i: u8,
    j: u8,
}

impl Rc4 {
    /// The cipher as MSE uses it: what the first 1024 bytes would be is thrown away.
    pub fn new(key: &[u8; 20]) -> Self {
        let mut cipher = Self::from_key(key);
        for _ in 0..DROPPED / 64 {
            cipher.apply(&mut [0; 64]);
        }
        cipher
    }

    pub(super) fn from_key(key: &[u8]) -> Self {
        let mut state = [0; 256];
        (0..).zip(&mut state).for_each(|(n, element)| *element = n);
        let mut j = 0_u8;
        for (i, key) in (0..256).zip(key.iter().cycle()) {
            j = j.wrapping_add(low(state[i])).wrapping_add(*key);
            state.swap(i, usize::from(j));
        }
        Self { state, i: 0, j: 0 }
    }

    /// Encrypts or decrypts `bytes`, which is the same.
    pub fn apply(&mut self, bytes: &mut [u8]) {
        let (mut step, state) = (Step::first(self), &mut self.state);
        let (words, rest) = bytes.as_chunks_mut();
        for word in words {
            *word = (u64::from_le_bytes(*word) ^ step.word(state)).to_le_bytes();
        }
        for byte in rest {
            *byte ^= low(step.next(state));
        }
        (self.i, self.j) = step.behind();
    }
}

/// What changes with every step, in registers.
#[derive(Clone, Copy)]
struct Step {
    i: u8,
    /// Only its lowest byte counts.
    j: u32,
    /// `state[i]`.
    x: u32,
}

impl Step {
    fn first(cipher: &Rc4) -> Self {
        let i = cipher.i.wrapping_add(1);
        Self { i, j: u32::from(cipher.j), x: cipher.state[usize::from(i)] }
    }

    fn behind(self) -> (u8, u8) {
        (self.i.wrapping_sub(1), low(self.j))
    }

    /// The next byte of the key stream.
    #[inline(always)]
    fn next(&mut self, state: &mut [u32; 256]) -> u32 {
        let Self { i, x, .. } = *self;
        let j = self.j.wrapping_add(x);
        let y = state[usize::from(low(j))];
        let after = i.wrapping_add(1);
        let next = state[usize::from(after)];
        state[usize::from(low(j))] = x;
        state[usize::from(i)] = y;
        // The next element, unless the swap has just put another there.
        let next = if low(j) == after { x } else { next };
        *self = Self { i: after, j, x: next };
        state[usize::from(low(x.wrapping_add(y)))]
    }

    #[inline(always)]
    fn word(&mut self, state: &mut [u32; 256]) -> u64 {
        (0..8).fold(0, |word, n| word | u64::from(self.next(state)) << (8 * n))
    }
}

#[inline(always)]
fn low(word: u32) -> u8 {
    word.to_le_bytes()[0]
}

impl fmt::Debug for Rc4 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The state is the key.
        f.write_str("Rc4")
    }
}
