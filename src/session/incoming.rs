//! Connections that come in: which torrent do they want?

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::net::TcpListener;
use tokio::sync::{Semaphore, SemaphorePermit, mpsc};

use super::Torrents;
use crate::net::listen;
use crate::net::stream::Stream;
use crate::net::utp::UtpStream;
use crate::torrent::Network;

/// Handshakes under way, in all and from one address (`limits.md`). Loopback may use all of them.
const MAX_PENDING: usize = 128;
const MAX_PENDING_PER_ADDRESS: usize = 4;

/// Connections from one address that may wait for those to end: behind one address there may be many peers, and they all
/// come at once when a torrent is new.
const MAX_WAITING_PER_ADDRESS: usize = 12;

/// Where connections come in, whatever carries them.
pub(super) struct Door {
    torrents: Arc<Torrents>,
    network: Arc<Network>,
    pending: Arc<Semaphore>,
    per_address: Arc<PerAddress>,
}

impl Door {
    pub(super) fn new(torrents: Arc<Torrents>, network: Arc<Network>) -> Arc<Self> {
        let pending = Arc::new(Semaphore::new(MAX_PENDING));
        Arc::new(Self { torrents, network, pending, per_address: Arc::default() })
    }

    /// Accepts TCP connections for ever.
    pub(super) async fn accept(self: Arc<Self>, listener: TcpListener) {
        loop {
            let (stream, address) = listen::accept(&listener).await;
            self.admit(stream, address);
        }
    }

    /// Accepts uTP connections for as long as there is uTP.
    pub(super) async fn accept_utp(self: Arc<Self>, mut incoming: mpsc::Receiver<UtpStream>) {
        while let Some(stream) = incoming.recv().await {
            let address = stream.remote();
            self.admit(stream.into(), address);
        }
    }

    /// Has a connection answered, unless there are too many.
    fn admit(self: &Arc<Self>, stream: Stream, address: SocketAddr) {
        if self.network.blocks(address.ip()) {
            return;
        }
        let Ok(permit) = self.pending.clone().try_acquire_owned() else { return };
        let Some(place) = self.per_address.enter(address.ip()) else { return };
        let door = self.clone();
        tokio::spawn(async move {
            let _pending = permit;
            let turn = place.turn().await;
            welcome(stream, address, &door.torrents, &door.network).await;
            drop(turn);
        });
    }
}

/// Does the handshake and hands the connection over.
async fn welcome(mut stream: Stream, address: SocketAddr, torrents: &Torrents, network: &Network) {
    let Some(place) = network.connection(address.ip()) else { return };
    let mut wanted = None;
    let find = |mark: &[u8; 20]| torrents.marked(mark);
    let answered = network.answerer.answer(&mut stream, find, |info_hash| {
        let torrent = torrents.find(&info_hash)?;
        let ours = torrent.answer(address, info_hash)?;
        wanted = Some(torrent);
        Some(ours)
    });
    match (answered.await, wanted) {
        (Ok(theirs), Some(torrent)) => torrent.accept(stream, address, theirs, place),
        (Err(e), _) => tracing::debug!(%address, error = %e, "incoming handshake failed"),
        (Ok(_), None) => {}
    }
}

#[derive(Default)]
struct PerAddress {
    pending: Mutex<HashMap<IpAddr, (usize, Arc<Semaphore>)>>,
}

/// One of the connections from an address that are under way or wait.
struct Place {
    of: Arc<PerAddress>,
    address: IpAddr,
    turns: Arc<Semaphore>,
}

impl PerAddress {
    fn enter(self: &Arc<Self>, address: IpAddr) -> Option<Place> {
        let mut pending = self.pending.lock().unwrap_or_else(PoisonError::into_inner);
        let turns = if address.is_loopback() { MAX_PENDING } else { MAX_PENDING_PER_ADDRESS };
        let (count, turns) = pending.entry(address).or_insert_with(|| (0, Arc::new(Semaphore::new(turns))));
        if *count >= MAX_PENDING_PER_ADDRESS + MAX_WAITING_PER_ADDRESS && !address.is_loopback() {
            return None;
        }
        *count += 1;
        Some(Place { of: self.clone(), address, turns: turns.clone() })
    }
}

impl Place {
    /// Waits until fewer others from this address are being answered.
    async fn turn(&self) -> Option<SemaphorePermit<'_>> {
        self.turns.acquire().await.ok()
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut pending = self.of.pending.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((count, _)) = pending.get_mut(&self.address) {
            *count -= 1;
            if *count == 0 {
                pending.remove(&self.address);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn some_are_answered_others_wait_and_a_flood_is_refused() {
        let per_address = Arc::new(PerAddress::default());
        let address: IpAddr = [192, 0, 2, 1].into();
        let mut places: Vec<Place> = std::iter::from_fn(|| per_address.enter(address)).take(1000).collect();
        assert_eq!(places.len(), MAX_PENDING_PER_ADDRESS + MAX_WAITING_PER_ADDRESS);
        assert!(per_address.enter([192, 0, 2, 2].into()).is_some(), "others are not concerned");
        let (first, waiting) = places.split_at(MAX_PENDING_PER_ADDRESS);
        let mut turns = Vec::new();
        for place in first {
            turns.push(place.turn().await.unwrap());
        }
        let mut next = Box::pin(waiting[0].turn());
        assert!(std::future::poll_fn(|cx| std::task::Poll::Ready(next.as_mut().poll(cx).is_pending())).await);
        turns.pop();
        assert!(next.await.is_some());
        drop(turns);
        places.pop();
        assert!(per_address.enter(address).is_some(), "a place is free again");
        drop(places);
        assert!(per_address.pending.lock().unwrap().is_empty());
    }
}
