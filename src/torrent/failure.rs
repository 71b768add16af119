use std::path::PathBuf;

/// Why a torrent cannot go on.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{message}")]
pub struct Failure {
    /// Whether the disk is to blame; else the torrent itself is.
    pub disk: bool,
    /// One line: what, why, and what to do.
    pub message: String,
    /// The file concerned.
    pub path: Option<PathBuf>,
}
