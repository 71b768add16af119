//! `gannet demo`: a tracker, seeders and a real download, all on this machine.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use serde_json::json;

use super::Global;
use super::args::{DemoArgs, OutputOptions};
use super::exit::{Code, Failure, shown};
use super::options::{GetOptions, Listen};
use super::progress::count;
use super::quantity::{bytes, duration, mean_rate, rate};
use super::report::Reporter;
use super::scratch::{Scratch, is_same, make_file};
use super::select::Selection;
use super::signals::Signals;
use super::{get, hashing, json, screen};
use crate::metainfo::{Builder, Metainfo, SourceFile};
use crate::net::mini_tracker::{MiniTracker, MiniTrackerConfig};
use crate::session::{AddTorrent, Config, Place, SeedGoal, Session, State};

/// What the torrent is called.
const NAME: &str = "gannet-demo";
/// How long the download should take to be watched, with seeders held back to that.
const WATCHABLE: Duration = Duration::from_secs(3);
/// Seeders have their data at hand and the tracker beside them: more than this is a fault.
const PATIENCE: Duration = Duration::from_secs(30);

pub(super) fn run(args: &DemoArgs, global: &Global) -> Result<(), Failure> {
    let folder = Scratch::new(&std::env::temp_dir(), "demo")?;
    let note = |line: &str| {
        if !global.output.quiet && !global.output.json {
            screen::message(line);
        }
    };
    note(&format!("making {} of random data in {}, removed at the end", bytes(args.size), shown(folder.path())));
    let data = folder.path().join("seeded").join(NAME);
    let files = make_data(&data, args.size)?;

    super::runtime()?.block_on(async {
        let mut signals = Signals::take()?;
        let tracker = MiniTracker::start(MiniTrackerConfig::default())
            .await
            .map_err(|e| Failure::network(format!("a tracker on loopback: {}", super::exit::io_words(&e))))?;
        reach_loopback(tracker.address()).await?;
        let metainfo = make_torrent(&data, &files, &tracker.announce_url(), &global.output)?;
        let seeders = signals.unless(start_seeders(args, &metainfo, &data, folder.path())).await?;
        signals.unless(until_announced(&tracker, &metainfo, args.seeders)).await?;
        note(&format!("{} and a tracker on loopback; downloading as 'gannet get' does", count(args.seeders, "seeder")));

        let started = Instant::now();
        let downloaded = download(metainfo, folder.path(), global, &mut signals).await;
        let took = started.elapsed();
        for seeder in &seeders {
            seeder.stop(Duration::from_secs(1)).await;
        }
        downloaded?;
        compare(&data, &folder.path().join("downloaded").join(NAME), &files)?;
        tell(args, took, global)
    })
}

/// Files of random bytes, `size` in all: a large one, smaller ones, and one that is no multiple of anything.
fn make_data(folder: &Path, size: u64) -> Result<Vec<SourceFile>, Failure> {
    let parts = [("film.bin", size / 2), ("album/track-1.bin", size / 4), ("album/track-2.bin", size / 5)];
    let rest = size - parts.iter().map(|(_, len)| len).sum::<u64>();
    let mut files = Vec::new();
    for (name, length) in parts.into_iter().chain([("notes.bin", rest)]) {
        make_file(&folder.join(name), length, || Ok(()))?;
        files.push(SourceFile::new(name.split('/'), length));
    }
    Ok(files)
}

fn on_disk(folder: &Path, file: &SourceFile) -> PathBuf {
    let mut path = folder.to_owned();
    path.extend(file.path.iter().map(|c| String::from_utf8_lossy(c).into_owned()));
    path
}

fn make_torrent(data: &Path, files: &[SourceFile], tracker: &str, output: &OutputOptions) -> Result<Metainfo, Failure> {
    let internal = |e: crate::metainfo::MetainfoError| Failure::new(Code::Bug, format!("demo: {e}"));
    let mut builder = Builder::folder(NAME, files.to_vec());
    builder.announce = vec![vec![tracker.to_owned()]];
    // So that nobody beyond this machine hears of it.
    builder.private = true;
    let plan = builder.plan().map_err(internal)?;
    let paths: Vec<PathBuf> = files.iter().map(|file| on_disk(data, file)).collect();
    let hashes = hashing::hash(&plan, &paths, None, output)?;
    let torrent = plan.finish(&hashes.v1, &hashes.v2).map_err(internal)?;
    Metainfo::parse(&torrent).map_err(internal)
}

fn loopback() -> SocketAddr {
    (Ipv4Addr::LOCALHOST, 0).into()
}

/// Settings of a session in `folder`, on loopback alone.
fn config(options: &GetOptions, folder: &Path, limit_up: Option<u64>) -> Result<Config, Failure> {
    let mut network = options.network.clone();
    network.listen = vec![Listen::At(loopback())];
    network.no_dht = true;
    let mut disk = options.disk.clone();
    disk.state_dir = Some(folder.to_owned());
    Ok(Config { limit_up, ..get::config(&network, &disk)? })
}

async fn start_seeders(
    args: &DemoArgs,
    metainfo: &Metainfo,
    data: &Path,
    folder: &Path,
) -> Result<Vec<Session>, Failure> {
    let each = args.size.div_ceil(u64::from(args.seeders)).div_ceil(WATCHABLE.as_secs());
    let limit = (!args.fast).then_some(each.max(1));
    let metainfo = Arc::new(metainfo.clone());
    let mut sessions = Vec::new();
    let mut torrents = Vec::new();
    for n in 0..args.seeders {
        let state = folder.join(format!("state-{n}"));
        let session = Session::start(config(&GetOptions::default(), &state, limit)?).await?;
        let torrent = AddTorrent {
            seed: Some(SeedGoal::default()),
            ..AddTorrent::new(metainfo.clone(), Place::Exact(data.to_owned()))
        };
        torrents.push(session.add(torrent).await?);
        sessions.push(session);
    }
    let ready = async {
        while !torrents.iter().all(|t| t.status().state == State::Seeding) {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    match tokio::time::timeout(PATIENCE, ready).await {
        Ok(()) => Ok(sessions),
        Err(_) => Err(Failure::new(Code::Bug, "demo: the seeders did not get ready")),
    }
}

/// Told at once, rather than as seeders that nobody hears of.
async fn reach_loopback(tracker: SocketAddr) -> Result<(), Failure> {
    let reached = tokio::net::TcpStream::connect(tracker).await;
    reached.map(drop).map_err(|e| {
        let why = super::exit::io_words(&e);
        Failure::network(format!("demo: {tracker}: {why}; is the loopback interface up?"))
    })
}

/// A download that asks before the seeders are known would have to wait for its next turn.
async fn until_announced(tracker: &MiniTracker, metainfo: &Metainfo, seeders: u8) -> Result<(), Failure> {
    let hashes: Vec<[u8; 20]> = metainfo.info.info_hash().wire_forms().collect();
    let known = || hashes.iter().map(|&hash| tracker.counts(hash).seeders).max().unwrap_or(0);
    let all = async {
        while known() < usize::from(seeders) {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(PATIENCE, all)
        .await
        .map_err(|_| Failure::network(format!("demo: the tracker heard of {} of {seeders} seeders", known())))
}

/// The way of `gannet get`, with its display.
async fn download(metainfo: Metainfo, folder: &Path, global: &Global, signals: &mut Signals) -> Result<(), Failure> {
    let mut options = GetOptions::default();
    options.download.dir = Some(folder.join("downloaded"));
    options.download.timeout = Some(PATIENCE);
    let mut reporter = Reporter::new(&global.output);
    let job = get::job(metainfo.into(), &options, &mut Selection::new(&[], &[])?, &[])?;
    let session = Session::start(config(&options, &folder.join("state"), None)?).await?;
    get::download(&session, job.into_iter().collect(), &mut reporter, &options, signals).await
}

/// Every byte of every file.
fn compare(ours: &Path, theirs: &Path, files: &[SourceFile]) -> Result<(), Failure> {
    for file in files {
        let copy = on_disk(theirs, file);
        if !is_same(&on_disk(ours, file), &copy, file.length)? {
            return Err(differs(&copy));
        }
    }
    Ok(())
}

fn differs(path: &Path) -> Failure {
    Failure::new(Code::Bug, format!("{}: differs from what was seeded; this is a bug, please report it", shown(path)))
}

fn tell(args: &DemoArgs, took: Duration, global: &Global) -> Result<(), Failure> {
    let speed = mean_rate(args.size, took);
    if global.output.json {
        let body = json!({
            "bytes": args.size,
            "seeders": args.seeders,
            "seconds": took.as_secs_f64(),
            "rate": speed,
            "identical": true,
        });
        return screen::output(json::line("demo", SystemTime::now(), None, &body));
    }
    if global.output.quiet {
        return Ok(());
    }
    screen::output(format!(
        "{} from {} in {} ({}), every byte compared and right\n",
        bytes(args.size),
        count(args.seeders, "seeder"),
        duration(took),
        rate(speed)
    ))?;
    if !args.fast {
        screen::message("the seeders were held back to be watched; --fast lets them run");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn a_wrong_byte_is_found() {
        let dir = tempfile::tempdir().unwrap();
        let (a, b) = (dir.path().join("a"), dir.path().join("b"));
        let files = make_data(&a, 3_000_001).unwrap();
        assert_eq!(files.iter().map(|f| f.length).sum::<u64>(), 3_000_001);
        for file in &files {
            fs::create_dir_all(on_disk(&b, file).parent().unwrap()).unwrap();
            fs::copy(on_disk(&a, file), on_disk(&b, file)).unwrap();
        }
        compare(&a, &b, &files).unwrap();
        let last = on_disk(&b, &files[0]);
        let mut bytes = fs::read(&last).unwrap();
        *bytes.last_mut().unwrap() ^= 1;
        fs::write(&last, bytes).unwrap();
        assert!(compare(&a, &b, &files).unwrap_err().message.contains("differs"));
    }
}
