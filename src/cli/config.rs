//! `gannet config`: every setting in effect, and where it comes from.

use std::ffi::OsString;

use serde_json::{Map, Value, json};

use super::Global;
use super::args::ConfigArgs;
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
        "disk-retry" => "5s".to_owned(),
        "limit-down" | "limit-up" => "none".to_owned(),
        "max-peers" => "100".to_owned(),
        "state-dir" => default_state_dir().ok()?.to_string_lossy().into_owned(),
        _ => return None,
    })
}

/// What is shown instead of a secret. A file made of it fails closed: the proxy does not let us in, rather than being
/// forgotten.
const MASK: &str = "***";

pub(super) fn run(args: &ConfigArgs, global: &Global) -> Result<(), Failure> {
    let mut rows: Vec<(String, Kind, Given)> = keys().into_iter().map(|(key, kind)| row(key, kind, global)).collect();
    if !args.show_secrets {
        for (key, _, given) in &mut rows {
            given.values.iter_mut().for_each(|value| *value = masked(key, &value.to_string_lossy()).into());
        }
    }
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

/// A value without what nobody but its owner should see: the password in an address, and the passkey that may be part of
/// a tracker's.
fn masked(key: &str, value: &str) -> String {
    if !matches!(key, "proxy" | "tracker" | "web-seed") {
        return value.to_owned();
    }
    let (scheme, rest) = value.split_at(value.find("://").map_or(0, |at| at + 3));
    // A proxy has nothing behind the host, and a password may have anything in it.
    let end = if key == "proxy" { rest.len() } else { rest.find(['/', '?', '#']).unwrap_or(rest.len()) };
    let (authority, path) = rest.split_at(end);
    let (user, host) = authority.split_at(authority.rfind('@').unwrap_or(0));
    let user = user.split_once(':').map_or(user.to_owned(), |(name, _)| format!("{name}:{MASK}"));
    let path = match path {
        "" | "/" | "/announce" => path.to_owned(),
        _ if key == "tracker" => format!("/{MASK}"),
        _ => path.to_owned(),
    };
    format!("{scheme}{user}{host}{path}")
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_not_shown() {
        for (key, value, shown) in [
            ("proxy", "socks5h://me:secret@proxy.example:1080", "socks5h://me:***@proxy.example:1080"),
            ("proxy", "socks5://me:s/e?c#r@e:t@[::1]:1080", "socks5://me:***@[::1]:1080"),
            ("proxy", "me:secret@proxy.example", "me:***@proxy.example"),
            ("proxy", "http://proxy.example:8080", "http://proxy.example:8080"),
            ("tracker", "http://tracker.example/announce", "http://tracker.example/announce"),
            ("tracker", "https://tracker.example/0123456789abcdef/announce", "https://tracker.example/***"),
            ("tracker", "https://tracker.example/announce?passkey=secret", "https://tracker.example/***"),
            ("tracker", "https://tracker.example?passkey=secret", "https://tracker.example/***"),
            ("web-seed", "https://me:secret@mirror.example/a@b/", "https://me:***@mirror.example/a@b/"),
            ("dir", "/data/me:secret@here", "/data/me:secret@here"),
            ("proxy", "", ""),
        ] {
            assert_eq!(masked(key, value), shown, "{key} {value}");
        }
    }
}
