//! Web and tracker addresses, shown without what may be secret in them.

use url::Url;

use crate::base::printable;

/// Paths that are on every tracker and hold no passkey.
const HARMLESS_PATHS: [&str; 5] = ["", "/", "/announce", "/announce.php", "/scrape"];

/// Scheme, host and port of an address. Its path only if it is one that everybody uses; never user, query or fragment:
/// all those may hold a passkey, and people paste what programs print.
pub(super) fn public_part(address: &str) -> String {
    let Ok(url) = Url::parse(address) else { return "(not an address)".to_owned() };
    let host = url.host_str().unwrap_or("");
    let port = url.port().map(|p| format!(":{p}")).unwrap_or_default();
    let path = if HARMLESS_PATHS.contains(&url.path()) && url.query().is_none() { url.path() } else { "/..." };
    printable(&format!("{}://{host}{port}{path}", url.scheme()))
}

/// An address of data: its path is shown, as it is no secret but says what is there.
pub(super) fn data_address(address: &str) -> String {
    let Ok(mut url) = Url::parse(address) else { return "(not an address)".to_owned() };
    // Where there is no host there is neither a name nor a password.
    let _ = url.set_username("").and_then(|()| url.set_password(None));
    url.set_query(url.query().map(|_| "..."));
    url.set_fragment(None);
    printable(url.as_str())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_stay_inside() {
        for (address, want) in [
            ("http://t.example/announce", "http://t.example/announce"),
            ("https://t.example:8443/SECRET/announce", "https://t.example:8443/..."),
            ("http://t.example/announce?passkey=SECRET", "http://t.example/..."),
            ("udp://t.example:6969", "udp://t.example:6969"),
            ("http://user:SECRET@t.example/", "http://t.example/"),
            ("http://[2001:db8::1]:6969/announce", "http://[2001:db8::1]:6969/announce"),
            ("SECRET", "(not an address)"),
        ] {
            assert_eq!(public_part(address), want);
        }
        for (address, want) in [
            ("http://me:SECRET@w.example/pub/a%20b", "http://w.example/pub/a%20b"),
            ("https://SECRET@w.example/?k=SECRET#SECRET", "https://w.example/?..."),
            ("SECRET", "(not an address)"),
        ] {
            assert_eq!(data_address(address), want);
        }
    }
}
