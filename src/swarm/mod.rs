//! L2: every decision about one torrent.
//!
//! For: who to connect to, what to ask for, whom to serve, whom to blame.
//! Must not know: sockets, files, threads, trackers, the clock, randomness; `now` and `seed` are passed in.
//! BEPs: 3, 6, 10, 16, 21, 40, 54.

pub mod address_filter;
pub mod allowed_fast;
pub mod bans;
pub mod blame;
pub mod candidates;
pub mod choker;
pub mod peer_priority;
pub mod requests;
pub mod super_seed;
pub mod upload_slots;
