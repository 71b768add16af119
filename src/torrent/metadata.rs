//! What a torrent that begins with an info-hash needs besides its swarm: memory, and a place where what it found is kept.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use super::spec::AddTorrent;
use super::{Failure, Fault, Origin};
use crate::base::InfoHash;
use crate::metainfo::limits::MAX_KEPT_LEN;
use crate::metainfo::{Info, Magnet, Metainfo};
use crate::net::dial::Dialer;
use crate::storage::{StorageError, state_file};

/// Bytes for info dictionaries under way, all torrents together (`limits.md`).
const ALL: u64 = 64 << 20;

/// Bytes that each torrent may have of it as long as there are any...
const SMALL: u64 = 256 << 10;

/// ...because so many are kept from those that want more.
const FOR_SMALL: u64 = 16 << 20;

/// How long the name of a peer in a link may take to be resolved.
const RESOLVE_TIMEOUT: Duration = Duration::from_secs(10);

/// Memory for info dictionaries under way, shared by all torrents.
#[derive(Debug)]
pub(super) struct MetadataMemory {
    left: Mutex<u64>,
}

impl Default for MetadataMemory {
    fn default() -> Self {
        Self { left: Mutex::new(ALL) }
    }
}

/// What one torrent has of it.
#[derive(Debug)]
pub(super) struct Grant {
    of: Arc<MetadataMemory>,
    bytes: u64,
}

impl Grant {
    pub(super) fn none(of: Arc<MetadataMemory>) -> Self {
        Self { of, bytes: 0 }
    }

    /// How many bytes that is now.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Makes it `wanted` bytes, or as many as there are for it now. Returns how many that is.
    pub(super) fn resize(&mut self, wanted: u64) -> u64 {
        let mut left = self.of.left.lock().unwrap_or_else(PoisonError::into_inner);
        *left += self.bytes;
        self.bytes = if wanted <= left.saturating_sub(FOR_SMALL) { wanted } else { wanted.min(SMALL).min(*left) };
        *left -= self.bytes;
        self.bytes
    }
}

impl Drop for Grant {
    fn drop(&mut self) {
        self.resize(0);
    }
}

/// Whether every piece has a hash by which it can be verified.
pub(super) fn can_verify(info: &Info) -> bool {
    info.info_hash().as_v1().is_some() || info.missing_layers().next().is_none()
}

fn path(state_dir: &Path, hash: &str) -> PathBuf {
    state_dir.join(format!("{hash}.torrent"))
}

/// What an earlier run found for this link, with what the link itself says. Blocks: for a disk thread.
pub(super) fn load(state_dir: &Path, magnet: &Magnet) -> Option<Metainfo> {
    let wanted = &magnet.info_hash;
    let names = [wanted.as_v1().map(|hash| hash.to_string()), wanted.as_v2().map(|hash| hash.to_string())];
    let mut kept = names.into_iter().flatten().filter_map(|name| {
        let kept = state_file::load(&path(state_dir, &name), MAX_KEPT_LEN as u64, Metainfo::parse_incomplete);
        kept.ok().flatten().map(|(metainfo, _)| metainfo).filter(|metainfo| metainfo.info.matches(wanted))
    });
    kept.next().map(|metainfo| Metainfo::from_magnet(metainfo.info, magnet))
}

/// Keeps what was found for `wanted`. Blocks: for a disk thread.
pub(super) fn save(state_dir: &Path, wanted: &InfoHash, info: &Info) -> Result<(), StorageError> {
    let metainfo = Metainfo::from_info(info.clone());
    state_file::save(&path(state_dir, &wanted.to_string()), &metainfo.encode())
}

/// Reads what peers sent, whose hash is right. Takes time: for a disk thread.
pub(super) fn parse(bytes: &[u8], origin: &Origin) -> Result<Metainfo, Failure> {
    let unsound = |why: &str| Failure::new(Fault::Torrent, format!("the torrent itself is not sound: {why}"));
    let info = Info::parse(bytes, None).map_err(|error| unsound(&error.to_string()))?;
    // One that is not what it was asked for, say a v1 dictionary for a v2 hash.
    if !info.matches(&origin.info_hash()) {
        return Err(unsound("it is of another version than its info-hash"));
    }
    Ok(match origin {
        Origin::Magnet(magnet) => Metainfo::from_magnet(info, magnet),
        Origin::Metainfo(_) => Metainfo::from_info(info),
    })
}

/// The same torrent with piece layers that peers sent. Takes time: for a disk thread.
pub(super) fn with_layers(metainfo: &Metainfo, layers: Vec<(usize, Vec<[u8; 32]>)>) -> Result<Metainfo, Failure> {
    let mut whole = metainfo.clone();
    for (file, layer) in layers {
        let set = whole.info.set_piece_layer(file, layer);
        set.map_err(|error| Failure::new(Fault::Internal, format!("hashes that were proven: {error}")))?;
    }
    if let Some(file) = whole.info.missing_layers().next() {
        let file = whole.info.files().get(file).map(|file| file.path.as_str()).unwrap_or_default();
        let why = format!("the torrent itself is not sound: {file} cannot be verified");
        return Err(Failure::new(Fault::Torrent, why));
    }
    Ok(whole)
}

/// Which files are to be fetched, now that it is known which there are; `None` is all.
pub(super) fn select(add: &AddTorrent, metainfo: &Metainfo) -> Result<Option<Vec<bool>>, Failure> {
    match (&add.selected, &add.choose, &add.origin) {
        (Some(selected), ..) => Ok(Some(selected.clone())),
        (None, Some(choose), _) => (choose.0)(metainfo).map_err(|why| Failure::new(Fault::Usage, why)),
        (None, None, Origin::Magnet(magnet)) if !magnet.select.is_empty() => {
            let selected: Vec<bool> = (0u32..).zip(metainfo.info.files()).map(|(n, _)| magnet.selects(n)).collect();
            if selected.contains(&true) {
                Ok(Some(selected))
            } else {
                Err(Failure::new(Fault::Torrent, "the link selects files that the torrent does not have"))
            }
        }
        (None, None, _) => Ok(None),
    }
}

/// The address of a peer that a link names.
pub(super) async fn resolve(dialer: &Dialer, host: &str, port: u16) -> Vec<std::net::SocketAddr> {
    match tokio::time::timeout(RESOLVE_TIMEOUT, dialer.lookup(host, port)).await {
        Ok(Ok(addresses)) => addresses,
        Ok(Err(error)) => {
            tracing::info!(host = %crate::base::printable(host), %error, "a peer of the link has no address");
            vec![]
        }
        Err(_) => vec![],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_shared() {
        let memory = Arc::new(MetadataMemory::default());
        let grant = || Grant::none(memory.clone());
        let mut large = grant();
        assert_eq!(large.resize(40 << 20), 40 << 20);
        let mut second = grant();
        // There is not so much any more; what is left for all is.
        assert_eq!(second.resize(40 << 20), SMALL);
        let mut small: Vec<Grant> = (0..95).map(|_| grant()).collect();
        assert!(small.iter_mut().all(|grant| grant.resize(20_000) == 20_000));
        let mut most: Vec<Grant> = (0..100).map(|_| grant()).collect();
        let given: u64 = most.iter_mut().map(|grant| grant.resize(1 << 20)).sum();
        assert!(given + (40 << 20) + SMALL + 95 * 20_000 <= ALL);
        assert_eq!(*memory.left.lock().unwrap(), ALL - given - (40 << 20) - SMALL - 95 * 20_000);
        drop((large, most, small));
        assert_eq!(second.resize(40 << 20), 40 << 20);
        assert_eq!(second.resize(100), 100);
        drop(second);
        assert_eq!(*memory.left.lock().unwrap(), ALL);
    }
}
