//! L5: the crate's public error.

use std::path::PathBuf;

use crate::torrent::{Failure, Fault};

/// Why something asked of a [`Session`](crate::session::Session) failed, by whose fault it is.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The torrent, link or state file is not valid.
    #[error("{0}")]
    Invalid(String),
    /// The disk: full, read-only, no permission, an I/O error.
    #[error("{message}")]
    Disk {
        /// What, why, and what to do.
        message: String,
        /// The file or folder concerned.
        path: Option<PathBuf>,
    },
    /// The network: an address in use, nothing reachable.
    #[error("{0}")]
    Network(String),
    /// It was stopped before it was done.
    #[error("stopped")]
    Stopped,
}

impl From<Failure> for Error {
    fn from(Failure { fault, message, path }: Failure) -> Self {
        match fault {
            Fault::Disk => Self::Disk { message, path },
            Fault::Torrent | Fault::Usage => Self::Invalid(message),
            Fault::Internal => Self::Network(message),
        }
    }
}
