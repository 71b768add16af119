//! The program as its users meet it: what it prints where, and what it ends with.
#![expect(clippy::unwrap_used, clippy::cast_possible_truncation, reason = "a failure here is a failed test")]

use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use serde_json::Value;
use tempfile::TempDir;

/// A folder to work in, with a home of its own so that nobody's settings interfere.
struct Place(TempDir);

impl Place {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("home")).unwrap();
        Self(dir)
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    fn write(&self, path: &str, bytes: impl AsRef<[u8]>) {
        let path = self.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, bytes).unwrap();
    }

    /// Three files of several pieces in the folder `data`.
    fn with_data() -> Self {
        let place = Self::new();
        let bytes = |seed: u64, len: u64| (0..len).map(|i| (i * seed / 7 + i / 251) as u8).collect::<Vec<u8>>();
        place.write("data/a.bin", bytes(3, 100_000));
        place.write("data/sub/b.bin", bytes(5, 70_000));
        place.write("data/sub/c.txt", "hello");
        place
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_gannet"));
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("GANNET_") || name.to_string_lossy().starts_with("XDG_") {
                command.env_remove(name);
            }
        }
        command.env_remove("SOURCE_DATE_EPOCH").env("HOME", self.path().join("home"));
        // Nothing beyond this machine.
        command.env("GANNET_NO_DHT", "1").env("GANNET_NO_PORT_MAPPING", "1");
        command.current_dir(self.path()).args(args).stdin(Stdio::null());
        command
    }

    fn run(&self, args: &[&str]) -> Output {
        self.command(args).output().unwrap()
    }

    /// Standard output of a run that must succeed.
    fn ok(&self, args: &[&str]) -> String {
        let output = self.run(args);
        assert_eq!(output.status.code(), Some(0), "{args:?}: {}", text(&output.stderr));
        text(&output.stdout)
    }

    fn json(&self, args: &[&str]) -> Value {
        serde_json::from_str(&self.ok(args)).unwrap()
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

/// One line that begins with the program's name, and nothing that steers a terminal.
#[track_caller]
fn one_line(output: &Output) -> String {
    let line = text(&output.stderr);
    assert!(line.starts_with("gannet: ") && line.ends_with('\n') && line.lines().count() == 1, "{line:?}");
    assert!(!line.trim_end().contains(|c: char| c.is_control()), "{line:?}");
    line
}

#[test]
fn every_mistake_has_its_code_and_one_line() {
    let place = Place::with_data();
    place.ok(&["create", "data", "--no-date"]);
    place.ok(&["create", "data/a.bin", "--no-date"]);
    place.write("garbage.torrent", "d4:infoi1e");
    place.write("page.torrent", "<!DOCTYPE html><html></html>");
    place.write("empty.torrent", "");
    place.write("deep.torrent", "l".repeat(100_000));
    place.write("bad.toml", "limit-down = 'fast'\n");
    place.write("unknown.toml", "# mine\nlimits = 5\n");
    fs::create_dir(place.path().join("hollow")).unwrap();
    let hash = "0123456789abcdef0123456789abcdef01234567";
    let magnet = format!("magnet:?xt=urn:btih:{hash}&tr=http%3A%2F%2Ft%2FSECRET");
    let cases: &[(&[&str], i32, &str)] = &[
        (&["frobnicate"], 2, "frobnicate"),
        (&["get"], 2, "SOURCE"),
        (&["get", "--no-such-option", "x"], 2, "--no-such-option"),
        (&["get", "--limit-down", "fast", "data.torrent"], 2, "--limit-down"),
        (&["get", "--timeout", "soon", "data.torrent"], 2, "30s"),
        (&["get", "-q", "-v", "data.torrent"], 2, "cannot be used with"),
        (&["get", "data.torrent", "--select", "99"], 2, "--select 99"),
        (&["get", "data.torrent", "--select", "["], 2, "--select"),
        (&["get", "data.torrent", "--exclude", "data"], 2, "none of its files is selected"),
        (&["get", "data.torrent", "data.torrent"], 2, "twice"),
        (&["get", "data.torrent", "a.bin.torrent", "--save-torrent", "x"], 2, "--save-torrent x"),
        (&["create", "data", "-o", "/proc/x.torrent"], 4, "/proc"),
        (&["share", "data", "-o", "/proc/x.torrent"], 4, "--output names another place"),
        (&["share"], 2, "PATH"),
        (&["share", "none"], 4, "none: no such file"),
        (&["share", "data", "data/a.bin", "-o", "x.torrent"], 2, "name a folder"),
        (&["share", "data", "data/a.bin", "--name", "x"], 2, "--name"),
        (&["share", "data", "-o", "-"], 2, "standard output"),
        (&["share", "data", "-o", "page.torrent"], 2, "--force"),
        (&["info", "-q", "--no-dht", "--no-lsd", "--no-trackers", "--timeout", "1s", &magnet], 5, "no progress"),
        (&["get", "none.torrent"], 4, "none.torrent: no such file"),
        (&["get", "garbage.torrent"], 3, "garbage.torrent: "),
        (&["get", "-q", "--no-dht", "--no-lsd", "--timeout", "1s", &magnet], 5, "no progress"),
        (&["get", "-q", "--no-dht", "--no-lsd", "--timeout", "1s", hash], 5, "no progress"),
        (&["get", "http://127.0.0.1:1/x.torrent"], 5, "http://127.0.0.1:1/..."),
        (&["get", "data.torrent", "--peer", "nowhere"], 2, "--peer"),
        (&["get", "data.torrent", "--ip-filter", "none.dat"], 4, "none.dat: no such file"),
        (&["get", "data.torrent", "--ip-filter", "page.torrent"], 3, "page.torrent: no list of addresses"),
        (&["seed", "data.torrent", "none"], 4, "none: no such file"),
        (&["seed", "data.torrent", "data/a.bin"], 2, "a folder of files"),
        (&["seed", "a.bin.torrent", "data"], 2, "did you mean data/a.bin?"),
        (&["seed", "data.torrent", "."], 2, "did you mean ./data?"),
        (&["info", "none.torrent"], 4, "none.torrent: no such file"),
        (&["info", "empty.torrent"], 3, "empty.torrent: "),
        (&["info", "deep.torrent"], 3, "deep.torrent: "),
        (&["info", "page.torrent"], 3, "web page"),
        (&["info", "data"], 3, "a folder"),
        (&["info", "-"], 3, "standard input: "),
        (&["info", "magnet:?dn=x"], 3, "magnet:?dn=x: "),
        (&["info", "--offline", "http://127.0.0.1:1/x"], 2, "--offline"),
        (&["magnet", &magnet], 3, ""),
        (&["create", "none"], 4, "none: no such file"),
        (&["create", "hollow"], 2, "hollow: "),
        (&["create", "data"], 2, "--force"),
        (&["create", "data", "-o", "no/such/folder/x.torrent"], 4, "no/such/folder: no such file"),
        (&["create", "data", "-o", "hollow"], 2, "a folder"),
        (&["create", "data", "--piece-length", "256k"], 2, "256KiB would be"),
        (&["create", "data", "--tracker", "t.example"], 2, "--tracker"),
        (&["create", "data", "--node", "x"], 2, "--node x"),
        (&["create", "data", "--exclude", "["], 2, "--exclude"),
        (&["create", "data", "--name", "a/b", "-o", "ab.torrent"], 2, "a/b"),
        (&["verify", "data.torrent", "data/a.bin"], 2, "a folder of files"),
        (&["scrape", "data.torrent"], 5, "no trackers"),
        (&["bench", "speed"], 2, "gannet bench --help"),
        (&["bench", "loopback", "--leechers", "0"], 2, "gannet bench loopback --help"),
        (&["bench", "loopback", "--connections", "9", "--processes"], 2, "cannot be used with"),
        (&["bench", "hash", "--size", "1k"], 2, "from 64KiB"),
        (&["bench", "disk", "--dir", "none"], 4, "none: no such file"),
        (&["bench", "disk", "--size", "1TiB", "--piece-length", "16KiB"], 2, "--piece-length"),
        (&["bench", "loopback", "--size", "1TiB", "--piece-length", "16KiB"], 2, "--piece-length"),
        (&["bench", "hash", "--size", "64KiB", "--runs", "1", "--plot", "no/such/a.svg"], 4, "no/such"),
        (&["config", "--config", "none.toml"], 2, "none.toml: no such file"),
        (&["config", "--config", "bad.toml"], 2, "bad.toml:1: invalid value 'fast'"),
        (&["info", "data.torrent", "--config", "unknown.toml"], 2, "unknown.toml:2: there is no setting 'limits'"),
    ];
    for (args, code, want) in cases {
        let output = place.run(args);
        assert_eq!(output.status.code(), Some(*code), "{args:?}: {}", text(&output.stderr));
        let line = one_line(&output);
        assert!(line.contains(want), "{args:?}: {line}");
        assert!(!line.contains("SECRET"), "{line}");
        assert!(output.stdout.is_empty(), "{args:?}");
    }
}

/// Without a network, and within its time whatever there is: what is wrong with the disk is the disk's.
#[test]
fn doctor_judges() {
    let place = Place::new();
    let offline = |dir: &str| place.run(&["doctor", "--listen", "127.0.0.1:0", "--json", "-d", dir]);
    let output = offline("new/folder");
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let shown: Value = serde_json::from_slice(&output.stdout).unwrap();
    let checks = shown["checks"].as_array().unwrap();
    let check = |name: &str| checks.iter().find(|check| check["check"] == name);
    assert!(check("listening").unwrap()["says"].as_str().unwrap().starts_with("127.0.0.1:"), "{shown}");
    assert!(check("folder").unwrap()["says"].as_str().unwrap().contains("new/folder"), "{shown}");
    assert!(check("space").is_some() && check("files").is_some() && check("buffers").is_some(), "{shown}");
    assert!(check("ipv4").is_none() && check("dht").is_none() && check("port").is_none(), "{shown}");
    assert!(shown["facts"]["free_bytes"].as_u64().is_some_and(|free| free > 0), "{shown}");
    assert!(!place.path().join("new").exists(), "it only looks");
    std::fs::write(place.path().join("file"), "").unwrap();
    let output = offline("file/below");
    assert_eq!(output.status.code(), Some(4), "{output:?}");
    assert!(text(&output.stdout).contains("\"bad\""));
    let output = place.run(&["doctor", "--listen", "127.0.0.1:0", "--bind-device", "none-such"]);
    assert_eq!(output.status.code(), Some(5), "{output:?}");
    let shown = text(&output.stdout);
    assert!(shown.contains("there is no such device") && shown.contains("-> "), "{shown}");
}

#[test]
fn help_is_a_result() {
    let place = Place::new();
    let help = place.ok(&["--help"]);
    for command in [
        "get",
        "seed",
        "create",
        "info",
        "verify",
        "magnet",
        "scrape",
        "bench",
        "demo",
        "doctor",
        "completions",
        "man",
        "config",
    ] {
        assert!(help.contains(&format!("\n  {command} ")), "{command}: {help}");
        let own = place.ok(&[command, "--help"]);
        assert!(own.contains("Usage: gannet"), "{own}");
    }
    assert!(!place.ok(&["get", "-h"]).contains("--no-dht"));
    assert!(place.ok(&["get", "--help"]).contains("--no-dht"));
    assert_eq!(place.ok(&["--version"]), format!("gannet {}\n", env!("CARGO_PKG_VERSION")));
    let nothing = place.run(&[]);
    assert_eq!(nothing.status.code(), Some(2));
    assert!(text(&nothing.stderr).contains("Usage:"));
}

#[test]
fn created_and_shown() {
    let place = Place::with_data();
    for (format, v1, v2) in [("v1", true, false), ("v2", false, true), ("hybrid", true, true)] {
        let file = format!("{format}.torrent");
        let made = place.json(&[
            "create",
            "data",
            "--format",
            format,
            "-o",
            &file,
            "--piece-length",
            "16KiB",
            "--json",
            "--private",
            "--tracker",
            "http://a.example/announce,udp://b.example:1",
            "--tracker",
            "http://c.example/announce",
            "--web-seed",
            "http://w.example/",
            "--node",
            "d.example:6881",
            "--source",
            "S",
            "--comment",
            "C",
        ]);
        let info = place.json(&["info", "--json", &file]);
        for key in ["name", "info_hash_v1", "info_hash_v2", "total_size", "piece_length", "piece_count", "magnet"] {
            assert_eq!(made[key], info[key], "{key}");
        }
        assert_eq!((info["version"].as_str(), info["name"].as_str()), (Some(format), Some("data")));
        assert_eq!(info["info_hash_v1"].as_str().map(str::len), v1.then_some(40));
        assert_eq!(info["info_hash_v2"].as_str().map(str::len), v2.then_some(64));
        assert_eq!((info["total_size"].as_u64(), info["piece_length"].as_u64()), (Some(170_005), Some(16_384)));
        assert_eq!((info["private"].as_bool(), info["source"].as_str()), (Some(true), Some("S")));
        assert_eq!((info["comment"].as_str(), info["creation_date"].is_i64()), (Some("C"), true));
        assert_eq!(info["trackers"].as_array().unwrap().len(), 2);
        assert_eq!(info["trackers"][0][1], "udp://b.example:1");
        assert_eq!((&info["web_seeds"][0], &info["nodes"][0]), (&"http://w.example/".into(), &"d.example:6881".into()));
        let files: Vec<_> = info["files"].as_array().unwrap().iter().filter(|f| f["pad"] == false).collect();
        let paths: Vec<_> = files.iter().map(|f| f["path"].as_str().unwrap()).collect();
        assert_eq!(paths, ["data/a.bin", "data/sub/b.bin", "data/sub/c.txt"]);
        assert_eq!(files[0]["pieces_root"].as_str().map(str::len), v2.then_some(64));
        assert_eq!((files[0]["executable"].as_bool(), files[0]["length"].as_u64()), (Some(false), Some(100_000)));

        let shown = place.ok(&["info", &file]);
        for part in ["data", "100.00 kB", "c.txt", "http://a.example/announce, udp://b.example:1", "private", "16 KiB"]
        {
            assert!(shown.contains(part), "{part}: {shown}");
        }
        let link = place.ok(&["magnet", &file]);
        assert_eq!(link.trim_end(), info["magnet"].as_str().unwrap());
    }
}

#[test]
fn same_input_same_bytes() {
    let place = Place::with_data();
    let make = |name: &str, more: &[&str]| {
        let args = [&["create", "data", "-o", name, "--piece-length", "16KiB"], more].concat();
        let output = place.command(&args).env("SOURCE_DATE_EPOCH", "1000000000").output().unwrap();
        assert!(output.status.success(), "{}", text(&output.stderr));
        fs::read(place.path().join(name)).unwrap()
    };
    let one = make("1.torrent", &["--threads", "1"]);
    assert_eq!(one, make("8.torrent", &["--threads", "8"]));
    assert_eq!(one, make("all.torrent", &[]));
    assert_eq!(place.json(&["info", "--json", "1.torrent"])["creation_date"], 1_000_000_000);
    assert!(place.ok(&["info", "1.torrent"]).contains("2001-09-09T01:46:40Z"));
    let dateless = make("dateless.torrent", &["--no-date"]);
    assert_ne!(one, dateless);
    assert!(place.json(&["info", "--json", "dateless.torrent"])["creation_date"].is_null());
    // On standard output it is the same file, and nothing but the file.
    let out = place.run(&["create", "data", "-o", "-", "--piece-length", "16KiB", "--no-date"]);
    assert_eq!(out.stdout, dateless);
    let bad = place.command(&["create", "data", "-o", "x"]).env("SOURCE_DATE_EPOCH", "soon").output().unwrap();
    assert_eq!(bad.status.code(), Some(2));
}

#[test]
fn what_goes_into_a_torrent() {
    let place = Place::with_data();
    place.write("data/.hidden", "h");
    place.write("data/sub/x.tmp", "t");
    #[cfg(unix)]
    std::os::unix::fs::symlink("a.bin", place.path().join("data/link")).unwrap();
    let listed = |more: &[&str]| {
        let args = [&["create", "data", "--dry-run", "--json"], more].concat();
        let plan = place.json(&args);
        let paths: Vec<_> = plan["files"].as_array().unwrap().iter().map(|f| f["path"].clone()).collect();
        serde_json::to_string(&paths).unwrap()
    };
    assert_eq!(listed(&["--exclude", "*.tmp"]), r#"["data/a.bin","data/sub/b.bin","data/sub/c.txt"]"#);
    assert_eq!(listed(&["--hidden", "--exclude", "sub"]), r#"["data/.hidden","data/a.bin"]"#);
    assert_eq!(
        listed(&["--name", "n", "--exclude", "sub/*.bin", "--exclude", "a.*"]),
        r#"["n/sub/c.txt","n/sub/x.tmp"]"#
    );
    let output = place.run(&["create", "data", "--dry-run"]);
    assert!(text(&output.stdout).contains("nothing written"));
    #[cfg(unix)]
    assert!(text(&output.stderr).contains("data/link: skipped: a symbolic link"));
    assert!(text(&output.stderr).contains("1 hidden file or folder left out"));
    assert!(!place.path().join("data.torrent").exists());

    // The torrent that lies in its own folder does not go into the next one.
    let inside = |args: &[&str]| place.command(args).current_dir(place.path().join("data")).output().unwrap();
    assert!(inside(&["create", ".", "--no-date", "-q"]).status.success());
    let first = fs::read(place.path().join("data/data.torrent")).unwrap();
    assert!(inside(&["create", ".", "--no-date", "-q", "--force"]).status.success());
    assert_eq!(fs::read(place.path().join("data/data.torrent")).unwrap(), first);
    let rest: Vec<_> = fs::read_dir(place.path().join("data")).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert!(
        !rest.iter().any(|name| name.to_string_lossy().ends_with(".tmp") && name.to_string_lossy().starts_with("."))
    );
}

#[test]
fn verify_names_what_is_wrong() {
    let place = Place::with_data();
    for format in ["v1", "v2", "hybrid"] {
        let place = Place::with_data();
        place.ok(&["create", "data", "--piece-length", "16KiB", "--format", format]);
        let fine = place.ok(&["verify", "data.torrent", "data"]);
        assert!(fine.contains("3 of 3 files good"), "{fine}");
        assert_eq!(place.json(&["verify", "--json", "data.torrent", "data"])["ok"], true);

        let mut bytes = fs::read(place.path().join("data/a.bin")).unwrap();
        bytes[40_000] ^= 1;
        fs::write(place.path().join("data/a.bin"), bytes).unwrap();
        let output = place.run(&["verify", "data.torrent", "data"]);
        assert_eq!(output.status.code(), Some(6));
        assert!(text(&output.stdout).contains("data/a.bin: wrong: piece 2\n"), "{}", text(&output.stdout));
        assert!(one_line(&output).contains("1 of 3 files missing or wrong"));

        fs::remove_file(place.path().join("data/sub/b.bin")).unwrap();
        place.write("data/sub/c.txt", "hello and more");
        let output = place.run(&["verify", "--json", "data.torrent", "data"]);
        assert_eq!(output.status.code(), Some(6));
        let report: Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!(report["ok"], false);
        let problems: Vec<_> =
            report["files"].as_array().unwrap().iter().map(|f| (&f["path"], &f["problem"])).collect();
        let want = [("data/a.bin", "wrong"), ("data/sub/b.bin", "missing"), ("data/sub/c.txt", "length")];
        assert_eq!(problems.len(), 3, "{problems:?}");
        for ((path, problem), (want_path, want_problem)) in problems.into_iter().zip(want) {
            assert_eq!((path, problem), (&want_path.into(), &want_problem.into()));
        }
        // Without alignment the last piece of a file is the first of the next, too.
        let pieces = if format == "v1" { serde_json::json!([[2, 2], [6, 6]]) } else { serde_json::json!([[2, 2]]) };
        assert_eq!(report["files"][0]["pieces"], pieces);
        assert_eq!(report["files"][2]["found_length"], 14);
        // Only looked at, never touched.
        assert_eq!(fs::read(place.path().join("data/sub/c.txt")).unwrap(), b"hello and more");
    }
    place.ok(&["create", "data"]);
    let output = place.run(&["verify", "-q", "data.torrent", "nowhere"]);
    assert_eq!(output.status.code(), Some(6));
    assert!(one_line(&output).contains("nothing of the torrent is there"));
}

/// Names that we would not write are what the data has all the same.
#[test]
fn data_is_found_under_its_own_names() {
    let place = Place::new();
    let names = ["aux.c", "etc.", "sub/con.txt", "sub/plain"];
    names.iter().for_each(|name| place.write(&format!("data/{name}"), name));
    for format in ["v1", "v2", "hybrid"] {
        place.ok(&["create", "data", "--force", "--format", format]);
        let fine = place.ok(&["verify", "data.torrent", "data"]);
        assert!(fine.contains("4 of 4 files good"), "{format}: {fine}");
    }
    let seed = ["seed", "data.torrent", "data", "--seed-time", "1s", "--no-trackers", "--listen", "127.0.0.1:0"];
    place.ok(&seed);
    assert!(!place.path().join("data/_aux.c").exists(), "only looked at, never touched");
}

#[test]
fn magnet_links() {
    let place = Place::new();
    let v1 = "0123456789abcdef0123456789abcdef01234567";
    let link = format!(
        "magnet:?xt=urn:btih:{v1}&dn=A%20name&tr=http%3A%2F%2Ft.example%2FSECRET%2Fannounce&ws=http%3A%2F%2Fw.example%2F\
         &x.pe=192.0.2.1:6881&so=0,2-4"
    );
    let info = place.json(&["info", "--offline", "--json", &link]);
    assert_eq!((info["name"].as_str(), info["info_hash_v1"].as_str()), (Some("A name"), Some(v1)));
    assert!(info["info_hash_v2"].is_null());
    assert_eq!(info["trackers"][0], "http://t.example/SECRET/announce");
    assert_eq!((&info["web_seeds"][0], &info["peers"][0]), (&"http://w.example/".into(), &"192.0.2.1:6881".into()));
    assert_eq!(info["select"], serde_json::json!(["0", "2-4"]));
    let shown = place.ok(&["info", "--offline", &link]);
    assert!(shown.contains("A name") && !shown.contains("SECRET"));
    assert!(place.run(&["info", "--offline", v1]).stderr.is_empty());
}

/// What peers say a magnet link is: listed, saved, sought on this machine, and not forgotten.
#[test]
fn magnet_links_that_peers_describe() {
    let place = place_to_seed();
    for format in ["v1", "v2", "hybrid"] {
        place.ok(&["create", "data", "--force", "--format", format]);
        let link = place.ok(&["magnet", "data.torrent"]);
        let link = link.trim();
        let seeder = Seeder::start(&place, "0");
        let quiet = ["--listen", "127.0.0.1:0", "--peer", &seeder.address];
        let whole = place.json(&["info", "--json", "data.torrent"]);
        let told = place.json(&[&["info", "--json", link][..], &quiet].concat());
        for key in ["name", "info_hash_v1", "info_hash_v2", "total_size", "piece_count", "files", "private", "magnet"] {
            assert_eq!(told[key], whole[key], "{format}: {key}");
        }
        let saved = place.path().join(format!("saved/{format}/data.torrent"));
        let target = format!("saved/{format}/");
        let get = ["get", link, "-d", format, "--save-torrent", &target, "-q"];
        place.ok(&[&get[..], &quiet].concat());
        place.ok(&["verify", &saved.to_string_lossy(), &format!("{format}/data")]);
        drop(seeder);
        // The next time nobody need be asked.
        let known = place.ok(&["info", link, "--no-lsd", "--listen", "127.0.0.1:0", "--timeout", "10s"]);
        assert!(known.contains("large.bin") && known.contains("small.bin"), "{known}");
        let seeds = ["seed", link, "--seed-time", "1s", "--no-lsd", "--listen", "127.0.0.1:0"];
        place.ok(&[&seeds[..1], &[link, "data"], &seeds[2..]].concat());
        let slip = place.run(&[&seeds[..1], &[link, "."], &seeds[2..]].concat());
        assert_eq!(slip.status.code(), Some(2), "{}", text(&slip.stderr));
        assert!(text(&slip.stderr).contains("did you mean ./data?"), "{}", text(&slip.stderr));
        if format == "v1" {
            let other =
                ["get", link, "-d", "elsewhere", "--save-torrent", "data/large.bin", "--timeout", "1s", "--no-lsd"];
            let other = place.run(&other);
            assert_ne!(other.status.code(), Some(0));
            let told = text(&other.stderr);
            assert!(told.contains("already there, and it is not this torrent"), "{told}");
        }
    }
}

/// From a folder to a download by its magnet link, in two commands.
#[test]
fn share_and_get() {
    use std::io::BufRead;
    let place = place_to_seed();
    fs::remove_file(place.path().join("data.torrent")).unwrap();
    for again in 0..2 {
        let share = ["share", "data", "data/sub/small.bin", "--json", "--listen", "127.0.0.1:0", "--no-date"];
        let mut child = place.command(&share).stdout(Stdio::piped()).stderr(Stdio::inherit()).spawn().unwrap();
        let mut events = std::io::BufReader::new(child.stdout.take().unwrap())
            .lines()
            .map(|line| serde_json::from_str::<Value>(&line.unwrap()).unwrap());
        let made: Vec<Value> = events.by_ref().take(2).collect();
        assert!(made.iter().all(|event| event["event"] == "created"), "{made:?}");
        assert_eq!(
            (&made[0]["path"], &made[1]["path"]),
            (&"data.torrent".into(), &"data/sub/small.bin.torrent".into())
        );
        let listening = events.find(|e| e["event"] == "listening").unwrap();
        let seeder = Seeder { child, address: listening["addresses"][0].as_str().unwrap().to_owned() };
        std::thread::spawn(move || events.for_each(drop));
        for (n, name) in ["data", "small.bin"].into_iter().enumerate() {
            let out = format!("out-{again}");
            let link = made[n]["magnet"].as_str().unwrap();
            place.ok(&["get", link, "-d", &out, "-q", "--listen", "127.0.0.1:0", "--peer", &seeder.address]);
            place.ok(&["verify", made[n]["path"].as_str().unwrap(), &format!("{out}/{name}")]);
        }
        // Shared again, its own torrent is left out, and the one beside it is the same.
        fs::remove_file(place.path().join("data/sub/small.bin.torrent")).unwrap();
    }
    // For people: the link and nothing else on standard output.
    let once = ["share", "data", "--tracker", "http://127.0.0.1:1/a,http://127.0.0.1:2/a", "--seed-time", "1s"];
    let output = place.run(&[&once[..], &["--listen", "127.0.0.1:0", "--force"]].concat());
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    let link = text(&output.stdout);
    assert!(link.starts_with("magnet:?xt=urn:btih:") && link.lines().count() == 1, "{link}");
    let tiers = place.json(&["info", "--json", "data.torrent"])["trackers"].clone();
    assert_eq!(tiers, serde_json::json!([["http://127.0.0.1:1/a", "http://127.0.0.1:2/a"]]));
    let dry = place.ok(&["share", "data", "--dry-run"]);
    assert!(dry.contains("nothing written"), "{dry}");
}

#[test]
fn m12_strange_names_steer_nothing() {
    let place = Place::new();
    let name = "x\x1b]0;owned\x07\u{202e}y\u{9b}2J\n";
    let piece = "0".repeat(20);
    let torrent = format!(
        "d8:announce24:http://t.example/?k=\x1b[2J7:comment{}:{name}4:infod6:lengthi5e4:name{}:{name}12:piece lengthi16384e6:pieces20:{piece}ee",
        name.len(),
        name.len()
    );
    place.write("t.torrent", torrent);
    for args in [&["info", "t.torrent"][..], &["info", "--json", "t.torrent"], &["magnet", "t.torrent"]] {
        let shown = place.ok(args);
        assert!(!shown.contains('\u{202e}'), "{args:?}: {shown:?}");
        assert!(!shown.contains(|c: char| c.is_control() && c != '\n'), "{args:?}: {shown:?}");
    }
    assert_eq!(place.json(&["info", "--json", "t.torrent"])["comment"], name);
    let verify = place.run(&["verify", "t.torrent", "none"]);
    for bytes in [&verify.stdout, &verify.stderr] {
        assert!(!text(bytes).contains(|c: char| c.is_control() && c != '\n'));
    }
}

#[test]
fn standard_input_and_a_reader_that_left() {
    let place = Place::with_data();
    let torrent = place.run(&["create", "data", "-o", "-"]).stdout;
    let mut child =
        place.command(&["info", "--json", "-"]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(&torrent).unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!(serde_json::from_slice::<Value>(&output.stdout).unwrap()["name"], "data");

    place.write("data.torrent", torrent);
    for args in [
        &["info", "data.torrent"][..],
        &["completions", "zsh"],
        &["man"],
        &["--help"],
        &["verify", "data.torrent", "data"],
    ] {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let output = place.command(args).stdout(writer).stderr(Stdio::piped()).output().unwrap();
        assert_eq!(output.status.code(), Some(141), "{args:?}");
        assert!(output.stderr.is_empty(), "{args:?}: {}", text(&output.stderr));
    }
    #[cfg(target_os = "linux")]
    {
        let full = fs::File::options().write(true).open("/dev/full").unwrap();
        let output = place.command(&["info", "data.torrent"]).stdout(full).stderr(Stdio::piped()).output().unwrap();
        assert_eq!(output.status.code(), Some(4));
        assert!(one_line(&output).contains("standard output: no space left"));
    }
}

#[test]
fn settings_in_layers() {
    let place = Place::new();
    place.write(
        "home/.config/gannet/config.toml",
        "limit-down = '5M'\nlimit-up = 100\ndir = '/file'\ntracker = ['http://t/']\n",
    );
    let run = |command: &mut Command| serde_json::from_slice::<Value>(&command.output().unwrap().stdout).unwrap();
    let secret = |args: &[&str]| {
        let mut command = place.command(args);
        let output = command.env("GANNET_PROXY", "socks5h://me:SECRET@127.0.0.1:1").output().unwrap();
        assert_eq!(output.status.code(), Some(0));
        text(&output.stdout).contains("SECRET")
    };
    assert!(!secret(&["config"]) && !secret(&["config", "--json"]));
    assert!(secret(&["config", "--show-secrets"]) && secret(&["config", "--json", "--show-secrets"]));
    let shown = run(place.command(&["config", "--json"]).env("GANNET_DIR", "/variable").env("GANNET_NO_SUCH", "1"));
    let setting = |name: &str| (shown["settings"][name]["value"].clone(), shown["settings"][name]["origin"].clone());
    assert_eq!(setting("dir"), ("/variable".into(), "GANNET_DIR".into()));
    assert_eq!(setting("limit-down").0, "5M");
    assert!(setting("limit-down").1.as_str().unwrap().ends_with("/.config/gannet/config.toml:1"));
    assert_eq!(setting("max-peers"), ("100".into(), "default".into()));
    assert_eq!(setting("json"), (true.into(), "command line".into()));
    assert_eq!(setting("tracker").0, serde_json::json!(["http://t/"]));
    assert!(setting("state-dir").0.as_str().unwrap().ends_with("home/.local/state/gannet"));
    assert_eq!(shown["unknown_variables"], serde_json::json!(["GANNET_NO_SUCH"]));

    // What is printed for people is a configuration file that says the same.
    place.write("copy.toml", place.ok(&["config"]));
    let copy = place.json(&["config", "--json", "--config", "copy.toml"]);
    let names: Vec<&String> = copy["settings"].as_object().unwrap().keys().collect();
    for name in names.into_iter().filter(|n| *n != "dir" && *n != "json") {
        assert_eq!(copy["settings"][name]["value"], shown["settings"][name]["value"], "{name}");
    }
    let named = place.command(&["config"]).env("GANNET_CONFIG", "none.toml").output().unwrap();
    assert_eq!(named.status.code(), Some(2));
}

#[test]
fn completions_and_manual() {
    let place = Place::new();
    for shell in ["bash", "zsh", "fish", "powershell", "elvish"] {
        let script = place.ok(&["completions", shell]);
        assert!(script.contains("limit-down") && script.len() > 2_000, "{shell}");
    }
    let page = place.ok(&["man"]);
    for part in [".TH GANNET 1", "GANNET VERIFY", "EXIT STATUS", "SOURCE_DATE_EPOCH"] {
        assert!(page.contains(part), "{part}");
    }
    assert!(!page.contains('\x1b'));
}

#[test]
fn failures_as_json() {
    let place = Place::new();
    let output = place.run(&["get", "--json", "none.torrent"]);
    assert_eq!(output.status.code(), Some(4));
    let event: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((event["event"].as_str(), event["code"].as_i64()), (Some("error"), Some(4)));
    assert_eq!(event["path"], "none.torrent");
    assert!(
        event["time"].as_str().unwrap().ends_with('Z') && event["message"].as_str().unwrap().contains("no such file")
    );
    one_line(&output);
}

/// A `gannet seed` in the background, ended when this is dropped.
struct Seeder {
    child: std::process::Child,
    address: String,
}

impl Seeder {
    /// Seeds `data.torrent` at `rate`, on a port of its own. Back when it is ready.
    fn start(place: &Place, rate: &str) -> Self {
        use std::io::BufRead;
        let listen = ["--listen", "127.0.0.1:0", "--state-dir", "seeding"];
        let args = [&["seed", "data.torrent", "data", "--json", "--limit-up", rate][..], &listen].concat();
        let mut child = place.command(&args).stdout(Stdio::piped()).stderr(Stdio::inherit()).spawn().unwrap();
        let mut events = std::io::BufReader::new(child.stdout.take().unwrap())
            .lines()
            .map(|line| serde_json::from_str::<Value>(&line.unwrap()).unwrap());
        let listening = events.find(|e| e["event"] == "listening").unwrap();
        assert!(events.any(|e| e["event"] == "seeding"));
        // Somebody has to read on, or the seeder would write into a closed pipe.
        std::thread::spawn(move || events.for_each(drop));
        Self { child, address: listening["addresses"][0].as_str().unwrap().to_owned() }
    }
}

impl Drop for Seeder {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A folder with the torrent of 8 MB that nobody tracks.
fn place_to_seed() -> Place {
    let place = Place::new();
    let mut x = 1u32;
    let mut next = || {
        x = x.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (x >> 24) as u8
    };
    place.write("data/large.bin", (0..8_000_000).map(|_| next()).collect::<Vec<u8>>());
    place.write("data/sub/small.bin", (0..100_000).map(|_| next()).collect::<Vec<u8>>());
    place.ok(&["create", "data"]);
    place
}

#[test]
fn get_from_seed() {
    let place = place_to_seed();
    let seeder = Seeder::start(&place, "0");
    let output = place.run(&["get", "data.torrent", "-d", "out", "--peer", &seeder.address]);
    let told = text(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{told}");
    assert!(output.stdout.is_empty());
    assert!(told.lines().last().unwrap().starts_with("data: done: 8.10 MB in "), "{told}");
    place.ok(&["verify", "data.torrent", "out/data"]);

    // Again: nothing to fetch. Its words are JSON this time.
    let again = place.ok(&["get", "data.torrent", "-d", "out", "--peer", &seeder.address, "--json"]);
    let events: Vec<Value> = again.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert!(events.iter().all(|e| e["event"].is_string() && e["time"].as_str().unwrap().len() == 24));
    let named = |name: &str| events.iter().filter(|e| e["event"] == name).count();
    assert_eq!([named("added"), named("complete"), named("summary"), named("error")], [1, 1, 1, 0]);
    let summary = events.last().unwrap();
    assert_eq!((summary["downloaded"].as_u64(), summary["torrents"][0]["state"].as_str()), (Some(0), Some("done")));

    // A part, by number, from standard input.
    let mut child = place.command(&["get", "-", "-d", "part", "--select", "2", "-q", "--peer", &seeder.address]);
    let mut child = child.stdin(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(&fs::read(place.path().join("data.torrent")).unwrap()).unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!((output.status.code(), text(&output.stderr)), (Some(0), String::new()));
    let fetched = fs::read(place.path().join("part/data/sub/small.bin")).unwrap();
    assert_eq!(fetched, fs::read(place.path().join("data/sub/small.bin")).unwrap());
    assert!(!place.path().join("part/data/large.bin").exists());
}

#[cfg(unix)]
#[test]
fn stopped_and_taken_up_again() {
    use std::io::{BufRead, BufReader};
    let place = place_to_seed();
    let seeder = Seeder::start(&place, "2M");
    let args = ["get", "data.torrent", "-d", "out", "--peer", &seeder.address, "--json"];
    for (signal, code) in [("-INT", 130), ("-TERM", 143)] {
        let mut child = place.command(&args).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let mut events = BufReader::new(child.stdout.take().unwrap()).lines().map(|line| line.unwrap());
        assert!(events.any(|line| line.contains(r#""event":"piece""#)));
        let id = child.id().to_string();
        assert!(Command::new("kill").args([signal, &id]).status().unwrap().success());
        let asked = std::time::Instant::now();
        let last: Value = serde_json::from_str(&events.last().unwrap()).unwrap();
        let output = child.wait_with_output().unwrap();
        assert_eq!(output.status.code(), Some(code), "{}", text(&output.stderr));
        assert!(asked.elapsed() < std::time::Duration::from_secs(7));
        assert_eq!((&last["event"], &last["torrents"][0]["state"]), (&"summary".into(), &"stopped".into()));
        assert!(output.stderr.is_empty(), "{}", text(&output.stderr));
    }
    drop(seeder);
    let seeder = Seeder::start(&place, "0");
    let events = place.ok(&["get", "data.torrent", "-d", "out", "--peer", &seeder.address, "--json"]);
    let summary: Value = serde_json::from_str(events.lines().last().unwrap()).unwrap();
    // What was there was not fetched again.
    assert!(summary["downloaded"].as_u64().unwrap() < 8_100_000, "{summary}");
    place.ok(&["verify", "data.torrent", "out/data"]);
}

#[test]
fn a_download_that_goes_nowhere() {
    let place = place_to_seed();
    let output = place.run(&["get", "data.torrent", "-d", "out", "--no-trackers", "--timeout", "1s"]);
    assert_eq!(output.status.code(), Some(5));
    let told = text(&output.stderr);
    assert!(told.lines().last().unwrap().starts_with("gannet: data: no progress for 1.0s: no peers"), "{told}");

    place.write("there/data/sub/small.bin", vec![0; 200_000]);
    let output = place.run(&["get", "data.torrent", "-d", "there", "--no-trackers", "--timeout", "5s"]);
    assert_eq!(output.status.code(), Some(4), "{}", text(&output.stderr));
    assert!(text(&output.stderr).contains("small.bin"));
    assert_eq!(fs::read(place.path().join("there/data/sub/small.bin")).unwrap().len(), 200_000);

    let seeder = Seeder::start(&place, "100k");
    let taken = place.run(&["seed", "data.torrent", "data", "--listen", &seeder.address]);
    assert_eq!(taken.status.code(), Some(5));
    assert!(one_line(&taken).contains(&seeder.address));

    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let args = ["get", "data.torrent", "-d", "out", "--json", "--peer", &seeder.address];
    let output = place.command(&args).stdout(writer).stderr(Stdio::piped()).output().unwrap();
    assert_eq!((output.status.code(), text(&output.stderr)), (Some(141), String::new()));
}

#[test]
fn demonstration() {
    let place = Place::new();
    let output = place.command(&["demo", "--size", "5M", "--fast"]).env("TMPDIR", place.path()).output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    assert!(text(&output.stdout).contains("every byte compared and right"), "{}", text(&output.stdout));
    let left: Vec<_> = fs::read_dir(place.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert_eq!(left, ["home"]);
}

/// Names of what lies in a folder.
fn names_in(folder: &Path) -> Vec<String> {
    fs::read_dir(folder).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect()
}

/// The rows of all tables of a bench.
fn rows_of(report: &Value) -> Vec<&Value> {
    report["tables"].as_array().unwrap().iter().flat_map(|table| table["rows"].as_array().unwrap()).collect()
}

#[track_caller]
fn assert_measured(row: &Value, runs: usize) {
    let rate = &row["bytes_per_second"];
    assert_eq!(rate["runs"].as_array().map(Vec::len), Some(runs), "{row}");
    let [min, median, max] = ["min", "median", "max"].map(|name| rate[name].as_f64().unwrap());
    assert!(0.0 < min && min <= median && median <= max, "{row}");
    assert!(row["cpu_seconds_per_gib"]["median"].as_f64().unwrap() >= 0.0, "{row}");
}

#[test]
fn bench_of_hashes_and_a_picture() {
    let place = Place::new();
    let args = ["bench", "hash", "--size", "256KiB", "--runs", "2", "--json", "--plot", "hash.svg"];
    let report = place.json(&args);
    assert_eq!((&report["bench"], &report["version"]), (&"hash".into(), &env!("CARGO_PKG_VERSION").into()));
    let cores = report["machine"]["cores"].as_u64().unwrap();
    assert!(cores > 0);
    let rows = rows_of(&report);
    for hash in ["sha1", "sha256"] {
        for on in [1, cores] {
            let is = |row: &&&Value| row["hash"] == hash && row["tier"] == "scalar" && row["cores"] == on;
            assert_eq!(rows.iter().filter(is).count(), 1, "{hash} on {on} cores");
        }
    }
    rows.iter().for_each(|row| assert_measured(row, 2));
    assert!(!report["calibration_seconds"]["runs"].as_array().unwrap().is_empty());
    assert_eq!(report["noisy"], !report["noise"].as_array().unwrap().is_empty());
    let svg = fs::read_to_string(place.path().join("hash.svg")).unwrap();
    assert!(svg.starts_with("<svg ") && svg.ends_with("</svg>\n") && svg.contains("prefers-color-scheme"), "{svg}");
    assert_eq!(svg.matches("class=\"bar").count(), rows.len());
}

#[test]
fn bench_of_the_disk() {
    let place = Place::new();
    fs::create_dir(place.path().join("here")).unwrap();
    let told =
        place.ok(&["bench", "disk", "--dir", "here", "--size", "1500k", "--piece-length", "64KiB", "--runs", "1"]);
    for word in ["map ", "pwrite ", "sync ", "read, cold", "read, warm", "check ", "CPU s/GiB", "gannet uses: "] {
        assert!(told.contains(word), "{word}: {told}");
    }
    assert!(names_in(&place.path().join("here")).is_empty());
    assert_eq!(place.ok(&["bench", "disk", "--dir", "here", "--size", "64KiB", "--runs", "1", "-q"]), "");
}

#[test]
fn bench_of_whole_downloads() {
    let place = Place::new();
    let common = ["--size", "1M", "--piece-length", "64KiB", "--json"];
    let report = place.json(&[&["bench", "loopback", "--runs", "2"][..], &common].concat());
    assert_eq!((&report["seeds"], &report["leechers"], &report["size"]), (&1.into(), &1.into(), &1_000_000.into()));
    assert_measured(rows_of(&report)[0], 2);

    let many =
        ["bench", "loopback", "--seeds", "2", "--leechers", "3", "--processes", "--runs", "1", "--format", "hybrid"];
    let report = place.json(&[&many[..], &common].concat());
    let rows = rows_of(&report);
    assert_measured(rows[0], 1);
    assert_measured(rows[1], 3);
    assert_eq!(rows[2]["bytes_per_second"], Value::Null);
    #[cfg(target_os = "linux")]
    assert!(rows.iter().all(|row| row["peak_anonymous_bytes"].as_u64().unwrap() > 0), "{rows:?}");

    let report = place.json(&[&["bench", "loopback", "--connections", "30", "--runs", "1"][..], &common].concat());
    let rows = rows_of(&report);
    assert_eq!((&rows[0]["role"], &rows[1]["role"]), (&"leecher".into(), &"seed".into()));
    rows.iter().for_each(|row| assert_measured(row, 1));
    let few_files = format!("ulimit -n 120; exec '{}' bench loopback --connections 200", env!("CARGO_BIN_EXE_gannet"));
    let output = Command::new("sh").args(["-c", &few_files]).current_dir(place.path()).output().unwrap();
    assert_eq!(output.status.code(), Some(2), "{}", text(&output.stderr));
    assert!(one_line(&output).contains("ulimit -n"));
    assert_eq!(names_in(place.path()), ["home"]);
    assert!(names_in(&place.path().join("home")).is_empty(), "nothing is left in the user's home");
}

#[test]
fn bench_of_clients_and_of_all() {
    let place = Place::new();
    // No path, no other client.
    let args = ["bench", "compare", "--size", "1M", "--runs", "2", "--json"];
    let output = place.command(&args).env("PATH", "").output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    let rows = rows_of(&report);
    assert_measured(rows[0], 2);
    assert_eq!((&rows[0]["client"], &rows[0]["right"]), (&"gannet".into(), &2.into()));
    assert!(rows[1..].iter().all(|row| row["installed"] == false && row["note"] == "not installed"), "{report}");
    assert_eq!(rows.len(), 5);

    let report = place.json(&["bench", "all", "--size", "1M", "--runs", "1", "--json", "--plot", "all.svg"]);
    let side: Vec<&str> =
        report["tables"][0]["rows"].as_array().unwrap().iter().map(|r| r["name"].as_str().unwrap()).collect();
    for (name, want) in side.iter().zip(["hash (", "disk (", "network (", "end to end ("]) {
        assert!(name.starts_with(want), "{side:?}");
    }
    assert_eq!(side.len(), 4);
    let holds = report["held_back_by"]["name"].as_str().unwrap();
    assert!(["hash", "disk", "network", "processor"].contains(&holds), "{holds}");
    assert!(report["verdict"][0].as_str().unwrap().starts_with("what holds the rest back: the "));
    let mut left = names_in(place.path());
    left.sort();
    assert_eq!(left, ["all.svg", "home"]);
}

#[cfg(unix)]
#[test]
fn a_bench_that_is_stopped_cleans_up() {
    let place = Place::new();
    for (what, sign) in
        [("disk", "payload"), ("loopback", "leechers"), ("loopback --processes", "leechers"), ("compare", "race")]
    {
        let here = place.path().join("here");
        fs::create_dir(&here).unwrap();
        let mut args = vec!["bench"];
        args.extend(what.split(' '));
        args.extend(["--dir", "here", "--size", "8MiB", "--runs", "1000", "--quiet"]);
        let child = place.command(&args).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let under_way = || names_in(&here).iter().any(|scratch| here.join(scratch).join(sign).exists());
        let patience = std::time::Instant::now() + std::time::Duration::from_secs(30);
        while !under_way() {
            assert!(std::time::Instant::now() < patience, "{what}: nothing happens");
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
        let id = child.id().to_string();
        assert!(Command::new("kill").args(["-INT", &id]).status().unwrap().success());
        let output = child.wait_with_output().unwrap();
        assert_eq!(output.status.code(), Some(130), "{what}: {}", text(&output.stderr));
        assert!(output.stdout.is_empty() && output.stderr.is_empty(), "{what}: {}", text(&output.stderr));
        // Empty, or this fails.
        fs::remove_dir(&here).unwrap();
    }
}
