//! Downloads from web servers alone: no peer, no tracker.

use crate::clients::{Crypto, gannet, libtorrent, makers, web};
use crate::lab::{Lab, Tool};
use crate::payload::{Payload, Shape};

/// Web servers alone sent everything, and nothing that was not asked for.
fn check(lab: &Lab, payload: &Payload, torrent: &makers::Torrent, server: &web::Web, options: &[&str]) {
    let events = gannet::get_told(lab, torrent, payload, &lab.folder("out"), options);
    let summary = events.iter().rfind(|event| event["event"] == "summary").unwrap();
    assert_eq!(summary["wasted"], 0, "{summary}");
    let serving = |event: &&serde_json::Value| event["event"] == "web_seed" && event["state"] == "serving";
    assert!(events.iter().any(|event| serving(&event)), "nobody is said to serve");
    let log: Vec<String> = server.log().into_iter().filter(|line| line.contains(" GET ")).collect();
    assert!(!log.is_empty() && log.iter().all(|line| line.starts_with("206 ")), "{log:#?}");
    // Ranges are joined: 3 MiB are 200 blocks.
    assert!(log.len() <= 40, "{} requests", log.len());
}

fn from_nginx(shape: Shape, format: &str) {
    let Some(lab) = Lab::with(&[Tool::Nginx]) else { return };
    let payload = Payload::new(&lab, shape);
    let server = web::nginx(&lab, &payload.parent);
    let torrent = gannet::create(&lab, &payload, format, &["--web-seed", &server.url("")]);
    check(&lab, &payload, &torrent, &server, &[]);
}

#[test]
fn a_v1_file_from_nginx() {
    from_nginx(Shape::Single, "v1");
}

#[test]
fn a_v1_tree_from_nginx() {
    from_nginx(Shape::Tree, "v1");
}

#[test]
fn a_v2_tree_from_nginx() {
    from_nginx(Shape::Tree, "v2");
}

#[test]
fn a_hybrid_tree_from_nginx() {
    from_nginx(Shape::Tree, "hybrid");
}

/// The address of the file itself, for a torrent of somebody else that names no web seed.
#[test]
fn a_mirror_of_the_users_own() {
    let Some(lab) = Lab::with(&[Tool::Nginx, Tool::Mktorrent]) else { return };
    let payload = Payload::new(&lab, Shape::Single);
    let server = web::nginx(&lab, &payload.parent);
    let torrent = makers::mktorrent(&lab, &payload, makers::NO_TRACKER, &[]);
    let url = server.url("one%20file.bin");
    check(&lab, &payload, &torrent, &server, &["--no-trackers", "--web-seed", &url]);
}

#[test]
fn a_tree_from_a_plain_range_server() {
    let Some(lab) = Lab::with(&[Tool::Python]) else { return };
    let payload = Payload::new(&lab, Shape::Tree);
    let server = web::python(&lab, &payload.parent);
    let torrent = gannet::create(&lab, &payload, "v1", &["--web-seed", &server.url("")]);
    check(&lab, &payload, &torrent, &server, &[]);
}

/// What gannet writes into torrents is what another client understands by it.
fn to_libtorrent(shape: Shape, format: &str) {
    let Some(lab) = Lab::with(&[Tool::Nginx, Tool::Libtorrent]) else { return };
    let payload = Payload::new(&lab, shape);
    let server = web::nginx(&lab, &payload.parent);
    let torrent = gannet::create(&lab, &payload, format, &["--web-seed", &server.url("")]);
    let out = lab.folder("out");
    libtorrent::finish(libtorrent::leech(&lab, &torrent, &out, &[], Crypto::Usual), &payload, &out);
}

#[test]
fn a_file_to_libtorrent() {
    to_libtorrent(Shape::Single, "v1");
}

#[test]
fn a_tree_to_libtorrent() {
    to_libtorrent(Shape::Tree, "hybrid");
}
