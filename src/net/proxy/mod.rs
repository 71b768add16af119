//! What may stand between us and everybody: SOCKS5 and HTTP proxies.
//!
//! For: connections and datagrams by way of a proxy, and nothing past it.
//! Must not know: what is said through it.
//! Main types: [`Proxy`], [`Lease`]. RFCs: 1928, 1929, 9110 (CONNECT).

pub mod relay;
mod socks5;

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use base64::Engine as _;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use url::{Host, Url};

use super::egress::Egress;
use crate::tracker::printable;
use relay::Lease;
pub use socks5::Target;
use socks5::{Command, MAX_TEXT};
pub(super) use socks5::{MAX_UDP_HEADER, unwrap, wrap};

/// How long a proxy may take, from our first packet to the end of its answer: it opens a connection of its own meanwhile.
const TIMEOUT: Duration = Duration::from_secs(20);

/// Bytes of the head of an HTTP proxy's answer.
const MAX_HEAD: usize = 8 << 10;

/// Which protocol it speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// SOCKS5, names looked up here.
    Socks5,
    /// SOCKS5, names looked up by the proxy.
    Socks5h,
    /// HTTP, by CONNECT; names looked up by the proxy.
    Http,
}

/// A proxy. It is shown without user and password.
#[derive(Clone, PartialEq, Eq)]
pub struct Proxy {
    kind: Kind,
    url: Url,
    host: String,
    port: u16,
    /// User and password.
    login: Option<(Vec<u8>, Vec<u8>)>,
}

impl Proxy {
    /// `socks5://`, `socks5h://` or `http://`, `[USER:PASSWORD@]HOST[:PORT]`.
    ///
    /// # Errors
    /// What is wrong with it, in words that do not repeat it.
    pub fn parse(text: &str) -> Result<Self, String> {
        let url = Url::parse(text).map_err(|e| format!("not an address of a proxy: {e}"))?;
        let (kind, usual_port) = match url.scheme() {
            "socks5" => (Kind::Socks5, 1080),
            "socks5h" => (Kind::Socks5h, 1080),
            "http" => (Kind::Http, 80),
            other => return Err(format!("{other}: proxies are socks5://, socks5h:// or http://")),
        };
        // To this parser hosts of unknown schemes are just text.
        let host = match url.host() {
            Some(Host::Ipv6(ip)) => ip.to_string(),
            Some(host) if !host.to_string().is_empty() => host.to_string(),
            _ => return Err("a proxy needs a host, such as socks5h://127.0.0.1:1080".to_owned()),
        };
        if !matches!(url.path(), "" | "/") || url.query().is_some() || url.fragment().is_some() {
            return Err("nothing may follow the port of a proxy".to_owned());
        }
        let decoded = |text: &str| percent_encoding::percent_decode_str(text).collect::<Vec<u8>>();
        let login = match (url.username(), url.password()) {
            ("", None) => None,
            (user, password) => Some((decoded(user), decoded(password.unwrap_or("")))),
        };
        if login.as_ref().is_some_and(|(user, password)| user.len() > MAX_TEXT || password.len() > MAX_TEXT) {
            return Err("user and password may have 255 bytes each".to_owned());
        }
        Ok(Self { kind, host, port: url.port().unwrap_or(usual_port), login, url })
    }

    /// Whether it has a relay for UDP. SOCKS5 does, though not every server.
    pub fn relays_udp(&self) -> bool {
        self.kind != Kind::Http
    }

    /// Whether names are looked up by the proxy, and never here.
    pub fn looks_up_names(&self) -> bool {
        self.kind != Kind::Socks5
    }

    /// For a client of HTTP: the proxy's URL with an address in it, so that the client looks up nothing.
    ///
    /// # Errors
    /// If the proxy's name cannot be looked up.
    pub(super) async fn url_with_address(&self, egress: &Egress) -> io::Result<Url> {
        let address = self.address(egress).await?;
        let mut url = self.url.clone();
        let host = match address {
            SocketAddr::V4(v4) => v4.ip().to_string(),
            SocketAddr::V6(v6) => format!("[{}]", v6.ip()),
        };
        url.set_host(Some(&host)).map_err(io::Error::other)?;
        url.set_port(Some(address.port())).map_err(|()| io::Error::other("no port"))?;
        Ok(url)
    }

    pub(super) async fn address(&self, egress: &Egress) -> io::Result<SocketAddr> {
        egress.proxy_address(&self.host, self.port).await
    }

    /// Whether the proxy is there and lets us in, as far as that can be known without asking it for anything.
    pub(super) async fn check(&self, egress: &Egress) -> io::Result<()> {
        self.within(async {
            let mut stream = egress.connect_directly(self.address(egress).await?).await?;
            if self.kind == Kind::Http { Ok(()) } else { self.log_in(&mut stream).await }
        })
        .await
    }

    pub(super) async fn connect(&self, egress: &Egress, to: SocketAddr) -> io::Result<TcpStream> {
        self.within(async {
            let mut stream = egress.connect_directly(self.address(egress).await?).await?;
            if self.kind == Kind::Http {
                self.http_connect(&mut stream, to).await?;
            } else {
                self.log_in(&mut stream).await?;
                request(&mut stream, Command::Connect, Target::Ip(to)).await?;
            }
            Ok(stream)
        })
        .await
    }

    pub(super) async fn lease(&self, egress: &Egress) -> io::Result<Lease> {
        if !self.relays_udp() {
            return Err(self.blame(&io::Error::new(io::ErrorKind::Unsupported, "HTTP proxies relay no UDP")));
        }
        self.within(async {
            let at = self.address(egress).await?;
            let mut control = egress.connect_directly(at).await?;
            self.log_in(&mut control).await?;
            // Where our datagrams will come from is the proxy's affair: address translation may change it.
            let any = if at.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" }.parse().map_err(io::Error::other)?;
            let relay = request(&mut control, Command::UdpAssociate, Target::Ip(any)).await?;
            let none = || io::Error::new(io::ErrorKind::InvalidData, "it names no relay");
            let mut relay = relay.filter(|relay| relay.port() != 0).ok_or_else(none)?;
            if relay.ip().is_unspecified() {
                relay.set_ip(at.ip());
            }
            Ok(Lease::new(control, relay))
        })
        .await
    }

    async fn within<T>(&self, exchange: impl Future<Output = io::Result<T>>) -> io::Result<T> {
        let done = tokio::time::timeout(TIMEOUT, exchange).await;
        done.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into())).map_err(|e| self.blame(&e))
    }

    fn blame(&self, error: &io::Error) -> io::Error {
        io::Error::new(error.kind(), format!("proxy {self}: {error}"))
    }

    async fn log_in(&self, stream: &mut TcpStream) -> io::Result<()> {
        stream.write_all(&socks5::greeting(self.login.is_some())).await?;
        let mut answer = [0; 2];
        stream.read_exact(&mut answer).await?;
        if let (true, Some((user, password))) = (socks5::wants_login(answer, self.login.is_some())?, &self.login) {
            stream.write_all(&socks5::login(user, password)).await?;
            stream.read_exact(&mut answer).await?;
            socks5::logged_in(answer)?;
        }
        Ok(())
    }

    async fn http_connect(&self, stream: &mut TcpStream, to: SocketAddr) -> io::Result<()> {
        let login = self.login.as_ref().map(|(user, password)| {
            let both = [user, &b":"[..], password].concat();
            format!("Proxy-Authorization: Basic {}\r\n", base64::engine::general_purpose::STANDARD.encode(both))
        });
        let request = format!("CONNECT {to} HTTP/1.1\r\nHost: {to}\r\n{}\r\n", login.unwrap_or_default());
        stream.write_all(request.as_bytes()).await?;
        let head = read_head(stream).await?;
        let line = head.split(|b| *b == b'\r').next().unwrap_or_default();
        match line.strip_prefix(b"HTTP/1.").and_then(|rest| rest.get(1..)) {
            Some([b' ', b'2', _, _, ..]) => Ok(()),
            Some(status) => {
                let status = printable(status.trim_ascii(), 80);
                Err(io::Error::new(io::ErrorKind::PermissionDenied, format!("it answers {status}")))
            }
            None => Err(io::Error::new(io::ErrorKind::InvalidData, "it does not speak HTTP")),
        }
    }
}

/// Up to the empty line and not a byte further: what follows is the peer's.
async fn read_head(stream: &mut TcpStream) -> io::Result<Vec<u8>> {
    const END: &[u8] = b"\r\n\r\n";
    let mut head = Vec::new();
    let mut buffer = [0; 1024];
    loop {
        let seen = stream.peek(&mut buffer).await?;
        if seen == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let before = head.len();
        head.extend_from_slice(buffer.get(..seen).unwrap_or_default());
        // The end may begin in what came before.
        let from = before.saturating_sub(END.len() - 1);
        let end = head.get(from..).and_then(|new| new.windows(END.len()).position(|w| w == END));
        let len = end.map_or(head.len(), |at| from + at + END.len());
        head.truncate(len);
        let taken = buffer.get_mut(..len - before).unwrap_or_default();
        stream.read_exact(taken).await?;
        if end.is_some() {
            return Ok(head);
        }
        if head.len() > MAX_HEAD {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "its answer does not end"));
        }
    }
}

async fn request(stream: &mut TcpStream, command: Command, target: Target<'_>) -> io::Result<Option<SocketAddr>> {
    stream.write_all(&socks5::request(command, target)).await?;
    let mut prefix = [0; socks5::REPLY_PREFIX];
    stream.read_exact(&mut prefix).await?;
    let mut reply = prefix.to_vec();
    reply.resize(socks5::reply_len(prefix)?, 0);
    stream.read_exact(reply.get_mut(prefix.len()..).unwrap_or_default()).await?;
    socks5::parse_reply(&reply)
}

impl fmt::Display for Proxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let host = if self.host.contains(':') { format!("[{}]", self.host) } else { self.host.clone() };
        write!(f, "{}://{}:{}", self.url.scheme(), printable(host.as_bytes(), 255), self.port)
    }
}

impl fmt::Debug for Proxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;

    use super::*;

    #[test]
    fn addresses_of_proxies() {
        for (text, shown, udp, names) in [
            ("socks5://127.0.0.1", "socks5://127.0.0.1:1080", true, false),
            ("socks5h://proxy.example:9050/", "socks5h://proxy.example:9050", true, true),
            ("http://proxy.example", "http://proxy.example:80", false, true),
            ("http://u:p@[2001:db8::1]:3128", "http://[2001:db8::1]:3128", false, true),
        ] {
            let proxy = Proxy::parse(text).unwrap();
            assert_eq!(format!("{proxy} {proxy:?}"), format!("{shown} {shown}"));
            assert_eq!((proxy.relays_udp(), proxy.looks_up_names()), (udp, names), "{text}");
        }
        let login = |text: &str| Proxy::parse(text).unwrap().login;
        assert_eq!(login("socks5://a%40b:p+%2B%00@h"), Some((b"a@b".to_vec(), b"p++\0".to_vec())));
        assert_eq!(login("socks5://user@h"), Some((b"user".to_vec(), vec![])));
        let long = format!("socks5://u:{}@h", "x".repeat(256));
        for text in ["", "h:1", "socks5://", "socks4://h", "https://h", "http://h/x", "socks5://h?x", &long] {
            assert!(Proxy::parse(text).is_err(), "{text}");
        }
    }

    /// A connection, and its other end.
    async fn pair() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let near = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        (near, listener.accept().await.unwrap().0)
    }

    #[tokio::test]
    async fn a_head_ends_where_the_peer_begins() {
        // Cut after any byte, and with all the rest at once.
        let text = b"HTTP/1.1 200 OK\r\nA: b\r\n\r\nPEER";
        for cut in [0, 1, 20, 22, 23, 24, 25, 26, 29] {
            let (mut near, mut far) = pair().await;
            let head = async {
                far.write_all(&text[..cut]).await.unwrap();
                tokio::task::yield_now().await;
                far.write_all(&text[cut..]).await.unwrap();
            };
            let (read, ()) = tokio::join!(read_head(&mut near), head);
            assert_eq!(read.unwrap(), text[..text.len() - 4], "{cut}");
            let mut peer = [0; 4];
            near.read_exact(&mut peer).await.unwrap();
            assert_eq!(&peer, b"PEER");
        }
        let (mut near, mut far) = pair().await;
        let flood = tokio::spawn(async move { while far.write_all(&[b'x'; 512]).await.is_ok() {} });
        assert_eq!(read_head(&mut near).await.unwrap_err().kind(), io::ErrorKind::InvalidData);
        drop(near);
        flood.await.unwrap();
        let (mut near, far) = pair().await;
        drop(far);
        assert_eq!(read_head(&mut near).await.unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
    }
}
