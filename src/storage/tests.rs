use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};

use tempfile::TempDir;

use super::*;
use crate::base::ShortPiece;

/// Files of these lengths one behind the other; a negative length is a pad file.
pub(super) fn layout(piece_length: u32, lengths: &[i64]) -> Layout {
    let mut offset = 0;
    let mut files = Vec::new();
    for (n, &length) in lengths.iter().enumerate() {
        let path = PathBuf::from(format!("d{}/f{n}", n % 3));
        files.push(LayoutFile { path, offset, length: length.unsigned_abs(), pad: length < 0, executable: n == 1 });
        offset += length.unsigned_abs();
    }
    let geometry = Geometry::new(offset, piece_length).unwrap();
    Layout { name: "torrent".into(), single_file: false, files, geometry }
}

pub(super) fn open(dir: &TempDir, layout: &Layout, options: Options) -> Result<Storage, StorageError> {
    Storage::open(layout.clone(), &Place::Folder(dir.path().to_path_buf()), options)
}

/// Bytes of a torrent, zeros where it is padded.
pub(super) fn content(layout: &Layout) -> Vec<u8> {
    let end = layout.files.iter().map(|f| f.offset + f.length).max().unwrap();
    let mut bytes: Vec<u8> = (0..end).map(|n| (n % 251) as u8 | 1).collect();
    for file in layout.files.iter().filter(|f| f.pad) {
        bytes[file.offset as usize..][..file.length as usize].fill(0);
    }
    bytes
}

pub(super) fn piece_of<'a>(layout: &Layout, content: &'a [u8], piece: PieceIndex) -> &'a [u8] {
    let start = layout.geometry.position(piece) as usize;
    &content[start..start + layout.geometry.piece_len(piece) as usize]
}

/// Writes all pieces, each in slices of uneven length.
pub(super) fn write_all(storage: &Storage, layout: &Layout, content: &[u8]) {
    for piece in layout.geometry.pieces() {
        let slices: Vec<&[u8]> = piece_of(layout, content, piece).chunks(7001).collect();
        storage.write_piece(piece, &slices).unwrap();
    }
}

fn assert_reads_back(storage: &Storage, layout: &Layout, content: &[u8]) {
    for piece in layout.geometry.pieces() {
        let expected = piece_of(layout, content, piece);
        for block in layout.geometry.blocks(piece) {
            let mut buf = vec![9; block.len() as usize];
            storage.read(block, &mut buf).unwrap();
            let begin = block.begin() as usize;
            assert!(buf == expected[begin..begin + buf.len()], "{block:?}");
            assert_eq!(sent(storage, block), buf);
        }
    }
}

/// What would be sent, either way. Where the system does not tell what is in memory, nothing can be.
fn sent(storage: &Storage, block: crate::base::Block) -> Vec<u8> {
    let [mapped, copied] = [Lending::Mapped, Lending::Copied].map(|lending| {
        loop {
            match lent(storage, block, lending) {
                Ok(bytes) => return Some(bytes),
                Err(Lent::Cold) => storage.read_ahead(Window::of(block.piece(), block.begin())).unwrap(),
                Err(_) => return None,
            }
        }
    });
    assert!(mapped == copied, "{block:?}");
    mapped.unwrap_or_else(|| {
        let file = tempfile::tempfile_in(storage.path().parent().unwrap()).unwrap();
        sys::write_at(&file, &[b"x"], 0).unwrap();
        assert!(!sys::is_in_memory(&file) && sys::is_cached(&file, 0, 1) == Cached::Unknown, "{block:?}");
        let mut bytes = vec![0; block.len() as usize];
        storage.read(block, &mut bytes).unwrap();
        bytes
    })
}

fn lent(storage: &Storage, block: crate::base::Block, lending: Lending) -> Result<Vec<u8>, Lent> {
    use std::io::Read;
    let (mut spans, mut copied) = (vec![SendSpan::Copied(1)], vec![7]);
    match storage.lend(block.piece(), block.begin(), block.len(), lending, &mut spans, &mut copied) {
        Lent::All => {}
        other => {
            assert_eq!((spans.len(), copied.len()), (1, 1), "nothing is left behind");
            return Err(other);
        }
    }
    let (ours, mut theirs) = std::os::unix::net::UnixStream::pair().unwrap();
    let mut bytes = Vec::new();
    let mut rest = &copied[..];
    for span in &spans {
        let mut gather = sys::Gather::new();
        let len = match span {
            SendSpan::Copied(len) => {
                let (part, behind) = rest.split_at(*len as usize);
                rest = behind;
                gather.push(part);
                *len
            }
            SendSpan::Mapped { map, offset, len } => {
                assert_eq!(lending, Lending::Mapped);
                assert!(gather.push_mapped(map, *offset, *len as usize));
                *len
            }
        };
        assert_eq!(gather.send(&ours).unwrap(), len as usize);
        let at = bytes.len();
        bytes.resize(at + len as usize, 0);
        theirs.read_exact(&mut bytes[at..]).unwrap();
    }
    assert!(rest.is_empty());
    Ok(bytes.split_off(1))
}

#[test]
fn every_way_of_writing() {
    // Small and empty files, a pad file in the middle of a piece, one long enough to be mapped.
    let layout = layout(32_768, &[10, 40_000, 0, -500, 1, 2_000_000, 3]);
    let content = content(&layout);
    for backend in [Backend::Auto, Backend::Mmap, Backend::Pwrite] {
        for preallocate in [Preallocate::Full, Preallocate::Sparse] {
            let dir = tempfile::tempdir().unwrap();
            let storage = open(&dir, &layout, Options { backend, preallocate, ..Options::default() }).unwrap();
            assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0, "opening makes nothing");
            storage.prepare().unwrap();
            assert!(dir.path().join("torrent/d2/f2").exists(), "empty files are made");
            write_all(&storage, &layout, &content);
            assert_reads_back(&storage, &layout, &content);
            storage.sync().unwrap();
            storage.apply_attributes().unwrap();
            for (file, n) in layout.files.iter().zip(0..) {
                let path = dir.path().join("torrent").join(&file.path);
                assert_eq!(path.exists(), !file.pad);
                if !file.pad {
                    let expected = &content[file.offset as usize..][..file.length as usize];
                    assert!(std::fs::read(&path).unwrap() == expected, "{path:?}");
                    assert_eq!(path.metadata().unwrap().permissions().mode() & 0o100 != 0, n == 1);
                    assert_eq!(storage.file_path(n), Some(path));
                }
            }
            let reopened = open(&dir, &layout, Options { read_only: true, ..Options::default() }).unwrap();
            assert_reads_back(&reopened, &layout, &content);
            let mut stamps = storage.file_identities().unwrap();
            assert_eq!(stamps, reopened.file_identities().unwrap());
            assert_eq!((stamps.pop(), stamps[3], stamps[5].unwrap().size), (Some(None), None, 2_000_000));
        }
    }
}

#[test]
fn existing_bytes_survive_preparing() {
    let dir = tempfile::tempdir().unwrap();
    let layout = layout(16_384, &[1_000_000, 5]);
    let path = dir.path().join("torrent/d0/f0");
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(&path, b"here before").unwrap();
    let storage = open(&dir, &layout, Options::default()).unwrap();
    storage.prepare().unwrap();
    let bytes = std::fs::read(&path).unwrap();
    assert_eq!((&bytes[..11], bytes.len()), (b"here before".as_slice(), 1_000_000));
    let taken = path.metadata().unwrap().blocks() * 512;
    assert!(taken >= 1_000_000 || storage.backend() == Backend::Pwrite, "{taken}");
}

#[test]
fn longer_files_are_not_cut() {
    let dir = tempfile::tempdir().unwrap();
    let layout = layout(16_384, &[100]);
    let path = dir.path().join("torrent/d0/f0");
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(&path, [1; 101]).unwrap();
    let error = open(&dir, &layout, Options::default()).unwrap_err();
    assert_eq!((error.kind(), &error.path), (ErrorKind::Changed, &path));
    let storage = open(&dir, &layout, Options { overwrite: true, ..Options::default() }).unwrap();
    assert_eq!(path.metadata().unwrap().len(), 101, "looking does not cut");
    storage.prepare().unwrap();
    assert_eq!(std::fs::read(&path).unwrap(), [1; 100]);
}

#[test]
fn unwanted_bytes_go_to_the_part_file() {
    let layout = layout(16_384, &[10_000, 30_000, 20_000, 100_000]);
    let content = content(&layout);
    let dir = tempfile::tempdir().unwrap();
    let wanted = Some(vec![true, false, true, false]);
    let storage = open(&dir, &layout, Options { wanted: wanted.clone(), ..Options::default() }).unwrap();
    storage.prepare().unwrap();
    let pieces: Vec<_> = layout.geometry.pieces().filter(|p| storage.is_piece_wanted(*p)).collect();
    assert_eq!(pieces.len(), 3, "of ten pieces 0, 2 and 3");
    for piece in &pieces {
        storage.write_piece(*piece, &[piece_of(&layout, &content, *piece)]).unwrap();
    }
    storage.sync().unwrap();
    assert!(!dir.path().join("torrent/d1/f1").exists());
    assert!(dir.path().join(".torrent.gannet-part").exists());
    let again = open(&dir, &layout, Options { wanted, ..Options::default() }).unwrap();
    for storage in [&storage, &again] {
        for piece in &pieces {
            let mut buf = vec![0; 16_384];
            storage.read_piece(*piece, 0, &mut buf).unwrap();
            assert!(buf == piece_of(&layout, &content, *piece));
        }
    }
    assert!(again.file_identities().unwrap().last().unwrap().is_some());
    // A piece that is unwanted from end to end has no place in the part file: it goes where it belongs.
    let unwanted = layout.geometry.piece(6).unwrap();
    storage.write_piece(unwanted, &[piece_of(&layout, &content, unwanted)]).unwrap();
    let mut buf = vec![0; 16_384];
    storage.read_piece(unwanted, 0, &mut buf).unwrap();
    assert!(buf == piece_of(&layout, &content, unwanted));
}

#[test]
fn a_whole_unwanted_file_is_used() {
    let layout = layout(16_384, &[10_000, 10_000]);
    let content = content(&layout);
    let dir = tempfile::tempdir().unwrap();
    write_all(&open(&dir, &layout, Options::default()).unwrap(), &layout, &content);
    let storage = open(&dir, &layout, Options { wanted: Some(vec![true, false]), ..Options::default() }).unwrap();
    assert_reads_back(&storage, &layout, &content);
}

#[test]
fn gaps_between_files_of_v2_torrents() {
    // Each file begins a piece, the last piece of each is short on the wire.
    let short =
        vec![ShortPiece { piece: 1, wire_len: 100, data_len: 100 }, ShortPiece { piece: 2, wire_len: 7, data_len: 7 }];
    let geometry = Geometry::with_short_pieces(16_384, 3, short).unwrap();
    let file =
        |path: &str, offset, length| LayoutFile { path: path.into(), offset, length, pad: false, executable: false };
    let files = vec![file("a", 0, 16_484), file("b", 32_768, 7)];
    let layout = Layout { name: "torrent".into(), single_file: false, files, geometry };
    let dir = tempfile::tempdir().unwrap();
    let storage = open(&dir, &layout, Options::default()).unwrap();
    let piece = layout.geometry.piece(1).unwrap();
    storage.write_piece(piece, &[&[3; 100], &[4; 50]]).unwrap();
    assert_eq!(dir.path().join("torrent/a").metadata().unwrap().len(), 16_484, "no more than the piece");
    let mut buf = [9; 120];
    storage.read_piece(piece, 0, &mut buf).unwrap();
    assert_eq!((buf[..100].to_vec(), buf[100..].to_vec()), (vec![3; 100], vec![0; 20]));
}

#[test]
fn places() {
    let outer = tempfile::tempdir().unwrap();
    let mut single = layout(16_384, &[5]);
    single.single_file = true;
    let exact = outer.path().join("other name");
    std::fs::write(&exact, b"abcde").unwrap();
    symlink(&exact, outer.path().join("link")).unwrap();
    let read_only = Options { read_only: true, ..Options::default() };
    for path in [exact.clone(), outer.path().join("link")] {
        let storage = Storage::open(single.clone(), &Place::Exact(path), read_only.clone()).unwrap();
        let mut buf = [0; 5];
        storage.read(single.geometry.range(0, 0, 5).unwrap(), &mut buf).unwrap();
        assert_eq!(&buf, b"abcde");
        assert_eq!(storage.path(), exact.canonicalize().unwrap());
    }
    let storage =
        Storage::open(single.clone(), &Place::Folder(outer.path().join("new/sub")), Options::default()).unwrap();
    storage.write_piece(single.geometry.piece(0).unwrap(), &[b"12345"]).unwrap();
    assert_eq!(std::fs::read(outer.path().join("new/sub/torrent")).unwrap(), b"12345");
    let missing = Storage::open(single.clone(), &Place::Exact(outer.path().join("none")), read_only.clone()).unwrap();
    let error = missing.read(single.geometry.range(0, 0, 5).unwrap(), &mut [0; 5]).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Missing);
    assert!(Storage::open(single, &Place::Folder(outer.path().join("none")), read_only).is_err());
}

#[test]
fn d8_nothing_leaves_the_folder() {
    let outer = tempfile::tempdir().unwrap();
    let place = Place::Folder(outer.path().join("downloads"));
    let secret = outer.path().join("secret");
    std::fs::write(&secret, b"secret").unwrap();
    for path in ["../../secret", "/etc/passwd", "a/../../../secret", "", "."] {
        let mut bad = layout(16_384, &[6]);
        bad.files[0].path = path.into();
        assert!(Storage::open(bad.clone(), &place, Options::default()).is_err(), "{path}");
        bad.name = path.into();
        bad.single_file = true;
        assert!(Storage::open(bad, &place, Options::default()).is_err(), "{path}");
    }
    // Links that stand where folders and files of the torrent have to be.
    let root = outer.path().join("downloads/torrent");
    std::fs::create_dir_all(root.join("d0")).unwrap();
    symlink(&secret, root.join("d0/f0")).unwrap();
    symlink(outer.path(), root.join("d1")).unwrap();
    let layout = layout(16_384, &[6, 6]);
    assert!(Storage::open(layout.clone(), &place, Options::default()).is_err());
    std::fs::remove_file(root.join("d0/f0")).unwrap();
    let piece = layout.geometry.piece(0).unwrap();
    match Storage::open(layout.clone(), &place, Options::default()) {
        Err(_) => {}
        Ok(storage) => assert!(storage.prepare().is_err() && storage.write_piece(piece, &[b"overwritten!"]).is_err()),
    }
    std::fs::remove_file(root.join("d1")).unwrap();
    // A link put there after opening, before the first use.
    let storage =
        Storage::open(layout, &place, Options { preallocate: Preallocate::Sparse, ..Options::default() }).unwrap();
    storage.prepare().unwrap();
    symlink(&secret, root.join("d0/f0")).unwrap();
    assert_eq!(storage.write_piece(piece, &[b"overwritten!"]).unwrap_err().kind(), ErrorKind::Changed);
    assert_eq!(std::fs::read(&secret).unwrap(), b"secret");
    assert!(!outer.path().join("f1").exists());
}

#[test]
fn read_only_writes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let layout = layout(16_384, &[100, 0]);
    let storage = open(&dir, &layout, Options { read_only: true, ..Options::default() }).unwrap();
    storage.prepare().unwrap();
    let error = storage.write_piece(layout.geometry.piece(0).unwrap(), &[&[0; 100]]).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ReadOnly);
    storage.sync().unwrap();
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
}

#[test]
fn m17_more_than_the_disk_holds_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    for preallocate in [Preallocate::Full, Preallocate::Sparse] {
        let layout = layout(256 << 20, &[1 << 47]);
        let storage = open(&dir, &layout, Options { preallocate, ..Options::default() }).unwrap();
        let error = storage.prepare().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Full, "{error}");
        assert!(error.to_string().contains("missing"), "{error}");
    }
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0, "nothing is made");
}

/// Links are not made, whatever they point to, and padding takes no space, however much there is.
#[test]
fn m10_m11_links_and_padding_are_not_made() {
    let dir = tempfile::tempdir().unwrap();
    let link = |name: &str, target: &str| {
        let entry = format!("d4:attr1:l4:pathl{}:{name}e12:symlink pathl{}:{target}ee", name.len(), target.len());
        entry.into_bytes()
    };
    let files = [
        b"d6:lengthi3e4:pathl1:aee".to_vec(),
        b"d4:attr1:p6:lengthi1099511627773e4:pathl4:.pad1:5ee".to_vec(),
        link("to", "/etc/passwd"),
        link("up", ".."),
        link("self", "self"),
    ];
    let pieces = vec![b'h'; 20 * (1 << 40) / (256 << 20)];
    let torrent = [
        b"d4:infod5:filesl".as_slice(),
        &files.concat(),
        b"e4:name1:n12:piece lengthi268435456e6:pieces81920:",
        &pieces,
        b"ee",
    ]
    .concat();
    let info = crate::metainfo::Metainfo::parse(&torrent).unwrap().info;
    let place = Place::Folder(dir.path().to_owned());
    let storage = Storage::open(Layout::new(&info, &place), &place, Options::default()).unwrap();
    storage.prepare().unwrap();
    let first = storage.geometry().pieces().next().unwrap();
    storage.write_piece(first, &[b"abc"]).unwrap();
    let mut found: Vec<_> = std::fs::read_dir(dir.path().join("n")).unwrap().map(|e| e.unwrap().path()).collect();
    found.sort();
    assert!(found.iter().all(|path| !path.is_symlink()), "{found:?}");
    let blocks: u64 = found.iter().map(|path| path.metadata().unwrap().blocks()).sum();
    assert!(blocks * 512 < 1 << 20, "{found:?}");
    // A link, and a file that would go through it.
    let through = [link("out", ".."), b"d6:lengthi3e4:pathl3:out1:xee".to_vec()].concat();
    let torrent = [b"d4:infod5:filesl", &through[..], b"e4:name1:n12:piece lengthi16384e6:pieces20:"].concat();
    let refused = crate::metainfo::Metainfo::parse(&[&torrent[..], &[b'h'; 20], b"ee"].concat());
    assert!(matches!(refused, Err(crate::metainfo::MetainfoError::FileIsFolder(_))), "{refused:?}");
}

#[test]
fn d7_d8_cut_replaced_and_removed_files() {
    let layout = layout(65_536, &[1_000_000]);
    let content = content(&layout);
    let pieces: Vec<_> = layout.geometry.pieces().collect();
    let write = |storage: &Storage, n: usize| storage.write_piece(pieces[n], &[piece_of(&layout, &content, pieces[n])]);
    for backend in [Backend::Mmap, Backend::Pwrite] {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("torrent/d0/f0");
        let prepared = || {
            let _ = std::fs::remove_file(&path);
            let storage = open(&dir, &layout, Options { backend, ..Options::default() }).unwrap();
            storage.prepare().unwrap();
            write(&storage, 0).unwrap();
            storage
        };
        // Cut: reads fail, writes through a map fail too, and the process is alive.
        let storage = prepared();
        std::fs::OpenOptions::new().write(true).open(&path).unwrap().set_len(1000).unwrap();
        assert_eq!(storage.read_piece(pieces[0], 0, &mut [0; 2000]).unwrap_err().kind(), ErrorKind::Changed);
        if backend == Backend::Mmap && storage.backend() == Backend::Mmap {
            let error = write(&storage, 3).unwrap_err();
            assert_eq!((error.kind(), error.path), (ErrorKind::Changed, path.clone()));
        }
        // Removed, and replaced: found out at the sync, or when the file is opened again.
        for replace in [false, true] {
            let storage = prepared();
            std::fs::remove_file(&path).unwrap();
            if replace {
                std::fs::write(&path, vec![0; 1_000_000]).unwrap();
            }
            let error = storage.sync().unwrap_err();
            assert!(error.to_string().contains(if replace { "replaced" } else { "removed" }), "{error}");
            assert!(write(&storage, 1).is_err());
            assert!(storage.read_piece(pieces[0], 0, &mut [0; 10]).is_err());
            assert_eq!(path.exists(), replace, "no empty file takes its place");
        }
    }
}

#[test]
fn few_files_stay_open() {
    let lengths = [100; 300];
    let layout = layout(16_384, &lengths);
    let content = content(&layout);
    let dir = tempfile::tempdir().unwrap();
    let storage = open(&dir, &layout, Options::default()).unwrap();
    storage.prepare().unwrap();
    write_all(&storage, &layout, &content);
    assert!(storage.open.len() <= 256, "{}", storage.open.len());
    assert_reads_back(&storage, &layout, &content);
    storage.close_files();
    assert_eq!(storage.open.len(), 0);
}

/// A small file system of its own, where that is permitted (as root); unmounted when dropped.
struct Tmpfs(TempDir);

impl Tmpfs {
    fn mount(size: &str) -> Option<Self> {
        let dir = tempfile::tempdir().unwrap();
        let options = format!("size={size}");
        let mount =
            std::process::Command::new("mount").args(["-t", "tmpfs", "-o", &options, "none"]).arg(dir.path()).output();
        mount.ok()?.status.success().then_some(Self(dir))
    }
}

impl Drop for Tmpfs {
    fn drop(&mut self) {
        let _ = std::process::Command::new("umount").arg("-l").arg(self.0.path()).output();
    }
}

/// Other tests start processes, which hold what is open here, removed files too, until they have become another program.
fn wait_for_space(dir: &Dir) {
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(10);
    while crate::sys::available(dir).is_some_and(|free| free < 2_000_000) && std::time::Instant::now() < deadline {
        std::thread::yield_now();
    }
}

#[test]
fn d1_d3_a_disk_that_fills_up_is_an_error() {
    let Some(disk) = Tmpfs::mount("3m") else { return };
    let layout = layout(65_536, &[2_000_000]);
    let content = content(&layout);
    for (backend, preallocate) in [(Backend::Mmap, Preallocate::Full), (Backend::Pwrite, Preallocate::Sparse)] {
        let storage = open(&disk.0, &layout, Options { backend, preallocate, ..Options::default() }).unwrap();
        wait_for_space(&storage.dir);
        storage.prepare().unwrap();
        let path = storage.file_path(0).unwrap();
        // Holes in the preallocated file, and the space behind them gone.
        let file =
            std::fs::OpenOptions::new().write(true).open(&path).or_else(|_| std::fs::File::create(&path)).unwrap();
        let (punch, keep) = (rustix::fs::FallocateFlags::PUNCH_HOLE, rustix::fs::FallocateFlags::KEEP_SIZE);
        rustix::fs::fallocate(&file, punch | keep, 0, 2_000_000).unwrap();
        let filler = disk.0.path().join("filler");
        let _ = std::fs::write(&filler, vec![1; 4 << 20]);
        let pieces: Vec<_> = layout.geometry.pieces().collect();
        let write = |n: usize| storage.write_piece(pieces[n], &[piece_of(&layout, &content, pieces[n])]);
        let failed = (0..pieces.len()).find_map(|n| write(n).err()).unwrap();
        assert_eq!((failed.kind(), &failed.path), (ErrorKind::Full, &path), "{failed}");
        std::fs::remove_file(filler).unwrap();
        wait_for_space(&storage.dir);
        write_all(&storage, &layout, &content);
        assert_reads_back(&storage, &layout, &content);
        std::fs::remove_file(path).unwrap();
    }
}

/// What one torrent is going to need is promised to no other, until it is gone.
#[test]
fn space_is_reserved_before_the_first_byte() {
    let Some(disk) = Tmpfs::mount("6m") else { return };
    let layout = layout(65_536, &[4 << 20]);
    let content = content(&layout);
    let sparse = || Options { preallocate: Preallocate::Sparse, ..Options::default() };
    let folder = |name: &str| {
        let folder = disk.0.path().join(name);
        std::fs::create_dir(&folder).unwrap();
        Storage::open(layout.clone(), &Place::Folder(folder), sparse()).unwrap()
    };
    let (first, second) = (folder("a"), folder("b"));
    first.prepare().unwrap();
    assert_eq!(second.prepare().unwrap_err().kind(), ErrorKind::Full);
    let piece = first.geometry().pieces().next().unwrap();
    first.write_piece(piece, &[piece_of(&layout, &content, piece)]).unwrap();
    assert_eq!(second.prepare().unwrap_err().kind(), ErrorKind::Full);
    first.prepare().unwrap();
    drop(first);
    second.prepare().unwrap();
}

#[test]
fn d4_space_that_cannot_be_taken_is_given_back() {
    let Some(disk) = Tmpfs::mount("2m") else { return };
    let layout = layout(65_536, &[1_000_000, 900_000]);
    let storage = open(&disk.0, &layout, Options::default()).unwrap();
    assert_eq!(storage.backend(), Backend::Pwrite, "{}", storage.backend_reason());
    std::fs::write(disk.0.path().join("filler"), vec![1; 500_000]).unwrap();
    // As if the space had gone between the check and the taking.
    storage.make_folders().unwrap();
    assert!(storage.allocate(0, 1_000_000, None).unwrap());
    assert_eq!(storage.allocate(1, 900_000, None).unwrap_err().kind(), ErrorKind::Full);
    assert!(!disk.0.path().join("torrent/d1/f1").exists());
    assert_eq!(storage.prepare().unwrap_err().kind(), ErrorKind::Full, "and the check sees it");
}

/// More files than are synced one by one: the same promises.
#[test]
fn many_files_are_synced_together() {
    let dir = tempfile::tempdir().unwrap();
    let layout = layout(16_384, &[1_000; 200]);
    let storage = open(&dir, &layout, Options::default()).unwrap();
    storage.prepare().unwrap();
    write_all(&storage, &layout, &content(&layout));
    storage.sync().unwrap();
    assert!(storage.unsynced().files.is_empty());
    write_all(&storage, &layout, &content(&layout));
    std::fs::remove_file(dir.path().join("torrent/d1/f1")).unwrap();
    assert!(storage.sync().unwrap_err().to_string().contains("removed"));
    assert_eq!(storage.unsynced().files, [1], "what failed stays to be synced");
}

#[test]
fn d10_a_read_only_mount() {
    let Some(disk) = Tmpfs::mount("2m") else { return };
    let layout = layout(65_536, &[1_000]);
    let content = content(&layout);
    write_all(&open(&disk.0, &layout, Options::default()).unwrap(), &layout, &content);
    let remount = std::process::Command::new("mount").args(["-o", "remount,ro"]).arg(disk.0.path()).output();
    if !remount.unwrap().status.success() {
        return;
    }
    let exact = Place::Exact(disk.0.path().join("torrent"));
    let storage = Storage::open(layout.clone(), &exact, Options { read_only: true, ..Options::default() }).unwrap();
    assert_reads_back(&storage, &layout, &content);
    let error = open(&disk.0, &layout, Options::default()).unwrap().prepare().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ReadOnly, "{error}");
}
