use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use super::early::Early;
use super::holepunch::Introducer;
use super::pex::{Heard, Told};
use super::picker::Counted;
use super::requests::RequestWindow;
use crate::base::{Bitfield, Block, PeerId, PieceIndex, RateMeter};
use crate::wire::{ExtendedHandshake, MAX_REQUEST_QUEUE, Outbox, Reserved};

/// A connection whose handshake is done.
#[derive(Clone, Copy, Debug)]
pub struct NewPeer {
    /// Where it is.
    pub address: SocketAddr,
    /// Whether we dialled it.
    pub outgoing: bool,
    /// What it calls itself.
    pub id: PeerId,
    /// Whether uTP carries it.
    pub utp: bool,
    /// What it can do.
    pub reserved: Reserved,
    /// Whether the handshakes named the torrent by its v2 hash: then the peer knows about trees of hashes (BEP 52).
    pub v2: bool,
}

/// Protocol state of one connected remote.
#[derive(Debug)]
pub(super) struct Peer {
    pub(super) address: SocketAddr,
    /// Where an incoming peer can be reached, once it has told us (BEP 10, `p`).
    pub(super) listens_at: Option<SocketAddr>,
    /// Others of its addresses, at which we have found it meanwhile.
    pub(super) found_at: Vec<SocketAddr>,
    pub(super) outgoing: bool,
    pub(super) utp: bool,
    pub(super) id: PeerId,
    /// BEP 6: both sides speak the fast extension.
    pub(super) fast: bool,
    /// BEP 10: both sides speak the extension protocol.
    pub(super) extended: bool,
    /// BEP 5: it runs a node of the DHT, and has not told its port so far.
    pub(super) dht: bool,
    /// BEP 52: it may be asked for hashes.
    pub(super) v2: bool,

    // The four flags of BEP 3.
    pub(super) am_choking: bool,
    pub(super) am_interested: bool,
    pub(super) peer_choking: bool,
    pub(super) peer_interested: bool,

    /// What it has, and the picker's proof that it counted that.
    pub(super) have: Bitfield,
    pub(super) counted: Counted,
    /// How many pieces it has that we want and lack. We are interested while it is not zero.
    pub(super) wanted: u32,
    /// Pieces it lets us have while it chokes us (BEP 6), and those it would like us to take.
    pub(super) allowed_in: Vec<PieceIndex>,
    pub(super) suggested: Vec<PieceIndex>,
    /// Pieces we let it have while we choke it, and blocks it may still take that way.
    pub(super) allowed_out: Vec<PieceIndex>,
    pub(super) allowed_out_blocks: u32,

    /// What we asked of it, oldest first.
    pub(super) asked: VecDeque<Asked>,
    /// How much may be asked of it at once.
    pub(super) window: RequestWindow,
    /// The block whose bytes are on their way into a buffer of the pool.
    pub(super) receiving: Option<Block>,
    /// Buffers that its connection holds for blocks to come.
    pub(super) lent_ahead: usize,
    /// Nothing is asked of it before this time, because it rejects what we ask.
    pub(super) pause_until: Option<Instant>,
    /// Released what it had been asked, because it does not answer; cleared by data.
    pub(super) snubbed: bool,

    /// What waits to be sent to it.
    pub(super) outbox: Outbox,
    pub(super) waking: bool,
    /// What its extension handshakes said, so far.
    pub(super) said: ExtendedHandshake,
    /// It will not ask for anything (BEP 21).
    pub(super) upload_only: bool,
    /// What it calls its program, printable.
    pub(super) client: String,

    pub(super) down: RateMeter,
    pub(super) up: RateMeter,
    /// When our `choke` went out or ours `unchoke`, whichever is later.
    pub(super) choke_changed: Instant,
    /// Payload sent when it was last unchoked.
    pub(super) sent_at_unchoke: u64,
    pub(super) connected: Instant,
    pub(super) last_message: Instant,
    pub(super) last_sent: Instant,
    /// Since when neither side has been interested in the other.
    pub(super) idle_since: Instant,
    /// When it last asked for something.
    pub(super) last_request: Instant,
    /// Requests it should not have made.
    pub(super) invalid_requests: u32,
    /// Requests in a row that came while the queue was full.
    pub(super) beyond_queue: u32,
    /// Pieces of the info dictionary that it will get (BEP 9), and how many it got.
    pub(super) metadata_asked: VecDeque<u32>,
    pub(super) metadata_given: u32,
    /// Hashes that it got (BEP 52).
    pub(super) hashes_given: u64,
    /// What it said about pieces before we knew how many there are.
    pub(super) early: Early,
    /// Changes of its mind in the present second, about interest or what it has, which cost us work.
    pub(super) flips: Flips,
    /// Requests taken back in the present second.
    pub(super) cancels: Flips,

    /// Its number among those of whom others are told (BEP 11), what it has been told, and how often it tells us.
    pub(super) contact: Option<u64>,
    pub(super) told: Told,
    pub(super) heard: Heard,
    /// Whom it can introduce us to (BEP 55).
    pub(super) introducer: Introducer,
}

/// A request that is out.
#[derive(Clone, Copy, Debug)]
pub(super) struct Asked {
    pub(super) block: Block,
    pub(super) at: Instant,
}

/// Changes of its mind that a peer may make in a second. More is an attack: honest clients stay far below.
pub(super) const MAX_FLIPS: u32 = 100;

/// Telling anew what it has counts as one change of its mind for so many pieces: each is looked at.
pub(super) const PIECES_PER_FLIP: u32 = 1 << 17;

/// Requests that a peer may take back in a second: a full queue, ten times, as on a very fast line. Each is looked for in
/// the queue.
pub(super) const MAX_CANCELS: u32 = 10 * MAX_REQUEST_QUEUE;

/// Counts what a peer may do only so often.
#[derive(Clone, Copy, Debug)]
pub(super) struct Flips {
    since: Instant,
    count: u32,
}

impl Flips {
    pub(super) fn new(now: Instant) -> Self {
        Self { since: now, count: 0 }
    }

    /// One more; false if that was more than `limit` in a second.
    pub(super) fn allow(&mut self, now: Instant, limit: u32) -> bool {
        self.allow_many(now, 1, limit)
    }

    /// The same for what counts as `count`.
    pub(super) fn allow_many(&mut self, now: Instant, count: u32, limit: u32) -> bool {
        if now.saturating_duration_since(self.since) >= Duration::from_secs(1) {
            *self = Self::new(now);
        }
        self.count = self.count.saturating_add(count);
        self.count <= limit
    }
}

impl Peer {
    pub(super) fn new(
        now: Instant,
        new: &NewPeer,
        pieces: u32,
        counted: Counted,
        window: RequestWindow,
        told: Told,
    ) -> Self {
        Self {
            address: new.address,
            listens_at: None,
            found_at: Vec::new(),
            outgoing: new.outgoing,
            utp: new.utp,
            id: new.id,
            fast: new.reserved.fast(),
            extended: new.reserved.extended(),
            dht: new.reserved.dht(),
            v2: new.v2,
            am_choking: true,
            am_interested: false,
            peer_choking: true,
            peer_interested: false,
            have: Bitfield::new(pieces),
            counted,
            wanted: 0,
            allowed_in: Vec::new(),
            suggested: Vec::new(),
            allowed_out: Vec::new(),
            allowed_out_blocks: 0,
            asked: VecDeque::new(),
            window,
            receiving: None,
            lent_ahead: 0,
            pause_until: None,
            snubbed: false,
            outbox: Outbox::default(),
            waking: false,
            said: ExtendedHandshake::default(),
            upload_only: false,
            client: String::new(),
            down: RateMeter::new(now),
            up: RateMeter::new(now),
            choke_changed: now,
            sent_at_unchoke: 0,
            connected: now,
            last_message: now,
            last_sent: now,
            idle_since: now,
            last_request: now,
            invalid_requests: 0,
            beyond_queue: 0,
            metadata_asked: VecDeque::new(),
            metadata_given: 0,
            hashes_given: 0,
            early: Early::default(),
            flips: Flips::new(now),
            cancels: Flips::new(now),
            contact: None,
            told,
            heard: Heard::default(),
            introducer: Introducer::default(),
        }
    }

    /// Takes `block` off the list of what it was asked. It nearly always is the first.
    pub(super) fn take_asked(&mut self, block: Block) -> Option<Asked> {
        let i = self.asked.iter().position(|a| a.block == block)?;
        self.asked.remove(i)
    }

    /// Wherever it is known to be.
    pub(super) fn addresses(&self) -> impl Iterator<Item = SocketAddr> + '_ {
        std::iter::once(self.address).chain(self.listens_at).chain(self.found_at.iter().copied())
    }

    /// Whether it has all there is, or says that it will not download.
    pub(super) fn is_seed(&self) -> bool {
        self.upload_only || !self.have.is_empty() && self.have.is_full()
    }
}
