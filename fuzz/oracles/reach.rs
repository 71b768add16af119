//! Where URLs and redirects of strangers may lead, against the same rules as a table of prefixes.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use gannet::tracker::http::may_redirect;
use url::Url;

#[allow(dead_code)]
#[path = "../../src/net/http/scope.rs"]
mod scope;

use scope::{Reach, Scope, scope};

use super::tape::Tape;

/// Of IPv4: prefix, its length, and where it lies.
const V4: [(u32, u32, Scope); 9] = [
    (0x0000_0000, 8, Scope::Never),
    (0x0a00_0000, 8, Scope::Local),
    (0x6440_0000, 10, Scope::Local),
    (0x7f00_0000, 8, Scope::Local),
    (0xa9fe_0000, 16, Scope::Never),
    (0xac10_0000, 12, Scope::Local),
    (0xc0a8_0000, 16, Scope::Local),
    (0xe000_0000, 4, Scope::Never),
    (0xf000_0000, 4, Scope::Never),
];

/// Of IPv6, likewise; where IPv4 is inside, how far from its right end.
const V6: [(u128, u32, Result<Scope, u32>); 10] = [
    (1, 128, Ok(Scope::Local)),
    (0xffff_0000_0000, 96, Err(0)),
    (0, 96, Ok(Scope::Never)),
    (0x0064_ff9b << 96, 96, Err(0)),
    (0x0064_ff9b_0001 << 80, 48, Ok(Scope::Local)),
    (0x2002 << 112, 16, Err(80)),
    (0xfe80 << 112, 10, Ok(Scope::Never)),
    (0xff00 << 112, 8, Ok(Scope::Never)),
    (0xfc00 << 112, 7, Ok(Scope::Local)),
    (0, 0, Ok(Scope::Public)),
];

pub fn run(data: &[u8]) {
    let mut tape = Tape(data);
    let which = tape.byte();
    let bits = u128::from_be_bytes(tape.array());
    // One of the prefixes, as it is or with a bit that is wrong, or anything.
    let ip = match V6.get(usize::from(which % 12)) {
        Some((prefix, ..)) => *prefix ^ bits >> (which >> 1),
        None => bits,
    };
    let v6 = Ipv6Addr::from_bits(ip);
    let v4 = Ipv4Addr::from_bits(tape.long());
    assert_eq!(scope(v6.into()), of_v6(ip), "{v6}");
    assert_eq!(scope(v4.into()), of_v4(v4.to_bits()), "{v4}");
    assert_eq!(scope(v4.to_ipv6_mapped().into()), scope(v4.into()), "{v4}");
    for ip in [IpAddr::from(v4), v6.into()] {
        assert_eq!(Reach::Public.allows(ip), scope(ip) == Scope::Public);
        assert_eq!(Reach::Local.allows(ip), scope(ip) != Scope::Never);
    }
    let Ok(text) = std::str::from_utf8(tape.0) else { return };
    let (from, location) = text.split_once('\n').unwrap_or(("https://a.example/announce?key=1", text));
    let Ok(from) = Url::parse(from) else { return };
    let Ok(next) = from.join(location) else { return };
    if may_redirect(&from, &next) {
        assert!(matches!(next.scheme(), "http" | "https"), "{next}");
        assert!(from.scheme() != "https" || next.scheme() == "https", "{from} leads to {next}");
    }
}

fn of_v4(ip: u32) -> Scope {
    let found = V4.iter().find(|(prefix, len, _)| (ip ^ prefix) >> (32 - len) == 0);
    found.map_or(Scope::Public, |(.., scope)| *scope)
}

fn of_v6(ip: u128) -> Scope {
    let found = V6.iter().find(|(prefix, len, _)| *len == 0 || (ip ^ prefix) >> (128 - len) == 0);
    match found.expect("the last fits everything").2 {
        Ok(scope) => scope,
        Err(at) => of_v4((ip >> at & u128::from(u32::MAX)).try_into().unwrap()),
    }
}
