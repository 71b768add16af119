//! SHA-1 and SHA-256 of one and of many messages, as pieces and leaves come: bytes per second.
//!
//! `GANNET_HASH=scalar|ni4|avx512 cargo bench --bench hash` forces a tier.

use std::hint::black_box;
use std::time::Duration;

use criterion::{BenchmarkId, Criterion, Throughput};
use gannet::hash::{self, Slices};

fn main() {
    let mut criterion = Criterion::default()
        .sample_size(20)
        .warm_up_time(Duration::from_millis(300))
        .measurement_time(Duration::from_secs(1))
        .configure_from_args();
    let bytes: Vec<u8> = (0..16 << 20).map(|n: u32| n.wrapping_mul(2_654_435_761).to_be_bytes()[0]).collect();
    println!("tier: {}, {} lanes", hash::tier(), hash::lanes());

    for (name, many) in [("sha1", false), ("sha256", true)] {
        let mut group = criterion.benchmark_group(name);
        for (count, len) in
            [(1, 1 << 20), (2, 1 << 20), (4, 1 << 20), (8, 256 << 10), (16, 256 << 10), (16, 1 << 20), (64, 16 << 10)]
        {
            // Each message as blocks of 16 KiB, as they come from peers.
            let blocks: Vec<Vec<&[u8]>> = bytes.chunks(len).take(count).map(|m| m.chunks(16_384).collect()).collect();
            let messages: Vec<Slices<'_>> = blocks.iter().map(Vec::as_slice).collect();
            group.throughput(Throughput::BytesDecimal((count * len) as u64));
            let id = BenchmarkId::from_parameter(format!("{count}x{}KiB", len >> 10));
            group.bench_with_input(id, &messages, |b, messages| {
                if many {
                    b.iter(|| hash::sha256_many(black_box(messages)));
                } else {
                    b.iter(|| hash::sha1_many(black_box(messages)));
                }
            });
        }
        group.finish();
    }
    criterion.final_summary();
}
