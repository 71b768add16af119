//! The disk lets us down.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Command;

use gannet::session::{AddTorrent, Event, Fault, Place, State};
use gannet::storage::Preallocate;

use crate::fake::Fake;
use crate::lab::{Lab, MIB, PATIENCE, Payload, done, within};

/// D7: a file shrinks while it is seeded. What is gone is refused, the rest and other torrents go on.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_file_is_truncated_while_seeding() {
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
    assert_eq!(torrent.status().state, State::Seeding);
    let leecher = lab.node("leecher").await;
    done(&leecher.get(&other, &[node.address()]).await).await;
    other.assert_in(&leecher.folder);
    node.stop().await;
}

/// A small file system of its own, as long as it lives.
pub struct Mount(PathBuf);

impl Mount {
    pub fn new(at: &Path, size: &str) -> Option<Self> {
        let options = format!("size={size}");
        let mount = Command::new("mount").args(["-t", "tmpfs", "-o", &options, "none"]).arg(at).output();
        matches!(mount, Ok(output) if output.status.success()).then(|| Self(at.to_owned()))
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

/// D1: the disk is full, before the download with the space taken first, and in the middle of it with sparse files.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_disk_is_a_clear_failure() {
    let lab = Lab::new();
    let Some(_mount) = Mount::new(&lab.folder("small"), "1m") else {
        eprintln!("skipped: a tmpfs cannot be mounted here");
        return;
    };
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
