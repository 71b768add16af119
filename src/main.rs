//! The `gannet` program: see the library's [`cli`](gannet::cli).

use std::process::ExitCode;

fn main() -> ExitCode {
    gannet::cli::run(std::env::args_os())
}
