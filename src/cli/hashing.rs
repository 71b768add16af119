//! Long work on files with a progress display, and the hashing of a torrent to be.

use std::io::IsTerminal;
use std::path::PathBuf;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

use super::args::OutputOptions;
use super::exit::{Code, Failure};
use super::progress::Look;
use super::quantity::{bytes, mean_rate, rate};
use super::{log, screen};
use crate::metainfo::{Format, Plan};
use crate::storage::{FileToHash, PieceHashes, PieceToHash, Progress, Span, StorageError, Target, hash_files};

/// How often the bar moves.
const TICK: Duration = Duration::from_millis(100);
/// How often a line is written where there is no terminal.
const PLAIN_EVERY: Duration = Duration::from_secs(10);

impl From<StorageError> for Failure {
    fn from(error: StorageError) -> Self {
        Self { code: Code::Disk, message: error.to_string(), path: Some(error.path) }
    }
}

/// Runs `work` on a thread of its own and shows how many of `total` bytes it has done.
pub(super) fn watched<T: Send>(
    label: &str,
    total: u64,
    output: &OutputOptions,
    work: impl FnOnce(&Progress) -> T + Send,
) -> Result<T, Failure> {
    let progress = Progress::default();
    let silent = output.quiet || output.json;
    let bar = (!silent && std::io::stderr().is_terminal()).then(|| bar(label, total, Look::new(log::colors(output))));
    let started = Instant::now();
    let mut last_line = started;
    let result = watching(
        TICK,
        || work(&progress),
        || {
            let done = progress.bytes.load(Ordering::Relaxed);
            if let Some(bar) = &bar {
                bar.set_position(done);
            } else if !silent && last_line.elapsed() >= PLAIN_EVERY {
                last_line = Instant::now();
                let speed = rate(mean_rate(done, started.elapsed()));
                screen::message(format_args!("{label}: {} of {}, {speed}", bytes(done), bytes(total)));
            }
        },
    );
    if let Some(bar) = bar {
        bar.finish_and_clear();
    }
    result
}

/// Runs `work` on a thread of its own and calls `look` now and then meanwhile. Ends when `work` does, not at the next look.
pub(super) fn watching<T: Send>(
    every: Duration,
    work: impl FnOnce() -> T + Send,
    mut look: impl FnMut(),
) -> Result<T, Failure> {
    let result = thread::scope(|scope| {
        // Nothing is sent: we are woken when the worker lets go of its end, in whichever way.
        let (held, ended) = mpsc::sync_channel::<()>(0);
        let worker = scope.spawn(move || {
            let _held = held;
            work()
        });
        while ended.recv_timeout(every) == Err(RecvTimeoutError::Timeout) {
            look();
        }
        worker.join()
    });
    // Its panic has been reported in its place.
    result.map_err(|_| Failure::silent(Code::Bug))
}

fn bar(label: &str, total: u64, look: Look) -> ProgressBar {
    let template = match crate::sys::terminal_columns() {
        Some(0..70) => "{prefix} {percent:>3}%  {decimal_bytes_per_sec}",
        _ => "{prefix} [{bar:20}] {percent:>3}%  {decimal_bytes} of {decimal_total_bytes}  {decimal_bytes_per_sec}",
    };
    let style = ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar());
    let bar = screen::bars().add(ProgressBar::new(total.max(1)));
    bar.set_style(style.progress_chars(look.signs()));
    bar.set_prefix(label.to_owned());
    bar
}

/// Hashes what `plan` asks for on all cores; `paths` are its files, in the order of the plan's list.
pub(super) fn hash(
    plan: &Plan,
    paths: &[PathBuf],
    threads: Option<u16>,
    output: &OutputOptions,
) -> Result<PieceHashes, Failure> {
    let files: Vec<FileToHash> = paths
        .iter()
        .zip(plan.files())
        .map(|(path, file)| FileToHash { path: path.clone(), length: file.length })
        .collect();
    let kinds = match plan.format() {
        Format::V1 => (true, false),
        Format::V2 => (false, true),
        Format::Hybrid => (true, true),
    };
    let piece = |n| {
        let planned = plan.piece(n)?;
        let spans = planned.spans.iter().map(|span| {
            let file = u32::try_from(span.file).unwrap_or(u32::MAX);
            Span { target: Target::File { file, offset: span.offset }, len: span.len.into() }
        });
        Some(PieceToHash { spans: spans.collect(), padding: planned.padding, width: planned.width })
    };
    let hashed = watched("hashing", plan.total_size(), output, |progress| {
        let (length, count) = (plan.piece_length(), plan.piece_count());
        hash_files(&files, length, count, &piece, kinds, threads.map(usize::from), progress)
    })?;
    Ok(hashed?)
}
