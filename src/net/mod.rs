//! L3: sockets.
//!
//! For: connecting, listening, the handshake of peers, plain and encrypted; one UDP port for all that is not TCP; talking
//! to trackers over HTTP and UDP, and to web seeds; the node of the DHT; neighbours in the local network; the device and the proxy that all
//! of this goes by.
//! Must not know: what is decided with what arrives.
//! Main types: [`Stream`](stream::Stream), [`Dialer`](dial::Dialer), [`Answerer`](handshake::Answerer),
//! [`Egress`](egress::Egress).
//! BEPs: 3 (handshake), 5, 7, 14, 15, 17, 19, 23.

pub mod dht;
pub mod dial;
mod dns;
pub mod egress;
pub mod encryption;
pub mod handshake;
pub mod http;
pub mod listen;
pub mod lsd;
pub mod mini_tracker;
mod moderation;
mod mse;
pub mod nat;
pub mod pace;
pub mod proxy;
mod range_answer;
pub mod stream;
pub mod tracker;
pub mod udp;
pub mod utp;
pub mod web_seed;
