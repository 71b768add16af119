//! Is this machine calm enough to be measured? The same work again and again, between the runs, tells.

use std::hint::black_box;
use std::sync::Barrier;
use std::thread;
use std::time::{Duration, Instant};

use super::stats::{NOISY, Sample};
use crate::sys;

/// How long one lap is meant to take on a calm machine.
const LAP: Duration = Duration::from_millis(5);

/// A lap is the calmest of so many: what the run before has left to be cleared away, and where threads are put at first, is
/// not the machine's noise.
const TRIES: usize = 3;

/// A fixed piece of arithmetic on every core at once, timed between the runs. What takes a core away or slows its clock
/// (other programs, other guests of the host, heat) shows here, and nothing that is being measured does.
pub(super) struct Calibration {
    steps: u64,
    threads: usize,
    /// How long each lap took, in seconds.
    laps: Sample,
    /// Which share of each lap was others' time.
    taken: Sample,
}

/// One go at a lap.
#[derive(Clone, Copy, Debug, Default)]
struct Lap {
    wall: Duration,
    /// Processor time of the same thread; where the system does not tell, as long.
    cpu: Duration,
}

impl Calibration {
    /// Finds out how much work a lap is.
    pub(super) fn new() -> Self {
        let mut steps = 1 << 14;
        // The fastest of a few: the first find the processor asleep.
        loop {
            let fastest = (0..3).map(|_| work(steps).wall).min().unwrap_or(LAP);
            if fastest * 4 >= LAP || steps >= 1 << 40 {
                let factor = LAP.as_secs_f64() / fastest.as_secs_f64().max(1e-9);
                let threads = thread::available_parallelism().map_or(1, usize::from);
                let (laps, taken) = (Sample::default(), Sample::default());
                return Self { steps: scaled(steps, factor), threads, laps, taken };
            }
            steps *= 2;
        }
    }

    /// One lap. What counts is the slowest core: work that is shared out waits for it.
    pub(super) fn lap(&mut self) {
        let calmest = (0..TRIES).map(|_| self.on_all_cores()).min_by_key(|lap| lap.wall).unwrap_or_default();
        self.laps.push(calmest.wall.as_secs_f64());
        self.taken.push(1.0 - calmest.cpu.as_secs_f64() / calmest.wall.as_secs_f64().max(1e-9));
    }

    fn on_all_cores(&self) -> Lap {
        let (start, steps) = (Barrier::new(self.threads), self.steps);
        thread::scope(|scope| {
            let run = || {
                start.wait();
                work(steps)
            };
            let others: Vec<_> = (1..self.threads).map(|_| scope.spawn(run)).collect();
            let own = run();
            let slower = |a: Lap, b: Lap| if b.wall > a.wall { b } else { a };
            others.into_iter().filter_map(|thread| thread.join().ok()).fold(own, slower)
        })
    }

    /// All laps, in seconds.
    pub(super) fn laps(&self) -> &Sample {
        &self.laps
    }

    /// How much longer the slower laps took than the fastest, as a share of that. One slow lap of many is no matter.
    fn apart(&self) -> f64 {
        let fastest = self.laps.min();
        if fastest > 0.0 { self.laps.quantile(0.75) / fastest - 1.0 } else { 0.0 }
    }

    /// In words, what was noisy.
    pub(super) fn complaints(&self) -> Vec<String> {
        let percent = |share: f64| format!("{:.0} %", share * 100.0);
        let limit = percent(NOISY);
        let mut complaints = Vec::new();
        // The slowest core of each lap, in half of the laps at least.
        if self.taken.median() > NOISY {
            let taken = percent(self.taken.median());
            complaints
                .push(format!("between the runs, others had {taken} of a core's time; more than {limit} is noisy"));
        }
        if self.apart() > NOISY {
            complaints.push(format!(
                "the same work, timed between the runs, took from {:.1} to {:.1} ms, {} apart; more than {limit} is noisy",
                self.laps.min() * 1e3,
                self.laps.quantile(0.75) * 1e3,
                percent(self.apart())
            ));
        }
        complaints
    }
}

#[expect(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a rough number of steps, far below 2^53"
)]
fn scaled(steps: u64, factor: f64) -> u64 {
    (steps as f64 * factor.clamp(0.1, 100.0)) as u64
}

/// `steps` of arithmetic, each of which needs the one before.
fn work(steps: u64) -> Lap {
    let (began, cpu_before) = (Instant::now(), sys::thread_cpu_time());
    let mut x: u64 = black_box(88_172_645_463_325_252);
    for _ in 0..steps {
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
    }
    black_box(x);
    let cpu = sys::thread_cpu_time().zip(cpu_before).map(|(after, before)| after.saturating_sub(before));
    let wall = began.elapsed();
    Lap { wall, cpu: cpu.unwrap_or(wall) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn complaints(laps: &[f64], taken: &[f64]) -> Vec<String> {
        let (laps, taken) = (Sample::new(laps.iter().copied()), Sample::new(taken.iter().copied()));
        Calibration { steps: 1, threads: 1, laps, taken }.complaints()
    }

    #[test]
    fn what_is_noisy() {
        assert!(complaints(&[], &[]).is_empty());
        let calm = [0.008, 0.0081, 0.0081, 0.0082, 0.05];
        assert!(complaints(&calm, &[0.0, 0.01, 0.02, 0.6, 0.0]).is_empty(), "one slow lap of five");
        let told = complaints(&[0.008, 0.010, 0.0101, 0.0102], &[0.0; 4]);
        assert!(told.len() == 1 && told[0].contains("from 8.0 to 10.1 ms, 27 % apart"), "{told:?}");
        // All laps take equally long, because somebody takes half of a core all the time.
        let told = complaints(&[0.016; 5], &[0.5, 0.49, 0.51, 0.5, 0.0]);
        assert!(told.len() == 1 && told[0].contains("others had 50 %"), "{told:?}");
    }

    #[test]
    fn laps_are_taken() {
        let mut calibration = Calibration::new();
        calibration.lap();
        calibration.lap();
        assert_eq!(calibration.laps().runs().len(), 2);
        assert!(calibration.laps().min() > 0.0 && calibration.taken.max() < 1.0);
    }
}
