//! Programs that are measured from outside: this very one as a peer, and other clients.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use super::super::exit::{Code, Failure, one_line};
use super::stop::Stop;
use crate::base::printable;
use crate::sys;

/// How often it is looked whether a program has ended.
const LOOK: Duration = Duration::from_millis(1);
/// Letters of what a program said last that are told.
const MAX_WORDS: usize = 300;

/// A running program. It is ended when this is dropped.
pub(super) struct Program {
    child: Child,
    name: String,
    log: PathBuf,
    started: Instant,
    end: Option<End>,
}

/// How a program ended.
#[derive(Clone, Copy, Debug)]
pub(super) struct End {
    /// Its exit code; none if a signal ended it.
    pub(super) code: Option<i32>,
    /// From its start to its end.
    pub(super) wall: Duration,
    /// All the processor time that it used.
    pub(super) cpu: Duration,
}

impl Program {
    /// Starts `command`. What it says goes into `log`. To be called from the main thread: see [`sys::spawn_owned`].
    pub(super) fn start(name: impl Into<String>, command: &mut Command, log: &Path) -> Result<Self, Failure> {
        let name = name.into();
        let failed = |e: io::Error| Failure::disk(log, &e);
        let out = File::create(log).map_err(failed)?;
        let err = out.try_clone().map_err(failed)?;
        command.stdin(Stdio::null()).stdout(out).stderr(err);
        let started = Instant::now();
        let child = sys::spawn_owned(command);
        let child =
            child.map_err(|e| Failure::new(Code::Bug, format!("{name}: {}", super::super::exit::io_words(&e))))?;
        Ok(Self { child, name, log: log.to_owned(), started, end: None })
    }

    pub(super) fn id(&self) -> u32 {
        self.child.id()
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// Since when it runs.
    pub(super) fn started(&self) -> Instant {
        self.started
    }

    /// Processor time that it has used until now.
    pub(super) fn cpu(&self) -> Option<Duration> {
        sys::cpu_time(Some(self.id()))
    }

    /// Whether and how it has ended.
    pub(super) fn end(&mut self) -> Result<Option<End>, Failure> {
        if self.end.is_none() {
            // Of all children together: nobody else waits for one meanwhile.
            let before = sys::children_cpu_time();
            let status = self.child.try_wait().map_err(|e| Failure::new(Code::Bug, format!("{}: {e}", self.name)))?;
            self.end = status.map(|status| End {
                code: status.code(),
                wall: self.started.elapsed(),
                cpu: sys::children_cpu_time().saturating_sub(before),
            });
        }
        Ok(self.end)
    }

    /// What it has said until now.
    pub(super) fn log(&self) -> String {
        String::from_utf8_lossy(&fs::read(&self.log).unwrap_or_default()).into_owned()
    }

    /// The failure that it ended when it should not have, or not well.
    pub(super) fn failure(&self) -> Failure {
        let how = match self.end.map(|end| end.code) {
            Some(Some(code)) => format!("ended with code {code}"),
            Some(None) => "was ended by a signal".to_owned(),
            None => "did not end".to_owned(),
        };
        // Of ours the codes are known.
        let code = match self.end.and_then(|end| end.code) {
            Some(4) => Code::Disk,
            Some(5) => Code::Network,
            _ => Code::Bug,
        };
        let words = last_words(&self.log());
        let words = words.strip_prefix("gannet: ").unwrap_or(&words);
        Failure::new(code, format!("{} {how}{}{words}", self.name, if words.is_empty() { "" } else { ": " }))
    }

    /// Waits until its log has `text` in it.
    pub(super) fn wait_for(&mut self, text: &str, patience: Duration, stop: &Stop) -> Result<(), Failure> {
        let deadline = Instant::now() + patience;
        while !self.log().contains(text) {
            stop.check()?;
            if self.end()?.is_some() || Instant::now() > deadline {
                return Err(self.failure());
            }
            thread::sleep(LOOK * 5);
        }
        Ok(())
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        if self.end.is_none() {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}

/// Waits until all have ended, in whatever order.
pub(super) fn wait_for_all(programs: &mut [Program], patience: Duration, stop: &Stop) -> Result<Vec<End>, Failure> {
    let deadline = Instant::now() + patience;
    loop {
        let mut ends = Vec::with_capacity(programs.len());
        for program in programs.iter_mut() {
            if let Some(end) = program.end()? {
                if end.code != Some(0) {
                    return Err(program.failure());
                }
                ends.push(end);
            }
        }
        if ends.len() == programs.len() {
            return Ok(ends);
        }
        stop.check()?;
        if Instant::now() > deadline {
            let late = programs.iter().find(|p| p.end.is_none());
            return Err(late.map_or(Failure::silent(Code::Bug), |p| {
                Failure::network(format!("{}: not done after {} s", p.name(), patience.as_secs()))
            }));
        }
        thread::sleep(LOOK);
    }
}

/// A command that finds no settings of the user, and leaves nothing in the user's home.
pub(super) fn command(program: impl AsRef<OsStr>, home: &Path) -> Command {
    let mut command = Command::new(program);
    for (name, _) in std::env::vars_os() {
        let text = name.to_string_lossy();
        // Which hash is used is a property of the machine, not a setting.
        if (text.starts_with("GANNET_") && text != "GANNET_HASH") || text.starts_with("XDG_") {
            command.env_remove(&name);
        }
    }
    command.env("HOME", home);
    command
}

/// This very program.
pub(super) fn gannet(home: &Path) -> Result<Command, Failure> {
    let own = std::env::current_exe();
    let own = own
        .map_err(|e| Failure::new(Code::Bug, format!("where is this program? {}", super::super::exit::io_words(&e))))?;
    Ok(command(own, home))
}

/// The last line that says something, cut to what fits a message.
fn last_words(log: &str) -> String {
    let line = log.lines().map(str::trim).rfind(|line| !line.is_empty()).unwrap_or_default();
    printable(&one_line(line)).chars().take(MAX_WORDS).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str, dir: &Path) -> Program {
        let mut command = command("sh", dir);
        Program::start("sh", command.args(["-c", script]), &dir.join("log")).unwrap()
    }

    #[test]
    fn how_programs_end() {
        let dir = tempfile::tempdir().unwrap();
        let stop = Stop::never();
        let patience = Duration::from_secs(20);
        let mut well = [shell("echo hello; exit 0", dir.path())];
        let ends = wait_for_all(&mut well, patience, &stop).unwrap();
        assert_eq!(ends[0].code, Some(0));
        assert_eq!(well[0].log(), "hello\n");

        let mut badly = [shell("echo 'gannet: x: no space left'; exit 4", dir.path())];
        let failure = wait_for_all(&mut badly, patience, &stop).unwrap_err();
        assert_eq!((failure.code, failure.message.as_str()), (Code::Disk, "sh ended with code 4: x: no space left"));

        let mut early = shell("echo one; exit 0", dir.path());
        early.wait_for("one", patience, &stop).unwrap();
        let failure = early.wait_for("two", patience, &stop).unwrap_err();
        assert!(failure.message.contains("ended with code 0: one"), "{failure}");

        let late = wait_for_all(&mut [shell("sleep 60", dir.path())], Duration::ZERO, &stop).unwrap_err();
        assert_eq!(late.code, Code::Network);
    }

    #[test]
    fn a_program_does_not_outlive_its_handle() {
        let dir = tempfile::tempdir().unwrap();
        let program = shell("sleep 60", dir.path());
        let id = program.id();
        drop(program);
        assert_eq!(sys::cpu_time(Some(id)), None);
    }

    #[test]
    fn words() {
        assert_eq!(last_words("a\n  the end \x1b[2J\n\n"), "the end [2J");
        assert_eq!(last_words(""), "");
        assert_eq!(last_words(&"x".repeat(1000)).len(), MAX_WORDS);
    }
}
