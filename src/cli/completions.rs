//! `gannet completions`: scripts that complete its command lines.

use clap::CommandFactory;

use super::args::{Cli, CompletionsArgs};
use super::exit::Failure;
use super::screen;

pub(super) fn run(args: &CompletionsArgs) -> Result<(), Failure> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "gannet", &mut script);
    screen::output_bytes(&script)
}
