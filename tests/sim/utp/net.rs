//! A network of virtual time: hosts with uTP, one-way lines between them with a rate, a queue, a delay and faults, and a
//! sender in the manner of TCP to compete with.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap, HashMap};
use std::io::{IoSlice, IoSliceMut};
use std::net::SocketAddr;
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use gannet::utp::{ConnKey, Mux, Path};

/// Bytes of IP and UDP around each datagram.
const OVERHEAD: usize = 28;

/// A one-way line.
#[derive(Clone, Debug)]
pub(super) struct Line {
    /// Bytes per second.
    pub(super) rate: f64,
    /// Bytes that may wait.
    pub(super) queue: usize,
    pub(super) delay: Duration,
    /// Each packet takes up to so much longer, and may be overtaken.
    pub(super) jitter: Duration,
    /// Parts of a thousand.
    pub(super) loss: u32,
    pub(super) duplicates: u32,
    /// Longer datagrams vanish.
    pub(super) mtu: usize,
    /// When all that is queued has left.
    pub(super) free_at: Duration,
    pub(super) carried: u64,
    pub(super) dropped: u64,
    /// The longest wait in the queue since it was last asked for.
    pub(super) worst_wait: Duration,
    /// When it was last sent over, and for how long at most it was not.
    pub(super) last_use: Duration,
    pub(super) longest_silence: Duration,
}

impl Line {
    pub(super) fn new(mbit: f64, delay_ms: u64, queue_kib: usize) -> Self {
        Self {
            rate: mbit * 1e6 / 8.0,
            queue: queue_kib << 10,
            delay: Duration::from_millis(delay_ms),
            jitter: Duration::ZERO,
            loss: 0,
            duplicates: 0,
            mtu: 1500 - OVERHEAD,
            free_at: Duration::ZERO,
            carried: 0,
            dropped: 0,
            worst_wait: Duration::ZERO,
            last_use: Duration::ZERO,
            longest_silence: Duration::ZERO,
        }
    }

    /// When a packet that is sent `now` arrives, each time that it does.
    fn carry(&mut self, now: Duration, len: usize, rng: &mut fastrand::Rng) -> Vec<Duration> {
        self.longest_silence = self.longest_silence.max(now.saturating_sub(self.last_use));
        self.last_use = now;
        if len > self.mtu || rng.u32(0..1000) < self.loss {
            self.dropped += 1;
            return Vec::new();
        }
        let wait = self.free_at.saturating_sub(now);
        if wait.as_secs_f64() * self.rate > self.queue as f64 {
            self.dropped += 1;
            return Vec::new();
        }
        self.worst_wait = self.worst_wait.max(wait);
        self.free_at = self.free_at.max(now) + Duration::from_secs_f64((len + OVERHEAD) as f64 / self.rate);
        self.carried += len as u64;
        let copies = if rng.u32(0..1000) < self.duplicates { 2 } else { 1 };
        (0..copies).map(|_| self.free_at + self.delay + self.jitter.mul_f64(rng.f64())).collect()
    }
}

/// What a connection is used for.
#[derive(Debug, Default)]
pub(super) struct Flow {
    /// Bytes still to be written; then it is closed, if it is to be.
    pub(super) to_write: u64,
    pub(super) close_after: bool,
    pub(super) written: u64,
    pub(super) read: u64,
    /// The other side has ended its stream.
    pub(super) ended: bool,
    pub(super) error: Option<gannet::utp::Closed>,
    /// It does not read.
    pub(super) deaf: bool,
    /// What comes is not from a flow like this.
    pub(super) unchecked: bool,
}

pub(super) struct Host {
    pub(super) address: SocketAddr,
    pub(super) mux: Mux,
    pub(super) flows: BTreeMap<ConnKey, Flow>,
    pub(super) accepted: Vec<ConnKey>,
    wake_at: Option<Duration>,
    pub(super) sent_datagrams: u64,
    /// What new incoming connections are used for.
    pub(super) serve: fn() -> Flow,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum What {
    Wake(usize),
    Utp { from: usize, to: usize, bytes: Vec<u8> },
    Segment { sender: usize, number: u64 },
    Acked { sender: usize, number: u64 },
    Tick { sender: usize },
}

/// The world.
pub(super) struct Net {
    start: Instant,
    pub(super) now: Duration,
    pub(super) hosts: Vec<Host>,
    lines: Vec<Line>,
    /// Which line carries what goes from one host to another.
    ways: HashMap<(usize, usize), usize>,
    events: BinaryHeap<Reverse<(Duration, u64, What)>>,
    count: u64,
    pub(super) rng: fastrand::Rng,
    pub(super) rivals: Vec<Rival>,
    buffer: Vec<u8>,
    /// What was sent to addresses that are no host's.
    pub(super) strangers: Vec<(SocketAddr, Vec<u8>)>,
}

/// What all streams consist of, over and over: what arrives is compared with it.
fn pattern() -> &'static [u8] {
    static PATTERN: OnceLock<Vec<u8>> = OnceLock::new();
    PATTERN.get_or_init(|| {
        let mut rng = fastrand::Rng::with_seed(7);
        let once: Vec<u8> = std::iter::repeat_with(|| rng.u8(..)).take(PERIOD).collect();
        once.repeat(3)
    })
}

/// A prime, so that nothing that is lost or doubled goes unnoticed.
const PERIOD: usize = 65_521;

/// The bytes of the stream from `at` on, as many as 64 KiB.
fn stream_at(at: u64) -> &'static [u8] {
    let from = usize::try_from(at % PERIOD as u64).unwrap();
    &pattern()[from..from + (64 << 10)]
}

impl Net {
    pub(super) fn new(seed: u64) -> Self {
        Self {
            // The clock of the packets, which counts microseconds in 32 bits, wraps after two seconds.
            start: Instant::now(),
            now: Duration::ZERO,
            hosts: Vec::new(),
            lines: Vec::new(),
            ways: HashMap::new(),
            events: BinaryHeap::new(),
            count: 0,
            rng: fastrand::Rng::with_seed(seed),
            rivals: Vec::new(),
            buffer: Vec::new(),
            strangers: Vec::new(),
        }
    }

    pub(super) fn instant(&self) -> Instant {
        self.start + Duration::from_micros(1 << 32) - Duration::from_secs(2) + self.now
    }

    pub(super) fn host(&mut self) -> usize {
        let n = self.hosts.len();
        let address = SocketAddr::from(([10, 0, 0, u8::try_from(n + 1).unwrap()], 6881));
        let mux = Mux::new(self.start, [u8::try_from(n).unwrap(); 16]);
        self.hosts.push(Host {
            address,
            mux,
            flows: BTreeMap::new(),
            accepted: Vec::new(),
            wake_at: None,
            sent_datagrams: 0,
            serve: Flow::default,
        });
        n
    }

    /// A line, over which all pairs of `ways` go.
    pub(super) fn line(&mut self, line: Line, ways: &[(usize, usize)]) -> usize {
        self.lines.push(line);
        let n = self.lines.len() - 1;
        self.ways.extend(ways.iter().map(|way| (*way, n)));
        n
    }

    pub(super) fn line_mut(&mut self, line: usize) -> &mut Line {
        &mut self.lines[line]
    }

    /// Opens a connection.
    pub(super) fn connect(&mut self, from: usize, to: usize, flow: Flow) -> ConnKey {
        let path = Path { remote: self.hosts[to].address, local: None };
        let now = self.instant();
        let key = self.hosts[from].mux.connect(now, path).unwrap();
        self.hosts[from].flows.insert(key, flow);
        self.pump(from);
        key
    }

    pub(super) fn flow(&mut self, host: usize, key: ConnKey) -> &mut Flow {
        self.hosts[host].flows.get_mut(&key).unwrap()
    }

    /// Lets an application go on that had nothing to do.
    pub(super) fn nudge(&mut self, host: usize, key: ConnKey) {
        let now = self.instant();
        let me = &mut self.hosts[host];
        run_flow(now, &mut me.mux, key, me.flows.get_mut(&key).unwrap(), &mut self.buffer);
        self.pump(host);
    }

    pub(super) fn close(&mut self, host: usize, key: ConnKey) {
        let now = self.instant();
        self.hosts[host].mux.close(now, key);
        self.pump(host);
    }

    fn at(&mut self, when: Duration, what: What) {
        self.count += 1;
        self.events.push(Reverse((when, self.count, what)));
    }

    /// Runs until then.
    pub(super) fn run_until(&mut self, end: Duration) {
        while let Some(Reverse((when, _, _))) = self.events.peek()
            && *when <= end
        {
            let Some(Reverse((when, _, what))) = self.events.pop() else { break };
            self.now = when;
            self.handle(what);
        }
        self.now = end;
    }

    pub(super) fn run_for(&mut self, time: Duration) {
        self.run_until(self.now + time);
    }

    /// Runs until `done` or `limit` from now. Returns whether it was done.
    pub(super) fn run_while(&mut self, limit: Duration, mut busy: impl FnMut(&mut Self) -> bool) -> bool {
        let end = self.now + limit;
        while busy(self) {
            if self.now >= end {
                return false;
            }
            self.run_until((self.now + Duration::from_millis(10)).min(end));
        }
        true
    }

    fn handle(&mut self, what: What) {
        match what {
            What::Wake(host) => {
                if self.hosts[host].wake_at == Some(self.now) {
                    self.hosts[host].wake_at = None;
                    let now = self.instant();
                    self.hosts[host].mux.handle_timeout(now);
                    self.pump(host);
                }
            }
            What::Utp { from, to, bytes } => {
                let path = Path { remote: self.hosts[from].address, local: None };
                let now = self.instant();
                self.hosts[to].mux.handle_datagram(now, now, path, &bytes);
                self.pump(to);
            }
            What::Segment { sender, number } => {
                let rival = &self.rivals[sender];
                let (way, when) = (self.ways[&(rival.to, rival.from)], self.now);
                for at in self.lines[way].carry(when, 40, &mut self.rng) {
                    self.at(at, What::Acked { sender, number });
                }
                self.rivals[sender].received += 1;
            }
            What::Acked { sender, number } => {
                self.rivals[sender].on_ack(number, self.now);
                self.send_rival(sender);
            }
            What::Tick { sender } => {
                self.rivals[sender].on_tick(self.now);
                self.send_rival(sender);
                self.at(self.now + Duration::from_millis(50), What::Tick { sender });
            }
        }
    }

    /// Hands a datagram of nobody's to a host.
    pub(super) fn inject(&mut self, to: usize, remote: SocketAddr, bytes: &[u8]) {
        let now = self.instant();
        self.hosts[to].mux.handle_datagram(now, now, Path { remote, local: None }, bytes);
        self.pump(to);
    }

    /// Lets applications read and write, and sends what there is to send.
    pub(super) fn pump(&mut self, host: usize) {
        let now = self.instant();
        let me = &mut self.hosts[host];
        while let Some((key, _)) = me.mux.poll_accept() {
            me.accepted.push(key);
            me.flows.insert(key, (me.serve)());
        }
        let mut closed = Vec::new();
        let mut pending: Vec<ConnKey> = std::iter::from_fn(|| me.mux.poll_changed()).collect();
        pending.extend(me.accepted.iter().rev().take(1));
        for key in pending {
            let Some(flow) = me.flows.get_mut(&key) else { continue };
            run_flow(now, &mut me.mux, key, flow, &mut self.buffer);
            if flow.error.is_some() || flow.close_after && flow.to_write == 0 || flow.ended && flow.to_write == 0 {
                closed.push(key);
            }
        }
        for key in closed {
            me.mux.close(now, key);
        }
        self.transmit(host);
        let Some(at) = self.hosts[host].mux.poll_timeout() else { return };
        let when = self.now + at.saturating_duration_since(self.instant());
        if self.hosts[host].wake_at.is_none_or(|wake| when < wake) {
            self.hosts[host].wake_at = Some(when);
            self.at(when, What::Wake(host));
        }
    }

    fn transmit(&mut self, host: usize) {
        let now = self.instant();
        let mut batch = Vec::new();
        while let Some(transmit) = self.hosts[host].mux.poll_transmit(now, 40, 60_000, &mut batch) {
            let to = self.hosts.iter().position(|other| other.address == transmit.path.remote);
            for bytes in batch.chunks(transmit.segment) {
                self.hosts[host].sent_datagrams += 1;
                let Some(to) = to else {
                    self.strangers.push((transmit.path.remote, bytes.to_vec()));
                    continue;
                };
                let way = self.ways[&(host, to)];
                // Fragments come through, if the line is one that IP may run over.
                let mtu = self.lines[way].mtu;
                let len = if transmit.fragment && mtu >= 68 { bytes.len().min(mtu) } else { bytes.len() };
                for at in self.lines[way].carry(self.now, len, &mut self.rng) {
                    self.at(at, What::Utp { from: host, to, bytes: bytes.to_vec() });
                }
            }
            batch.clear();
        }
    }

    /// Starts a sender in the manner of TCP.
    pub(super) fn rival(&mut self, from: usize, to: usize) -> usize {
        self.rivals.push(Rival::new(from, to));
        let sender = self.rivals.len() - 1;
        self.at(self.now, What::Tick { sender });
        sender
    }

    fn send_rival(&mut self, sender: usize) {
        while let Some(number) = self.rivals[sender].next(self.now) {
            let rival = &self.rivals[sender];
            let way = self.ways[&(rival.from, rival.to)];
            for at in self.lines[way].carry(self.now, Rival::PACKET, &mut self.rng) {
                self.at(at, What::Segment { sender, number });
            }
        }
    }
}

fn run_flow(now: Instant, mux: &mut Mux, key: ConnKey, flow: &mut Flow, buffer: &mut Vec<u8>) {
    buffer.resize(64 << 10, 0);
    while !flow.deaf && !flow.ended {
        // Into two places, as a decoder does.
        let (a, b) = buffer.split_at_mut(5000);
        match mux.read(now, key, &mut [IoSliceMut::new(a), IoSliceMut::new(b)]) {
            Ok(Some(0)) => flow.ended = true,
            Ok(Some(n)) => {
                assert!(flow.unchecked || buffer[..n] == stream_at(flow.read)[..n], "wrong bytes after {}", flow.read);
                flow.read += n as u64;
            }
            Ok(None) => break,
            Err(cause) => {
                flow.error = Some(cause);
                break;
            }
        }
    }
    while flow.to_write > 0 && flow.error.is_none() {
        let len = usize::try_from(flow.to_write.min(16 << 10)).unwrap();
        let (a, b) = stream_at(flow.written)[..len].split_at(len / 3);
        match mux.write(key, &[IoSlice::new(a), IoSlice::new(b)]) {
            Ok(Some(n)) => {
                flow.written += n as u64;
                flow.to_write -= n as u64;
            }
            Ok(None) => break,
            Err(cause) => flow.error = Some(cause),
        }
    }
}

/// A sender that fills queues until they overflow: additive increase, halving at each loss, selective acknowledgements.
#[derive(Debug)]
pub(super) struct Rival {
    from: usize,
    to: usize,
    window: f64,
    threshold: f64,
    next_number: u64,
    in_flight: BTreeMap<u64, Duration>,
    again: u32,
    recovery: u64,
    last_ack: Duration,
    pub(super) received: u64,
}

impl Rival {
    const PACKET: usize = 1472;

    fn new(from: usize, to: usize) -> Self {
        Self {
            from,
            to,
            window: 10.0,
            threshold: f64::MAX,
            next_number: 0,
            in_flight: BTreeMap::new(),
            again: 0,
            recovery: 0,
            last_ack: Duration::ZERO,
            received: 0,
        }
    }

    fn next(&mut self, now: Duration) -> Option<u64> {
        if self.in_flight.len() as f64 >= self.window {
            return None;
        }
        self.next_number += 1;
        self.in_flight.insert(self.next_number, now);
        Some(self.next_number)
    }

    fn on_ack(&mut self, number: u64, now: Duration) {
        self.last_ack = now;
        if self.in_flight.remove(&number).is_none() {
            return;
        }
        self.window += if self.window < self.threshold { 1.0 } else { 1.0 / self.window };
        let lost: Vec<u64> = self.in_flight.range(..number.saturating_sub(3)).map(|(number, _)| *number).collect();
        for number in lost {
            self.in_flight.remove(&number);
            self.again += 1;
            if number > self.recovery {
                self.recovery = self.next_number;
                self.window = (self.window / 2.0).max(2.0);
                self.threshold = self.window;
            }
        }
    }

    fn on_tick(&mut self, now: Duration) {
        if !self.in_flight.is_empty() && now > self.last_ack + Duration::from_secs(1) {
            self.in_flight.clear();
            self.threshold = (self.window / 2.0).max(2.0);
            self.window = 2.0;
            self.last_ack = now;
        }
    }
}
