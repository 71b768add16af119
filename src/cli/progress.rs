//! How a torrent stands, in words and bars.

use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};

use super::json::state_word;
use super::quantity::{bytes, duration, rate};
use super::screen;
use crate::session::{State, Status};

/// Where a terminal does not say how wide it is.
const COLUMNS: u16 = 80;
/// Terminals narrower than this are treated as if they were this wide: nothing fits there.
const MIN_COLUMNS: usize = 24;
/// Between the parts beside a bar.
const GAP: &str = "  ";

/// Signs that fit the terminal.
#[derive(Clone, Copy, Debug)]
pub(super) struct Look {
    /// Colours may be used.
    pub(super) color: bool,
    /// More than ASCII may be used.
    pub(super) unicode: bool,
}

impl Look {
    /// By what the environment says about the terminal's character set.
    pub(super) fn new(color: bool) -> Self {
        let set = |name: &str| std::env::var(name).ok().filter(|v| !v.is_empty());
        let locale = set("LC_ALL").or_else(|| set("LC_CTYPE")).or_else(|| set("LANG")).unwrap_or_default();
        let locale = locale.to_ascii_lowercase();
        Self { color, unicode: locale.contains("utf-8") || locale.contains("utf8") }
    }

    /// By columns, not letters: some letters take two.
    fn style(self, columns: Columns) -> ProgressStyle {
        let Columns { name, bar, .. } = columns;
        let (bold, paint) = if self.color { (".bold", ".cyan/blue") } else { ("", "") };
        let template = format!("{{prefix:{name}!{bold}}} [{{bar:{bar}{paint}}}] {{percent:>3}}% {{wide_msg}}");
        let style = ProgressStyle::with_template(&template);
        debug_assert!(style.is_ok(), "{template}");
        style.unwrap_or_else(|_| ProgressStyle::default_bar()).progress_chars(self.signs())
    }

    /// What a bar is drawn with, from full to empty.
    pub(super) fn signs(self) -> &'static str {
        if self.unicode { "█▉▊▋▌▍▎▏ " } else { "#>-" }
    }

    fn arrows(self) -> (&'static str, &'static str) {
        if self.unicode { ("↓ ", "↑ ") } else { ("down ", "up ") }
    }
}

/// How the columns of a line are shared out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Columns {
    name: usize,
    bar: usize,
    /// For what stands beside the bar.
    rest: usize,
}

impl Columns {
    /// For a terminal of `all` columns, the longest name having `longest` letters.
    fn new(all: usize, longest: usize) -> Self {
        let all = all.max(MIN_COLUMNS);
        let (name, bar) = match all {
            100.. => (24, 20),
            70.. => (16, 12),
            50.. => (12, 8),
            _ => (8, 4),
        };
        let name = longest.clamp(1, name);
        // Name, space, bar in brackets, space, percent, space; the last column stays free, or some terminals wrap.
        let rest = all.saturating_sub(name + 1 + bar + 2 + 1 + 4 + 1 + 1);
        Self { name, bar, rest }
    }
}

/// The bar of a torrent.
#[derive(Debug)]
pub(super) struct Bar {
    bar: ProgressBar,
    look: Look,
    columns: Option<Columns>,
}

impl Bar {
    /// For a torrent of `total` bytes.
    pub(super) fn new(total: u64, look: Look) -> Self {
        Self { bar: screen::bars().add(ProgressBar::new(total.max(1))), look, columns: None }
    }

    /// Moves it to where `status` is. It stands beside `name` (already printable), the longest name of all having
    /// `longest` letters.
    pub(super) fn show(&mut self, name: &str, longest: usize, status: &Status) {
        let all = crate::sys::terminal_columns().unwrap_or(COLUMNS);
        let columns = Columns::new(all.into(), longest);
        if self.columns != Some(columns) {
            self.columns = Some(columns);
            self.bar.set_style(self.look.style(columns));
            self.bar.set_prefix(fit(name, columns.name));
        }
        let (done, total) = fraction(status);
        self.bar.set_length(total.max(1));
        self.bar.set_position(if total == 0 { 1 } else { done });
        self.bar.set_message(beside_bar(status, self.look, columns.rest));
    }

    /// The name that stands beside it has changed.
    pub(super) fn rename(&mut self) {
        self.columns = None;
    }

    /// Takes it off the screen.
    pub(super) fn clear(self) {
        self.bar.finish_and_clear();
        screen::bars().remove(&self.bar);
    }
}

/// `name` in exactly `width` columns, its middle left out when it is longer: beginnings and endings tell most.
fn fit(name: &str, width: usize) -> String {
    let letters: Vec<char> = name.chars().collect();
    if letters.len() <= width {
        return format!("{name:<width$}");
    }
    let tail = width / 3;
    let head: String = letters[..width - tail - 2].iter().collect();
    let tail: String = letters[letters.len() - tail..].iter().collect();
    format!("{head}..{tail}")
}

/// What is done of what there is to do, in bytes; of the metadata, in parts.
fn fraction(status: &Status) -> (u64, u64) {
    let (done, total) = match status.state {
        State::Metadata => {
            let (here, all) = status.metadata.map_or((0, 0), |m| (m.pieces, m.piece_count));
            // Never full before it is known how much that is.
            (here.into(), u64::from(all).max(1))
        }
        State::Checking => (status.checked_bytes, status.wanted_bytes),
        _ => (status.have_bytes, status.wanted_bytes),
    };
    (done.min(total), total)
}

/// What stands beside the bar, in `room` columns: what does not fit is left out, the least important first.
fn beside_bar(status: &Status, look: Look, room: usize) -> String {
    let (down, up) = look.arrows();
    let downloading = status.state == State::Downloading;
    let cause = cause(status);
    // Importance, lower is more; in the order of the line.
    let mut parts = vec![(if downloading { 5 } else { 0 }, state_shown(status.state))];
    if status.state == State::Metadata {
        parts.push((2, count(status.peers, "peer")));
    } else if status.state != State::Checking {
        parts.push((6, format!("{}/{} pieces", status.have_pieces, status.piece_count)));
        if downloading {
            parts.push((if cause.is_some() { 3 } else { 0 }, format!("{down}{:>9}", short_rate(status.down_rate))));
        }
        parts.push((if downloading { 4 } else { 1 }, format!("{up}{:>9}", short_rate(status.up_rate))));
        parts.push((2, sources(status)));
        if let Some(eta) = status.eta.filter(|_| downloading) {
            parts.push((1, format!("ETA {}", short_time(eta))));
        }
    }
    parts.extend(cause.map(|c| (0, format!("({c})"))));
    loop {
        let line = parts.iter().map(|(_, text)| text.as_str()).collect::<Vec<_>>().join(GAP);
        let least = parts.iter().enumerate().max_by_key(|(_, (importance, _))| *importance).map(|(n, _)| n);
        match least {
            Some(n) if line.chars().count() > room && parts.len() > 1 => parts.remove(n),
            _ => return line,
        };
    }
}

/// A state in one or two words.
fn state_shown(state: State) -> String {
    state_word(state).replace('_', " ")
}

/// A rate in at most nine columns: three digits say enough of something that changes all the time.
fn short_rate(rate: u64) -> String {
    const UNITS: [&str; 6] = ["kB/s", "MB/s", "GB/s", "TB/s", "PB/s", "EB/s"];
    if rate < 1_000 {
        return format!("{rate} B/s");
    }
    let mut unit: u64 = 1_000;
    let mut units = UNITS.iter();
    let mut name = units.next().copied().unwrap_or_default();
    // 999.5 would be shown as 1000.
    while u128::from(rate) * 10 >= u128::from(unit) * 9_995 {
        let (Some(larger), Some(next)) = (unit.checked_mul(1_000), units.next()) else { break };
        (unit, name) = (larger, next);
    }
    let value = rate as f64 / unit as f64;
    let digits = if value < 9.995 { 2 } else { usize::from(value < 99.95) };
    format!("{value:.digits$} {name}")
}

/// A time to come, without tenths: they would only flicker.
fn short_time(time: Duration) -> String {
    let seconds = (time.as_secs() + u64::from(time.subsec_nanos() > 0)).max(1);
    if seconds < 60 { format!("{seconds}s") } else { duration(Duration::from_secs(seconds)) }
}

/// One line without cursor movement, for logs and pipes.
pub(super) fn plain_line(name: &str, status: &Status) -> String {
    let (done, total) = fraction(status);
    if status.state == State::Metadata {
        let mut parts = vec![state_shown(status.state), count(status.peers, "peer")];
        parts.extend(cause(status).map(|c| format!("({c})")));
        return format!("{name}: {}", parts.join(", "));
    }
    let mut parts = vec![format!("{} {}", state_shown(status.state), percent(done, total))];
    parts.push(format!("{} of {}", bytes(done), bytes(total)));
    if status.state != State::Checking {
        parts.push(format!("{}/{} pieces", status.have_pieces, status.piece_count));
        parts.push(format!("{} down", rate(status.down_rate)));
        parts.push(format!("{} up", rate(status.up_rate)));
        parts.push(sources(status));
        parts.extend(status.eta.map(|eta| format!("ETA {}", short_time(eta))));
    }
    parts.extend(cause(status).map(|c| format!("({c})")));
    format!("{name}: {}", parts.join(", "))
}

/// Who there is to exchange data with. Web seeds are of no use to who has everything.
fn sources(status: &Status) -> String {
    let peers = count(status.peers, "peer");
    if status.web_seeds == 0 || status.state != State::Downloading {
        return peers;
    }
    format!("{peers}, {}", count(status.web_seeds, "web seed"))
}

/// Why nothing moves, when nothing moves.
fn cause(status: &Status) -> Option<String> {
    let moving = match status.state {
        State::Metadata => false,
        State::Downloading => status.down_rate > 0,
        State::Checking => true,
        State::Seeding => status.up_rate > 0 || status.peers > 0,
        State::DiskError | State::Failed | State::Stopped => false,
    };
    status.cause.as_deref().filter(|_| !moving).map(crate::base::printable)
}

/// Hundredths with one digit, never 100 before the end.
fn percent(done: u64, total: u64) -> String {
    if done >= total {
        return "100%".to_owned();
    }
    let tenths = u128::from(done) * 1000 / u128::from(total.max(1));
    format!("{}.{}%", tenths / 10, tenths % 10)
}

/// `1 peer`, `2 peers`.
pub(super) fn count(n: impl Into<u64>, what: &str) -> String {
    let n = n.into();
    format!("{n} {what}{}", if n == 1 { "" } else { "s" })
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub(in crate::cli) fn status() -> Status {
        Status {
            state: State::Downloading,
            cause: Some("choked by all 3 peers".to_owned()),
            down_rate: 1_500_000,
            up_rate: 0,
            downloaded: 500,
            uploaded: 0,
            wasted: 0,
            have_bytes: 999,
            wanted_bytes: 1_000,
            have_pieces: 9,
            piece_count: 10,
            checked_bytes: 0,
            peers: 3,
            seeds: 1,
            candidates: 0,
            dht_nodes: None,
            metadata: None,
            hashes: None,
            web_seeds: 0,
            eta: Some(Duration::from_secs(65)),
            ratio: 0.0,
        }
    }

    #[test]
    fn lines() {
        let mut status = status();
        assert_eq!(
            plain_line("x", &status),
            "x: downloading 99.9%, 999 B of 1.00 kB, 9/10 pieces, 1.50 MB/s down, 0 B/s up, 3 peers, ETA 1m05s"
        );
        status.down_rate = 0;
        status.eta = None;
        assert!(plain_line("x", &status).ends_with("3 peers, (choked by all 3 peers)"));
        let with_web_seed = plain_line("x", &Status { web_seeds: 1, ..status.clone() });
        assert!(with_web_seed.ends_with("3 peers, 1 web seed, (choked by all 3 peers)"), "{with_web_seed}");
        let look = Look { color: false, unicode: false };
        assert_eq!(
            beside_bar(&status, look, 100),
            "downloading  9/10 pieces  down     0 B/s  up     0 B/s  3 peers  (choked by all 3 peers)"
        );
        assert_eq!(beside_bar(&status, look, 50), "down     0 B/s  3 peers  (choked by all 3 peers)");
        assert_eq!(beside_bar(&status, look, 5), "(choked by all 3 peers)");
        status.state = State::Metadata;
        status.metadata = Some(crate::session::MetadataProgress { sources: 2, pieces: 1, piece_count: 3 });
        status.cause = Some("1 of 3 parts".to_owned());
        assert_eq!(plain_line("x", &status), "x: metadata, 3 peers, (1 of 3 parts)");
        assert_eq!(beside_bar(&status, look, 100), "metadata  3 peers  (1 of 3 parts)");
        assert_eq!(fraction(&status), (1, 3));
        status.state = State::Checking;
        status.checked_bytes = 250;
        assert_eq!(plain_line("x", &status), "x: checking 25.0%, 250 B of 1.00 kB");
    }

    #[test]
    fn names_are_fitted() {
        assert_eq!(fit("abc", 5), "abc  ");
        assert_eq!(fit("debian-13.1.0-amd64-netinst.iso", 22), "debian-13.1.0..nst.iso");
        assert_eq!(fit("debian-13.1.0-amd64-netinst.iso", 22).chars().count(), 22);
    }

    #[test]
    fn what_matters_fits() {
        let look = Look { color: false, unicode: true };
        let columns = Columns::new(80, "holiday-photos".len());
        assert_eq!(beside_bar(&status(), look, columns.rest), "↓ 1.50 MB/s  ↑     0 B/s  3 peers  ETA 1m05s");
        assert_eq!(beside_bar(&status(), look, Columns::new(40, 30).rest), "↓ 1.50 MB/s");
        for (all, longest) in [(0, 0), (24, 100), (40, 3), (60, 30), (80, 30), (200, 300)] {
            let Columns { name, bar, rest } = Columns::new(all, longest);
            assert!(name + bar + rest + 9 < all.max(MIN_COLUMNS), "{all} {longest}");
        }
        let mut seeding = status();
        seeding.state = State::Seeding;
        assert_eq!(beside_bar(&seeding, look, 33), "seeding  ↑     0 B/s  3 peers");
    }

    #[test]
    fn three_digits() {
        for (rate, want) in [
            (0, "0 B/s"),
            (999, "999 B/s"),
            (1_000, "1.00 kB/s"),
            (99_949, "99.9 kB/s"),
            (99_950, "100 kB/s"),
            (999_499, "999 kB/s"),
            (999_500, "1.00 MB/s"),
            (1_234_567_890, "1.23 GB/s"),
            (u64::MAX, "18.4 EB/s"),
        ] {
            assert_eq!(short_rate(rate), want);
        }
        let time = |ms| short_time(Duration::from_millis(ms));
        assert_eq!([time(0), time(2_100), time(59_500), time(60_001)], ["1s", "3s", "1m00s", "1m01s"]);
    }

    #[test]
    fn styles_are_sound() {
        for (color, unicode) in [(false, false), (true, true)] {
            let _ = Look { color, unicode }.style(Columns::new(80, 10));
        }
        assert_eq!((percent(0, 0), percent(999_999, 1_000_000)), ("100%".to_owned(), "99.9%".to_owned()));
    }
}
