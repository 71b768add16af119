//! The session's DHT node: its state file, and who may use it.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinHandle;

use crate::dht::{MAX_STATE_LEN, SavedState};
use crate::net::dht::{DhtClient, DhtConfig};
use crate::net::egress::Egress;
use crate::net::udp::UdpHub;
use crate::storage::state_file;

/// The state file in the session's folder.
const STATE_FILE: &str = "dht.state";

/// How often nodes and ids are saved.
const SAVE_INTERVAL: Duration = Duration::from_secs(15 * 60);

/// A node that runs as long as this lives.
pub(super) struct Dht {
    pub(super) client: DhtClient,
    saving: Option<(PathBuf, JoinHandle<()>)>,
    /// Held for the node's life.
    _lock: Option<state_file::Lock>,
}

impl Dht {
    /// Starts a node on the session's UDP ports. Only one process at a time has the ids of the state file: others begin
    /// with its nodes, but with ids of their own (BEP 45), and save nothing.
    pub(super) fn start(
        hub: Arc<UdpHub>,
        egress: &Egress,
        config: DhtConfig,
        state_dir: &Path,
    ) -> io::Result<Option<Self>> {
        let path = state_dir.join(STATE_FILE);
        let loaded = state_file::load(&path, MAX_STATE_LEN as u64, SavedState::from_bytes);
        // What is damaged was logged; a node begins without as well.
        let mut saved = loaded.ok().flatten().map(|(state, _)| state).unwrap_or_default();
        let lock = state_file::lock(&path).inspect_err(|error| tracing::info!(%error, "no lock for the DHT's state"));
        let lock = lock.ok().flatten();
        if lock.is_none() {
            (saved.ids_v4, saved.ids_v6) = (Vec::new(), Vec::new());
        }
        let Some(client) = DhtClient::start(hub, egress, DhtConfig { saved, ..config })? else { return Ok(None) };
        let saving = lock.is_some().then(|| (path.clone(), tokio::spawn(keep(client.clone(), path))));
        Ok(Some(Self { client, saving, _lock: lock }))
    }

    /// Saves what is known.
    pub(super) async fn stop(&self) {
        if let Some((path, task)) = &self.saving {
            task.abort();
            save(&self.client, path).await;
        }
    }
}

impl Drop for Dht {
    fn drop(&mut self) {
        if let Some((_, task)) = &self.saving {
            task.abort();
        }
    }
}

async fn keep(client: DhtClient, path: PathBuf) {
    loop {
        tokio::time::sleep(SAVE_INTERVAL).await;
        save(&client, &path).await;
    }
}

async fn save(client: &DhtClient, path: &Path) {
    let Some(state) = client.save().await else { return };
    if state.nodes.is_empty() {
        // Nobody was reached. What the last run knew is worth more.
        return;
    }
    let path = path.to_path_buf();
    let saved = tokio::task::spawn_blocking(move || state_file::save(&path, &state.to_bytes())).await;
    if let Ok(Err(error)) = saved {
        tracing::warn!(%error, "the state of the DHT node is not saved");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dht::{Contact, NodeId};
    use std::net::Ipv4Addr;

    fn hub() -> Arc<UdpHub> {
        let socket = std::net::UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        socket.set_nonblocking(true).unwrap();
        Arc::new(UdpHub::start(vec![socket], false).unwrap())
    }

    /// D-9: a state file that is cut, huge or nonsense; the one before it serves, or none.
    #[tokio::test]
    async fn dht9_a_damaged_state_file_is_no_obstacle() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(STATE_FILE);
        let node = Contact { id: NodeId([3; 20]), address: (Ipv4Addr::LOCALHOST, 9).into() };
        let state = SavedState { ids_v4: vec![NodeId([5; 20])], ids_v6: vec![], nodes: vec![node] };
        let start = || Dht::start(hub(), &Egress::default(), DhtConfig::default(), dir.path()).unwrap().unwrap();
        let id = async |dht: &Dht| dht.client.stats().await.unwrap().sockets[0].id;
        state_file::save(&path, &state.to_bytes()).unwrap();
        let first = start();
        assert_eq!(id(&first).await, NodeId([5; 20]));
        assert_ne!(id(&start()).await, NodeId([5; 20]), "another process has that id");
        first.stop().await;
        drop(first);
        let bytes = std::fs::read(&path).unwrap();
        assert_eq!(bytes, state.to_bytes(), "nobody was reached, so it is as it was");
        for damaged in [&bytes[..bytes.len() / 2], b"", &vec![b'd'; 2 << 20][..]] {
            std::fs::write(&path, damaged).unwrap();
            start();
        }
        state_file::save(&path, &state.to_bytes()).unwrap();
        state_file::save(&path, b"nonsense").unwrap();
        assert_eq!(id(&start()).await, NodeId([5; 20]), "the generation before");
    }
}
