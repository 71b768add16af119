//! Seeds and leechers as sessions of this process.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use tokio::task::JoinSet;

use super::super::exit::{Code, Failure};
use super::super::get;
use super::super::options::DiskOptions;
use super::super::scratch::Scratch;
use super::loopback::{Peers, network_options};
use super::meter::Meter;
use super::payload::Payload;
use super::stop::Stop;
use super::table::Used;
use crate::net::mini_tracker::MiniTracker;
use crate::session::{AddTorrent, Config, End, Place, SeedGoal, Session, State, Torrent};

/// Everything is at hand: no progress for so long is a fault.
const PATIENCE: Duration = Duration::from_secs(30);
/// How often it is looked how far they are; nothing that is measured waits for it.
const TICK: Duration = Duration::from_millis(20);
/// With more sessions than this, each has one disk thread: together they still have more than there are cores.
const MANY: usize = 16;
/// For a session that is of no more use.
const STOP: Duration = Duration::from_secs(1);

/// The seeds, ready to be asked.
pub(super) struct Seeds {
    sessions: Vec<Session>,
}

impl Seeds {
    /// Starts them, and waits until the tracker knows them all.
    pub(super) async fn start(
        peers: Peers,
        payload: &Payload,
        tracker: &MiniTracker,
        scratch: &Scratch,
    ) -> Result<Self, Failure> {
        let mut sessions = Vec::new();
        let mut torrents = Vec::new();
        for n in 0..peers.seeds {
            let session = Session::start(config(peers, scratch.path().join(format!("seed-{n}")))?).await?;
            let mut add = AddTorrent::new(payload.metainfo.clone(), Place::Exact(payload.data.clone()));
            add.seed = Some(SeedGoal::default());
            torrents.push(session.add(add).await?);
            sessions.push(session);
        }
        let hash = payload.wire_hash();
        let mut watch = Watch::new();
        loop {
            let ready = torrents.iter().filter(|t| t.status().state == State::Seeding).count();
            let known = tracker.counts(hash).seeders;
            if ready == torrents.len() && known >= ready {
                return Ok(Self { sessions });
            }
            let checked: u64 = torrents.iter().map(|t| t.status().checked_bytes).sum();
            watch
                .look(checked + (ready + known) as u64, || format!("{ready} of {} seeds are ready", torrents.len()))?;
            tokio::time::sleep(TICK).await;
        }
    }

    pub(super) async fn stop(self) {
        stop_all(self.sessions).await;
    }
}

/// All at once: each waits for its tracker.
async fn stop_all(sessions: Vec<Session>) {
    let stopping = sessions.into_iter().map(|session| async move { session.stop(STOP).await });
    stopping.collect::<JoinSet<()>>().join_all().await;
}

/// One download by every leecher at once, from the moment that they hear of the torrent until the last has all of it.
pub(super) async fn download(
    peers: Peers,
    payload: &Payload,
    tracker: &MiniTracker,
    scratch: &Scratch,
    stop: &Stop,
) -> Result<Used, Failure> {
    let folder = scratch.path().join("leechers");
    let mut sessions = Vec::new();
    for n in 0..peers.leechers {
        sessions.push(Session::start(config(peers, folder.join(format!("state-{n}")))?).await?);
    }
    let meter = Meter::start();
    let mut torrents = Vec::new();
    for (n, session) in sessions.iter().enumerate() {
        let place = Place::Folder(folder.join(n.to_string()));
        torrents.push(session.add(AddTorrent::new(payload.metainfo.clone(), place)).await?);
    }
    let done = stop.unless(all_done(&torrents)).await;
    let used = meter.finish();
    stop_all(sessions).await;
    done?;
    // Those that are gone must not be told to those that come.
    tracker.forget_leechers(payload.wire_hash());
    for n in 0..peers.leechers {
        stop.check()?;
        payload.insist(&folder.join(n.to_string()))?;
    }
    std::fs::remove_dir_all(&folder).map_err(|e| Failure::disk(&folder, &e))?;
    Ok(used)
}

async fn all_done(torrents: &[Torrent]) -> Result<(), Failure> {
    let all = async {
        for torrent in torrents {
            match torrent.finished().await {
                Ok(End::Finished) => {}
                Ok(End::Stopped) => return Err(Failure::new(Code::Bug, "a torrent stopped without having been asked")),
                Err(failure) => return Err(failure.into()),
            }
        }
        Ok(())
    };
    let stuck = async {
        let mut watch = Watch::new();
        loop {
            // Rarely: a look takes each swarm's lock.
            tokio::time::sleep(TICK * 25).await;
            let there: u64 = torrents.iter().map(|t| t.status().have_bytes).sum();
            let cause = || torrents.iter().find_map(|t| t.status().cause).unwrap_or_else(|| "nothing comes".to_owned());
            if let Err(failure) = watch.look(there, cause) {
                return failure;
            }
        }
    };
    tokio::select! {
        done = all => done,
        failure = stuck => Err(failure),
    }
}

/// Notices that nothing goes on.
struct Watch {
    mark: u64,
    since: Instant,
}

impl Watch {
    fn new() -> Self {
        Self { mark: 0, since: Instant::now() }
    }

    fn look(&mut self, mark: u64, cause: impl Fn() -> String) -> Result<(), Failure> {
        if mark != self.mark {
            *self = Self { mark, since: Instant::now() };
        }
        if self.since.elapsed() < PATIENCE {
            return Ok(());
        }
        Err(Failure::network(format!("loopback: no progress for {} s: {}", PATIENCE.as_secs(), cause())))
    }
}

/// Settings of a session whose state is in `folder`.
fn config(peers: Peers, folder: PathBuf) -> Result<Config, Failure> {
    let disk = DiskOptions { state_dir: Some(folder), ..DiskOptions::default() };
    let mut config = get::config(&network_options(peers), &disk)?;
    if peers.count() > MANY {
        config.disk_threads = Some(1);
    }
    Ok(config)
}
