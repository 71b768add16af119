//! L3: the files of one torrent.
//!
//! For: opening, preallocating, reading, writing verified pieces, checking what lies on disk.
//! Must not know: peers, who asked, what a piece is worth.
//! BEPs: 47 (pad files, attributes).

/// How verified pieces reach the disk.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Backend {
    /// Memory maps where they are the right tool for the file system, else `pwrite`.
    #[default]
    Auto,
    /// Memory maps.
    Mmap,
    /// `pwrite`.
    Pwrite,
}

/// Whether space is taken before the first byte is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Preallocate {
    /// All of it, so that a full disk is an error before the download and not in it.
    #[default]
    Full,
    /// None of it: files grow as pieces come.
    Sparse,
}
