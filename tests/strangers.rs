//! What strangers say, and what is to stay between the user and a tracker: neither reaches the terminal as it is. Rows 5 and
//! 46 of `docs/bug-classes.md`, with the real program against trackers, web seeds and a peer that mean harm.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};
use std::thread;

/// Cursor and title sequences of either kind (C0 and C1), a line break, the other direction of writing, nothing wide.
const EVIL: &str = "\x1b[2J\x1b]0;owned\x07\r\nx\u{9b}31m\u{202e}y\u{200b}\u{7f}\u{85}";

/// What must be told to nobody but to whom it is meant for.
const SECRET: &str = "SECRETpasskey";

/// What the servers and the peer have been asked.
type Asked = Arc<Mutex<Vec<String>>>;

/// Answers every request as its path says.
fn web(asked: Asked, peer: SocketAddr) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        for stream in listener.incoming() {
            let (Ok(stream), asked) = (stream, asked.clone()) else { return };
            thread::spawn(move || serve(stream, address, peer, &asked));
        }
    });
    address
}

fn serve(mut stream: TcpStream, own: SocketAddr, peer: SocketAddr, asked: &Asked) {
    let (mut head, mut byte) = (Vec::new(), [0]);
    while !head.ends_with(b"\r\n\r\n") && matches!(stream.read(&mut byte), Ok(1)) {
        head.push(byte[0]);
    }
    let head = String::from_utf8_lossy(&head).into_owned();
    let path = head.split(' ').nth(1).unwrap_or("").to_owned();
    asked.lock().unwrap().push(path.clone());
    let text = |text: &str| [format!("{}:", text.len()).as_bytes(), text.as_bytes()].concat();
    let body = if path.contains("/fails/") {
        [b"d14:failure reason".to_vec(), text(EVIL), b"e".to_vec()].concat()
    } else if path.contains("/warns/") {
        let std::net::IpAddr::V4(ip) = peer.ip() else { panic!("IPv4") };
        let compact = [&ip.octets()[..], &peer.port().to_be_bytes()].concat();
        let fields = [b"d8:intervali60e5:peers6:".to_vec(), compact, b"15:warning message".to_vec(), text(EVIL)];
        [fields.concat(), b"e".to_vec()].concat()
    } else {
        Vec::new()
    };
    let status = if path.contains("/moves/") {
        format!("302 Found\r\nLocation: http://user:{SECRET}@{own}/{SECRET}/nowhere/announce?{SECRET}")
    } else if path.contains("/odd/") {
        // No HTTP: what the parser makes of it must not be shown as it is either.
        format!("999 {EVIL}")
    } else if body.is_empty() {
        "404 \u{9b}31mGone".to_owned()
    } else {
        "200 OK".to_owned()
    };
    let _ = stream.write_all(format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\n\r\n", body.len()).as_bytes());
    let _ = stream.write_all(&body);
}

/// A UDP tracker that says no.
fn udp() -> SocketAddr {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    let address = socket.local_addr().unwrap();
    thread::spawn(move || {
        let mut buffer = [0; 2048];
        while let Ok((len, from)) = socket.recv_from(&mut buffer) {
            if len >= 16 {
                let _ = socket.send_to(&[&[0, 0, 0, 3], &buffer[12..16], EVIL.as_bytes()].concat(), from);
            }
        }
    });
    address
}

/// A peer of an evil name, which then says what is no message.
fn peer(asked: Asked) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        for stream in listener.incoming() {
            let (Ok(mut stream), asked) = (stream, asked.clone()) else { return };
            thread::spawn(move || {
                let mut hello = [0; 68];
                if stream.read_exact(&mut hello).is_err() {
                    return;
                }
                asked.lock().unwrap().push("a handshake".into());
                hello[48..].copy_from_slice(b"-\x1b[2J\x9b3-\x07\x07\x07\r\n\x1b[1m\x00\x7f\x1b");
                let version = format!("{EVIL} 1.0");
                let said = format!("d13:metadata_sizei20000e1:md11:ut_metadatai3ee1:v{}:{version}e", version.len());
                let len = u32::try_from(said.len() + 2).unwrap().to_be_bytes();
                let _ = stream.write_all(&hello);
                let _ = stream.write_all(&[&len[..], &[20, 0], said.as_bytes()].concat());
                thread::sleep(std::time::Duration::from_millis(300));
                let _ = stream.write_all(&[0xff; 8]);
                let _ = stream.read(&mut [0; 4096]);
            });
        }
    });
    address
}

fn gannet(place: &Path, args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_gannet"));
    command.env_clear().env("HOME", place).env("LANG", "C.UTF-8").current_dir(place).args(args).stdin(Stdio::null());
    command
}

/// Only what a terminal shows as a letter is left, and line breaks.
#[track_caller]
fn assert_harmless(what: &str, bytes: &[u8]) {
    let text = std::str::from_utf8(bytes).unwrap_or_else(|e| panic!("{what}: not UTF-8: {e}"));
    let steers = |c: char| (c.is_control() && c != '\n') || matches!(c, '\u{200b}' | '\u{202e}');
    assert!(!text.contains(steers), "{what}: {text:?}");
    assert!(!text.contains(SECRET), "{what}: {text}");
}

#[test]
fn b5_b46_words_of_strangers_and_passkeys_stay_off_the_terminal() {
    let place = tempfile::tempdir().unwrap();
    let asked = Asked::default();
    let peer = peer(asked.clone());
    let (web, udp) = (web(asked.clone(), peer), udp());
    let trackers = [
        format!("http://{web}/fails/{SECRET}/announce"),
        format!("http://user:{SECRET}@{web}/warns/announce?passkey={SECRET}"),
        format!("http://{web}/moves/announce?{SECRET}"),
        format!("http://{web}/odd/announce?{SECRET}"),
        format!("http://{web}/gone/announce?{SECRET}"),
        format!("http://127.0.0.1:1/{SECRET}/announce"),
        format!("http://{EVIL}/{SECRET}/announce"),
        format!("wss://{EVIL}/{SECRET}"),
        format!("udp://{udp}/{SECRET}"),
        "udp://\u{202e}:1/".to_owned(),
    ];
    let seeds = [format!("http://user:{SECRET}@{web}/gone/"), format!("http://{web}/moves/")];
    let text = |text: &str| format!("{}:{text}", text.len());
    let list = |items: &[String], one: fn(&String) -> String| items.iter().map(one).collect::<String>();
    let tiers = list(&trackers, |url| format!("l{}:{url}e", url.len()));
    let torrent = format!(
        "d13:announce-listl{tiers}e7:comment{evil}10:created by{evil}4:infod5:filesld6:lengthi20000e4:pathl{evil}eee4:name{evil}12:piece \
         lengthi16384e6:pieces40:{}6:source{evil}e5:nodesll{evil}i1eee8:url-listl{}ee",
        "0".repeat(40),
        list(&seeds, |url| format!("{}:{url}", url.len())),
        evil = text(EVIL),
    );
    fs::write(place.path().join("t.torrent"), torrent).unwrap();
    let escaped: String = EVIL.bytes().map(|byte| format!("%{byte:02x}")).collect();
    let magnet = format!(
        "magnet:?xt=urn:btih:{}&dn={escaped}&x.pe={peer}&tr=http://{web}/fails/announce?{SECRET}&ws=http://{escaped}/",
        "ab".repeat(20)
    );
    let network =
        ["--no-dht", "--no-lsd", "--no-utp", "--no-port-mapping", "--listen", "127.0.0.1:0", "--timeout", "2s"];
    let get: Vec<&str> =
        ["get", "t.torrent", "--dir", "out", "--state-dir", "state"].into_iter().chain(network).collect();
    let with = |more: &[&'static str]| [&get[..], more].concat();
    let info: Vec<&str> = ["info", &magnet, "--state-dir", "state"].into_iter().chain(network).collect();
    let runs: Vec<Vec<&str>> = vec![
        vec!["info", "t.torrent"],
        vec!["info", "--offline", &magnet],
        vec!["verify", "t.torrent", "none"],
        vec!["verify", "--json", "t.torrent", "none"],
        vec!["scrape", "t.torrent", "--timeout", "2s"],
        vec!["scrape", "t.torrent", "--timeout", "2s", "--json", "-vvv"],
        with(&[]),
        with(&["-v"]),
        with(&["--json", "-vvv"]),
        with(&["--quiet"]),
        info,
        vec!["get", EVIL],
        vec!["get", "t.torrent", "--select", EVIL],
        vec!["--\x1b[2J"],
    ];
    thread::scope(|scope| {
        // They wait most of the time; each has a folder of its own.
        for (n, run) in runs.iter().enumerate() {
            let folder = place.path().join(n.to_string());
            fs::create_dir(&folder).unwrap();
            fs::copy(place.path().join("t.torrent"), folder.join("t.torrent")).unwrap();
            scope.spawn(move || {
                let mut command = gannet(&folder, run);
                if n % 2 == 0 {
                    command.env("GANNET_LOG", "trace");
                }
                let output = command.output().unwrap();
                assert_harmless(&format!("{run:?}, standard output"), &output.stdout);
                assert_harmless(&format!("{run:?}, standard error"), &output.stderr);
                assert!(!output.stderr.is_empty() || !output.stdout.is_empty() || run.contains(&"--quiet"), "{run:?}");
            });
        }
    });
    // All of it has been said.
    let asked = asked.lock().unwrap();
    for part in ["/fails/", "/warns/", "/moves/", "/odd/", "/gone/", "a handshake", "nowhere"] {
        assert!(asked.iter().any(|one| one.contains(part)), "nobody has asked for {part}: {asked:?}");
    }
    // What is asked for is shown, whole, where it is for programs: escaped, and the same.
    let json = gannet(place.path(), &["info", "t.torrent", "--json"]).output().unwrap().stdout;
    assert!(
        std::str::from_utf8(&json).unwrap().trim_end().chars().all(|c| c >= ' ' && c != '\u{9b}' && c != '\u{202e}')
    );
    let json: serde_json::Value = serde_json::from_slice(&json).unwrap();
    assert_eq!(json["comment"], EVIL);
    assert!(json["trackers"][1][0].as_str().unwrap().contains(SECRET));
}

/// On a terminal there are bars, which steer it; what strangers say within them does not.
#[cfg(target_os = "linux")]
#[test]
fn b5_bars_on_a_terminal_are_all_that_steers_it() {
    let place = tempfile::tempdir().unwrap();
    let asked = Asked::default();
    let peer = peer(asked.clone());
    let web = web(asked.clone(), peer);
    let torrent = format!(
        "d13:announce-listll{0}:{1}ee4:infod6:lengthi20000e4:name{2}:{EVIL}12:piece lengthi16384e6:pieces40:{3}ee",
        format!("http://{web}/fails/{SECRET}/announce").len(),
        format_args!("http://{web}/fails/{SECRET}/announce"),
        EVIL.len(),
        "0".repeat(40),
    );
    fs::write(place.path().join("t.torrent"), torrent).unwrap();
    let words = format!(
        "{} get t.torrent --no-dht --no-lsd --no-utp --no-port-mapping --listen 127.0.0.1:0 --timeout 2s --color always \
         -v --peer {peer}",
        env!("CARGO_BIN_EXE_gannet")
    );
    let mut command = Command::new("script");
    command.args(["-qec", &words, "/dev/null"]).env("HOME", place.path()).env("TERM", "xterm").env("LANG", "C.UTF-8");
    let Ok(output) = command.current_dir(place.path()).stdin(Stdio::null()).output() else {
        eprintln!("skipped: no `script` that makes a terminal");
        return;
    };
    let shown = String::from_utf8(output.stdout).unwrap();
    assert!(shown.contains("\x1b[") && shown.contains("owned"), "no bars, or no name: {shown:?}");
    // Of what steers it, only colours, moves of the cursor and the removal of lines are ours.
    let mut rest = shown.as_str();
    while let Some((_, after)) = rest.split_once('\x1b') {
        let own =
            after.strip_prefix('[').map(|after| after.trim_start_matches(|c: char| c.is_ascii_digit() || c == ';'));
        let own = own.filter(|end| end.starts_with(['m', 'A', 'B', 'C', 'D', 'G', 'K']));
        rest = own.unwrap_or_else(|| panic!("what is this? {:?}", &after[..after.len().min(20)]));
    }
    let steers = |c: char| (c.is_control() && !"\x1b\r\n".contains(c)) || matches!(c, '\u{200b}' | '\u{202e}');
    assert!(!shown.contains(steers) && !shown.contains(SECRET), "{shown:?}");
}
