//! Being asked to stop.

use super::exit::{Code, Failure};
use crate::sys::{StopSignal, StopSignals};

/// The signals that ask a program to stop. While one of these exists, they no longer end the process by themselves.
#[derive(Debug)]
pub(super) struct Signals(StopSignals);

impl Signals {
    /// Takes them over. Needs a running runtime.
    pub(super) fn take() -> Result<Self, Failure> {
        StopSignals::take().map(Self).map_err(|e| Failure::new(Code::Bug, format!("signals: {e}")))
    }

    /// Waits for the next of them; the exit code it asks for.
    pub(super) async fn next(&mut self) -> Code {
        match self.0.next().await {
            StopSignal::Interrupt => Code::Interrupted,
            StopSignal::Terminate => Code::Terminated,
        }
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
