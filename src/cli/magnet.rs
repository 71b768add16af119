//! `gannet magnet`: the link of a torrent.

use serde_json::json;

use super::Global;
use super::args::MagnetArgs;
use super::exit::Failure;
use super::json::object;
use super::{sandbox, screen, source};

pub(super) fn run(args: &MagnetArgs, global: &Global) -> Result<(), Failure> {
    sandbox::enter(global, &[]);
    let link = source::read_local(&args.source)?.magnet().to_string();
    if global.output.json {
        return screen::output(object(&json!({ "magnet": link })));
    }
    screen::output(format!("{link}\n"))
}
