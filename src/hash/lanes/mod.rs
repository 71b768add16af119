//! Many messages of equal length, side by side: four through the SHA instructions at once, whose latency one message
//! cannot fill, or sixteen in the lanes of AVX-512.
//!
//! For: the fastest way that this processor has, and agreement of all ways to the last bit.
//! Must not know: pieces, trees of hashes.
//! Main types: [`Tier`], [`Sha1Lanes`].
//!
//! What is the same for all is here: choosing the way, grouping messages, walking their slices, padding the last block.
//! The kernels (`ni`, `avx512`) see only whole blocks of 64 bytes.

#[cfg(target_arch = "x86_64")]
mod avx512;
#[cfg(target_arch = "x86_64")]
mod ni;

use std::sync::OnceLock;

use sha1::{Digest, Sha1};

use super::Slices;

/// Bytes of a block of SHA-1 and SHA-256.
pub(super) const BLOCK: usize = 64;

/// With fewer, sixteen lanes are slower than four at a time (measured: `benches/hash.rs`).
const MIN_OF_16: usize = 9;

/// Feeds equally many whole blocks to each of `N` states of `W` words.
type Kernel<const W: usize, const N: usize> = fn(&mut [[u32; W]; N], [&[u8]; N]);

/// The kernels of one hash that this processor can run.
#[derive(Clone, Copy)]
struct Kernels<const W: usize> {
    of_4: Option<Kernel<W, 4>>,
    of_16: Option<Kernel<W, 16>>,
    initial: [u32; W],
}

/// A way to hash many messages: which kernels may be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tier {
    ni: bool,
    avx512: bool,
}

static TIER: OnceLock<Tier> = OnceLock::new();

impl Tier {
    /// One message at a time.
    pub(super) const SCALAR: Self = Self { ni: false, avx512: false };

    /// The best this processor has, or what [`Tier::force`] chose before. Found once.
    pub(super) fn in_use() -> Self {
        // Kernels that are not optimised are hundreds of times slower than the crates, which are even in debug builds.
        *TIER.get_or_init(|| if cfg!(debug_assertions) { Self::SCALAR } else { Self::detected().best() })
    }

    /// Has the tier called `name` used, or as much of it as the processor has. Whether it is in use from now on.
    pub(super) fn force(name: &str) -> bool {
        let detected = Self::detected();
        let wanted = match name {
            "scalar" => Self::SCALAR,
            "ni4" => Self { avx512: false, ..detected },
            "avx512" => Self { ni: false, ..detected },
            _ => return false,
        };
        *TIER.get_or_init(|| wanted) == wanted
    }

    /// Every way that this processor has, from the plainest on, each by the name that [`force_tier`](super::force_tier)
    /// takes: to compare them. One message at a time is the first.
    pub fn available() -> Vec<Self> {
        let detected = Self::detected();
        let one = [Self { avx512: false, ..detected }, Self { ni: false, ..detected }];
        let lanes = one.into_iter().filter(|tier| *tier != Self::SCALAR);
        std::iter::once(Self::SCALAR).chain(lanes).collect()
    }

    pub(super) fn detected() -> Self {
        #[cfg(target_arch = "x86_64")]
        return Self { ni: ni::is_supported(), avx512: avx512::is_supported() };
        #[cfg(not(target_arch = "x86_64"))]
        return Self::SCALAR;
    }

    /// Of what the processor has, what is worth using: sixteen lanes lose to the SHA instructions where the
    /// processor does such operations in two halves.
    fn best(self) -> Self {
        #[cfg(target_arch = "x86_64")]
        return Self { avx512: self.avx512 && (avx512::is_fast() || !self.ni), ..self };
        #[cfg(not(target_arch = "x86_64"))]
        return self;
    }

    /// Its name: `scalar`, `ni4`, `avx512`, or `avx512 and ni4`.
    pub fn name(self) -> &'static str {
        match (self.ni, self.avx512) {
            (true, true) => "avx512 and ni4",
            (false, true) => "avx512",
            (true, false) => "ni4",
            (false, false) => "scalar",
        }
    }

    /// How many messages it takes side by side.
    pub fn lanes(self) -> usize {
        match (self.ni, self.avx512) {
            (_, true) => 16,
            (true, false) => 4,
            (false, false) => 1,
        }
    }

    /// SHA-1 of many messages, in their order.
    pub fn sha1_many(self, messages: &[Slices<'_>]) -> Vec<[u8; 20]> {
        self.sha1_kernels().many(messages, super::sha1)
    }

    fn sha1_kernels(self) -> Kernels<5> {
        let initial = [0x6745_2301, 0xefcd_ab89, 0x98ba_dcfe, 0x1032_5476, 0xc3d2_e1f0];
        #[cfg(target_arch = "x86_64")]
        return Kernels {
            of_4: self.ni.then_some(ni::sha1 as Kernel<5, 4>),
            of_16: self.avx512.then_some(avx512::sha1 as Kernel<5, 16>),
            initial,
        };
        #[cfg(not(target_arch = "x86_64"))]
        return Kernels { of_4: None, of_16: None, initial };
    }

    /// SHA-256 of many messages, in their order.
    pub fn sha256_many(self, messages: &[Slices<'_>]) -> Vec<[u8; 32]> {
        let initial =
            [0x6a09_e667, 0xbb67_ae85, 0x3c6e_f372, 0xa54f_f53a, 0x510e_527f, 0x9b05_688c, 0x1f83_d9ab, 0x5be0_cd19];
        #[cfg(target_arch = "x86_64")]
        let kernels = Kernels {
            of_4: self.ni.then_some(ni::sha256 as Kernel<8, 4>),
            of_16: self.avx512.then_some(avx512::sha256 as Kernel<8, 16>),
            initial,
        };
        #[cfg(not(target_arch = "x86_64"))]
        let kernels = Kernels { of_4: None, of_16: None, initial };
        kernels.many(messages, super::sha256)
    }
}

impl<const W: usize> Kernels<W> {
    /// The hashes of `messages` in their order: in lanes those of equal length, `alone` the others.
    fn many<const B: usize>(self, messages: &[Slices<'_>], alone: fn(Slices<'_>) -> [u8; B]) -> Vec<[u8; B]> {
        if messages.len() < 2 || self.of_4.is_none() && self.of_16.is_none() {
            return messages.iter().map(|m| alone(m)).collect();
        }
        let mut hashes = vec![[0; B]; messages.len()];
        let len = |n: usize| messages[n].iter().map(|s| s.len()).sum::<usize>();
        let mut order: Vec<(usize, usize)> = (0..messages.len()).map(|n| (len(n), n)).collect();
        order.sort_unstable();
        for equal in order.chunk_by(|a, b| a.0 == b.0) {
            let mut left = equal;
            while let Some(&(len, first)) = left.first() {
                let taken = match (self.of_16, self.of_4) {
                    (Some(kernel), _) if left.len() >= MIN_OF_16 => {
                        self.together(kernel, messages, len, left, &mut hashes)
                    }
                    (_, Some(kernel)) if left.len() >= 2 => self.together(kernel, messages, len, left, &mut hashes),
                    _ => {
                        hashes[first] = alone(messages[first]);
                        1
                    }
                };
                left = &left[taken..];
            }
        }
        hashes
    }

    /// Hashes up to `N` of the messages in `order`, which all are `len` bytes long. How many it took.
    fn together<const N: usize, const B: usize>(
        self,
        kernel: Kernel<W, N>,
        messages: &[Slices<'_>],
        len: usize,
        order: &[(usize, usize)],
        hashes: &mut [[u8; B]],
    ) -> usize {
        let taken = order.len().min(N);
        // Lanes without a message of their own repeat the first: it costs what an idle lane costs.
        let mut lanes = std::array::from_fn(|lane| Lane::new(messages[order[if lane < taken { lane } else { 0 }].1]));
        let mut states = [self.initial; N];
        run(kernel, &mut states, &mut lanes, len);
        for (state, (_, n)) in states.iter().zip(&order[..taken]) {
            hashes[*n] = digest(state);
        }
        taken
    }
}

/// A message on its way through a kernel.
struct Lane<'a> {
    /// What is left of the slice at hand; not empty unless the message is at its end.
    head: &'a [u8],
    rest: Slices<'a>,
}

impl<'a> Lane<'a> {
    fn new(message: Slices<'a>) -> Self {
        let mut lane = Self { head: &[], rest: message };
        lane.refill();
        lane
    }

    fn refill(&mut self) {
        while self.head.is_empty()
            && let Some((first, rest)) = self.rest.split_first()
        {
            self.head = first;
            self.rest = rest;
        }
    }

    /// The next `n` bytes, which the head holds.
    fn take(&mut self, n: usize) -> &'a [u8] {
        let (taken, left) = self.head.split_at(n);
        self.head = left;
        self.refill();
        taken
    }

    /// Copies what comes next into `out`, over the borders of slices.
    fn copy(&mut self, mut out: &mut [u8]) {
        while !out.is_empty() && !self.head.is_empty() {
            let part = self.take(self.head.len().min(out.len()));
            let (filled, left) = out.split_at_mut(part.len());
            filled.copy_from_slice(part);
            out = left;
        }
    }
}

/// Feeds `N` messages of `len` bytes to the kernel, padding included (FIPS 180-4, 5.1.1).
fn run<const W: usize, const N: usize>(
    kernel: Kernel<W, N>,
    states: &mut [[u32; W]; N],
    lanes: &mut [Lane<'_>; N],
    len: usize,
) {
    let mut left = len;
    while left >= BLOCK {
        let together = lanes.iter().map(|l| l.head.len()).min().unwrap_or(0).min(left);
        let whole = together - together % BLOCK;
        if whole > 0 {
            kernel(states, lanes.each_mut().map(|lane| lane.take(whole)));
            left -= whole;
        } else {
            // A block that lies across slices in some lane.
            let mut blocks = [[0; BLOCK]; N];
            lanes.iter_mut().zip(&mut blocks).for_each(|(lane, block)| lane.copy(block));
            kernel(states, blocks.each_ref().map(<[u8; BLOCK]>::as_slice));
            left -= BLOCK;
        }
    }
    let mut tails = [[0; BLOCK]; N];
    lanes.iter_mut().zip(&mut tails).for_each(|(lane, tail)| lane.copy(&mut tail[..left]));
    let ends = tails.map(|tail| End::new(&tail[..left], len as u64));
    kernel(states, ends.each_ref().map(End::blocks));
}

/// What is hashed last of a message: the bytes behind its whole blocks, a one, zeros, and its length in bits.
struct End {
    bytes: [u8; 2 * BLOCK],
    len: usize,
}

impl End {
    /// `tail` is less than a block, `len` all bytes of the message.
    fn new(tail: &[u8], len: u64) -> Self {
        let end = if tail.len() < BLOCK - 8 { BLOCK } else { 2 * BLOCK };
        let mut bytes = [0; 2 * BLOCK];
        bytes[..tail.len()].copy_from_slice(tail);
        bytes[tail.len()] = 0x80;
        bytes[end - 8..end].copy_from_slice(&(len * 8).to_be_bytes());
        Self { bytes, len: end }
    }

    fn blocks(&self) -> &[u8] {
        &self.bytes[..self.len]
    }
}

/// SHA-1 of several messages of equal length that come a part at a time, side by side.
pub(super) struct Sha1Lanes {
    lanes: Lanes,
    /// Bytes so far, of each.
    len: u64,
}

enum Lanes {
    Alone(Vec<Sha1>),
    Of4(Kernel<5, 4>, Vec<[u32; 5]>),
    Of16(Kernel<5, 16>, Vec<[u32; 5]>),
}

impl Sha1Lanes {
    pub(super) fn new(tier: Tier, count: usize) -> Self {
        let kernels = tier.sha1_kernels();
        let states = vec![kernels.initial; count];
        let lanes = match (kernels.of_16, kernels.of_4) {
            (Some(kernel), _) if count >= MIN_OF_16 => Lanes::Of16(kernel, states),
            (_, Some(kernel)) if count >= 2 => Lanes::Of4(kernel, states),
            _ => Lanes::Alone(vec![Sha1::new(); count]),
        };
        Self { lanes, len: 0 }
    }

    /// The next bytes of each message: equally many, and whole blocks.
    pub(super) fn update(&mut self, parts: &[&[u8]]) {
        let len = parts.first().map_or(0, |part| part.len());
        debug_assert!(len.is_multiple_of(BLOCK) && parts.iter().all(|part| part.len() == len));
        self.len += len as u64;
        match &mut self.lanes {
            Lanes::Alone(hashers) => hashers.iter_mut().zip(parts).for_each(|(hasher, part)| hasher.update(part)),
            Lanes::Of4(kernel, states) => update_all(*kernel, states, parts),
            Lanes::Of16(kernel, states) => update_all(*kernel, states, parts),
        }
    }

    /// The hashes, with the last bytes of each message, equally many and less than a block.
    pub(super) fn finish(mut self, tails: &[&[u8]]) -> Vec<[u8; 20]> {
        let len = self.len + tails.first().map_or(0, |tail| tail.len()) as u64;
        if let Lanes::Alone(hashers) = self.lanes {
            return hashers
                .into_iter()
                .zip(tails)
                .map(|(hasher, tail)| hasher.chain_update(tail).finalize().into())
                .collect();
        }
        let ends: Vec<End> = tails.iter().map(|tail| End::new(tail, len)).collect();
        self.update(&ends.iter().map(End::blocks).collect::<Vec<_>>());
        match self.lanes {
            Lanes::Alone(_) => Vec::new(),
            Lanes::Of4(_, states) | Lanes::Of16(_, states) => states.iter().map(digest).collect(),
        }
    }
}

/// Feeds each state its part, `N` at a time.
fn update_all<const W: usize, const N: usize>(kernel: Kernel<W, N>, states: &mut [[u32; W]], parts: &[&[u8]]) {
    for (states, parts) in states.chunks_mut(N).zip(parts.chunks(N)) {
        // Lanes without a message of their own repeat the first.
        let lane = |n: usize| if n < states.len() { n } else { 0 };
        let mut together = std::array::from_fn(|n| states[lane(n)]);
        kernel(&mut together, std::array::from_fn(|n| parts[lane(n)]));
        states.copy_from_slice(&together[..states.len()]);
    }
}

fn digest<const W: usize, const B: usize>(state: &[u32; W]) -> [u8; B] {
    let mut digest = [0; B];
    for (bytes, word) in digest.as_chunks_mut::<4>().0.iter_mut().zip(state) {
        *bytes = word.to_be_bytes();
    }
    digest
}

#[cfg(test)]
#[expect(clippy::cast_possible_truncation, reason = "a test's numbers are small")]
mod tests {
    use super::super::{sha1, sha256};
    use super::*;

    /// Every combination of kernels that this machine has.
    fn tiers() -> Vec<Tier> {
        let best = Tier::detected();
        let all = [Tier::SCALAR, Tier { avx512: false, ..best }, Tier { ni: false, ..best }, best];
        all.into_iter().collect()
    }

    fn check(messages: &[Vec<&[u8]>], what: &str) {
        let messages: Vec<Slices<'_>> = messages.iter().map(Vec::as_slice).collect();
        for tier in tiers() {
            let v1: Vec<_> = messages.iter().map(|m| sha1(m)).collect();
            let v2: Vec<_> = messages.iter().map(|m| sha256(m)).collect();
            assert_eq!(tier.sha1_many(&messages), v1, "{} {what}", tier.name());
            assert_eq!(tier.sha256_many(&messages), v2, "{} {what}", tier.name());
        }
    }

    #[test]
    fn a_part_at_a_time() {
        let bytes: Vec<u8> = (0..40_000u32).map(|n| (n * 37 % 251) as u8).collect();
        for count in [1, 2, 3, 4, 5, 9, 16, 17] {
            for (whole, step, tail) in [(0, 64, 0), (0, 64, 55), (640, 64, 56), (16_384, 4_096, 63), (1_024, 1_024, 1)]
            {
                let message = |n: usize| &bytes[n * 11..][..whole + tail];
                let parts = |from: usize, to: usize| (0..count).map(|n| &message(n)[from..to]).collect::<Vec<_>>();
                for tier in tiers() {
                    let mut lanes = Sha1Lanes::new(tier, count);
                    (0..whole / step).for_each(|n| lanes.update(&parts(n * step, (n + 1) * step)));
                    let hashes = lanes.finish(&parts(whole, whole + tail));
                    let expected: Vec<_> = (0..count).map(|n| sha1(&[message(n)])).collect();
                    assert_eq!(hashes, expected, "{} {count} x {whole} + {tail}", tier.name());
                }
            }
        }
    }

    #[test]
    fn each_way_has_a_name_of_its_own() {
        let names: Vec<_> = Tier::available().iter().map(|tier| tier.name()).collect();
        let known = ["scalar", "ni4", "avx512"];
        assert_eq!(names, known.into_iter().filter(|name| names.contains(name)).collect::<Vec<_>>());
        assert!(names.contains(&"scalar"));
    }

    #[test]
    fn every_length_of_the_last_block() {
        let bytes: Vec<u8> = (0..20_000u32).map(|n| ((n * n) >> 5) as u8).collect();
        for len in (0..=130).chain([191, 192, 4_096]) {
            // Different bytes, at every alignment.
            let messages: Vec<Vec<&[u8]>> = (0..16).map(|n| vec![&bytes[n * 17..n * 17 + len]]).collect();
            check(&messages, &format!("length {len}"));
        }
    }

    #[test]
    fn every_number_of_messages_and_any_slices() {
        let bytes: Vec<u8> = (0..30_000u32).map(|n| (n * 31 % 253) as u8).collect();
        for count in [0, 1, 2, 3, 4, 5, 8, 9, 15, 16, 17, 27, 35] {
            let messages: Vec<Vec<&[u8]>> =
                (0..count).map(|n| bytes[n * 10..][..1_000].chunks(1 + n * 13).collect()).collect();
            check(&messages, &format!("{count} messages"));
        }
        // Of different lengths, and with empty slices among them.
        let mixed: Vec<Vec<&[u8]>> = (0..60)
            .map(|n| {
                let message = &bytes[n..n + [500, 640, 0, 641][n % 4]];
                [&[][..]].into_iter().chain(message.chunks(64 + n % 3)).chain([&[][..]]).collect()
            })
            .collect();
        check(&mixed, "mixed");
    }
}
