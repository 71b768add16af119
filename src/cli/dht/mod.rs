//! `gannet dht`: the distributed hash table by hand.
//!
//! For: looking for peers, announcing, storing items, seeing whether the DHT can be reached at all.
//! Must not know: how the node works; it runs one in a session without torrents.

mod args;
mod items;
mod stats;

use std::net::SocketAddr;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::sync::mpsc;

pub(super) use args::DhtArgs;
use args::{DhtCommand, NodeOptions};

use super::exit::{Code, Failure};
use super::json::object;
use super::progress::count;
use super::source::{self, Source};
use super::{Global, block_on, sandbox, screen, settings};
use crate::base::InfoHash;
use crate::dht::{Command, Event, NodeId, Summary};
use crate::metainfo::Magnet;
use crate::session::{Config, DhtConfig, Session};

/// How long the session may take to save its nodes.
const STOP_DEADLINE: Duration = Duration::from_secs(2);

/// The nodes of `--dht-node`, or the well-known ones.
pub(super) fn nodes(given: &[String]) -> DhtConfig {
    if given.is_empty() {
        return DhtConfig::well_known();
    }
    let split = |text: &String| {
        let (host, port) = text.rsplit_once(':')?;
        Some((host.trim_matches(['[', ']']).to_owned(), port.parse().ok()?))
    };
    DhtConfig { nodes: given.iter().filter_map(split).collect(), ..DhtConfig::default() }
}

pub(super) fn run(args: DhtArgs, global: &Global) -> Result<(), Failure> {
    let json = global.output.json;
    let DhtArgs { command, node } = args;
    // What is wrong with the arguments is told before anything is sent.
    let hashes = match &command {
        DhtCommand::GetPeers { hash } | DhtCommand::Announce { hash, .. } | DhtCommand::Scrape { hash } => {
            Some(info_hash(hash)?)
        }
        _ => None,
    };
    let node = with_settings(node, global);
    match command {
        DhtCommand::GetPeers { .. } => with_node(&node, global, async |dht| get_peers(&dht, hashes, json).await),
        DhtCommand::Announce { port, seed, .. } => {
            with_node(&node, global, async |dht| announce(&dht, hashes, port, seed, json).await)
        }
        DhtCommand::Scrape { .. } => with_node(&node, global, async |dht| scrape(&dht, hashes, json).await),
        DhtCommand::Sample { target } => {
            let target = target.unwrap_or_else(|| std::array::from_fn(|_| fastrand::u8(..)));
            with_node(&node, global, async |dht| sample(&dht, NodeId(target), json).await)
        }
        DhtCommand::Get { target, salt, bencoded } => {
            let wanted = items::Wanted::parse(&target, &salt)?;
            with_node(&node, global, async |dht| items::get(&dht, wanted, bencoded, json).await)
        }
        DhtCommand::Put { value, key, salt, seq, cas, bencoded } => {
            let draft = items::Draft::read(&value, bencoded, key.as_deref(), salt, seq, cas)?;
            with_node(&node, global, async |dht| items::put(&dht, draft, json).await)
        }
        DhtCommand::Stats => {
            let patience = node.timeout;
            with_node(&node, global, async |dht| stats::show(&dht, patience, json).await)
        }
    }
}

/// Nodes and folder as the settings of `get` say, where the command line does not.
fn with_settings(mut node: NodeOptions, global: &Global) -> NodeOptions {
    let get = &global.layers.settings.get;
    if node.dht_nodes.is_empty() {
        node.dht_nodes.clone_from(&get.network.dht_nodes);
    }
    if node.state_dir.is_none() {
        node.state_dir.clone_from(&get.disk.state_dir);
    }
    node
}

/// A session that has nothing but a node.
struct Dht {
    session: Session,
}

impl Dht {
    fn command(&self, command: Command) -> Result<mpsc::Receiver<Event>, Failure> {
        let client =
            self.session.dht().ok_or_else(|| Failure::network("dht: no UDP here; it does not go by a proxy"))?;
        Ok(client.command(command))
    }

    /// Carries out a command, with all that it tells.
    async fn ask(
        &self,
        command: Command,
        mut told: impl FnMut(Event) -> Result<(), Failure>,
    ) -> Result<Summary, Failure> {
        let mut events = self.command(command)?;
        while let Some(event) = events.recv().await {
            if let Event::Done { summary, .. } = event {
                return if summary.answered > 0 { Ok(summary) } else { Err(nobody()) };
            }
            told(event)?;
        }
        Err(nobody())
    }
}

fn nobody() -> Failure {
    Failure::network("dht: no node answered; is there a network, and does it let UDP pass? --dht-node names others")
}

/// Runs a node for as long as `work` takes, but not longer than `--timeout`.
fn with_node<T>(
    options: &NodeOptions,
    global: &Global,
    work: impl AsyncFnOnce(Dht) -> Result<T, Failure>,
) -> Result<T, Failure> {
    let egress = global.layers.settings.get.network.egress.egress()?;
    let state_dir = options.state_dir.clone().map_or_else(settings::default_state_dir, Ok)?;
    sandbox::enter(global, &[&state_dir]);
    let mut config = Config::new(state_dir);
    config.listen = options.listen.iter().flat_map(|listen| listen.addresses()).collect();
    (config.tcp, config.utp, config.disk_threads) = (false, false, Some(1));
    config.egress = egress;
    config.dht = Some(DhtConfig { read_only: true, ..nodes(&options.dht_nodes) });
    block_on(async {
        let session = Session::start(config).await?;
        let worked = tokio::time::timeout(options.timeout, work(Dht { session: session.clone() })).await;
        session.stop(STOP_DEADLINE).await;
        worked.unwrap_or_else(|_| {
            let time = super::quantity::duration(options.timeout);
            Err(Failure::network(format!("dht: not done in {time}; --timeout gives it more")))
        })
    })
}

/// The torrent that is meant. Private ones are none of the DHT's business (BEP 27).
fn info_hash(text: &str) -> Result<InfoHash, Failure> {
    if let Source::Magnet(link) = Source::parse(text) {
        let magnet = Magnet::parse(&link).map_err(|e| Failure::invalid(format!("{}: {e}", source::short(&link))))?;
        return Ok(magnet.info_hash);
    }
    let metainfo = source::read_local(text)?;
    match metainfo.info.is_private() {
        true => Err(Failure::usage(format!("{text}: a private torrent, which is never looked for in the DHT"))),
        false => Ok(metainfo.info.info_hash()),
    }
}

fn forms(hash: Option<InfoHash>) -> impl Iterator<Item = NodeId> {
    hash.into_iter().flat_map(|hash| hash.wire_forms()).map(NodeId)
}

/// What every answer in JSON has.
fn counts(summary: &Summary) -> Value {
    json!({ "asked": summary.asked, "answered": summary.answered, "hops": summary.hops })
}

async fn get_peers(dht: &Dht, hash: Option<InfoHash>, json: bool) -> Result<(), Failure> {
    let mut all: Vec<SocketAddr> = Vec::new();
    let mut last = Summary::default();
    for info_hash in forms(hash) {
        let asked = dht.ask(Command::GetPeers { info_hash }, |event| {
            let Event::Peers { peers, .. } = event else { return Ok(()) };
            for peer in peers.into_iter().filter(|peer| !all.contains(peer)).collect::<Vec<_>>() {
                all.push(peer);
                if !json {
                    screen::output(format!("{peer}\n"))?;
                }
            }
            Ok(())
        });
        last = asked.await?;
    }
    if json {
        let hash = hash.map(|hash| hash.to_string());
        return screen::output(object(&json!({ "info_hash": hash, "peers": all, "nodes": counts(&last) })));
    }
    let (found, asked) = (many(all.len(), "peer"), many(last.asked, "node"));
    screen::message(format_args!("{found}; {} of {asked} answered", last.answered));
    Ok(())
}

/// `1 node`, `2 nodes`.
fn many(n: usize, what: &str) -> String {
    count(u64::try_from(n).unwrap_or(u64::MAX), what)
}

async fn announce(dht: &Dht, hash: Option<InfoHash>, port: u16, seed: bool, json: bool) -> Result<(), Failure> {
    let mut stored = 0;
    let mut refused = None;
    for info_hash in forms(hash) {
        let summary = dht
            .ask(Command::Announce { info_hash, port_v4: Some(port), port_v6: Some(port), seed }, |_| Ok(()))
            .await?;
        stored += summary.stored;
        refused = summary.refused.or(refused);
    }
    if json {
        let hash = hash.map(|hash| hash.to_string());
        screen::output(object(&json!({ "info_hash": hash, "port": port, "stored": stored })))?;
    } else if stored > 0 {
        screen::message(format_args!("announced to {}", many(stored, "node")));
    }
    if stored > 0 { Ok(()) } else { Err(not_stored("announce", refused)) }
}

fn not_stored(what: &str, refused: Option<(i64, String)>) -> Failure {
    let why = refused.map_or("no node took it".to_owned(), |(code, text)| format!("refused: {text} ({code})"));
    Failure::new(Code::Network, format!("dht {what}: {why}"))
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a small estimate, not below zero")]
async fn scrape(dht: &Dht, hash: Option<InfoHash>, json: bool) -> Result<(), Failure> {
    let (mut seeds, mut peers) = (0.0_f64, 0.0_f64);
    for info_hash in forms(hash) {
        let found = dht.ask(Command::Scrape { info_hash }, |_| Ok(())).await?.scrape.unwrap_or_default();
        (seeds, peers) = (seeds.max(found.seeds), peers.max(found.peers));
    }
    let (seeds, peers) = (seeds.round() as u64, peers.round() as u64);
    if json {
        let hash = hash.map(|hash| hash.to_string());
        return screen::output(object(&json!({ "info_hash": hash, "seeders": seeds, "leechers": peers })));
    }
    screen::output(format!("seeders about {seeds}, leechers about {peers}\n"))
}

async fn sample(dht: &Dht, target: NodeId, json: bool) -> Result<(), Failure> {
    let mut all: Vec<NodeId> = Vec::new();
    let mut told = Vec::new();
    let asked = dht.ask(Command::Sample { target }, |event| {
        let Event::Samples { from, hashes, count, interval, .. } = event else { return Ok(()) };
        told.push(json!({
            "address": from.address,
            "id": from.id.to_string(),
            "count": count,
            "interval_seconds": interval.as_secs(),
        }));
        for hash in hashes.into_iter().filter(|hash| !all.contains(hash)).collect::<Vec<_>>() {
            all.push(hash);
            if !json {
                screen::output(format!("{hash}\n"))?;
            }
        }
        Ok(())
    });
    let summary = asked.await?;
    if json {
        let hashes: Vec<String> = all.iter().map(NodeId::to_string).collect();
        return screen::output(object(&json!({ "target": target.to_string(), "info_hashes": hashes, "nodes": told })));
    }
    let nodes = many(told.len(), "node");
    screen::message(format_args!("{} info-hashes of {nodes}; {} answered", all.len(), summary.answered));
    Ok(())
}
