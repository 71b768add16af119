//! L2: what is kept about a torrent between runs, to and from checksummed bytes.
//!
//! For: believing pieces after a restart without hashing them all, and not losing count of what was sent.
//! Must not know: files, clocks, where the bytes are kept.
//! Main types: [`ResumeData`], [`Ledger`]; [`believe`].
//!
//! ```text
//! "gannet resume 1\n"   32 bytes SHA-256 of all that follows and the line   a bencoded dictionary
//! ```
//!
//! Bytes that are torn, changed or of another version are an error, never half a truth: the caller falls back to the
//! generation before, and then to hashing all that is on disk.

mod believe;
mod ledger;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

pub use believe::{Believed, FileNow, believe};
pub use ledger::Ledger;

use serde::{Deserialize, Serialize};
use serde_bytes::ByteBuf;

use crate::base::bencode::{self, BencodeError, Limits};
use crate::base::{Bitfield, BitfieldError, InfoHash, InfoHashV1, InfoHashV2};
use crate::hash::sha256;

/// The first line. The number is the version: other versions are not read.
const MAGIC: &[u8; 16] = b"gannet resume 1\n";

/// The most bytes that are looked at: an info dictionary of 32 MiB, a million files, and the rest.
pub const MAX_RESUME_LEN: usize = 96 << 20;

/// The most peers that are kept.
pub const MAX_RESUME_PEERS: usize = 200;

/// The most that a number is written as: the decoder knows no more, and nothing counted here comes near.
const MAX_NUMBER: u64 = i64::MAX.unsigned_abs();

/// Bytes of one file's entry: there or not, size, time, inode.
const FILE_ENTRY: usize = 25;

/// What is known of a torrent when it stops.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ResumeData {
    /// Which torrent.
    pub info_hash: InfoHash,
    /// The pieces that are verified and synced to the disk.
    pub have: Bitfield,
    /// What each file was like after the last sync, by number; none for a file that was not there. What it means and
    /// whether it has entries of its own behind the torrent's files is the storage's affair.
    pub files: Vec<Option<FileStamp>>,
    /// Whether the torrent stopped in good order, so that nothing was written after the stamps were taken.
    pub clean: bool,
    /// Payload bytes sent in all runs.
    pub uploaded: u64,
    /// Payload bytes received in all runs.
    pub downloaded: u64,
    /// When it was added, in seconds since 1970.
    pub added: u64,
    /// When it was complete, in seconds since 1970; none before.
    pub completed: Option<u64>,
    /// Which files are wanted, by number; none is all.
    pub wanted: Option<Vec<bool>>,
    /// Peers worth trying first. Only the first [`MAX_RESUME_PEERS`] are kept.
    pub peers: Vec<SocketAddr>,
    /// The info dictionary as it came from peers, so that a magnet link need not fetch it again.
    pub info: Option<Vec<u8>>,
}

/// What distinguishes one state of a file from another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FileStamp {
    /// Bytes.
    pub size: u64,
    /// Last change, in nanoseconds since 1970.
    pub mtime_ns: i64,
    /// Number within its file system.
    pub inode: u64,
}

/// Why bytes are no resume data.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ResumeError {
    /// Another format, or another version of this one.
    #[error("not resume data of this version")]
    Version,
    /// Longer than [`MAX_RESUME_LEN`].
    #[error("resume data of {0} bytes is too long")]
    TooLong(usize),
    /// Cut, or changed since it was written.
    #[error("resume data is damaged")]
    Damaged,
    /// Whole, but not made by this program.
    #[error("resume data is not sound: {0}")]
    Shape(#[from] BencodeError),
    /// Whole, but something in it cannot be.
    #[error("resume data is not sound: {0}")]
    Impossible(&'static str),
    /// The pieces do not fit their number.
    #[error("resume data is not sound: {0}")]
    Pieces(#[from] BitfieldError),
}

/// The dictionary, in the order of its keys.
#[derive(Serialize, Deserialize)]
struct Dictionary {
    added: u64,
    clean: u8,
    #[serde(skip_serializing_if = "Option::is_none")]
    completed: Option<u64>,
    downloaded: u64,
    files: ByteBuf,
    have: ByteBuf,
    #[serde(skip_serializing_if = "Option::is_none")]
    info: Option<ByteBuf>,
    peers: ByteBuf,
    peers6: ByteBuf,
    piece_count: u32,
    uploaded: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    v1: Option<ByteBuf>,
    #[serde(skip_serializing_if = "Option::is_none")]
    v2: Option<ByteBuf>,
    #[serde(skip_serializing_if = "Option::is_none")]
    wanted: Option<ByteBuf>,
}

impl ResumeData {
    /// Whether file number `file` was wanted.
    pub fn wants(&self, file: u32) -> bool {
        self.wanted.as_ref().and_then(|wanted| wanted.get(file as usize)).copied().unwrap_or(true)
    }

    /// Nothing yet of a torrent of `piece_count` pieces, added at `now` (seconds since 1970).
    pub fn new(info_hash: InfoHash, piece_count: u32, now: u64) -> Self {
        Self {
            info_hash,
            have: Bitfield::new(piece_count),
            files: Vec::new(),
            clean: false,
            uploaded: 0,
            downloaded: 0,
            added: now,
            completed: None,
            wanted: None,
            peers: Vec::new(),
            info: None,
        }
    }

    /// As bytes. They depend on nothing but the data.
    ///
    /// # Errors
    /// [`ResumeError::TooLong`] for what could not be read back.
    pub fn to_bytes(&self) -> Result<Vec<u8>, ResumeError> {
        let mut peers = (Vec::new(), Vec::new());
        for peer in self.peers.iter().take(MAX_RESUME_PEERS) {
            let list = match peer.ip() {
                IpAddr::V4(ip) => {
                    peers.0.extend(ip.octets());
                    &mut peers.0
                }
                IpAddr::V6(ip) => {
                    peers.1.extend(ip.octets());
                    &mut peers.1
                }
            };
            list.extend(peer.port().to_be_bytes());
        }
        let body = bencode::encode(&Dictionary {
            added: self.added.min(MAX_NUMBER),
            clean: self.clean.into(),
            completed: self.completed.map(|c| c.min(MAX_NUMBER)),
            downloaded: self.downloaded.min(MAX_NUMBER),
            files: ByteBuf::from(self.files.iter().flat_map(file_entry).collect::<Vec<u8>>()),
            have: ByteBuf::from(self.have.to_wire()),
            info: self.info.clone().map(ByteBuf::from),
            peers: ByteBuf::from(peers.0),
            peers6: ByteBuf::from(peers.1),
            piece_count: self.have.len(),
            uploaded: self.uploaded.min(MAX_NUMBER),
            v1: self.info_hash.as_v1().map(|h| ByteBuf::from(h.0)),
            v2: self.info_hash.as_v2().map(|h| ByteBuf::from(h.0)),
            wanted: self.wanted.as_ref().map(|w| w.iter().map(|b| u8::from(*b)).collect::<Vec<u8>>().into()),
        })?;
        let bytes = [MAGIC.as_slice(), &sha256(&[MAGIC, &body]), &body].concat();
        if bytes.len() > MAX_RESUME_LEN { Err(ResumeError::TooLong(bytes.len())) } else { Ok(bytes) }
    }

    /// From bytes that [`ResumeData::to_bytes`] made.
    ///
    /// # Errors
    /// For everything else, down to one changed bit.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, ResumeError> {
        if bytes.len() > MAX_RESUME_LEN {
            return Err(ResumeError::TooLong(bytes.len()));
        }
        let rest = bytes.strip_prefix(MAGIC).ok_or(ResumeError::Version)?;
        let (sum, body) = rest.split_at_checked(32).ok_or(ResumeError::Damaged)?;
        if sum != sha256(&[MAGIC, body]) {
            return Err(ResumeError::Damaged);
        }
        let d: Dictionary = bencode::decode(body, Limits::TORRENT)?;
        let v1 = hash(d.v1.as_ref())?.map(InfoHashV1);
        let v2 = hash(d.v2.as_ref())?.map(InfoHashV2);
        let info_hash = match (v1, v2) {
            (Some(v1), Some(v2)) => InfoHash::hybrid(v1, v2),
            (Some(v1), None) => InfoHash::v1(v1),
            (None, Some(v2)) => InfoHash::v2(v2),
            (None, None) => return Err(ResumeError::Impossible("no info-hash")),
        };
        if d.piece_count > crate::base::MAX_PIECE_COUNT {
            return Err(ResumeError::Impossible("too many pieces"));
        }
        if !d.files.len().is_multiple_of(FILE_ENTRY) {
            return Err(ResumeError::Impossible("a file entry is cut"));
        }
        let peers4 = d.peers.as_chunks::<6>().0.iter().map(|[a, b, c, d, high, low]| {
            SocketAddr::from((Ipv4Addr::new(*a, *b, *c, *d), u16::from_be_bytes([*high, *low])))
        });
        let peers6 = d.peers6.as_chunks::<18>().0.iter().map(|[ip @ .., high, low]| {
            let ip: [u8; 16] = *ip;
            SocketAddr::from((Ipv6Addr::from(ip), u16::from_be_bytes([*high, *low])))
        });
        Ok(Self {
            info_hash,
            have: Bitfield::from_wire(&d.have, d.piece_count)?,
            files: d.files.as_chunks::<FILE_ENTRY>().0.iter().map(file_stamp).collect(),
            clean: d.clean == 1,
            uploaded: d.uploaded,
            downloaded: d.downloaded,
            added: d.added,
            completed: d.completed,
            wanted: d.wanted.map(|w| w.iter().map(|b| *b != 0).collect()),
            peers: peers4.chain(peers6).collect(),
            info: d.info.map(ByteBuf::into_vec),
        })
    }

    /// Whether this is about that torrent, of that many pieces: anything else must not be believed.
    pub fn fits(&self, info_hash: &InfoHash, piece_count: u32) -> bool {
        let v1 = self.info_hash.as_v1().is_some() && self.info_hash.as_v1() == info_hash.as_v1();
        let v2 = self.info_hash.as_v2().is_some() && self.info_hash.as_v2() == info_hash.as_v2();
        (v1 || v2) && self.have.len() == piece_count
    }
}

fn hash<const N: usize>(bytes: Option<&ByteBuf>) -> Result<Option<[u8; N]>, ResumeError> {
    bytes
        .map(|b| b.as_slice().try_into().map_err(|_| ResumeError::Impossible("a hash has the wrong length")))
        .transpose()
}

fn file_entry(stamp: &Option<FileStamp>) -> [u8; FILE_ENTRY] {
    let mut entry = [0; FILE_ENTRY];
    if let Some(stamp) = stamp {
        entry[0] = 1;
        entry[1..9].copy_from_slice(&stamp.size.to_be_bytes());
        entry[9..17].copy_from_slice(&stamp.mtime_ns.to_be_bytes());
        entry[17..].copy_from_slice(&stamp.inode.to_be_bytes());
    }
    entry
}

fn file_stamp(entry: &[u8; FILE_ENTRY]) -> Option<FileStamp> {
    let [there, numbers @ ..] = entry;
    let [size, mtime, inode] = *numbers.as_chunks::<8>().0 else { return None };
    (*there != 0).then(|| FileStamp {
        size: u64::from_be_bytes(size),
        mtime_ns: i64::from_be_bytes(mtime),
        inode: u64::from_be_bytes(inode),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::Geometry;
    use proptest::prelude::*;

    fn some_data() -> ResumeData {
        let hash = InfoHash::hybrid(InfoHashV1([7; 20]), InfoHashV2([9; 32]));
        let mut data = ResumeData::new(hash, 1_000, 1_700_000_000);
        let geometry = Geometry::new(1_000, 1).unwrap();
        for n in [0, 3, 999] {
            data.have.set(geometry.piece(n).unwrap());
        }
        let stamp = FileStamp { size: u64::MAX, mtime_ns: i64::MIN, inode: 5 };
        data.files = vec![Some(stamp), None, Some(FileStamp { size: 0, mtime_ns: 1, inode: 0 })];
        data.clean = true;
        data.uploaded = MAX_NUMBER;
        data.wanted = Some(vec![true, false, true]);
        data.peers = ["1.2.3.4:5", "[2001:db8::1]:65535"].map(|a| a.parse().unwrap()).to_vec();
        data.info = Some(b"d4:name1:xe".to_vec());
        data
    }

    #[test]
    fn there_and_back() {
        let full = some_data();
        let empty = ResumeData::new(InfoHash::v2(InfoHashV2([1; 32])), 1, 0);
        let v1 = ResumeData::new(InfoHash::v1(InfoHashV1([1; 20])), 9, 0);
        for data in [&full, &empty, &v1] {
            let bytes = data.to_bytes().unwrap();
            assert_eq!(ResumeData::from_bytes(&bytes).as_ref(), Ok(data));
            assert_eq!(bytes, data.to_bytes().unwrap());
        }
        let beyond = ResumeData { uploaded: u64::MAX, ..full.clone() };
        assert_eq!(ResumeData::from_bytes(&beyond.to_bytes().unwrap()).as_ref(), Ok(&full));
        let many = vec!["1.2.3.4:5".parse().unwrap(); 5_000];
        let kept = ResumeData { peers: many, ..full.clone() }.to_bytes().unwrap();
        assert_eq!(ResumeData::from_bytes(&kept).unwrap().peers.len(), MAX_RESUME_PEERS);

        assert!(full.fits(&full.info_hash, 1_000));
        assert!(full.fits(&InfoHash::v1(InfoHashV1([7; 20])), 1_000), "the same torrent, known by one of its hashes");
        assert!(!full.fits(&full.info_hash, 999));
        assert!(!full.fits(&empty.info_hash, 1_000) && !v1.fits(&empty.info_hash, 9));
    }

    #[test]
    fn k3_every_flip_and_every_cut_is_seen() {
        let bytes = some_data().to_bytes().unwrap();
        for n in 0..bytes.len() {
            assert!(ResumeData::from_bytes(&bytes[..n]).is_err(), "cut at {n}");
            let mut flipped = bytes.clone();
            flipped[n] ^= 1 << (n % 8);
            assert!(ResumeData::from_bytes(&flipped).is_err(), "flipped at {n}");
        }
        assert!(ResumeData::from_bytes(&[bytes.as_slice(), b"x"].concat()).is_err());
        assert_eq!(ResumeData::from_bytes(&bytes.repeat(2)), Err(ResumeError::Damaged));
        assert_eq!(ResumeData::from_bytes(b"gannet resume 2\n"), Err(ResumeError::Version));
        assert_eq!(ResumeData::from_bytes(&vec![0; MAX_RESUME_LEN + 1]), Err(ResumeError::TooLong(MAX_RESUME_LEN + 1)));
    }

    proptest! {
        /// Whatever stands behind a right checksum is an error or data, never a panic.
        #[test]
        fn any_body(body in prop_oneof![
            prop::collection::vec(any::<u8>(), 0..200),
            // The real thing with one number or length changed.
            (any::<prop::sample::Index>(), any::<u8>()).prop_map(|(at, byte)| {
                let mut body = some_data().to_bytes().unwrap()[48..].to_vec();
                let at = at.index(body.len());
                body[at] = byte;
                body
            }),
        ]) {
            let bytes = [MAGIC.as_slice(), &sha256(&[MAGIC, &body]), &body].concat();
            if let Ok(data) = ResumeData::from_bytes(&bytes) {
                prop_assert!(ResumeData::from_bytes(&data.to_bytes().unwrap()).is_ok());
            }
        }

        #[test]
        fn any_bytes(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            prop_assert!(ResumeData::from_bytes(&bytes).is_err());
        }
    }
}
