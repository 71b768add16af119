//! What the facts mean, and what to do.

use super::facts::{Facts, Family, Folder};
use crate::cli::exit::{Code, shown};
use crate::cli::quantity::bytes;
use crate::net::nat::{Protocol, State};
use crate::sys::Confined;

/// How it stands with one thing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    Good,
    /// It works, and would be better otherwise.
    Warn,
    /// It does not work. With the exit code.
    Bad(Code),
}

impl Verdict {
    pub(super) fn word(self) -> &'static str {
        match self {
            Self::Good => "ok",
            Self::Warn => "warn",
            Self::Bad(_) => "bad",
        }
    }

    /// As terminals number them.
    pub(super) fn color(self) -> u8 {
        match self {
            Self::Good => 32,
            Self::Warn => 33,
            Self::Bad(_) => 31,
        }
    }

    pub(super) fn code(self) -> Option<Code> {
        if let Self::Bad(code) = self { Some(code) } else { None }
    }

    pub(super) fn badness(self) -> u8 {
        match self {
            Self::Good => 0,
            Self::Warn => 1,
            Self::Bad(_) => 2,
        }
    }
}

/// What came of one check.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Finding {
    /// Its name, for people and programs.
    pub(super) check: &'static str,
    pub(super) verdict: Verdict,
    pub(super) says: String,
    /// What to do about it.
    pub(super) advice: Option<String>,
}

fn good(check: &'static str, says: impl Into<String>) -> Option<Finding> {
    Some(Finding { check, verdict: Verdict::Good, says: says.into(), advice: None })
}

fn warn(check: &'static str, says: impl Into<String>, advice: impl Into<String>) -> Option<Finding> {
    Some(Finding { check, verdict: Verdict::Warn, says: says.into(), advice: Some(advice.into()) })
}

fn bad(code: Code, check: &'static str, says: impl Into<String>, advice: impl Into<String>) -> Option<Finding> {
    Some(Finding { check, verdict: Verdict::Bad(code), says: says.into(), advice: Some(advice.into()) })
}

/// Judges one thing; none if it was not tried.
type Check = fn(&Facts) -> Option<Finding>;

/// All there are, in the order in which they are shown.
pub(super) const CHECKS: &[Check] = &[
    listening, ipv4, ipv6, names, router, port, dht, folder, space, state, sandbox, files, buffers, memory, clock,
    hashing,
];

/// Less free space than this is soon used up.
const LITTLE_SPACE: u64 = 2 << 30;
/// With less nothing can be downloaded.
const NO_SPACE: u64 = 16 << 20;
/// For connections and files of many torrents.
const ENOUGH_FILES: u64 = 1_024;
/// What downloads take at most for blocks, and as much again for all else.
const ENOUGH_MEMORY: u64 = 128 << 20;
/// A clock that shows an earlier time than 2026 was never set; certificates are not valid yet, then.
const EARLIEST: u64 = 1_767_225_600;

fn listening(facts: &Facts) -> Option<Finding> {
    match facts.listening.as_ref()? {
        Ok(addresses) if addresses.is_empty() => good("listening", "nowhere: peers do not come to us through a proxy"),
        Ok(addresses) => {
            let addresses: Vec<String> = addresses.iter().map(ToString::to_string).collect();
            good("listening", addresses.join(", "))
        }
        Err(why) if facts.proxied => bad(Code::Network, "listening", why, "see that the proxy runs, or name another"),
        Err(why) => bad(Code::Network, "listening", why, "name another address and port with --listen, or none"),
    }
}

fn way(family: &Family) -> Option<String> {
    let way = family.way.as_ref()?.as_ref().ok()?;
    Some(format!("{}, router {}", way.ours, way.router.ip()))
}

/// There is any way out; without one there is nothing to say of what would go by it.
fn is_connected(facts: &Facts) -> bool {
    let way = |family: &Family| matches!(family.way, Some(Ok(_))) || family.dht_nodes > 0;
    !facts.offline && (facts.proxied || way(&facts.v4) || way(&facts.v6))
}

fn ipv4(facts: &Facts) -> Option<Finding> {
    let why = facts.v4.way.as_ref()?.as_ref().err();
    match (way(&facts.v4), why, &facts.device) {
        (Some(way), ..) => good("ipv4", way),
        // There are networks without a router, and tunnels.
        _ if facts.v4.dht_nodes > 0 => good("ipv4", "there is a way to the internet"),
        (None, why, _) if way(&facts.v6).is_some() || facts.v6.dht_nodes > 0 => {
            warn("ipv4", why.map_or("none", |why| why), "most peers have nothing but IPv4: ask your provider for it")
        }
        (None, why, Some(device)) => bad(
            Code::Network,
            "ipv4",
            why.map_or("none", |why| why),
            format!("see that {device} is up and has a default route; nothing goes by another device"),
        ),
        (None, why, None) if facts.proxied => good("ipv4", why.map_or("none", |why| why)),
        (None, why, None) => {
            bad(Code::Network, "ipv4", why.map_or("none", |why| why), "connect this machine to a network")
        }
    }
}

fn ipv6(facts: &Facts) -> Option<Finding> {
    let why = facts.v6.way.as_ref()?.as_ref().err();
    match way(&facts.v6) {
        Some(way) => good("ipv6", way),
        _ if facts.v6.dht_nodes > 0 => good("ipv6", "there is a way to the internet"),
        _ if facts.proxied => None,
        None => warn(
            "ipv6",
            why.map_or("none", |why| why),
            "without it peers that have nothing else are not reached: switch it on in the router, or ask your provider",
        ),
    }
}

fn names(facts: &Facts) -> Option<Finding> {
    match facts.names.as_ref()? {
        Ok(time) => good("names", format!("looked up in {} ms", time.as_millis())),
        Err(why) => bad(Code::Network, "names", why, "see /etc/resolv.conf, or name another server with --name-server"),
    }
}

/// What routers, and those outside, say of where we are.
fn router(facts: &Facts) -> Option<Finding> {
    if !is_connected(facts) {
        return None;
    }
    let by_hand = "switch on UPnP or NAT-PMP in the router, or have it forward a port for TCP and UDP to this machine and \
                   name that port with --listen :PORT";
    let provider = "your provider shares one address among many (CGNAT), or there is another router outside: ask for a public \
                    IPv4 address, open the port in the outer router, or rely on IPv6";
    let methods =
        |mapped: &[crate::net::nat::Mapped]| mapped.first().map(|one| one.method.to_string()).unwrap_or_default();
    match &facts.v4.mapping {
        _ if facts.proxied => good("router", "not asked: with a proxy peers are not to come to us"),
        State::NotNeeded(ip) => good("router", format!("none in the way: {ip} is a public address")),
        State::Mapped(mapped) => match (facts.v4.mapping.ip(), facts.v4.seen_as) {
            (None, _) => {
                let outside = mapped.first().map(|one| one.external.ip().to_string()).unwrap_or_default();
                warn(
                    "router",
                    format!("{} works, but outside it has {outside}, no public address", methods(mapped)),
                    provider,
                )
            }
            (Some(said), Some(seen)) if said != seen => {
                warn("router", format!("it says that we are at {said}, and the DHT that we are at {seen}"), provider)
            }
            (Some(said), _) => good("router", format!("{} works; outside we are at {said}", methods(mapped))),
        },
        State::Failed(why) => warn("router", why, by_hand),
        State::Asking => warn("router", "it was asked, and has not answered in time", by_hand),
        State::Off => warn("router", "not asked", "without --no-port-mapping it is asked to let peers in"),
    }
}

/// Whether peers can come to us.
fn port(facts: &Facts) -> Option<Finding> {
    if facts.proxied || !is_connected(facts) {
        return None;
    }
    let families = [&facts.v4, &facts.v6];
    let came_back = families.iter().find(|family| family.comes_back == Some(true));
    let open = families.iter().find_map(|family| family.mapping.external(Protocol::Tcp));
    let public = families.iter().find_map(|family| match &family.mapping {
        State::NotNeeded(ip) => Some(*ip),
        _ => None,
    });
    let firewall =
        "if no peers come, see that no firewall on this machine keeps them out; nobody outside was asked to try";
    if let Some(outside) = came_back.and_then(|family| family.mapping.external(Protocol::Tcp)) {
        good("port", format!("{outside} leads here: peers can come to us"))
    } else if let Some(outside) = open {
        // Not every router leads its own network back in, so that says nothing.
        let says = format!("{outside} is open, says the router; from here it could not be tried");
        Some(Finding { check: "port", verdict: Verdict::Good, says, advice: Some(firewall.to_owned()) })
    } else if let Some(public) = public {
        let says = format!("nothing stands between the internet and {public} but firewalls");
        Some(Finding { check: "port", verdict: Verdict::Good, says, advice: Some(firewall.to_owned()) })
    } else {
        warn(
            "port",
            "peers cannot come to us; only those can be reached who let us come to them",
            "do what is said of the router; with IPv6, have its firewall let the port in",
        )
    }
}

fn dht(facts: &Facts) -> Option<Finding> {
    if !is_connected(facts) {
        return None;
    }
    if !facts.dht {
        return warn(
            "dht",
            "not tried",
            "without --no-dht (and through a proxy that takes UDP) peers are found without trackers",
        );
    }
    if matches!(facts.listening, Some(Err(_))) {
        return None;
    }
    match (facts.v4.dht_nodes, facts.v6.dht_nodes) {
        (0, 0) => bad(
            Code::Network,
            "dht",
            "no node answers",
            "UDP does not get out or back: see the firewalls here and in the router; in some networks it is forbidden",
        ),
        (v4, v6) => {
            let seen = [&facts.v4, &facts.v6].map(|family| family.seen_as);
            let seen: Vec<String> = seen.iter().flatten().map(ToString::to_string).collect();
            let seen = if seen.is_empty() { String::new() } else { format!("; they see us at {}", seen.join(", ")) };
            good("dht", format!("{v4} nodes answer over IPv4, {v6} over IPv6{seen}"))
        }
    }
}

fn folder(facts: &Facts) -> Option<Finding> {
    let Some(system) = &facts.system else {
        let advice = "is it on a server that is down? name another folder with --dir";
        return bad(Code::Disk, "folder", "the file system does not answer", advice);
    };
    let Folder { path, exists, refused, file_system, .. } = &system.folder;
    let place = if *exists { shown(path) } else { format!("{} (to be made)", shown(path)) };
    if let Some(why) = refused {
        return bad(Code::Disk, "folder", format!("{place}: {why}"), "name a folder with --dir that you may write to");
    }
    let says = format!("{place}: {}", file_system.unwrap_or("an unknown file system"));
    match file_system.unwrap_or("") {
        "vfat" => warn("folder", says, "files of 4 GiB and more do not fit on it: use exFAT, or what the system has"),
        "tmpfs" | "ramfs" => {
            warn("folder", says, "it is in memory, and gone when the machine stops: name another with --dir")
        }
        "overlay" => warn("folder", says, "in a container it goes with the container: mount a volume for downloads"),
        "nfs" | "smb" | "9p" | "ceph" | "fuse" => warn(
            "folder",
            says,
            "it is slower than a local one: downloading to a local folder and moving later spares it",
        ),
        "btrfs" => warn(
            "folder",
            says,
            "random writes scatter files on it: `chattr +C` on an empty folder spares new files that",
        ),
        _ => good("folder", says),
    }
}

fn space(facts: &Facts) -> Option<Finding> {
    let free = facts.system.as_ref()?.folder.free?;
    let advice = "free some, or name another folder with --dir";
    match free {
        ..NO_SPACE => bad(Code::Disk, "space", format!("{} free", bytes(free)), advice),
        NO_SPACE..LITTLE_SPACE => warn("space", format!("{} free", bytes(free)), advice),
        _ => good("space", format!("{} free", bytes(free))),
    }
}

fn state(facts: &Facts) -> Option<Finding> {
    let Folder { path, refused, .. } = &facts.system.as_ref()?.state;
    match refused {
        Some(why) => {
            let advice = "name a folder with --state-dir: without it downloads begin anew each time";
            bad(Code::Disk, "state", format!("{}: {why}", shown(path)), advice)
        }
        None => good("state", shown(path)),
    }
}

fn sandbox(facts: &Facts) -> Option<Finding> {
    match facts.system.as_ref()?.confined {
        Some(Confined::Fully) => good("sandbox", "Landlock: get, seed and the like can write to their folders only"),
        Some(Confined::Partly) => good(
            "sandbox",
            "Landlock: get, seed and the like can write to their folders only; files elsewhere could be cut",
        ),
        Some(Confined::Not) => warn(
            "sandbox",
            "the kernel has no Landlock, or does not let us use it: nothing but our own care keeps us to our folders",
            "with Linux 6.2 or newer see that `lsm=` of the kernel's command line names landlock",
        ),
        None => warn(
            "sandbox",
            "switched off",
            "without --no-sandbox get, seed and the like can write to their folders only",
        ),
    }
}

fn files(facts: &Facts) -> Option<Finding> {
    let limit = facts.system.as_ref()?.open_files;
    let says = format!("{limit} may be open at once");
    if limit >= ENOUGH_FILES {
        return good("files", says);
    }
    warn(
        "files",
        says,
        format!("connections are limited by it: `ulimit -n {ENOUGH_FILES}`, or LimitNOFILE= of a service"),
    )
}

fn buffers(facts: &Facts) -> Option<Finding> {
    let (wanted, granted) = facts.udp_buffers?;
    let says = format!("{} for a UDP socket", bytes(u64::try_from(granted).unwrap_or(u64::MAX)));
    if granted >= wanted {
        return good("buffers", says);
    }
    warn(
        "buffers",
        says,
        format!(
            "fast uTP loses packets with less than {wanted}: `sysctl -w net.core.rmem_max={wanted} net.core.wmem_max={wanted}`"
        ),
    )
}

fn memory(facts: &Facts) -> Option<Finding> {
    let free = facts.system.as_ref()?.free_memory?;
    let says = format!("{} to be had", bytes(free));
    if free >= ENOUGH_MEMORY {
        return good("memory", says);
    }
    warn(
        "memory",
        says,
        "end something else: fast downloads hold up to 64 MiB of blocks, and disks are slow without a cache",
    )
}

fn clock(facts: &Facts) -> Option<Finding> {
    let system = facts.system.as_ref()?;
    let advice = "`timedatectl set-ntp true`, or what your system has for it";
    match system.clock_is_kept {
        _ if system.clock < EARLIEST => {
            bad(Code::Network, "clock", "it was never set: trackers with https are not believed", advice)
        }
        Some(false) => warn("clock", "nothing keeps it right, says the system", advice),
        Some(true) => good("clock", "kept right by the system"),
        None => good("clock", "it shows a time that can be"),
    }
}

fn hashing(facts: &Facts) -> Option<Finding> {
    let system = facts.system.as_ref()?;
    let says = format!("{} on {} cores; `gannet bench` measures it", system.hashing, system.cores);
    match system.hashing {
        "scalar" => {
            warn("hashing", says, "this processor has no instructions for it: fast lines may be faster than its checks")
        }
        _ => good("hashing", says),
    }
}

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, SocketAddr};
    use std::time::Duration;

    use super::*;
    use crate::cli::doctor::facts::System;
    use crate::net::nat::{Gateway, Mapped, Method};

    fn local(name: &'static str) -> Folder {
        Folder { path: "/data".into(), exists: true, refused: None, file_system: Some(name), free: Some(1 << 40) }
    }

    fn mapped(external: &str) -> State {
        let external: SocketAddr = external.parse().unwrap();
        let one =
            |protocol| Mapped { protocol, method: Method::Pcp, port: 6881, external, router: [192, 168, 0, 1].into() };
        State::Mapped(vec![one(Protocol::Tcp), one(Protocol::Udp)])
    }

    /// A machine at home, where all is well.
    fn well() -> Facts {
        let way = |router: &str, ours: &str| {
            Some(Ok(Gateway { router: router.parse().unwrap(), ours: ours.parse::<IpAddr>().unwrap() }))
        };
        let v4 = Family {
            way: way("192.168.0.1:0", "192.168.0.2"),
            mapping: mapped("9.9.9.9:7000"),
            comes_back: Some(true),
            dht_nodes: 90,
            seen_as: None,
        };
        Facts {
            offline: false,
            device: None,
            proxied: false,
            listening: Some(Ok(vec!["0.0.0.0:6881".parse().unwrap()])),
            names: Some(Ok(Duration::from_millis(20))),
            v4,
            v6: Family { way: way("[fe80::1]:0", "2600::2"), dht_nodes: 20, ..Family::default() },
            dht: true,
            udp_buffers: Some((4 << 20, 4 << 20)),
            system: Some(System {
                folder: local("ext4"),
                state: local("ext4"),
                open_files: 4_096,
                free_memory: Some(8 << 30),
                clock_is_kept: Some(true),
                clock: EARLIEST + 1,
                hashing: "avx512",
                cores: 8,
                confined: Some(Confined::Fully),
            }),
        }
    }

    /// What is not good of `facts`, each with its verdict; every finding that is not has advice.
    fn ills(facts: &Facts) -> Vec<String> {
        let findings: Vec<Finding> = CHECKS.iter().filter_map(|check| check(facts)).collect();
        assert!(findings.iter().all(|one| one.verdict == Verdict::Good || one.advice.is_some()), "{findings:?}");
        assert!(findings.iter().all(|one| !one.says.is_empty()), "{findings:?}");
        let ill = findings.iter().filter(|one| one.verdict != Verdict::Good);
        ill.map(|one| format!("{} {}", one.verdict.word(), one.check)).collect()
    }

    #[test]
    fn all_is_well() {
        let findings: Vec<Finding> = CHECKS.iter().filter_map(|check| check(&well())).collect();
        assert_eq!((findings.len(), ills(&well())), (CHECKS.len(), vec![]));
    }

    #[test]
    fn each_ill_is_found() {
        let none = || Some(Err("no route to the internet".to_owned()));
        let system = |change: fn(&mut System)| {
            let mut facts = well();
            change(facts.system.as_mut().unwrap());
            facts
        };
        let v4 = |change: fn(&mut Family)| {
            let mut facts = well();
            change(&mut facts.v4);
            facts
        };
        let closed = |family: &mut Family| {
            family.mapping = State::Failed("UPnP: no answer".to_owned());
            family.comes_back = None;
        };
        let cases: Vec<(Facts, &[&str])> = vec![
            (v4(closed), &["warn router", "warn port"]),
            (v4(|v4| v4.comes_back = Some(false)), &[]),
            (v4(|v4| v4.mapping = mapped("100.64.1.1:7000")), &["warn router", "warn port"]),
            (v4(|v4| v4.seen_as = Some([8, 8, 8, 8].into())), &["warn router"]),
            (v4(|v4| v4.mapping = State::NotNeeded([9, 9, 9, 9].into())), &[]),
            (v4(|v4| (v4.mapping, v4.comes_back) = (State::Off, None)), &["warn router", "warn port"]),
            (Facts { names: Some(Err("no answer".to_owned())), ..well() }, &["bad names"]),
            (Facts { listening: Some(Err("in use".to_owned())), ..well() }, &["bad listening"]),
            (Facts { dht: false, ..well() }, &["warn dht"]),
            (Facts { v6: Family { way: none(), ..Family::default() }, ..well() }, &["warn ipv6"]),
            (
                Facts {
                    v4: Family { way: none(), ..Family::default() },
                    v6: Family { way: none(), ..Family::default() },
                    names: None,
                    ..well()
                },
                &["bad ipv4", "warn ipv6"],
            ),
            (Facts { udp_buffers: Some((4 << 20, 208 << 10)), ..well() }, &["warn buffers"]),
            (Facts { system: None, ..well() }, &["bad folder"]),
            (system(|s| s.folder = local("vfat")), &["warn folder"]),
            (system(|s| s.folder = local("tmpfs")), &["warn folder"]),
            (system(|s| s.folder = local("nfs")), &["warn folder"]),
            (system(|s| s.folder.refused = Some("permission denied".to_owned())), &["bad folder"]),
            (system(|s| s.folder.free = Some(1 << 30)), &["warn space"]),
            (system(|s| s.folder.free = Some(1 << 20)), &["bad space"]),
            (system(|s| s.folder.free = None), &[]),
            (system(|s| s.state.refused = Some("read-only".to_owned())), &["bad state"]),
            (system(|s| s.confined = Some(Confined::Partly)), &[]),
            (system(|s| s.confined = Some(Confined::Not)), &["warn sandbox"]),
            (system(|s| s.confined = None), &["warn sandbox"]),
            (system(|s| s.open_files = 256), &["warn files"]),
            (system(|s| s.free_memory = Some(64 << 20)), &["warn memory"]),
            (system(|s| s.clock_is_kept = Some(false)), &["warn clock"]),
            (system(|s| s.clock = 0), &["bad clock"]),
            (system(|s| s.hashing = "scalar"), &["warn hashing"]),
        ];
        for (facts, expected) in cases {
            assert_eq!(ills(&facts), expected, "{facts:?}");
        }
    }

    /// What was not to be tried is no ill.
    #[test]
    fn nothing_is_said_of_what_is_not_wanted() {
        let nowhere = Family::default;
        let offline = Facts { offline: true, dht: false, names: None, v4: nowhere(), v6: nowhere(), ..well() };
        assert_eq!(ills(&offline), [""; 0]);
        let none = || Some(Err("no route to the internet".to_owned()));
        let proxied = Facts {
            proxied: true,
            listening: Some(Ok(vec![])),
            names: None,
            v4: Family { way: none(), ..nowhere() },
            v6: Family { way: none(), ..nowhere() },
            ..well()
        };
        assert_eq!(ills(&proxied), ["bad dht"]);
    }
}
