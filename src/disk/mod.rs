//! L3: the disk threads: jobs in, results out.
//!
//! For: hashing and writing pieces, reading blocks, syncing, away from the network threads.
//! Must not know: peers, picking, torrents' state.
