//! Items (BEP 44): storing and fetching small values.

use std::fs::File;
use std::io::{IsTerminal, Read, Write};
use std::path::Path;

use serde_json::json;

use super::args::parse_hex;
use super::{Dht, many, not_stored};
use crate::base::{bencode, printable};
use crate::cli::exit::{Code, Failure};
use crate::cli::info::hex;
use crate::cli::json::object;
use crate::cli::screen;
use crate::dht::{Command, Event, Item, ItemError, MAX_VALUE, NodeId, mutable_target, public_key};

/// Bytes of a file with a key: 64 hex digits and a line break.
const MAX_KEY_FILE: u64 = 1_024;

/// Which item to fetch.
pub(super) struct Wanted {
    target: NodeId,
    salt: Vec<u8>,
}

impl Wanted {
    pub(super) fn parse(text: &str, salt: &str) -> Result<Self, Failure> {
        let salt = salt.as_bytes().to_vec();
        if let Some(key) = parse_hex::<32>(text) {
            return Ok(Self { target: mutable_target(&key, &salt), salt });
        }
        let target = parse_hex(text).map(NodeId);
        let target = target.ok_or_else(|| {
            Failure::usage(format!("{}: neither a target of 40 nor a public key of 64 hex digits", printable(text)))
        })?;
        Ok(Self { target, salt })
    }
}

async fn newest(dht: &Dht, target: NodeId, salt: Vec<u8>) -> Result<Option<Item>, Failure> {
    let mut found = None;
    dht.ask(Command::Get { target, salt }, |event| {
        if let Event::Item { item, .. } = event {
            found = Some(item);
        }
        Ok(())
    })
    .await?;
    Ok(found)
}

pub(super) async fn get(dht: &Dht, wanted: Wanted, bencoded: bool, json: bool) -> Result<(), Failure> {
    let target = wanted.target;
    let item = newest(dht, target, wanted.salt).await?;
    let item = item.ok_or_else(|| Failure::network(format!("dht get: {target}: no node has it")))?;
    let text = bencode::string(item.value());
    if json {
        let signed = item.signed();
        return screen::output(object(&json!({
            "target": target.to_string(),
            "value": text.and_then(|text| std::str::from_utf8(text).ok()),
            "bencoded": hex(item.value()),
            "public_key": signed.map(|signed| hex(&signed.key)),
            "seq": item.seq(),
            "signature": signed.map(|signed| hex(&signed.signature)),
        })));
    }
    // What strangers have stored must not reach a terminal as it is.
    let shown = if bencoded { item.value() } else { text.unwrap_or(item.value()) };
    if std::io::stdout().is_terminal() {
        return screen::output(format!("{}\n", printable(&String::from_utf8_lossy(shown))));
    }
    screen::output_bytes(shown)
}

/// An item to be stored, as far as it is known before anybody is asked.
pub(super) struct Draft {
    value: Vec<u8>,
    secret: Option<[u8; 32]>,
    salt: Vec<u8>,
    seq: Option<i64>,
    cas: Option<i64>,
}

impl Draft {
    pub(super) fn read(
        value: &str,
        bencoded: bool,
        key: Option<&Path>,
        salt: String,
        seq: Option<i64>,
        cas: Option<i64>,
    ) -> Result<Self, Failure> {
        let text = if value == "-" { read_stdin()? } else { value.as_bytes().to_vec() };
        let value = if bencoded { text } else { [format!("{}:", text.len()).as_bytes(), &text].concat() };
        Item::immutable(&value).map_err(|e| unsound(&e))?;
        Ok(Self { value, secret: key.map(secret_in).transpose()?, salt: salt.into_bytes(), seq, cas })
    }
}

fn unsound(error: &ItemError) -> Failure {
    Failure::usage(format!("dht put: {error}"))
}

pub(super) async fn put(dht: &Dht, draft: Draft, json: bool) -> Result<(), Failure> {
    let item = match &draft.secret {
        None => Item::immutable(&draft.value),
        Some(secret) => {
            let target = mutable_target(&public_key(secret), &draft.salt);
            let seq = match draft.seq {
                Some(seq) => seq,
                None => newest(dht, target, draft.salt.clone()).await?.and_then(|i| i.seq()).map_or(0, |seq| seq + 1),
            };
            Item::sign(secret, &draft.salt, seq, &draft.value)
        }
    };
    let item = item.map_err(|e| unsound(&e))?;
    let target = item.target();
    let summary = dht.ask(Command::Put { item: item.clone(), cas: draft.cas }, |_| Ok(())).await?;
    if summary.stored == 0 {
        return Err(not_stored("put", summary.refused));
    }
    let key = item.signed().map(|signed| hex(&signed.key));
    if json {
        let body =
            json!({ "target": target.to_string(), "public_key": key, "seq": item.seq(), "stored": summary.stored });
        return screen::output(object(&body));
    }
    screen::output(format!("{target}\n"))?;
    let version = item.seq().map_or(String::new(), |seq| format!(", version {seq}"));
    let key = key.map_or(String::new(), |key| format!(", public key {key}"));
    screen::message(format_args!("stored on {}{version}{key}", many(summary.stored, "node")));
    Ok(())
}

fn read_stdin() -> Result<Vec<u8>, Failure> {
    let mut bytes = Vec::new();
    let most = u64::try_from(MAX_VALUE).unwrap_or(u64::MAX).saturating_add(1);
    std::io::stdin()
        .lock()
        .take(most)
        .read_to_end(&mut bytes)
        .map_err(|e| Failure::new(Code::Disk, format!("standard input: {e}")))?;
    Ok(bytes)
}

/// The secret key in the file at `path`: 64 hex digits. A file that is not there is made, for its owner alone.
fn secret_in(path: &Path) -> Result<[u8; 32], Failure> {
    match File::open(path) {
        Ok(file) => {
            let mut text = String::new();
            file.take(MAX_KEY_FILE).read_to_string(&mut text).map_err(|e| Failure::disk(path, &e))?;
            let shown = crate::cli::exit::shown(path);
            parse_hex(text.trim()).ok_or_else(|| Failure::invalid(format!("{shown}: not a key of 64 hex digits")))
        }
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
            let mut secret = [0; 32];
            getrandom::fill(&mut secret).map_err(|e| Failure::new(Code::Bug, format!("no randomness: {e}")))?;
            let mut options = File::options();
            options.write(true).create_new(true);
            crate::sys::private(&mut options);
            let written = options.open(path).and_then(|mut file| writeln!(file, "{}", hex(&secret)));
            written.map_err(|e| Failure::disk(path, &e))?;
            screen::message(format_args!("made a new key: {}", crate::cli::exit::shown(path)));
            Ok(secret)
        }
        Err(e) => Err(Failure::disk(path, &e)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_made_once_and_kept() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("my.key");
        let secret = secret_in(&path).unwrap();
        assert_eq!(secret_in(&path).unwrap(), secret);
        std::fs::write(&path, "nonsense").unwrap();
        assert_eq!(secret_in(&path).unwrap_err().code, Code::Invalid);
    }

    #[test]
    fn targets_and_keys() {
        let key = "77ff84905a91936367c01360803104f92432fcd904a43511876df5cdf3e7e548";
        let wanted = Wanted::parse(key, "foobar").unwrap();
        assert_eq!(wanted.target.to_string(), "411eba73b6f087ca51a3795d9c8c938d365e32c1");
        let target = "e5f96f6f38320f0f33959cb4d3d656452117aadb";
        assert_eq!(Wanted::parse(target, "").unwrap().target.to_string(), target);
        assert!(Wanted::parse("e5f9", "").is_err() && Wanted::parse(&"ü".repeat(20), "").is_err());
    }
}
