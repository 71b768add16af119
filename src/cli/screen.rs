//! Standard error and standard output, shared by progress bars, messages and logs so that no line tears.

use std::fmt;
use std::io::{self, Write};
use std::sync::OnceLock;

use indicatif::MultiProgress;

use super::exit::Failure;

/// The bars of this process. Hidden when standard error is no terminal.
pub(super) fn bars() -> &'static MultiProgress {
    static BARS: OnceLock<MultiProgress> = OnceLock::new();
    BARS.get_or_init(MultiProgress::new)
}

/// One line on standard error, above the bars. That nobody reads it is no reason to stop.
pub(super) fn message(line: impl fmt::Display) {
    let line = format!("{line}\n");
    bars().suspend(|| {
        let _ = io::stderr().write_all(line.as_bytes());
    });
}

/// Text on standard output, above the bars.
pub(super) fn output(text: impl fmt::Display) -> Result<(), Failure> {
    let text = text.to_string();
    bars().suspend(|| write_out(text.as_bytes()))
}

/// Bytes on standard output.
pub(super) fn output_bytes(bytes: &[u8]) -> Result<(), Failure> {
    bars().suspend(|| write_out(bytes))
}

fn write_out(bytes: &[u8]) -> Result<(), Failure> {
    let mut out = io::stdout().lock();
    out.write_all(bytes).and_then(|()| out.flush()).map_err(|e| Failure::stdout(&e))
}

/// Where log lines go: standard error, above the bars.
#[derive(Clone, Copy, Debug)]
pub(super) struct LogWriter;

impl Write for LogWriter {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        bars().suspend(|| io::stderr().write_all(line))?;
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
