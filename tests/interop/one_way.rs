//! Proxies and `--bind-device`: everything goes the way that was chosen, and nothing goes another. The host has a second
//! network, which is where the system would send what is for the internet; somebody there counts what comes.

use std::process::Command;

use serde_json::Value;

use crate::clients::makers::Torrent;
use crate::clients::{gannet, opentracker, web};
use crate::lab::{Lab, Tool};
use crate::namespaces::Net;
use crate::payload::{Payload, Shape};
use crate::process::{PATIENCE, Running, poll, run};

/// Counts what comes, but for what hosts tell each other about themselves.
const WATCH: &str = "
table inet watch {
    counter packets_all { }
    counter packets_dns { }
    chain in {
        type filter hook prerouting priority -300;
        iifname \"lo\" accept
        meta l4proto { tcp, udp } counter name packets_all
        udp dport 53 counter name packets_dns
    }
}
";

/// Where everybody is whom we look for: a seeder, a tracker, a web server.
const WORLD: &str = "9.9.9.9";

const DANTE: &str = "
logoutput: stderr
internal: lan0 port = 1080
external: wan0
clientmethod: none
socksmethod: none
user.privileged: root
user.unprivileged: nobody
client pass { from: 0.0.0.0/0 to: 0.0.0.0/0 }
socks pass { from: 0.0.0.0/0 to: 0.0.0.0/0 command: connect udpassociate udpreply }
";

/// The host `here` with two networks; `trap` at the end of the wrong one; the `world` at the end of the right one, behind
/// the host `between` or next to it.
struct Crossroads<'a> {
    lab: &'a Lab,
    net: Net<'a>,
    here: String,
    trap: String,
    between: Option<String>,
    world: String,
    payload: Payload,
    torrent: Torrent,
    runs: u32,
    services: Vec<Running>,
}

impl<'a> Crossroads<'a> {
    fn new(lab: &'a Lab, proxied: bool) -> Self {
        let mut net = Net::new(lab);
        let [here, trap, world] = [net.host(), net.host(), net.host()];
        net.cable([(&here, "eth1", &["198.51.100.2/24"]), (&trap, "eth0", &["198.51.100.1/24"])]);
        net.ip(&format!("-n {here} route add default via 198.51.100.1"));
        let between = proxied.then(|| net.host());
        if let Some(between) = &between {
            net.cable([(&here, "eth0", &["10.5.0.2/24"]), (between, "lan0", &["10.5.0.1/24"])]);
            net.cable([(between, "wan0", &["9.9.9.1/24"]), (&world, "eth0", &["9.9.9.9/24"])]);
        } else {
            net.cable([(&here, "eth0", &["10.5.0.2/24"]), (&world, "eth0", &["10.5.0.1/24"])]);
            net.ip(&format!("-n {world} addr add {WORLD}/32 dev lo"));
            net.ip(&format!("-n {here} route add default via 10.5.0.1 metric 1000"));
        }
        let payload = Payload::new(lab, Shape::Single);
        let torrent = gannet::create(lab, &payload, "v1", &[]);
        let runs = 0;
        let mut place = Self { lab, net, here, trap, between, world, payload, torrent, runs, services: Vec::new() };
        let watch = lab.path("watch");
        std::fs::write(&watch, WATCH).unwrap();
        for host in [&place.trap, &place.world] {
            run("nft", place.net.command(host, "nft").arg("-f").arg(&watch));
        }
        place.serve();
        place
    }

    /// The world goes about its business.
    fn serve(&mut self) {
        let (lab, logs) = (self.lab, self.lab.path("logs"));
        let dir = opentracker::configured(lab, &format!("{WORLD}:6969"), &[self.torrent.wire_hash]);
        let mut tracker = self.net.command(&self.world, "opentracker");
        tracker.current_dir(&dir).args(["-f", "opentracker.conf"]);
        self.services.push(Running::start("opentracker", &mut tracker, &logs));
        let (arguments, _) = web::nginx_arguments(lab, &self.payload.parent, &format!("{WORLD}:8080"));
        let mut nginx = self.net.command(&self.world, web::nginx_program());
        self.services.push(Running::start("nginx", nginx.args(arguments), &logs));
        let listening = |at: &str| self.net.ip(&format!("netns exec {} ss -Hltn", self.world)).contains(at);
        let both = || listening(":6969").then(|| listening(":8080").then_some(())).flatten();
        assert!(poll(PATIENCE, both).is_some(), "tracker and web server do not come up");
        let mut seed = self.net.command(&self.world, gannet::binary());
        seed.arg("seed").arg(&self.torrent.path).arg(self.payload.path());
        seed.args(["--listen", &format!("{WORLD}:6881"), "--tracker", "http://9.9.9.9:6969/announce", "--json"]);
        seed.args(["--no-dht", "--no-lsd", "--no-port-mapping", "--state-dir"]).arg(lab.path("seed"));
        let mut seed = Running::start("gannet-seed", &mut seed, &logs);
        seed.until("that it is announced", |seed| seed.stdout().contains("\"peers\":").then_some(()));
        self.services.push(seed);
    }

    /// Starts a program on the host between.
    fn proxy(&mut self, program: &str, arguments: &[&str], listening: &str) {
        let between = self.between.clone().unwrap();
        let mut command = self.net.command(&between, program);
        self.services.push(Running::start(program, command.args(arguments), &self.lab.path("logs")));
        let up = || self.net.ip(&format!("netns exec {between} ss -Hltn")).contains(listening).then_some(());
        assert!(poll(PATIENCE, up).is_some(), "{program} does not come up:\n{}", self.services.last().unwrap().log());
    }

    /// `gannet get` here, with all that it does by itself.
    fn get(&mut self, options: &[&str]) -> Command {
        self.runs += 1;
        let mut command = self.net.command(&self.here, gannet::binary());
        command.arg("get").arg(&self.torrent.path).arg("--dir").arg(self.lab.folder(&format!("out{}", self.runs)));
        command
            .args(options)
            .args(["--name-server", WORLD, "--json", "--state-dir"])
            .arg(self.lab.path(&format!("state{}", self.runs)));
        command
    }

    /// Downloads with these options. Nothing goes the wrong way meanwhile.
    fn succeeds(&mut self, options: &[&str]) -> Vec<Value> {
        let mut command = self.get(&[options, &["--timeout", "30s"]].concat());
        let mut get = Running::start(&format!("get{}", self.runs), &mut command, &self.lab.path("logs"));
        let status = get.wait(PATIENCE);
        assert!(status.success(), "{options:?}: {status}\n{}", get.log());
        self.payload.assert_same(&self.lab.path(&format!("out{}", self.runs)));
        assert_eq!(self.count(&self.trap, "packets_all"), 0, "{options:?}");
        get.stdout().lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
    }

    /// The same where it must not succeed.
    fn fails(&mut self, options: &[&str]) {
        let mut command = self.get(&[options, &["--timeout", "3s"]].concat());
        let mut get = Running::start(&format!("get{}", self.runs), &mut command, &self.lab.path("logs"));
        assert_eq!(get.wait(PATIENCE).code(), Some(5), "{options:?}\n{}", get.log());
    }

    /// Packets that `host` has counted.
    fn count(&self, host: &str, what: &str) -> u64 {
        let shown = run("nft", self.net.command(host, "nft").args(["list", "counter", "inet", "watch", what]));
        let mut words = shown.split_whitespace().skip_while(|word| *word != "packets");
        words.nth(1).and_then(|n| n.parse().ok()).unwrap_or_else(|| panic!("{shown}"))
    }

    /// Without a choice the system sends it all into the trap: the counter counts.
    fn trap_works(&mut self) {
        self.fails(&["--peer", "9.9.9.9:6881"]);
        assert!(self.count(&self.trap, "packets_all") > 0);
    }
}

const BY_HTTP_TRACKER: &[&str] = &["--tracker", "http://9.9.9.9:6969/announce"];
const BY_UDP_TRACKER: &[&str] = &["--tracker", "udp://9.9.9.9:6969/announce"];
const BY_WEB_SEED: &[&str] = &["--no-trackers", "--web-seed", "http://9.9.9.9:8080/"];
const BY_UTP: &[&str] = &["--no-trackers", "--no-tcp", "--peer", "9.9.9.9:6881"];

#[test]
fn socks5_by_dante() {
    let tools = [Tool::Namespaces, Tool::Nft, Tool::Opentracker, Tool::Nginx, Tool::Dante];
    let Some(lab) = Lab::with(&tools) else { return };
    let mut net = Crossroads::new(&lab, true);
    let config = lab.path("danted.conf");
    std::fs::write(&config, DANTE).unwrap();
    let pid = lab.path("danted.pid");
    net.proxy("danted", &["-f", &config.display().to_string(), "-p", &pid.display().to_string()], "10.5.0.1:1080");
    for way in [BY_HTTP_TRACKER, BY_UDP_TRACKER, BY_WEB_SEED, BY_UTP] {
        net.succeeds(&[way, &["--proxy", "socks5h://10.5.0.1:1080"]].concat());
    }
    net.trap_works();
}

/// It relays no UDP: what would go by it does not go.
#[test]
fn socks5_with_a_password_by_microsocks() {
    let tools = [Tool::Namespaces, Tool::Nft, Tool::Opentracker, Tool::Nginx, Tool::Microsocks];
    let Some(lab) = Lab::with(&tools) else { return };
    let mut net = Crossroads::new(&lab, true);
    net.proxy("microsocks", &["-i", "10.5.0.1", "-p", "1080", "-u", "me", "-P", "s3cret"], "10.5.0.1:1080");
    for way in [BY_HTTP_TRACKER, BY_WEB_SEED] {
        net.succeeds(&[way, &["--proxy", "socks5h://me:s3cret@10.5.0.1:1080"]].concat());
    }
    net.fails(&[BY_UDP_TRACKER, &["--proxy", "socks5h://me:s3cret@10.5.0.1:1080"]].concat());
    net.fails(&[BY_UTP, &["--proxy", "socks5h://me:s3cret@10.5.0.1:1080"]].concat());
    net.fails(&[BY_HTTP_TRACKER, &["--proxy", "socks5h://me:wrong@10.5.0.1:1080"]].concat());
    assert_eq!(net.count(&net.trap, "packets_all"), 0);
    net.trap_works();
}

#[test]
fn http_by_tinyproxy() {
    let tools = [Tool::Namespaces, Tool::Nft, Tool::Opentracker, Tool::Nginx, Tool::Tinyproxy];
    let Some(lab) = Lab::with(&tools) else { return };
    let mut net = Crossroads::new(&lab, true);
    let config = lab.path("tinyproxy.conf");
    std::fs::write(&config, "Port 8888\nListen 10.5.0.1\nTimeout 60\nMaxClients 100\n").unwrap();
    net.proxy("tinyproxy", &["-d", "-c", &config.display().to_string()], "10.5.0.1:8888");
    for way in [BY_HTTP_TRACKER, BY_WEB_SEED] {
        net.succeeds(&[way, &["--proxy", "http://10.5.0.1:8888"]].concat());
    }
    net.fails(&[BY_UDP_TRACKER, &["--proxy", "http://10.5.0.1:8888"]].concat());
    assert_eq!(net.count(&net.trap, "packets_all"), 0);
    net.trap_works();
}

/// Names included; and when the device goes down in the middle, so does everything.
#[test]
fn bind_device() {
    let Some(lab) = Lab::with(&[Tool::Namespaces, Tool::Nft, Tool::Opentracker, Tool::Nginx]) else { return };
    let mut net = Crossroads::new(&lab, false);
    let bound = ["--bind-device", "eth0"];
    for way in [BY_HTTP_TRACKER, BY_UDP_TRACKER, BY_WEB_SEED, BY_UTP] {
        net.succeeds(&[way, &bound].concat());
    }
    assert!(net.count(&net.world, "packets_dns") > 0, "names of the DHT's routers were looked up");
    let slowly = [BY_HTTP_TRACKER, &bound, &["--limit-down", "200k", "--timeout", "3s"]].concat();
    let mut command = net.get(&slowly);
    let mut get = Running::start("get-cut", &mut command, &lab.path("logs"));
    get.until("some of it", |get| get.stdout().contains("\"piece\"").then_some(()));
    net.net.ip(&format!("-n {} link set eth0 down", net.here));
    assert_eq!(get.wait(PATIENCE).code(), Some(5), "{}", get.log());
    net.fails(&[BY_HTTP_TRACKER, &bound].concat());
    net.fails(&[BY_HTTP_TRACKER, &["--bind-device", "none-such"]].concat());
    assert_eq!(net.count(&net.trap, "packets_all"), 0);
    net.trap_works();
}
