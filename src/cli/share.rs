//! `gannet share`: makes torrents and seeds them.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use super::Global;
use super::args::ShareArgs;
use super::exit::{Code, Failure, shown};
use super::json::line;
use super::making::{Draft, Made, note_format};
use super::options::{Layer, SeedOptions};
use super::seed::{self, Seed};
use super::signals::Signals;
use super::torrent_file::{Output, same};
use super::{sandbox, screen};

pub(super) fn run(args: ShareArgs, global: &Global) -> Result<(), Failure> {
    let options = &args.options;
    let drafts = drafts(&args, global)?;
    if options.dry_run {
        return drafts.iter().try_for_each(|draft| draft.show(global));
    }
    drafts.iter().try_for_each(|draft| check(draft.output(), options.force))?;
    let mut seeds = Vec::with_capacity(args.paths.len());
    for (draft, path) in drafts.into_iter().zip(args.paths) {
        let since = SystemTime::now();
        let made = draft.make(options, global)?;
        write(&made, options.force)?;
        tell(&made, global)?;
        seeds.push(Seed { origin: Arc::new(made.metainfo).into(), path, hashed_since: Some(since) });
    }
    note_format(options.format, global);
    let mut settings = global.layers.settings.seed();
    let trackers = std::mem::take(&mut settings.network.trackers);
    // Those of the command line stand in the torrents; those of the configuration file are for this machine alone.
    let mut said = SeedOptions { network: args.seeding.network.clone(), ..args.seeding };
    said.network.trackers = trackers;
    let seeding = said.or(settings);
    sandbox::enter(global, &[&seeding.disk.state_dir()?]);
    super::runtime()?.block_on(async { seed::serve(&seeding, seeds, global, Signals::take()?).await })
}

/// What is to be shared, each beside its data unless the options say otherwise.
fn drafts(args: &ShareArgs, global: &Global) -> Result<Vec<Draft>, Failure> {
    let options = &args.options;
    let output = options.output.as_deref();
    let into = output.filter(|path| path.is_dir());
    let several = args.paths.len() > 1;
    match output {
        Some(path) if path.as_os_str() == "-" => {
            return Err(Failure::usage("--output -: the magnet link goes to standard output; name a file"));
        }
        Some(path) if several && into.is_none() => {
            return Err(Failure::usage(format!(
                "--output {}: one file for several torrents; name a folder",
                shown(path)
            )));
        }
        _ if several && options.name.is_some() => {
            return Err(Failure::usage("--name: one name for several torrents"));
        }
        _ => {}
    }
    let draft = |path: &PathBuf| {
        let folder = into.map_or_else(|| beside(path), |into| Ok(into.to_owned()))?;
        let output = output.filter(|_| into.is_none());
        Draft::new(path, (output, &folder), options, &args.seeding.network.trackers, global)
    };
    args.paths.iter().map(draft).collect()
}

/// The folder that holds `path`.
fn beside(path: &Path) -> Result<PathBuf, Failure> {
    match path.file_name() {
        Some(_) => Ok(path.parent().unwrap_or(Path::new("")).to_owned()),
        // "." and ".." do not say it.
        None => {
            let whole = path.canonicalize().map_err(|e| Failure::disk(path, &e))?;
            Ok(whole.parent().unwrap_or(&whole).to_owned())
        }
    }
}

/// Refused before an hour of hashing. Whether a torrent that is there is the same one shows only after it.
fn check(output: &Output, force: bool) -> Result<(), Failure> {
    let may_be_same = matches!(output, Output::File(path) if is_torrent(path));
    output.check(force || may_be_same).map_err(|failure| match failure.code {
        Code::Disk => Failure { message: format!("{}; --output names another place", failure.message), ..failure },
        _ => failure,
    })
}

fn is_torrent(path: &Path) -> bool {
    super::source::read_local(&path.to_string_lossy()).is_ok()
}

fn write(made: &Made, force: bool) -> Result<(), Failure> {
    let again = matches!(&made.output, Output::File(path) if same(&made.metainfo, path) == Some(true));
    made.output.write(&made.bytes, force || again)
}

/// The link on standard output; for programs an event.
fn tell(made: &Made, global: &Global) -> Result<(), Failure> {
    if global.output.json {
        let hash = made.metainfo.info.info_hash();
        return screen::output(line("created", SystemTime::now(), Some(&hash), &made.to_json()));
    }
    if let (Output::File(path), false) = (&made.output, global.output.quiet) {
        screen::message(format_args!("{}: written; the magnet link says the same:", shown(path)));
    }
    screen::output(format!("{}\n", made.metainfo.magnet()))
}
