use std::path::PathBuf;
use std::time::Duration;

use clap::Args;

use crate::cli::options::{DiskOptions, Listen, NetworkOptions};
use crate::cli::quantity::parse_duration;

/// See what this machine can do, and what to do about what it cannot
///
/// Tries what downloads depend on: the network over IPv4 and IPv6, the router (which is asked to let peers in, as for a
/// download, and to stop it again), the DHT, the download folder and its file system, limits of the system, the clock.
/// Options and settings are those of get, so that what is tried is what get would use.
#[derive(Args, Debug)]
#[command(after_help = "\
Exit code: 0 if nothing is bad, else that of what is: 4 the disk, 5 the network.

Examples:
  gannet doctor
  gannet doctor -d /mnt/downloads --listen :6881
  gannet doctor --bind-device tun0
  gannet doctor --no-dht --listen 127.0.0.1:0     nothing leaves this machine
  gannet doctor --json")]
pub(in crate::cli) struct DoctorArgs {
    /// The folder for downloads [default: .]
    #[arg(short, long, value_name = "DIR")]
    pub(super) dir: Option<PathBuf>,
    /// How long answers from the network are waited for
    #[arg(long, value_name = "TIME", default_value = "15s", value_parser = parse_duration)]
    pub(super) timeout: Duration,
    #[command(flatten)]
    pub(super) network: NetworkOptions,
    #[command(flatten)]
    pub(super) disk: DiskOptions,
}

/// Whether nothing may leave this machine.
pub(super) fn is_offline(network: &NetworkOptions) -> bool {
    let loopback = |listen: &Listen| {
        let addresses = listen.addresses();
        !addresses.is_empty() && addresses.iter().all(|address| address.ip().is_loopback())
    };
    network.no_dht && !network.listen.is_empty() && network.listen.iter().all(loopback)
}
