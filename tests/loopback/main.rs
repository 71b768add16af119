//! Whole sessions over real sockets on loopback: with each other, with a small tracker, and with a peer that does what
//! the test says, however wrong. Ids such as W11 name rows of the fault plan: what a stranger may do to us.

#![expect(unreachable_pub, reason = "nothing outside a test is there to reach it")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test that cannot go on says where")]

mod crowd;
mod dht;
mod disk;
mod encryption;
mod fake;
mod hostile;
mod ip_filter;
mod lab;
mod magnet;
mod neighbours;
mod port_mapping;
mod proxy;
mod rates;
mod resume;
mod sources;
mod spill;
mod transfer;
mod upload;
mod utp;
mod web;
mod web_seeds;
