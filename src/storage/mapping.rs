//! Mapped files, and the guard without which a file that is cut under its map ends the process.
//!
//! With `hash/` and `sys/` the only `unsafe` of the crate. No reference to mapped bytes ever exists: another process
//! may change them at any time, so bytes are copied in and out by pointer.
//!
//! ```text
//! write:  MADV_POPULATE_WRITE over the pages   no space, no file behind the map: EFAULT, no signal
//!         arm the guard of this thread
//!         copy                                 the page went meanwhile: SIGBUS -> a page of zeros takes its
//!                                              place, the map is marked, the copy goes on into that page
//!         disarm; marked?  -> an error, and the map is never used again
//! ```
#![allow(unsafe_code, reason = "mapping files has no safe form; each block says why it is sound")]

use std::cell::Cell;
use std::fs::File;
use std::io;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicPtr, AtomicUsize, Ordering};

use memmap2::{MmapOptions, MmapRaw};

/// A file, mapped whole, readable and writable.
#[derive(Debug)]
pub(super) struct Mapping {
    map: MmapRaw,
    poisoned: AtomicBool,
}

/// There is nothing behind a part of the map any more, or no space for it. Why, the map cannot tell: ask the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Fault;

impl Mapping {
    /// Maps the first `len` bytes of `file` (at least one), which must be that long: beyond its end is a fault.
    pub(super) fn new(file: &File, len: u64) -> io::Result<Self> {
        let len = usize::try_from(len).map_err(|_| io::ErrorKind::OutOfMemory)?;
        if len == 0 {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        install()?;
        Ok(Self { map: MmapOptions::new().len(len).map_raw(file)?, poisoned: AtomicBool::new(false) })
    }

    /// Writes `slices`, one behind the other, from `offset` on. After a fault what was written is undefined.
    pub(super) fn write(&self, offset: u64, slices: &[&[u8]]) -> Result<(), Fault> {
        let len = slices.iter().map(|s| s.len()).sum();
        let start = self.range(offset, len)?;
        self.populate(start, len)?;
        self.guard().armed(|| {
            let mut at = start;
            for slice in slices {
                // SAFETY: `range` has checked that all slices together end within the map, which lives as long as
                // `self`; a slice of ours cannot overlap it, as no reference to mapped bytes is ever made. Pages that
                // went away are replaced by the handler, so the copy ends.
                unsafe { std::ptr::copy_nonoverlapping(slice.as_ptr(), self.map.as_mut_ptr().add(at), slice.len()) };
                at += slice.len();
            }
        });
        self.release(start, len);
        self.outcome()
    }

    /// Reads into `buf` from `offset` on. After a fault its contents are undefined.
    #[cfg_attr(not(test), expect(dead_code, reason = "reading goes through pread; measured in the benches"))]
    pub(super) fn read(&self, offset: u64, buf: &mut [u8]) -> Result<(), Fault> {
        let start = self.range(offset, buf.len())?;
        self.guard().armed(|| {
            // SAFETY: as in `write`, in the other direction; `buf` is ours alone.
            unsafe { std::ptr::copy_nonoverlapping(self.map.as_ptr().add(start), buf.as_mut_ptr(), buf.len()) };
        });
        self.outcome()
    }

    fn range(&self, offset: u64, len: usize) -> Result<usize, Fault> {
        let start = usize::try_from(offset).map_err(|_| Fault)?;
        let end = start.checked_add(len).ok_or(Fault)?;
        if end > self.map.len() || self.poisoned.load(Ordering::Relaxed) { Err(Fault) } else { Ok(start) }
    }

    /// Also after another thread's fault: what this one wrote may have gone into the same page of zeros.
    fn outcome(&self) -> Result<(), Fault> {
        if self.poisoned.load(Ordering::SeqCst) { Err(Fault) } else { Ok(()) }
    }

    fn guard(&self) -> Guard<'_> {
        Guard { start: self.map.as_ptr() as usize, len: self.map.len(), poisoned: &self.poisoned }
    }

    /// Takes pages out of the map (not out of the file, nor of the page cache) in one call. While they are in it, the
    /// system writes each of them to disk only after it has told every core that runs one of our threads: measured, that
    /// cost as much as all the rest of a fast download.
    fn release(&self, start: usize, len: usize) {
        #[cfg(target_os = "linux")]
        {
            let first = start - start % page_size();
            // SAFETY: the range lies in our map and starts on a page. In a shared map of a file the advice changes no
            // contents: the next touch finds the page again.
            let _ = unsafe {
                let at = self.map.as_mut_ptr().add(first).cast();
                rustix::mm::madvise(at, start + len - first, rustix::mm::Advice::LinuxDontNeed)
            };
        }
        #[cfg(not(target_os = "linux"))]
        let _ = (start, len);
    }

    /// Makes the pages of a range present and writable in one call, which fails where touching them would kill.
    fn populate(&self, start: usize, len: usize) -> Result<(), Fault> {
        #[cfg(target_os = "linux")]
        {
            use rustix::io::Errno;
            if len == 0 {
                return Ok(());
            }
            let first = start - start % page_size();
            loop {
                // SAFETY: the range lies in our map and starts on a page; the advice changes no contents.
                let advised = unsafe {
                    let at = self.map.as_mut_ptr().add(first).cast();
                    rustix::mm::madvise(at, start + len - first, rustix::mm::Advice::LinuxPopulateWrite)
                };
                match advised {
                    // Before Linux 5.14 there is only the guard.
                    Ok(()) | Err(Errno::INVAL | Errno::NOSYS) => return Ok(()),
                    Err(Errno::INTR | Errno::AGAIN) => {}
                    Err(_) => return Err(Fault),
                }
            }
        }
        #[cfg(not(target_os = "linux"))]
        {
            let _ = (start, len);
            Ok(())
        }
    }
}

/// The map that a thread is about to touch, and the mark that touching it failed.
struct Guard<'a> {
    start: usize,
    len: usize,
    poisoned: &'a AtomicBool,
}

thread_local! {
    /// The guard that is armed in this thread. A constant without a destructor, so a signal handler may look at it:
    /// nothing is made or registered at the first use.
    static ARMED: Cell<*const Guard<'static>> = const { Cell::new(std::ptr::null()) };
}

impl Guard<'_> {
    /// Runs `copy` with the guard armed. `copy` must not panic (it copies bytes and no more) nor arm another.
    fn armed(&self, copy: impl FnOnce()) {
        ARMED.with(|armed| {
            // Only looked at until it is disarmed, below: the lifetime is not as long as it says.
            armed.set(std::ptr::from_ref(self).cast());
            // The handler runs in this thread, between any two instructions: the compiler must not move the copy.
            std::sync::atomic::compiler_fence(Ordering::SeqCst);
            copy();
            std::sync::atomic::compiler_fence(Ordering::SeqCst);
            armed.set(std::ptr::null());
        });
    }
}

static PAGE: AtomicUsize = AtomicUsize::new(4096);
/// Whom the signal goes to when it is not ours: what stood there before.
static BEFORE: AtomicPtr<libc::sigaction> = AtomicPtr::new(std::ptr::null_mut());

fn page_size() -> usize {
    PAGE.load(Ordering::Relaxed)
}

/// Installs the handler, once per process.
fn install() -> io::Result<()> {
    static INSTALLED: OnceLock<Result<(), i32>> = OnceLock::new();
    let installed = INSTALLED.get_or_init(|| {
        // SAFETY: has no conditions.
        let page = unsafe { libc::sysconf(libc::_SC_PAGESIZE) };
        PAGE.store(usize::try_from(page).unwrap_or(4096), Ordering::Relaxed);
        // SAFETY: both structures are plain data for which all zeros are valid; the handler has the signature that
        // SA_SIGINFO asks for, and does only what a signal handler may do.
        unsafe {
            let before = Box::leak(Box::new(std::mem::zeroed::<libc::sigaction>()));
            let mut ours = std::mem::zeroed::<libc::sigaction>();
            ours.sa_sigaction = on_bus_error as *const () as usize;
            ours.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK;
            libc::sigemptyset(&raw mut ours.sa_mask);
            if libc::sigaction(libc::SIGBUS, std::ptr::null(), before) != 0 {
                return Err(io::Error::last_os_error().raw_os_error().unwrap_or(0));
            }
            BEFORE.store(before, Ordering::Release);
            if libc::sigaction(libc::SIGBUS, &raw const ours, std::ptr::null_mut()) != 0 {
                return Err(io::Error::last_os_error().raw_os_error().unwrap_or(0));
            }
        }
        Ok(())
    });
    installed.map_err(io::Error::from_raw_os_error)
}

/// A touch of memory with nothing behind it. Within the armed guard's map: puts a page of zeros there and lets the
/// touch be repeated. Else: passes the signal on.
extern "C" fn on_bus_error(signal: libc::c_int, info: *mut libc::siginfo_t, context: *mut libc::c_void) {
    // SAFETY: the system hands a valid `info`. The armed guard lives on the stack of this very thread, below the
    // interrupted frame. mmap with MAP_FIXED replaces one page inside the map that the guard names, which is ours and
    // is held by the interrupted copy; it is a plain system call. errno is put back for the interrupted code.
    unsafe {
        let address = (*info).si_addr() as usize;
        let guard = ARMED.with(Cell::get);
        if !guard.is_null() && address.wrapping_sub((*guard).start) < (*guard).len {
            // Before the page of zeros is there: a thread that writes into that must find the mark.
            (*guard).poisoned.store(true, Ordering::SeqCst);
            let errno = errno();
            let saved = *errno;
            let page = address - address % page_size();
            let (protection, flags) =
                (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_FIXED);
            let mapped = libc::mmap(page as *mut libc::c_void, page_size(), protection, flags, -1, 0);
            *errno = saved;
            if mapped != libc::MAP_FAILED {
                return;
            }
        }
        let before = BEFORE.load(Ordering::Acquire);
        if before.is_null() || (*before).sa_sigaction == libc::SIG_DFL || (*before).sa_sigaction == libc::SIG_IGN {
            // The touch is repeated after the return, and then ends the process as it would have without us.
            libc::signal(signal, libc::SIG_DFL);
        } else if (*before).sa_flags & libc::SA_SIGINFO != 0 {
            type Full = extern "C" fn(libc::c_int, *mut libc::siginfo_t, *mut libc::c_void);
            std::mem::transmute::<usize, Full>((*before).sa_sigaction)(signal, info, context);
        } else {
            std::mem::transmute::<usize, extern "C" fn(libc::c_int)>((*before).sa_sigaction)(signal);
        }
    }
}

/// Where this thread's error number lives.
unsafe fn errno() -> *mut libc::c_int {
    // SAFETY: has no conditions; the result is valid as long as the thread.
    #[cfg(target_os = "linux")]
    return unsafe { libc::__errno_location() };
    #[cfg(not(target_os = "linux"))]
    return unsafe { libc::__error() };
}

#[cfg(test)]
mod tests {
    use super::*;

    const LEN: u64 = 1 << 20;

    fn mapped() -> (File, Mapping) {
        let file = tempfile::tempfile().unwrap();
        file.set_len(LEN).unwrap();
        let mapping = Mapping::new(&file, LEN).unwrap();
        (file, mapping)
    }

    #[test]
    fn bytes_go_in_and_out() {
        use std::os::unix::fs::FileExt;
        let (file, mapping) = mapped();
        mapping.write(4095, &[b"ab", b"", b"cde"]).unwrap();
        let mut back = [0; 5];
        file.read_exact_at(&mut back, 4095).unwrap();
        assert_eq!(&back, b"abcde");
        mapping.read(4095, &mut back).unwrap();
        assert_eq!(&back, b"abcde");
        mapping.write(LEN - 1, &[b"z"]).unwrap();
        assert_eq!(mapping.write(LEN, &[b"z"]), Err(Fault));
        assert_eq!(mapping.write(u64::MAX, &[b"z"]), Err(Fault));
        assert!(Mapping::new(&file, 0).is_err());
    }

    #[test]
    fn a_file_cut_under_its_map_is_an_error() {
        // A read has no populating call in front of it: this is the guard itself.
        let (file, mapping) = mapped();
        mapping.write(0, &[&[7; 9000]]).unwrap();
        file.set_len(4096).unwrap();
        let mut back = vec![0; 9000];
        assert_eq!(mapping.read(0, &mut back), Err(Fault));
        assert_eq!(back[..4096], [7; 4096]);
        file.set_len(LEN).unwrap();
        assert_eq!(mapping.read(0, &mut back), Err(Fault), "a poisoned map stays so");

        let (file, mapping) = mapped();
        file.set_len(0).unwrap();
        assert_eq!(mapping.write(5000, &[&[1; 100]]), Err(Fault));
    }

    #[test]
    fn cut_again_and_again_while_in_use() {
        let (file, mut mapping) = mapped();
        let cutter = file.try_clone().unwrap();
        let stop = AtomicBool::new(false);
        let payload = vec![3; 300_000];
        let mut faults = 0;
        std::thread::scope(|scope| {
            scope.spawn(|| {
                while !stop.load(Ordering::Relaxed) {
                    cutter.set_len(0).unwrap();
                    cutter.set_len(LEN).unwrap();
                }
            });
            for _ in 0..300 {
                let mut back = vec![0; 300_000];
                if mapping.write(100_000, &[&payload]).is_err() || mapping.read(100_000, &mut back).is_err() {
                    faults += 1;
                    mapping = Mapping::new(&file, LEN).unwrap();
                }
            }
            stop.store(true, Ordering::Relaxed);
        });
        // How many depends on the machine; that this line is reached is the point.
        assert!(faults <= 300);
    }
}
