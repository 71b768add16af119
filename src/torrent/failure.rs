use std::path::PathBuf;

/// Why a torrent cannot go on.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{message}")]
pub struct Failure {
    /// Whose fault it is.
    pub fault: Fault,
    /// One line: what, why, and what to do.
    pub message: String,
    /// The file concerned.
    pub path: Option<PathBuf>,
}

/// Whose fault a [`Failure`] is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Fault {
    /// The disk's.
    Disk,
    /// The torrent's: its metadata is not sound, or not what the link says.
    Torrent,
    /// The user's: what was asked for cannot be.
    Usage,
    /// Ours.
    Internal,
}

impl Failure {
    pub(super) fn new(fault: Fault, message: impl Into<String>) -> Self {
        Self { fault, message: message.into(), path: None }
    }
}
