//! Torrents made of nothing, sessions to move them, and patience.

use std::future::Future;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use gannet::base::BLOCK_LEN;
use gannet::hash;
use gannet::metainfo::{Builder, Format, Metainfo, SourceFile, merkle};
use gannet::session::{AddTorrent, Config, End, Event, Place, SeedGoal, Session, State, Torrent};
use tempfile::TempDir;

/// For what must happen, however busy the machine. Nothing waits for this long that works.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// For what ends at once, but for the machine.
pub const SOON: Duration = Duration::from_secs(8);

pub const KIB: usize = 1 << 10;
pub const MIB: usize = 1 << 20;

pub fn loopback() -> SocketAddr {
    (Ipv4Addr::LOCALHOST, 0).into()
}

pub fn noise(len: usize, seed: u64) -> Vec<u8> {
    let mut bytes = vec![0; len];
    fastrand::Rng::with_seed(seed).fill(&mut bytes);
    bytes
}

/// A torrent with its data.
#[derive(Clone)]
pub struct Payload {
    pub metainfo: Arc<Metainfo>,
    /// Below the download folder.
    files: Vec<(PathBuf, Vec<u8>)>,
    /// All bytes in the order of the pieces, padding included.
    space: Arc<Vec<u8>>,
}

impl Payload {
    /// One file called `name`.
    pub fn file(name: &str, len: usize) -> Self {
        Self::make(name, None, &[(name, len)], 64 * KIB, Format::V1, &[])
    }

    /// A torrent of these files: with `files` of one and no `folder`, of that file.
    pub fn make(
        name: &str,
        folder: Option<&str>,
        files: &[(&str, usize)],
        piece_length: usize,
        format: Format,
        announce: &[&[String]],
    ) -> Self {
        Self::make_with(name, folder, files, piece_length, |builder| {
            builder.format = format;
            builder.announce = announce.iter().map(|tier| tier.to_vec()).collect();
        })
    }

    /// One file called `name`, of a private torrent (BEP 27).
    pub fn private_file(name: &str, len: usize) -> Self {
        Self::make_with(name, None, &[(name, len)], 64 * KIB, |builder| {
            builder.format = Format::V1;
            builder.private = true;
        })
    }

    /// The same, with whatever else the torrent says of itself.
    pub fn make_with(
        name: &str,
        folder: Option<&str>,
        files: &[(&str, usize)],
        piece_length: usize,
        set: impl FnOnce(&mut Builder),
    ) -> Self {
        let seed = name.bytes().fold(7u64, |seed, b| seed.wrapping_mul(31) + u64::from(b));
        let data: Vec<Vec<u8>> = (seed..).zip(files).map(|(seed, (_, len))| noise(*len, seed)).collect();
        let mut builder = match folder {
            None => Builder::file(files[0].0, files[0].1 as u64),
            Some(folder) => {
                let files = files.iter().map(|(path, len)| SourceFile::new(path.split('/'), *len as u64)).collect();
                Builder::folder(folder, files)
            }
        };
        builder.piece_length = Some(u32::try_from(piece_length).unwrap());
        set(&mut builder);
        let format = builder.format;
        let plan = builder.plan().unwrap();
        let (mut v1, mut v2) = (Vec::new(), Vec::new());
        for piece in plan.pieces() {
            let mut bytes = Vec::new();
            for span in &piece.spans {
                let from = usize::try_from(span.offset).unwrap();
                bytes.extend_from_slice(&data[span.file][from..from + span.len as usize]);
            }
            if format != Format::V1 {
                let leaves: Vec<_> = bytes.chunks(BLOCK_LEN as usize).map(merkle::leaf).collect();
                v2.push(merkle::piece_root(&leaves, piece.width));
            }
            bytes.resize(bytes.len() + piece.padding as usize, 0);
            if format != Format::V2 {
                v1.push(hash::sha1(&[&bytes]));
            }
        }
        let metainfo = Metainfo::parse(&plan.finish(&v1, &v2).unwrap()).unwrap();
        let info = &metainfo.info;
        let geometry = info.geometry();
        let mut space = vec![0; geometry.piece_count() as usize * piece_length];
        let mut on_disk = Vec::new();
        for file in info.files().iter().filter(|file| !file.attr.pad) {
            let path = info.disk_path(file);
            let below = if folder.is_some() { path.strip_prefix(info.name()).unwrap() } else { &path };
            let number = files.iter().position(|(path, _)| Path::new(path) == below).unwrap();
            let at = usize::try_from(file.offset).unwrap();
            space[at..at + data[number].len()].copy_from_slice(&data[number]);
            on_disk.push((path, data[number].clone()));
        }
        Self { metainfo: Arc::new(metainfo), files: on_disk, space: Arc::new(space) }
    }

    /// A private torrent (BEP 27) of one file.
    pub fn private(name: &str, len: usize) -> Self {
        Self::make_with(name, None, &[(name, len)], 64 * KIB, |builder| {
            builder.format = Format::V1;
            builder.private = true;
        })
    }

    /// The same data, by a torrent that says something else besides its info dictionary.
    pub fn with(&self, change: impl FnOnce(&mut Metainfo)) -> Self {
        let mut metainfo = Metainfo::clone(&self.metainfo);
        change(&mut metainfo);
        Self { metainfo: Arc::new(metainfo), ..self.clone() }
    }

    /// Each file's path below the download folder, and its data.
    pub fn files(&self) -> impl Iterator<Item = (&Path, &[u8])> {
        self.files.iter().map(|(path, data)| (path.as_path(), data.as_slice()))
    }

    pub fn wire_hash(&self) -> [u8; 20] {
        self.metainfo.info.info_hash().wire()
    }

    pub fn pieces(&self) -> u32 {
        self.metainfo.info.geometry().piece_count()
    }

    pub fn size(&self) -> u64 {
        self.metainfo.info.total_size()
    }

    pub fn block(&self, index: u32, begin: u32, len: u32) -> &[u8] {
        let at = index as usize * self.metainfo.info.geometry().piece_length() as usize + begin as usize;
        &self.space[at..at + len as usize]
    }

    /// Puts the data into `folder`, and returns where a seeder finds it.
    pub fn write_to(&self, folder: &Path) -> PathBuf {
        for (path, data) in &self.files {
            let path = folder.join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, data).unwrap();
        }
        folder.join(self.metainfo.info.name())
    }

    pub fn assert_in(&self, folder: &Path) {
        for (path, data) in &self.files {
            self.assert_file(folder, path, data);
        }
    }

    pub fn is_in(&self, folder: &Path) -> bool {
        self.files.iter().all(|(path, data)| std::fs::read(folder.join(path)).is_ok_and(|found| found == *data))
    }

    /// Of the files for which `wanted` holds, and no others.
    pub fn assert_only(&self, folder: &Path, wanted: impl Fn(&Path) -> bool) {
        for (path, data) in &self.files {
            if wanted(path) {
                self.assert_file(folder, path, data);
            } else {
                assert!(!folder.join(path).exists(), "{} was made", path.display());
            }
        }
    }

    fn assert_file(&self, folder: &Path, path: &Path, data: &[u8]) {
        let found = std::fs::read(folder.join(path)).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        assert_eq!(found.len(), data.len(), "{}", path.display());
        let wrong = found.iter().zip(data).position(|(a, b)| a != b);
        assert_eq!(wrong, None, "{} differs at", path.display());
    }
}

/// Temporary folders, and sessions in them.
pub struct Lab {
    dir: TempDir,
}

/// A session with a folder of its own.
pub struct Node {
    pub session: Session,
    pub folder: PathBuf,
}

impl Lab {
    pub fn new() -> Self {
        Self { dir: tempfile::tempdir().unwrap() }
    }

    pub fn folder(&self, name: &str) -> PathBuf {
        let folder = self.dir.path().join(name);
        std::fs::create_dir_all(&folder).unwrap();
        folder
    }

    pub async fn node(&self, name: &str) -> Node {
        self.node_with(name, |_| ()).await
    }

    /// A session whose data and state are in the folder `name`. A second one of the same name finds what the first left.
    pub async fn node_with(&self, name: &str, set: impl FnOnce(&mut Config)) -> Node {
        let folder = self.folder(name);
        let mut config = Config::new(self.folder(&format!("{name}.state")));
        config.listen = vec![loopback()];
        config.disk_threads = Some(2);
        config.disk_retry = Duration::from_millis(50);
        set(&mut config);
        Node { session: Session::start(config).await.unwrap(), folder }
    }

    /// A session that seeds the payload.
    pub async fn seeder(&self, name: &str, payload: &Payload) -> Node {
        let node = self.node(name).await;
        node.seed(payload).await;
        node
    }
}

impl Node {
    pub fn address(&self) -> SocketAddr {
        self.session.listen_addresses()[0]
    }

    /// Seeds data that is put there first. Returns when it is ready to.
    pub async fn seed(&self, payload: &Payload) -> Torrent {
        self.seed_at(payload, &self.folder).await
    }

    /// The same with a folder that several may share.
    pub async fn seed_at(&self, payload: &Payload, folder: &Path) -> Torrent {
        let data = payload.write_to(folder);
        let mut add = AddTorrent::new(payload.metainfo.clone(), Place::Exact(data));
        add.seed = Some(SeedGoal::default());
        let torrent = self.session.add(add).await.unwrap();
        reaches(&torrent, State::Seeding).await;
        torrent
    }

    pub async fn get(&self, payload: &Payload, peers: &[SocketAddr]) -> Torrent {
        self.get_with(payload, peers, |_| ()).await
    }

    pub async fn get_with(
        &self,
        payload: &Payload,
        peers: &[SocketAddr],
        set: impl FnOnce(&mut AddTorrent),
    ) -> Torrent {
        let mut add = AddTorrent::new(payload.metainfo.clone(), Place::Folder(self.folder.clone()));
        add.peers = peers.to_vec();
        set(&mut add);
        self.session.add(add).await.unwrap()
    }

    /// The same, and stays to seed, so that there still is somebody to look at.
    pub async fn get_and_stay(&self, payload: &Payload, peers: &[SocketAddr]) -> Torrent {
        self.get_with(payload, peers, |add| add.seed = Some(SeedGoal::default())).await
    }

    pub async fn stop(&self) {
        within(SOON, "stop", self.session.stop(Duration::from_secs(5))).await;
    }
}

pub async fn within<T>(limit: Duration, what: &str, f: impl Future<Output = T>) -> T {
    match tokio::time::timeout(limit, f).await {
        Ok(done) => done,
        Err(_) => panic!("not within {limit:?}: {what}"),
    }
}

/// Looks again and again until it is so.
pub async fn until(what: &str, mut so: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !so() {
        assert!(Instant::now() < deadline, "never: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

pub async fn reaches(torrent: &Torrent, state: State) {
    until("the state", || {
        let status = torrent.status();
        assert!(status.state != State::Failed || state == State::Failed, "failed: {:?}", status.cause);
        status.state == state
    })
    .await;
}

/// Waits for the end of a download.
pub async fn done(torrent: &Torrent) {
    let end = tokio::time::timeout(PATIENCE, torrent.finished()).await;
    match end {
        Ok(Ok(end)) => assert_eq!(end, End::Finished),
        Ok(Err(failure)) => panic!("{failure}"),
        Err(_) => panic!("not complete: {:#?}", torrent.status()),
    }
}

/// Waits until the peer at `address` is gone, and says why.
pub async fn why_closed(events: &mut tokio::sync::broadcast::Receiver<Event>, address: SocketAddr) -> String {
    within(PATIENCE, "the peer is closed", async {
        loop {
            match events.recv().await.unwrap() {
                Event::PeerClosed { address: closed, reason } if closed == address => return reason,
                _ => {}
            }
        }
    })
    .await
}
