//! Being asked to stop in the middle of a measurement, in code that does not wait for anything.

use std::thread;

use tokio::sync::watch;

use super::super::exit::{Code, Failure, io_words};
use super::super::signals::{Signals, exit_now};

/// Whether the user has asked to stop. Measurements look at it every now and then.
#[derive(Clone)]
pub(super) struct Stop(watch::Receiver<Option<Code>>);

impl Stop {
    /// Takes over the signals that ask to stop. A second one ends the program on the spot.
    pub(super) fn listen() -> Result<Self, Failure> {
        let (sender, receiver) = watch::channel(None);
        let refused = |e: &std::io::Error| Failure::new(Code::Bug, format!("signals: {}", io_words(e)));
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(|e| refused(&e))?;
        let mut signals = runtime.block_on(async { Signals::take() })?;
        let watch = move || {
            runtime.block_on(async {
                let code = signals.next().await;
                let _ = sender.send(Some(code));
                exit_now(signals.next().await);
            });
        };
        // It ends with the program.
        thread::Builder::new().name("gannet-bench-signals".into()).spawn(watch).map_err(|e| refused(&e))?;
        Ok(Self(receiver))
    }

    /// An error if it is time to stop.
    pub(super) fn check(&self) -> Result<(), Failure> {
        self.0.borrow().map_or(Ok(()), |code| Err(Failure::silent(code)))
    }

    /// Runs `work`, but gives up as soon as it is time to stop.
    pub(super) async fn unless<T>(&self, work: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
        let mut asked = self.0.clone();
        tokio::select! {
            done = work => done,
            Ok(code) = asked.wait_for(Option::is_some) => Err(code.map_or(Failure::silent(Code::Bug), Failure::silent)),
        }
    }

    /// For tests: nobody ever asks.
    #[cfg(test)]
    pub(super) fn never() -> Self {
        Self(watch::channel(None).1)
    }
}
