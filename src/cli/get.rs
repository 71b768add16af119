//! `gannet get`: downloads.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::Global;
use super::args::GetArgs;
use super::exit::{Failure, shown};
use super::options::{DiskOptions, GetOptions, GoalOptions, Layer, NetworkOptions};
use super::report::{Content, Reporter, Subject};
use super::select::Selection;
use super::signals::Signals;
use super::transfer::{self, Job};
use super::{ip_filter, sandbox, source, torrent_file};
use crate::base::printable;
use crate::metainfo::Metainfo;
use crate::net::egress::Egress;
use crate::session::{AddTorrent, Choose, Config, NatConfig, Origin, Place, SeedGoal, Session};

pub(super) fn run(args: GetArgs, global: &Global) -> Result<(), Failure> {
    let options = args.options.or(global.layers.settings.get.clone());
    // A slip in a name is told before a folder is made.
    args.sources.iter().try_for_each(|source| source::is_there(source))?;
    let (dir, state_dir) = (dir(&options).to_owned(), options.disk.state_dir()?);
    let saved = options.download.save_torrent.as_deref().map(sandbox::of_saved_torrent);
    let folders: Vec<&Path> = [&dir, &state_dir].into_iter().chain(&saved).map(PathBuf::as_path).collect();
    sandbox::enter(global, &folders);
    super::runtime()?.block_on(async {
        let mut signals = Signals::take()?;
        let mut reporter = Reporter::new(&global.output);
        let mut selection = Selection::new(&options.download.select, &options.download.exclude)?;
        let egress = options.network.egress.egress()?;
        let peers = signals.unless(resolve(&options.network.peers, &egress)).await?;
        if let Some(path) = options.download.save_torrent.as_deref()
            && args.sources.len() > 1
            && !torrent_file::means_folder(path)
        {
            let why = "one file for several torrents; name a folder";
            return Err(Failure::usage(format!("--save-torrent {}: {why}", shown(path))));
        }
        let mut jobs = Vec::with_capacity(args.sources.len());
        let mut idle = vec![];
        for text in &args.sources {
            let origin = signals.unless(source::find(text, &egress)).await?;
            if let Some(job) = job(origin, &options, &mut selection, &peers)? {
                jobs.push(job);
            } else {
                idle.push(format!("{}: none of its files is selected", printable(text)));
            }
        }
        // Which files those of magnet links have is not known yet.
        let known = jobs.iter().all(|job| matches!(job.torrent.origin, Origin::Metainfo(_)));
        if known && let Some(pattern) = selection.idle() {
            return Err(Failure::usage(no_match(pattern)));
        }
        if jobs.is_empty() {
            return Err(Failure::usage(idle.join(", ")));
        }
        idle.iter().for_each(|line| reporter.warn(line));
        distinct(&jobs)?;
        let mut config = config(&options.network, &options.disk)?;
        config.ip_filter = ip_filter::read(&options.network.ip_filters, &peers, &mut reporter)?;
        let session = signals.unless(async { Session::start(config).await.map_err(Failure::from) }).await?;
        ip_filter::reload_on_hangup(&session, &options.network.ip_filters);
        download(&session, jobs, &mut reporter, &options, &mut signals).await
    })
}

/// Downloads `jobs`, as the `demo` does, too.
pub(super) async fn download(
    session: &Session,
    jobs: Vec<Job>,
    reporter: &mut Reporter,
    options: &GetOptions,
    signals: &mut Signals,
) -> Result<(), Failure> {
    transfer::run(session, jobs, reporter, options.download.timeout, signals).await
}

/// The torrent and its options as the session takes them; `None` when nothing of it is selected.
pub(super) fn job(
    origin: Origin,
    options: &GetOptions,
    selection: &mut Selection,
    peers: &[SocketAddr],
) -> Result<Option<Job>, Failure> {
    let download = &options.download;
    let dir = dir(options).to_owned();
    let (mut selected, mut choose) = (None, None);
    let subject = match &origin {
        Origin::Metainfo(metainfo) => {
            selected = select(metainfo, selection);
            if selected.as_ref().is_some_and(|s| !s.contains(&true)) {
                return Ok(None);
            }
            subject(metainfo, &dir.join(metainfo.info.name()))
        }
        _ => {
            choose = later(selection);
            unknown_subject(&origin, &dir)
        }
    };
    let goal = goal(&options.goal);
    let seed = if download.seed { Some(goal.unwrap_or_default()) } else { goal };
    let subject = Subject { seeds: seed.is_some(), ..subject };
    let torrent = AddTorrent {
        selected,
        choose,
        sequential: download.sequential,
        peers: peers.to_vec(),
        extra_trackers: options.network.trackers.clone(),
        extra_web_seeds: download.web_seeds.clone(),
        backend: options.disk.storage.map(Into::into).unwrap_or_default(),
        preallocate: download.preallocate.map(Into::into).unwrap_or_default(),
        durability: download.durability.map(Into::into).unwrap_or_default(),
        overwrite: download.overwrite,
        seed,
        ..AddTorrent::new(origin, Place::Folder(dir))
    };
    Ok(Some(Job { subject, torrent, save_torrent: download.save_torrent.clone() }))
}

/// The folder to download into.
fn dir(options: &GetOptions) -> &Path {
    options.download.dir.as_deref().unwrap_or(Path::new("."))
}

/// The same once it is known which files there are; `None` if no option speaks of files.
fn later(selection: &Selection) -> Option<Choose> {
    let selection = selection.clone();
    (!selection.is_empty()).then(|| {
        Choose(Arc::new(move |metainfo| {
            let mut selection = selection.clone();
            let selected = select(metainfo, &mut selection);
            match (&selected, selection.idle()) {
                (Some(files), Some(pattern)) if !files.contains(&true) => Err(no_match(pattern)),
                (Some(files), None) if !files.contains(&true) => Err("none of its files is selected".to_owned()),
                _ => Ok(selected),
            }
        }))
    })
}

fn no_match(pattern: &str) -> String {
    format!("{}: no file matches; 'gannet info' lists files and their numbers", printable(pattern))
}

fn select(metainfo: &Metainfo, selection: &mut Selection) -> Option<Vec<bool>> {
    let info = &metainfo.info;
    let mut number = 0;
    let files: Vec<(Option<usize>, Vec<&str>)> = info
        .files()
        .iter()
        .map(|file| {
            let shown = (!file.attr.pad).then(|| {
                number += 1;
                number
            });
            let folder = (!info.is_single_file()).then(|| info.name());
            (shown, folder.into_iter().chain(file.path.components()).collect())
        })
        .collect();
    selection.apply(&files)
}

/// The same torrent twice would write to the same files twice.
fn distinct(jobs: &[Job]) -> Result<(), Failure> {
    for (n, job) in jobs.iter().enumerate() {
        let same = |other: &&Job| other.subject.info_hash == job.subject.info_hash;
        if jobs[..n].iter().find(same).is_some() {
            return Err(Failure::usage(format!("{}: the same torrent is given twice", job.subject.name)));
        }
    }
    Ok(())
}

/// What is shown of a torrent whose data lies at `place`.
pub(super) fn subject(metainfo: &Metainfo, place: &Path) -> Subject {
    let info = &metainfo.info;
    Subject {
        name: printable(info.name()),
        info_hash: info.info_hash(),
        content: Some(Content::of(info)),
        place: shown(place),
        folder: None,
        seeds: true,
    }
}

/// What is shown of a torrent that peers have yet to describe.
pub(super) fn unknown_subject(origin: &Origin, dir: &Path) -> Subject {
    Subject {
        name: printable(&origin.name()),
        info_hash: origin.info_hash(),
        content: None,
        place: shown(dir),
        folder: Some(dir.to_owned()),
        seeds: true,
    }
}

/// When to stop seeding; `None` when no option speaks of it.
pub(super) fn goal(options: &GoalOptions) -> Option<SeedGoal> {
    let goal = SeedGoal { ratio: options.seed_ratio, time: options.seed_time };
    (goal.ratio.is_some() || goal.time.is_some()).then_some(goal)
}

/// What all torrents of this call share.
pub(super) fn config(network: &NetworkOptions, disk: &DiskOptions) -> Result<Config, Failure> {
    let defaults = Config::new(disk.state_dir()?);
    let asked = network.max_peers.map(|most| usize::try_from(most).unwrap_or(usize::MAX));
    let max_peers = asked.unwrap_or(defaults.max_peers);
    Ok(Config {
        listen: network.listen.iter().flat_map(|l| l.addresses()).collect(),
        limit_down: network.limit_down.and_then(|l| l.0),
        limit_up: network.limit_up.and_then(|l| l.0),
        max_connections: defaults.max_connections.max(max_peers),
        max_peers,
        trackers: !network.no_trackers,
        tcp: !network.no_tcp,
        utp: !network.no_utp,
        pex: !network.no_pex,
        egress: network.egress.egress()?,
        lsd: !network.no_lsd,
        dht: (!network.no_dht).then(|| super::dht::nodes(&network.dht_nodes)),
        port_mapping: (!network.no_port_mapping).then(NatConfig::default),
        encryption: network.encryption.map_or(defaults.encryption, Into::into),
        web_seeds: !network.no_web_seeds,
        disk_retry: disk.disk_retry.unwrap_or(defaults.disk_retry),
        ..defaults
    })
}

/// The addresses of `--peer`.
pub(super) async fn resolve(peers: &[String], egress: &Egress) -> Result<Vec<SocketAddr>, Failure> {
    let mut addresses = Vec::with_capacity(peers.len());
    for peer in peers {
        // Both parts are there: the parser has seen to that.
        let (host, port) = peer.rsplit_once(':').unwrap_or((peer, ""));
        let found = egress.lookup(host, port.parse().unwrap_or(0)).await.map_err(|e| {
            let why = super::exit::io_words(&e);
            Failure::network(format!("--peer {}: {why}", printable(peer)))
        })?;
        addresses.extend(found);
    }
    Ok(addresses)
}
