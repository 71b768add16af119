//! What a torrent may say besides its info dictionary. Nothing here is worth refusing a torrent for: what makes no
//! sense is left out, what is too much is cut.

use std::fmt;

use serde::Deserialize;
use serde::de::{Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use url::Url;

use super::limits::{MAX_URL_LEN, MAX_URLS};
use crate::base::bencode::{self, Dictionary};

/// Any bencoded value, with no more than the first [`MAX_URLS`] entries of each list.
#[derive(Debug)]
enum Loose {
    Integer(i64),
    Bytes(Vec<u8>),
    List(Vec<Loose>),
    Other,
}

impl<'de> Deserialize<'de> for Loose {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Any;

        impl<'de> Visitor<'de> for Any {
            type Value = Loose;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("any value")
            }

            fn visit_i64<E>(self, value: i64) -> Result<Loose, E> {
                Ok(Loose::Integer(value))
            }

            fn visit_bytes<E>(self, value: &[u8]) -> Result<Loose, E> {
                Ok(if value.len() > MAX_URL_LEN { Loose::Other } else { Loose::Bytes(value.to_vec()) })
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Loose, A::Error> {
                let mut list = Vec::new();
                while list.len() < MAX_URLS {
                    let Some(value) = seq.next_element()? else { return Ok(Loose::List(list)) };
                    list.push(value);
                }
                while seq.next_element::<IgnoredAny>()?.is_some() {}
                Ok(Loose::List(list))
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Loose, A::Error> {
                while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
                Ok(Loose::Other)
            }
        }

        deserializer.deserialize_any(Any)
    }
}

impl Loose {
    fn of(dict: &Dictionary<'_>, key: &[u8]) -> Self {
        dict.field(key).ok().flatten().unwrap_or(Self::Other)
    }

    /// A list's entries; anything else stands for a list of itself.
    fn into_list(self) -> Vec<Self> {
        match self {
            Self::List(list) => list,
            other => vec![other],
        }
    }

    fn url(&self, schemes: &[&str]) -> Option<String> {
        let Self::Bytes(bytes) = self else { return None };
        usable_url(std::str::from_utf8(bytes).ok()?, schemes)
    }
}

/// Schemes of trackers. WebTorrent's are kept to be shown and handed on.
pub(super) const TRACKERS: &[&str] = &["http", "https", "udp", "ws", "wss"];
/// Schemes of web seeds.
pub(super) const WEB_SEEDS: &[&str] = &["http", "https", "ftp"];

/// `text` without spaces around it, if it is a URL with a host, a port other than 0, and one of `schemes`.
pub(super) fn usable_url(text: &str, schemes: &[&str]) -> Option<String> {
    let text = text.trim();
    if text.len() > MAX_URL_LEN {
        return None;
    }
    let url = Url::parse(text).ok()?;
    let usable = schemes.contains(&url.scheme()) && url.has_host() && url.port() != Some(0);
    usable.then(|| text.to_owned())
}

/// `host:port`, an IPv6 address in brackets; not port 0.
pub(super) fn host_and_port(text: &str) -> Option<(String, u16)> {
    let (host, port) = text.trim().rsplit_once(':')?;
    let port = port.parse().ok().filter(|p| *p != 0)?;
    let bare = match host.strip_prefix('[') {
        Some(rest) => rest.strip_suffix(']')?,
        None if host.contains(':') => return None,
        None => host,
    };
    is_host(bare).then(|| (bare.to_owned(), port))
}

/// Letters that occur in names and addresses; whether the name exists is for the resolver to say.
fn is_host(host: &str) -> bool {
    let letter = |c: char| c.is_alphanumeric() || matches!(c, '-' | '.' | '_' | ':' | '%');
    !host.is_empty() && host.len() <= 255 && host.chars().all(letter)
}

/// The trackers in tiers (BEP 12): those of `announce-list`, or the one of `announce` if there is none. No URL twice.
pub(super) fn announce(dict: &Dictionary<'_>) -> Vec<Vec<String>> {
    let mut seen: Vec<String> = Vec::new();
    let mut take = |tier: Vec<Loose>| -> Vec<String> {
        let mut urls = Vec::new();
        for url in tier.iter().filter_map(|l| l.url(TRACKERS)) {
            if seen.len() < MAX_URLS && !seen.contains(&url) {
                seen.push(url.clone());
                urls.push(url);
            }
        }
        urls
    };
    let Loose::List(listed) = Loose::of(dict, b"announce-list") else {
        return [take(vec![Loose::of(dict, b"announce")])].into_iter().filter(|t| !t.is_empty()).collect();
    };
    // A list of strings instead of tiers is seen, too: each is a tier of its own.
    let mut tiers: Vec<Vec<String>> = listed.into_iter().map(|t| take(t.into_list())).collect();
    if tiers.iter().all(Vec::is_empty) {
        tiers.push(take(vec![Loose::of(dict, b"announce")]));
    }
    tiers.retain(|t| !t.is_empty());
    tiers
}

/// A string or list of web addresses; none twice.
pub(super) fn urls(dict: &Dictionary<'_>, key: &[u8]) -> Vec<String> {
    let mut urls = Vec::new();
    for url in Loose::of(dict, key).into_list().iter().filter_map(|l| l.url(WEB_SEEDS)) {
        if !urls.contains(&url) {
            urls.push(url);
        }
    }
    urls
}

/// `nodes`: pairs of host and port (BEP 5).
pub(super) fn nodes(dict: &Dictionary<'_>) -> Vec<(String, u16)> {
    let node = |pair: &Loose| {
        let Loose::List(pair) = pair else { return None };
        let [Loose::Bytes(host), Loose::Integer(port)] = pair.as_slice() else { return None };
        let host = std::str::from_utf8(host).ok().filter(|h| is_host(h))?;
        Some((host.to_owned(), u16::try_from(*port).ok().filter(|p| *p != 0)?))
    };
    Loose::of(dict, b"nodes").into_list().iter().filter_map(node).collect()
}

/// The text under `key`.
pub(super) fn string(dict: &Dictionary<'_>, key: &[u8]) -> Option<String> {
    let text = dict.raw(key).and_then(bencode::string)?;
    Some(String::from_utf8_lossy(text).into_owned()).filter(|t| !t.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::bencode::Limits;

    fn dict(bytes: &[u8]) -> Dictionary<'_> {
        Dictionary::parse(bytes, Limits::TORRENT).unwrap()
    }

    #[test]
    fn trackers() {
        let table: &[(&str, &[&[&str]])] = &[
            ("d8:announce10:http://a/xe", &[&["http://a/x"]]),
            (
                "d8:announce10:http://a/x13:announce-listll10:http://b/xel9:udp://c:110:http://b/xeee",
                &[&["http://b/x"], &["udp://c:1"]],
            ),
            // Empty lists, tiers without use, and a flat list.
            ("d8:announce10:http://a/x13:announce-listlee", &[&["http://a/x"]]),
            ("d8:announce10:http://a/x13:announce-listll8:file:///ei5edeee", &[&["http://a/x"]]),
            ("d13:announce-listl9:udp://c:1ee", &[&["udp://c:1"]]),
            ("d8:announcei5ee", &[]),
            ("d8:announce0:e", &[]),
            ("d8:announce9:udp://c:0e", &[]),
            ("d8:announce13: http://a/x\r\ne", &[&["http://a/x"]]),
        ];
        for (bytes, expected) in table {
            assert_eq!(announce(&dict(bytes.as_bytes())), *expected, "{bytes}");
        }
    }

    #[test]
    fn ten_thousand_are_cut() {
        let urls_list: String = (0..10_000).map(|n| format!("l14:http://a/{n:05}e")).collect();
        let bytes = format!("d13:announce-listl{urls_list}e5:nodesli1ei2ee8:url-listl{}ee", "1:x".repeat(10_000));
        let dict = dict(bytes.as_bytes());
        assert_eq!(announce(&dict).len(), MAX_URLS);
        assert!(urls(&dict, b"url-list").is_empty() && nodes(&dict).is_empty());
    }

    #[test]
    fn hosts_and_ports() {
        for (text, expected) in [
            ("a.example:80", Some(("a.example", 80))),
            ("[::1]:6881", Some(("::1", 6881))),
            ("127.0.0.1:1", Some(("127.0.0.1", 1))),
            ("::1:6881", None),
            ("a:0", None),
            ("a:65536", None),
            (":1", None),
            ("a", None),
            ("a b:1", None),
            ("a\u{1b}:1", None),
        ] {
            assert_eq!(host_and_port(text), expected.map(|(h, p)| (h.to_owned(), p)), "{text}");
        }
    }

    #[test]
    fn web_seeds_and_nodes() {
        let d = dict(b"d5:nodesll1:ai7eel1:bi0eel1:ci70000eel1:dee8:url-list9:http://w/e");
        assert_eq!(urls(&d, b"url-list"), ["http://w/"]);
        assert_eq!(nodes(&d), [("a".to_owned(), 7)]);
        let d = dict(b"d8:url-listl9:http://w/0:9:http://w/8:ftp://w/ee");
        assert_eq!(urls(&d, b"url-list"), ["http://w/", "ftp://w/"]);
    }
}
