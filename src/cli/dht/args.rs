//! What can be written behind `gannet dht`.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Subcommand};

use crate::cli::options::{Listen, parse_host_port, parse_listen};
use crate::cli::quantity::parse_duration;

/// Use the distributed hash table (BEP 5)
///
/// Each command runs a node of its own for some seconds, which asks others and answers nobody (BEP 43). It begins with
/// the nodes that earlier runs have found, or else with the well-known ones.
#[derive(Args, Debug)]
#[command(
    arg_required_else_help = true,
    after_help = "\
Examples:
  gannet dht get-peers debian.iso.torrent
  gannet dht scrape 0123456789abcdef0123456789abcdef01234567
  gannet dht put 'Hello World!'                          prints where it is
  gannet dht get e5f96f6f38320f0f33959cb4d3d656452117aadb
  gannet dht put --key my.key --salt news 'first news'   an item that can be changed
  gannet dht stats --json"
)]
pub(in crate::cli) struct DhtArgs {
    #[command(subcommand)]
    pub(super) command: DhtCommand,
    #[command(flatten)]
    pub(super) node: NodeOptions,
}

/// Options of every command.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Node")]
pub(super) struct NodeOptions {
    /// A node to begin with instead of the well-known ones; again for more
    #[arg(long = "dht-node", global = true, value_name = "HOST:PORT", value_parser = parse_host_port)]
    pub(super) dht_nodes: Vec<String>,
    /// Give up (exit code 5) after this time
    #[arg(long, global = true, value_name = "TIME", default_value = "60s", value_parser = parse_duration)]
    pub(super) timeout: Duration,
    /// Where to send from: ADDR:PORT, or :PORT for all addresses; again for more [default: any free port]
    #[arg(long, global = true, value_name = "ADDR:PORT", value_parser = parse_listen, hide_short_help = true)]
    pub(super) listen: Vec<Listen>,
    /// Where nodes are kept between runs [default: ~/.local/state/gannet]
    #[arg(long, global = true, value_name = "DIR", hide_short_help = true)]
    pub(super) state_dir: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
pub(super) enum DhtCommand {
    /// Print the peers of a torrent, one per line
    GetPeers {
        /// An info-hash (40 or 64 hex, 32 base32 digits), a magnet link or a .torrent file
        hash: String,
    },
    /// Say that a peer of a torrent listens here
    Announce {
        /// An info-hash, a magnet link or a .torrent file
        hash: String,
        /// Where it listens
        #[arg(long, value_name = "PORT", value_parser = clap::value_parser!(u16).range(1..))]
        port: u16,
        /// It has all of the torrent
        #[arg(long)]
        seed: bool,
    },
    /// Estimate how many peers a torrent has (BEP 33)
    Scrape {
        /// An info-hash, a magnet link or a .torrent file
        hash: String,
    },
    /// Print info-hashes that nodes keep peers of, one per line (BEP 51)
    Sample {
        /// Ask nodes around this id of 40 hex digits [default: a random one]
        #[arg(value_parser = parse_id)]
        target: Option<[u8; 20]>,
    },
    /// Print an item (BEP 44)
    Get {
        /// The target, 40 hex digits; or the public key of an item that can change, 64 hex digits
        target: String,
        /// The salt of an item that can change
        #[arg(long, value_name = "TEXT", default_value = "", value_parser = parse_salt)]
        salt: String,
        /// Print the value as it is stored, bencoded
        #[arg(long)]
        bencoded: bool,
    },
    /// Store an item for two hours (BEP 44); prints its target
    Put {
        /// The text to store, '-' for standard input; at most 1,000 bytes with its length in front
        value: String,
        /// Make it an item that can change, signed with the key in FILE, which is made if it is not there
        #[arg(long, value_name = "FILE")]
        key: Option<PathBuf>,
        /// Tells apart several items of one key
        #[arg(long, value_name = "TEXT", default_value = "", value_parser = parse_salt, requires = "key")]
        salt: String,
        /// The version [default: one more than is stored]
        #[arg(long, value_name = "N", requires = "key", value_parser = clap::value_parser!(i64).range(0..))]
        seq: Option<i64>,
        /// Store it only in place of this version
        #[arg(long, value_name = "N", requires = "key")]
        cas: Option<i64>,
        /// The value is bencoded already
        #[arg(long)]
        bencoded: bool,
    },
    /// Show what the DHT is like from here: nodes, our address as they see it, round trips
    Stats,
}

fn parse_salt(text: &str) -> Result<String, String> {
    let most = crate::dht::MAX_SALT;
    if text.len() <= most { Ok(text.to_owned()) } else { Err(format!("at most {most} bytes")) }
}

/// Bytes written as hex digits.
pub(super) fn parse_hex<const N: usize>(text: &str) -> Option<[u8; N]> {
    let mut bytes = [0; N];
    if text.len() != 2 * N || !text.bytes().all(|digit| digit.is_ascii_hexdigit()) {
        return None;
    }
    for (byte, at) in bytes.iter_mut().zip((0..).step_by(2)) {
        *byte = u8::from_str_radix(text.get(at..at + 2)?, 16).ok()?;
    }
    Some(bytes)
}

fn parse_id(text: &str) -> Result<[u8; 20], String> {
    parse_hex(text).ok_or_else(|| "40 hex digits".to_owned())
}
