//! `gannet man`: one page for the whole program.

use std::io::{self, Write};

use clap::{Arg, Command, CommandFactory};
use clap_mangen::Man;
use clap_mangen::roff::{Roff, bold, roman};

use super::args::Cli;
use super::exit::{Code, Failure};
use super::screen;

const EXIT_CODES: [(&str, &str); 9] = [
    ("0", "Done."),
    ("1", "An unexpected failure: a bug, please report it."),
    ("2", "Wrong use of the command line, an environment variable or the configuration file."),
    ("3", "Not a valid torrent, magnet link or state file."),
    ("4", "Disk: full, read-only, no permission, I/O error."),
    ("5", "Network: nothing could be reached, or --timeout passed."),
    ("6", "verify: data missing or wrong."),
    ("130, 143", "Stopped by SIGINT, SIGTERM, after state was saved and trackers were told (at most 5 s)."),
    ("141", "Nobody reads standard output any more."),
];

const ENVIRONMENT: [(&str, &str); 8] = [
    (
        "GANNET_*",
        "Every option of get and seed: GANNET_LIMIT_UP=500k is --limit-up 500k, GANNET_NO_TRACKERS=1 is \
      --no-trackers. Lists are separated by commas or spaces, patterns by line breaks. Options win over variables, \
      variables over the configuration file.",
    ),
    ("GANNET_CONFIG", "The configuration file, as --config."),
    (
        "GANNET_HASH",
        "How many messages are hashed at once: scalar, ni4 or avx512 instead of the fastest that there is.",
    ),
    (
        "GANNET_LIBTORRENT_PYTHON",
        "The Python interpreter that has libtorrent, for bench compare, if it is not python3.",
    ),
    ("GANNET_LOG", "What is logged, such as gannet::net=debug."),
    ("NO_COLOR", "If not empty, no colours."),
    ("SOURCE_DATE_EPOCH", "The date that create writes into a torrent, in seconds since 1970."),
    ("XDG_CONFIG_HOME, XDG_STATE_HOME", "Where the configuration file and the state of downloads are looked for."),
];

pub(super) fn run() -> Result<(), Failure> {
    let mut page = Vec::new();
    render(&mut page).map_err(|e| Failure::new(Code::Bug, format!("man: {e}")))?;
    screen::output_bytes(&page)
}

fn render(page: &mut Vec<u8>) -> io::Result<()> {
    let mut command = Cli::command();
    command.build();
    let man = Man::new(command.clone()).title("GANNET").manual("User Commands");
    man.render_title(page)?;
    man.render_name_section(page)?;
    man.render_synopsis_section(page)?;
    man.render_description_section(page)?;
    let mut roff = Roff::new();
    roff.control("SH", ["OPTIONS"]);
    command.get_arguments().for_each(|arg| option(&mut roff, arg));
    roff.to_writer(page)?;
    for sub in commands_of(&command) {
        render_command(sub.get_name(), sub, page)?;
        for own in commands_of(sub) {
            render_command(&format!("{} {}", sub.get_name(), own.get_name()), own, page)?;
        }
    }
    table(page, "EXIT STATUS", &EXIT_CODES)?;
    table(page, "ENVIRONMENT", &ENVIRONMENT)?;
    let mut roff = Roff::new();
    roff.control("SH", ["FILES"]);
    roff.control("TP", []);
    roff.text([bold("~/.config/gannet/config.toml")]);
    roff.text([roman(
        "Settings: the long names of options without dashes, such as limit-up = \"500k\". See gannet config.",
    )]);
    roff.control("TP", []);
    roff.text([bold("~/.local/state/gannet")]);
    roff.text([roman("The state of downloads, so that they go on where they stopped.")]);
    roff.to_writer(page)?;
    man.render_extra_section(page)?;
    man.render_version_section(page)
}

fn commands_of(command: &Command) -> impl Iterator<Item = &Command> {
    command.get_subcommands().filter(|sub| !sub.is_hide_set() && sub.get_name() != "help")
}

/// A section for a subcommand called `name`: what it does, and its options.
fn render_command(name: &str, sub: &Command, page: &mut Vec<u8>) -> io::Result<()> {
    let mut roff = Roff::new();
    roff.control("SH", [format!("GANNET {}", name.to_uppercase()).as_str()]);
    let mut owned = sub.clone();
    let usage = owned.render_usage().to_string();
    roff.text([bold(usage.trim_start_matches("Usage: ").trim())]);
    roff.control("PP", []);
    if let Some(about) = sub.get_long_about().or_else(|| sub.get_about()) {
        for part in about.to_string().split("\n\n") {
            roff.text([roman(part)]);
            roff.control("PP", []);
        }
    }
    // What every command has stands in the page's own section of options.
    for arg in sub.get_arguments().filter(|a| !a.is_global_set() && a.get_id() != "help") {
        option(&mut roff, arg);
    }
    if let Some(after) = sub.get_after_help() {
        examples(&mut roff, &after.to_string());
    }
    roff.to_writer(page)
}

/// An option or argument: its names, what it does, what it takes.
fn option(roff: &mut Roff, arg: &Arg) {
    roff.control("TP", []);
    let value = arg.get_value_names().map(|names| names.join(" ")).unwrap_or_default();
    let names: Vec<String> = [arg.get_short().map(|s| format!("-{s}")), arg.get_long().map(|l| format!("--{l}"))]
        .into_iter()
        .flatten()
        .collect();
    let takes = arg.get_action().takes_values();
    let name = match (names.is_empty(), takes) {
        (true, _) => value,
        (false, true) => format!("{} {value}", names.join(", ")),
        (false, false) => names.join(", "),
    };
    roff.text([bold(name)]);
    let mut help = arg.get_long_help().or_else(|| arg.get_help()).map(ToString::to_string).unwrap_or_default();
    let choices: Vec<String> = arg
        .get_possible_values()
        .iter()
        .filter(|v| takes && !v.is_hide_set())
        .map(|v| match v.get_help() {
            Some(text) => format!("{} ({text})", v.get_name()),
            None => v.get_name().to_owned(),
        })
        .collect();
    if !choices.is_empty() {
        help.push_str(&format!(": {}", choices.join(", ")));
    }
    let defaults: Vec<String> = arg.get_default_values().iter().map(|v| v.to_string_lossy().into_owned()).collect();
    if takes && !defaults.is_empty() {
        help.push_str(&format!(" [default: {}]", defaults.join(" ")));
    }
    roff.text([roman(help)]);
}

fn examples(roff: &mut Roff, text: &str) {
    roff.control("PP", []);
    roff.control("nf", []);
    for line in text.lines() {
        roff.text([roman(line)]);
    }
    roff.control("fi", []);
}

fn table(page: &mut dyn Write, title: &str, rows: &[(&str, &str)]) -> io::Result<()> {
    let mut roff = Roff::new();
    roff.control("SH", [title]);
    for (name, text) in rows {
        roff.control("TP", []);
        roff.text([bold(*name)]);
        roff.text([roman(*text)]);
    }
    roff.to_writer(page)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_page_has_it_all() {
        let mut page = Vec::new();
        render(&mut page).unwrap();
        let page = String::from_utf8(page).unwrap();
        for part in [
            ".TH",
            "GANNET GET",
            "GANNET DEMO",
            "GANNET BENCH LOOPBACK",
            "limit\\-down",
            "EXIT STATUS",
            "143",
            "GANNET_CONFIG",
            ".SH FILES",
        ] {
            assert!(page.contains(part), "{part}");
        }
    }
}
