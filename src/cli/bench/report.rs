//! What a bench found: to the screen, as JSON, as a picture.

use std::fs;
use std::path::Path;
use std::time::SystemTime;

use serde_json::{Map, Value, json};

use super::super::exit::{Failure, one_line};
use super::super::json::object;
use super::super::time::rfc3339;
use super::super::{quantity, screen};
use super::table::Table;
use super::{Bench, plot, table};
use crate::base::printable;
use crate::sys;

/// What a bench found.
pub(super) struct Report {
    /// Its name on the command line.
    pub(super) what: &'static str,
    /// What was measured in one sentence.
    pub(super) subject: String,
    pub(super) tables: Vec<Table>,
    /// What follows from it, for people.
    pub(super) verdict: Vec<String>,
    /// Fields of the JSON document besides those of every report.
    pub(super) facts: Map<String, Value>,
}

impl Report {
    /// Of `what`, with nothing in it yet.
    pub(super) fn new(what: &'static str, subject: impl Into<String>) -> Self {
        Self { what, subject: subject.into(), tables: Vec::new(), verdict: Vec::new(), facts: Map::new() }
    }

    /// The same, with a field of the JSON document more.
    pub(super) fn fact(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.facts.insert(name.to_owned(), value.into());
        self
    }

    /// Tells it.
    pub(super) fn tell(&self, bench: &Bench<'_>, plot: Option<&Path>) -> Result<(), Failure> {
        let noise = self.noise(bench);
        if let Some(path) = plot {
            let title = format!("gannet bench {}: {}", self.what, self.subject);
            let mut lines = vec![machine_line()];
            lines.extend(self.verdict.iter().cloned());
            lines.extend(noise.iter().map(|line| format!("noisy: {line}")));
            let svg = plot::to_svg(&title, &lines, &self.tables);
            fs::write(path, svg).map_err(|e| Failure::disk(path, &e))?;
        }
        if bench.global.output.json {
            return screen::output(object(&self.to_json(bench, &noise)));
        }
        if bench.global.output.quiet {
            return Ok(());
        }
        let mut text = format!("{}\n{}\n\n{}", self.subject, machine_line(), table::to_text(&self.tables));
        let mut tail: Vec<String> = self.verdict.clone();
        tail.extend(bench.notes.iter().cloned());
        tail.extend(noise.iter().map(|line| format!("noisy: {line}; run it again on a quiet machine")));
        for line in tail {
            text.push_str(&format!("\n{}\n", printable(&one_line(&line))));
        }
        screen::output(text)
    }

    /// Why the figures are not to be trusted, if they are not.
    fn noise(&self, bench: &Bench<'_>) -> Vec<String> {
        let mut noise: Vec<String> = bench.calibration.complaints();
        let rows = self.tables.iter().flat_map(|t| &t.rows).filter(|row| row.is_noisy());
        let names: Vec<&str> = rows.map(|row| row.name.as_str()).collect();
        if !names.is_empty() {
            let most = super::stats::NOISY * 100.0;
            noise.push(format!(
                "~ marks runs whose middle half lies more than {most:.0} % apart ({})",
                names.join("; ")
            ));
        }
        if cfg!(debug_assertions) {
            noise.push("this program was built without optimisation: build it with --release".to_owned());
        }
        noise
    }

    fn to_json(&self, bench: &Bench<'_>, noise: &[String]) -> Value {
        let mut object = Map::new();
        let mut put = |name: &str, value: Value| object.insert(name.to_owned(), value);
        put("bench", json!(self.what));
        put("version", json!(env!("CARGO_PKG_VERSION")));
        put("time", json!(rfc3339(SystemTime::now())));
        put(
            "machine",
            json!({
                "processor": sys::processor_name(),
                "cores": cores(),
                "available_memory": sys::available_memory(),
                "system": sys::system_name(),
            }),
        );
        for (name, value) in &self.facts {
            put(name, value.clone());
        }
        put("tables", self.tables.iter().map(Table::to_json).collect());
        put("verdict", json!(self.verdict));
        put("notes", json!(bench.notes));
        put("noisy", json!(!noise.is_empty()));
        put("noise", json!(noise));
        put("calibration_seconds", bench.calibration.laps().to_json());
        Value::Object(object)
    }
}

/// How many threads can run at once.
pub(super) fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

fn machine_line() -> String {
    let cores = cores();
    let word = if cores == 1 { "core" } else { "cores" };
    let processor = sys::processor_name().map(|name| format!(" of {name}")).unwrap_or_default();
    let free = sys::available_memory().map(|free| format!(", {} of memory free", quantity::bytes(free)));
    printable(&format!("{cores} {word}{processor}, {}{}", sys::system_name(), free.unwrap_or_default()))
}
