//! `gannet bench hash`: how fast is SHA-1, how fast is SHA-256?

use std::hint::black_box;
use std::thread;

use super::super::exit::Failure;
use super::Bench;
use super::args::HashArgs;
use super::meter::Meter;
use super::report::{Report, cores};
use super::rounds::Rounds;
use super::table::{Row, Table, Used};
use crate::base::BLOCK_LEN;
use crate::hash::{self, Slices, Tier};

/// Bytes hashed in each run on each core, unless said otherwise.
const SIZE: u64 = 256 << 20;

/// Messages that are hashed together: enough for every lane.
const TOGETHER: usize = 16;

/// The two hashes, and how long their messages are: pieces for SHA-1 (BEP 3), leaves for SHA-256 (BEP 52).
const HASHES: [(&str, usize, &str); 2] = [
    ("sha1", 1 << 20, "SHA-1 of pieces of 1 MiB, 16 at a time"),
    ("sha256", 16 << 10, "SHA-256 of leaves of 16 KiB, 16 at a time"),
];

pub(super) fn run(args: &HashArgs, bench: &mut Bench<'_>) -> Result<Report, Failure> {
    let size = args.size.unwrap_or(SIZE);
    let mut rounds = bench.rounds("hash", args.run.runs);
    let tables = measure(size, &mut rounds, bench)?;
    let mut report =
        Report::new("hash", "hashing, from memory").fact("bytes_per_core", size).fact("tier", hash::tier());
    report.tables = tables;
    report.verdict.push(format!("gannet uses: {} ({} messages side by side)", hash::tier(), hash::lanes()));
    Ok(report)
}

/// Every hash in every way, on one core and on all, `size` bytes on each.
pub(super) fn measure(size: u64, rounds: &mut Rounds, bench: &mut Bench<'_>) -> Result<Vec<Table>, Failure> {
    let cores = cores();
    // Each core has messages of its own, as each hashing thread has its own pieces.
    let longest = HASHES.iter().map(|(_, len, _)| len * TOGETHER).max().unwrap_or(0);
    let mut dice = fastrand::Rng::with_seed(1);
    let memory: Vec<Vec<u8>> = (0..cores)
        .map(|_| {
            let mut bytes = vec![0; longest];
            dice.fill(&mut bytes);
            bytes
        })
        .collect();
    let mut tables: Vec<Table> = HASHES.iter().map(|(_, _, title)| Table::new(*title)).collect();
    let counts = if cores > 1 { vec![1, cores] } else { vec![1] };
    let mut cases = Vec::new();
    for (at, (name, len, _)) in HASHES.into_iter().enumerate() {
        for tier in Tier::available() {
            for &cores in &counts {
                let shown = if cores == 1 { "1 core".to_owned() } else { format!("all {cores} cores") };
                let row = Row::new(format!("{}, {shown}", tier.name()));
                let row = row.fact("hash", name).fact("tier", tier.name()).fact("cores", cores);
                cases.push((at, tables[at].rows.len(), name, len, tier, cores));
                tables[at].rows.push(row);
            }
        }
    }
    while rounds.next(bench)? {
        for &(table, row, name, len, tier, cores) in &cases {
            bench.stop.check()?;
            let (used, done) = hash_all(name, len, tier, &memory[..cores], size);
            tables[table].rows[row].add(done, &used);
        }
    }
    Ok(tables)
}

/// Hashes `size` bytes on each of as many threads as there are `memory`s. What it took, and the bytes hashed by all.
fn hash_all(name: &str, len: usize, tier: Tier, memory: &[Vec<u8>], size: u64) -> (Used, u64) {
    let group = (len * TOGETHER) as u64;
    let times = size.div_ceil(group);
    let meter = Meter::start();
    thread::scope(|scope| {
        for bytes in &memory[1..] {
            scope.spawn(|| hash_messages(name, len, tier, bytes, times));
        }
        hash_messages(name, len, tier, &memory[0], times);
    });
    (meter.finish(), times * group * memory.len() as u64)
}

/// Hashes messages of `len` bytes, as many as go together, `times` times: those of `bytes` in turn, so that they come from
/// where pieces come from and not from the nearest cache.
fn hash_messages(name: &str, len: usize, tier: Tier, bytes: &[u8], times: u64) {
    // In blocks, as they come from peers.
    let blocks: Vec<Vec<&[u8]>> =
        bytes.chunks(len).map(|message| message.chunks(BLOCK_LEN as usize).collect()).collect();
    let messages: Vec<Slices<'_>> = blocks.iter().map(Vec::as_slice).collect();
    for (group, _) in messages.chunks(TOGETHER).cycle().zip(0..times) {
        match name {
            "sha1" => drop(black_box(tier.sha1_many(black_box(group)))),
            _ => drop(black_box(tier.sha256_many(black_box(group)))),
        }
    }
}
