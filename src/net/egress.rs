//! How everything leaves this machine: the one place where sockets for the outside are made and names are looked up.
//!
//! Without a choice by the user that is the system's own way. With a *device* every socket is bound to it, and names are
//! looked up over it, not by the system's resolver. With a *proxy* TCP goes through it, and UDP through its relay or not
//! at all; what the proxy itself is reached by obeys the device. Both fail closed: what cannot go by the way that was
//! chosen does not go.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::{TcpSocket, TcpStream};

use super::dns;
use super::proxy::Proxy;
use super::proxy::relay::{Association, Lease};
use crate::sys;

/// How long the addresses of a proxy that was named by name are believed.
const PROXY_ADDRESS_TIME: Duration = Duration::from_secs(60);

/// How everything leaves this machine. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Egress {
    inner: Arc<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    device: Option<String>,
    proxy: Option<Proxy>,
    name_servers: Vec<SocketAddr>,
    /// Where the proxy is, and when that was looked up.
    proxy_at: Mutex<Option<(Instant, SocketAddr)>>,
}

impl Egress {
    /// By `device`, through `proxy`, with names from `name_servers`; the system decides what is left out.
    pub fn new(device: Option<String>, proxy: Option<Proxy>, name_servers: Vec<SocketAddr>) -> Self {
        Self { inner: Arc::new(Inner { device, proxy, name_servers, proxy_at: Mutex::default() }) }
    }

    /// The network interface that everything leaves by, if one was chosen.
    pub fn device(&self) -> Option<&str> {
        self.inner.device.as_deref()
    }

    /// What stands between us and everybody, if anything does.
    pub fn proxy(&self) -> Option<&Proxy> {
        self.inner.proxy.as_ref()
    }

    /// Whether UDP can go this way at all.
    pub fn takes_udp(&self) -> bool {
        self.proxy().is_none_or(Proxy::relays_udp)
    }

    /// Tries the way that was chosen, so that what is wrong with it is said at once and clearly.
    ///
    /// # Errors
    /// What is wrong: the device does not exist, the proxy does not answer or does not let us in.
    pub async fn check(&self) -> io::Result<()> {
        drop(self.socket(Domain::IPV4, Type::DGRAM, Protocol::UDP)?);
        match self.proxy() {
            Some(proxy) => proxy.check(self).await,
            None => Ok(()),
        }
    }

    /// A socket that leaves by the device; not blocking.
    ///
    /// # Errors
    /// As the system says, with the device's name if it is to blame.
    pub fn socket(&self, domain: Domain, kind: Type, protocol: Protocol) -> io::Result<Socket> {
        let socket = Socket::new(domain, kind, Some(protocol))?;
        if let Some(device) = self.device() {
            let blame =
                |e: io::Error| io::Error::new(e.kind(), format!("network device {device}: {}", device_words(&e)));
            sys::bind_socket(&socket, device).map_err(blame)?;
        }
        socket.set_nonblocking(true)?;
        Ok(socket)
    }

    /// Opens a TCP connection with a host on the outside, through the proxy if there is one.
    ///
    /// # Errors
    /// As the system or the proxy says.
    pub async fn connect(&self, address: SocketAddr) -> io::Result<TcpStream> {
        match self.proxy() {
            Some(proxy) => proxy.connect(self, address).await,
            None => self.connect_directly(address).await,
        }
    }

    /// Opens a TCP connection that goes through no proxy: to the proxy itself.
    pub(super) async fn connect_directly(&self, address: SocketAddr) -> io::Result<TcpStream> {
        if self.device().is_none() {
            return TcpStream::connect(address).await;
        }
        let socket = self.socket(Domain::for_address(address), Type::STREAM, Protocol::TCP)?;
        TcpSocket::from_std_stream(socket.into()).connect(address).await
    }

    /// A socket for datagrams to `remote` and others of its family, which leaves by the device. It goes through no proxy:
    /// with one, `remote` has to be the proxy's relay.
    ///
    /// # Errors
    /// As the system says.
    pub(super) fn udp_for(&self, remote: SocketAddr) -> io::Result<UdpSocket> {
        let any = if remote.is_ipv4() { IpAddr::V4(Ipv4Addr::UNSPECIFIED) } else { Ipv6Addr::UNSPECIFIED.into() };
        let socket = self.socket(Domain::for_address(remote), Type::DGRAM, Protocol::UDP)?;
        socket.bind(&SocketAddr::new(any, 0).into())?;
        Ok(socket.into())
    }

    /// The relay of the proxy.
    ///
    /// # Errors
    /// `Unsupported` without a proxy that has one; as the proxy says.
    pub async fn lease(&self) -> io::Result<Lease> {
        match self.proxy() {
            Some(proxy) => proxy.lease(self).await,
            None => Err(io::ErrorKind::Unsupported.into()),
        }
    }

    /// The relay of the proxy, with a socket for it.
    ///
    /// # Errors
    /// As [`lease`](Self::lease).
    pub async fn associate(&self) -> io::Result<Association> {
        Association::new(self, self.lease().await?).await
    }

    /// A socket for the relays of the proxy, before there is one.
    ///
    /// # Errors
    /// `Unsupported` without a proxy; as the system says.
    pub(super) async fn relay_socket(&self) -> io::Result<UdpSocket> {
        let proxy = self.proxy().ok_or(io::ErrorKind::Unsupported)?;
        self.udp_for(proxy.address(self).await?)
    }

    /// Whether names are looked up by the proxy, and never here.
    pub fn leaves_names_to_proxy(&self) -> bool {
        self.proxy().is_some_and(Proxy::looks_up_names)
    }

    /// The addresses of `host`, which may be an address itself.
    ///
    /// # Errors
    /// As the system says, or the name servers; `Unsupported` where the proxy looks up names. Bounded in time by the
    /// caller: the system's resolver runs on a thread of its own, so that a dead name server stops nobody else.
    pub async fn lookup(&self, host: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
        if self.leaves_names_to_proxy() && parse_ip(host).is_none() {
            return Err(io::Error::new(io::ErrorKind::Unsupported, "names are looked up by the proxy only"));
        }
        self.lookup_here(host, port).await
    }

    /// The same without asking what the proxy is for: for the name of the proxy itself.
    async fn lookup_here(&self, host: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
        if let Some(ip) = parse_ip(host) {
            return Ok(vec![SocketAddr::new(ip, port)]);
        }
        let Inner { device, name_servers, .. } = &*self.inner;
        if device.is_none() && name_servers.is_empty() {
            return Ok(tokio::net::lookup_host((host, port)).await?.collect());
        }
        let servers = if name_servers.is_empty() { dns::system_servers() } else { name_servers.clone() };
        if servers.is_empty() {
            let why =
                "the system's name server is on this machine and may ask by any way; name another (--name-server)";
            return Err(io::Error::new(io::ErrorKind::NotFound, why));
        }
        let ips = dns::addresses_of(self, &servers, host).await?;
        Ok(ips.into_iter().map(|ip| SocketAddr::new(ip, port)).collect())
    }

    /// Where the proxy is.
    pub(super) async fn proxy_address(&self, host: &str, port: u16) -> io::Result<SocketAddr> {
        let known = *self.inner.proxy_at.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((since, address)) = known
            && since.elapsed() < PROXY_ADDRESS_TIME
        {
            return Ok(address);
        }
        let none = || io::Error::new(io::ErrorKind::NotFound, "the name has no address");
        let address = *self.lookup_here(host, port).await?.first().ok_or_else(none)?;
        *self.inner.proxy_at.lock().unwrap_or_else(PoisonError::into_inner) = Some((Instant::now(), address));
        Ok(address)
    }
}

/// An address as URLs and people write it.
fn parse_ip(host: &str) -> Option<IpAddr> {
    let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    bare.parse().ok()
}

fn device_words(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::PermissionDenied => "this user may not choose it".to_owned(),
        io::ErrorKind::Unsupported => "this system cannot keep sockets to a device".to_owned(),
        _ if error.raw_os_error() == Some(libc::ENODEV) => "there is no such device".to_owned(),
        _ => error.to_string(),
    }
}
