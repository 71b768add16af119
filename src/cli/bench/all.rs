//! `gannet bench all`: the ceilings of this machine side by side, and which of them holds the rest back.

use serde_json::json;

use super::super::exit::{Failure, shown};
use super::super::{info, quantity};
use super::Bench;
use super::args::AllArgs;
use super::report::{Report, cores};
use super::table::{GIB, Row, Table, gb};
use super::{disk, hash, loopback, network};

/// Bytes per piece.
const PIECE_LENGTH: u32 = 1 << 20;
/// How many subjects share the time.
const PARTS: u32 = 4;
/// Bytes hashed in each run, on each core: less than alone, for there are many ways.
const HASH_SIZE: u64 = 64 << 20;
/// Beyond this share of a ceiling there is nothing to be had but by raising the ceiling.
const AT_THE_CEILING: f64 = 0.8;

/// How fast something can be, and what it costs.
#[derive(Clone, Copy, Debug)]
struct Ceiling {
    name: &'static str,
    /// Bytes per second.
    rate: f64,
    /// Processor seconds per GiB.
    cpu: f64,
}

impl Ceiling {
    fn of(name: &'static str, row: &Row) -> Self {
        Self { name, rate: row.rate.median(), cpu: row.cpu.median() }
    }
}

pub(super) fn run(args: &AllArgs, bench: &mut Bench<'_>) -> Result<Report, Failure> {
    let size = super::size(args.data.size, 2);
    let mut rounds = bench.rounds("hash", args.run.runs).shared_by(PARTS);
    let hashes = hash::measure(args.data.size.unwrap_or(HASH_SIZE).min(HASH_SIZE), &mut rounds, bench)?;
    let mut rounds = bench.rounds("disk", args.run.runs).shared_by(PARTS);
    let disk = disk::measure(&args.data.dir, size, PIECE_LENGTH, &mut rounds, bench)?;
    let mut rounds = bench.rounds("network", args.run.runs).shared_by(PARTS);
    let network = network::measure(size, &mut rounds, bench)?;
    let mut rounds = bench.rounds("loopback", args.run.runs).shared_by(PARTS);
    let end_to_end = loopback::measure_one(&args.data, size, PIECE_LENGTH, &mut rounds, bench)?;

    let fastest = |table: &Table| table.rows.iter().max_by(|a, b| a.rate.median().total_cmp(&b.rate.median())).cloned();
    let written = disk.table.rows.get(disk.in_use).cloned();
    let mut side = Table::new("side by side");
    let mut ceilings = Vec::new();
    let sources = [
        ("hash", hashes.first().and_then(fastest)),
        ("disk", written),
        ("network", network.rows.first().cloned()),
        ("end to end", end_to_end.rows.first().cloned()),
    ];
    for (name, row) in sources {
        let Some(row) = row else { continue };
        ceilings.push(Ceiling::of(name, &row));
        side.rows.push(Row { name: format!("{name} ({})", row.name), ..row });
    }

    let subject = format!(
        "{} in pieces of {} on {} ({})",
        quantity::bytes(size),
        info::piece_length(PIECE_LENGTH),
        disk.file_system,
        shown(&args.data.dir)
    );
    let mut report = Report::new("all", subject).fact("size", size).fact("file_system", disk.file_system);
    if let Some((end, ceilings)) = ceilings.split_last()
        && ceilings.len() == PARTS as usize - 1
    {
        let found = Held::by(ceilings, *end, cores());
        report = report.fact(
            "held_back_by",
            json!({ "name": found.name, "bytes_per_second": found.rate, "reached": found.reached }),
        );
        report.verdict.push(found.to_text(ceilings, *end));
    }
    report.tables.push(side);
    report.tables.extend(hashes);
    report.tables.push(disk.table);
    report.tables.push(network);
    report.tables.push(end_to_end);
    Ok(report)
}

/// What holds the rest back.
#[derive(Debug)]
struct Held {
    name: &'static str,
    /// How fast it lets the whole be, in bytes per second.
    rate: f64,
    /// Which share of that a download reaches.
    reached: f64,
}

impl Held {
    /// The lowest of the ceilings. One is over them all: the processor, which hashing, writing, sending and receiving share.
    fn by(ceilings: &[Ceiling], end: Ceiling, cores: usize) -> Self {
        let sum: f64 = ceilings.iter().map(|c| c.cpu).sum();
        #[expect(clippy::cast_precision_loss, reason = "there are not that many cores")]
        let together = if sum > 0.0 { cores as f64 * GIB / sum } else { f64::INFINITY };
        let mut lowest = Ceiling { name: "processor", rate: together, cpu: sum };
        for ceiling in ceilings {
            if ceiling.rate < lowest.rate {
                lowest = *ceiling;
            }
        }
        Self { name: lowest.name, rate: lowest.rate, reached: end.rate / lowest.rate.max(1.0) }
    }

    fn to_text(&self, ceilings: &[Ceiling], end: Ceiling) -> String {
        let sum: f64 = ceilings.iter().map(|c| c.cpu).sum();
        let costs: Vec<String> = ceilings.iter().map(|c| format!("{} {:.2}", c.name, c.cpu)).collect();
        let what = match self.name {
            "processor" => format!(
                "the processor, which all share ({} = {sum:.2} s per GiB): together they can do {} GB/s",
                costs.join(" + "),
                gb(self.rate)
            ),
            name => format!("the {name}, with {} GB/s", gb(self.rate)),
        };
        let rest = if self.reached >= AT_THE_CEILING {
            "; there is little more to be had".to_owned()
        } else {
            format!("; a download costs {:.2} s per GiB, {:.2} more than its parts", end.cpu, (end.cpu - sum).max(0.0))
        };
        format!(
            "what holds the rest back: {what}. A download reaches {} GB/s, {:.0} % of that{rest}",
            gb(end.rate),
            self.reached * 100.0
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const G: f64 = 1e9;

    fn ceilings(rates: [f64; 3], cpu: [f64; 3]) -> Vec<Ceiling> {
        let names = ["hash", "disk", "network"];
        names.into_iter().zip(rates).zip(cpu).map(|((name, rate), cpu)| Ceiling { name, rate: rate * G, cpu }).collect()
    }

    #[test]
    fn the_lowest_ceiling_holds() {
        let end = Ceiling { name: "end to end", rate: 0.45 * G, cpu: 1.5 };
        let slow_disk = ceilings([10.0, 0.5, 5.0], [0.1, 0.3, 0.4]);
        let held = Held::by(&slow_disk, end, 2);
        assert_eq!(held.name, "disk");
        assert!((held.reached - 0.9).abs() < 1e-9);
        let text = held.to_text(&slow_disk, end);
        assert!(
            text.contains("the disk, with 0.50 GB/s") && text.contains("90 %") && text.contains("little more"),
            "{text}"
        );
    }

    #[test]
    fn the_processor_is_shared() {
        // 1 s per GiB in all, on one core: 1 GiB/s, though each part alone is faster.
        let end = Ceiling { name: "end to end", rate: 0.5 * GIB, cpu: 1.7 };
        let parts = ceilings([3.0, 3.0, 3.0], [0.3, 0.3, 0.4]);
        let held = Held::by(&parts, end, 1);
        assert_eq!(held.name, "processor");
        assert!((held.rate - GIB).abs() < 1.0 && (held.reached - 0.5).abs() < 1e-9, "{held:?}");
        let text = held.to_text(&parts, end);
        assert!(
            text.contains("hash 0.30 + disk 0.30 + network 0.40 = 1.00 s per GiB") && text.contains("0.70 more"),
            "{text}"
        );
        // Four cores have room for all of it at once.
        assert_eq!(Held::by(&parts, end, 4).name, "hash");
        // Where nothing is known of costs, only rates count.
        assert_eq!(Held::by(&ceilings([3.0, 2.0, 4.0], [0.0; 3]), end, 1).name, "disk");
    }
}
