/// Whether something keeps the clock right (NTP or the like); none if the system does not tell.
#[allow(unsafe_code, reason = "there is no safe call for it")]
pub fn is_clock_kept() -> Option<bool> {
    #[cfg(target_os = "linux")]
    {
        // SAFETY: all zeros is a valid value of this structure of integers, and asks for nothing to be changed.
        let mut state: libc::timex = unsafe { std::mem::zeroed() };
        // SAFETY: the pointer is to that structure, which lives as long as the call.
        let answer = unsafe { libc::adjtimex(&raw mut state) };
        (answer >= 0).then_some(answer != libc::TIME_ERROR && state.status & libc::STA_UNSYNC == 0)
    }
    #[cfg(not(target_os = "linux"))]
    None
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    #[test]
    fn linux_tells() {
        // Only a system that forbids the question does not.
        let told = super::is_clock_kept();
        assert!(told.is_some() || std::path::Path::new("/proc/sys/kernel/seccomp").exists(), "{told:?}");
    }
}
