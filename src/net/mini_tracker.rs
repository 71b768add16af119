//! A small HTTP tracker inside this process, for `gannet demo` and for tests.
//!
//! It speaks announce and scrape with compact peers of both families (BEP 3, 7, 23, 48) and nothing else: no UDP, no
//! keep-alive, no persistence, no protection against floods beyond its bounds. It is meant for loopback or a LAN.
//! Memory is bounded: see the constants; what does not fit is refused with a reason.

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;

/// Torrents that it keeps.
const MAX_TORRENTS: usize = 256;
/// Peers of one torrent that it keeps.
const MAX_PEERS: usize = 2000;
/// Peers in one answer.
const MAX_NUMWANT: usize = 200;
/// Connections at once.
const MAX_CONNECTIONS: usize = 64;
/// Bytes of a request's head.
const MAX_HEAD: usize = 8 << 10;
/// For a whole connection.
const CONNECTION_TIMEOUT: Duration = Duration::from_secs(10);
/// Torrents in one scrape.
const MAX_SCRAPE: usize = 64;

/// How the tracker answers.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct MiniTrackerConfig {
    /// Where it listens; port 0 takes any free one.
    pub listen: SocketAddr,
    /// What it asks peers to wait between announces. A peer that is silent for twice as long and a minute is forgotten.
    pub interval: Duration,
    /// What it asks them to wait at least.
    pub min_interval: Option<Duration>,
}

impl Default for MiniTrackerConfig {
    fn default() -> Self {
        let listen = SocketAddr::from(([127, 0, 0, 1], 0));
        Self { listen, interval: Duration::from_secs(60), min_interval: None }
    }
}

/// What it has counted for one torrent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Peers that have everything.
    pub seeders: usize,
    /// Peers that do not.
    pub leechers: usize,
    /// Announces that said `started`.
    pub started: usize,
    /// Announces that said `completed`.
    pub completed: usize,
    /// Announces that said `stopped`.
    pub stopped: usize,
}

/// A running tracker. It ends when this is dropped.
#[derive(Debug)]
pub struct MiniTracker {
    address: SocketAddr,
    swarms: Arc<Swarms>,
    accepting: JoinHandle<()>,
}

impl MiniTracker {
    /// Listens and answers from now on.
    ///
    /// # Errors
    /// If the address cannot be listened on.
    pub async fn start(config: MiniTrackerConfig) -> io::Result<Self> {
        let listener = TcpListener::bind(config.listen).await?;
        let address = listener.local_addr()?;
        let swarms = Arc::new(Swarms { config, torrents: Mutex::default() });
        let accepting = tokio::spawn(accept(listener, Arc::clone(&swarms)));
        Ok(Self { address, swarms, accepting })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The URL to put into a torrent.
    pub fn announce_url(&self) -> String {
        format!("http://{}/announce", self.address)
    }

    /// Forgets all of a torrent's peers that did not have everything when they came. For one download after another, none of which is to hear of the one before.
    pub fn forget_leechers(&self, info_hash: [u8; 20]) {
        if let Some(swarm) = self.swarms.lock().get_mut(&info_hash) {
            swarm.peers.retain(|_, peer| peer.came_complete);
        }
    }

    /// Counts `address` among a torrent's seeders, as if it had announced itself.
    pub fn add_seeder(&self, info_hash: [u8; 20], address: SocketAddr) {
        let peer = Peer { complete: true, came_complete: true, seen: Instant::now() };
        self.swarms.lock().entry(info_hash).or_default().peers.insert(address, peer);
    }

    /// What it has counted for a torrent.
    pub fn counts(&self, info_hash: [u8; 20]) -> Counts {
        self.swarms.lock().get(&info_hash).map(Swarm::counts).unwrap_or_default()
    }
}

impl Drop for MiniTracker {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

#[derive(Debug)]
struct Swarms {
    config: MiniTrackerConfig,
    torrents: Mutex<HashMap<[u8; 20], Swarm>>,
}

#[derive(Debug, Default)]
struct Swarm {
    peers: HashMap<SocketAddr, Peer>,
    events: Counts,
}

#[derive(Debug, Clone, Copy)]
struct Peer {
    complete: bool,
    /// It had everything when it was first heard of.
    came_complete: bool,
    seen: Instant,
}

impl Swarm {
    fn counts(&self) -> Counts {
        let seeders = self.peers.values().filter(|p| p.complete).count();
        Counts { seeders, leechers: self.peers.len() - seeders, ..self.events }
    }
}

async fn accept(listener: TcpListener, swarms: Arc<Swarms>) {
    let slots = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    loop {
        let Ok(slot) = Arc::clone(&slots).acquire_owned().await else { return };
        match listener.accept().await {
            Ok((stream, peer)) => {
                let swarms = Arc::clone(&swarms);
                tokio::spawn(async move {
                    let _slot = slot;
                    // A peer that is too slow or speaks nonsense is of no interest here.
                    let _ = tokio::time::timeout(CONNECTION_TIMEOUT, serve(stream, peer.ip(), &swarms)).await;
                });
            }
            // Out of file descriptors: others have to close some first.
            Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
        }
    }
}

async fn serve(mut stream: TcpStream, peer: IpAddr, swarms: &Swarms) -> io::Result<()> {
    let mut head = Vec::with_capacity(1024);
    while !head.windows(4).any(|w| w == b"\r\n\r\n") {
        if head.len() >= MAX_HEAD || stream.read_buf(&mut head).await? == 0 {
            return Ok(());
        }
    }
    let (status, body) = match target(&head) {
        Some(target) => swarms.answer(&target, peer.to_canonical(), Instant::now()),
        None => ("400 Bad Request", b"only GET".to_vec()),
    };
    let length = body.len();
    let answer = format!(
        "HTTP/1.1 {status}\r\nContent-Type: text/plain\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n"
    );
    stream.write_all(&[answer.as_bytes(), &body].concat()).await?;
    stream.shutdown().await
}

/// Path and decoded query of a request.
#[derive(Debug)]
struct Target {
    path: String,
    query: Vec<(String, Vec<u8>)>,
}

impl Target {
    fn bytes(&self, name: &str) -> Option<&[u8]> {
        self.query.iter().find(|(n, _)| n == name).map(|(_, value)| value.as_slice())
    }

    fn number(&self, name: &str) -> Option<u64> {
        std::str::from_utf8(self.bytes(name)?).ok()?.parse().ok()
    }
}

fn target(head: &[u8]) -> Option<Target> {
    let line = std::str::from_utf8(head.split(|b| *b == b'\r').next()?).ok()?;
    let (target, version) = line.strip_prefix("GET ")?.rsplit_once(' ')?;
    if !version.starts_with("HTTP/1.") {
        return None;
    }
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let pair = |pair: &str| {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        (name.to_owned(), decode(value))
    };
    Some(Target { path: path.to_owned(), query: query.split('&').map(pair).collect() })
}

/// Undoes percent-encoding; what is none stays.
fn decode(text: &str) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        let hex =
            |at: usize| after.get(at).and_then(|d| char::from(*d).to_digit(16)).and_then(|d| u8::try_from(d).ok());
        rest = match (first, hex(0), hex(1)) {
            (b'%', Some(high), Some(low)) => {
                bytes.push(high << 4 | low);
                after.get(2..).unwrap_or_default()
            }
            _ => {
                bytes.push(if *first == b'+' { b' ' } else { *first });
                after
            }
        };
    }
    bytes
}

impl Swarms {
    fn lock(&self) -> MutexGuard<'_, HashMap<[u8; 20], Swarm>> {
        self.torrents.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn answer(&self, target: &Target, peer: IpAddr, now: Instant) -> (&'static str, Vec<u8>) {
        let answer = match target.path.as_str() {
            "/announce" => self.announce(target, peer, now),
            "/scrape" => Ok(self.scrape(target)),
            _ => return ("404 Not Found", b"not here".to_vec()),
        };
        ("200 OK", answer.unwrap_or_else(|why| format!("d14:failure reason{}:{why}e", why.len()).into_bytes()))
    }

    fn announce(&self, target: &Target, ip: IpAddr, now: Instant) -> Result<Vec<u8>, &'static str> {
        let info_hash: [u8; 20] =
            target.bytes("info_hash").and_then(|h| h.try_into().ok()).ok_or("info_hash is not 20 bytes")?;
        if target.bytes("peer_id").is_none_or(|id| id.len() != 20) {
            return Err("peer_id is not 20 bytes");
        }
        let port = target.number("port").and_then(|p| u16::try_from(p).ok()).filter(|p| *p != 0).ok_or("bad port")?;
        let complete = target.number("left") == Some(0);
        let address = SocketAddr::new(ip, port);
        let event = target.bytes("event").unwrap_or_default();

        let mut torrents = self.lock();
        if !torrents.contains_key(&info_hash) && torrents.len() >= MAX_TORRENTS {
            self.forget_silent(&mut torrents, now);
            if torrents.len() >= MAX_TORRENTS {
                return Err("too many torrents");
            }
        }
        let swarm = torrents.entry(info_hash).or_default();
        let silent = self.config.interval * 2 + Duration::from_secs(60);
        swarm.peers.retain(|_, p| now.duration_since(p.seen) <= silent);
        match event {
            b"started" => swarm.events.started += 1,
            b"completed" => swarm.events.completed += 1,
            b"stopped" => swarm.events.stopped += 1,
            _ => {}
        }
        if event == b"stopped" {
            swarm.peers.remove(&address);
        } else if swarm.peers.len() >= MAX_PEERS && !swarm.peers.contains_key(&address) {
            return Err("too many peers");
        } else {
            let came_complete = swarm.peers.get(&address).map_or(complete, |peer| peer.came_complete);
            swarm.peers.insert(address, Peer { complete, came_complete, seen: now });
        }

        let wanted = match event {
            b"stopped" => 0,
            _ => target.number("numwant").map_or(50, |n| usize::try_from(n).unwrap_or(MAX_NUMWANT)).min(MAX_NUMWANT),
        };
        // Seeders have nothing for each other.
        let others = swarm.peers.iter().filter(|(a, p)| **a != address && !(complete && p.complete));
        let mut others: Vec<SocketAddr> = others.map(|(a, _)| *a).collect();
        fastrand::shuffle(&mut others);
        others.truncate(wanted);
        Ok(self.announced(swarm.counts(), &others))
    }

    /// An announce's answer, keys in order.
    fn announced(&self, counts: Counts, peers: &[SocketAddr]) -> Vec<u8> {
        let (mut v4, mut v6) = (Vec::new(), Vec::new());
        for peer in peers {
            match peer.ip() {
                IpAddr::V4(ip) => v4.extend([&ip.octets()[..], &peer.port().to_be_bytes()].concat()),
                IpAddr::V6(ip) => v6.extend([&ip.octets()[..], &peer.port().to_be_bytes()].concat()),
            }
        }
        let Counts { seeders, leechers, completed, .. } = counts;
        let interval = self.config.interval.as_secs();
        let mut answer =
            format!("d8:completei{seeders}e10:downloadedi{completed}e10:incompletei{leechers}e8:intervali{interval}e")
                .into_bytes();
        if let Some(min) = self.config.min_interval {
            answer.extend(format!("12:min intervali{}e", min.as_secs()).into_bytes());
        }
        answer.extend(format!("5:peers{}:", v4.len()).into_bytes());
        answer.extend(v4);
        if !v6.is_empty() {
            answer.extend(format!("6:peers6{}:", v6.len()).into_bytes());
            answer.extend(v6);
        }
        answer.push(b'e');
        answer
    }

    fn scrape(&self, target: &Target) -> Vec<u8> {
        let asked = target.query.iter().filter(|(name, _)| name == "info_hash").take(MAX_SCRAPE);
        let mut asked: Vec<[u8; 20]> = asked.filter_map(|(_, hash)| hash.as_slice().try_into().ok()).collect();
        asked.sort_unstable();
        asked.dedup();
        let torrents = self.lock();
        let mut answer = b"d5:filesd".to_vec();
        for hash in asked {
            let Some(Counts { seeders, leechers, completed, .. }) = torrents.get(&hash).map(Swarm::counts) else {
                continue;
            };
            answer.extend(b"20:");
            answer.extend(hash);
            let counts = format!("d8:completei{seeders}e10:downloadedi{completed}e10:incompletei{leechers}ee");
            answer.extend(counts.into_bytes());
        }
        answer.extend(b"ee");
        answer
    }

    fn forget_silent(&self, torrents: &mut HashMap<[u8; 20], Swarm>, now: Instant) {
        let silent = self.config.interval * 2 + Duration::from_secs(60);
        torrents.retain(|_, swarm| swarm.peers.values().any(|p| now.duration_since(p.seen) <= silent));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tracker::http::{parse_announce, parse_scrape};

    fn swarms() -> Swarms {
        Swarms { config: MiniTrackerConfig::default(), torrents: Mutex::default() }
    }

    fn ask(swarms: &Swarms, now: Instant, ip: &str, port: u16, tail: &str) -> (&'static str, Vec<u8>) {
        let head = format!(
            "GET /announce?info_hash=%00xxxxxxxxxxxxxxxxxx%fF&peer_id=aaaaaaaaaaaaaaaaaaaa&port={port}&{tail} HTTP/1.1\r\n\r\n"
        );
        swarms.answer(&target(head.as_bytes()).unwrap(), ip.parse().unwrap(), now)
    }

    #[test]
    fn announces_and_scrapes() {
        let (swarms, now) = (swarms(), Instant::now());
        let announce = |at, ip: &str, port, tail: &str| parse_announce(&ask(&swarms, at, ip, port, tail).1);
        let first = announce(now, "10.0.0.1", 1, "left=5&event=started").unwrap();
        assert_eq!((first.peers.len(), first.leechers, first.interval), (0, Some(1), Some(Duration::from_secs(60))));
        announce(now, "::1", 2, "left=0&event=started").unwrap();
        let third = announce(now, "::1", 3, "left=0").unwrap();
        assert_eq!(third.peers, ["10.0.0.1:1".parse().unwrap()], "seeders do not get each other");
        let leecher = announce(now, "10.0.0.1", 1, "left=0&event=completed&numwant=1").unwrap();
        assert!(leecher.peers.is_empty());
        let gone = announce(now, "10.0.0.1", 1, "event=stopped").unwrap();
        assert_eq!((gone.seeders, gone.downloaded), (Some(2), Some(1)));
        let hash = *b"\0xxxxxxxxxxxxxxxxxx\xff";
        let target = target(b"GET /scrape?info_hash=%00xxxxxxxxxxxxxxxxxx%FF&info_hash=z HTTP/1.1\r\n\r\n").unwrap();
        let scrape = parse_scrape(&swarms.answer(&target, "::1".parse().unwrap(), now).1, &[hash]).unwrap().files[0];
        assert_eq!((scrape.seeders, scrape.leechers, scrape.downloaded), (2, 0, 1));
        // Silent peers are forgotten.
        let later = announce(now + Duration::from_secs(181), "10.0.0.9", 9, "left=1").unwrap();
        assert_eq!((later.peers.len(), later.leechers), (0, Some(1)));
    }

    #[test]
    fn those_who_came_to_download_are_forgotten() {
        let (swarms, now) = (swarms(), Instant::now());
        ask(&swarms, now, "10.0.0.1", 1, "left=0&event=started");
        ask(&swarms, now, "10.0.0.2", 2, "left=9&event=started");
        ask(&swarms, now, "10.0.0.2", 2, "left=0&event=completed");
        ask(&swarms, now, "10.0.0.3", 3, "left=9&event=started");
        let hash = *b"\0xxxxxxxxxxxxxxxxxx\xff";
        let tracker = MiniTracker { address: ([0; 4], 0).into(), swarms: Arc::new(swarms), accepting: nothing() };
        tracker.add_seeder(hash, "10.0.0.4:4".parse().unwrap());
        assert_eq!((tracker.counts(hash).seeders, tracker.counts(hash).leechers), (3, 1));
        tracker.forget_leechers(hash);
        assert_eq!((tracker.counts(hash).seeders, tracker.counts(hash).leechers), (2, 0));
        tracker.forget_leechers([9; 20]);
    }

    fn nothing() -> JoinHandle<()> {
        tokio::runtime::Builder::new_current_thread().build().unwrap().spawn(async {})
    }

    #[test]
    fn nonsense_is_refused() {
        let (swarms, now) = (swarms(), Instant::now());
        assert!(parse_announce(&ask(&swarms, now, "::1", 0, "left=0").1).is_err());
        for query in ["", "info_hash=x", "info_hash=aaaaaaaaaaaaaaaaaaaa&peer_id=x&port=1"] {
            let target = target(format!("GET /announce?{query} HTTP/1.1\r\n").as_bytes()).unwrap();
            assert!(parse_announce(&swarms.answer(&target, "::1".parse().unwrap(), now).1).is_err(), "{query}");
        }
        for head in ["", "GET", "POST / HTTP/1.1\r\n", "GET / FTP\r\n", "GET /\r\n"] {
            assert!(target(head.as_bytes()).is_none(), "{head}");
        }
        for path in ["/", "/announce/x"] {
            let head = format!("GET {path} HTTP/1.1\r\n");
            assert_eq!(
                swarms.answer(&target(head.as_bytes()).unwrap(), "::1".parse().unwrap(), now).0,
                "404 Not Found"
            );
        }
        assert_eq!(decode("%4"), b"%4");
        assert_eq!(decode("%zz+%41%"), b"%zz A%");
    }

    #[test]
    fn memory_is_bounded() {
        let (swarms, now) = (swarms(), Instant::now());
        for port in 1..=2100 {
            let _ = ask(&swarms, now, "10.0.0.1", port, "left=1");
        }
        assert_eq!(swarms.lock().values().next().unwrap().peers.len(), MAX_PEERS);
        let answer = parse_announce(&ask(&swarms, now, "10.0.0.1", 1, "left=1&numwant=99999").1).unwrap();
        assert_eq!(answer.peers.len(), MAX_NUMWANT);
    }
}
