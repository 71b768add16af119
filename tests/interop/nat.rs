//! Port mapping by miniupnpd, the daemon of many home routers: a seeder behind a router that lets nobody in, and somebody
//! on the other side of it who downloads.

use serde_json::Value;

use crate::clients::gannet;
use crate::lab::{Lab, Tool};
use crate::namespaces::Net;
use crate::payload::{Payload, Shape};
use crate::process::{PATIENCE, Running, poll, run};

/// What the router speaks.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Speaks {
    Pcp,
    Upnp,
}

/// Drops what nobody at home has asked for; miniupnpd makes its holes in the chains that bear its name.
const RULES: &str = r#"
table inet filter {
    chain input { type filter hook input priority 0; }
    chain forward {
        type filter hook forward priority 0; policy drop;
        ct state established,related accept
        iifname "lan0" accept
        meta l4proto ipv6-icmp accept
        jump miniupnpd
    }
    chain miniupnpd { }
    chain prerouting { type nat hook prerouting priority -100; jump prerouting_miniupnpd; }
    chain postrouting {
        type nat hook postrouting priority 100;
        oifname "wan0" ip saddr 192.168.77.0/24 masquerade
        jump postrouting_miniupnpd
    }
    chain prerouting_miniupnpd { }
    chain postrouting_miniupnpd { }
}
"#;

const DAEMON: &str = "
ext_ifname=wan0
listening_ip=lan0
secure_mode=yes
ipv6_disable=no
min_lifetime=120
uuid=bd26dbc1-a371-47ab-b2c5-6f4b7a5f3a82
allow 1024-65535 192.168.77.0/24 1024-65535
deny 0-65535 0.0.0.0/0 0-65535
";

/// A host at home, its router, and a host outside.
struct Home<'a> {
    net: Net<'a>,
    inside: String,
    router: String,
    outside: String,
    _daemon: Running,
}

impl<'a> Home<'a> {
    fn new(lab: &'a Lab, speaks: Speaks) -> Self {
        let mut net = Net::new(lab);
        let [inside, router, outside] = [net.host(), net.host(), net.host()];
        net.cable([
            (&inside, "eth0", &["192.168.77.2/24", "2600:77::2/64"]),
            (&router, "lan0", &["192.168.77.1/24", "2600:77::1/64"]),
        ]);
        net.cable([
            (&router, "wan0", &["9.9.9.1/24", "2600:99::1/64"]),
            (&outside, "eth0", &["9.9.9.9/24", "2600:99::9/64"]),
        ]);
        net.ip(&format!("-n {inside} route add default via 192.168.77.1"));
        net.ip(&format!("-n {inside} -6 route add default via 2600:77::1"));
        net.ip(&format!("-n {outside} -6 route add default via 2600:99::1"));
        let forward = "echo 1 > /proc/sys/net/ipv4/ip_forward; echo 1 > /proc/sys/net/ipv6/conf/all/forwarding";
        run("sysctl", net.command(&router, "sh").args(["-c", forward]));
        let [rules, config] = ["rules", "miniupnpd.conf"].map(|name| lab.path(name));
        std::fs::write(&rules, RULES).unwrap();
        let (pmp, upnp) = if speaks == Speaks::Pcp { ("yes", "no") } else { ("no", "yes") };
        std::fs::write(&config, format!("{DAEMON}enable_natpmp={pmp}\nenable_upnp={upnp}\n")).unwrap();
        run("nft", net.command(&router, "nft").arg("-f").arg(&rules));
        if speaks == Speaks::Upnp {
            // Over IPv6 it would speak PCP all the same.
            run(
                "nft",
                net.command(&router, "nft")
                    .args(["add", "rule", "inet", "filter", "input", "udp", "dport", "5351", "drop"]),
            );
        }
        let mut daemon = net.command(&router, "miniupnpd");
        daemon.arg("-d").arg("-f").arg(&config).arg("-P").arg(lab.path("miniupnpd.pid"));
        let mut daemon = Running::start("miniupnpd", &mut daemon, &lab.path("logs"));
        daemon.until("that it listens", |daemon| daemon.log().contains("istening").then_some(()));
        Self { net, inside, router, outside, _daemon: daemon }
    }

    /// What the router lets in.
    fn holes(&self) -> usize {
        let rules = run("nft", self.net.command(&self.router, "nft").args(["list", "ruleset"]));
        rules.lines().filter(|line| line.contains("iif \"wan0\"")).count()
    }
}

/// The `mapped` events of `process`: protocol, method, and where outside.
fn mapped(process: &Running) -> Vec<[String; 3]> {
    let events = process.stdout().lines().filter_map(|line| serde_json::from_str(line).ok()).collect::<Vec<Value>>();
    let events = events.into_iter().filter(|event| event["event"] == "mapped");
    events.map(|event| ["protocol", "method", "external"].map(|key| event[key].as_str().unwrap().to_owned())).collect()
}

/// All of it with a router that `speaks`, and has `holes` then.
fn through_the_router(speaks: Speaks, method: &str, holes: usize) {
    let Some(lab) = Lab::with(&[Tool::Namespaces, Tool::Miniupnpd, Tool::Nft]) else { return };
    let payload = Payload::new(&lab, Shape::Single);
    let torrent = gannet::create(&lab, &payload, "v1", &[]);
    let home = Home::new(&lab, speaks);
    let mut command = home.net.command(&home.inside, gannet::binary());
    command.arg("seed").arg(&torrent.path).arg(payload.path());
    command.args(["--no-dht", "--no-lsd", "--no-trackers", "--json", "--state-dir"]).arg(lab.path("seed"));
    let mut seed = Running::start("gannet-seed", &mut command, &lab.path("logs"));
    let mapped = seed.until("ports for TCP and UDP", |seed| {
        let mapped = mapped(seed);
        (mapped.len() == 4).then_some(mapped)
    });
    assert!(mapped.iter().all(|[_, by, _]| by == method), "{mapped:?}");
    for [_, _, place] in mapped.iter().filter(|[protocol, ..]| protocol == "TCP") {
        let out = lab.folder(if place.starts_with('[') { "out6" } else { "out4" });
        let mut command = home.net.command(&home.outside, gannet::binary());
        command.arg("get").arg(&torrent.path).arg("--dir").arg(&out).args(["--peer", place, "--timeout", "30s"]);
        command.args(["--no-dht", "--no-lsd", "--no-port-mapping", "--json", "--state-dir"]).arg(lab.path("get"));
        let mut get = Running::start("gannet-get", &mut command, &lab.path("logs"));
        let status = get.wait(PATIENCE);
        assert!(status.success(), "{place}: {status}\n{}", get.log());
        payload.assert_same(&out);
    }
    assert_eq!(home.holes(), holes, "{}", seed.log());
    seed.interrupt();
    assert_eq!(seed.wait(PATIENCE).code(), Some(130));
    assert!(poll(PATIENCE, || (home.holes() == 0).then_some(())).is_some(), "what was opened is left open");
}

#[test]
fn by_pcp_over_both_families() {
    // Of IPv4 a translation and a rule for each protocol, of IPv6 a rule.
    through_the_router(Speaks::Pcp, "PCP", 6);
}

#[test]
fn by_upnp_over_both_families() {
    through_the_router(Speaks::Upnp, "UPnP", 6);
}

/// `gannet doctor` says what the router does, and leaves nothing open; nothing else answers here, and it ends all the same.
#[test]
fn the_doctor_sees_the_router() {
    let Some(lab) = Lab::with(&[Tool::Namespaces, Tool::Miniupnpd, Tool::Nft]) else { return };
    let home = Home::new(&lab, Speaks::Pcp);
    let doctor = |host: &str| {
        let mut command = home.net.command(host, gannet::binary());
        command.args(["doctor", "--json", "--timeout", "4s", "--state-dir"]).arg(lab.path("state"));
        command.args(["--name-server", "9.9.9.9"]);
        let output = command.output().expect("gannet doctor");
        let shown: Value = serde_json::from_slice(&output.stdout).unwrap_or_else(|e| panic!("{e}: {output:?}"));
        (output.status.code(), shown)
    };
    let verdict = |shown: &Value, check: &str| {
        let checks = shown["checks"].as_array().unwrap();
        checks.iter().find(|one| one["check"] == check).map(|one| one["verdict"].as_str().unwrap().to_owned())
    };
    let (code, shown) = doctor(&home.inside);
    assert_eq!(code, Some(5), "{shown}");
    for (check, expected) in
        [("ipv4", "ok"), ("ipv6", "ok"), ("router", "ok"), ("port", "ok"), ("names", "bad"), ("dht", "bad")]
    {
        assert_eq!(verdict(&shown, check).as_deref(), Some(expected), "{check}: {shown}");
    }
    assert_eq!(shown["facts"]["ipv4"]["external"], "9.9.9.1", "{shown}");
    assert_eq!(shown["facts"]["ipv4"]["router"], "192.168.77.1", "{shown}");
    assert_eq!(home.holes(), 0);
    // Behind nothing, and without a way out.
    home.net.ip(&format!("-n {} -6 route del default", home.outside));
    let (code, shown) = doctor(&home.outside);
    assert_eq!(
        (code, verdict(&shown, "ipv4").as_deref(), verdict(&shown, "dht")),
        (Some(5), Some("bad"), None),
        "{shown}"
    );
}

#[test]
fn not_where_it_is_not_wanted() {
    let Some(lab) = Lab::with(&[Tool::Namespaces, Tool::Miniupnpd, Tool::Nft]) else { return };
    let payload = Payload::new(&lab, Shape::Single);
    let torrent = gannet::create(&lab, &payload, "v1", &[]);
    let home = Home::new(&lab, Speaks::Pcp);
    let seed = |name: &str, options: &[&str]| {
        let mut command = home.net.command(&home.inside, gannet::binary());
        command.arg("seed").arg(&torrent.path).arg(payload.path()).args(options);
        command.args(["--no-dht", "--no-lsd", "--no-trackers", "--json", "--state-dir"]).arg(lab.path(name));
        Running::start(name, &mut command, &lab.path("logs"))
    };
    let mut quiet = [
        seed("none", &["--no-port-mapping"]),
        seed("loopback", &["--listen", "127.0.0.1:0"]),
        seed("another", &["--bind-device", "lo"]),
    ];
    let mut open = seed("open", &["--listen", "0.0.0.0:0", "--bind-device", "eth0"]);
    open.until("ports for TCP and UDP", |seed| (mapped(seed).len() == 2).then_some(()));
    for process in &mut quiet {
        process.until("that it seeds", |process| process.stdout().contains("\"seeding\"").then_some(()));
        assert_eq!(mapped(process).len(), 0);
    }
    assert_eq!(home.holes(), 4);
}
