//! L6: the command line.
//!
//! For: arguments, configuration, what is shown, exit codes; one file per subcommand.
//! Must not know: sockets, swarms; it speaks to [`session`](crate::session) and to the formats.
//! Main function: [`run`].

mod address;
mod args;
mod bench;
mod completions;
mod config;
mod create;
mod demo;
mod dht;
mod doctor;
mod exit;
mod fetch;
mod get;
mod hashing;
mod info;
mod ip_filter;
mod json;
mod log;
mod magnet;
mod making;
mod man;
mod metadata;
mod options;
mod place;
mod progress;
mod quantity;
mod report;
mod sandbox;
pub mod scrape;
mod scratch;
mod screen;
mod seed;
mod select;
mod settings;
mod share;
mod signals;
mod source;
mod time;
mod torrent_file;
mod transfer;
mod tree;
mod verify;
mod walk;

use std::ffi::OsString;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;

use clap::{CommandFactory, Parser};

use args::{Cli, Command, OutputOptions};
use exit::{Code, Failure};
use options::{EgressOptions, Layer};
use settings::Layers;

use crate::net::egress::Egress;

/// What every command knows besides its own arguments.
struct Global {
    /// Options of output as given on the command line.
    said: OutputOptions,
    /// Options of output in effect.
    output: OutputOptions,
    /// The settings below the command line.
    layers: Layers,
    /// See [`sandbox`].
    no_sandbox: bool,
}

impl Global {
    /// The way out for a command that knows only these of the options of transfers.
    fn egress(&self, said: &EgressOptions) -> Result<Egress, Failure> {
        said.clone().or(self.layers.settings.get.network.egress.clone()).egress()
    }
}

/// Runs the program with `args`, the first of which is its own name. What it ends with is one of the exit codes of the
/// manual page.
pub fn run(args: impl IntoIterator<Item = OsString>) -> ExitCode {
    std::panic::set_hook(Box::new(report_panic));
    crate::sys::ignore_file_size_signal();
    // Files and sockets share it, and the usual 1,024 is soon reached.
    crate::sys::raise_open_file_limit();
    let args: Vec<OsString> = args.into_iter().collect();
    let outcome = catch_unwind(AssertUnwindSafe(|| start(args)));
    match outcome {
        Ok(Ok(())) => ExitCode::SUCCESS,
        Ok(Err(failure)) => {
            if !failure.message.is_empty() {
                screen::message(format_args!("gannet: {failure}"));
            }
            failure.code.into()
        }
        Err(_) => Code::Bug.into(),
    }
}

fn start(args: Vec<OsString>) -> Result<(), Failure> {
    let cli = match Cli::try_parse_from(&args) {
        Ok(cli) => cli,
        Err(error) => return say_clap(&error, &args),
    };
    let layers = settings::load(cli.shared.config.as_deref(), std::env::vars_os())?;
    let no_sandbox = cli.shared.sandbox.or(layers.settings.sandbox.clone()).no_sandbox;
    let said = cli.shared.output;
    let output = said.clone().or(layers.settings.output.clone());
    log::start(&output)?;
    if let Ok(name) = std::env::var("GANNET_HASH")
        && !crate::hash::force_tier(&name)
    {
        tracing::warn!("GANNET_HASH: not one of scalar, ni4, avx512");
    }
    for name in &layers.unknown_variables {
        tracing::info!("{} is no setting", crate::base::printable(name));
    }
    let global = Global { said, output, layers, no_sandbox };
    let json = global.output.json;
    let outcome = match cli.command {
        Command::Get(args) => get::run(args, &global),
        Command::Seed(args) => seed::run(args, &global),
        Command::Share(args) => share::run(args, &global),
        Command::Create(args) => create::run(&args, &global),
        Command::Info(args) => info::run(args, &global),
        Command::Verify(args) => verify::run(args, &global),
        Command::Magnet(args) => magnet::run(&args, &global),
        Command::Scrape(args) => scrape::command(args, &global),
        Command::Dht(args) => dht::run(args, &global),
        Command::Doctor(args) => doctor::run(args, &global),
        Command::Bench(args) => bench::run(&args, &global),
        Command::Demo(args) => demo::run(&args, &global),
        Command::Config(args) => config::run(&args, &global),
        Command::Completions(args) => completions::run(&args),
        Command::Man(_) => man::run(),
    };
    if let Err(failure) = &outcome
        && json
        && !failure.message.is_empty()
    {
        // Who reads JSON reads it there, too; the line on standard error comes after.
        let body = json::error(failure);
        screen::output(json::line("error", std::time::SystemTime::now(), None, &body))?;
    }
    outcome
}

/// Help and version are results; anything else is one line.
fn say_clap(error: &clap::Error, args: &[OsString]) -> Result<(), Failure> {
    use clap::error::ErrorKind;
    match error.kind() {
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => {
            // By the parser's own way, which knows whether to use colours.
            error.print().map_err(|e| Failure::stdout(&e))
        }
        ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand => {
            let _ = error.print();
            Err(Failure::silent(Code::Usage))
        }
        _ => {
            let help = match command_in(args) {
                Some(name) => format!("gannet {name} --help"),
                None => "gannet --help".to_owned(),
            };
            Err(Failure::usage(format!("{}; see '{help}'", settings::clap_words(error))))
        }
    }
}

/// The command that arguments are for, though they are wrong.
fn command_in(args: &[OsString]) -> Option<String> {
    let mut known = &Cli::command();
    let mut names = Vec::new();
    for word in args.iter().skip(1).filter_map(|arg| arg.to_str()) {
        if let Some(found) = known.find_subcommand(word) {
            names.push(found.get_name());
            known = found;
        }
    }
    (!names.is_empty()).then(|| names.join(" "))
}

/// One line instead of a backtrace.
fn report_panic(info: &std::panic::PanicHookInfo<'_>) {
    use std::io::Write;
    let payload = info.payload();
    let what = payload.downcast_ref::<&str>().copied().or_else(|| payload.downcast_ref::<String>().map(String::as_str));
    let what = what.unwrap_or("no words");
    let place = info.location().map(|l| format!(" at {}:{}", l.file(), l.line())).unwrap_or_default();
    // Past the bars on purpose: they may be what failed.
    let _ = writeln!(
        std::io::stderr(),
        "gannet: internal error{place}: {}; this is a bug, please report it",
        exit::one_line(&crate::base::printable(what))
    );
}

/// The runtime for commands that use the network.
fn runtime() -> Result<tokio::runtime::Runtime, Failure> {
    let refused = |e: &std::io::Error| {
        let why = exit::io_words(e);
        Failure::new(Code::Bug, format!("cannot start threads: {why}; a limit of processes is too low (ulimit -u)"))
    };
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    // One more for what waits for the system.
    can_start(threads + 1).map_err(|e| refused(&e))?;
    tokio::runtime::Builder::new_multi_thread().enable_all().build().map_err(|e| refused(&e))
}

/// Whether so many threads may run side by side. Where they may not, the runtime panics, or waits for ever for those that it
/// could start.
fn can_start(threads: usize) -> std::io::Result<()> {
    let door = std::sync::Mutex::new(());
    std::thread::scope(|scope| {
        let closed = door.lock();
        let started = (0..threads).try_for_each(|_| {
            std::thread::Builder::new().stack_size(64 << 10).spawn_scoped(scope, || drop(door.lock())).map(drop)
        });
        drop(closed);
        started
    })
}

/// Runs `work` to its end, or until a signal.
fn block_on<T>(work: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
    runtime()?.block_on(async { signals::Signals::take()?.unless(work).await })
}
