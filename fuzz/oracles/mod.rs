//! What has to hold whatever bytes come in: one module for each fuzz target, without any fuzzing engine.
//!
//! Run on every seed by `cargo test --test fuzz_seeds`, and on whatever the engine thinks of by the fuzz targets. To fail is
//! to panic.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "to fail is to panic")]
#![allow(missing_docs, unreachable_pub, reason = "the modules say it")]

pub mod bencode;
pub mod dht;
pub mod dht_state;
pub mod dns;
pub mod extended;
pub mod holepunch;
pub mod ip_filter;
pub mod magnet;
pub mod memory;
pub mod metainfo;
pub mod mse;
pub mod picker;
pub mod reach;
pub mod resume;
pub mod schedule;
pub mod swarm;
mod tape;
pub mod tracker_http;
pub mod tracker_udp;
pub mod utp;
pub mod utp_stream;
pub mod web_seed;
pub mod wire;

/// What a target does with its bytes.
type Run = fn(&[u8]);

/// All targets by name.
pub const TARGETS: &[(&str, Run)] = &[
    ("bencode", bencode::run),
    ("dht", dht::run),
    ("dht_state", dht_state::run),
    ("dns", dns::run),
    ("extended", extended::run),
    ("holepunch", holepunch::run),
    ("ip_filter", ip_filter::run),
    ("magnet", magnet::run),
    ("memory", memory::run),
    ("metainfo", metainfo::run),
    ("mse", mse::run),
    ("picker", picker::run),
    ("reach", reach::run),
    ("resume", resume::run),
    ("schedule", schedule::run),
    ("swarm", swarm::run),
    ("tracker_http", tracker_http::run),
    ("tracker_udp", tracker_udp::run),
    ("utp", utp::run),
    ("utp_stream", utp_stream::run),
    ("web_seed", web_seed::run),
    ("wire", wire::run),
];
