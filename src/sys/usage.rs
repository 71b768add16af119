use std::io;
use std::process::{Child, Command};
use std::time::Duration;

/// Processor time, user and system, of a process and all its threads; `None` asks for this one. None where the system
/// does not tell, or the process is gone.
#[allow(unsafe_code, reason = "there is no safe call for it")]
pub fn cpu_time(process: Option<u32>) -> Option<Duration> {
    #[cfg(target_os = "linux")]
    let clock = match process {
        None => libc::CLOCK_PROCESS_CPUTIME_ID,
        Some(id) => {
            let mut clock = 0;
            // SAFETY: the only condition is that `clock` may be written to.
            if unsafe { libc::clock_getcpuclockid(i32::try_from(id).ok()?, &raw mut clock) } != 0 {
                return None;
            }
            clock
        }
    };
    #[cfg(not(target_os = "linux"))]
    let clock = match process {
        None => libc::CLOCK_PROCESS_CPUTIME_ID,
        Some(_) => return None,
    };
    read_clock(clock)
}

/// Processor time, user and system, of the calling thread. None where the system does not tell.
pub fn thread_cpu_time() -> Option<Duration> {
    read_clock(libc::CLOCK_THREAD_CPUTIME_ID)
}

#[allow(unsafe_code, reason = "there is no safe call for it")]
fn read_clock(clock: libc::clockid_t) -> Option<Duration> {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the only condition is that `time` may be written to; a clock that is none is an error.
    if unsafe { libc::clock_gettime(clock, &raw mut time) } != 0 {
        return None;
    }
    #[allow(clippy::useless_conversion, reason = "the types differ from system to system")]
    Some(Duration::new(u64::try_from(time.tv_sec).ok()?, u32::try_from(time.tv_nsec).ok()?))
}

/// Processor time of all child processes that have ended and were waited for.
#[allow(unsafe_code, reason = "there is no safe call for it")]
pub fn children_cpu_time() -> Duration {
    // SAFETY: plain numbers, for which all zeros are valid.
    let mut usage: libc::rusage = unsafe { std::mem::zeroed() };
    // SAFETY: the only condition is that `usage` may be written to.
    if unsafe { libc::getrusage(libc::RUSAGE_CHILDREN, &raw mut usage) } != 0 {
        return Duration::ZERO;
    }
    #[allow(clippy::useless_conversion, reason = "the types differ from system to system")]
    let time = |t: libc::timeval| {
        let micros = Duration::from_micros(u64::try_from(t.tv_usec).unwrap_or(0));
        Duration::from_secs(u64::try_from(t.tv_sec).unwrap_or(0)) + micros
    };
    time(usage.ru_utime) + time(usage.ru_stime)
}

/// Bytes of memory that a process (`None`: this one) has in use and that are no file's: what it costs the machine, without
/// the page cache that its maps show. None where the system does not tell.
pub fn anonymous_memory(process: Option<u32>) -> Option<u64> {
    #[cfg(target_os = "linux")]
    {
        let who = process.map_or_else(|| "self".to_owned(), |id| id.to_string());
        kibibytes(&format!("/proc/{who}/status"), "RssAnon:")
    }
    #[cfg(not(target_os = "linux"))]
    {
        let _ = process;
        None
    }
}

/// Bytes of memory that programs could take without others being swapped out. None where the system does not tell.
pub fn available_memory() -> Option<u64> {
    #[cfg(target_os = "linux")]
    return kibibytes("/proc/meminfo", "MemAvailable:");
    #[cfg(not(target_os = "linux"))]
    return None;
}

#[cfg(target_os = "linux")]
fn kibibytes(path: &str, name: &str) -> Option<u64> {
    let text = std::fs::read_to_string(path).ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    line.split_whitespace().next()?.parse::<u64>().ok()?.checked_mul(1024)
}

/// What kind of processor this is, as it calls itself.
pub fn processor_name() -> Option<String> {
    #[cfg(target_os = "linux")]
    {
        let text = std::fs::read_to_string("/proc/cpuinfo").ok()?;
        let line = text.lines().find(|line| line.starts_with("model name"))?;
        Some(line.split_once(':')?.1.split_whitespace().collect::<Vec<_>>().join(" "))
    }
    #[cfg(not(target_os = "linux"))]
    None
}

/// The system and its release, such as `Linux 6.18.1`.
pub fn system_name() -> String {
    #[cfg(target_os = "linux")]
    if let Ok(release) = std::fs::read_to_string("/proc/sys/kernel/osrelease") {
        return format!("Linux {}", release.trim());
    }
    std::env::consts::OS.to_owned()
}

/// Starts a program that a terminal's Ctrl-C does not reach, because whoever starts it decides when it ends. On Linux it
/// ends with the calling thread at the latest, so call this from one that lasts.
///
/// # Errors
/// As the system says; not found, above all.
#[allow(unsafe_code, reason = "what runs between fork and exec is beyond the compiler's sight")]
pub fn spawn_owned(command: &mut Command) -> io::Result<Child> {
    std::os::unix::process::CommandExt::process_group(command, 0);
    #[cfg(target_os = "linux")]
    // SAFETY: runs in the child before exec, where only calls are allowed that are safe in signal handlers: one system
    // call, and nothing is allocated.
    unsafe {
        std::os::unix::process::CommandExt::pre_exec(command, || {
            let signal = Some(rustix::process::Signal::KILL);
            rustix::process::set_parent_process_death_signal(signal).map_err(io::Error::from)
        });
    }
    command.spawn()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[cfg(target_os = "linux")]
    #[test]
    fn what_a_process_uses() {
        let before = cpu_time(None).unwrap();
        let held = vec![1_u8; 8 << 20];
        let own = anonymous_memory(None).unwrap();
        assert!(own >= 8 << 20, "{own}");
        while cpu_time(None).unwrap() < before + Duration::from_millis(5) {
            std::hint::black_box(&held);
        }
        assert!(cpu_time(Some(std::process::id())).is_some());
        assert!(thread_cpu_time().unwrap() <= cpu_time(None).unwrap());
        assert!(available_memory().unwrap() > 0);
        assert!(system_name().starts_with("Linux "));
        assert_eq!(anonymous_memory(Some(u32::MAX)), None);
        assert_eq!(cpu_time(Some(u32::MAX)), None);

        let children = children_cpu_time();
        let mut child =
            spawn_owned(Command::new("sh").args(["-c", "i=0; while [ $i -lt 20000 ]; do i=$((i+1)); done"])).unwrap();
        assert!(cpu_time(Some(child.id())).is_some());
        assert!(child.wait().unwrap().success());
        assert!(children_cpu_time() > children);
    }
}
