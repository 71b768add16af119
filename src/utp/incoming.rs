//! What has arrived: bytes in order, and packets whose predecessors are missing.

use std::collections::VecDeque;
use std::io::IoSliceMut;
use std::time::{Duration, Instant};

/// The window of a new connection, in bytes.
const INITIAL_WINDOW: usize = 256 << 10;

/// The most that it grows to. At a round trip of 100 ms this is 80 MiB/s.
const MAX_WINDOW: usize = 8 << 20;

/// How far ahead of the first missing packet one may be. As many as a full window has, of 1,000 bytes each; windows of
/// shorter packets end here.
const MAX_AHEAD: usize = 8192;

/// What keeping a packet costs besides its bytes.
const PACKET_COST: usize = 64;

/// Bytes of the mask that tells which of them have come: as many as one extension has, in multiples of four.
const MAX_MASK: usize = 252;

/// The shortest time over which reading is measured, and the time where the round trip is not known.
const MIN_ROUND: Duration = Duration::from_millis(1);
const UNKNOWN_ROUND: Duration = Duration::from_millis(100);

/// What has arrived.
#[derive(Debug)]
pub(super) struct Incoming {
    /// Bytes in order, to be read.
    ready: VecDeque<u8>,
    /// The number of the first packet that is missing.
    next: u64,
    /// Packets from `next` on. The first is missing, or there would be none.
    ahead: VecDeque<Option<Box<[u8]>>>,
    /// How many of them have come, and how many bytes they have.
    ahead_count: usize,
    ahead_bytes: usize,
    /// The packet that ends the stream.
    fin: Option<u64>,
    /// Bytes that may wait here.
    capacity: usize,
    /// Bytes read since a round trip began.
    read: usize,
    round: Instant,
    /// Nobody reads any more.
    deaf: bool,
}

/// What became of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Taken {
    /// It was the next.
    InOrder,
    /// It was the next, and others behind it had come before.
    FilledGap,
    /// Others before it are missing.
    Ahead,
    /// It is known already.
    Duplicate,
    /// It is none that can be taken: too far off, too much, or behind the end.
    Refused,
}

impl Incoming {
    /// The first packet will have number `next`.
    pub(super) fn new(now: Instant, next: u64) -> Self {
        Self {
            ready: VecDeque::new(),
            next,
            ahead: VecDeque::new(),
            ahead_count: 0,
            ahead_bytes: 0,
            fin: None,
            capacity: INITIAL_WINDOW,
            read: 0,
            round: now,
            deaf: false,
        }
    }

    /// The number of the first packet that is missing.
    pub(super) fn next(&self) -> u64 {
        self.next
    }

    /// Bytes to be read.
    pub(super) fn readable(&self) -> usize {
        self.ready.len()
    }

    /// Whether all there will ever be has been read.
    pub(super) fn at_end(&self) -> bool {
        self.ready.is_empty() && self.has_all()
    }

    /// Whether all there will ever be has come.
    pub(super) fn has_all(&self) -> bool {
        self.fin.is_some_and(|fin| self.next > fin)
    }

    /// Whether packets are missing that others have overtaken.
    pub(super) fn has_gap(&self) -> bool {
        self.ahead_count > 0
    }

    /// Memory that is held, in bytes.
    pub(super) fn held(&self) -> usize {
        self.ready.len() + self.ahead_bytes + self.ahead_count * PACKET_COST
    }

    /// Bytes that there is room for.
    pub(super) fn window(&self) -> usize {
        self.capacity.saturating_sub(self.ready.len() + self.ahead_bytes)
    }

    /// Takes a packet with payload.
    pub(super) fn data(&mut self, number: u64, payload: &[u8]) -> Taken {
        if self.fin.is_some_and(|fin| number >= fin) {
            return Taken::Refused;
        }
        if number == self.next {
            // Others stand on this one, so it is taken even if it is a little too much.
            if self.window() == 0 && !self.has_gap() {
                return Taken::Refused;
            }
            self.append(payload);
            return self.go_on();
        }
        let Some(offset) = number.checked_sub(self.next) else { return Taken::Duplicate };
        let Some(offset) = usize::try_from(offset).ok().filter(|offset| *offset < MAX_AHEAD) else {
            return Taken::Refused;
        };
        if self.ahead.get(offset).is_some_and(Option::is_some) {
            return Taken::Duplicate;
        }
        if payload.len() > self.window() {
            return Taken::Refused;
        }
        if self.ahead.len() <= offset {
            self.ahead.resize_with(offset + 1, || None);
        }
        self.ahead_count += 1;
        self.ahead_bytes += payload.len();
        self.ahead[offset] = Some(payload.into());
        Taken::Ahead
    }

    /// Takes the packet that ends the stream.
    pub(super) fn fin(&mut self, number: u64) -> Taken {
        if let Some(fin) = self.fin {
            return if fin == number { Taken::Duplicate } else { Taken::Refused };
        }
        let behind_known = self.ahead.iter().rposition(Option::is_some).is_none_or(|n| number > self.next + n as u64);
        if number < self.next || number - self.next >= MAX_AHEAD as u64 || !behind_known {
            return Taken::Refused;
        }
        self.fin = Some(number);
        if number == self.next {
            self.next += 1;
            Taken::InOrder
        } else {
            Taken::Ahead
        }
    }

    /// The next packet has been taken; so are those behind it, as far as they have come.
    fn go_on(&mut self) -> Taken {
        let gap = self.has_gap();
        self.next += 1;
        self.ahead.pop_front();
        while let Some(Some(payload)) = self.ahead.front_mut().map(Option::take) {
            self.ahead.pop_front();
            self.ahead_count -= 1;
            self.ahead_bytes -= payload.len();
            self.next += 1;
            self.append(&payload);
        }
        if self.fin == Some(self.next) {
            self.next += 1;
        }
        if self.ahead_count == 0 {
            self.ahead = VecDeque::new();
        }
        if gap { Taken::FilledGap } else { Taken::InOrder }
    }

    fn append(&mut self, payload: &[u8]) {
        if !self.deaf {
            self.ready.extend(payload);
        }
    }

    /// The mask of BEP 29: a bit for each packet after the next, the lowest of the first byte for the one behind it.
    pub(super) fn mask(&self, into: &mut Vec<u8>) {
        into.clear();
        let packets = self.ahead.len().saturating_sub(1);
        into.resize((packets.div_ceil(8).next_multiple_of(4)).min(MAX_MASK), 0);
        for (n, packet) in self.ahead.iter().skip(1).enumerate().take(MAX_MASK * 8) {
            if packet.is_some() {
                into[n / 8] |= 1 << (n % 8);
            }
        }
    }

    /// Moves bytes to `places`, in their order. `round_trip` is the present one; `may_grow`: there is memory for more.
    pub(super) fn read(
        &mut self,
        now: Instant,
        places: &mut [IoSliceMut<'_>],
        round_trip: Option<Duration>,
        may_grow: bool,
    ) -> usize {
        let (head, tail) = self.ready.as_slices();
        let mut sources = [head, tail];
        let mut moved = 0;
        for place in places {
            let mut place = &mut place[..];
            for source in &mut sources {
                let n = source.len().min(place.len());
                let (to, rest) = place.split_at_mut(n);
                let (from, left) = source.split_at(n);
                to.copy_from_slice(from);
                (place, *source) = (rest, left);
                moved += n;
            }
        }
        self.ready.drain(..moved);
        if self.ready.is_empty() && self.ready.capacity() > INITIAL_WINDOW {
            self.ready = VecDeque::new();
        }
        self.read += moved;
        // What is read in a round trip is what the path holds: twice as much keeps it full while it gets faster.
        if now.saturating_duration_since(self.round) >= round_trip.unwrap_or(UNKNOWN_ROUND).max(MIN_ROUND) {
            if may_grow {
                self.capacity = self.capacity.max((self.read * 2).min(MAX_WINDOW));
            }
            self.read = 0;
            self.round = now;
        }
        moved
    }

    /// Nobody will read: what comes is counted and thrown away.
    pub(super) fn ignore(&mut self) {
        self.deaf = true;
        self.ready = VecDeque::new();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn read(incoming: &mut Incoming) -> Vec<u8> {
        let (mut a, mut b) = ([0; 3], [0; 100]);
        let mut places = [IoSliceMut::new(&mut a), IoSliceMut::new(&mut b)];
        let n = incoming.read(Instant::now(), &mut places, None, true);
        [&a[..], &b[..]].concat()[..n].to_vec()
    }

    #[test]
    fn order_is_restored() {
        let mut incoming = Incoming::new(Instant::now(), 10);
        assert_eq!(incoming.data(12, b"ef"), Taken::Ahead);
        assert_eq!(incoming.data(12, b"ef"), Taken::Duplicate);
        assert_eq!(incoming.data(10, b"ab"), Taken::FilledGap);
        assert_eq!((incoming.next(), incoming.has_gap()), (11, true));
        let mut mask = Vec::new();
        incoming.mask(&mut mask);
        assert_eq!(mask, [1, 0, 0, 0]);
        assert_eq!(incoming.data(9, b"xx"), Taken::Duplicate);
        assert_eq!(incoming.data(11, b"cd"), Taken::FilledGap);
        assert_eq!(incoming.data(13, b"gh"), Taken::InOrder);
        assert_eq!(read(&mut incoming), b"abcdefgh");
        assert_eq!(incoming.held(), 0);
    }

    #[test]
    fn masks_have_the_form_of_the_specification() {
        let mut incoming = Incoming::new(Instant::now(), 10);
        let mut mask = Vec::new();
        incoming.mask(&mut mask);
        assert!(mask.is_empty());
        for number in [11, 18, 19, 43] {
            incoming.data(number, b"x");
        }
        incoming.mask(&mut mask);
        assert_eq!(mask, [0b1000_0001, 1, 0, 0, 1, 0, 0, 0]);
        incoming.data(10 + 4000, b"x");
        incoming.mask(&mut mask);
        assert_eq!(mask.len(), MAX_MASK);
    }

    #[test]
    fn the_end_waits_for_all_before_it() {
        let mut incoming = Incoming::new(Instant::now(), 10);
        assert_eq!(incoming.fin(12), Taken::Ahead);
        assert_eq!(incoming.fin(12), Taken::Duplicate);
        assert_eq!(incoming.fin(11), Taken::Refused);
        assert_eq!(incoming.data(12, b"x"), Taken::Refused);
        assert_eq!(incoming.data(13, b"x"), Taken::Refused);
        incoming.data(11, b"b");
        assert!(!incoming.has_all());
        incoming.data(10, b"a");
        assert!(incoming.has_all() && !incoming.at_end());
        assert_eq!((read(&mut incoming), incoming.at_end()), (b"ab".to_vec(), true));
        let mut incoming = Incoming::new(Instant::now(), 10);
        incoming.data(12, b"x");
        assert_eq!(incoming.fin(11), Taken::Refused, "there is more behind it");
    }

    #[test]
    fn memory_is_bounded_whatever_comes() {
        let mut incoming = Incoming::new(Instant::now(), 10);
        // A byte each, and a gap that never closes.
        let taken = (11..100_000).filter(|n| incoming.data(*n, b"x") == Taken::Ahead).count();
        assert!(taken < MAX_AHEAD && incoming.held() <= MAX_AHEAD * (PACKET_COST + 1), "{taken}");
        assert!(incoming.ahead.len() <= MAX_AHEAD);
        assert_eq!(incoming.data(u64::MAX, b"x"), Taken::Refused);
        // Nobody reads.
        let mut incoming = Incoming::new(Instant::now(), 10);
        let packet = [0; 1400];
        let taken = (10..).take_while(|n| incoming.data(*n, &packet) == Taken::InOrder).count();
        assert!(taken * packet.len() < INITIAL_WINDOW + packet.len() && incoming.window() == 0);
        incoming.ignore();
        assert!(incoming.window() == INITIAL_WINDOW && incoming.readable() == 0);
        assert_eq!(incoming.data(incoming.next(), &packet), Taken::InOrder);
        assert_eq!(incoming.held(), 0);
    }

    #[test]
    fn the_window_grows_with_what_is_read() {
        let start = Instant::now();
        let mut incoming = Incoming::new(start, 0);
        let mut place = vec![0; 4 << 20];
        let round_trip = Some(Duration::from_millis(10));
        for (round, may_grow) in (1u32..).zip([false, true, true, true]) {
            let before = incoming.capacity;
            let mut next = incoming.next();
            while incoming.window() > 0 {
                incoming.data(next, &[0; 1400]);
                next += 1;
            }
            let now = start + Duration::from_millis(10) * round;
            incoming.read(now, &mut [IoSliceMut::new(&mut place)], round_trip, may_grow);
            assert_eq!(incoming.capacity > before, may_grow, "{round}");
        }
        assert!(incoming.capacity <= MAX_WINDOW);
    }

    proptest! {
        #[test]
        fn every_order_gives_the_same_stream(order in Just((0..60u64).collect::<Vec<_>>()).prop_shuffle(), again in proptest::collection::vec(0..60u64, 0..30)) {
            let mut incoming = Incoming::new(Instant::now(), 1000);
            for n in order.iter().chain(&again) {
                incoming.data(1000 + n, &[u8::try_from(*n).unwrap(); 1]);
            }
            let all: Vec<u8> = (0..60).collect();
            prop_assert_eq!(read(&mut incoming), all);
            prop_assert!(incoming.ahead_bytes == 0 && incoming.ahead_count == 0);
        }
    }
}
