//! `gannet info`: what is in a torrent or magnet link.

use std::fmt::Write;
use std::io::IsTerminal;

use serde_json::{Value, json};

use super::Global;
use super::address::{data_address, public_part};
use super::args::InfoArgs;
use super::exit::Failure;
use super::json::{hashes, object};
use super::options::{DiskOptions, Layer};
use super::progress::{Look, count};
use super::quantity::bytes;
use super::signals::Signals;
use super::source::{self, Source};
use super::time::unix_date;
use super::{metadata, sandbox, screen, tree};
use crate::base::{InfoHash, printable};
use crate::metainfo::{File, Magnet, Metainfo};

pub(super) fn run(args: InfoArgs, global: &Global) -> Result<(), Failure> {
    let get = global.layers.settings.get.clone();
    let network = args.network.or(get.network);
    let source = Source::parse(&args.source);
    if !matches!(source, Source::Magnet(_)) || args.offline {
        sandbox::enter(global, &[]);
    }
    match source {
        Source::Magnet(link) if args.offline => show_magnet(&source::magnet(&link)?, global),
        Source::Magnet(link) => {
            let magnet = source::magnet(&link)?;
            let disk = DiskOptions { state_dir: args.state_dir, ..DiskOptions::default() }.or(get.disk);
            sandbox::enter(global, &[&disk.state_dir()?]);
            super::runtime()?.block_on(async {
                let mut signals = Signals::take()?;
                metadata::fetch(magnet, (&network, &disk), args.timeout, &global.output, &mut signals, |m| {
                    show(m, global)
                })
                .await
            })
        }
        Source::Web(_) if args.offline => {
            Err(Failure::usage(format!("{}: --offline uses no network", public_part(&args.source))))
        }
        Source::Web(_) => show(&super::block_on(source::read(&args.source, &network.egress.egress()?))?, global),
        _ => show(&source::read_local(&args.source)?, global),
    }
}

fn show(metainfo: &Metainfo, global: &Global) -> Result<(), Failure> {
    if global.output.json {
        return screen::output(object(&to_json(metainfo)));
    }
    let unicode = Look::new(false).unicode && std::io::stdout().is_terminal();
    screen::output(to_text(metainfo, unicode))
}

/// `v1`, `v2` or `hybrid`.
pub(super) fn version(hash: &InfoHash) -> &'static str {
    match (hash.as_v1(), hash.as_v2()) {
        (_, None) => "v1",
        (None, Some(_)) => "v2",
        (Some(_), Some(_)) => "hybrid",
    }
}

/// A file's path as written to disk below the download folder, joined with `/`.
pub(super) fn disk_path(metainfo: &Metainfo, file: &File) -> String {
    if metainfo.info.is_single_file() {
        return file.path.as_str().to_owned();
    }
    format!("{}/{}", metainfo.info.name(), file.path.as_str())
}

fn to_json(metainfo: &Metainfo) -> Value {
    let info = &metainfo.info;
    let (v1, v2) = hashes(&info.info_hash());
    let files: Vec<Value> = info
        .files()
        .iter()
        .map(|file| {
            json!({
                "path": disk_path(metainfo, file),
                "length": file.length,
                "pad": file.attr.pad,
                "executable": file.attr.executable,
                "hidden": file.attr.hidden,
                "symlink": file.attr.symlink,
                "pieces_root": file.pieces_root.map(|root| hex(&root)),
            })
        })
        .collect();
    let nodes: Vec<String> = metainfo.nodes.iter().map(|(host, port)| host_port(host, *port)).collect();
    json!({
        "name": info.name(),
        "version": version(&info.info_hash()),
        "info_hash_v1": v1,
        "info_hash_v2": v2,
        "total_size": info.total_size(),
        "piece_length": info.geometry().piece_length(),
        "piece_count": info.geometry().piece_count(),
        "files": files,
        "trackers": metainfo.announce,
        "web_seeds": metainfo.web_seeds,
        "nodes": nodes,
        "private": info.is_private(),
        "source": info.source(),
        "comment": metainfo.comment,
        "created_by": metainfo.created_by,
        "creation_date": metainfo.creation_date,
        "magnet": metainfo.magnet().to_string(),
    })
}

/// `host:port`, an IPv6 address in brackets.
fn host_port(host: &str, port: u16) -> String {
    if host.contains(':') && !host.starts_with('[') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
}

pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

fn row(text: &mut String, label: &str, value: impl std::fmt::Display) {
    let _ = writeln!(text, "{label:<14} {value}");
}

fn hash_rows(text: &mut String, hash: &InfoHash) {
    if let Some(v1) = hash.as_v1() {
        row(text, "info-hash v1", v1);
    }
    if let Some(v2) = hash.as_v2() {
        row(text, "info-hash v2", v2);
    }
}

fn to_text(metainfo: &Metainfo, unicode: bool) -> String {
    let info = &metainfo.info;
    let mut text = String::new();
    row(&mut text, "name", printable(info.name()));
    row(&mut text, "version", version(&info.info_hash()));
    hash_rows(&mut text, &info.info_hash());
    row(&mut text, "size", format!("{} ({} bytes)", bytes(info.total_size()), info.total_size()));
    let geometry = info.geometry();
    row(&mut text, "pieces", format!("{} of {}", geometry.piece_count(), piece_length(geometry.piece_length())));
    if info.is_private() {
        row(&mut text, "private", "yes: only peers from its trackers");
    }
    for (label, value) in [
        ("source", info.source()),
        ("comment", metainfo.comment.as_deref()),
        ("created by", metainfo.created_by.as_deref()),
    ] {
        if let Some(value) = value {
            row(&mut text, label, printable(value));
        }
    }
    if let Some(date) = metainfo.creation_date {
        row(&mut text, "created", unix_date(date));
    }
    for (n, tier) in metainfo.announce.iter().enumerate() {
        let shown: Vec<String> = tier.iter().map(|url| public_part(url)).collect();
        row(&mut text, if n == 0 { "trackers" } else { "" }, shown.join(", "));
    }
    for (n, url) in metainfo.web_seeds.iter().enumerate() {
        row(&mut text, if n == 0 { "web seeds" } else { "" }, data_address(url));
    }
    for (n, (host, port)) in metainfo.nodes.iter().enumerate() {
        row(&mut text, if n == 0 { "DHT nodes" } else { "" }, printable(&host_port(host, *port)));
    }
    let files: Vec<&File> = info.files().iter().filter(|f| !f.attr.pad).collect();
    row(&mut text, "files", count(u64::try_from(files.len()).unwrap_or(u64::MAX), "file"));
    text.push('\n');
    file_tree(&mut text, metainfo, &files, unicode);
    text
}

/// Number, size and name of each file, in a tree.
fn file_tree(text: &mut String, metainfo: &Metainfo, files: &[&File], unicode: bool) {
    let folder = (!metainfo.info.is_single_file()).then(|| printable(metainfo.info.name()));
    let paths: Vec<Vec<String>> = files
        .iter()
        .map(|file| folder.iter().cloned().chain(file.path.components().map(printable)).collect())
        .collect();
    let width = files.len().to_string().len();
    for line in tree::draw(&paths) {
        let name = line.text(unicode);
        let beside = match line.leaf.and_then(|leaf| Some((leaf, files.get(leaf)?))) {
            Some((leaf, file)) => format!("{:>width$}  {:>10}  {name}{}", leaf + 1, bytes(file.length), marks(file)),
            None => format!("{:>width$}  {:>10}  {name}/", "", ""),
        };
        let _ = writeln!(text, "{beside}");
    }
}

fn marks(file: &File) -> String {
    let mut marks = vec![];
    if file.attr.executable {
        marks.push("executable".to_owned());
    }
    if file.attr.hidden {
        marks.push("hidden".to_owned());
    }
    if let Some(target) = &file.symlink {
        marks.push(format!("link to {}, not made", printable(target.as_str())));
    }
    if marks.is_empty() { String::new() } else { format!("  ({})", marks.join(", ")) }
}

/// A length of pieces: a power of two is told as one.
pub(super) fn piece_length(length: u32) -> String {
    match length {
        l if l >= 1 << 20 && l.is_multiple_of(1 << 20) => format!("{} MiB", l >> 20),
        l if l >= 1 << 10 && l.is_multiple_of(1 << 10) => format!("{} KiB", l >> 10),
        l => format!("{l} bytes"),
    }
}

fn show_magnet(magnet: &Magnet, global: &Global) -> Result<(), Failure> {
    let peers: Vec<String> = magnet.peers.iter().map(|(host, port)| host_port(host, *port)).collect();
    let select: Vec<String> = magnet
        .select
        .iter()
        .map(|r| if r.start() == r.end() { r.start().to_string() } else { format!("{}-{}", r.start(), r.end()) })
        .collect();
    if global.output.json {
        let (v1, v2) = hashes(&magnet.info_hash);
        let body = json!({
            "name": magnet.name,
            "info_hash_v1": v1,
            "info_hash_v2": v2,
            "trackers": magnet.trackers,
            "web_seeds": magnet.web_seeds,
            "peers": peers,
            "select": select,
        });
        return screen::output(object(&body));
    }
    let mut text = String::new();
    row(&mut text, "name", magnet.name.as_deref().map_or_else(|| "(not told)".to_owned(), printable));
    hash_rows(&mut text, &magnet.info_hash);
    let lists = [
        ("trackers", magnet.trackers.iter().map(|url| public_part(url)).collect()),
        ("web seeds", magnet.web_seeds.iter().map(|url| data_address(url)).collect()),
        ("peers", peers),
        ("select", select),
    ];
    for (label, values) in lists {
        let values: Vec<String> = values;
        for (n, value) in values.iter().enumerate() {
            row(&mut text, if n == 0 { label } else { "" }, printable(value));
        }
    }
    screen::output(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words() {
        assert_eq!(
            [piece_length(1 << 20), piece_length(16_384), piece_length(1_000)],
            ["1 MiB", "16 KiB", "1000 bytes"]
        );
        assert_eq!([host_port("::1", 1), host_port("a.b", 2)], ["[::1]:1", "a.b:2"]);
        assert_eq!(hex(&[0, 255]), "00ff");
    }
}
