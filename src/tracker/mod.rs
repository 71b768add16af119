//! L2: trackers without sockets: when to announce, what to send, what the answer says.
//!
//! For: tiers, intervals, back-off, the HTTP and UDP forms of announce and scrape.
//! Must not know: sockets, DNS, the clock, randomness; `now` and `seed` are passed in.
//! Main types: [`Schedule`] (when, to whom, which event), [`Announce`] and [`AnnounceResponse`] (what is said),
//! [`TrackerUrl`] (where), [`udp::Exchange`] (one UDP transaction).
//! BEPs: 3, 7, 12, 15, 23, 24, 27, 31, 41, 48.

mod announce;
mod error;
pub mod http;
mod schedule;
mod text;
mod tracker_url;
pub mod udp;

pub use announce::{Announce, AnnounceEvent, AnnounceResponse, Family, NUMWANT, ScrapeEntry, ScrapeResponse};
pub use error::{Retry, TrackerError};
pub use schedule::{Job, JobId, Schedule, ScheduleConfig, Totals, TrackerState, TrackerStatus};
pub(crate) use text::host_of;
pub use text::printable;
pub use tracker_url::{Scheme, TrackerUrl};
