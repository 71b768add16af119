//! A proxy between us and everybody: everything goes through it, and nothing past it.

use std::collections::BTreeSet;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use gannet::base::PeerId;
use gannet::metainfo::Format;
use gannet::net::egress::Egress;
use gannet::net::mini_tracker::{MiniTracker, MiniTrackerConfig};
use gannet::net::proxy::Proxy;
use gannet::net::tracker::{TrackerClient, TrackerClientConfig};
use gannet::net::udp::UdpHub;
use gannet::session::{Config, Encryption, Session, State};
use gannet::tracker::{Announce, AnnounceEvent, Family, TrackerError, TrackerUrl};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::sync::Notify;

use crate::fake::{Ear, Hello};
use crate::lab::{Lab, MIB, PATIENCE, Payload, SOON, done, loopback, until, within};

/// Names that only the proxy knows end in this; nobody else ever will.
const HIDDEN: &str = ".invalid";

const LOGIN: (&str, &str) = ("me+you", "S:e/c&ret");

/// How the proxy behaves.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Socks5,
    /// With user and password.
    Socks5Login,
    /// Lets nobody through.
    Socks5Closed,
    Http,
}

/// A proxy on loopback that keeps a list of what it was asked for. Every hidden name is this machine.
struct TestProxy {
    address: SocketAddr,
    asked: Arc<Mutex<BTreeSet<String>>>,
    /// Takes back the relays that it has given.
    take_back: Arc<Notify>,
}

impl TestProxy {
    async fn start(kind: Kind) -> Self {
        let listener = TcpListener::bind(loopback()).await.unwrap();
        let address = listener.local_addr().unwrap();
        let asked = Arc::new(Mutex::new(BTreeSet::new()));
        let take_back = Arc::new(Notify::new());
        let (book, over) = (asked.clone(), take_back.clone());
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (book, over) = (book.clone(), over.clone());
                tokio::spawn(async move {
                    // Clients that leave in the middle are what clients do.
                    let _ = if kind == Kind::Http {
                        http(stream, &book).await
                    } else {
                        socks(stream, kind, &book, &over).await
                    };
                });
            }
        });
        Self { address, asked, take_back }
    }

    fn egress(&self, scheme: &str, login: &str) -> Egress {
        let proxy = Proxy::parse(&format!("{scheme}://{login}{}", self.address)).unwrap();
        Egress::new(None, Some(proxy), Vec::new())
    }

    fn asked(&self, what: &str) -> bool {
        self.asked.lock().unwrap().contains(what)
    }
}

fn resolve(host: &str, port: u16) -> io::Result<SocketAddr> {
    let hidden = host.ends_with(HIDDEN).then_some(IpAddr::V4(Ipv4Addr::LOCALHOST));
    let ip = hidden.or_else(|| host.parse().ok()).ok_or(io::ErrorKind::NotFound)?;
    Ok(SocketAddr::new(ip, port))
}

async fn read_target(stream: &mut TcpStream) -> io::Result<(String, u16)> {
    let host = match stream.read_u8().await? {
        1 => Ipv4Addr::from(stream.read_u32().await?).to_string(),
        4 => std::net::Ipv6Addr::from(stream.read_u128().await?).to_string(),
        _ => {
            let mut name = vec![0; stream.read_u8().await?.into()];
            stream.read_exact(&mut name).await?;
            String::from_utf8(name).unwrap()
        }
    };
    Ok((host, stream.read_u16().await?))
}

async fn socks(mut stream: TcpStream, kind: Kind, asked: &Mutex<BTreeSet<String>>, over: &Notify) -> io::Result<()> {
    assert_eq!(stream.read_u8().await?, 5);
    let mut methods = vec![0; stream.read_u8().await?.into()];
    stream.read_exact(&mut methods).await?;
    if kind == Kind::Socks5Login {
        if !methods.contains(&2) {
            return stream.write_all(&[5, 0xff]).await;
        }
        stream.write_all(&[5, 2]).await?;
        assert_eq!(stream.read_u8().await?, 1);
        let mut text = async || -> io::Result<String> {
            let mut text = vec![0; stream.read_u8().await?.into()];
            stream.read_exact(&mut text).await?;
            Ok(String::from_utf8(text).unwrap())
        };
        let right = (text().await?, text().await?) == (LOGIN.0.to_owned(), LOGIN.1.to_owned());
        stream.write_all(&[1, u8::from(!right)]).await?;
        if !right {
            return Ok(());
        }
    } else {
        stream.write_all(&[5, 0]).await?;
    }
    let mut head = [0; 3];
    stream.read_exact(&mut head).await?;
    let (host, port) = read_target(&mut stream).await?;
    if head[1] == 3 {
        return relay(stream, asked, over).await;
    }
    asked.lock().unwrap().insert(format!("connect {host}:{port}"));
    let other = match kind {
        Kind::Socks5Closed => Err(io::ErrorKind::PermissionDenied.into()),
        _ => async { TcpStream::connect(resolve(&host, port)?).await }.await,
    };
    let Ok(mut other) = other else { return stream.write_all(&[5, 5, 0, 1, 0, 0, 0, 0, 0, 0]).await };
    stream.write_all(&[5, 0, 0, 1, 127, 0, 0, 1, 0, 9]).await?;
    copy_bidirectional(&mut stream, &mut other).await.map(drop)
}

/// Passes datagrams on until the client hangs up. Says that it is at 0.0.0.0, as some do.
async fn relay(mut control: TcpStream, asked: &Mutex<BTreeSet<String>>, over: &Notify) -> io::Result<()> {
    let (inside, outside) = (UdpSocket::bind(loopback()).await?, UdpSocket::bind(loopback()).await?);
    let mut reply = vec![5, 0, 0, 1, 0, 0, 0, 0];
    reply.extend(inside.local_addr()?.port().to_be_bytes());
    control.write_all(&reply).await?;
    let (mut in_buffer, mut out_buffer) = ([0; 2048], [0; 2048]);
    let mut client = None;
    loop {
        tokio::select! {
            _ = control.read_u8() => return Ok(()),
            () = over.notified() => return Ok(()),
            received = inside.recv_from(&mut in_buffer) => {
                let (len, from) = received?;
                client = Some(from);
                let datagram = &in_buffer[..len];
                assert_eq!(datagram[..3], [0, 0, 0]);
                let (host, rest) = match datagram[3] {
                    1 => (Ipv4Addr::from(<[u8; 4]>::try_from(&datagram[4..8]).unwrap()).to_string(), &datagram[8..]),
                    3 => {
                        let end = 5 + usize::from(datagram[4]);
                        (String::from_utf8(datagram[5..end].to_vec()).unwrap(), &datagram[end..])
                    }
                    other => panic!("address of type {other}"),
                };
                let port = u16::from_be_bytes([rest[0], rest[1]]);
                asked.lock().unwrap().insert(format!("datagram {host}:{port}"));
                outside.send_to(&rest[2..], resolve(&host, port)?).await?;
            }
            received = outside.recv_from(&mut out_buffer) => {
                let (len, from) = received?;
                let (SocketAddr::V4(from), Some(client)) = (from, client) else { continue };
                let mut datagram = vec![0, 0, 0, 1];
                datagram.extend(from.ip().octets());
                datagram.extend(from.port().to_be_bytes());
                datagram.extend(&out_buffer[..len]);
                inside.send_to(&datagram, client).await?;
            }
        }
    }
}

/// CONNECT, and GET with a whole URL.
async fn http(mut stream: TcpStream, asked: &Mutex<BTreeSet<String>>) -> io::Result<()> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await?);
    }
    let head = String::from_utf8(head).unwrap();
    let (method, rest) = head.split_once(' ').unwrap();
    let (target, rest) = rest.split_once(' ').unwrap();
    // "me+you:S:e/c&ret"
    if !head.to_ascii_lowercase().contains("proxy-authorization: basic bwurew91olm6zs9jjnjlda==") {
        return stream.write_all(b"HTTP/1.1 407 Who are you?\r\nContent-Length: 0\r\n\r\n").await;
    }
    let authority = if method == "CONNECT" { target } else { target.strip_prefix("http://").unwrap() };
    let (authority, path) = authority.split_once('/').unwrap_or((authority, ""));
    asked.lock().unwrap().insert(format!("{} {authority}", method.to_ascii_lowercase()));
    let (host, port) = authority.rsplit_once(':').unwrap();
    let mut other = TcpStream::connect(resolve(host, port.parse().unwrap())?).await?;
    if method == "CONNECT" {
        // The head comes in two parts, and the peer's first bytes may come with the second.
        stream.write_all(b"HTTP/1.1 200 Connection established\r\nVia: 1.1 te").await?;
        tokio::task::yield_now().await;
        stream.write_all(b"st\r\n\r").await?;
        tokio::task::yield_now().await;
        let mut first = vec![b'\n'];
        let mut buffer = [0; 68];
        if let Ok(Ok(len)) = tokio::time::timeout(Duration::from_millis(20), other.read(&mut buffer)).await {
            first.extend(&buffer[..len]);
        }
        stream.write_all(&first).await?;
    } else {
        other.write_all(format!("GET /{path} {rest}").as_bytes()).await?;
    }
    copy_bidirectional(&mut stream, &mut other).await.map(drop)
}

async fn tracker() -> (MiniTracker, String) {
    let tracker = MiniTracker::start(MiniTrackerConfig::default()).await.unwrap();
    let url = format!("http://tracker{HIDDEN}:{}/announce", tracker.address().port());
    (tracker, url)
}

/// Peers and trackers through each kind of proxy; the names of trackers are for the proxy alone.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_download_through_each_kind_of_proxy() {
    let lab = Lab::new();
    for (kind, scheme, login) in [
        (Kind::Socks5, "socks5h", ""),
        (Kind::Socks5Login, "socks5h", "me+you:S%3Ae%2Fc%26ret@"),
        (Kind::Http, "http", "me+you:S%3Ae%2Fc%26ret@"),
    ] {
        let proxy = TestProxy::start(kind).await;
        let (tracker, url) = tracker().await;
        let name = format!("{scheme}{}", login.len());
        let payload = Payload::make(&name, None, &[(&name, MIB)], 1 << 16, Format::V1, &[&[url]]);
        let seeder = lab.seeder(&format!("{name}.seeder"), &payload).await;
        tracker.add_seeder(payload.wire_hash(), seeder.address());
        let leecher = lab
            .node_with(&format!("{name}.leecher"), |config| {
                config.listen.clear();
                config.egress = proxy.egress(scheme, login);
            })
            .await;
        assert_eq!(leecher.session.listen_addresses(), [], "nothing listens past the proxy");
        done(&leecher.get(&payload, &[]).await).await;
        payload.assert_in(&leecher.folder);
        assert!(proxy.asked(&format!("connect {}", seeder.address())));
        let verb = if kind == Kind::Http { "get" } else { "connect" };
        assert!(proxy.asked(&format!("{verb} tracker{HIDDEN}:{}", tracker.address().port())));
        until("the tracker has heard of the end", || tracker.counts(payload.wire_hash()).completed == 1).await;
    }
}

/// A proxy that lets nobody through, or is not there any more, is not gone around.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_goes_past_a_proxy_that_refuses() {
    let lab = Lab::new();
    let proxy = TestProxy::start(Kind::Socks5Closed).await;
    let ear = Ear::new().await;
    let payload = Payload::file("closed", MIB);
    let leecher = lab.node_with("leecher", |config| config.egress = proxy.egress("socks5", "")).await;
    // An address to listen at was named, and so peers may come to us.
    assert_eq!(leecher.session.listen_addresses().len(), 1);
    let torrent = leecher.get(&payload, &[ear.address]).await;
    until("the proxy was asked", || proxy.asked(&format!("connect {}", ear.address))).await;
    until("it runs", || torrent.status().state == State::Downloading).await;
    let called = tokio::time::timeout(Duration::from_millis(200), ear.accept(&Hello::new(&payload))).await;
    assert!(called.is_err(), "called past the proxy");
}

#[tokio::test]
async fn what_is_wrong_with_a_proxy_is_said_at_the_start() {
    let lab = Lab::new();
    let locked = TestProxy::start(Kind::Socks5Login).await;
    let nobody = TestProxy { address: Ear::new().await.address, asked: Arc::default(), take_back: Arc::default() };
    for (egress, why) in [
        (locked.egress("socks5h", "me:SECRET@"), "user or password is wrong"),
        (locked.egress("socks5h", ""), "wants user and password"),
        (nobody.egress("socks5", "me:SECRET@"), "refused"),
        (nobody.egress("http", "me:SECRET@"), "refused"),
    ] {
        let mut config = Config::new(lab.folder("state"));
        config.listen = vec![loopback()];
        config.egress = egress;
        let error = within(SOON, "an answer", Session::start(config)).await.err().unwrap().to_string();
        assert!(error.contains(why) && error.contains("proxy ") && !error.contains("SECRET"), "{error}");
    }
    let mut config = Config::new(lab.folder("state"));
    config.egress = Egress::new(Some("no-such-device".into()), None, Vec::new());
    let error = Session::start(config).await.err().unwrap().to_string();
    assert_eq!(error, "network device no-such-device: there is no such device");
}

/// A UDP tracker (BEP 15) that knows one peer.
async fn udp_tracker() -> SocketAddr {
    let socket = UdpSocket::bind(loopback()).await.unwrap();
    let address = socket.local_addr().unwrap();
    tokio::spawn(async move {
        let mut buffer = [0; 512];
        while let Ok((len, from)) = socket.recv_from(&mut buffer).await {
            assert!(len >= 16);
            let tid = &buffer[12..16];
            let answer = match buffer[11] {
                0 => [&[0, 0, 0, 0], tid, &[7; 8]].concat(),
                _ => [&[0, 0, 0, 1], tid, &[0, 0, 7, 8], &[0; 8], &[192, 0, 2, 9, 0x1a, 0xe1]].concat(),
            };
            socket.send_to(&answer, from).await.unwrap();
        }
    });
    address
}

#[tokio::test]
async fn udp_trackers_go_through_the_relay_or_not_at_all() {
    let tracker = udp_tracker().await;
    let announce = Announce {
        info_hash: [1; 20],
        peer_id: PeerId([2; 20]),
        port: 1,
        uploaded: 0,
        downloaded: 0,
        left: 1,
        event: AnnounceEvent::Started,
        numwant: 50,
        key: 3,
        tracker_id: None,
        ip: None,
    };
    let ask = async |egress: Egress, url: String, family| {
        let mut config = TrackerClientConfig::default();
        config.http.egress = egress;
        let url = TrackerUrl::parse(&url).unwrap();
        TrackerClient::new(config).announce_to(&url, family, &announce).await
    };
    let socks = TestProxy::start(Kind::Socks5Login).await;
    let egress = |scheme: &str| socks.egress(scheme, "me+you:S%3Ae%2Fc%26ret@");
    let (by_name, by_address) = (format!("udp://t{HIDDEN}:{}", tracker.port()), format!("udp://{tracker}"));
    for (scheme, url, seen) in [
        ("socks5h", &by_name, format!("datagram t{HIDDEN}:{}", tracker.port())),
        ("socks5", &by_address, format!("datagram {tracker}")),
    ] {
        let answer = within(SOON, "an answer", ask(egress(scheme), url.clone(), Family::V4)).await.unwrap();
        assert_eq!(answer.peers, ["192.0.2.9:6881".parse().unwrap()]);
        assert!(socks.asked(&seen), "{seen}");
    }
    // With names looked up here, this one has none; once is enough for both families; and HTTP proxies have no relay.
    let lookup = ask(egress("socks5"), by_name, Family::V4).await;
    assert!(matches!(lookup, Err(TrackerError::Lookup(_))), "{lookup:?}");
    let twice = ask(egress("socks5h"), by_address.clone(), Family::V6).await;
    assert_eq!(twice.unwrap_err(), TrackerError::NoAddress(Family::V6));
    let http = TestProxy::start(Kind::Http).await;
    let none = ask(http.egress("http", ""), by_address, Family::V4).await;
    assert!(none.unwrap_err().to_string().contains("HTTP proxy"));
}

/// uTP goes through the relay, in packets that are shorter by its headers; past a proxy that has none there is no uTP.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn utp_goes_through_the_relay_or_not_at_all() {
    let lab = Lab::new();
    let payload = Payload::file("data", 3 * MIB);
    let seeder = lab.node_with("seeder", |config| config.tcp = false).await;
    seeder.seed(&payload).await;
    for (kind, scheme, encryption) in
        [(Kind::Socks5, "socks5h", Encryption::Off), (Kind::Socks5, "socks5h", Encryption::Require)]
    {
        let proxy = TestProxy::start(kind).await;
        let set = |config: &mut Config| {
            config.listen.clear();
            config.egress = proxy.egress(scheme, "");
            config.encryption = encryption;
        };
        let leecher = lab.node_with(&format!("leecher {encryption:?}"), set).await;
        assert_eq!(leecher.session.listen_addresses(), [], "nothing listens past the proxy");
        done(&leecher.get(&payload, &[seeder.address()]).await).await;
        payload.assert_in(&leecher.folder);
        assert!(proxy.asked(&format!("datagram {}", seeder.address())));
        leecher.stop().await;
    }
    let proxy = TestProxy::start(Kind::Http).await;
    let session = lab.node_with("http", |config| config.egress = proxy.egress("http", "")).await;
    assert!(session.session.udp().is_none());
    session.stop().await;
    seeder.stop().await;
}

/// What uTP and the DHT share goes through the relay, and through the next one when that is taken back.
#[tokio::test]
async fn the_shared_udp_port_is_the_relay() {
    let proxy = TestProxy::start(Kind::Socks5).await;
    let hub = UdpHub::start_relayed(&proxy.egress("socks5h", ""), false).await.unwrap();
    assert_eq!(hub.addresses(), [], "where it is to others, nobody knows");
    let mut packets = hub.dht_packets().unwrap();
    let node = UdpSocket::bind(loopback()).await.unwrap();
    let at = node.local_addr().unwrap();
    let mut buffer = [0; 64];
    for round in 0..2u8 {
        let question = [b'd', round];
        let asked = async {
            loop {
                // Until there is a relay, what is sent is lost.
                let _ = hub.send_to(at, &question);
                let heard = tokio::time::timeout(Duration::from_millis(20), node.recv_from(&mut buffer)).await;
                match heard.map(Result::unwrap) {
                    Ok((2, from)) if buffer[..2] == question => break from,
                    _ => {}
                }
            }
        };
        let from = within(PATIENCE, "a datagram", asked).await;
        assert!(proxy.asked(&format!("datagram {at}")));
        node.send_to(b"d1:xe", from).await.unwrap();
        let packet = within(PATIENCE, "the answer", packets.recv()).await.unwrap();
        assert_eq!((packet.route.remote, &packet.bytes[..]), (at, &b"d1:xe"[..]), "{round}");
        hub.answer(&packet.route, b"d1:ye").unwrap();
        let back = async {
            let mut buffer = [0; 64];
            while buffer[..5] != *b"d1:ye" {
                node.recv(&mut buffer).await.unwrap();
            }
        };
        within(PATIENCE, "the answer to that", back).await;
        proxy.take_back.notify_waiters();
        until("it is noticed", || hub.send_to(at, b"de").is_err()).await;
    }
    // Only the relay is listened to: a datagram that comes by another way is not unwrapped. There is no relay now.
    assert_eq!(hub.send_to(at, b"de").unwrap_err().kind(), io::ErrorKind::NotConnected);
}
