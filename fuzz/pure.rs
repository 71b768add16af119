//! gannet without its runtime, sockets and files: the layers L0 to L2, and what above them reads what strangers made.
//!
//! It has the same name and the same paths as the whole, so that `oracles` is used by `tests/fuzz_seeds.rs` as it is.
//! A tenth of the crates, and a sixth of the time to build: that is all it is for.

#![allow(dead_code, unreachable_pub, reason = "of the whole only a part is here")]

extern crate self as gannet;

#[path = "../src/base/mod.rs"]
pub mod base;
#[path = "../src/dht/mod.rs"]
pub mod dht;
#[path = "../src/error.rs"]
pub mod error;
#[path = "../src/hash/mod.rs"]
pub mod hash;
#[path = "../src/metainfo/mod.rs"]
pub mod metainfo;
#[path = "../src/resume/mod.rs"]
pub mod resume;
#[path = "../src/swarm/mod.rs"]
pub mod swarm;
#[path = "../src/tracker/mod.rs"]
pub mod tracker;
#[path = "../src/utp/mod.rs"]
pub mod utp;
#[path = "../src/wire/mod.rs"]
pub mod wire;

/// Of the torrent, only how it fails.
#[path = "."]
pub mod torrent {
    #[path = "../src/torrent/failure.rs"]
    mod failure;

    pub use failure::{Failure, Fault};
}

/// Of the session, only how it reads block lists.
#[path = "."]
pub mod session {
    #[path = "../src/session/ip_filter.rs"]
    mod ip_filter;

    pub use ip_filter::{IpFilterLists, read_ip_filter};
}

#[path = "oracles/mod.rs"]
pub mod oracles;

pub use metainfo::Metainfo;
