//! Rate limits hold.

use std::time::{Duration, Instant};

use gannet::session::Torrent;

use crate::lab::{KIB, Lab, MIB, Payload, done, until};

/// Bytes per second that arrive between the first half megabyte and three seconds later.
async fn measure(torrent: &Torrent) -> f64 {
    until("it has begun", || torrent.status().downloaded >= 512 * KIB as u64).await;
    let (start, before) = (Instant::now(), torrent.status().downloaded);
    tokio::time::sleep(Duration::from_secs(3)).await;
    let bytes = u32::try_from(torrent.status().downloaded - before).unwrap();
    f64::from(bytes) / start.elapsed().as_secs_f64()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn limits_hold_each_way() {
    const RATE: u64 = 3 * MIB as u64 / 2;
    let lab = Lab::new();
    let payload = Payload::file("metered", 8 * MIB);
    let free = lab.seeder("free", &payload).await;
    let slow = lab.node_with("slow", |config| config.limit_up = Some(RATE)).await;
    slow.seed(&payload).await;
    let down = async {
        let leecher = lab.node_with("down", |config| config.limit_down = Some(RATE)).await;
        let torrent = leecher.get(&payload, &[free.address()]).await;
        let rate = measure(&torrent).await;
        done(&torrent).await;
        payload.assert_in(&leecher.folder);
        rate
    };
    let up = async {
        let leecher = lab.node("up").await;
        let torrent = leecher.get(&payload, &[slow.address()]).await;
        let rate = measure(&torrent).await;
        done(&torrent).await;
        payload.assert_in(&leecher.folder);
        rate
    };
    let (down, up) = tokio::join!(down, up);
    let limit = f64::from(u32::try_from(RATE).unwrap());
    for (what, rate) in [("down", down), ("up", up)] {
        assert!((0.85..1.15).contains(&(rate / limit)), "{what}: {rate:.0} bytes per second of {limit:.0}");
    }
}
