//! N5: the network goes away and comes back, in the middle of a download and before it begins; a host that has only IPv6.

use std::time::{Duration, Instant};

use crate::clients::gannet;
use crate::clients::makers::Torrent;
use crate::lab::{Lab, Tool};
use crate::namespaces::Net;
use crate::payload::{Payload, Shape};
use crate::process::{PATIENCE, Running};

/// How long the link is down.
const DOWN: Duration = Duration::from_secs(3);

/// Somebody who seeds slowly, and a cable to whoever wants it.
struct Cable<'a> {
    lab: &'a Lab,
    net: Net<'a>,
    here: String,
    payload: Payload,
    torrent: Torrent,
    _seed: Running,
}

impl<'a> Cable<'a> {
    fn new(lab: &'a Lab, here_at: &str, there_at: &str, listen: &str, rate: &str) -> Self {
        let mut net = Net::new(lab);
        let [here, there] = [net.host(), net.host()];
        net.cable([(&here, "eth0", &[here_at]), (&there, "eth0", &[there_at])]);
        let payload = Payload::new(lab, Shape::Single);
        let torrent = gannet::create(lab, &payload, "v1", &[]);
        let mut command = net.command(&there, gannet::binary());
        command.arg("seed").arg(&torrent.path).arg(payload.path()).args(["--listen", listen, "--limit-up", rate]);
        command.args(["--no-dht", "--no-lsd", "--no-port-mapping", "--json", "--state-dir"]).arg(lab.path("seed"));
        let mut seed = Running::start("gannet-seed", &mut command, &lab.path("logs"));
        seed.until("that it seeds", |seed| seed.stdout().contains("\"seeding\"").then_some(()));
        Self { lab, net, here, payload, torrent, _seed: seed }
    }

    fn get(&self, name: &str, peer: &str, more: &[&str]) -> Running {
        let mut command = self.net.command(&self.here, gannet::binary());
        command.arg("get").arg(&self.torrent.path).arg("--dir").arg(self.lab.folder(&format!("{name}-out")));
        command.args(["--peer", peer, "--json", "--no-dht", "--no-port-mapping"]).args(more);
        command.arg("--state-dir").arg(self.lab.path(&format!("{name}-state")));
        Running::start(name, &mut command, &self.lab.path("logs"))
    }

    fn link(&self, state: &str) {
        self.net.ip(&format!("-n {} link set eth0 {state}", self.here));
    }

    fn assert_got(&self, name: &str, get: &mut Running) {
        let status = get.wait(PATIENCE);
        assert!(status.success(), "{name}: {status}\n{}", get.log());
        self.payload.assert_same(&self.lab.path(&format!("{name}-out")));
    }
}

fn pieces(get: &Running) -> usize {
    get.stdout().matches("\"event\":\"piece\"").count()
}

#[test]
fn n5_the_link_goes_down_and_comes_back() {
    let Some(lab) = Lab::with(&[Tool::Namespaces]) else { return };
    let cable = Cable::new(&lab, "10.5.0.2/24", "10.5.0.1/24", "10.5.0.1:6881", "900KiB");
    for (name, more) in [("by-tcp", "--no-utp"), ("by-utp", "--no-tcp")] {
        let mut get = cable.get(name, "10.5.0.1:6881", &[more]);
        get.until("some pieces", |get| (pieces(get) > 3).then_some(()));
        cable.link("down");
        let (since, used) = (Instant::now(), get.cpu_time());
        // What was in the queues has arrived.
        std::thread::sleep(DOWN / 4);
        let before = pieces(&get);
        std::thread::sleep(DOWN.saturating_sub(since.elapsed()));
        assert_eq!(pieces(&get), before, "{name}: nothing can come");
        let used = get.cpu_time() - used;
        assert!(used < DOWN / 4, "{name}: busy with nothing: {used:?} in {DOWN:?}");
        cable.link("up");
        cable.assert_got(name, &mut get);
    }
}

#[test]
fn n5_the_link_comes_late() {
    let Some(lab) = Lab::with(&[Tool::Namespaces]) else { return };
    let cable = Cable::new(&lab, "10.5.0.2/24", "10.5.0.1/24", "10.5.0.1:6881", "0");
    cable.link("down");
    let mut get = cable.get("late", "10.5.0.1:6881", &[]);
    get.until("that it is added", |get| get.stdout().contains("\"added\"").then_some(()));
    std::thread::sleep(Duration::from_secs(1));
    assert!(get.ended().is_none(), "{}", get.log());
    cable.link("up");
    cable.assert_got("late", &mut get);
}

#[test]
fn n5_only_ipv6() {
    let Some(lab) = Lab::with(&[Tool::Namespaces]) else { return };
    let cable = Cable::new(&lab, "fd05::2/64", "fd05::1/64", "[fd05::1]:6881", "0");
    let mut get = cable.get("six", "[fd05::1]:6881", &[]);
    cable.assert_got("six", &mut get);
}
