//! `gannet create`: makes a `.torrent`.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use serde_json::json;
use url::Url;

use super::Global;
use super::address::public_part;
use super::args::{CreateArgs, Format, PieceLength};
use super::exit::{Failure, shown};
use super::json::{hashes, object};
use super::progress::count;
use super::quantity::bytes;
use super::walk::{Found, Walk};
use super::{hashing, info, screen, time};
use crate::base::printable;
use crate::metainfo::{self, Builder, Metainfo, Plan, SourceFile};
use crate::sys::is_executable;

/// What a tracker or web seed may be reached by. `ws` is for clients in browsers, which read our torrents, too.
const TRACKER_SCHEMES: [&str; 5] = ["http", "https", "udp", "ws", "wss"];

pub(super) fn run(args: CreateArgs, global: &Global) -> Result<(), Failure> {
    let name = name(&args)?;
    let output = Output::new(&args, &name);
    let (files, single) = files(&args, &output, global)?;
    let plan = plan(&args, name.clone(), &files, single)?;
    if args.dry_run {
        return dry_run(&name, &plan, &files, single, global);
    }
    output.check(args.force)?;
    let paths: Vec<PathBuf> = files.into_iter().map(|f| f.path).collect();
    let hashes = hashing::hash(&plan, &paths, args.threads, &global.output)?;
    let torrent =
        plan.finish(&hashes.v1, &hashes.v2).map_err(|e| Failure::usage(format!("{}: {e}", shown(&args.path))))?;
    output.write(&torrent, args.force)?;
    // With JSON the version stands in the object.
    if args.format != Format::V1 && !global.output.quiet && !global.output.json {
        let kind = if args.format == Format::V2 { "v2" } else { "hybrid" };
        screen::message(format_args!("gannet: a {kind} torrent; use --format v1 for aria2 and older Transmission"));
    }
    report(&torrent, &output, global)
}

/// What the torrent is called.
fn name(args: &CreateArgs) -> Result<String, Failure> {
    if let Some(name) = &args.name {
        return Ok(name.clone());
    }
    // "." and ".." have no name of their own.
    let path = match args.path.file_name() {
        Some(_) => args.path.clone(),
        None => args.path.canonicalize().map_err(|e| Failure::disk(&args.path, &e))?,
    };
    let name = path.file_name().and_then(|n| n.to_str()).map(str::to_owned);
    name.ok_or_else(|| {
        Failure::usage(format!("{}: no name that a torrent can have; give one with --name", shown(&args.path)))
    })
}

/// Where the torrent goes.
enum Output {
    Stdout,
    File(PathBuf),
}

impl Output {
    fn new(args: &CreateArgs, name: &str) -> Self {
        match &args.output {
            Some(path) if path.as_os_str() == "-" => Self::Stdout,
            Some(path) => Self::File(path.clone()),
            // A name from --name may hold a separator; that is refused later, where names are checked.
            None => Self::File(format!("{}.torrent", name.replace('/', "_")).into()),
        }
    }

    /// Refused before an hour of hashing rather than after it.
    fn check(&self, force: bool) -> Result<(), Failure> {
        let Self::File(path) = self else { return Ok(()) };
        match fs::symlink_metadata(path) {
            Ok(meta) if meta.is_dir() => Err(Failure::usage(format!("{}: a folder; name a file", shown(path)))),
            Ok(_) if !force => Err(exists(path)),
            Ok(_) => Ok(()),
            Err(e) if e.kind() == io::ErrorKind::NotFound => {
                let folder = folder_of(path);
                fs::metadata(folder).map(|_| ()).map_err(|e| Failure::disk(folder, &e))
            }
            Err(e) => Err(Failure::disk(path, &e)),
        }
    }

    /// All or nothing: the file appears under its name when it is whole.
    fn write(&self, torrent: &[u8], force: bool) -> Result<(), Failure> {
        let Self::File(path) = self else { return screen::output_bytes(torrent) };
        let refused = |e: io::Error| Failure::disk(path, &e);
        let mut hidden = std::ffi::OsString::from(".");
        hidden.push(path.file_name().unwrap_or_default());
        hidden.push(format!(".{}.tmp", std::process::id()));
        let draft = path.with_file_name(hidden);
        let written = File::create_new(&draft).and_then(|mut file| {
            file.write_all(torrent)?;
            file.sync_all()
        });
        // Without --force a file that came meanwhile is not replaced.
        let moved = written.and_then(|()| if force { fs::rename(&draft, path) } else { place_new(&draft, path) });
        if moved.is_err() {
            let _ = fs::remove_file(&draft);
        }
        match moved {
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => Err(exists(path)),
            other => other.map_err(refused),
        }
    }
}

/// Gives `draft` the name `path` only if nothing has it. File systems without hard links get a look before the move.
fn place_new(draft: &Path, path: &Path) -> io::Result<()> {
    match fs::hard_link(draft, path) {
        Ok(()) => fs::remove_file(draft),
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists => Err(e),
        Err(_) if fs::symlink_metadata(path).is_ok() => Err(io::ErrorKind::AlreadyExists.into()),
        Err(_) => fs::rename(draft, path),
    }
}

fn exists(path: &Path) -> Failure {
    Failure::usage(format!("{}: already there; --force writes over it, -o names another file", shown(path)))
}

fn folder_of(path: &Path) -> &Path {
    path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// What goes in, sorted, and whether it is one file by itself.
fn files(args: &CreateArgs, output: &Output, global: &Global) -> Result<(Vec<Found>, bool), Failure> {
    // The path itself may be a link: the user named it.
    let meta = fs::metadata(&args.path).map_err(|e| Failure::disk(&args.path, &e))?;
    if !meta.is_dir() {
        if !meta.is_file() {
            return Err(Failure::usage(format!("{}: neither a file nor a folder", shown(&args.path))));
        }
        let executable = is_executable(&meta);
        let file = Found { path: args.path.clone(), components: vec![], length: meta.len(), executable };
        return Ok((vec![file], true));
    }
    let mut walk = Walk::new(&args.exclude, args.hidden)?;
    let mut files = walk.files(&args.path)?;
    if !global.output.quiet {
        for (path, why) in &walk.skipped {
            screen::message(format_args!("gannet: {}: skipped: {why}", shown(path)));
        }
        if walk.hidden_count > 0 {
            let left = count(u64::try_from(walk.hidden_count).unwrap_or(u64::MAX), "hidden file or folder");
            screen::message(format_args!("gannet: {left} left out; --hidden takes them in"));
        }
    }
    // `gannet create .` twice must not put the first torrent into the second.
    if let Output::File(path) = output
        && let (Ok(folder), Some(own)) = (folder_of(path).canonicalize(), path.file_name())
    {
        files.retain(|file| {
            let same = file.path.file_name() == Some(own)
                && file.path.parent().and_then(|p| p.canonicalize().ok()).is_some_and(|p| p == folder);
            if same && !global.output.quiet {
                screen::message(format_args!("gannet: {}: left out: the torrent itself", shown(&file.path)));
            }
            !same
        });
    }
    Ok((files, false))
}

fn plan(args: &CreateArgs, name: String, files: &[Found], single: bool) -> Result<Plan, Failure> {
    let mut builder = match files {
        [file] if single => Builder::file(name, file.length).executable(file.executable),
        _ => Builder::folder(
            name,
            files
                .iter()
                .map(|file| SourceFile {
                    path: file.components.clone(),
                    length: file.length,
                    executable: file.executable,
                    hidden: file.components.iter().any(|c| c.starts_with(b".")),
                })
                .collect(),
        ),
    };
    builder.format = match args.format {
        Format::V1 => metainfo::Format::V1,
        Format::V2 => metainfo::Format::V2,
        Format::Hybrid => metainfo::Format::Hybrid,
    };
    builder.piece_length = match args.piece_length {
        PieceLength::Auto => None,
        PieceLength::Fixed(length) => Some(length),
    };
    for tier in &args.trackers {
        let urls = tier.split(',').map(|url| address("--tracker", url.trim(), &TRACKER_SCHEMES));
        builder.announce.push(urls.collect::<Result<_, _>>()?);
    }
    for url in &args.web_seeds {
        builder.web_seeds.push(address("--web-seed", url, &["http", "https", "ftp"])?);
    }
    for node in &args.nodes {
        builder.nodes.push(parse_node(node)?);
    }
    builder.private = args.private;
    builder.source = args.source.clone();
    builder.comment = args.comment.clone();
    builder.created_by = Some(concat!("gannet ", env!("CARGO_PKG_VERSION")).to_owned());
    builder.creation_date = date(args.no_date)?;
    builder.plan().map_err(|e| Failure::usage(format!("{}: {e}", shown(&args.path))))
}

/// Checks that an address is one, without changing a letter of it.
fn address(option: &str, text: &str, schemes: &[&str]) -> Result<String, Failure> {
    let refused = |why: &str| Failure::usage(format!("{option} {}: {why}", public_part(text)));
    let url = Url::parse(text).map_err(|e| match e {
        url::ParseError::RelativeUrlWithoutBase => refused("an address begins with http:// or the like"),
        other => refused(&other.to_string()),
    })?;
    if !schemes.contains(&url.scheme()) {
        return Err(refused(&format!("not one of {}", schemes.join(", "))));
    }
    if url.host_str().is_none_or(str::is_empty) {
        return Err(refused("no host in it"));
    }
    if url.scheme() == "udp" && url.port().is_none() {
        return Err(refused("a udp tracker needs a port"));
    }
    Ok(text.to_owned())
}

fn parse_node(text: &str) -> Result<(String, u16), Failure> {
    let parts = text.rsplit_once(':').and_then(|(host, port)| Some((host, port.parse().ok()?)));
    match parts {
        Some((host, port)) if port > 0 && !host.is_empty() => {
            let bare = host.strip_prefix('[').and_then(|h| h.strip_suffix(']')).unwrap_or(host);
            Ok((bare.to_owned(), port))
        }
        _ => Err(Failure::usage(format!("--node {}: a host and port, such as dht.example:6881", printable(text)))),
    }
}

/// The date that goes in: none, the fixed one of reproducible builds, or now.
fn date(no_date: bool) -> Result<Option<i64>, Failure> {
    if no_date {
        return Ok(None);
    }
    match std::env::var("SOURCE_DATE_EPOCH") {
        Err(_) => Ok(Some(time::unix_now())),
        Ok(text) if text.is_empty() => Ok(Some(time::unix_now())),
        Ok(text) => match text.parse::<i64>() {
            Ok(seconds) if seconds >= 0 => Ok(Some(seconds)),
            _ => Err(Failure::usage("SOURCE_DATE_EPOCH: not a number of seconds since 1970")),
        },
    }
}

fn dry_run(name: &str, plan: &Plan, files: &[Found], single: bool, global: &Global) -> Result<(), Failure> {
    let path = |file: &Found| match single {
        true => name.to_owned(),
        false => format!("{name}/{}", String::from_utf8_lossy(&file.components.join(&b'/'))),
    };
    if global.output.json {
        let files: Vec<_> = files.iter().map(|f| json!({ "path": path(f), "length": f.length })).collect();
        let body = json!({
            "name": name,
            "total_size": plan.total_size(),
            "piece_length": plan.piece_length(),
            "piece_count": plan.piece_count(),
            "files": files,
        });
        return screen::output(object(&body));
    }
    let mut text = String::new();
    for file in files {
        text.push_str(&format!("{:>10}  {}\n", bytes(file.length), printable(&path(file))));
    }
    text.push_str(&format!(
        "{}, {}, {} of {}; nothing written\n",
        count(u64::try_from(files.len()).unwrap_or(u64::MAX), "file"),
        bytes(plan.total_size()),
        count(plan.piece_count(), "piece"),
        info::piece_length(plan.piece_length())
    ));
    screen::output(text)
}

/// Says what was made, from what was made.
fn report(torrent: &[u8], output: &Output, global: &Global) -> Result<(), Failure> {
    let Output::File(path) = output else { return Ok(()) };
    let metainfo = Metainfo::parse(torrent).map_err(|e| {
        Failure::new(super::exit::Code::Bug, format!("{}: the torrent just made is not valid: {e}", shown(path)))
    })?;
    let info = &metainfo.info;
    let hash = info.info_hash();
    let magnet = metainfo.magnet().to_string();
    if global.output.json {
        let (v1, v2) = hashes(&hash);
        let body = json!({
            "path": path.to_string_lossy(),
            "name": info.name(),
            "version": info::version(&hash),
            "info_hash_v1": v1,
            "info_hash_v2": v2,
            "total_size": info.total_size(),
            "piece_length": info.geometry().piece_length(),
            "piece_count": info.geometry().piece_count(),
            "magnet": magnet,
        });
        return screen::output(object(&body));
    }
    let mut text = format!("{:<14} {}\n", "torrent", shown(path));
    if let Some(v1) = hash.as_v1() {
        text.push_str(&format!("{:<14} {v1}\n", "info-hash v1"));
    }
    if let Some(v2) = hash.as_v2() {
        text.push_str(&format!("{:<14} {v2}\n", "info-hash v2"));
    }
    text.push_str(&format!("{:<14} {magnet}\n", "magnet"));
    screen::output(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nodes() {
        assert_eq!(parse_node("a.b:1").unwrap(), ("a.b".to_owned(), 1));
        assert_eq!(parse_node("[::1]:6881").unwrap(), ("::1".to_owned(), 6881));
        for text in ["", "a", ":1", "a:0", "a:70000"] {
            assert!(parse_node(text).is_err(), "{text}");
        }
    }

    #[test]
    fn addresses() {
        let check = |url| address("--tracker", url, &TRACKER_SCHEMES);
        assert_eq!(check("HTTP://t.example/a?k=S").unwrap(), "HTTP://t.example/a?k=S");
        assert!(check("udp://t.example:1").is_ok());
        for url in ["t.example", "file:///x", "udp://t.example", "http://", "ftp://t/"] {
            assert!(check(url).is_err(), "{url}");
        }
        let failure = check("gopher://t.example/SECRET").unwrap_err();
        assert!(!failure.message.contains("SECRET"), "{failure}");
    }
}
