//! What the policies of the swarm cost: a choking round, a dial, a block.
#![expect(clippy::unwrap_used, reason = "a bench may stop")]

use std::hint::black_box;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use criterion::{BatchSize, Criterion, criterion_group, criterion_main};
use gannet::base::Slab;
use gannet::swarm::candidates::{Candidates, CandidatesConfig, Source};
use gannet::swarm::choker::{Choker, Mode, Row};
use gannet::swarm::requests::RequestWindow;

fn rows(n: u32) -> Vec<Row> {
    let mut slab = Slab::default();
    let mut dice = fastrand::Rng::with_seed(1);
    (0..n)
        .map(|i| Row {
            key: slab.insert(()),
            interested: i % 8 != 0,
            unchoked: i % 10 == 1,
            unchoked_for: Duration::from_secs(dice.u64(..60)),
            choked_for: Duration::from_secs(dice.u64(..600)),
            down_rate: dice.u64(..1 << 20),
            up_rate: dice.u64(..1 << 20),
            sent_since_unchoke: dice.u64(..1 << 26),
            connected_for: Duration::from_secs(dice.u64(..1000)),
            snubbed: i % 50 == 3,
            upload_only: false,
            pieces: dice.u16(..1000),
        })
        .collect()
}

fn choker(c: &mut Criterion) {
    for n in [100, 1000] {
        let rows = rows(n);
        for mode in [Mode::Leeching, Mode::Seeding] {
            let mut choker = Choker::new(1 << 18, 1);
            c.bench_function(&format!("choker/round/{mode:?}/{n}"), |b| {
                b.iter(|| choker.round(mode, 20, black_box(&rows)).len());
            });
        }
        let mut choker = Choker::new(1 << 18, 1);
        c.bench_function(&format!("choker/fill/all slots in use/{n}"), |b| {
            b.iter(|| choker.fill(Mode::Leeching, 4, black_box(&rows)).len());
        });
    }
}

fn public(n: u32) -> SocketAddr {
    SocketAddr::new(IpAddr::V4(Ipv4Addr::from_bits(0x0b00_0000 + n * 7919)), 6881)
}

fn candidates(c: &mut Criterion) {
    let now = Instant::now();
    let full = || {
        let mut list = Candidates::new(CandidatesConfig::default(), 1);
        for n in 0..3000 {
            list.add(now, public(n), if n % 2 == 0 { Source::Pex } else { Source::Tracker }, None);
        }
        list
    };
    c.bench_function("candidates/add 3000", |b| b.iter(full));
    c.bench_function("candidates/add to a full list", |b| {
        let (mut list, mut n) = (full(), 3000);
        b.iter(|| {
            n = (n + 1) % 100_000;
            list.add(now, public(n), Source::Dht, None)
        });
    });
    c.bench_function("candidates/next and failed", |b| {
        b.iter_batched_ref(
            full,
            |list| {
                let next = list.next(now).unwrap();
                list.failed(next.addr, now);
            },
            BatchSize::LargeInput,
        );
    });
}

fn requests(c: &mut Criterion) {
    c.bench_function("requests/asked and answered", |b| {
        let mut now = Instant::now();
        let mut window = RequestWindow::new(now, 500);
        b.iter(|| {
            window.asked(now, 1);
            let asked_at = now;
            now += Duration::from_micros(20);
            window.answered(now, 16_384, asked_at);
            window.room(now)
        });
    });
}

criterion_group!(benches, choker, candidates, requests);
criterion_main!(benches);
