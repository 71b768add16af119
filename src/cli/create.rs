//! `gannet create`: makes a `.torrent`.

use std::path::Path;

use super::Global;
use super::args::CreateArgs;
use super::exit::{Failure, shown};
use super::json::object;
use super::making::{Draft, Made, note_format};
use super::screen;
use super::torrent_file::Output;

pub(super) fn run(args: &CreateArgs, global: &Global) -> Result<(), Failure> {
    let options = &args.options;
    let draft = Draft::new(&args.path, (options.output.as_deref(), Path::new("")), options, &args.trackers, global)?;
    if options.dry_run {
        return draft.show(global);
    }
    draft.output().check(options.force)?;
    let made = draft.make(options, global)?;
    made.output.write(&made.bytes, options.force)?;
    note_format(options.format, global);
    report(&made, global)
}

/// Says what was made, from what was made.
fn report(made: &Made, global: &Global) -> Result<(), Failure> {
    let Output::File(path) = &made.output else { return Ok(()) };
    if global.output.json {
        return screen::output(object(&made.to_json()));
    }
    let hash = made.metainfo.info.info_hash();
    let mut text = format!("{:<14} {}\n", "torrent", shown(path));
    if let Some(v1) = hash.as_v1() {
        text.push_str(&format!("{:<14} {v1}\n", "info-hash v1"));
    }
    if let Some(v2) = hash.as_v2() {
        text.push_str(&format!("{:<14} {v2}\n", "info-hash v2"));
    }
    text.push_str(&format!("{:<14} {}\n", "magnet", made.metainfo.magnet()));
    screen::output(text)
}
