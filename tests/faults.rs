//! The real `gannet`, as a process, while the system fails: calls that fail (`strace -e inject=`), kills, limits.
//!
//! What must hold each time: it says so, it goes on when it can, and nothing is claimed that is not on the disk. Tests
//! that need `strace` are skipped where there is none, unless `GANNET_INTEROP=required`.
//!
//! More of the same (`GANNET_BIN` names another program, built for speed, say):
//! `GANNET_KILLS=200 GANNET_KILL_MIB=1024 cargo test --release --test faults k1 -- --nocapture`.

#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

use std::cell::Cell;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use gannet::base::{Bitfield, PieceIndex};
use gannet::hash;
use gannet::metainfo::{Builder, Format, Metainfo};
use gannet::resume::{MAX_RESUME_LEN, ResumeData};
use gannet::session::{AddTorrent, Config, Place, SeedGoal, Session, State, Torrent};
use gannet::storage::state_file;
use tempfile::TempDir;
use tokio::runtime::Runtime;

const PIECE: usize = 256 << 10;

/// For what must happen, however busy the machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// A torrent of one file, a seeder of it in this process, and folders for a `gannet` that downloads it.
struct Lab {
    dir: TempDir,
    data: Vec<u8>,
    metainfo: Metainfo,
    seeder: Session,
    seeding: Torrent,
    runtime: Runtime,
}

impl Lab {
    fn new(len: usize, limit_up: Option<u64>) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let mut data = vec![0; len];
        fastrand::Rng::with_seed(5).fill(&mut data);
        let mut builder = Builder::file("payload", len as u64);
        (builder.format, builder.piece_length) = (Format::V1, Some(u32::try_from(PIECE).unwrap()));
        let hashes: Vec<[u8; 20]> = data.chunks(PIECE).map(|piece| hash::sha1(&[piece])).collect();
        let bytes = builder.plan().unwrap().finish(&hashes, &[]).unwrap();
        let metainfo = Metainfo::parse(&bytes).unwrap();
        fs::write(dir.path().join("payload.torrent"), bytes).unwrap();
        fs::create_dir(dir.path().join("seed")).unwrap();
        fs::write(dir.path().join("seed/payload"), &data).unwrap();
        let runtime = Runtime::new().unwrap();
        let (seeder, seeding) = runtime.block_on(async {
            let mut config = Config::new(dir.path().join("seed.state"));
            config.listen = vec![([127, 0, 0, 1], 0).into()];
            (config.limit_up, config.lsd) = (limit_up, false);
            let session = Session::start(config).await.unwrap();
            let mut add = AddTorrent::new(metainfo.clone(), Place::Exact(dir.path().join("seed/payload")));
            add.seed = Some(SeedGoal::default());
            let torrent = session.add(add).await.unwrap();
            while torrent.status().state != State::Seeding {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            (session, torrent)
        });
        Self { dir, data, metainfo, seeder, seeding, runtime }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// `gannet get`, run by `by` if that is something.
    fn get(&self, by: &[&str], more: &[&str]) -> Running {
        self.get_from(self.seeder.listen_addresses()[0], by, more)
    }

    /// The same from somebody else.
    fn get_from(&self, peer: std::net::SocketAddr, by: &[&str], more: &[&str]) -> Running {
        let mut words: Vec<String> = by.iter().map(|word| (*word).to_owned()).collect();
        let shown = |path: PathBuf| path.to_str().unwrap().to_owned();
        let gannet = std::env::var("GANNET_BIN").unwrap_or_else(|_| env!("CARGO_BIN_EXE_gannet").to_owned());
        words.extend([gannet, "get".to_owned(), shown(self.path("payload.torrent"))]);
        words.extend([
            "--dir".to_owned(),
            shown(self.path("out")),
            "--state-dir".to_owned(),
            shown(self.path("state")),
        ]);
        let offline =
            "--no-dht --no-lsd --no-utp --no-port-mapping --no-trackers --listen 127.0.0.1:0 --json --disk-retry 100ms";
        words.extend(offline.split(' ').map(str::to_owned));
        words.extend(["--peer".to_owned(), peer.to_string()]);
        words.extend(more.iter().map(|word| (*word).to_owned()));
        self.start("get", &words)
    }

    /// `gannet seed`, and where it listens.
    fn seed(&self, by: &[&str], more: &[&str]) -> (Running, std::net::SocketAddr) {
        let mut words: Vec<String> = by.iter().map(|word| (*word).to_owned()).collect();
        let gannet = std::env::var("GANNET_BIN").unwrap_or_else(|_| env!("CARGO_BIN_EXE_gannet").to_owned());
        words.extend([gannet, "seed".to_owned()]);
        words.extend(["payload.torrent", "seed/payload"].map(|name| self.path(name).to_str().unwrap().to_owned()));
        words.extend(["--state-dir".to_owned(), self.path("seeding").to_str().unwrap().to_owned()]);
        let offline = "--no-dht --no-lsd --no-utp --no-port-mapping --no-trackers --listen 127.0.0.1:0 --json";
        words.extend(offline.split(' ').map(str::to_owned));
        words.extend(more.iter().map(|word| (*word).to_owned()));
        let mut running = self.start("seed", &words);
        running.until("it seeds", |running| running.said().contains("\"event\":\"seeding\""));
        let said = running.said();
        let listens = said.split("\"addresses\":[\"").nth(1).and_then(|rest| rest.split('"').next()).unwrap();
        (running, listens.parse().unwrap())
    }

    fn start(&self, name: &str, words: &[String]) -> Running {
        let (out, err) = (self.path(&format!("{name}.stdout")), self.path(&format!("{name}.stderr")));
        let mut command = Command::new(&words[0]);
        command.args(&words[1..]).stdin(Stdio::null());
        command.stdout(fs::File::create(&out).unwrap()).stderr(fs::File::create(&err).unwrap());
        command.env("HOME", self.dir.path());
        Running { child: command.spawn().unwrap(), out, err }
    }

    /// Under `strace`, which makes calls fail as `injections` say. `None` if there is no strace.
    fn get_with(&self, injections: &[&str], more: &[&str]) -> Option<Running> {
        if !has_strace() {
            return None;
        }
        // The tracer is no parent of what it traces: signals go to that.
        let mut by = vec!["strace", "-D", "-f", "-qq", "-o", "/dev/null"];
        for injection in injections {
            by.extend(["-e", injection]);
        }
        Some(self.get(&by, more))
    }

    /// Pieces that the state of the download claims.
    fn claimed(&self) -> Bitfield {
        let path = self.path("state").join(format!("{}.resume", self.metainfo.info.info_hash()));
        let loaded = state_file::load(&path, MAX_RESUME_LEN as u64, ResumeData::from_bytes).unwrap();
        loaded.map_or_else(|| Bitfield::new(self.metainfo.info.geometry().piece_count()), |(data, _)| data.have)
    }

    /// Whether the piece is in the file that was downloaded.
    fn is_there(&self, file: &[u8], piece: PieceIndex) -> bool {
        let at = piece.get() as usize * PIECE;
        let end = (at + PIECE).min(self.data.len());
        file.get(at..end).is_some_and(|bytes| bytes == &self.data[at..end])
    }

    fn assert_claims_hold(&self) -> usize {
        let file = fs::read(self.path("out/payload")).unwrap_or_default();
        for piece in self.claimed().iter() {
            assert!(self.is_there(&file, piece), "{piece} is claimed and not there");
        }
        self.metainfo.info.geometry().pieces().filter(|piece| self.is_there(&file, *piece)).count()
    }

    fn assert_complete(&self) {
        assert!(fs::read(self.path("out/payload")).unwrap() == self.data, "the data is wrong");
        self.assert_claims_hold();
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        self.runtime.block_on(self.seeder.stop(Duration::from_secs(1)));
    }
}

fn has_strace() -> bool {
    let found = Command::new("strace").arg("-V").stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok();
    if !found {
        assert!(std::env::var_os("GANNET_INTEROP").is_none_or(|v| v != "required"), "strace is not installed");
        eprintln!("skipped: strace is not installed");
    }
    found
}

struct Running {
    child: Child,
    out: PathBuf,
    err: PathBuf,
}

impl Running {
    fn wait(&mut self) -> ExitStatus {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status;
            }
            assert!(Instant::now() < deadline, "it does not end\n{}", self.said());
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    fn said(&self) -> String {
        let read = |path: &Path| String::from_utf8_lossy(&fs::read(path).unwrap_or_default()).into_owned();
        read(&self.out) + &read(&self.err)
    }

    /// How often it has said that the disk fails, and that it works again.
    fn told(&self) -> (usize, usize) {
        let said = self.said();
        let count = |event: &str| said.matches(&format!("\"event\":\"{event}\"")).count();
        (count("disk_error"), count("disk_mended"))
    }

    fn until(&mut self, what: &str, so: impl Fn(&Self) -> bool) {
        let deadline = Instant::now() + PATIENCE;
        while !so(self) {
            assert!(self.child.try_wait().unwrap().is_none(), "it ended before: {what}\n{}", self.said());
            assert!(Instant::now() < deadline, "never: {what}\n{}", self.said());
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Ctrl-C, or what `kill` sends.
    fn signal(&self, signal: rustix::process::Signal) {
        let pid = rustix::process::Pid::from_raw(i32::try_from(self.child.id()).unwrap()).unwrap();
        rustix::process::kill_process(pid, signal).unwrap();
    }

    /// `kill -9`.
    fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn from_environment(name: &str, otherwise: usize) -> usize {
    std::env::var(name).ok().and_then(|value| value.parse().ok()).unwrap_or(otherwise)
}

/// K1: killed at random moments, the next run finds all that was written, and no state ever claims what is not there.
#[test]
fn k1_killed_at_random_moments() {
    let (kills, mib) = (from_environment("GANNET_KILLS", 12), from_environment("GANNET_KILL_MIB", 24));
    let rate = (mib as u64) << 19;
    let lab = Lab::new(mib << 20, Some(rate));
    let mut rng = fastrand::Rng::with_seed(9);
    let (mut kept, mut restarts, mut sent, mut most_lost) = (0usize, 0, 0u64, 0u64);
    for kill in 0..kills {
        let mut running = lab.get(&[], &[]);
        std::thread::sleep(Duration::from_millis(rng.u64(20..1_000)));
        let ended = running.child.try_wait().unwrap().is_some();
        running.kill();
        let there = lab.assert_claims_hold();
        // What was sent and is not there has to be sent again; some of it never left the sockets.
        let uploaded = lab.seeding.status().uploaded;
        let lost = (uploaded - sent).saturating_sub((there.saturating_sub(kept) * PIECE) as u64);
        (sent, most_lost) = (uploaded, most_lost.max(lost));
        kept = there;
        if ended || there * 10 > lab.metainfo.info.geometry().piece_count() as usize * 9 {
            // From the beginning.
            let _ = fs::remove_dir_all(lab.path("out"));
            let _ = fs::remove_dir_all(lab.path("state"));
            (kept, restarts) = (0, restarts + 1);
        }
        eprintln!("kill {kill}: {there} pieces there, {} claimed, {} KiB lost", lab.claimed().count(), lost >> 10);
    }
    assert!(most_lost <= 32 << 20, "{most_lost} bytes were lost by one kill");
    let missing = lab.metainfo.info.geometry().piece_count() as usize - kept;
    let mut last = lab.get(&[], &[]);
    assert!(last.wait().success(), "{}", last.said());
    lab.assert_complete();
    // What was on the disk is not fetched again.
    let line = last.said().lines().find(|line| line.contains("\"event\":\"summary\"")).unwrap().to_owned();
    let downloaded: usize =
        line.split("\"downloaded\":").nth(1).unwrap().split([',', '}']).next().unwrap().parse().unwrap();
    assert!(downloaded <= (missing + 4) * PIECE, "{downloaded} bytes for {missing} pieces that were missing");
    eprintln!("{kills} kills, {restarts} downloads, at most {} KiB to be fetched again after one", most_lost >> 10);
}

/// K2: killed at each call of a save, there is always a state to be read, and it holds.
#[test]
fn k2_killed_in_each_call_of_a_save() {
    let lab = Lab::new(4 << 20, None);
    let mut killed = 0;
    for call in ["fdatasync", "fsync", "rename"] {
        for when in 1..=3 {
            let injection = format!("inject={call}:signal=SIGKILL:when={when}");
            let trace = format!("trace={call}");
            let Some(mut running) = lab.get_with(&[&trace, &injection], &[]) else { return };
            killed += usize::from(std::os::unix::process::ExitStatusExt::signal(&running.wait()) == Some(9));
            lab.assert_claims_hold();
            let mut again = lab.get(&[], &[]);
            assert!(again.wait().success(), "{call} {when}: {}", again.said());
            lab.assert_complete();
            fs::remove_dir_all(lab.path("out")).unwrap();
            fs::remove_dir_all(lab.path("state")).unwrap();
        }
    }
    assert!(killed >= 4, "{killed} were killed");
}

/// K7: stopped for a while and let go on, as by a suspended machine.
#[test]
fn k7_stopped_for_a_while() {
    let lab = Lab::new(4 << 20, Some(2 << 20));
    let mut running = lab.get(&[], &[]);
    running.until("it downloads", |running| running.said().contains("\"event\":\"piece\""));
    running.signal(rustix::process::Signal::STOP);
    std::thread::sleep(Duration::from_secs(2));
    running.signal(rustix::process::Signal::CONT);
    assert!(running.wait().success(), "{}", running.said());
    lab.assert_complete();
}

/// K8: SIGTERM while the disk is full ends it in time, with its state saved.
#[test]
fn k8_terminated_while_the_disk_fails() {
    let lab = Lab::new(4 << 20, None);
    let fails = ["trace=pwritev", "inject=pwritev:error=ENOSPC:when=5+"];
    let Some(mut running) = lab.get_with(&fails, &["--storage", "pwrite"]) else { return };
    running.until("it is told", |running| running.told().0 == 1);
    let start = Instant::now();
    running.signal(rustix::process::Signal::TERM);
    running.wait();
    assert!(start.elapsed() < Duration::from_secs(10), "{:?}", start.elapsed());
    lab.assert_claims_hold();
    let mut again = lab.get(&[], &[]);
    assert!(again.wait().success(), "{}", again.said());
    lab.assert_complete();
}

/// D4: no space for the whole file is an error before the download; a file system that cannot take space beforehand, and
/// a call that is interrupted, are none.
#[test]
fn d4_space_cannot_be_taken() {
    let lab = Lab::new(2 << 20, None);
    for (error, code) in [("ENOSPC", 4), ("EOPNOTSUPP", 0), ("EINTR:when=1", 0)] {
        let injection = format!("inject=fallocate:error={error}");
        let Some(mut running) = lab.get_with(&["trace=fallocate", &injection], &[]) else { return };
        assert_eq!(running.wait().code(), Some(code), "{error}: {}", running.said());
        if code == 0 {
            lab.assert_complete();
        }
        let _ = fs::remove_dir_all(lab.path("out"));
        let _ = fs::remove_dir_all(lab.path("state"));
    }
}

/// D5, D18: a write fails, any of them, in any way: it is told, tried again, and nothing is missing in the end.
#[test]
fn d5_d18_a_write_fails() {
    let lab = Lab::new(3 << 20, None);
    for (error, told) in [("EIO", 1), ("ENOSPC", 1), ("EDQUOT", 1), ("EINTR", 0)] {
        for when in [1, 3] {
            let injection = format!("inject=pwritev:error={error}:when={when}");
            let pwrite = ["--storage", "pwrite"];
            let Some(mut running) = lab.get_with(&["trace=pwritev", &injection], &pwrite) else { return };
            assert!(running.wait().success(), "{error} {when}: {}", running.said());
            let (failed, mended) = running.told();
            // Each disk thread is counted by itself.
            assert!(
                failed == mended && (failed > 0) == (told > 0) || failed == 0 && when > 1,
                "{error} {when}: {failed} {mended}"
            );
            lab.assert_complete();
            fs::remove_dir_all(lab.path("out")).unwrap();
            fs::remove_dir_all(lab.path("state")).unwrap();
        }
    }
}

/// D11: a sync fails once. What was written since the last good one is hashed again, from the disk, before it is claimed.
#[test]
fn d11_a_sync_fails_once() {
    let lab = Lab::new(3 << 20, None);
    let Some(mut running) = lab.get_with(&["trace=fdatasync", "inject=fdatasync:error=EIO:when=1"], &[]) else {
        return;
    };
    assert!(running.wait().success(), "{}", running.said());
    assert_eq!(running.told(), (1, 1), "{}", running.said());
    lab.assert_complete();
}

/// D12: files may not become as long as they should, or there is no memory for maps: an error, or another way, and no
/// signal.
#[test]
fn d12_limits_of_file_size() {
    let lab = Lab::new(2 << 20, None);
    let mut running = lab.get(&["prlimit", "--fsize=1000000"], &["--preallocate", "sparse", "--timeout", "3s"]);
    assert_eq!(running.wait().code(), Some(4), "{}", running.said());
    assert!(running.said().contains("file too large"), "{}", running.said());
    let mut again = lab.get(&[], &[]);
    assert!(again.wait().success(), "{}", again.said());
    lab.assert_complete();
}

/// D12, D15: files that cannot be mapped, as on many a file system in user space or for want of memory, are written
/// otherwise, without a word; a handle that an NFS server has forgotten is an error like others.
#[test]
fn d12_d15_what_cannot_be_mapped_and_handles_that_are_stale() {
    let lab = Lab::new(3 << 20, None);
    if !has_strace() {
        return;
    }
    let (payload, trace) = (lab.path("out/payload"), lab.path("trace"));
    for (call, error, storage, told) in [
        ("mmap", "ENODEV", "mmap", 0),
        ("mmap", "ENOMEM", "mmap", 0),
        ("pwritev", "ESTALE:when=2", "pwrite", 1),
        ("fdatasync", "ESTALE:when=1", "pwrite", 1),
    ] {
        let inject = format!("-e trace={call} -e inject={call}:error={error} -P");
        let by = ["strace", "-D", "-f", "-qq", "-o", trace.to_str().unwrap()].into_iter();
        let by: Vec<&str> = by.chain(inject.split(' ')).chain([payload.to_str().unwrap()]).collect();
        let mut running = lab.get(&by, &["--storage", storage]);
        assert!(running.wait().success(), "{call} {error}: {}", running.said());
        let (failed, mended) = running.told();
        assert!(failed == mended && (failed > 0) == (told > 0), "{call} {error}: {}", running.said());
        // The tracer may be a little behind.
        let deadline = Instant::now() + PATIENCE;
        while !fs::read_to_string(&trace).unwrap().contains("(INJECTED)") {
            assert!(Instant::now() < deadline, "{call} {error}: nothing went wrong");
            std::thread::sleep(Duration::from_millis(10));
        }
        lab.assert_complete();
        fs::remove_dir_all(lab.path("out")).unwrap();
        fs::remove_dir_all(lab.path("state")).unwrap();
    }
}

/// D13: a disk that takes a quarter of a second for each write is waited for.
#[test]
fn d13_a_slow_disk() {
    let lab = Lab::new(4 << 20, None);
    let slow = ["trace=pwritev", "inject=pwritev:delay_enter=250000"];
    let Some(mut running) = lab.get_with(&slow, &["--storage", "pwrite"]) else { return };
    assert!(running.wait().success(), "{}", running.said());
    assert_eq!(running.told(), (0, 0));
    lab.assert_complete();
}

/// D14: what was downloaded cannot be read at the next start: a clear end, and nothing is lost by it.
#[test]
fn d14_a_medium_that_cannot_be_read() {
    let lab = Lab::new(4 << 20, Some(2 << 20));
    let mut first = lab.get(&[], &[]);
    first.until("it downloads", |running| running.said().matches("\"event\":\"piece\"").count() > 3);
    first.kill();
    if !has_strace() {
        return;
    }
    let payload = lab.path("out/payload");
    let inject = "strace -D -f -qq -o /dev/null -e trace=pread64 -e inject=pread64:error=EIO -P";
    let by: Vec<&str> = inject.split(' ').chain([payload.to_str().unwrap()]).collect();
    let mut second = lab.get(&by, &[]);
    assert_eq!(second.wait().code(), Some(4), "{}", second.said());
    assert!(second.said().contains("payload: cannot read"), "{}", second.said());
    let mut third = lab.get(&[], &[]);
    assert!(third.wait().success(), "{}", third.said());
    lab.assert_complete();
}

/// D16: two at a time on one torrent: the second says so, and the first goes on.
#[test]
fn d16_two_on_one_state() {
    let lab = Lab::new(8 << 20, Some(1 << 20));
    let mut first = lab.get(&[], &[]);
    first.until("it downloads", |running| running.said().contains("\"event\":\"piece\""));
    let said = fs::read_to_string(&first.out).unwrap();
    let mut second = Command::new(env!("CARGO_BIN_EXE_gannet"))
        .args(["get", "--no-dht", "--no-lsd", "--no-utp", "--no-port-mapping", "--listen", "127.0.0.1:0"])
        .args(["--dir", lab.path("out").to_str().unwrap(), "--state-dir", lab.path("state").to_str().unwrap()])
        .arg(lab.path("payload.torrent"))
        .stdin(Stdio::null())
        .stderr(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let status = second.wait().unwrap();
    let why = std::io::read_to_string(second.stderr.take().unwrap()).unwrap();
    assert_eq!(status.code(), Some(2), "{why}");
    assert!(why.contains("another gannet"), "{why}");
    assert!(first.wait().success(), "{said}{}", first.said());
    lab.assert_complete();
}

/// N8: a port that somebody else has is told, with its number.
/// Whatever happens in it, the process writes to no other folder: here somebody puts a link in the place of the one for
/// state. Without the sandbox it goes by the link, as it should: the folder is the user's.
#[test]
fn a_download_is_confined_to_its_folders() {
    let tried = std::thread::spawn(|| gannet::sys::confine(&[])).join().unwrap();
    if tried.unwrap() == gannet::sys::Confined::Not {
        return eprintln!("skipped: this kernel has no Landlock");
    }
    for (options, confined) in [(&["-v"][..], true), (&["-v", "--no-sandbox"], false)] {
        let lab = Lab::new(8 << 20, Some(1 << 20));
        let mut running = lab.get(&[], options);
        running.until("a piece", |running| running.said().contains("\"event\":\"piece\""));
        let tasks = fs::read_dir(format!("/proc/{}/task", running.child.id())).unwrap();
        let privileges: Vec<String> = tasks
            .filter_map(|task| fs::read_to_string(task.unwrap().path().join("status")).ok())
            .filter_map(|status| status.lines().find(|line| line.starts_with("NoNewPrivs:")).map(str::to_owned))
            .collect();
        let every = format!("NoNewPrivs:\t{}", u8::from(confined));
        assert!(privileges.len() > 2 && privileges.iter().all(|line| *line == every), "{privileges:?}");
        fs::rename(lab.path("state"), lab.path("moved")).unwrap();
        fs::create_dir(lab.path("elsewhere")).unwrap();
        std::os::unix::fs::symlink(lab.path("elsewhere"), lab.path("state")).unwrap();
        running.signal(rustix::process::Signal::INT);
        let status = running.wait();
        assert_eq!(status.code(), Some(130), "{}", running.said());
        let saved = fs::read_dir(lab.path("elsewhere")).unwrap().count();
        assert_eq!(saved == 0, confined, "{saved} files; {}", running.said());
        let said = if confined { "only these folders can be written to" } else { "not confined: --no-sandbox" };
        assert!(running.said().contains(said), "{}", running.said());
    }
}

#[test]
fn n8_a_port_in_use() {
    let lab = Lab::new(1 << 20, None);
    let other = std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let taken = other.local_addr().unwrap().to_string();
    let mut running = lab.get(&[], &["--listen", &taken]);
    assert_eq!(running.wait().code(), Some(5), "{}", running.said());
    assert!(running.said().contains(&taken) && running.said().contains("in use"), "{}", running.said());
}

/// Other clocks for a program that is started with it. With `CLOCK_STEPS` the time of day is an hour and ten years off in
/// both directions, another way every few hundredths of a second. With `CLOCK_LEAP` the clock that only goes forward is so many
/// seconds ahead as the file of that name says, now.
const CLOCK: &str = "
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <time.h>
static int (*real)(clockid_t, struct timespec *);
static volatile long *leap;
static int steps;
__attribute__((constructor)) static void start(void) {
    const char *file = getenv(\"CLOCK_LEAP\");
    real = dlsym(RTLD_NEXT, \"clock_gettime\");
    steps = getenv(\"CLOCK_STEPS\") != 0;
    if (file) leap = mmap(0, sizeof(long), PROT_READ, MAP_SHARED, open(file, O_RDONLY), 0);
}
int clock_gettime(clockid_t id, struct timespec *t) {
    static const long off[] = {0, 3600, -3600, 315360000, -315360000};
    if (!real) real = dlsym(RTLD_NEXT, \"clock_gettime\");
    int result = real(id, t);
    struct timespec steady;
    if (id == CLOCK_REALTIME && steps && real(CLOCK_MONOTONIC, &steady) == 0)
        t->tv_sec += off[steady.tv_nsec / 30000000 % 5];
    if (id == CLOCK_MONOTONIC && leap) t->tv_sec += *leap;
    return result;
}
";

/// [`CLOCK`], made for this machine; none where there is no compiler.
fn clocks(lab: &Lab) -> Option<String> {
    let (source, library) = (lab.path("clock.c"), lab.path("clock.so"));
    fs::write(&source, CLOCK).unwrap();
    let made = Command::new("cc").args(["-shared", "-fPIC", "-o"]).args([&library, &source]).arg("-ldl").output();
    let made_it = made.as_ref().is_ok_and(|made| made.status.success());
    if !made_it {
        assert!(std::env::var_os("GANNET_INTEROP").is_none_or(|v| v != "required"), "no compiler: {made:?}");
        eprintln!("skipped: no C compiler");
    }
    made_it.then(|| format!("LD_PRELOAD={}", library.to_str().unwrap()))
}

/// Has the clock of a program that was started with `CLOCK_LEAP` be `seconds` ahead.
fn leap(lab: &Lab, seconds: i64) -> String {
    use std::os::unix::fs::FileExt as _;
    let path = lab.path("leap");
    // Not made anew: somebody looks at it.
    let file = fs::File::options().create(true).truncate(false).write(true).open(&path).unwrap();
    file.write_all_at(&seconds.to_ne_bytes(), 0).unwrap();
    format!("CLOCK_LEAP={}", path.to_str().unwrap())
}

/// N11: the clock on the wall steps to and fro: nothing times out or is tried too soon, and what was saved by one clock is
/// believed by another.
#[test]
fn n11_the_wall_clock_steps() {
    let lab = Lab::new(8 << 20, Some(3 << 20));
    let Some(clocks) = clocks(&lab) else { return };
    let by = ["env", &clocks, "CLOCK_STEPS=1"];
    let years = |running: &Running| -> std::collections::BTreeSet<String> {
        let said = running.said();
        said.split("\"time\":\"").skip(1).map(|rest| rest[..4].to_owned()).collect()
    };
    let mut running = lab.get(&by, &["--timeout", "20s"]);
    assert!(running.wait().success(), "{}", running.said());
    assert!(years(&running).len() >= 2, "the clock does not step: {:?}", years(&running));
    assert_eq!(running.told(), (0, 0), "{}", running.said());
    lab.assert_complete();
    let mut again = lab.get(&by, &[]);
    assert!(again.wait().success(), "{}", again.said());
    assert!(again.said().lines().last().unwrap().contains("\"downloaded\":0,"), "{}", again.said());
}

/// K7: a laptop sleeps for an hour in the middle of a download. All that waits is due at once, connections are gone, and it
/// goes on.
#[test]
fn k7_asleep_for_an_hour() {
    let lab = Lab::new(4 << 20, Some(1 << 20));
    let Some(clocks) = clocks(&lab) else { return };
    let leap_file = leap(&lab, 0);
    let mut running = lab.get(&["env", &clocks, &leap_file], &[]);
    running.until("it downloads", |running| running.said().matches("\"event\":\"piece\"").count() > 3);
    // A block that comes between a leap and the look at the clock makes the peer one that has just said something.
    let (hours, next) = (Cell::new(0), Cell::new(Instant::now()));
    running.until("it has let go of who said nothing for an hour", |running| {
        if Instant::now() >= next.get() {
            hours.set(hours.get() + 1);
            next.set(Instant::now() + Duration::from_millis(500));
            leap(&lab, hours.get() * 3_600);
        }
        running.said().contains("\"closed\"")
    });
    assert!(running.wait().success(), "{}", running.said());
    lab.assert_complete();
}

/// Row 23 of docs/bug-classes.md: whoever asks and takes nothing is let go after two minutes, however much it says
/// meanwhile.
#[test]
fn b23_a_peer_that_never_reads_is_let_go() {
    use std::io::{Read as _, Write as _};
    let lab = Lab::new(16 << 20, None);
    let Some(clocks) = clocks(&lab) else { return };
    let leap_file = leap(&lab, 0);
    let (running, address) = lab.seed(&["env", &clocks, &leap_file], &[]);
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    socket.set_recv_buffer_size(4096).unwrap();
    socket.connect(&address.into()).unwrap();
    let mut stream: std::net::TcpStream = socket.into();
    let mut hello = b"\x13BitTorrent protocol\0\0\0\0\0\0\0\0".to_vec();
    hello.extend(lab.metainfo.info.info_hash().wire());
    hello.extend(b"-XX0000-abcdefghijkl\0\0\0\x01\x02");
    for n in 0..1_000u32 {
        let at = [13u32.to_be_bytes().to_vec(), vec![6], (n % 64).to_be_bytes().to_vec()].concat();
        hello.extend([&at[..], &[0; 4], &(16u32 << 10).to_be_bytes()].concat());
    }
    stream.write_all(&hello).unwrap();
    // Unchoked, and with all that the sockets hold on its way.
    let mut heard = [0; 2_000];
    stream.read_exact(&mut heard).unwrap();
    std::thread::sleep(Duration::from_millis(500));
    let peers = |what: &str| running.said().lines().filter(|line| line.contains(what)).count();
    for ahead in [50, 100] {
        leap(&lab, ahead);
        stream.write_all(&[0; 4]).unwrap();
        std::thread::sleep(Duration::from_millis(800));
        assert_eq!((peers("\"closed\""), peers("\"connected\"")), (0, 1), "{ahead}: {}", running.said());
    }
    leap(&lab, 130);
    let deadline = Instant::now() + PATIENCE;
    while peers("\"closed\"") == 0 && Instant::now() < deadline {
        let _ = stream.write_all(&[0; 4]);
        std::thread::sleep(Duration::from_millis(50));
    }
    assert!(running.said().contains("does not read"), "{}", running.said());
}

/// Rows 24 and 43 of docs/bug-classes.md: more callers than there are descriptors. Nothing spins, nothing is told a hundred
/// times, and when they have left all is as before.
#[test]
fn b24_b43_more_callers_than_descriptors() {
    let lab = Lab::new(2 << 20, None);
    let (running, address) = lab.seed(&["prlimit", "--nofile=64:64"], &["-v"]);
    let used = || {
        let stat = fs::read_to_string(format!("/proc/{}/stat", running.child.id())).unwrap();
        let fields: Vec<&str> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
        fields[11..13].iter().map(|ticks| ticks.parse::<u64>().unwrap()).sum::<u64>()
    };
    let mut callers = Vec::new();
    for n in 0..200u16 {
        let to = address;
        callers.push(std::thread::spawn(move || {
            use std::io::Write as _;
            let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
            let connected = socket.connect_timeout(&to.into(), Duration::from_secs(5));
            let mut stream: std::net::TcpStream = socket.into();
            if connected.is_ok() && n % 2 == 0 {
                // Half of them are nonsense.
                let _ = stream.write_all(&[0xff; 68]);
            }
            stream
        }));
    }
    let callers: Vec<std::net::TcpStream> = callers.into_iter().map(|caller| caller.join().unwrap()).collect();
    let before = used();
    std::thread::sleep(Duration::from_secs(3));
    // Hundredths of a second.
    let spent = used() - before;
    assert!(spent < 30, "{spent} of 300 hundredths of a second");
    drop(callers);
    let mut get = lab.get_from(address, &[], &[]);
    assert!(get.wait().success(), "{}", get.said());
    lab.assert_complete();
    let lines = fs::read_to_string(&running.err).unwrap().lines().count();
    assert!(lines < 20, "{}", running.said());
}

/// K10: with little address space it works, or ends with one clear line; it never aborts.
#[test]
fn k10_little_memory() {
    let lab = Lab::new(2 << 20, None);
    for limit in ["--as=800000000", "--as=120000000", "--as=60000000"] {
        let mut running = lab.get(&["prlimit", limit], &[]);
        let status = running.wait();
        assert!(
            status.code().is_some_and(|code| [0, 1, 4, 5].contains(&code)),
            "{limit}: {status}: {}",
            running.said()
        );
        let _ = fs::remove_dir_all(lab.path("out"));
        let _ = fs::remove_dir_all(lab.path("state"));
    }
}

/// N10: so few threads that the program cannot work: one clear line and an end, and nothing that hangs. Such limits do not
/// bind root, so that somebody else runs it, who has no other processes.
#[test]
fn n10_few_threads() {
    use std::os::unix::fs::PermissionsExt as _;
    const NOBODY: u32 = 61_234;
    let lab = Lab::new(1 << 20, None);
    let can = Command::new("setpriv").args([&format!("--reuid={NOBODY}"), "true"]).stderr(Stdio::null()).status();
    if !can.is_ok_and(|status| status.success()) {
        eprintln!("skipped: nobody else may run programs");
        return;
    }
    let open = |path: &Path, mode| fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    open(lab.dir.path(), 0o755);
    for folder in ["out", "state"] {
        fs::create_dir(lab.path(folder)).unwrap();
        open(&lab.path(folder), 0o777);
    }
    // Where it was built is not for everybody's eyes.
    let program = lab.path("gannet");
    fs::copy(std::env::var("GANNET_BIN").unwrap_or_else(|_| env!("CARGO_BIN_EXE_gannet").to_owned()), &program)
        .unwrap();
    for (threads, works) in [(1, false), (2, false), (1_000, true)] {
        let mut command = Command::new("setpriv");
        command.args([format!("--reuid={NOBODY}"), format!("--regid={NOBODY}"), "--clear-groups".into()]);
        command.args(["prlimit", &format!("--nproc={threads}:{threads}")]).arg(&program);
        command.args(["get", "--no-dht", "--no-lsd", "--no-utp", "--no-port-mapping", "--no-trackers"]);
        command.args(["--listen", "127.0.0.1:0", "--peer", &lab.seeder.listen_addresses()[0].to_string(), "--dir"]);
        command.arg(lab.path("out")).arg("--state-dir").arg(lab.path("state")).arg(lab.path("payload.torrent"));
        command.stdin(Stdio::null()).current_dir(lab.dir.path()).env("HOME", lab.path("state"));
        let (out, err) = (lab.path("few.stdout"), lab.path("few.stderr"));
        command.stdout(fs::File::create(&out).unwrap()).stderr(fs::File::create(&err).unwrap());
        let mut running = Running { child: command.spawn().unwrap(), out, err };
        let code = running.wait().code();
        let said = running.said();
        assert_eq!(code == Some(0), works, "{threads}: {code:?}: {said}");
        if !works {
            assert!(said.contains("cannot start") && said.contains("threads") && said.lines().count() == 1, "{said}");
        }
    }
    lab.assert_complete();
}

/// N9: with few descriptors everything still works.
#[test]
fn n9_few_descriptors() {
    let lab = Lab::new(2 << 20, None);
    let mut running = lab.get(&["prlimit", "--nofile=64:64"], &[]);
    assert!(running.wait().success(), "{}", running.said());
    lab.assert_complete();
}

/// What a peer of the soak does.
#[derive(Clone, Copy, PartialEq)]
enum Manner {
    Honest,
    /// Sends what is wrong.
    Lies,
    /// Goes away in the middle of a message.
    Vanishes,
}

/// A peer that has everything, from an address of its own; it answers requests and asks for a few things itself, for as
/// long as it likes to stay.
fn live(
    to: std::net::SocketAddr,
    from: [u8; 4],
    info_hash: [u8; 20],
    data: &[u8],
    manner: Manner,
    rng: &mut fastrand::Rng,
) -> std::io::Result<()> {
    use std::io::{Read as _, Write as _};
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None)?;
    socket.bind(&std::net::SocketAddr::from((from, 0)).into())?;
    socket.connect_timeout(&to.into(), Duration::from_secs(2))?;
    let mut stream: std::net::TcpStream = socket.into();
    stream.set_read_timeout(Some(Duration::from_millis(200)))?;
    let mut hello = b"\x13BitTorrent protocol\0\0\0\0\0\0\0\0".to_vec();
    hello.extend(info_hash);
    hello.extend(format!("-SK0001-{:012}", rng.u64(..1_000_000_000_000)).bytes());
    let pieces = data.len().div_ceil(PIECE);
    let mut have = vec![0u8; pieces.div_ceil(8)];
    (0..pieces).for_each(|piece| have[piece / 8] |= 0x80 >> (piece % 8));
    hello.extend(u32::try_from(have.len() + 1).unwrap().to_be_bytes());
    hello.push(5);
    hello.extend(have);
    hello.extend([0, 0, 0, 1, 1, 0, 0, 0, 1, 2]);
    stream.write_all(&hello)?;
    let end = Instant::now() + Duration::from_millis(rng.u64(500..20_000));
    let (mut buf, mut known, mut part) = (Vec::new(), 0, [0; 4096]);
    while Instant::now() < end {
        match stream.read(&mut part) {
            Ok(0) => return Ok(()),
            Ok(n) => buf.extend_from_slice(&part[..n]),
            Err(e) if e.kind() == std::io::ErrorKind::WouldBlock => {
                let piece = rng.u32(..u32::try_from(pieces).unwrap());
                let request: Vec<u8> = [13u32, piece, 0, 16_384].iter().flat_map(|n| n.to_be_bytes()).collect();
                stream.write_all(&request[..4])?;
                stream.write_all(&[6])?;
                stream.write_all(&request[4..])?;
            }
            Err(e) => return Err(e),
        }
        known = if known == 0 && buf.len() >= 68 { buf.drain(..68).count() } else { known };
        while known > 0 && buf.len() >= 4 {
            let len = u32::from_be_bytes(buf[..4].try_into().unwrap()) as usize;
            if buf.len() < 4 + len {
                break;
            }
            let message: Vec<u8> = buf.drain(..4 + len).skip(4).collect();
            if message.first() != Some(&6) {
                continue;
            }
            let number = |at: usize| u32::from_be_bytes(message[at..at + 4].try_into().unwrap()) as usize;
            let (piece, begin, len) = (number(1), number(5), number(9));
            let mut block = data[piece * PIECE + begin..][..len].to_vec();
            let mut answer = u32::try_from(len + 9).unwrap().to_be_bytes().to_vec();
            answer.push(7);
            answer.extend(&message[1..9]);
            match manner {
                Manner::Vanishes if rng.u8(..) < 16 => {
                    stream.write_all(&answer)?;
                    return stream.write_all(&block[..len / 2]);
                }
                Manner::Lies => block.fill(rng.u8(..)),
                _ => {}
            }
            answer.extend(block);
            stream.write_all(&answer)?;
        }
    }
    Ok(())
}

/// N14: months in half an hour: 200 peers that come and go, one in twenty lies and one in twenty vanishes. What the
/// process holds does not grow.
///
/// `GANNET_SOAK_MINUTES=30 cargo test --test faults soak -- --ignored --nocapture`
#[test]
#[ignore = "takes as long as it is told to"]
fn n14_soak() {
    let minutes = from_environment("GANNET_SOAK_MINUTES", 30) as u64;
    let rate = 256 << 10;
    let lab = Lab::new(usize::try_from(minutes * 60 * rate).unwrap() + (64 << 20), Some(1));
    let port = std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap().local_addr().unwrap().port();
    let listen = format!("127.0.0.1:{port}");
    let running =
        lab.get(&[], &["--listen", &listen, "--limit-down", &rate.to_string(), "--seed", "--max-peers", "250"]);
    let (to, hash) = (listen.parse().unwrap(), lab.metainfo.info.info_hash().wire());
    let proc = PathBuf::from(format!("/proc/{}", running.child.id()));
    let held = || {
        let status = fs::read_to_string(proc.join("status")).unwrap();
        let anonymous = status.lines().find_map(|line| line.strip_prefix("RssAnon:")).unwrap().trim().to_owned();
        let kib: u64 = anonymous.trim_end_matches(" kB").parse().unwrap();
        (kib, fs::read_dir(proc.join("fd")).unwrap().count(), fs::read_dir(proc.join("task")).unwrap().count())
    };
    let over = std::sync::atomic::AtomicBool::new(false);
    let lives = std::sync::atomic::AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for n in 0u8..200 {
            let (data, over, lives) = (&lab.data, &over, &lives);
            scope.spawn(move || {
                let mut rng = fastrand::Rng::with_seed(n.into());
                let manner = match n % 20 {
                    0 => Manner::Lies,
                    1 => Manner::Vanishes,
                    _ => Manner::Honest,
                };
                while !over.load(std::sync::atomic::Ordering::Relaxed) {
                    // Whoever is banned comes back as somebody else.
                    let from = [127, rng.u8(1..250), rng.u8(..), n.max(1)];
                    let _ = live(to, from, hash, data, manner, &mut rng);
                    lives.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                    std::thread::sleep(Duration::from_millis(rng.u64(100..3_000)));
                }
            });
        }
        let mut series = Vec::new();
        for minute in 0..minutes.max(1) * 4 {
            std::thread::sleep(Duration::from_secs(15));
            series.push(held());
            if minute % 4 == 3 {
                eprintln!(
                    "{} min: {:?} KiB, files, threads; {} lives",
                    minute / 4 + 1,
                    held(),
                    lives.load(std::sync::atomic::Ordering::Relaxed)
                );
            }
        }
        over.store(true, std::sync::atomic::Ordering::Relaxed);
        let quarter = series.len() / 4;
        let most = |part: &[(u64, usize, usize)]| (part.iter().map(|s| s.0).max(), part.iter().map(|s| s.1).max());
        let (early, late) = (most(&series[..quarter * 2]), most(&series[quarter * 2..]));
        eprintln!("first half at most {early:?}, second half at most {late:?} (KiB anonymous, descriptors)");
        assert!(late.0.unwrap() <= early.0.unwrap() + 8_192, "{early:?} {late:?}");
        assert!(late.1.unwrap() <= early.1.unwrap() + 32, "{early:?} {late:?}");
    });
    let held_after = held();
    lab.assert_claims_hold();
    eprintln!("after all have left: {held_after:?}; {}", running.said().lines().last().unwrap_or_default());
}
