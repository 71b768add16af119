//! What a connection sends, and when: acknowledgements, packets again, probes, new packets, the end.

use std::time::Instant;

use super::conn::{Ack, Conn, MIN_PROBE_WAIT, State};
use super::outgoing::Cut;
use super::packet::{HEADER_LEN, Header, Kind};

/// Packets under way, however small: the other side's order of numbers has to stay clear.
const MAX_PACKETS: usize = 8192;

/// Others keep as many packets that came out of order as their widest window has of this length, or
/// [`LEAST_PACKETS`]; what is further ahead they throw away.
const THEIR_PACKET: u64 = 1100;
const LEAST_PACKETS: u64 = 16;

/// The path is probed for longer packets only while a few are under way.
const PROBE_WINDOW: u64 = 4;

/// A batch of packets to one address, all of one length but for the last, which may be shorter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Batch {
    /// Bytes of each packet.
    pub(super) segment: usize,
    /// They are longer than the path is known to bear: on their way they may be fragmented.
    pub(super) fragment: bool,
}

/// A packet that may go.
#[derive(Clone, Copy, Debug)]
enum Next {
    Again(Cut),
    New(u16),
    Fin,
}

impl Next {
    fn len(self) -> usize {
        match self {
            Self::Again(cut) => cut.len.into(),
            Self::New(len) => len.into(),
            Self::Fin => 0,
        }
    }
}

impl Conn {
    /// Appends to `into` the next packets to be sent, at most `most` bytes and `segments` of them.
    pub(super) fn poll_transmit(
        &mut self,
        now: Instant,
        segments: usize,
        most: usize,
        into: &mut Vec<u8>,
    ) -> Option<Batch> {
        let begin = into.len();
        let batch = match self.state {
            State::SynSent | State::Connected => self
                .acknowledge_gap(now, into)
                .or_else(|| self.send_probe(now, into))
                .or_else(|| self.send_packets(now, segments, most, into))
                .or_else(|| self.provoke(now, into))
                .or_else(|| self.acknowledge(now, into)),
            State::SynReceived => self.acknowledge(now, into),
            State::Closed(_) => None,
        }?;
        self.sent += (into.len() - begin) as u64;
        self.last_sent = now;
        self.keep_alive = false;
        Some(batch)
    }

    /// What came out of order is told at once, in a packet of its own: those with payload are all of one length.
    fn acknowledge_gap(&mut self, now: Instant, into: &mut Vec<u8>) -> Option<Batch> {
        if self.ack != Ack::Now || !self.incoming.has_gap() {
            return None;
        }
        self.acknowledge(now, into)
    }

    fn acknowledge(&mut self, now: Instant, into: &mut Vec<u8>) -> Option<Batch> {
        if self.ack != Ack::Now && !self.keep_alive || self.state == State::SynSent {
            return None;
        }
        let begin = into.len();
        let header = self.header(now, Kind::State, self.out.next());
        if self.incoming.has_gap() {
            let mut mask = Vec::new();
            self.incoming.mask(&mut mask);
            header.encode_with_selective_ack(&mask, into);
        } else {
            header.encode_into(into);
        }
        let segment = into.len() - begin;
        if !self.may_answer(segment) {
            into.truncate(begin);
            self.ack = Ack::Never;
            return None;
        }
        self.acked();
        Some(Batch { segment, fragment: false })
    }

    /// Packets that were lost, then new ones, then the end, as far as the windows reach.
    fn send_packets(&mut self, now: Instant, segments: usize, most: usize, into: &mut Vec<u8>) -> Option<Batch> {
        let begin = into.len();
        let mut batch: Option<Batch> = None;
        for _ in 0..segments {
            let Some(next) = self.next(now) else { break };
            let size = HEADER_LEN + next.len();
            let fragment = size > usize::from(self.mtu.size());
            let first = *batch.get_or_insert(Batch { segment: size, fragment });
            if size > first.segment || fragment != first.fragment || into.len() - begin + size > most {
                break;
            }
            let cut = self.commit(now, next);
            let kind = if self.syn == Some(cut.number) {
                Kind::Syn
            } else if cut.fin {
                Kind::Fin
            } else {
                Kind::Data
            };
            self.encode(now, kind, cut, into);
            if size < first.segment {
                break;
            }
        }
        batch
    }

    fn encode(&mut self, now: Instant, kind: Kind, cut: Cut, into: &mut Vec<u8>) {
        let header = self.header(now, kind, cut.number);
        let header = if kind == Kind::Syn { Header { ack: 0, ..header } } else { header };
        header.encode_into(into);
        self.out.payload(cut.number, into);
        if !self.incoming.has_gap() {
            self.acked();
        }
    }

    fn next(&mut self, now: Instant) -> Option<Next> {
        let next = self.next_packet(now)?;
        let len = next.len() as u64;
        let is_alone = self.out.in_flight() == 0;
        if self.out.in_flight() + len > self.ledbat.window() && !is_alone {
            self.limited = true;
            return None;
        }
        if len > 0 && self.state == State::Connected {
            let (window, slow_start) = (self.ledbat.window(), self.ledbat.in_slow_start());
            let segment = u64::from(self.segment());
            let pace = self.pacer.may_send(now, len, segment, window, self.round_trip.smoothed(), slow_start);
            if let Err(until) = pace {
                self.limited = true;
                self.pace_until = Some(until);
                return None;
            }
        }
        Some(next)
    }

    /// What would be next if nothing but the other side held it back.
    fn next_packet(&mut self, now: Instant) -> Option<Next> {
        if self.pace_until.is_some() {
            return None;
        }
        if let Some(cut) = self.out.next_again() {
            return Some(Next::Again(cut));
        }
        if self.syn == Some(self.out.next()) {
            return Some(Next::New(0));
        }
        let uncut = self.out.uncut();
        if self.state != State::Connected {
            return None;
        }
        if uncut == 0 {
            self.limited = false;
            return (self.closing.is_some() && !self.out.has_fin()).then_some(Next::Fin);
        }
        let len = u16::try_from(uncut).unwrap_or(u16::MAX).min(self.segment());
        let theirs = (self.widest_window / THEIR_PACKET).max(LEAST_PACKETS);
        let packets = usize::try_from(theirs).unwrap_or(MAX_PACKETS).min(MAX_PACKETS);
        let room = self.peer_window.saturating_sub((self.out.buffered() - uncut) as u64);
        if self.out.outstanding() >= packets {
            self.limited = false;
            return None;
        }
        if room >= u64::from(len) {
            return Some(Next::New(len));
        }
        // A window that opens by bits is not filled by bits (RFC 1122, section 4.2.3.4), but it is tried now and then.
        self.limited = false;
        if self.out.outstanding() > 0 {
            return None;
        }
        let room = u16::try_from(room).unwrap_or(u16::MAX);
        if self.persist_due || (room > 0 && u64::from(room) >= self.widest_window / 2) {
            return Some(Next::New(room.clamp(1, len)));
        }
        if self.persist_at.is_none() {
            self.persist_at = Some(now + self.round_trip.timeout(self.backoff));
        }
        None
    }

    fn commit(&mut self, now: Instant, next: Next) -> Cut {
        let was_empty = self.out.outstanding() == 0;
        if was_empty && now.saturating_duration_since(self.last_sent) > self.round_trip.timeout(0) {
            self.ledbat.on_idle();
        }
        let cut = match next {
            Next::Again(cut) => {
                self.out.resend(now, cut.number);
                cut
            }
            Next::New(len) => self.out.cut(now, len, None),
            Next::Fin => self.out.cut_fin(now),
        };
        if std::mem::take(&mut self.persist_due) {
            self.backoff += 1;
        }
        self.pacer.spend(u64::from(cut.len));
        if was_empty || self.timeout.is_none() {
            self.arm(now);
        } else if let Some(smoothed) = self.round_trip.smoothed()
            && self.probe_at.is_some()
        {
            self.probe_at = Some(now + (smoothed * 2).max(MIN_PROBE_WAIT));
        }
        cut
    }

    /// A packet that is padded to a length that the path may bear.
    fn send_probe(&mut self, now: Instant, into: &mut Vec<u8>) -> Option<Batch> {
        let len = self.segment();
        let fits = |conn: &Self| {
            conn.state == State::Connected
                && conn.out.uncut() >= usize::from(len)
                && conn.out.in_flight() >= PROBE_WINDOW * u64::from(len)
        };
        if !fits(self) || self.out.next_again().is_some() {
            return None;
        }
        let size = self.mtu.probe(now)?;
        let padding = usize::from(size).checked_sub(usize::from(self.mtu.size())).filter(|padding| *padding >= 2)?;
        if !matches!(self.next(now), Some(Next::New(n)) if n == len) {
            return None;
        }
        self.mtu.on_probe_sent(now);
        let cut = self.out.cut(now, len, Some(size));
        self.pacer.spend(u64::from(len));
        self.header(now, Kind::Data, cut.number).encode_padded(padding, into);
        self.out.payload(cut.number, into);
        if !self.incoming.has_gap() {
            self.acked();
        }
        Some(Batch { segment: size.into(), fragment: false })
    }

    /// Sends the last packet again, so that the answer shows what is missing (RFC 8985, section 7).
    fn provoke(&mut self, now: Instant, into: &mut Vec<u8>) -> Option<Batch> {
        if !std::mem::take(&mut self.probe_due) {
            return None;
        }
        let cut = self.out.last_under_way()?;
        self.out.resend(now, cut.number);
        let segment = HEADER_LEN + usize::from(cut.len);
        self.encode(now, if cut.fin { Kind::Fin } else { Kind::Data }, cut, into);
        Some(Batch { segment, fragment: segment > usize::from(self.mtu.size()) })
    }
}
