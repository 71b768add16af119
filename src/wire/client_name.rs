use crate::base::PeerId;

/// The longest name that is shown, in characters.
const MAX_NAME: usize = 48;

/// Two letters of an Azureus-style id and what they stand for (BEP 20, and ids seen in the field).
const AZUREUS: &[(&[u8; 2], &str)] = &[
    (b"7T", "aTorrent"),
    (b"AG", "Ares"),
    (b"A~", "Ares"),
    (b"AR", "Arctic"),
    (b"AX", "BitPump"),
    (b"AZ", "Vuze"),
    (b"BC", "BitComet"),
    (b"BF", "Bitflu"),
    (b"BG", "BTG"),
    (b"BI", "BiglyBT"),
    (b"BR", "BitRocket"),
    (b"BT", "BitTorrent"),
    (b"CD", "Enhanced CTorrent"),
    (b"CT", "CTorrent"),
    (b"DE", "Deluge"),
    (b"FD", "Free Download Manager"),
    (b"FL", "Flud"),
    (b"FW", "FrostWire"),
    (b"FX", "Freebox"),
    (b"GN", "gannet"),
    (b"GT", "GetTorrent"),
    (b"HL", "Halite"),
    (b"KG", "KGet"),
    (b"KT", "KTorrent"),
    (b"LP", "Lphant"),
    (b"LT", "libtorrent"),
    (b"lt", "rTorrent"),
    (b"LW", "LimeWire"),
    (b"MO", "MonoTorrent"),
    (b"MR", "Miro"),
    (b"NX", "Net Transport"),
    (b"PI", "PicoTorrent"),
    (b"qB", "qBittorrent"),
    (b"QD", "QQDownload"),
    (b"RN", "rain"),
    (b"rQ", "rqbit"),
    (b"SD", "Thunder"),
    (b"SZ", "Shareaza"),
    (b"TB", "Torch"),
    (b"TL", "Tribler"),
    (b"TR", "Transmission"),
    (b"TS", "Torrentstorm"),
    (b"TT", "TuoTu"),
    (b"TX", "Tixati"),
    (b"UE", "\u{b5}Torrent Embedded"),
    (b"UM", "\u{b5}Torrent Mac"),
    (b"UT", "\u{b5}Torrent"),
    (b"UW", "\u{b5}Torrent Web"),
    (b"WD", "WebTorrent Desktop"),
    (b"WW", "WebTorrent"),
    (b"XF", "Xfplay"),
    (b"XL", "Xunlei"),
    (b"ZT", "ZipTorrent"),
];

/// First letter of a Shadow-style id and what it stands for (BEP 20).
const SHADOW: &[(u8, &str)] = &[
    (b'A', "ABC"),
    (b'M', "BitTorrent"),
    (b'O', "Osprey Permaseed"),
    (b'Q', "BTQueue"),
    (b'R', "Tribler"),
    (b'S', "Shadow"),
    (b'T', "BitTornado"),
    (b'U', "UPnP NAT BitTorrent"),
];

/// What to call a peer's client: what it says itself (`v` of the extended handshake, BEP 10), else what its id says
/// (BEP 20). Holds nothing that could move a cursor or turn the direction of text, and is never empty.
pub fn client_name(id: &PeerId, v: Option<&str>) -> String {
    let said = v.map(|v| printable(v, MAX_NAME)).filter(|v| !v.is_empty());
    let name = said.or_else(|| azureus(&id.0)).or_else(|| other(&id.0)).or_else(|| shadow(&id.0));
    name.unwrap_or_else(|| "unknown".into())
}

/// `text` without what a terminal acts on or does not show, without white space at the ends, cut after `max` characters.
pub(super) fn printable(text: &str, max: usize) -> String {
    let shown: String = text.chars().filter(|c| is_printable(*c)).take(max).collect();
    shown.trim().into()
}

fn is_printable(c: char) -> bool {
    let invisible = matches!(c,
        // Soft hyphen, marks and overrides of direction, zero widths, separators of lines, byte order mark, tags.
        '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
        | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e0fff}');
    !c.is_control() && !invisible
}

/// `-XX1234-`: two letters, four digits of version.
fn azureus(id: &[u8; 20]) -> Option<String> {
    let [b'-', a, b, version @ .., b'-'] = id.first_chunk::<8>()? else { return None };
    if !version.iter().all(|byte| byte.is_ascii_graphic()) {
        return None;
    }
    let version = dotted(version);
    match AZUREUS.iter().find(|(code, _)| *code == &[*a, *b]) {
        Some((_, name)) => Some(format!("{name} {version}")),
        None if a.is_ascii_alphanumeric() && b.is_ascii_graphic() => {
            Some(format!("{}{} {version}", char::from(*a), char::from(*b)))
        }
        None => None,
    }
}

/// Digits (letters count on after 9) with dots between, without zeros at the end beyond the second.
fn dotted(version: &[u8]) -> String {
    let significant = version.iter().rposition(|byte| *byte != b'0').map_or(0, |last| last + 1).max(2);
    let numbers = version.iter().take(significant).map(|byte| match char::from(*byte).to_digit(36) {
        Some(number) => number.to_string(),
        None => char::from(*byte).to_string(),
    });
    numbers.collect::<Vec<_>>().join(".")
}

/// Styles of single clients.
fn other(id: &[u8; 20]) -> Option<String> {
    let starts = |with: &[u8]| id.starts_with(with);
    let name = match id {
        _ if starts(b"-ML") => "MLDonkey",
        _ if starts(b"-BOW") => "Bits on Wheels",
        _ if starts(b"-FG") => "FlashGet",
        _ if starts(b"-G3") => "G3 Torrent",
        _ if starts(b"XBT") => "XBT Client",
        _ if starts(b"OP") && id[2..6].iter().all(u8::is_ascii_digit) => "Opera",
        _ if starts(b"exbc") && &id[6..10] == b"LORD" => "BitLord",
        _ if starts(b"exbc") || starts(b"FUTB") => "BitComet",
        _ if starts(b"A2-") => "aria2",
        _ if starts(b"\0\x02BS") || starts(b"\0\x03BS") => "BitSpirit",
        _ if &id[2..4] == b"RS" && id[0] < 32 && id[1] < 32 => "Rufus",
        _ => return None,
    };
    Some(name.into())
}

/// A letter, up to five characters of version filled with dashes, and a dash at least (`S58B-----`, `M7-9-2--`).
fn shadow(id: &[u8; 20]) -> Option<String> {
    let (letter, rest) = id.split_first()?;
    let (_, name) = SHADOW.iter().find(|(code, _)| code == letter)?;
    let field = rest.first_chunk::<7>()?;
    let allowed = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-');
    if !field.iter().all(allowed) || field[0] == b'-' || !field.contains(&b'-') {
        return None;
    }
    let version: &[u8] = if *letter == b'M' { field } else { &field[..5] };
    let text = String::from_utf8_lossy(version);
    let parts: Vec<String> = if *letter == b'M' {
        text.split('-').filter(|part| !part.is_empty()).map(String::from).collect()
    } else {
        let numbers = text.chars().take_while(|c| *c != '-');
        numbers.map(|c| c.to_digit(36).map_or_else(|| c.to_string(), |n| n.to_string())).collect()
    };
    Some(format!("{name} {}", parts.join(".")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn name(id: &[u8]) -> String {
        let mut bytes = [b'x'; 20];
        bytes[..id.len()].copy_from_slice(id);
        client_name(&PeerId(bytes), None)
    }

    #[test]
    fn known_clients() {
        let table: &[(&[u8], &str)] = &[
            (b"-qB4630-", "qBittorrent 4.6.3"),
            (b"-TR4050-", "Transmission 4.0.5"),
            (b"-GN0100-", "gannet 0.1"),
            (b"-lt0D80-", "rTorrent 0.13.8"),
            (b"-LT2000-", "libtorrent 2.0"),
            (b"-UT360W-", "\u{b5}Torrent 3.6.0.32"),
            (b"-KT5200-", "KTorrent 5.2"),
            (b"-zz1234-", "zz 1.2.3.4"),
            (b"M7-10-2-", "BitTorrent 7.10.2"),
            (b"S58B-----", "Shadow 5.8.11"),
            (b"T03I-----", "BitTornado 0.3.18"),
            (b"-ML3.1.0-", "MLDonkey"),
            (b"XBT054d-", "XBT Client"),
            (b"A2-1-36-0-", "aria2"),
            (b"exbc\0\x38LORD", "BitLord"),
            (b"\0\x03BS", "BitSpirit"),
            (b"OP1234", "Opera"),
            (b"", "unknown"),
            (b"-\x1b[31m", "unknown"),
            (b"-T\x1b4050-", "unknown"),
            (&[0; 20], "unknown"),
        ];
        for (id, expected) in table {
            assert_eq!(name(id), *expected, "{}", id.escape_ascii());
        }
    }

    #[test]
    fn own_words_come_first_and_are_cleaned() {
        let id = PeerId(*b"-qB4630-xxxxxxxxxxxx");
        assert_eq!(client_name(&id, Some("qBittorrent/4.6.3")), "qBittorrent/4.6.3");
        assert_eq!(client_name(&id, Some("\u{1b}]0;x\u{7}\u{202e}\u{200b}a\u{9b}")), "]0;xa");
        assert_eq!(client_name(&id, Some(" \u{1b}\n ")), "qBittorrent 4.6.3");
        assert_eq!(client_name(&id, Some(&"x".repeat(9_999))).len(), MAX_NAME);
    }

    proptest! {
        #[test]
        fn always_printable(id: [u8; 20], v: Option<String>, styled in 0usize..4) {
            let mut id = id;
            // Bytes drawn evenly rarely look like any style.
            for (slot, byte) in id.iter_mut().zip([b"-TR".as_slice(), b"M", b"S5", b""][styled]) {
                *slot = *byte;
            }
            let name = client_name(&PeerId(id), v.as_deref());
            prop_assert!(!name.is_empty() && name.chars().all(is_printable));
        }
    }
}
