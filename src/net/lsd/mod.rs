//! L3: local service discovery: peers in the same network find each other by multicast.
//!
//! For: announcing the torrents that [join](Lsd::join) on every interface on which we listen, and telling them of others
//! that announce them. One service for a session; its sockets are opened when the first torrent joins.
//! Must not know: torrents beyond their names, or what is done with what it finds.
//! Main types: [`Lsd`], [`Membership`]. BEP: 14.
//!
//! What strangers send is looked at only if they are near, and only so often; all that they can say is that at their own
//! address there is a peer.

mod links;

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use socket2::{Domain, InterfaceIndexOrAddress, Protocol, SockRef, Type};
use tokio::net::UdpSocket;
use tokio::sync::{Notify, mpsc};
use tokio::task::JoinHandle;

use super::egress::Egress;
use crate::base::Pace;
use crate::wire::{LSD_V4, LSD_V6, LocalAnnounce, MAX_LSD_HASHES, MAX_LSD_LEN};
use links::{Link, Links};

/// How often a torrent is announced (BEP 14).
const INTERVAL: Duration = Duration::from_secs(300);

/// Announces are a minute apart on the average (BEP 14: "no more than 1 announce per minute")...
const PACE: Duration = Duration::from_secs(60);

/// ...but so many may follow each other at once: torrents that are added later should not wait.
const BURST: u32 = 3;

/// A torrent waits so long for others that may be named in the same announce.
const GATHERING: Duration = Duration::from_millis(300);

/// How often interfaces are looked at: they come and go.
const LOOK: Duration = Duration::from_secs(5);

/// Announces that are looked at in [`WINDOW`], in all...
const MAX_HEARD: u32 = 500;

/// ...and from one address. Some clients send one per torrent.
const MAX_HEARD_FROM_ONE: u32 = 50;

/// The time for which announces are counted.
const WINDOW: Duration = Duration::from_secs(10);

/// Peers that may wait for a torrent. What does not fit is announced again in five minutes.
const WAITING: usize = 64;

/// Announces do not leave the network.
const TTL: u32 = 1;

/// The service. Cheap to clone; ends with the last clone.
#[derive(Clone, Debug)]
pub struct Lsd {
    shared: Arc<Shared>,
    _task: Arc<Task>,
}

/// A torrent that takes part, until this is dropped.
#[derive(Debug)]
pub struct Membership {
    shared: Arc<Shared>,
    number: u64,
    found: mpsc::Receiver<SocketAddr>,
}

#[derive(Debug, Default)]
struct Shared {
    members: Mutex<Members>,
    joined: Notify,
}

#[derive(Debug, Default)]
struct Members {
    /// By the 20 bytes that name each torrent in handshakes; a hybrid torrent is there twice.
    by_form: HashMap<[u8; 20], Member>,
    next_number: u64,
}

#[derive(Debug)]
struct Member {
    number: u64,
    found: mpsc::Sender<SocketAddr>,
    /// When it is to be announced.
    due: Instant,
}

#[derive(Debug)]
struct Task(JoinHandle<()>);

impl Drop for Task {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Lsd {
    /// A service for peers that listen at `listen`, by `egress`' device if it has one. With `loopback` the loopback
    /// interface is a network, too.
    pub fn start(listen: Vec<SocketAddr>, egress: Egress, loopback: bool) -> Self {
        let shared = Arc::new(Shared::default());
        let task = tokio::spawn(run(shared.clone(), listen, egress, loopback));
        Self { shared, _task: Arc::new(Task(task)) }
    }

    /// Announces the torrent that has these names from now on, and listens to others that do.
    pub fn join(&self, forms: impl Iterator<Item = [u8; 20]>) -> Membership {
        let (sender, found) = mpsc::channel(WAITING);
        let due = Instant::now() + GATHERING;
        let mut members = self.shared.members();
        members.next_number += 1;
        let number = members.next_number;
        members.by_form.extend(forms.map(|form| (form, Member { number, found: sender.clone(), due })));
        drop(members);
        self.shared.joined.notify_one();
        Membership { shared: self.shared.clone(), number, found }
    }
}

impl Membership {
    /// The next peer that announced the torrent. Waits for ever once the service has ended.
    pub async fn found(&mut self) -> SocketAddr {
        match self.found.recv().await {
            Some(address) => address,
            None => std::future::pending().await,
        }
    }
}

impl Drop for Membership {
    fn drop(&mut self) {
        self.shared.members().by_form.retain(|_, member| member.number != self.number);
    }
}

impl Shared {
    fn members(&self) -> std::sync::MutexGuard<'_, Members> {
        self.members.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Members {
    /// The torrents to name in an announce now, those that have waited longest first; they count as announced.
    fn take_due(&mut self, now: Instant) -> Vec<[u8; 20]> {
        let mut due: Vec<(Instant, [u8; 20])> =
            self.by_form.iter().filter(|(_, m)| m.due <= now).map(|(form, m)| (m.due, *form)).collect();
        due.sort_unstable();
        due.truncate(MAX_LSD_HASHES);
        for (_, form) in &due {
            if let Some(member) = self.by_form.get_mut(form) {
                member.due = now + INTERVAL;
            }
        }
        due.into_iter().map(|(_, form)| form).collect()
    }

    fn put_off(&mut self, forms: &[[u8; 20]], due: Instant) {
        for form in forms {
            if let Some(member) = self.by_form.get_mut(form) {
                member.due = due;
            }
        }
    }

    fn all_due(&mut self, now: Instant) {
        self.by_form.values_mut().for_each(|member| member.due = member.due.min(now + GATHERING));
    }

    fn next_due(&self) -> Option<Instant> {
        self.by_form.values().map(|member| member.due).min()
    }
}

/// Runs the service.
async fn run(shared: Arc<Shared>, listen: Vec<SocketAddr>, egress: Egress, loopback: bool) {
    while shared.members().by_form.is_empty() {
        shared.joined.notified().await;
    }
    let groups = [LSD_V4.into(), LSD_V6.into()].map(|address| Group::open(&egress, address)).map(|group| match group {
        Ok(group) => Some(group),
        Err(error) => {
            tracing::info!(%error, "no local discovery on one family");
            None
        }
    });
    let mut service = Service::new(shared, listen, egress, loopback, groups);
    let (mut first, mut second) = ([0; MAX_LSD_LEN + 1], [0; MAX_LSD_LEN + 1]);
    loop {
        let wake = service.announce(Instant::now());
        let [v4, v6] = &service.groups;
        let (group, received) = tokio::select! {
            received = receive(v4.as_ref(), &mut first) => (&first, received),
            received = receive(v6.as_ref(), &mut second) => (&second, received),
            () = service.shared.joined.notified() => continue,
            () = tokio::time::sleep_until(wake.into()) => continue,
        };
        if let Some((len, from)) = received {
            service.hear(Instant::now(), &group[..len], from);
        }
    }
}

/// The next datagram; its length is beyond [`MAX_LSD_LEN`] if it was longer. Errors of one datagram are waited out.
async fn receive(group: Option<&Group>, buffer: &mut [u8]) -> Option<(usize, SocketAddr)> {
    match group {
        Some(group) => match group.socket.recv_from(buffer).await {
            Ok(received) => Some(received),
            Err(_) => {
                tokio::time::sleep(Duration::from_millis(100)).await;
                None
            }
        },
        None => std::future::pending().await,
    }
}

/// A multicast group and our socket in it.
struct Group {
    socket: UdpSocket,
    address: SocketAddr,
    joined: Vec<u32>,
}

impl Group {
    /// Other programs may have the port, too. Bound to the group's address, so that nothing else comes.
    fn open(egress: &Egress, address: SocketAddr) -> io::Result<Self> {
        let socket = egress.socket(Domain::for_address(address), Type::DGRAM, Protocol::UDP)?;
        socket.set_reuse_address(true)?;
        if address.is_ipv4() {
            socket.set_multicast_ttl_v4(TTL)?;
        } else {
            socket.set_only_v6(true)?;
            socket.set_multicast_hops_v6(TTL)?;
        }
        socket.bind(&address.into())?;
        Ok(Self { socket: UdpSocket::from_std(socket.into())?, address, joined: Vec::new() })
    }

    /// Joins the group on all these interfaces, and forgets those that are no longer there.
    fn join(&mut self, links: &[Link]) {
        self.joined.retain(|index| links.iter().any(|link| link.index == *index));
        let socket = SockRef::from(&self.socket);
        let new: Vec<u32> = links
            .iter()
            .filter(|link| link.v4.is_some() == self.address.is_ipv4() && !self.joined.contains(&link.index))
            .map(|link| link.index)
            .collect();
        for index in new {
            let joined = match self.address.ip() {
                IpAddr::V4(group) => socket.join_multicast_v4_n(&group, &InterfaceIndexOrAddress::Index(index)),
                IpAddr::V6(group) => socket.join_multicast_v6(&group, index),
            };
            match joined {
                Ok(()) => self.joined.push(index),
                // An interface that went and came again is joined still.
                Err(error) if error.kind() == io::ErrorKind::AddrInUse => self.joined.push(index),
                Err(error) => tracing::debug!(interface = index, %error, "cannot join the multicast group"),
            }
        }
    }

    fn send(&self, link: &Link, datagram: &[u8]) -> io::Result<()> {
        let socket = SockRef::from(&self.socket);
        match link.v4 {
            Some(address) => socket.set_multicast_if_v4(&address)?,
            None => socket.set_multicast_if_v6(link.index)?,
        }
        self.socket.try_send_to(datagram, self.address).map(|_| ())
    }
}

/// What the task knows.
struct Service {
    shared: Arc<Shared>,
    listen: Vec<SocketAddr>,
    egress: Egress,
    loopback: bool,
    groups: [Option<Group>; 2],
    links: Links,
    next_look: Instant,
    pace: Pace,
    cookie: Vec<u8>,
    heard: Heard,
}

impl Service {
    fn new(
        shared: Arc<Shared>,
        listen: Vec<SocketAddr>,
        egress: Egress,
        loopback: bool,
        groups: [Option<Group>; 2],
    ) -> Self {
        let now = Instant::now();
        Self {
            shared,
            listen,
            egress,
            loopback,
            groups,
            links: Links::default(),
            next_look: now,
            pace: Pace::new(PACE, BURST),
            cookie: cookie(),
            heard: Heard::new(now),
        }
    }

    /// Sends the announce that is due, if any, and says when to come again.
    fn announce(&mut self, now: Instant) -> Instant {
        if now >= self.next_look {
            self.next_look = now + LOOK;
            self.look_around();
        }
        let wait = self.pace.wait(now);
        if wait.is_zero() {
            let info_hashes = self.shared.members().take_due(now);
            if !info_hashes.is_empty() {
                self.pace.take(now);
                if !self.send(&info_hashes) {
                    // Not connected, or not yet quite.
                    self.shared.members().put_off(&info_hashes, now + PACE);
                }
            }
        }
        let next = self.shared.members().next_due().map(|due| due.max(now + self.pace.wait(now)));
        next.map_or(self.next_look, |next| next.min(self.next_look))
    }

    fn look_around(&mut self) {
        let mut interfaces = if_addrs::get_if_addrs().unwrap_or_default();
        interfaces.retain(|interface| self.egress.device().is_none_or(|device| interface.name == device));
        let before = std::mem::replace(&mut self.links, Links::new(&interfaces, &self.listen, self.loopback));
        if self.links.links.iter().any(|link| !before.links.contains(link)) {
            // In a network that we have not been in, nobody has heard of us.
            self.shared.members().all_due(Instant::now());
        }
        for group in self.groups.iter_mut().flatten() {
            group.join(&self.links.links);
        }
    }

    /// Announces on every link; whether it went out on any.
    fn send(&self, info_hashes: &[[u8; 20]]) -> bool {
        let (info_hashes, cookie) = (info_hashes.to_vec(), Some(self.cookie.clone()));
        let mut announce = LocalAnnounce { port: 0, info_hashes, cookie };
        let mut sent = false;
        for link in &self.links.links {
            let [v4, v6] = &self.groups;
            let Some(group) = (if link.v4.is_some() { v4 } else { v6 }) else { continue };
            announce.port = link.port;
            match group.send(link, &announce.encode(group.address)) {
                Ok(()) => sent = true,
                Err(error) => tracing::debug!(interface = link.index, %error, "cannot announce locally"),
            }
        }
        sent
    }

    /// Takes a datagram, whoever sent it.
    fn hear(&mut self, now: Instant, datagram: &[u8], from: SocketAddr) {
        if !self.links.are_near(from.ip()) || !self.heard.admit(now, from.ip()) {
            return;
        }
        let Some(announce) = LocalAnnounce::parse(datagram) else { return };
        if announce.cookie.as_ref() == Some(&self.cookie) {
            return;
        }
        // With the scope that a link-local address has to be dialled with.
        let mut peer = from;
        peer.set_port(announce.port);
        let members = self.shared.members();
        for member in announce.info_hashes.iter().filter_map(|form| members.by_form.get(form)) {
            // A torrent that does not keep up has enough to do.
            let _ = member.found.try_send(peer);
        }
    }
}

/// How much was said lately.
struct Heard {
    since: Instant,
    total: u32,
    /// At most [`MAX_HEARD`] addresses.
    by_ip: HashMap<IpAddr, u32>,
}

impl Heard {
    fn new(now: Instant) -> Self {
        Self { since: now, total: 0, by_ip: HashMap::new() }
    }

    fn admit(&mut self, now: Instant, ip: IpAddr) -> bool {
        if now.saturating_duration_since(self.since) >= WINDOW {
            *self = Self::new(now);
        }
        if self.total >= MAX_HEARD {
            return false;
        }
        let count = self.by_ip.entry(ip).or_default();
        if *count >= MAX_HEARD_FROM_ONE {
            return false;
        }
        *count += 1;
        self.total += 1;
        true
    }
}

/// Sixteen digits that nobody else has.
fn cookie() -> Vec<u8> {
    let mut bytes = [0; 8];
    if getrandom::fill(&mut bytes).is_err() {
        // No secret: it tells our own announces from others.
        fastrand::fill(&mut bytes);
    }
    format!("{:016x}", u64::from_le_bytes(bytes)).into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lsd() -> Shared {
        Shared::default()
    }

    fn join(shared: &Shared, forms: &[u8], due: Instant) -> mpsc::Receiver<SocketAddr> {
        let (found, receiver) = mpsc::channel(WAITING);
        let mut members = shared.members();
        members.next_number += 1;
        let number = members.next_number;
        members.by_form.extend(forms.iter().map(|n| ([*n; 20], Member { number, found: found.clone(), due })));
        receiver
    }

    fn service(shared: Shared) -> Service {
        Service::new(Arc::new(shared), vec![], Egress::default(), false, [None, None])
    }

    #[test]
    fn every_torrent_every_five_minutes_in_few_announces() {
        let shared = lsd();
        let t0 = Instant::now();
        let _rest: Vec<_> = (0..60).map(|n| join(&shared, &[n, n + 100], t0)).collect();
        let mut pace = Pace::new(PACE, BURST);
        let mut sent: Vec<(u64, Vec<[u8; 20]>)> = Vec::new();
        for second in 0..1_200 {
            let now = t0 + Duration::from_secs(second);
            if pace.wait(now).is_zero() {
                let due = shared.members().take_due(now);
                if !due.is_empty() {
                    pace.take(now);
                    sent.push((second, due));
                }
            }
        }
        assert!(sent.iter().all(|(_, due)| due.len() <= MAX_LSD_HASHES));
        for form in (0..60).chain(100..160) {
            let times: Vec<u64> = sent.iter().filter(|(_, due)| due.contains(&[form; 20])).map(|(at, _)| *at).collect();
            assert!((3..=4).contains(&times.len()), "{form} at {times:?}");
            assert!(times.windows(2).all(|pair| (300..420).contains(&(pair[1] - pair[0]))), "{form} at {times:?}");
        }
        assert!(sent.len() <= 3 + 20);
    }

    #[test]
    fn what_is_heard() {
        let shared = lsd();
        let now = Instant::now();
        let mut ours = join(&shared, &[1, 101], now);
        let mut other = join(&shared, &[2], now);
        let mut service = service(shared);
        let say = |hashes: &[u8], cookie: &[u8]| {
            let info_hashes = hashes.iter().map(|n| [*n; 20]).collect();
            LocalAnnounce { port: 7, info_hashes, cookie: Some(cookie.to_vec()) }.encode(LSD_V4.into())
        };
        let near: SocketAddr = "192.168.1.7:6771".parse().unwrap();
        let link_local: SocketAddr = "[fe80::7%3]:6771".parse().unwrap();
        let own = service.cookie.clone();
        service.hear(now, &say(&[1], &own), near);
        service.hear(now, &say(&[1], b"x"), "8.8.8.8:6771".parse().unwrap());
        service.hear(now, &say(&[9], b"x"), near);
        service.hear(now, b"nonsense", near);
        assert!(ours.try_recv().is_err(), "ours, from afar, another torrent, nonsense");
        service.hear(now, &say(&[9, 101, 2], b"x"), near);
        assert_eq!(ours.try_recv(), Ok("192.168.1.7:7".parse().unwrap()));
        assert_eq!(other.try_recv(), Ok("192.168.1.7:7".parse().unwrap()));
        service.hear(now, &say(&[2], b"x"), link_local);
        assert_eq!(other.try_recv(), Ok("[fe80::7%3]:7".parse().unwrap()));
    }

    #[test]
    fn floods() {
        let now = Instant::now();
        let ip = |n: u32| IpAddr::from(std::net::Ipv4Addr::from_bits(n));
        let mut heard = Heard::new(now);
        assert_eq!((0..1_000).filter(|_| heard.admit(now, ip(1))).count(), 50);
        assert_eq!((0..100_000).filter(|n| heard.admit(now, ip(*n))).count(), 450);
        assert!(heard.by_ip.len() <= 501);
        assert!(!heard.admit(now + Duration::from_secs(9), ip(7)));
        assert!(heard.admit(now + WINDOW, ip(1)));
        // Nor does a torrent keep more than it can take.
        let shared = lsd();
        let mut slow = join(&shared, &[1], now);
        let mut service = service(shared);
        let announce = LocalAnnounce { port: 7, info_hashes: vec![[1; 20]], cookie: None }.encode(LSD_V4.into());
        for n in 0..300 {
            service.hear(now, &announce, SocketAddr::new(ip(0x0a00_0000 + n), 6771));
        }
        assert_eq!(std::iter::from_fn(|| slow.try_recv().ok()).count(), WAITING);
    }

    #[tokio::test]
    async fn who_leaves_is_forgotten() {
        let lsd = Lsd::start(vec![], Egress::default(), false);
        let first = lsd.join([[1; 20], [2; 20]].into_iter());
        let second = lsd.join([[3; 20]].into_iter());
        drop(first);
        assert_eq!(lsd.shared.members().by_form.keys().collect::<Vec<_>>(), [&[3; 20]]);
        drop(second);
        assert!(lsd.shared.members().by_form.is_empty());
    }
}
