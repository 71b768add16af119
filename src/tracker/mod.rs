//! L2: trackers without sockets: when to announce, what to send, what the answer says.
//!
//! For: tiers, intervals, back-off, the HTTP and UDP forms of announce and scrape.
//! Must not know: sockets, DNS, the clock, randomness; `now` and `seed` are passed in.
//! BEPs: 3, 7, 12, 15, 23, 24, 31, 41, 48.
