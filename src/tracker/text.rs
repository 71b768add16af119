use crate::base;

/// Makes bytes from a stranger fit for one line of a terminal or log: [`base::printable`], with any white space as one
/// space, at most `max` characters (an ellipsis tells that more was there).
///
/// Bytes that are not UTF-8 become the replacement character. Only as much is read as is shown.
pub fn printable(bytes: &[u8], max: usize) -> String {
    // Four bytes hold any character; a little more, so that characters which fall out do not shorten the text.
    let window = max.saturating_mul(8).min(bytes.len());
    let text = base::printable(&String::from_utf8_lossy(&bytes[..window]));
    let mut shown = String::new();
    let mut kept = 0;
    let mut cut = window < bytes.len();
    let mut blank = false;
    for c in text.chars() {
        if c.is_whitespace() {
            blank = kept > 0;
            continue;
        }
        if kept + usize::from(blank) >= max {
            cut = true;
            break;
        }
        if blank {
            shown.push(' ');
            kept += 1;
            blank = false;
        }
        shown.push(c);
        kept += 1;
    }
    if cut {
        shown.push('…');
    }
    shown
}

/// What may be shown of a URL that could not be read: nothing that could be a passkey.
pub(crate) fn host_of(text: &str) -> String {
    let Some((scheme, rest)) = text.split_once("://") else { return "(not a URL)".to_owned() };
    let host = rest.split(['/', '?', '#']).next().unwrap_or("");
    let host = host.rsplit('@').next().unwrap_or("");
    printable(format!("{}://{host}", scheme.trim()).as_bytes(), 80)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn t4_one_clean_line() {
        for (bytes, max, shown) in [
            (b"unregistered torrent".as_slice(), 80, "unregistered torrent"),
            (b"\x1b[31mred\x1b[0m\r\nnext\tline ", 80, "[31mred[0m next line"),
            ("a\u{202e}b\u{200b}c\u{85}d".as_bytes(), 80, "abcd"),
            (b"\xff\xfe", 80, "\u{fffd}\u{fffd}"),
            (b"abcdef", 3, "abc…"),
            (b"abc", 3, "abc"),
            (b"  ", 3, ""),
            (b"", 0, ""),
        ] {
            assert_eq!(printable(bytes, max), shown);
        }
        assert_eq!(printable(&vec![b'x'; 1 << 20], 200).chars().count(), 201);
    }
}
