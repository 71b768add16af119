//! Being asked to stop.

use std::io;

use super::exit::{Code, Failure};

/// The signals that ask a program to stop. While one of these exists, they no longer end the process by themselves.
#[derive(Debug)]
pub(super) struct Signals {
    #[cfg(unix)]
    interrupt: tokio::signal::unix::Signal,
    #[cfg(unix)]
    terminate: tokio::signal::unix::Signal,
}

impl Signals {
    /// Takes over SIGINT and SIGTERM. Needs a running runtime.
    #[cfg(unix)]
    pub(super) fn take() -> Result<Self, Failure> {
        use tokio::signal::unix::{SignalKind, signal};
        let refused = |e: io::Error| Failure::new(Code::Bug, format!("signals: {e}"));
        Ok(Self {
            interrupt: signal(SignalKind::interrupt()).map_err(refused)?,
            terminate: signal(SignalKind::terminate()).map_err(refused)?,
        })
    }

    /// Waits for the next of them; the exit code it asks for.
    #[cfg(unix)]
    pub(super) async fn next(&mut self) -> Code {
        tokio::select! {
            _ = self.interrupt.recv() => Code::Interrupted,
            _ = self.terminate.recv() => Code::Terminated,
        }
    }

    /// Takes over Ctrl-C.
    #[cfg(not(unix))]
    pub(super) fn take() -> Result<Self, Failure> {
        let _: Option<io::Error> = None;
        Ok(Self {})
    }

    /// Waits for Ctrl-C; the exit code it asks for.
    #[cfg(not(unix))]
    pub(super) async fn next(&mut self) -> Code {
        if tokio::signal::ctrl_c().await.is_err() {
            std::future::pending::<()>().await;
        }
        Code::Interrupted
    }

    /// Runs `work`, but gives up as soon as one of the signals comes.
    pub(super) async fn unless<T>(&mut self, work: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
        tokio::select! {
            done = work => done,
            code = self.next() => Err(Failure::silent(code)),
        }
    }
}

/// Ends the process now.
pub(super) fn exit_now(code: Code) -> ! {
    std::process::exit(code as i32)
}
