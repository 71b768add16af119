//! L1: the peer wire protocol, bytes to messages and back.
//!
//! For: framing, limits per message, the extension handshake.
//! Must not know: torrents, sockets, who the peer is; it never decides anything.
//! BEPs: 3, 6, 10, 21, 52, 54.
