//! The disk lets us down.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Command;

use gannet::metainfo::Format;
use gannet::session::{AddTorrent, Event, Fault, Place, SeedGoal, State};
use gannet::storage::{Backend, Preallocate};

use crate::fake::Fake;
use crate::lab::{KIB, Lab, MIB, PATIENCE, Payload, done, until, within};
use crate::resume::give_pieces;

/// D7: a file shrinks while it is seeded. What is gone is refused, the rest and other torrents go on.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn d7_a_file_is_truncated_while_seeding() {
    let lab = Lab::new();
    let (payload, other) = (Payload::file("shrunk", MIB), Payload::file("other", MIB));
    let node = lab.node("node").await;
    let torrent = node.seed(&payload).await;
    node.seed(&other).await;
    let mut fake = Fake::dial(node.address(), &payload).await;
    fake.get_in().await;
    assert_eq!(fake.fetch(15, 0, 16 << 10).await.as_deref(), Some(payload.block(15, 0, 16 << 10)));
    File::options().write(true).open(node.folder.join("shrunk")).unwrap().set_len(MIB as u64 / 2).unwrap();
    assert_eq!(fake.fetch(15, 0, 16 << 10).await, None, "rejected");
    assert_eq!(fake.fetch(2, 0, 16 << 10).await.as_deref(), Some(payload.block(2, 0, 16 << 10)));
    File::options().write(true).open(node.folder.join("shrunk")).unwrap().set_len(0).unwrap();
    assert_eq!(fake.fetch(2, 0, 16 << 10).await, None, "rejected");
    until("it is told", || torrent.status().state == State::DiskError).await;
    assert!(torrent.status().cause.is_some_and(|cause| cause.contains("shrunk")));
    let leecher = lab.node("leecher").await;
    done(&leecher.get(&other, &[node.address()]).await).await;
    other.assert_in(&leecher.folder);
    // It comes back, and with it everything else.
    let mut events = torrent.events();
    std::fs::write(node.folder.join("shrunk"), payload.files().next().unwrap().1).unwrap();
    until("it is whole again", || torrent.status().state == State::Seeding).await;
    assert_eq!(fake.fetch(15, 0, 16 << 10).await.as_deref(), Some(payload.block(15, 0, 16 << 10)));
    let mended = std::iter::from_fn(|| events.try_recv().ok()).filter(|e| matches!(e, Event::DiskMended)).count();
    assert_eq!(mended, 1);
    node.stop().await;
}

/// A small file system of its own, as long as it lives.
pub struct Mount(PathBuf);

impl Mount {
    pub fn new(at: &Path, size: &str) -> Option<Self> {
        Self::tmpfs(at, &format!("size={size}"))
    }

    fn tmpfs(at: &Path, options: &str) -> Option<Self> {
        Self::of(at, &["-t", "tmpfs", "-o", options, "none"])
    }

    /// On a disk that is a file beside it.
    fn ext4(at: &Path, len: u64) -> Option<Self> {
        let image = at.with_extension("image");
        File::create(&image).and_then(|file| file.set_len(len)).unwrap();
        let made = Command::new("mkfs.ext4").args(["-q", "-F", "-m", "0"]).arg(&image).output();
        matches!(made, Ok(output) if output.status.success())
            .then(|| Self::of(at, &["-t", "ext4", "-o", "loop", image.to_str().unwrap()]))?
    }

    fn of(at: &Path, what: &[&str]) -> Option<Self> {
        let mount = Command::new("mount").args(what).arg(at).output();
        let mounted = matches!(&mount, Ok(output) if output.status.success());
        if !mounted {
            eprintln!("skipped: cannot mount {what:?} here");
        }
        mounted.then(|| Self(at.to_owned()))
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

/// D1: the disk is too small, which is known before the first byte.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn d1_a_disk_that_is_too_small_is_a_clear_failure() {
    let lab = Lab::new();
    let Some(_mount) = Mount::new(&lab.folder("small"), "1m") else { return };
    let (payload, other) = (Payload::file("large", 4 * MIB), Payload::file("other", MIB));
    let seeder = lab.seeder("seeder", &payload).await;
    seeder.seed(&other).await;
    for preallocate in [Preallocate::Full, Preallocate::Sparse] {
        let node = lab.node("node").await;
        let mut add = AddTorrent::new(payload.metainfo.clone(), Place::Folder(lab.folder("small")));
        add.peers = vec![seeder.address()];
        add.preallocate = preallocate;
        let torrent = node.session.add(add).await.unwrap();
        let mut events = torrent.events();
        let failure = within(PATIENCE, "it fails", torrent.finished()).await.unwrap_err();
        assert_eq!(failure.fault, Fault::Disk);
        assert!(failure.message.contains("no space left") && failure.message.contains("large"), "{}", failure.message);
        assert!(failure.path.is_some());
        within(PATIENCE, "it ends", torrent.stopped()).await;
        assert_eq!(torrent.status().state, State::Failed);
        let failed =
            std::iter::from_fn(|| events.try_recv().ok()).filter(|e| matches!(e, Event::Failed { .. })).count();
        assert_eq!(failed, 1);
        // Elsewhere there is room, and the session goes on.
        let elsewhere = node.get(&other, &[seeder.address()]).await;
        done(&elsewhere).await;
        node.stop().await;
        std::fs::remove_dir_all(&node.folder).unwrap();
    }
}

/// How often it was told that the disk fails, and that it works again.
fn told(events: &mut tokio::sync::broadcast::Receiver<Event>) -> (usize, usize) {
    let mut told = (0, 0);
    while let Ok(event) = events.try_recv() {
        told.0 += usize::from(matches!(event, Event::DiskError(_)));
        told.1 += usize::from(matches!(event, Event::DiskMended));
    }
    told
}

/// D1, D3, D6: the disk is full in the middle of a download.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn d1_d3_d6_a_disk_that_becomes_full_is_waited_for() {
    becomes_full(|folder| Mount::new(folder, "6m")).await;
}

/// D2: the same on a file system with a disk below it, which finds the space for a page only when that is written to.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn d2_a_file_system_that_becomes_full_is_waited_for() {
    becomes_full(|folder| Mount::ext4(folder, 12 << 20)).await;
}

/// With files that grow, and with one that was preallocated and mapped, whose space another process took back. What is
/// there is served, and it goes on when there is space.
async fn becomes_full(mount: impl Fn(&Path) -> Option<Mount>) {
    let lab = Lab::new();
    for (name, preallocate, backend) in
        [("sparse", Preallocate::Sparse, Backend::Auto), ("mapped", Preallocate::Full, Backend::Mmap)]
    {
        let folder = lab.folder(name);
        let Some(_mount) = mount(&folder) else { return };
        let payload = Payload::file("growing", 4 * MIB);
        let node = lab.node("node").await;
        let mut add = AddTorrent::new(payload.metainfo.clone(), Place::Folder(folder.clone()));
        (add.preallocate, add.backend, add.seed) = (preallocate, backend, Some(SeedGoal::default()));
        let torrent = node.session.add(add).await.unwrap();
        let mut events = torrent.events();
        give_pieces(&node, &torrent, &payload, 4).await;
        let file = File::options().write(true).open(folder.join("growing")).unwrap();
        if preallocate == Preallocate::Full {
            // All behind the first four pieces is a hole now.
            file.set_len(256 << 10).unwrap();
            file.set_len(4 * MIB as u64).unwrap();
        }
        let filler = folder.join("filler");
        let full = std::fs::write(&filler, vec![1; 12 * MIB]).unwrap_err();
        assert_eq!(full.kind(), std::io::ErrorKind::StorageFull);
        let seeder = lab.seeder(&format!("seeder of {name}"), &payload).await;
        torrent.add_peers(&[seeder.address()]);
        until("it is told", || torrent.status().state == State::DiskError).await;
        let cause = torrent.status().cause.unwrap();
        assert!(cause.contains("growing") && cause.contains("no space left"), "{cause}");
        let mut fake = Fake::dial(node.address(), &payload).await;
        fake.get_in().await;
        assert_eq!(
            fake.fetch(1, 0, 16 << 10).await.as_deref(),
            Some(payload.block(1, 0, 16 << 10)),
            "served meanwhile"
        );
        std::fs::remove_file(&filler).unwrap();
        until("it goes on", || torrent.status().state == State::Seeding).await;
        payload.assert_in(&folder);
        assert_eq!(told(&mut events), (1, 1), "{name}");
        node.stop().await;
        seeder.stop().await;
        std::fs::remove_dir_all(&node.folder).unwrap();
    }
}

/// D17: there is space, but no file can be made any more.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn d17_no_inodes_are_left() {
    let lab = Lab::new();
    let folder = lab.folder("few");
    let Some(_mount) = Mount::tmpfs(&folder, "size=16m,nr_inodes=100") else { return };
    let names: Vec<String> = (0..60).map(|n| format!("folder {}/file {n}", n % 4)).collect();
    let files: Vec<(&str, usize)> = names.iter().map(|name| (name.as_str(), 20_000)).collect();
    let payload = Payload::make("many", Some("many"), &files, 64 * KIB, Format::V1, &[]);
    std::fs::create_dir(folder.join("filler")).unwrap();
    let fillers: Vec<PathBuf> = (0..60).map(|n| folder.join(format!("filler/{n}"))).collect();
    fillers.iter().for_each(|path| drop(File::create(path).unwrap()));
    let seeder = lab.seeder("seeder", &payload).await;
    let node = lab.node("node").await;
    let mut add = AddTorrent::new(payload.metainfo.clone(), Place::Folder(folder.clone()));
    (add.seed, add.peers) = (Some(SeedGoal::default()), vec![seeder.address()]);
    let torrent = node.session.add(add).await.unwrap();
    let mut events = torrent.events();
    until("it is told", || torrent.status().state == State::DiskError).await;
    let status = torrent.status();
    let cause = status.cause.unwrap();
    assert!(cause.contains("file ") && cause.contains("no space left"), "{cause}");
    assert!(status.have_pieces < payload.pieces());
    fillers.iter().for_each(|path| std::fs::remove_file(path).unwrap());
    until("it goes on", || torrent.status().state == State::Seeding).await;
    payload.assert_in(&folder);
    assert_eq!(told(&mut events), (1, 1));
    node.stop().await;
    seeder.stop().await;
}

/// D8, D10: the file, or its whole folder, is removed or replaced under a download. What it held is fetched again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn d8_files_that_go_away_are_fetched_again() {
    let lab = Lab::new();
    for case in ["removed", "replaced", "folder removed", "cut"] {
        let payload = Payload::make("going", Some("going"), &[("a", MIB), ("b/c", MIB)], 64 * KIB, Format::V1, &[]);
        let node = lab.node("node").await;
        let torrent = node.get_and_stay(&payload, &[]).await;
        let mut events = torrent.events();
        give_pieces(&node, &torrent, &payload, 20).await;
        let file = node.folder.join("going/b/c");
        match case {
            "removed" => std::fs::remove_file(&file).unwrap(),
            "replaced" => {
                std::fs::remove_file(&file).unwrap();
                std::fs::write(&file, vec![7; MIB]).unwrap();
            }
            "folder removed" => std::fs::remove_dir_all(node.folder.join("going")).unwrap(),
            _ => File::options().write(true).open(&file).unwrap().set_len(100).unwrap(),
        }
        let seeder = lab.seeder(&format!("seeder of {case}"), &payload).await;
        torrent.add_peers(&[seeder.address()]);
        until(case, || {
            let status = torrent.status();
            status.state == State::Seeding && payload.is_in(&node.folder)
        })
        .await;
        let (failed, mended) = told(&mut events);
        assert!(failed >= 1 && failed == mended, "{case}: {failed} {mended}");
        node.stop().await;
        seeder.stop().await;
        std::fs::remove_dir_all(&node.folder).unwrap();
    }
}

/// D8: a link, a folder or a pipe in the place of a file is not touched, and neither is what it points to.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn d8_what_is_no_file_is_left_alone() {
    let lab = Lab::new();
    let outside = lab.folder("outside").join("precious");
    std::fs::write(&outside, b"precious").unwrap();
    let payload = Payload::file("gone", 2 * MIB);
    let seeder = lab.seeder("seeder", &payload).await;
    let node = lab.node("node").await;
    let torrent = node.get_and_stay(&payload, &[]).await;
    give_pieces(&node, &torrent, &payload, 4).await;
    let file = node.folder.join("gone");
    std::fs::remove_file(&file).unwrap();
    std::os::unix::fs::symlink(&outside, &file).unwrap();
    torrent.add_peers(&[seeder.address()]);
    until("it is told", || torrent.status().state == State::DiskError).await;
    std::fs::remove_file(&file).unwrap();
    std::fs::create_dir(&file).unwrap();
    let before = torrent.status();
    tokio::time::sleep(std::time::Duration::from_millis(300)).await;
    assert_eq!((torrent.status().state, before.state), (State::DiskError, State::DiskError));
    std::fs::remove_dir(&file).unwrap();
    until("it goes on", || torrent.status().state == State::Seeding).await;
    payload.assert_in(&node.folder);
    assert_eq!(std::fs::read(&outside).unwrap(), b"precious");
    node.stop().await;
}

/// Data of which a part is wrong is seeded as far as it is right: it is not for `seed` to change it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_only_read_is_never_fetched() {
    let lab = Lab::new();
    let payload = Payload::file("partial", MIB);
    let other = lab.seeder("other", &payload).await;
    let node = lab.node("node").await;
    let path = payload.write_to(&node.folder);
    let mut wrong = std::fs::read(&path).unwrap();
    wrong[3 * 64 * KIB] ^= 1;
    std::fs::write(&path, &wrong).unwrap();
    let mut add = AddTorrent::new(payload.metainfo.clone(), Place::Exact(path.clone()));
    (add.seed, add.peers) = (Some(SeedGoal::default()), vec![other.address()]);
    let torrent = node.session.add(add).await.unwrap();
    until("it seeds", || torrent.status().state == State::Seeding).await;
    let mut fake = Fake::dial(node.address(), &payload).await;
    fake.get_in().await;
    assert_eq!(fake.fetch(4, 0, 16 << 10).await.as_deref(), Some(payload.block(4, 0, 16 << 10)));
    assert_eq!(fake.fetch(3, 0, 16 << 10).await, None, "rejected");
    let status = torrent.status();
    assert_eq!((status.state, status.have_pieces, status.downloaded), (State::Seeding, 15, 0));
    assert_eq!(std::fs::read(&path).unwrap(), wrong);
    node.stop().await;
}
