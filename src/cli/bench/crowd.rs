//! One peer with very many connections: what do they cost it?

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tokio::runtime::Runtime;
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::super::exit::{Code, Failure};
use super::super::scratch::Scratch;
use super::Bench;
use super::cheap::{self, Data, Link};
use super::loopback::{free_port, loopback, network_arguments};
use super::meter::{MemoryWatch, warm};
use super::payload::Payload;
use super::programs::{self, Program};
use super::rounds::Rounds;
use super::stop::Stop;
use super::table::{Row, Table, Used};
use crate::sys;

/// Connections being opened at once: fewer than handshakes that a session has under way.
const AT_ONCE: usize = 48;
/// A peer that is called may need a moment to be there, or to have room for one more handshake.
const RETRY: Duration = Duration::from_millis(10);
/// For all connections to stand, and then for all the data.
const PATIENCE: Duration = Duration::from_secs(60);
/// Open files of this process besides the connections.
const OTHER_FILES: u64 = 64;

/// A leecher with `connections` seeds, and a seed with as many leechers, in a process of its own each.
pub(super) fn measure(
    connections: u16,
    encrypted: bool,
    payload: &Payload,
    scratch: &Scratch,
    rounds: &mut Rounds,
    runtime: &Runtime,
    bench: &mut Bench<'_>,
) -> Result<Table, Failure> {
    // The measured program leaves a fifth of its files to its torrents.
    let most = sys::open_file_limit().saturating_sub(OTHER_FILES) / 5 * 4;
    if u64::from(connections) > most {
        let why = format!("the limit of open files allows {most} (see 'ulimit -n')");
        return Err(Failure::usage(format!("--connections {connections}: {why}")));
    }
    let data = Data::of(payload, encrypted)?;
    let mut leecher = Row::new(format!("a leecher with {connections} seeds")).fact("role", "leecher");
    let mut seed = Row::new(format!("a seed with {connections} leechers")).fact("role", "seed");
    let stop = bench.stop.clone();
    while rounds.next(bench)? {
        warm(payload.size);
        leecher.add(payload.size, &lone_leecher(connections, payload, &data, scratch, runtime, &stop)?);
        warm(payload.size / 4);
        let (moved, used) = lone_seed(connections, payload, &data, scratch, runtime, &stop)?;
        seed.add(moved, &used);
    }
    let mut table = Table::new("from when all connections stand and nothing has been sent, to the last byte");
    table.rows = vec![leecher, seed];
    Ok(table)
}

fn lone_leecher(
    connections: u16,
    payload: &Payload,
    data: &Arc<Data>,
    scratch: &Scratch,
    runtime: &Runtime,
    stop: &Stop,
) -> Result<Used, Failure> {
    let folder = scratch.path().join("crowd");
    std::fs::create_dir_all(&folder).map_err(|e| Failure::disk(&folder, &e))?;
    let address = free_port()?;
    let mut command = programs::gannet(scratch.path())?;
    command.arg("get").arg(&payload.torrent).args(["--quiet", "--no-trackers", "--timeout", "60s"]);
    command.arg("--dir").arg(&folder).arg("--state-dir").arg(folder.join("state"));
    network_arguments(&mut command, address, connections.into(), data.encrypted(), false);
    let mut program = Program::start("the leecher", &mut command, &folder.join("log"))?;
    let memory = MemoryWatch::start(vec![Some(program.id())]);
    let (go, going) = watch::channel(false);
    let links = call_all(connections, address, data, &mut program, runtime, stop)?;
    let mut tasks = JoinSet::new();
    for link in links {
        tasks.spawn_on(cheap::seed(data.clone(), link, going.clone()), runtime.handle());
    }
    let (cpu, begun) = (program.cpu(), Instant::now());
    let _ = go.send(true);
    let mut one = [program];
    let ends = programs::wait_for_all(&mut one, PATIENCE, stop)?;
    let wall = begun.elapsed();
    tasks.abort_all();
    let cpu = ends.first().map(|end| end.cpu.saturating_sub(cpu.unwrap_or_default()));
    payload.insist(&folder)?;
    std::fs::remove_dir_all(&folder).map_err(|e| Failure::disk(&folder, &e))?;
    Ok(Used { wall, cpu, anonymous: memory.finish().into_iter().flatten().next() })
}

/// As much is sent as the torrent has; who gets it is the seed's choice.
fn lone_seed(
    connections: u16,
    payload: &Payload,
    data: &Arc<Data>,
    scratch: &Scratch,
    runtime: &Runtime,
    stop: &Stop,
) -> Result<(u64, Used), Failure> {
    let mut command = programs::gannet(scratch.path())?;
    command.arg("seed").arg(&payload.torrent).arg(&payload.data).args(["--json", "--no-trackers"]);
    command.arg("--state-dir").arg(scratch.path().join("crowd-state"));
    network_arguments(&mut command, loopback(), connections.into(), data.encrypted(), false);
    let mut program = Program::start("the seed", &mut command, &scratch.path().join("crowd-seed.log"))?;
    let memory = MemoryWatch::start(vec![Some(program.id())]);
    program.wait_for("\"event\":\"seeding\"", PATIENCE, stop)?;
    let address = listening(&program.log()).ok_or_else(|| program.failure())?;
    let (go, going) = watch::channel(false);
    let moved = Arc::new(AtomicU64::new(0));
    let links = call_all(connections, address, data, &mut program, runtime, stop)?;
    let mut tasks = JoinSet::new();
    for link in links {
        let leech = cheap::leech(data.clone(), link, going.clone(), moved.clone(), payload.size);
        tasks.spawn_on(leech, runtime.handle());
    }
    let (cpu, begun) = (program.cpu(), Instant::now());
    let _ = go.send(true);
    let mut last = (0, begun);
    while moved.load(Ordering::Relaxed) < payload.size {
        stop.check()?;
        let now = (moved.load(Ordering::Relaxed), Instant::now());
        if now.0 > last.0 {
            last = now;
        }
        if program.end()?.is_some() {
            return Err(program.failure());
        }
        if last.1.elapsed() > PATIENCE {
            return Err(Failure::network(format!("the seed has sent nothing for {} s", PATIENCE.as_secs())));
        }
        // A leecher ends before its goal only when something was wrong.
        if let Some(ended) = tasks.try_join_next()
            && let Ok(Err(e)) = ended
            && e.kind() == std::io::ErrorKind::InvalidData
        {
            return Err(Failure::new(Code::Bug, format!("the seed: {e}; this is a bug, please report it")));
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    let (moved, wall) = (moved.load(Ordering::Relaxed), begun.elapsed());
    let cpu = program.cpu().zip(cpu).map(|(after, before)| after.saturating_sub(before));
    let anonymous = memory.finish().into_iter().flatten().next();
    tasks.abort_all();
    drop(program);
    Ok((moved, Used { wall, cpu, anonymous }))
}

/// The address in the `listening` line of a seed.
fn listening(log: &str) -> Option<SocketAddr> {
    let lines = log.lines().filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok());
    let line = lines.into_iter().find(|line| line["event"] == "listening")?;
    line["addresses"][0].as_str()?.parse().ok()
}

/// Opens all connections to `program` at `address`.
fn call_all(
    connections: u16,
    address: SocketAddr,
    data: &Arc<Data>,
    program: &mut Program,
    runtime: &Runtime,
    stop: &Stop,
) -> Result<Vec<Link>, Failure> {
    let mut links = Vec::with_capacity(connections.into());
    let mut calling = JoinSet::new();
    let deadline = Instant::now() + PATIENCE;
    let mut begun = 0;
    while links.len() < usize::from(connections) {
        stop.check()?;
        while begun < connections && calling.len() < AT_ONCE {
            let data = data.clone();
            let call = async move {
                loop {
                    match data.call(address).await {
                        Ok(link) => return link,
                        Err(_) => tokio::time::sleep(RETRY).await,
                    }
                }
            };
            calling.spawn_on(call, runtime.handle());
            begun += 1;
        }
        if program.end()?.is_some() {
            return Err(program.failure());
        }
        if Instant::now() > deadline {
            let why = format!("{} of {connections} connections after {} s", links.len(), PATIENCE.as_secs());
            return Err(Failure::network(format!("{}: {why}", program.name())));
        }
        let next = async { tokio::time::timeout(RETRY, calling.join_next()).await };
        if let Ok(Some(Ok(link))) = runtime.block_on(next) {
            links.push(link);
        }
    }
    Ok(links)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn where_a_seed_listens() {
        let log =
            "gannet: something\n{\"event\":\"added\"}\n{\"event\":\"listening\",\"addresses\":[\"127.0.0.1:7\"]}\n";
        assert_eq!(listening(log), Some(([127, 0, 0, 1], 7).into()));
        assert_eq!(listening("{\"event\":\"listening\",\"addresses\":[]}"), None);
        assert_eq!(listening(""), None);
    }
}
