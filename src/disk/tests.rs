use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::*;
use crate::base::{BlockBuf, BlockPool, Geometry, PieceIndex};
use crate::hash::{Expected, keyed_digests, sha1};
use crate::storage::{Layout, LayoutFile, Options, Place, Storage, Window};

struct Bench {
    dir: tempfile::TempDir,
    storage: Arc<Storage>,
    content: Vec<u8>,
    pool: BlockPool,
}

impl Bench {
    fn new() -> Self {
        let content: Vec<u8> = (0..1_000_000u32).map(|n| (n % 253) as u8).collect();
        let geometry = Geometry::new(content.len() as u64, 65_536).unwrap();
        let file =
            LayoutFile { path: PathBuf::new(), offset: 0, length: content.len() as u64, pad: false, executable: false };
        let layout = Layout { name: "file".into(), single_file: true, files: vec![file], geometry };
        let dir = tempfile::tempdir().unwrap();
        let storage = Storage::open(layout, &Place::Folder(dir.path().into()), Options::default()).unwrap();
        storage.prepare().unwrap();
        Self { dir, storage: Arc::new(storage), content, pool: BlockPool::new(64 << 20) }
    }

    fn bytes(&self, piece: PieceIndex) -> &[u8] {
        let start = self.storage.geometry().position(piece) as usize;
        &self.content[start..start + self.storage.geometry().piece_len(piece) as usize]
    }

    fn expected(&self, piece: PieceIndex) -> Expected {
        Expected::V1(sha1(&[self.bytes(piece)]))
    }

    fn blocks(&mut self, piece: PieceIndex) -> Vec<BlockBuf> {
        let parts: Vec<Vec<u8>> = self.bytes(piece).chunks(16_384).map(<[u8]>::to_vec).collect();
        parts
            .iter()
            .map(|part| {
                let mut buf = self.pool.take(part.len() as u32).unwrap();
                buf.as_mut_slice().copy_from_slice(part);
                buf
            })
            .collect()
    }
}

async fn collect(completions: &Completions, count: usize) -> Vec<Done> {
    let mut done = Vec::new();
    while done.len() < count {
        completions.ready().await;
        completions.drain(&mut done);
    }
    done
}

#[tokio::test]
async fn verdicts_come_back_with_their_blocks() {
    let mut bench = Bench::new();
    let disk = DiskPool::new(Some(2)).unwrap();
    let completions = Completions::new();
    let pieces: Vec<_> = bench.storage.geometry().pieces().collect();
    for &piece in &pieces {
        let mut blocks = bench.blocks(piece);
        if piece.get() == 3 {
            blocks[1].as_mut_slice()[5] ^= 1;
        }
        let (storage, expected) = (bench.storage.clone(), bench.expected(piece));
        disk.push(Job::Verify(ToVerify { storage, piece, blocks, expected, completions: completions.clone() }));
    }
    for done in collect(&completions, pieces.len()).await {
        let Done::Verified { piece, verdict, blocks } = done else { panic!("{done:?}") };
        assert_eq!(matches!(verdict, Verdict::Good), piece.get() != 3, "{verdict:?}");
        blocks.into_iter().for_each(|b| bench.pool.give(b));
    }
    assert_eq!(bench.pool.lent(), 0);

    disk.push(Job::Sync { storage: bench.storage.clone(), completions: completions.clone() });
    assert!(matches!(collect(&completions, 1).await[..], [Done::Synced(Ok(()))]));

    let block = |piece: u32, n: u32| bench.storage.geometry().block(pieces[piece as usize], n).unwrap();
    let blocks = vec![block(0, 0), block(0, 1), block(7, 3), block(15, 0)];
    let (answer, read) = tokio::sync::oneshot::channel();
    disk.push(Job::Read { storage: bench.storage.clone(), blocks, buf: vec![1; 3], answer });
    let read = read.await.unwrap();
    read.outcome.unwrap();
    let expected =
        [&bench.bytes(pieces[0])[..32_768], &bench.bytes(pieces[7])[49_152..], &bench.bytes(pieces[15])[..16_384]]
            .concat();
    assert!(read.buf == expected);
}

#[tokio::test]
async fn windows_are_read_ahead() {
    let bench = Bench::new();
    let (storage, aheads) = (&bench.storage, ReadAheads::new());
    let disk = DiskPool::new(Some(1)).unwrap();
    for piece in storage.geometry().pieces() {
        aheads.want(&disk, storage, Window::of(piece, 0)).unwrap().ended().await;
    }
    // What cannot be read ends as well, and so does what nobody reads any more.
    storage.close_files();
    std::fs::remove_file(bench.dir.path().join("file")).unwrap();
    let piece = storage.geometry().piece(0).unwrap();
    let mut ahead = aheads.want(&disk, storage, Window::of(piece, 0)).unwrap();
    drop(disk);
    ahead.ended().await;
}

#[tokio::test]
async fn spilled_pieces_are_hashed_from_the_disk() {
    let mut bench = Bench::new();
    let disk = DiskPool::new(Some(1)).unwrap();
    let completions = Completions::new();
    let piece = bench.storage.geometry().piece(2).unwrap();
    let mut blocks = bench.blocks(piece);
    let last = blocks.split_off(3);
    let spill = |begin, blocks| Job::Spill {
        storage: bench.storage.clone(),
        piece,
        begin,
        blocks,
        digest_key: [5; 16],
        completions: completions.clone(),
    };
    let verify = || Job::VerifyStored {
        storage: bench.storage.clone(),
        piece,
        expected: bench.expected(piece),
        completions: completions.clone(),
    };
    disk.push(spill(0, blocks));
    disk.push(verify());
    let done = collect(&completions, 2).await;
    let [Done::Spilled { outcome: Ok(digests), blocks, .. }, Done::Verified { verdict: Verdict::Bad, .. }] = &done[..]
    else {
        panic!("{done:?}")
    };
    assert_eq!(*digests, keyed_digests(&[5; 16], &blocks.iter().map(|b| b.as_slice()).collect::<Vec<_>>()));
    disk.push(spill(49_152, last));
    disk.push(verify());
    let done = collect(&completions, 2).await;
    assert!(matches!(done[1], Done::Verified { verdict: Verdict::Good, .. }), "{done:?}");
}

#[tokio::test]
async fn a_failing_disk_is_neither_good_nor_bad() {
    let mut bench = Bench::new();
    let disk = DiskPool::new(Some(1)).unwrap();
    let completions = Completions::new();
    let piece = bench.storage.geometry().piece(0).unwrap();
    bench.storage.close_files();
    std::fs::remove_file(bench.dir.path().join("file")).unwrap();
    let (storage, blocks, expected) = (bench.storage.clone(), bench.blocks(piece), bench.expected(piece));
    disk.push(Job::Verify(ToVerify { storage, piece, blocks, expected, completions: completions.clone() }));
    let done = collect(&completions, 1).await;
    let [Done::Verified { verdict: Verdict::DiskFailed(e), blocks, .. }] = &done[..] else { panic!("{done:?}") };
    assert_eq!((blocks.len(), e.path.clone()), (4, bench.dir.path().join("file")));
}

#[tokio::test]
async fn k9_panics_and_shutdown() {
    let disk = DiskPool::new(Some(1)).unwrap();
    for _ in 0..5 {
        assert!(disk.call(|| -> () { std::panic::resume_unwind(Box::new("a test's panic")) }).await.is_err());
    }
    assert_eq!(disk.call(|| 7).await.unwrap(), 7, "the threads are still there");
    let ran = Arc::new(AtomicBool::new(false));
    let mark = ran.clone();
    disk.push(Job::Call(Box::new(move || mark.store(true, Ordering::Relaxed))));
    drop(disk);
    assert!(ran.load(Ordering::Relaxed), "what was asked for is done before the threads go");
}
