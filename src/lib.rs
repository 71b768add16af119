//! gannet: a BitTorrent client for the terminal.

pub mod base;
pub mod cli;
pub mod disk;
pub mod error;
pub mod hash;
pub mod metainfo;
pub mod net;
pub mod resume;
pub mod session;
pub mod storage;
pub mod swarm;
pub mod sys;
pub mod torrent;
pub mod tracker;
pub mod wire;
