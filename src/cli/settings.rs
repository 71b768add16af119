//! Settings from three places under the command line: defaults, the configuration file, `GANNET_*` variables.
//!
//! There is one definition of every setting: its command-line option. The lower layers are turned into options and read
//! by the same parser, so a setting has one name, one form and one set of checks everywhere.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::fmt;
use std::path::{Path, PathBuf};

use clap::{ArgAction, CommandFactory, Parser};
use etcetera::BaseStrategy;
use toml::Spanned;

use super::args::{OutputOptions, SandboxOptions};
use super::exit::{Failure, io_words, shown};
use super::options::{GetOptions, SeedOptions};

/// Larger configuration files are not read: nobody writes one by hand.
const MAX_CONFIG_LEN: u64 = 1 << 20;

/// Variables that are no settings, but ours all the same.
const OTHER_VARIABLES: [&str; 4] = ["GANNET_CONFIG", "GANNET_HASH", "GANNET_LIBTORRENT_PYTHON", "GANNET_LOG"];

/// Every setting, as a command line of its own.
#[derive(Clone, Debug, Default, Parser)]
#[command(no_binary_name = true, disable_help_flag = true)]
pub(super) struct Settings {
    #[command(flatten)]
    pub(super) output: OutputOptions,
    #[command(flatten)]
    pub(super) get: GetOptions,
    #[arg(long)]
    pub(super) super_seed: bool,
    #[command(flatten)]
    pub(super) sandbox: SandboxOptions,
}

impl Settings {
    /// The part that `seed` knows.
    pub(super) fn seed(&self) -> SeedOptions {
        SeedOptions {
            super_seed: self.super_seed,
            network: self.get.network.clone(),
            goal: self.get.goal.clone(),
            disk: self.get.disk.clone(),
        }
    }
}

/// Where a setting's value comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Origin {
    /// Built in.
    Default,
    /// The configuration file, at this line.
    File(PathBuf, usize),
    /// This environment variable.
    Variable(String),
    /// An option of this call.
    CommandLine,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => write!(f, "default"),
            Self::File(path, line) => write!(f, "{}:{line}", shown(path)),
            Self::Variable(name) => write!(f, "{name}"),
            Self::CommandLine => write!(f, "command line"),
        }
    }
}

/// What a setting holds, by the shape of its option.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// On or off.
    Flag,
    /// How often.
    Count,
    /// One value.
    Single,
    /// Any number of values.
    List,
}

/// A value that a layer gives to a setting.
#[derive(Clone, Debug)]
pub(super) struct Given {
    pub(super) values: Vec<OsString>,
    pub(super) origin: Origin,
}

/// The layers under the command line, read and checked.
#[derive(Debug, Default)]
pub(super) struct Layers {
    /// The configuration file that was looked for.
    pub(super) file: Option<PathBuf>,
    /// Whether it was there.
    pub(super) file_read: bool,
    /// What the layers say, the environment over the file.
    pub(super) given: BTreeMap<String, Given>,
    /// The same, as values.
    pub(super) settings: Settings,
    /// `GANNET_*` variables that are no settings.
    pub(super) unknown_variables: Vec<String>,
}

/// Name and kind of every setting, in the order of the help.
pub(super) fn keys() -> Vec<(String, Kind)> {
    let command = Settings::command();
    let keys = command.get_arguments().filter_map(|arg| {
        let kind = match arg.get_action() {
            ArgAction::SetTrue => Kind::Flag,
            ArgAction::Count => Kind::Count,
            ArgAction::Append => Kind::List,
            ArgAction::Set => Kind::Single,
            _ => return None,
        };
        Some((arg.get_long()?.to_owned(), kind))
    });
    keys.collect()
}

/// Reads the layers under the command line. `chosen` is the file that `--config` names; `variables` the environment.
pub(super) fn load(
    chosen: Option<&Path>,
    variables: impl IntoIterator<Item = (OsString, OsString)>,
) -> Result<Layers, Failure> {
    let variables: Vec<(OsString, OsString)> = variables.into_iter().collect();
    let named = variables.iter().find(|(name, value)| name == "GANNET_CONFIG" && !value.is_empty());
    let chosen = chosen.map(Path::to_owned).or_else(|| named.map(|(_, value)| PathBuf::from(value)));
    let must_exist = chosen.is_some();
    let file = chosen.or_else(|| folders().map(|f| f.config_dir().join("gannet").join("config.toml")));

    let keys: BTreeMap<String, Kind> = keys().into_iter().collect();
    let mut layers = Layers { file, ..Layers::default() };
    if let Some(path) = &layers.file
        && let Some(text) = read_file(path, must_exist)?
    {
        layers.file_read = true;
        layers.given = from_file(path, &text, &keys)?;
    }
    let (given, unknown) = from_variables(variables, &keys)?;
    layers.given.extend(given);
    layers.unknown_variables = unknown;

    let mut arguments = Vec::new();
    for (key, given) in &layers.given {
        let own = to_arguments(key, keys[key], given)?;
        // Alone first, so that an error can say where the value stands.
        if let Err(error) = Settings::try_parse_from(&own) {
            return Err(Failure::usage(format!("{}: {}", given.origin, clap_words(&error))));
        }
        arguments.extend(own);
    }
    layers.settings = Settings::try_parse_from(arguments).map_err(|e| Failure::usage(clap_words(&e)))?;
    Ok(layers)
}

/// Where state is kept unless told otherwise.
pub(super) fn default_state_dir() -> Result<PathBuf, Failure> {
    folders()
        .and_then(|f| f.state_dir())
        .map(|dir| dir.join("gannet"))
        .ok_or_else(|| Failure::usage("no home folder is known: set HOME, or say --state-dir DIR"))
}

fn folders() -> Option<etcetera::base_strategy::Xdg> {
    etcetera::base_strategy::Xdg::new().ok()
}

fn read_file(path: &Path, must_exist: bool) -> Result<Option<String>, Failure> {
    let refused = |why: String| Failure::usage(format!("{}: {why}", shown(path)));
    match std::fs::metadata(path) {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound && !must_exist => return Ok(None),
        Err(e) => return Err(refused(io_words(&e))),
        Ok(m) if m.len() > MAX_CONFIG_LEN => return Err(refused("too large for a configuration file".to_owned())),
        Ok(_) => {}
    }
    std::fs::read_to_string(path).map(Some).map_err(|e| refused(io_words(&e)))
}

fn from_file(path: &Path, text: &str, keys: &BTreeMap<String, Kind>) -> Result<BTreeMap<String, Given>, Failure> {
    let line_of = |at: usize| text.as_bytes()[..at.min(text.len())].iter().filter(|&&b| b == b'\n').count() + 1;
    let refused = |line: usize, why: &str| Failure::usage(format!("{}:{line}: {why}", shown(path)));
    let table: BTreeMap<Spanned<String>, toml::Value> = toml::from_str(text)
        .map_err(|e| refused(e.span().map_or(1, |s| line_of(s.start)), &super::exit::one_line(e.message())))?;
    let mut given = BTreeMap::new();
    for (name, value) in table {
        let line = line_of(name.span().start);
        let name = name.into_inner();
        let kind = *keys.get(&name).ok_or_else(|| refused(line, &unknown(&name, keys)))?;
        let values = toml_values(kind, value).map_err(|why| refused(line, &format!("{name}: {why}")))?;
        given.insert(name, Given { values, origin: Origin::File(path.to_owned(), line) });
    }
    Ok(given)
}

fn toml_values(kind: Kind, value: toml::Value) -> Result<Vec<OsString>, String> {
    use toml::Value;
    let scalar = |value: Value| match value {
        Value::String(text) => Ok(OsString::from(text)),
        Value::Integer(n) => Ok(n.to_string().into()),
        Value::Float(n) => Ok(n.to_string().into()),
        Value::Boolean(b) => Ok(b.to_string().into()),
        other => Err(format!("not a {}", other.type_str())),
    };
    match (kind, value) {
        (Kind::Flag, Value::Boolean(on)) => Ok(vec![on.to_string().into()]),
        (Kind::Flag, other) => Err(format!("true or false, not a {}", other.type_str())),
        (Kind::Count, Value::Integer(n)) => Ok(vec![n.to_string().into()]),
        (Kind::Count, other) => Err(format!("a number, not a {}", other.type_str())),
        (Kind::List, Value::Array(items)) => items.into_iter().map(scalar).collect(),
        (Kind::Single, Value::Boolean(_)) => Err("a value, not a boolean".to_owned()),
        (Kind::Single | Kind::List, value) => Ok(vec![scalar(value)?]),
    }
}

fn unknown(name: &str, keys: &BTreeMap<String, Kind>) -> String {
    let dashed = name.replace('_', "-");
    let hint = if keys.contains_key(&dashed) {
        format!("did you mean {dashed}?")
    } else {
        "'gannet config' lists the settings".to_owned()
    };
    format!("there is no setting '{}'; {hint}", name.escape_debug())
}

/// Settings among the variables, and the `GANNET_*` names that are none.
fn from_variables(
    variables: Vec<(OsString, OsString)>,
    keys: &BTreeMap<String, Kind>,
) -> Result<(BTreeMap<String, Given>, Vec<String>), Failure> {
    let mut given = BTreeMap::new();
    let mut unknown = Vec::new();
    for (name, value) in variables {
        let Some(name) = name.to_str().filter(|n| n.starts_with("GANNET_") && !OTHER_VARIABLES.contains(n)) else {
            continue;
        };
        let key = name["GANNET_".len()..].to_ascii_lowercase().replace('_', "-");
        let Some(&kind) = keys.get(&key) else {
            unknown.push(name.to_owned());
            continue;
        };
        // An empty variable is as good as none.
        if value.is_empty() {
            continue;
        }
        let origin = Origin::Variable(name.to_owned());
        let values = if kind == Kind::List { split_list(&key, &origin, &value)? } else { vec![value] };
        given.insert(key, Given { values, origin });
    }
    unknown.sort();
    Ok((given, unknown))
}

/// Patterns may hold anything but line breaks; addresses hold neither spaces nor commas.
fn split_list(key: &str, origin: &Origin, value: &OsStr) -> Result<Vec<OsString>, Failure> {
    let text = value.to_str().ok_or_else(|| Failure::usage(format!("{origin}: not valid UTF-8")))?;
    let patterns = matches!(key, "select" | "exclude");
    let parts = text.split(|c: char| c == '\n' || !patterns && (c == ',' || c.is_whitespace()));
    Ok(parts.map(str::trim).filter(|part| !part.is_empty()).map(OsString::from).collect())
}

/// The options that say the same as `given`.
fn to_arguments(key: &str, kind: Kind, given: &Given) -> Result<Vec<OsString>, Failure> {
    let refused = |why: &str| Failure::usage(format!("{}: {key}: {why}", given.origin));
    let option = OsString::from(format!("--{key}"));
    let only = given.values.first().and_then(|v| v.to_str());
    Ok(match kind {
        Kind::Flag => match only.and_then(is_true) {
            Some(true) => vec![option],
            Some(false) => vec![],
            None => return Err(refused("true or false")),
        },
        Kind::Count => {
            let times = only.and_then(|v| v.parse::<u8>().ok()).filter(|&n| n <= 9).ok_or_else(|| refused("0 to 9"))?;
            vec![option; times.into()]
        }
        Kind::Single | Kind::List => {
            let join = |value: &OsString| {
                let mut joined = option.clone();
                joined.push("=");
                joined.push(value);
                joined
            };
            given.values.iter().map(join).collect()
        }
    })
}

/// A word for on or off.
pub(super) fn is_true(word: &str) -> Option<bool> {
    match word.to_ascii_lowercase().as_str() {
        "true" | "1" | "yes" | "on" => Some(true),
        "false" | "0" | "no" | "off" => Some(false),
        _ => None,
    }
}

/// What the parser says, in one line.
pub(super) fn clap_words(error: &clap::Error) -> String {
    let text = error.render().to_string();
    let text = text.strip_prefix("error: ").unwrap_or(&text);
    let text = text.split("\n\nUsage:").next().unwrap_or(text);
    let text = text.split("\n\nFor more information").next().unwrap_or(text);
    // How to say it as a value is the parser's favourite advice, and never what was meant.
    let tips = text.split("\n\n").skip(1).map(|tip| tip.trim().trim_start_matches("tip: "));
    let tips = tips.filter(|tip| !tip.starts_with("to pass "));
    let first = text.split("\n\n").take(1);
    super::exit::one_line(&first.chain(tips).collect::<Vec<_>>().join("; "))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::quantity::Limit;

    fn with(file: &str, variables: &[(&str, &str)]) -> Result<Layers, Failure> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("config.toml");
        std::fs::write(&path, file).unwrap();
        load(Some(&path), variables.iter().map(|(n, v)| (n.into(), v.into())))
    }

    #[test]
    fn environment_over_file() {
        let layers = with(
            "dir = '/data'\nlimit-down = '5M'\nmax-peers = 7\ntracker = ['http://a/', 'http://b/']\nseed-ratio = 1.5\n",
            &[("GANNET_LIMIT_DOWN", "1M"), ("GANNET_NO_TRACKERS", "1"), ("GANNET_PEER", "a:1, b:2"), ("HOME", "/x")],
        )
        .unwrap();
        let get = &layers.settings.get;
        assert_eq!(get.download.dir, Some("/data".into()));
        assert_eq!(get.network.limit_down, Some(Limit(Some(1_000_000))));
        assert_eq!((get.network.max_peers, get.network.no_trackers), (Some(7), true));
        assert_eq!((get.network.peers.len(), get.network.trackers.len(), get.goal.seed_ratio), (2, 2, Some(1.5)));
        assert_eq!(layers.given["limit-down"].origin.to_string(), "GANNET_LIMIT_DOWN");
        assert!(layers.given["dir"].origin.to_string().ends_with("config.toml:1"));
    }

    #[test]
    fn mistakes_name_their_place() {
        for (file, variables, want) in [
            ("a = 1", &[][..], "config.toml:1: there is no setting 'a'"),
            ("\nlimit_up = 1", &[], "config.toml:2: there is no setting 'limit_up'; did you mean limit-up?"),
            ("dir = ", &[], "config.toml:1: "),
            ("\n\nlimit-up = 'fast'", &[], "config.toml:3: invalid value 'fast'"),
            ("seed = 'yes'", &[], "config.toml:1: seed: true or false, not a string"),
            ("[network]\nx = 1", &[], "config.toml:1: there is no setting 'network'"),
            ("", &[("GANNET_MAX_PEERS", "0")], "GANNET_MAX_PEERS: invalid value '0'"),
            ("", &[("GANNET_SEED", "maybe")], "GANNET_SEED: seed: true or false"),
        ] {
            let failure = with(file, variables).unwrap_err();
            assert!(failure.message.contains(want), "{failure} / {want}");
            assert_eq!(failure.to_string().lines().count(), 1);
            assert_eq!(failure.code, crate::cli::exit::Code::Usage);
        }
    }

    #[test]
    fn strange_variables_are_listed_and_empty_ones_ignored() {
        let layers = with("", &[("GANNET_NO_SUCH", "1"), ("GANNET_DIR", ""), ("GANNET_LOG", "debug")]).unwrap();
        assert_eq!(layers.unknown_variables, ["GANNET_NO_SUCH"]);
        assert!(layers.given.is_empty());
    }

    #[test]
    fn a_named_file_must_exist() {
        let failure = load(Some(Path::new("/nonexistent/gannet.toml")), []).unwrap_err();
        assert!(failure.message.contains("/nonexistent/gannet.toml"), "{failure}");
    }

    #[test]
    fn every_setting_has_a_kind() {
        let keys = keys();
        assert!(keys.iter().any(|k| k == &("select".to_owned(), Kind::List)));
        assert!(keys.iter().any(|k| k == &("verbose".to_owned(), Kind::Count)));
        assert!(keys.iter().any(|k| k == &("super-seed".to_owned(), Kind::Flag)));
        assert!(keys.iter().any(|k| k == &("state-dir".to_owned(), Kind::Single)));
        assert_eq!(keys.len(), Settings::command().get_arguments().filter(|a| a.get_long().is_some()).count());
    }
}
