//! `gannet doctor`: what can this machine do?
//!
//! For: trying whatever downloads depend on (network, disk, limits of the system), and saying what to do about it.
//! Must not know: how any of it is done; it asks a session without torrents, and the system.
//! Main types: [`Facts`], [`Finding`].
//!
//! ```text
//! network, system  look, each within a time   ─► facts ─► judge   what it means, and what to do: pure
//! ```
//!
//! A new check is a fact, who finds it out, and a function in [`judge::CHECKS`].

mod args;
mod facts;
mod judge;
mod network;
mod system;

use std::time::Duration;

use serde_json::{Value, json};

pub(super) use args::DoctorArgs;
use facts::Facts;
use judge::{Finding, Verdict};

use super::exit::Failure;
use super::json::object;
use super::options::Layer as _;
use super::signals::Signals;
use super::{Global, get, log, screen};
use crate::base::printable;

/// What belongs to the system is asked for no longer than this: a network file system may not answer at all.
const SYSTEM_PATIENCE: Duration = Duration::from_secs(5);

pub(super) fn run(args: DoctorArgs, global: &Global) -> Result<(), Failure> {
    let settings = global.layers.settings.get.clone();
    let (network, disk) = (args.network.or(settings.network), args.disk.or(settings.disk));
    let (dir, timeout) = (args.dir.or(settings.download.dir), args.timeout);
    let runtime = super::runtime()?;
    let looked = runtime.block_on(async {
        let mut signals = Signals::take()?;
        let look = async {
            let config = get::config(&network, &disk)?;
            let mut facts = Facts { offline: args::is_offline(&network), ..Facts::default() };
            let state_dir = config.state_dir.clone();
            let no_sandbox = global.no_sandbox;
            let system = tokio::task::spawn_blocking(move || system::look(dir, &state_dir, no_sandbox));
            network::look(config, &mut facts, timeout).await;
            facts.system = tokio::time::timeout(SYSTEM_PATIENCE, system).await.ok().and_then(Result::ok);
            Ok(facts)
        };
        signals.unless(look).await
    });
    // Whoever hangs in the system is not waited for.
    runtime.shutdown_background();
    let facts = looked?;
    let findings: Vec<Finding> = judge::CHECKS.iter().filter_map(|check| check(&facts)).collect();
    let shown = if global.output.json {
        object(&to_json(&facts, &findings))
    } else {
        to_text(&findings, log::colors_on(&global.output, std::io::stdout()))
    };
    screen::output(shown)?;
    match findings.iter().find_map(|finding| finding.verdict.code()) {
        // It was said already.
        Some(code) => Err(Failure::silent(code)),
        None => Ok(()),
    }
}

fn to_json(facts: &Facts, findings: &[Finding]) -> Value {
    let checks: Vec<Value> = findings
        .iter()
        .map(|one| json!({ "check": one.check, "verdict": one.verdict.word(), "says": one.says, "advice": one.advice }))
        .collect();
    let worst =
        findings.iter().map(|finding| finding.verdict).max_by_key(|verdict| verdict.badness()).unwrap_or(Verdict::Good);
    json!({ "verdict": worst.word(), "checks": checks, "facts": facts.to_json() })
}

fn to_text(findings: &[Finding], color: bool) -> String {
    let width = findings.iter().map(|finding| finding.check.len()).max().unwrap_or(0);
    let mut text = String::new();
    for Finding { check, verdict, says, advice } in findings {
        let word = format!("{:<4}", verdict.word());
        let word = if color { format!("\x1b[{}m{word}\x1b[0m", verdict.color()) } else { word };
        text.push_str(&format!("{word}  {check:<width$}  {}\n", printable(says)));
        if let Some(advice) = advice {
            text.push_str(&format!("{:4}  {:width$}  -> {}\n", "", "", printable(advice)));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::exit::Code;

    #[test]
    fn what_is_shown() {
        let findings = [
            Finding {
                check: "port",
                verdict: Verdict::Warn,
                says: "closed".into(),
                advice: Some("open\u{1b}it".into()),
            },
            Finding { check: "space", verdict: Verdict::Bad(Code::Disk), says: "none".into(), advice: None },
        ];
        assert_eq!(to_text(&findings, false), "warn  port   closed\n             -> openit\nbad   space  none\n");
        let json = to_json(&Facts::default(), &findings);
        assert_eq!((&json["verdict"], &json["checks"][0]["advice"]), (&"bad".into(), &"open\u{1b}it".into()));
    }
}
