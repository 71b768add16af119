//! Run after run, until there are enough of them or time is up.

use std::io::IsTerminal;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

use super::super::args::OutputOptions;
use super::super::exit::Failure;
use super::super::progress::Look;
use super::super::{log, screen};
use super::Bench;

/// Runs unless said otherwise.
const RUNS: u16 = 5;
/// Where nobody said how many, no further run is begun after this time: the whole should take less than a minute.
const PATIENCE: Duration = Duration::from_secs(40);
/// How often a line is written where there is no terminal.
const PLAIN_EVERY: Duration = Duration::from_secs(10);

/// Counts runs, shows how far they are, and has the machine's calm looked at before each.
pub(super) struct Rounds {
    subject: String,
    wanted: u16,
    /// The user asked for so many.
    fixed: bool,
    done: u16,
    patience: Duration,
    started: Instant,
    last_line: Instant,
    bar: Option<ProgressBar>,
    silent: bool,
}

impl Rounds {
    /// Runs of `subject`: as many as were `asked` for.
    pub(super) fn new(subject: &str, asked: Option<u16>, output: &OutputOptions) -> Self {
        let silent = output.quiet || output.json;
        let wanted = asked.unwrap_or(RUNS);
        let now = Instant::now();
        let bar = (!silent && std::io::stderr().is_terminal()).then(|| {
            let style = ProgressStyle::with_template("{prefix} [{bar:20}] run {pos} of {len}");
            let style = style.unwrap_or_else(|_| ProgressStyle::default_bar());
            let bar = screen::bars().add(ProgressBar::new(wanted.into()));
            bar.set_style(style.progress_chars(Look::new(log::colors(output)).signs()));
            bar.set_prefix(subject.to_owned());
            bar
        });
        Self {
            subject: subject.to_owned(),
            wanted,
            fixed: asked.is_some(),
            done: 0,
            patience: PATIENCE,
            started: now,
            last_line: now,
            bar,
            silent,
        }
    }

    /// The same for one of `parts` that share the time.
    pub(super) fn shared_by(mut self, parts: u32) -> Self {
        self.patience /= parts;
        self
    }

    /// Whether another run is to be made.
    pub(super) fn next(&mut self, bench: &mut Bench<'_>) -> Result<bool, Failure> {
        bench.stop.check()?;
        if self.done >= self.wanted {
            bench.calibration.lap();
            return Ok(false);
        }
        if !self.fixed && self.done > 0 && self.started.elapsed() >= self.patience {
            bench.notes.push(format!(
                "{}: {} of {} runs, for they take long here; --runs {} makes them all",
                self.subject, self.done, self.wanted, self.wanted
            ));
            return Ok(false);
        }
        bench.calibration.lap();
        self.done += 1;
        if let Some(bar) = &self.bar {
            bar.set_position(self.done.into());
        } else if !self.silent && self.last_line.elapsed() >= PLAIN_EVERY {
            self.last_line = Instant::now();
            screen::message(format_args!("{}: run {} of {}", self.subject, self.done, self.wanted));
        }
        Ok(true)
    }
}

impl Drop for Rounds {
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}
