//! Sixteen messages in the sixteen lanes of AVX-512: each vector holds the same word of every message, and every
//! operation of the hash is done for all at once.
#![allow(unsafe_code, reason = "loads and stores of vectors, and calls that a check of the processor stands behind")]

use std::arch::x86_64::{
    __cpuid, __m512i, _mm512_add_epi32, _mm512_loadu_si512, _mm512_rol_epi32, _mm512_ror_epi32, _mm512_set1_epi32,
    _mm512_set4_epi32, _mm512_setzero_si512, _mm512_shuffle_epi8, _mm512_shuffle_i32x4, _mm512_srli_epi32,
    _mm512_storeu_si512, _mm512_ternarylogic_epi32, _mm512_unpackhi_epi32, _mm512_unpackhi_epi64,
    _mm512_unpacklo_epi32, _mm512_unpacklo_epi64, _mm512_xor_si512,
};

use super::BLOCK;
use super::ni::K;

const N: usize = 16;

// Functions of three bits, as tables of eight.
const XOR: i32 = 0x96;
const CHOOSE: i32 = 0xca;
const MAJORITY: i32 = 0xe8;

/// Whether the processor has what the kernels here need.
pub(super) fn is_supported() -> bool {
    is_x86_feature_detected!("avx512f") && is_x86_feature_detected!("avx512bw")
}

/// Whether it is done at full width. Not on AMD's family 19h (Zen 4): measured there, SHA-1 runs at 4.9 GB/s and SHA-256
/// at 2.8, against 4.7 and 3.9 of the SHA instructions, while family 1Ah (Zen 5) doubles the latter.
pub(super) fn is_fast() -> bool {
    const AMD: [u8; 12] = *b"AuthenticAMD";
    let vendor = __cpuid(0);
    let name = [vendor.ebx, vendor.edx, vendor.ecx].map(u32::to_le_bytes);
    let signature = __cpuid(1).eax;
    let family = ((signature >> 8) & 0xf) + ((signature >> 20) & 0xff);
    name.as_flattened() != AMD || family != 0x19
}

/// SHA-1 of whole blocks. Only after [`is_supported`].
pub(super) fn sha1(states: &mut [[u32; 5]; N], data: [&[u8]; N]) {
    debug_assert!(is_supported());
    // SAFETY: a kernel is chosen only where `is_supported` says that the processor has its instructions.
    unsafe { sha1_blocks(states, data) }
}

/// SHA-256 of whole blocks. Only after [`is_supported`].
pub(super) fn sha256(states: &mut [[u32; 8]; N], data: [&[u8]; N]) {
    debug_assert!(is_supported());
    // SAFETY: as in `sha1`.
    unsafe { sha256_blocks(states, data) }
}

/// One vector for each word of the state.
#[target_feature(enable = "avx512f,avx512bw")]
fn load_states<const W: usize>(states: &[[u32; W]; N]) -> [__m512i; W] {
    let mut vectors = [_mm512_setzero_si512(); W];
    for (word, vector) in vectors.iter_mut().enumerate() {
        let words = states.map(|s| s[word]);
        // SAFETY: sixty-four bytes, of any alignment.
        *vector = unsafe { _mm512_loadu_si512(words.as_ptr().cast()) };
    }
    vectors
}

#[target_feature(enable = "avx512f,avx512bw")]
fn store_states<const W: usize>(states: &mut [[u32; W]; N], vectors: &[__m512i; W]) {
    for (word, vector) in vectors.iter().enumerate() {
        let mut words = [0; N];
        // SAFETY: sixty-four bytes, of any alignment.
        unsafe { _mm512_storeu_si512(words.as_mut_ptr().cast(), *vector) };
        states.iter_mut().zip(words).for_each(|(state, value)| state[word] = value);
    }
}

/// The sixteen words of a block of each message: word by word instead of message by message.
#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
fn transposed(blocks: [&[u8; BLOCK]; N]) -> [__m512i; 16] {
    // Words of a message are big-endian.
    let swap = _mm512_set4_epi32(0x0c0d_0e0f, 0x0809_0a0b, 0x0405_0607, 0x0001_0203);
    let mut r = [swap; N];
    for (row, block) in r.iter_mut().zip(blocks) {
        // SAFETY: sixty-four bytes, of any alignment.
        *row = _mm512_shuffle_epi8(unsafe { _mm512_loadu_si512(block.as_ptr().cast()) }, swap);
    }
    // Four by four words within each quarter of the vectors ...
    let mut t = r;
    for i in (0..16).step_by(2) {
        t[i] = _mm512_unpacklo_epi32(r[i], r[i + 1]);
        t[i + 1] = _mm512_unpackhi_epi32(r[i], r[i + 1]);
    }
    for i in (0..16).step_by(4) {
        r[i] = _mm512_unpacklo_epi64(t[i], t[i + 2]);
        r[i + 1] = _mm512_unpackhi_epi64(t[i], t[i + 2]);
        r[i + 2] = _mm512_unpacklo_epi64(t[i + 1], t[i + 3]);
        r[i + 3] = _mm512_unpackhi_epi64(t[i + 1], t[i + 3]);
    }
    // ... then the quarters, four by four.
    let mut w = r;
    for i in 0..4 {
        let low = _mm512_shuffle_i32x4(r[i], r[i + 4], 0x88);
        let high = _mm512_shuffle_i32x4(r[i + 8], r[i + 12], 0x88);
        let low_odd = _mm512_shuffle_i32x4(r[i], r[i + 4], 0xdd);
        let high_odd = _mm512_shuffle_i32x4(r[i + 8], r[i + 12], 0xdd);
        w[i] = _mm512_shuffle_i32x4(low, high, 0x88);
        w[i + 8] = _mm512_shuffle_i32x4(low, high, 0xdd);
        w[i + 4] = _mm512_shuffle_i32x4(low_odd, high_odd, 0x88);
        w[i + 12] = _mm512_shuffle_i32x4(low_odd, high_odd, 0xdd);
    }
    w
}

/// The blocks of each lane: as many as the shortest has.
fn blocks<'a>(data: &[&'a [u8]; N]) -> [&'a [[u8; BLOCK]]; N] {
    let blocks = data.map(|d| d.as_chunks::<BLOCK>().0);
    let count = blocks.iter().map(|b| b.len()).min().unwrap_or(0);
    blocks.map(|b| &b[..count])
}

#[target_feature(enable = "avx512f,avx512bw")]
fn sha1_blocks(states: &mut [[u32; 5]; N], data: [&[u8]; N]) {
    let mut state = load_states(states);
    let blocks = blocks(&data);
    for n in 0..blocks[0].len() {
        let mut w = transposed(blocks.map(|b| &b[n]));
        let [mut a, mut b, mut c, mut d, mut e] = state;
        macro_rules! round {
            ($t:expr, $function:ident, $k:expr) => {{
                if $t >= 16 {
                    let three = _mm512_ternarylogic_epi32(w[($t + 13) & 15], w[($t + 8) & 15], w[($t + 2) & 15], XOR);
                    w[$t & 15] = _mm512_rol_epi32(_mm512_xor_si512(three, w[$t & 15]), 1);
                }
                let f = _mm512_ternarylogic_epi32(b, c, d, $function);
                let sum = _mm512_add_epi32(_mm512_add_epi32(e, w[$t & 15]), _mm512_add_epi32(f, $k));
                e = d;
                d = c;
                c = _mm512_rol_epi32(b, 30);
                b = a;
                // Last: all else is ready before `a` is.
                a = _mm512_add_epi32(sum, _mm512_rol_epi32(a, 5));
            }};
        }
        macro_rules! rounds {
            ($function:ident, $k:literal, $($t:literal)*) => {
                let k = _mm512_set1_epi32(u32::cast_signed($k));
                $(round!($t, $function, k);)*
            };
        }
        rounds!(CHOOSE, 0x5a82_7999, 0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19);
        rounds!(XOR, 0x6ed9_eba1, 20 21 22 23 24 25 26 27 28 29 30 31 32 33 34 35 36 37 38 39);
        rounds!(MAJORITY, 0x8f1b_bcdc, 40 41 42 43 44 45 46 47 48 49 50 51 52 53 54 55 56 57 58 59);
        rounds!(XOR, 0xca62_c1d6, 60 61 62 63 64 65 66 67 68 69 70 71 72 73 74 75 76 77 78 79);
        for (before, after) in state.iter_mut().zip([a, b, c, d, e]) {
            *before = _mm512_add_epi32(*before, after);
        }
    }
    store_states(states, &state);
}

#[target_feature(enable = "avx512f,avx512bw")]
fn sha256_blocks(states: &mut [[u32; 8]; N], data: [&[u8]; N]) {
    let mut state = load_states(states);
    let blocks = blocks(&data);
    for n in 0..blocks[0].len() {
        let mut w = transposed(blocks.map(|b| &b[n]));
        let [mut a, mut b, mut c, mut d, mut e, mut f, mut g, mut h] = state;
        for sixteen in 0..4 {
            macro_rules! round {
                ($t:expr) => {{
                    if sixteen > 0 {
                        let [x, y] = [w[($t + 1) & 15], w[($t + 14) & 15]];
                        let s0 = _mm512_ternarylogic_epi32(
                            _mm512_ror_epi32(x, 7),
                            _mm512_ror_epi32(x, 18),
                            _mm512_srli_epi32(x, 3),
                            XOR,
                        );
                        let s1 = _mm512_ternarylogic_epi32(
                            _mm512_ror_epi32(y, 17),
                            _mm512_ror_epi32(y, 19),
                            _mm512_srli_epi32(y, 10),
                            XOR,
                        );
                        let sum = _mm512_add_epi32(w[$t & 15], w[($t + 9) & 15]);
                        w[$t & 15] = _mm512_add_epi32(sum, _mm512_add_epi32(s0, s1));
                    }
                    let k = _mm512_set1_epi32(K[sixteen * 4 + $t / 4][$t & 3].cast_signed());
                    let s1 = _mm512_ternarylogic_epi32(
                        _mm512_ror_epi32(e, 6),
                        _mm512_ror_epi32(e, 11),
                        _mm512_ror_epi32(e, 25),
                        XOR,
                    );
                    let choice = _mm512_ternarylogic_epi32(e, f, g, CHOOSE);
                    let sum = _mm512_add_epi32(_mm512_add_epi32(h, k), _mm512_add_epi32(w[$t & 15], choice));
                    let t1 = _mm512_add_epi32(sum, s1);
                    let s0 = _mm512_ternarylogic_epi32(
                        _mm512_ror_epi32(a, 2),
                        _mm512_ror_epi32(a, 13),
                        _mm512_ror_epi32(a, 22),
                        XOR,
                    );
                    let t2 = _mm512_add_epi32(s0, _mm512_ternarylogic_epi32(a, b, c, MAJORITY));
                    h = g;
                    g = f;
                    f = e;
                    e = _mm512_add_epi32(d, t1);
                    d = c;
                    c = b;
                    b = a;
                    a = _mm512_add_epi32(t1, t2);
                }};
            }
            macro_rules! rounds {
                ($($t:literal)*) => { $(round!($t);)* };
            }
            rounds!(0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15);
        }
        for (before, after) in state.iter_mut().zip([a, b, c, d, e, f, g, h]) {
            *before = _mm512_add_epi32(*before, after);
        }
    }
    store_states(states, &state);
}
