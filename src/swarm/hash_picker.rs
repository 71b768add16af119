//! The hashes of a v2 torrent's pieces, fetched from peers (BEP 52), for a torrent that came by its info dictionary alone:
//! that holds only the root of each file.
//!
//! A file's piece layer is asked for in ranges of at most 512 hashes, each with the hashes that lead from it up to the
//! root. So every answer proves itself: one that does not convicts its sender, whatever else came from whom. Files of one
//! root have one layer.

use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

use rustc_hash::{FxHashMap, FxHashSet};

use crate::base::PeerKey;
use crate::metainfo::{Info, merkle};
use crate::wire::{HashRequest, MAX_HASHES};

type Hash = [u8; 32];

/// Requests out at once, to one peer. An answer has 16 KiB.
const IN_FLIGHT: usize = 8;

/// A request so old is made of another peer, and its own is asked for nothing more until it answers.
const LAPSE: Duration = Duration::from_secs(5);

/// A request so old will not be answered.
const GIVE_UP: Duration = Duration::from_secs(60);

/// How long a peer is left alone that does not answer, or refuses too much; what it refused is not asked of it again before.
const REST: Duration = Duration::from_secs(30);

/// Ranges that one peer may refuse before it is left alone for a while.
const MAX_REFUSED: usize = 64;

/// Ranges that are looked at for one that a peer has not refused.
const MAX_LOOKS: usize = 2 * MAX_REFUSED;

/// Which hashes are missing, and whom they are asked of. See the [module](self).
#[derive(Debug)]
pub struct HashPicker {
    /// How far the piece layer is above the leaves.
    level: u32,
    trees: Vec<Tree>,
    by_root: FxHashMap<Hash, u32>,
    /// Ranges that nobody in time is asked for. Some may have come meanwhile.
    todo: VecDeque<Range>,
    /// How many ranges have not come, of how many.
    missing: u32,
    range_count: u32,
    sources: BTreeMap<PeerKey, Source>,
    convicted: Vec<PeerKey>,
}

/// The piece layer of the files that have one root.
#[derive(Debug)]
struct Tree {
    root: Hash,
    /// By number.
    files: Vec<usize>,
    /// Pieces, at least 2.
    len: u32,
    /// Empty until the first range comes.
    hashes: Vec<Hash>,
    /// By range, whether it is here.
    here: Vec<bool>,
}

/// Hashes that are asked for at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Range {
    tree: u32,
    /// Counted from 0, [`MAX_HASHES`] hashes each.
    number: u32,
}

/// A peer that may have hashes.
#[derive(Debug, Default)]
struct Source {
    asked: Vec<Asked>,
    refused: FxHashSet<Range>,
    rest_until: Option<Instant>,
}

#[derive(Clone, Copy, Debug)]
struct Asked {
    range: Range,
    at: Instant,
    /// It is asked of others, too.
    lapsed: bool,
}

impl Tree {
    /// The request for one range. `None` beyond the last.
    fn request(&self, level: u32, number: u32) -> Option<HashRequest> {
        let index = number.checked_mul(MAX_HASHES)?;
        let left = self.len.checked_sub(index).filter(|left| *left > 0)?;
        let length = left.next_power_of_two().clamp(2, MAX_HASHES);
        // Up to, but without, the root.
        let proof_layers = self.len.next_power_of_two().ilog2().checked_sub(1)?;
        Some(HashRequest { pieces_root: self.root, base_layer: level, index, length, proof_layers })
    }
}

impl Source {
    fn is_ready(&self, now: Instant) -> bool {
        let in_time = self.asked.iter().all(|asked| !asked.lapsed);
        in_time && self.asked.len() < IN_FLIGHT && self.rest_until.is_none_or(|until| until <= now)
    }

    fn rest(&mut self, now: Instant) {
        self.rest_until = Some(now + REST);
    }
}

impl HashPicker {
    /// For the layers that `info` lacks; `None` if it lacks none.
    pub fn new(info: &Info) -> Option<Self> {
        let piece_length = info.geometry().piece_length();
        let mut trees: Vec<Tree> = Vec::new();
        let mut by_root = FxHashMap::default();
        for number in info.missing_layers() {
            let Some(file) = info.files().get(number) else { continue };
            let Some(root) = file.pieces_root else { continue };
            let Ok(len) = u32::try_from(file.length.div_ceil(u64::from(piece_length))) else { continue };
            let next = u32::try_from(trees.len()).unwrap_or(u32::MAX);
            let at = *by_root.entry(root).or_insert(next);
            match trees.get_mut(at as usize) {
                Some(tree) if tree.len == len => tree.files.push(number),
                // Two lengths with one root: one of them can never be proven. Nothing is asked for it.
                Some(_) => {}
                None => {
                    let here = vec![false; len.div_ceil(MAX_HASHES) as usize];
                    trees.push(Tree { root, files: vec![number], len, hashes: Vec::new(), here });
                }
            }
        }
        let todo: VecDeque<Range> = (0u32..)
            .zip(&trees)
            .flat_map(|(tree, t)| (0..t.len.div_ceil(MAX_HASHES)).map(move |number| Range { tree, number }))
            .collect();
        let range_count = u32::try_from(todo.len()).unwrap_or(u32::MAX);
        (range_count > 0).then(|| Self {
            level: merkle::piece_level(piece_length),
            trees,
            by_root,
            todo,
            missing: range_count,
            range_count,
            sources: BTreeMap::new(),
            convicted: Vec::new(),
        })
    }

    /// A peer that speaks v2 may be asked.
    pub fn handle_peer(&mut self, key: PeerKey) {
        self.sources.entry(key).or_default();
    }

    /// A peer is gone.
    pub fn handle_closed(&mut self, key: PeerKey) {
        let Some(source) = self.sources.remove(&key) else { return };
        for asked in source.asked.iter().filter(|asked| !asked.lapsed) {
            self.todo.push_front(asked.range);
        }
    }

    /// Hashes came. True if they were the last.
    pub fn handle_hashes(&mut self, key: PeerKey, request: &HashRequest, hashes: &[u8]) -> bool {
        let Some(Asked { range, .. }) = self.take_asked(key, request) else { return false };
        let Some(tree) = self.trees.get_mut(range.tree as usize) else { return false };
        let proven = request.split(hashes).filter(|(layer, uncles)| {
            merkle::root_from_proof(layer, request.index as usize, uncles) == Some(tree.root)
        });
        let Some((layer, _)) = proven else {
            self.todo.push_front(range);
            self.convicted.push(key);
            self.handle_closed(key);
            return false;
        };
        let Some(here) = tree.here.get_mut(range.number as usize) else { return false };
        if std::mem::replace(here, true) {
            return false;
        }
        if tree.hashes.is_empty() {
            tree.hashes = vec![[0; 32]; tree.len as usize];
        }
        // What is behind the last piece is padding.
        if let Some(place) = tree.hashes.get_mut(request.index as usize..) {
            place.iter_mut().zip(layer).for_each(|(place, hash)| *place = *hash);
        }
        self.missing -= 1;
        self.missing == 0
    }

    /// A peer refuses hashes: it does not have them itself, most likely.
    pub fn handle_reject(&mut self, now: Instant, key: PeerKey, request: &HashRequest) {
        let Some(Asked { range, lapsed, .. }) = self.take_asked(key, request) else { return };
        if !lapsed {
            self.todo.push_back(range);
        }
        let Some(source) = self.sources.get_mut(&key) else { return };
        source.refused.insert(range);
        if source.refused.len() >= MAX_REFUSED.min(self.missing as usize) {
            source.rest(now);
            source.refused.clear();
        }
    }

    /// Time has passed.
    pub fn handle_timeout(&mut self, now: Instant) {
        for source in self.sources.values_mut() {
            for asked in source.asked.iter_mut().filter(|asked| !asked.lapsed) {
                if now.saturating_duration_since(asked.at) >= LAPSE {
                    asked.lapsed = true;
                    self.todo.push_front(asked.range);
                }
            }
            let before = source.asked.len();
            source.asked.retain(|asked| now.saturating_duration_since(asked.at) < GIVE_UP);
            if source.asked.len() < before {
                source.rest(now);
            }
        }
    }

    /// What is to be asked for now, and of whom. It counts as asked.
    pub fn requests(&mut self, now: Instant) -> Vec<(PeerKey, HashRequest)> {
        let mut requests = Vec::new();
        let mut ready: Vec<PeerKey> = self.sources.keys().copied().collect();
        while !ready.is_empty() {
            // One each in turn, so that they share the work.
            ready.retain(|key| match self.next_request(now, *key) {
                Some(request) => {
                    requests.push((*key, request));
                    true
                }
                None => false,
            });
        }
        requests
    }

    /// A peer that has lied for certain.
    pub fn poll_convicted(&mut self) -> Option<PeerKey> {
        self.convicted.pop()
    }

    /// How many ranges have come, and how many there are.
    pub fn progress(&self) -> (u32, u32) {
        (self.range_count - self.missing, self.range_count)
    }

    /// The layers, by number of file, once all of them are here.
    pub fn into_layers(self) -> Vec<(usize, Vec<Hash>)> {
        let mut layers = Vec::new();
        for tree in self.trees {
            let (Some(last), others) = (tree.files.last().copied(), tree.files.len().saturating_sub(1)) else {
                continue;
            };
            layers.extend(tree.files.iter().take(others).map(|file| (*file, tree.hashes.clone())));
            layers.push((last, tree.hashes));
        }
        layers
    }

    fn next_request(&mut self, now: Instant, key: PeerKey) -> Option<HashRequest> {
        let source = self.sources.get_mut(&key)?;
        if !source.is_ready(now) {
            return None;
        }
        for _ in 0..self.todo.len().min(MAX_LOOKS) {
            let range = self.todo.pop_front()?;
            let Some(tree) = self.trees.get(range.tree as usize) else { continue };
            if tree.here.get(range.number as usize).copied().unwrap_or(true) {
                continue;
            }
            if source.refused.contains(&range) || source.asked.iter().any(|asked| asked.range == range) {
                self.todo.push_back(range);
                continue;
            }
            let request = tree.request(self.level, range.number)?;
            source.asked.push(Asked { range, at: now, lapsed: false });
            return Some(request);
        }
        None
    }

    /// Takes what `request` names off the list of what `key` was asked; `None` if it was not asked exactly that.
    fn take_asked(&mut self, key: PeerKey, request: &HashRequest) -> Option<Asked> {
        let tree = *self.by_root.get(&request.pieces_root)?;
        let range = Range { tree, number: request.index / MAX_HASHES };
        if self.trees.get(tree as usize)?.request(self.level, range.number)? != *request {
            return None;
        }
        let asked = &mut self.sources.get_mut(&key)?.asked;
        let at = asked.iter().position(|asked| asked.range == range)?;
        Some(asked.remove(at))
    }
}

#[cfg(test)]
#[path = "hash_picker_tests.rs"]
pub(super) mod tests;
