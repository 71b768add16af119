//! A router that maps ports by PCP: what it grants is announced, and given back at the end.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex};

use gannet::metainfo::Format;
use gannet::net::nat::{Gateway, Protocol};
use gannet::session::NatConfig;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, UdpSocket};

use crate::lab::{KIB, Lab, Payload, SOON, until};

/// Ports outside are this much higher.
const HIGHER: u16 = 7;

/// Protocol number and port inside, to the port outside.
type Table = Arc<Mutex<BTreeMap<(u8, u16), u16>>>;

/// The router, at an address of its own: the port of PCP is what it is.
async fn router() -> (Ipv4Addr, Table) {
    let [_, _, high, low] = std::process::id().to_be_bytes();
    let ip = Ipv4Addr::new(127, high | 0x80, low, 250);
    let socket = UdpSocket::bind((ip, 5351)).await.unwrap();
    let table = Table::default();
    let mapped = table.clone();
    tokio::spawn(async move {
        let mut request = [0; 1100];
        while let Ok((60, from)) = socket.recv_from(&mut request).await {
            let (protocol, inside) = (request[36], u16::from_be_bytes([request[40], request[41]]));
            let outside = inside.wrapping_add(HIGHER);
            if request[4..8] == [0; 4] {
                mapped.lock().unwrap().remove(&(protocol, inside));
            } else {
                mapped.lock().unwrap().insert((protocol, inside), outside);
            }
            // RFC 6887, 7.2 and 11.1.
            let mut answer = vec![2, 0x81, 0, 0];
            answer.extend_from_slice(&request[4..8]);
            answer.extend([0, 0, 0, 9]);
            answer.extend([0; 12]);
            answer.extend_from_slice(&request[24..42]);
            answer.extend(outside.to_be_bytes());
            answer.extend(Ipv4Addr::new(9, 9, 9, 1).to_ipv6_mapped().octets());
            socket.send_to(&answer, from).await.unwrap();
        }
    });
    (ip, table)
}

/// A tracker that remembers what it is told.
async fn tracker() -> (String, Arc<Mutex<Vec<String>>>) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let url = format!("http://{}/announce", listener.local_addr().unwrap());
    let told = Arc::new(Mutex::new(Vec::new()));
    let heard = told.clone();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut request = Vec::new();
            while !request.ends_with(b"\r\n\r\n") && stream.read_buf(&mut request).await.is_ok_and(|n| n > 0) {}
            let request = String::from_utf8(request).unwrap();
            heard.lock().unwrap().push(request.lines().next().unwrap().to_owned());
            let body = "d8:intervali1800e5:peers0:e";
            let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n\r\n", body.len());
            let _ = stream.write_all((head + body).as_bytes()).await;
        }
    });
    (url, told)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_port_that_a_router_grants_is_announced() {
    let ((ip, table), (url, told)) = (router().await, tracker().await);
    let lab = Lab::new();
    let payload = Payload::make("mapped", None, &[("mapped", 64 * KIB)], 16 * KIB, Format::V1, &[&[url]]);
    let gateway = Gateway { router: (ip, 0).into(), ours: Ipv4Addr::LOCALHOST.into() };
    let node = lab.node_with("node", |config| {
        config.listen = vec![(Ipv4Addr::UNSPECIFIED, 0).into()];
        let mut nat = NatConfig::default();
        nat.gateways = Some([Some(gateway), None]);
        config.port_mapping = Some(nat);
    });
    let node = node.await;
    let port = node.address().port();
    until("mapped", || node.session.mappings().v4.mapped().len() == 2).await;
    let mappings = node.session.mappings();
    for protocol in [Protocol::Tcp, Protocol::Udp] {
        let outside = SocketAddr::from(([9, 9, 9, 1], port + HIGHER));
        assert_eq!(mappings.v4.external(protocol), Some(outside), "{mappings:?}");
    }
    node.seed(&payload).await;
    until("announced", || !told.lock().unwrap().is_empty()).await;
    let first = told.lock().unwrap()[0].clone();
    assert!(first.contains(&format!("port={}&", port + HIGHER)), "{first}, listening on {port}");
    node.session.stop(SOON).await;
    assert_eq!(*table.lock().unwrap(), BTreeMap::new());
}
