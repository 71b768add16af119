//! `gannet config`: every setting in effect, and where it comes from.

use std::ffi::OsString;

use serde_json::{Map, Value, json};

use super::Global;
use super::exit::{Failure, shown};
use super::json::object;
use super::settings::{Given, Kind, Origin, default_state_dir, keys};
use super::{screen, settings};
use crate::base::printable;

/// What is in effect when nobody says anything, for settings that hold one value.
fn default_value(key: &str) -> Option<String> {
    Some(match key {
        "color" | "storage" => "auto".to_owned(),
        "dir" => ".".to_owned(),
        "preallocate" => "full".to_owned(),
        "durability" => "sync".to_owned(),
        "limit-down" | "limit-up" => "none".to_owned(),
        "max-peers" => "100".to_owned(),
        "state-dir" => default_state_dir().ok()?.to_string_lossy().into_owned(),
        _ => return None,
    })
}

pub(super) fn run(global: &Global) -> Result<(), Failure> {
    let rows: Vec<(String, Kind, Given)> = keys().into_iter().map(|(key, kind)| row(key, kind, global)).collect();
    if global.output.json {
        let settings: Map<String, Value> = rows
            .iter()
            .map(|(key, kind, given)| {
                (key.clone(), json!({ "value": value(*kind, &given.values), "origin": given.origin.to_string() }))
            })
            .collect();
        let file = global.layers.file.as_ref().map(|p| p.to_string_lossy().into_owned());
        let body = json!({
            "config_file": file,
            "config_file_read": global.layers.file_read,
            "settings": settings,
            "unknown_variables": global.layers.unknown_variables,
        });
        return screen::output(object(&body));
    }
    let mut text = String::new();
    match &global.layers.file {
        Some(path) if global.layers.file_read => text.push_str(&format!("# {}\n", shown(path))),
        Some(path) => text.push_str(&format!("# {} (not there)\n", shown(path))),
        None => text.push_str("# no configuration file: no home folder is known\n"),
    }
    let width = rows.iter().map(|(key, ..)| key.len()).max().unwrap_or(0);
    let shown: Vec<(String, String, String)> = rows
        .iter()
        .map(|(key, kind, given)| (key.clone(), toml_text(&value(*kind, &given.values)), given.origin.to_string()))
        .collect();
    let value_width = shown.iter().map(|(_, value, _)| value.chars().count()).filter(|&n| n <= 40).max().unwrap_or(0);
    for (key, value, origin) in shown {
        // A setting without a value is a comment, so that the whole is a valid configuration file.
        let (mark, value) = if value == "null" { ("# ", "") } else { ("", value.as_str()) };
        let line = format!("{:<width$} = {value:<value_width$}  # {origin}", format!("{mark}{key}"));
        text.push_str(&line);
        text.push('\n');
    }
    for name in &global.layers.unknown_variables {
        text.push_str(&format!("# {} is no setting\n", printable(name)));
    }
    screen::output(text)
}

fn row(key: String, kind: Kind, global: &Global) -> (String, Kind, Given) {
    let said = match key.as_str() {
        "quiet" => global.said.quiet.then(|| "true".to_owned()),
        "json" => global.said.json.then(|| "true".to_owned()),
        "verbose" => (global.said.verbose > 0).then(|| global.said.verbose.to_string()),
        "color" => global.said.color.map(|c| format!("{c:?}").to_ascii_lowercase()),
        _ => None,
    };
    let one = |value: String, origin| Given { values: vec![value.into()], origin };
    let given = said
        .map(|value| one(value, Origin::CommandLine))
        .or_else(|| global.layers.given.get(&key).cloned())
        .or_else(|| default_value(&key).map(|value| one(value, Origin::Default)))
        .unwrap_or(Given { values: vec![], origin: Origin::Default });
    (key, kind, given)
}

fn value(kind: Kind, values: &[OsString]) -> Value {
    let text = |v: &OsString| v.to_string_lossy().into_owned();
    let first = values.first().map(text);
    match kind {
        Kind::Flag => json!(first.is_some_and(|v| settings::is_true(&v).unwrap_or(false))),
        Kind::Count => json!(first.and_then(|v| v.parse::<u8>().ok()).unwrap_or(0)),
        Kind::Single => json!(first),
        Kind::List => json!(values.iter().map(text).collect::<Vec<_>>()),
    }
}

/// As a configuration file would have it. JSON strings are valid TOML strings, and nothing in them moves the cursor
/// once the characters that JSON lets through are gone.
fn toml_text(value: &Value) -> String {
    printable(&value.to_string())
}
