//! How a torrent stands, in words and bars.

use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};

use super::json::state_word;
use super::quantity::{bytes, duration, rate};
use super::screen;
use crate::session::{State, Status};

/// Columns for a torrent's name before its bar.
const NAME_WIDTH: usize = 22;
/// Columns of the bar itself.
const BAR_WIDTH: usize = 20;

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

    /// Two lines for a torrent, so that all of it is seen in 80 columns: name, bar and rates; then how it stands.
    fn style(self, name: &str) -> ProgressStyle {
        let paint = if self.color { ".cyan/blue" } else { "" };
        let name = fit(name, NAME_WIDTH).replace('{', "{{").replace('}', "}}");
        let template = format!("{name} [{{bar:{BAR_WIDTH}{paint}}}] {{percent:>3}}%  {{prefix}}\n  {{wide_msg}}");
        let style = ProgressStyle::with_template(&template).unwrap_or_else(|_| ProgressStyle::default_bar());
        style.progress_chars(self.signs())
    }

    /// What a bar is drawn with, from full to empty.
    pub(super) fn signs(self) -> &'static str {
        if self.unicode { "█▉▊▋▌▍▎▏ " } else { "#>-" }
    }

    fn arrows(self) -> (&'static str, &'static str) {
        if self.unicode { ("↓ ", "↑ ") } else { ("down ", "up ") }
    }
}

/// A bar of `total` bytes for what is called `name` (already printable).
pub(super) fn bar(name: &str, total: u64, look: Look) -> ProgressBar {
    let bar = screen::bars().add(ProgressBar::new(total.max(1)));
    bar.set_style(look.style(name));
    bar
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

/// Moves a bar to where `status` is.
pub(super) fn show(bar: &ProgressBar, status: &Status, look: Look) {
    let (done, total) = fraction(status);
    bar.set_length(total.max(1));
    bar.set_position(done);
    bar.set_prefix(rates(status, look));
    bar.set_message(below_bar(status));
}

/// What is done of what there is to do, in bytes.
fn fraction(status: &Status) -> (u64, u64) {
    let done = if status.state == State::Checking { status.checked_bytes } else { status.have_bytes };
    (done.min(status.wanted_bytes), status.wanted_bytes)
}

fn rates(status: &Status, look: Look) -> String {
    let (down, up) = look.arrows();
    match status.state {
        State::Downloading => format!("{down}{}  {up}{}", rate(status.down_rate), rate(status.up_rate)),
        State::Seeding => format!("{up}{}", rate(status.up_rate)),
        State::Checking | State::Failed | State::Stopped => String::new(),
    }
}

fn below_bar(status: &Status) -> String {
    let mut parts = vec![state_word(status.state).to_owned()];
    if status.state != State::Checking {
        parts.push(format!("{}/{} pieces", status.have_pieces, status.piece_count));
        parts.push(count(status.peers, "peer"));
        if let Some(eta) = status.eta.filter(|_| status.state == State::Downloading) {
            parts.push(format!("ETA {}", remaining(eta)));
        }
        if status.state == State::Seeding {
            parts.push(format!("ratio {:.2}", status.ratio));
        }
    }
    parts.extend(cause(status).map(|c| format!("({c})")));
    parts.join("  ")
}

/// One line without cursor movement, for logs and pipes.
pub(super) fn plain_line(name: &str, status: &Status) -> String {
    let (done, total) = fraction(status);
    let mut parts = vec![format!("{} {}", state_word(status.state), percent(done, total))];
    parts.push(format!("{} of {}", bytes(done), bytes(total)));
    if status.state != State::Checking {
        parts.push(format!("{}/{} pieces", status.have_pieces, status.piece_count));
        parts.push(format!("{} down", rate(status.down_rate)));
        parts.push(format!("{} up", rate(status.up_rate)));
        parts.push(count(status.peers, "peer"));
        parts.extend(status.eta.map(|eta| format!("ETA {}", remaining(eta))));
    }
    parts.extend(cause(status).map(|c| format!("({c})")));
    format!("{name}: {}", parts.join(", "))
}

/// Why nothing moves, when nothing moves.
fn cause(status: &Status) -> Option<String> {
    let moving = match status.state {
        State::Downloading => status.down_rate > 0,
        State::Checking => true,
        State::Seeding => status.up_rate > 0 || status.peers > 0,
        State::Failed | State::Stopped => false,
    };
    status.cause.as_deref().filter(|_| !moving).map(crate::base::printable)
}

/// A time to go: nobody knows it to tenths of a second.
fn remaining(eta: Duration) -> String {
    let seconds = eta.as_secs().max(1);
    if seconds < 60 { format!("{seconds}s") } else { duration(eta) }
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
        let look = Look { color: false, unicode: false };
        assert_eq!(rates(&status, look), "down 0 B/s  up 0 B/s");
        assert_eq!(below_bar(&status), "downloading  9/10 pieces  3 peers  (choked by all 3 peers)");
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
    fn styles_are_sound() {
        for (color, unicode) in [(false, false), (true, true)] {
            for name in ["plain", "{bar:200} {{x}", "}{", "{", "日本語のとても長い名前、幅を超えるもの、もっと"]
            {
                let bar = ProgressBar::hidden();
                bar.set_style(Look { color, unicode }.style(name));
                show(&bar, &status(), Look { color, unicode });
                assert_eq!((bar.position(), bar.length()), (999, Some(1_000)));
            }
        }
        assert_eq!((percent(0, 0), percent(999_999, 1_000_000)), ("100%".to_owned(), "99.9%".to_owned()));
    }
}
