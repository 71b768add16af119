//! Two ends of uTP connections over a network that loses, repeats and reorders as it likes: what is read is what was written,
//! from the first byte on; and once the network is sound again, all of it arrives.

use std::collections::VecDeque;
use std::io::{IoSlice, IoSliceMut};
use std::net::{Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use gannet::utp::{Closed, ConnKey, Mux, Path};

use super::tape::Tape;

const STEPS: usize = 300;

/// Bytes that one side writes, at most.
const MOST: usize = 1 << 20;

/// Datagrams that may be under way at once; further ones are lost.
const UNDER_WAY: usize = 500;

/// For how long a sound network is waited for.
const PATIENCE: Duration = Duration::from_secs(1_200);

struct End {
    mux: Mux,
    address: SocketAddr,
    conn: Option<ConnKey>,
    written: usize,
    read: usize,
    /// It has closed its connection.
    closed: bool,
    /// What reading said at last.
    ended: Option<Result<(), Closed>>,
    /// Datagrams on their way to it.
    queue: VecDeque<Vec<u8>>,
}

struct World {
    now: Instant,
    ends: [End; 2],
}

pub fn run(data: &[u8]) {
    let mut tape = Tape(data);
    let now = Instant::now();
    let end = |number: u8| End {
        mux: Mux::new(now, [number; 16]),
        address: (Ipv4Addr::new(198, 51, 100, number), 6881).into(),
        conn: None,
        written: 0,
        read: 0,
        closed: false,
        ended: None,
        queue: VecDeque::new(),
    };
    let mut world = World { now, ends: [end(1), end(2)] };
    let path = Path { remote: world.ends[1].address, local: None };
    world.ends[0].conn = world.ends[0].mux.connect(now, path);
    world.carry();
    for _ in 0..STEPS {
        if tape.is_over() {
            break;
        }
        world.step(&mut tape);
        world.carry();
    }
    world.end();
}

impl World {
    fn step(&mut self, tape: &mut Tape<'_>) {
        let [what, number] = tape.array();
        let at = usize::from(what >> 7);
        let end = &mut self.ends[at];
        match what % 16 {
            0..5 => {
                for _ in 0..=number % 16 {
                    self.deliver(at);
                }
            }
            5 => {
                if let Some(late) = end.queue.pop_front() {
                    let to = usize::from(number).min(end.queue.len());
                    end.queue.insert(to, late);
                }
            }
            6 => end.queue.truncate(end.queue.len().saturating_sub(usize::from(number))),
            7 => {
                end.queue.pop_front();
            }
            8 => {
                if let Some(again) = end.queue.get(usize::from(number) % end.queue.len().max(1)).cloned() {
                    end.queue.push_back(again);
                }
            }
            9 | 10 => self.write(at, usize::from(number) * 97),
            11 => self.write(at, usize::from(number) << 10),
            12 => {
                let len = usize::from(tape.word());
                self.read(at, len);
            }
            13 => self.wait(Duration::from_millis(u64::from(number))),
            14 => {
                let due = self.ends.iter().filter_map(|end| end.mux.poll_timeout()).min();
                self.wait(due.map_or(Duration::ZERO, |due| due.saturating_duration_since(self.now)));
            }
            _ => match (number, end.conn) {
                (0, Some(key)) if !end.closed => {
                    end.closed = true;
                    end.mux.close(self.now, key);
                }
                (1..32, Some(key)) => end.mux.handle_too_long(key, usize::from(number) * 50),
                _ => {}
            },
        }
    }

    fn wait(&mut self, time: Duration) {
        self.now += time;
        self.ends.iter_mut().for_each(|end| end.mux.handle_timeout(self.now));
    }

    fn deliver(&mut self, at: usize) {
        let remote = self.ends[1 - at].address;
        let end = &mut self.ends[at];
        let Some(datagram) = end.queue.pop_front() else { return };
        end.mux.handle_datagram(self.now, self.now, Path { remote, local: None }, &datagram);
        while let Some((key, path)) = end.mux.poll_accept() {
            assert_eq!((path.remote, at), (remote, 1));
            assert_eq!(end.conn.replace(key), None, "one has called once");
        }
    }

    fn write(&mut self, at: usize, len: usize) {
        let end = &mut self.ends[at];
        let Some(key) = end.conn.filter(|_| !end.closed) else { return };
        let bytes: Vec<u8> = (end.written..(end.written + len).min(MOST)).map(|n| byte(at, n)).collect();
        let (first, second) = bytes.split_at(bytes.len() / 3);
        if let Ok(Some(len)) = end.mux.write(key, &[IoSlice::new(first), IoSlice::new(second)]) {
            end.written += len;
        }
    }

    /// True if there was something.
    fn read(&mut self, at: usize, len: usize) -> bool {
        let written = self.ends[1 - at].written;
        let closed = self.ends[1 - at].closed;
        let end = &mut self.ends[at];
        let Some(key) = end.conn.filter(|_| !end.closed && end.ended.is_none()) else { return false };
        let (mut first, mut second) = (vec![0; len / 4], vec![0; len - len / 4 + 1]);
        let result = end.mux.read(self.now, key, &mut [IoSliceMut::new(&mut first), IoSliceMut::new(&mut second)]);
        match result {
            Ok(None) => return false,
            Ok(Some(0)) => {
                assert!(closed && end.read == written, "the end after {} of {written} bytes", end.read);
                end.ended = Some(Ok(()));
            }
            Ok(Some(len)) => {
                assert!(end.read + len <= written, "more than was written");
                for (n, got) in (end.read..).zip(first.iter().chain(&second).take(len)) {
                    assert_eq!(*got, byte(1 - at, n), "byte {n}");
                }
                end.read += len;
            }
            Err(cause) => {
                // Resets come from who does not know a connection: because it was closed, or because nothing came for long.
                let known = closed || self.ends[1 - at].conn.is_none();
                let gone = self.ends[1 - at].ended.is_some_and(|ended| ended.is_err());
                let lost = self.ends[1 - at].conn.is_some_and(|key| self.ends[1 - at].mux.is_readable(key));
                assert!(cause == Closed::TimedOut || known || gone || lost, "{cause}");
                self.ends[at].ended = Some(Err(cause));
            }
        }
        true
    }

    /// From what is to be sent to what is under way.
    fn carry(&mut self) {
        for at in 0..2 {
            let mut out = Vec::new();
            loop {
                out.clear();
                let end = &mut self.ends[at];
                let Some(batch) = end.mux.poll_transmit(self.now, 16, 24_000, &mut out) else { break };
                assert_eq!(batch.path.remote, self.ends[1 - at].address);
                let there = &mut self.ends[1 - at].queue;
                there.extend(out.chunks(batch.segment).map(<[u8]>::to_vec));
                there.truncate(UNDER_WAY);
            }
            while self.ends[at].mux.poll_changed().is_some() {}
        }
    }

    /// From now on all goes well.
    fn end(&mut self) {
        let until = self.now + PATIENCE;
        while self.now < until && !self.is_done() {
            let mut busy = false;
            for at in 0..2 {
                busy |= !self.ends[at].queue.is_empty();
                while !self.ends[at].queue.is_empty() {
                    self.deliver(at);
                }
                while self.read(at, 70_000) {
                    busy = true;
                }
            }
            self.carry();
            if !busy {
                let due = self.ends.iter().filter_map(|end| end.mux.poll_timeout()).min();
                let Some(due) = due else { break };
                self.wait(due.saturating_duration_since(self.now).max(Duration::from_millis(1)));
                self.carry();
            }
        }
        let [here, there] = &self.ends;
        assert!(self.is_done(), "{} of {}, {} of {}", there.read, here.written, here.read, there.written);
    }

    /// Whether all that was written has been read, unless the connection has come to its end.
    fn is_done(&self) -> bool {
        let [here, there] = &self.ends;
        let over = |end: &End| end.closed || matches!(end.ended, Some(Err(_)));
        over(here) || over(there) || here.read == there.written && there.read == here.written
    }
}

/// Byte `n` of the stream that one end writes.
fn byte(at: usize, n: usize) -> u8 {
    let mixed = (n as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15 ^ at as u64);
    mixed.to_be_bytes()[2]
}
