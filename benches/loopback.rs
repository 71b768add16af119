//! A whole download through the public interface: one seeder, one leecher, real sockets on the loopback interface.
//!
//! 64 MiB in pieces of 1 MiB, from the moment that the leecher hears of the torrent until all of it is verified and saved.
//! For larger sizes, more peers and other clients there is `gannet bench`.
#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a bench that cannot go on may stop")]

use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use gannet::hash;
use gannet::metainfo::{Builder, Format, Metainfo};
use gannet::session::{AddTorrent, Config, End, Place, SeedGoal, Session, State};
use tokio::runtime::Runtime;

const SIZE: usize = 64 << 20;
const PIECE: usize = 1 << 20;

/// A file in `folder`, and its torrent.
fn payload(folder: &Path) -> Metainfo {
    let mut bytes = vec![0; SIZE];
    fastrand::Rng::with_seed(1).fill(&mut bytes);
    std::fs::write(folder.join("payload"), &bytes).unwrap();
    let mut builder = Builder::file("payload", SIZE as u64);
    builder.format = Format::V1;
    builder.piece_length = u32::try_from(PIECE).ok();
    builder.private = true;
    let plan = builder.plan().unwrap();
    let hashes: Vec<[u8; 20]> = bytes.chunks(PIECE).map(|piece| hash::sha1(&[piece])).collect();
    Metainfo::parse(&plan.finish(&hashes, &[]).unwrap()).unwrap()
}

async fn session(state: &Path) -> Session {
    let mut config = Config::new(state);
    config.listen = vec![(Ipv4Addr::LOCALHOST, 0).into()];
    Session::start(config).await.unwrap()
}

/// A session that seeds what is in `folder`, and where it can be called.
async fn seeder(folder: &Path, metainfo: &Arc<Metainfo>) -> (Session, SocketAddr) {
    let session = session(&folder.join("seeder")).await;
    let mut add = AddTorrent::new(metainfo.clone(), Place::Exact(folder.join("payload")));
    add.seed = Some(SeedGoal::default());
    let torrent = session.add(add).await.unwrap();
    while torrent.status().state != State::Seeding {
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    let address = session.listen_addresses()[0];
    (session, address)
}

/// One download from `peer` into a folder that is new each time.
async fn download(folder: &Path, metainfo: &Arc<Metainfo>, peer: SocketAddr) -> Duration {
    let fresh = tempfile::tempdir_in(folder).unwrap();
    let session = session(&fresh.path().join("state")).await;
    let mut add = AddTorrent::new(metainfo.clone(), Place::Folder(fresh.path().to_owned()));
    add.peers = vec![peer];
    let began = Instant::now();
    let torrent = session.add(add).await.unwrap();
    assert_eq!(torrent.finished().await.expect("a download"), End::Finished);
    let took = began.elapsed();
    session.stop(Duration::from_secs(1)).await;
    took
}

fn loopback(c: &mut Criterion) {
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let metainfo = Arc::new(payload(folder.path()));
    let runtime = Runtime::new().unwrap();
    let (seeding, address) = runtime.block_on(seeder(folder.path(), &metainfo));
    let mut group = c.benchmark_group("loopback");
    group.throughput(Throughput::BytesDecimal(SIZE as u64));
    group.bench_function("64 MiB from one seeder", |b| {
        b.iter_custom(|times| (0..times).map(|_| runtime.block_on(download(folder.path(), &metainfo, address))).sum());
    });
    group.finish();
    runtime.block_on(seeding.stop(Duration::from_secs(1)));
}

criterion_group! {
    name = benches;
    config = Criterion::default().sample_size(10).warm_up_time(Duration::from_millis(500)).measurement_time(Duration::from_secs(4));
    targets = loopback
}
criterion_main!(benches);
