//! The rules of the source tree that no compiler checks: which layer may use which, what the pure layers may not
//! touch, where platforms and `unsafe` may appear, which words name nothing, and how every `mod.rs` begins.
//!
//! The tables below are the rules. What is looked at is the code proper: comments, the contents of strings and
//! everything under `#[cfg(test)]` are blanked first, line numbers stay. Run alone: `cargo test --test architecture`.

#![allow(clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

use std::collections::{BTreeMap, BTreeSet};
use std::env;
use std::fs;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::process::Command;

// ---------------------------------------------------------------- the rules

/// Every module of the crate's root and its layer.
const LAYERS: &[(&str, u8)] = &[
    ("base", 0),
    ("hash", 0),
    ("metainfo", 1),
    ("wire", 1),
    ("swarm", 2),
    ("tracker", 2),
    ("dht", 2),
    ("utp", 2),
    ("resume", 2),
    ("sys", 3),
    ("storage", 3),
    ("disk", 3),
    ("net", 3),
    ("torrent", 4),
    ("session", 5),
    ("error", 5),
    ("api", 6),
    ("cli", 6),
];

/// What a module may use of its own layer; everything else it uses lies strictly below.
const SIDEWAYS: &[(&str, &str)] =
    &[("storage", "sys"), ("disk", "sys"), ("net", "sys"), ("disk", "storage"), ("session", "error")];

/// The layers up to this one are pure: the same input gives the same output, everywhere and at any time.
const LAST_PURE_LAYER: u8 = 2;

/// What pure layers may not name, and why. A trailing `*` stands for the rest of an identifier.
const IMPURE: &[(&str, &str)] = &[
    ("tokio", "no runtime"),
    ("async fn", "no runtime"),
    ("async move", "no runtime"),
    (".await", "no runtime"),
    ("TcpStream", "no sockets; of std::net only addresses"),
    ("TcpListener", "no sockets; of std::net only addresses"),
    ("UdpSocket", "no sockets; of std::net only addresses"),
    ("UnixStream", "no sockets; of std::net only addresses"),
    ("UnixListener", "no sockets; of std::net only addresses"),
    ("UnixDatagram", "no sockets; of std::net only addresses"),
    ("ToSocketAddrs", "no name resolution"),
    ("std::fs", "no files"),
    ("std::env", "no environment"),
    ("std::process", "no processes"),
    ("std::thread", "no threads"),
    ("thread::*", "no threads"),
    ("thread_local", "no threads"),
    ("mpsc", "no channels"),
    ("unbounded*", "nothing without a bound"),
    ("Mutex", "no locks"),
    ("RwLock", "no locks"),
    ("Condvar", "no locks"),
    ("Instant::now", "the time is an argument: `now: Instant`"),
    ("SystemTime*", "the time is an argument"),
    (".elapsed", "the time is an argument: `now: Instant`"),
    ("getrandom", "randomness is an argument: `seed: u64`"),
    ("Rng::new", "randomness is an argument: `Rng::with_seed`"),
    ("println!", "no output"),
    ("eprintln!", "no output"),
    ("print!", "no output"),
    ("eprint!", "no output"),
];

/// What only [`PLATFORM_FILES`] may name.
const PLATFORM: &[&str] = &[
    "target_os",
    "target_family",
    "target_vendor",
    "cfg(unix",
    "cfg(windows",
    "cfg(not(unix",
    "cfg(not(windows",
    "std::os::*",
];

/// Where systems may be told apart.
const PLATFORM_FILES: &[&str] = &["sys", "storage/mapping"];

/// Where `unsafe` may stand.
const UNSAFE_FILES: &[&str] = &["hash", "sys", "storage/mapping"];

/// What opens a way out of this machine, or asks others for one.
const WAYS_OUT: &[&str] = &[
    "TcpStream::connect",
    "TcpSocket::new_v4",
    "TcpSocket::new_v6",
    "UdpSocket::bind",
    "Socket::new",
    "lookup_host",
    "to_socket_addrs",
    "reqwest::Client::new",
    "reqwest::Client::builder",
];

/// Where that may stand: `net::egress` keeps to the device and the proxy that the user chose, `net::http` asks it how; what
/// the others connect to is on this machine.
const WAYS_OUT_FILES: &[&str] = &["net/egress", "net/http", "cli/bench", "cli/demo"];

/// What can grow without end: whoever fills a queue is to be held up by it, or to lose what does not fit.
const UNBOUNDED: &[(&str, &str)] = &[
    ("unbounded*", "a channel without a bound"),
    ("Unbounded*", "a channel without a bound"),
    ("mpsc::channel()", "a bound"),
    ("crossbeam*", "`tokio::sync::mpsc`"),
];

/// Nothing that a stranger names may become a command line: programs are started by the benchmarks alone.
const PROGRAMS: &[&str] = &["process::Command", "Command::new", "libc::system", "execve"];
const PROGRAMS_FILES: &[&str] = &["cli/bench", "sys/usage"];

/// The clock on the wall may be set at any time: it is for people, for stamps of files, and for dates of servers.
const WALL_CLOCK: &[&str] = &["SystemTime", "UNIX_EPOCH"];
const WALL_CLOCK_FILES: &[&str] = &["cli", "net/web_seed", "net/udp", "torrent/saving", "torrent/spec"];

/// Numbers that can be computed from others of the same generator: nothing that is to be a secret.
const GUESSABLE: &[&str] = &[
    "fastrand::bool",
    "fastrand::u8",
    "fastrand::u16",
    "fastrand::u32",
    "fastrand::u64",
    "fastrand::u128",
    "fastrand::usize",
    "fastrand::fill",
    "fastrand::choice",
    "fastrand::shuffle",
    "fastrand::alphanumeric",
    "Rng::new",
];
const GUESSABLE_FILES: &[&str] = &["cli", "net/lsd", "net/mini_tracker", "net/nat", "torrent/task"];

/// What takes something off the disk: drafts and states of our own, what the benchmarks made, and a file of a torrent that
/// was made a moment before and for which there is no space. Never what the user has.
const REMOVALS: &[&str] =
    &["remove_file", "remove_dir", "remove_dir_all", "unlink", "unlinkat", "rmdir", "dir.remove", "fs::rename"];
const REMOVALS_FILES: &[&str] = &[
    "cli/bench",
    "cli/doctor/system",
    "cli/scratch",
    "cli/torrent_file",
    "storage/prepare",
    "storage/state_file",
    "sys/dir",
];

/// What Cargo.toml promises; each has its reason in docs/bug-classes.md.
const PROMISES: &[&str] = &[
    "overflow-checks = true",
    "unsafe_code = \"deny\"",
    "unwrap_used = \"warn\"",
    "expect_used = \"warn\"",
    "panic = \"warn\"",
    "cast_possible_truncation = \"warn\"",
];

/// Lints that no code outside of tests may switch off.
const LINTS: &[&str] =
    &["unwrap_used", "expect_used", "clippy::panic", "cast_possible_wrap", "cast_possible_truncation"];

/// Where a cast of a number that cannot be too large is told so.
const CASTS_FILES: &[&str] = &["cli/dht"];

/// Words that say nothing, or that the field has a better word for (block, request): no identifier is made with them.
const EMPTY_WORDS: &[&str] = &["chunk", "chunks", "subpiece", "manager", "helper", "helpers", "util", "utils"];

/// Names of the standard library and of crates that are used as they are.
const FOREIGN_NAMES: &[&str] = &[
    "array_chunks",
    "as_chunks",
    "as_chunks_mut",
    "as_rchunks",
    "chunk",
    "chunk_by",
    "chunks",
    "chunks_exact",
    "chunks_exact_mut",
    "chunks_mut",
    "first_chunk",
    "first_chunk_mut",
    "last_chunk",
    "rchunks",
    "rchunks_exact",
    "split_first_chunk",
    "split_first_chunk_mut",
    "split_last_chunk",
    "split_last_chunk_mut",
    "utf8_chunks",
];

/// Files and folders are not named so either.
const EMPTY_FILE_NAMES: &[&str] = &["common", "context", "handler", "misc", "types"];

/// Left-overs.
const LEFT_OVERS: &[&str] = &["todo!", "unimplemented!", "dbg!"];

/// Licences under which a dependency may be used; the same as in `deny.toml`.
const LICENSES: &[&str] = &[
    "0BSD",
    "Apache-2.0",
    "Apache-2.0 WITH LLVM-exception",
    "BSD-2-Clause",
    "BSD-3-Clause",
    "BSL-1.0",
    "CC0-1.0",
    "CDLA-Permissive-2.0",
    "ISC",
    "MIT",
    "MIT-0",
    "MPL-2.0",
    "Unicode-3.0",
    "Unlicense",
    "Zlib",
];

// ---------------------------------------------------------------- the tests

#[test]
fn arrows_go_down_only() {
    let sources = sources();
    let mut wrong = Vec::new();
    let mut arrows: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for source in &sources {
        let Some(from) = source.root_module() else {
            // The map and the entry point: lib.rs may show everything, main.rs calls the command line.
            if source.path == "main.rs" {
                for (at, to) in named_after(&source.code, "gannet::") {
                    if to != "cli" {
                        wrong.push(source.at(at, &format!("main.rs uses gannet::{to}; it may use cli only")));
                    }
                }
            }
            continue;
        };
        let Some(layer) = layer_of(from) else {
            wrong
                .push(format!("src/{}: `{from}` has no layer: add it to LAYERS in tests/architecture.rs", source.path));
            continue;
        };
        for (at, to) in named_after(&source.code, "crate::") {
            let Some(other) = layer_of(&to) else {
                wrong.push(source.at(at, &format!("`crate::{to}` hides its layer: name the module it comes from")));
                continue;
            };
            if to == from {
                continue;
            }
            arrows.entry(from.to_owned()).or_default().insert(to.clone());
            if other >= layer && !SIDEWAYS.contains(&(from, to.as_str())) {
                let way = if other > layer { "up" } else { "sideways" };
                wrong.push(source.at(at, &format!("{from} (L{layer}) uses {to} (L{other}): an arrow {way}")));
            }
        }
        for at in source.climbs_to_root() {
            wrong.push(
                source.at(at, "`super::` reaches the crate's root: write `crate::`, so that the arrow can be seen"),
            );
        }
    }
    if let Some(ring) = ring(&arrows) {
        wrong.push(format!("a ring: {}", ring.join(" -> ")));
    }
    report(&wrong);
}

#[test]
fn pure_layers_are_pure() {
    let mut wrong = Vec::new();
    for source in &sources() {
        if source.root_module().and_then(layer_of).is_some_and(|layer| layer <= LAST_PURE_LAYER) {
            for (word, why) in IMPURE {
                wrong.extend(
                    find(&source.code, word)
                        .map(|at| source.at(at, &format!("`{}`: {why}", word.trim_end_matches('*')))),
                );
            }
        }
    }
    report(&wrong);
}

#[test]
fn platforms_and_unsafe_keep_to_their_places() {
    let mut wrong = Vec::new();
    for source in &sources() {
        if !source.is_within(PLATFORM_FILES) {
            for word in PLATFORM {
                let places = find(&source.code, word);
                wrong.extend(places.map(|at| source.at(at, &format!("`{word}` belongs in {PLATFORM_FILES:?}"))));
            }
        }
        if !source.is_within(UNSAFE_FILES) {
            let places = find(&source.code, "unsafe");
            wrong.extend(places.map(|at| source.at(at, &format!("`unsafe` belongs in {UNSAFE_FILES:?}"))));
        }
    }
    report(&wrong);
}

#[test]
fn there_is_one_way_out() {
    let mut wrong = Vec::new();
    for source in &sources() {
        if !source.is_within(WAYS_OUT_FILES) {
            for word in WAYS_OUT {
                let places = find(&source.code, word);
                wrong.extend(places.map(|at| source.at(at, &format!("`{word}` goes past `net::egress`"))));
            }
        }
    }
    report(&wrong);
}

/// Row 51 of docs/bug-classes.md.
#[test]
fn nothing_grows_without_a_bound() {
    let mut wrong = Vec::new();
    for source in &sources() {
        for (word, why) in UNBOUNDED {
            let places = find(&source.code, word);
            wrong.extend(places.map(|at| source.at(at, &format!("`{}`: {why}", word.trim_end_matches('*')))));
        }
        // A bound is a constant with a name and a reason.
        for at in find(&source.code, "mpsc::channel") {
            let call = source.code[at + "mpsc::channel".len()..].trim_start_matches(|c: char| c != '(');
            if !call[1..].starts_with(|c: char| c.is_ascii_uppercase()) {
                wrong.push(source.at(at, "the bound of a channel is a named constant"));
            }
        }
    }
    report(&wrong);
}

/// Rows 4, 44, 45 and 49 of docs/bug-classes.md.
#[test]
fn what_could_do_harm_keeps_to_its_places() {
    let mut wrong = Vec::new();
    let rules = [
        (PROGRAMS, PROGRAMS_FILES),
        (WALL_CLOCK, WALL_CLOCK_FILES),
        (GUESSABLE, GUESSABLE_FILES),
        (REMOVALS, REMOVALS_FILES),
    ];
    for source in &sources() {
        for (words, files) in rules {
            for word in words.iter().filter(|_| !source.is_within(files)) {
                let places = find(&source.code, word);
                wrong.extend(places.map(|at| source.at(at, &format!("`{word}` belongs in {files:?}"))));
            }
        }
    }
    report(&wrong);
}

/// Rows 12 and 50 of docs/bug-classes.md: numbers are checked in what is released, too, and no code outside of tests has
/// itself excused from the lints.
#[test]
fn numbers_and_panics_are_looked_after() {
    let manifest = fs::read_to_string(root().join("Cargo.toml")).expect("Cargo.toml");
    let mut wrong: Vec<String> = PROMISES
        .iter()
        .filter(|promise| !manifest.lines().any(|line| line == **promise))
        .map(|promise| format!("Cargo.toml: no `{promise}`"))
        .collect();
    for source in sources().iter().filter(|source| !source.is_within(CASTS_FILES)) {
        for (at, _) in source.code.match_indices("(clippy::") {
            let end = source.code[at..].find(')').map_or(source.code.len(), |end| at + end);
            for lint in LINTS.iter().filter(|lint| source.code[at..end].contains(**lint)) {
                wrong.push(source.at(at, &format!("`{lint}` is switched off")));
            }
        }
    }
    report(&wrong);
}

#[test]
fn names_say_something() {
    let mut wrong = Vec::new();
    for source in &sources() {
        for (at, name) in identifiers(&source.code) {
            let foreign =
                FOREIGN_NAMES.contains(&name) && matches!(source.code[..at].bytes().next_back(), Some(b'.' | b':'));
            if let Some(word) = words_of(name).find(|word| EMPTY_WORDS.contains(&word.as_str()))
                && !foreign
            {
                wrong.push(source.at(at, &format!("`{name}`: not with the word `{word}`")));
            }
        }
        for part in source.path.trim_end_matches(".rs").split('/') {
            if EMPTY_FILE_NAMES.contains(&part) || words_of(part).any(|word| EMPTY_WORDS.contains(&word.as_str())) {
                wrong.push(format!("src/{}: `{part}` is no name for a file", source.path));
            }
        }
    }
    report(&wrong);
}

#[test]
fn nothing_is_left_to_do() {
    let mut wrong = Vec::new();
    for source in &sources() {
        for word in LEFT_OVERS {
            wrong.extend(find(&source.code_and_tests, word).map(|at| source.at(at, &format!("`{word}`"))));
        }
    }
    report(&wrong);
}

/// `//! L<n>: ...`, `//! For: ...`, `//! Must not know: ...`, and what else there is to say.
#[test]
fn every_module_says_what_it_is_for() {
    let mut wrong = Vec::new();
    for source in sources().iter().filter(|source| source.path.ends_with("/mod.rs")) {
        let header: Vec<&str> = source.text.lines().take_while(|line| line.starts_with("//!")).collect();
        let first = header.first().copied().unwrap_or("");
        // The modules of the root name their layer, those within them need not.
        let layer = source.root_module().and_then(layer_of).filter(|_| source.path.split('/').count() == 2);
        let wanted = layer.map_or("//! ".to_owned(), |layer| format!("//! L{layer}"));
        let ends = |rest: &str| layer.is_none() || rest.starts_with([':', ',']);
        if !first.strip_prefix(&wanted).is_some_and(ends) {
            wrong.push(format!("src/{}:1: begins with `{wanted}: ...`, not with `{first}`", source.path));
        }
        for part in ["//! For: ", "//! Must not know: "] {
            if !header.iter().any(|line| line.starts_with(part)) {
                wrong.push(format!("src/{}:1: its header has no line `{part}...`", source.path));
            }
        }
    }
    report(&wrong);
}

/// A stand-in for `cargo deny check licenses`, which takes minutes to build: every crate that may be linked in has a
/// licence of which at least one way of choosing is allowed.
#[test]
fn dependencies_may_be_used() {
    // All platforms' crates if they can be had; without a network those of this one, which are here.
    let host = rust("RUSTC", "rustc", &["-vV"]).expect("rustc -vV");
    let host = host.lines().find_map(|line| line.strip_prefix("host: ")).expect("the host's triple");
    let metadata = ["metadata", "--format-version", "1", "--locked"];
    let metadata = rust("CARGO", "cargo", &metadata)
        .or_else(|_| rust("CARGO", "cargo", &[&metadata[..], &["--offline", "--filter-platform", host]].concat()))
        .unwrap_or_else(|why| panic!("cargo metadata: {why}"));
    let metadata: serde_json::Value = serde_json::from_str(&metadata).expect("JSON");
    let packages = metadata["packages"].as_array().expect("packages");
    assert!(packages.len() > 1, "a crate without dependencies?");
    let mut wrong = Vec::new();
    for package in packages {
        let name =
            format!("{} {}", package["name"].as_str().unwrap_or("?"), package["version"].as_str().unwrap_or("?"));
        match package["license"].as_str() {
            None => wrong.push(format!("{name}: no licence expression")),
            Some(expression) if !allows(expression) => wrong.push(format!("{name}: {expression}")),
            Some(_) => {}
        }
    }
    report(&wrong);
    // Two lists, one rule.
    let deny = fs::read_to_string(root().join("deny.toml")).expect("deny.toml");
    for license in LICENSES {
        assert!(deny.contains(&format!("\"{license}\"")), "{license} is allowed here but not in deny.toml");
    }
}

/// The output of a tool of the toolchain that runs this test, or what went wrong.
fn rust(variable: &str, name: &str, arguments: &[&str]) -> Result<String, String> {
    let program = env::var_os(variable).unwrap_or_else(|| name.into());
    let output =
        Command::new(program).args(arguments).current_dir(root()).output().map_err(|error| error.to_string())?;
    if output.status.success() {
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    } else {
        Err(String::from_utf8_lossy(&output.stderr).into_owned())
    }
}

/// Whether some way to read an SPDX expression has only allowed licences. `AND` binds tighter than `OR`.
fn allows(expression: &str) -> bool {
    let spaced = expression.replace('/', " OR ").replace('(', " ( ").replace(')', " ) ").replace(" WITH ", "\u{1}");
    let tokens: Vec<&str> = spaced.split_whitespace().collect();
    let mut at = 0;
    let answer = any_of(&tokens, &mut at);
    return answer && at == tokens.len();

    fn any_of(tokens: &[&str], at: &mut usize) -> bool {
        let mut answer = all_of(tokens, at);
        while tokens.get(*at) == Some(&"OR") {
            *at += 1;
            answer |= all_of(tokens, at);
        }
        answer
    }
    fn all_of(tokens: &[&str], at: &mut usize) -> bool {
        let mut answer = one(tokens, at);
        while tokens.get(*at) == Some(&"AND") {
            *at += 1;
            answer &= one(tokens, at);
        }
        answer
    }
    fn one(tokens: &[&str], at: &mut usize) -> bool {
        let token = tokens.get(*at).copied().unwrap_or("");
        *at += 1;
        if token == "(" {
            let answer = any_of(tokens, at);
            *at += 1;
            return answer;
        }
        LICENSES.contains(&token.replace('\u{1}', " WITH ").as_str())
    }
}

fn report(wrong: &[String]) {
    assert!(wrong.is_empty(), "{} found:\n  {}\n", wrong.len(), wrong.join("\n  "));
}

// ---------------------------------------------------------------- reading the source

struct Source {
    /// Below `src`, with `/`.
    path: String,
    text: String,
    /// Without comments, contents of strings, and tests.
    code: String,
    /// Without comments and contents of strings.
    code_and_tests: String,
}

impl Source {
    /// `FILE:LINE: WHAT`.
    fn at(&self, position: usize, what: &str) -> String {
        let line = self.code[..position].bytes().filter(|&byte| byte == b'\n').count() + 1;
        format!("src/{}:{line}: {what}", self.path)
    }

    /// The module of the crate's root that it belongs to; none for `lib.rs` and `main.rs`.
    fn root_module(&self) -> Option<&str> {
        let first = self.path.split('/').next()?.trim_end_matches(".rs");
        (!matches!(first, "lib" | "main")).then_some(first)
    }

    /// Whether it is one of these files, or lies in one of these folders.
    fn is_within(&self, places: &[&str]) -> bool {
        let path = self.path.trim_end_matches(".rs");
        places.iter().any(|place| path.strip_prefix(place).is_some_and(|rest| rest.is_empty() || rest.starts_with('/')))
    }

    /// Where a chain of `super::` leaves the module of the root.
    fn climbs_to_root(&self) -> Vec<usize> {
        let path = self.path.trim_end_matches(".rs").trim_end_matches("/mod");
        let depth = path.split('/').count();
        let inline = inline_modules(&self.code);
        let mut found = Vec::new();
        let mut chain_end = 0;
        for at in find(&self.code, "super::") {
            if at < chain_end {
                continue;
            }
            let count = self.code[at..].split("super::").skip(1).take_while(|between| between.is_empty()).count() + 1;
            chain_end = at + count * "super::".len();
            let inner = inline.iter().filter(|body| body.contains(&at)).count();
            if count >= depth + inner {
                found.push(at);
            }
        }
        found
    }
}

fn root() -> PathBuf {
    // As cargo runs it, so that one build can look at another tree.
    env::var_os("CARGO_MANIFEST_DIR").map_or_else(|| env!("CARGO_MANIFEST_DIR").into(), PathBuf::from)
}

/// Every file below `src` except those that are tests.
fn sources() -> Vec<Source> {
    let src = root().join("src");
    let mut paths = Vec::new();
    let mut open = vec![src.clone()];
    while let Some(folder) = open.pop() {
        for entry in fs::read_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display())) {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                open.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                paths.push(path);
            }
        }
    }
    paths.sort();
    assert!(paths.len() > 10, "{} is not the source tree", src.display());
    let mut tests: Vec<PathBuf> = Vec::new();
    let mut sources = Vec::new();
    for path in paths {
        let text = fs::read_to_string(&path).expect("UTF-8");
        let code_and_tests = blank_comments_and_strings(&text);
        let (code, modules) = blank_tests(&code_and_tests, &text);
        for module in modules {
            tests.extend(files_of(&path, &module));
        }
        let below = path.strip_prefix(&src).expect("below src");
        let parts: Vec<_> = below.components().map(|part| part.as_os_str().to_string_lossy().into_owned()).collect();
        sources.push((path, Source { path: parts.join("/"), text, code, code_and_tests }));
    }
    sources.retain(|(path, _)| !tests.iter().any(|test| path == test || path.starts_with(test)));
    sources.into_iter().map(|(_, source)| source).collect()
}

/// Where a module declared in `file` may lie: a file, or a folder.
fn files_of(file: &Path, module: &TestModule) -> Vec<PathBuf> {
    let folder = file.parent().expect("a folder");
    match module {
        TestModule::Path(path) => vec![folder.join(path)],
        TestModule::Name(name) => {
            let stem = file.file_stem().and_then(|stem| stem.to_str()).unwrap_or("");
            let base = if matches!(stem, "mod" | "lib" | "main") { folder.to_owned() } else { folder.join(stem) };
            vec![base.join(format!("{name}.rs")), base.join(name)]
        }
    }
}

fn layer_of(module: &str) -> Option<u8> {
    LAYERS.iter().find(|(name, _)| *name == module).map(|(_, layer)| *layer)
}

/// A way round in the graph, if there is one.
fn ring(arrows: &BTreeMap<String, BTreeSet<String>>) -> Option<Vec<String>> {
    fn visit(
        at: &str,
        arrows: &BTreeMap<String, BTreeSet<String>>,
        way: &mut Vec<String>,
        done: &mut BTreeSet<String>,
    ) -> bool {
        let been = way.iter().position(|one| one == at);
        way.push(at.to_owned());
        if let Some(start) = been {
            way.drain(..start);
            return true;
        }
        if !done.contains(at) && arrows.get(at).into_iter().flatten().any(|next| visit(next, arrows, way, done)) {
            return true;
        }
        done.insert(at.to_owned());
        way.pop();
        false
    }
    let mut done = BTreeSet::new();
    arrows.keys().find_map(|start| {
        let mut way = Vec::new();
        visit(start, arrows, &mut way, &mut done).then_some(way)
    })
}

// ---------------------------------------------------------------- a little lexing

fn is_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_' || byte >= 0x80
}

/// Where `word` stands as a word of its own; with a trailing `*`, where a word begins with it.
fn find<'a>(code: &'a str, word: &'a str) -> impl Iterator<Item = usize> + 'a {
    let (needle, open) = word.strip_suffix('*').map_or((word, false), |stem| (stem, true));
    code.match_indices(needle).map(|(at, _)| at).filter(move |&at| {
        let bytes = code.as_bytes();
        let begins = !is_word(needle.as_bytes()[0]) || at == 0 || !is_word(bytes[at - 1]);
        let end = at + needle.len();
        let ends = open || !is_word(bytes[end - 1]) || !bytes.get(end).is_some_and(|&byte| is_word(byte));
        begins && ends
    })
}

/// Every identifier, keyword and number.
fn identifiers(code: &str) -> impl Iterator<Item = (usize, &str)> {
    let mut at = 0;
    code.split(|c: char| c.is_ascii() && !is_word(c as u8)).filter_map(move |word| {
        let start = at;
        at += word.len() + 1;
        (!word.is_empty()).then_some((start, word))
    })
}

/// The words that an identifier is made of, in lower case: `HTTPServer_pool2` has `httpserver` and `pool2`.
fn words_of(identifier: &str) -> impl Iterator<Item = String> {
    let mut words = vec![String::new()];
    let mut lower_before = false;
    for c in identifier.chars() {
        if c == '_' || (c.is_uppercase() && lower_before) {
            words.push(String::new());
        }
        lower_before = c.is_lowercase();
        if c != '_' {
            words.last_mut().expect("never empty").extend(c.to_lowercase());
        }
    }
    words.into_iter().filter(|word| !word.is_empty())
}

/// The first segment of every path that begins with `prefix`, also within braces: `crate::{base::Block, wire}`.
fn named_after(code: &str, prefix: &str) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    for at in find(code, prefix) {
        let rest = &code[at + prefix.len()..];
        let Some(list) = rest.strip_prefix('{') else {
            found.push((at, leading_word(rest)));
            continue;
        };
        let mut depth = 1;
        let mut item = true;
        for (offset, c) in list.char_indices() {
            match c {
                '{' => depth += 1,
                '}' => depth -= 1,
                ',' if depth == 1 => item = true,
                _ if depth == 1 && item && !c.is_whitespace() => {
                    found.push((at + prefix.len() + 1 + offset, leading_word(&list[offset..])));
                    item = false;
                }
                _ => {}
            }
            if depth == 0 {
                break;
            }
        }
    }
    found
}

fn leading_word(text: &str) -> String {
    text.chars().take_while(|&c| c.is_alphanumeric() || c == '_').collect()
}

/// The bodies of `mod name { ... }`.
fn inline_modules(code: &str) -> Vec<Range<usize>> {
    let mut found = Vec::new();
    for at in find(code, "mod") {
        let after = code[at + 3..].trim_start();
        let rest = after.trim_start_matches(|c: char| c.is_alphanumeric() || c == '_');
        if rest.len() < after.len() && rest.trim_start().starts_with('{') {
            let open = code.len() - rest.trim_start().len();
            found.push(open..end_of_braces(code, open));
        }
    }
    found
}

/// The position behind the brace that closes the one at `open`.
fn end_of_braces(code: &str, open: usize) -> usize {
    let mut depth = 0_usize;
    for (offset, byte) in code.bytes().enumerate().skip(open) {
        match byte {
            b'{' => depth += 1,
            b'}' if depth == 1 => return offset + 1,
            b'}' => depth -= 1,
            _ => {}
        }
    }
    code.len()
}

/// A module that exists in tests only and lies in a file of its own.
#[derive(Debug, PartialEq)]
enum TestModule {
    Name(String),
    Path(String),
}

/// Blanks every item under `#[cfg(test)]`; also the modules among them that are other files. `text` is the same file
/// with its strings, for `#[path = "..."]`.
fn blank_tests(code: &str, text: &str) -> (String, Vec<TestModule>) {
    let mut blanked = code.as_bytes().to_vec();
    let mut modules = Vec::new();
    let mut from = 0;
    while let Some(at) = ["#[cfg(test)]", "#[cfg(all(test"].iter().filter_map(|mark| code[from..].find(mark)).min() {
        let start = from + at;
        // Past this attribute and those that follow it.
        let mut item = start;
        while code[item..].starts_with('#') {
            item = end_of_attribute(code, item);
            item += code[item..].len() - code[item..].trim_start().len();
        }
        let stop = code[item..].find([';', '{']).map_or(code.len(), |offset| item + offset);
        let is_block = code[stop..].starts_with('{');
        let end = if is_block { end_of_braces(code, stop) } else { (stop + 1).min(code.len()) };
        let head = code[item..stop].trim();
        if let Some((_, name)) =
            head.split_once("mod ").filter(|(before, _)| before.is_empty() || before.starts_with("pub"))
            && !is_block
        {
            let path = text[start..item].split_once("#[path").and_then(|(_, rest)| rest.split('"').nth(1));
            modules.push(
                path.map_or_else(|| TestModule::Name(name.trim().to_owned()), |path| TestModule::Path(path.to_owned())),
            );
        }
        for byte in &mut blanked[start..end] {
            if *byte != b'\n' {
                *byte = b' ';
            }
        }
        from = end;
    }
    (String::from_utf8(blanked).expect("only whole characters are blanked"), modules)
}

/// The position behind the attribute that begins at `at`.
fn end_of_attribute(code: &str, at: usize) -> usize {
    let mut depth = 0_usize;
    for (offset, byte) in code.bytes().enumerate().skip(at) {
        match byte {
            b'[' => depth += 1,
            b']' if depth == 1 => return offset + 1,
            b']' => depth -= 1,
            _ => {}
        }
    }
    code.len()
}

/// Replaces comments and what is inside string and character literals with spaces, byte for byte.
fn blank_comments_and_strings(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut out = bytes.to_vec();
    let mut at = 0;
    while at < bytes.len() {
        let rest = &bytes[at..];
        let after_word = at > 0 && is_word(bytes[at - 1]);
        let blank = match rest {
            [b'/', b'/', ..] => {
                let end = rest.iter().position(|&byte| byte == b'\n').unwrap_or(rest.len());
                Some((0, end, end))
            }
            [b'/', b'*', ..] => {
                let end = end_of_block_comment(rest);
                Some((0, end, end))
            }
            [b'"', ..] => {
                let end = end_of_string(rest, 1);
                Some((1, end - 1, end))
            }
            [b'r', b'"' | b'#', ..] if !after_word || bytes[at - 1] == b'b' || bytes[at - 1] == b'c' => {
                raw_string(rest)
            }
            [b'\'', b'\\', _, more @ ..] => {
                let end = 3 + more.iter().position(|&byte| byte == b'\'').map_or(more.len(), |offset| offset + 1);
                Some((1, end - 1, end))
            }
            // A character; otherwise it is a lifetime.
            [b'\'', ..] => {
                let length = text[at + 1..].chars().next().map_or(0, char::len_utf8);
                (rest.get(1 + length) == Some(&b'\'')).then_some((1, 1 + length, 2 + length))
            }
            _ => None,
        };
        let Some((start, stop, end)) = blank else {
            at += 1;
            continue;
        };
        for byte in &mut out[at + start..at + stop] {
            if *byte != b'\n' {
                *byte = b' ';
            }
        }
        at += end;
    }
    String::from_utf8(out).expect("only whole characters are blanked")
}

fn end_of_block_comment(bytes: &[u8]) -> usize {
    let (mut depth, mut at) = (0, 0);
    while at < bytes.len() {
        match bytes[at..] {
            [b'/', b'*', ..] => (depth, at) = (depth + 1, at + 2),
            [b'*', b'/', ..] if depth == 1 => return at + 2,
            [b'*', b'/', ..] => (depth, at) = (depth - 1, at + 2),
            _ => at += 1,
        }
    }
    bytes.len()
}

/// The position behind the closing quote, looking from `from`.
fn end_of_string(bytes: &[u8], from: usize) -> usize {
    let mut at = from;
    while at < bytes.len() {
        match bytes[at] {
            b'\\' => at += 2,
            b'"' => return at + 1,
            _ => at += 1,
        }
    }
    bytes.len()
}

/// `r"..."`, `r#"..."#`: where the contents begin and end, and where the literal ends.
fn raw_string(bytes: &[u8]) -> Option<(usize, usize, usize)> {
    let hashes = bytes[1..].iter().take_while(|&&byte| byte == b'#').count();
    let start = 2 + hashes;
    if bytes.get(start - 1) != Some(&b'"') {
        return None; // r#identifier
    }
    let close = format!("\"{}", "#".repeat(hashes));
    let length = bytes[start..].windows(close.len()).position(|window| window == close.as_bytes())?;
    Some((start, start + length, start + length + close.len()))
}

// ---------------------------------------------------------------- and the lexing itself

#[test]
fn comments_strings_and_tests_are_not_looked_at() {
    let text = "use a; // tokio\n/* x /* y */ tokio */ let s = \"to\\\"kio\"; let r = r#\"a\"tokio\"#;\nlet c = '\"'; let l: &'a str = b\"x\";\n\
                #[cfg(test)]\n#[path = \"odd_tests.rs\"]\nmod tests;\n#[cfg(test)]\nmod more;\n#[cfg(test)]\nmod inline { fn tokio() {} }\nfn after() {}\n";
    let code = blank_comments_and_strings(text);
    assert_eq!(code.len(), text.len());
    assert_eq!(find(&code, "tokio").count(), 1, "the one in the test module: {code}");
    let (code, modules) = blank_tests(&code, text);
    assert_eq!(find(&code, "tokio").count(), 0, "{code}");
    assert!(code.contains("fn after() {}"));
    assert_eq!(code.matches('\n').count(), text.matches('\n').count());
    assert_eq!(modules, [TestModule::Path("odd_tests.rs".into()), TestModule::Name("more".into())]);
    assert!(code.contains("let l: &'a str = b\" \";"), "{code}");
}

#[test]
fn paths_words_rings_and_licences_are_read() {
    let names = |code: &str| named_after(code, "crate::").into_iter().map(|(_, name)| name).collect::<Vec<_>>();
    assert_eq!(names("use crate::base::Block; fn f(x: &crate::wire::Message) {}"), ["base", "wire"]);
    assert_eq!(names("use crate::{\n    base::{Block, Geometry},\n    hash,\n};"), ["base", "hash"]);
    assert_eq!(words_of("ChunkManager_of2").collect::<Vec<_>>(), ["chunk", "manager", "of2"]);
    assert_eq!(find("a_tokio tokio::x tokio_util", "tokio").collect::<Vec<_>>(), [8]);
    assert_eq!(find("unbounded_channel()", "unbounded*").count(), 1);
    let source = |path: &str, code: &str| Source {
        path: path.into(),
        text: String::new(),
        code: code.into(),
        code_and_tests: String::new(),
    };
    assert_eq!(source("wire/mod.rs", "use super::base;").climbs_to_root().len(), 1);
    assert_eq!(source("wire/decoder.rs", "use super::Message;").climbs_to_root().len(), 0);
    assert_eq!(source("wire/decoder.rs", "use super::super::base;").climbs_to_root(), [4]);
    assert_eq!(source("sys.rs", "mod linux { use super::Answer; }").climbs_to_root().len(), 0);
    let graph = |arrows: &[(&str, &str)]| {
        let mut graph: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        for (from, to) in arrows {
            graph.entry((*from).to_owned()).or_default().insert((*to).to_owned());
        }
        ring(&graph)
    };
    assert_eq!(graph(&[("a", "b"), ("a", "c"), ("b", "c")]), None);
    assert_eq!(graph(&[("a", "b"), ("b", "c"), ("c", "b")]), Some(vec!["b".into(), "c".into(), "b".into()]));
    assert!(
        allows("MIT OR GPL-3.0")
            && allows("(MIT OR Apache-2.0) AND Unicode-3.0")
            && allows("Apache-2.0 WITH LLVM-exception")
    );
    assert!(!allows("GPL-3.0") && !allows("MIT AND GPL-3.0") && !allows("") && allows("Unlicense/MIT"));
}

/// What docs/limits.md calls a constant has to be one.
#[test]
fn limits_that_are_named_exist() {
    let page = fs::read_to_string(root().join("docs/limits.md")).expect("docs/limits.md");
    let sources = sources();
    let declared = |name: &str| {
        sources.iter().any(|source| {
            ["const ", "pub const "].iter().any(|before| match name.split_once('*') {
                Some((start, "")) => source.code.contains(&format!("{before}{start}")),
                Some((_, end)) => source.code.contains(&format!("{end}:")),
                None => source.code.contains(&format!("{before}{name}:")),
            })
        })
    };
    let named: BTreeSet<&str> = page
        .split('`')
        .skip(1)
        .step_by(2)
        .filter(|name| {
            name.contains('_') && name.chars().all(|c| c.is_ascii_uppercase() || c.is_ascii_digit() || "_*".contains(c))
        })
        .collect();
    assert!(named.len() > 100, "{named:?}");
    let missing: Vec<&&str> = named.iter().filter(|name| !declared(name)).collect();
    assert!(missing.is_empty(), "no such constant: {missing:?}");
    // Files too.
    let src = root().join("src");
    for file in page.split('`').skip(1).step_by(2).filter(|name| name.ends_with(".rs") && name.contains('/')) {
        let path = file.strip_prefix("src/").unwrap_or(file);
        assert!(src.join(path).exists() || root().join(file).exists(), "{file}");
    }
}

/// What the documentation says is shown by a test has to be a test.
#[test]
fn tests_that_are_named_exist() {
    let mut tests = BTreeSet::new();
    for folder in ["src", "tests"] {
        let mut folders = vec![root().join(folder)];
        let mut files = Vec::new();
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(folder).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() {
                    folders.push(path);
                } else if path.extension().is_some_and(|extension| extension == "rs") {
                    files.push(path);
                }
            }
        }
        for path in files {
            let text = fs::read_to_string(&path).unwrap();
            tests.extend(
                text.split("fn ").skip(1).map(|rest| {
                    rest.chars().take_while(|c| c.is_ascii_alphanumeric() || *c == '_').collect::<String>()
                }),
            );
        }
    }
    let mut missing = Vec::new();
    for page in ["docs/reliability.md", "docs/bug-classes.md", "docs/fuzzing.md"] {
        let Ok(text) = fs::read_to_string(root().join(page)) else { continue };
        // Names of tests have several parts and no capital letters; files and options look otherwise.
        for name in text.split('`').skip(1).step_by(2) {
            let is_name = name.matches('_').count() >= 2
                && name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_')
                && !name.ends_with('_');
            if is_name && !tests.contains(name) {
                missing.push(format!("{page}: {name}"));
            }
        }
    }
    assert!(missing.is_empty(), "no such test: {missing:#?}");
}
