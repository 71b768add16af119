//! L3: sockets.
//!
//! For: connecting, listening, talking to trackers over HTTP and UDP.
//! Must not know: what is decided with what arrives.
//! BEPs: 7, 15, 23.

pub mod http;
pub mod mini_tracker;
pub mod tracker;
