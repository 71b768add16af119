//! Connections that come in: which torrent do they want?

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;

use super::Torrents;
use crate::net::{handshake, listen};
use crate::torrent::Network;

/// Handshakes under way, in all and from one address (`limits.md`). Loopback may use all of them.
const MAX_PENDING: usize = 128;
const MAX_PENDING_PER_ADDRESS: usize = 4;

/// Accepts for ever.
pub(super) async fn serve(listener: TcpListener, torrents: Arc<Torrents>, network: Arc<Network>) {
    let pending = Arc::new(Semaphore::new(MAX_PENDING));
    let per_address = Arc::new(PerAddress::default());
    loop {
        let (stream, address) = listen::accept(&listener).await;
        let Ok(permit) = pending.clone().try_acquire_owned() else { continue };
        let Some(place) = per_address.enter(address.ip()) else { continue };
        let (torrents, network) = (torrents.clone(), network.clone());
        tokio::spawn(async move {
            let _waiting = (permit, place);
            welcome(stream, address, &torrents, &network).await;
        });
    }
}

/// Does the handshake and hands the connection over.
async fn welcome(mut stream: TcpStream, address: SocketAddr, torrents: &Torrents, network: &Network) {
    let Some(permit) = network.connection() else { return };
    let mut wanted = None;
    let answered = handshake::answer(&mut stream, |info_hash| {
        let torrent = torrents.find(&info_hash)?;
        let ours = torrent.answer(address, info_hash)?;
        wanted = Some(torrent);
        Some(ours)
    });
    match (answered.await, wanted) {
        (Ok(theirs), Some(torrent)) => torrent.accept(stream, address, theirs, permit),
        (Err(e), _) => tracing::debug!(%address, error = %e, "incoming handshake failed"),
        (Ok(_), None) => {}
    }
}

#[derive(Default)]
struct PerAddress {
    pending: Mutex<HashMap<IpAddr, usize>>,
}

struct Place {
    of: Arc<PerAddress>,
    address: IpAddr,
}

impl PerAddress {
    fn enter(self: &Arc<Self>, address: IpAddr) -> Option<Place> {
        let mut pending = self.pending.lock().unwrap_or_else(PoisonError::into_inner);
        let count = pending.entry(address).or_default();
        if *count >= MAX_PENDING_PER_ADDRESS && !address.is_loopback() {
            return None;
        }
        *count += 1;
        Some(Place { of: self.clone(), address })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut pending = self.of.pending.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = pending.get_mut(&self.address) {
            *count -= 1;
            if *count == 0 {
                pending.remove(&self.address);
            }
        }
    }
}
