//! `gannet bench compare`: the same download by every client that is installed, in turn.

use std::path::Path;
use std::time::{Duration, Instant};

use tokio::runtime::Runtime;

use super::super::args::Format;
use super::super::exit::{Failure, io_words, one_line, shown};
use super::super::progress::count;
use super::super::scratch::Scratch;
use super::super::{info, quantity, runtime};
use super::Bench;
use super::args::CompareArgs;
use super::cheap::{Data, Seed};
use super::clients::{Client, Kind};
use super::meter::{MemoryWatch, warm};
use super::payload::{Payload, Wanted};
use super::programs::Program;
use super::report::Report;
use super::table::{Row, Table, Used};
use crate::base::printable;
use crate::net::mini_tracker::{MiniTracker, MiniTrackerConfig};

/// In the order of the table.
const KINDS: [Kind; 5] = [Kind::Gannet, Kind::Libtorrent, Kind::Rqbit, Kind::Aria2, Kind::Transmission];
/// How often it is looked whether a client is done.
const LOOK: Duration = Duration::from_millis(1);
/// For a client that says it is done, until its files are.
const SETTLE: Duration = Duration::from_secs(5);
/// Letters of a reason in the table.
const MAX_REASON: usize = 70;

/// A client in the race.
struct Entry {
    client: Client,
    row: Row,
    /// Runs that gave the right bytes.
    right: usize,
    runs: usize,
    /// Why the last run that failed did.
    failure: Option<String>,
}

/// The ground that the race is run on.
struct Course<'a> {
    payload: &'a Payload,
    seed: &'a Seed,
    tracker: &'a MiniTracker,
    scratch: &'a Scratch,
    runtime: &'a Runtime,
    timeout: Duration,
}

pub(super) fn run(args: &CompareArgs, bench: &mut Bench<'_>) -> Result<Report, Failure> {
    let size = super::size(args.data.size, 2);
    let piece_length = super::payload::piece_length(args.piece_length, size)?;
    let scratch = bench.scratch(&args.data.dir, size.saturating_mul(2))?;
    let runtime = runtime()?;
    let refused = |e: std::io::Error| Failure::network(format!("loopback: {}; is the interface up?", io_words(&e)));
    let tracker = runtime.block_on(MiniTracker::start(MiniTrackerConfig::default())).map_err(refused)?;
    let url = tracker.announce_url();
    // Not all clients know v2.
    let wanted = Wanted { size, piece_length: args.piece_length, format: Format::V1, tracker: &url };
    let payload = Payload::make(&wanted, &scratch, bench)?;
    let seed = runtime.block_on(Seed::start(Data::of(&payload, false)?))?;

    let mut entries = Vec::new();
    let mut absent = Vec::new();
    for kind in KINDS.into_iter().filter(|kind| args.clients.is_empty() || args.clients.contains(kind)) {
        bench.stop.check()?;
        match kind.find(scratch.path()) {
            Some(client) => {
                let row = Row::new(client.title()).fact("client", kind.name()).fact("version", client.version.as_str());
                entries.push(Entry { client, row: row.fact("installed", true), right: 0, runs: 0, failure: None });
            }
            None => {
                let row = Row::new(kind.name()).fact("client", kind.name()).fact("installed", false);
                absent.push(Row { note: Some("not installed".to_owned()), ..row });
            }
        }
    }
    let course = Course {
        payload: &payload,
        seed: &seed,
        tracker: &tracker,
        scratch: &scratch,
        runtime: &runtime,
        timeout: args.timeout,
    };
    let mut rounds = bench.rounds("compare", args.run.runs);
    while rounds.next(bench)? {
        for entry in &mut entries {
            entry.run(&course, bench)?;
        }
    }

    let subject = format!(
        "a download of {} in pieces of {}, from one cheap seed on the loopback interface, in {}",
        quantity::bytes(size),
        info::piece_length(piece_length),
        shown(&args.data.dir)
    );
    let mut report = Report::new("compare", subject).fact("size", size).fact("piece_length", piece_length);
    let mut table = Table::new("from the start of the program until all is downloaded and verified");
    table.rows = entries.into_iter().map(Entry::finish).chain(absent).collect();
    report.verdict = verdict(&table.rows);
    report.tables.push(table);
    Ok(report)
}

impl Entry {
    /// One download. What the client does wrong is its own matter; what is an error is ours.
    fn run(&mut self, course: &Course<'_>, bench: &Bench<'_>) -> Result<(), Failure> {
        let size = course.payload.size;
        warm(size + size / 4);
        let folder = course.scratch.path().join("race");
        let (out, home) = (folder.join("out"), folder.join("home"));
        for path in [&out, &home] {
            std::fs::create_dir_all(path).map_err(|e| Failure::disk(path, &e))?;
        }
        let hash = course.payload.wire_hash();
        course.tracker.forget_leechers(hash);
        course.tracker.add_seeder(hash, course.seed.address);
        self.runs += 1;
        match self.download(course, &out, &home, bench)? {
            Ok(used) => {
                self.row.add(size, &used);
                self.right += 1;
            }
            Err(why) => self.failure = Some(why),
        }
        std::fs::remove_dir_all(&folder).map_err(|e| Failure::disk(&folder, &e))
    }

    /// What it used, or why there is nothing to count.
    fn download(
        &self,
        course: &Course<'_>,
        out: &Path,
        home: &Path,
        bench: &Bench<'_>,
    ) -> Result<Result<Used, String>, Failure> {
        let mut download = self.client.download(&course.payload.torrent, out, home)?;
        let mut program = Program::start(self.client.kind.name(), &mut download.command, &home.join("log"))?;
        let memory = MemoryWatch::start(vec![Some(program.id())]);
        let calling = download.call.map(|address| course.runtime.spawn(course.seed.keep_calling(address)));
        let outcome = loop {
            if let Err(stopped) = bench.stop.check() {
                break Err(stopped);
            }
            let wall = program.started().elapsed();
            if let Some(end) = program.end()? {
                let good = end.code == Some(0) && download.flag.is_none();
                let used = Used { wall: end.wall, cpu: Some(end.cpu), anonymous: None };
                break Ok(if good { Ok(used) } else { Err(program.failure().message) });
            }
            if download.flag.as_ref().is_some_and(|flag| flag.exists()) {
                break Ok(Ok(Used { wall, cpu: program.cpu(), anonymous: None }));
            }
            if wall >= course.timeout {
                break Ok(Err(format!("not done after {} s", course.timeout.as_secs())));
            }
            std::thread::sleep(LOOK);
        };
        if let Some(calling) = calling {
            calling.abort();
        }
        let anonymous = memory.finish().into_iter().flatten().next();
        let used = match outcome? {
            Ok(used) => Used { anonymous, ..used },
            Err(why) => return Ok(Err(why)),
        };
        // Who tells before the last bytes are in the file gets a moment for that.
        let deadline = Instant::now() + if download.flag.is_some() { SETTLE } else { Duration::ZERO };
        loop {
            match course.payload.is_in(out) {
                Ok(true) => return Ok(Ok(used)),
                _ if Instant::now() < deadline => {
                    bench.stop.check()?;
                    std::thread::sleep(LOOK * 20);
                }
                Ok(false) => return Ok(Err("what it downloaded is not what was seeded".to_owned())),
                Err(failure) => return Ok(Err(failure.message)),
            }
        }
    }

    /// Its row, with what there is to say about failures.
    fn finish(self) -> Row {
        let Self { row, right, runs, failure, .. } = self;
        let note = failure.map(|why| {
            let why: String = printable(&one_line(&why)).chars().take(MAX_REASON).collect();
            format!("{} of {} failed: {why}", runs - right, count(runs as u64, "run"))
        });
        Row { note, ..row }.fact("right", right).fact("runs", runs)
    }
}

/// Who was how fast.
fn verdict(rows: &[Row]) -> Vec<String> {
    let mut ranked: Vec<&Row> = rows.iter().filter(|row| !row.rate.runs().is_empty()).collect();
    ranked.sort_by(|a, b| b.rate.median().total_cmp(&a.rate.median()));
    let Some((first, rest)) = ranked.split_first() else { return vec![] };
    if rest.is_empty() {
        return vec![];
    }
    let others: Vec<String> = rest
        .iter()
        .map(|row| format!("{} {:.0} %", row.name, row.rate.median() / first.rate.median() * 100.0))
        .collect();
    vec![format!("fastest: {}; of its rate: {}", first.name, others.join(", "))]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranking() {
        let row = |name: &str, seconds: u64| {
            let mut row = Row::new(name);
            row.add(1 << 20, &Used { wall: Duration::from_secs(seconds), ..Used::default() });
            row
        };
        let rows = [row("a", 4), Row::new("absent"), row("b", 2), row("c", 8)];
        assert_eq!(verdict(&rows), ["fastest: b; of its rate: a 50 %, c 25 %"]);
        assert!(verdict(&rows[..2]).is_empty() && verdict(&[]).is_empty());
    }
}
