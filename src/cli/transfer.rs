//! Runs torrents until they are done, fail, make no progress, or the user asks to stop.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use tokio::sync::broadcast::error::RecvError;
use tokio::sync::{mpsc, watch};
use tokio::time::MissedTickBehavior;

use super::exit::{Code, Failure};
use super::quantity::duration;
use super::report::{Reporter, Subject};
use super::signals::{Signals, exit_now};
use super::torrent_file;
use crate::session::{self, AddTorrent, End, Event, Mappings, Place, Session, State, Status, Torrent};

/// How long stopping may take: state is saved and trackers are told in this time.
const STOP_DEADLINE: Duration = Duration::from_secs(5);
/// How often bars move. Faster is not seen, slower looks stuck.
const REDRAW: Duration = Duration::from_millis(200);
/// How often torrents are looked at where there are no bars.
const TICK: Duration = Duration::from_secs(1);
/// Stopping that takes no longer needs no explanation.
const UNNOTICED: Duration = Duration::from_millis(300);
/// Events that may wait to be shown; a session that is ahead by more waits, and forgets its oldest.
const EVENT_QUEUE: usize = 1024;

/// A torrent to run, and what to call it.
pub(super) struct Job {
    pub(super) subject: Subject,
    pub(super) torrent: AddTorrent,
    /// Where its `.torrent` is to be written, once all of it is known.
    pub(super) save_torrent: Option<PathBuf>,
}

/// A torrent under way.
struct Running {
    torrent: Torrent,
    /// Number at the reporter.
    index: usize,
    over: bool,
    progress: Progress,
    /// See [`Job::save_torrent`]; none once that is done.
    save_torrent: Option<PathBuf>,
    /// Where its data lies.
    folder: PathBuf,
}

/// When a torrent last came forward.
pub(super) struct Progress {
    at: Instant,
    /// Useful bytes received, bytes there, bytes checked, parts of what the torrent is: the highest seen.
    mark: [u64; 4],
}

impl Progress {
    pub(super) fn new(now: Instant) -> Self {
        Self { at: now, mark: [0; 4] }
    }

    pub(super) fn update(&mut self, now: Instant, status: &Status) {
        let useful = status.downloaded.saturating_sub(status.wasted);
        let described =
            status.metadata.map_or(0, |m| u64::from(m.pieces)) + u64::from(status.hashes.map_or(0, |h| h.0));
        let mark = [useful, status.have_bytes, status.checked_bytes, described];
        let moved = mark.iter().zip(&self.mark).any(|(now, before)| now > before);
        if moved || matches!(status.state, State::Seeding | State::Failed | State::Stopped) {
            self.at = now;
        }
        self.mark.iter_mut().zip(mark).for_each(|(highest, now)| *highest = now.max(*highest));
    }

    /// For how long it has not come forward.
    pub(super) fn idle(&self, now: Instant) -> Duration {
        now.duration_since(self.at)
    }
}

enum Note {
    Event(Event),
    Finished(Result<End, session::Failure>),
}

/// Adds the torrents of `jobs` to `session` and shows how they go. Ends when none is left to wait for: all complete (and
/// their seeding goals reached), failed, or without progress for `patience`. The session is stopped in any case.
pub(super) async fn run(
    session: &Session,
    jobs: Vec<Job>,
    reporter: &mut Reporter,
    patience: Option<Duration>,
    signals: &mut Signals,
) -> Result<(), Failure> {
    let outcome = watch(session, jobs, reporter, patience, signals).await;
    let outcome = stop(session, outcome, reporter, signals).await;
    reporter.summary();
    match (outcome, reporter.take_broken()) {
        (Ok(()), Some(broken)) => Err(broken),
        (outcome, _) => outcome,
    }
}

async fn watch(
    session: &Session,
    jobs: Vec<Job>,
    reporter: &mut Reporter,
    patience: Option<Duration>,
    signals: &mut Signals,
) -> Result<(), Failure> {
    let (notes, mut inbox) = mpsc::channel(EVENT_QUEUE);
    let mut running = Vec::with_capacity(jobs.len());
    let mut first_failure = None;
    for job in jobs {
        let index = reporter.add(job.subject);
        let folder = match &job.torrent.place {
            Place::Folder(path) | Place::Exact(path) => path.clone(),
        };
        let added = signals.unless(async { session.add(job.torrent).await.map_err(Failure::from) }).await;
        match added {
            Ok(torrent) => {
                listen(&torrent, running.len(), &notes);
                let progress = Progress::new(Instant::now());
                let save_torrent = job.save_torrent;
                let mut started = Running { torrent, index, over: false, progress, save_torrent, folder };
                if let Some(failure) = save(&mut started, reporter) {
                    first_failure.get_or_insert(failure);
                }
                running.push(started);
            }
            Err(failure) if failure.message.is_empty() => return Err(failure),
            Err(failure) => {
                reporter.failed(Some(index), &failure);
                first_failure.get_or_insert(Failure::silent(failure.code));
            }
        }
    }
    drop(notes);
    let mut mappings = session.watch_mappings();

    let mut tick = tokio::time::interval(if reporter.draws() { REDRAW } else { TICK });
    tick.set_missed_tick_behavior(MissedTickBehavior::Skip);
    while running.iter().any(|r| !r.over) {
        tokio::select! {
            code = signals.next() => {
                if code == Code::Interrupted {
                    reporter.interrupted();
                }
                return Err(Failure::silent(code));
            }
            note = inbox.recv() => match note {
                None => break,
                Some((n, note)) => {
                    let Some(torrent) = running.get_mut(n) else { continue };
                    if let Some(failure) = take(torrent, note, reporter) {
                        first_failure.get_or_insert(failure);
                    }
                }
            },
            now = remapped(&mut mappings) => reporter.mapped(&now),
            _ = tick.tick() => {
                let now = Instant::now();
                for torrent in running.iter_mut().filter(|r| !r.over) {
                    if let Some(failure) = look(torrent, now, patience, reporter) {
                        first_failure.get_or_insert(failure);
                    }
                }
                reporter.tick(now);
            }
        }
        if let Some(broken) = reporter.take_broken() {
            return Err(broken);
        }
    }
    first_failure.map_or(Ok(()), Err)
}

/// Waits until routers say something new, for ever if none is asked.
async fn remapped(mappings: &mut Option<watch::Receiver<Mappings>>) -> Mappings {
    if let Some(receiver) = mappings
        && receiver.changed().await.is_ok()
    {
        return receiver.borrow_and_update().clone();
    }
    *mappings = None;
    std::future::pending().await
}

/// Passes on what `torrent` reports as torrent number `n`: its events, and after the last of them how it ended.
fn listen(torrent: &Torrent, n: usize, notes: &mpsc::Sender<(usize, Note)>) {
    let mut events = torrent.events();
    let (torrent, to) = (torrent.clone(), notes.clone());
    tokio::spawn(async move {
        let finished = torrent.finished();
        tokio::pin!(finished);
        loop {
            let event = tokio::select! {
                biased;
                event = events.recv() => event,
                end = &mut finished => {
                    while let Ok(event) = events.try_recv() {
                        let _ = to.send((n, Note::Event(event))).await;
                    }
                    let _ = to.send((n, Note::Finished(end))).await;
                    return;
                }
            };
            match event {
                Ok(event) => {
                    if to.send((n, Note::Event(event))).await.is_err() {
                        return;
                    }
                }
                Err(RecvError::Lagged(lost)) => tracing::debug!(lost, "events were not shown"),
                Err(RecvError::Closed) => {
                    let _ = to.send((n, Note::Finished(finished.await))).await;
                    return;
                }
            }
        }
    });
}

/// Writes the `.torrent` that was asked for, if all that belongs into it is known; what failed, if that failed.
fn save(running: &mut Running, reporter: &mut Reporter) -> Option<Failure> {
    running.save_torrent.as_ref()?;
    let metainfo = running.torrent.metainfo().filter(|metainfo| metainfo.info.missing_layers().next().is_none())?;
    let failure = torrent_file::save(&metainfo, &running.save_torrent.take()?).err()?;
    reporter.refused(running.index, &failure);
    Some(Failure::silent(failure.code))
}

/// The same at the end of a download: what peers have not told of the torrent by then, its data does.
fn save_late(running: &mut Running, reporter: &mut Reporter) -> Option<Failure> {
    let (target, metainfo) = (running.save_torrent.take()?, running.torrent.metainfo()?);
    let whole = || torrent_file::with_hashes_of_data(&metainfo, &running.folder);
    let saved = tokio::task::block_in_place(whole).and_then(|metainfo| torrent_file::save(&metainfo, &target));
    let failure = saved.err()?;
    reporter.refused(running.index, &failure);
    Some(Failure::silent(failure.code))
}

/// Takes in one report; what failed, if it failed.
fn take(running: &mut Running, note: Note, reporter: &mut Reporter) -> Option<Failure> {
    if running.over {
        return None;
    }
    reporter.progress(running.index, &running.torrent.status());
    let failure = match note {
        // The end tells it, too.
        Note::Event(Event::Failed(_)) => return None,
        Note::Event(event) => {
            reporter.event(running.index, &event);
            return save(running, reporter);
        }
        Note::Finished(Ok(End::Finished)) => {
            running.over = true;
            let unsaved = save_late(running, reporter);
            reporter.done(running.index, &running.torrent.status());
            return unsaved;
        }
        // Nobody here stops a torrent by itself.
        Note::Finished(Ok(End::Stopped)) => Failure::new(Code::Bug, "the torrent stopped without having been asked"),
        Note::Finished(Err(failure)) => {
            let failure = Failure::from(failure);
            // What is wrong with the disk names a file; all else is about the torrent.
            let message = match failure.path {
                Some(_) => failure.message,
                None => format!("{}: {}", reporter.name(running.index), failure.message),
            };
            Failure { message, ..failure }
        }
    };
    running.over = true;
    reporter.failed(Some(running.index), &failure);
    Some(Failure::silent(failure.code))
}

/// Shows how a torrent stands; what failed, if it made no progress for too long.
fn look(running: &mut Running, now: Instant, patience: Option<Duration>, reporter: &mut Reporter) -> Option<Failure> {
    let status = running.torrent.status();
    reporter.progress(running.index, &status);
    running.progress.update(now, &status);
    let patience = patience.filter(|p| running.progress.idle(now) >= *p)?;
    let failure = no_progress(reporter.name(running.index), patience, &status);
    running.over = true;
    reporter.failed(Some(running.index), &failure);
    Some(Failure::silent(failure.code))
}

/// Why the torrent called `name` is given up: nothing came for `patience`.
pub(super) fn no_progress(name: &str, patience: Duration, status: &Status) -> Failure {
    let cause = status.cause.clone().unwrap_or_else(|| match status.peers {
        0 => "no peers".to_owned(),
        n => format!("{} connected, and none of them sends", super::progress::count(n, "peer")),
    });
    let (code, advice) = match status.state {
        State::DiskError => (Code::Disk, ""),
        _ => (Code::Network, ", or add peers with --peer or --tracker"),
    };
    let (patience, cause) = (duration(patience), crate::base::printable(&cause));
    let message = format!("{name}: no progress for {patience}: {cause}; run the same command again to go on{advice}");
    Failure::new(code, message)
}

/// Stops the session; a signal meanwhile ends the process at once.
async fn stop(
    session: &Session,
    outcome: Result<(), Failure>,
    reporter: &mut Reporter,
    signals: &mut Signals,
) -> Result<(), Failure> {
    let asked = matches!(&outcome, Err(f) if matches!(f.code, Code::Interrupted | Code::Terminated));
    let deadline = tokio::time::timeout(STOP_DEADLINE + Duration::from_millis(500), session.stop(STOP_DEADLINE));
    let word = async {
        if asked {
            tokio::time::sleep(UNNOTICED).await;
            reporter.note("stopping: saving state and telling trackers (again to stop at once)");
        }
        std::future::pending::<()>().await;
    };
    tokio::select! {
        _ = deadline => outcome,
        code = signals.next() => match outcome {
            // All was done; only the trackers have not heard of it.
            Ok(()) => Ok(()),
            Err(_) => exit_now(code),
        },
        () = word => outcome,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::progress::tests::status;

    #[test]
    fn rubbish_is_no_progress() {
        let start = Instant::now();
        let at = |s| start + Duration::from_secs(s);
        let mut progress = Progress::new(start);
        let mut status = status();
        progress.update(at(1), &status);
        assert_eq!(progress.at, at(1));
        status.downloaded += 10;
        status.wasted += 10;
        progress.update(at(2), &status);
        assert_eq!(progress.at, at(1));
        status.downloaded += 1;
        progress.update(at(3), &status);
        assert_eq!(progress.at, at(3));
        status.wasted += 5;
        progress.update(at(4), &status);
        assert_eq!(progress.at, at(3));
        status.state = State::Seeding;
        progress.update(at(5), &status);
        assert_eq!(progress.at, at(5));
    }
}
