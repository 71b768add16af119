//! Making a torrent, for `create` and `share`.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use url::Url;

use super::Global;
use super::address::public_part;
use super::args::{Format, MakeOptions, PieceLength};
use super::exit::{Code, Failure, shown};
use super::json::{hashes, object};
use super::progress::count;
use super::quantity::bytes;
use super::torrent_file::{Output, folder_of};
use super::walk::{Found, Walk};
use super::{hashing, info, screen, time};
use crate::base::printable;
use crate::metainfo::{self, Builder, Metainfo, Plan, SourceFile};
use crate::sys::is_executable;

/// What a tracker or web seed may be reached by. `ws` is for clients in browsers, which read our torrents, too.
const TRACKER_SCHEMES: [&str; 5] = ["http", "https", "udp", "ws", "wss"];

/// A torrent to be made: all of it but the hashes.
pub(super) struct Draft {
    path: PathBuf,
    name: String,
    files: Vec<Found>,
    /// It is one file by itself.
    single: bool,
    plan: Plan,
    output: Output,
}

/// A torrent that has been made.
pub(super) struct Made {
    pub(super) bytes: Vec<u8>,
    pub(super) metainfo: Metainfo,
    pub(super) output: Output,
}

impl Draft {
    /// Looks at what is at `path`. The torrent goes to `output`, else into `folder`.
    pub(super) fn new(
        path: &Path,
        (output, folder): (Option<&Path>, &Path),
        options: &MakeOptions,
        trackers: &[String],
        global: &Global,
    ) -> Result<Self, Failure> {
        let name = name(path, options.name.as_deref())?;
        let output = Output::new(output, folder, &name);
        let (files, single) = files(path, options, &output, global)?;
        let plan = plan(path, options, trackers, name.clone(), &files, single)?;
        Ok(Self { path: path.to_owned(), name, files, single, plan, output })
    }

    /// Where it will be written.
    pub(super) fn output(&self) -> &Output {
        &self.output
    }

    /// Hashes the data.
    pub(super) fn make(self, options: &MakeOptions, global: &Global) -> Result<Made, Failure> {
        let Self { path, files, plan, output, .. } = self;
        let paths: Vec<PathBuf> = files.into_iter().map(|f| f.path).collect();
        let hashes = hashing::hash(&plan, &paths, options.threads, &global.output)?;
        let bytes =
            plan.finish(&hashes.v1, &hashes.v2).map_err(|e| Failure::usage(format!("{}: {e}", shown(&path))))?;
        let metainfo = Metainfo::parse(&bytes).map_err(|e| {
            Failure::new(Code::Bug, format!("{}: the torrent just made is not valid: {e}", shown(&path)))
        })?;
        Ok(Made { bytes, metainfo, output })
    }

    /// Shows what would go in.
    pub(super) fn show(&self, global: &Global) -> Result<(), Failure> {
        let Self { name, files, single, plan, .. } = self;
        let path = |file: &Found| match single {
            true => name.clone(),
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
}

impl Made {
    /// What programs are told of it.
    pub(super) fn to_json(&self) -> Value {
        let info = &self.metainfo.info;
        let hash = info.info_hash();
        let (v1, v2) = hashes(&hash);
        let path = match &self.output {
            Output::Stdout => None,
            Output::File(path) => Some(path.to_string_lossy()),
        };
        json!({
            "path": path,
            "name": info.name(),
            "version": info::version(&hash),
            "info_hash_v1": v1,
            "info_hash_v2": v2,
            "total_size": info.total_size(),
            "piece_length": info.geometry().piece_length(),
            "piece_count": info.geometry().piece_count(),
            "magnet": self.metainfo.magnet().to_string(),
        })
    }
}

/// Tells who would share it with clients of old that they do not understand it.
pub(super) fn note_format(format: Format, global: &Global) {
    // With JSON the version stands in the object.
    if format != Format::V1 && !global.output.quiet && !global.output.json {
        let kind = if format == Format::V2 { "v2" } else { "hybrid" };
        screen::message(format_args!("gannet: a {kind} torrent; use --format v1 for aria2 and older Transmission"));
    }
}

/// What the torrent is called.
fn name(path: &Path, named: Option<&str>) -> Result<String, Failure> {
    if let Some(name) = named {
        return Ok(name.to_owned());
    }
    // "." and ".." have no name of their own.
    let whole = match path.file_name() {
        Some(_) => path.to_owned(),
        None => path.canonicalize().map_err(|e| Failure::disk(path, &e))?,
    };
    let name = whole.file_name().and_then(|n| n.to_str()).map(str::to_owned);
    name.ok_or_else(|| {
        Failure::usage(format!("{}: no name that a torrent can have; give one with --name", shown(path)))
    })
}

/// What goes in, sorted, and whether it is one file by itself.
fn files(from: &Path, options: &MakeOptions, output: &Output, global: &Global) -> Result<(Vec<Found>, bool), Failure> {
    // The path itself may be a link: the user named it.
    let meta = fs::metadata(from).map_err(|e| Failure::disk(from, &e))?;
    if !meta.is_dir() {
        if !meta.is_file() {
            return Err(Failure::usage(format!("{}: neither a file nor a folder", shown(from))));
        }
        let executable = is_executable(&meta);
        let file = Found { path: from.to_owned(), components: vec![], length: meta.len(), executable };
        return Ok((vec![file], true));
    }
    let mut walk = Walk::new(&options.exclude, options.hidden)?;
    let mut files = walk.files(from)?;
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

fn plan(
    from: &Path,
    options: &MakeOptions,
    trackers: &[String],
    name: String,
    files: &[Found],
    single: bool,
) -> Result<Plan, Failure> {
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
    builder.format = match options.format {
        Format::V1 => metainfo::Format::V1,
        Format::V2 => metainfo::Format::V2,
        Format::Hybrid => metainfo::Format::Hybrid,
    };
    builder.piece_length = match options.piece_length {
        PieceLength::Auto => None,
        PieceLength::Fixed(length) => Some(length),
    };
    for tier in trackers {
        let urls = tier.split(',').map(|url| address("--tracker", url.trim(), &TRACKER_SCHEMES));
        builder.announce.push(urls.collect::<Result<_, _>>()?);
    }
    for url in &options.web_seeds {
        builder.web_seeds.push(address("--web-seed", url, &["http", "https", "ftp"])?);
    }
    for node in &options.nodes {
        builder.nodes.push(parse_node(node)?);
    }
    builder.private = options.private;
    builder.source = options.source.clone();
    builder.comment = options.comment.clone();
    builder.created_by = Some(concat!("gannet ", env!("CARGO_PKG_VERSION")).to_owned());
    builder.creation_date = date(options.no_date)?;
    builder.plan().map_err(|e| Failure::usage(format!("{}: {e}", shown(from))))
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
