//! Networks of nodes on a virtual clock.
//!
//! For: tests of whole nodes: what they do together, what strangers can do to them.
//! Must not know: sockets, the real clock.

mod faults;
mod network;
mod simulation;
mod world;
