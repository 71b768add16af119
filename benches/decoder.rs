//! What the decoder costs: payload of pieces through it, and small messages per second.
//!
//! `feed` copies as the kernel would, so the first figures hold a copy of the whole stream; `memcpy` is that copy alone.

#![expect(clippy::expect_used, reason = "a bench that cannot go on may stop")]

use std::hint::black_box;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use gannet::base::{BLOCK_LEN, BlockPool, Geometry};
use gannet::wire::{Decoder, Item, Message, piece_header};

/// Feeds `stream` in reads of `read` bytes and takes all items; the number of items, so that nothing is optimised out.
fn drain(decoder: &mut Decoder, pool: &mut BlockPool, stream: &[u8], read: usize, wanted: bool) -> usize {
    let mut items = 0;
    for mut rest in stream.chunks(read) {
        while !rest.is_empty() {
            let fed = decoder.feed(rest);
            rest = &rest[fed..];
            while let Some(item) = decoder.next().expect("a sound stream") {
                items += 1;
                match item {
                    Item::Message(message) => drop(black_box(message)),
                    Item::PieceHeader(header) if wanted => {
                        let buf = pool.take(header.len).expect("room in the pool");
                        decoder.receive(buf).expect("a header waits");
                    }
                    Item::PieceHeader(_) => decoder.discard(),
                    Item::Body(buf) => pool.give(buf),
                }
            }
        }
    }
    items
}

fn pieces(c: &mut Criterion) {
    let geometry = Geometry::new(4 << 20, 1 << 20).expect("a sound geometry");
    let mut stream = Vec::new();
    for block in geometry.pieces().flat_map(|piece| geometry.blocks(piece)) {
        stream.extend_from_slice(&piece_header(block));
        stream.resize(stream.len() + BLOCK_LEN as usize, 7);
    }
    let mut group = c.benchmark_group("pieces");
    group.throughput(Throughput::Bytes(stream.len() as u64));
    let mut pool = BlockPool::new(1 << 20);
    for read in [16 << 10, 64 << 10] {
        for (name, wanted) in [("received", true), ("discarded", false)] {
            let mut decoder = Decoder::new(Some(geometry.piece_count()));
            group.bench_function(BenchmarkId::new(name, read), |b| {
                b.iter(|| drain(&mut decoder, &mut pool, &stream, read, wanted));
            });
        }
    }
    let mut place = vec![0; 64 << 10];
    group.bench_function("memcpy/65536", |b| {
        b.iter(|| {
            for read in stream.chunks(place.len()) {
                black_box(&mut place)[..read.len()].copy_from_slice(read);
            }
        });
    });
    group.finish();
}

fn haves(c: &mut Criterion) {
    const COUNT: u32 = 100_000;
    let mut stream = Vec::new();
    for index in 0..COUNT {
        Message::Have(index).encode_into(&mut stream);
    }
    let mut group = c.benchmark_group("haves");
    group.throughput(Throughput::Elements(u64::from(COUNT)));
    let mut pool = BlockPool::new(1 << 20);
    let mut decoder = Decoder::new(Some(COUNT));
    group.bench_function("decode", |b| b.iter(|| drain(&mut decoder, &mut pool, &stream, 64 << 10, true)));
    let mut out = Vec::with_capacity(stream.len());
    group.bench_function("encode requests", |b| {
        b.iter(|| {
            out.clear();
            for index in 0..COUNT {
                Message::Request { index, begin: 0, len: BLOCK_LEN }.encode_into(&mut out);
            }
            out.len()
        });
    });
    group.finish();
}

criterion_group!(benches, pieces, haves);
criterion_main!(benches);
