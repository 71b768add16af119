//! L2: a node of the DHT, without sockets.
//!
//! For: finding and announcing peers without trackers, keeping small items, answering others; within limits whatever
//! strangers send.
//! Must not know: sockets, names of hosts, torrents; the driver is `net/dht.rs`.
//! Main types: [`Node`], [`Command`], [`Event`], [`Item`].
//! BEPs: 5, 32 (IPv6), 33 (scrape), 42 (ids bound to addresses), 43 (read-only), 44 (items), 45 (several addresses),
//! 51 (samples).
//!
//! ```text
//! krpc           bytes ◄─► messages            guard         what strangers may cost
//! table          nodes that answer             peers items   what is kept for others; token: who may write
//! transactions   queries under way             external      our address, as others see it
//! lookup         one search                    state         what is kept between runs
//! node           all of them together: answer (queries), receive (answers), operations (commands), maintain (time)
//! ```
//!
//! A [`Node`] has one or more sockets, by number (BEP 45): each has an id, a table and an address of its own, as if it were
//! a node alone; what is stored is shared, and an operation uses them all.

mod address;
mod answer;
mod bloom;
mod command;
mod external;
mod guard;
mod id;
mod items;
mod krpc;
mod lookup;
mod maintain;
mod node;
mod operations;
mod peers;
mod random;
mod receive;
mod state;
mod table;
mod token;
mod transactions;

#[cfg(test)]
mod tests;

pub use bloom::Bloom;
pub use command::{Command, Event, OperationId, Scrape, Summary};
pub use id::NodeId;
pub use items::{Item, ItemError, MAX_ITEMS, MAX_SALT, MAX_VALUE, Signed, mutable_target, public_key};
pub use krpc::Contact;
pub use node::{MAX_DATAGRAM, Node, NodeConfig, SocketStats, Stats, Transmit};

pub use peers::{MAX_PEERS, MAX_TORRENTS};
pub use state::{MAX_STATE_LEN, MAX_STATE_NODES, SavedState, StateError};
pub use table::K;
