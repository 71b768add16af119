//! opentracker: an HTTP and UDP tracker. Debian's build serves only the torrents on its list.

use std::fmt::Write as _;
use std::fs;
use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::path::PathBuf;
use std::time::Duration;

use crate::lab::{Lab, again};
use crate::process::Running;

/// A tracker that runs on a port of its own.
pub struct Opentracker {
    process: Running,
    port: u16,
}

/// What the tracker knows about a torrent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Counts {
    /// Peers that have all of it.
    pub seeders: u64,
    /// Peers that have not.
    pub leechers: u64,
    /// How often `completed` was announced.
    pub downloaded: u64,
}

impl Opentracker {
    /// Starts one that serves these torrents; it is up when this returns.
    pub fn start(lab: &Lab, info_hashes: &[[u8; 20]]) -> Self {
        again(|port| {
            let dir = configured(lab, &format!("127.0.0.1:{port}"), info_hashes);
            let mut command = lab.command("opentracker");
            command.current_dir(&dir).args(["-f", "opentracker.conf"]);
            let process = Running::start("opentracker", &mut command, &lab.path("logs"));
            let mut tracker = Self { process, port };
            tracker.process.try_until("an answer", super::START, |_| get(port, "/scrape").ok())?;
            Ok(tracker)
        })
    }

    /// The address for announces over HTTP.
    pub fn http(&self) -> String {
        format!("http://127.0.0.1:{}/announce", self.port)
    }

    /// The address for announces over UDP.
    pub fn udp(&self) -> String {
        format!("udp://127.0.0.1:{}/announce", self.port)
    }

    /// What it knows about one torrent now.
    pub fn counts(&self, info_hash: [u8; 20]) -> Option<Counts> {
        let escaped = info_hash.iter().fold(String::new(), |mut text, byte| {
            let _ = write!(text, "%{byte:02x}");
            text
        });
        let answer = get(self.port, &format!("/scrape?info_hash={escaped}")).ok()?;
        let number = |key: &str| {
            let key = format!("{}:{key}i", key.len());
            let at = answer.windows(key.len()).position(|window| window == key.as_bytes())? + key.len();
            let digits = answer[at..].split(|&byte| byte == b'e').next()?;
            std::str::from_utf8(digits).ok()?.parse().ok()
        };
        Some(Counts {
            seeders: number("complete")?,
            leechers: number("incomplete")?,
            downloaded: number("downloaded")?,
        })
    }

    /// Whether what it knows about a torrent is as `wanted` within a few seconds.
    pub fn saw(&mut self, info_hash: [u8; 20], wanted: impl Fn(Counts) -> bool) -> bool {
        let look = || self.counts(info_hash).is_some_and(&wanted).then_some(());
        crate::process::poll(Duration::from_secs(5), look).is_some()
    }

    /// Waits until what it knows about a torrent is as `wanted`.
    pub fn until(&mut self, what: &str, info_hash: [u8; 20], wanted: impl Fn(Counts) -> bool) {
        let (mut last, port) = (None, self.port);
        let seen = crate::process::poll(Duration::from_secs(20), || {
            last = self.counts(info_hash);
            last.is_some_and(&wanted).then_some(())
        });
        assert!(seen.is_some(), "the tracker on port {port} never saw {what}; last: {last:?}");
    }
}

/// A folder in which `opentracker -f opentracker.conf` serves these torrents at the address `at`.
pub fn configured(lab: &Lab, at: &str, info_hashes: &[[u8; 20]]) -> PathBuf {
    let dir = lab.folder(&format!("opentracker-{}", at.replace(':', "-")));
    let list: String = info_hashes.iter().map(|hash| hex(hash) + "\n").collect();
    fs::write(dir.join("torrents"), list).expect("a list of torrents");
    // Started by root it insists on becoming somebody else; started by anybody it stays who it is.
    let config = format!(
        "listen.tcp {at}\nlisten.udp {at}\naccess.whitelist torrents\ntracker.rootdir {}\ntracker.user nobody\n",
        dir.display()
    );
    fs::write(dir.join("opentracker.conf"), config).expect("a configuration");
    dir
}

/// Lower-case hex.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// The whole answer to a request over HTTP/1.0.
fn get(port: u16, target: &str) -> io::Result<Vec<u8>> {
    let mut stream = TcpStream::connect(("127.0.0.1", port))?;
    stream.set_read_timeout(Some(Duration::from_secs(2)))?;
    stream.write_all(format!("GET {target} HTTP/1.0\r\n\r\n").as_bytes())?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer)?;
    Ok(answer)
}
