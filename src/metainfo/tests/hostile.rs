//! What strangers send: never a panic, never without bounds, and an error that says what is wrong.

use proptest::prelude::*;

use super::stored;
use crate::base::MAX_PIECE_LENGTH;
use crate::base::bencode::BencodeError;
use crate::metainfo::limits::{MAX_COMPONENT_LEN, MAX_TORRENT_LEN, MAX_URLS};
use crate::metainfo::{Info, Metainfo, MetainfoError};

fn s(bytes: impl AsRef<[u8]>) -> Vec<u8> {
    let bytes = bytes.as_ref();
    [bytes.len().to_string().as_bytes(), b":", bytes].concat()
}

/// A v1 info dictionary of `files` (raw), with `hashes` pieces of `piece_length`.
fn v1(files: &[u8], piece_length: &str, hashes: usize) -> Vec<u8> {
    let pieces = s(vec![7; hashes * 20]);
    [b"d", files, b"4:name1:n12:piece lengthi", piece_length.as_bytes(), b"e6:pieces", &pieces, b"e"].concat()
}

/// A file of `files` with raw extra entries in front.
fn entry(attr: &str, length: &str, path: &[&[u8]]) -> Vec<u8> {
    let path: Vec<u8> = path.iter().flat_map(s).collect();
    [b"d4:attr", &*s(attr), b"6:lengthi", length.as_bytes(), b"e4:pathl", &path, b"ee"].concat()
}

fn list(entries: &[Vec<u8>]) -> Vec<u8> {
    [b"5:filesl", &*entries.concat(), b"e"].concat()
}

fn parse(info: &[u8]) -> Result<Info, MetainfoError> {
    Info::parse(info, None)
}

fn error(info: &[u8]) -> MetainfoError {
    match parse(info) {
        Err(error) => error,
        Ok(_) => panic!("accepted: {}", info.escape_ascii()),
    }
}

/// A v2 info dictionary with this tree.
fn v2(tree: &[u8], piece_length: &str, extra: &[u8]) -> Vec<u8> {
    let front = [b"d9:file treed", tree, b"e", extra, b"12:meta versioni2e4:name1:n12:piece lengthi"].concat();
    [&front, piece_length.as_bytes(), b"ee"].concat()
}

fn leaf(length: &str, root: &[u8]) -> Vec<u8> {
    [b"d0:d6:lengthi", length.as_bytes(), b"e11:pieces root", &*s(root), b"ee"].concat()
}

#[test]
fn m1_truncated_anywhere() {
    for name in ["lt-hybrid-many", "mktorrent-many", "lt-v2-single"] {
        let whole = stored(name);
        for end in 0..whole.len() {
            assert!(Metainfo::parse(&whole[..end]).is_err(), "{name} {end}");
        }
        assert!(Metainfo::parse(&[&whole, &b"\r\n"[..]].concat()).is_ok(), "a line break behind it");
        assert!(Metainfo::parse(&[&whole, &b"x"[..]].concat()).is_err());
    }
    assert_eq!(Metainfo::parse(b"").unwrap_err(), MetainfoError::Bencode(BencodeError::Truncated(0)));
}

#[test]
fn m2_m3_too_large_too_deep_too_many() {
    assert!(matches!(Metainfo::parse(&vec![b'd'; MAX_TORRENT_LEN + 1]), Err(MetainfoError::TooLarge(_))));
    for nest in [b"l".repeat(200_000), b"d1:a".repeat(200_000), b"l".repeat(20_000)] {
        let torrent = [b"d1:x", &*nest].concat();
        assert_eq!(Metainfo::parse(&torrent).unwrap_err(), MetainfoError::Bencode(BencodeError::TooDeep(100)));
        assert!(parse(&torrent).is_err());
    }
    let many = [b"d1:xl", &*b"0:".repeat(3_000_001), b"ee"].concat();
    assert!(matches!(Metainfo::parse(&many), Err(MetainfoError::Bencode(BencodeError::TooManyTokens(_)))));
}

#[test]
fn m5_piece_lengths() {
    let file = b"6:lengthi3e";
    for length in ["0", "-1", "536854529", "536870912", "2147483648", "4294983680"] {
        assert_eq!(error(&v1(file, length, 1)), MetainfoError::PieceLength(length.parse().unwrap()));
    }
    assert_eq!(error(&v1(file, "9223372036854775808", 1)), MetainfoError::Malformed("piece length"));
    assert_eq!(parse(&v1(file, "1", 3)).unwrap().geometry().piece_count(), 3);
    assert!(parse(&v1(file, &MAX_PIECE_LENGTH.to_string(), 1)).is_ok());
    for length in [1, 8_192, 24_576, 49_152] {
        let tree = [s("f"), leaf("3", &[1; 32])].concat();
        assert_eq!(error(&v2(&tree, &length.to_string(), b"")), MetainfoError::PieceLengthV2(length));
    }
}

#[test]
fn m6_pieces() {
    let with = |pieces: &[u8]| [b"d6:lengthi3e4:name1:n12:piece lengthi1e", pieces, b"e"].concat();
    assert_eq!(error(&with(b"")), MetainfoError::Missing("pieces"));
    assert_eq!(error(&with(b"6:piecesle")), MetainfoError::Malformed("pieces"));
    assert_eq!(error(&with(b"6:piecesi5e")), MetainfoError::Malformed("pieces"));
    for len in [0, 19, 21, 40, 59, 61, 80] {
        let pieces = [b"6:pieces", &*s(vec![0; len])].concat();
        assert_eq!(error(&with(&pieces)), MetainfoError::PiecesLength { actual: len, expected: 60 });
    }
}

#[test]
fn m7_lengths() {
    for length in ["-1", "281474976710656", "9223372036854775807"] {
        assert_eq!(error(&v1(format!("6:lengthi{length}e").as_bytes(), "1", 1)), MetainfoError::FileLength);
        assert_eq!(error(&v1(&list(&[entry("", length, &[b"a"])]), "1", 1)), MetainfoError::FileLength);
    }
    let half = "281474976710655";
    let two = list(&[entry("", half, &[b"a"]), entry("", half, &[b"b"])]);
    assert_eq!(error(&v1(&two, "536854528", 1)), MetainfoError::FileLength);
    assert_eq!(error(&v1(b"6:lengthi0e", "1", 0)), MetainfoError::NoData);
    assert_eq!(error(&v1(&list(&[]), "1", 0)), MetainfoError::NoData);
    assert_eq!(error(&v1(&list(&[entry("p", "5", &[b"a"])]), "5", 1)), MetainfoError::NoData);
    // 2^21 + 1 pieces.
    assert!(matches!(error(&v1(b"6:lengthi2097153e", "1", 1)), MetainfoError::Geometry(_)));
    // An empty file among others is a file.
    let info = parse(&v1(&list(&[entry("", "0", &[b"a"]), entry("", "5", &[b"b"])]), "5", 1)).unwrap();
    assert_eq!((info.files().len(), info.total_size()), (2, 5));
}

#[test]
fn m15_too_many_and_senseless_addresses() {
    let info = v1(b"6:lengthi3e", "3", 1);
    let many: Vec<u8> = (0..10_000).flat_map(|n| s(format!("http://h{n}/"))).collect();
    let torrent = |key: &[u8], value: &[u8], web: &[u8]| {
        let entries = [b"d", &*s(key), value, b"4:info", &info, b"8:url-list", web, b"e"];
        Metainfo::parse(&entries.concat()).unwrap()
    };
    let list = [b"l", &*many, b"e"].concat();
    let tiers = [b"l", &*list, b"e"].concat();
    let torrent_of_many = torrent(b"announce-list", &tiers, &list);
    assert_eq!(torrent_of_many.announce.iter().flatten().count(), MAX_URLS);
    assert_eq!(torrent_of_many.web_seeds.len(), MAX_URLS);
    for senseless in [&b"0:"[..], b"i5e", b"de", b"le", b"lli5eee", b"11:file:///etc", b"l11:file:///etce"] {
        let torrent = torrent(b"announce-list", senseless, senseless);
        assert_eq!((torrent.announce.len(), torrent.web_seeds.len()), (0, 0), "{}", senseless.escape_ascii());
    }
}

#[test]
fn required_entries() {
    let whole = v1(b"6:lengthi3e", "3", 1);
    let without = |entry: &str| String::from_utf8(whole.clone()).unwrap().replacen(entry, "", 1).into_bytes();
    assert_eq!(error(&without("6:lengthi3e")), MetainfoError::Missing("files"));
    assert_eq!(error(&without("4:name1:n")), MetainfoError::Missing("name"));
    assert_eq!(error(&without("12:piece lengthi3e")), MetainfoError::Missing("piece length"));
    assert_eq!(Metainfo::parse(b"d8:announce1:xe").unwrap_err(), MetainfoError::Missing("info"));
    assert_eq!(Metainfo::parse(b"d4:infoi5ee").unwrap_err(), MetainfoError::Malformed("info"));
    assert_eq!(error(&v1(b"5:filesd1:ai5ee", "1", 1)), MetainfoError::Malformed("files"));
    assert_eq!(error(&v1(&list(&[b"d6:lengthi5ee".to_vec()]), "5", 1)), MetainfoError::NoName(0));
    assert_eq!(error(&v1(&list(&[entry("", "5", &[])]), "5", 1)), MetainfoError::NoName(0));
    // A pad file needs no name, a symlink no length, and a key may be of any bytes.
    let files = [entry("", "3", &[b"a"]), b"d4:attr1:p6:lengthi2ee".to_vec(), b"d4:attr1:l4:pathl1:lee".to_vec()];
    let info = parse(&v1(&list(&files), "5", 1)).unwrap();
    assert_eq!(info.files()[1].path.as_str(), ".pad/2");
    assert!(info.files()[2].attr.symlink);
    assert!(parse(&v1(b"6:lengthi3e2:\xff\xfei5e", "3", 1)).is_ok());
    assert!(parse(&v1(&list(&[b"d6:lengthi3e4:pathl1:ae1:\xffi5ee".to_vec()]), "3", 1)).is_ok());
}

#[test]
fn m8_paths_stay_below_their_folder() {
    let info = parse(
        &[
            b"d".as_slice(),
            &list(&[
                entry("", "1", &[b"..", b"..", b"etc", b"passwd"]),
                entry("", "1", &[b"/etc/passwd"]),
                entry("", "1", &[b"x", b""]),
                entry("", "1", &[b"a\\..\\b", b"\xff"]),
                entry("", "1", &[b"Same"]),
                entry("", "1", &[b"sAME"]),
            ]),
            b"4:name9:../../x\0y10:name.utf-85:n/../12:piece lengthi6e6:pieces20:aaaaaaaaaaaaaaaaaaaae",
        ]
        .concat(),
    )
    .unwrap();
    assert_eq!(info.name(), "n_.._");
    let paths: Vec<&str> = info.files().iter().map(|f| f.path.as_str()).collect();
    assert_eq!(paths, ["_/_/etc/passwd", "_etc_passwd", "x/_", "a_.._b/\u{fffd}", "Same", "sAME.1"]);
    assert_eq!(info.files()[1].raw_components().collect::<Vec<_>>(), [b"/etc/passwd"]);
    assert!(info.files()[..3].iter().all(|f| f.original_path().is_none()));
}

#[test]
fn m14_unsorted_keys_in_v1_but_not_in_v2() {
    let unsorted = b"d4:name1:n6:lengthi3e6:pieces20:aaaaaaaaaaaaaaaaaaaa12:piece lengthi3ee";
    let info = parse(unsorted).unwrap();
    assert_eq!(info.info_hash().to_string(), {
        use sha1::{Digest, Sha1};
        Sha1::digest(unsorted).iter().map(|b| format!("{b:02x}")).collect::<String>()
    });
    let duplicate = b"d6:lengthi3e6:lengthi4e4:name1:n12:piece lengthi3e6:pieces20:aaaaaaaaaaaaaaaaaaaae";
    assert!(matches!(error(duplicate), MetainfoError::Bencode(BencodeError::Duplicate(_))));

    let tree = [s("b"), leaf("3", &[1; 32]), s("a"), leaf("3", &[1; 32])].concat();
    assert_eq!(error(&v2(&tree, "16384", b"")), MetainfoError::NotCanonical);
    assert_eq!(error(b"d12:meta versioni3e4:name1:ne"), MetainfoError::UnsupportedVersion(3));
}

#[test]
fn m13_file_trees() {
    let name = s("f");
    let good = v2(&[name.clone(), leaf("3", &[1; 32])].concat(), "16384", b"");
    assert!(parse(&good).unwrap().is_single_file());
    for root in [vec![1; 31], vec![1; 33], vec![0; 32], vec![]] {
        let tree = [name.clone(), leaf("3", &root)].concat();
        assert_eq!(error(&v2(&tree, "16384", b"")), MetainfoError::PiecesRoot("f".to_owned()));
    }
    let no_root = [name.as_slice(), b"d0:d6:lengthi3eee"].concat();
    assert_eq!(error(&v2(&no_root, "16384", b"")), MetainfoError::PiecesRoot("f".to_owned()));
    // The root is a file; a file with siblings; a folder without a file.
    assert_eq!(error(&v2(b"0:d6:lengthi3ee", "16384", b"")), MetainfoError::FileTree);
    let siblings = [name.as_slice(), b"d0:d6:lengthi0ee1:xdee"].concat();
    assert_eq!(error(&v2(&siblings, "16384", b"")), MetainfoError::FileTree);
    assert_eq!(error(&v2(b"1:xde", "16384", b"")), MetainfoError::NoData);
    assert_eq!(error(&v2(b"1:xi5e", "16384", b"")), MetainfoError::Malformed("file tree"));
    let deep = [b"1:dd".repeat(65), b"0:d6:lengthi0ee".to_vec(), b"e".repeat(65)].concat();
    assert_eq!(error(&v2(&deep, "16384", b"")), MetainfoError::PathTooDeep);
    // Halves of a hybrid.
    let tree = [name.as_slice(), &leaf("3", &[1; 32])].concat();
    let v1_files = list(&[entry("", "3", &[b"f"])]);
    assert_eq!(error(&v2(&tree, "16384", &v1_files)), MetainfoError::Missing("pieces"));
    let hybrid = |files: &[u8]| {
        let mut info = v2(&tree, "16384", files);
        info.pop();
        [info.as_slice(), b"6:pieces20:aaaaaaaaaaaaaaaaaaaae"].concat()
    };
    assert!(parse(&hybrid(&list(&[entry("", "3", &[b"f"])]))).is_ok());
    assert!(parse(&hybrid(&list(&[entry("", "3", &[b"f"]), entry("p", "16381", &[b"x"])]))).is_ok());
    for files in [
        list(&[entry("", "4", &[b"f"])]),
        list(&[entry("", "3", &[b"g"])]),
        list(&[entry("", "3", &[b"f"]), entry("", "0", &[b"g"])]),
        list(&[entry("p", "3", &[b"f"])]),
        list(&[entry("p", "1", &[b"x"]), entry("", "3", &[b"f"])]),
        b"6:lengthi4e".to_vec(),
        // The name is `n`, the file of the tree is `f`.
        b"6:lengthi3e".to_vec(),
    ] {
        assert!(matches!(error(&hybrid(&files)), MetainfoError::HybridMismatch(_) | MetainfoError::NoData));
    }
}

#[test]
fn m13_piece_layers() {
    let whole = stored("lt-v2-single");
    let key: &[u8] = b"12:piece layers";
    let at = whole.windows(key.len()).position(|w| w == key).unwrap();
    let with = |layers: &[u8]| Metainfo::parse(&[&whole[..at], layers, b"e"].concat());
    let value = &whole[at + key.len()..whole.len() - 1];
    assert!(with(&[key, value].concat()).is_ok());
    assert!(matches!(with(b""), Err(MetainfoError::LayerMissing(_))));
    assert!(matches!(with(b"12:piece layersde"), Err(MetainfoError::LayerMissing(_))));
    assert_eq!(with(b"12:piece layersle").unwrap_err(), MetainfoError::Malformed("piece layers"));
    let text = value.iter().position(|b| *b == b':').unwrap();
    let root = &value[text + 1..text + 33];
    for hashes in [vec![], vec![1; 32], vec![1; 127], vec![1; 128], vec![1; 160]] {
        let layers = [key, b"d", &*s(root), &*s(hashes), b"e"].concat();
        assert!(matches!(with(&layers), Err(MetainfoError::LayerMismatch(_))));
    }
    let no_text = [key, b"d", &*s(root), b"i5ee"].concat();
    assert_eq!(with(&no_text).unwrap_err(), MetainfoError::Malformed("piece layers"));
}

/// A tree spells long folders once for many files: what it stands for is bounded.
#[test]
fn a_small_tree_of_long_paths() {
    let folders: Vec<u8> = (0..16).flat_map(|_| [s([b'x'; 240]), b"d".to_vec()].concat()).collect();
    let files: Vec<u8> =
        (0..60_000).flat_map(|n| [s(format!("{n:05}")), b"d0:d6:lengthi0eee".to_vec()].concat()).collect();
    let tree = [folders, files, b"e".repeat(16)].concat();
    assert!(tree.len() < 2_000_000);
    assert_eq!(error(&v2(&tree, "16384", b"")), MetainfoError::PathTooLong);
}

#[test]
fn a_hundred_thousand_files() {
    let files: Vec<Vec<u8>> = (0..100_000)
        .map(|n| entry("", "10", &[b"folder", format!("sub {}", n / 100).as_bytes(), format!("{n}.jpg").as_bytes()]))
        .collect();
    let info = parse(&v1(&list(&files), "16384", 62)).unwrap();
    assert_eq!((info.files().len(), info.total_size()), (100_000, 1_000_000));
    assert_eq!(info.files()[99_999].path.as_str(), "folder/sub 999/99999.jpg");

    let files: Vec<u8> = (0..100_000).flat_map(|n| [s(format!("{n:06}")), leaf("10", &[1; 32])].concat()).collect();
    let info = parse(&v2(&[s("folder"), b"d".to_vec(), files, b"e".to_vec()].concat(), "16384", b"")).unwrap();
    assert_eq!((info.files().len(), info.geometry().piece_count()), (100_000, 100_000));
}

proptest! {
    #[test]
    fn any_bytes(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = Metainfo::parse(&bytes);
        let _ = Info::parse(&bytes, Some(&bytes));
    }

    /// Good torrents with a few bytes changed: never a panic, and what is still accepted keeps the rules.
    #[test]
    fn mutated(
        name in prop::sample::select(vec!["lt-hybrid-many", "lt-v2-many", "mktorrent-many", "lt-v1-names"]),
        changes in prop::collection::vec((any::<prop::sample::Index>(), prop::sample::select(b"0123456789:deil/.\\\xff".to_vec())), 1..4),
    ) {
        let mut bytes = stored(name);
        for (at, byte) in changes {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        if let Ok(torrent) = Metainfo::parse(&bytes) {
            let info = &torrent.info;
            for file in info.files() {
                let path = file.path.to_path_buf();
                prop_assert!(path.components().all(|c| matches!(c, std::path::Component::Normal(_))));
                prop_assert!(file.path.components().all(|c| c.len() <= MAX_COMPONENT_LEN));
            }
            prop_assert!(info.geometry().pieces().all(|p| info.piece_hash(p).is_some()));
        }
    }
}
