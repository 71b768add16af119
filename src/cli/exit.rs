//! How the program ends: exit codes, and the one line that says why.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use crate::base::printable;
use crate::error::Error;
use crate::session::{self, Fault};

/// Why the program ends other than with success. The numbers are a promise to scripts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Code {
    /// An unexpected failure: a bug.
    Bug = 1,
    /// Wrong use of the command line, an environment variable or the configuration file.
    Usage = 2,
    /// Not a valid torrent, magnet link or state file.
    Invalid = 3,
    /// The disk: full, read-only, no permission, an I/O error.
    Disk = 4,
    /// The network: nothing could be reached, or a time limit passed.
    Network = 5,
    /// `verify` found data missing or wrong.
    Mismatch = 6,
    /// Stopped by SIGINT.
    Interrupted = 130,
    /// Standard output was closed by its reader; what a program killed by SIGPIPE ends with.
    BrokenPipe = 141,
    /// Stopped by SIGTERM.
    Terminated = 143,
}

impl From<Code> for ExitCode {
    fn from(code: Code) -> Self {
        Self::from(code as u8)
    }
}

/// A failure: its exit code, and one line `WHAT: WHY` with what to do about it where that is known.
#[derive(Clone, Debug)]
pub(super) struct Failure {
    pub(super) code: Code,
    /// Without the leading `gannet: `; empty when there is nothing to say (the user asked to stop).
    pub(super) message: String,
    /// The file or folder concerned.
    pub(super) path: Option<PathBuf>,
}

impl Failure {
    pub(super) fn new(code: Code, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), path: None }
    }

    pub(super) fn usage(message: impl Into<String>) -> Self {
        Self::new(Code::Usage, message)
    }

    pub(super) fn invalid(message: impl Into<String>) -> Self {
        Self::new(Code::Invalid, message)
    }

    pub(super) fn network(message: impl Into<String>) -> Self {
        Self::new(Code::Network, message)
    }

    /// The file system refused something about `path`.
    pub(super) fn disk(path: &Path, error: &io::Error) -> Self {
        let message = format!("{}: {}", shown(path), io_words(error));
        Self { code: Code::Disk, message, path: Some(path.to_owned()) }
    }

    /// Ends quietly.
    pub(super) fn silent(code: Code) -> Self {
        Self::new(code, "")
    }

    /// Standard output could not be written.
    pub(super) fn stdout(error: &io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::BrokenPipe => Self::silent(Code::BrokenPipe),
            _ => Self::new(Code::Disk, format!("standard output: {}", io_words(error))),
        }
    }
}

impl fmt::Display for Failure {
    /// Always one line that only prints, whatever a message from below held.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", printable(&one_line(&without_os_numbers(&self.message))))
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        let message = error.to_string();
        match error {
            Error::Invalid(_) => Self::invalid(message),
            Error::Disk { path, .. } => Self { code: Code::Disk, message, path },
            Error::Network(_) => Self::network(message),
            Error::Stopped => Self::silent(Code::Interrupted),
        }
    }
}

impl From<session::Failure> for Failure {
    fn from(session::Failure { fault, message, path }: session::Failure) -> Self {
        let code = match fault {
            Fault::Disk => Code::Disk,
            Fault::Torrent => Code::Invalid,
            Fault::Usage => Code::Usage,
            _ => Code::Bug,
        };
        Self { code, message, path }
    }
}

/// What the system said, without Rust's `(os error 28)`.
pub(super) fn io_words(error: &io::Error) -> String {
    let text = without_os_numbers(&error.to_string());
    let mut letters = text.chars();
    // The system begins with a capital; a message goes on after a colon.
    letters.next().map_or(String::new(), |first| first.to_lowercase().chain(letters).collect())
}

/// Text without Rust's ` (os error 28)`, which says again what stands before it.
pub(super) fn without_os_numbers(text: &str) -> String {
    const MARK: &str = " (os error ";
    let mut parts = text.split(MARK);
    let mut clean = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let rest = part.trim_start_matches(|c: char| c.is_ascii_digit() || c == '-');
        match rest.strip_prefix(')') {
            Some(rest) => clean.push_str(rest),
            None => {
                clean.push_str(MARK);
                clean.push_str(part);
            }
        }
    }
    clean
}

/// A path for people: nothing that would move the cursor or hide a part.
pub(super) fn shown(path: &Path) -> String {
    printable(&path.to_string_lossy())
}

/// Text with line breaks as single spaces.
pub(super) fn one_line(text: &str) -> String {
    text.split(['\n', '\r']).map(str::trim).filter(|line| !line.is_empty()).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_calm_line() {
        let failure = Failure::network("cannot\n listen:\x1b[2J Address in use (os error 98); (os error x) go");
        assert_eq!(failure.to_string(), "cannot listen:[2J Address in use; (os error x) go");
        let error = io::Error::from_raw_os_error(libc::ENOSPC);
        let failure = Failure::disk(Path::new("a\x07b"), &error);
        assert_eq!((failure.to_string().as_str(), failure.code), ("ab: no space left on device", Code::Disk));
        assert_eq!(Failure::stdout(&io::ErrorKind::BrokenPipe.into()).code, Code::BrokenPipe);
    }

    #[test]
    fn numbers_of_the_system_are_left_out() {
        for (text, want) in [
            ("a: refused (os error 111); b", "a: refused; b"),
            ("x (os error 1) (os error 22)", "x"),
            ("named (os error x)", "named (os error x)"),
        ] {
            assert_eq!(without_os_numbers(text), want);
        }
        assert_eq!(io_words(&io::Error::from_raw_os_error(2)), "no such file or directory");
    }
}
