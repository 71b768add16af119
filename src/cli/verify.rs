//! `gannet verify`: checks data against its torrent.

use std::ops::RangeInclusive;

use serde_json::{Value, json};

use super::Global;
use super::args::VerifyArgs;
use super::exit::{Code, Failure, shown};
use super::hashing::watched;
use super::json::object;
use super::progress::count;
use super::quantity::bytes;
use super::{info, place, sandbox, screen, source};
use crate::base::printable;
use crate::metainfo::Metainfo;
use crate::storage::{Checked, FileProblem, Layout, Options, PieceState, Place, Problem, Storage, check};

/// Ranges of pieces named in one line; the rest is counted.
const MAX_RANGES: usize = 8;

type Ranges = Vec<RangeInclusive<u32>>;

pub(super) fn run(args: VerifyArgs, global: &Global) -> Result<(), Failure> {
    sandbox::enter(global, &[]);
    let metainfo = source::read_local(&args.source)?;
    let info = &metainfo.info;
    place::check(info, &args.path)?;
    let options = Options { read_only: true, ..Options::default() };
    let place = Place::Exact(args.path.clone());
    let storage = Storage::open(Layout::new(info, &place), &place, options)?;

    let geometry = info.geometry();
    let total = geometry.pieces().map(|p| u64::from(geometry.piece_len(p))).sum();
    let expected = |piece| info.piece_hash(piece).map(Into::into);
    let checked = watched("checking", total, &global.output, |progress| {
        check(&storage, &expected, None, args.threads.map(usize::from), progress)
    })?;
    let report = Report::new(&metainfo, &storage, &checked);
    if global.output.json {
        screen::output(object(&report.to_json()))?;
    } else if !global.output.quiet {
        screen::output(report.to_text())?;
    }
    let Some(code) = report.code() else { return Ok(()) };
    // With JSON the one object has told it already; the line for people goes to standard error in any case.
    screen::message(format_args!(
        "gannet: {}",
        Failure::new(code, format!("{}: {}", shown(&args.path), report.verdict()))
    ));
    Err(Failure::silent(code))
}

/// What was found.
struct Report<'a> {
    metainfo: &'a Metainfo,
    files: Vec<(FileProblem, Ranges)>,
    /// All that is not good.
    bad: Ranges,
    bad_count: u32,
    file_count: usize,
    errors: Vec<String>,
    unreadable: bool,
}

impl<'a> Report<'a> {
    fn new(metainfo: &'a Metainfo, storage: &Storage, checked: &Checked) -> Self {
        let info = &metainfo.info;
        let not_good = |range: std::ops::Range<u32>| {
            ranges(range.filter(|&n| {
                let state = usize::try_from(n).ok().and_then(|n| checked.states.get(n));
                state.is_some_and(|s| *s != PieceState::Good)
            }))
        };
        let piece_length = info.geometry().piece_length();
        let files = checked.file_problems(storage).into_iter().map(|problem| {
            let pieces = not_good(storage.file_map().pieces_of(problem.file, piece_length));
            (problem, pieces)
        });
        Self {
            metainfo,
            files: files.collect(),
            bad: not_good(0..info.geometry().piece_count()),
            bad_count: info.geometry().piece_count() - checked.have.count(),
            file_count: info.files().iter().filter(|f| !f.attr.pad && !f.attr.symlink).count(),
            errors: checked.errors.iter().map(|e| printable(&e.to_string())).collect(),
            unreadable: checked.states.contains(&PieceState::Unreadable),
        }
    }

    /// `None` when all is well.
    fn code(&self) -> Option<Code> {
        if self.unreadable {
            return Some(Code::Disk);
        }
        (!self.files.is_empty() || self.bad_count > 0).then_some(Code::Mismatch)
    }

    fn verdict(&self) -> String {
        let missing = self.files.iter().filter(|(p, _)| p.problem == Problem::Missing).count();
        let pieces = count(self.bad_count, "piece");
        let of = self.metainfo.info.geometry().piece_count();
        let files = format!("{} of {}", self.files.len(), count(u64_of(self.file_count), "file"));
        if self.unreadable {
            return format!("could not be read: {}", self.errors.first().map_or("I/O error", String::as_str));
        }
        if missing == self.file_count {
            return "nothing of the torrent is there".to_owned();
        }
        format!("{files} missing or wrong ({pieces} of {of}); 'gannet get' fetches what is missing")
    }

    fn path(&self, problem: &FileProblem) -> String {
        let file = usize::try_from(problem.file).ok().and_then(|n| self.metainfo.info.files().get(n));
        file.map_or_else(|| shown(&problem.path), |file| info::disk_path(self.metainfo, file))
    }

    fn length(&self, problem: &FileProblem) -> u64 {
        let file = usize::try_from(problem.file).ok().and_then(|n| self.metainfo.info.files().get(n));
        file.map_or(0, |file| file.length)
    }

    fn to_text(&self) -> String {
        let info = &self.metainfo.info;
        let mut text = String::new();
        for (problem, pieces) in &self.files {
            let path = printable(&self.path(problem));
            let what = match problem.problem {
                Problem::Missing => "missing".to_owned(),
                Problem::Unreadable => "cannot be read".to_owned(),
                Problem::Length { found, .. } => {
                    format!("{} bytes instead of {}", found, self.length(problem))
                }
                Problem::Wrong { .. } => "wrong".to_owned(),
            };
            let pieces = if pieces.is_empty() { String::new() } else { format!(": {}", ranges_text(pieces)) };
            text.push_str(&format!("{path}: {what}{pieces}\n"));
        }
        for error in &self.errors {
            text.push_str(&format!("{error}\n"));
        }
        let good = info.geometry().piece_count() - self.bad_count;
        text.push_str(&format!(
            "{}: {} of {} good, {} of {} good{}\n",
            printable(info.name()),
            self.file_count - self.files.len().min(self.file_count),
            count(u64_of(self.file_count), "file"),
            good,
            count(info.geometry().piece_count(), "piece"),
            if self.code().is_none() { format!(" ({})", bytes(info.total_size())) } else { String::new() },
        ));
        text
    }

    fn to_json(&self) -> Value {
        let info = &self.metainfo.info;
        let files: Vec<Value> = self
            .files
            .iter()
            .map(|(problem, pieces)| {
                let (word, found) = match problem.problem {
                    Problem::Missing => ("missing", None),
                    Problem::Unreadable => ("unreadable", None),
                    Problem::Length { found, .. } => ("length", Some(found)),
                    Problem::Wrong { .. } => ("wrong", Some(self.length(problem))),
                };
                json!({
                    "path": self.path(problem),
                    "problem": word,
                    "length": self.length(problem),
                    "found_length": found,
                    "pieces": ranges_json(pieces),
                })
            })
            .collect();
        json!({
            "name": info.name(),
            "ok": self.code().is_none(),
            "file_count": self.file_count,
            "piece_count": info.geometry().piece_count(),
            "good_pieces": info.geometry().piece_count() - self.bad_count,
            "bad_pieces": ranges_json(&self.bad),
            "files": files,
            "errors": self.errors,
        })
    }
}

fn u64_of(n: usize) -> u64 {
    u64::try_from(n).unwrap_or(u64::MAX)
}

/// Ascending numbers as ranges.
fn ranges(numbers: impl Iterator<Item = u32>) -> Ranges {
    let mut ranges: Ranges = Vec::new();
    for n in numbers {
        match ranges.last_mut() {
            Some(last) if last.end().checked_add(1) == Some(n) => *last = *last.start()..=n,
            _ => ranges.push(n..=n),
        }
    }
    ranges
}

fn ranges_text(ranges: &[RangeInclusive<u32>]) -> String {
    let one = |r: &RangeInclusive<u32>| match r.start() == r.end() {
        true => r.start().to_string(),
        false => format!("{}-{}", r.start(), r.end()),
    };
    let mut text: Vec<String> = ranges.iter().take(MAX_RANGES).map(one).collect();
    if ranges.len() > MAX_RANGES {
        let rest: u64 = ranges[MAX_RANGES..].iter().map(|r| u64::from(r.end() - r.start()) + 1).sum();
        text.push(format!("and {rest} more"));
    }
    let word = if matches!(ranges, [one] if one.start() == one.end()) { "piece" } else { "pieces" };
    format!("{word} {}", text.join(", "))
}

fn ranges_json(ranges: &[RangeInclusive<u32>]) -> Value {
    ranges.iter().map(|r| json!([r.start(), r.end()])).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_to_ranges() {
        let of = |numbers: &[u32]| ranges_text(&ranges(numbers.iter().copied()));
        assert_eq!(of(&[7]), "piece 7");
        assert_eq!(of(&[0, 1, 2, 5, 7, 8]), "pieces 0-2, 5, 7-8");
        let many: Vec<u32> = (0..40).map(|n| n * 2).collect();
        assert_eq!(of(&many), "pieces 0, 2, 4, 6, 8, 10, 12, 14, and 32 more");
        assert_eq!(ranges_json(&ranges([1, 2, 9].into_iter())), json!([[1, 2], [9, 9]]));
    }
}
