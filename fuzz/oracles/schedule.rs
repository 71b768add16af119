//! When trackers are announced to: never too often, one job at a time for each, and the end comes.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use gannet::base::PeerId;
use gannet::tracker::{AnnounceEvent, AnnounceResponse, Job, Retry, Schedule, ScheduleConfig, Totals, TrackerError};

use super::tape::Tape;

/// Nothing sane asks for more than this many announces at once: 6 trackers over 2 families.
const MOST: usize = 12;

pub fn run(data: &[u8]) {
    let mut tape = Tape(data);
    let [flags, shape, seed] = tape.array();
    let urls = [
        "http://a/announce",
        "https://b/announce",
        "udp://c:1/announce",
        "http://d/x",
        "wss://e/",
        "http://f/announce",
    ];
    let tiers: Vec<Vec<String>> = urls
        .chunks(usize::from(shape % 6) + 1)
        .map(|tier| tier.iter().map(|url| (*url).to_owned()).collect())
        .collect();
    let config = ScheduleConfig {
        info_hash: [1; 20],
        peer_id: PeerId([2; 20]),
        key: 3,
        port_v4: (flags & 1 == 0).then_some(6881),
        port_v6: (flags & 2 == 0).then_some(6882),
        private: flags & 4 != 0,
    };
    let mut now = Instant::now();
    let mut schedule = Schedule::new(now, &tiers, config, seed.into());
    let mut jobs: Vec<Job> = Vec::new();
    let mut last: BTreeMap<(String, String), (Instant, bool)> = BTreeMap::new();
    let mut stopped = false;
    while !tape.is_over() {
        let mut rounds = 0;
        while let Some(job) = schedule.poll(now, Totals::default()) {
            rounds += 1;
            assert!(rounds <= MOST, "it never has enough");
            let who = (job.tracker.to_string(), job.family.to_string());
            let busy = jobs.iter().any(|other| other.tracker == job.tracker && other.family == job.family);
            assert!(!busy, "two announces to one tracker at once");
            if job.announce.event == AnnounceEvent::None
                && let Some((then, answered)) = last.get(&who)
                && *answered
            {
                assert!(now - *then >= Duration::from_secs(60), "{who:?} after {:?}", now - *then);
            }
            assert!(!stopped || is_farewell(&job));
            jobs.push(job);
        }
        assert!(config.private || jobs.len() <= MOST);
        match tape.byte() % 8 {
            0 => now += Duration::from_secs(u64::from(tape.word())),
            1 => now = schedule.poll_timeout(now).unwrap_or(now).max(now),
            2 => schedule.want_more_peers(now),
            3 if tape.byte() == 0 => schedule.handle_completed(now),
            4 if tape.byte() == 0 => {
                schedule.stop();
                stopped = true;
            }
            5 => schedule.set_ports(now, tape.flag().then_some(7_000), tape.flag().then_some(7_001)),
            _ if !jobs.is_empty() => {
                let job = jobs.swap_remove(tape.below(jobs.len()));
                let seconds = |tape: &mut Tape<'_>| Some(Duration::from_secs(60 + u64::from(tape.word())));
                let result = match tape.byte() % 4 {
                    0 => Err(TrackerError::Failure { reason: "no".into(), retry: Some(Retry::Never) }),
                    1 => Err(TrackerError::TimedOut(Duration::from_secs(30))),
                    2 => Ok(AnnounceResponse { interval: seconds(&mut tape), ..AnnounceResponse::default() }),
                    _ => Ok(AnnounceResponse { min_interval: seconds(&mut tape), ..AnnounceResponse::default() }),
                };
                schedule.handle_result(now, job.id, result.as_ref());
                last.insert((job.tracker.to_string(), job.family.to_string()), (now, result.is_ok()));
            }
            _ => {}
        }
    }
    // From here on nobody answers, and it has to stop all the same.
    schedule.stop();
    for _ in 0..4 * MOST {
        while let Some(job) = schedule.poll(now, Totals::default()) {
            assert!(is_farewell(&job));
            jobs.push(job);
        }
        let Some(job) = jobs.pop() else { break };
        schedule.handle_result(now, job.id, Err(&TrackerError::TimedOut(Duration::from_secs(5))));
    }
    assert!(jobs.is_empty(), "it says ever more");
    assert!(schedule.is_stopped(), "it does not stop");
}

/// A download that ends as soon as it is complete counts: who leaves says that first.
fn is_farewell(job: &Job) -> bool {
    matches!(job.announce.event, AnnounceEvent::Completed | AnnounceEvent::Stopped)
}
