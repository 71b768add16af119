//! Trackers over real sockets on loopback: good ones, and all the ways in which one can be bad. Ids such as T1 name rows of
//! the fault plan.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on says where")]

use std::io::Read as _;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use gannet::base::{InfoHash, InfoHashV1, PeerId};
use gannet::cli::scrape::{Scrape, run};
use gannet::net::egress::Egress;
use gannet::net::mini_tracker::{Counts, MiniTracker, MiniTrackerConfig};
use gannet::net::tracker::{TrackerClient, TrackerClientConfig};
use gannet::tracker::{
    Announce, AnnounceEvent, AnnounceResponse, Family, Schedule, ScheduleConfig, Totals, TrackerError, TrackerUrl,
};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream, UdpSocket};

const HASH: [u8; 20] = *b"\0\x01%&=+ #\xff\xfeabcdefghij";

/// Long enough for a busy machine, short enough to wait for.
const TIMEOUT: Duration = Duration::from_millis(700);

fn client() -> TrackerClient {
    let mut config = TrackerClientConfig::default();
    config.timeout = TIMEOUT;
    config.stop_timeout = Duration::from_millis(200);
    config.udp_first_timeout = Duration::from_millis(50);
    TrackerClient::new(config)
}

/// For what must succeed, however slow the machine.
fn patient_client() -> TrackerClient {
    let mut config = TrackerClientConfig::default();
    config.udp_first_timeout = Duration::from_millis(50);
    TrackerClient::new(config)
}

fn announce(event: AnnounceEvent) -> Announce {
    Announce {
        info_hash: HASH,
        peer_id: PeerId(*b"-GN0100-abcdefghijkl"),
        port: 6881,
        uploaded: 1,
        downloaded: 2,
        left: 3,
        event,
        numwant: 50,
        key: 4,
        tracker_id: None,
        ip: None,
    }
}

async fn ask(client: &TrackerClient, url: &str) -> Result<AnnounceResponse, TrackerError> {
    let tracker = TrackerUrl::parse(url)?;
    let result = client.announce_to(&tracker, Family::V4, &announce(AnnounceEvent::Started)).await;
    if let Err(error) = &result {
        assert!(!error.to_string().contains("SECRET"), "{error}");
    }
    result
}

/// A server that hands each connection, its request read, to `serve`; and the heads of the requests it saw.
async fn http<F, S>(serve: F) -> (SocketAddr, Arc<Mutex<Vec<String>>>)
where
    F: Fn(TcpStream) -> S + Send + 'static,
    S: Future<Output = ()> + Send + 'static,
{
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let heads = Arc::new(Mutex::new(Vec::new()));
    let seen = Arc::clone(&heads);
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                if stream.read_buf(&mut head).await.unwrap_or(0) == 0 {
                    break;
                }
            }
            seen.lock().unwrap().push(String::from_utf8_lossy(&head).into_owned());
            tokio::spawn(serve(stream));
        }
    });
    (address, heads)
}

/// A server that always says these bytes, and closes.
async fn says(bytes: Vec<u8>) -> (SocketAddr, Arc<Mutex<Vec<String>>>) {
    let bytes = Arc::new(bytes);
    http(move |mut stream| {
        let bytes = Arc::clone(&bytes);
        async move {
            let _ = stream.write_all(&bytes).await;
        }
    })
    .await
}

fn answer(status: &str, headers: &str, body: &[u8]) -> Vec<u8> {
    let length = body.len();
    [format!("HTTP/1.1 {status}\r\n{headers}Content-Length: {length}\r\n\r\n").as_bytes(), body].concat()
}

#[tokio::test]
async fn a_swarm_meets_at_the_mini_tracker() {
    let tracker = MiniTracker::start(MiniTrackerConfig::default()).await.unwrap();
    let (client, url) = (patient_client(), tracker.announce_url());
    let start = Instant::now();
    let config = |port| ScheduleConfig {
        info_hash: HASH,
        peer_id: PeerId([u8::from(port == 1); 20]),
        key: 1,
        port_v4: Some(port),
        port_v6: None,
        private: false,
    };
    let mut schedules = [1, 2].map(|port| Schedule::new(start, &[vec![url.clone()]], config(port), 1));
    let mut found = Vec::new();
    for (schedule, left) in schedules.iter_mut().zip([0, 100]) {
        let job = schedule.poll(start, Totals { left, ..Totals::default() }).unwrap();
        let answer = client.announce(&job).await;
        schedule.handle_result(start, job.id, answer.as_ref());
        found.push(answer.unwrap().peers);
    }
    assert_eq!(found, [vec![], vec!["127.0.0.1:1".parse().unwrap()]]);
    schedules[1].handle_completed(start);
    for _ in 0..2 {
        let job = schedules[1].poll(start, Totals::default()).unwrap();
        let answer = client.announce(&job).await;
        schedules[1].handle_result(start, job.id, answer.as_ref());
        schedules[1].stop();
    }
    assert!(schedules[1].is_stopped());
    let expected = Counts { seeders: 1, leechers: 0, started: 2, completed: 1, stopped: 1 };
    assert_eq!(tracker.counts(HASH), expected);
}

#[tokio::test]
async fn over_ipv6() {
    let mut config = MiniTrackerConfig::default();
    config.listen = "[::1]:0".parse().unwrap();
    // A machine may have no IPv6 at all.
    let Ok(tracker) = MiniTracker::start(config).await else { return };
    let url = TrackerUrl::parse(&tracker.announce_url()).unwrap();
    let client = patient_client();
    let said = announce(AnnounceEvent::Started);
    client.announce_to(&url, Family::V6, &said).await.unwrap();
    let other = Announce { port: 7, ..said.clone() };
    let peers = client.announce_to(&url, Family::V6, &other).await.unwrap().peers;
    assert_eq!(peers, ["[::1]:6881".parse().unwrap()]);
    assert_eq!(client.announce_to(&url, Family::V4, &said).await, Err(TrackerError::NoAddress(Family::V4)));
}

#[tokio::test]
async fn names_are_looked_up_in_the_family_asked_for() {
    let tracker = MiniTracker::start(MiniTrackerConfig::default()).await.unwrap();
    let url = format!("http://localhost:{}/announce", tracker.address().port());
    assert!(ask(&patient_client(), &url).await.is_ok());
    let udp = ask(&client(), "udp://no-such-name.invalid:1").await.unwrap_err();
    let http = ask(&client(), "http://no-such-name.invalid:1/SECRET/announce").await.unwrap_err();
    for error in [udp, http] {
        assert!(matches!(error, TrackerError::Lookup(_) | TrackerError::TimedOut(_)), "{error:?}");
    }
}

/// A name server that knows `here.example`, which is this machine, denies that there is `gone.example`, and says nothing of
/// others. `turn.example` is far away, and this machine whenever it is asked for again; `both.example` is both at once.
async fn name_server() -> SocketAddr {
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let address = socket.local_addr().unwrap();
    tokio::spawn(async move {
        let mut buffer = [0; 512];
        let mut turned = false;
        loop {
            let (len, from) = socket.recv_from(&mut buffer).await.unwrap();
            let query = &buffer[..len];
            let asked = |name: &[u8]| query.windows(name.len()).any(|part| part == name);
            // Behind the header: the name, two bytes of type, two of class.
            let question = &query[12..12 + query[12..].iter().position(|&byte| byte == 0).unwrap() + 5];
            let head =
                |rcode: u8, answers: u8| [&query[..2], &[0x81, 0x80 | rcode, 0, 1, 0, answers, 0, 0, 0, 0]].concat();
            let wants_v4 = question.ends_with(&[0, 1, 0, 1]);
            let record = |ip: [u8; 4]| [&[0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 0, 0, 4], &ip[..]].concat();
            let (far, near) = (record([192, 0, 2, 1]), record([127, 0, 0, 1]));
            let answer = if asked(b"\x04turn") && wants_v4 {
                let answer = [&head(0, 1), question, if turned { &near } else { &far }].concat();
                turned = true;
                answer
            } else if asked(b"\x04both") && wants_v4 {
                [&head(0, 2), question, &far, &near].concat()
            } else if asked(b"\x04gone") {
                [&head(3, 0), question].concat()
            } else if asked(b"\x04here") && wants_v4 {
                [&head(0, 1), question, &near].concat()
            } else if asked(b"\x04here") || asked(b"\x04turn") || asked(b"\x04both") {
                [&head(0, 0), question].concat()
            } else {
                continue;
            };
            socket.send_to(&answer, from).await.unwrap();
        }
    });
    address
}

/// Names that lead nowhere, to nobody in time, and to a service of this machine that is no tracker.
#[tokio::test]
async fn t7_names_that_lead_where_they_should_not() {
    let mut config = TrackerClientConfig::default();
    config.timeout = TIMEOUT;
    config.http.egress = Egress::new(None, None, vec![name_server().await]);
    let client = TrackerClient::new(config);
    let tracker = MiniTracker::start(MiniTrackerConfig::default()).await.unwrap();
    let port = tracker.address().port();
    let (stalled, none, ours) = tokio::join!(
        ask(&client, "http://silent.example/announce?SECRET"),
        ask(&client, "udp://gone.example:1/announce?SECRET"),
        // Others are not kept waiting.
        async {
            let began = Instant::now();
            (ask(&client, &tracker.announce_url()).await, began.elapsed())
        },
    );
    assert!(matches!(stalled, Err(TrackerError::TimedOut(_) | TrackerError::Lookup(_))), "{stalled:?}");
    assert!(matches!(none, Err(TrackerError::Lookup(_))), "{none:?}");
    assert!(ours.0.is_ok() && ours.1 < TIMEOUT, "{ours:?}");
    // Somebody's name for this machine is worth what its address is: a tracker may be there, and nothing else.
    let canary = TcpListener::bind("127.0.0.1:0").await.unwrap();
    for path in ["", "admin", "announce/../admin"] {
        let url = format!("http://here.example:{}/{path}?SECRET", canary.local_addr().unwrap().port());
        let error = ask(&client, &url).await.unwrap_err();
        assert!(matches!(error, TrackerError::Unsafe(_) | TrackerError::Lookup(_)), "{path}: {error:?}");
    }
    assert!(tokio::time::timeout(Duration::from_millis(50), canary.accept()).await.is_err(), "somebody knocked");
    let known = ask(&client, &format!("http://here.example:{port}/announce")).await;
    assert!(known.is_ok(), "{known:?}");
}

/// Row 30: a name that leads out at first and to this machine the next time (DNS rebinding), or to both at once, gains
/// nothing: each look-up is judged by itself, address by address.
#[tokio::test]
async fn b30_names_that_turn_inwards() {
    let mut config = TrackerClientConfig::default();
    config.timeout = TIMEOUT;
    config.http.egress = Egress::new(None, None, vec![name_server().await]);
    let client = TrackerClient::new(config);
    let canary = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = canary.local_addr().unwrap().port();
    // Nobody is at the address far away, which may show at once or when the time is up.
    let far = ask(&client, &format!("http://turn.example:{port}/admin?SECRET")).await.unwrap_err();
    assert!(matches!(far, TrackerError::TimedOut(_) | TrackerError::Unreachable(_)), "{far:?}");
    let near = ask(&client, &format!("http://turn.example:{port}/admin?SECRET")).await.unwrap_err();
    assert!(matches!(near, TrackerError::Unsafe(_)), "{near:?}");
    let both = ask(&client, &format!("http://both.example:{port}/admin?SECRET")).await.unwrap_err();
    assert!(matches!(both, TrackerError::TimedOut(_) | TrackerError::Unreachable(_)), "{both:?}");
    assert!(tokio::time::timeout(Duration::from_millis(50), canary.accept()).await.is_err(), "somebody knocked");
}

/// Row 31: what is for one server is told to no other that it redirects to.
#[tokio::test]
async fn b31_passwords_are_not_redirected() {
    let (other, of_other) = says(answer("200 OK", "", b"d8:intervali60e5:peers0:e")).await;
    let moved = format!("Location: http://{other}/announce\r\nSet-Cookie: a=SECRET\r\n");
    let (first, of_first) = says(answer("302 Found", &moved, b"")).await;
    ask(&patient_client(), &format!("http://me:SECRET@{first}/announce?passkey=SECRET")).await.unwrap();
    let head = of_first.lock().unwrap().concat().to_ascii_lowercase();
    // "me:SECRET"
    assert!(head.contains("authorization: basic bwu6u0vdukvu"), "{head}");
    let head = of_other.lock().unwrap().concat().to_ascii_lowercase();
    assert!(head.starts_with("get /announce http/1.1\r\n"), "{head}");
    for secret in ["authorization", "cookie", "referer", "secret"] {
        assert!(!head.contains(secret), "{secret}: {head}");
    }
}

#[tokio::test]
async fn what_is_sent() {
    let (address, heads) = says(answer("200 OK", "", b"d8:intervali60e5:peers0:e")).await;
    ask(&patient_client(), &format!("http://{address}/announce?passkey=%ffS")).await.unwrap();
    let head = heads.lock().unwrap()[0].clone();
    let query = "/announce?passkey=%ffS&info_hash=%00%01%25%26%3D%2B%20%23%FF%FEabcdefghij&peer_id=-GN0100-abcdefghijkl\
        &port=6881&uploaded=1&downloaded=2&left=3&compact=1&no_peer_id=1&numwant=50&key=00000004&event=started";
    assert!(head.starts_with(&format!("GET {query} HTTP/1.1\r\n")), "{head}");
    let head = head.to_ascii_lowercase();
    assert!(head.contains("user-agent: gannet/") && head.contains("accept-encoding: gzip"), "{head}");
}

#[tokio::test]
async fn t1_bad_answers() {
    let bomb = include_bytes!("../testdata/tracker/zeros-16MiB.gz");
    let failure = b"d14:failure reason12:unregisterede";
    type Check = fn(&TrackerError) -> bool;
    let cases: Vec<(&str, Vec<u8>, Check)> = vec![
        ("gzip bomb", answer("200 OK", "Content-Encoding: gzip\r\n", bomb), |e| matches!(e, TrackerError::TooLarge(_))),
        ("broken gzip", answer("200 OK", "Content-Encoding: gzip\r\n", b"\x1f\x8bxxxx"), |e| {
            matches!(e, TrackerError::Unreachable(_))
        }),
        ("bad chunk", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n-5\r\nxx\r\n".to_vec(), |e| {
            matches!(e, TrackerError::Unreachable(_))
        }),
        (
            "overflowing chunk",
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nfffffffffffffffff\r\nxx\r\n".to_vec(),
            |e| matches!(e, TrackerError::Unreachable(_)),
        ),
        ("short body", b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nde".to_vec(), |e| {
            matches!(e, TrackerError::Unreachable(_))
        }),
        ("bad length", b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\nde".to_vec(), |e| {
            matches!(e, TrackerError::Unreachable(_))
        }),
        ("not HTTP", b"220 mail.example ESMTP\r\n".to_vec(), |e| matches!(e, TrackerError::Unreachable(_))),
        ("nothing", Vec::new(), |e| matches!(e, TrackerError::Unreachable(_))),
        ("a web page", answer("200 OK", "", b"<html>"), |e| matches!(e, TrackerError::Body(_))),
        ("empty", answer("200 OK", "", b""), |e| matches!(e, TrackerError::Body(_))),
        ("204", answer("204 No Content", "", b""), |e| *e == TrackerError::Status(204)),
        ("410", answer("410 Gone", "", b"<html>"), |e| *e == TrackerError::Status(410)),
        ("500", answer("500 Oops", "", b""), |e| *e == TrackerError::Status(500)),
        ("refusal", answer("200 OK", "", failure), |e| matches!(e, TrackerError::Failure { .. })),
        ("refusal with a status", answer("403 Forbidden", "", failure), |e| matches!(e, TrackerError::Failure { .. })),
        ("redirect nowhere", answer("302 Found", "", b""), |e| matches!(e, TrackerError::Redirect(_))),
        ("redirect to ftp", answer("302 Found", "Location: ftp://x/announce\r\n", b""), |e| {
            matches!(e, TrackerError::Redirect(_))
        }),
        ("redirect loop", answer("301 Moved", "Location: /announce\r\n", b""), |e| {
            matches!(e, TrackerError::Redirect(_))
        }),
        ("redirect to another service", answer("302 Found", "Location: /admin?reboot\r\n", b""), |e| {
            matches!(e, TrackerError::Unsafe(_))
        }),
        ("redirect to cloud metadata", answer("307 x", "Location: http://169.254.169.254/announce\r\n", b""), |e| {
            matches!(e, TrackerError::Unsafe(_))
        }),
    ];
    for (name, bytes, check) in cases {
        let (address, heads) = says(bytes).await;
        let error = ask(&patient_client(), &format!("http://{address}/announce?SECRET")).await.unwrap_err();
        assert!(check(&error), "{name}: {error:?}");
        let heads = heads.lock().unwrap();
        assert!(heads.len() <= 6, "{name}: {} requests", heads.len());
        assert!(!heads.concat().to_ascii_lowercase().contains("referer"), "{name}");
    }
}

#[tokio::test]
async fn a_redirect_is_followed() {
    let tracker = MiniTracker::start(MiniTrackerConfig::default()).await.unwrap();
    let there = says(answer("302 Found", &format!("Location: {}\r\n", tracker.announce_url()), b"")).await.0;
    // The new address has no query, as a careless server says it: the tracker refuses, but was reached.
    let error = ask(&patient_client(), &format!("http://{there}/announce")).await.unwrap_err();
    assert!(matches!(error, TrackerError::Failure { .. }), "{error:?}");
}

#[tokio::test]
async fn t1_slow_and_endless_answers() {
    async fn drip(mut stream: TcpStream, bytes: &[u8]) {
        for byte in bytes {
            if stream.write_all(&[*byte]).await.is_err() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }
    let head = b"HTTP/1.1 200 OK\r\nContent-Length: 10000000000\r\n\r\n";
    let stall = http(|stream| async move {
        tokio::time::sleep(Duration::from_secs(60)).await;
        drop(stream);
    });
    let heads =
        http(
            |stream| async move { drip(stream, &[b"HTTP/1.1 200 OK\r\nX: ".as_slice(), &[b'x'; 1000]].concat()).await },
        );
    let bodies = http(move |mut stream| async move {
        let _ = stream.write_all(head).await;
        drip(stream, &[b'd'; 1000]).await;
    });
    for address in [stall.await.0, heads.await.0, bodies.await.0] {
        let begun = Instant::now();
        let error = ask(&client(), &format!("http://{address}/announce")).await.unwrap_err();
        assert_eq!(error, TrackerError::TimedOut(TIMEOUT));
        assert!(begun.elapsed() < Duration::from_secs(10));
    }

    // Ten gigabytes, said and unsaid: not more than a few megabytes of them are taken.
    for head in [head.as_slice(), b"HTTP/1.1 200 OK\r\n\r\n"] {
        let sent = Arc::new(Mutex::new(0usize));
        let count = Arc::clone(&sent);
        let endless = http(move |mut stream| {
            let count = Arc::clone(&count);
            async move {
                let _ = stream.write_all(head).await;
                while stream.write_all(&[b'd'; 65536]).await.is_ok() {
                    *count.lock().unwrap() += 65536;
                }
            }
        });
        let error = ask(&patient_client(), &format!("http://{}/announce", endless.await.0)).await.unwrap_err();
        assert_eq!(error, TrackerError::TooLarge(1 << 20));
        assert!(*sent.lock().unwrap() < 64 << 20);
    }
}

#[tokio::test]
async fn a_dead_tracker_delays_no_other_and_leaving_is_quick() {
    let stall = http(|stream| async move {
        tokio::time::sleep(Duration::from_secs(60)).await;
        drop(stream);
    });
    let dead = TrackerUrl::parse(&format!("http://{}/announce", stall.await.0)).unwrap();
    let tracker = MiniTracker::start(MiniTrackerConfig::default()).await.unwrap();
    let client = patient_client();
    let mut waiting = tokio::task::JoinSet::new();
    for _ in 0..20 {
        let (client, dead) = (client.clone(), dead.clone());
        waiting.spawn(async move {
            let _ = client.announce_to(&dead, Family::V4, &announce(AnnounceEvent::Started)).await;
        });
    }
    ask(&client, &tracker.announce_url()).await.unwrap();
    assert_eq!(waiting.len(), 20);
    assert!(waiting.try_join_next().is_none());
    let quick = self::client();
    let error = quick.announce_to(&dead, Family::V4, &announce(AnnounceEvent::Stopped)).await.unwrap_err();
    assert_eq!(error, TrackerError::TimedOut(Duration::from_millis(200)));
}

/// Nothing may connect to a service of this machine whose URL is not a tracker's.
#[tokio::test]
async fn t8_no_packet_to_the_canary() {
    let canary = TcpListener::bind((Ipv4Addr::UNSPECIFIED, 0)).await.unwrap();
    let port = canary.local_addr().unwrap().port();
    let client = patient_client();
    for (host, path) in [
        ("127.0.0.1", "/"),
        ("127.1", "/admin"),
        ("2130706433", "/announce/x"),
        ("0x7f.1", "/x?/announce"),
        ("0177.0.0.1", "/announcer"),
        ("localhost", "/x#/announce"),
        ("[::ffff:127.0.0.1]", "/"),
        ("[::1]", "/"),
        ("0.0.0.0", "/announce"),
        ("[::]", "/announce"),
        ("[::ffff:0.0.0.0]", "/announce"),
        ("127.0.0.1", "/announce?info_hash=x"),
        ("127.0.0.1", "/announce?event=stopped"),
        ("127.0.0.1", "/announce?a&%69nfo_hash=x"),
    ] {
        let url = format!("http://{host}:{port}{path}");
        let tracker = match TrackerUrl::parse(&url) {
            Ok(tracker) => tracker,
            Err(error) => {
                assert!(matches!(error, TrackerError::Unsafe(_)), "{url}: {error:?}");
                continue;
            }
        };
        let family = if host.starts_with("[:") && !host.contains("ffff") { Family::V6 } else { Family::V4 };
        let error = client.announce_to(&tracker, family, &announce(AnnounceEvent::Started)).await.unwrap_err();
        assert!(matches!(error, TrackerError::Unsafe(_)), "{url}: {error:?}");
    }
    for url in [format!("udp://0.0.0.0:{port}"), "udp://169.254.169.254:1".into(), "udp://224.0.0.1:1".into()] {
        assert!(matches!(ask(&client, &url).await, Err(TrackerError::Unsafe(_))), "{url}");
    }
    let came = tokio::time::timeout(Duration::from_millis(50), canary.accept()).await;
    assert!(came.is_err(), "somebody knocked");
}

#[tokio::test]
async fn t9_a_certificate_that_nobody_vouches_for_is_refused() {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let certificate = include_bytes!("../testdata/tracker/self-signed.der").to_vec().into();
    let key = include_bytes!("../testdata/tracker/self-signed.key.der").to_vec();
    let key = rustls::pki_types::PrivateKeyDer::Pkcs8(key.into());
    let config =
        rustls::ServerConfig::builder().with_no_client_auth().with_single_cert(vec![certificate], key).unwrap();
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let server = std::thread::spawn(move || {
        let (stream, _) = listener.accept().unwrap();
        let connection = rustls::ServerConnection::new(Arc::new(config)).unwrap();
        let mut heard = Vec::new();
        let _ = rustls::StreamOwned::new(connection, stream).read_to_end(&mut heard);
        heard
    });
    let error = ask(&patient_client(), &format!("https://{address}/announce?SECRET")).await.unwrap_err();
    assert!(matches!(&error, TrackerError::Unreachable(why) if why.contains("certificate")), "{error:?}");
    assert!(server.join().unwrap().is_empty());
}

/// What a UDP tracker does with a packet; the number counts packets.
type Reply = fn(usize, &[u8]) -> Vec<Vec<u8>>;

async fn udp(reply: Reply) -> SocketAddr {
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let address = socket.local_addr().unwrap();
    tokio::spawn(async move {
        let stranger = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let mut buffer = [0; 2048];
        for count in 0.. {
            let (len, from) = socket.recv_from(&mut buffer).await.unwrap();
            // The same answer from elsewhere, and first, must not be taken.
            let tid = &buffer[12..16];
            let forged = [&[0, 0, 0, 3], tid, b"forged"].concat();
            let _ = stranger.send_to(&forged, from).await;
            for packet in reply(count, &buffer[..len]) {
                let _ = socket.send_to(&packet, from).await;
            }
        }
    });
    address
}

fn good(_: usize, packet: &[u8]) -> Vec<Vec<u8>> {
    let tid = &packet[12..16];
    let body: &[u8] = match packet[11] {
        0 => b"CONNECTI",
        _ if &packet[..8] != b"CONNECTI" => return vec![[&[0, 0, 0, 3], tid, b"bad connection id"].concat()],
        1 => b"\0\0\x07\x08\0\0\0\x01\0\0\0\x02\x0a\0\0\x01\x1a\xe1",
        _ => b"\0\0\0\x02\0\0\0\x09\0\0\0\x01",
    };
    vec![[&[0, 0, 0, packet[11]], tid, body].concat()]
}

#[tokio::test]
async fn t5_udp_trackers() {
    let refuses: Reply = |_, packet| vec![[&[0, 0, 0, 3], &packet[12..16], b"\x1bbanned"].concat()];
    let silent: Reply = |_, _| vec![];
    let lossy: Reply = |count, packet| if count % 2 == 0 { vec![] } else { good(count, packet) };
    let noisy: Reply = |count, packet| {
        let mut packets = good(count, packet);
        let mut wrong_tid = packets[0].clone();
        wrong_tid[7] ^= 1;
        let mut wrong_action = packets[0].clone();
        wrong_action[3] ^= 4;
        packets.splice(0..0, [vec![], vec![0; 7], wrong_tid, vec![0xff; 60_000], wrong_action]);
        packets
    };
    let expected: Vec<SocketAddr> = vec!["10.0.0.1:6881".parse().unwrap()];
    for (name, reply) in [("good", good as Reply), ("lossy", lossy), ("noisy", noisy)] {
        let address = udp(reply).await;
        let answer = ask(&patient_client(), &format!("udp://{address}/announce")).await.unwrap();
        assert_eq!((answer.peers, answer.seeders), (expected.clone(), Some(2)), "{name}");
        let tracker = TrackerUrl::parse(&format!("udp://{address}")).unwrap();
        let entry = patient_client().scrape(&tracker, &[HASH]).await.unwrap().files[0];
        assert_eq!((entry.seeders, entry.downloaded, entry.leechers), (2, 9, 1), "{name}");
    }
    let error = ask(&patient_client(), &format!("udp://{}", udp(refuses).await)).await.unwrap_err();
    assert_eq!(error.to_string(), "tracker says: banned");
    let error = ask(&client(), &format!("udp://{}", udp(silent).await)).await.unwrap_err();
    assert_eq!(error, TrackerError::TimedOut(TIMEOUT));

    // Nobody there: the refusal comes at once, not after the time is up.
    let gone = UdpSocket::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let error = ask(&patient_client(), &format!("udp://{gone}")).await.unwrap_err();
    assert!(matches!(&error, TrackerError::Unreachable(why) if why.contains("refused")), "{error:?}");
}

#[tokio::test]
async fn the_scrape_command() {
    let tracker = MiniTracker::start(MiniTrackerConfig::default()).await.unwrap();
    ask(&patient_client(), &tracker.announce_url()).await.unwrap();
    let gone = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let dead = format!("http://{gone}/announce?SECRET");
    let mut scrape = Scrape {
        info_hash: InfoHash::v1(InfoHashV1(HASH)),
        trackers: vec![vec![tracker.announce_url(), tracker.announce_url()], vec![dead, "wss://x/SECRET".into()]],
        json: false,
    };
    let mut out = Vec::new();
    assert_eq!(run(&scrape, &patient_client(), &mut out).await.unwrap(), 0);
    let table = String::from_utf8(out).unwrap();
    let lines: Vec<Vec<&str>> = table.lines().map(|line| line.split_whitespace().collect()).collect();
    assert_eq!(lines[0], ["tracker", "seeders", "leechers", "downloads"]);
    assert_eq!(lines[1], [&format!("http://{}", tracker.address()), "0", "1", "0"]);
    assert_eq!(lines.len(), 4);
    assert!(lines[2].join(" ").contains("refused") && table.contains("wss://x"), "{table}");

    scrape.json = true;
    let mut out = Vec::new();
    run(&scrape, &patient_client(), &mut out).await.unwrap();
    let json: serde_json::Value = serde_json::from_slice(&out).unwrap();
    assert_eq!(json["trackers"][0]["leechers"], 1);
    assert_eq!(json["trackers"][1]["answered"], false);
    assert!(!json.to_string().contains("SECRET") && !table.contains("SECRET"));

    scrape.trackers.remove(0);
    assert_eq!(run(&scrape, &patient_client(), &mut Vec::new()).await.unwrap(), 5);
}
