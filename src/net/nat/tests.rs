//! A router on loopback that speaks what the test wants it to.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::sync::atomic::{AtomicU8, Ordering};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream, UdpSocket};

use tokio::time::Instant;

use super::*;

const PATIENCE: Duration = Duration::from_secs(15);
const EXTERNAL: Ipv4Addr = Ipv4Addr::new(9, 9, 9, 1);

/// What the router knows.
#[derive(Clone, Copy, Default)]
struct Skills {
    pcp: bool,
    nat_pmp: bool,
    upnp: bool,
    /// Seconds of a lease.
    lease: u32,
    /// UPnP: leases without an end only.
    permanent_only: bool,
    /// This port is somebody else's.
    taken: u16,
    /// UPnP: others in the network answer as well, and before it; it itself sends to them first.
    liars: bool,
    /// Milliseconds until an answer.
    slow: u64,
}

/// Protocol number and port outside, to the port inside and how often it was asked for.
type Table = BTreeMap<(u8, u16), (u16, u32)>;

struct Router {
    skills: Skills,
    ip: Ipv4Addr,
    table: Mutex<Table>,
    /// Connections with others than it.
    astray: AtomicU8,
    ssdp: SocketAddr,
    /// On the loopback address of IPv6, if there is one.
    ssdp_v6: Option<SocketAddr>,
}

impl Router {
    async fn start(skills: Skills) -> Arc<Self> {
        // The port of PCP is what it is; so each router has an address of its own, and so has each process.
        static NEXT: AtomicU8 = AtomicU8::new(1);
        let [_, _, high, low] = std::process::id().to_be_bytes();
        let ip = Ipv4Addr::new(127, high | 0x80, low, NEXT.fetch_add(1, Ordering::Relaxed));
        let pmp = UdpSocket::bind((ip, crab_nat::GATEWAY_PORT)).await.unwrap();
        let ssdp = UdpSocket::bind((ip, 0)).await.unwrap();
        let web = TcpListener::bind((ip, 0)).await.unwrap();
        let v6 = match UdpSocket::bind("[::1]:0").await {
            Ok(ssdp) => Some((ssdp, TcpListener::bind("[::1]:0").await.unwrap())),
            Err(_) => None,
        };
        let ssdp_v6 = v6.as_ref().map(|(ssdp, _)| ssdp.local_addr().unwrap());
        let router = Arc::new(Self {
            skills,
            ip,
            table: Mutex::default(),
            astray: AtomicU8::new(0),
            ssdp: ssdp.local_addr().unwrap(),
            ssdp_v6,
        });
        let elsewhere = Ipv4Addr::from(ip.to_bits() | 0x80);
        let liar = UdpSocket::bind((elsewhere, 0)).await.unwrap();
        let lair = TcpListener::bind((elsewhere, 0)).await.unwrap();
        let lair_at = lair.local_addr().unwrap();
        let web_port = web.local_addr().unwrap().port();
        let [a, b, c, d] = [&router; 4].map(Arc::clone);
        tokio::spawn(async move {
            while lair.accept().await.is_ok() {
                d.astray.fetch_add(1, Ordering::Relaxed);
            }
        });
        tokio::spawn(async move {
            let mut buffer = [0; 1100];
            while let Ok((len, from)) = pmp.recv_from(&mut buffer).await {
                if let Some(answer) = a.pmp(&buffer[..len]) {
                    tokio::time::sleep(Duration::from_millis(a.skills.slow)).await;
                    let _ = pmp.send_to(&answer, from).await;
                }
            }
        });
        tokio::spawn(async move {
            let mut buffer = [0; 1500];
            while let Ok((_, from)) = ssdp.recv_from(&mut buffer).await {
                let answer = |at: SocketAddr| {
                    format!(
                        "HTTP/1.1 200 OK\r\nST: urn:schemas-upnp-org:device:InternetGatewayDevice:1\r\nLOCATION: http://{at}/d.xml\r\n\r\n"
                    )
                };
                if b.skills.liars {
                    let _ = liar.send_to(answer(lair_at).as_bytes(), from).await;
                    let _ = liar.send_to(answer((ip, web_port).into()).as_bytes(), from).await;
                    let _ = ssdp.send_to(answer(lair_at).as_bytes(), from).await;
                    let _ = ssdp.send_to(&[b'x'; 1500], from).await;
                }
                if b.skills.upnp {
                    let _ = ssdp.send_to(answer((ip, web_port).into()).as_bytes(), from).await;
                }
            }
        });
        tokio::spawn(async move {
            while let Ok((stream, _)) = web.accept().await {
                let _ = c.web(stream).await;
            }
        });
        if let Some((ssdp, web)) = v6 {
            let at = web.local_addr().unwrap();
            let e = router.clone();
            tokio::spawn(async move {
                let mut buffer = [0; 1500];
                while let Ok((_, from)) = ssdp.recv_from(&mut buffer).await {
                    let answer = format!("HTTP/1.1 200 OK\r\nLOCATION: http://{at}/d.xml\r\n\r\n");
                    let _ = ssdp.send_to(answer.as_bytes(), from).await;
                }
            });
            tokio::spawn(async move {
                while let Ok((stream, _)) = web.accept().await {
                    let _ = e.web(stream).await;
                }
            });
        }
        router
    }

    fn table(&self) -> Table {
        self.table.lock().unwrap().clone()
    }

    /// The port outside that is granted, or, with no `lease`, taken back.
    fn grant(&self, protocol: u8, inside: u16, outside: u16, lease: u32) -> u16 {
        let mut table = self.table.lock().unwrap();
        if lease == 0 {
            table.retain(|(p, port), (port_inside, _)| *p != protocol || (*port_inside != inside && *port != outside));
            return outside;
        }
        let port = if outside == self.skills.taken { outside + 1000 } else { outside };
        table.entry((protocol, port)).or_insert((inside, 0)).1 += 1;
        port
    }

    fn pmp(&self, request: &[u8]) -> Option<Vec<u8>> {
        let word = |at: usize| u16::from_be_bytes([request[at], request[at + 1]]);
        let long = |at: usize| u32::from_be_bytes(request[at..at + 4].try_into().unwrap());
        let lease = |asked: u32| asked.min(self.skills.lease);
        match (request[0], request.len()) {
            (2, 60) if self.skills.pcp => {
                let (asked, protocol) = (long(4), request[36]);
                let outside = self.grant(protocol, word(40), word(42), asked);
                let mut answer = vec![2, 0x81, 0, 0];
                answer.extend(lease(asked).to_be_bytes());
                answer.extend([0, 0, 0, 9]);
                answer.extend([0; 12]);
                answer.extend(&request[24..42]);
                answer.extend(outside.to_be_bytes());
                answer.extend(EXTERNAL.to_ipv6_mapped().octets());
                Some(answer)
            }
            // Only the version is understood of it.
            (2, _) if self.skills.nat_pmp => Some(vec![0, 0x81, 0, 1, 0, 0, 0, 9]),
            (0, 2) if self.skills.nat_pmp => Some([&[0, 128, 0, 0, 0, 0, 0, 9], &EXTERNAL.octets()[..]].concat()),
            (0, 12) if self.skills.nat_pmp => {
                let (op, asked) = (request[1], long(8));
                let protocol = if op == 1 { 17 } else { 6 };
                let outside = self.grant(protocol, word(4), word(6), asked);
                let mut answer = vec![0, 128 + op, 0, 0, 0, 0, 0, 9];
                answer.extend(&request[4..6]);
                answer.extend(if asked == 0 { 0 } else { outside }.to_be_bytes());
                answer.extend(lease(asked).to_be_bytes());
                Some(answer)
            }
            _ => None,
        }
    }

    async fn web(&self, mut stream: TcpStream) -> std::io::Result<()> {
        let mut request = Vec::new();
        let text = loop {
            if stream.read_buf(&mut request).await? == 0 {
                return Ok(());
            }
            let text = String::from_utf8_lossy(&request).into_owned();
            let Some((head, body)) = text.split_once("\r\n\r\n") else { continue };
            let length = head
                .to_ascii_lowercase()
                .split_once("content-length: ")
                .map_or(0, |(_, rest)| rest.split("\r\n").next().and_then(|n| n.parse().ok()).unwrap_or(0));
            if body.len() >= length {
                break text;
            }
        };
        let (status, body) = self.page(&text);
        let head = format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n", body.len());
        stream.write_all(format!("{head}{body}").as_bytes()).await
    }

    fn page(&self, request: &str) -> (&'static str, String) {
        let service = |name: &str, path: &str| {
            format!(
                "<service><serviceType>urn:schemas-upnp-org:service:{name}:1</serviceType><serviceId>x</serviceId>\
                 <SCPDURL>{path}.xml</SCPDURL><controlURL>{path}</controlURL><eventSubURL>/e</eventSubURL></service>"
            )
        };
        let field = |name: &str| {
            let (_, rest) = request.split_once(&format!("<{name}>"))?;
            rest.split_once('<').map(|(value, _)| value.to_owned())
        };
        let number = |name: &str| field(name).and_then(|n| n.parse::<u32>().ok()).unwrap_or(0);
        let port = |name: &str| u16::try_from(number(name)).unwrap();
        let done = |action: &str, inner: &str| {
            let answer = format!(
                "<?xml version=\"1.0\"?><s:Envelope xmlns:s=\"http://schemas.xmlsoap.org/soap/envelope/\"><s:Body>\
                 <u:{action}Response xmlns:u=\"urn:x\">{inner}</u:{action}Response></s:Body></s:Envelope>"
            );
            ("200 OK", answer)
        };
        let refused = |code: u16| {
            let answer = format!(
                "<?xml version=\"1.0\"?><s:Envelope xmlns:s=\"http://schemas.xmlsoap.org/soap/envelope/\"><s:Body><s:Fault>\
                 <faultcode>s:Client</faultcode><faultstring>UPnPError</faultstring><detail>\
                 <UPnPError xmlns=\"urn:schemas-upnp-org:control-1-0\"><errorCode>{code}</errorCode>\
                 <errorDescription>no</errorDescription></UPnPError></detail></s:Fault></s:Body></s:Envelope>"
            );
            ("500 Internal Server Error", answer)
        };
        let protocol = match field("NewProtocol").or_else(|| field("Protocol")).as_deref() {
            Some("UDP" | "17") => 17,
            _ => 6,
        };
        let action = request.split_once("#").and_then(|(_, rest)| rest.split('"').next()).unwrap_or_default();
        match action {
            "GetExternalIPAddress" => done(action, &format!("<NewExternalIPAddress>{EXTERNAL}</NewExternalIPAddress>")),
            "AddPortMapping" if self.skills.permanent_only && number("NewLeaseDuration") > 0 => refused(725),
            "AddPortMapping" if port("NewExternalPort") == self.skills.taken => refused(718),
            "AddPortMapping" => {
                assert_eq!(field("NewInternalClient"), Some(self.ip.to_string()));
                self.grant(protocol, port("NewInternalPort"), port("NewExternalPort"), 1);
                done(action, "")
            }
            "DeletePortMapping" => {
                self.grant(protocol, 0, port("NewExternalPort"), 0);
                done(action, "")
            }
            "AddPinhole" => {
                assert_eq!(field("InternalClient").as_deref(), Some("2001:db8::5"));
                self.grant(protocol, port("InternalPort"), port("InternalPort"), 1);
                done(action, &format!("<UniqueID>{protocol}</UniqueID>"))
            }
            "DeletePinhole" => {
                let protocol = number("UniqueID");
                self.table.lock().unwrap().retain(|(p, _), _| u32::from(*p) != protocol);
                done(action, "")
            }
            _ if request.starts_with("GET /d.xml") => {
                let services = service("WANIPConnection", "/wan") + &service("WANIPv6FirewallControl", "/six");
                let device = |kind: &str, inner: &str| {
                    format!("<device><deviceType>urn:schemas-upnp-org:device:{kind}:1</deviceType>{inner}</device>")
                };
                let inner = device("WANConnectionDevice", &format!("<serviceList>{services}</serviceList>"));
                let inner = device("WANDevice", &format!("<deviceList>{inner}</deviceList>"));
                let root = device("InternetGatewayDevice", &format!("<deviceList>{inner}</deviceList>"));
                let answer =
                    format!("<?xml version=\"1.0\"?><root xmlns=\"urn:schemas-upnp-org:device-1-0\">{root}</root>");
                ("200 OK", answer)
            }
            _ if request.starts_with("GET /wan.xml") => {
                let argument =
                    |name: &&str| format!("<argument><name>{name}</name><direction>in</direction></argument>");
                let action = |name: &str, arguments: &[&str]| {
                    let list: String = arguments.iter().map(argument).collect();
                    format!("<action><name>{name}</name><argumentList>{list}</argumentList></action>")
                };
                let delete = ["NewRemoteHost", "NewExternalPort", "NewProtocol"];
                let add = [
                    &delete[..],
                    &[
                        "NewInternalPort",
                        "NewInternalClient",
                        "NewEnabled",
                        "NewPortMappingDescription",
                        "NewLeaseDuration",
                    ],
                ]
                .concat();
                let actions = action("AddPortMapping", &add) + &action("DeletePortMapping", &delete);
                ("200 OK", format!("<?xml version=\"1.0\"?><scpd><actionList>{actions}</actionList></scpd>"))
            }
            _ => ("404 Not Found", String::new()),
        }
    }

    fn config(&self) -> NatConfig {
        let gateway = Gateway { router: (self.ip, 0).into(), ours: self.ip.into() };
        let gateways = Some([Some(gateway), None]);
        let ssdp_v6 = self.ssdp_v6.unwrap_or_else(|| NatConfig::default().ssdp_v6);
        NatConfig { ssdp: self.ssdp, ssdp_v6, gateways }
    }

    /// Maps port 6881, and waits for `v4` to be settled.
    async fn map(&self) -> (Mapper, Mappings) {
        let mapper = Mapper::start(&wanted("192.168.3.4:6881"), &Egress::default(), &self.config());
        // The address is not that of the router's network.
        assert!(matches!(settled(&mapper.unwrap(), |m| &m.v4).await.v4, State::Failed(_)));
        let mapper = Mapper::start(&wanted("0.0.0.0:6881"), &Egress::default(), &self.config()).unwrap();
        let mappings = settled(&mapper, |m| &m.v4).await;
        (mapper, mappings)
    }
}

fn wanted(address: &str) -> [Wanted; 2] {
    [Protocol::Udp, Protocol::Tcp].map(|protocol| Wanted { address: address.parse().unwrap(), protocol })
}

async fn settled(mapper: &Mapper, of: impl Fn(&Mappings) -> &State) -> Mappings {
    let mut mappings = mapper.mappings();
    let settled = mappings.wait_for(|m| !matches!(of(m), State::Off | State::Asking));
    tokio::time::timeout(PATIENCE, settled).await.unwrap().unwrap().clone()
}

fn external(port: u16) -> SocketAddr {
    (EXTERNAL, port).into()
}

#[tokio::test]
async fn each_protocol_maps_and_removes() {
    for (skills, method) in [
        (Skills { pcp: true, lease: 7200, ..Skills::default() }, Method::Pcp),
        (Skills { nat_pmp: true, lease: 7200, ..Skills::default() }, Method::NatPmp),
        (Skills { upnp: true, ..Skills::default() }, Method::Upnp),
        (Skills { upnp: true, permanent_only: true, ..Skills::default() }, Method::Upnp),
    ] {
        let router = Router::start(skills).await;
        let (mapper, mappings) = router.map().await;
        let mapped = mappings.v4.mapped();
        assert_eq!(
            mapped.iter().map(|m| m.protocol).collect::<Vec<_>>(),
            [Protocol::Tcp, Protocol::Udp],
            "{mappings:?}"
        );
        for one in mapped {
            assert_eq!((one.method, one.port, one.external), (method, 6881, external(6881)));
            assert_eq!(one.router, IpAddr::from(router.ip));
        }
        assert_eq!(router.table().into_keys().collect::<Vec<_>>(), [(6, 6881), (17, 6881)]);
        mapper.stop(PATIENCE).await;
        assert_eq!(router.table(), Table::new(), "{method}: removed");
        assert_eq!(mapper.mappings().borrow().v4, State::Off);
    }
}

/// By the device that was chosen, whatever else leads to the router; and nobody is asked by what does not know of devices.
#[tokio::test]
async fn a_chosen_device() {
    let lo = Egress::new(Some("lo".to_owned()), None, Vec::new());
    if lo.socket(socket2::Domain::IPV4, socket2::Type::DGRAM, socket2::Protocol::UDP).is_err() {
        return;
    }
    for skills in [
        Skills { pcp: true, lease: 7200, ..Skills::default() },
        Skills { nat_pmp: true, lease: 7200, ..Skills::default() },
        Skills { upnp: true, ..Skills::default() },
    ] {
        let router = Router::start(skills).await;
        let mapper = Mapper::start(&wanted("0.0.0.0:6881"), &lo, &router.config()).unwrap();
        let mappings = settled(&mapper, |m| &m.v4).await;
        if skills.upnp {
            assert!(matches!(mappings.v4, State::Failed(_)), "{mappings:?}");
        } else {
            assert_eq!(mappings.v4.mapped()[1].router, IpAddr::from(router.ip), "{mappings:?}");
            assert_eq!(router.table().into_keys().collect::<Vec<_>>(), [(6, 6881), (17, 6881)]);
        }
        mapper.stop(PATIENCE).await;
        assert_eq!(router.table(), Table::new());
    }
}

/// What is taken outside is replaced, and UDP follows TCP there.
#[tokio::test]
async fn another_port_outside() {
    for skills in [
        Skills { pcp: true, lease: 7200, taken: 6881, ..Skills::default() },
        Skills { nat_pmp: true, lease: 7200, taken: 6881, ..Skills::default() },
        Skills { upnp: true, taken: 6881, ..Skills::default() },
    ] {
        let router = Router::start(skills).await;
        let (mapper, mappings) = router.map().await;
        let tcp = mappings.v4.external(Protocol::Tcp).unwrap();
        assert_eq!(Some(tcp), mappings.v4.external(Protocol::Udp));
        assert!(tcp.port() != 6881 && router.table().contains_key(&(17, tcp.port())));
        mapper.stop(PATIENCE).await;
        assert_eq!(router.table(), Table::new());
    }
}

/// Whatever others in the network answer, and wherever the router itself sends us: only its own address is spoken to.
#[tokio::test]
async fn b30_answers_lead_nowhere_but_to_the_router() {
    let router = Router::start(Skills { upnp: true, liars: true, ..Skills::default() }).await;
    let (mapper, mappings) = router.map().await;
    assert_eq!(mappings.v4.mapped().len(), 2, "{mappings:?}");
    mapper.stop(PATIENCE).await;
    assert_eq!(router.astray.load(Ordering::Relaxed), 0);
}

/// Who stops while the router is being asked leaves nothing behind, and does not wait for one that does not answer.
#[tokio::test]
async fn a_lease_that_comes_late_is_given_back() {
    let router = Router::start(Skills { pcp: true, lease: 7200, slow: 20, ..Skills::default() }).await;
    let mapper = Mapper::start(&wanted("0.0.0.0:6881"), &Egress::default(), &router.config()).unwrap();
    let asked = async {
        while router.table().is_empty() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    tokio::time::timeout(PATIENCE, asked).await.unwrap();
    mapper.stop(PATIENCE).await;
    assert_eq!(router.table(), Table::new());
    let silent = Router::start(Skills::default()).await;
    let mapper = Mapper::start(&wanted("0.0.0.0:6881"), &Egress::default(), &silent.config()).unwrap();
    tokio::time::sleep(Duration::from_millis(50)).await;
    let begin = Instant::now();
    mapper.stop(PATIENCE).await;
    assert!(begin.elapsed() < PATIENCE / 3, "{:?}", begin.elapsed());
}

/// What is outside of this router is another network at home.
#[test]
fn a_private_address_outside_is_not_told() {
    let mapped = |external: &str| Mapped {
        protocol: Protocol::Tcp,
        method: Method::Pcp,
        port: 1,
        external: external.parse().unwrap(),
        router: [192, 168, 0, 1].into(),
    };
    for (external, public) in
        [("9.9.9.9:7", true), ("192.168.1.2:7", false), ("100.64.0.1:7", false), ("0.0.0.0:7", false)]
    {
        let state = State::Mapped(vec![mapped(external)]);
        assert_eq!((state.external(Protocol::Tcp).is_some(), state.ip().is_some()), (public, public), "{external}");
        assert_eq!(state.external(Protocol::Udp), None);
    }
}

#[tokio::test]
async fn leases_are_renewed_in_time() {
    let router = Router::start(Skills { pcp: true, lease: 8, ..Skills::default() }).await;
    let (mapper, _) = router.map().await;
    let renewed = async {
        while router.table().values().any(|(_, asked)| *asked < 2) {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    // Half of 8 seconds.
    tokio::time::timeout(PATIENCE, renewed).await.unwrap();
    mapper.stop(PATIENCE).await;
    assert_eq!(router.table(), Table::new());
}

#[tokio::test]
async fn a_router_that_knows_nothing_is_not_waited_for_for_long() {
    let router = Router::start(Skills::default()).await;
    let (mapper, mappings) = router.map().await;
    let State::Failed(why) = mappings.v4 else { panic!("{mappings:?}") };
    assert!(why.contains("PCP: ") && why.contains("UPnP: "), "{why}");
    mapper.stop(PATIENCE).await;
}

/// IPv6 has no ports to map; the firewall of a UPnP router is opened.
#[tokio::test]
async fn a_hole_for_ipv6() {
    let router = Router::start(Skills { upnp: true, ..Skills::default() }).await;
    if router.ssdp_v6.is_none() {
        return;
    }
    let mut config = router.config();
    let v6 = Gateway { router: "[::1]:0".parse().unwrap(), ours: "2001:db8::5".parse().unwrap() };
    config.gateways = config.gateways.map(|[v4, _]| [v4, Some(v6)]);
    let mapper = Mapper::start(&wanted("[::]:6881"), &Egress::default(), &config).unwrap();
    let mappings = settled(&mapper, |m| &m.v6).await;
    assert_eq!(mappings.v4, State::Off, "nothing listens there");
    assert_eq!(mappings.v6.external(Protocol::Udp), Some("[2001:db8::5]:6881".parse().unwrap()), "{mappings:?}");
    assert_eq!(router.table().len(), 2);
    mapper.stop(PATIENCE).await;
    assert_eq!(router.table(), Table::new());
}

#[tokio::test]
async fn where_there_is_nothing_to_map_nobody_is_asked() {
    let (direct, config) = (Egress::default(), NatConfig::default());
    assert!(Mapper::start(&wanted("127.0.0.1:6881"), &direct, &config).is_none());
    assert!(Mapper::start(&wanted("[::1]:6881"), &direct, &config).is_none());
    assert!(Mapper::start(&[], &direct, &config).is_none());
    let proxy = crate::net::proxy::Proxy::parse("socks5://127.0.0.1:1").unwrap();
    let proxied = Egress::new(None, Some(proxy), Vec::new());
    assert!(Mapper::start(&wanted("0.0.0.0:6881"), &proxied, &config).is_none());
    // An address that everybody can reach, without a router in between.
    let router = Router::start(Skills { pcp: true, lease: 7200, ..Skills::default() }).await;
    let mut config = router.config();
    let public = Gateway { ours: [9, 9, 9, 9].into(), ..config.gateways.unwrap()[0].unwrap() };
    config.gateways = Some([Some(public), None]);
    let mapper = Mapper::start(&wanted("0.0.0.0:6881"), &direct, &config).unwrap();
    assert_eq!(settled(&mapper, |m| &m.v4).await.v4, State::NotNeeded([9, 9, 9, 9].into()));
    assert_eq!(router.table(), Table::new());
}
