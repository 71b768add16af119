//! `gannet seed`: shares data that is already there.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::SystemTime;

use super::Global;
use super::args::SeedArgs;
use super::exit::{Failure, shown};
use super::options::{Layer, SeedOptions};
use super::report::{Reporter, Subject};
use super::signals::Signals;
use super::transfer::{self, Job};
use super::{get, ip_filter, place, sandbox, source};
use crate::session::{AddTorrent, Choose, Origin, Place, Session};

/// A torrent and where its data lies.
pub(super) struct Seed {
    pub(super) origin: Origin,
    pub(super) path: PathBuf,
    /// All of it has been hashed, from this time on.
    pub(super) hashed_since: Option<SystemTime>,
}

pub(super) fn run(args: SeedArgs, global: &Global) -> Result<(), Failure> {
    let options = args.options.or(global.layers.settings.seed());
    // Told here, where PATH is known to be what the user meant, rather than as bad pieces after an hour of hashing.
    std::fs::metadata(&args.path).map_err(|e| Failure::disk(&args.path, &e))?;
    // The data is only read.
    sandbox::enter(global, &[&options.disk.state_dir()?]);
    super::runtime()?.block_on(async {
        let mut signals = Signals::take()?;
        let origin = signals.unless(source::find(&args.source, &options.network.egress.egress()?)).await?;
        if let Origin::Metainfo(metainfo) = &origin {
            place::check(&metainfo.info, &args.path)?;
        }
        serve(&options, vec![Seed { origin, path: args.path, hashed_since: None }], global, signals).await
    })
}

/// Seeds until the goals are reached or the user asks to stop.
pub(super) async fn serve(
    options: &SeedOptions,
    seeds: Vec<Seed>,
    global: &Global,
    mut signals: Signals,
) -> Result<(), Failure> {
    let mut reporter = Reporter::new(&global.output);
    let peers = signals.unless(get::resolve(&options.network.peers, &options.network.egress.egress()?)).await?;
    let mut config = get::config(&options.network, &options.disk)?;
    config.ip_filter = ip_filter::read(&options.network.ip_filters, &peers, &mut reporter)?;
    let job = |seed: Seed| {
        let Seed { origin, path, hashed_since } = seed;
        let (subject, choose) = match &origin {
            Origin::Metainfo(metainfo) => (get::subject(metainfo, &path), None),
            _ => {
                let subject = Subject { place: shown(&path), folder: None, ..get::unknown_subject(&origin, &path) };
                (subject, Some(fits(path.clone())))
            }
        };
        let torrent = AddTorrent {
            peers: peers.clone(),
            extra_trackers: options.network.trackers.clone(),
            backend: options.disk.storage.map(Into::into).unwrap_or_default(),
            seed: Some(get::goal(&options.goal).unwrap_or_default()),
            super_seed: options.super_seed,
            hashed_since,
            choose,
            ..AddTorrent::new(origin, Place::Exact(path))
        };
        Job { subject, torrent, save_torrent: None }
    };
    let jobs = seeds.into_iter().map(job).collect();
    let session = signals.unless(async { Session::start(config).await.map_err(Failure::from) }).await?;
    ip_filter::reload_on_hangup(&session, &options.network.ip_filters);
    reporter.listening(&session.listen_addresses());
    transfer::run(&session, jobs, &mut reporter, None, &mut signals).await
}

/// [`place::check`] for a magnet link, once it is known which files there are.
fn fits(path: PathBuf) -> Choose {
    Choose(Arc::new(move |metainfo| match place::check(&metainfo.info, &path) {
        Ok(()) => Ok(None),
        Err(failure) => Err(failure.message),
    }))
}
