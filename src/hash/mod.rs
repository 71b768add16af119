//! L0: SHA-1 and SHA-256 of pieces and leaves.
//!
//! For: hashing messages that lie scattered over blocks, one or many at once.
//! Must not know: any layer above, files, threads.
//! BEPs: 3 (SHA-1 of pieces), 52 (SHA-256 of 16 KiB leaves).
