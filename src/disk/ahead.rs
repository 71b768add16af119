use std::sync::{Arc, Mutex, PoisonError};

use rustc_hash::FxHashMap;
use tokio::sync::watch;

use super::{DiskPool, Job};
use crate::storage::{Storage, Window};

/// Windows of one torrent that are read ahead at once: enough to keep a disk busy, few enough that the first ones are
/// sent before the last ones push them out of memory.
const MAX_AHEAD: usize = 32;

/// What is being read ahead for one torrent: each window once, however many ask for it.
#[derive(Debug, Default)]
pub struct ReadAheads {
    under_way: Mutex<FxHashMap<Window, Ahead>>,
}

/// A window on its way into memory.
#[derive(Clone, Debug)]
pub struct Ahead(watch::Receiver<()>);

impl Ahead {
    /// Returns when it has been read, or could not be: which of them, reading it will tell.
    pub async fn ended(&mut self) {
        // Nothing is ever sent: the sender goes when the job ends, in whatever way.
        let _ = self.0.changed().await;
    }
}

/// Held by the job that reads a window ahead: when it goes, those who wait go on.
#[derive(Debug)]
pub struct Reading {
    aheads: Arc<ReadAheads>,
    window: Window,
    _ends: watch::Sender<()>,
}

impl ReadAheads {
    /// None so far.
    pub fn new() -> Arc<Self> {
        Arc::default()
    }

    /// Sees to it that `window` is being read ahead. None if so much is being read already that it has to wait.
    pub fn want(self: &Arc<Self>, disk: &DiskPool, storage: &Arc<Storage>, window: Window) -> Option<Ahead> {
        let (ahead, reading) = self.enter(window)?;
        if let Some(reading) = reading {
            disk.push(Job::ReadAhead { storage: storage.clone(), window, reading });
        }
        Some(ahead)
    }

    /// Enters a window; with what its job has to hold, if it is new.
    fn enter(self: &Arc<Self>, window: Window) -> Option<(Ahead, Option<Reading>)> {
        let mut under_way = self.lock();
        if let Some(ahead) = under_way.get(&window) {
            return Some((ahead.clone(), None));
        }
        if under_way.len() >= MAX_AHEAD {
            return None;
        }
        let (ends, receiver) = watch::channel(());
        let ahead = Ahead(receiver);
        under_way.insert(window, ahead.clone());
        Some((ahead, Some(Reading { aheads: self.clone(), window, _ends: ends })))
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, FxHashMap<Window, Ahead>> {
        self.under_way.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Reading {
    fn drop(&mut self) {
        self.aheads.lock().remove(&self.window);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::Geometry;
    use crate::storage::READ_AHEAD;

    #[tokio::test]
    async fn once_each_and_so_many() {
        let geometry = Geometry::new(1 << 30, 1 << 20).unwrap();
        let windows: Vec<Window> = geometry.pieces().map(|piece| Window::of(piece, 0)).collect();
        let aheads = ReadAheads::new();
        let (_, mut first) = aheads.enter(windows[0]).unwrap();
        assert!(first.is_some());
        let (mut waits, again) = aheads.enter(windows[0]).unwrap();
        assert!(again.is_none(), "it is being read already");
        let others: Vec<_> = windows[1..MAX_AHEAD].iter().map(|w| aheads.enter(*w).unwrap()).collect();
        assert!(aheads.enter(windows[MAX_AHEAD]).is_none());
        drop(first.take());
        waits.ended().await;
        assert!(aheads.enter(windows[0]).unwrap().1.is_some(), "it can be read again");
        drop(others);
        assert!(aheads.lock().is_empty());
    }

    #[test]
    fn windows_of_long_pieces() {
        let piece = Geometry::new(1 << 30, 1 << 24).unwrap().piece(3).unwrap();
        let of = |begin| Window::of(piece, begin);
        assert_eq!(of(0), of(READ_AHEAD - 1));
        assert_ne!(of(0), of(READ_AHEAD));
    }
}
