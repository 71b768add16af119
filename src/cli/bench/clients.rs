//! BitTorrent clients that may be installed, and how each is told to download one torrent and nothing else.

use std::ffi::OsString;
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use clap::ValueEnum;
use serde_json::json;

use super::super::exit::Failure;
use super::loopback::{free_port, loopback, network_arguments};
use super::programs;
use crate::base::printable;
use crate::sys;

/// Names the Python interpreter that has libtorrent.
const PYTHON: &str = "GANNET_LIBTORRENT_PYTHON";

/// Letters of a version that are shown.
const MAX_VERSION: usize = 20;

/// Downloads a torrent and ends. It asks the tracker, speaks TCP, and does what the module does by itself otherwise.
const LIBTORRENT: &str = r#"
import sys
import libtorrent as lt
session = lt.session({
    "listen_interfaces": "127.0.0.1:0", "enable_dht": False, "enable_lsd": False, "enable_upnp": False, "enable_natpmp": False,
    "enable_outgoing_utp": False, "enable_incoming_utp": False, "allow_multiple_connections_per_ip": True,
    "alert_mask": lt.alert.category_t.status_notification})
add = lt.add_torrent_params()
add.ti = lt.torrent_info(sys.argv[1])
add.save_path = sys.argv[2]
torrent = session.add_torrent(add)
while not torrent.status().is_seeding:
    session.wait_for_alert(20)
    session.pop_alerts()
"#;

/// A client.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Kind {
    /// This program
    Gannet,
    /// Through its Python module
    Libtorrent,
    /// The program rqbit
    Rqbit,
    /// The program aria2c
    Aria2,
    /// The program transmission-cli
    Transmission,
}

/// A client that is there.
#[derive(Debug)]
pub(super) struct Client {
    pub(super) kind: Kind,
    pub(super) version: String,
    program: OsString,
}

/// A download that is ready to begin.
pub(super) struct Download {
    pub(super) command: Command,
    /// It does not end by itself: when it is done this file is there.
    pub(super) flag: Option<PathBuf>,
    /// It does not call addresses of 127.0.0.0/8: it has to be called here.
    pub(super) call: Option<SocketAddr>,
}

impl Kind {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Gannet => "gannet",
            Self::Libtorrent => "libtorrent",
            Self::Rqbit => "rqbit",
            Self::Aria2 => "aria2",
            Self::Transmission => "transmission",
        }
    }

    /// The client, if it is installed. `home` is where it may leave what it leaves in homes.
    pub(super) fn find(self, home: &Path) -> Option<Client> {
        let (program, args): (OsString, &[&str]) = match self {
            Self::Gannet => {
                let version = env!("CARGO_PKG_VERSION").to_owned();
                return Some(Client { kind: self, version, program: OsString::new() });
            }
            Self::Libtorrent => {
                let python = std::env::var_os(PYTHON).filter(|name| !name.is_empty());
                let script = "import libtorrent; print('libtorrent', libtorrent.__version__)";
                (python.unwrap_or_else(|| "python3".into()), &["-W", "ignore", "-c", script])
            }
            Self::Rqbit => ("rqbit".into(), &["--version"]),
            Self::Aria2 => ("aria2c".into(), &["--version"]),
            Self::Transmission => ("transmission-cli".into(), &["--version"]),
        };
        let mut command = programs::command(&program, home);
        command.args(args).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let output = sys::spawn_owned(&mut command).and_then(std::process::Child::wait_with_output).ok()?;
        let said = [output.stdout, output.stderr].concat();
        output.status.success().then(|| Client { kind: self, version: version_in(&said), program })
    }
}

/// The first word that begins with a digit.
fn version_in(said: &[u8]) -> String {
    let text = String::from_utf8_lossy(said);
    let word = text.split_whitespace().find(|word| word.starts_with(|c: char| c.is_ascii_digit())).unwrap_or("?");
    printable(word).chars().take(MAX_VERSION).collect()
}

impl Client {
    /// Its name and version.
    pub(super) fn title(&self) -> String {
        format!("{} {}", self.kind.name(), self.version)
    }

    /// A download of `torrent` into `out`; what else the client needs goes into `home`. Both are empty.
    pub(super) fn download(&self, torrent: &Path, out: &Path, home: &Path) -> Result<Download, Failure> {
        let mut command = programs::command(&self.program, home);
        let mut flag = None;
        let mut call = None;
        match self.kind {
            Kind::Gannet => {
                command = programs::gannet(home)?;
                command.arg("get").arg(torrent).arg("--dir").arg(out).arg("--state-dir").arg(home.join("state"));
                command.arg("--quiet");
                network_arguments(&mut command, loopback(), 100, false, false);
            }
            Kind::Libtorrent => {
                command.args(["-W", "ignore", "-c", LIBTORRENT]).arg(torrent).arg(out);
            }
            Kind::Rqbit => {
                command.args(["--disable-dht", "--disable-lsd", "--disable-upnp-port-forward", "download"]);
                command.args(["--disable-http-api", "-e", "-o"]).arg(out).arg(torrent);
            }
            Kind::Aria2 => {
                command.args(["--no-conf", "--enable-dht=false", "--enable-dht6=false", "--bt-enable-lpd=false"]);
                command.args(["--enable-peer-exchange=false", "--seed-time=0", "--file-allocation=none"]);
                command.args(["--summary-interval=0", "--console-log-level=warn", "-d"]).arg(out).arg(torrent);
            }
            Kind::Transmission => {
                let port = free_port()?;
                let done = home.join("done");
                let script = home.join("finish.sh");
                let config = home.join("config");
                prepare_transmission(&config, &script, &done, port)?;
                command.arg("-g").arg(&config).arg("-w").arg(out).arg("-f").arg(&script).arg(torrent);
                flag = Some(done);
                call = Some(port);
            }
        }
        Ok(Download { command, flag, call })
    }
}

/// Everything off that is not the download, and a script that tells when that is done.
fn prepare_transmission(config: &Path, script: &Path, done: &Path, port: SocketAddr) -> Result<(), Failure> {
    let settings = json!({
        "bind-address-ipv4": "127.0.0.1", "bind-address-ipv6": "::1", "dht-enabled": false, "encryption": 0,
        "lpd-enabled": false, "peer-port": port.port(), "pex-enabled": false, "port-forwarding-enabled": false,
        "rename-partial-files": false, "rpc-enabled": false, "speed-limit-down-enabled": false, "utp-enabled": false,
    });
    fs::create_dir_all(config).map_err(|e| Failure::disk(config, &e))?;
    let path = config.join("settings.json");
    fs::write(&path, settings.to_string()).map_err(|e| Failure::disk(&path, &e))?;
    let quoted = done.to_string_lossy().replace('\'', "'\\''");
    fs::write(script, format!("#!/bin/sh\n: > '{quoted}'\n")).map_err(|e| Failure::disk(script, &e))?;
    let file = fs::File::open(script).map_err(|e| Failure::disk(script, &e))?;
    sys::make_executable(&file).map_err(|e| Failure::disk(script, &e))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions() {
        for (said, want) in [
            ("aria2 version 1.36.0\nCopyright (C) 2006, 2019", "1.36.0"),
            ("transmission-cli 3.00 (bb6b5a062e)", "3.00"),
            ("libtorrent 2.1.1.0", "2.1.1.0"),
            ("", "?"),
        ] {
            assert_eq!(version_in(said.as_bytes()), want);
        }
    }

    #[test]
    fn this_program_is_always_there() {
        let dir = tempfile::tempdir().unwrap();
        let client = Kind::Gannet.find(dir.path()).unwrap();
        assert_eq!(client.title(), concat!("gannet ", env!("CARGO_PKG_VERSION")));
        let download = client.download(Path::new("a.torrent"), Path::new("out"), dir.path()).unwrap();
        let args: Vec<_> = download.command.get_args().map(|a| a.to_string_lossy().into_owned()).collect();
        assert_eq!(args[..4], ["get", "a.torrent", "--dir", "out"]);
        assert!(download.flag.is_none() && download.call.is_none());
    }
}
