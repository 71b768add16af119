//! What a magnet link names, asked of its peers.

use std::io::IsTerminal;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::time::MissedTickBehavior;

use super::args::OutputOptions;
use super::exit::{Code, Failure};
use super::options::{DiskOptions, NetworkOptions};
use super::progress::{Bar, Look, plain_line};
use super::report::Reporter;
use super::signals::Signals;
use super::transfer::{Progress, no_progress};
use super::{get, ip_filter, log, screen};
use crate::base::printable;
use crate::metainfo::{Magnet, Metainfo};
use crate::session::{AddTorrent, Place, Session, Status, Torrent};

/// How often the torrent is looked at.
const TICK: Duration = Duration::from_millis(200);
/// How often a line is written where there is no terminal.
const PLAIN_EVERY: Duration = Duration::from_secs(10);
/// How long taking leave of trackers may take, when what was wanted has been shown.
const STOP_DEADLINE: Duration = Duration::from_secs(2);

/// Asks the peers of `magnet` what it is, unless an earlier run has, and does `work` with the answer. Nothing is downloaded.
/// Gives up when nothing was learned for `patience`.
pub(super) async fn fetch<T>(
    magnet: Magnet,
    (network, disk): (&NetworkOptions, &DiskOptions),
    patience: Duration,
    output: &OutputOptions,
    signals: &mut Signals,
    work: impl FnOnce(&Metainfo) -> Result<T, Failure>,
) -> Result<T, Failure> {
    let peers = signals.unless(get::resolve(&network.peers, &network.egress.egress()?)).await?;
    let mut config = get::config(network, disk)?;
    // What it warns of is for people: with JSON there is one object and nothing else.
    let mut reporter = Reporter::new(&OutputOptions { json: false, ..output.clone() });
    config.ip_filter = ip_filter::read(&network.ip_filters, &peers, &mut reporter)?;
    // A router's answer would come too late to be of use.
    config.port_mapping = None;
    config.disk_threads = Some(1);
    let session = signals.unless(async { Session::start(config).await.map_err(Failure::from) }).await?;
    // No file is made there.
    let nowhere = Place::Folder(PathBuf::from("."));
    let torrent = AddTorrent {
        metadata_only: true,
        peers,
        extra_trackers: network.trackers.clone(),
        ..AddTorrent::new(magnet, nowhere)
    };
    let worked = match session.add(torrent).await {
        Ok(torrent) => wait(&torrent, patience, output, signals).await.and_then(|metainfo| work(&metainfo)),
        Err(error) => Err(error.into()),
    };
    session.stop(STOP_DEADLINE).await;
    worked
}

async fn wait(
    torrent: &Torrent,
    patience: Duration,
    output: &OutputOptions,
    signals: &mut Signals,
) -> Result<Arc<Metainfo>, Failure> {
    let name = printable(&torrent.origin().name());
    let mut display = Display::new(output, &name);
    let mut progress = Progress::new(Instant::now());
    let mut tick = tokio::time::interval(TICK);
    tick.set_missed_tick_behavior(MissedTickBehavior::Skip);
    let described = torrent.described();
    tokio::pin!(described);
    loop {
        tokio::select! {
            biased;
            described = &mut described => {
                return match described {
                    Ok(Some(metainfo)) => Ok(metainfo),
                    Ok(None) => Err(Failure::new(Code::Bug, "the torrent stopped without having been asked")),
                    Err(failure) => {
                        let failure = Failure::from(failure);
                        Err(Failure { message: format!("{name}: {}", failure.message), ..failure })
                    }
                };
            }
            code = signals.next() => return Err(Failure::silent(code)),
            _ = tick.tick() => {
                let (now, status) = (Instant::now(), torrent.status());
                display.show(now, &status);
                progress.update(now, &status);
                if progress.idle(now) >= patience {
                    return Err(no_progress(&name, patience, &status));
                }
            }
        }
    }
}

/// How the search goes, on standard error.
struct Display<'a> {
    name: &'a str,
    bar: Option<Bar>,
    /// When the last line was written, where lines are.
    last_line: Option<Instant>,
}

impl<'a> Display<'a> {
    fn new(output: &OutputOptions, name: &'a str) -> Self {
        let speaks = !output.quiet && !output.json;
        let draws = std::io::stderr().is_terminal();
        Self {
            name,
            bar: (speaks && draws).then(|| Bar::new(1, Look::new(log::colors(output)))),
            last_line: (speaks && !draws).then(Instant::now),
        }
    }

    fn show(&mut self, now: Instant, status: &Status) {
        if let Some(bar) = &mut self.bar {
            bar.show(self.name, self.name.chars().count(), status);
        }
        if let Some(last) = self.last_line.as_mut().filter(|last| now.duration_since(**last) >= PLAIN_EVERY) {
            *last = now;
            screen::message(plain_line(self.name, status));
        }
    }
}

impl Drop for Display<'_> {
    fn drop(&mut self) {
        self.bar.take().into_iter().for_each(Bar::clear);
    }
}
