//! `gannet scrape`: what each tracker of a torrent counts.

use std::io::{self, Write};
use std::sync::Arc;

use tokio::task::JoinSet;

use super::Global;
use super::args::ScrapeArgs;
use super::exit::{Code, Failure};
use super::{block_on, sandbox, screen, source};
use crate::base::{InfoHash, printable};
use crate::net::tracker::{TrackerClient, TrackerClientConfig};
use crate::tracker::{ScrapeEntry, TrackerError, TrackerUrl};

/// Trackers of one torrent that are asked.
const MAX_TRACKERS: usize = 200;

/// What to ask, and how to show it.
#[derive(Clone, Debug)]
pub struct Scrape {
    /// The torrent. Both hashes of a hybrid are asked for; the larger count of each kind is shown.
    pub info_hash: InfoHash,
    /// Its trackers, tier by tier.
    pub trackers: Vec<Vec<String>>,
    /// One JSON object instead of a table.
    pub json: bool,
}

/// What one tracker said; its name holds no passkey.
struct Row {
    tracker: String,
    outcome: Result<Option<ScrapeEntry>, TrackerError>,
}

/// The command of that name.
pub(super) fn command(args: ScrapeArgs, global: &Global) -> Result<(), Failure> {
    sandbox::enter(global, &[]);
    let metainfo = source::read_local(&args.source)?;
    let mut trackers = metainfo.announce.clone();
    trackers.extend(args.trackers.into_iter().map(|url| vec![url]));
    if trackers.is_empty() {
        let name = printable(metainfo.info.name());
        return Err(Failure::network(format!("{name}: the torrent has no trackers; name one with --tracker")));
    }
    let mut config = TrackerClientConfig { timeout: args.timeout, ..TrackerClientConfig::default() };
    config.http.egress = global.egress(&args.egress)?;
    let scrape = Scrape { info_hash: metainfo.info.info_hash(), trackers, json: global.output.json };
    let mut table = Vec::new();
    let code = block_on(async {
        let client = TrackerClient::new(config);
        run(&scrape, &client, &mut table).await.map_err(|e| Failure::new(Code::Bug, format!("scrape: {e}")))
    })?;
    screen::output_bytes(&table)?;
    if code == 0 {
        return Ok(());
    }
    // The table has told why.
    screen::message(format_args!("gannet: {}: no tracker answered", printable(metainfo.info.name())));
    Err(Failure::silent(Code::Network))
}

/// Asks all trackers at once, prints what they say in the order of the torrent, and returns the exit code: 0 if any
/// of them answered, else 5.
///
/// # Errors
/// If `out` cannot be written to.
pub async fn run(scrape: &Scrape, client: &TrackerClient, out: &mut dyn Write) -> io::Result<u8> {
    let rows = ask(scrape, client).await;
    if scrape.json {
        print_json(scrape, &rows, out)?
    } else {
        print_table(&rows, out)?
    }
    Ok(if rows.iter().any(|row| row.outcome.is_ok()) { 0 } else { 5 })
}

async fn ask(scrape: &Scrape, client: &TrackerClient) -> Vec<Row> {
    let hashes: Arc<[[u8; 20]]> = scrape.info_hash.wire_forms().collect();
    let mut seen: Vec<&str> = Vec::new();
    let mut rows = Vec::new();
    let mut asking = JoinSet::new();
    for text in scrape.trackers.iter().flatten() {
        if seen.len() >= MAX_TRACKERS {
            break;
        }
        if seen.contains(&text.as_str()) {
            continue;
        }
        seen.push(text);
        let place = rows.len();
        match TrackerUrl::parse(text) {
            Ok(tracker) => {
                rows.push(Row { tracker: tracker.to_string(), outcome: Ok(None) });
                let (client, hashes) = (client.clone(), Arc::clone(&hashes));
                asking.spawn(async move { (place, client.scrape(&tracker, &hashes).await) });
            }
            Err(error) => rows.push(Row { tracker: crate::tracker::host_of(text), outcome: Err(error) }),
        }
    }
    while let Some(joined) = asking.join_next().await {
        let Ok((place, answer)) = joined else { continue };
        if let Some(row) = rows.get_mut(place) {
            row.outcome = answer.map(|answer| answer.files.into_iter().reduce(larger));
        }
    }
    rows
}

/// A hybrid torrent is in two swarms, mostly of the same peers.
fn larger(a: ScrapeEntry, b: ScrapeEntry) -> ScrapeEntry {
    ScrapeEntry {
        info_hash: a.info_hash,
        seeders: a.seeders.max(b.seeders),
        leechers: a.leechers.max(b.leechers),
        downloaded: a.downloaded.max(b.downloaded),
    }
}

fn print_table(rows: &[Row], out: &mut dyn Write) -> io::Result<()> {
    if rows.is_empty() {
        return writeln!(out, "no trackers");
    }
    let width = rows.iter().map(|row| row.tracker.chars().count()).max().unwrap_or(0).max("tracker".len());
    writeln!(out, "{:width$}  {:>8}  {:>8}  {:>9}", "tracker", "seeders", "leechers", "downloads")?;
    for Row { tracker, outcome } in rows {
        match outcome {
            Ok(Some(ScrapeEntry { seeders, leechers, downloaded, .. })) => {
                writeln!(out, "{tracker:width$}  {seeders:>8}  {leechers:>8}  {downloaded:>9}")?;
            }
            Ok(None) => writeln!(out, "{tracker:width$}  does not know this torrent")?,
            Err(error) => writeln!(out, "{tracker:width$}  {error}")?,
        }
    }
    Ok(())
}

fn print_json(scrape: &Scrape, rows: &[Row], out: &mut dyn Write) -> io::Result<()> {
    let trackers = rows.iter().map(|Row { tracker, outcome }| {
        let entry = outcome.as_ref().ok().copied().flatten();
        serde_json::json!({
            "tracker": tracker,
            "answered": outcome.is_ok(),
            "seeders": entry.map(|e| e.seeders),
            "leechers": entry.map(|e| e.leechers),
            "downloads": entry.map(|e| e.downloaded),
            "error": outcome.as_ref().err().map(ToString::to_string),
        })
    });
    let trackers: Vec<_> = trackers.collect();
    let object = serde_json::json!({
        "info_hash_v1": scrape.info_hash.as_v1().map(|h| h.to_string()),
        "info_hash_v2": scrape.info_hash.as_v2().map(|h| h.to_string()),
        "trackers": trackers,
    });
    writeln!(out, "{object}")
}
