use super::*;

fn addr(s: &str) -> SocketAddr {
    s.parse().unwrap()
}

/// Distinct public addresses.
fn public(n: u32) -> SocketAddr {
    SocketAddr::new(IpAddr::V4(Ipv4Addr::from_bits(0x0b00_0000 + n)), 6881)
}

fn secs(s: u64) -> Duration {
    Duration::from_secs(s)
}

fn list() -> Candidates {
    Candidates::new(CandidatesConfig::default(), 1)
}

fn drain(c: &mut Candidates, now: Instant) -> Vec<SocketAddr> {
    std::iter::from_fn(|| c.next(now)).map(|c| c.addr).collect()
}

#[test]
fn user_first_then_sources_in_turn_then_bep_40() {
    let t0 = Instant::now();
    let mut c = list();
    for (n, source) in [(1, Source::Pex), (2, Source::Pex), (3, Source::Pex), (4, Source::Dht), (5, Source::Tracker)] {
        assert_eq!(c.add(t0, public(n), source, None), Added::New);
    }
    assert_eq!(c.add(t0, public(9), Source::Manual, None), Added::New);
    assert_eq!(c.add(t0, public(1), Source::Tracker, None), Added::Known);
    c.set_external(addr("123.213.32.10:1"));
    let order = drain(&mut c, t0);
    assert_eq!(order[0], public(9));
    let mut pex = vec![public(1), public(2), public(3)];
    pex.sort_by_key(|&a| Reverse(peer_priority(addr("123.213.32.10:1"), a)));
    assert_eq!(order.iter().filter(|a| pex.contains(a)).copied().collect::<Vec<_>>(), pex);
    assert!(order[1..4].contains(&public(4)) && order[1..4].contains(&public(5)), "sources take turns");
    assert_eq!((order.len(), c.len()), (6, 6));
    assert_eq!(c.next(t0 + secs(3600)), None, "all are being dialled");
}

#[test]
fn strikes_backoff_and_success() {
    let t0 = Instant::now();
    let mut c = list();
    c.add(t0, public(1), Source::Tracker, None);
    let mut now = t0;
    for wait in [60, 120] {
        assert_eq!(c.next(now).unwrap().addr, public(1));
        c.failed(public(1), now);
        assert_eq!(c.next_at(), Some(now + secs(wait)));
        assert_eq!(c.next(now + secs(wait - 1)), None);
        now += secs(wait);
    }
    assert_eq!(c.next(now).unwrap().fails, 2);
    c.failed(public(1), now);
    assert_eq!((c.len(), c.next_at()), (0, None));
    assert_eq!(c.add(now, public(1), Source::Tracker, None), Added::Known, "given up not long ago");
    assert_eq!(c.add(now, public(1), Source::Manual, None), Added::Known);
    assert!(c.next(now + secs(60)).is_some(), "but the user insists");
    c.connected(public(1));
    c.closed(public(1), now, true);
    assert_eq!(c.remembered(), [public(1)]);

    let mut c = list();
    c.add(t0, public(1), Source::Tracker, None);
    c.add(t0, public(2), Source::Tracker, None);
    assert_eq!(drain(&mut c, t0).len(), 2);
    c.connected(public(1));
    c.connected(public(2));
    c.closed(public(1), t0, false);
    c.closed(public(2), t0, true);
    assert_eq!(c.next(t0 + secs(59)), None);
    assert_eq!(drain(&mut c, t0 + secs(60)), [public(2), public(1)], "the useful one first");
}

#[test]
fn one_ip_one_connection_one_dial_per_minute() {
    let t0 = Instant::now();
    let mut c = list();
    for port in 2000..2050 {
        let told = c.add(t0, SocketAddr::new(addr("9.9.9.9:1").ip(), port), Source::Pex, None);
        assert_eq!(told, if port < 2004 { Added::New } else { Added::Refused });
    }
    assert_eq!(drain(&mut c, t0).len(), 1);
    let dials: usize = (1..600).map(|s| drain(&mut c, t0 + secs(s)).len()).sum();
    assert_eq!(dials, 0, "while the first is being dialled");
    let busy: Vec<_> = c.busy.iter().copied().collect();
    c.failed(busy[0], t0 + secs(600));
    assert_eq!(drain(&mut c, t0 + secs(661)).len(), 1);

    // Loopback is exempt: many test peers share it.
    for port in 2000..2050 {
        assert_eq!(c.add(t0, SocketAddr::new(addr("127.0.0.1:1").ip(), port), Source::Resume, None), Added::New);
    }
    assert_eq!(drain(&mut c, t0 + secs(700)).len(), 50);
    let mut c = Candidates::new(CandidatesConfig { shared_ips: true, ..CandidatesConfig::default() }, 1);
    for port in 2000..2050 {
        c.add(t0, SocketAddr::new(addr("9.9.9.9:1").ip(), port), Source::Tracker, None);
    }
    assert_eq!(drain(&mut c, t0).len(), 50);
}

#[test]
fn incoming_peers_are_not_dialled_and_own_addresses_never() {
    let t0 = Instant::now();
    let mut c = list();
    c.connected(addr("9.9.9.9:50000"));
    assert_eq!(c.add(t0, addr("9.9.9.9:6881"), Source::Incoming, None), Added::New);
    c.connected(addr("9.9.9.9:6881"));
    assert_eq!(c.next(t0), None);
    c.closed(addr("9.9.9.9:50000"), t0, true);
    c.closed(addr("9.9.9.9:6881"), t0, true);
    assert_eq!(c.next(t0 + secs(61)).map(|c| c.addr), Some(addr("9.9.9.9:6881")));

    c.add(t0, addr("7.7.7.7:6881"), Source::Tracker, None);
    c.add_own(addr("[::ffff:7.7.7.7]:6881"));
    assert_eq!(c.next(t0 + secs(61)), None);
    assert_eq!(c.add(t0, addr("7.7.7.7:6881"), Source::Pex, None), Added::Refused);
    assert_eq!(c.add(t0, addr("7.7.7.7:6882"), Source::Pex, None), Added::New);
    c.ban(Identity::of(addr("7.7.7.7:1"), false));
    assert!(c.is_banned(addr("7.7.7.7:9")));
    assert_eq!(c.next(t0 + secs(62)), None);
    assert_eq!(c.add(t0, addr("7.7.7.7:6883"), Source::Manual, None), Added::Refused);
}

#[test]
fn full_lists_keep_a_quarter_for_everybody() {
    let t0 = Instant::now();
    let mut c = list();
    for n in 0..10_000 {
        c.add(t0, public(n), Source::Pex, None);
    }
    assert_eq!(c.len(), CAPACITY);
    for n in 10_000..20_000 {
        c.add(t0, public(n), Source::Tracker, None);
    }
    assert_eq!(c.len(), CAPACITY);
    assert_eq!(c.counts[Source::Tracker as usize], CAPACITY / 4);
    assert_eq!(c.add(t0, public(30_000), Source::Dht, None), Added::New);
    assert_eq!(c.counts[Source::Pex as usize], CAPACITY * 3 / 4 - 1);
    c.set_capacity(PAUSED_CAPACITY);
    assert_eq!(c.len(), PAUSED_CAPACITY);
    assert_eq!(c.counts[Source::Dht as usize], 1);
    assert_eq!(c.ready.iter().map(BTreeSet::len).sum::<usize>(), PAUSED_CAPACITY);
}

/// One peer names an address after the other: what it may hold is bounded, and comes back when its inventions are
/// given up.
#[test]
fn one_teller_holds_two_hundred() {
    let t0 = Instant::now();
    let mut c = list();
    let (liar, other) = (Some(addr("9.9.9.9:1").ip()), Some(addr("8.8.8.8:1").ip()));
    let told = (0..1_000).filter(|&n| c.add(t0, public(n), Source::Pex, liar) == Added::New);
    assert_eq!(told.count(), MAX_PER_TELLER);
    assert_eq!(c.add(t0, public(2_000), Source::Pex, other), Added::New);
    assert_eq!(c.add(t0, public(2_001), Source::Dht, liar), Added::Full);
    assert_eq!(c.add(t0, public(2_002), Source::Tracker, liar), Added::New, "trackers may name more");
    let mut now = t0;
    while !c.is_empty() {
        drain(&mut c, now).into_iter().for_each(|a| c.failed(a, now));
        now += secs(30);
    }
    assert_eq!(c.add(now, public(2_001), Source::Pex, liar), Added::Full, "those given up count");
    now += GIVEN_UP_TIME;
    assert_eq!(c.add(now, public(2_001), Source::Pex, liar), Added::New);
    assert_eq!(c.tellers, BTreeMap::from([(liar.unwrap(), 1)]));
}

/// Ten thousand inventions and one real peer (N13).
#[test]
fn the_real_peer_is_found_within_a_minute() {
    for (fakes, real) in [(Source::Pex, Source::Tracker), (Source::Tracker, Source::Lsd), (Source::Dht, Source::Pex)] {
        let t0 = Instant::now();
        let mut c = list();
        for n in 0..10_000 {
            c.add(t0, public(n), fakes, None);
        }
        c.add(t0, public(70_000), real, None);
        // 64 half-open dials of 10 s each: 6 per second.
        let found = (0..60 * 6).find(|i| {
            let now = t0 + Duration::from_millis(i * 166);
            let next = c.next(now).unwrap();
            c.failed(next.addr, now);
            next.addr == public(70_000)
        });
        assert!(found.is_some_and(|i| i < 20), "{fakes:?} {real:?} {found:?}");
    }
}

/// Whatever strangers and the network do, the queues agree with the table.
#[test]
fn queues_agree_after_anything() {
    const SOURCES_ALL: [Source; SOURCES] = [
        Source::Manual,
        Source::Incoming,
        Source::Lsd,
        Source::Tracker,
        Source::Resume,
        Source::Pex,
        Source::Dht,
        Source::Magnet,
    ];
    for seed in 0..20 {
        let mut dice = fastrand::Rng::with_seed(seed);
        let mut c = Candidates::new(CandidatesConfig { capacity: 150, ..CandidatesConfig::default() }, seed);
        let mut now = Instant::now();
        for _ in 0..3_000 {
            let who = public(dice.u32(..400));
            match dice.u8(..12) {
                0..=4 => {
                    let by = dice.bool().then(|| public(dice.u32(..3)).ip());
                    _ = c.add(now, who, SOURCES_ALL[dice.usize(..SOURCES)], by);
                }
                5..=7 => _ = c.next(now),
                8 => c.connected(who),
                9 => c.failed(who, now),
                10 => c.closed(who, now, dice.bool()),
                _ if dice.u8(..20) == 0 => c.ban(Identity::of(who, false)),
                _ if dice.u8(..20) == 0 => c.set_external(public(dice.u32(..1 << 20))),
                _ => now += Duration::from_secs(dice.u64(..90)),
            }
            assert!(c.entries.len() <= 150);
        }
        for (&addr, entry) in &c.entries {
            let queued = match entry.state {
                State::Ready => c.ready[entry.source as usize].contains(&entry.rank(addr)),
                State::Later(at) => c.later.contains(&(at, addr)),
                State::GivenUp(at) => c.given_up.contains(&(at, addr)),
                State::Busy => c.busy.contains(&addr),
            };
            assert!(queued, "{addr} {entry:?}");
        }
        let queued = c.ready.iter().map(BTreeSet::len).sum::<usize>() + c.later.len() + c.given_up.len();
        let busy = c.entries.values().filter(|e| e.state == State::Busy).count();
        assert_eq!(queued + busy, c.entries.len());
        assert_eq!(c.counts.iter().sum::<usize>(), c.entries.len());
        assert_eq!(c.tellers.values().sum::<usize>(), c.entries.values().filter(|e| e.teller.is_some()).count());
    }
}
