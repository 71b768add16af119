use std::fmt;
use std::net::IpAddr;

use url::{Host, Url};

use super::{Family, TrackerError};

/// The longest tracker URL that we take. Browsers stop at about 2,000; passkeys are tens of bytes.
const MAX_LEN: usize = 2048;

/// How a tracker is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scheme {
    /// `http://`
    Http,
    /// `https://`
    Https,
    /// `udp://` (BEP 15)
    Udp,
}

/// The address of a tracker, checked. Prints as scheme, host and port only: path and query may hold a passkey.
#[derive(Clone, PartialEq, Eq)]
pub struct TrackerUrl {
    scheme: Scheme,
    /// For `udp`, the same URL as `http`, because only then are host and path normalised.
    url: Url,
    port: u16,
}

impl TrackerUrl {
    /// Reads an announce URL of a torrent or of the command line.
    ///
    /// # Errors
    /// [`TrackerError::Url`] if it is too long, is no URL, has no host, a scheme that we do not speak, or is `udp` without a port;
    /// [`TrackerError::Unsafe`] if its query already holds what we would add, which only serves to confuse servers.
    pub fn parse(text: &str) -> Result<Self, TrackerError> {
        let bad = |why: String| TrackerError::Url(why);
        let text = text.trim();
        if text.len() > MAX_LEN {
            return Err(bad(format!("tracker URL longer than {MAX_LEN} bytes")));
        }
        let (scheme, rest) = text.split_once("://").ok_or_else(|| bad("not a tracker URL".into()))?;
        let scheme = match scheme.to_ascii_lowercase().as_str() {
            "http" => Scheme::Http,
            "https" => Scheme::Https,
            "udp" => Scheme::Udp,
            "ws" | "wss" => return Err(bad("WebTorrent trackers (ws, wss) are not supported".into())),
            _ => return Err(bad("tracker URL is neither http, https nor udp".into())),
        };
        let as_web = if scheme == Scheme::Https { "https" } else { "http" };
        let mut url = Url::parse(&format!("{as_web}://{rest}")).map_err(|e| bad(format!("bad tracker URL: {e}")))?;
        url.set_fragment(None);
        if url.host().is_none() {
            return Err(bad("tracker URL without a host".into()));
        }
        let port = match scheme {
            // Under a scheme without a default, port 80 is not taken for "none".
            Scheme::Udp => Url::parse(&format!("udp://{rest}")).ok().and_then(|u| u.port()),
            Scheme::Http | Scheme::Https => url.port_or_known_default(),
        };
        let port = port.filter(|p| *p != 0).ok_or_else(|| bad("tracker URL without a port".into()))?;
        let preset = |name: &str| name.eq_ignore_ascii_case("info_hash") || name.eq_ignore_ascii_case("event");
        if url.query_pairs().any(|(name, _)| preset(&name)) {
            return Err(TrackerError::Unsafe("tracker URL presets info_hash or event".into()));
        }
        Ok(Self { scheme, url, port })
    }

    /// How it is asked.
    pub fn scheme(&self) -> Scheme {
        self.scheme
    }

    /// The host: a name in ASCII form (IDNA), or an address.
    pub fn host(&self) -> Host<&str> {
        self.url.host().unwrap_or(Host::Domain(""))
    }

    /// The host if it is an address; an IPv4 address mapped into IPv6 comes out as IPv4.
    pub fn ip(&self) -> Option<IpAddr> {
        match self.host() {
            Host::Domain(_) => None,
            Host::Ipv4(ip) => Some(IpAddr::V4(ip)),
            Host::Ipv6(ip) => Some(IpAddr::V6(ip).to_canonical()),
        }
    }

    /// The port, given or the scheme's own; never 0.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The whole URL, with its secrets. Only for requests; `http` in place of `udp`.
    pub(crate) fn url(&self) -> &Url {
        &self.url
    }

    /// Path and query, which a UDP announce carries as an option (BEP 41).
    pub(crate) fn path_and_query(&self) -> String {
        match self.url.query() {
            Some(query) => format!("{}?{query}", self.url.path()),
            None => self.url.path().to_owned(),
        }
    }

    /// Whether the tracker may be asked over this family at all: a host that is an address has only one.
    pub(crate) fn may_have(&self, family: Family) -> bool {
        self.ip().is_none_or(|ip| Family::of(ip) == family)
    }
}

impl fmt::Display for TrackerUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = match self.scheme {
            Scheme::Http => "http",
            Scheme::Https => "https",
            Scheme::Udp => "udp",
        };
        write!(f, "{scheme}://{}", self.host())?;
        let implied = matches!((self.scheme, self.port), (Scheme::Http, 80) | (Scheme::Https, 443));
        if implied { Ok(()) } else { write!(f, ":{}", self.port) }
    }
}

impl fmt::Debug for TrackerUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sound_urls() {
        for (text, shown, port) in [
            ("http://tracker.example/announce?passkey=SECRET", "http://tracker.example", 80),
            ("https://tracker.example:8443/SECRET/announce", "https://tracker.example:8443", 8443),
            ("udp://tracker.example:80", "udp://tracker.example:80", 80),
            ("UDP://Tracker.Example:1337/announce", "udp://tracker.example:1337", 1337),
            (" udp://[2001:db8::1]:6969/announce\n", "udp://[2001:db8::1]:6969", 6969),
            ("http://user:SECRET@10.0.0.1:1/announce", "http://10.0.0.1:1", 1),
            ("http://bücher.example/announce", "http://xn--bcher-kva.example", 80),
            ("udp://0x7f.1:9/announce", "udp://127.0.0.1:9", 9),
            // Row 32 of docs/bug-classes.md: a Cyrillic а is not taken for a Latin one by whoever reads it.
            ("https://p\u{430}ypal.example/announce", "https://xn--pypal-4ve.example", 443),
            ("udp://xn--pypal-4ve.example:1", "udp://xn--pypal-4ve.example:1", 1),
        ] {
            let url = TrackerUrl::parse(text).unwrap();
            assert_eq!((url.to_string().as_str(), url.port()), (shown, port));
            assert!(!format!("{url:?}").contains("SECRET"));
        }
        let mapped = TrackerUrl::parse("http://[::ffff:127.0.0.1]/announce").unwrap();
        assert!(mapped.may_have(Family::V4) && !mapped.may_have(Family::V6));
    }

    #[test]
    fn refused_urls() {
        let long = format!("http://h/{}", "a".repeat(MAX_LEN));
        for text in [
            "",
            "http",
            "http://",
            "udp://host/announce",
            "udp://host:0/",
            "wss://h/",
            "file:///etc/passwd",
            "http://h:99999/",
            "http://h/announce?info_hash=x",
            "http://h/?a=b&EVENT=stopped",
            "javascript://x",
            // No name is written so.
            "http://xn--pypal-4v\u{e9}.example/",
            "http://xn--a/",
            "http://a\u{200d}b\u{202e}.example/",
            &long,
        ] {
            assert!(TrackerUrl::parse(text).is_err(), "{text}");
        }
    }
}
