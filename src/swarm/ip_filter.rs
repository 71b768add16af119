//! Addresses that we have nothing to do with: block lists in the formats that are around.
//!
//! | format | a line of it |
//! |---|---|
//! | eMule `ipfilter.dat` | `001.009.096.105 - 001.009.096.110 , 000 , who that is` |
//! | PeerGuardian `.p2p`, text | `who that is:1.9.96.105-1.9.96.110` |
//! | CIDR lists | `1.9.96.0/24`, `2001:db8::/32`, a single address, or a range |
//!
//! Each line is read by itself, so that one file may mix them. What begins with `#`, `;` or `//` is a remark, in a CIDR
//! list what follows `#` or `;` is too. In eMule's format a level above [`HIGHEST_BLOCKED_LEVEL`] allows its range. Numbers
//! are decimal even with leading zeros, as in all these lists; descriptions may be in any encoding.
//!
//! A list of 300,000 ranges takes 2.4 MB, and a look-up is a binary search.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Ranges in all: the largest lists around have under a million. A range takes 8 bytes, 32 for IPv6.
pub const MAX_RANGES: usize = 1 << 21;

/// Ranges as they come, before those that overlap are joined: lists repeat each other.
const MAX_UNSORTED: usize = 2 * MAX_RANGES;

/// Bytes of a line, without its end: descriptions of a few hundred occur.
pub const MAX_LINE: usize = 4 << 10;

/// eMule's levels: up to this one a range is blocked, above it is allowed.
pub const HIGHEST_BLOCKED_LEVEL: u32 = 127;

/// Bytes of a range, above all of two IPv6 addresses and what stands between them.
const MAX_RANGE_TEXT: usize = 128;

/// Ranges of addresses that are neither dialled nor let in. See the [module](self).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct IpFilter {
    /// First and last address of each range: sorted, apart from each other.
    v4: Vec<(u32, u32)>,
    v6: Vec<(u128, u128)>,
}

impl IpFilter {
    /// Whether `ip` is in one of the ranges. IPv4 mapped into IPv6 is IPv4.
    pub fn blocks(&self, ip: IpAddr) -> bool {
        match ip.to_canonical() {
            IpAddr::V4(ip) => is_in(&self.v4, ip.to_bits()),
            IpAddr::V6(ip) => is_in(&self.v6, ip.to_bits()),
        }
    }

    /// Ranges, once those that overlap or touch are joined.
    pub fn len(&self) -> usize {
        self.v4.len() + self.v6.len()
    }

    /// Whether nobody is blocked.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

fn is_in<T: Ord + Copy>(ranges: &[(T, T)], ip: T) -> bool {
    let after = ranges.partition_point(|range| range.0 <= ip);
    after.checked_sub(1).and_then(|at| ranges.get(at)).is_some_and(|range| ip <= range.1)
}

/// What a line of a list was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Line {
    /// A range that is blocked from now on.
    Range,
    /// A range that the list itself allows.
    Allowed,
    /// Nothing, or a remark.
    Remark,
    /// None of the formats.
    Bad,
}

/// The lists hold more than [`MAX_RANGES`] ranges.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("more than {MAX_RANGES} ranges")]
pub struct TooMany;

/// Takes in lists line by line.
#[derive(Debug, Default)]
pub struct IpFilterBuilder {
    v4: Vec<(u32, u32)>,
    v6: Vec<(u128, u128)>,
}

impl IpFilterBuilder {
    /// Takes in a line, with or without its end.
    ///
    /// # Errors
    /// [`TooMany`]: there is no room for another range. A filter that blocks only part of what it should is none.
    pub fn add_line(&mut self, line: &[u8]) -> Result<Line, TooMany> {
        let (from, to) = match parse_line(line) {
            Parsed::Range(from, to) => (from, to),
            Parsed::Other(line) => return Ok(line),
        };
        if self.v4.len() + self.v6.len() >= MAX_UNSORTED {
            self.join()?;
        }
        match (from, to) {
            (IpAddr::V4(from), IpAddr::V4(to)) => self.v4.push((from.to_bits(), to.to_bits())),
            (IpAddr::V6(from), IpAddr::V6(to)) => self.v6.push((from.to_bits(), to.to_bits())),
            _ => return Ok(Line::Bad),
        }
        Ok(Line::Range)
    }

    /// The filter.
    ///
    /// # Errors
    /// [`TooMany`], as [`add_line`](Self::add_line).
    pub fn build(mut self) -> Result<IpFilter, TooMany> {
        self.join()?;
        self.v4.shrink_to_fit();
        self.v6.shrink_to_fit();
        Ok(IpFilter { v4: self.v4, v6: self.v6 })
    }

    fn join(&mut self) -> Result<(), TooMany> {
        join(&mut self.v4);
        join(&mut self.v6);
        if self.v4.len() + self.v6.len() > MAX_RANGES { Err(TooMany) } else { Ok(()) }
    }
}

/// Addresses as numbers.
trait Number: Ord + Copy {
    /// The next one; none after the last.
    fn next(self) -> Option<Self>;
}

impl Number for u32 {
    fn next(self) -> Option<Self> {
        self.checked_add(1)
    }
}

impl Number for u128 {
    fn next(self) -> Option<Self> {
        self.checked_add(1)
    }
}

/// Sorts ranges, and joins those that overlap or touch.
fn join<T: Number>(ranges: &mut Vec<(T, T)>) {
    ranges.sort_unstable();
    ranges.dedup_by(|later, earlier| {
        let joined = earlier.1.next().is_none_or(|next| later.0 <= next);
        if joined {
            earlier.1 = earlier.1.max(later.1);
        }
        joined
    });
}

enum Parsed {
    /// From the first to the last address, both of one family and in order.
    Range(IpAddr, IpAddr),
    Other(Line),
}

fn parse_line(line: &[u8]) -> Parsed {
    // A byte order mark may stand at the very beginning of a file.
    let line = line.strip_prefix(b"\xef\xbb\xbf").unwrap_or(line).trim_ascii();
    if line.is_empty() || matches!(line[0], b'#' | b';') || line.starts_with(b"//") {
        return Parsed::Other(Line::Remark);
    }
    if line.len() > MAX_LINE {
        return Parsed::Other(Line::Bad);
    }
    dat(line).or_else(|| plain(line)).or_else(|| p2p(line)).unwrap_or(Parsed::Other(Line::Bad))
}

/// `RANGE , LEVEL , DESCRIPTION`.
fn dat(line: &[u8]) -> Option<Parsed> {
    let mut fields = line.splitn(3, |&byte| byte == b',');
    let range = range(fields.next()?)?;
    let level = fields.next()?;
    let level = std::str::from_utf8(level.trim_ascii()).ok().and_then(|level| level.parse::<u32>().ok());
    Some(match level {
        Some(level) if level > HIGHEST_BLOCKED_LEVEL => Parsed::Other(Line::Allowed),
        _ => range,
    })
}

/// `RANGE # REMARK`.
fn plain(line: &[u8]) -> Option<Parsed> {
    range(line.split(|byte| matches!(byte, b'#' | b';')).next()?)
}

/// `DESCRIPTION:RANGE`, where both may hold colons.
fn p2p(line: &[u8]) -> Option<Parsed> {
    // The range is short, and the longest text that is one is meant: a part of an IPv6 address may be one too.
    let tail = line.len().saturating_sub(MAX_RANGE_TEXT);
    let mut colons = line.iter().enumerate().skip(tail).filter(|(_, byte)| **byte == b':');
    colons.find_map(|(at, _)| {
        let text = line.get(at + 1..)?;
        // Without a range it would be any line that ends in digits.
        if text.contains(&b'-') { range(text) } else { None }
    })
}

/// `FIRST-LAST`, `ADDRESS/PREFIX` or `ADDRESS`.
fn range(text: &[u8]) -> Option<Parsed> {
    let text = text.trim_ascii();
    if text.len() > MAX_RANGE_TEXT {
        return None;
    }
    let text = std::str::from_utf8(text).ok()?;
    let (from, to) = if let Some((from, to)) = text.split_once('-') {
        (address(from)?, address(to)?)
    } else if let Some((ip, prefix)) = text.split_once('/') {
        let prefix = prefix.trim_end();
        // Rust's numbers may begin with a plus.
        let digits = prefix.bytes().all(|byte| byte.is_ascii_digit());
        network(address(ip)?, prefix.parse().ok().filter(|_| digits)?)?
    } else {
        let ip = address(text)?;
        (ip, ip)
    };
    let (from, to) = match (from.to_canonical(), to.to_canonical()) {
        mapped @ (IpAddr::V4(_), IpAddr::V4(_)) => mapped,
        // A range that only begins or ends among the mapped addresses is one of IPv6.
        _ => (from, to),
    };
    (from.is_ipv4() == to.is_ipv4() && from <= to).then_some(Parsed::Range(from, to))
}

fn address(text: &str) -> Option<IpAddr> {
    let text = text.trim();
    if text.contains(':') {
        return text.parse::<Ipv6Addr>().ok().map(IpAddr::V6);
    }
    // The standard library takes no leading zeros, for fear of octal; these lists are full of them.
    let mut octets = [0; 4];
    let mut parts = text.split('.');
    for octet in &mut octets {
        let part = parts.next()?;
        if !(1..=3).contains(&part.len()) || !part.bytes().all(|byte| byte.is_ascii_digit()) {
            return None;
        }
        *octet = part.parse().ok()?;
    }
    parts.next().is_none().then(|| Ipv4Addr::from(octets).into())
}

/// First and last address of a network.
fn network(ip: IpAddr, prefix: u32) -> Option<(IpAddr, IpAddr)> {
    match ip {
        IpAddr::V4(ip) => {
            let hosts = u32::MAX.checked_shr(prefix).unwrap_or(0);
            let first = ip.to_bits() & !hosts;
            (prefix <= 32).then(|| (Ipv4Addr::from_bits(first).into(), Ipv4Addr::from_bits(first | hosts).into()))
        }
        IpAddr::V6(ip) => {
            let hosts = u128::MAX.checked_shr(prefix).unwrap_or(0);
            let first = ip.to_bits() & !hosts;
            (prefix <= 128).then(|| (Ipv6Addr::from_bits(first).into(), Ipv6Addr::from_bits(first | hosts).into()))
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn filter(lines: &str) -> IpFilter {
        let mut builder = IpFilterBuilder::default();
        for line in lines.lines() {
            assert_eq!(builder.add_line(line.as_bytes()), Ok(Line::Range), "{line}");
        }
        builder.build().unwrap()
    }

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    /// First and last of a range are in, their neighbours are not.
    #[test]
    fn every_format() {
        for (line, first, last) in [
            ("001.009.096.105 - 001.009.096.110 , 000 , Who: that's, it", "1.9.96.105", "1.9.96.110"),
            ("1.9.96.105-1.9.96.110,127,x\r\n", "1.9.96.105", "1.9.96.110"),
            ("1.9.96.105 - 1.9.96.110", "1.9.96.105", "1.9.96.110"),
            ("Some: where #3, 5-6:1.2.3.8-1.2.3.9", "1.2.3.8", "1.2.3.9"),
            (":1.2.3.8-1.2.3.9", "1.2.3.8", "1.2.3.9"),
            ("Six:2001:db8::8-2001:db8::9", "2001:db8::8", "2001:db8::9"),
            ("2001:db8::8 - 2001:db8::9 , 100 , six", "2001:db8::8", "2001:db8::9"),
            ("\u{feff}10.9.8.0/24", "10.9.8.0", "10.9.8.255"),
            ("10.9.8.7/24 ; SBL 1", "10.9.8.0", "10.9.8.255"),
            ("10.9.8.4/31,ZZ", "10.9.8.4", "10.9.8.5"),
            ("10.9.8.4/32", "10.9.8.4", "10.9.8.4"),
            ("010.011.012.013", "10.11.12.13", "10.11.12.13"),
            ("2001:db8:7::/48 # six", "2001:db8:7::", "2001:db8:7:ffff:ffff:ffff:ffff:ffff"),
            ("2001:db8::7", "2001:db8::7", "2001:db8::7"),
            ("::ffff:10.9.8.0/120", "10.9.8.0", "10.9.8.255"),
        ] {
            let filter = filter(line);
            let step = |text: &str, by: i32| match ip(text) {
                IpAddr::V4(ip) => IpAddr::from(Ipv4Addr::from_bits(ip.to_bits().wrapping_add_signed(by))),
                IpAddr::V6(ip) => Ipv6Addr::from_bits(ip.to_bits().wrapping_add_signed(by.into())).into(),
            };
            assert_eq!(filter.len(), 1, "{line}");
            assert!(filter.blocks(ip(first)) && filter.blocks(ip(last)), "{line}");
            assert!(!filter.blocks(step(first, -1)) && !filter.blocks(step(last, 1)), "{line}");
        }
        let everybody = filter("0.0.0.0/0\n::/0");
        for address in ["0.0.0.0", "255.255.255.255", "::", "ffff::ffff", "::ffff:1.2.3.4"] {
            assert!(everybody.blocks(ip(address)), "{address}");
        }
        assert!(!filter("::/0").blocks(ip("1.2.3.4")), "IPv4 is not in it");
    }

    #[test]
    fn what_is_no_range() {
        use Line::{Allowed, Bad, Remark};
        for (line, expected) in [
            ("", Remark),
            ("  \t\r\n", Remark),
            ("# 1.2.3.4", Remark),
            ("; 1.2.3.4", Remark),
            ("// 1.2.3.4", Remark),
            ("1.2.3.4 - 1.2.3.5 , 128 , fine", Allowed),
            ("1.2.3.4 - 1.2.3.5 , 200", Allowed),
            ("1.2.3.5-1.2.3.4", Bad),
            ("1.2.3.4-2001:db8::1", Bad),
            ("1.2.3", Bad),
            ("1.2.3.4.5", Bad),
            ("1.2.3.256", Bad),
            ("1.2.3.0004", Bad),
            ("1.2.3.+4", Bad),
            ("1.2.3.4/33", Bad),
            ("1.2.3.4/+8", Bad),
            ("1.2.3.4/", Bad),
            ("2001:db8::/129", Bad),
            ("who:1.2.3.4", Bad),
            ("who:12", Bad),
            ("<html>", Bad),
            ("1.2.3.4-", Bad),
        ] {
            let mut builder = IpFilterBuilder::default();
            assert_eq!(builder.add_line(line.as_bytes()), Ok(expected), "{line}");
            assert!(builder.build().unwrap().is_empty());
        }
        let mut long = b"x:".to_vec();
        long.resize(MAX_LINE, b':');
        long.extend_from_slice(b"1.2.3.4-1.2.3.5");
        let mut builder = IpFilterBuilder::default();
        assert_eq!(builder.add_line(&long), Ok(Bad));
        let fits = long.split_off(20);
        assert_eq!(builder.add_line(&fits), Ok(Line::Range));
        assert_eq!(builder.add_line(b"Caf\xe9:1.2.3.4-1.2.3.5"), Ok(Line::Range), "Latin-1");
    }

    #[test]
    fn ranges_are_joined() {
        let all = filter("5.0.0.0-5.0.0.9\n5.0.0.10-5.0.0.20\n4.0.0.0/8\n5.0.0.3-5.0.0.4\n6.0.0.0/8\n255.255.255.255");
        assert_eq!(all.v4.len(), 3, "{:x?}", all.v4);
        assert!(all.blocks(ip("5.0.0.20")) && !all.blocks(ip("5.0.0.21")));
    }

    #[test]
    fn there_is_a_ceiling() {
        let spread =
            |count: usize| IpFilterBuilder { v4: (0..).take(count).map(|n| (n * 4, n * 4)).collect(), v6: vec![] };
        let mut builder = spread(MAX_UNSORTED);
        assert_eq!(builder.add_line(b"# only a remark"), Ok(Line::Remark));
        assert_eq!(builder.add_line(b"255.0.0.0/8"), Err(TooMany));
        let mut builder = spread(MAX_UNSORTED);
        builder.v4.iter_mut().for_each(|range| *range = (7, 7));
        assert_eq!(builder.add_line(b"255.0.0.0/8"), Ok(Line::Range), "the same again takes no room");
        assert_eq!(builder.build().unwrap().len(), 2);
        assert_eq!(spread(MAX_RANGES).build().map(|filter| filter.len()), Ok(MAX_RANGES));
        assert_eq!(spread(MAX_RANGES + 1).build(), Err(TooMany));
    }

    proptest! {
        /// Whatever a file holds.
        #[test]
        fn nothing_panics(line in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = IpFilterBuilder::default().add_line(&line);
        }

        #[test]
        fn lines_of_the_right_letters(line in "[0-9a-f:./, #;-]{0,60}") {
            let _ = IpFilterBuilder::default().add_line(line.as_bytes());
        }

        /// The search finds what a walk through all ranges finds.
        #[test]
        fn as_a_plain_list(ranges in proptest::collection::vec((0u32..300, 0u32..9), 0..60)) {
            let mut builder = IpFilterBuilder::default();
            for (from, len) in &ranges {
                let line = format!("{}-{}", Ipv4Addr::from_bits(*from), Ipv4Addr::from_bits(from + len));
                prop_assert_eq!(builder.add_line(line.as_bytes()), Ok(Line::Range));
            }
            let filter = builder.build().unwrap();
            for address in 0..320 {
                let expected = ranges.iter().any(|(from, len)| (*from..=from + len).contains(&address));
                prop_assert_eq!(filter.blocks(Ipv4Addr::from_bits(address).into()), expected);
            }
            prop_assert!(filter.v4.windows(2).all(|two| two[0].1 + 1 < two[1].0));
        }
    }
}
