use rustix::process::{Resource, Rlimit};

/// How many files this process may have open.
pub fn open_file_limit() -> u64 {
    rustix::process::getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX)
}

/// Raises the limit of open files as far as this user may, and returns it.
pub fn raise_open_file_limit() -> u64 {
    let limit = rustix::process::getrlimit(Resource::Nofile);
    if limit.current != limit.maximum {
        let _ = rustix::process::setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit });
    }
    open_file_limit()
}

/// Columns of the terminal that standard error is; `None` if it is none, or does not say.
pub fn terminal_columns() -> Option<u16> {
    let size = rustix::termios::tcgetwinsize(std::io::stderr()).ok()?;
    (size.ws_col > 0).then_some(size.ws_col)
}

/// Makes a write beyond the limit of file sizes (`ulimit -f`) an error of that write; else it ends the process.
#[allow(unsafe_code, reason = "there is no safe call for it")]
pub fn ignore_file_size_signal() {
    // SAFETY: SIG_IGN runs no code of ours, so nothing can happen in a signal's context.
    unsafe { libc::signal(libc::SIGXFSZ, libc::SIG_IGN) };
}
