//! Sizes, rates and times as people write and read them.
//!
//! One rule, said in the help too: `k`, `M`, `G`, `T` (with or without a `B`) are powers of 1000; `Ki`, `Mi`, `Gi`, `Ti`
//! are powers of 1024. Case does not matter, because nobody means bits or millibytes.

use std::time::Duration;

use indicatif::DecimalBytes;

/// Digits after the point that count; more would be fractions of a byte even of a terabyte.
const FRACTION_DIGITS: usize = 12;

/// Reads a number of bytes: `1234`, `800k`, `1.5MiB`.
pub(super) fn parse_size(text: &str) -> Result<u64, String> {
    let text = text.trim();
    let end = text.find(|c: char| !(c.is_ascii_digit() || c == '.')).unwrap_or(text.len());
    let (number, unit) = text.split_at(end);
    let unit = unit.trim_start();
    let factor = unit_factor(unit)
        .ok_or_else(|| format!("'{unit}' is no unit of size: use k, M, G, T (powers of 1000) or KiB, MiB, GiB, TiB"))?;
    scale(number, factor).ok_or_else(|| "a size is a number and a unit, such as 800k or 1.5MiB".to_owned())
}

/// Reads bytes per second: a size, with or without `/s`. `0` and `none` are no limit.
pub(super) fn parse_limit(text: &str) -> Result<Limit, String> {
    if text.trim().eq_ignore_ascii_case("none") {
        return Ok(Limit(None));
    }
    let size = text.trim().strip_suffix("/s").unwrap_or(text);
    let rate = parse_size(size)?;
    Ok(Limit((rate > 0).then_some(rate)))
}

/// A limit on a rate, in bytes per second; `None` is no limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Limit(pub(super) Option<u64>);

/// Reads a time: `30s`, `10m`, `1h30m`, `2d`; a bare number is seconds.
pub(super) fn parse_duration(text: &str) -> Result<Duration, String> {
    const HELP: &str = "a time is a number and a unit, such as 30s, 10m, 2h, 1h30m or 1d";
    let mut rest = text.trim();
    if rest.is_empty() {
        return Err(HELP.to_owned());
    }
    let mut nanos: u128 = 0;
    while !rest.is_empty() {
        let end = rest.find(|c: char| !(c.is_ascii_digit() || c == '.')).unwrap_or(rest.len());
        let (number, tail) = rest.split_at(end);
        let unit_end = tail.find(|c: char| c.is_ascii_digit()).unwrap_or(tail.len());
        let (unit, tail) = tail.split_at(unit_end);
        let factor: u64 = match unit.trim() {
            "ms" => 1_000_000,
            "" | "s" | "sec" => 1_000_000_000,
            "m" | "min" => 60 * 1_000_000_000,
            "h" => 3_600 * 1_000_000_000,
            "d" => 86_400 * 1_000_000_000,
            _ => return Err(HELP.to_owned()),
        };
        // The last factor is an exact power of a unit, so `scale` is exact to the nanosecond.
        nanos += u128::from(scale(number, factor).ok_or_else(|| HELP.to_owned())?);
        rest = tail;
    }
    u64::try_from(nanos).map(Duration::from_nanos).map_err(|_| "that is longer than 500 years".to_owned())
}

fn unit_factor(unit: &str) -> Option<u64> {
    let lower = unit.to_ascii_lowercase();
    let prefix = lower.strip_suffix('b').unwrap_or(&lower);
    Some(match prefix {
        "" => 1,
        "k" => 1_000,
        "m" => 1_000_000,
        "g" => 1_000_000_000,
        "t" => 1_000_000_000_000,
        "ki" => 1 << 10,
        "mi" => 1 << 20,
        "gi" => 1 << 30,
        "ti" => 1 << 40,
        _ => return None,
    })
}

/// `number` (digits with at most one point) times `factor`, rounded down.
fn scale(number: &str, factor: u64) -> Option<u64> {
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if whole.is_empty() && fraction.is_empty() || fraction.contains('.') || fraction.len() > FRACTION_DIGITS {
        return None;
    }
    let whole: u64 = if whole.is_empty() { 0 } else { whole.parse().ok()? };
    let mut total = u128::from(whole) * u128::from(factor);
    if !fraction.is_empty() {
        let digits = u32::try_from(fraction.len()).ok()?;
        let part: u64 = fraction.parse().ok()?;
        total += u128::from(part) * u128::from(factor) / 10u128.pow(digits);
    }
    u64::try_from(total).ok()
}

/// A number of bytes for people, in powers of 1000: `1.50 MB`.
pub(super) fn bytes(n: u64) -> String {
    DecimalBytes(n).to_string()
}

/// Bytes per second for people: `1.50 MB/s`.
pub(super) fn rate(n: u64) -> String {
    format!("{}/s", DecimalBytes(n))
}

/// A time for people: `4.2s`, `1m05s`, `2h03m`, `3d04h`.
pub(super) fn duration(time: Duration) -> String {
    let seconds = time.as_secs();
    match seconds {
        0..10 => format!("{:.1}s", time.as_secs_f64()),
        10..60 => format!("{seconds}s"),
        60..3_600 => format!("{}m{:02}s", seconds / 60, seconds % 60),
        3_600..86_400 => format!("{}h{:02}m", seconds / 3_600, seconds / 60 % 60),
        _ => format!("{}d{:02}h", seconds / 86_400, seconds / 3_600 % 24),
    }
}

/// Bytes per second over `time`.
pub(super) fn mean_rate(bytes: u64, time: Duration) -> u64 {
    let micros = time.as_micros().max(1);
    u64::try_from(u128::from(bytes) * 1_000_000 / micros).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes() {
        for (text, want) in [
            ("0", 0),
            ("1234", 1234),
            ("5M", 5_000_000),
            ("5MB", 5_000_000),
            ("5 mb", 5_000_000),
            ("800k", 800_000),
            ("1.5MiB", 1_572_864),
            ("1.5Mi", 1_572_864),
            (".5k", 500),
            ("2.", 2),
            ("1T", 1_000_000_000_000),
            ("16KiB", 16_384),
            ("1.999", 1),
        ] {
            assert_eq!(parse_size(text), Ok(want), "{text}");
        }
        for text in ["", "k", ".", "-1", "1.2.3", "5X", "5 M B", "99999999T", "1e9", "5mm", "0x10", "٣"] {
            assert!(parse_size(text).is_err(), "{text}");
        }
    }

    #[test]
    fn limits() {
        assert_eq!(parse_limit("5M/s"), Ok(Limit(Some(5_000_000))));
        assert_eq!(parse_limit("0"), Ok(Limit(None)));
        assert_eq!(parse_limit("none"), Ok(Limit(None)));
        assert!(parse_limit("fast").is_err());
    }

    #[test]
    fn durations() {
        for (text, want) in [
            ("30s", 30_000),
            ("10m", 600_000),
            ("2h", 7_200_000),
            ("90", 90_000),
            ("1h30m", 5_400_000),
            ("1.5s", 1_500),
            ("250ms", 250),
            ("1d", 86_400_000),
            ("0", 0),
        ] {
            assert_eq!(parse_duration(text), Ok(Duration::from_millis(want)), "{text}");
        }
        for text in ["", "s", "10x", "-5s", "1..2s", "99999999999999999d", "five"] {
            assert!(parse_duration(text).is_err(), "{text}");
        }
    }

    #[test]
    fn shown() {
        assert_eq!((bytes(1_500_000), rate(0)), ("1.50 MB".to_owned(), "0 B/s".to_owned()));
        let show = |s| duration(Duration::from_secs(s));
        assert_eq!(
            [show(3), show(42), show(65), show(7_380), show(273_600)],
            ["3.0s", "42s", "1m05s", "2h03m", "3d04h"]
        );
        assert_eq!(mean_rate(1_000_000, Duration::from_millis(500)), 2_000_000);
    }
}
