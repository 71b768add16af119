//! Log lines on standard error.

use std::io::IsTerminal;

use tracing_subscriber::EnvFilter;

use super::args::{ColorChoice, OutputOptions};
use super::exit::Failure;
use super::screen::LogWriter;

/// Starts logging: warnings only unless `-v`, `-vv` or `GANNET_LOG` ask for more.
pub(super) fn start(output: &OutputOptions) -> Result<(), Failure> {
    let filter = match std::env::var("GANNET_LOG") {
        Ok(text) if !text.is_empty() => {
            EnvFilter::try_new(&text).map_err(|e| Failure::usage(format!("GANNET_LOG: {e}")))?
        }
        _ => EnvFilter::new(match (output.quiet, output.verbose) {
            (true, _) => "off",
            (_, 0) => "gannet=warn",
            (_, 1) => "gannet=info",
            (_, 2) => "gannet=debug",
            _ => "gannet=trace",
        }),
    };
    let subscriber = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(|| LogWriter)
        .with_ansi(colors(output))
        .compact()
        .finish();
    // A second start in one process (only tests do that) keeps the first subscriber.
    let _ = tracing::subscriber::set_global_default(subscriber);
    Ok(())
}

/// Whether standard error gets colours.
pub(super) fn colors(output: &OutputOptions) -> bool {
    colors_on(output, std::io::stderr())
}

/// Whether `stream` gets colours.
pub(super) fn colors_on(output: &OutputOptions, stream: impl IsTerminal) -> bool {
    match output.color.unwrap_or(ColorChoice::Auto) {
        ColorChoice::Always => true,
        ColorChoice::Never => false,
        ColorChoice::Auto => std::env::var_os("NO_COLOR").is_none_or(|v| v.is_empty()) && stream.is_terminal(),
    }
}
