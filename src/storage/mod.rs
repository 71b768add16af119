//! L3: the files of one torrent.
//!
//! For: opening, preallocating, reading, writing verified pieces, checking what lies on disk.
//! Must not know: peers, who asked, what a piece is worth.
//! BEPs: 47 (pad files, attributes).
