//! What the DHT is like from here.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::{Dht, nobody};
use crate::cli::exit::Failure;
use crate::cli::json::object;
use crate::cli::screen;
use crate::dht::{SocketStats, Stats};

/// How often the table is looked at while it grows.
const LOOK: Duration = Duration::from_millis(200);

/// It has grown enough when nothing was added for so long.
const SETTLED: Duration = Duration::from_secs(3);

/// Shows the node once its tables grow no more.
pub(super) async fn show(dht: &Dht, patience: Duration, json: bool) -> Result<(), Failure> {
    let client = dht.session.dht().ok_or_else(nobody)?;
    let (begin, mut seen, mut grown) = (Instant::now(), 0, Instant::now());
    // Something is left of the time to tell what there is.
    while begin.elapsed() + SETTLED < patience && (seen == 0 || grown.elapsed() < SETTLED) {
        tokio::time::sleep(LOOK).await;
        if client.node_count() > seen {
            (seen, grown) = (client.node_count(), Instant::now());
        }
    }
    let stats = client.stats().await.ok_or_else(nobody)?;
    if stats.sockets.iter().all(|socket| socket.nodes == 0) {
        return Err(nobody());
    }
    if json {
        return screen::output(object(&to_json(&stats)));
    }
    screen::output(to_text(&stats))
}

fn family(socket: &SocketStats) -> &'static str {
    if socket.local.is_ipv6() { "IPv6" } else { "IPv4" }
}

fn to_json(stats: &Stats) -> Value {
    let sockets: Vec<Value> = stats
        .sockets
        .iter()
        .map(|socket| {
            json!({
                "family": if socket.local.is_ipv6() { "ipv6" } else { "ipv4" },
                "local": socket.local,
                "id": socket.id.to_string(),
                "external": socket.external,
                "nodes": socket.nodes,
                "good": socket.good,
                "latency_ms": socket.latency.map(|latency| latency.as_secs_f64() * 1_000.0),
            })
        })
        .collect();
    json!({
        "sockets": sockets,
        "sent": stats.sent,
        "sent_bytes": stats.sent_bytes,
        "received": stats.received,
    })
}

fn to_text(stats: &Stats) -> String {
    let mut text = String::new();
    for socket in &stats.sockets {
        text += &format!("{}  {}\n", family(socket), socket.local);
        text += &format!("      id       {}\n", socket.id);
        let external = socket.external.map_or("not known".to_owned(), |ip| ip.to_string());
        text += &format!("      seen as  {external}\n");
        let latency = socket.latency.map_or(String::new(), |rtt| format!(", median round trip {} ms", rtt.as_millis()));
        text += &format!("      nodes    {}, {} of them good{latency}\n", socket.nodes, socket.good);
    }
    text + &format!("sent {} datagrams ({} bytes), received {}\n", stats.sent, stats.sent_bytes, stats.received)
}
