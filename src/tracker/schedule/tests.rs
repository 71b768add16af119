//! A virtual clock, and trackers that are tables.

use super::*;
use AnnounceEvent::{Completed, None as Regular, Started, Stopped};

/// What a tracker does with an announce at that second: the answer, and after how many seconds it comes.
type Behaviour = fn(u64) -> (u64, Result<AnnounceResponse, TrackerError>);

struct World {
    start: Instant,
    now: u64,
    schedule: Schedule,
    trackers: Vec<(&'static str, Behaviour)>,
    /// Answers on their way: when, to which job, what.
    answers: Vec<(u64, JobId, Result<AnnounceResponse, TrackerError>)>,
    /// Who was asked when, with which event.
    log: Vec<(u64, String, AnnounceEvent)>,
}

fn every(seconds: u64) -> AnnounceResponse {
    AnnounceResponse { interval: Some(Duration::from_secs(seconds)), ..AnnounceResponse::default() }
}

fn live(_: u64) -> (u64, Result<AnnounceResponse, TrackerError>) {
    (0, Ok(every(1800)))
}

fn refuses(_: u64) -> (u64, Result<AnnounceResponse, TrackerError>) {
    (0, Err(TrackerError::Unreachable("connection refused".into())))
}

fn stalls(_: u64) -> (u64, Result<AnnounceResponse, TrackerError>) {
    (30, Err(TrackerError::TimedOut(Duration::from_secs(30))))
}

impl World {
    fn new(tiers: &[&[&'static str]], trackers: &[(&'static str, Behaviour)], private: bool) -> Self {
        let start = Instant::now();
        let tiers: Vec<Vec<String>> = tiers
            .iter()
            .map(|tier| tier.iter().map(|name| format!("http://{name}/announce?key=SECRET")).collect())
            .collect();
        let schedule = Schedule::new(start, &tiers, config(private), 7);
        Self { start, now: 0, schedule, trackers: trackers.to_vec(), answers: vec![], log: vec![] }
    }

    fn at(&self, second: u64) -> Instant {
        self.start + Duration::from_secs(second)
    }

    /// Runs until `end`, second by second but only those where something is due.
    fn run(&mut self, end: u64) -> &mut Self {
        loop {
            let now = self.at(self.now);
            while let Some(ready) = self.answers.iter().position(|a| a.0 <= self.now) {
                let (_, id, answer) = self.answers.remove(ready);
                self.schedule.handle_result(now, id, answer.as_ref());
            }
            while let Some(job) = self.schedule.poll(now, Totals::default()) {
                let name = job.tracker.to_string().replace("http://", "");
                let behaviour = self.trackers.iter().find(|t| t.0 == name).unwrap().1;
                let (delay, answer) = behaviour(self.now);
                self.answers.push((self.now + delay, job.id, answer));
                self.log.push((self.now, name, job.announce.event));
            }
            if self.answers.iter().any(|a| a.0 <= self.now) {
                continue;
            }
            let timer = self.schedule.poll_timeout(now).map(|t| t - self.start);
            let timer = timer.map(|t| (t.as_secs() + u64::from(t.subsec_nanos() > 0)).max(self.now + 1));
            let next = self.answers.iter().map(|a| a.0).chain(timer).min();
            match next {
                Some(next) if next <= end => self.now = next,
                _ => {
                    self.now = end;
                    return self;
                }
            }
        }
    }

    fn take_log(&mut self) -> Vec<(u64, String, AnnounceEvent)> {
        std::mem::take(&mut self.log)
    }

    fn events_of(&self, tracker: &str) -> Vec<(u64, AnnounceEvent)> {
        self.log.iter().filter(|l| l.1 == tracker).map(|l| (l.0, l.2)).collect()
    }
}

/// NAT: the port that a router has granted is told soon, but not sooner than the tracker allows, and only if it is news.
#[test]
fn another_port_is_told_soon() {
    fn with_min(_: u64) -> (u64, Result<AnnounceResponse, TrackerError>) {
        (0, Ok(AnnounceResponse { min_interval: Some(Duration::from_secs(300)), ..every(1800) }))
    }
    fn slow(_: u64) -> (u64, Result<AnnounceResponse, TrackerError>) {
        (4, Ok(every(1800)))
    }
    let mut world = World::new(&[&["a"], &["b"], &["c"]], &[("a", live), ("b", with_min), ("c", slow)], false);
    world.run(2);
    // While c has yet to answer.
    world.schedule.set_ports(world.at(2), Some(7000), Some(7001));
    world.run(1000);
    world.schedule.set_ports(world.at(1000), Some(7000), None);
    world.run(1700);
    assert_eq!(world.events_of("a"), [(0, Started), (60, Regular)]);
    assert_eq!(world.events_of("b"), [(0, Started), (300, Regular)]);
    assert_eq!(world.events_of("c"), [(0, Started), (64, Regular)]);
    let job = world.schedule.poll(world.at(5000), Totals::default()).unwrap();
    assert_eq!((job.announce.port, job.family), (7000, Family::V4));
}

/// A port that is not known any more: announces go on with the one before, and the tracker hears that we leave.
#[test]
fn a_family_whose_port_is_lost_goes_on() {
    let mut world = World::new(&[&["a"]], &[("a", live)], false);
    world.run(1);
    world.schedule.set_ports(world.at(1), None, Some(7001));
    world.run(1900);
    world.schedule.stop();
    world.run(1901);
    assert_eq!(world.events_of("a"), [(0, Started), (1800, Regular), (1900, Stopped)]);
    assert!(world.schedule.is_stopped());
}

fn config(private: bool) -> ScheduleConfig {
    ScheduleConfig { info_hash: [1; 20], peer_id: PeerId([2; 20]), key: 3, port_v4: Some(6881), port_v6: None, private }
}

#[test]
fn intervals_are_kept() {
    let mut world = World::new(&[&["a"]], &[("a", live)], false);
    world.run(6000);
    let times = world.take_log();
    let expected = [(0, Started), (1800, Regular), (3600, Regular), (5400, Regular)];
    assert_eq!(times.iter().map(|l| (l.0, l.2)).collect::<Vec<_>>(), expected);

    fn with_min(_: u64) -> (u64, Result<AnnounceResponse, TrackerError>) {
        (0, Ok(AnnounceResponse { min_interval: Some(Duration::from_secs(2700)), ..every(1800) }))
    }
    let mut world = World::new(&[&["a"]], &[("a", with_min)], false);
    assert_eq!(world.run(3000).events_of("a"), [(0, Started), (2700, Regular)]);
}

#[test]
fn more_peers_within_what_the_tracker_allows() {
    fn with_min(_: u64) -> (u64, Result<AnnounceResponse, TrackerError>) {
        (0, Ok(AnnounceResponse { min_interval: Some(Duration::from_secs(120)), ..every(1800) }))
    }
    for (behaviour, expected) in [(live as Behaviour, 300), (with_min, 120)] {
        let mut world = World::new(&[&["a"]], &[("a", behaviour)], false);
        world.run(10);
        for second in 10..20 {
            world.schedule.want_more_peers(world.at(second));
        }
        world.run(1000);
        assert_eq!(world.events_of("a"), [(0, Started), (expected, Regular)]);
    }
    // Long after that, at once.
    let mut world = World::new(&[&["a"]], &[("a", live)], false);
    world.run(1000);
    world.schedule.want_more_peers(world.at(1000));
    world.run(1001);
    assert_eq!(world.events_of("a"), [(0, Started), (1000, Regular)]);
}

/// Whatever the seed makes of the order, the live one is heard within 15 s although each dead one takes 30.
#[test]
fn t6_three_dead_and_one_live_in_one_tier() {
    for dead in [stalls as Behaviour, refuses] {
        let mut world =
            World::new(&[&["a", "b", "c", "d"]], &[("a", dead), ("b", dead), ("c", dead), ("d", live)], false);
        world.run(20);
        let first = world.events_of("d")[0];
        assert!(first.0 <= 15 && first.1 == Started, "{:?}", world.log);
        // It stays the one that is used: the dead ones are left alone while it works.
        world.run(60);
        world.take_log();
        world.run(20_000);
        assert!(world.log.iter().all(|l| l.1 == "d"), "{:?}", world.log);
        assert_eq!(world.log.len(), 11);
    }
}

#[test]
fn t6_dead_tiers_delay_no_other_tier() {
    let mut world = World::new(
        &[&["a"], &["b"], &["c"], &["d"]],
        &[("a", stalls), ("b", refuses), ("c", stalls), ("d", live)],
        false,
    );
    world.run(0);
    let asked: Vec<&str> = world.log.iter().map(|l| l.1.as_str()).collect();
    assert_eq!(asked, ["a", "b", "c", "d"]);
}

#[test]
fn t6_all_dead_for_an_hour_and_then_one_lives() {
    fn dead_for_an_hour(now: u64) -> (u64, Result<AnnounceResponse, TrackerError>) {
        if now < 3600 { refuses(now) } else { live(now) }
    }
    let mut world = World::new(
        &[&["a", "b", "c", "d"]],
        &[("a", refuses), ("b", refuses), ("c", refuses), ("d", dead_for_an_hour)],
        false,
    );
    world.run(3599);
    // Backing off: few tries, not one a second, and the gaps grow.
    let tries = world.events_of("d");
    assert!((7..=11).contains(&tries.len()), "{tries:?}");
    world.take_log();
    world.run(3600 + MAX_BACKOFF.as_secs());
    let first = world.events_of("d")[0];
    assert_eq!(first.1, Started);
    assert_eq!(world.events_of("d").len(), 1);
    // The user need not wait.
    world.schedule.announce_now(world.at(world.now));
}

#[test]
fn a_network_that_comes_back_need_not_wait() {
    let mut world = World::new(&[&["a"]], &[("a", refuses)], false);
    world.run(3000);
    world.take_log();
    world.schedule.announce_now(world.at(3000));
    world.run(3000);
    assert_eq!(world.events_of("a"), [(3000, Started)]);
}

#[test]
fn failover_and_the_front_of_the_tier() {
    fn down_at_1800(now: u64) -> (u64, Result<AnnounceResponse, TrackerError>) {
        if (1800..1830).contains(&now) { refuses(now) } else { live(now) }
    }
    let mut world = World::new(&[&["a", "b"]], &[("a", down_at_1800), ("b", down_at_1800)], false);
    world.run(0);
    let first = world.log[0].1.clone();
    let other = if first == "a" { "b" } else { "a" };
    world.run(7500);
    // At 1800 both fail; whichever answers first afterwards stays in front.
    let later: Vec<_> = world.log.iter().filter(|l| l.0 > 1830).collect();
    assert!(later.iter().all(|l| l.1 == later[0].1), "{later:?}");
    assert!(world.events_of(other).iter().any(|l| l.1 == Started));
}

#[test]
fn completed_and_stopped_go_to_those_that_heard_started() {
    let mut world = World::new(&[&["a"], &["b"], &["c"]], &[("a", live), ("b", refuses), ("c", stalls)], false);
    world.run(10);
    world.schedule.handle_completed(world.at(10));
    world.run(60);
    assert_eq!(world.events_of("a"), [(0, Started), (10, Completed)]);
    assert!(world.events_of("b").iter().all(|l| l.1 == Started));
    world.take_log();
    world.schedule.stop();
    assert!(!world.schedule.is_stopped());
    world.run(200);
    assert_eq!(world.take_log(), [(60, "a".into(), Stopped)]);
    assert!(world.schedule.is_stopped());
    assert_eq!(world.schedule.poll_timeout(world.at(200)), None);
}

#[test]
fn stop_while_announces_are_under_way() {
    fn slow(_: u64) -> (u64, Result<AnnounceResponse, TrackerError>) {
        (3, Ok(every(1800)))
    }
    let mut world = World::new(&[&["a"], &["b"]], &[("a", slow), ("b", stalls)], false);
    world.run(1);
    world.schedule.handle_completed(world.at(1));
    world.schedule.stop();
    world.run(100);
    // The tracker heard `started` after we had decided to leave.
    assert_eq!(world.events_of("a"), [(0, Started), (3, Completed), (6, Stopped)]);
    assert_eq!(world.events_of("b"), [(0, Started)]);
    assert!(world.schedule.is_stopped());

    // Complete and gone in the same moment.
    let mut world = World::new(&[&["a"]], &[("a", live)], false);
    world.run(5);
    world.schedule.handle_completed(world.at(5));
    world.schedule.stop();
    world.run(6);
    assert_eq!(world.events_of("a"), [(0, Started), (5, Completed), (5, Stopped)]);

    // A tracker that fails at the end is not asked for ever.
    fn dies(now: u64) -> (u64, Result<AnnounceResponse, TrackerError>) {
        if now < 5 { live(now) } else { refuses(now) }
    }
    let mut world = World::new(&[&["a"]], &[("a", dies)], false);
    world.run(5);
    world.schedule.handle_completed(world.at(5));
    world.schedule.stop();
    world.run(9999);
    assert_eq!(world.events_of("a"), [(0, Started), (5, Completed), (5, Stopped)]);
    assert!(world.schedule.is_stopped());
}

#[test]
fn retry_in_is_obeyed() {
    fn busy(now: u64) -> (u64, Result<AnnounceResponse, TrackerError>) {
        let retry = Some(Retry::After(Duration::from_secs(600)));
        if now < 600 { (0, Err(TrackerError::Failure { reason: "busy".into(), retry })) } else { live(now) }
    }
    fn never(_: u64) -> (u64, Result<AnnounceResponse, TrackerError>) {
        (0, Err(TrackerError::Failure { reason: "no tracker".into(), retry: Some(Retry::Never) }))
    }
    let mut world = World::new(&[&["a"], &["b"]], &[("a", busy), ("b", never)], false);
    world.run(5);
    world.schedule.announce_now(world.at(5));
    world.run(2000);
    assert_eq!(world.events_of("a"), [(0, Started), (600, Started)]);
    assert_eq!(world.events_of("b"), [(0, Started)]);
    let status = world.schedule.status();
    assert!(matches!(status[1].state, TrackerState::Disabled(_)));
    assert_eq!((status[0].fails, &status[0].state), (0, &TrackerState::Working));
}

#[test]
fn a_private_torrent_uses_one_tracker_at_a_time() {
    fn down_for_2000(now: u64) -> (u64, Result<AnnounceResponse, TrackerError>) {
        if now < 2000 { refuses(now) } else { live(now) }
    }
    let mut world = World::new(&[&["a"], &["b"], &["c"]], &[("a", down_for_2000), ("b", live), ("c", live)], true);
    world.run(9000);
    assert!(world.events_of("c").is_empty());
    let b = world.events_of("b");
    assert_eq!(b[0], (0, Started));
    assert_eq!(b.last().unwrap().1, Stopped);
    let back = world.events_of("a").into_iter().find(|l| l.0 >= 2000).unwrap();
    assert_eq!((b.last().unwrap().0, back.1), (back.0, Started));
}

#[test]
fn families_are_announced_on_their_own() {
    let start = Instant::now();
    let tiers = [vec![
        "http://name/announce".into(),
        "udp://127.0.0.1:1".into(),
        "http://[::1]:2/announce".into(),
        "wss://tracker/SECRET".into(),
        "http://name/announce".into(),
    ]];
    let both = ScheduleConfig { port_v6: Some(7000), ..config(false) };
    let mut schedule = Schedule::new(start, &tiers, both, 1);
    let rows: Vec<_> = schedule.status().into_iter().map(|row| (row.tracker, row.family)).collect();
    assert_eq!(rows.len(), 5, "{rows:?}");
    assert_eq!(rows[0], ("wss://tracker".into(), None));
    assert_eq!(rows.iter().filter(|r| r.0 == "http://name").count(), 2);
    let (mut jobs, mut polled) = (Vec::new(), start);
    while jobs.len() < 4 {
        while let Some(job) = schedule.poll(polled, Totals { uploaded: 1, downloaded: 2, left: 3 }) {
            jobs.push(job);
        }
        polled += PATIENCE;
    }
    for job in &jobs {
        assert_eq!(job.announce.port, if job.family == Family::V4 { 6881 } else { 7000 });
        assert_eq!((job.announce.uploaded, job.announce.downloaded, job.announce.left), (1, 2, 3));
        assert_eq!(job.announce.key, 3);
    }
    // No address of that family is no failure that shows up again and again.
    let error = TrackerError::NoAddress(jobs[0].family);
    let again = schedule.handle_result(start, jobs[0].id, Err(&error));
    assert_eq!(again, Some(start + MAX_BACKOFF));
    // A result that comes twice, or for no job, changes nothing.
    assert_eq!(schedule.handle_result(start, jobs[0].id, Err(&error)), None);
}

#[test]
fn what_a_tracker_gives_is_sent_back() {
    let start = Instant::now();
    let mut schedule = Schedule::new(start, &[vec!["http://a/announce".into()]], config(false), 1);
    let job = schedule.poll(start, Totals::default()).unwrap();
    let response = AnnounceResponse { tracker_id: Some(b"xyz".to_vec()), ..every(60) };
    let next = schedule.handle_result(start, job.id, Ok(&response)).unwrap();
    assert_eq!(schedule.poll(start, Totals::default()).map(|j| j.id), None);
    let again = schedule.poll(next, Totals::default()).unwrap();
    assert_eq!((again.announce.tracker_id, again.announce.event), (Some(b"xyz".to_vec()), Regular));
}

#[test]
fn lists_are_bounded_and_empty_ones_are_fine() {
    let many: Vec<String> = (0..100_000).map(|i| format!("http://h{i}/announce")).collect();
    let schedule = Schedule::new(Instant::now(), &[many.clone(), many], config(false), 1);
    assert_eq!(schedule.status().len(), MAX_TRACKERS);
    let mut none = Schedule::new(Instant::now(), &[vec![]], config(true), 1);
    assert!(none.is_empty());
    assert!(none.poll(Instant::now(), Totals::default()).is_none());
    none.stop();
    assert!(none.is_stopped());
    assert_eq!(host_of("junk://user:SECRET@host:1/SECRET?SECRET"), "junk://host:1");
    assert_eq!(host_of("no url SECRET"), "(not a URL)");
}

/// Something that happens to a schedule.
#[derive(Debug, Clone)]
enum Step {
    Wait(u64),
    /// The oldest job ends so.
    Answer(Result<u64, u8>),
    Completed,
    WantMore,
    AnnounceNow,
    Ports(Option<u16>, Option<u16>),
    Stop,
}

fn steps() -> impl proptest::strategy::Strategy<Value = Vec<Step>> {
    use proptest::prelude::*;
    let step = prop_oneof![
        4 => (0..2000u64).prop_map(Step::Wait),
        4 => prop::result::maybe_err(60..4000u64, 0..5u8).prop_map(Step::Answer),
        1 => Just(Step::Completed),
        2 => Just(Step::WantMore),
        1 => Just(Step::AnnounceNow),
        1 => (prop::option::of(1..9u16), prop::option::of(1..9u16)).prop_map(|(v4, v6)| Step::Ports(v4, v6)),
        1 => prop::bool::weighted(0.2).prop_map(|stop| if stop { Step::Stop } else { Step::WantMore }),
    ];
    prop::collection::vec(step, 0..60)
}

proptest::proptest! {
    /// Whatever happens, in whatever order: one job at a time for each tracker, `started` first, `completed` at most once,
    /// `stopped` only to those that heard, no regular announce within a minute of an answer, and an end to it.
    #[test]
    fn any_life(steps in steps(), private: bool, seed: u64) {
        let start = Instant::now();
        let urls = |names: &[&str]| names.iter().map(|n| format!("http://{n}/announce")).collect::<Vec<_>>();
        let tiers = [urls(&["a", "b", "c"]), urls(&["d"])];
        let both = ScheduleConfig { port_v6: Some(1), ..config(private) };
        let mut schedule = Schedule::new(start, &tiers, both, seed);
        let (mut now, mut open) = (start, Vec::<Job>::new());
        let mut heard: std::collections::HashMap<(String, Family), (bool, Instant)> = std::collections::HashMap::new();
        let mut stopping = false;
        for step in steps.into_iter().chain([Step::Stop]).chain(std::iter::repeat_n(Step::Answer(Ok(60)), 40)) {
            match step {
                Step::Wait(seconds) => now += Duration::from_secs(seconds),
                Step::Completed => schedule.handle_completed(now),
                Step::WantMore => schedule.want_more_peers(now),
                Step::AnnounceNow => schedule.announce_now(now),
                Step::Ports(v4, v6) => schedule.set_ports(now, v4, v6),
                Step::Stop => {
                    stopping = true;
                    schedule.stop();
                }
                Step::Answer(outcome) if !open.is_empty() => {
                    let job = open.remove(0);
                    let retry = |kind| match kind { 0 => Some(Retry::Never), 1 => Some(Retry::After(MAX_BACKOFF)), _ => None };
                    let result = outcome.map(every).map_err(|kind| match kind {
                        0..3 => TrackerError::Failure { reason: String::new(), retry: retry(kind) },
                        3 => TrackerError::NoAddress(job.family),
                        _ => TrackerError::TimedOut(MAX_BACKOFF),
                    });
                    schedule.handle_result(now, job.id, result.as_ref());
                    let key = (job.tracker.to_string(), job.family);
                    match (&result, job.announce.event) {
                        (_, Stopped) => drop(heard.insert(key, (false, now))),
                        (Ok(_), _) => drop(heard.insert(key, (true, now))),
                        (Err(_), _) => {}
                    }
                }
                Step::Answer(_) => {}
            }
            let mut polls = 0;
            while let Some(job) = schedule.poll(now, Totals::default()) {
                polls += 1;
                proptest::prop_assert!(polls <= 8);
                proptest::prop_assert!(!open.iter().any(|o| o.tracker == job.tracker && o.family == job.family));
                let known = heard.get(&(job.tracker.to_string(), job.family)).copied();
                proptest::prop_assert_eq!(known.is_some_and(|k| k.0), job.announce.event != Started);
                if let (Regular, Some((_, at))) = (job.announce.event, known) {
                    proptest::prop_assert!(now >= at + MIN_INTERVAL);
                }
                proptest::prop_assert!(!stopping || matches!(job.announce.event, Stopped | Completed));
                open.push(job);
            }
            if let Some(at) = schedule.poll_timeout(now) {
                proptest::prop_assert!(at > now, "nothing to do, and yet at once");
            }
            let _ = schedule.status();
        }
        proptest::prop_assert!(schedule.is_stopped());
    }
}
