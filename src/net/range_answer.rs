//! What the head of an answer says about the part of a file that it brings (RFC 9110). Nothing here reads or sends.

use std::ops::Range;
use std::time::Duration;

/// Why the part is not the one that was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wrong {
    /// It is of a file of another length.
    Length {
        /// There.
        found: u64,
        /// In the torrent.
        expected: u64,
    },
    /// It is another part, or nobody knows which.
    Answer(&'static str),
}

/// How many bytes a partial answer (status 206) brings, from the first that was asked for on.
pub(super) fn partial(
    content_range: Option<&str>,
    length: Option<u64>,
    asked: &Range<u64>,
    file_len: u64,
) -> Result<u64, Wrong> {
    let (sent, total) = content_range.and_then(parse_content_range).ok_or(Wrong::Answer("which part it is"))?;
    if let Some(found) = total.filter(|total| *total != file_len) {
        return Err(Wrong::Length { found, expected: file_len });
    }
    if sent.start != asked.start || sent.end > asked.end {
        return Err(Wrong::Answer("another part than was asked for"));
    }
    let len = sent.end - sent.start;
    if length.is_some_and(|length| length != len) {
        return Err(Wrong::Answer("a length that is not that of the part"));
    }
    Ok(len)
}

/// `bytes FIRST-LAST/TOTAL`, where `TOTAL` may be `*` (RFC 9110, section 14.4). At least one byte.
fn parse_content_range(text: &str) -> Option<(Range<u64>, Option<u64>)> {
    let (unit, rest) = text.trim().split_once(' ')?;
    let (part, total) = rest.trim().split_once('/')?;
    let (first, last) = part.split_once('-')?;
    let (first, last): (u64, u64) = (first.parse().ok()?, last.parse().ok()?);
    let total = if total == "*" { None } else { Some(total.parse().ok()?) };
    (unit.eq_ignore_ascii_case("bytes") && first <= last && last < u64::MAX).then(|| (first..last + 1, total))
}

/// How long to wait by `Retry-After`, in seconds or as a date (RFC 9110, section 10.2.3); the date by the server's clock
/// (`Date`), without one by ours: `here`, in seconds since 1970.
pub(super) fn retry_after(text: &str, date: Option<&str>, here: u64) -> Option<Duration> {
    let text = text.trim();
    if let Ok(seconds) = text.parse() {
        return Some(Duration::from_secs(seconds));
    }
    let now = date.and_then(parse_date).unwrap_or(here);
    Some(Duration::from_secs(parse_date(text)?.saturating_sub(now)))
}

/// Seconds since 1970 of `Sun, 06 Nov 1994 08:49:37 GMT` (RFC 9110, section 5.6.7; the only form that is still made).
fn parse_date(text: &str) -> Option<u64> {
    const MONTHS: [&str; 12] = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    let mut words = text.trim().split(' ').skip(1);
    let (day, month, year) = (words.next()?, words.next()?, words.next()?);
    let (day, year): (u64, u64) = (day.parse().ok()?, year.parse().ok()?);
    let month = (1u64..).zip(MONTHS).find(|(_, name)| *name == month)?.0;
    let mut time = words.next()?.split(':').map(|part| part.parse::<u64>().ok().filter(|n| *n < 61));
    let (hour, minute, second) = (time.next()??, time.next()??, time.next()??);
    if !(1970..=9999).contains(&year) || !(1..=31).contains(&day) || hour > 23 {
        return None;
    }
    // Years that begin in March have the odd day at their end.
    let (year, month) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let days = year * 365 + year / 4 - year / 100 + year / 400 + (month * 153 + 2) / 5 + day - 1;
    // 1970-01-01 is day 719,468 of this count.
    Some(days.checked_sub(719_468)? * 86_400 + hour * 3_600 + minute * 60 + second)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts() {
        let asked = 100..200;
        let check = |text: &str, length| partial(Some(text), length, &asked, 1000);
        assert_eq!(check("bytes 100-199/1000", Some(100)), Ok(100));
        assert_eq!(check("Bytes 100-199/*", None), Ok(100));
        assert_eq!(check("bytes 100-149/1000", Some(50)), Ok(50), "less than was asked for");
        assert_eq!(check("bytes 100-199/999", Some(100)), Err(Wrong::Length { found: 999, expected: 1000 }));
        for (text, length) in [
            ("bytes 101-199/1000", Some(99)),
            ("bytes 0-199/1000", Some(200)),
            ("bytes 100-200/1000", Some(101)),
            ("bytes 100-199/1000", Some(99)),
            ("bytes 100-18446744073709551615/*", None),
            ("bytes 199-100/1000", None),
            ("bytes */1000", None),
            ("items 100-199/1000", None),
            ("bytes 100-199", None),
            ("", None),
        ] {
            assert!(matches!(check(text, length), Err(Wrong::Answer(_))), "{text}");
        }
        assert!(matches!(partial(None, Some(100), &asked, 1000), Err(Wrong::Answer(_))));
    }

    #[test]
    fn dates() {
        for (text, expected) in [
            ("Sun, 06 Nov 1994 08:49:37 GMT", Some(784_111_777)),
            ("Thu, 01 Jan 1970 00:00:00 GMT", Some(0)),
            ("Thu, 29 Feb 2024 12:00:00 GMT", Some(1_709_208_000)),
            ("Fri, 01 Mar 2024 00:00:00 GMT", Some(1_709_251_200)),
            ("Sunday, 06-Nov-94 08:49:37 GMT", None),
            ("Thu, 00 Jan 1970 00:00:00 GMT", None),
            ("Thu, 01 Jan 1969 00:00:00 GMT", None),
            ("Thu, 01 Foo 2024 00:00:00 GMT", None),
            ("Thu, 01 Jan 2024 99:00:00 GMT", None),
            ("120", None),
            ("", None),
        ] {
            assert_eq!(parse_date(text), expected, "{text}");
        }
    }
}
