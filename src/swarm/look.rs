//! Counters for display.

use std::net::SocketAddr;
use std::time::Instant;

use super::peer::Peer;
use super::{MetadataProgress, Priority, Stage, Swarm};
use crate::base::{PeerKey, PieceIndex, RateMeter};

/// What is counted for the torrent as a whole.
#[derive(Debug)]
pub(super) struct Counters {
    pub(super) down: RateMeter,
    pub(super) up: RateMeter,
    pub(super) wasted: u64,
    pub(super) failed_pieces: u64,
    pub(super) banned: u64,
}

impl Counters {
    pub(super) fn new(now: Instant) -> Self {
        Self { down: RateMeter::new(now), up: RateMeter::new(now), wasted: 0, failed_pieces: 0, banned: 0 }
    }
}

/// The torrent as a whole, at one moment.
#[derive(Clone, Debug, Default)]
pub struct Totals {
    /// Payload bytes per second, in.
    pub down_rate: u64,
    /// Payload bytes per second, out.
    pub up_rate: u64,
    /// Payload bytes received.
    pub downloaded: u64,
    /// Payload bytes sent.
    pub uploaded: u64,
    /// Payload bytes received in vain: nobody asked, twice, or wrong.
    pub wasted: u64,
    /// Pieces that did not hash.
    pub failed_pieces: u64,
    /// Peers found to send bad data.
    pub banned: u64,
    /// Connections.
    pub peers: u32,
    /// Those of them that have everything.
    pub seeds: u32,
    /// Those of them that have something we want.
    pub interesting: u32,
    /// Those of the interesting ones that choke us.
    pub choking: u32,
    /// Addresses known and not connected.
    pub candidates: u32,
    /// Bytes of blocks in memory.
    pub block_memory: u64,
    /// While the info dictionary is fetched, how far that is.
    pub metadata: Option<MetadataProgress>,
    /// While hashes of pieces are fetched: answers that are here, and all.
    pub hashes: Option<(u32, u32)>,
    /// Web seeds that are of use now.
    pub web_seeds: u32,
    /// Web seeds that are left alone for a while, because they failed.
    pub resting_web_seeds: u32,
    /// When the first of them is tried again.
    pub web_seed_retry: Option<Instant>,
}

/// One connection, at one moment.
#[derive(Clone, Debug)]
pub struct PeerSummary {
    /// Names it within the swarm.
    pub key: PeerKey,
    /// Where it is.
    pub address: SocketAddr,
    /// What it calls its program, printable.
    pub client: String,
    /// Bytes per second, in.
    pub down_rate: u64,
    /// Bytes per second, out.
    pub up_rate: u64,
    /// Payload received.
    pub downloaded: u64,
    /// Payload sent.
    pub uploaded: u64,
    /// Pieces it has.
    pub have: u32,
    /// We choke it.
    pub am_choking: bool,
    /// It chokes us.
    pub peer_choking: bool,
    /// Blocks asked of it and not here.
    pub asked: usize,
}

fn count(n: usize) -> u32 {
    u32::try_from(n).unwrap_or(u32::MAX)
}

impl Swarm {
    /// The torrent as a whole.
    pub fn totals(&mut self, now: Instant) -> Totals {
        let peers = || self.peers.iter().map(|(_, peer)| peer);
        let interesting = |peer: &&Peer| peer.am_interested;
        let open = self.is_open();
        let web_seeds = || self.web_seeds.seeds.iter().filter(|seed| !seed.banned);
        let resting = || web_seeds().filter_map(|seed| seed.pace.rest_until());
        Totals {
            peers: count(self.peers.len()),
            seeds: count(peers().filter(|p| open && p.have.is_full()).count()),
            interesting: count(peers().filter(interesting).count()),
            choking: count(peers().filter(interesting).filter(|p| p.peer_choking).count()),
            candidates: count(self.candidates.len()),
            block_memory: self.block_memory(),
            metadata: match &self.stage {
                Stage::Metadata(fetch) => Some(fetch.progress()),
                Stage::Described | Stage::Open => None,
            },
            hashes: self.hashes.as_ref().map(|hashes| hashes.progress()),
            web_seeds: count(web_seeds().filter(|seed| seed.counted.is_some()).count()),
            resting_web_seeds: count(resting().count()),
            web_seed_retry: resting().min(),
            down_rate: self.totals.down.rate(now),
            up_rate: self.totals.up.rate(now),
            downloaded: self.totals.down.total(),
            uploaded: self.totals.up.total(),
            wasted: self.totals.wasted,
            failed_pieces: self.totals.failed_pieces,
            banned: self.totals.banned,
        }
    }

    /// Bytes of blocks in memory: being received, waiting for their piece to be whole, or at the disk threads.
    pub fn block_memory(&self) -> u64 {
        self.pool.lent() as u64 * u64::from(crate::base::BLOCK_LEN)
    }

    /// Every connection.
    pub fn peers(&mut self, now: Instant) -> Vec<PeerSummary> {
        self.peers
            .iter_mut()
            .map(|(key, peer)| PeerSummary {
                key,
                address: peer.address,
                client: peer.client.clone(),
                down_rate: peer.down.rate(now),
                up_rate: peer.up.rate(now),
                downloaded: peer.down.total(),
                uploaded: peer.up.total(),
                have: peer.have.count(),
                am_choking: peer.am_choking,
                peer_choking: peer.peer_choking,
                asked: peer.asked.len(),
            })
            .collect()
    }

    /// One connection's program, printable.
    pub fn client(&self, key: PeerKey) -> Option<(SocketAddr, String)> {
        self.peers.at(key).map(|peer| (peer.address, peer.client.clone()))
    }

    /// Addresses worth trying first another time.
    pub fn remembered_addresses(&self) -> Vec<SocketAddr> {
        self.candidates.remembered()
    }

    /// Whether a piece is wanted at all.
    pub fn priority(&self, piece: PieceIndex) -> Priority {
        self.picker.priority(piece)
    }
}
