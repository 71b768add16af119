//! What one test stands on: folders of its own, free ports, an environment in which nothing of the user is seen.

use std::env;
use std::ffi::OsStr;
use std::fs;
use std::io::{self, Write};
use std::net::{TcpListener, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::{self, Command, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU16, Ordering};
use std::thread;

use tempfile::TempDir;

use crate::namespaces;

/// Something that has to be installed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tool {
    Aria2,
    Transmission,
    Opentracker,
    Mktorrent,
    Nginx,
    Openssl,
    Python,
    Libtorrent,
    Miniupnpd,
    Dante,
    Microsocks,
    Tinyproxy,
    /// Routers that translate addresses.
    Nft,
    /// Networks of a test's own: root on Linux.
    Namespaces,
}

impl Tool {
    /// Why it cannot be used here, and what to do about it; `None` if it can.
    fn missing(self) -> Option<String> {
        static NAMESPACES: OnceLock<Option<String>> = OnceLock::new();
        let (program, package) = match self {
            Self::Aria2 => ("aria2c", "aria2"),
            Self::Transmission => ("transmission-cli", "transmission-cli"),
            Self::Opentracker => ("opentracker", "opentracker"),
            Self::Mktorrent => ("mktorrent", "mktorrent"),
            Self::Nginx => ("nginx", "nginx"),
            Self::Miniupnpd => ("miniupnpd", "miniupnpd-nftables"),
            Self::Dante => ("danted", "dante-server"),
            Self::Microsocks => ("microsocks", "microsocks"),
            Self::Tinyproxy => ("tinyproxy", "tinyproxy-bin"),
            Self::Nft => ("nft", "nftables"),
            Self::Openssl => ("openssl", "openssl"),
            Self::Python => ("python3", "python3"),
            Self::Namespaces => return NAMESPACES.get_or_init(namespaces::missing).clone(),
            Self::Libtorrent => {
                return python().is_none().then(|| {
                    "no python that can import libtorrent: `python3 -m venv V && V/bin/pip install libtorrent`, \
                     then set GANNET_LIBTORRENT_PYTHON=V/bin/python"
                        .to_owned()
                });
            }
        };
        find_program(program).is_none().then(|| format!("{program} is not installed (`apt install {package}`)"))
    }
}

/// Where a program is. Servers may be where only administrators look.
pub fn find_program(name: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    let dirs = env::split_paths(&path).chain(["/usr/sbin".into(), "/usr/local/sbin".into()]);
    dirs.map(|dir| dir.join(name)).find(|program| program.is_file())
}

/// The python that has libtorrent: `$GANNET_LIBTORRENT_PYTHON`, else `python3`. Asked once.
pub fn python() -> Option<&'static Path> {
    static FOUND: OnceLock<Option<PathBuf>> = OnceLock::new();
    let find = || {
        let python = env::var_os("GANNET_LIBTORRENT_PYTHON").unwrap_or_else(|| "python3".into());
        let status = Command::new(&python)
            .args(["-W", "ignore", "-c", "import libtorrent; libtorrent.load_torrent_file"])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status();
        status.is_ok_and(|status| status.success()).then(|| python.into())
    };
    FOUND.get_or_init(find).as_deref()
}

/// A free port of the loopback address, for TCP and UDP.
///
/// Below the range from which the system serves outgoing connections and `:0`, because a port of that range may be
/// taken by anybody's connection between this call and the client's own `bind`. Handed out in turn, from a place that
/// differs per process. What still clashes shows when the client starts, and that is tried again: see [`again`].
pub fn free_port() -> u16 {
    const FIRST: u16 = 15_000;
    const COUNT: u16 = 15_000;
    static NEXT: OnceLock<AtomicU16> = OnceLock::new();
    let next = NEXT.get_or_init(|| AtomicU16::new(fastrand::Rng::with_seed(u64::from(process::id())).u16(0..COUNT)));
    for _ in 0..COUNT {
        let port = FIRST + next.fetch_add(1, Ordering::Relaxed) % COUNT;
        if TcpListener::bind(("127.0.0.1", port)).is_ok() && UdpSocket::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
    panic!("no port of {FIRST}..{} is free", FIRST + COUNT);
}

/// Starts something on a free port, and on another one if it does not come up.
pub fn again<T>(mut start: impl FnMut(u16) -> Result<T, String>) -> T {
    let mut last = String::new();
    for _ in 0..3 {
        match start(free_port()) {
            Ok(started) => return started,
            Err(why) => last = why,
        }
    }
    panic!("three times: {last}");
}

/// The folders of one test. They go when this value goes, unless `GANNET_INTEROP_KEEP` is set.
pub struct Lab {
    _dir: Option<TempDir>,
    root: PathBuf,
}

impl Lab {
    /// A lab for a test that needs `tools`. `None`, and a line on standard error, if one of them is not installed;
    /// a failed test instead where `GANNET_INTEROP=required`.
    pub fn with(tools: &[Tool]) -> Option<Self> {
        let missing: Vec<String> = tools.iter().filter_map(|tool| tool.missing()).collect();
        if !missing.is_empty() {
            // Who one is cannot be installed.
            let all_could_be = tools.iter().all(|tool| *tool != Tool::Namespaces || tool.missing().is_none());
            let test = thread::current().name().unwrap_or("a test").to_owned();
            let why = missing.join("; ");
            let required = env::var_os("GANNET_INTEROP").is_some_and(|value| value == "required");
            assert!(!(required && all_could_be), "{test} cannot run: {why}");
            // Straight to the descriptor: the test runner hides what passing tests print.
            let _ = writeln!(io::stderr(), "interop: {test} SKIPPED: {why}");
            return None;
        }
        let dir = tempfile::Builder::new().prefix("gannet-interop-").tempdir().expect("a temporary folder");
        let root = dir.path().canonicalize().expect("a temporary folder");
        let keep = env::var_os("GANNET_INTEROP_KEEP").is_some();
        let dir = if keep {
            let _ = writeln!(io::stderr(), "interop: kept {}", dir.keep().display());
            None
        } else {
            Some(dir)
        };
        fs::create_dir(root.join("home")).expect("a folder");
        Some(Self { _dir: dir, root })
    }

    /// A folder or file below this lab's root.
    pub fn path(&self, name: &str) -> PathBuf {
        self.root.join(name)
    }

    /// A new folder.
    pub fn folder(&self, name: &str) -> PathBuf {
        let path = self.path(name);
        fs::create_dir_all(&path).expect("a folder");
        path
    }

    /// A command that sees neither the user's home nor configuration, nor a proxy.
    pub fn command(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = Command::new(program);
        command.current_dir(&self.root).env_clear();
        for name in ["PATH", "LANG", "TMPDIR", "LD_LIBRARY_PATH", "RUST_BACKTRACE", "PYENV_ROOT"] {
            if let Some(value) = env::var_os(name) {
                command.env(name, value);
            }
        }
        let home = self.path("home");
        command.env("LC_ALL", "C.UTF-8").env("HOME", &home).env("XDG_CONFIG_HOME", home.join("config"));
        command.env("XDG_CACHE_HOME", home.join("cache")).env("XDG_STATE_HOME", home.join("state"));
        command.env("XDG_DATA_HOME", home.join("data"));
        command
    }
}
