//! Writing verified pieces: through maps, by `pwrite`, and by `pwrite` into preallocated files.
//!
//! `GANNET_BENCH_DIR` names the folder to write to (a file system worth measuring); default is the build's own. Time
//! includes preallocation and writing into the page cache, not the sync.
#![expect(clippy::unwrap_used, reason = "a bench that cannot write has nothing to say")]

use std::path::PathBuf;
use std::time::{Duration, Instant};

use criterion::{BenchmarkId, Criterion, Throughput};
use gannet::base::Geometry;
use gannet::storage::{Backend, Layout, LayoutFile, Options, Place, Preallocate, Storage};

const TOTAL: u64 = 256 << 20;

fn main() {
    let mut criterion = Criterion::default()
        .sample_size(10)
        .warm_up_time(Duration::from_millis(500))
        .measurement_time(Duration::from_secs(3))
        .configure_from_args();
    let folder = std::env::var_os("GANNET_BENCH_DIR").unwrap_or_else(|| env!("CARGO_TARGET_TMPDIR").into());
    let bytes: Vec<u8> = (0..16 << 20).map(|n: u32| n.to_be_bytes()[3]).collect();

    for piece_length in [256 << 10, 1 << 20, 16 << 20] {
        let mut group = criterion.benchmark_group(format!("write/{}KiB", piece_length >> 10));
        group.throughput(Throughput::BytesDecimal(TOTAL));
        for (name, backend, preallocate) in [
            ("mmap", Backend::Mmap, Preallocate::Full),
            ("pwrite", Backend::Pwrite, Preallocate::Sparse),
            ("pwrite+fallocate", Backend::Pwrite, Preallocate::Full),
        ] {
            let options = Options { backend, preallocate, ..Options::default() };
            let blocks: Vec<&[u8]> = bytes[..piece_length as usize].chunks(16_384).collect();
            group.bench_function(BenchmarkId::from_parameter(name), |b| {
                b.iter_custom(|times| {
                    (0..times).map(|_| write(&folder.clone().into(), piece_length, &options, &blocks)).sum()
                });
            });
        }
        group.finish();
    }
    criterion.final_summary();
}

fn write(folder: &PathBuf, piece_length: u32, options: &Options, blocks: &[&[u8]]) -> Duration {
    let dir = tempfile::tempdir_in(folder).unwrap();
    let geometry = Geometry::new(TOTAL, piece_length).unwrap();
    let file = LayoutFile { path: PathBuf::new(), offset: 0, length: TOTAL, pad: false, executable: false };
    let layout = Layout { name: "bench".into(), single_file: true, files: vec![file], geometry: geometry.clone() };
    let start = Instant::now();
    let storage = Storage::open(layout, &Place::Folder(dir.path().into()), options.clone()).unwrap();
    storage.prepare().unwrap();
    for piece in geometry.pieces() {
        storage.write_piece(piece, blocks).unwrap();
    }
    start.elapsed()
}
