//! Addresses of web seeds, and those of what they have.

use std::fmt::{self, Write as _};
use std::ops::Range;

use url::Url;

use super::optional::usable_url;
use super::{File, Info};

/// Schemes that web seeds are asked by. Torrents name `ftp`, too; it has no ranges.
const SCHEMES: &[&str] = &["http", "https"];

/// Where a web seed is, and what it speaks.
#[derive(Clone, PartialEq, Eq)]
pub struct WebSeedUrl {
    speaks: Speaks,
    /// As it stands in the torrent.
    text: String,
    /// Scheme, host and port.
    shown: String,
}

/// What a web seed speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Speaks {
    /// Plain HTTP: a server of files that knows nothing of torrents (BEP 19, GetRight).
    Files,
    /// A script that is asked for pieces (BEP 17, Hoffman).
    Pieces,
}

impl WebSeedUrl {
    /// An entry of `url-list`, of `httpseeds`, or of a magnet link's `ws`; none if it is no address that can be asked.
    pub fn parse(text: &str, speaks: Speaks) -> Option<Self> {
        let text = usable_url(text, SCHEMES)?;
        // What follows `#` is never sent.
        let text = text.split('#').next().unwrap_or_default().to_owned();
        let url = Url::parse(&text).ok()?;
        let port = url.port().map(|port| format!(":{port}")).unwrap_or_default();
        let shown = format!("{}://{}{port}", url.scheme(), url.host()?);
        Some(Self { speaks, text, shown })
    }

    /// What it speaks.
    pub fn speaks(&self) -> Speaks {
        self.speaks
    }

    /// Whether it has a query (`?...`) of its own: then it is not just the name of a file or folder.
    pub fn has_query(&self) -> bool {
        self.text.contains('?')
    }

    /// Where `file` of `info` is (BEP 19): of a single-file torrent the address itself, or, if that ends in a slash, the
    /// torrent's name below it; of others the torrent's name and the file's path below it. `None` for a path that no
    /// address can have.
    pub fn file(&self, info: &Info, file: &File) -> Option<Url> {
        let mut text = self.text.clone();
        if info.is_single_file() {
            if text.ends_with('/') {
                push_component(&mut text, info.raw_name())?;
            }
        } else {
            if !text.ends_with('/') {
                text.push('/');
            }
            push_component(&mut text, info.raw_name())?;
            for component in file.raw_components() {
                text.push('/');
                push_component(&mut text, component)?;
            }
        }
        Url::parse(&text).ok()
    }

    /// Where bytes of `piece` are (BEP 17): those of `ranges`, or all of them if there is no range.
    pub fn piece(&self, info_hash: &[u8; 20], piece: u32, ranges: &[Range<u32>]) -> Option<Url> {
        let mut text = self.text.clone();
        text.push_str(if self.has_query() { "&info_hash=" } else { "?info_hash=" });
        escape(&mut text, info_hash);
        let _ = write!(text, "&piece={piece}");
        for (n, range) in ranges.iter().filter(|range| !range.is_empty()).enumerate() {
            let before = if n == 0 { "&ranges=" } else { "," };
            let _ = write!(text, "{before}{}-{}", range.start, range.end - 1);
        }
        Url::parse(&text).ok()
    }
}

/// Scheme, host and port; never the path or query, which may hold a passkey.
impl fmt::Display for WebSeedUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.shown)
    }
}

impl fmt::Debug for WebSeedUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// One component of a path. `.` and `..` would be resolved away, escaped or not.
fn push_component(text: &mut String, component: &[u8]) -> Option<()> {
    if matches!(component, b"" | b"." | b"..") {
        return None;
    }
    escape(text, component);
    Some(())
}

/// Everything but letters, digits and `-._~` as `%XX` (RFC 3986, section 2.3): servers do not agree on `+`, `;` and `&`.
fn escape(text: &mut String, bytes: &[u8]) {
    for &byte in bytes {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            text.push(char::from(byte));
        } else {
            let _ = write!(text, "%{byte:02X}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metainfo::{Builder, Format, Metainfo, SourceFile};

    fn info(builder: Builder) -> Info {
        let mut builder = builder;
        builder.format = Format::V1;
        builder.piece_length = Some(1 << 20);
        let plan = builder.plan().unwrap();
        let hashes: Vec<_> = plan.pieces().map(|_| [0; 20]).collect();
        Metainfo::parse(&plan.finish(&hashes, &[]).unwrap()).unwrap().info
    }

    fn files(url: &str) -> Option<WebSeedUrl> {
        WebSeedUrl::parse(url, Speaks::Files)
    }

    #[test]
    fn a_single_file() {
        let info = info(Builder::file("a b+ü.iso", 5));
        for (url, expected) in [
            ("http://h/x/", "http://h/x/a%20b%2B%C3%BC.iso"),
            ("http://h/x/other.iso", "http://h/x/other.iso"),
            ("https://h:8443/get?file=1", "https://h:8443/get?file=1"),
            ("http://h/x%20y#part", "http://h/x%20y"),
            ("http://h", "http://h/"),
        ] {
            let url = files(url).unwrap();
            assert_eq!(url.file(&info, &info.files()[0]).unwrap().as_str(), expected);
        }
    }

    #[test]
    fn many_files() {
        let sources = [["a", "50%.txt"], ["ä", "x;y&z"]].map(|path| SourceFile::new(path, 7)).to_vec();
        let info = info(Builder::folder("the folder", sources));
        let all = |url: &str| -> Vec<String> {
            let url = files(url).unwrap();
            info.files().iter().map(|file| url.file(&info, file).unwrap().into()).collect()
        };
        let expected = ["http://h/p/the%20folder/a/50%25.txt", "http://h/p/the%20folder/%C3%A4/x%3By%26z"];
        assert_eq!(all("http://h/p/"), expected);
        assert_eq!(all("http://h/p"), expected);
        assert_eq!(all("http://h")[0], "http://h/the%20folder/a/50%25.txt");
    }

    /// What leads elsewhere than below the server's folder has no address.
    #[test]
    fn paths_that_climb() {
        let file = |path: &str| format!("d6:lengthi1e4:path{path}e");
        let files: String = ["l2:..1:xe", "l6:%2e%2e1:xe", "l1:y1:.e", "l3:a/be"].map(file).concat();
        let hash = "a".repeat(20);
        let bytes = format!("d4:infod5:filesl{files}e4:name1:n12:piece lengthi16384e6:pieces20:{hash}ee");
        let info = Metainfo::parse(bytes.as_bytes()).unwrap().info;
        let url = self::files("http://h/p/").unwrap();
        let found: Vec<_> = info.files().iter().map(|file| url.file(&info, file).map(String::from)).collect();
        let expected = |path: &str| Some(format!("http://h/p/n/{path}"));
        assert_eq!(found, [None, expected("%252e%252e/x"), None, expected("a%2Fb")]);
    }

    #[test]
    fn pieces() {
        let url = |text: &str| WebSeedUrl::parse(text, Speaks::Pieces).unwrap();
        let mut hash = [b'a'; 20];
        hash[..3].copy_from_slice(b"\0 &");
        let piece = |text: &str, ranges: &[Range<u32>]| url(text).piece(&hash, 8, ranges).unwrap().to_string();
        let start = "http://h/seed.php?info_hash=%00%20%26aaaaaaaaaaaaaaaaa&piece=8";
        assert_eq!(piece("http://h/seed.php", &[]), start);
        let ranges = [49_152..131_072, 5..5, 180_224..262_144];
        assert_eq!(piece("http://h/seed.php", &ranges), format!("{start}&ranges=49152-131071,180224-262143"));
        assert!(piece("http://h/?k=1", &[]).starts_with("http://h/?k=1&info_hash="));
    }

    #[test]
    fn what_can_be_asked() {
        for text in ["ftp://h/x", "file:///etc/passwd", "http://", "udp://h:1", "h/x", "", "http://h:0/"] {
            assert_eq!(files(text), None, "{text}");
        }
        let url = files(" https://user:secret@h.example:8443/key/?passkey=1 ").unwrap();
        assert_eq!((url.to_string(), url.has_query()), ("https://h.example:8443".to_owned(), true));
    }
}
