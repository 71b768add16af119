use super::limits::{
    MAX_DUPLICATES, MAX_FILE_LEN, MAX_FILES, MAX_MAGNET_LEN, MAX_PATH_DEPTH, MAX_PATH_LEN, MAX_TORRENT_LEN,
};
use crate::base::bencode::BencodeError;
use crate::base::{GeometryError, MAX_PIECE_LENGTH};

/// Why a torrent or a magnet link cannot be used, in words for the one who was given it.
///
/// Names inside are already free of control characters.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum MetainfoError {
    /// More bytes than a torrent file or an info dictionary may have.
    #[error("{0} bytes are too many for a torrent (at most {MAX_TORRENT_LEN})")]
    TooLarge(usize),
    /// Not one bencoded dictionary.
    #[error("not a torrent: {0}")]
    Bencode(#[from] BencodeError),
    /// An entry that must be there is not.
    #[error("`{0}` is missing from the torrent")]
    Missing(&'static str),
    /// An entry is there but of another type.
    #[error("`{0}` of the torrent is not of the right type")]
    Malformed(&'static str),
    /// `meta version` is one that this program does not know (BEP 52).
    #[error("the torrent is of version {0}, which is not supported")]
    UnsupportedVersion(i64),
    /// A v2 info dictionary that is not the canonical encoding of what it says (BEP 52).
    #[error("the info dictionary is not canonical bencode (unsorted keys or leading zeros)")]
    NotCanonical,
    /// `piece length` outside 1 ..= [`MAX_PIECE_LENGTH`].
    #[error("piece length {0} is not between 1 and {MAX_PIECE_LENGTH}")]
    PieceLength(i64),
    /// A v2 `piece length` that is no power of two of at least 16 KiB (BEP 52).
    #[error("piece length {0} is not a power of two of at least 16384, as version 2 demands")]
    PieceLengthV2(u32),
    /// `pieces` is not as long as the files demand: 20 bytes for each piece.
    #[error("`pieces` has {actual} bytes where the files need {expected}")]
    PiecesLength {
        /// Bytes that are there.
        actual: usize,
        /// Bytes that the number of pieces asks for.
        expected: u64,
    },
    /// The pieces are too many, or impossible in another way.
    #[error("{0}")]
    Geometry(#[from] GeometryError),
    /// No file, or none that has a byte.
    #[error("the torrent has no data: all its files are empty")]
    NoData,
    /// More than [`MAX_FILES`] files.
    #[error("more than {MAX_FILES} files")]
    TooManyFiles,
    /// A file without a length, with a negative one, or one above [`MAX_FILE_LEN`]; or their sum is above it.
    #[error("a file, or all together, has an impossible length (at most {MAX_FILE_LEN} bytes)")]
    FileLength,
    /// A file without a name.
    #[error("file number {0} has no name")]
    NoName(usize),
    /// A path with more than [`MAX_PATH_DEPTH`] components.
    #[error("a path is deeper than {MAX_PATH_DEPTH} folders")]
    PathTooDeep,
    /// A path longer than [`MAX_PATH_LEN`], or all of them together beyond reason.
    #[error("a path is longer than {MAX_PATH_LEN} bytes, or all together too long")]
    PathTooLong,
    /// The same path names a file and a folder.
    #[error("\"{0}\" is both a file and a folder")]
    FileIsFolder(String),
    /// More than [`MAX_DUPLICATES`] files share their name with another.
    #[error("more than {MAX_DUPLICATES} files have the same name as another")]
    TooManyDuplicates,
    /// In a `file tree`: an entry that is both, or neither, a file and a folder (BEP 52).
    #[error("`file tree` is not well formed")]
    FileTree,
    /// `pieces root` is missing, not 32 bytes, or all zeros, for a file that has data (BEP 52).
    #[error("\"{0}\" has no valid `pieces root`")]
    PiecesRoot(String),
    /// `piece layers` lacks the hashes of a file (BEP 52).
    #[error("the piece hashes of \"{0}\" are missing from `piece layers`")]
    LayerMissing(String),
    /// The hashes in `piece layers` are too few, too many, or do not lead to the file's `pieces root` (BEP 52).
    #[error("the piece hashes of \"{0}\" in `piece layers` do not fit its `pieces root`")]
    LayerMismatch(String),
    /// The v1 and v2 halves of a hybrid torrent describe different files (BEP 52, "upgrade path").
    #[error("the version 1 and version 2 parts of the torrent disagree: {0}")]
    HybridMismatch(String),
    /// Neither a magnet link nor an info-hash.
    #[error("neither a magnet link nor an info-hash (40 or 64 hex digits, or 32 of base32)")]
    NotAMagnet,
    /// A magnet link longer than [`MAX_MAGNET_LEN`].
    #[error("the magnet link is longer than {MAX_MAGNET_LEN} bytes")]
    MagnetTooLong,
    /// No `xt` that names a torrent (BEP 9).
    #[error("the magnet link names no torrent (no xt=urn:btih: or xt=urn:btmh:)")]
    NoInfoHash,
    /// An `xt` for torrents whose hash cannot be read.
    #[error("the info-hash in the magnet link is not valid")]
    BadInfoHash,
    /// Two different hashes of the same kind.
    #[error("the magnet link names two different torrents")]
    TwoInfoHashes,
    /// What was given to build a torrent from cannot be one.
    #[error("{0}")]
    Build(String),
}
