//! Four messages through the SHA instructions of x86, step by step side by side: `sha1rnds4` takes six cycles and one
//! can begin every two, so one message alone leaves the unit idle two thirds of the time.
#![allow(unsafe_code, reason = "loads and stores of vectors, and calls that a check of the processor stands behind")]

use std::arch::x86_64::{
    __m128i, _mm_add_epi32, _mm_alignr_epi8, _mm_blend_epi16, _mm_extract_epi32, _mm_loadu_si128, _mm_set_epi32,
    _mm_set_epi64x, _mm_sha1msg1_epu32, _mm_sha1msg2_epu32, _mm_sha1nexte_epu32, _mm_sha1rnds4_epu32,
    _mm_sha256msg1_epu32, _mm_sha256msg2_epu32, _mm_sha256rnds2_epu32, _mm_shuffle_epi8, _mm_shuffle_epi32,
    _mm_storeu_si128, _mm_xor_si128,
};

use super::BLOCK;

const N: usize = 4;

/// Whether the processor has what the kernels here need.
pub(super) fn is_supported() -> bool {
    is_x86_feature_detected!("sha") && is_x86_feature_detected!("ssse3") && is_x86_feature_detected!("sse4.1")
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

fn load(words: &[u32; 4]) -> __m128i {
    // SAFETY: sixteen bytes, of any alignment.
    unsafe { _mm_loadu_si128(words.as_ptr().cast()) }
}

fn store(words: &mut [u32; 4], vector: __m128i) {
    // SAFETY: sixteen bytes, of any alignment.
    unsafe { _mm_storeu_si128(words.as_mut_ptr().cast(), vector) }
}

/// The blocks of each lane: as many as the shortest has.
fn blocks<'a>(data: &[&'a [u8]; N]) -> [&'a [[u8; BLOCK]]; N] {
    let blocks = data.map(|d| d.as_chunks::<BLOCK>().0);
    let count = blocks.iter().map(|b| b.len()).min().unwrap_or(0);
    blocks.map(|b| &b[..count])
}

#[inline]
fn quarter(block: &[u8; BLOCK], n: usize) -> __m128i {
    let (quarters, _) = block.as_chunks::<16>();
    // SAFETY: sixteen bytes, of any alignment.
    unsafe { _mm_loadu_si128(quarters[n].as_ptr().cast()) }
}

#[target_feature(enable = "sha,ssse3,sse4.1")]
fn sha1_blocks(states: &mut [[u32; 5]; N], data: [&[u8]; N]) {
    // Words of a message are big-endian, and the instructions want the first one on top.
    let swap = _mm_set_epi64x(0x0001_0203_0405_0607, 0x0809_0a0b_0c0d_0e0f);
    let mut abcd = states.map(|s| _mm_shuffle_epi32(load(&[s[0], s[1], s[2], s[3]]), 0x1b));
    let mut e = states.map(|s| _mm_set_epi32(s[4].cast_signed(), 0, 0, 0));
    let blocks = blocks(&data);
    #[expect(clippy::needless_range_loop, reason = "four lists of blocks are walked together")]
    for b in 0..blocks[0].len() {
        let (abcd_before, e_before) = (abcd, e);
        let mut w = [[abcd[0]; 4]; N];
        // `abcd` as it was before the last four rounds: its first word makes the next `e`.
        let mut last = abcd;
        // Four rounds, the g-th of twenty times; the function and constant change every twenty rounds.
        macro_rules! rounds {
            ($($g:literal $function:literal),*) => {$(
                for n in 0..N {
                    let words = if $g < 4 {
                        _mm_shuffle_epi8(quarter(&blocks[n][b], $g & 3), swap)
                    } else {
                        let sum = _mm_xor_si128(_mm_sha1msg1_epu32(w[n][$g & 3], w[n][($g + 1) & 3]), w[n][($g + 2) & 3]);
                        _mm_sha1msg2_epu32(sum, w[n][($g + 3) & 3])
                    };
                    w[n][$g & 3] = words;
                    let sum = if $g == 0 { _mm_add_epi32(e[n], words) } else { _mm_sha1nexte_epu32(last[n], words) };
                    last[n] = abcd[n];
                    abcd[n] = _mm_sha1rnds4_epu32(abcd[n], sum, $function);
                }
            )*};
        }
        rounds!(0 0, 1 0, 2 0, 3 0, 4 0, 5 1, 6 1, 7 1, 8 1, 9 1);
        rounds!(10 2, 11 2, 12 2, 13 2, 14 2, 15 3, 16 3, 17 3, 18 3, 19 3);
        for n in 0..N {
            e[n] = _mm_sha1nexte_epu32(last[n], e_before[n]);
            abcd[n] = _mm_add_epi32(abcd[n], abcd_before[n]);
        }
    }
    for n in 0..N {
        let mut words = [0; 4];
        store(&mut words, _mm_shuffle_epi32(abcd[n], 0x1b));
        states[n][..4].copy_from_slice(&words);
        states[n][4] = _mm_extract_epi32(e[n], 3).cast_unsigned();
    }
}

#[target_feature(enable = "sha,ssse3,sse4.1")]
fn sha256_blocks(states: &mut [[u32; 8]; N], data: [&[u8]; N]) {
    let swap = _mm_set_epi64x(0x0c0d_0e0f_0809_0a0b, 0x0405_0607_0001_0203);
    let mut abef = [swap; N];
    let mut cdgh = [swap; N];
    for n in 0..N {
        let [a, b, c, d, e, f, g, h] = states[n];
        // The order in which the instructions want the state.
        let cdab = _mm_shuffle_epi32(load(&[a, b, c, d]), 0xb1);
        let efgh = _mm_shuffle_epi32(load(&[e, f, g, h]), 0x1b);
        abef[n] = _mm_alignr_epi8(cdab, efgh, 8);
        cdgh[n] = _mm_blend_epi16(efgh, cdab, 0xf0);
    }
    let blocks = blocks(&data);
    #[expect(clippy::needless_range_loop, reason = "four lists of blocks are walked together")]
    for b in 0..blocks[0].len() {
        let (abef_before, cdgh_before) = (abef, cdgh);
        let mut w = [[swap; 4]; N];
        macro_rules! rounds {
            ($($g:literal)*) => {$(
                let k = load(&K[$g]);
                for n in 0..N {
                    let words = if $g < 4 {
                        _mm_shuffle_epi8(quarter(&blocks[n][b], $g & 3), swap)
                    } else {
                        let [oldest, older] = [w[n][$g & 3], w[n][($g + 1) & 3]];
                        let [newer, newest] = [w[n][($g + 2) & 3], w[n][($g + 3) & 3]];
                        let sum = _mm_add_epi32(_mm_sha256msg1_epu32(oldest, older), _mm_alignr_epi8(newest, newer, 4));
                        _mm_sha256msg2_epu32(sum, newest)
                    };
                    w[n][$g & 3] = words;
                    let sum = _mm_add_epi32(words, k);
                    cdgh[n] = _mm_sha256rnds2_epu32(cdgh[n], abef[n], sum);
                    abef[n] = _mm_sha256rnds2_epu32(abef[n], cdgh[n], _mm_shuffle_epi32(sum, 0x0e));
                }
            )*};
        }
        rounds!(0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15);
        for n in 0..N {
            abef[n] = _mm_add_epi32(abef[n], abef_before[n]);
            cdgh[n] = _mm_add_epi32(cdgh[n], cdgh_before[n]);
        }
    }
    for n in 0..N {
        let feba = _mm_shuffle_epi32(abef[n], 0x1b);
        let dchg = _mm_shuffle_epi32(cdgh[n], 0xb1);
        let (mut low, mut high) = ([0; 4], [0; 4]);
        store(&mut low, _mm_blend_epi16(feba, dchg, 0xf0));
        store(&mut high, _mm_alignr_epi8(dchg, feba, 8));
        states[n][..4].copy_from_slice(&low);
        states[n][4..].copy_from_slice(&high);
    }
}

/// The constants of SHA-256 (FIPS 180-4, 4.2.2), by four rounds.
#[rustfmt::skip]
pub(super) static K: [[u32; 4]; 16] = [
    [0x428a_2f98, 0x7137_4491, 0xb5c0_fbcf, 0xe9b5_dba5], [0x3956_c25b, 0x59f1_11f1, 0x923f_82a4, 0xab1c_5ed5],
    [0xd807_aa98, 0x1283_5b01, 0x2431_85be, 0x550c_7dc3], [0x72be_5d74, 0x80de_b1fe, 0x9bdc_06a7, 0xc19b_f174],
    [0xe49b_69c1, 0xefbe_4786, 0x0fc1_9dc6, 0x240c_a1cc], [0x2de9_2c6f, 0x4a74_84aa, 0x5cb0_a9dc, 0x76f9_88da],
    [0x983e_5152, 0xa831_c66d, 0xb003_27c8, 0xbf59_7fc7], [0xc6e0_0bf3, 0xd5a7_9147, 0x06ca_6351, 0x1429_2967],
    [0x27b7_0a85, 0x2e1b_2138, 0x4d2c_6dfc, 0x5338_0d13], [0x650a_7354, 0x766a_0abb, 0x81c2_c92e, 0x9272_2c85],
    [0xa2bf_e8a1, 0xa81a_664b, 0xc24b_8b70, 0xc76c_51a3], [0xd192_e819, 0xd699_0624, 0xf40e_3585, 0x106a_a070],
    [0x19a4_c116, 0x1e37_6c08, 0x2748_774c, 0x34b0_bcb5], [0x391c_0cb3, 0x4ed8_aa4a, 0x5b9c_ca4f, 0x682e_6ff3],
    [0x748f_82ee, 0x78a5_636f, 0x84c8_7814, 0x8cc7_0208], [0x90be_fffa, 0xa450_6ceb, 0xbef9_a3f7, 0xc671_78f2],
];
