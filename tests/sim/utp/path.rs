//! How uTP does on paths of all kinds: what it makes of the line, how long it makes others wait, whom it leaves how much.

use std::time::Duration;

use super::net::{Flow, Line, Net};

const ENDLESS: u64 = u64::MAX / 2;

/// What uTP may add to the delay of a path (BEP 29).
const TARGET: Duration = Duration::from_millis(100);

fn secs(n: u64) -> Duration {
    Duration::from_secs(n)
}

fn endless() -> Flow {
    Flow { to_write: ENDLESS, ..Flow::default() }
}

/// Hosts in pairs, all of whose data goes over one line, and what came back over another.
struct Bottleneck {
    net: Net,
    line: usize,
    /// What each receiver had when the last span began.
    before: Vec<u64>,
}

impl Bottleneck {
    fn new(seed: u64, line: Line, pairs: usize) -> Self {
        let mut net = Net::new(seed);
        let hosts: Vec<(usize, usize)> = (0..pairs).map(|_| (net.host(), net.host())).collect();
        let back = Line { rate: line.rate.max(1e6), queue: 1 << 20, ..line.clone() };
        let line = net.line(line, &hosts);
        net.line(back, &hosts.iter().map(|(a, b)| (*b, *a)).collect::<Vec<_>>());
        Self { net, line, before: Vec::new() }
    }

    fn start(&mut self, pair: usize) {
        self.net.connect(2 * pair, 2 * pair + 1, endless());
    }

    fn received(&self) -> Vec<u64> {
        let of = |host: usize| self.net.hosts[host].flows.values().map(|flow| flow.read).sum();
        (0..self.net.hosts.len() / 2).map(|pair| of(2 * pair + 1)).collect()
    }

    /// Parts of the line that the pairs had as payload from one second to another.
    fn shares(&mut self, from: u64, to: u64) -> Vec<f64> {
        self.net.run_until(secs(from));
        self.before = self.received();
        self.line().worst_wait = Duration::ZERO;
        self.net.run_until(secs(to));
        let whole = self.line().rate * (to - from) as f64;
        self.received().iter().zip(&self.before).map(|(now, before)| (now - before) as f64 / whole).collect()
    }

    fn line(&mut self) -> &mut Line {
        self.net.line_mut(self.line)
    }
}

/// Rate in Mbit/s, delay in ms, queue in KiB; the least share of the line in the first five seconds, and from ten to
/// twenty.
#[test]
fn n3_a_clean_line_is_filled_and_its_queue_is_not() {
    let table = [
        (100.0, 5, 4096, 0.8, 0.9),
        (100.0, 25, 4096, 0.8, 0.9),
        (100.0, 25, 128, 0.7, 0.85),
        (20.0, 10, 2048, 0.85, 0.9),
        (20.0, 50, 64, 0.7, 0.8),
        (20.0, 100, 2048, 0.55, 0.9),
        (20.0, 200, 2048, 0.1, 0.2),
        (1.0, 30, 512, 0.8, 0.85),
    ];
    for (mbit, delay, queue, early, late) in table {
        let mut world = Bottleneck::new(1, Line::new(mbit, delay, queue), 1);
        world.start(0);
        let share = world.shares(0, 5)[0];
        assert!(share >= early, "{mbit} Mbit/s, {delay} ms, {queue} KiB: {share} at first");
        let share = world.shares(10, 20)[0];
        assert!(share >= late, "{mbit} Mbit/s, {delay} ms, {queue} KiB: {share}");
        // One packet more takes a while on a slow line.
        let packet = Duration::from_secs_f64(1500.0 / world.line().rate);
        let wait = world.line().worst_wait;
        assert!(wait <= TARGET + packet, "{mbit} Mbit/s, {delay} ms, {queue} KiB: {wait:?} of queue");
    }
}

/// Losses and duplicates in parts of a thousand, delay one way and jitter in ms; the least payload in kB/s. The line takes
/// 100 Mbit/s.
#[test]
fn n1_n2_a_faulty_line_is_used_as_far_as_it_goes() {
    let table = [
        (1, 0, 25, 0, 1800),
        (5, 0, 25, 0, 800),
        (20, 0, 25, 0, 450),
        (50, 0, 25, 0, 250),
        (200, 0, 25, 0, 40),
        (0, 0, 25, 3, 8000),
        (0, 20, 25, 20, 6000),
        (5, 20, 25, 5, 700),
        (0, 0, 5, 5, 8000),
        (5, 20, 250, 30, 60),
    ];
    for (loss, duplicates, delay, jitter, least) in table {
        let jitter = Duration::from_millis(jitter);
        let line = Line { loss, duplicates, jitter, ..Line::new(100.0, delay, 1024) };
        let mut world = Bottleneck::new(2, line, 1);
        world.start(0);
        let rate = world.shares(5, 25)[0] * world.line().rate;
        assert!(
            rate >= f64::from(least) * 1000.0,
            "{loss}‰ lost, {duplicates}‰ twice, delay {delay} ms, jitter {jitter:?}: {rate}"
        );
    }
}

#[test]
fn flows_share_a_line_in_equal_parts_also_with_one_that_comes_late() {
    for (delay, late, queue) in [(25, 0, 1024), (25, 20, 1024), (100, 20, 1024), (25, 10, 64)] {
        let mut world = Bottleneck::new(3, Line::new(20.0, delay, queue), 2);
        world.start(0);
        world.net.run_until(secs(late));
        world.start(1);
        let shares = world.shares(late + 60, late + 90);
        let (less, more) = (shares[0].min(shares[1]), shares[0].max(shares[1]));
        assert!(less / more > 0.6 && less + more > 0.85, "{delay} ms, {late} s later, {queue} KiB: {shares:?}");
        let wait = world.line().worst_wait;
        assert!(wait <= TARGET, "{wait:?} of queue");
    }
}

#[test]
fn tcp_goes_first_where_a_queue_shows_it() {
    // A deep queue, which TCP fills, and a short one, where all that can be seen is loss.
    for (queue, most) in [(1024, 0.1), (64, 0.55)] {
        let mut world = Bottleneck::new(4, Line::new(20.0, 25, queue), 2);
        world.start(0);
        world.net.run_until(secs(10));
        world.net.rival(2, 3);
        let share = world.shares(40, 60)[0];
        assert!(share < most, "{queue} KiB: {share}");
        assert!(share > 0.001, "it is not starved either");
    }
}

#[test]
fn idle_time_does_no_harm() {
    let mut world = Bottleneck::new(5, Line::new(20.0, 25, 512), 1);
    let key = world.net.connect(0, 1, Flow { to_write: 4 << 20, ..Flow::default() });
    world.net.run_until(secs(200));
    assert_eq!(world.received(), [4 << 20]);
    world.line().worst_wait = Duration::ZERO;
    let start = world.net.now;
    world.net.flow(0, key).to_write = 4 << 20;
    world.net.nudge(0, key);
    assert!(world.net.run_while(secs(10), |net| net.hosts[1].flows.values().any(|flow| flow.read < 8 << 20)));
    let took = world.net.now - start;
    assert!(took < secs(4) && world.line().worst_wait < TARGET, "{took:?}, {:?}", world.line().worst_wait);
}

/// N6: routers forget who speaks UDP with whom after as little as 30 s. A connection on which nothing happens is heard of
/// more often than that, from both sides: either may be the one behind a router.
#[test]
fn n6_routers_are_kept_from_forgetting() {
    let mut world = Bottleneck::new(5, Line::new(20.0, 25, 512), 1);
    let key = world.net.connect(0, 1, Flow { to_write: 1 << 20, ..Flow::default() });
    world.net.run_until(secs(1_000));
    assert_eq!(world.received(), [1 << 20]);
    assert!(world.net.flow(0, key).error.is_none());
    for line in [world.line, world.line + 1] {
        let silence = world.net.line_mut(line).longest_silence;
        assert!((secs(10)..secs(30)).contains(&silence), "{silence:?}");
    }
}

#[test]
fn streams_go_both_ways_and_end_both_ways() {
    let line = Line { loss: 20, jitter: Duration::from_millis(5), duplicates: 10, ..Line::new(20.0, 25, 256) };
    let mut world = Bottleneck::new(6, line, 1);
    let len = 3_000_001;
    world.net.hosts[1].serve = || Flow { to_write: 2_000_003, ..Flow::default() };
    let key = world.net.connect(0, 1, Flow { to_write: len, close_after: false, ..Flow::default() });
    let done = |net: &mut Net| {
        let theirs = net.hosts[1].flows.values().next().is_some_and(|flow| flow.read == len);
        !(theirs && net.flow(0, key).read == 2_000_003)
    };
    assert!(world.net.run_while(secs(60), done));
    world.net.close(0, key);
    // The other side reads the end and closes; then both have forgotten the connection.
    let gone = |net: &mut Net| net.hosts.iter().any(|host| !host.mux.is_empty());
    assert!(world.net.run_while(secs(30), gone));
    let theirs = world.net.hosts[1].flows.values().next().unwrap();
    assert!(theirs.ended && theirs.error.is_none());
    assert!(world.net.hosts.iter().all(|host| host.mux.held() == 0));
}

#[test]
fn what_was_written_before_closing_arrives() {
    let mut world = Bottleneck::new(7, Line { loss: 10, ..Line::new(20.0, 25, 256) }, 1);
    world.net.connect(0, 1, Flow { to_write: 300_000, close_after: true, ..Flow::default() });
    let open = |net: &mut Net| net.hosts[1].flows.values().next().is_none_or(|flow| !flow.ended);
    assert!(world.net.run_while(secs(30), open));
    assert_eq!(world.received(), [300_000]);
}

#[test]
fn n4_paths_for_short_packets_only_are_found_out() {
    // With a path that carries no more than the base length, and one whose limit sinks under way.
    for (first, then) in [(1472, 1472), (1400, 1400), (1252, 1252), (1232, 1232), (548, 548), (1472, 1250), (1472, 520)]
    {
        let mut world = Bottleneck::new(8, Line { mtu: first, ..Line::new(20.0, 25, 256) }, 1);
        world.start(0);
        world.net.run_until(secs(5));
        world.line().mtu = then;
        let share = world.shares(15, 25)[0];
        let key = *world.net.hosts[0].flows.keys().next().unwrap();
        let datagram = usize::from(world.net.hosts[0].mux.figures(key).unwrap().datagram);
        assert!(
            datagram <= then && datagram + 16 > then.min(first).min(1472) * 9 / 10 || then < 1232,
            "{first} {then}: {datagram}"
        );
        assert!(share > 0.5, "{first}, then {then}: {share} in datagrams of {datagram}");
    }
}
