//! Downloads from web servers, sound ones and all others.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use gannet::metainfo::Format;
use gannet::session::{AddTorrent, Event, Torrent, WebSeedReport, WebSeedState};
use tokio::sync::broadcast::Receiver;

use crate::lab::{KIB, Lab, MIB, Node, PATIENCE, Payload, SOON, done, until, within};
use crate::web::{Asked, Reply, Web, a_moment, find, honest, parse_range, part, status, unescape};

/// The payload, as a torrent that names these web seeds.
fn with_seeds(payload: &Payload, urls: &[String]) -> Payload {
    payload.with(|metainfo| metainfo.web_seeds = urls.to_vec())
}

async fn fetch(lab: &Lab, payload: &Payload, urls: &[String]) -> (Node, Torrent) {
    let node = lab.node("leecher").await;
    let torrent = node.get(&with_seeds(payload, urls), &[]).await;
    (node, torrent)
}

/// The next thing that is told of the web seed at `web`.
async fn told(events: &mut Receiver<Event>, web: &Web, state: WebSeedState) -> WebSeedReport {
    told_one_of(events, web, &[state]).await
}

async fn told_one_of(events: &mut Receiver<Event>, web: &Web, states: &[WebSeedState]) -> WebSeedReport {
    let name = format!("http://{}", web.address);
    within(PATIENCE, "word of a web seed", async {
        loop {
            match events.recv().await.unwrap() {
                Event::WebSeed(report) if report.web_seed == name && states.contains(&report.state) => return report,
                _ => {}
            }
        }
    })
    .await
}

/// No peer, no tracker: a web server is enough, whatever the torrent's form.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_web_seed_is_enough() {
    let files: &[(&str, usize)] =
        &[("a b+ü.txt", 3), ("empty", 0), ("sub/50%;&.bin", 300_000), ("sub/large", MIB + 17), ("z", 16_384)];
    for (format, folder, files) in [
        (Format::V1, None, &[("one", 3 * MIB + 5)][..]),
        (Format::V2, None, &[("one", 100)][..]),
        (Format::V1, Some("all of it"), files),
        (Format::V2, Some("all of it"), files),
        (Format::Hybrid, Some("all of it"), files),
    ] {
        let lab = Lab::new();
        let payload = Payload::make("p", folder, files, 64 * KIB, format, &[]);
        let web = Web::of(&payload).await;
        let (node, torrent) = fetch(&lab, &payload, &[web.url("/pub/")]).await;
        done(&torrent).await;
        payload.assert_in(&node.folder);
        let (asked, status) = (web.asked(), torrent.status());
        // Neither padding nor what has no bytes, everything once, and no compression.
        assert!(asked.iter().all(|asked| !asked.path.contains(".pad") && !asked.path.ends_with("/empty")));
        let bytes: usize = asked.iter().map(|asked| asked.range.clone().unwrap().len()).sum();
        assert_eq!(bytes as u64, payload.size(), "{format:?}");
        assert!(asked.len() <= files.len() * 3 + 8, "{} requests for {} files", asked.len(), files.len());
        assert!(asked.iter().all(|asked| !asked.head.to_ascii_lowercase().contains("gzip")));
        assert!(asked.iter().all(|asked| !asked.head.to_ascii_lowercase().contains("referer")));
        assert!(web.connections() <= 4, "connections are kept: {}", web.connections());
        assert_eq!((status.wasted, status.peers), (0, 0));
        node.stop().await;
    }
}

/// An address without a slash at its end is that of the file itself.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_address_of_the_file_itself() {
    let lab = Lab::new();
    let payload = Payload::file("name", MIB);
    let data = payload.clone();
    let web = Web::new(move |asked| match asked.path.as_str() {
        "/mirror/another%20name" => part(data.files().next().unwrap().1, asked.range.as_ref()),
        _ => status("404 Not Found"),
    })
    .await;
    let (node, torrent) = fetch(&lab, &payload, &[web.url("/mirror/another%20name")]).await;
    done(&torrent).await;
    payload.assert_in(&node.folder);
}

/// A script that is asked for pieces (BEP 17).
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_script_is_enough() {
    for format in [Format::V1, Format::Hybrid] {
        let lab = Lab::new();
        let files = [("a", 100_000), ("b", 700_000), ("c", 1)];
        let payload = Payload::make("s", Some("s"), &files, 64 * KIB, format, &[]);
        let (data, hash) = (payload.clone(), payload.wire_hash());
        let script = Web::new(move |asked| {
            let query = asked.query.clone().unwrap();
            let value = |key: &str| query.split('&').find_map(|pair| pair.strip_prefix(key)?.strip_prefix('='));
            assert_eq!(unescape(value("info_hash").unwrap()), hash);
            if asked.number == 1 {
                // The body says when to come back.
                return Reply::Whole("503 Service Unavailable\r\n".into(), b"1".to_vec());
            }
            let piece = data.metainfo.info.geometry().piece(value("piece").unwrap().parse().unwrap()).unwrap();
            let whole = data.block(piece.get(), 0, data.metainfo.info.geometry().piece_len(piece));
            let body = match value("ranges") {
                None => whole.to_vec(),
                Some(ranges) => ranges.split(',').map(parse_range).flat_map(|part| whole[part].to_vec()).collect(),
            };
            Reply::Whole("200 OK\r\n".into(), body)
        })
        .await;
        let node = lab.node("leecher").await;
        let payload = payload.with(|metainfo| metainfo.http_seeds = vec![script.url("/seed.php")]);
        let torrent = node.get(&payload, &[]).await;
        done(&torrent).await;
        payload.assert_in(&node.folder);
        assert_eq!(torrent.status().wasted, 0);
        node.stop().await;
    }
}

/// Peers and web seeds share the work, and next to nothing comes twice.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_peer_and_a_web_seed() {
    let lab = Lab::new();
    let payload = Payload::file("both", 12 * MIB);
    // The peer, who would need twelve seconds, is not to be outrun at the start.
    let peer_serves = Arc::new(AtomicBool::new(false));
    let (data, gate) = (payload.clone(), peer_serves.clone());
    let web = Web::new(move |asked| match gate.load(Ordering::Relaxed) {
        true => honest(&data, asked),
        false => Reply::Whole("503 Service Unavailable\r\nRetry-After: 1\r\n".into(), vec![]),
    })
    .await;
    let seeder = lab.node_with("seeder", |config| config.limit_up = Some(1 << 20)).await;
    seeder.seed(&payload).await;
    let leecher = lab.node_with("leecher", |config| config.limit_down = Some(8 << 20)).await;
    let torrent = leecher.get(&with_seeds(&payload, &[web.url("/pub/")]), &[seeder.address()]).await;
    until("the peer serves", || torrent.status().downloaded > 0).await;
    peer_serves.store(true, Ordering::Relaxed);
    told(&mut torrent.events(), &web, WebSeedState::Serving).await;
    done(&torrent).await;
    payload.assert_in(&leecher.folder);
    let status = torrent.status();
    assert!(status.wasted <= MIB as u64, "{status:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn web_seeds_can_be_switched_off_and_added() {
    let lab = Lab::new();
    let payload = Payload::file("off", MIB);
    let web = Web::of(&payload).await;
    let named = with_seeds(&payload, &[web.url("/pub/")]);
    let off = lab.node_with("off", |config| config.web_seeds = false).await;
    let torrent = off.get(&named, &[]).await;
    a_moment().await;
    assert_eq!((web.connections(), torrent.status().web_seeds), (0, 0));
    off.stop().await;
    // By the user's own word a query is no reason for suspicion.
    let add = |set: &mut AddTorrent| set.extra_web_seeds = vec![web.url("/pub/off?key=1")];
    let on = lab.node("on").await;
    let torrent = on.get_with(&payload, &[], add).await;
    done(&torrent).await;
    payload.assert_in(&on.folder);
    assert!(web.asked().iter().all(|asked| asked.query.as_deref() == Some("key=1")));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_rate_limit_holds() {
    let lab = Lab::new();
    let payload = Payload::file("slow", MIB);
    let web = Web::of(&payload).await;
    let node = lab.node_with("leecher", |config| config.limit_down = Some(512 << 10)).await;
    let began = std::time::Instant::now();
    let torrent = node.get(&with_seeds(&payload, &[web.url("/pub/")]), &[]).await;
    done(&torrent).await;
    // Two seconds, less the burst that is allowed at first, and the last read, which nothing waits for.
    assert!(began.elapsed() >= Duration::from_millis(800), "{:?}", began.elapsed());
    payload.assert_in(&node.folder);
}

/// T10, wrong bytes: the server is banned for good by the first piece that it alone sent, another one does the work.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn t10_wrong_bytes() {
    let lab = Lab::new();
    let payload = Payload::file("wrong", 2 * MIB);
    let data = payload.clone();
    let liar = Web::new(move |asked| match honest(&data, asked) {
        Reply::Whole(head, body) => Reply::Whole(head, body.iter().map(|byte| byte ^ 1).collect()),
        other => other,
    })
    .await;
    let (node, torrent) = fetch(&lab, &payload, &[liar.url("/pub/")]).await;
    let mut events = torrent.events();
    let report = told(&mut events, &liar, WebSeedState::Banned).await;
    assert_eq!((report.reason.as_deref(), report.retry), (Some("sent bad data"), None));
    a_moment().await;
    let asked = liar.asked().len();
    let status = torrent.status();
    assert_eq!((status.have_pieces, status.web_seeds), (0, 0));
    a_moment().await;
    assert_eq!(liar.asked().len(), asked, "not asked again");
    node.stop().await;

    // Beside an honest one, which is not accused.
    let web = Web::of(&payload).await;
    let (node, torrent) = fetch(&lab, &payload, &[liar.url("/pub/"), web.url("/pub/")]).await;
    let mut events = torrent.events();
    done(&torrent).await;
    payload.assert_in(&node.folder);
    while let Ok(event) = events.try_recv() {
        if let Event::WebSeed(WebSeedReport { web_seed, state: WebSeedState::Banned, .. }) = event {
            assert!(web_seed.contains(&liar.address.to_string()), "{web_seed}");
        }
    }
}

/// T10, 200 instead of 206: small files are taken, and the beginning of large ones; the rest comes from elsewhere.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn t10_whole_files_instead_of_ranges() {
    let lab = Lab::new();
    let files = [("large", 5 * MIB), ("small", 200_000)];
    let payload = Payload::make("whole", Some("whole"), &files, 64 * KIB, Format::V1, &[]);
    let data = payload.clone();
    let plain = Web::new(move |asked| part(find(&data, &asked.path).unwrap(), None)).await;
    let (node, torrent) = fetch(&lab, &payload, &[plain.url("/pub/")]).await;
    let mut events = torrent.events();
    // If the small file came first there is nothing left to ask for: then it is left alone.
    let report = told_one_of(&mut events, &plain, &[WebSeedState::Lacking, WebSeedState::Failed]).await;
    assert_eq!(report.reason.as_deref(), Some("large: it has no ranges (sends whole files only)"));
    until("the small file is there", || node.folder.join("whole/small").exists() && torrent.status().have_pieces >= 4)
        .await;
    node.stop().await;
    // A page in the place of the file is no file.
    let page = Web::new(|_| status("200 OK")).await;
    let web = Web::of(&payload).await;
    let (node, torrent) = fetch(&lab, &payload, &[page.url("/pub/"), web.url("/pub/")]).await;
    done(&torrent).await;
    payload.assert_in(&node.folder);
    assert!(page.asked().len() <= 4);
}

/// T10, short ranges: what a server gives of a range is taken, and the rest asked for; next to nothing is a failure.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn t10_short_ranges() {
    let lab = Lab::new();
    let payload = Payload::file("short", MIB);
    let at_most = |most: usize| {
        let data = payload.clone();
        move |asked: &Asked| {
            let range = asked.range.clone().unwrap();
            part(find(&data, &asked.path).unwrap(), Some(&(range.start..range.end.min(range.start + most))))
        }
    };
    let web = Web::new(at_most(20_000)).await;
    let (node, torrent) = fetch(&lab, &payload, &[web.url("/pub/")]).await;
    done(&torrent).await;
    payload.assert_in(&node.folder);
    node.stop().await;
    let drops = Web::new(at_most(1)).await;
    let data = payload.clone();
    let breaks = Web::new(move |asked| match honest(&data, asked) {
        Reply::Whole(head, body) => Reply::Cut(head, body, 10),
        other => other,
    })
    .await;
    for web in [drops, breaks] {
        std::fs::remove_dir_all(lab.folder("leecher")).unwrap();
        let (node, torrent) = fetch(&lab, &payload, &[web.url("/pub/")]).await;
        let report = told(&mut torrent.events(), &web, WebSeedState::Failed).await;
        assert!(report.retry.unwrap() >= Duration::from_secs(1), "{report:?}");
        a_moment().await;
        assert!(web.asked().len() <= 4, "it is left alone");
        node.stop().await;
    }
}

/// T10, endless bodies: no more is read than was asked for.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn t10_endless_bodies() {
    let lab = Lab::new();
    let payload = Payload::file("endless", MIB);
    let data = payload.clone();
    let web = Web::new(move |asked| {
        let Reply::Whole(head, body) = honest(&data, asked) else { panic!() };
        let head = format!("HTTP/1.1 {head}Transfer-Encoding: chunked\r\n\r\n{:x}\r\n", body.len());
        let more = [b"\r\n4000\r\n".as_slice(), &[b'x'; 0x4000]].concat();
        Reply::Endless([head.as_bytes(), &body].concat(), more)
    })
    .await;
    let (node, torrent) = fetch(&lab, &payload, &[web.url("/pub/")]).await;
    done(&torrent).await;
    payload.assert_in(&node.folder);
    let status = torrent.status();
    assert_eq!((status.downloaded, status.wasted), (MIB as u64, 0));
    until("the connections are closed", || web.cut_off.load(Ordering::Relaxed) == web.connections()).await;
}

/// T10, 404: what one server lacks comes from another, and it is still asked for the rest. T10, 416: the same for a file
/// that is too short there.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn t10_missing_and_short_files() {
    let files = [("one", 300_000), ("two", 300_000), ("three", 300_000)];
    let payload = Payload::make("half", Some("half"), &files, 64 * KIB, Format::Hybrid, &[]);
    for manner in ["404", "416", "length"] {
        let lab = Lab::new();
        let broken = |name: &'static str| {
            let data = payload.clone();
            move |asked: &Asked| match honest(&data, asked) {
                Reply::Whole(..) if asked.path.ends_with(name) => match manner {
                    "404" => status("404 Not Found"),
                    "416" => part(&[0; 5], Some(&(5..6))),
                    _ => {
                        let longer = [find(&data, &asked.path).unwrap(), b"more"].concat();
                        part(&longer, asked.range.as_ref())
                    }
                },
                reply => reply,
            }
        };
        let (no_one, no_two) = (Web::new(broken("/one")).await, Web::new(broken("/two")).await);
        let (node, torrent) = fetch(&lab, &payload, &[no_one.url("/pub/"), no_two.url("/pub/")]).await;
        let mut events = torrent.events();
        done(&torrent).await;
        payload.assert_in(&node.folder);
        for (web, name) in [(&no_one, "/one"), (&no_two, "/two")] {
            let refused = web.asked().iter().filter(|asked| asked.path.ends_with(name)).count();
            assert!(refused <= 4, "{manner}: asked {refused} times for what is not there");
        }
        let mut lacking = 0;
        while let Ok(event) = events.try_recv() {
            if let Event::WebSeed(report) = event {
                assert_ne!(report.state, WebSeedState::Failed, "{report:?}");
                assert_ne!(report.state, WebSeedState::Banned, "{report:?}");
                lacking += usize::from(report.state == WebSeedState::Lacking);
            }
        }
        assert!(lacking >= 1, "{manner}");
        node.stop().await;
    }
    // A server that has nothing of it is left alone.
    let lab = Lab::new();
    let empty = Web::new(|_| status("404 Not Found")).await;
    let (node, torrent) = fetch(&lab, &payload, &[empty.url("/pub/")]).await;
    let report = told(&mut torrent.events(), &empty, WebSeedState::Failed).await;
    assert!(report.reason.unwrap().ends_with("404 Not Found") && report.retry.unwrap() > Duration::from_secs(60));
    let cause = "no peers known, and the only web seed does not serve";
    until("it says why nothing moves", || torrent.status().cause.as_deref() == Some(cause)).await;
    node.stop().await;
}

/// T10, parts other than those that were asked for, and answers that make no sense.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn t10_wrong_parts() {
    let payload = Payload::file("part", MIB);
    for manner in 0..6 {
        let lab = Lab::new();
        let data = payload.clone();
        let web = Web::new(move |asked| {
            let range = asked.range.clone().unwrap();
            let data = find(&data, &asked.path).unwrap();
            let partial = |header: &str| {
                Reply::Whole(format!("206 Partial Content\r\n{header}\r\n"), data[range.clone()].to_vec())
            };
            let (first, last) = (range.start, range.end - 1);
            match manner {
                0 => partial(&format!("Content-Range: bytes {}-{}/{}", first + 1, last + 1, MIB)),
                1 => partial(&format!("Content-Range: bytes {first}-{}/{MIB}", last + 1)),
                2 => partial("X: y"),
                3 => partial(&format!("Content-Range: bytes {first}-{last}/{MIB}\r\nContent-Encoding: gzip")),
                4 => status("500 Internal Server Error"),
                _ => Reply::Cut("\0\0\0 nonsense".into(), vec![], 0),
            }
        })
        .await;
        let (node, torrent) = fetch(&lab, &payload, &[web.url("/pub/")]).await;
        let report = told(&mut torrent.events(), &web, WebSeedState::Failed).await;
        assert!(report.retry.unwrap() >= Duration::from_secs(5), "{manner}: {report:?}");
        assert_eq!(torrent.status().have_pieces, 0);
        a_moment().await;
        assert_eq!(web.asked().len(), 1, "{manner}: it is left alone");
        node.stop().await;
    }
}

/// T10, a server that is too busy: it is asked again when it says.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn t10_busy_servers_say_when() {
    let payload = Payload::file("busy", MIB);
    for busy in ["503 Service Unavailable\r\n", "429 Too Many Requests\r\nDate: Sun, 06 Nov 1994 08:49:37 GMT\r\n"] {
        let lab = Lab::new();
        let data = payload.clone();
        let after = if busy.starts_with("503") { "1" } else { "Sun, 06 Nov 1994 08:49:39 GMT" };
        let web = Web::new(move |asked| match asked.number {
            0 => Reply::Whole(format!("{busy}Retry-After: {after}\r\n"), vec![]),
            _ => honest(&data, asked),
        })
        .await;
        let (node, torrent) = fetch(&lab, &payload, &[web.url("/pub/")]).await;
        let report = told(&mut torrent.events(), &web, WebSeedState::Failed).await;
        let expected = Duration::from_secs(if after == "1" { 1 } else { 2 });
        assert_eq!(report.retry, Some(expected), "{report:?}");
        done(&torrent).await;
        payload.assert_in(&node.folder);
        node.stop().await;
    }
}

/// T10, a server that takes requests and says nothing, or stops half way: another one does the work meanwhile, and a stop
/// does not wait for it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn t10_servers_that_stall() {
    let lab = Lab::new();
    let payload = Payload::file("stall", 4 * MIB);
    let data = payload.clone();
    let silent = Web::new(move |asked| {
        let Reply::Whole(head, body) = honest(&data, asked) else { panic!() };
        let half = body[..body.len() / 2].to_vec();
        let head = format!("HTTP/1.1 {head}Content-Length: {}\r\n\r\n", body.len());
        Reply::Stall(if asked.number == 0 { vec![] } else { [head.into_bytes(), half].concat() })
    })
    .await;
    let web = Web::of(&payload).await;
    let (node, torrent) = fetch(&lab, &payload, &[silent.url("/pub/"), web.url("/pub/")]).await;
    done(&torrent).await;
    payload.assert_in(&node.folder);
    node.stop().await;

    std::fs::remove_dir_all(&node.folder).unwrap();
    let silent = Web::new(|_| Reply::Stall(vec![])).await;
    let (node, torrent) = fetch(&lab, &payload, &[silent.url("/pub/")]).await;
    until("it is asked", || !silent.asked().is_empty()).await;
    assert_eq!(torrent.status().cause.as_deref(), Some("waiting for a web seed"));
    within(SOON, "a stop", node.stop()).await;
    until("nobody is connected", || silent.cut_off.load(Ordering::Relaxed) == silent.connections()).await;
}

/// T10, redirects: followed five times at most, remembered, and never to a command in the local network.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn t10_redirects() {
    let lab = Lab::new();
    let payload = Payload::file("far", 2 * MIB);
    let canary = Web::new(|_| status("200 OK")).await;
    let moved = |to: String| Reply::Whole(format!("302 Found\r\nLocation: {to}\r\n"), vec![]);
    let origin = Web::of(&payload).await;
    let to = origin.url("/pub/far");
    let mirror = Web::new(move |_| moved(to.clone())).await;
    let (node, torrent) = fetch(&lab, &payload, &[mirror.url("/pub/")]).await;
    done(&torrent).await;
    payload.assert_in(&node.folder);
    assert!(mirror.asked().len() <= 4, "the way is remembered: {} of {}", mirror.asked().len(), origin.asked().len());
    node.stop().await;

    let (command, cloud) = (canary.url("/reboot?now=1"), "http://169.254.169.254/meta".to_owned());
    for (manner, to) in [command, cloud, "ftp://127.0.0.1/x".into(), "/round".into()].into_iter().enumerate() {
        std::fs::remove_dir_all(lab.folder("leecher")).unwrap();
        let web = Web::new(move |_| moved(to.clone())).await;
        let (node, torrent) = fetch(&lab, &payload, &[web.url("/pub/")]).await;
        let report = told(&mut torrent.events(), &web, WebSeedState::Failed).await;
        let reason = report.reason.unwrap();
        let expected = ["refused for safety", "refused for safety", "refused", "more than 5 times"][manner];
        assert!(reason.contains(expected), "{reason}");
        assert!(web.asked().len() <= 6);
        node.stop().await;
    }
    // Named by the torrent itself it is not asked, either.
    std::fs::remove_dir_all(lab.folder("leecher")).unwrap();
    let (node, torrent) = fetch(&lab, &payload, &[canary.url("/reboot?now=1")]).await;
    let report = told(&mut torrent.events(), &canary, WebSeedState::Failed).await;
    assert!(report.reason.unwrap().contains("refused for safety"));
    assert_eq!(canary.connections(), 0);
    node.stop().await;
}
