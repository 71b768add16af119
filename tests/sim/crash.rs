//! Losses of power, dying processes and disks that fail to write: whatever vanishes, nothing is claimed that is not there.
//!
//! The real [`Ledger`], resume data, state file and [`believe`] run on a pretend disk. It has a page cache: what was
//! written and not synced is lost at a loss of power, sector by sector, in any order; names that were changed and not
//! synced are lost or kept, each by itself; a write that fails in the background drops its sectors, which is told once,
//! by the next sync, and then all is well again, as on Linux.
//!
//! `GANNET_SIM_SEED=N cargo test --test sim crash` runs one seed.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::io;

use fastrand::Rng;
use gannet::base::{Bitfield, Geometry, InfoHash, InfoHashV1, PieceIndex};
use gannet::resume::{FileNow, FileStamp, Ledger, MAX_RESUME_LEN, ResumeData, believe};
use gannet::storage::state_file::{Folder, Generation, load_from, save_in};

const SEEDS: u64 = 10_000;
const SECTORS: usize = 3;
const NAME: &str = "torrent.resume";

/// Whether each sector of a piece holds what it should.
type Sectors = [bool; SECTORS];

struct Disk {
    lasting: Vec<Sectors>,
    cached: Vec<Sectors>,
    dirty: Vec<Sectors>,
    /// A write in the background failed, and nobody was told so far.
    failed: bool,
    mtime: i64,
    state: States,
    rng: Rng,
}

/// Names and what they stand for; the contents are never changed once they are synced.
#[derive(Default)]
struct States {
    lasting: BTreeMap<OsString, Vec<u8>>,
    cached: BTreeMap<OsString, Vec<u8>>,
    /// Changes of names that are not synced: what a name stands for since, if anything.
    changes: Vec<Vec<(OsString, Option<Vec<u8>>)>>,
    /// The process dies in the call after so many.
    calls_left: Option<u32>,
    rng: Rng,
}

impl States {
    fn change(&mut self, change: Vec<(OsString, Option<Vec<u8>>)>) {
        apply(&mut self.cached, &change);
        self.changes.push(change);
    }

    /// An error if the process dies in this call.
    fn live(&mut self) -> io::Result<()> {
        match &mut self.calls_left {
            Some(0) => Err(io::Error::other("killed")),
            Some(left) => {
                *left -= 1;
                Ok(())
            }
            None => Ok(()),
        }
    }

    fn lose_power(&mut self) {
        for change in std::mem::take(&mut self.changes) {
            if self.rng.bool() {
                apply(&mut self.lasting, &change);
            }
        }
        self.cached = self.lasting.clone();
    }
}

fn apply(names: &mut BTreeMap<OsString, Vec<u8>>, change: &[(OsString, Option<Vec<u8>>)]) {
    for (name, bytes) in change {
        match bytes {
            Some(bytes) => drop(names.insert(name.clone(), bytes.clone())),
            None => drop(names.remove(name)),
        }
    }
}

impl Folder for States {
    fn write_synced(&mut self, name: &OsStr, bytes: &[u8]) -> io::Result<()> {
        let living = self.live();
        let written = if living.is_ok() { bytes.len() } else { self.rng.usize(..bytes.len()) };
        self.change(vec![(name.to_owned(), Some(bytes[..written].to_vec()))]);
        living
    }

    fn rename(&mut self, from: &OsStr, to: &OsStr) -> io::Result<()> {
        self.live()?;
        let bytes = self.cached.get(from).cloned().ok_or(io::ErrorKind::NotFound)?;
        self.change(vec![(to.to_owned(), Some(bytes)), (from.to_owned(), None)]);
        Ok(())
    }

    fn sync(&mut self) -> io::Result<()> {
        self.live()?;
        self.changes.clear();
        self.lasting = self.cached.clone();
        Ok(())
    }

    fn read(&self, name: &OsStr, _: u64) -> io::Result<Vec<u8>> {
        self.cached.get(name).cloned().ok_or(io::ErrorKind::NotFound.into())
    }
}

impl Disk {
    fn new(pieces: usize, seed: u64) -> Self {
        let none = vec![[false; SECTORS]; pieces];
        let mut rng = Rng::with_seed(seed);
        let state = States { rng: rng.fork(), ..States::default() };
        Self { lasting: none.clone(), cached: none.clone(), dirty: none, failed: false, mtime: 0, state, rng }
    }

    fn write(&mut self, piece: PieceIndex) {
        self.cached[piece.idx()] = [true; SECTORS];
        self.dirty[piece.idx()] = [true; SECTORS];
        self.mtime += 1;
    }

    /// The system writes some of what waits, when it likes to.
    fn write_back(&mut self) {
        let fails = self.rng.u8(..) < 16;
        for piece in 0..self.dirty.len() {
            for sector in 0..SECTORS {
                if self.dirty[piece][sector] && self.rng.bool() {
                    self.dirty[piece][sector] = false;
                    self.lasting[piece][sector] |= !fails;
                    self.failed |= fails;
                }
            }
        }
    }

    fn sync(&mut self) -> bool {
        if self.rng.u8(..) < 8 {
            // Fails in the midst of it, with the same consequences.
            self.write_back();
        }
        let fails = self.rng.u8(..) < 16;
        for (piece, dirty) in self.dirty.iter_mut().enumerate() {
            for (dirty, lasting) in dirty.iter_mut().zip(&mut self.lasting[piece]) {
                if std::mem::take(dirty) {
                    let lost = fails && self.rng.bool();
                    *lasting |= !lost;
                    self.failed |= lost;
                }
            }
        }
        !std::mem::take(&mut self.failed)
    }

    /// What is in memory is forgotten as far as it need not be written.
    fn evict(&mut self) {
        for (piece, cached) in self.cached.iter_mut().enumerate() {
            for (sector, there) in cached.iter_mut().enumerate() {
                *there = if self.dirty[piece][sector] { *there } else { self.lasting[piece][sector] };
            }
        }
    }

    fn lose_power(&mut self) {
        for (piece, dirty) in self.dirty.iter_mut().enumerate() {
            for (dirty, lasting) in dirty.iter_mut().zip(&mut self.lasting[piece]) {
                *lasting |= std::mem::take(dirty) && self.rng.bool();
            }
        }
        self.cached.clone_from(&self.lasting);
        self.failed = false;
        self.state.lose_power();
    }

    fn hashes(&self, piece: PieceIndex) -> bool {
        self.cached[piece.idx()] == [true; SECTORS]
    }
}

/// What a client knows of its one torrent, in one file.
struct Client {
    geometry: Geometry,
    have: Bitfield,
    ledger: Ledger,
    /// Something may be unsynced.
    touched: bool,
    /// It never syncs, and so claims little.
    lazy: bool,
}

enum End {
    Power,
    Killed,
    Stopped,
}

impl Client {
    /// Starts from what the disk holds, which must be all that is claimed.
    fn start(disk: &mut Disk, geometry: &Geometry, lazy: bool) -> Self {
        disk.state.calls_left = None;
        let found = load_from(&disk.state, OsStr::new(NAME), MAX_RESUME_LEN as u64, ResumeData::from_bytes);
        let believed = found.ok().flatten().and_then(|(data, generation)| {
            let stamp = Some(FileStamp { size: 1, mtime_ns: disk.mtime, inode: 1 });
            let file = FileNow { stamp, pieces: Some(0..geometry.piece_count()), moved: false };
            believe(&data, generation == Generation::Current, &[file], geometry)
        });
        let claimed = believed.as_ref().map_or_else(|| Bitfield::new(geometry.piece_count()), |b| b.have.clone());
        for piece in claimed.iter() {
            assert!(disk.hashes(piece), "{piece} is claimed and not there");
        }
        let mut have = claimed.clone();
        let doubtful = believed.map_or_else(|| Bitfield::full(geometry.piece_count()), |believed| believed.doubtful);
        for piece in doubtful.iter().filter(|piece| disk.hashes(*piece)) {
            have.set(piece);
        }
        // What an earlier life wrote may be in memory only.
        let touched = have.has_more_than(&claimed);
        Self { geometry: geometry.clone(), have, ledger: Ledger::new(claimed), touched, lazy }
    }

    /// Lives until something happens.
    fn live(&mut self, disk: &mut Disk) -> End {
        loop {
            match disk.rng.u8(..100) {
                0..60 => self.fetch(disk),
                60..80 => disk.write_back(),
                80..92 => {
                    let saved = self.save(disk, false);
                    if disk.state.calls_left == Some(0) {
                        return if disk.rng.bool() { End::Power } else { End::Killed };
                    }
                    saved.expect("nothing else fails");
                }
                92..94 => return if self.save(disk, true).is_ok() { End::Stopped } else { End::Killed },
                94..97 => return End::Killed,
                _ => return End::Power,
            }
        }
    }

    fn fetch(&mut self, disk: &mut Disk) {
        let missing: Vec<PieceIndex> = self.geometry.pieces().filter(|piece| !self.have.has(*piece)).collect();
        if let Some(piece) = disk.rng.choice(missing) {
            disk.write(piece);
            self.touched = true;
            self.have.set(piece);
        }
    }

    fn save(&mut self, disk: &mut Disk, stop: bool) -> io::Result<()> {
        if disk.rng.u8(..) < 64 {
            disk.state.calls_left = Some(disk.rng.u32(..5));
        }
        if !self.lazy {
            self.ledger.begin(&self.have);
            let synced = !std::mem::take(&mut self.touched) || disk.sync();
            if !stop && disk.rng.bool() {
                self.fetch(disk);
            }
            if !synced {
                self.touched = true;
                let unknown = self.ledger.failed(&self.have);
                disk.evict();
                for piece in unknown {
                    self.have.clear(piece);
                    self.ledger.lost(piece);
                    if disk.hashes(piece) {
                        self.have.set(piece);
                    }
                }
                return Ok(());
            }
            self.ledger.done();
        }
        let data = ResumeData {
            have: self.ledger.lasting().clone(),
            files: vec![Some(FileStamp { size: 1, mtime_ns: disk.mtime, inode: 1 })],
            clean: stop && !self.lazy,
            ..ResumeData::new(InfoHash::v1(InfoHashV1([1; 20])), self.geometry.piece_count(), 0)
        };
        save_in(&mut disk.state, OsStr::new(NAME), &data.to_bytes().unwrap())
    }
}

/// One disk through some lives of a client. How many pieces were there when it was complete, or in the end.
fn lives(seed: u64) -> u32 {
    let mut rng = Rng::with_seed(seed);
    let pieces = rng.u32(1..40);
    let geometry = Geometry::new(u64::from(pieces) << 14, 1 << 14).unwrap();
    let mut disk = Disk::new(pieces as usize, rng.u64(..));
    let lazy = rng.u8(..10) == 0;
    let mut most = 0;
    for _ in 0..rng.u32(2..8) {
        let mut client = Client::start(&mut disk, &geometry, lazy);
        match client.live(&mut disk) {
            End::Power => disk.lose_power(),
            End::Killed | End::Stopped => {}
        }
        most = most.max(client.have.count());
    }
    disk.lose_power();
    let left = Client::start(&mut disk, &geometry, lazy).have.count();
    assert!(left <= pieces && most <= pieces);
    left
}

/// K5, and K2 on the pretend disk.
#[test]
fn k5_nothing_is_claimed_that_a_crash_took() {
    if let Ok(seed) = std::env::var("GANNET_SIM_SEED") {
        lives(seed.parse().expect("a number"));
        return;
    }
    let mut left = 0;
    for seed in 0..SEEDS {
        let outcome = std::panic::catch_unwind(|| lives(seed));
        left += u64::from(
            outcome.unwrap_or_else(|_| panic!("run again: GANNET_SIM_SEED={seed} cargo test --test sim crash")),
        );
    }
    // It would be easy to claim nothing.
    assert!(left > SEEDS * 5, "{left} pieces survived in all");
}
