//! L2: uTP, a reliable stream over UDP that gives way to other traffic.
//!
//! For: connections of the micro transport protocol, as state machines: datagrams in, datagrams out.
//! Must not know: sockets, tasks, the clock, randomness; `now` and a secret are passed in.
//! Main type: [`Mux`], all connections of one UDP socket. BEPs: 29.
//!
//! ```text
//! handle_datagram ─┐                 ┌─► poll_transmit   batches of equal packets, for one call to the system
//! handle_timeout  ─┼─►  Mux ─ Conn ──┼─► poll_timeout    when to call handle_timeout
//! read, write     ─┘                 ├─► poll_changed    whom to wake
//!                                    └─► poll_accept     who has connected
//! ```
//!
//! After anything went in, what comes out is to be fetched: first `poll_transmit` until there is nothing, then the rest.
//!
//! | file | deals with |
//! |---|---|
//! | `packet` | the form on the wire |
//! | `mux` | which packet is whose; limits of strangers |
//! | `conn`, `transmit` | one connection: what arrives and its timers; what it sends |
//! | `incoming`, `outgoing` | bytes and packets in both directions; what was lost |
//! | `ledbat`, `delay`, `rtt`, `pacer` | how much may be under way, and how fast |
//! | `mtu` | how long datagrams may be |

mod conn;
mod delay;
mod incoming;
mod ledbat;
mod mtu;
mod mux;
mod outgoing;
mod pacer;
mod packet;
mod rtt;
mod transmit;

pub use conn::{Closed, Path};
pub use mux::{
    ConnKey, Figures, MAX_CONNECTIONS, MAX_HELD, MAX_RESETS, MAX_UNACCEPTED, MAX_UNCONFIRMED, MAX_UNCONFIRMED_PER_IP,
    Mux, Transmit,
};
pub use packet::{HEADER_LEN, Header, Kind, Packet};
