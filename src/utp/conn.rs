//! One connection: what arrives, what is to be read and written, and its timers. What it sends is in `transmit.rs`.

use std::io::{IoSlice, IoSliceMut};
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use super::delay::DelayHistory;
use super::incoming::{Incoming, Taken};
use super::ledbat::Ledbat;
use super::mtu::Mtu;
use super::outgoing::{Acked, Outgoing};
use super::pacer::Pacer;
use super::packet::{Header, Kind, Packet, narrow, widen};
use super::rtt::RoundTrip;

/// A first packet is sent so often again when nobody answers.
pub(super) const SYN_RESENDS: u8 = 2;

/// Times that nothing came back, one after the other and each twice as long as the one before, until the other side is
/// taken for gone: half a minute.
const MAX_TIMEOUTS: u32 = 5;

/// How old an acknowledgement may be, in packets: what is older was not sent by the other side, or is of no use.
const ACK_SLACK: u64 = 256;

/// How long an acknowledgement may wait for others.
const ACK_DELAY: Duration = Duration::from_millis(20);

/// Packets that are not acknowledged for so long.
const ACK_EVERY: u32 = 2;

/// How long one who connected may take to prove that the connection reaches it.
const CONFIRM_TIMEOUT: Duration = Duration::from_secs(10);

/// To an address that is not confirmed, this many times the bytes that came from it (RFC 9000, section 8.1).
const AMPLIFICATION: u64 = 3;

/// How long sending goes on after a connection was closed here.
const LINGER: Duration = Duration::from_secs(10);

/// How long the end of the other side's stream is waited for when ours has arrived.
const FIN_WAIT: Duration = Duration::from_secs(2);

/// Routers forget a path over which nothing has gone for a while.
const KEEP_ALIVE: Duration = Duration::from_secs(29);

/// What waits to be sent, at least and at most, in bytes. In between it is twice the congestion window.
const SEND_BUFFER: usize = 128 << 10;
const MAX_SEND_BUFFER: usize = 8 << 20;

/// It is worth waking a writer for so much room, or a quarter of what there is at most.
const WORTH_WRITING: usize = 256 << 10;

/// The shortest wait before the last packet is sent again to provoke an answer.
pub(super) const MIN_PROBE_WAIT: Duration = Duration::from_millis(10);

/// Between which addresses packets go.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Path {
    /// The other end.
    pub remote: SocketAddr,
    /// Our address, as far as it is known.
    pub local: Option<IpAddr>,
}

/// Why a connection is no more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Closed {
    /// The other side does not know it, or has given it up.
    #[error("the other side has reset the connection")]
    Reset,
    /// The other side does not want it.
    #[error("the other side has refused the connection")]
    Refused,
    /// Nothing came back.
    #[error("the other side does not answer")]
    TimedOut,
    /// It was closed here.
    #[error("the connection was closed")]
    Here,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    /// We have asked for it.
    SynSent,
    /// They have; their address is not confirmed.
    SynReceived,
    Connected,
    Closed(Closed),
}

/// When what has come is acknowledged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ack {
    Never,
    At(Instant),
    Now,
}

/// One connection.
#[derive(Debug)]
pub(super) struct Conn {
    pub(super) path: Path,
    /// The id that packets to us have.
    pub(super) recv_id: u16,
    /// The id that ours have.
    pub(super) send_id: u16,
    pub(super) state: State,
    /// The zero of our timestamps.
    pub(super) epoch: Instant,
    pub(super) out: Outgoing,
    pub(super) incoming: Incoming,
    pub(super) ledbat: Ledbat,
    pub(super) round_trip: RoundTrip,
    pub(super) mtu: Mtu,
    pub(super) pacer: Pacer,
    /// How long our packets take, as they say; theirs, as we see it.
    pub(super) delays: DelayHistory,
    their_delays: DelayHistory,
    /// What the next packet tells them of that.
    pub(super) reply_delay: u32,
    /// Bytes they have room for, and the most they ever had.
    pub(super) peer_window: u64,
    pub(super) widest_window: u64,
    /// They tell which packets came out of order.
    peer_masks: bool,
    /// Packets that came since we last acknowledged any.
    unacked: u32,
    pub(super) ack: Ack,
    /// The window that they were told last.
    pub(super) advertised: usize,
    /// What the number of the packet that opened the connection was, if it was ours.
    pub(super) syn: Option<u64>,
    /// More would be sent if the congestion window were larger.
    pub(super) limited: bool,
    pub(super) last_sent: Instant,
    /// Bytes that came and went before the address was confirmed.
    pub(super) received: u64,
    pub(super) sent: u64,
    /// When all that is under way is taken for lost.
    pub(super) timeout: Option<Instant>,
    /// Timeouts since anything came; since anything that we sent has arrived.
    timeouts: u32,
    pub(super) backoff: u32,
    /// When the last packet is sent again to provoke an answer; it is due.
    pub(super) probe_at: Option<Instant>,
    pub(super) probe_due: bool,
    /// When a closed window is tried; it is due.
    pub(super) persist_at: Option<Instant>,
    pub(super) persist_due: bool,
    pub(super) pace_until: Option<Instant>,
    /// An empty packet is due, to keep the path open.
    pub(super) keep_alive: bool,
    /// It was closed here, and is given up then.
    pub(super) closing: Option<Instant>,
    confirm_by: Option<Instant>,
}

/// What is wanted of a connection that is opened.
#[derive(Clone, Copy, Debug)]
pub(super) struct Opening {
    pub(super) path: Path,
    pub(super) epoch: Instant,
    /// The id on the first packet.
    pub(super) id: u16,
    /// The number of our first packet.
    pub(super) seq: u16,
}

/// Numbers begin above what fits the wire, so that there are some before each.
fn first_number(seq: u16) -> u64 {
    0x1_0000 + u64::from(seq)
}

impl Conn {
    /// Asks for a connection.
    pub(super) fn connect(now: Instant, opening: Opening) -> Self {
        let mut conn = Self::new(now, opening, State::SynSent, Incoming::new(now, 0));
        conn.recv_id = opening.id;
        conn.send_id = opening.id.wrapping_add(1);
        conn.syn = Some(conn.out.next());
        conn
    }

    /// Answers the packet that asks for one.
    pub(super) fn accept(now: Instant, opening: Opening, syn: &Header, len: usize) -> Self {
        let incoming = Incoming::new(now, first_number(syn.seq) + 1);
        let mut conn = Self::new(now, opening, State::SynReceived, incoming);
        conn.recv_id = opening.id.wrapping_add(1);
        conn.send_id = opening.id;
        conn.confirm_by = Some(now + CONFIRM_TIMEOUT);
        conn.received = len as u64;
        conn.ack = Ack::Now;
        conn.reply_delay = conn.micros(now).wrapping_sub(syn.timestamp);
        conn.widen_window(syn.window);
        conn
    }

    fn new(now: Instant, opening: Opening, state: State, incoming: Incoming) -> Self {
        let mtu = Mtu::new(now, opening.path.remote.ip());
        Self {
            path: opening.path,
            recv_id: 0,
            send_id: 0,
            state,
            epoch: opening.epoch,
            out: Outgoing::new(first_number(opening.seq)),
            advertised: incoming.window(),
            incoming,
            ledbat: Ledbat::new(mtu.segment().into()),
            round_trip: RoundTrip::new(now),
            mtu,
            pacer: Pacer::new(now),
            delays: DelayHistory::new(now),
            their_delays: DelayHistory::new(now),
            reply_delay: 0,
            peer_window: 0,
            widest_window: 0,
            peer_masks: false,
            unacked: 0,
            ack: Ack::Never,
            syn: None,
            limited: false,
            last_sent: now,
            received: 0,
            sent: 0,
            timeout: None,
            timeouts: 0,
            backoff: 0,
            probe_at: None,
            probe_due: false,
            persist_at: None,
            persist_due: false,
            pace_until: None,
            keep_alive: false,
            closing: None,
            confirm_by: None,
        }
    }

    /// Bytes of payload that a full packet has.
    pub(super) fn segment(&self) -> u16 {
        self.mtu.segment()
    }

    /// A time as a timestamp. Zero means nothing, so it is none.
    pub(super) fn micros(&self, at: Instant) -> u32 {
        let micros = at.saturating_duration_since(self.epoch).as_micros() & u128::from(u32::MAX);
        u32::try_from(micros).unwrap_or(u32::MAX).max(1)
    }

    pub(super) fn is_closed(&self) -> bool {
        matches!(self.state, State::Closed(_))
    }

    /// Memory that its buffers hold, in bytes.
    pub(super) fn held(&self) -> usize {
        self.out.buffered() + self.incoming.held()
    }

    // ------------------------------------------------------------ the application

    /// Whether reading gives anything: bytes, the end, or why there will be none.
    pub(super) fn is_readable(&self) -> bool {
        self.incoming.readable() > 0 || self.incoming.at_end() || self.is_closed()
    }

    /// Whether writing takes enough to be worth it, or says why it never will.
    pub(super) fn is_writable(&self, memory_is_short: bool) -> bool {
        let room = self.send_room(memory_is_short);
        let worth = WORTH_WRITING.min((room + self.out.buffered()) / 4);
        self.is_closed() || self.state == State::Connected && room >= worth
    }

    /// Whether there is an acknowledgement to be sent.
    pub(super) fn owes_ack(&self) -> bool {
        self.ack == Ack::Now
    }

    fn send_room(&self, memory_is_short: bool) -> usize {
        let most = if memory_is_short { SEND_BUFFER } else { MAX_SEND_BUFFER };
        let twice = usize::try_from(self.ledbat.window() * 2).unwrap_or(usize::MAX);
        twice.clamp(SEND_BUFFER, most).saturating_sub(self.out.buffered())
    }

    /// Moves what has come to `places`. `None` if there is nothing yet; 0 is the end.
    pub(super) fn read(
        &mut self,
        now: Instant,
        places: &mut [IoSliceMut<'_>],
        memory_is_short: bool,
    ) -> Result<Option<usize>, Closed> {
        if self.incoming.readable() == 0 {
            return match self.state {
                _ if self.incoming.at_end() => Ok(Some(0)),
                State::Closed(cause) => Err(cause),
                _ => Ok(None),
            };
        }
        let read = self.incoming.read(now, places, self.round_trip.smoothed(), !memory_is_short);
        // They have to hear of it if what they know holds them back.
        let window = self.incoming.window();
        let segment = usize::from(self.segment());
        if self.advertised < window / 2 && window - self.advertised >= 2 * segment && !self.is_closed() {
            self.ack = Ack::Now;
        }
        Ok(Some(read))
    }

    /// Takes what there is room for. `None` if there is none.
    pub(super) fn write(&mut self, slices: &[IoSlice<'_>], memory_is_short: bool) -> Result<Option<usize>, Closed> {
        match self.state {
            State::Closed(cause) => return Err(cause),
            State::Connected if self.closing.is_none() => {}
            _ => return Ok(None),
        }
        let room = self.send_room(memory_is_short);
        let taken = self.out.write(slices, room);
        Ok(if taken == 0 && room == 0 { None } else { Some(taken) })
    }

    /// Nobody will read or write any more. What was written is still sent, then the end, for a while.
    pub(super) fn close(&mut self, now: Instant) {
        if self.state != State::Connected {
            self.end(Closed::Here);
            return;
        }
        self.incoming.ignore();
        self.closing.get_or_insert(now + LINGER);
        self.check_end(now);
    }

    fn end(&mut self, cause: Closed) {
        if !self.is_closed() {
            self.state = State::Closed(cause);
            self.out = Outgoing::new(self.out.next());
        }
    }

    /// Ends a connection that was closed here, when both sides have said all.
    fn check_end(&mut self, now: Instant) {
        let Some(closing) = self.closing.filter(|_| self.out.fin_arrived()) else { return };
        if self.incoming.has_all() {
            self.end(Closed::Here);
        } else {
            self.closing = Some(closing.min(now + FIN_WAIT));
        }
    }

    // ------------------------------------------------------------ what arrives

    /// A packet has come; `arrived` is when the system got it, `len` the length of its datagram. False if it is none that
    /// the other side can have sent.
    pub(super) fn handle(&mut self, now: Instant, arrived: Instant, packet: &Packet<'_>, len: usize) -> bool {
        let header = &packet.header;
        if self.is_closed() {
            return false;
        }
        if header.kind == Kind::Syn {
            return self.handle_syn(header, len);
        }
        let acked = widen(header.ack, self.out.next());
        if header.kind == Kind::Reset {
            return self.handle_reset(acked);
        }
        if acked >= self.out.next() || acked + ACK_SLACK + 1 < self.out.first() {
            return false;
        }
        match self.state {
            State::SynSent if header.kind == Kind::State && Some(acked) == self.syn => {
                self.state = State::Connected;
                self.incoming = Incoming::new(now, first_number(header.seq));
            }
            // Data that overtook it will come again.
            State::SynSent => return false,
            // Only who got our answer knows its number.
            State::SynReceived if acked + 1 == self.out.next() => self.state = State::Connected,
            State::SynReceived => return false,
            _ => {}
        }
        self.confirm_by = None;
        self.timeouts = 0;
        self.measure(now, arrived, header);
        self.handle_ack(now, acked, packet);
        let number = widen(header.seq, self.incoming.next());
        match header.kind {
            Kind::Data => {
                let taken = self.incoming.data(number, packet.payload);
                self.owe_ack(now, taken);
            }
            Kind::Fin => {
                let taken = self.incoming.fin(number);
                self.owe_ack(now, taken);
                self.ack = Ack::Now;
            }
            _ => {}
        }
        self.check_end(now);
        true
    }

    /// The packet that opened the connection has come again: our answer was lost.
    fn handle_syn(&mut self, header: &Header, len: usize) -> bool {
        let is_same = widen(header.seq, self.incoming.next()) + 1 == self.incoming.next();
        if self.state != State::SynReceived || !is_same {
            return false;
        }
        self.received += len as u64;
        self.ack = Ack::Now;
        true
    }

    /// Believed only from somebody who knows which of our packets are under way.
    fn handle_reset(&mut self, acked: u64) -> bool {
        if acked > self.out.next() || acked + 1 < self.out.first() {
            return false;
        }
        self.end(if self.state == State::SynSent { Closed::Refused } else { Closed::Reset });
        true
    }

    fn measure(&mut self, now: Instant, arrived: Instant, header: &Header) {
        if header.timestamp != 0 {
            self.reply_delay = self.micros(arrived).wrapping_sub(header.timestamp);
            let sank = self.their_delays.add(now, self.reply_delay);
            // Their clock runs faster than ours: what they measure grows by as much.
            if sank > 0 {
                self.delays.shift(sank);
            }
        }
        // Some clients say this for want of a measurement.
        if header.delay != 0 && header.delay != i32::MAX.cast_unsigned() {
            self.delays.add(now, header.delay);
        }
    }

    fn handle_ack(&mut self, now: Instant, acked: u64, packet: &Packet<'_>) {
        let mask = packet.selective_ack.unwrap_or_default();
        let is_news = acked + 1 >= self.out.first();
        let same_window = self.peer_window == u64::from(packet.header.window);
        if is_news {
            self.widen_window(packet.header.window);
        }
        self.peer_masks |= packet.selective_ack.is_some();
        let is_duplicate = packet.header.kind == Kind::State && acked + 1 == self.out.first() && same_window;
        let mut news = self.out.ack(now, acked, mask, self.round_trip.least());
        if is_duplicate && !self.peer_masks && news.packets == 0 {
            news.loss |= self.out.duplicate();
        }
        self.learn(now, &news);
        if news.packets > 0 {
            self.backoff = 0;
            self.arm(now);
        }
    }

    fn learn(&mut self, now: Instant, news: &Acked) {
        if let Some(sample) = news.round_trip {
            self.round_trip.add(now, sample);
            self.delays.cap(sample);
        }
        let queueing = self.delays.queueing_micros();
        if news.no_loss {
            self.ledbat.undo_loss();
        }
        if news.packets > 0 {
            self.ledbat.on_ack(now, news.bytes, queueing, self.limited, &self.round_trip);
        }
        if news.loss {
            self.ledbat.on_loss(now, queueing, &self.round_trip);
        }
        if let Some(size) = news.probe_arrived {
            self.mtu.on_probe_acked(size);
        }
        if let Some(size) = news.probe_lost {
            self.mtu.on_probe_lost(size);
        }
        self.ledbat.set_segment(u64::from(self.segment()));
    }

    fn widen_window(&mut self, window: u32) {
        self.peer_window = window.into();
        self.widest_window = self.widest_window.max(self.peer_window);
        if self.peer_window > 0 {
            self.persist_at = None;
        }
    }

    /// Decides when what came is acknowledged.
    fn owe_ack(&mut self, now: Instant, taken: Taken) {
        self.unacked += 1;
        if taken != Taken::InOrder || self.unacked >= ACK_EVERY {
            self.ack = Ack::Now;
        } else if self.ack == Ack::Never {
            self.ack = Ack::At(now + ACK_DELAY);
        }
    }

    /// What has come is acknowledged by a packet that leaves now.
    pub(super) fn acked(&mut self) {
        self.unacked = 0;
        self.ack = Ack::Never;
    }

    // ------------------------------------------------------------ timers

    /// Sets the timers of what is under way anew.
    pub(super) fn arm(&mut self, now: Instant) {
        let waiting = self.out.outstanding() > 0;
        self.timeout = waiting.then(|| now + self.round_trip.timeout(self.backoff));
        self.probe_due = false;
        self.probe_at = match self.round_trip.smoothed() {
            // After two round trips, and as long as the other side may wait for a second packet.
            Some(smoothed) if waiting && self.backoff == 0 && self.state == State::Connected => {
                let delay = if self.out.outstanding() == 1 { ACK_DELAY + ACK_DELAY / 2 } else { Duration::ZERO };
                Some(now + (smoothed * 2).max(MIN_PROBE_WAIT) + delay)
            }
            _ => None,
        };
    }

    /// When it wants to be told of the time again.
    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        if self.is_closed() {
            return None;
        }
        let ack = if let Ack::At(at) = self.ack { Some(at) } else { None };
        let keep_alive = (self.state == State::Connected).then(|| self.last_sent + KEEP_ALIVE);
        [ack, self.timeout, self.probe_at, self.persist_at, self.pace_until, self.closing, self.confirm_by, keep_alive]
            .into_iter()
            .flatten()
            .min()
    }

    /// Time has passed.
    pub(super) fn handle_timeout(&mut self, now: Instant) {
        if self.is_closed() {
            return;
        }
        if self.confirm_by.is_some_and(|by| now >= by) {
            return self.end(Closed::TimedOut);
        }
        if self.closing.is_some_and(|by| now >= by) {
            return self.end(Closed::Here);
        }
        if matches!(self.ack, Ack::At(at) if now >= at) {
            self.ack = Ack::Now;
        }
        if self.pace_until.is_some_and(|until| now >= until) {
            self.pace_until = None;
        }
        if self.probe_at.is_some_and(|at| now >= at) {
            self.probe_at = None;
            self.probe_due = true;
        }
        if self.persist_at.is_some_and(|at| now >= at) {
            self.persist_at = None;
            self.persist_due = true;
        }
        if now >= self.last_sent + KEEP_ALIVE && self.state == State::Connected {
            self.keep_alive = true;
        }
        if self.timeout.is_some_and(|at| now >= at) {
            self.time_out(now);
        }
    }

    fn time_out(&mut self, now: Instant) {
        self.timeouts += 1;
        self.backoff += 1;
        let gone = match self.state {
            State::SynSent => self.out.first_times() > SYN_RESENDS,
            _ => self.timeouts > MAX_TIMEOUTS,
        };
        if gone {
            return self.end(Closed::TimedOut);
        }
        let probe = self.out.time_out();
        if let Some(size) = probe {
            // Nothing but a probe was under way: that is no sign of a full path.
            self.mtu.on_probe_lost(size);
        } else if self.state == State::Connected {
            self.mtu.on_timeout(now, self.backoff);
            self.ledbat.set_segment(u64::from(self.segment()));
            self.ledbat.on_timeout();
        }
        self.probe_at = None;
        self.probe_due = false;
        self.timeout = Some(now + self.round_trip.timeout(self.backoff));
    }

    /// Our own system does not send datagrams of this length to there.
    pub(super) fn handle_too_long(&mut self, len: u16) {
        self.mtu.on_too_long(len);
        self.ledbat.set_segment(u64::from(self.segment()));
    }

    /// A header for a packet with this number.
    pub(super) fn header(&mut self, now: Instant, kind: Kind, number: u64) -> Header {
        self.advertised = self.incoming.window();
        Header {
            kind,
            conn_id: if kind == Kind::Syn { self.recv_id } else { self.send_id },
            timestamp: self.micros(now),
            delay: self.reply_delay,
            window: u32::try_from(self.advertised).unwrap_or(u32::MAX),
            seq: narrow(number),
            ack: narrow(self.incoming.next().wrapping_sub(1)),
        }
    }

    pub(super) fn may_answer(&self, len: usize) -> bool {
        self.state != State::SynReceived || self.sent + len as u64 <= AMPLIFICATION * self.received
    }
}
