//! What can be said to `gannet bench`.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Subcommand};

use super::super::args::{Format, PieceLength, parse_piece_length};
use super::super::quantity::{parse_duration, parse_size};

/// The least that is worth moving, and the most.
const SIZES: std::ops::RangeInclusive<u64> = 1 << 16..=1 << 40;

/// Measure this machine, and what gannet makes of it
///
/// Every figure is the median of several runs, with the lowest and the highest beside it, processor seconds per GiB and
/// anonymous memory at its peak. It says so when the machine is too busy to tell. Needs no network. What it writes it
/// removes again.
#[derive(Args, Debug)]
#[command(
    arg_required_else_help = true,
    subcommand_required = true,
    disable_help_subcommand = true,
    subcommand_value_name = "WHAT",
    subcommand_help_heading = "What",
    after_help = "\
Examples:
  gannet bench all                        what is the ceiling, and what holds the rest back?
  gannet bench disk --dir /data           the disk that you download to
  gannet bench loopback --seeds 8 --processes
  gannet bench compare --plot clients.svg
  gannet bench hash --json | jq '.tables[].rows[] | {name, rate: .bytes_per_second.median}'"
)]
pub(in crate::cli) struct BenchArgs {
    #[command(subcommand)]
    pub(super) what: What,
}

#[derive(Debug, Subcommand)]
pub(super) enum What {
    Hash(HashArgs),
    Disk(DiskArgs),
    Loopback(LoopbackArgs),
    Compare(CompareArgs),
    All(AllArgs),
}

/// How often, and where the result goes.
#[derive(Args, Clone, Debug)]
pub(super) struct RunArgs {
    /// How many runs of each [default: 5, or fewer if they would take more than a minute]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1000))]
    pub(super) runs: Option<u16>,
    /// Draw the result into FILE, as SVG
    #[arg(long, value_name = "FILE")]
    pub(super) plot: Option<PathBuf>,
}

/// What is moved, and where it lies.
#[derive(Args, Clone, Debug)]
pub(super) struct DataArgs {
    /// Write into DIR, and remove it again
    #[arg(long, value_name = "DIR", default_value = ".")]
    pub(super) dir: PathBuf,
    /// How much [default: 512MiB, or less where memory is short or many peers want it]
    #[arg(long, value_name = "SIZE", value_parser = parse_bench_size)]
    pub(super) size: Option<u64>,
}

/// SHA-1 and SHA-256, in every way that this processor has, on one core and on all
#[derive(Args, Debug)]
pub(super) struct HashArgs {
    /// Bytes hashed in each run, on each core [default: 256MiB]
    #[arg(long, value_name = "SIZE", value_parser = parse_bench_size)]
    pub(super) size: Option<u64>,
    #[command(flatten)]
    pub(super) run: RunArgs,
}

/// Writing pieces through maps and by pwrite, reading them, checking their hashes
///
/// By the same code as a download. Writing goes into the page cache, as a download's does; 'sync' is how fast it gets from
/// there to the disk.
#[derive(Args, Debug)]
pub(super) struct DiskArgs {
    #[command(flatten)]
    pub(super) data: DataArgs,
    /// Bytes per piece: a power of two from 16KiB to 256MiB, or 'auto'
    #[arg(long, value_name = "SIZE", default_value = "1MiB", value_parser = parse_piece_length)]
    pub(super) piece_length: PieceLength,
    #[command(flatten)]
    pub(super) run: RunArgs,
}

/// Whole downloads, from seeds to leechers over real sockets on the loopback interface
///
/// With a tracker, and every byte compared afterwards. In one process the figures are those of all peers together; with
/// --processes each peer is a program of its own, and so are its processor time and memory.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  gannet bench loopback                             one seed, one leecher
  gannet bench loopback --seeds 2 --leechers 8 --processes
  gannet bench loopback --connections 500           what do 500 connections cost?")]
pub(super) struct LoopbackArgs {
    /// How many have the data
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=500))]
    pub(super) seeds: u16,
    /// How many want it
    #[arg(long, value_name = "M", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=500))]
    pub(super) leechers: u16,
    /// Each peer in a process of its own
    #[arg(long)]
    pub(super) processes: bool,
    /// Instead: one leecher with N connections at once, and one seed with N, each in a process of its own
    ///
    /// Who is at the other ends is as cheap as can be. Nothing is sent before all connections stand.
    #[arg(long, value_name = "N", conflicts_with_all = ["seeds", "leechers", "processes"])]
    #[arg(value_parser = clap::value_parser!(u16).range(1..=10_000))]
    pub(super) connections: Option<u16>,
    /// All connections encrypted (RC4)
    #[arg(long)]
    pub(super) encrypted: bool,
    /// All connections by uTP instead of TCP
    #[arg(long, conflicts_with = "connections")]
    pub(super) utp: bool,
    #[command(flatten)]
    pub(super) data: DataArgs,
    /// Bytes per piece: a power of two from 16KiB to 256MiB, or 'auto'
    #[arg(long, value_name = "SIZE", default_value = "1MiB", value_parser = parse_piece_length)]
    pub(super) piece_length: PieceLength,
    /// Which protocol versions the torrent serves; v2 and hybrid hash more
    #[arg(long, value_enum, default_value_t = Format::V1)]
    pub(super) format: Format,
    #[command(flatten)]
    pub(super) run: RunArgs,
}

/// The same download by every client that is installed, in turn
///
/// aria2c, transmission-cli, rqbit, libtorrent's Python module, and gannet. All from the same cheap seed on the loopback
/// interface, each run after one of every other, every byte compared. GANNET_LIBTORRENT_PYTHON names the interpreter that
/// has libtorrent, if it is not python3.
#[derive(Args, Debug)]
pub(super) struct CompareArgs {
    /// Only this one; again for more
    #[arg(long = "client", value_name = "NAME", value_enum)]
    pub(super) clients: Vec<super::clients::Kind>,
    #[command(flatten)]
    pub(super) data: DataArgs,
    /// Bytes per piece: a power of two from 16KiB to 256MiB, or 'auto'
    #[arg(long, value_name = "SIZE", default_value = "1MiB", value_parser = parse_piece_length)]
    pub(super) piece_length: PieceLength,
    /// Give up on a client after this time
    #[arg(long, value_name = "TIME", default_value = "60s", value_parser = parse_duration)]
    pub(super) timeout: Duration,
    #[command(flatten)]
    pub(super) run: RunArgs,
}

/// Hash, disk, network and a whole download: which of them holds the rest back?
#[derive(Args, Debug)]
pub(super) struct AllArgs {
    #[command(flatten)]
    pub(super) data: DataArgs,
    #[command(flatten)]
    pub(super) run: RunArgs,
}

fn parse_bench_size(text: &str) -> Result<u64, String> {
    let size = parse_size(text)?;
    if SIZES.contains(&size) { Ok(size) } else { Err("from 64KiB to 1TiB".to_owned()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes() {
        assert_eq!(parse_bench_size("64KiB"), Ok(65_536));
        assert_eq!(parse_bench_size("1TiB"), Ok(1 << 40));
        for text in ["0", "65535", "2TiB", "much"] {
            assert!(parse_bench_size(text).is_err(), "{text}");
        }
    }
}
