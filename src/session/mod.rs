//! L5: many torrents in one process.
//!
//! For: adding and stopping torrents, what they share (ports, limits, disk threads), what they report.
//! Must not know: how any of it is shown.

mod config;
mod event;

pub use config::{AddTorrent, Config, Place, SeedGoal};
pub use event::{Event, State, Status, TrackerReport};

use std::sync::Arc;
use std::time::Duration;

use crate::metainfo::Metainfo;

/// Many torrents in one process. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Session {}

/// One torrent of a session. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Torrent {}
