use std::time::Duration;

use super::Family;

/// When a tracker that refused may be asked again (BEP 31).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Retry {
    /// Not before this has passed.
    After(Duration),
    /// Never in this run.
    Never,
}

/// Why an announce or scrape brought nothing: one line, without the path or query of the tracker's URL, which may
/// hold a passkey.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TrackerError {
    /// The URL is none that we can ask.
    #[error("{0}")]
    Url(String),
    /// The URL or where it leads is refused for safety, whatever the tracker would say.
    #[error("refused for safety: {0}")]
    Unsafe(String),
    /// The name could not be looked up.
    #[error("name lookup failed: {0}")]
    Lookup(String),
    /// The host has no address of this family, or we have no route to it. No failure of the tracker's.
    #[error("not reachable over {0}")]
    NoAddress(Family),
    /// No connection, or it broke.
    #[error("{0}")]
    Unreachable(String),
    /// Too slow.
    #[error("no answer within {} s", .0.as_secs_f64().ceil())]
    TimedOut(Duration),
    /// An HTTP status that is no success, and no reason in the body.
    #[error("HTTP status {0}")]
    Status(u16),
    /// Redirected too often, nowhere, or from https to http.
    #[error("{0}")]
    Redirect(String),
    /// The answer is longer than we read.
    #[error("answer larger than {0} bytes")]
    TooLarge(usize),
    /// The answer is not what a tracker says.
    #[error("not a tracker's answer: {0}")]
    Body(String),
    /// The tracker refused and said why.
    #[error("tracker says: {reason}")]
    Failure {
        /// Its words, printable and short.
        reason: String,
        /// When it may be asked again, if it said so.
        retry: Option<Retry>,
    },
}
