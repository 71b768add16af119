//! What a run uses: time, processor time, anonymous memory.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use super::table::Used;
use crate::sys;

/// How often memory is looked at. A look costs some tens of microseconds.
const LOOK: Duration = Duration::from_millis(10);
/// Where many processes are looked at, not more often than this for each, or looking would be what is measured.
const LOOK_EACH: Duration = Duration::from_millis(1);

/// Memory given back at a time by [`warm`], per thread.
const WARM_STEP: usize = 64 << 20;

/// Measures this process from its making until [`Meter::finish`].
pub(super) struct Meter {
    memory: MemoryWatch,
    cpu: Option<Duration>,
    started: Instant,
}

impl Meter {
    pub(super) fn start() -> Self {
        let memory = MemoryWatch::start(vec![None]);
        Self { memory, cpu: sys::cpu_time(None), started: Instant::now() }
    }

    pub(super) fn finish(self) -> Used {
        let wall = self.started.elapsed();
        let cpu = sys::cpu_time(None).zip(self.cpu).map(|(after, before)| after.saturating_sub(before));
        Used { wall, cpu, anonymous: self.memory.finish().into_iter().flatten().next() }
    }
}

/// Looks at the anonymous memory of processes again and again.
pub(super) struct MemoryWatch {
    over: Arc<AtomicBool>,
    /// None where the system gave no thread: then nothing is known.
    thread: Option<JoinHandle<Vec<Option<u64>>>>,
}

impl MemoryWatch {
    /// Of the processes with these ids; `None` is this one.
    pub(super) fn start(processes: Vec<Option<u32>>) -> Self {
        let over = Arc::new(AtomicBool::new(false));
        let stop = over.clone();
        let pause = LOOK.max(LOOK_EACH * u32::try_from(processes.len()).unwrap_or(u32::MAX));
        let watch = move || {
            let mut peaks = vec![None; processes.len()];
            loop {
                for (peak, process) in peaks.iter_mut().zip(&processes) {
                    *peak = sys::anonymous_memory(*process).max(*peak);
                }
                if stop.load(Ordering::Relaxed) {
                    return peaks;
                }
                thread::park_timeout(pause);
            }
        };
        let thread = thread::Builder::new().name("gannet-bench-memory".into()).spawn(watch).ok();
        Self { over, thread }
    }

    /// The most that was seen of each, in bytes; none of a process that was not there.
    pub(super) fn finish(mut self) -> Vec<Option<u64>> {
        self.over.store(true, Ordering::Relaxed);
        let Some(thread) = self.thread.take() else { return Vec::new() };
        thread.thread().unpark();
        thread.join().unwrap_or_default()
    }
}

impl Drop for MemoryWatch {
    fn drop(&mut self) {
        // Its thread ends by itself soon, also without being waited for.
        self.over.store(true, Ordering::Relaxed);
    }
}

/// Touches `bytes` of memory and gives them back, so that what the next run takes first is memory that the machine has
/// already: in a virtual machine the host finds a page the first time that it is touched, which takes up to three seconds
/// per GiB and would hide everything else. Three times as much is touched, for which pages come next is not ours to choose.
pub(super) fn warm(bytes: u64) {
    // No more than there is room for: the point is to have pages, not to push out others.
    let most = sys::available_memory().map_or(0, |free| free / 2);
    let bytes = usize::try_from(bytes.saturating_mul(3).min(most)).unwrap_or(0);
    let threads = thread::available_parallelism().map_or(1, usize::from);
    thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                // All of it held at once, or it would be the same few pages again and again.
                let parts = (bytes / threads).div_ceil(WARM_STEP);
                let held: Vec<Vec<u8>> = (0..parts).map(|_| vec![1; WARM_STEP]).collect();
                std::hint::black_box(&held);
            });
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_is_measured() {
        let meter = Meter::start();
        let held = vec![1_u8; 16 << 20];
        let until = Instant::now() + Duration::from_millis(20);
        while Instant::now() < until {
            std::hint::black_box(&held);
        }
        let used = meter.finish();
        assert!(used.wall >= Duration::from_millis(20));
        assert!(used.cpu.unwrap() >= Duration::from_millis(1), "{used:?}");
        assert!(used.anonymous.is_none_or(|bytes| bytes >= 16 << 20), "{used:?}");
        drop(held);
        warm(1);
        let of_two = MemoryWatch::start(vec![Some(u32::MAX), None]).finish();
        assert_eq!((of_two.len(), of_two[0]), (2, None));
    }
}
