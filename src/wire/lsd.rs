//! Local service discovery (BEP 14): what peers of one network say to everybody in it. Datagrams that look like HTTP.

use std::fmt::Write as _;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6};

/// The groups to which announces go (BEP 14).
pub const LSD_V4: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::new(239, 192, 152, 143), 6771);
/// The same for IPv6. The interface has to be named besides.
pub const LSD_V6: SocketAddrV6 = SocketAddrV6::new(Ipv6Addr::new(0xff15, 0, 0, 0, 0, 0, 0xefc0, 0x988f), 6771, 0, 0);

/// The longest announce that is sent or looked at, in bytes (BEP 14: "should not exceed 1400 bytes").
pub const MAX_LSD_LEN: usize = 1400;

/// The most torrents named in one announce. So many fit, with room for the other lines.
pub const MAX_LSD_HASHES: usize = 24;

/// The longest cookie that is kept, in bytes; ours is much shorter.
const MAX_COOKIE: usize = 64;

/// First line of an announce.
const METHOD: &[u8] = b"BT-SEARCH ";

/// A peer says in which swarms it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LocalAnnounce {
    /// Where it listens, at the address from which this came. Not 0.
    pub port: u16,
    /// The 20 bytes that name each torrent in handshakes: 1 to [`MAX_LSD_HASHES`] of them.
    pub info_hashes: Vec<[u8; 20]>,
    /// By which the sender knows its own announces.
    pub cookie: Option<Vec<u8>>,
}

impl LocalAnnounce {
    /// Reads a datagram. Lines that mean nothing are ignored, as are torrents beyond [`MAX_LSD_HASHES`]. `None` if it is no
    /// announce, or names no port or no torrent.
    pub fn parse(datagram: &[u8]) -> Option<Self> {
        if datagram.len() > MAX_LSD_LEN {
            return None;
        }
        let mut lines = datagram.split(|byte| *byte == b'\n').map(<[u8]>::trim_ascii_end);
        let first = lines.next()?;
        if !first.get(..METHOD.len())?.eq_ignore_ascii_case(METHOD) {
            return None;
        }
        let (mut port, mut info_hashes, mut cookie) = (None, Vec::new(), None);
        for line in lines.take_while(|line| !line.is_empty()) {
            let Some(colon) = line.iter().position(|byte| *byte == b':') else { continue };
            let (name, value) = (&line[..colon], line[colon + 1..].trim_ascii());
            if name.eq_ignore_ascii_case(b"port") {
                port = std::str::from_utf8(value).ok().and_then(|port| port.parse().ok()).filter(|port| *port != 0);
            } else if name.eq_ignore_ascii_case(b"infohash") {
                if info_hashes.len() < MAX_LSD_HASHES
                    && let Some(info_hash) = hash(value)
                    && !info_hashes.contains(&info_hash)
                {
                    info_hashes.push(info_hash);
                }
            } else if name.eq_ignore_ascii_case(b"cookie") && value.len() <= MAX_COOKIE {
                cookie = Some(value.to_vec());
            }
        }
        Some(Self { port: port?, info_hashes, cookie }).filter(|announce| !announce.info_hashes.is_empty())
    }

    /// The datagram for `group`, with the first [`MAX_LSD_HASHES`] torrents.
    pub fn encode(&self, group: SocketAddr) -> Vec<u8> {
        // As a Host header has it: without the scope of the interface.
        let host = SocketAddr::new(group.ip(), group.port());
        let mut out = format!("BT-SEARCH * HTTP/1.1\r\nHost: {host}\r\nPort: {}\r\n", self.port);
        for info_hash in self.info_hashes.iter().take(MAX_LSD_HASHES) {
            out.push_str("Infohash: ");
            for byte in info_hash {
                // To a string, which cannot fail.
                let _ = write!(out, "{byte:02x}");
            }
            out.push_str("\r\n");
        }
        let mut out = out.into_bytes();
        if let Some(cookie) = &self.cookie {
            out.extend_from_slice(b"cookie: ");
            out.extend_from_slice(cookie);
            out.extend_from_slice(b"\r\n");
        }
        out.extend_from_slice(b"\r\n\r\n");
        out
    }
}

/// 40 hexadecimal digits.
fn hash(text: &[u8]) -> Option<[u8; 20]> {
    let (digits, []) = text.as_chunks::<2>() else { return None };
    let digits: &[[u8; 2]; 20] = digits.try_into().ok()?;
    let mut hash = [0; 20];
    for (byte, [high, low]) in hash.iter_mut().zip(digits) {
        let value = |digit: u8| char::from(digit).to_digit(16).and_then(|value| u8::try_from(value).ok());
        *byte = value(*high)? << 4 | value(*low)?;
    }
    Some(hash)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn announce(hashes: u8, cookie: &[u8]) -> LocalAnnounce {
        let info_hashes = (0..hashes).map(|n| [n; 20]).collect();
        LocalAnnounce { port: 6881, info_hashes, cookie: Some(cookie.to_vec()) }
    }

    #[test]
    fn both_groups_there_and_back() {
        for (group, host) in [(LSD_V4.into(), "239.192.152.143:6771"), (LSD_V6.into(), "[ff15::efc0:988f]:6771")] {
            let bytes = announce(1, b"c0ffee").encode(group);
            let text = format!(
                "BT-SEARCH * HTTP/1.1\r\nHost: {host}\r\nPort: 6881\r\nInfohash: {}\r\ncookie: c0ffee\r\n\r\n\r\n",
                "00".repeat(20)
            );
            assert_eq!(String::from_utf8(bytes.clone()).unwrap(), text);
            assert_eq!(LocalAnnounce::parse(&bytes), Some(announce(1, b"c0ffee")));
        }
    }

    #[test]
    fn all_that_is_sent_fits() {
        let full = announce(30, &[b'x'; MAX_COOKIE]);
        for group in [LSD_V4.into(), LSD_V6.into()] {
            let bytes = full.encode(group);
            assert!(bytes.len() <= MAX_LSD_LEN, "{}", bytes.len());
            assert_eq!(LocalAnnounce::parse(&bytes).unwrap().info_hashes, full.info_hashes[..MAX_LSD_HASHES]);
        }
    }

    /// As libtorrent, aria2 and Transmission write it, and as it can be read.
    #[test]
    fn others_write_it_otherwise() {
        let hex = "0123456789abcdefABCDEF0123456789abcdef01";
        for text in [
            format!("BT-SEARCH * HTTP/1.1\r\nHost: 239.192.152.143:6771\r\nPort: 1\r\nInfohash: {hex}\r\n\r\n\r\n"),
            format!("bt-search * http/1.0\nPORT:1\ninfohash:{hex}\n\n"),
            format!("BT-SEARCH * HTTP/1.1\r\nX\r\n:\r\nInfohash: {hex}\r\nInfohash: {hex}\r\nInfohash: 12\r\nPort: 1"),
            format!("BT-SEARCH * HTTP/1.1\r\nPort: 1\r\nInfohash: {hex}\r\n\r\nPort: 2\r\n"),
        ] {
            let parsed = LocalAnnounce::parse(text.as_bytes()).unwrap();
            assert_eq!((parsed.port, parsed.info_hashes.len(), parsed.info_hashes[0][10]), (1, 1, 0xef), "{text}");
        }
    }

    #[test]
    fn what_is_none() {
        let hex = "01".repeat(20);
        let long = format!("BT-SEARCH * HTTP/1.1\r\nPort: 1\r\nInfohash: {hex}\r\nX: {}\r\n\r\n", "x".repeat(1400));
        for text in [
            "",
            "\r\n\r\n",
            "BT-SEARC",
            &format!("M-SEARCH * HTTP/1.1\r\nPort: 1\r\nInfohash: {hex}\r\n\r\n"),
            &format!("BT-SEARCH * HTTP/1.1\r\nPort: 0\r\nInfohash: {hex}\r\n\r\n"),
            &format!("BT-SEARCH * HTTP/1.1\r\nPort: 65536\r\nInfohash: {hex}\r\n\r\n"),
            &format!("BT-SEARCH * HTTP/1.1\r\nPort: -1\r\nInfohash: {hex}\r\n\r\n"),
            &format!("BT-SEARCH * HTTP/1.1\r\nInfohash: {hex}\r\n\r\n"),
            "BT-SEARCH * HTTP/1.1\r\nPort: 1\r\n\r\n",
            &format!("BT-SEARCH * HTTP/1.1\r\nPort: 1\r\nInfohash: {hex}0\r\n\r\n"),
            &format!("BT-SEARCH * HTTP/1.1\r\nPort: 1\r\nInfohash: {}\r\n\r\n", &hex[..39]),
            &format!("BT-SEARCH * HTTP/1.1\r\nPort: 1\r\nInfohash: {}gg\r\n\r\n", &hex[..38]),
            &long,
        ] {
            assert_eq!(LocalAnnounce::parse(text.as_bytes()), None, "{text}");
        }
        // A flood of torrents is cut.
        let many: String = (0..60).map(|n| format!("Infohash:{}\n", format!("{n:02}").repeat(20))).collect();
        let flood = LocalAnnounce::parse(format!("BT-SEARCH *\nPort:1\n{}", &many[..1300]).as_bytes());
        assert_eq!(flood.unwrap().info_hashes.len(), MAX_LSD_HASHES);
    }

    proptest! {
        #[test]
        fn any_bytes(bytes in prop::collection::vec(any::<u8>(), 0..1500), at in 0..200usize) {
            let _ = LocalAnnounce::parse(&bytes);
            let mut spoilt = announce(3, b"c").encode(LSD_V4.into());
            let end = spoilt.len().min(at + bytes.len());
            spoilt.splice(at..end, bytes);
            if let Some(parsed) = LocalAnnounce::parse(&spoilt) {
                prop_assert!(parsed.port != 0 && (1..=MAX_LSD_HASHES).contains(&parsed.info_hashes.len()));
            }
        }
    }
}
