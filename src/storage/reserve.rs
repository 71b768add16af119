//! Space that torrents are going to need, so that none is promised twice.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};

/// Of all torrents of this process, by file system: the disk is the machine's.
static ALL: Mutex<Vec<(u64, Weak<AtomicU64>)>> = Mutex::new(Vec::new());

/// What one torrent will write and has not taken yet. Given back when it goes.
#[derive(Debug)]
pub(super) struct Reservation {
    file_system: u64,
    left: Arc<AtomicU64>,
}

impl Reservation {
    /// Nothing, on the file system of this number.
    pub(super) fn none(file_system: u64) -> Self {
        Self { file_system, left: Arc::default() }
    }

    /// Reserves `bytes` instead of what was reserved before, if there is so much `free` that is not reserved by others.
    /// Returns how much is missing.
    pub(super) fn set(&self, bytes: u64, free: u64) -> u64 {
        let mut all = ALL.lock().unwrap_or_else(PoisonError::into_inner);
        all.retain(|(_, other)| other.strong_count() > 0);
        let others = all.iter().filter(|(file_system, _)| *file_system == self.file_system);
        let others = others.filter_map(|(_, other)| other.upgrade()).filter(|other| !Arc::ptr_eq(other, &self.left));
        let promised = others.fold(0u64, |sum, other| sum.saturating_add(other.load(Ordering::Relaxed)));
        let missing = bytes.saturating_sub(free.saturating_sub(promised));
        if missing == 0 {
            self.left.store(bytes, Ordering::Relaxed);
            if !all.iter().any(|(_, other)| std::ptr::eq(other.as_ptr(), Arc::as_ptr(&self.left))) {
                all.push((self.file_system, Arc::downgrade(&self.left)));
            }
        }
        missing
    }

    /// So many bytes of it are taken now.
    pub(super) fn take(&self, bytes: u64) {
        let _ = self.left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| Some(left.saturating_sub(bytes)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_promised_twice() {
        // No file system has this number.
        let (a, b, other) = (Reservation::none(u64::MAX), Reservation::none(u64::MAX), Reservation::none(u64::MAX - 1));
        assert_eq!((a.set(60, 100), b.set(60, 100), other.set(60, 100)), (0, 20, 0));
        assert_eq!((b.set(40, 100), a.set(60, 100), a.set(61, 100)), (0, 0, 1));
        // What is taken is not free any more.
        a.take(20);
        assert_eq!((b.set(40, 80), b.set(41, 80)), (0, 1));
        a.take(1_000);
        assert_eq!(b.set(80, 80), 0);
        drop(b);
        assert_eq!(a.set(80, 80), 0);
    }
}
