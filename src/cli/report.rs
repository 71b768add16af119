//! Tells people and programs how transfers go: bars, plain lines or NDJSON.

use std::collections::HashSet;
use std::io::{IsTerminal, Write};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::{Duration, Instant, SystemTime};

use serde_json::{Value, json};

use super::args::OutputOptions;
use super::exit::{Failure, shown};
use super::progress::{self, Bar, Look, count};
use super::quantity::{bytes, duration, mean_rate, rate};
use super::{json, log, screen};
use crate::base::{InfoHash, printable};
use crate::metainfo::Info;
use crate::session::{Event, Mapped, Mappings, State, Status, WebSeedState};

/// How often a line is written where there is no terminal.
const PLAIN_EVERY: Duration = Duration::from_secs(10);
/// How often a `progress` event is written: every second, less what a tick of the clock may come early.
const JSON_EVERY: Duration = Duration::from_millis(900);

/// Lines about trackers and web seeds that do not answer, and what trackers warn of, for one torrent. A server can make up
/// new reasons for ever.
const MAX_SOURCE_ERRORS: usize = 200;

/// What is shown of a torrent before it runs.
#[derive(Clone, Debug)]
pub(super) struct Subject {
    /// Printable name.
    pub(super) name: String,
    pub(super) info_hash: InfoHash,
    /// What it is; `None` until the metadata of a magnet link is there.
    pub(super) content: Option<Content>,
    /// Where its data lies, for people.
    pub(super) place: String,
    /// The folder in which its data will lie, where that is what is known of the place.
    pub(super) folder: Option<PathBuf>,
    /// It goes on to seed when it is complete.
    pub(super) seeds: bool,
}

/// What a torrent is, in numbers.
#[derive(Clone, Copy, Debug)]
pub(super) struct Content {
    /// Bytes, without padding.
    pub(super) total_size: u64,
    pub(super) piece_count: u32,
    pub(super) piece_length: u32,
    pub(super) file_count: usize,
}

impl Content {
    pub(super) fn of(info: &Info) -> Self {
        Self {
            total_size: info.total_size(),
            piece_count: info.geometry().piece_count(),
            piece_length: info.geometry().piece_length(),
            file_count: info.files().iter().filter(|f| !f.attr.pad).count(),
        }
    }
}

impl Subject {
    /// The body of `added` and `metadata` events. `hash` is the identity as far as it is known.
    fn to_json(&self, hash: &InfoHash) -> Value {
        let (v1, v2) = json::hashes(hash);
        json!({
            "name": self.name,
            "info_hash_v1": v1,
            "info_hash_v2": v2,
            "total_size": self.content.map(|c| c.total_size),
            "piece_length": self.content.map(|c| c.piece_length),
            "piece_count": self.content.map(|c| c.piece_count),
            "files": self.content.map(|c| c.file_count),
            "path": self.place,
        })
    }

    /// One line for people.
    fn to_line(&self) -> String {
        match self.content {
            None => format!("{}: asking peers what it is", self.name),
            Some(content) => {
                let files = count(u64::try_from(content.file_count).unwrap_or(u64::MAX), "file");
                format!("{}: {}, {files}, {}", self.name, bytes(content.total_size), self.place)
            }
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum View {
    /// Bars on a terminal.
    Bars,
    /// Lines now and then.
    Plain,
    /// NDJSON on standard output; on standard error only what is wrong.
    Json,
    /// Only what is wrong.
    Quiet,
}

struct Entry {
    subject: Subject,
    bar: Option<Bar>,
    started: Instant,
    /// When everything wanted was there.
    completed: Option<Instant>,
    last: Option<Status>,
    outcome: Option<Outcome>,
    /// What was told of trackers and web seeds that do not answer: they are asked again and again, trackers by both families
    /// and both swarms of a hybrid.
    source_errors: HashSet<(String, String)>,
}

impl Entry {
    /// Whether `why` was not said of `source` before, and may be now.
    fn is_news(&mut self, source: &str, why: &str) -> bool {
        self.source_errors.len() < MAX_SOURCE_ERRORS && self.source_errors.insert((source.to_owned(), why.to_owned()))
    }

    /// Keeps what is told at the end. A torrent that has ended need not know any more what went by.
    fn remember(&mut self, status: &Status) {
        match &mut self.last {
            Some(last) if matches!(status.state, State::Failed | State::Stopped) => {
                last.state = status.state;
                last.cause.clone_from(&status.cause);
                (last.down_rate, last.up_rate, last.eta) = (0, 0, None);
                last.have_bytes = last.have_bytes.max(status.have_bytes);
                last.downloaded = last.downloaded.max(status.downloaded);
                last.uploaded = last.uploaded.max(status.uploaded);
            }
            last => *last = Some(status.clone()),
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Outcome {
    Done,
    Failed,
}

/// Tells how transfers go.
pub(super) struct Reporter {
    view: View,
    verbose: bool,
    look: Look,
    /// Letters of the longest name.
    longest_name: usize,
    entries: Vec<Entry>,
    last_plain: Instant,
    last_json: Option<Instant>,
    /// People were told where we listen.
    listens: bool,
    /// What routers have made of that.
    mapped: Vec<Mapped>,
    /// Standard output failed; nobody listens any more.
    broken: Option<Failure>,
}

impl Reporter {
    /// By what the options ask for and where standard error goes.
    pub(super) fn new(output: &OutputOptions) -> Self {
        let view = match (output.json, output.quiet, std::io::stderr().is_terminal()) {
            (true, _, _) => View::Json,
            (_, true, _) => View::Quiet,
            (_, _, true) => View::Bars,
            (_, _, false) => View::Plain,
        };
        Self {
            view,
            verbose: output.verbose > 0,
            look: Look::new(log::colors(output)),
            longest_name: 0,
            entries: vec![],
            last_plain: Instant::now(),
            last_json: None,
            listens: false,
            mapped: Vec::new(),
            broken: None,
        }
    }

    /// Whether there is something on the screen that should move.
    pub(super) fn draws(&self) -> bool {
        self.view == View::Bars
    }

    /// A new torrent; its number from now on.
    pub(super) fn add(&mut self, subject: Subject) -> usize {
        let body = subject.to_json(&subject.info_hash);
        let bar = (self.view == View::Bars).then(|| Bar::new(subject.content.map_or(1, |c| c.total_size), self.look));
        self.longest_name = self.longest_name.max(subject.name.chars().count());
        if self.view == View::Plain {
            screen::message(subject.to_line());
        }
        let hash = subject.info_hash;
        let started = Instant::now();
        self.entries.push(Entry {
            subject,
            bar,
            started,
            completed: None,
            last: None,
            outcome: None,
            source_errors: HashSet::new(),
        });
        self.emit("added", Some(hash), &body);
        self.entries.len() - 1
    }

    /// What torrent `index` is called.
    pub(super) fn name(&self, index: usize) -> &str {
        self.entries.get(index).map_or("", |e| &e.subject.name)
    }

    /// The terminal has just echoed `^C`. The cursor stood in the last column, so that went to a line of its own, and
    /// the bars would be looked for a line too low.
    pub(super) fn interrupted(&self) {
        if self.view == View::Bars && std::io::stdin().is_terminal() {
            let _ = std::io::stderr().write_all(b"\r\x1b[2K\x1b[A");
        }
    }

    /// A line about the whole, for people.
    pub(super) fn note(&self, line: &str) {
        if matches!(self.view, View::Bars | View::Plain) {
            screen::message(line);
        }
    }

    /// Peers may come to these addresses.
    pub(super) fn listening(&mut self, addresses: &[SocketAddr]) {
        let addresses: Vec<String> = addresses.iter().map(ToString::to_string).collect();
        self.emit("listening", None, &json!({ "addresses": addresses }));
        self.note(&format!("listening on {}", addresses.join(", ")));
        self.listens = true;
    }

    /// What routers have made of our ports.
    pub(super) fn mapped(&mut self, mappings: &Mappings) {
        let mapped: Vec<Mapped> = mappings.v4.mapped().iter().chain(mappings.v6.mapped()).copied().collect();
        let before = std::mem::take(&mut self.mapped);
        for one in mapped.iter().filter(|one| !before.contains(one)) {
            let protocol = one.protocol.to_string();
            let body = json!({ "protocol": protocol, "port": one.port, "external": one.external, "method": one.method.to_string() });
            self.emit("mapped", None, &body);
        }
        if self.listens && mapped != before && !mapped.is_empty() {
            let mut places: Vec<String> =
                mapped.iter().map(|one| format!("{} ({})", one.external, one.method)).collect();
            places.dedup();
            self.note(&format!("reached from outside at {}", places.join(", ")));
        }
        self.mapped = mapped;
    }

    /// Something is wrong that ends nothing.
    pub(super) fn warn(&mut self, line: &str) {
        self.emit("warning", None, &json!({ "message": line }));
        if self.view != View::Quiet {
            screen::message(format_args!("gannet: warning: {line}"));
        }
    }

    /// It is known what torrent `index` is.
    fn described(&mut self, index: usize, info: &Info) {
        let Some(entry) = self.entries.get_mut(index) else { return };
        let subject = &mut entry.subject;
        subject.content = Some(Content::of(info));
        subject.name = printable(info.name());
        if let Some(folder) = &subject.folder {
            subject.place = shown(&folder.join(info.name()));
        }
        let (hash, body, line) = (subject.info_hash, subject.to_json(&info.info_hash()), subject.to_line());
        if let Some(bar) = &mut entry.bar {
            bar.rename();
        }
        self.longest_name = self.entries.iter().map(|e| e.subject.name.chars().count()).max().unwrap_or(0);
        if matches!(self.view, View::Bars | View::Plain) {
            screen::message(line);
        }
        self.emit("metadata", Some(hash), &body);
    }

    /// What the session says about torrent `index`.
    pub(super) fn event(&mut self, index: usize, event: &Event) {
        let Some(subject) = self.entries.get(index).map(|e| e.subject.clone()) else { return };
        if let Some((name, body)) = json::event(event) {
            self.emit(name, Some(subject.info_hash), &body);
        }
        match event {
            Event::Complete => self.complete(index),
            Event::Metadata(metainfo) => self.described(index, &metainfo.info),
            Event::DiskError(failure) => {
                screen::message(format_args!("gannet: {}", crate::base::printable(&failure.message)));
            }
            Event::DiskMended if self.view != View::Quiet => {
                screen::message(format_args!("{}: the disk works again", subject.name));
            }
            Event::Warning { message } if self.view != View::Quiet => {
                let message = crate::base::printable(message);
                if self.is_news(index, "", &message) || self.verbose {
                    screen::message(format_args!("gannet: warning: {}: {message}", subject.name));
                }
            }
            Event::Tracker(report) if matches!(self.view, View::Bars | View::Plain) => {
                let tracker = crate::base::printable(&report.tracker);
                match &report.outcome {
                    Err(why) => {
                        let why = super::exit::without_os_numbers(&crate::base::printable(why));
                        if self.is_news(index, &tracker, &why) || self.verbose {
                            let next = duration(report.next);
                            screen::message(format_args!(
                                "{}: tracker {tracker}: {why}; asked again in {next}",
                                subject.name
                            ));
                        }
                    }
                    Ok(peers) if self.verbose => {
                        let peers = format!("{peers} addresses");
                        screen::message(format_args!("{}: tracker {tracker}: {peers}", subject.name));
                    }
                    Ok(_) => {
                        if let Some(entry) = self.entries.get_mut(index) {
                            entry.source_errors.retain(|(of, _)| *of != tracker);
                        }
                    }
                }
            }
            Event::WebSeed(report) if matches!(self.view, View::Bars | View::Plain) => {
                let what = match report.state {
                    WebSeedState::Serving => return self.web_seed_serves(index, &report.web_seed),
                    WebSeedState::Banned => "; not asked any more".to_owned(),
                    _ => report.retry.map(|retry| format!("; asked again in {}", duration(retry))).unwrap_or_default(),
                };
                let (web_seed, why) = (crate::base::printable(&report.web_seed), report.reason.as_deref());
                let why = super::exit::without_os_numbers(&crate::base::printable(why.unwrap_or("does not serve")));
                if self.is_news(index, &web_seed, &why) || self.verbose {
                    screen::message(format_args!("{}: web seed {web_seed}: {why}{what}", subject.name));
                }
            }
            _ => {}
        }
    }

    fn is_news(&mut self, index: usize, source: &str, why: &str) -> bool {
        self.entries.get_mut(index).is_some_and(|entry| entry.is_news(source, why))
    }

    /// What was told of a web seed is over.
    fn web_seed_serves(&mut self, index: usize, web_seed: &str) {
        let web_seed = crate::base::printable(web_seed);
        if let Some(entry) = self.entries.get_mut(index) {
            entry.source_errors.retain(|(of, _)| *of != web_seed);
            if self.verbose {
                screen::message(format_args!("{}: web seed {web_seed}: serves", entry.subject.name));
            }
        }
    }

    /// How torrent `index` stands now. Called often; shows as often as the view wants.
    pub(super) fn progress(&mut self, index: usize, status: &Status) {
        let Some(entry) = self.entries.get_mut(index) else { return };
        if let Some(bar) = entry.bar.as_mut().filter(|_| entry.outcome.is_none()) {
            bar.show(&entry.subject.name, self.longest_name, status);
        }
        entry.remember(status);
    }

    /// After `progress` of all torrents: writes the lines that are due.
    pub(super) fn tick(&mut self, now: Instant) {
        let running = |e: &&Entry| e.outcome.is_none();
        if self.view == View::Plain && now.duration_since(self.last_plain) >= PLAIN_EVERY {
            self.last_plain = now;
            for entry in self.entries.iter().filter(running) {
                if let Some(status) = &entry.last {
                    screen::message(progress::plain_line(&entry.subject.name, status));
                }
            }
        }
        if self.view == View::Json && self.last_json.is_none_or(|last| now.duration_since(last) >= JSON_EVERY) {
            self.last_json = Some(now);
            let due: Vec<(InfoHash, Value)> = self
                .entries
                .iter()
                .filter(running)
                .filter_map(|e| Some((e.subject.info_hash, json::progress(e.last.as_ref()?))))
                .collect();
            for (hash, body) in due {
                self.emit("progress", Some(hash), &body);
            }
        }
    }

    /// Everything wanted of torrent `index` is there. Told once.
    pub(super) fn complete(&mut self, index: usize) {
        // Of one torrent that ends here the last line tells all.
        let is_news = self.entries.len() > 1 || self.entries.get(index).is_some_and(|e| e.subject.seeds);
        let is_news = is_news && matches!(self.view, View::Bars | View::Plain);
        let Some(entry) = self.entries.get_mut(index).filter(|e| e.completed.is_none()) else { return };
        let now = Instant::now();
        entry.completed = Some(now);
        let took = now.duration_since(entry.started);
        let downloaded = entry.last.as_ref().map_or(0, |s| s.downloaded);
        let hash = entry.subject.info_hash;
        let body = json!({
            "downloaded": downloaded,
            "seconds": took.as_secs_f64(),
            "mean_rate": mean_rate(downloaded, took),
            "path": entry.subject.place,
        });
        let line = if downloaded == 0 {
            let size = entry.subject.content.map_or(0, |c| c.total_size);
            format!("{}: complete: {} already there", entry.subject.name, bytes(size))
        } else {
            let mean = rate(mean_rate(downloaded, took));
            format!("{}: complete: {} in {}, {mean}", entry.subject.name, bytes(downloaded), duration(took))
        };
        if is_news {
            screen::message(line);
        }
        self.emit("complete", Some(hash), &body);
    }

    /// Torrent `index` is done, its seeding goal reached.
    pub(super) fn done(&mut self, index: usize, status: &Status) {
        if let Some(entry) = self.entries.get_mut(index) {
            entry.remember(status);
        }
        self.complete(index);
        self.close(index, Outcome::Done);
    }

    /// Torrent `index` (or nothing in particular) cannot go on.
    pub(super) fn failed(&mut self, index: Option<usize>, failure: &Failure) {
        let hash = index.and_then(|i| self.entries.get(i)).map(|e| e.subject.info_hash);
        let body = json::error(failure);
        self.emit("error", hash, &body);
        if let Some(index) = index {
            self.close(index, Outcome::Failed);
        }
        screen::message(format_args!("gannet: {failure}"));
    }

    /// Something about torrent `index` was refused that does not keep it from going on.
    pub(super) fn refused(&mut self, index: usize, failure: &Failure) {
        let hash = self.entries.get(index).map(|e| e.subject.info_hash);
        self.emit("error", hash, &json::error(failure));
        screen::message(format_args!("gannet: {failure}"));
    }

    fn close(&mut self, index: usize, outcome: Outcome) {
        if let Some(entry) = self.entries.get_mut(index) {
            entry.outcome = Some(outcome);
            entry.bar.take().into_iter().for_each(Bar::clear);
        }
    }

    /// The last word: what went by, and how fast.
    pub(super) fn summary(&mut self) {
        let ended = Instant::now();
        let mut torrents = vec![];
        let (mut down, mut up, mut wasted) = (0u64, 0u64, 0u64);
        for index in 0..self.entries.len() {
            self.entries[index].bar.take().into_iter().for_each(Bar::clear);
            let entry = &self.entries[index];
            let Some(status) = &entry.last else { continue };
            (down, up, wasted) = (down + status.downloaded, up + status.uploaded, wasted + status.wasted);
            let state = match entry.outcome {
                Some(Outcome::Done) => "done",
                Some(Outcome::Failed) => "failed",
                None => "stopped",
            };
            torrents.push(json!({
                "info_hash": entry.subject.info_hash.to_string(),
                "name": entry.subject.name,
                "state": state,
                "downloaded": status.downloaded,
                "uploaded": status.uploaded,
                "wasted": status.wasted,
                "have_bytes": status.have_bytes,
                "wanted_bytes": status.wanted_bytes,
                "ratio": status.ratio,
                "seconds": ended.duration_since(entry.started).as_secs_f64(),
            }));
            // Of a failure without a byte there is nothing more to say than what was said.
            let silent = entry.outcome == Some(Outcome::Failed) && status.downloaded + status.uploaded == 0;
            if !silent && matches!(self.view, View::Bars | View::Plain) {
                screen::message(last_line(entry, status, ended));
            }
        }
        let Some(first) = self.entries.iter().map(|e| e.started).min() else { return };
        // A rate over the time of the download alone: seeding after it says nothing about it.
        let fetched = self.entries.iter().map(|e| e.completed.unwrap_or(ended)).max().unwrap_or(ended);
        let body = json!({
            "downloaded": down,
            "uploaded": up,
            "wasted": wasted,
            "seconds": ended.duration_since(first).as_secs_f64(),
            "mean_rate": mean_rate(down, fetched.duration_since(first)),
            "torrents": torrents,
        });
        self.emit("summary", None, &body);
    }

    /// Why standard output can no longer be written, once.
    pub(super) fn take_broken(&mut self) -> Option<Failure> {
        self.broken.take()
    }

    fn emit(&mut self, event: &str, hash: Option<InfoHash>, body: &Value) {
        if self.view == View::Json && self.broken.is_none() {
            let line = json::line(event, SystemTime::now(), hash.as_ref(), body);
            if let Err(failure) = screen::output(line) {
                self.broken = Some(failure);
                // Without a reader there is nothing more to say.
                self.view = View::Quiet;
            }
        }
    }
}

fn last_line(entry: &Entry, status: &Status, ended: Instant) -> String {
    let (word, advice) = match (entry.outcome, status.state) {
        (Some(Outcome::Done), _) => ("done", ""),
        (Some(Outcome::Failed), _) | (_, State::Failed) => ("failed", ""),
        _ if status.have_bytes < status.wanted_bytes => ("stopped", "; the same command goes on"),
        _ => ("stopped", ""),
    };
    let mut line = format!("{}: {word}: {}", entry.subject.name, bytes(status.have_bytes));
    if status.have_bytes < status.wanted_bytes {
        line.push_str(&format!(" of {}", bytes(status.wanted_bytes)));
    }
    // A rate over the time of the download alone: seeding after it says nothing about it.
    let fetching = entry.completed.unwrap_or(ended).duration_since(entry.started);
    let speed = rate(mean_rate(status.downloaded, fetching));
    match status.downloaded {
        0 if status.have_bytes > 0 && !entry.subject.seeds => line.push_str(" already there"),
        0 => {}
        n if n >= status.have_bytes => line.push_str(&format!(" in {} ({speed})", duration(fetching))),
        n => line.push_str(&format!(", {} of it fetched in {} ({speed})", bytes(n), duration(fetching))),
    }
    line.push_str(&format!(", {} up", bytes(status.uploaded)));
    if entry.subject.seeds {
        line.push_str(&format!(" in {}", duration(ended.duration_since(entry.completed.unwrap_or(entry.started)))));
    }
    line.push_str(&format!(", ratio {:.2}{advice}", status.ratio));
    line
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::InfoHashV1;

    /// Row 43 of docs/bug-classes.md: a tracker with a new excuse each time is heard two hundred times.
    #[test]
    fn b43_servers_do_not_fill_the_terminal() {
        let output = OutputOptions { quiet: true, ..OutputOptions::default() };
        let mut reporter = Reporter::new(&output);
        let subject = Subject {
            name: "a".to_owned(),
            info_hash: InfoHash::v1(InfoHashV1([1; 20])),
            content: None,
            place: String::new(),
            folder: None,
            seeds: false,
        };
        let index = reporter.add(subject);
        assert!(reporter.is_news(index, "t", "down") && !reporter.is_news(index, "t", "down"));
        let told = (0..10_000).filter(|n| reporter.is_news(index, "t", &format!("excuse {n}"))).count();
        assert_eq!(told, MAX_SOURCE_ERRORS - 1);
        assert!(!reporter.is_news(index, "other", "down") && !reporter.is_news(99, "t", "down"));
    }
}
