//! Those who do not play by the rules: floods, forgeries, numbers out of range (`w20`).

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use gannet::utp::{
    ConnKey, Header, Kind, MAX_CONNECTIONS, MAX_HELD, MAX_RESETS, MAX_UNCONFIRMED, MAX_UNCONFIRMED_PER_IP, Packet,
};
use proptest::prelude::*;

use super::net::{Flow, Line, Net};

/// A host under attack, and what it sends to strangers.
struct Target {
    net: Net,
}

fn stranger(n: u32) -> SocketAddr {
    SocketAddr::from((Ipv4Addr::from_bits(0x5000_0000 + n), 6881))
}

fn header(kind: Kind, conn_id: u16, seq: u16, ack: u16) -> Header {
    Header { kind, conn_id, timestamp: 77, delay: 0, window: 1 << 20, seq, ack }
}

fn bytes(header: Header, payload: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    header.encode_into(&mut bytes);
    bytes.extend_from_slice(payload);
    bytes
}

/// With an extension of number 1 behind the header.
fn with_mask(header: Header, mask: &[u8]) -> Vec<u8> {
    let mut bytes = bytes(header, &[]);
    bytes[1] = 1;
    bytes.extend_from_slice(&[0, u8::try_from(mask.len()).unwrap()]);
    bytes.extend_from_slice(mask);
    bytes
}

impl Target {
    fn new() -> Self {
        let mut net = Net::new(20);
        net.host();
        net.hosts[0].serve = || Flow { unchecked: true, ..Flow::default() };
        Self { net }
    }

    /// Sends it a datagram; what it answers to strangers, at once.
    fn gets(&mut self, from: SocketAddr, datagram: &[u8]) -> Vec<Vec<u8>> {
        self.net.strangers.clear();
        self.net.inject(0, from, datagram);
        self.answers()
    }

    fn answers(&mut self) -> Vec<Vec<u8>> {
        self.net.strangers.drain(..).map(|(_, bytes)| bytes).collect()
    }

    fn wait(&mut self, time: Duration) -> Vec<Vec<u8>> {
        self.net.run_for(time);
        self.answers()
    }

    /// A stranger connects in due form. What it knows: the number of its next packet, and of the last of the other side.
    fn connected(&mut self, from: SocketAddr) -> (u16, u16, ConnKey) {
        let answers = self.gets(from, &bytes(header(Kind::Syn, 1000, 1, 0), &[]));
        let answer = Packet::parse(&answers[0]).unwrap();
        assert_eq!((answer.header.kind, answer.header.ack, answer.header.conn_id), (Kind::State, 1, 1000));
        let ack = answer.header.seq.wrapping_sub(1);
        self.gets(from, &bytes(header(Kind::Data, 1001, 2, ack), b"x"));
        (3, ack, *self.net.hosts[0].accepted.last().unwrap())
    }

    fn held(&self) -> usize {
        self.net.hosts[0].mux.held()
    }
}

#[test]
fn w20_a_flood_of_first_packets_takes_little_and_is_answered_with_less() {
    let mut target = Target::new();
    let (mut sent, mut answered, mut answers) = (0, 0, 0);
    // Ten thousand addresses, three packets each.
    for n in 0..10_000 {
        for _ in 0..3 {
            let syn = bytes(header(Kind::Syn, 7, 1, 0), &[]);
            sent += syn.len();
            let back = target.gets(stranger(n), &syn);
            assert!(back.len() <= 1);
            answers += back.len();
            answered += back.iter().map(Vec::len).sum::<usize>();
        }
    }
    assert!(answers > 10_000, "nobody in earnest would get in");
    assert!(target.net.hosts[0].mux.len() <= MAX_UNCONFIRMED && target.held() == 0);
    let later: usize = target.wait(Duration::from_secs(60)).iter().map(Vec::len).sum();
    assert_eq!(later, 0, "what was not confirmed is not asked again");
    assert!(answered <= 3 * sent);
    assert!(target.net.hosts[0].mux.is_empty() && target.net.hosts[0].accepted.is_empty());
    // Ten thousand ports of one address.
    for port in 1..10_000 {
        target.gets((Ipv4Addr::new(192, 0, 2, 1), port).into(), &bytes(header(Kind::Syn, 7, 1, 0), &[]));
    }
    assert!(target.net.hosts[0].mux.len() <= MAX_UNCONFIRMED_PER_IP);
    // In the midst of a flood somebody connects in due form.
    for n in 0..1000 {
        target.gets(stranger(n), &bytes(header(Kind::Syn, 7, 1, 0), &[]));
    }
    target.connected(stranger(20_000));
    assert_eq!(target.net.hosts[0].accepted.len(), 1);
}

#[test]
fn w20_only_who_got_the_answer_is_connected() {
    let mut target = Target::new();
    let answer = target.gets(stranger(1), &bytes(header(Kind::Syn, 1000, 1, 0), &[]));
    let seq = Packet::parse(&answer[0]).unwrap().header.seq;
    // Who does not know the number has to guess it: all but one are wrong.
    for ack in (0..u16::MAX).filter(|ack| *ack != seq.wrapping_sub(1)) {
        let back = target.gets(stranger(1), &bytes(header(Kind::Data, 1001, 2, ack), b"x"));
        assert!(back.is_empty() && target.net.hosts[0].accepted.is_empty(), "{ack}");
    }
    target.gets(stranger(1), &bytes(header(Kind::Data, 1001, 2, seq.wrapping_sub(1)), b"x"));
    assert_eq!(target.net.hosts[0].accepted.len(), 1);
}

#[test]
fn w20_packets_of_no_connection_are_answered_for_a_while() {
    let mut target = Target::new();
    let mut answers = 0;
    for n in 0..10_000 {
        let datagram = bytes(header(Kind::Data, 9, 5, 5), &[0; 100]);
        let back = target.gets(stranger(n), &datagram);
        assert!(back.iter().all(|b| b.len() < datagram.len() && Packet::parse(b).unwrap().header.kind == Kind::Reset));
        answers += back.len();
        assert!(target.gets(stranger(n), &bytes(header(Kind::Reset, 9, 5, 5), &[])).is_empty(), "no reset for a reset");
    }
    assert_eq!(answers, MAX_RESETS as usize);
    assert!(target.net.hosts[0].mux.is_empty());
}

#[test]
fn w20_acknowledgements_out_of_range_and_forged_resets_do_nothing() {
    let mut target = Target::new();
    let from = stranger(1);
    let (seq, ack, key) = target.connected(from);
    target.net.flow(0, key).to_write = 50_000;
    target.net.nudge(0, key);
    let before = target.net.hosts[0].mux.figures(key).unwrap();
    assert!(before.in_flight > 10_000);
    let next = ack.wrapping_add(u16::try_from(before.in_flight.div_ceil(1212)).unwrap() + 1);
    for far in [0u16, 1, 100, 0x3fff, 0x7ffe] {
        target.gets(from, &bytes(header(Kind::State, 1001, seq, next.wrapping_add(far)), &[]));
        target.gets(from, &bytes(header(Kind::State, 1001, seq, ack.wrapping_sub(300).wrapping_sub(far)), &[]));
        target.gets(from, &bytes(header(Kind::Reset, 1001, seq, next.wrapping_add(far + 1)), &[]));
        target.gets(from, &bytes(header(Kind::Reset, 1001, seq, ack.wrapping_sub(1 + far)), &[]));
        // The right numbers from the wrong address.
        target.gets(stranger(2), &bytes(header(Kind::Reset, 1001, seq, ack), &[]));
    }
    let after = target.net.hosts[0].mux.figures(key).unwrap();
    assert_eq!((before.in_flight, before.window), (after.in_flight, after.window));
    assert!(target.net.flow(0, key).error.is_none());
    // The true one ends it, with either id.
    target.gets(from, &bytes(header(Kind::Reset, 1000, seq, ack.wrapping_add(1)), &[]));
    assert_eq!(target.net.flow(0, key).error, Some(gannet::utp::Closed::Reset));
}

#[test]
fn w20_huge_masks_name_only_what_was_sent() {
    let mut target = Target::new();
    let from = stranger(1);
    let (seq, ack, key) = target.connected(from);
    target.net.flow(0, key).to_write = 50_000;
    target.net.nudge(0, key);
    let mut resent = 0;
    for mask in [&[0xff; 252][..], &[0xff; 255], &[0xaa; 252], &[1], &[], &[0; 255]] {
        for _ in 0..20 {
            resent += target.gets(from, &with_mask(header(Kind::State, 1001, seq, ack), mask)).len();
        }
    }
    // All but the first have arrived, it says: that one and what is new may go, not more.
    assert!(resent < 60, "{resent}");
    assert!(target.held() < 200_000);
    assert!(target.net.flow(0, key).error.is_none());
}

#[test]
fn w20_n12_numbers_and_clocks_wrap() {
    // Longer than 65,536 packets, while the clock in the packets wraps as well: after 30 days, for the 604th time.
    let mut net = Net::new(21);
    let (a, b) = (net.host(), net.host());
    net.run_until(Duration::from_micros((1 << 32) * 603));
    net.line(Line { mtu: 1232, ..Line::new(400.0, 5, 1024) }, &[(a, b), (b, a)]);
    net.connect(a, b, Flow { to_write: 100_000_000, close_after: true, ..Flow::default() });
    let busy = |net: &mut Net| net.hosts[1].flows.values().next().is_none_or(|flow| !flow.ended);
    assert!(net.run_while(Duration::from_secs(60), busy));
    assert_eq!(net.hosts[1].flows.values().next().unwrap().read, 100_000_000);
}

#[test]
fn w20_who_has_no_room_is_asked_now_and_then() {
    let mut target = Target::new();
    let from = stranger(1);
    let (seq, ack, key) = target.connected(from);
    let closed = |ack| bytes(Header { window: 0, ..header(Kind::State, 1001, seq, ack) }, &[]);
    target.gets(from, &closed(ack));
    target.net.flow(0, key).to_write = 10_000_000;
    target.net.nudge(0, key);
    assert!(target.answers().is_empty(), "no room is no room");
    let mut probes = 0;
    for _ in 0..600 {
        for probe in target.wait(Duration::from_millis(100)) {
            assert!(Packet::parse(&probe).unwrap().payload.len() <= 1);
            probes += 1;
            // It lives, and still has no room.
            target.gets(from, &closed(ack));
        }
    }
    assert!((3..40).contains(&probes), "{probes} in a minute");
    assert!(target.held() < 200_000 && target.net.flow(0, key).error.is_none());
    // Room for one byte at a time is not worth a packet each.
    let mut sent = 0;
    for _ in 0..100 {
        sent += target.gets(from, &bytes(Header { window: 1, ..header(Kind::State, 1001, seq, ack) }, &[])).len();
    }
    assert!(sent <= 2, "{sent}");
}

#[test]
fn w20_the_end_may_come_early_and_twice() {
    let mut target = Target::new();
    let from = stranger(1);
    let (seq, ack, key) = target.connected(from);
    // Before all that precedes it; then again elsewhere; then data behind it.
    target.gets(from, &bytes(header(Kind::Fin, 1001, seq + 2, ack), &[]));
    target.gets(from, &bytes(header(Kind::Fin, 1001, seq, ack), &[]));
    target.gets(from, &bytes(header(Kind::Data, 1001, seq + 3, ack), b"late"));
    assert!(!target.net.flow(0, key).ended);
    target.net.flow(0, key).deaf = true;
    target.gets(from, &bytes(header(Kind::Data, 1001, seq + 1, ack), b"b"));
    let back = target.gets(from, &bytes(header(Kind::Data, 1001, seq, ack), b"a"));
    assert_eq!(Packet::parse(back.last().unwrap()).unwrap().header.ack, seq + 2, "all of it, with the end");
    // Who only asks for a connection and ends it is forgotten.
    let mut target = Target::new();
    let (seq, ack, _) = target.connected(from);
    target.gets(from, &bytes(header(Kind::Fin, 1001, seq, ack), &[]));
    target.wait(Duration::from_secs(60));
    assert!(target.net.hosts[0].mux.is_empty());
}

#[test]
fn w20_packets_of_one_byte_and_paths_for_nothing_take_little() {
    let mut target = Target::new();
    let from = stranger(1);
    let (seq, ack, key) = target.connected(from);
    target.net.flow(0, key).deaf = true;
    // The first is missing, for ever.
    for n in 1..20_000u16 {
        target.gets(from, &bytes(header(Kind::Data, 1001, seq.wrapping_add(n), ack), b"x"));
    }
    assert!(target.held() < 1 << 20, "{}", target.held());

    // A path that carries first packets, and none with payload.
    let mut net = Net::new(22);
    let (a, b) = (net.host(), net.host());
    net.line(Line { mtu: 21, ..Line::new(10.0, 10, 64) }, &[(a, b), (b, a)]);
    net.connect(a, b, Flow { to_write: 1_000_000, ..Flow::default() });
    net.run_for(Duration::from_secs(120));
    assert!(net.hosts[0].sent_datagrams < 100, "{}", net.hosts[0].sent_datagrams);
    assert!(net.hosts[0].flows.values().all(|flow| flow.error == Some(gannet::utp::Closed::TimedOut)));
}

#[test]
fn who_does_not_answer_is_given_up() {
    let mut net = Net::new(23);
    let (a, b) = (net.host(), net.host());
    net.line(Line { loss: 1000, ..Line::new(10.0, 10, 64) }, &[(a, b), (b, a)]);
    let key = net.connect(a, b, Flow { to_write: 1, ..Flow::default() });
    net.run_for(Duration::from_secs(10));
    assert_eq!(net.flow(a, key).error, Some(gannet::utp::Closed::TimedOut));
    assert_eq!(net.hosts[a].sent_datagrams, 3);
    assert!(net.hosts[a].mux.is_empty());
}

#[test]
fn there_is_room_for_so_many() {
    let mut target = Target::new();
    for n in 0..2 * u32::try_from(MAX_CONNECTIONS).unwrap() {
        let answers = target.gets(stranger(n), &bytes(header(Kind::Syn, 1000, 1, 0), &[]));
        let Some(answer) = answers.first() else { break };
        let ack = Packet::parse(answer).unwrap().header.seq.wrapping_sub(1);
        target.gets(stranger(n), &bytes(header(Kind::Data, 1001, 2, ack), &[7; 1000]));
    }
    assert_eq!(target.net.hosts[0].mux.len(), MAX_CONNECTIONS);
    assert!(target.held() < MAX_HELD);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Whatever an established peer sends: no panic, bounded memory, few answers.
    #[test]
    fn w20_anything_may_come(packets in proptest::collection::vec(
        (0u8..5, any::<i8>(), any::<i8>(), any::<u32>(), proptest::collection::vec(any::<u8>(), 0..40), any::<bool>()),
        1..200,
    )) {
        let mut target = Target::new();
        let from = stranger(1);
        let (seq, ack, key) = target.connected(from);
        target.net.flow(0, key).to_write = 100_000;
        target.net.nudge(0, key);
        let mut answers = 0;
        let count = packets.len();
        for (kind, seq_off, ack_off, window, tail, masked) in packets {
            let kind = [Kind::Data, Kind::Fin, Kind::State, Kind::Reset, Kind::Syn][usize::from(kind)];
            let (seq, ack) = (seq.wrapping_add_signed(seq_off.into()), ack.wrapping_add_signed(ack_off.into()));
            let header = Header { window, timestamp: window, delay: window, ..header(kind, 1001, seq, ack) };
            let datagram = if masked { with_mask(header, &tail) } else { bytes(header, &tail) };
            answers += target.gets(from, &datagram).len();
            target.wait(Duration::from_millis(u64::from(window % 300)));
        }
        prop_assert!(target.held() < 1 << 20);
        prop_assert!(answers < 300 + 20 * count);
    }
}
