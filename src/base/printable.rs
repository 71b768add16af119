use std::fmt::{self, Write};

/// Text from a stranger, shown without anything that could steer a terminal or deceive the eye.
///
/// Control characters (C0, DEL, C1), controls of the direction of writing, and characters without width are left out;
/// a line break or tab becomes a space, so that words stay apart.
#[derive(Clone, Copy, Debug)]
pub struct Printable<'a>(pub &'a str);

impl fmt::Display for Printable<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.chars().filter_map(shown).try_for_each(|c| f.write_char(c))
    }
}

/// `text` as [`Printable`] shows it.
pub fn printable(text: &str) -> String {
    text.chars().filter_map(shown).collect()
}

fn shown(c: char) -> Option<char> {
    match c {
        '\t' | '\n' | '\r' | '\u{2028}' | '\u{2029}' => Some(' '),
        c if c.is_control() || is_bidi_control(c) || is_zero_width(c) => None,
        c => Some(c),
    }
}

/// Marks, embeddings, overrides and isolates of the Unicode bidirectional algorithm: they reorder what follows.
pub(crate) fn is_bidi_control(c: char) -> bool {
    matches!(c, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// Characters that take no place on the screen and so make two names look alike: joiners, fillers, tags.
pub(crate) fn is_zero_width(c: char) -> bool {
    matches!(
        c,
        '\u{ad}'
            | '\u{34f}'
            | '\u{115f}'
            | '\u{1160}'
            | '\u{180e}'
            | '\u{200b}'..='\u{200d}'
            | '\u{2060}'..='\u{2065}'
            | '\u{206a}'..='\u{206f}'
            | '\u{3164}'
            | '\u{feff}'
            | '\u{ffa0}'
            | '\u{fff9}'..='\u{fffb}'
            | '\u{e0000}'..='\u{e007f}'
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steering_characters_vanish() {
        let table = [
            ("plain – text, 日本語 ✓", "plain – text, 日本語 ✓"),
            ("\x1b[31mred\x1b[0m", "[31mred[0m"),
            ("\x1b]52;c;aGk=\x07", "]52;c;aGk="),
            ("a\u{9b}2Jb", "a2Jb"),
            ("two\r\nlines\tand", "two  lines and"),
            ("exe\u{202e}gpj.scr", "exegpj.scr"),
            ("a\u{200b}b\u{feff}c\u{200d}d", "abcd"),
            ("\0\x7f\u{85}", ""),
        ];
        for (text, expected) in table {
            assert_eq!(printable(text), expected);
            assert_eq!(Printable(text).to_string(), expected);
        }
    }

    #[test]
    fn no_control_byte_is_left() {
        let every: String = ('\0'..=char::MAX).collect();
        assert!(printable(&every).chars().all(|c| !c.is_control()));
    }
}
