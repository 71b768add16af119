//! A folder for what is thrown away afterwards, files of random bytes in it, and whether two files are the same.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use super::exit::{Code, Failure, shown};
use super::quantity::bytes;
use super::screen;
use crate::sys::{self, Dir};

/// Bytes written or read at a time.
const STEP: usize = 1 << 20;

/// A folder of our own, removed with all in it when this is dropped.
pub(super) struct Scratch(PathBuf);

impl Scratch {
    /// In the folder `parent`, with `gannet-` and `name` in its name.
    pub(super) fn new(parent: &Path, name: &str) -> Result<Self, Failure> {
        let name = format!("gannet-{name}-{}-{:08x}", std::process::id(), fastrand::u32(..));
        // Programs that are started with it may go to other folders first. A parent that is not there is what is named.
        let path = parent.canonicalize().map_err(|e| Failure::disk(parent, &e))?.join(name);
        fs::create_dir(&path).map_err(|e| Failure::disk(parent, &e))?;
        Ok(Self(path))
    }

    pub(super) fn path(&self) -> &Path {
        &self.0
    }

    /// Refuses at once what would fill the disk later.
    pub(super) fn need(&self, wanted: u64) -> Result<(), Failure> {
        let dir = Dir::open(&self.0).map_err(|e| Failure::disk(&self.0, &e))?;
        match sys::available(&dir) {
            Some(free) if free < wanted => {
                let parent = self.0.parent().unwrap_or(&self.0);
                let why = format!("no space left: {} needed, {} free", bytes(wanted), bytes(free));
                let hint = "a smaller --size needs less, --dir names another folder";
                let message = format!("{}: {why}; {hint}", shown(parent));
                Err(Failure { path: Some(parent.to_owned()), ..Failure::new(Code::Disk, message) })
            }
            _ => Ok(()),
        }
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if let Err(e) = fs::remove_dir_all(&self.0) {
            screen::message(format_args!("gannet: {}", Failure::disk(&self.0, &e)));
        }
    }
}

/// Makes the file `path` of `length` random bytes, and the folders on the way to it. `go_on` is asked now and then.
pub(super) fn make_file(path: &Path, length: u64, go_on: impl Fn() -> Result<(), Failure>) -> Result<(), Failure> {
    let refused = |e: io::Error| Failure::disk(path, &e);
    fs::create_dir_all(path.parent().unwrap_or(Path::new("."))).map_err(refused)?;
    let mut out = File::create_new(path).map_err(refused)?;
    let mut rng = fastrand::Rng::new();
    let mut block = vec![0; STEP];
    let mut left = length;
    while left > 0 {
        go_on()?;
        let step = usize::try_from(left).unwrap_or(STEP).min(STEP);
        rng.fill(&mut block[..step]);
        out.write_all(&block[..step]).map_err(refused)?;
        left -= step as u64;
    }
    Ok(())
}

/// Whether `copy` has the `length` bytes of `original`, and no more.
pub(super) fn is_same(original: &Path, copy: &Path, length: u64) -> Result<bool, Failure> {
    let open = |path: &Path| File::open(path).map_err(|e| Failure::disk(path, &e));
    let (mut ours, mut theirs) = (open(original)?, open(copy)?);
    if theirs.metadata().map_err(|e| Failure::disk(copy, &e))?.len() != length {
        return Ok(false);
    }
    let (mut left, mut right) = (vec![0; STEP], vec![0; STEP]);
    let mut rest = length;
    while rest > 0 {
        let step = usize::try_from(rest).unwrap_or(STEP).min(STEP);
        ours.read_exact(&mut left[..step]).map_err(|e| Failure::disk(original, &e))?;
        theirs.read_exact(&mut right[..step]).map_err(|e| Failure::disk(copy, &e))?;
        if left[..step] != right[..step] {
            return Ok(false);
        }
        rest -= step as u64;
    }
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn made_compared_and_gone() {
        let outer = tempfile::tempdir().unwrap();
        let scratch = Scratch::new(outer.path(), "test").unwrap();
        let (a, b) = (scratch.path().join("x/a"), scratch.path().join("b"));
        make_file(&a, 2_500_001, || Ok(())).unwrap();
        fs::copy(&a, &b).unwrap();
        assert!(is_same(&a, &b, 2_500_001).unwrap());
        let mut wrong = fs::read(&a).unwrap();
        assert_eq!(wrong.len(), 2_500_001);
        *wrong.last_mut().unwrap() ^= 1;
        fs::write(&b, &wrong).unwrap();
        assert!(!is_same(&a, &b, 2_500_001).unwrap(), "the last byte");
        wrong.push(0);
        fs::write(&b, &wrong).unwrap();
        assert!(!is_same(&a, &b, 2_500_001).unwrap(), "a byte too many");
        assert_eq!(is_same(&a, &outer.path().join("none"), 1).unwrap_err().code, Code::Disk);

        let stopped = make_file(&scratch.path().join("c"), 5_000_000, || Err(Failure::silent(Code::Interrupted)));
        assert_eq!(stopped.unwrap_err().code, Code::Interrupted);

        scratch.need(1).unwrap();
        let failure = scratch.need(u64::MAX).unwrap_err();
        assert_eq!(failure.code, Code::Disk);
        assert!(failure.message.contains("no space left") && failure.message.contains("--dir"), "{failure}");
        drop(scratch);
        assert_eq!(fs::read_dir(outer.path()).unwrap().count(), 0);
        assert_eq!(Scratch::new(&outer.path().join("none"), "test").err().unwrap().code, Code::Disk);
    }
}
