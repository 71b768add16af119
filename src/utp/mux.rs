//! All connections of one UDP socket: whose packet is this, who has something to send, whose time has come.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap, VecDeque};
use std::io::{IoSlice, IoSliceMut};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use sha2::{Digest, Sha256};

use super::conn::{Closed, Conn, Opening, Path, State};
use super::packet::{Header, Kind, Packet};
use crate::base::{PeerKey, Slab};

/// Connections of one socket, with those that are being opened or linger.
pub const MAX_CONNECTIONS: usize = 1024;

/// Connections that others have asked for and not confirmed. When there are more, the oldest goes: one who is in earnest
/// confirms within a round trip, however many others ask.
pub const MAX_UNCONFIRMED: usize = 128;

/// The same from one address; loopback may use all of them.
pub const MAX_UNCONFIRMED_PER_IP: usize = 8;

/// Connections that nobody has taken yet.
pub const MAX_UNACCEPTED: usize = 64;

/// Bytes that all connections may hold; above it none may grow.
pub const MAX_HELD: usize = 64 << 20;

/// Packets of unknown connections that are answered in a second. It only saves the other side some waiting.
pub const MAX_RESETS: u32 = 64;

/// How often a free id is looked for.
const ID_TRIES: u32 = 64;

/// Names a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ConnKey(PeerKey);

impl ConnKey {
    /// A small number that no two connections have at the same time.
    pub fn slot(self) -> usize {
        self.0.slot()
    }
}

/// Packets to be sent: one, or several of equal length behind each other, of which the last may be shorter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Transmit {
    /// By which way.
    pub path: Path,
    /// Bytes of each packet.
    pub segment: usize,
    /// They may be fragmented on their way; others must not be.
    pub fragment: bool,
    /// Whose they are; of nobody if they say that a connection is not known.
    pub conn: Option<ConnKey>,
}

/// What is known of a connection and its path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Figures {
    /// Bytes that may be under way.
    pub window: u64,
    /// Bytes that are.
    pub in_flight: u64,
    /// The average round trip.
    pub round_trip: Option<Duration>,
    /// Time that our packets wait in queues.
    pub queueing: Option<Duration>,
    /// Bytes of a full datagram.
    pub datagram: u16,
}

/// The connections of one UDP socket.
#[derive(Debug)]
pub struct Mux {
    conns: Slab<Entry>,
    by_id: HashMap<(SocketAddr, u16), ConnKey>,
    /// The connection of the last packet: the next is most likely its, too.
    last: Option<((SocketAddr, u16), ConnKey)>,
    /// Incoming ones that have not been confirmed, the oldest first.
    unconfirmed: VecDeque<ConnKey>,
    /// Incoming ones that nobody has taken.
    unaccepted: VecDeque<ConnKey>,
    /// Those that may have something to send, in turns.
    sending: VecDeque<ConnKey>,
    /// Those that may have become readable or writable.
    changed: VecDeque<ConnKey>,
    /// When connections want to be told of the time. Some entries are too early, none too late.
    timers: BinaryHeap<Reverse<(Instant, ConnKey)>>,
    /// Answers to packets of no connection.
    resets: VecDeque<(Path, Header)>,
    resets_left: u32,
    resets_since: Instant,
    /// Bytes that all connections hold.
    held: usize,
    epoch: Instant,
    secret: [u8; 16],
    drawn: u64,
}

#[derive(Debug)]
struct Entry {
    conn: Conn,
    /// The earliest of its entries among the timers.
    timer: Option<Instant>,
    sending: bool,
    changed: bool,
    /// Somebody reads and writes it, or will.
    owned: bool,
    held: usize,
}

impl Mux {
    /// No connections yet. What `secret` is decides ids and numbers that strangers must not guess.
    pub fn new(now: Instant, secret: [u8; 16]) -> Self {
        Self {
            conns: Slab::default(),
            by_id: HashMap::new(),
            last: None,
            unconfirmed: VecDeque::new(),
            unaccepted: VecDeque::new(),
            sending: VecDeque::new(),
            changed: VecDeque::new(),
            timers: BinaryHeap::new(),
            resets: VecDeque::new(),
            resets_left: MAX_RESETS,
            resets_since: now,
            held: 0,
            epoch: now,
            secret,
            drawn: 0,
        }
    }

    /// Connections, with those that only linger.
    pub fn len(&self) -> usize {
        self.conns.len()
    }

    /// Whether there is no connection.
    pub fn is_empty(&self) -> bool {
        self.conns.is_empty()
    }

    /// Bytes that all connections hold.
    pub fn held(&self) -> usize {
        self.held
    }

    fn memory_is_short(&self) -> bool {
        self.held >= MAX_HELD
    }

    // ------------------------------------------------------------ connections

    /// Asks for a connection with what listens at the end of `path`. It is writable when there is one. None if there are
    /// too many.
    pub fn connect(&mut self, now: Instant, path: Path) -> Option<ConnKey> {
        if self.conns.len() >= MAX_CONNECTIONS {
            return None;
        }
        let (id, seq) = (0..ID_TRIES).find_map(|_| {
            let (id, seq) = self.draw();
            (!self.by_id.contains_key(&(path.remote, id))).then_some((id, seq))
        })?;
        let conn = Conn::connect(now, Opening { path, epoch: self.epoch, id, seq });
        Some(self.insert(conn, true))
    }

    /// A connection that others have asked for, and from where; each once. It is closed if it is not taken soon.
    pub fn poll_accept(&mut self) -> Option<(ConnKey, Path)> {
        while let Some(key) = self.unaccepted.pop_front() {
            if let Some(entry) = self.conns.at_mut(key.0) {
                entry.owned = true;
                return Some((key, entry.conn.path));
            }
        }
        None
    }

    fn insert(&mut self, conn: Conn, owned: bool) -> ConnKey {
        let id = (conn.path.remote, conn.recv_id);
        let key =
            ConnKey(self.conns.insert(Entry { conn, timer: None, sending: false, changed: false, owned, held: 0 }));
        self.by_id.insert(id, key);
        self.touch(key);
        key
    }

    /// Two numbers that cannot be told from those before.
    fn draw(&mut self) -> (u16, u16) {
        self.drawn += 1;
        let mut hash = Sha256::new_with_prefix(self.secret);
        hash.update(self.drawn.to_be_bytes());
        let [a, b, c, d, ..] = hash.finalize().0;
        (u16::from_be_bytes([a, b]), u16::from_be_bytes([c, d]))
    }

    /// Whether it can be written to: the other side has answered.
    pub fn is_connected(&self, key: ConnKey) -> bool {
        self.conns.at(key.0).is_some_and(|entry| entry.conn.state == State::Connected)
    }

    /// Whether reading gives bytes, the end or an error.
    pub fn is_readable(&self, key: ConnKey) -> bool {
        self.conns.at(key.0).is_none_or(|entry| entry.conn.is_readable())
    }

    /// Whether writing takes a good deal, or gives an error.
    pub fn is_writable(&self, key: ConnKey) -> bool {
        let short = self.memory_is_short();
        self.conns.at(key.0).is_none_or(|entry| entry.conn.is_writable(short))
    }

    /// Moves what has come to `places`, in their order. 0 is the end; nothing if there is nothing yet.
    ///
    /// # Errors
    /// Why nothing more will come.
    pub fn read(&mut self, now: Instant, key: ConnKey, places: &mut [IoSliceMut<'_>]) -> Result<Option<usize>, Closed> {
        let short = self.memory_is_short();
        let entry = self.conns.at_mut(key.0).ok_or(Closed::Here)?;
        let read = entry.conn.read(now, places, short);
        let sends = entry.conn.owes_ack();
        self.note(key, sends);
        read
    }

    /// Takes of `slices`, in their order, what there is room for. Nothing if there is none.
    ///
    /// # Errors
    /// Why nothing will be sent any more.
    pub fn write(&mut self, key: ConnKey, slices: &[IoSlice<'_>]) -> Result<Option<usize>, Closed> {
        let short = self.memory_is_short();
        let entry = self.conns.at_mut(key.0).ok_or(Closed::Here)?;
        let written = entry.conn.write(slices, short);
        self.note(key, matches!(written, Ok(Some(1..))));
        written
    }

    /// Nobody will use it any more. What was written is still sent, then the end, for a while.
    pub fn close(&mut self, now: Instant, key: ConnKey) {
        let Some(entry) = self.conns.at_mut(key.0) else { return };
        entry.owned = false;
        entry.conn.close(now);
        self.touch(key);
    }

    /// What is known of it.
    pub fn figures(&self, key: ConnKey) -> Option<Figures> {
        let conn = &self.conns.at(key.0)?.conn;
        Some(Figures {
            window: conn.ledbat.window(),
            in_flight: conn.out.in_flight(),
            round_trip: conn.round_trip.smoothed(),
            queueing: conn.delays.queueing_micros().map(|micros| Duration::from_micros(micros.into())),
            datagram: conn.mtu.size(),
        })
    }

    // ------------------------------------------------------------ in

    /// A datagram has come by `path`; `arrived` is when the system got it, `now` or a little before.
    pub fn handle_datagram(&mut self, now: Instant, arrived: Instant, path: Path, datagram: &[u8]) {
        let Some(packet) = Packet::parse(datagram) else { return };
        let header = &packet.header;
        let Some(key) = self.find(path.remote, header) else {
            match header.kind {
                Kind::Syn => self.handle_syn(now, path, header, datagram.len()),
                Kind::Reset => {}
                _ => self.refuse(now, path, header),
            }
            return;
        };
        let Some(entry) = self.conns.at_mut(key.0) else { return };
        if entry.conn.is_closed() {
            if header.kind != Kind::Reset && header.kind != Kind::Syn {
                self.refuse(now, path, header);
            }
            return;
        }
        let was_unconfirmed = entry.conn.state == State::SynReceived;
        entry.conn.handle(now, arrived, &packet, datagram.len());
        if was_unconfirmed && entry.conn.state != State::SynReceived {
            let is_connected = entry.conn.state == State::Connected;
            self.unconfirmed.retain(|other| *other != key);
            if is_connected && self.unaccepted.len() < MAX_UNACCEPTED {
                self.unaccepted.push_back(key);
            } else if is_connected {
                entry_close(&mut self.conns, now, key);
            }
        }
        self.touch(key);
    }

    /// The connection that a packet is of.
    fn find(&mut self, remote: SocketAddr, header: &Header) -> Option<ConnKey> {
        // The packet that opens a connection has the id of those that go the other way.
        let id = if header.kind == Kind::Syn { header.conn_id.wrapping_add(1) } else { header.conn_id };
        if let Some((last, key)) = self.last
            && last == (remote, id)
        {
            return Some(key);
        }
        if let Some(&key) = self.by_id.get(&(remote, id)) {
            self.last = Some(((remote, id), key));
            return Some(key);
        }
        if header.kind != Kind::Reset {
            return None;
        }
        // Who does not know the connection sends our own id back.
        [id.wrapping_sub(1), id.wrapping_add(1)].into_iter().find_map(|recv_id| {
            let key = *self.by_id.get(&(remote, recv_id))?;
            self.conns.at(key.0).filter(|entry| entry.conn.send_id == id).map(|_| key)
        })
    }

    fn handle_syn(&mut self, now: Instant, path: Path, syn: &Header, len: usize) {
        let ip = path.remote.ip();
        let same_ip = |key: &&ConnKey| self.conns.at(key.0).is_some_and(|e| e.conn.path.remote.ip() == ip);
        let of_ip = self.unconfirmed.iter().filter(same_ip).count();
        if of_ip >= MAX_UNCONFIRMED_PER_IP && !ip.is_loopback() {
            return;
        }
        if self.unconfirmed.len() >= MAX_UNCONFIRMED
            && let Some(oldest) = self.unconfirmed.pop_front()
        {
            entry_close(&mut self.conns, now, oldest);
            self.retire(oldest);
        }
        if self.conns.len() >= MAX_CONNECTIONS {
            return;
        }
        let (_, seq) = self.draw();
        let conn = Conn::accept(now, Opening { path, epoch: self.epoch, id: syn.conn_id, seq }, syn, len);
        let key = self.insert(conn, false);
        self.unconfirmed.push_back(key);
    }

    /// Says that a connection is not known.
    fn refuse(&mut self, now: Instant, path: Path, header: &Header) {
        if now.saturating_duration_since(self.resets_since) >= Duration::from_secs(1) {
            self.resets_since = now;
            self.resets_left = MAX_RESETS;
        }
        if self.resets_left == 0 {
            return;
        }
        self.resets_left -= 1;
        let (seq, _) = self.draw();
        let reset = Header {
            kind: Kind::Reset,
            conn_id: header.conn_id,
            timestamp: 0,
            delay: 0,
            window: 0,
            seq,
            ack: header.seq,
        };
        self.resets.push_back((path, reset));
    }

    /// A datagram of `len` bytes was too long for our own system to send.
    pub fn handle_too_long(&mut self, key: ConnKey, len: usize) {
        if let Some(entry) = self.conns.at_mut(key.0) {
            entry.conn.handle_too_long(u16::try_from(len).unwrap_or(u16::MAX));
            self.touch(key);
        }
    }

    /// Time has passed: at least once at or after each [`poll_timeout`](Self::poll_timeout).
    pub fn handle_timeout(&mut self, now: Instant) {
        while let Some(Reverse((at, key))) = self.timers.peek().copied().filter(|Reverse((at, _))| *at <= now) {
            self.timers.pop();
            let Some(entry) = self.conns.at_mut(key.0).filter(|entry| entry.timer == Some(at)) else { continue };
            entry.timer = None;
            let was_unconfirmed = entry.conn.state == State::SynReceived;
            entry.conn.handle_timeout(now);
            if was_unconfirmed && entry.conn.is_closed() {
                self.unconfirmed.retain(|other| *other != key);
            }
            self.touch(key);
        }
    }

    // ------------------------------------------------------------ out

    /// When it wants to be told of the time; not before what there is to send was fetched.
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.timers.peek().map(|Reverse((at, _))| *at)
    }

    /// A connection of which something has changed: it may be readable or writable now.
    pub fn poll_changed(&mut self) -> Option<ConnKey> {
        while let Some(key) = self.changed.pop_front() {
            if let Some(entry) = self.conns.at_mut(key.0) {
                entry.changed = false;
                return Some(key);
            }
        }
        None
    }

    /// Whether there may be something to send.
    pub fn wants_to_send(&self) -> bool {
        !self.sending.is_empty() || !self.resets.is_empty()
    }

    /// Appends to `into` the next packets to be sent: at most `most` bytes and `segments` packets. Connections take turns.
    pub fn poll_transmit(
        &mut self,
        now: Instant,
        segments: usize,
        most: usize,
        into: &mut Vec<u8>,
    ) -> Option<Transmit> {
        let begin = into.len();
        if let Some((path, header)) = self.resets.pop_front() {
            header.encode_into(into);
            return Some(Transmit { path, segment: into.len() - begin, fragment: false, conn: None });
        }
        while let Some(key) = self.sending.pop_front() {
            let Some(entry) = self.conns.at_mut(key.0) else { continue };
            if let Some(batch) = entry.conn.poll_transmit(now, segments, most, into) {
                let path = entry.conn.path;
                self.sending.push_back(key);
                return Some(Transmit { path, segment: batch.segment, fragment: batch.fragment, conn: Some(key) });
            }
            entry.sending = false;
            self.schedule(key);
            self.retire(key);
        }
        None
    }

    /// Somebody has read or written: takes account of it. `sends`: there may be something to send now.
    fn note(&mut self, key: ConnKey, sends: bool) {
        let Some(entry) = self.conns.at_mut(key.0) else { return };
        let held = entry.conn.held();
        self.held = self.held - entry.held + held;
        entry.held = held;
        if sends && !entry.sending {
            entry.sending = true;
            self.sending.push_back(key);
        }
    }

    /// Something has happened to a connection: it may have something to send, and somebody may wait for it.
    fn touch(&mut self, key: ConnKey) {
        self.note(key, true);
        let Some(entry) = self.conns.at_mut(key.0) else { return };
        if !entry.changed && entry.owned {
            entry.changed = true;
            self.changed.push_back(key);
        }
    }

    fn schedule(&mut self, key: ConnKey) {
        let Some(entry) = self.conns.at_mut(key.0) else { return };
        if let Some(at) = entry.conn.poll_timeout()
            && entry.timer.is_none_or(|timer| at < timer)
        {
            entry.timer = Some(at);
            self.timers.push(Reverse((at, key)));
        }
    }

    /// Forgets a connection that has ended and that nobody uses.
    fn retire(&mut self, key: ConnKey) {
        let Some(entry) = self.conns.at(key.0) else { return };
        if !entry.conn.is_closed() || entry.owned {
            return;
        }
        let id = (entry.conn.path.remote, entry.conn.recv_id);
        self.held -= entry.held;
        self.by_id.remove(&id);
        self.last = self.last.filter(|(_, last)| *last != key);
        self.conns.remove(key.0);
    }
}

fn entry_close(conns: &mut Slab<Entry>, now: Instant, key: ConnKey) {
    if let Some(entry) = conns.at_mut(key.0) {
        entry.conn.close(now);
    }
}
