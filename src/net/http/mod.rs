//! HTTP and HTTPS requests to hosts that strangers named.
//!
//! For: getting what a URL leads to with everything bounded: time, size, redirects, and where they may lead.
//! Must not know: what the answer is for.
//! Main types: [`HttpClient`], [`Get`], [`Reach`].
//!
//! A URL from a torrent may reach this machine or its network only if the caller's rule accepts that very URL
//! ([`Get::local`]), and never by a redirect from the internet. Redirects are followed here, not by `reqwest`: every
//! hop is judged by the address that was really connected to. Error texts hold no URLs, which may hold passkeys.

mod address;
mod scope;

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::OnceCell;
use url::{Host, Url};

pub use address::{LookupError, lookup};
pub use scope::{Reach, Scope, scope};

use super::egress::Egress;
use crate::swarm::web_seed::MAX_LANES;
use crate::sys;
use crate::tracker::http::may_redirect;
use crate::tracker::{Family, printable};

/// Redirects that are followed.
const MAX_REDIRECTS: usize = 5;

/// Connections to one host that are kept while they are not needed ...
const KEPT: usize = 2;
/// ... and of a web seed: one for each request that may be under way.
const KEPT_FOR_RANGES: usize = MAX_LANES;

/// Characters of an error text of the system or of a library.
const MAX_TEXT: usize = 160;

/// How requests leave this machine.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct HttpConfig {
    /// Connections that are not there by then are given up.
    pub connect_timeout: Duration,
    /// The way that they take; no variable of the environment is looked at.
    pub egress: Egress,
}

impl Default for HttpConfig {
    fn default() -> Self {
        Self { connect_timeout: Duration::from_secs(10), egress: Egress::default() }
    }
}

/// One request.
#[derive(Clone, Copy, Debug)]
pub struct Get<'a> {
    /// What is asked for.
    pub url: &'a Url,
    /// The family to ask over; `None`: any.
    pub family: Option<Family>,
    /// Which URLs may lead to this machine or its network.
    pub local: fn(&Url) -> bool,
    /// Bytes of body, decompressed, that are read.
    pub limit: usize,
    /// For everything: look-up, connection, redirects, head and body.
    pub deadline: Duration,
}

/// One request for a part of what a URL leads to.
#[derive(Clone, Debug)]
pub(super) struct Open<'a> {
    pub(super) url: &'a Url,
    pub(super) family: Option<Family>,
    /// Which URLs may lead to this machine or its network; none if the way has come from the internet.
    pub(super) local: fn(&Url) -> bool,
    pub(super) outside: bool,
    /// The value of the header `Range`.
    pub(super) range: Option<String>,
}

/// An answer whose body has not been read, after all redirects.
#[derive(Debug)]
pub(super) struct Opened {
    pub(super) response: reqwest::Response,
    /// Where it came from ...
    pub(super) url: Url,
    /// ... by way of the internet: no redirect from there leads to this machine or its network.
    pub(super) outside: bool,
}

/// What came.
#[derive(Debug)]
pub struct Answer {
    /// The HTTP status.
    pub status: u16,
    /// The body, decompressed.
    pub body: Vec<u8>,
    /// Where it came from, after all redirects: the server, or the proxy.
    pub from: Option<IpAddr>,
}

/// Why nothing came.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum HttpError {
    /// It leads where it must not.
    #[error("refused for safety: {0}")]
    Unsafe(String),
    /// The name could not be looked up.
    #[error("name lookup failed: {0}")]
    Lookup(String),
    /// No address of this family, or no route to it.
    #[error("not reachable over {0}")]
    NoAddress(Family),
    /// No connection, or it broke, or it is not HTTP.
    #[error("{0}")]
    Unreachable(String),
    /// Too slow.
    #[error("no answer within {} s", .0.as_secs_f64().ceil())]
    TimedOut(Duration),
    /// Redirected too often, nowhere, or from https to http.
    #[error("{0}")]
    Redirect(String),
    /// A longer body than [`Get::limit`].
    #[error("answer larger than {0} bytes")]
    TooLarge(usize),
}

/// Makes requests. Cheap to clone; connections are kept for a short while and shared.
#[derive(Clone, Debug)]
pub struct HttpClient {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    config: HttpConfig,
    purpose: Purpose,
    /// By family (any, IPv4, IPv6), reach and TLS: in `reqwest` these belong to the client, not to the request. Each is
    /// made when it is first needed; those without TLS load no certificates.
    clients: [OnceCell<reqwest::Client>; 12],
}

/// What a client is tuned for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Purpose {
    /// Answers that are read whole.
    Answers,
    /// Parts of files, one after the other, each as it lies on the server.
    Ranges,
}

impl HttpClient {
    /// Nothing is opened or loaded before the first request.
    pub fn new(config: HttpConfig) -> Self {
        Self { inner: Arc::new(Inner { config, purpose: Purpose::Answers, clients: Default::default() }) }
    }

    /// A client for parts of files: the same way out, but nothing is decompressed, and more connections are kept.
    pub(super) fn for_ranges(&self) -> Self {
        let config = self.inner.config.clone();
        Self { inner: Arc::new(Inner { config, purpose: Purpose::Ranges, clients: Default::default() }) }
    }

    /// Whether a proxy stands between us and everybody.
    pub(crate) fn is_proxied(&self) -> bool {
        self.inner.config.egress.proxy().is_some()
    }

    /// Asks, follows redirects, and reads the body.
    ///
    /// # Errors
    /// See [`HttpError`]. A status that is no success is no error.
    pub async fn get(&self, get: Get<'_>) -> Result<Answer, HttpError> {
        let answer = tokio::time::timeout(get.deadline, self.follow(get)).await;
        answer.map_err(|_| HttpError::TimedOut(get.deadline))?
    }

    async fn follow(&self, get: Get<'_>) -> Result<Answer, HttpError> {
        let Get { url, family, local, .. } = get;
        let opened = self.open(Open { url, family, local, outside: false, range: None }).await?;
        read(opened.response, get).await
    }

    /// Asks, and follows redirects. Nothing bounds the time that it takes.
    pub(super) async fn open(&self, open: Open<'_>) -> Result<Opened, HttpError> {
        let mut url = open.url.clone();
        let mut outside = open.outside;
        for _ in 0..=MAX_REDIRECTS {
            let local = !outside && (open.local)(&url);
            let reach = if local { Reach::Local } else { Reach::Public };
            let response = self.hop(&url, &open, reach).await?;
            // Behind a proxy nobody knows where the answer came from.
            let remote = response.remote_addr().filter(|_| !self.is_proxied());
            outside |= remote.is_none_or(|r| scope(r.ip()) != Scope::Local);
            let Some(next) = redirect(&url, &response)? else { return Ok(Opened { response, url, outside }) };
            url = next;
        }
        Err(HttpError::Redirect(format!("redirected more than {MAX_REDIRECTS} times")))
    }

    async fn hop(&self, url: &Url, open: &Open<'_>, reach: Reach) -> Result<reqwest::Response, HttpError> {
        // An address in the URL itself never comes before the resolver.
        let literal = match url.host() {
            Some(Host::Ipv4(ip)) => Some(IpAddr::V4(ip)),
            Some(Host::Ipv6(ip)) => Some(IpAddr::V6(ip).to_canonical()),
            _ => None,
        };
        if let Some(ip) = literal {
            if !reach.allows(ip) {
                return Err(HttpError::Unsafe(LookupError::Refused(ip).to_string()));
            }
            if let Some(family) = open.family.filter(|f| *f != Family::of(ip) && !self.is_proxied()) {
                return Err(HttpError::NoAddress(family));
            }
        }
        let client = self.client(open.family, reach, url.scheme() == "https").await?;
        let mut request = client.get(url.clone()).header("Accept", "*/*");
        if let Some(range) = &open.range {
            request = request.header("Range", range);
        }
        request.send().await.map_err(|e| explain(e, open.family.or(literal.map(Family::of))))
    }

    async fn client(&self, family: Option<Family>, reach: Reach, tls: bool) -> Result<&reqwest::Client, HttpError> {
        let by_family = match family {
            None => 0,
            Some(Family::V4) => 1,
            Some(Family::V6) => 2,
        };
        let index = by_family * 4 + usize::from(reach == Reach::Local) * 2 + usize::from(tls);
        let cell = self.inner.clients.get(index).ok_or_else(|| HttpError::Unreachable("no client".into()))?;
        let (config, purpose) = (self.inner.config.clone(), self.inner.purpose);
        cell.get_or_try_init(|| async move {
            let proxy = match config.egress.proxy() {
                Some(proxy) => {
                    let url = proxy.url_with_address(&config.egress).await;
                    Some(url.map_err(|e| HttpError::Unreachable(format!("proxy {proxy}: {e}")))?)
                }
                None => None,
            };
            // Loading the certificates of the system takes tens of milliseconds.
            let built =
                tokio::task::spawn_blocking(move || build(&config, purpose, proxy.as_ref(), family, reach, tls)).await;
            let built = built.map_err(|e| HttpError::Unreachable(e.to_string()))?;
            built.map_err(|e| explain(e, family))
        })
        .await
    }
}

fn build(
    config: &HttpConfig,
    purpose: Purpose,
    proxy: Option<&Url>,
    family: Option<Family>,
    reach: Reach,
    tls: bool,
) -> reqwest::Result<reqwest::Client> {
    // Fails only if one is installed already.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let with_roots = |roots: rustls::RootCertStore| {
        let tls = rustls::ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
        Ok(configured(config, purpose, proxy, family, reach)?.tls_backend_preconfigured(tls))
    };
    if !tls {
        return with_roots(rustls::RootCertStore::empty())?.build();
    }
    configured(config, purpose, proxy, family, reach)?.build().or_else(|_| {
        // A system without certificates (an empty container): those of Mozilla, which come with us.
        with_roots(webpki_roots::TLS_SERVER_ROOTS.iter().cloned().collect())?.build()
    })
}

fn configured(
    config: &HttpConfig,
    purpose: Purpose,
    proxy: Option<&Url>,
    family: Option<Family>,
    reach: Reach,
) -> reqwest::Result<reqwest::ClientBuilder> {
    let mut builder = reqwest::Client::builder()
        .user_agent(concat!("gannet/", env!("CARGO_PKG_VERSION")))
        // A redirected request would tell the next host the URL, with its passkey.
        .referer(false)
        .redirect(reqwest::redirect::Policy::none())
        .no_proxy()
        .http1_only()
        .connect_timeout(config.connect_timeout)
        .pool_max_idle_per_host(if purpose == Purpose::Ranges { KEPT_FOR_RANGES } else { KEPT })
        .pool_idle_timeout(Duration::from_secs(20))
        .dns_resolver(address::Resolver { egress: config.egress.clone(), family, reach });
    if purpose == Purpose::Ranges {
        builder = builder.no_gzip();
    }
    if let Some(proxy) = proxy {
        builder = builder.proxy(reqwest::Proxy::all(proxy.clone())?);
    }
    if let Some(device) = config.egress.device() {
        builder = sys::bind_client(builder, device);
    }
    Ok(builder)
}

/// Where an answer redirects to, if it does.
fn redirect(from: &Url, response: &reqwest::Response) -> Result<Option<Url>, HttpError> {
    if !matches!(response.status().as_u16(), 301 | 302 | 303 | 307 | 308) {
        return Ok(None);
    }
    let nowhere = || HttpError::Redirect("redirected nowhere".into());
    let location = response.headers().get("location").and_then(|l| l.to_str().ok()).ok_or_else(nowhere)?;
    let mut next = from.join(location).map_err(|_| nowhere())?;
    next.set_fragment(None);
    if !may_redirect(from, &next) {
        return Err(HttpError::Redirect(format!("redirected from {} to {}: refused", from.scheme(), next.scheme())));
    }
    Ok(Some(next))
}

/// A part of a body, or what broke.
pub(super) async fn next_part(response: &mut reqwest::Response) -> Result<Option<bytes::Bytes>, HttpError> {
    response.chunk().await.map_err(|e| explain(e, None))
}

async fn read(mut response: reqwest::Response, get: Get<'_>) -> Result<Answer, HttpError> {
    let (status, from) = (response.status().as_u16(), response.remote_addr().map(|at| at.ip()));
    let mut body = Vec::new();
    // Counted after decompression, piece by piece: neither a length in the head nor a bomb gets past it.
    while let Some(part) = response.chunk().await.map_err(|e| explain(e, get.family))? {
        if body.len().saturating_add(part.len()) > get.limit {
            return Err(HttpError::TooLarge(get.limit));
        }
        body.extend_from_slice(&part);
    }
    Ok(Answer { status, body, from })
}

/// One line about what went wrong, at its root; without the URL.
fn explain(error: reqwest::Error, family: Option<Family>) -> HttpError {
    let error = error.without_url();
    let mut root: &(dyn std::error::Error + 'static) = &error;
    loop {
        if let Some(lookup) = root.downcast_ref::<LookupError>() {
            return match lookup {
                LookupError::Failed(why) => HttpError::Lookup(why.clone()),
                LookupError::NoFamily(family) => HttpError::NoAddress(*family),
                LookupError::Refused(_) => HttpError::Unsafe(lookup.to_string()),
            };
        }
        if let (Some(io), Some(family)) = (root.downcast_ref::<std::io::Error>(), family)
            && has_no_route(io, family)
        {
            return HttpError::NoAddress(family);
        }
        match root.source() {
            Some(deeper) => root = deeper,
            None => break,
        }
    }
    let what = if error.is_connect() { "no connection: " } else { "" };
    let text = if error.is_timeout() { "timed out".to_owned() } else { root.to_string() };
    HttpError::Unreachable(format!("{what}{}", printable(text.as_bytes(), MAX_TEXT)))
}

/// Whether an I/O error says that this machine has no IPv6 beyond itself. For IPv4 the same errors mean that the
/// network is down, which is worth another try soon.
pub(crate) fn has_no_route(error: &std::io::Error, family: Family) -> bool {
    use std::io::ErrorKind;
    let kind = matches!(error.kind(), ErrorKind::NetworkUnreachable | ErrorKind::AddrNotAvailable);
    family == Family::V6 && (kind || error.raw_os_error() == Some(libc::EAFNOSUPPORT))
}
