//! Addresses that are neither dialled nor let in.

use std::net::SocketAddr;
use std::sync::Arc;

use gannet::session::{State, read_ip_filter};
use gannet::swarm::IpFilter;
use gannet::wire::Message;
use tokio::io::AsyncReadExt as _;
use tokio::net::{TcpListener, TcpSocket, TcpStream};

use crate::fake::{Ear, Fake, Hello};
use crate::lab::{Lab, MIB, PATIENCE, Payload, SOON, done, until, why_closed, within};

fn filter(lab: &Lab, lines: &str) -> Arc<IpFilter> {
    let path = lab.folder("lists").join("list");
    std::fs::write(&path, lines).unwrap();
    Arc::new(read_ip_filter(&[path]).unwrap().filter)
}

/// Connects to `to` from an address of the loopback network.
async fn connect_from(from: [u8; 4], to: SocketAddr) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind(SocketAddr::from((from, 0))).unwrap();
    socket.connect(to).await.unwrap()
}

/// Peers on the filter are not dialled, not even if the user names them, and not answered; others are.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_on_the_filter_is_dialled_or_answered() {
    let lab = Lab::new();
    let payload = Payload::file("filtered", MIB);
    let blocked = TcpListener::bind("127.0.0.2:0").await.unwrap();
    let ip_filter = filter(&lab, "who:127.0.0.2-127.0.0.3\n");
    let leecher = lab.node_with("leecher", |config| config.ip_filter = ip_filter).await;
    let torrent = leecher.get(&payload, &[blocked.local_addr().unwrap()]).await;
    until("it runs", || torrent.status().state == State::Downloading).await;
    assert_eq!(torrent.status().candidates, 0);
    let mut from_blocked = connect_from([127, 0, 0, 3], leecher.address()).await;
    let seen = within(SOON, "it is closed", from_blocked.read(&mut [0; 68])).await;
    assert!(matches!(seen, Ok(0) | Err(_)), "answered with {seen:?}");
    // One that is not on it brings the data; meanwhile nobody has called.
    let honest = Fake::dial(leecher.address(), &payload).await;
    let data = payload.clone();
    let honest = honest.serve(move |index, begin, len| Some(data.block(index, begin, len).to_vec()));
    let (_, ()) = tokio::join!(within(PATIENCE, "the end", honest), done(&torrent));
    assert!(tokio::time::timeout(std::time::Duration::from_millis(50), blocked.accept()).await.is_err());
    payload.assert_in(&leecher.folder);
}

/// A filter that comes later closes what is open, and is gone when it is lifted.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_filter_holds_for_those_who_are_connected() {
    let lab = Lab::new();
    let payload = Payload::file("later", MIB);
    let ear = Ear::new().await;
    let leecher = lab.node("leecher").await;
    let torrent = leecher.get(&payload, &[ear.address]).await;
    let mut events = torrent.events();
    let mut peer = ear.accept(&Hello::new(&payload)).await;
    peer.say(&Message::HaveNone).await;
    until("connected", || torrent.status().peers == 1).await;
    leecher.session.set_ip_filter(filter(&lab, "127.0.0.0/8"));
    assert_eq!(why_closed(&mut events, ear.address).await, "on the IP filter");
    peer.until_closed().await;
    assert_eq!(torrent.status().candidates, 0, "forgotten");
    assert!(Fake::dial_as(leecher.address(), &Hello::new(&payload)).await.is_err());
    leecher.session.set_ip_filter(Arc::default());
    assert!(Fake::dial_as(leecher.address(), &Hello::new(&payload)).await.is_ok());
}
