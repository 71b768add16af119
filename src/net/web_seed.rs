//! Asking web seeds: for parts of files by HTTP ranges (BEP 19), for parts of pieces from scripts (BEP 17).
//!
//! An answer is believed only if it says that it is the part that was asked for, of a file of the right length. Of a server
//! that sends the whole file instead (status 200) it is taken if its length is right and no more than [`MAX_SKIP`] bytes
//! have to be read past: small files, and the beginnings of large ones. A body is read as far as the part goes, never
//! further. Time is bounded here for the head of an answer; that a body comes forward is for the caller to see to.

use std::ops::Range;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use reqwest::StatusCode;
use reqwest::header::{CONTENT_ENCODING, CONTENT_RANGE, DATE, HeaderName, RETRY_AFTER};
use tokio::time::timeout;
use url::Url;

use super::http::{HttpClient, HttpError, Open, Opened, next_part};
use super::range_answer::{self, Wrong, partial};

/// For the look-up, the connection, redirects and the head of the answer.
const HEAD_TIMEOUT: Duration = Duration::from_secs(30);

/// Bytes before the part that are read past, if a server sends the whole file: no more than another request would cost.
pub const MAX_SKIP: u64 = 1 << 20;

/// How long the end of a body is waited for that is all there, so that its connection can be used again.
const END_TIMEOUT: Duration = Duration::from_millis(500);

/// Bytes of the body in which a script says when to come back (BEP 17).
const MAX_RETRY_BODY: usize = 32;

/// Asks web seeds. One for a session; cheap to clone.
#[derive(Clone, Debug)]
pub struct RangeClient {
    http: HttpClient,
}

/// Where something is, and where the way to it may lead.
#[derive(Clone, Copy, Debug)]
pub struct Address<'a> {
    /// The address.
    pub url: &'a Url,
    /// Which addresses may lead to this machine or its network; none once the way has come from the internet.
    pub local: fn(&Url) -> bool,
    /// It has: the address is one that a server on the internet redirected to.
    pub outside: bool,
}

/// Why a web seed did not send what it was asked for.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RangeError {
    /// No connection, or it broke, or it leads where it must not.
    #[error(transparent)]
    Http(#[from] HttpError),
    /// It does not have the file, or not for us.
    #[error("{}", status_text(*.0))]
    Missing(u16),
    /// It has another file of that name.
    #[error("the file has {found} bytes there, not {expected}")]
    WrongLength {
        /// There.
        found: u64,
        /// In the torrent.
        expected: u64,
    },
    /// It sends whole files only, and this one is too large for that.
    #[error("it has no ranges (sends whole files only)")]
    NoRanges,
    /// It has too much to do.
    #[error("{}", status_text(*.status))]
    Busy {
        /// The HTTP status.
        status: u16,
        /// When to come back, if it said so.
        after: Option<Duration>,
    },
    /// Another status.
    #[error("{}", status_text(*.0))]
    Status(u16),
    /// An answer that is not what was asked for.
    #[error("a wrong answer: {0}")]
    Wrong(&'static str),
}

impl From<Wrong> for RangeError {
    fn from(wrong: Wrong) -> Self {
        match wrong {
            Wrong::Length { found, expected } => Self::WrongLength { found, expected },
            Wrong::Answer(what) => Self::Wrong(what),
        }
    }
}

fn status_text(status: u16) -> String {
    let reason = StatusCode::from_u16(status).ok().and_then(|status| status.canonical_reason());
    reason.map_or_else(|| format!("HTTP status {status}"), |reason| format!("{status} {reason}"))
}

/// The part of a body that was asked for, as it comes.
#[derive(Debug)]
pub struct Body {
    opened: Opened,
    skip: u64,
    left: u64,
}

impl RangeClient {
    /// With the same way out as `http`.
    pub fn new(http: &HttpClient) -> Self {
        Self { http: http.for_ranges() }
    }

    /// Asks for `bytes` of a file of `file_len` bytes.
    ///
    /// The body may be shorter than `bytes` ([`Body::left`]): a server may send less at once than it is asked for.
    ///
    /// # Errors
    /// See [`RangeError`].
    pub async fn range(&self, place: Address<'_>, bytes: Range<u64>, file_len: u64) -> Result<Body, RangeError> {
        debug_assert!(bytes.start < bytes.end && bytes.end <= file_len);
        let opened = self.open(place, Some(format!("bytes={}-{}", bytes.start, bytes.end - 1))).await?;
        let length = opened.response.content_length();
        let (skip, left) = match opened.response.status().as_u16() {
            206 => (0, partial(header(&opened, &CONTENT_RANGE), length, &bytes, file_len)?),
            200 => match length {
                Some(found) if found != file_len => {
                    return Err(RangeError::WrongLength { found, expected: file_len });
                }
                Some(_) if bytes.start <= MAX_SKIP => (bytes.start, bytes.end - bytes.start),
                _ => return Err(RangeError::NoRanges),
            },
            _ => return Err(refusal(&opened)),
        };
        Ok(Body { opened, skip, left })
    }

    /// Asks a script for `len` bytes of a piece, which its address names (BEP 17).
    ///
    /// # Errors
    /// See [`RangeError`].
    pub async fn piece(&self, place: Address<'_>, len: u64) -> Result<Body, RangeError> {
        let mut opened = self.open(place, None).await?;
        match opened.response.status().as_u16() {
            200 => {}
            503 => {
                let text = timeout(END_TIMEOUT, next_part(&mut opened.response)).await;
                let text = text.ok().and_then(Result::ok).flatten().filter(|text| text.len() <= MAX_RETRY_BODY);
                let seconds = text.and_then(|text| std::str::from_utf8(&text).ok()?.trim().parse().ok());
                let after = seconds.map(Duration::from_secs).or_else(|| retry_after(&opened));
                return Err(RangeError::Busy { status: 503, after });
            }
            _ => return Err(refusal(&opened)),
        }
        if opened.response.content_length().is_some_and(|found| found != len) {
            return Err(RangeError::Wrong("another length than that of the piece"));
        }
        Ok(Body { opened, skip: 0, left: len })
    }

    async fn open(&self, place: Address<'_>, range: Option<String>) -> Result<Opened, RangeError> {
        let Address { url, local, outside } = place;
        let opened = timeout(HEAD_TIMEOUT, self.http.open(Open { url, family: None, local, outside, range })).await;
        let opened = opened.map_err(|_| HttpError::TimedOut(HEAD_TIMEOUT))??;
        match header(&opened, &CONTENT_ENCODING) {
            None | Some("" | "identity") => Ok(opened),
            Some(_) => Err(RangeError::Wrong("compressed")),
        }
    }
}

impl Body {
    /// Bytes of the part that have not come.
    pub fn left(&self) -> u64 {
        self.left
    }

    /// The address that sent it, after redirects, and whether the way to it led through the internet.
    pub fn came_from(&self) -> (&Url, bool) {
        (&self.opened.url, self.opened.outside)
    }

    /// The next bytes of the part, at least one; none when all of it came.
    ///
    /// # Errors
    /// It broke off.
    pub async fn next(&mut self) -> Result<Option<Bytes>, RangeError> {
        while self.left > 0 {
            let Some(mut bytes) = next_part(&mut self.opened.response).await? else {
                return Err(RangeError::Wrong("it ends too early"));
            };
            let skipped = usize::try_from(self.skip).map_or(bytes.len(), |skip| skip.min(bytes.len()));
            self.skip -= skipped as u64;
            let _ = bytes.split_to(skipped);
            bytes.truncate(usize::try_from(self.left).unwrap_or(usize::MAX));
            self.left -= bytes.len() as u64;
            if !bytes.is_empty() {
                return Ok(Some(bytes));
            }
        }
        Ok(None)
    }

    /// Lets the connection be used again, if the body ends with the part.
    pub async fn finish(mut self) {
        if self.left == 0 {
            let _ = timeout(END_TIMEOUT, next_part(&mut self.opened.response)).await;
        }
    }
}

fn header<'a>(opened: &'a Opened, name: &HeaderName) -> Option<&'a str> {
    opened.response.headers().get(name)?.to_str().ok()
}

/// What a status that brings nothing says.
fn refusal(opened: &Opened) -> RangeError {
    match opened.response.status().as_u16() {
        // 416: the file ends before the part begins.
        status @ (401 | 403 | 404 | 410 | 416 | 451) => RangeError::Missing(status),
        status @ (429 | 503) => RangeError::Busy { status, after: retry_after(opened) },
        status => RangeError::Status(status),
    }
}

/// How long to wait by `Retry-After`.
fn retry_after(opened: &Opened) -> Option<Duration> {
    let here = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    range_answer::retry_after(header(opened, &RETRY_AFTER)?, header(opened, &DATE), here)
}
