//! Child processes: output to a file, killed by handle when dropped, waited for by polling with a deadline.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

/// How long anything may take that takes a second or two on an idle machine.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// Asks `look` every few milliseconds until it has an answer; `None` once `limit` has passed.
pub fn poll<T>(limit: Duration, mut look: impl FnMut() -> Option<T>) -> Option<T> {
    let deadline = Instant::now() + limit;
    loop {
        if let Some(answer) = look() {
            return Some(answer);
        }
        if Instant::now() >= deadline {
            return None;
        }
        thread::sleep(Duration::from_millis(20));
    }
}

/// A process that a test has started. It does not outlive this value.
pub struct Running {
    name: String,
    child: Child,
    stdout: PathBuf,
    stderr: PathBuf,
}

impl Running {
    /// Starts `command` with its output going to `NAME.out` and `NAME.err` in `logs`. Its standard input is a pipe
    /// that closes with this value.
    pub fn start(name: &str, command: &mut Command, logs: &Path) -> Self {
        fs::create_dir_all(logs).expect("the folder for logs");
        let (stdout, stderr) = (logs.join(format!("{name}.out")), logs.join(format!("{name}.err")));
        let child = command
            .stdin(Stdio::piped())
            .stdout(File::create(&stdout).expect("a log file"))
            .stderr(File::create(&stderr).expect("a log file"))
            .spawn()
            .unwrap_or_else(|error| panic!("{name} does not start: {error} ({command:?})"));
        Self { name: name.to_owned(), child, stdout, stderr }
    }

    /// What it has written to standard output so far.
    pub fn stdout(&self) -> String {
        String::from_utf8_lossy(&fs::read(&self.stdout).unwrap_or_default()).into_owned()
    }

    /// What it has written so far, for a message that says why a test failed.
    pub fn log(&self) -> String {
        let stderr = String::from_utf8_lossy(&fs::read(&self.stderr).unwrap_or_default()).into_owned();
        let tail = |text: String| {
            let text = text.replace('\r', "\n");
            let lines: Vec<&str> = text.lines().filter(|line| !line.trim().is_empty()).collect();
            lines[lines.len().saturating_sub(30)..].join("\n")
        };
        format!(
            "--- {0}, standard output\n{1}\n--- {0}, standard error\n{2}",
            self.name,
            tail(self.stdout()),
            tail(stderr)
        )
    }

    /// Writes a line to its standard input.
    pub fn write_line(&mut self, line: &str) {
        let stdin = self.child.stdin.as_mut().expect("a standard input that is open");
        writeln!(stdin, "{line}").and_then(|()| stdin.flush()).expect("a process that reads");
    }

    /// Closes its standard input.
    pub fn close_stdin(&mut self) {
        drop(self.child.stdin.take());
    }

    /// Ctrl-C.
    pub fn interrupt(&self) {
        let pid = i32::try_from(self.child.id()).ok().and_then(rustix::process::Pid::from_raw);
        rustix::process::kill_process(pid.expect("a child"), rustix::process::Signal::INT)
            .expect("a signal to a child");
    }

    /// The exit status, if it has ended.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().expect("a child can be waited for")
    }

    /// The processor time that it has used, while it runs.
    pub fn cpu_time(&self) -> Duration {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.child.id())).expect("a process that runs");
        // Behind its name: the state is field 3, the times are 14 and 15, in hundredths of a second.
        let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
        let ticks: u64 = fields[11..13].iter().map(|field| field.parse::<u64>().expect("a number")).sum();
        Duration::from_millis(10 * ticks)
    }

    /// Waits until it has ended by itself.
    pub fn wait(&mut self, limit: Duration) -> ExitStatus {
        poll(limit, || self.ended())
            .unwrap_or_else(|| panic!("{} has not ended after {limit:?}\n{}", self.name, self.log()))
    }

    /// Waits until `look` has an answer; the error says that it ended or that the time is over, and what it wrote.
    pub fn try_until<T>(
        &mut self,
        what: &str,
        limit: Duration,
        mut look: impl FnMut(&mut Self) -> Option<T>,
    ) -> Result<T, String> {
        let mut status = None;
        let answer = poll(limit, || {
            // In this order: what it did last before it ended counts.
            status = self.ended();
            match look(self) {
                Some(answer) => Some(Some(answer)),
                None if status.is_some() => Some(None),
                None => None,
            }
        });
        answer.flatten().ok_or_else(|| {
            let why = status.map_or(format!("nothing for {limit:?}"), |status| format!("it ended, {status}"));
            format!("{}: waited for {what}: {why}\n{}", self.name, self.log())
        })
    }

    /// [`Self::try_until`], where not getting there fails the test.
    pub fn until<T>(&mut self, what: &str, look: impl FnMut(&mut Self) -> Option<T>) -> T {
        self.try_until(what, PATIENCE, look).unwrap_or_else(|why| panic!("{why}"))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if thread::panicking() {
            eprintln!("{}", self.log());
        }
    }
}

/// Runs a command that needs nobody else to its end; its standard output, or a failed test if it does not succeed.
pub fn run(name: &str, command: &mut Command) -> String {
    let output = command
        .stdin(Stdio::null())
        .output()
        .unwrap_or_else(|error| panic!("{name} does not start: {error} ({command:?})"));
    let (stdout, stderr) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{name}: {}: {command:?}\n{stdout}\n{stderr}", output.status);
    stdout.into_owned()
}
