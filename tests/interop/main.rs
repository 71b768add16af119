//! Other clients, from packages, as peers of the real `gannet` binary: each seeds to it and downloads from it, and
//! every byte is compared.
//!
//! A client that is not installed skips its tests, saying so on standard error. With `GANNET_INTEROP=required` that
//! is a failure instead. What is needed and how to get it: `docs/interop.md`.
//!
//! - `process`, `lab`: child processes that end with the test, and the folders, ports and environment they see;
//! - `namespaces`: networks of a test's own, where it is root;
//! - `payload`: data that is seeded and compared; `probe`: a bare handshake, to know that a peer is up;
//! - `clients`: one module per client, and `gannet` itself;
//! - `self_check`: the other clients among themselves, so that a failure elsewhere means gannet and not the harness;
//! - `download`, `upload`, `encryption`, `exchange`, `neighbours`, `trackers`, `dht`, `magnets`, `web_seeds`, `metadata`: gannet's tests.

#![expect(unreachable_pub, reason = "nothing outside a test is there to reach it")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

mod clients;
mod holepunch;
mod lab;
mod namespaces;
mod payload;
mod probe;
mod process;

mod cut_off;
mod dht;
mod download;
mod encryption;
mod exchange;
mod inwards;
mod magnets;
mod metadata;
mod nat;
mod neighbours;
mod one_way;
mod self_check;
mod tls;
mod trackers;
mod upload;
mod utp;
mod web_seeds;
