//! L2: every decision about one torrent.
//!
//! For: who to connect to, what to ask for, whom to serve, whom to blame.
//! Must not know: sockets, files, threads, trackers, the clock, randomness; `now` and `seed` are passed in.
//! BEPs: 3, 6, 10, 16, 21, 40, 54.

pub mod picker;

pub use picker::{Ask, Counted, Picker, PieceState, Priority, Received};
