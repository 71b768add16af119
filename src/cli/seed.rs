//! `gannet seed`: shares data that is already there.

use std::sync::Arc;

use super::Global;
use super::args::SeedArgs;
use super::exit::Failure;
use super::options::Layer;
use super::report::Reporter;
use super::signals::Signals;
use super::transfer::{self, Job};
use super::{get, ip_filter, place, source};
use crate::session::{AddTorrent, Place, Session};

pub(super) fn run(args: SeedArgs, global: &Global) -> Result<(), Failure> {
    let options = args.options.or(global.layers.settings.seed());
    let runtime = super::runtime()?;
    runtime.block_on(async {
        let mut signals = Signals::take()?;
        let mut reporter = Reporter::new(&global.output);
        let egress = options.network.egress.egress()?;
        let peers = signals.unless(get::resolve(&options.network.peers, &egress)).await?;
        let metainfo = signals.unless(source::read(&args.source, &egress)).await?;
        // Told here, where PATH is known to be what the user meant, rather than as bad pieces after an hour of hashing.
        std::fs::metadata(&args.path).map_err(|e| Failure::disk(&args.path, &e))?;
        place::check(&metainfo.info, &args.path)?;
        let mut config = get::config(&options.network, &options.disk)?;
        config.ip_filter = ip_filter::read(&options.network.ip_filters, &peers, &mut reporter)?;
        let subject = get::subject(&metainfo, &args.path);
        let torrent = AddTorrent {
            peers,
            extra_trackers: options.network.trackers.clone(),
            backend: options.disk.storage.map(Into::into).unwrap_or_default(),
            seed: Some(get::goal(&options.goal).unwrap_or_default()),
            super_seed: options.super_seed,
            ..AddTorrent::new(Arc::new(metainfo), Place::Exact(args.path))
        };
        let session = signals.unless(async { Session::start(config).await.map_err(Failure::from) }).await?;
        ip_filter::reload_on_hangup(&session, &options.network.ip_filters);
        reporter.listening(&session.listen_addresses());
        transfer::run(&session, vec![Job { subject, torrent }], &mut reporter, None, &mut signals).await
    })
}
