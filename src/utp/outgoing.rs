//! What was written and is not acknowledged: packets on their way, packets to be sent again, bytes not yet in a packet.
//!
//! uTP numbers packets, not bytes: what has once gone out in one packet is sent again in a packet of the same payload.
//!
//! ```text
//! buffer   [ packet | packet | packet | .. bytes not yet in a packet .. ]
//!          ^ first                    ^ cut
//! ```
//!
//! A packet is lost when three that were sent after it have arrived (RFC 9002, section 6.1.1, which is BEP 29's rule with
//! the order of sending in place of the order of numbers, so that it holds for packets that were sent again, too).

use std::collections::VecDeque;
use std::io::IoSlice;
use std::time::{Duration, Instant};

/// Packets sent later that have to arrive before one is taken for lost.
const REORDERING: u64 = 3;

/// The same, after packets were found to overtake each other.
const MAX_REORDERING: u64 = 128;

/// Equal acknowledgements that say that the first packet is missing, where the other side tells of no others.
const DUPLICATES: u8 = 3;

/// Memory that is kept while nothing is on its way, in bytes.
const KEPT: usize = 128 << 10;

/// What is on its way out.
#[derive(Debug)]
pub(super) struct Outgoing {
    buffer: VecDeque<u8>,
    /// Where the buffer begins in the stream of bytes.
    buffer_at: u64,
    /// Where bytes that are in no packet yet begin.
    cut: u64,
    packets: VecDeque<Sent>,
    /// The number of the first of `packets`; of the next to be made if there is none.
    first: u64,
    /// Packets to be sent again, about in order. Some may have arrived since.
    again: VecDeque<u64>,
    /// The highest packet that has arrived out of order.
    highest: u64,
    duplicates: u8,
    /// The packet without payload that ends the stream.
    fin: Option<u64>,
    flight: Flight,
}

/// What is known of packets by the order in which they were sent.
#[derive(Debug)]
struct Flight {
    /// Bytes of payload under way.
    bytes: u64,
    /// How many packets were sent, each time counted.
    order: u64,
    /// The last of them that is known to have arrived.
    arrived: u64,
    reordering: u64,
    /// Losses among those sent up to this are one event with the last.
    recovery: u64,
    /// Packets that the last event took for lost, but for those that then arrived without being sent again.
    suspects: u32,
}

/// A packet that was sent.
#[derive(Debug)]
struct Sent {
    /// Where its payload begins in the stream.
    at: u64,
    len: u16,
    state: State,
    /// It was taken for lost by the packets that arrived after it.
    suspect: bool,
    /// How often it was sent.
    times: u8,
    /// Which of all packets sent it was, the last time.
    order: u64,
    when: Instant,
    /// Its length as a probe of the path, the first time.
    probe: Option<u16>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    UnderWay,
    Lost,
    Arrived,
}

/// A packet to be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Cut {
    pub(super) number: u64,
    pub(super) len: u16,
    pub(super) fin: bool,
}

/// What an acknowledgement says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Acked {
    /// Bytes that have arrived.
    pub(super) bytes: u64,
    /// Packets that have arrived.
    pub(super) packets: u32,
    /// How long the youngest of them took, if that is certain.
    pub(super) round_trip: Option<Duration>,
    /// Packets were lost that were sent after the last loss was found.
    pub(super) loss: bool,
    /// The last loss turned out to be none.
    pub(super) no_loss: bool,
    /// A probe of this length has arrived.
    pub(super) probe_arrived: Option<u16>,
    /// A probe of this length was lost.
    pub(super) probe_lost: Option<u16>,
}

impl Flight {
    /// `sent` has arrived, if it had not before. `least` is the least round trip known. `youngest` is the order of the
    /// packet that the round trip in `acked` is of.
    fn arrive(
        &mut self,
        now: Instant,
        sent: &mut Sent,
        least: Option<Duration>,
        acked: &mut Acked,
        youngest: &mut u64,
    ) {
        match sent.state {
            State::Arrived => return,
            State::UnderWay => self.bytes -= u64::from(sent.len),
            State::Lost => {}
        }
        let took = now.saturating_duration_since(sent.when);
        let first_time = sent.times == 1;
        // Too early to be the answer to the last time it was sent: it was the first that arrived.
        let early = !first_time && least.is_some_and(|least| took < least);
        if sent.suspect && (sent.state == State::Lost || early) {
            self.reordering = (self.reordering * 2).min(MAX_REORDERING);
            self.suspects = self.suspects.saturating_sub(1);
            acked.no_loss |= self.suspects == 0;
        }
        if sent.state == State::UnderWay && !early {
            self.arrived = self.arrived.max(sent.order);
            if first_time && sent.order > *youngest {
                *youngest = sent.order;
                acked.round_trip = Some(took);
            }
        }
        sent.state = State::Arrived;
        acked.bytes += u64::from(sent.len);
        acked.packets += 1;
        acked.probe_arrived = sent.probe.or(acked.probe_arrived);
    }
}

impl Outgoing {
    /// The first packet will have this number.
    pub(super) fn new(first: u64) -> Self {
        Self {
            buffer: VecDeque::new(),
            buffer_at: 0,
            cut: 0,
            packets: VecDeque::new(),
            first,
            again: VecDeque::new(),
            highest: 0,
            duplicates: 0,
            fin: None,
            flight: Flight { bytes: 0, order: 0, arrived: 0, reordering: REORDERING, recovery: 0, suspects: 0 },
        }
    }

    /// Number of the next packet.
    pub(super) fn next(&self) -> u64 {
        self.first + self.packets.len() as u64
    }

    /// Number of the first packet that is not acknowledged; of the next if all are.
    pub(super) fn first(&self) -> u64 {
        self.first
    }

    /// Bytes written that have not been acknowledged.
    pub(super) fn buffered(&self) -> usize {
        self.buffer.len()
    }

    /// Bytes of payload under way.
    pub(super) fn in_flight(&self) -> u64 {
        self.flight.bytes
    }

    /// Packets that are not acknowledged.
    pub(super) fn outstanding(&self) -> usize {
        self.packets.len()
    }

    /// Bytes that are in no packet yet.
    pub(super) fn uncut(&self) -> usize {
        self.buffer.len() - self.offset(self.cut)
    }

    /// Takes as much of `slices` as makes `room` bytes. Returns how much that was.
    pub(super) fn write(&mut self, slices: &[IoSlice<'_>], room: usize) -> usize {
        let mut left = room;
        for slice in slices {
            let taken = slice.len().min(left);
            self.buffer.extend(&slice[..taken]);
            left -= taken;
        }
        room - left
    }

    /// The next packet to be sent again.
    pub(super) fn next_again(&mut self) -> Option<Cut> {
        while let Some(&number) = self.again.front() {
            match self.sent(number) {
                Some(sent) if sent.state == State::Lost => {
                    return Some(Cut { number, len: sent.len, fin: self.fin == Some(number) });
                }
                _ => drop(self.again.pop_front()),
            }
        }
        None
    }

    /// The last packet that is under way, to be sent once more to provoke an answer.
    pub(super) fn last_under_way(&self) -> Option<Cut> {
        let index = self.packets.iter().rposition(|sent| sent.state == State::UnderWay)?;
        let number = self.first + index as u64;
        Some(Cut { number, len: self.packets.get(index)?.len, fin: self.fin == Some(number) })
    }

    /// Makes the next `len` bytes a packet, which is about to be sent. `probe`: padded to that length.
    pub(super) fn cut(&mut self, now: Instant, len: u16, probe: Option<u16>) -> Cut {
        let number = self.next();
        self.flight.order += 1;
        self.packets.push_back(Sent {
            at: self.cut,
            len,
            state: State::UnderWay,
            suspect: false,
            times: 1,
            order: self.flight.order,
            when: now,
            probe,
        });
        self.cut += u64::from(len);
        self.flight.bytes += u64::from(len);
        Cut { number, len, fin: false }
    }

    /// Makes the end of the stream a packet, which is about to be sent.
    pub(super) fn cut_fin(&mut self, now: Instant) -> Cut {
        let cut = Cut { fin: true, ..self.cut(now, 0, None) };
        self.fin = Some(cut.number);
        cut
    }

    /// Whether the end of the stream has become a packet.
    pub(super) fn has_fin(&self) -> bool {
        self.fin.is_some()
    }

    /// Whether everything, with the end of the stream, has arrived.
    pub(super) fn fin_arrived(&self) -> bool {
        self.fin.is_some() && self.packets.is_empty()
    }

    /// A packet is sent once more. Returns how often it was sent before.
    pub(super) fn resend(&mut self, now: Instant, number: u64) -> u8 {
        self.flight.order += 1;
        let order = self.flight.order;
        let Some(sent) = self.index(number).and_then(|index| self.packets.get_mut(index)) else { return 0 };
        let times = sent.times;
        sent.times = times.saturating_add(1);
        if sent.state == State::Lost {
            self.flight.bytes += u64::from(sent.len);
        }
        (sent.order, sent.when, sent.state, sent.probe) = (order, now, State::UnderWay, None);
        if self.again.front() == Some(&number) {
            self.again.pop_front();
        }
        times
    }

    /// Appends the payload of a packet to `into`.
    pub(super) fn payload(&self, number: u64, into: &mut Vec<u8>) {
        let Some(sent) = self.sent(number) else { return };
        let from = self.offset(sent.at);
        let (head, tail) = self.buffer.as_slices();
        let to = (from + usize::from(sent.len)).min(self.buffer.len());
        let cut = head.len();
        into.extend_from_slice(&head[from.min(cut)..to.min(cut)]);
        into.extend_from_slice(&tail[from.max(cut) - cut..to.max(cut) - cut]);
    }

    /// Where a position of the stream lies in the buffer.
    fn offset(&self, at: u64) -> usize {
        usize::try_from(at.saturating_sub(self.buffer_at)).map_or(self.buffer.len(), |at| at.min(self.buffer.len()))
    }

    fn index(&self, number: u64) -> Option<usize> {
        usize::try_from(number.checked_sub(self.first)?).ok()
    }

    fn sent(&self, number: u64) -> Option<&Sent> {
        self.packets.get(self.index(number)?)
    }

    /// All packets up to number `upto` have arrived, and those that `mask` names, whose first bit is packet `upto + 2`.
    /// `least` is the least round trip known.
    pub(super) fn ack(&mut self, now: Instant, upto: u64, mask: &[u8], least: Option<Duration>) -> Acked {
        let mut acked = Acked::default();
        let mut youngest = 0;
        while self.first <= upto
            && let Some(mut sent) = self.packets.pop_front()
        {
            self.first += 1;
            self.duplicates = 0;
            self.flight.arrive(now, &mut sent, least, &mut acked, &mut youngest);
        }
        let keep = self.packets.front().map_or(self.cut, |sent| sent.at);
        self.buffer.drain(..self.offset(keep));
        self.buffer_at = keep;

        for (bits, number) in mask.iter().zip((upto + 2..).step_by(8)) {
            // Those before the first are known: this acknowledgement was overtaken by another.
            for bit in (0..8).filter(|bit| bits & 1 << bit != 0) {
                let number = number + bit;
                if let Some(sent) = self.index(number).and_then(|index| self.packets.get_mut(index)) {
                    self.highest = self.highest.max(number);
                    self.flight.arrive(now, sent, least, &mut acked, &mut youngest);
                }
            }
        }
        if acked.packets > 0 && self.highest > self.first {
            self.find_losses(&mut acked);
        }
        if self.buffer.is_empty() && self.buffer.capacity() > KEPT {
            // A burst is over.
            self.buffer = VecDeque::new();
        }
        acked
    }

    /// Takes for lost what others have overtaken. Only what lies before a packet that has arrived can be.
    fn find_losses(&mut self, acked: &mut Acked) {
        let flight = &mut self.flight;
        let Some(certain) = flight.arrived.checked_sub(flight.reordering) else { return };
        let until = usize::try_from(self.highest - self.first).unwrap_or(usize::MAX);
        let order = flight.order;
        for (number, sent) in (self.first..).zip(self.packets.iter_mut()).take(until) {
            if sent.state != State::UnderWay || sent.order > certain {
                continue;
            }
            sent.state = State::Lost;
            flight.bytes -= u64::from(sent.len);
            self.again.push_back(number);
            if let Some(size) = sent.probe.take() {
                acked.probe_lost = Some(size);
                continue;
            }
            if sent.order > flight.recovery {
                acked.loss = true;
                flight.recovery = order;
                flight.suspects = 0;
            }
            sent.suspect = true;
            flight.suspects += 1;
        }
    }

    /// An acknowledgement without news. True if it is one too many: the first packet is taken for lost.
    pub(super) fn duplicate(&mut self) -> bool {
        let Some(sent) = self.packets.front_mut() else { return false };
        self.duplicates = self.duplicates.saturating_add(1);
        if self.duplicates != DUPLICATES || sent.state != State::UnderWay {
            return false;
        }
        sent.state = State::Lost;
        self.flight.bytes -= u64::from(sent.len);
        self.again.push_front(self.first);
        let fresh = sent.order > self.flight.recovery && sent.probe.is_none();
        if fresh {
            self.flight.recovery = self.flight.order;
        }
        fresh
    }

    /// Nothing came back: all that is under way is taken for lost. Returns the length of a probe among it that was alone.
    pub(super) fn time_out(&mut self) -> Option<u16> {
        let alone = self.packets.front().filter(|_| self.packets.len() == 1).and_then(|sent| sent.probe);
        self.again.clear();
        for (number, sent) in (self.first..).zip(self.packets.iter_mut()) {
            if sent.state != State::Arrived {
                sent.state = State::Lost;
                sent.probe = None;
                self.again.push_back(number);
            }
        }
        self.flight.bytes = 0;
        self.flight.recovery = self.flight.order;
        self.flight.suspects = 0;
        alone
    }

    /// How often the first packet was sent.
    pub(super) fn first_times(&self) -> u8 {
        self.packets.front().map_or(0, |sent| sent.times)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const MS: Duration = Duration::from_millis(1);

    /// With `count` packets of 10 bytes under way.
    fn sending(now: Instant, count: u64) -> Outgoing {
        let mut out = Outgoing::new(100);
        let bytes: Vec<u8> = (0..count * 10).map(|n| u8::try_from(n % 251).unwrap()).collect();
        assert_eq!(out.write(&[IoSlice::new(&bytes)], usize::MAX), bytes.len());
        for _ in 0..count {
            out.cut(now, 10, None);
        }
        out
    }

    fn payload(out: &Outgoing, number: u64) -> Vec<u8> {
        let mut bytes = Vec::new();
        out.payload(number, &mut bytes);
        bytes
    }

    #[test]
    fn what_is_acknowledged_is_forgotten() {
        let now = Instant::now();
        let mut out = sending(now, 5);
        let acked = out.ack(now + MS, 102, &[], None);
        assert_eq!((acked.bytes, acked.packets, acked.round_trip, acked.loss), (30, 3, Some(MS), false));
        assert_eq!((out.first(), out.buffered(), out.in_flight(), out.outstanding()), (103, 20, 20, 2));
        assert_eq!(payload(&out, 103), (30..40).collect::<Vec<u8>>());
        assert_eq!(out.ack(now + MS, 102, &[], None), Acked::default());
        out.ack(now + MS, 104, &[], None);
        assert_eq!((out.buffered(), out.in_flight(), out.next()), (0, 0, 105));
    }

    #[test]
    fn three_later_arrivals_make_a_loss() {
        let now = Instant::now();
        let mut out = sending(now, 8);
        // 100 is missing; 101 is "ack_nr + 1", the first bit is 101.
        assert!(!out.ack(now + MS, 99, &[0b011], None).loss);
        let acked = out.ack(now + MS, 99, &[0b111], None);
        assert!(acked.loss && acked.bytes == 10);
        assert_eq!(out.next_again(), Some(Cut { number: 100, len: 10, fin: false }));
        assert_eq!(out.resend(now + MS, 100), 1);
        assert_eq!(out.next_again(), None);
        // 104 is missing, too: sent before the loss was found, so it is the same event.
        let acked = out.ack(now + MS * 2, 103, &[0b111], Some(MS));
        assert!(!acked.loss && !acked.no_loss);
        assert_eq!(out.next_again().map(|cut| cut.number), Some(104));
        // It is lost again, when three later ones have arrived.
        out.resend(now + MS * 2, 104);
        for _ in 0..4 {
            out.write(&[IoSlice::new(&[0; 10])], 10);
            out.cut(now + MS * 2, 10, None);
        }
        assert!(!out.ack(now + MS * 4, 103, &[0b0001_1111], Some(MS)).loss);
        assert!(out.ack(now + MS * 4, 103, &[0b0011_1111], Some(MS)).loss);
    }

    #[test]
    fn packets_that_were_only_late_were_not_lost() {
        let now = Instant::now();
        let mut out = sending(now, 10);
        assert!(out.ack(now + MS * 10, 99, &[0b111], Some(MS * 10)).loss);
        out.resend(now + MS * 10, 100);
        let acked = out.ack(now + MS * 11, 103, &[], Some(MS * 10));
        assert!(acked.no_loss && acked.round_trip.is_none());
        // From now on it takes more to believe in a loss.
        assert!(!out.ack(now + MS * 12, 103, &[0b111], Some(MS * 10)).loss);
    }

    #[test]
    fn a_lost_probe_is_no_loss() {
        let now = Instant::now();
        let mut out = Outgoing::new(1);
        out.write(&[IoSlice::new(&[1; 50])], 50);
        out.cut(now, 10, Some(1472));
        for _ in 0..4 {
            out.cut(now, 10, None);
        }
        let acked = out.ack(now + MS, 0, &[0b111], None);
        assert_eq!((acked.loss, acked.probe_lost), (false, Some(1472)));
        assert_eq!(out.next_again().map(|cut| cut.number), Some(1));
        let mut out = Outgoing::new(1);
        out.write(&[IoSlice::new(&[1; 50])], 50);
        out.cut(now, 10, Some(1472));
        assert_eq!(out.ack(now + MS, 1, &[], None).probe_arrived, Some(1472));
    }

    #[test]
    fn after_a_timeout_everything_goes_again() {
        let now = Instant::now();
        let mut out = sending(now, 4);
        out.ack(now + MS, 99, &[0b10], None);
        out.time_out();
        assert_eq!(out.in_flight(), 0);
        let mut again = Vec::new();
        while let Some(cut) = out.next_again() {
            again.push(cut.number);
            out.resend(now + MS, cut.number);
        }
        assert_eq!(again, [100, 101, 103]);
        assert_eq!((out.in_flight(), out.first_times()), (30, 2));
    }

    #[test]
    fn duplicates_tell_of_a_loss_to_those_who_are_told_nothing_else() {
        let now = Instant::now();
        let mut out = sending(now, 4);
        assert!(!out.duplicate() && !out.duplicate() && out.duplicate());
        assert_eq!(out.next_again().map(|cut| cut.number), Some(100));
        assert!(!out.duplicate());
    }

    #[test]
    fn the_end_is_a_packet_like_others() {
        let now = Instant::now();
        let mut out = sending(now, 1);
        let fin = out.cut_fin(now);
        assert_eq!(fin, Cut { number: 101, len: 0, fin: true });
        out.time_out();
        out.resend(now, 100);
        assert_eq!(out.next_again(), Some(fin));
        assert!(!out.fin_arrived());
        out.ack(now, 101, &[], None);
        assert!(out.fin_arrived());
    }

    proptest! {
        /// Whatever is said to have arrived: the counts stay those of the packets.
        #[test]
        fn the_books_balance(acks in proptest::collection::vec((0u64..40, proptest::collection::vec(any::<u8>(), 0..6), 0u8..5), 1..60)) {
            let now = Instant::now();
            let mut out = sending(now, 30);
            for (n, (upto, mask, what)) in (0u32..).zip(acks) {
                let now = now + MS * n;
                out.ack(now, (100 + upto).min(out.next() - 1), &mask, Some(MS * 2));
                match what {
                    0 => drop(out.time_out()),
                    1 | 2 => drop(out.next_again().map(|cut| out.resend(now, cut.number))),
                    3 => drop(out.duplicate()),
                    _ => {}
                }
                let under_way = out.packets.iter().filter(|sent| sent.state == State::UnderWay);
                prop_assert_eq!(out.in_flight(), under_way.map(|sent| u64::from(sent.len)).sum::<u64>());
                let kept: u64 = out.packets.iter().map(|sent| u64::from(sent.len)).sum();
                prop_assert_eq!(out.buffered() as u64, kept + out.uncut() as u64);
                prop_assert!(out.again.len() <= 2 * 30 * 60);
            }
        }
    }
}
