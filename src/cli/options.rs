//! Options of transfers, which the configuration file and the environment may set, too.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, ValueEnum};

use super::exit::Failure;
use super::quantity::{Limit, parse_duration, parse_limit};
use crate::metainfo::{Speaks, WebSeedUrl};
use crate::net::egress::Egress;
use crate::net::proxy::Proxy;
use crate::session::{Durability, Encryption};
use crate::storage::{Backend, Preallocate};

/// Options of `get` and `seed`.
#[derive(Args, Clone, Debug, Default)]
#[command(next_help_heading = "Network")]
pub(super) struct NetworkOptions {
    /// A peer to try besides those from trackers; again for more
    #[arg(long = "peer", value_name = "HOST:PORT", value_parser = parse_host_port)]
    pub(super) peers: Vec<String>,
    /// Where to accept peers: ADDR:PORT, or :PORT for all addresses; again for more [default: any free port]
    #[arg(long, value_name = "ADDR:PORT", value_parser = parse_listen)]
    pub(super) listen: Vec<Listen>,
    /// A tracker to ask besides the torrent's own; again for more
    #[arg(long = "tracker", value_name = "URL")]
    pub(super) trackers: Vec<String>,
    /// Ask no trackers
    #[arg(long)]
    pub(super) no_trackers: bool,
    /// Neither dial nor let in the addresses on this list: eMule's .dat, PeerGuardian's text, CIDR, also gzipped; again for more
    #[arg(long = "ip-filter", value_name = "FILE")]
    pub(super) ip_filters: Vec<PathBuf>,
    #[command(flatten)]
    pub(super) egress: EgressOptions,
    /// Which connections are encrypted: none, where peers insist, where it goes, or all (RC4 only) [default: allow]
    #[arg(long, value_name = "WHICH")]
    pub(super) encryption: Option<EncryptionChoice>,
    /// Receive at most this many bytes per second (5M, 800k, 1.5MiB); 0 is no limit
    #[arg(long, value_name = "RATE", value_parser = parse_limit)]
    pub(super) limit_down: Option<Limit>,
    /// Send at most this many bytes per second; 0 is no limit
    #[arg(long, value_name = "RATE", value_parser = parse_limit)]
    pub(super) limit_up: Option<Limit>,
    /// Connections of one torrent [default: 100]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub(super) max_peers: Option<u32>,
    /// Find no peers through the distributed hash table (BEP 5)
    #[arg(long, hide_short_help = true)]
    pub(super) no_dht: bool,
    /// A DHT node to begin with instead of the well-known ones; again for more
    #[arg(long = "dht-node", value_name = "HOST:PORT", hide_short_help = true, value_parser = parse_host_port)]
    pub(super) dht_nodes: Vec<String>,
    /// Tell peers of no other peers, and do not listen to what they tell (BEP 11)
    #[arg(long)]
    pub(super) no_pex: bool,
    /// Look for no peers in the local network, and do not tell it of torrents (BEP 14)
    #[arg(long)]
    pub(super) no_lsd: bool,
    /// Reach peers by TCP only, not by uTP (BEP 29)
    #[arg(long)]
    pub(super) no_utp: bool,
    /// Reach peers by uTP only, not by TCP
    #[arg(long)]
    pub(super) no_tcp: bool,
    /// Fetch nothing from web servers that the torrent names (BEP 17, BEP 19)
    #[arg(long)]
    pub(super) no_web_seeds: bool,
    /// Do not ask the router to let peers in (PCP, NAT-PMP, UPnP)
    #[arg(long)]
    pub(super) no_port_mapping: bool,
}

/// Options of every command that uses the network: by which way.
#[derive(Args, Clone, Debug, Default)]
#[command(next_help_heading = "Network")]
pub(super) struct EgressOptions {
    /// Use this network device, such as tun0, and no other: what cannot go by it does not go
    #[arg(long, value_name = "NAME")]
    pub(super) bind_device: Option<String>,
    /// Reach everybody through this proxy: socks5h://, socks5:// (names are looked up here) or http://, then
    /// [USER:PASSWORD@]HOST[:PORT]
    #[arg(long, value_name = "URL")]
    pub(super) proxy: Option<String>,
    /// Look up names at this name server instead of the system's; again for more
    #[arg(long = "name-server", value_name = "ADDR[:PORT]", value_parser = parse_name_server, hide_short_help = true)]
    pub(super) name_servers: Vec<SocketAddr>,
}

impl EgressOptions {
    /// The way that they describe.
    pub(super) fn egress(&self) -> Result<Egress, Failure> {
        // Not read by the parser, whose messages repeat what they are about, and so the password.
        let proxy = self.proxy.as_deref().filter(|url| !url.is_empty()).map(Proxy::parse).transpose();
        let proxy = proxy.map_err(|why| Failure::usage(format!("--proxy: {why}")))?;
        let device = self.bind_device.clone().filter(|name| !name.is_empty());
        Ok(Egress::new(device, proxy, self.name_servers.clone()))
    }
}

fn parse_name_server(text: &str) -> Result<SocketAddr, String> {
    let with_port = text.parse::<SocketAddr>().ok();
    let address = with_port.or_else(|| text.parse::<IpAddr>().ok().map(|ip| SocketAddr::new(ip, 53)));
    address.filter(|a| a.port() > 0).ok_or_else(|| "an address, such as 192.0.2.1 or [2001:db8::1]:53".to_owned())
}

/// Options of `get` and `seed` about seeding.
#[derive(Args, Clone, Debug, Default)]
#[command(next_help_heading = "Seeding")]
pub(super) struct GoalOptions {
    /// Seed until R times the size was sent
    #[arg(long, value_name = "R", value_parser = parse_ratio)]
    pub(super) seed_ratio: Option<f64>,
    /// Seed for this long (30s, 10m, 2h)
    #[arg(long, value_name = "TIME", value_parser = parse_duration)]
    pub(super) seed_time: Option<Duration>,
}

/// Options of `get` and `seed` about this machine.
#[derive(Args, Clone, Debug, Default)]
#[command(next_help_heading = "Disk")]
pub(super) struct DiskOptions {
    /// How files are read and written [default: auto]
    #[arg(long, value_name = "HOW", hide_short_help = true)]
    pub(super) storage: Option<StorageChoice>,
    /// From a failure of the disk to the next try, doubled each time; four times that while it is full [default: 5s]
    #[arg(long, value_name = "TIME", value_parser = parse_duration, hide_short_help = true)]
    pub(super) disk_retry: Option<Duration>,
    /// Where the state of downloads is kept [default: ~/.local/state/gannet]
    #[arg(long, value_name = "DIR")]
    pub(super) state_dir: Option<PathBuf>,
}

impl DiskOptions {
    /// The folder for state that they name, or the usual one.
    pub(super) fn state_dir(&self) -> Result<PathBuf, Failure> {
        self.state_dir.clone().map_or_else(super::settings::default_state_dir, Ok)
    }
}

/// All options of `get`.
#[derive(Args, Clone, Debug, Default)]
pub(super) struct GetOptions {
    #[command(flatten)]
    pub(super) download: DownloadOptions,
    #[command(flatten)]
    pub(super) network: NetworkOptions,
    #[command(flatten)]
    pub(super) goal: GoalOptions,
    #[command(flatten)]
    pub(super) disk: DiskOptions,
}

/// All options of `seed`.
#[derive(Args, Clone, Debug, Default)]
pub(super) struct SeedOptions {
    /// Show each peer one piece at a time, so that a lone seeder sends each piece about once (BEP 16)
    #[arg(long)]
    pub(super) super_seed: bool,
    #[command(flatten)]
    pub(super) network: NetworkOptions,
    #[command(flatten)]
    pub(super) goal: GoalOptions,
    #[command(flatten)]
    pub(super) disk: DiskOptions,
}

/// Options of `get` alone.
#[derive(Args, Clone, Debug, Default)]
#[command(next_help_heading = "Download")]
pub(super) struct DownloadOptions {
    /// Folder to download into [default: .]
    #[arg(short, long, value_name = "DIR")]
    pub(super) dir: Option<PathBuf>,
    /// Fetch only these files: a number or range of 'gannet info', or a glob on the path; again for more
    #[arg(long, value_name = "PATTERN|INDEX")]
    pub(super) select: Vec<String>,
    /// Leave out files whose path matches; again for more
    #[arg(long, value_name = "PATTERN")]
    pub(super) exclude: Vec<String>,
    /// A web server that has the files, besides those that the torrent names (BEP 19); again for more
    #[arg(long = "web-seed", value_name = "URL", value_parser = parse_web_seed)]
    pub(super) web_seeds: Vec<String>,
    /// Write the .torrent, too: to FILE, or as NAME.torrent into a folder; of a magnet link once its peers have told it all
    #[arg(long, value_name = "FILE|DIR")]
    pub(super) save_torrent: Option<PathBuf>,
    /// Fetch pieces in order instead of rarest first
    #[arg(long)]
    pub(super) sequential: bool,
    /// Give up (exit code 5) when nothing came for this long (30s, 10m, 2h)
    #[arg(long, value_name = "TIME", value_parser = parse_duration)]
    pub(super) timeout: Option<Duration>,
    /// Write over existing files where they differ from the torrent
    #[arg(long)]
    pub(super) overwrite: bool,
    /// Whether disk space is taken before the first byte, or as data comes [default: full]
    #[arg(long, value_name = "HOW", hide_short_help = true)]
    pub(super) preallocate: Option<PreallocateChoice>,
    /// Whether what was fetched is synced before it is claimed, or checked at the next start [default: sync]
    #[arg(long, value_name = "HOW", hide_short_help = true)]
    pub(super) durability: Option<DurabilityChoice>,
    /// When complete, seed until stopped
    #[arg(long)]
    pub(super) seed: bool,
}

/// [`Backend`], as written on the command line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum StorageChoice {
    /// Memory maps where they suit the file system, else pwrite
    Auto,
    /// Memory maps
    Mmap,
    /// Positioned writes
    Pwrite,
}

impl From<StorageChoice> for Backend {
    fn from(choice: StorageChoice) -> Self {
        match choice {
            StorageChoice::Auto => Self::Auto,
            StorageChoice::Mmap => Self::Mmap,
            StorageChoice::Pwrite => Self::Pwrite,
        }
    }
}

/// [`Preallocate`], as written on the command line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum PreallocateChoice {
    /// All of it, so that a full disk shows before the download
    Full,
    /// None: files grow as pieces come
    Sparse,
}

impl From<PreallocateChoice> for Preallocate {
    fn from(choice: PreallocateChoice) -> Self {
        match choice {
            PreallocateChoice::Full => Self::Full,
            PreallocateChoice::Sparse => Self::Sparse,
        }
    }
}

/// [`Durability`], as written on the command line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum DurabilityChoice {
    /// Synced now and then, so that a loss of power costs half a minute
    Sync,
    /// Never synced, so that what was fetched is hashed again at the next start
    Lazy,
}

impl From<DurabilityChoice> for Durability {
    fn from(choice: DurabilityChoice) -> Self {
        match choice {
            DurabilityChoice::Sync => Self::Sync,
            DurabilityChoice::Lazy => Self::Lazy,
        }
    }
}

/// [`Encryption`], as written on the command line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum EncryptionChoice {
    /// None
    Off,
    /// Those with peers that insist on it
    Allow,
    /// All that can be
    Prefer,
    /// All, and whoever does not encrypt is not spoken to
    Require,
}

impl From<EncryptionChoice> for Encryption {
    fn from(choice: EncryptionChoice) -> Self {
        match choice {
            EncryptionChoice::Off => Self::Off,
            EncryptionChoice::Allow => Self::Allow,
            EncryptionChoice::Prefer => Self::Prefer,
            EncryptionChoice::Require => Self::Require,
        }
    }
}

/// One `--listen`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Listen {
    /// This address.
    At(SocketAddr),
    /// This port of all addresses.
    Everywhere(u16),
}

impl Listen {
    /// The addresses to bind; none for any port of all addresses, which is the session's own default.
    pub(super) fn addresses(self) -> Vec<SocketAddr> {
        match self {
            Self::At(address) => vec![address],
            Self::Everywhere(0) => vec![],
            Self::Everywhere(port) => {
                vec![(Ipv4Addr::UNSPECIFIED, port).into(), (Ipv6Addr::UNSPECIFIED, port).into()]
            }
        }
    }
}

pub(super) fn parse_listen(text: &str) -> Result<Listen, String> {
    if let Ok(address) = text.parse() {
        return Ok(Listen::At(address));
    }
    let port = text.strip_prefix(':').unwrap_or(text);
    port.parse()
        .map(Listen::Everywhere)
        .map_err(|_| "an address and port, such as 192.0.2.1:6881, [::]:6881 or :6881".to_owned())
}

pub(super) fn parse_host_port(text: &str) -> Result<String, String> {
    let well_formed = text.parse::<SocketAddr>().map_or_else(
        |_| {
            text.rsplit_once(':').is_some_and(|(host, port)| {
                !host.is_empty()
                    && !host.contains([':', '/', '@', '[', ']'])
                    && port.parse::<u16>().is_ok_and(|p| p > 0)
            })
        },
        |address| address.port() > 0,
    );
    if well_formed {
        Ok(text.to_owned())
    } else {
        Err("a host and port, such as 192.0.2.1:6881, [2001:db8::1]:6881 or peer.example:6881".to_owned())
    }
}

fn parse_web_seed(text: &str) -> Result<String, String> {
    match WebSeedUrl::parse(text, Speaks::Files) {
        Some(_) => Ok(text.to_owned()),
        None => Err("an address such as https://mirror.example/files/".to_owned()),
    }
}

fn parse_ratio(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(ratio) if ratio.is_finite() && ratio >= 0.0 => Ok(ratio),
        _ => Err("a number such as 1 or 1.5".to_owned()),
    }
}

/// `over` with what it does not say taken from `under`.
pub(super) trait Layer {
    /// Merges two layers of settings.
    fn or(self, under: Self) -> Self;
}

impl<T> Layer for Option<T> {
    fn or(self, under: Self) -> Self {
        Option::or(self, under)
    }
}

impl<T> Layer for Vec<T> {
    fn or(self, under: Self) -> Self {
        if self.is_empty() { under } else { self }
    }
}

impl Layer for bool {
    fn or(self, under: Self) -> Self {
        self || under
    }
}

/// Merges field by field; a field that is forgotten does not compile.
macro_rules! layer {
    ($type:ty { $($field:ident),+ $(,)? }) => {
        impl Layer for $type {
            fn or(self, under: Self) -> Self {
                let Self { $($field),+ } = self;
                Self { $($field: Layer::or($field, under.$field)),+ }
            }
        }
    };
}

layer!(NetworkOptions {
    peers,
    listen,
    trackers,
    no_trackers,
    ip_filters,
    egress,
    encryption,
    limit_down,
    limit_up,
    max_peers,
    no_dht,
    dht_nodes,
    no_pex,
    no_lsd,
    no_utp,
    no_tcp,
    no_web_seeds,
    no_port_mapping
});
layer!(EgressOptions { bind_device, proxy, name_servers });
layer!(GoalOptions { seed_ratio, seed_time });
layer!(DiskOptions { storage, disk_retry, state_dir });
layer!(DownloadOptions {
    dir,
    select,
    exclude,
    web_seeds,
    save_torrent,
    sequential,
    timeout,
    overwrite,
    preallocate,
    durability,
    seed
});
layer!(GetOptions { download, network, goal, disk });
layer!(SeedOptions { super_seed, network, goal, disk });
layer!(super::args::SandboxOptions { no_sandbox });

impl Layer for super::args::OutputOptions {
    /// As the others, but loud or quiet is one thing said in two words: the upper layer's word stands alone.
    fn or(self, under: Self) -> Self {
        let silent = !self.quiet && self.verbose == 0;
        let (quiet, verbose) = if silent { (under.quiet, under.verbose) } else { (self.quiet, self.verbose) };
        Self { quiet, verbose, json: self.json.or(under.json), color: self.color.or(under.color) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn listen_addresses() {
        assert_eq!(parse_listen(":0").map(Listen::addresses), Ok(vec![]));
        assert_eq!(parse_listen("6881").map(|l| l.addresses().len()), Ok(2));
        assert_eq!(parse_listen("127.0.0.1:0"), Ok(Listen::At(([127, 0, 0, 1], 0).into())));
        assert!(parse_listen("[::1]:6881").is_ok());
        for text in ["", ":", "host:1", "1.2.3.4", ":65536"] {
            assert!(parse_listen(text).is_err(), "{text}");
        }
    }

    #[test]
    fn hosts() {
        for text in ["127.0.0.1:1", "[::1]:6881", "peer.example:6881"] {
            assert!(parse_host_port(text).is_ok(), "{text}");
        }
        for text in ["", "host", ":1", "host:0", "1.2.3.4:0", "host:65536", "::1:5x", "http://h:1"] {
            assert!(parse_host_port(text).is_err(), "{text}");
        }
    }

    #[test]
    fn ways_out() {
        assert_eq!(parse_name_server("192.0.2.1"), Ok(([192, 0, 2, 1], 53).into()));
        assert_eq!(parse_name_server("[2001:db8::1]:5353").map(|a| a.port()), Ok(5353));
        assert!(parse_name_server("dns.example").is_err());
        let options = |url: &str| EgressOptions { proxy: Some(url.to_owned()), ..EgressOptions::default() };
        let egress = options("socks5h://me:SECRET@[2001:db8::1]").egress().unwrap();
        assert_eq!(egress.proxy().unwrap().to_string(), "socks5h://[2001:db8::1]:1080");
        assert!(options("").egress().unwrap().proxy().is_none(), "none, over one in the configuration file");
        for url in ["127.0.0.1:1080", "https://me:SECRET@a:1", "socks5://", "http://me:SECRET@a/b", "socks4://SECRET@a"]
        {
            let failure = options(url).egress().unwrap_err().to_string();
            assert!(failure.starts_with("--proxy: ") && !failure.contains("SECRET"), "{failure}");
        }
    }

    #[test]
    fn ratios() {
        assert_eq!(parse_ratio("1.5"), Ok(1.5));
        for text in ["-1", "inf", "NaN", "x"] {
            assert!(parse_ratio(text).is_err(), "{text}");
        }
    }

    #[test]
    fn upper_layer_wins() {
        let over = DownloadOptions { dir: Some("a".into()), select: vec!["1".into()], ..Default::default() };
        let under = DownloadOptions {
            dir: Some("b".into()),
            select: vec!["2".into()],
            exclude: vec!["3".into()],
            seed: true,
            ..Default::default()
        };
        let merged = over.or(under);
        assert_eq!((merged.dir, merged.select), (Some("a".into()), vec!["1".to_owned()]));
        assert_eq!((merged.exclude, merged.seed), (vec!["3".to_owned()], true));
    }
}
