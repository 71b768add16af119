//! Strangers at the port that uTP listens on: no more connections than there may be, no memory beyond what was sent, never
//! much to an address that may be somebody else's, and no work without end.

use std::collections::BTreeMap;
use std::io::{IoSlice, IoSliceMut};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::{Duration, Instant};

use gannet::utp::{
    ConnKey, HEADER_LEN, Header, Kind, MAX_CONNECTIONS, MAX_RESETS, MAX_UNCONFIRMED, MAX_UNCONFIRMED_PER_IP, Mux,
    Packet, Path,
};

use super::tape::Tape;

const STEPS: usize = 200;

/// What one may hold of whose stream nothing is read and to whom nothing is written: a window, packets ahead of a missing one,
/// and the datagram that was a little too much.
const UNREAD: usize = (256 << 10) + 64 * 8192 + (64 << 10);

/// Packets that may go out at once: a window of the shortest.
const BURST: usize = 20_000;

/// What is known at one address.
#[derive(Default)]
struct Stranger {
    sent: usize,
    got: usize,
    /// It has answered from there, or was called.
    confirmed: bool,
    /// The last that it got, but for resets.
    last: Option<Header>,
}

struct World {
    mux: Mux,
    now: Instant,
    strangers: BTreeMap<SocketAddr, Stranger>,
    conns: Vec<ConnKey>,
    /// Connections that were ever in use.
    owned: usize,
    read: usize,
    written: usize,
    /// Seconds in which something came, and packets to tell that a connection is not known.
    seconds: usize,
    resets: usize,
}

pub fn run(data: &[u8]) {
    let mut tape = Tape(data);
    let now = Instant::now();
    let mux = Mux::new(now, [tape.byte(); 16]);
    let (strangers, conns) = (BTreeMap::new(), Vec::new());
    let mut world = World { mux, now, strangers, conns, owned: 0, read: 0, written: 0, seconds: 1, resets: 0 };
    for _ in 0..STEPS {
        if tape.is_over() {
            break;
        }
        world.step(&mut tape);
        world.settle();
    }
    world.end();
}

impl World {
    fn step(&mut self, tape: &mut Tape<'_>) {
        let kind = tape.byte();
        match kind % 16 {
            0..8 => self.packet(tape),
            8 => {
                let from = address(tape.byte());
                let len = usize::from(tape.byte());
                let datagram = tape.bytes(len).to_vec();
                self.comes(from, &datagram);
            }
            9 => self.flood(tape),
            10 => self.wait(Duration::from_millis(u64::from(tape.word()))),
            11 => {
                let until = self.mux.poll_timeout().unwrap_or(self.now).max(self.now);
                self.wait(until - self.now);
            }
            12 => {
                let remote = address(tape.byte());
                if self.conns.len() < 16
                    && let Some(key) = self.mux.connect(self.now, Path { remote, local: None })
                {
                    self.strangers.entry(remote).or_default().confirmed = true;
                    self.own(key);
                }
            }
            13 => self.read(tape),
            14 => self.write(tape),
            _ => {
                let Some(key) = self.conn(tape) else { return };
                if tape.flag() {
                    self.mux.close(self.now, key);
                    self.conns.retain(|other| *other != key);
                } else {
                    self.mux.handle_too_long(key, usize::from(tape.word()));
                }
            }
        }
    }

    fn conn(&self, tape: &mut Tape<'_>) -> Option<ConnKey> {
        self.conns.get(tape.below(self.conns.len())).copied()
    }

    fn own(&mut self, key: ConnKey) {
        self.conns.push(key);
        self.owned += 1;
    }

    fn wait(&mut self, time: Duration) {
        self.now += time;
        self.seconds += 1 + usize::try_from(time.as_secs()).unwrap();
        self.mux.handle_timeout(self.now);
    }

    /// A packet that may be what a peer would send next, or nearly.
    fn packet(&mut self, tape: &mut Tape<'_>) {
        let [from, what, id, seq, ack, len] = tape.array();
        let from = address(from);
        let last = self.strangers.get(&from).and_then(|stranger| stranger.last);
        let kinds = [Kind::Data, Kind::Fin, Kind::State, Kind::Reset, Kind::Syn];
        let kind = kinds[usize::from(what) % 5];
        let sign = |byte: u8| i16::from(byte.cast_signed());
        let (seq, ack) = match last {
            Some(last) => (
                last.ack.wrapping_add(1).wrapping_add_signed(sign(seq)),
                last.seq.wrapping_sub(1).wrapping_add_signed(sign(ack)),
            ),
            None => (u16::from(seq), u16::from(ack)),
        };
        let conn_id = match last {
            Some(last) if kind != Kind::Syn => last.conn_id.wrapping_add(1).wrapping_add_signed(sign(id)),
            _ => 1_000 + u16::from(id % 4) * 10,
        };
        let (mut timestamp, mut delay, mut window) = (1, 1, 1 << 20);
        if what & 0x80 != 0 {
            (timestamp, delay, window) = (tape.long(), tape.long(), tape.long());
        }
        let mut datagram = Vec::new();
        Header { kind, conn_id, timestamp, delay, window, seq, ack }.encode_into(&mut datagram);
        if what & 0x40 != 0 {
            // A mask, whose length need not be right.
            let mask = tape.bytes(usize::from(len % 64));
            datagram[1] = 1;
            datagram.extend_from_slice(&[0, u8::try_from(mask.len()).unwrap()]);
            datagram.extend_from_slice(mask);
        }
        if kind == Kind::Data {
            datagram.resize(datagram.len() + usize::from(len) * 6, 7);
        }
        self.comes(from, &datagram);
    }

    fn comes(&mut self, from: SocketAddr, datagram: &[u8]) {
        if let Some(packet) = Packet::parse(datagram) {
            let carried = packet.payload.len() + packet.selective_ack.map_or(0, <[u8]>::len);
            assert!(HEADER_LEN + carried <= datagram.len());
            let mut again = Vec::new();
            packet.header.encode_into(&mut again);
            assert_eq!(Packet::parse(&again).unwrap().header, packet.header);
        }
        self.strangers.entry(from).or_default().sent += datagram.len();
        self.mux.handle_datagram(self.now, self.now, Path { remote: from, local: None }, datagram);
        // Before anything is sent to it.
        while let Some((key, path)) = self.mux.poll_accept() {
            self.strangers.get_mut(&path.remote).expect("somebody who has sent something").confirmed = true;
            self.own(key);
        }
    }

    /// Many ask for connections, from many ports of one address.
    fn flood(&mut self, tape: &mut Tape<'_>) {
        let [from, count] = tape.array();
        let ip = address(from).ip();
        let before = self.mux.len();
        for port in 0..u16::from(count) {
            let from = SocketAddr::new(ip, 2_000 + port);
            let mut datagram = Vec::new();
            let syn = Header { kind: Kind::Syn, conn_id: 1_000, timestamp: 1, delay: 0, window: 9, seq: 1, ack: 0 };
            syn.encode_into(&mut datagram);
            self.comes(from, &datagram);
        }
        assert!(ip.is_loopback() || self.mux.len() <= before + MAX_UNCONFIRMED_PER_IP);
    }

    fn read(&mut self, tape: &mut Tape<'_>) {
        let Some(key) = self.conn(tape) else { return };
        let (mut first, mut second) = (vec![0; usize::from(tape.word())], [0; 100]);
        let readable = self.mux.is_readable(key);
        let mut places = [IoSliceMut::new(&mut first), IoSliceMut::new(&mut second)];
        match self.mux.read(self.now, key, &mut places) {
            Ok(None) => assert!(!readable),
            Ok(Some(len)) => {
                assert!(readable);
                self.read += len;
            }
            Err(_) => assert!(readable),
        }
    }

    fn write(&mut self, tape: &mut Tape<'_>) {
        let Some(key) = self.conn(tape) else { return };
        let bytes = vec![9; usize::from(tape.word())];
        if let Ok(Some(len)) = self.mux.write(key, &[IoSlice::new(&bytes), IoSlice::new(&bytes[..10.min(bytes.len())])])
        {
            assert!(len <= bytes.len() + 10);
            self.written += len;
        }
    }

    /// Fetches what is to be sent, and looks at the bounds.
    fn settle(&mut self) {
        let mut out = Vec::new();
        let mut packets = 0;
        loop {
            out.clear();
            let Some(batch) = self.mux.poll_transmit(self.now, 8, 12_000, &mut out) else { break };
            assert!(!out.is_empty() && batch.segment > 0 && out.len() <= 12_000);
            let stranger = self.strangers.entry(batch.path.remote).or_default();
            stranger.got += out.len();
            for datagram in out.chunks(batch.segment) {
                packets += 1;
                let header = Packet::parse(datagram).expect("what we send is sound").header;
                if header.kind == Kind::Reset {
                    assert_eq!((datagram.len(), batch.conn), (HEADER_LEN, None));
                    self.resets += 1;
                } else {
                    stranger.last = Some(header);
                }
            }
            // Three times in answer to who asks for a connection; once to who means one that is not known.
            assert!(stranger.confirmed || stranger.got <= 3 * stranger.sent, "{} is flooded", batch.path.remote);
            assert!(packets <= BURST, "it never has enough");
        }
        while let Some(key) = self.mux.poll_changed() {
            assert!(self.conns.contains(&key), "of a connection that nobody uses");
        }
        if let Some(at) = self.mux.poll_timeout()
            && at <= self.now
        {
            self.mux.handle_timeout(self.now);
            assert!(self.mux.poll_timeout().is_none_or(|at| at > self.now) || self.mux.wants_to_send(), "no rest");
        }
        assert!(self.resets <= self.seconds * MAX_RESETS as usize);
        assert!(self.mux.len() <= MAX_CONNECTIONS.min(MAX_UNCONFIRMED + self.owned));
        // Of what others have not confirmed, nothing is kept.
        let most = self.owned * UNREAD + 2 * self.read + self.written;
        assert!(self.mux.held() <= most, "{} bytes, {most} allowed", self.mux.held());
        for key in &self.conns {
            let figures = self.mux.figures(*key).expect("who uses one can ask for it");
            assert!(figures.datagram > 20 && figures.in_flight <= self.written as u64 + 1, "{figures:?}");
        }
    }

    /// Nobody says anything any more: everything comes to its end, and nothing is kept.
    fn end(&mut self) {
        for key in std::mem::take(&mut self.conns) {
            self.mux.close(self.now, key);
        }
        for _ in 0..3_000 {
            self.settle();
            let Some(at) = self.mux.poll_timeout().filter(|_| !self.mux.is_empty()) else { break };
            self.wait(at.max(self.now) - self.now);
        }
        self.settle();
        assert!(self.mux.is_empty(), "{} are left", self.mux.len());
        assert_eq!(self.mux.held(), 0);
    }
}

/// A few addresses: ports of one host, others, and loopback.
fn address(which: u8) -> SocketAddr {
    let ip = match which % 8 {
        0..3 => IpAddr::from(Ipv4Addr::new(198, 51, 100, 1)),
        3 => Ipv4Addr::new(198, 51, 100, 2).into(),
        4 => Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1).into(),
        5 => Ipv4Addr::LOCALHOST.into(),
        _ => Ipv4Addr::new(203, 0, 113, which >> 3).into(),
    };
    SocketAddr::new(ip, 1_000 + u16::from(which % 3))
}
