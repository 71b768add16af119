use std::fmt;
use std::ops::RangeInclusive;

use url::form_urlencoded::{self, byte_serialize};

use super::MetainfoError;
use super::limits::{MAX_FILES, MAX_MAGNET_LEN, MAX_MAGNET_RANGES, MAX_MAGNET_URLS};
use super::optional::{TRACKERS, WEB_SEEDS, host_and_port, usable_url};
use crate::base::{InfoHash, InfoHashV1, InfoHashV2};

/// A magnet link: a torrent's info-hash and where to begin (BEP 9, 53).
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Magnet {
    /// Which torrent.
    pub info_hash: InfoHash,
    /// `dn`: what to show until the metadata is there. As it stands in the link: show it through
    /// [`Printable`](crate::base::Printable).
    pub name: Option<String>,
    /// `tr`.
    pub trackers: Vec<String>,
    /// `ws`: web seeds (BEP 19).
    pub web_seeds: Vec<String>,
    /// `x.pe`: hosts and ports of peers.
    pub peers: Vec<(String, u16)>,
    /// `so`: the numbers of the files that are wanted (BEP 53); empty for all.
    pub select: Vec<RangeInclusive<u32>>,
}

impl Magnet {
    /// A link with nothing but the hash.
    pub fn new(info_hash: InfoHash) -> Self {
        Self { info_hash, name: None, trackers: vec![], web_seeds: vec![], peers: vec![], select: vec![] }
    }

    /// Reads a magnet link, or a bare info-hash: 40 hex digits or 32 of base32 (v1), 64 hex digits (v2).
    ///
    /// What is optional is taken where it makes sense, cut at [`MAX_MAGNET_URLS`] entries, and else left out.
    ///
    /// # Errors
    /// [`MetainfoError::NotAMagnet`], [`MetainfoError::MagnetTooLong`], [`MetainfoError::NoInfoHash`],
    /// [`MetainfoError::BadInfoHash`], [`MetainfoError::TwoInfoHashes`].
    pub fn parse(text: &str) -> Result<Self, MetainfoError> {
        if text.len() > MAX_MAGNET_LEN {
            return Err(MetainfoError::MagnetTooLong);
        }
        let text = text.trim();
        let query = match text.split_at_checked("magnet:".len()) {
            Some((scheme, rest)) if scheme.eq_ignore_ascii_case("magnet:") => rest.trim_start_matches('/'),
            _ => return bare_hash(text).map(Self::new).ok_or(MetainfoError::NotAMagnet),
        };
        let query = query.strip_prefix('?').ok_or(MetainfoError::NoInfoHash)?;
        let pairs = || form_urlencoded::parse(query.as_bytes());

        let (mut v1, mut v2) = (None, None);
        for (_, topic) in pairs().filter(|(key, _)| field(key) == "xt") {
            if let Some(hash) = strip_prefix_ignoring_case(&topic, "urn:btih:") {
                only(&mut v1, hash_v1(hash).ok_or(MetainfoError::BadInfoHash)?)?;
            } else if let Some(hash) = strip_prefix_ignoring_case(&topic, "urn:btmh:") {
                // A multihash: 0x12 is SHA-256, 0x20 its length.
                let digest = hash.strip_prefix("1220").and_then(hex::<32>).ok_or(MetainfoError::BadInfoHash)?;
                only(&mut v2, InfoHashV2(digest))?;
            }
        }
        let mut magnet = Self::new(match (v1, v2) {
            (Some(v1), Some(v2)) => InfoHash::hybrid(v1, v2),
            (Some(v1), None) => InfoHash::v1(v1),
            (None, Some(v2)) => InfoHash::v2(v2),
            (None, None) => return Err(MetainfoError::NoInfoHash),
        });
        for (key, value) in pairs() {
            match field(&key) {
                "dn" if magnet.name.is_none() && !value.is_empty() => magnet.name = Some(value.into_owned()),
                "tr" => keep(&mut magnet.trackers, usable_url(&value, TRACKERS)),
                "ws" => keep(&mut magnet.web_seeds, usable_url(&value, WEB_SEEDS)),
                "x.pe" => keep(&mut magnet.peers, host_and_port(&value)),
                "so" => {
                    let room = MAX_MAGNET_RANGES - magnet.select.len();
                    magnet.select.extend(value.split(',').filter_map(file_range).take(room));
                }
                _ => {}
            }
        }
        Ok(magnet)
    }

    /// Whether the file with this number is wanted.
    pub fn selects(&self, file: u32) -> bool {
        self.select.is_empty() || self.select.iter().any(|range| range.contains(&file))
    }
}

impl fmt::Display for Magnet {
    /// The link, as [`Magnet::parse`] reads it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut topics = Vec::new();
        if let Some(hash) = self.info_hash.as_v1() {
            topics.push(format!("xt=urn:btih:{hash}"));
        }
        if let Some(hash) = self.info_hash.as_v2() {
            topics.push(format!("xt=urn:btmh:1220{hash}"));
        }
        write!(f, "magnet:?{}", topics.join("&"))?;
        if let Some(name) = &self.name {
            write!(f, "&dn={}", escaped(name))?;
        }
        for url in &self.trackers {
            write!(f, "&tr={}", escaped(url))?;
        }
        for url in &self.web_seeds {
            write!(f, "&ws={}", escaped(url))?;
        }
        for (host, port) in &self.peers {
            if host.contains(':') { write!(f, "&x.pe=[{host}]:{port}")? } else { write!(f, "&x.pe={host}:{port}")? }
        }
        for (n, range) in self.select.iter().enumerate() {
            f.write_str(if n == 0 { "&so=" } else { "," })?;
            match (range.start(), range.end()) {
                (first, last) if first == last => write!(f, "{first}")?,
                (first, last) => write!(f, "{first}-{last}")?,
            }
        }
        Ok(())
    }
}

/// Percent-encoded; a space as `%20`, since not every client takes a `+` for one.
fn escaped(text: &str) -> String {
    byte_serialize(text.as_bytes()).map(|part| if part == "+" { "%20" } else { part }).collect()
}

/// The key without the number of `tr.1` and the rest of the `&amp;` that links copied out of HTML have.
fn field(key: &str) -> &str {
    let key = key.strip_prefix("amp;").unwrap_or(key);
    match key.rsplit_once('.') {
        Some((field, number)) if !number.is_empty() && number.bytes().all(|b| b.is_ascii_digit()) => field,
        _ => key,
    }
}

fn only<T: PartialEq>(slot: &mut Option<T>, hash: T) -> Result<(), MetainfoError> {
    match slot {
        Some(known) if *known != hash => Err(MetainfoError::TwoInfoHashes),
        _ => {
            *slot = Some(hash);
            Ok(())
        }
    }
}

fn keep<T: PartialEq>(list: &mut Vec<T>, entry: Option<T>) {
    if let Some(entry) = entry
        && list.len() < MAX_MAGNET_URLS
        && !list.contains(&entry)
    {
        list.push(entry);
    }
}

/// `6` or `6-8` (BEP 53), within what a torrent may have.
fn file_range(text: &str) -> Option<RangeInclusive<u32>> {
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let range = first.trim().parse().ok()?..=last.trim().parse().ok()?;
    (range.start() <= range.end() && (*range.end() as usize) < MAX_FILES).then_some(range)
}

fn strip_prefix_ignoring_case<'a>(text: &'a str, prefix: &str) -> Option<&'a str> {
    let (start, rest) = text.split_at_checked(prefix.len())?;
    start.eq_ignore_ascii_case(prefix).then_some(rest)
}

fn bare_hash(text: &str) -> Option<InfoHash> {
    let v2 = || hex::<32>(text).map(|h| InfoHash::v2(InfoHashV2(h)));
    hash_v1(text).map(InfoHash::v1).or_else(v2)
}

fn hash_v1(text: &str) -> Option<InfoHashV1> {
    hex(text).or_else(|| base32(text)).map(InfoHashV1)
}

fn hex<const N: usize>(text: &str) -> Option<[u8; N]> {
    let (pairs, rest) = text.as_bytes().as_chunks::<2>();
    let mut bytes = [0; N];
    if pairs.len() != N || !rest.is_empty() {
        return None;
    }
    for (byte, [high, low]) in bytes.iter_mut().zip(pairs) {
        *byte = nibble(*high)? << 4 | nibble(*low)?;
    }
    Some(bytes)
}

fn nibble(digit: u8) -> Option<u8> {
    match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        b'A'..=b'F' => Some(digit - b'A' + 10),
        _ => None,
    }
}

/// 32 digits of RFC 3548, either case: the old form of a v1 hash.
fn base32(text: &str) -> Option<[u8; 20]> {
    let (groups, rest) = text.as_bytes().as_chunks::<8>();
    let mut bytes = [0; 20];
    if groups.len() != 4 || !rest.is_empty() {
        return None;
    }
    for (five, group) in bytes.as_chunks_mut::<5>().0.iter_mut().zip(groups) {
        let mut bits = 0u64;
        for digit in group {
            let value = match digit.to_ascii_uppercase() {
                letter @ b'A'..=b'Z' => letter - b'A',
                number @ b'2'..=b'7' => number - b'2' + 26,
                _ => return None,
            };
            bits = bits << 5 | u64::from(value);
        }
        five.copy_from_slice(&bits.to_be_bytes()[3..]);
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const V1: &str = "c12fe1c06bba254a9dc9f519b335aa7c1367a88a";
    const V2: &str = "631a31dd0a46257d5078c0dee4e66e26f73e42ac1234567890abcdef00112233";

    fn hash(text: &str) -> InfoHash {
        Magnet::parse(text).unwrap().info_hash
    }

    #[test]
    fn hashes_of_every_form() {
        let v1 = hash(V1);
        assert_eq!(v1.to_string(), V1);
        assert_eq!(hash(&V1.to_uppercase()), v1);
        // Made with Python: base64.b32encode(bytes.fromhex(V1)).
        for text in ["YEX6DQDLXISUVHOJ6UM3GNNKPQJWPKEK", "yex6dqdlxisuvhoj6um3gnnkpqjwpkek"] {
            assert_eq!(hash(text), v1);
            assert_eq!(hash(&format!("magnet:?xt=urn:btih:{text}")), v1);
        }
        assert_eq!(hash(&format!("MAGNET:?xt=URN:BTIH:{V1}")), v1);
        assert_eq!(hash(&format!("magnet:?xt.1=urn:btih:{V1}&amp;dn=x")), v1);
        assert_eq!(hash(&format!("magnet:?xt=urn:ed2k:0123&xt=urn:btih:{V1}")), v1);
        let v2 = hash(V2);
        assert_eq!(v2.as_v2().unwrap().to_string(), V2);
        assert_eq!(hash(&format!("magnet:?xt=urn:btmh:1220{V2}")), v2);
        let both = hash(&format!("magnet:?xt=urn:btih:{V1}&xt=urn:btmh:1220{V2}"));
        assert_eq!((both.as_v1(), both.as_v2()), (v1.as_v1(), v2.as_v2()));
    }

    #[test]
    fn everything_else() {
        let link = format!(
            "magnet:?xt=urn:btih:{V1}&dn=A+name%20%26+more&tr=udp%3A%2F%2Ft.example%3A6969&tr=file:///etc/passwd\
             &tr.1=http%3A%2F%2Fu.example%2Fa%3Fk%3D1&ws=http%3A%2F%2Fw.example%2F&x.pe=10.0.0.1:6881\
             &x.pe=%5B2001:db8::1%5D:6882&x.pe=bad&so=0,2,4,6-8,9-7,x,99999999&unknown=1"
        );
        let magnet = Magnet::parse(&link).unwrap();
        assert_eq!(magnet.name.as_deref(), Some("A name & more"));
        assert_eq!(magnet.trackers, ["udp://t.example:6969", "http://u.example/a?k=1"]);
        assert_eq!(magnet.web_seeds, ["http://w.example/"]);
        assert_eq!(magnet.peers, [("10.0.0.1".to_owned(), 6881), ("2001:db8::1".to_owned(), 6882)]);
        assert_eq!(magnet.select, [0..=0, 2..=2, 4..=4, 6..=8]);
        assert!(magnet.selects(7) && !magnet.selects(5));
        assert_eq!(Magnet::parse(&magnet.to_string()).unwrap(), magnet);
    }

    #[test]
    fn m16_refused() {
        let table = [
            ("", MetainfoError::NotAMagnet),
            ("magnet", MetainfoError::NotAMagnet),
            ("http://a/b.torrent", MetainfoError::NotAMagnet),
            (&V1[1..], MetainfoError::NotAMagnet),
            ("magnet:", MetainfoError::NoInfoHash),
            ("magnet:?dn=x", MetainfoError::NoInfoHash),
            ("magnet:?xt=urn:ed2k:31D6CFE0D16AE931B73C59D7E0C089C0", MetainfoError::NoInfoHash),
            ("magnet:?xt=urn:btih:", MetainfoError::BadInfoHash),
            ("magnet:?xt=urn:btih:YEX6DQDLXISUVHOJ6UM3GNNKPQJWPKE1", MetainfoError::BadInfoHash),
            (&format!("magnet:?xt=urn:btih:{V1}0"), MetainfoError::BadInfoHash),
            (&format!("magnet:?xt=urn:btmh:1120{V2}"), MetainfoError::BadInfoHash),
            (&format!("magnet:?xt=urn:btmh:1220{V1}"), MetainfoError::BadInfoHash),
            (&format!("magnet:?xt=urn:btih:{V1}&xt=urn:btih:{}", V1.replace('c', "d")), MetainfoError::TwoInfoHashes),
            (&"m".repeat(1 << 20), MetainfoError::MagnetTooLong),
        ];
        for (text, error) in table {
            assert_eq!(Magnet::parse(text), Err(error), "{:.60}", text);
        }
    }

    #[test]
    fn m16_too_many_trackers_are_cut() {
        let trackers: String = (0..10_000).map(|n| format!("&tr=udp://t{n}")).collect();
        let link = format!("magnet:?xt=urn:btih:{V1}{trackers}");
        assert_eq!(Magnet::parse(&link), Err(MetainfoError::MagnetTooLong));
        let magnet = Magnet::parse(&link[..60_000]).unwrap();
        assert_eq!(magnet.trackers.len(), MAX_MAGNET_URLS);
    }

    proptest! {
        #[test]
        fn any_text(text in ".{0,200}") {
            let _ = Magnet::parse(&text);
            let _ = Magnet::parse(&format!("magnet:?{text}"));
        }

        /// What we write is read back as it was.
        #[test]
        fn round_trip(v1 in any::<Option<[u8; 20]>>(), v2 in any::<[u8; 32]>(), name in "\\PC{1,40}", first in 0u32..9) {
            let v2 = InfoHashV2(v2);
            let mut magnet = Magnet::new(v1.map_or(InfoHash::v2(v2), |v1| InfoHash::hybrid(InfoHashV1(v1), v2)));
            magnet.name = Some(name);
            magnet.select = vec![first..=first + 3, 20..=20];
            magnet.peers = vec![("::1".to_owned(), 1), ("h.example".to_owned(), 65_535)];
            prop_assert_eq!(Magnet::parse(&magnet.to_string()).unwrap(), magnet);
        }
    }
}
