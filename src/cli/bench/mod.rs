//! L6: `gannet bench`.
//!
//! For: measuring what this machine can do (hash, disk, network), what gannet makes of it (whole downloads on the loopback
//! interface), and how that compares with other clients.
//! Must not know: how any of it is done; it calls the parts as their users do, and times them from outside.
//! Main types: [`Bench`] (what all subjects share), [`Report`](report::Report).
//!
//! ```text
//! hash  disk  network  loopback ── sessions, programs, crowd     what is measured: one file per subject
//!                      compare  ── clients, cheap
//! all                                                            the ceilings side by side
//! rounds, meter, noise, stats                                    how it is measured
//! report, table, plot                                            how it is told
//! ```

mod all;
mod args;
mod cheap;
mod clients;
mod compare;
mod crowd;
mod disk;
mod hash;
mod loopback;
mod meter;
mod network;
mod noise;
mod payload;
mod plot;
mod programs;
mod report;
mod rounds;
mod sessions;
mod stats;
mod stop;
mod table;

pub(super) use args::BenchArgs;

use std::path::Path;

use super::Global;
use super::exit::Failure;
use super::scratch::Scratch;
use crate::sys;
use args::What;
use noise::Calibration;
use rounds::Rounds;
use stop::Stop;

/// How much is moved where nobody said.
const SIZE: u64 = 512 << 20;
/// The least that is, however short memory is.
const MIN_SIZE: u64 = 16 << 20;
/// Where the system does not tell how much memory it has.
const UNKNOWN_MEMORY: u64 = 4 << 30;
/// What several copies may take together where nobody said.
const TOGETHER: u64 = 2 << 30;

/// What all subjects share.
struct Bench<'a> {
    global: &'a Global,
    stop: Stop,
    calibration: Calibration,
    /// Sentences under the tables.
    notes: Vec<String>,
}

pub(super) fn run(args: &BenchArgs, global: &Global) -> Result<(), Failure> {
    let stop = Stop::listen()?;
    let mut bench = Bench { global, stop, calibration: Calibration::new(), notes: Vec::new() };
    let (run, report) = match &args.what {
        What::Hash(args) => (&args.run, hash::run(args, &mut bench)?),
        What::Disk(args) => (&args.run, disk::run(args, &mut bench)?),
        What::Loopback(args) => (&args.run, loopback::run(args, &mut bench)?),
        What::Compare(args) => (&args.run, compare::run(args, &mut bench)?),
        What::All(args) => (&args.run, all::run(args, &mut bench)?),
    };
    report.tell(&bench, run.plot.as_deref())
}

impl Bench<'_> {
    /// Runs of `subject`, as many as were asked for.
    fn rounds(&self, subject: &str, asked: Option<u16>) -> Rounds {
        Rounds::new(subject, asked, &self.global.output)
    }

    /// A folder for the data, in `dir`, that has room for so many bytes.
    fn scratch(&self, dir: &Path, bytes: u64) -> Result<Scratch, Failure> {
        let scratch = Scratch::new(dir, "bench")?;
        scratch.need(bytes)?;
        Ok(scratch)
    }
}

/// How much to move: what was asked for, or what suits this machine when `copies` of it are there at once.
fn size(asked: Option<u64>, copies: u64) -> u64 {
    let free = sys::available_memory().unwrap_or(UNKNOWN_MEMORY);
    asked.unwrap_or_else(|| default_size(free, copies))
}

/// All copies fit into half of the memory, so that this is about gannet and not about swapping.
fn default_size(free: u64, copies: u64) -> u64 {
    let copies = copies.max(1);
    let most = (free / 2 / copies).min(TOGETHER / copies).clamp(MIN_SIZE, SIZE);
    // Round figures are easier to compare.
    1 << most.ilog2()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_that_suit() {
        const GIB: u64 = 1 << 30;
        let table = [(16 * GIB, 2, 512), (2 * GIB, 2, 512), (GIB, 2, 256), (100 << 20, 2, 16), (64 * GIB, 9, 128)];
        for (free, copies, mib) in table {
            assert_eq!(default_size(free, copies), mib << 20, "{free} {copies}");
        }
        assert_eq!(default_size(0, 0), MIN_SIZE);
        assert_eq!(size(Some(7), 100), 7);
    }
}
