//! Announce and scrape over HTTP: the URL to ask, and what the body of the answer says (BEP 3, 7, 23, 24, 31, 48).

use std::fmt::Write as _;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use url::Url;

use super::announce::{MAX_PEERS, clamp_interval, compact_peers, is_dialable};
use super::{
    Announce, AnnounceEvent, AnnounceResponse, Family, Retry, ScrapeEntry, ScrapeResponse, TrackerError, TrackerUrl,
    printable,
};
use crate::base::bencode::{Dictionary, Limits, integer, scan, string};

/// Characters of a tracker's message that we show.
const MAX_TEXT: usize = 200;

/// Bytes of a `tracker id` that we keep and send back.
const MAX_TRACKER_ID: usize = 255;

/// The longest wait that `retry in` may ask for: a day.
const MAX_RETRY: Duration = Duration::from_secs(86_400);

/// Torrents in one scrape over HTTP; more make the URL longer than servers take.
pub const MAX_SCRAPE: usize = 64;

/// The URL of an announce: the tracker's own query stays as it is, ours follows.
pub fn announce_url(tracker: &TrackerUrl, announce: &Announce) -> Url {
    let mut query = String::with_capacity(320);
    query.push_str("info_hash=");
    percent_encode(&announce.info_hash, &mut query);
    query.push_str("&peer_id=");
    percent_encode(&announce.peer_id.0, &mut query);
    let Announce { port, uploaded, downloaded, left, numwant, key, .. } = announce;
    // Writing to a String does not fail.
    let _ = write!(
        query,
        "&port={port}&uploaded={uploaded}&downloaded={downloaded}&left={left}&compact=1&no_peer_id=1\
         &numwant={numwant}&key={key:08X}"
    );
    match announce.event {
        AnnounceEvent::None => {}
        AnnounceEvent::Started => query.push_str("&event=started"),
        AnnounceEvent::Completed => query.push_str("&event=completed"),
        AnnounceEvent::Stopped => query.push_str("&event=stopped"),
    }
    if let Some(id) = &announce.tracker_id {
        query.push_str("&trackerid=");
        percent_encode(id, &mut query);
    }
    if let Some(ip) = announce.ip {
        query.push_str("&ip=");
        percent_encode(ip.to_string().as_bytes(), &mut query);
    }
    with_query(tracker.url().clone(), &query)
}

/// The URL of a scrape (BEP 48), for at most [`MAX_SCRAPE`] torrents; `None` if the tracker's URL has no scrape form:
/// the last part of its path must begin with `announce`.
pub fn scrape_url(tracker: &TrackerUrl, info_hashes: &[[u8; 20]]) -> Option<Url> {
    let mut url = tracker.url().clone();
    let (folder, last) = url.path().rsplit_once('/')?;
    let path = format!("{folder}/scrape{}", last.strip_prefix("announce")?);
    url.set_path(&path);
    let mut query = String::new();
    for hash in info_hashes.iter().take(MAX_SCRAPE) {
        query.push_str(if query.is_empty() { "info_hash=" } else { "&info_hash=" });
        percent_encode(hash, &mut query);
    }
    Some(with_query(url, &query))
}

/// `Url`'s own way to add pairs would encode the percent signs once more.
fn with_query(mut url: Url, query: &str) -> Url {
    let whole = match url.query() {
        Some(own) if !own.is_empty() => format!("{own}&{query}"),
        _ => query.to_owned(),
    };
    url.set_query(Some(&whole));
    url
}

fn percent_encode(bytes: &[u8], out: &mut String) {
    for byte in bytes {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(byte) {
            out.push(char::from(*byte));
        } else {
            let _ = write!(out, "%{byte:02X}");
        }
    }
}

/// Reads the body of an announce's answer.
///
/// What is wrong in one entry or one field costs only that entry or field.
///
/// # Errors
/// [`TrackerError::Body`] if it is no bencoded dictionary; [`TrackerError::Failure`] if it is a refusal.
pub fn parse_announce(body: &[u8]) -> Result<AnnounceResponse, TrackerError> {
    let answer = parse_dictionary(body)?;
    let mut peers = Vec::new();
    if let Some(raw) = answer.raw(b"peers") {
        match string(raw) {
            Some(compact) => compact_peers(compact, Family::V4, &mut peers),
            None => peers.extend(list_items(raw).filter_map(listed_peer).take(MAX_PEERS)),
        }
    }
    if let Some(compact) = answer.raw(b"peers6").and_then(string) {
        compact_peers(compact, Family::V6, &mut peers);
    }
    Ok(AnnounceResponse {
        peers,
        seeders: count(&answer, b"complete"),
        leechers: count(&answer, b"incomplete"),
        downloaded: count(&answer, b"downloaded"),
        interval: seconds(&answer, b"interval"),
        min_interval: seconds(&answer, b"min interval"),
        external_ip: answer.raw(b"external ip").and_then(string).and_then(packed_ip),
        tracker_id: answer
            .raw(b"tracker id")
            .and_then(string)
            .filter(|id| id.len() <= MAX_TRACKER_ID)
            .map(<[u8]>::to_vec),
        warning: answer.raw(b"warning message").and_then(string).map(|text| printable(text, MAX_TEXT)),
        from: None,
    })
}

/// Reads the body of a scrape's answer. Torrents that are none of `asked` are left out.
///
/// # Errors
/// As [`parse_announce`].
pub fn parse_scrape(body: &[u8], asked: &[[u8; 20]]) -> Result<ScrapeResponse, TrackerError> {
    let answer = parse_dictionary(body)?;
    let files = answer.dictionary(b"files").ok().flatten();
    let files = files.ok_or_else(|| TrackerError::Body("no files in it".into()))?;
    let entry = |info_hash: &[u8; 20]| {
        let file = files.dictionary(info_hash).ok().flatten()?;
        let number = |key: &[u8]| count(&file, key).unwrap_or(0);
        Some(ScrapeEntry {
            info_hash: *info_hash,
            seeders: number(b"complete"),
            leechers: number(b"incomplete"),
            downloaded: number(b"downloaded"),
        })
    };
    Ok(ScrapeResponse { files: asked.iter().filter_map(entry).collect() })
}

/// The reason in a body that came with an HTTP status other than success, if it holds one.
pub fn failure_in(body: &[u8]) -> Option<TrackerError> {
    parse_dictionary(body).err().filter(|e| matches!(e, TrackerError::Failure { .. }))
}

/// Whether this URL is one that a tracker on this machine or in this network may have: its path ends in `/announce`
/// or `/scrape`. So a torrent cannot make us send a request to any other service there.
pub fn is_tracker_path(url: &Url) -> bool {
    let last = url.path().rsplit('/').next().unwrap_or("");
    let last = last.strip_suffix(".php").unwrap_or(last);
    matches!(last, "announce" | "scrape")
}

fn parse_dictionary(body: &[u8]) -> Result<Dictionary<'_>, TrackerError> {
    // Some trackers end their answer with a line feed: what follows the dictionary is not looked at.
    let (answer, _) = Dictionary::parse_prefix(body, Limits::MESSAGE).map_err(|e| TrackerError::Body(e.to_string()))?;
    let Some(reason) = answer.raw(b"failure reason") else { return Ok(answer) };
    let reason = string(reason).map(|text| printable(text, MAX_TEXT)).filter(|text| !text.is_empty());
    let reason = reason.unwrap_or_else(|| "refused without a reason".into());
    // A tracker that refuses and names an interval means it for the next try, too.
    let interval = || seconds(&answer, b"min interval").or_else(|| seconds(&answer, b"interval"));
    let retry = retry_in(&answer).or_else(|| interval().map(Retry::After));
    Err(TrackerError::Failure { reason, retry })
}

/// BEP 31: minutes or "never". Seen as text and as an integer.
fn retry_in(answer: &Dictionary<'_>) -> Option<Retry> {
    let raw = answer.raw(b"retry in")?;
    let minutes = match (integer(raw), string(raw)) {
        (Some(minutes), _) => minutes,
        (None, Some(text)) if text == b"never" => return Some(Retry::Never),
        (None, Some(text)) => std::str::from_utf8(text).ok()?.trim().parse::<u32>().ok()?.into(),
        (None, None) => return None,
    };
    let minutes = u64::try_from(minutes).ok()?;
    Some(Retry::After(Duration::from_secs(minutes.saturating_mul(60)).min(MAX_RETRY)))
}

/// One peer of the older form, a dictionary with `ip` and `port`. A name in place of an address is skipped: looking it
/// up would let a tracker aim our DNS queries.
fn listed_peer(raw: &[u8]) -> Option<SocketAddr> {
    let peer = Dictionary::parse(raw, Limits::MESSAGE).ok()?;
    let ip = string(peer.raw(b"ip")?)?;
    let ip: IpAddr = std::str::from_utf8(ip).ok()?.trim().parse().ok()?;
    let port = u16::try_from(integer(peer.raw(b"port")?)?).ok()?;
    Some(SocketAddr::new(ip.to_canonical(), port)).filter(|p| is_dialable(*p))
}

/// The elements of a bencoded list, raw. Nothing if it is none.
fn list_items(raw: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut rest = raw.strip_prefix(b"l").unwrap_or(&[]);
    std::iter::from_fn(move || {
        if rest.first().is_none_or(|b| *b == b'e') {
            return None;
        }
        let (item, after) = rest.split_at_checked(scan(rest, Limits::MESSAGE).ok()?.end)?;
        rest = after;
        Some(item)
    })
}

fn count(answer: &Dictionary<'_>, key: &[u8]) -> Option<u32> {
    let number = integer(answer.raw(key)?)?;
    if number < 0 { None } else { Some(u32::try_from(number).unwrap_or(u32::MAX)) }
}

fn seconds(answer: &Dictionary<'_>, key: &[u8]) -> Option<Duration> {
    Some(clamp_interval(integer(answer.raw(key)?)?))
}

fn packed_ip(bytes: &[u8]) -> Option<IpAddr> {
    match bytes.len() {
        4 => bytes.first_chunk::<4>().map(|ip| IpAddr::from(*ip)),
        16 => bytes.first_chunk::<16>().map(|ip| IpAddr::from(*ip).to_canonical()),
        _ => None,
    }
}

/// Whether a redirect from one scheme to another is followed: never from `https` to anything else (the passkey would
/// go in the clear), and never to what is not HTTP.
pub fn may_redirect(from: &Url, to: &Url) -> bool {
    match to.scheme() {
        "https" => true,
        "http" => from.scheme() != "https",
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::PeerId;
    use proptest::prelude::*;

    fn announce() -> Announce {
        Announce {
            info_hash: *b"\x12\x34\x56\x78\x9a\xbc\xde\xf1\x23\x45\x67\x89\xab\xcd\xef\x12\x34\x56\x78\x9a",
            peer_id: PeerId(*b"-GN0100-0123456789~."),
            port: 6881,
            uploaded: u64::MAX,
            downloaded: 0,
            left: 16384,
            event: AnnounceEvent::Started,
            numwant: 200,
            key: 0xbeef,
            tracker_id: None,
            ip: None,
        }
    }

    const OURS: &str = "info_hash=%124Vx%9A%BC%DE%F1%23Eg%89%AB%CD%EF%124Vx%9A&peer_id=-GN0100-0123456789~.\
        &port=6881&uploaded=18446744073709551615&downloaded=0&left=16384&compact=1&no_peer_id=1&numwant=200&key=0000BEEF\
        &event=started";

    #[test]
    fn announce_urls() {
        for (tracker, expected) in [
            ("http://h/announce", format!("http://h/announce?{OURS}")),
            ("http://h/announce?", format!("http://h/announce?{OURS}")),
            ("http://h:80/a%20b?passkey=%ff+x&y=1#frag", format!("http://h/a%20b?passkey=%ff+x&y=1&{OURS}")),
            ("https://h:444", format!("https://h:444/?{OURS}")),
        ] {
            let tracker = TrackerUrl::parse(tracker).unwrap();
            assert_eq!(announce_url(&tracker, &announce()).as_str(), expected);
        }
        let more = Announce {
            event: AnnounceEvent::None,
            tracker_id: Some(b"a&b=\xff".to_vec()),
            ip: Some("::1".parse().unwrap()),
            ..announce()
        };
        let url = announce_url(&TrackerUrl::parse("http://h/announce").unwrap(), &more);
        assert!(url.as_str().ends_with("&key=0000BEEF&trackerid=a%26b%3D%FF&ip=%3A%3A1"), "{url}");
    }

    #[test]
    fn scrape_urls() {
        let hash = [b'x'; 20];
        let q = "info_hash=xxxxxxxxxxxxxxxxxxxx";
        for (tracker, expected) in [
            ("http://h/announce", Some(format!("http://h/scrape?{q}"))),
            ("http://h/x/announce.php?k=1", Some(format!("http://h/x/scrape.php?k=1&{q}"))),
            ("http://h/announce/x", None),
            ("http://h/a", None),
            ("http://h", None),
        ] {
            let url = scrape_url(&TrackerUrl::parse(tracker).unwrap(), &[hash]);
            assert_eq!(url.map(String::from), expected);
        }
    }

    #[test]
    fn t2_answers() {
        let compact = parse_announce(
            b"d8:completei5e10:downloadedi50e11:external ip4:\x01\x02\x03\x0410:incompletei7e8:intervali1800e\
              12:min intervali900e5:peers13:\x0a\0\0\x01\x1a\xe1\x0a\0\0\x02\0\0x6:peers618:\x20\x01\x0d\xb8\0\0\0\0\0\0\0\0\0\0\0\x01\
              \x1a\xe110:tracker id3:abc15:warning message6:\x1b[1mhie\n",
        )
        .unwrap();
        let expected = AnnounceResponse {
            peers: vec!["10.0.0.1:6881".parse().unwrap(), "[2001:db8::1]:6881".parse().unwrap()],
            seeders: Some(5),
            leechers: Some(7),
            downloaded: Some(50),
            interval: Some(Duration::from_secs(1800)),
            min_interval: Some(Duration::from_secs(900)),
            external_ip: Some("1.2.3.4".parse().unwrap()),
            tracker_id: Some(b"abc".to_vec()),
            warning: Some("[1mhi".into()),
            from: None,
        };
        assert_eq!(compact, expected);

        let listed = parse_announce(
            b"d5:peersld2:ip9:127.0.0.14:porti1eed2:ip9:127.0.0.14:porti-1eed2:ip9:127.0.0.14:porti65536eed4:porti1ee\
              d2:ip4:a.bc4:porti1eed2:ip3:::14:porti2eed2:ipi5e4:porti1eei7e0:led2:ip7:0.0.0.04:porti1eed2:ip9:127.0.0.14:port1:1e\
              d2:ip9:127.0.0.17:peer id20:....................4:porti3eeee",
        );
        let ports: Vec<u16> = listed.unwrap().peers.iter().map(SocketAddr::port).collect();
        assert_eq!(ports, [1, 2, 3]);

        assert_eq!(parse_announce(b"de").unwrap(), AnnounceResponse::default());
        for deep in [b"l".repeat(20_000), b"d1:a".repeat(200_000), b"d5:peersl".repeat(1_000)] {
            assert!(parse_announce(&deep).is_err() && parse_scrape(&deep, &[[0; 20]]).is_err());
        }
        let odd = b"d8:complete1:x10:incompletei-1e8:interval4:1800e5:peers5:12345e".as_slice();
        for body in [odd, b"d5:peersi5ee", b"d5:peers0:e", b"d5:peerslee", b"d11:external ip3:abce"] {
            assert!(parse_announce(body).is_ok_and(|a| a.peers.is_empty()) || body == odd);
        }
        for body in [b"".as_slice(), b"<html>", b"le", b"i5e", b"d5:peers5:1234e", b"d8:intervali1"] {
            assert!(matches!(parse_announce(body), Err(TrackerError::Body(_))));
        }
    }

    #[test]
    fn t3_intervals_are_clamped() {
        for (said, obeyed) in [
            ("0", 60),
            ("-1", 60),
            ("1", 60),
            ("61", 61),
            ("86401", 86_400),
            ("2147483648", 86_400),
            ("9223372036854775808", 86_400),
            ("-9223372036854775808", 60),
        ] {
            let body = format!("d8:intervali{said}e12:min intervali{said}ee");
            let answer = parse_announce(body.as_bytes()).unwrap();
            let obeyed = Some(Duration::from_secs(obeyed));
            assert_eq!((answer.interval, answer.min_interval), (obeyed, obeyed), "{said}");
        }
    }

    #[test]
    fn t2_peers_are_bounded() {
        let many: Vec<u8> =
            (0..100_000u32).flat_map(|i| [&(i | 0x0a00_0000).to_be_bytes()[..], &[1, 1]].concat()).collect();
        let body = [format!("d5:peers{}:", many.len()).as_bytes(), &many, b"e"].concat();
        assert_eq!(parse_announce(&body).unwrap().peers.len(), MAX_PEERS);
        let listed = format!("d5:peersl{}ee", "d2:ip7:1.2.3.44:porti1ee".repeat(1200));
        assert_eq!(parse_announce(listed.as_bytes()).unwrap().peers.len(), MAX_PEERS);
    }

    #[test]
    fn t4_refusals() {
        let long = [b"d14:failure reason1000000:\x1b]0;x".as_slice(), &vec![b'y'; 999_995], b"e"].concat();
        let Err(TrackerError::Failure { reason, retry: None }) = parse_announce(&long) else { panic!() };
        assert!(reason.starts_with("]0;xyyy") && reason.chars().count() == MAX_TEXT + 1, "{reason}");
        let minutes = |n: u64| Some(Retry::After(Duration::from_secs(n * 60)));
        for (tail, expected) in [
            ("8:retry in1:5", minutes(5)),
            ("8:retry ini5e", minutes(5)),
            ("8:retry in5:never", Some(Retry::Never)),
            ("8:retry in2:-5", None),
            ("8:retry ini9223372036854775807e", minutes(24 * 60)),
            ("8:intervali600e", minutes(10)),
            ("", None),
        ] {
            let body = format!("d14:failure reason2:no{tail}e");
            let expected = TrackerError::Failure { reason: "no".into(), retry: expected };
            assert_eq!(parse_announce(body.as_bytes()), Err(expected.clone()), "{tail}");
            assert_eq!(failure_in(body.as_bytes()), Some(expected));
        }
        assert_eq!(failure_in(b"<html>not found"), None);
    }

    #[test]
    fn scrapes() {
        let (a, b) = ([b'x'; 20], [b'z'; 20]);
        let body = b"d5:filesd20:xxxxxxxxxxxxxxxxxxxxd8:completei11e10:downloadedi13772e10:incompletei19ee\
            20:yyyyyyyyyyyyyyyyyyyyd8:completei21e10:downloadedi206e10:incompletei20eeee";
        let entry = ScrapeEntry { info_hash: a, seeders: 11, leechers: 19, downloaded: 13772 };
        assert_eq!(parse_scrape(body, &[a, b]).unwrap().files, [entry]);
        assert_eq!(parse_scrape(b"d5:filesdee", &[a]).unwrap().files, []);
        assert!(matches!(parse_scrape(b"d14:failure reason2:noe", &[a]), Err(TrackerError::Failure { .. })));
        assert!(matches!(parse_scrape(b"de", &[a]), Err(TrackerError::Body(_))));
    }

    #[test]
    fn where_we_go() {
        let url = |text: &str| Url::parse(text).unwrap();
        for (path, ok) in [
            ("http://h/announce", true),
            ("http://h/x/scrape.php?y", true),
            ("http://h/", false),
            ("http://h/announce/", false),
            ("http://h/x?/announce", false),
            ("http://h/latest/meta-data", false),
        ] {
            assert_eq!(is_tracker_path(&url(path)), ok, "{path}");
        }
        for (from, to, ok) in [
            ("http://h/", "https://h/", true),
            ("http://h/", "http://x/", true),
            ("https://h/", "http://h/", false),
            ("http://h/", "ftp://h/", false),
        ] {
            assert_eq!(may_redirect(&url(from), &url(to)), ok, "{from} {to}");
        }
    }

    proptest! {
        #[test]
        fn any_body(body in prop::collection::vec(prop::sample::select(b"dlie0123456789:-peers6".to_vec()), 0..80)) {
            let _ = parse_announce(&body);
            let _ = parse_scrape(&body, &[[0; 20]]);
        }

        #[test]
        fn any_hash_survives_the_url(info_hash: [u8; 20]) {
            let url = announce_url(&TrackerUrl::parse("http://h/announce").unwrap(), &Announce { info_hash, ..announce() });
            let query = url.query().unwrap();
            let value = query.split_once("info_hash=").unwrap().1.split_once('&').unwrap().0.as_bytes();
            let mut decoded = Vec::new();
            let mut i = 0;
            while i < value.len() {
                if value[i] == b'%' {
                    decoded.push(u8::from_str_radix(std::str::from_utf8(&value[i + 1..i + 3]).unwrap(), 16).unwrap());
                    i += 3;
                } else {
                    decoded.push(value[i]);
                    i += 1;
                }
            }
            prop_assert_eq!(decoded, info_hash);
        }
    }
}
