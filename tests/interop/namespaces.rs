//! Networks of a test's own: namespaces joined by pairs of virtual interfaces. They go when the test ends; what is
//! left of tests that were killed is removed by the next one.

use std::fs;
use std::path::Path;
use std::process::{self, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

use crate::lab::Lab;
use crate::process::{PATIENCE, poll, run};

/// How the namespaces are called that tests make: this, the process, a number.
const PREFIX: &str = "gannet-";

/// Where `ip netns` keeps them.
const FOLDER: &str = "/run/netns";

/// Some hosts, and what joins them.
pub struct Net<'a> {
    lab: &'a Lab,
    hosts: Vec<String>,
}

impl<'a> Net<'a> {
    /// No hosts. The lab was asked for [`Tool::Namespaces`](crate::lab::Tool::Namespaces).
    pub fn new(lab: &'a Lab) -> Self {
        Self { lab, hosts: Vec::new() }
    }

    /// A host of its own, with nothing but a loopback interface.
    pub fn host(&mut self) -> String {
        let name = fresh_name();
        self.ip(&format!("netns add {name}"));
        self.hosts.push(name.clone());
        self.ip(&format!("-n {name} link set lo up"));
        // Link-local addresses can be used at once. If it cannot be set, it takes a second or two.
        let _ = self.command(&name, "sh").args(["-c", "echo 0 > /proc/sys/net/ipv6/conf/default/accept_dad"]).output();
        name
    }

    /// A cable between `interface` of one host and of another, with these addresses.
    pub fn cable(&self, ends: [(&str, &str, &[&str]); 2]) {
        let [(a, a_name, _), (b, b_name, _)] = ends;
        self.ip(&format!("link add {a_name} netns {a} type veth peer name {b_name} netns {b}"));
        for (host, interface, addresses) in ends {
            for address in addresses {
                let nodad = if address.contains(':') { "nodad" } else { "" };
                self.ip(&format!("-n {host} addr add {address} dev {interface} {nodad}"));
            }
            self.ip(&format!("-n {host} link set {interface} up"));
        }
        // It takes the system a moment to see that both ends are plugged in.
        let up = |(host, interface, _): &(&str, &str, &[&str])| {
            self.ip(&format!("-n {host} link show {interface}")).contains("state UP")
        };
        assert!(poll(PATIENCE, || ends.iter().all(up).then_some(())).is_some(), "a cable that is not plugged in");
    }

    /// `ip` with these arguments; what it says.
    pub fn ip(&self, arguments: &str) -> String {
        run("ip", self.lab.command("ip").args(arguments.split_whitespace()))
    }

    /// A program that runs on `host`.
    pub fn command(&self, host: &str, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = self.lab.command("ip");
        command.args(["netns", "exec", host]).arg(program);
        command
    }
}

impl Drop for Net<'_> {
    fn drop(&mut self) {
        self.hosts.iter().for_each(|host| remove(host));
    }
}

/// Why this cannot be done here; `None` if it can.
pub fn missing() -> Option<String> {
    let Ok(status) = fs::read_to_string("/proc/self/status") else { return Some("no Linux".to_owned()) };
    let root =
        status.lines().find_map(|line| line.strip_prefix("Uid:")).is_some_and(|ids| ids.trim().starts_with("0\t"));
    if !root {
        return Some("only root can make network namespaces".to_owned());
    }
    remove_old();
    let name = fresh_name();
    let made = Command::new("ip").args(["netns", "add", &name]).stdin(Stdio::null()).output();
    remove(&name);
    match made {
        Ok(output) if output.status.success() => None,
        Ok(output) => Some(format!("ip netns add: {}", String::from_utf8_lossy(&output.stderr).trim())),
        Err(error) => Some(format!("ip: {error} (`apt install iproute2`)")),
    }
}

fn fresh_name() -> String {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    format!("{PREFIX}{}-{}", process::id(), NEXT.fetch_add(1, Ordering::Relaxed))
}

fn remove(name: &str) {
    if Path::new(FOLDER).join(name).exists() {
        let _ = Command::new("ip").args(["netns", "del", name]).stdin(Stdio::null()).output();
    }
}

/// Those of processes that are no more.
fn remove_old() {
    for entry in fs::read_dir(FOLDER).into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let owner = name.strip_prefix(PREFIX).and_then(|rest| rest.split('-').next());
        if owner.and_then(|pid| pid.parse::<u32>().ok()).is_some_and(|pid| !Path::new(&format!("/proc/{pid}")).exists())
        {
            remove(&name);
        }
    }
}
