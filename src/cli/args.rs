//! What can be written on the command line.

use std::path::PathBuf;

use clap::builder::styling::{AnsiColor, Styles};
use clap::{Args, Parser, Subcommand, ValueEnum};

use super::bench::BenchArgs;
use super::dht::DhtArgs;
use super::doctor::DoctorArgs;
use super::options::{EgressOptions, GetOptions, NetworkOptions, SeedOptions};
use super::quantity::parse_size;

const STYLES: Styles = Styles::styled()
    .header(AnsiColor::Green.on_default().bold())
    .usage(AnsiColor::Green.on_default().bold())
    .literal(AnsiColor::Cyan.on_default().bold())
    .placeholder(AnsiColor::Cyan.on_default());

const EXAMPLES: &str = "\
Examples:
  gannet get debian.iso.torrent                download into this folder
  gannet get -d /data --seed-ratio 1 a.torrent b.torrent
  gannet share photos                          make a torrent of it, seed it, and print its magnet link
  gannet create photos --tracker https://tracker.example/announce
  gannet seed photos.torrent photos            seed what is already there
  gannet verify photos.torrent /mnt/copy/photos
  gannet demo                                  see it work, without a network
  gannet bench all                             what can this machine do, and what holds it back?

Sizes and rates: k, M, G, T are powers of 1000 and KiB, MiB, GiB, TiB powers of 1024, in bytes.
Times: 30s, 10m, 2h, 1h30m, 1d.
'gannet COMMAND --help' says more about each command; 'gannet config' shows the settings in effect.";

/// A fast BitTorrent client for the terminal
#[derive(Debug, Parser)]
#[command(
    name = "gannet",
    version,
    styles = STYLES,
    max_term_width = 100,
    arg_required_else_help = true,
    subcommand_required = true,
    disable_help_subcommand = false,
    after_help = EXAMPLES
)]
pub(super) struct Cli {
    #[command(flatten)]
    pub(super) shared: SharedOptions,
    #[command(subcommand)]
    pub(super) command: Command,
}

/// Options of every command.
#[derive(Args, Clone, Debug, Default)]
#[command(next_help_heading = "Output")]
pub(super) struct SharedOptions {
    /// Read settings from FILE instead of ~/.config/gannet/config.toml
    #[arg(long, global = true, value_name = "FILE", hide_short_help = true)]
    pub(super) config: Option<PathBuf>,
    #[command(flatten)]
    pub(super) output: OutputOptions,
    #[command(flatten)]
    pub(super) sandbox: SandboxOptions,
}

/// What the process may do.
#[derive(Args, Clone, Debug, Default)]
#[command(next_help_heading = "Disk")]
pub(super) struct SandboxOptions {
    /// Do not give up the right to write elsewhere than to the folders for downloads and state, and to start programs
    #[arg(long, global = true, hide_short_help = true)]
    pub(super) no_sandbox: bool,
}

/// How much is said, and in which form.
#[derive(Args, Clone, Debug, Default)]
pub(super) struct OutputOptions {
    /// Say nothing but errors
    #[arg(short, long, global = true, conflicts_with = "verbose")]
    pub(super) quiet: bool,
    /// Say more; -vv for debugging. GANNET_LOG takes a finer filter, such as 'gannet::net=debug'
    #[arg(short, long, global = true, action = clap::ArgAction::Count)]
    pub(super) verbose: u8,
    /// Write JSON on standard output: one object, or one per line and event
    #[arg(long, global = true)]
    pub(super) json: bool,
    /// When to use colours; 'auto' is on a terminal, unless NO_COLOR is set
    #[arg(long, global = true, value_name = "WHEN", hide_short_help = true)]
    pub(super) color: Option<ColorChoice>,
}

/// When colours are used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum ColorChoice {
    /// On a terminal, unless NO_COLOR is set
    Auto,
    /// Always
    Always,
    /// Never
    Never,
}

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    Get(GetArgs),
    Seed(SeedArgs),
    Share(ShareArgs),
    Create(CreateArgs),
    Info(InfoArgs),
    Verify(VerifyArgs),
    Magnet(MagnetArgs),
    Scrape(ScrapeArgs),
    Dht(DhtArgs),
    Doctor(DoctorArgs),
    Bench(BenchArgs),
    Demo(DemoArgs),
    /// Show the settings in effect, and where each comes from
    ///
    /// Settings are the long options of get and seed, without dashes: 'limit-up = "500k"' in the configuration file,
    /// GANNET_LIMIT_UP=500k in the environment. Options win over variables, variables over the file, which is
    /// ~/.config/gannet/config.toml unless --config or GANNET_CONFIG name another.
    Config(ConfigArgs),
    Completions(CompletionsArgs),
    Man(ManArgs),
}

/// Download torrents
///
/// Exits when everything wanted is there and verified. Run again after an interruption to go on where it stopped.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  gannet get debian.iso.torrent
  gannet get -d /data --limit-up 500k https://example.org/a.torrent b.torrent
  gannet get photos.torrent --select 'photos/2024/**' --exclude '*.raw'
  gannet get photos.torrent --select 3 --select 7-9     file numbers as 'gannet info' shows them
  gannet get --seed-ratio 1.5 --seed-time 2h a.torrent  stops at whichever comes first
  gannet get 'magnet:?xt=urn:btih:...'
  cat a.torrent | gannet get -")]
pub(super) struct GetArgs {
    /// A .torrent file, '-' for standard input, the http(s) address of one, a magnet link or an info-hash
    #[arg(required = true, value_name = "SOURCE")]
    pub(super) sources: Vec<String>,
    #[command(flatten)]
    pub(super) options: GetOptions,
}

/// Seed data that is already there
///
/// The data is checked first and only ever read, so a read-only disk will do. Runs until it is stopped (Ctrl-C) or the
/// goal of --seed-ratio or --seed-time is reached.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  gannet seed debian.iso.torrent /mnt/mirror/debian.iso
  gannet seed --listen :6881 --limit-up 5M photos.torrent ~/photos
  gannet seed --seed-ratio 2 photos.torrent ~/photos")]
pub(super) struct SeedArgs {
    /// A .torrent file, '-' for standard input, the http(s) address of one, a magnet link or an info-hash
    #[arg(value_name = "TORRENT")]
    pub(super) source: String,
    /// The file or folder itself, whatever its name
    #[arg(value_name = "PATH")]
    pub(super) path: PathBuf,
    #[command(flatten)]
    pub(super) options: SeedOptions,
}

/// Make a torrent of a file or folder and seed it
///
/// Prints the magnet link, by which 'gannet get' and every other client fetches it, writes the .torrent beside PATH, and
/// seeds until it is stopped (Ctrl-C). The data is hashed once and only ever read.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  gannet share holiday-photos
  gannet share --tracker https://tracker.example/announce -o /tmp/film.torrent film.mkv
  gannet share --seed-ratio 2 a b c")]
pub(super) struct ShareArgs {
    /// The files and folders, each a torrent of its own
    #[arg(required = true, value_name = "PATH")]
    pub(super) paths: Vec<PathBuf>,
    #[command(flatten)]
    pub(super) options: MakeOptions,
    #[command(flatten)]
    pub(super) seeding: SeedOptions,
}

/// Make a .torrent from a file or folder
///
/// The same input and options give the same bytes when the date is left out (--no-date) or fixed by the environment
/// variable SOURCE_DATE_EPOCH. Files go in sorted by path; symbolic links are skipped with a warning.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  gannet create photos --tracker https://tracker.example/announce
  gannet create photos --tracker https://a.example/announce,https://b.example/announce --tracker udp://c.example:6969
  gannet create release --private --source EXAMPLE --no-date -o release.torrent
  gannet create photos --exclude '*.tmp' --exclude 'cache/**' --dry-run")]
pub(super) struct CreateArgs {
    /// The file or folder to share
    #[arg(value_name = "PATH")]
    pub(super) path: PathBuf,
    /// Announce address of a tracker; a comma joins trackers of one tier, again for the next tier
    #[arg(short, long = "tracker", value_name = "URL")]
    pub(super) trackers: Vec<String>,
    #[command(flatten)]
    pub(super) options: MakeOptions,
}

/// Options of `create` and `share`.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Torrent")]
pub(super) struct MakeOptions {
    /// Where to write the torrent [default: NAME.torrent, by create in this folder, by share beside PATH]; of create '-' is
    /// standard output
    #[arg(short, long, value_name = "FILE")]
    pub(super) output: Option<PathBuf>,
    /// Write over an existing torrent file
    #[arg(long)]
    pub(super) force: bool,
    /// Which protocol versions can use it; hybrid serves both, but aria2 and older Transmission need v1
    #[arg(long, value_enum, default_value_t = Format::Hybrid)]
    pub(super) format: Format,
    /// Bytes per piece: a power of two from 16KiB to 256MiB, or 'auto'
    #[arg(long, value_name = "SIZE", default_value = "auto", value_parser = parse_piece_length)]
    pub(super) piece_length: PieceLength,
    /// Address of a web server that has the data (BEP 19); again for more
    #[arg(long = "web-seed", value_name = "URL")]
    pub(super) web_seeds: Vec<String>,
    /// A DHT node to begin with, HOST:PORT (BEP 5); again for more
    #[arg(long = "node", value_name = "HOST:PORT")]
    pub(super) nodes: Vec<String>,
    /// Only peers from the torrent's trackers may be used (BEP 27)
    #[arg(long)]
    pub(super) private: bool,
    /// A short text that gives the torrent an identity of its own, as private trackers ask for
    #[arg(long, value_name = "TEXT")]
    pub(super) source: Option<String>,
    /// A remark for people
    #[arg(long, value_name = "TEXT")]
    pub(super) comment: Option<String>,
    /// Name of the torrent [default: the last part of PATH]
    #[arg(long, value_name = "NAME")]
    pub(super) name: Option<String>,
    /// Leave out the date of creation
    #[arg(long)]
    pub(super) no_date: bool,
    /// Leave out files and folders whose path below PATH matches GLOB; again for more
    #[arg(long, value_name = "GLOB")]
    pub(super) exclude: Vec<String>,
    /// Take files and folders whose names begin with a dot, too
    #[arg(long)]
    pub(super) hidden: bool,
    /// Hashing threads [default: one per core]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub(super) threads: Option<u16>,
    /// Show what would go in; hash and write nothing
    #[arg(long)]
    pub(super) dry_run: bool,
}

/// Which protocol versions a torrent serves.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Format {
    /// BEP 3: SHA-1, every client
    V1,
    /// BEP 52: SHA-256 and a hash tree for each file
    V2,
    /// Both
    Hybrid,
}

/// How long pieces are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum PieceLength {
    /// By the size of the data.
    Auto,
    /// Bytes.
    Fixed(u32),
}

pub(super) fn parse_piece_length(text: &str) -> Result<PieceLength, String> {
    const LOWEST: u64 = 16 << 10;
    const HIGHEST: u64 = 256 << 20;
    if text.eq_ignore_ascii_case("auto") {
        return Ok(PieceLength::Auto);
    }
    let size = parse_size(text)?;
    if !size.is_power_of_two() || !(LOWEST..=HIGHEST).contains(&size) {
        let near = size.clamp(LOWEST, HIGHEST).next_power_of_two();
        let near = if near >= 1 << 20 { format!("{}MiB", near >> 20) } else { format!("{}KiB", near >> 10) };
        return Err(format!("{size} bytes is no power of two from 16KiB to 256MiB; {near} would be"));
    }
    u32::try_from(size).map(PieceLength::Fixed).map_err(|e| e.to_string())
}

/// Show what is in a torrent or magnet link
///
/// The files of a magnet link are asked of its peers; nothing is downloaded.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  gannet info debian.iso.torrent
  gannet info --json debian.iso.torrent | jq .files
  gannet info 'magnet:?xt=urn:btih:...'")]
pub(super) struct InfoArgs {
    /// A .torrent file, '-' for standard input, the http(s) address of one, a magnet link or an info-hash
    #[arg(value_name = "SOURCE")]
    pub(super) source: String,
    /// Use no network: of a magnet link show what it says itself
    #[arg(long)]
    pub(super) offline: bool,
    /// Give up on a magnet link when nothing was learned for this long
    #[arg(long, value_name = "TIME", default_value = "2m", value_parser = super::quantity::parse_duration)]
    pub(super) timeout: std::time::Duration,
    /// Where metadata of magnet links is kept [default: ~/.local/state/gannet]
    #[arg(long, value_name = "DIR")]
    pub(super) state_dir: Option<PathBuf>,
    #[command(flatten)]
    pub(super) network: NetworkOptions,
}

/// Check data against a torrent
///
/// Names every file and piece that is missing or wrong; exit code 6 if there is any. Files are only read.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  gannet verify debian.iso.torrent ~/downloads/debian.iso
  gannet verify --json photos.torrent /mnt/copy/photos")]
pub(super) struct VerifyArgs {
    /// A .torrent file, or '-' for standard input
    #[arg(value_name = "TORRENT")]
    pub(super) source: String,
    /// The file or folder itself, whatever its name
    #[arg(value_name = "PATH")]
    pub(super) path: PathBuf,
    /// Hashing threads [default: one per core]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub(super) threads: Option<u16>,
}

/// Options of `config`.
#[derive(Args, Debug)]
pub(super) struct ConfigArgs {
    /// Passwords, too, and what stands behind the host of a tracker; else *** is shown for them
    #[arg(long)]
    pub(super) show_secrets: bool,
}

/// Print the magnet link of a torrent
#[derive(Args, Debug)]
pub(super) struct MagnetArgs {
    /// A .torrent file, or '-' for standard input
    #[arg(value_name = "TORRENT")]
    pub(super) source: String,
}

/// Ask a torrent's trackers how many seeders and leechers they count
#[derive(Args, Debug)]
pub(super) struct ScrapeArgs {
    /// A .torrent file, or '-' for standard input
    #[arg(value_name = "TORRENT")]
    pub(super) source: String,
    /// Ask this tracker, too; again for more
    #[arg(long = "tracker", value_name = "URL")]
    pub(super) trackers: Vec<String>,
    /// Give up on a tracker after this time
    #[arg(long, value_name = "TIME", default_value = "15s", value_parser = super::quantity::parse_duration)]
    pub(super) timeout: std::time::Duration,
    #[command(flatten)]
    pub(super) egress: EgressOptions,
}

/// See it work: a tracker, seeders and a download on this machine alone
///
/// Makes some random data in the folder for temporary files, seeds it from several places on the loopback interface,
/// downloads it as 'gannet get' would, compares every byte, and cleans up. Needs no network.
#[derive(Args, Debug)]
pub(super) struct DemoArgs {
    /// How much data to make
    #[arg(long, value_name = "SIZE", default_value = "128M", value_parser = parse_demo_size)]
    pub(super) size: u64,
    /// How many seeders
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u8).range(1..=16))]
    pub(super) seeders: u8,
    /// Let the seeders send as fast as they can, instead of slow enough to watch
    #[arg(long)]
    pub(super) fast: bool,
}

fn parse_demo_size(text: &str) -> Result<u64, String> {
    let size = parse_size(text)?;
    if (1_000_000..=10_000_000_000).contains(&size) { Ok(size) } else { Err("from 1M to 10G".to_owned()) }
}

/// Print a completion script for a shell
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  gannet completions bash > ~/.local/share/bash-completion/completions/gannet
  gannet completions zsh > ~/.zfunc/_gannet
  gannet completions fish > ~/.config/fish/completions/gannet.fish")]
pub(super) struct CompletionsArgs {
    /// Which shell
    pub(super) shell: clap_complete::Shell,
}

/// Print the manual page
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  gannet man | man -l -
  gannet man > ~/.local/share/man/man1/gannet.1")]
pub(super) struct ManArgs {}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn definition_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn piece_lengths() {
        assert_eq!(parse_piece_length("auto"), Ok(PieceLength::Auto));
        assert_eq!(parse_piece_length("1MiB"), Ok(PieceLength::Fixed(1 << 20)));
        assert_eq!(parse_piece_length("16384"), Ok(PieceLength::Fixed(16_384)));
        let error = parse_piece_length("256k").unwrap_err();
        assert!(error.contains("256000 bytes") && error.contains("256KiB would be"), "{error}");
        for text in ["0", "8KiB", "512MiB", "1", "99T"] {
            assert!(parse_piece_length(text).is_err(), "{text}");
        }
    }

    #[test]
    fn what_parses() {
        for line in [
            "get a.torrent",
            "get -d out a.torrent b.torrent --peer 127.0.0.1:6881 --listen :0 --limit-down 5M --seed -q",
            "get - --no-dht --no-pex --no-lsd --no-utp --no-web-seeds --no-port-mapping --no-trackers",
            "seed a.torrent path --super-seed --seed-ratio 2 --json",
            "create path --format v2 --piece-length 1MiB --dry-run",
            "info --offline magnet:?xt=urn:btih:0000000000000000000000000000000000000000",
            "-vv verify a.torrent path",
            "config --json",
            "dht get-peers 0000000000000000000000000000000000000000 --dht-node 127.0.0.1:1 --timeout 5s",
            "dht announce a.torrent --port 6881 --seed",
            "dht put --key k --salt s --seq 4 --cas 3 text --json",
            "dht sample",
            "dht stats",
            "completions zsh",
            "share a b --format v1 --tracker http://t/,http://u/ --seed-time 1h --super-seed -o folder",
            "info magnet:?xt=urn:btih:0000000000000000000000000000000000000000 --peer 127.0.0.1:1 --timeout 5s",
            "bench hash --runs 3 --plot a.svg --json",
            "bench disk --dir /tmp --size 1GiB --piece-length auto",
            "bench loopback --seeds 2 --leechers 8 --processes --format hybrid",
            "bench loopback --connections 500",
            "bench compare --client aria2 --client gannet --timeout 2m",
            "bench all --size 64MiB",
        ] {
            let parsed = Cli::try_parse_from(format!("gannet {line}").split(' '));
            assert!(parsed.is_ok(), "{line}: {}", parsed.unwrap_err());
        }
        for line in [
            "get",
            "seed a.torrent",
            "frobnicate",
            "get a --limit-down fast",
            "get a -q -v",
            "share",
            "share a -o - --offline",
            "dht",
            "dht announce a.torrent",
            "dht put text --salt s",
            "dht sample xyz",
            "bench",
            "bench speed",
            "bench disk --size 1k",
            "bench hash --runs 0",
            "bench loopback --connections 5 --seeds 2",
        ] {
            assert!(Cli::try_parse_from(format!("gannet {line}").split(' ')).is_err(), "{line}");
        }
    }
}
