//! L3: sockets.
//!
//! For: connecting, listening, the handshake of peers; one UDP port for all that is not TCP; talking to trackers over
//! HTTP and UDP.
//! Must not know: what is decided with what arrives.
//! Main types: [`Stream`](stream::Stream), [`Dialer`](dial::Dialer).
//! BEPs: 3 (handshake), 7, 15, 23.

pub mod dial;
pub mod handshake;
pub mod http;
pub mod listen;
pub mod mini_tracker;
pub mod stream;
pub mod tracker;
pub mod udp;
