use std::fs::File;
use std::io;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use rustc_hash::FxHashMap;

use super::mapping::Mapping;
use crate::sys::{self, Cached, SendMap};

/// The most files that all torrents together keep open (`limits.md`).
const MAX_OPEN: usize = 256;

/// Files that a torrent may keep open even when all together are over the limit.
const MIN_OPEN: usize = 4;

/// As many are closed in one go, so that not each of thousands that follow has to look for the one used longest ago.
const CLOSED_AT_ONCE: usize = 16;

/// Open files of all torrents of this process: the limit of descriptors is the process's.
static OPEN: AtomicUsize = AtomicUsize::new(0);

/// An open file, counted, with its map if it has one.
#[derive(Debug)]
pub(super) struct OpenFile {
    pub(super) file: File,
    pub(super) writable: bool,
    /// Made at the first write; none where a map could not be made.
    pub(super) mapping: OnceLock<Option<Mapping>>,
    /// Made when it is first sent from.
    send_map: OnceLock<Option<Arc<SendMap>>>,
    /// It lies on no disk. Found out when it is first read.
    in_memory: OnceLock<bool>,
    _counted: Counted,
}

impl OpenFile {
    fn new(file: File, writable: bool) -> Self {
        Self {
            file,
            writable,
            mapping: OnceLock::new(),
            send_map: OnceLock::new(),
            in_memory: OnceLock::new(),
            _counted: Counted::new(),
        }
    }

    /// Whether reading the range would not wait for the disk. Never so if the file ends before.
    pub(super) fn is_cached(&self, offset: u64, len: u64) -> Cached {
        if !self.in_memory.get_or_init(|| sys::is_in_memory(&self.file)) {
            return sys::is_cached(&self.file, offset, len);
        }
        match self.file.metadata() {
            Ok(metadata) if metadata.len() >= offset.saturating_add(len) => Cached::Yes,
            _ => Cached::No,
        }
    }

    /// The first `len` bytes as a map to send from, the same at each call; none where it cannot be mapped.
    pub(super) fn send_map(&self, len: u64) -> Option<Arc<SendMap>> {
        self.send_map.get_or_init(|| SendMap::new(&self.file, len).ok().map(Arc::new)).clone()
    }
}

#[derive(Debug)]
struct Counted;

impl Counted {
    fn new() -> Self {
        OPEN.fetch_add(1, Ordering::Relaxed);
        Self
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        OPEN.fetch_sub(1, Ordering::Relaxed);
    }
}

/// The files of one torrent that are open: those used last.
#[derive(Debug, Default)]
pub(super) struct OpenFiles {
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    files: FxHashMap<u32, Entry>,
    uses: u64,
}

#[derive(Debug)]
struct Entry {
    open: Arc<OpenFile>,
    last_use: u64,
}

impl Inner {
    /// Closes up to `count` files, but not number `spare`.
    fn close(&mut self, count: usize, spare: u32, keep: impl Fn(u32) -> bool, closed: &mut Vec<Entry>) {
        let count = count.min(self.files.len().saturating_sub(MIN_OPEN));
        let others = self.files.iter().filter(|(n, _)| **n != spare);
        let mut oldest: Vec<(bool, u64, u32)> = others.map(|(n, entry)| (keep(*n), entry.last_use, *n)).collect();
        if count < oldest.len() {
            oldest.select_nth_unstable(count);
        }
        closed.extend(oldest.iter().take(count).filter_map(|(_, _, n)| self.files.remove(n)));
    }
}

impl OpenFiles {
    /// File number `n`, opened by `open` unless it is open (and writable, if that is asked for). When there are too
    /// many, those used longest ago are closed, `keep`s last: their unsynced errors could get lost.
    pub(super) fn get(
        &self,
        n: u32,
        writable: bool,
        keep: impl Fn(u32) -> bool,
        open: impl FnOnce() -> io::Result<File>,
    ) -> io::Result<Arc<OpenFile>> {
        if let Some(found) = self.find(n, writable) {
            return Ok(found);
        }
        let opened = Arc::new(OpenFile::new(open()?, writable));
        let mut closed = Vec::new();
        {
            let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
            inner.uses += 1;
            let last_use = inner.uses;
            closed.extend(inner.files.insert(n, Entry { open: opened.clone(), last_use }));
            let excess = OPEN.load(Ordering::Relaxed).saturating_sub(limit());
            if excess > 0 {
                inner.close(excess + CLOSED_AT_ONCE - 1, n, keep, &mut closed);
            }
        }
        // Closing may take time: not under the lock.
        drop(closed);
        Ok(opened)
    }

    /// File number `n` if it is open (and writable, if that is asked for).
    pub(super) fn find(&self, n: u32, writable: bool) -> Option<Arc<OpenFile>> {
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        inner.uses += 1;
        let uses = inner.uses;
        let entry = inner.files.get_mut(&n).filter(|e| e.open.writable || !writable)?;
        entry.last_use = uses;
        Some(entry.open.clone())
    }

    /// Closes file number `n`, so that the next use opens it anew.
    pub(super) fn forget(&self, n: u32) {
        let forgotten = self.inner.lock().unwrap_or_else(PoisonError::into_inner).files.remove(&n);
        drop(forgotten);
    }

    /// Closes all.
    pub(super) fn clear(&self) {
        let all = std::mem::take(&mut self.inner.lock().unwrap_or_else(PoisonError::into_inner).files);
        drop(all);
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.inner.lock().unwrap().files.len()
    }
}

/// [`MAX_OPEN`], or a quarter of what the process may open where that is less: sockets need the rest.
fn limit() -> usize {
    static LIMIT: OnceLock<usize> = OnceLock::new();
    *LIMIT.get_or_init(|| usize::try_from(sys::open_file_limit() / 4).map_or(MAX_OPEN, |quarter| quarter.min(MAX_OPEN)))
}
