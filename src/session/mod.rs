//! L5: many torrents in one process.
//!
//! For: adding and stopping torrents, what they share (ports, limits, disk threads), what they report.
//! Must not know: how any of it is shown.

mod config;
mod event;

use std::net::SocketAddr;
use std::time::Duration;

pub use config::{AddTorrent, Config, Place, SeedGoal};
pub use event::{Event, State, Status, TrackerReport};

use crate::error::Error;

/// Many torrents in one process. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Session {}

/// One torrent of a session. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Torrent {}

impl Session {
    /// Binds the ports and starts the disk threads.
    pub async fn start(config: Config) -> Result<Self, Error> {
        let _ = config;
        Err(Error::Stopped)
    }

    /// Adds a torrent: checks its place, starts its task.
    pub async fn add(&self, torrent: AddTorrent) -> Result<Torrent, Error> {
        let _ = torrent;
        Err(Error::Stopped)
    }

    /// Where it listens.
    pub fn listen_addresses(&self) -> Vec<SocketAddr> {
        vec![]
    }

    /// Stops all torrents: state is saved, trackers are told, within `deadline`.
    pub async fn stop(&self, deadline: Duration) {
        let _ = deadline;
    }
}

impl Torrent {
    /// How it stands now.
    pub fn status(&self) -> Option<Status> {
        None
    }

    /// What happens from now on. Slow readers lose the oldest events, never slow the torrent.
    pub fn events(&self) -> tokio::sync::broadcast::Receiver<Event> {
        tokio::sync::broadcast::channel(1).1
    }

    /// Waits until all that is wanted is verified and synced, and the seeding goal (if any) is reached.
    pub async fn finished(&self) -> Result<(), Error> {
        Err(Error::Stopped)
    }
}
