//! `gannet bench disk`: how fast do verified pieces get to the files, and back?

use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::Duration;

use super::super::exit::{Code, Failure, shown};
use super::super::hashing::watching;
use super::super::quantity;
use super::Bench;
use super::args::DiskArgs;
use super::meter::{Meter, warm};
use super::report::{Report, cores};
use super::rounds::Rounds;
use super::table::{Row, Table};
use crate::base::{BLOCK_LEN, Geometry, PieceIndex};
use crate::hash::{self, Expected};
use crate::storage::{
    Backend, Cached, Layout, LayoutFile, Options, Place, Preallocate, Progress, Storage, StorageError, check,
};
use crate::sys::{self, Dir, FileSystem};

/// What the file is called.
const NAME: &str = "payload";
/// Bytes that differ; behind them they come again. As much as waits to be written in a fast download.
const PATTERN: u64 = 16 << 20;
/// Bytes read at a time.
const READ_STEP: usize = 1 << 20;
/// How often it is looked whether a check is over: a hundredth of one.
const TICK: Duration = Duration::from_millis(1);

/// What is measured, in this order.
const ROWS: [&str; 6] = ["map", "pwrite", "sync", "read, cold", "read, warm", "check"];
const MAP: usize = 0;
const PWRITE: usize = 1;
const SYNC: usize = 2;
const COLD: usize = 3;
const WARM: usize = 4;
const CHECK: usize = 5;

pub(super) fn run(args: &DiskArgs, bench: &mut Bench<'_>) -> Result<Report, Failure> {
    let size = super::size(args.data.size, 2);
    let piece_length = super::payload::piece_length(args.piece_length, size)?;
    let mut rounds = bench.rounds("disk", args.run.runs);
    let found = measure(&args.data.dir, size, piece_length, &mut rounds, bench)?;
    let subject = format!(
        "{} in pieces of {} on {} ({})",
        quantity::bytes(size),
        super::super::info::piece_length(piece_length),
        found.file_system,
        shown(&args.data.dir)
    );
    let mut report = Report::new("disk", subject)
        .fact("size", size)
        .fact("piece_length", piece_length)
        .fact("file_system", found.file_system)
        .fact("backend", ROWS[found.in_use]);
    report.verdict.push(format!("gannet uses: {} ({})", ROWS[found.in_use], found.reason));
    report.tables.push(found.table);
    Ok(report)
}

/// What was found.
pub(super) struct Found {
    pub(super) table: Table,
    pub(super) file_system: &'static str,
    /// The row that a download in this folder is like.
    pub(super) in_use: usize,
    /// Why it is that one.
    pub(super) reason: String,
}

/// Writes a file of `size` bytes below `dir` in each way, reads and checks it.
pub(super) fn measure(
    dir: &Path,
    size: u64,
    piece_length: u32,
    rounds: &mut Rounds,
    bench: &mut Bench<'_>,
) -> Result<Found, Failure> {
    let geometry = Geometry::new(size, piece_length).map_err(|e| Failure::usage(format!("--piece-length: {e}")))?;
    let scratch = bench.scratch(dir, size)?;
    let mut subject =
        Subject { folder: scratch.path().to_owned(), pattern: pattern(piece_length), expected: vec![], geometry };
    subject.expected = subject.hashes();
    let place = Dir::open(dir).map_err(|e| Failure::disk(dir, &e))?;
    let file_system = match sys::file_system(&place) {
        FileSystem::Mappable(name) | FileSystem::Known(name) => name,
        FileSystem::Unknown => "an unknown file system",
    };
    let usual = subject.open(Backend::Auto)?;
    let in_use = if usual.backend() == Backend::Mmap { MAP } else { PWRITE };
    let reason = usual.backend_reason();
    drop(usual);

    let mut table = Table::new("into the page cache, to the disk, and back");
    table.rows = ROWS.map(|name| Row::new(name).fact("what", name)).into();
    while rounds.next(bench)? {
        subject.round(&mut table.rows, bench)?;
    }
    Ok(Found { table, file_system, in_use, reason })
}

/// Random bytes, a whole number of pieces.
fn pattern(piece_length: u32) -> Vec<u8> {
    let pieces = (PATTERN / u64::from(piece_length)).max(1);
    let mut bytes = vec![0; usize::try_from(pieces * u64::from(piece_length)).unwrap_or(0)];
    fastrand::Rng::with_seed(1).fill(&mut bytes);
    bytes
}

/// What is written, and where.
struct Subject {
    folder: PathBuf,
    pattern: Vec<u8>,
    /// What each piece must hash to.
    expected: Vec<[u8; 20]>,
    geometry: Geometry,
}

impl Subject {
    fn size(&self) -> u64 {
        self.geometry.fetch_len()
    }

    fn file(&self) -> PathBuf {
        self.folder.join(NAME)
    }

    /// The bytes of a piece, in blocks as they come from peers.
    fn blocks(&self, piece: PieceIndex) -> Vec<&[u8]> {
        let (length, count) =
            (self.geometry.piece_length() as usize, self.pattern.len() / self.geometry.piece_length() as usize);
        let begin = piece.idx() % count * length;
        self.pattern[begin..begin + self.geometry.piece_len(piece) as usize].chunks(BLOCK_LEN as usize).collect()
    }

    fn hashes(&self) -> Vec<[u8; 20]> {
        let count = self.pattern.len() / self.geometry.piece_length() as usize;
        let last = self.geometry.pieces().next_back();
        let mut hashes: Vec<[u8; 20]> =
            self.geometry.pieces().take(count).map(|piece| hash::sha1(&self.blocks(piece))).collect();
        for n in hashes.len()..self.geometry.piece_count() as usize {
            hashes.push(hashes[n % count]);
        }
        // It may be shorter than the one that it repeats.
        if let (Some(last), Some(hash)) = (last, hashes.last_mut()) {
            *hash = hash::sha1(&self.blocks(last));
        }
        hashes
    }

    fn open(&self, backend: Backend) -> Result<Storage, Failure> {
        let file = LayoutFile { path: PathBuf::new(), offset: 0, length: self.size(), pad: false, executable: false };
        let layout =
            Layout { name: NAME.to_owned(), single_file: true, files: vec![file], geometry: self.geometry.clone() };
        let options = Options { backend, preallocate: Preallocate::Full, ..Options::default() };
        Ok(Storage::open(layout, &Place::Folder(self.folder.clone()), options)?)
    }

    /// Every measurement once.
    fn round(&self, rows: &mut [Row], bench: &Bench<'_>) -> Result<(), Failure> {
        self.fill(MAP, Backend::Mmap, rows, bench)?;
        // What follows is done with the file that this one leaves.
        let storage = self.fill(PWRITE, Backend::Pwrite, rows, bench)?;
        let meter = Meter::start();
        storage.sync()?;
        rows[SYNC].add(self.size(), &meter.finish());

        let file = std::fs::File::open(self.file()).map_err(|e| Failure::disk(&self.file(), &e))?;
        sys::drop_cached(&file);
        if self.is_cached(&file) == Cached::Yes {
            rows[COLD].note = Some("the system does not let go of this file".to_owned());
        } else {
            let meter = Meter::start();
            self.read(&storage, bench)?;
            rows[COLD].add(self.size(), &meter.finish());
        }
        // Whatever was not kept comes in now.
        self.read(&storage, bench)?;
        let meter = Meter::start();
        self.read(&storage, bench)?;
        rows[WARM].add(self.size(), &meter.finish());

        let meter = Meter::start();
        self.check(&storage, bench)?;
        rows[CHECK].add(self.size(), &meter.finish());
        Ok(())
    }

    /// Makes the file and writes it in one of the ways.
    fn fill(&self, row: usize, backend: Backend, rows: &mut [Row], bench: &Bench<'_>) -> Result<Storage, Failure> {
        let _ = std::fs::remove_file(self.file());
        warm(self.size());
        let meter = Meter::start();
        let storage = self.open(backend)?;
        storage.prepare()?;
        self.write(&storage, bench)?;
        let used = meter.finish();
        if storage.backend() == backend {
            rows[row].add(self.size(), &used);
        } else {
            rows[row].note = Some(format!("does not work here ({})", storage.backend_reason()));
        }
        Ok(storage)
    }

    /// Whether any part of the file is in memory, going by some.
    fn is_cached(&self, file: &std::fs::File) -> Cached {
        let parts = 16;
        let states = (0..parts).map(|n| sys::is_cached(file, self.size() / parts * n, 1));
        if states.into_iter().any(|state| state == Cached::Yes) { Cached::Yes } else { Cached::No }
    }

    /// All pieces, by as many threads as a session has for its disk.
    fn write(&self, storage: &Storage, bench: &Bench<'_>) -> Result<(), Failure> {
        let next = AtomicU32::new(0);
        let failed: Mutex<Option<StorageError>> = Mutex::default();
        let run = || {
            while bench.stop.check().is_ok() {
                let Ok(piece) = self.geometry.piece(next.fetch_add(1, Ordering::Relaxed)) else { return };
                if let Err(e) = storage.write_piece(piece, &self.blocks(piece)) {
                    failed.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(e);
                    next.store(self.geometry.piece_count(), Ordering::Relaxed);
                }
            }
        };
        thread::scope(|scope| {
            for _ in 1..cores() {
                scope.spawn(run);
            }
            run();
        });
        bench.stop.check()?;
        match failed.into_inner().unwrap_or_else(PoisonError::into_inner) {
            Some(e) => Err(e.into()),
            None => Ok(()),
        }
    }

    /// From the first byte to the last, by one thread.
    fn read(&self, storage: &Storage, bench: &Bench<'_>) -> Result<(), Failure> {
        let mut buf = vec![0; READ_STEP];
        for piece in self.geometry.pieces() {
            let length = self.geometry.piece_len(piece);
            let mut begin = 0;
            while begin < length {
                let step = buf.len().min((length - begin) as usize);
                storage.read_piece(piece, begin, &mut buf[..step])?;
                begin += u32::try_from(step).unwrap_or(length);
            }
            bench.stop.check()?;
        }
        Ok(())
    }

    /// Every hash, on all cores.
    fn check(&self, storage: &Storage, bench: &Bench<'_>) -> Result<(), Failure> {
        let expected = |piece: PieceIndex| self.expected.get(piece.idx()).map(|hash| Expected::V1(*hash));
        let progress = Progress::default();
        let stop_if_asked = || {
            if bench.stop.check().is_err() {
                progress.cancel.store(true, Ordering::Relaxed);
            }
        };
        let checked = watching(TICK, || check(storage, &expected, None, None, &progress), stop_if_asked);
        bench.stop.check()?;
        let checked = checked?;
        if let Some(error) = checked.errors.into_iter().next() {
            return Err(error.into());
        }
        if !checked.have.is_full() {
            let why = "does not read as it was written: the disk or the memory of this machine is broken, or gannet is";
            return Err(Failure::new(Code::Disk, format!("{}: {why}", shown(&self.file()))));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::args::OutputOptions;
    use super::super::noise::Calibration;
    use super::super::stop::Stop;
    use super::*;
    use crate::cli::Global;

    #[test]
    fn every_piece_is_as_expected() {
        // The last piece is short, and so is every hash of its kind.
        for (size, piece_length) in [(100_000, 16 << 10), (16 << 10, 16 << 10), (1 << 16, 1 << 18), (40 << 20, 1 << 20)]
        {
            let geometry = Geometry::new(size, piece_length).unwrap();
            let mut subject =
                Subject { folder: PathBuf::new(), pattern: pattern(piece_length), expected: vec![], geometry };
            subject.expected = subject.hashes();
            for piece in subject.geometry.pieces() {
                assert_eq!(subject.expected[piece.idx()], hash::sha1(&subject.blocks(piece)), "{size} {piece}");
            }
        }
    }

    #[test]
    fn nothing_is_left_behind() {
        let dir = tempfile::tempdir().unwrap();
        let output = OutputOptions { quiet: true, ..OutputOptions::default() };
        let global = Global { said: output.clone(), output, layers: Default::default(), no_sandbox: false };
        let mut bench =
            Bench { global: &global, stop: Stop::never(), calibration: Calibration::new(), notes: Vec::new() };
        let mut rounds = bench.rounds("disk", Some(1));
        let found = measure(dir.path(), 1_000_000, 1 << 16, &mut rounds, &mut bench).unwrap();
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
        for row in [PWRITE, SYNC, WARM, CHECK] {
            assert_eq!(found.table.rows[row].rate.runs().len(), 1, "{}", ROWS[row]);
        }
        assert!(found.in_use == MAP || found.in_use == PWRITE);
    }
}
