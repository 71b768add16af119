//! The limits of what a torrent may say. Each is checked before memory is taken for what it limits.

/// Bytes of a `.torrent` file or an info dictionary: a legal one of 15 MB exists, so twice that.
pub const MAX_TORRENT_LEN: usize = 32 << 20;

/// Bytes of a torrent that is kept after it came from peers: an info dictionary, the hashes of 2^21 pieces, and the rest.
pub const MAX_KEPT_LEN: usize = 100 << 20;

/// Files of one torrent: more would not fit into a `.torrent` file with names.
pub const MAX_FILES: usize = 1_000_000;

/// Bytes of a file and of all files together: 2^48 - 1, as libtorrent; sums of such numbers stay far from 2^64.
pub const MAX_FILE_LEN: u64 = (1 << 48) - 1;

/// Bytes of one name on disk: file systems allow 255, which leaves room for a suffix.
pub const MAX_COMPONENT_LEN: usize = 240;

/// Components of a path, the torrent's own folder left out.
pub const MAX_PATH_DEPTH: usize = 64;

/// Bytes of a path with the torrent's own folder: `PATH_MAX` is 4096.
pub const MAX_PATH_LEN: usize = 4_000;

/// Bytes of all paths of a v2 file tree together. A tree spells a folder's name once, however many files lie in it, so
/// a few megabytes could stand for gigabytes of paths; a million honest files need about 100 MB.
pub const MAX_PATHS_LEN: usize = 192 << 20;

/// Files that may be renamed because another has the same name; honest torrents have none or a few.
pub const MAX_DUPLICATES: usize = 500;

/// Trackers, web seeds, HTTP seeds and nodes that are kept, each.
pub const MAX_URLS: usize = 500;

/// Bytes of one URL; longer ones are ignored.
pub const MAX_URL_LEN: usize = 4_096;

/// Bytes of a magnet link.
pub const MAX_MAGNET_LEN: usize = 64 << 10;

/// Trackers, web seeds and peers of a magnet link that are kept, each; the rest is ignored.
pub const MAX_MAGNET_URLS: usize = 100;

/// Ranges of file numbers in a magnet link's `so` that are kept.
pub const MAX_MAGNET_RANGES: usize = 10_000;
