//! `gannet bench loopback`: whole downloads on the loopback interface.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use clap::ValueEnum;

use super::super::args::Format;
use super::super::exit::{Code, Failure, io_words, shown};
use super::super::options::{EncryptionChoice, Listen, NetworkOptions};
use super::super::progress::count;
use super::super::scratch::Scratch;
use super::super::{info, quantity, runtime};
use super::Bench;
use super::args::{DataArgs, LoopbackArgs};
use super::meter::{MemoryWatch, warm};
use super::payload::{Payload, Wanted};
use super::programs::{self, Program};
use super::report::Report;
use super::rounds::Rounds;
use super::table::{GIB, Row, Table, Used, as_f64};
use super::{crowd, sessions};
use crate::net::mini_tracker::{MiniTracker, MiniTrackerConfig};

/// Connections that a torrent may have unless said otherwise.
const MAX_PEERS: u32 = 100;
/// A program that is started, or that downloads from this machine, needs less.
const PATIENCE: Duration = Duration::from_secs(60);

/// How many peers there are.
#[derive(Clone, Copy, Debug)]
pub(super) struct Peers {
    pub(super) seeds: u16,
    pub(super) leechers: u16,
    /// Whether they encrypt.
    pub(super) encrypted: bool,
    /// Whether uTP carries it, in place of TCP.
    pub(super) utp: bool,
}

impl Peers {
    pub(super) fn count(self) -> usize {
        usize::from(self.seeds) + usize::from(self.leechers)
    }
}

/// How a session of ours meets the others: by TCP or by uTP, through the tracker, and nothing else. What is chosen here is
/// to be chosen in [`network_arguments`], too.
pub(super) fn network_options(peers: Peers) -> NetworkOptions {
    NetworkOptions {
        listen: vec![Listen::At(loopback())],
        max_peers: Some(MAX_PEERS.max(u32::try_from(peers.count()).unwrap_or(u32::MAX))),
        encryption: Some(encryption(peers.encrypted)),
        no_dht: true,
        no_pex: true,
        no_lsd: true,
        no_utp: !peers.utp,
        no_tcp: peers.utp,
        no_web_seeds: true,
        no_port_mapping: true,
        ..NetworkOptions::default()
    }
}

fn encryption(encrypted: bool) -> EncryptionChoice {
    if encrypted { EncryptionChoice::Require } else { EncryptionChoice::Off }
}

/// The same for a program.
pub(super) fn network_arguments(
    command: &mut Command,
    listen: SocketAddr,
    max_peers: usize,
    encrypted: bool,
    utp: bool,
) {
    let encryption = encryption(encrypted).to_possible_value();
    command.arg("--encryption").arg(encryption.as_ref().map_or("", |value| value.get_name()));
    command.arg("--listen").arg(listen.to_string());
    command.arg("--max-peers").arg(max_peers.to_string());
    command.arg(if utp { "--no-tcp" } else { "--no-utp" });
    command.args(["--no-dht", "--no-pex", "--no-lsd", "--no-web-seeds", "--no-port-mapping"]);
}

/// Any free port.
pub(super) fn loopback() -> SocketAddr {
    (Ipv4Addr::LOCALHOST, 0).into()
}

pub(super) fn run(args: &LoopbackArgs, bench: &mut Bench<'_>) -> Result<Report, Failure> {
    let (encrypted, utp) = (args.encrypted, args.utp);
    let peers = Peers { seeds: args.seeds, leechers: args.leechers, encrypted, utp };
    let copies = 1 + u64::from(peers.leechers);
    let size = super::size(args.data.size, copies);
    let piece_length = super::payload::piece_length(args.piece_length, size)?;
    // Made first, so that it is removed last: what still runs may still write.
    let scratch = bench.scratch(&args.data.dir, size.saturating_mul(copies))?;
    let runtime = runtime()?;
    let tracker = runtime.block_on(start_tracker())?;
    let url = tracker.announce_url();
    let wanted = Wanted { size, piece_length: args.piece_length, format: args.format, tracker: &url };
    let payload = Payload::make(&wanted, &scratch, bench)?;
    let mut rounds = bench.rounds("loopback", args.run.runs);

    let how = |who: String| {
        let pieces = info::piece_length(piece_length);
        format!(
            "{who}: {} in pieces of {pieces} ({}){}{}, in {}",
            quantity::bytes(size),
            word(args.format),
            if encrypted { ", encrypted" } else { "" },
            if utp { ", uTP" } else { "" },
            shown(&args.data.dir)
        )
    };
    let (subject, table) = if let Some(connections) = args.connections {
        let table = crowd::measure(connections, encrypted, &payload, &scratch, &mut rounds, &runtime, bench)?;
        (how(format!("one peer with {connections} connections")), table)
    } else {
        let who = format!("{}, {}", count(peers.seeds, "seed"), count(peers.leechers, "leecher"));
        if args.processes {
            let table = measure_programs(peers, &payload, &tracker, &scratch, &mut rounds, bench)?;
            (how(format!("{who}, a process each")), table)
        } else {
            let table = measure_sessions(peers, &payload, &tracker, &scratch, &mut rounds, &runtime, bench)?;
            (how(format!("{who}, in one process")), table)
        }
    };
    let mut report = Report::new("loopback", subject)
        .fact("size", size)
        .fact("piece_length", piece_length)
        .fact("format", word(args.format))
        .fact("encrypted", encrypted)
        .fact("utp", utp)
        .fact("processes", args.processes || args.connections.is_some());
    report = match args.connections {
        Some(connections) => report.fact("connections", connections),
        None => report.fact("seeds", peers.seeds).fact("leechers", peers.leechers),
    };
    report.tables.push(table);
    Ok(report)
}

/// One seed and one leecher in this process, for the overview.
pub(super) fn measure_one(
    data: &DataArgs,
    size: u64,
    piece_length: u32,
    rounds: &mut Rounds,
    bench: &mut Bench<'_>,
) -> Result<Table, Failure> {
    let scratch = bench.scratch(&data.dir, size.saturating_mul(2))?;
    let runtime = runtime()?;
    let tracker = runtime.block_on(start_tracker())?;
    let url = tracker.announce_url();
    let piece_length = super::super::args::PieceLength::Fixed(piece_length);
    let wanted = Wanted { size, piece_length, format: Format::V1, tracker: &url };
    let payload = Payload::make(&wanted, &scratch, bench)?;
    let peers = Peers { seeds: 1, leechers: 1, encrypted: false, utp: false };
    measure_sessions(peers, &payload, &tracker, &scratch, rounds, &runtime, bench)
}

fn word(format: Format) -> &'static str {
    match format {
        Format::V1 => "v1",
        Format::V2 => "v2",
        Format::Hybrid => "hybrid",
    }
}

/// A tracker, told at once if it cannot be reached: else it would look like seeds that nobody hears of.
async fn start_tracker() -> Result<MiniTracker, Failure> {
    let refused = |e: std::io::Error| Failure::network(format!("loopback: {}; is the interface up?", io_words(&e)));
    let tracker = MiniTracker::start(MiniTrackerConfig::default()).await.map_err(refused)?;
    tokio::net::TcpStream::connect(tracker.address()).await.map_err(refused)?;
    Ok(tracker)
}

/// All peers in this process.
fn measure_sessions(
    peers: Peers,
    payload: &Payload,
    tracker: &MiniTracker,
    scratch: &Scratch,
    rounds: &mut Rounds,
    runtime: &tokio::runtime::Runtime,
    bench: &mut Bench<'_>,
) -> Result<Table, Failure> {
    let mut table = Table::new("end to end: verified data that reached the leechers' files");
    let mut row = Row::new("all peers together");
    let stop = bench.stop.clone();
    let seeds = runtime.block_on(stop.unless(sessions::Seeds::start(peers, payload, tracker, scratch)))?;
    let moved = payload.size * u64::from(peers.leechers);
    while rounds.next(bench)? {
        warm(moved + moved / 4);
        let used = runtime.block_on(sessions::download(peers, payload, tracker, scratch, &stop))?;
        row.add(moved, &used);
    }
    runtime.block_on(seeds.stop());
    table.rows.push(row);
    Ok(table)
}

/// Each peer in a process of its own: `gannet seed` and `gannet get`, as users run them.
fn measure_programs(
    peers: Peers,
    payload: &Payload,
    tracker: &MiniTracker,
    scratch: &Scratch,
    rounds: &mut Rounds,
    bench: &mut Bench<'_>,
) -> Result<Table, Failure> {
    let mut seeds = Vec::new();
    for n in 0..peers.seeds {
        seeds.push(start_seed(n, payload, scratch, peers)?);
    }
    for seed in &mut seeds {
        seed.wait_for("\"event\":\"seeding\"", PATIENCE, &bench.stop)?;
    }
    let deadline = std::time::Instant::now() + PATIENCE;
    while tracker.counts(payload.wire_hash()).seeders < seeds.len() {
        bench.stop.check()?;
        if std::time::Instant::now() > deadline {
            return Err(Failure::network("loopback: the tracker has not heard of all seeds"));
        }
        std::thread::sleep(Duration::from_millis(5));
    }

    let moved = payload.size * u64::from(peers.leechers);
    let mut together = Row::new("all leechers together");
    let mut leecher = Row::new("a leecher (gannet get)");
    let mut seed = Row::new("a seed (gannet seed)");
    while rounds.next(bench)? {
        warm(moved + moved / 4);
        let folder = scratch.path().join("leechers");
        std::fs::create_dir_all(&folder).map_err(|e| Failure::disk(&folder, &e))?;
        let cpu_before: Vec<_> = seeds.iter().map(Program::cpu).collect();
        let mut leechers = Vec::new();
        for n in 0..peers.leechers {
            leechers.push(start_leecher(n, payload, &folder, scratch, peers)?);
        }
        let ids = seeds.iter().chain(&leechers).map(|program| Some(program.id()));
        let memory = MemoryWatch::start(ids.collect());
        let ends = programs::wait_for_all(&mut leechers, PATIENCE, &bench.stop)?;
        let memory = memory.finish();
        let begun = leechers.iter().map(Program::started).min();
        let ended = leechers.iter().zip(&ends).map(|(program, end)| program.started() + end.wall).max();
        let wall = ended.zip(begun).map(|(end, begin)| end - begin).unwrap_or_default();
        let cpu_after: Vec<_> = seeds.iter().map(Program::cpu).collect();
        let of_seeds: Vec<Option<Duration>> =
            cpu_after.into_iter().zip(cpu_before).map(|(a, b)| Some(a?.saturating_sub(b?))).collect();
        let peak = |n: usize| memory.get(n).copied().flatten();

        for (n, end) in ends.iter().enumerate() {
            let used = Used { wall: end.wall, cpu: Some(end.cpu), anonymous: peak(seeds.len() + n) };
            leecher.add(payload.size, &used);
        }
        for (n, cpu) in of_seeds.iter().enumerate() {
            // What each sent is not known from outside: an equal share.
            let share = as_f64(moved) / GIB / as_f64(seeds.len() as u64);
            seed.add_cost(share, &Used { wall, cpu: *cpu, anonymous: peak(n) });
        }
        let cpu = of_seeds.into_iter().chain(ends.iter().map(|end| Some(end.cpu))).sum();
        let anonymous = memory.iter().copied().sum();
        together.add(moved, &Used { wall, cpu, anonymous });

        tracker.forget_leechers(payload.wire_hash());
        for n in 0..peers.leechers {
            bench.stop.check()?;
            payload.insist(&folder.join(n.to_string()))?;
        }
        std::fs::remove_dir_all(&folder).map_err(|e| Failure::disk(&folder, &e))?;
    }
    together.note = Some("processor time and memory of all peers".to_owned());
    let mut table = Table::new("end to end: from the start of 'gannet get' to its end, when all is verified and saved");
    table.rows = vec![together, leecher, seed];
    Ok(table)
}

fn start_seed(n: u16, payload: &Payload, scratch: &Scratch, peers: Peers) -> Result<Program, Failure> {
    let mut command = programs::gannet(scratch.path())?;
    command.arg("seed").arg(&payload.torrent).arg(&payload.data).arg("--json");
    command.arg("--state-dir").arg(scratch.path().join(format!("seed-{n}")));
    network_arguments(&mut command, loopback(), peers.count().max(MAX_PEERS as usize), peers.encrypted, peers.utp);
    Program::start(format!("seed {n}"), &mut command, &scratch.path().join(format!("seed-{n}.log")))
}

fn start_leecher(
    n: u16,
    payload: &Payload,
    folder: &Path,
    scratch: &Scratch,
    peers: Peers,
) -> Result<Program, Failure> {
    let mut command = programs::gannet(scratch.path())?;
    command.arg("get").arg(&payload.torrent).arg("--quiet");
    command.arg("--dir").arg(folder.join(n.to_string()));
    command.arg("--state-dir").arg(folder.join(format!("state-{n}")));
    network_arguments(&mut command, loopback(), peers.count().max(MAX_PEERS as usize), peers.encrypted, peers.utp);
    Program::start(format!("leecher {n}"), &mut command, &folder.join(format!("{n}.log")))
}

/// A port that nobody listens on at the moment.
pub(super) fn free_port() -> Result<SocketAddr, Failure> {
    let found = std::net::TcpListener::bind(loopback()).and_then(|listener| listener.local_addr());
    found.map_err(|e| Failure::new(Code::Network, format!("loopback: {}; is the interface up?", io_words(&e))))
}
