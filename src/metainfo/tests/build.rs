//! What we build is what others build from the same data, and what we parse.

use proptest::prelude::*;

use super::{PLAIN, data, finish, stored, verify};
use crate::metainfo::{Attributes, Builder, Format, Metainfo, MetainfoError, SourceFile};

const KIB16: u32 = 16_384;

fn split(path: &str) -> Vec<&str> {
    path.split('/').collect()
}

/// The data of the `many` torrents, out of order.
fn many() -> (Builder, Vec<Vec<u8>>) {
    let files = [
        ("z empty", 0, 16),
        ("sub/dir2/last.bin", 40_001, 15),
        ("a.txt", 20_000, 11),
        ("sub/dir/c.bin", 70_000, 14),
        ("empty", 0, 12),
        ("B.txt", 3, 10),
        ("sub/d-e.bin", 16_384, 13),
    ];
    let mut sources: Vec<SourceFile> = files.iter().map(|(p, l, _)| SourceFile::new(split(p), *l)).collect();
    sources[5].executable = true;
    (Builder::folder("many", sources), files.iter().map(|(_, length, seed)| data(*seed, *length)).collect())
}

fn single() -> (Builder, Vec<Vec<u8>>) {
    (Builder::file("one.bin", 50_001), vec![data(1, 50_001)])
}

fn names() -> (Builder, Vec<Vec<u8>>) {
    let files = [("ünter ordner/naïve.txt", 1_000, 12), ("etc.", 30, 11), ("aux.c", 500, 10)];
    let sources = files.iter().map(|(p, l, _)| SourceFile::new(split(p), *l)).collect();
    (Builder::folder("Grüße – 日本", sources), files.iter().map(|(_, length, seed)| data(*seed, *length)).collect())
}

/// Same data, same options: the same info-hash, so the same info dictionary to the last byte.
#[test]
fn as_others_build_it() {
    type Case = (&'static str, Format, u32, fn() -> (Builder, Vec<Vec<u8>>));
    let table: &[Case] = &[
        ("lt-v1-single", Format::V1, KIB16, single),
        ("lt-v2-single", Format::V2, KIB16, single),
        ("lt-v2-64k-single", Format::V2, 4 * KIB16, single),
        ("lt-hybrid-single", Format::Hybrid, KIB16, single),
        ("lt-hybrid-notail-single", Format::Hybrid, KIB16, single),
        ("mktorrent-single", Format::V1, 2 * KIB16, single),
        ("lt-v2-many", Format::V2, KIB16, many),
        ("lt-v2-64k-many", Format::V2, 4 * KIB16, many),
        ("lt-hybrid-notail-many", Format::Hybrid, KIB16, many),
        ("lt-hybrid-names", Format::Hybrid, KIB16, names),
    ];
    for (name, format, piece_length, make) in table {
        let (mut builder, contents) = make();
        builder.format = *format;
        builder.piece_length = Some(*piece_length);
        let ours = Metainfo::parse(&finish(&builder.plan().unwrap(), &contents)).unwrap();
        let theirs = Metainfo::parse(&stored(name)).unwrap();
        assert_eq!(ours.info.raw().escape_ascii().to_string(), theirs.info.raw().escape_ascii().to_string(), "{name}");
        assert_eq!(ours.info.info_hash(), theirs.info.info_hash(), "{name}");
    }
    let (mut builder, contents) = single();
    (builder.format, builder.piece_length, builder.private) = (Format::V1, Some(4 * KIB16), true);
    let ours = Metainfo::parse(&finish(&builder.plan().unwrap(), &contents)).unwrap();
    assert_eq!(ours.info.info_hash(), Metainfo::parse(&stored("transmission-single")).unwrap().info.info_hash());
}

/// Stored bytes, loaded into libtorrent by hand: they shall not change unnoticed.
#[test]
fn stored_bytes_do_not_change() {
    for (format, name) in [(Format::V1, "v1"), (Format::V2, "v2"), (Format::Hybrid, "hybrid")] {
        let (mut builder, contents) = many();
        builder.format = format;
        builder.announce = vec![
            vec!["udp://a.example:1/announce".to_owned(), "http://b.example/announce".to_owned()],
            vec![],
            vec!["http://c.example/announce".to_owned()],
        ];
        builder.web_seeds = vec!["http://w.example/".to_owned()];
        builder.nodes = vec![("router.example".to_owned(), 6881)];
        builder.private = true;
        builder.source = Some("SRC".to_owned());
        builder.comment = Some("made for tests".to_owned());
        builder.created_by = Some("gannet".to_owned());
        builder.creation_date = Some(1_700_000_000);
        let bytes = finish(&builder.plan().unwrap(), &contents);
        assert!(bytes == stored(&format!("gannet-{name}-many")), "gannet-{name}-many differs");
        let torrent = Metainfo::parse(&bytes).unwrap();
        assert_eq!(torrent.announce.len(), 2);
        assert_eq!(torrent.nodes.len(), 1);
        assert_eq!((torrent.info.is_private(), torrent.info.source()), (true, Some("SRC")));
        assert_eq!(torrent.creation_date, Some(1_700_000_000));
        assert_eq!(torrent.info.files()[0].attr, Attributes { executable: true, ..PLAIN });
    }
}

#[test]
fn refused() {
    let plan = |files: &[(&str, u64)]| {
        let files = files.iter().map(|(p, l)| SourceFile::new(split(p), *l)).collect();
        Builder::folder("x", files).plan().map(|_| ())
    };
    assert_eq!(plan(&[]), Err(MetainfoError::NoData));
    assert_eq!(plan(&[("a", 0)]), Err(MetainfoError::NoData));
    assert!(matches!(plan(&[("a", 1), ("a", 2)]), Err(MetainfoError::FileIsFolder(_))));
    assert!(matches!(plan(&[("a/b", 1), ("a", 2), ("a-", 2)]), Err(MetainfoError::FileIsFolder(_))));
    for bad in ["..", "a/../b", "a//b", "", "."] {
        assert!(plan(&[(bad, 1)]).is_err(), "{bad}");
    }
    assert_eq!(plan(&[("a", 1 << 47), ("b", 1 << 47)]), Err(MetainfoError::FileLength));
    let mut builder = Builder::file("x", 100);
    builder.piece_length = Some(24_576);
    assert!(builder.clone().plan().is_err());
    builder.piece_length = Some(KIB16);
    let plan = builder.plan().unwrap();
    assert!(plan.finish(&[], &[]).is_err() && plan.finish(&[[0; 20]], &[]).is_err());
}

#[test]
fn piece_lengths() {
    let length = |total| Builder::file("x", total).plan().unwrap().piece_length();
    for (total, expected) in [
        (1, KIB16),
        (2_000 * u64::from(KIB16), KIB16),
        (2_000 * u64::from(KIB16) + 1, 2 * KIB16),
        (1 << 30, 1 << 20),
        (5 << 30, 4 << 20),
        (1 << 40, 16 << 20),
        ((1 << 48) - 1, 128 << 20),
    ] {
        assert_eq!(length(total), expected, "{total}");
    }
}

fn some_files() -> impl Strategy<Value = Vec<(String, u64)>> {
    let length = prop_oneof![Just(0), Just(16_384), Just(32_768), 1u64..100_000];
    prop::collection::btree_map("[ab](/[abc]){0,2}", length, 1..8).prop_filter_map("collision or no data", |files| {
        let paths: Vec<&String> = files.keys().collect();
        let collides = paths.iter().any(|a| paths.iter().any(|b| b.starts_with(&format!("{a}/"))));
        let data = files.values().any(|l| *l > 0);
        (!collides && data).then(|| files.into_iter().collect())
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(100))]

    /// Build and parse: the same files, and every piece fits the data at the place where it is said to be.
    #[test]
    fn there_and_back(
        files in some_files(),
        format in prop_oneof![Just(Format::V1), Just(Format::V2), Just(Format::Hybrid)],
        log in 14u32..17,
        reverse: bool,
    ) {
        let mut files = files;
        files.sort_by(|a, b| split(&a.0).cmp(&split(&b.0)));
        let sorted = files.clone();
        if reverse {
            files.reverse();
        }
        let sources = files.iter().map(|(p, l)| SourceFile::new(split(p), *l)).collect();
        let contents: Vec<Vec<u8>> = files.iter().map(|(p, l)| data(p.len(), *l)).collect();
        let mut builder = Builder::folder("name", sources);
        builder.format = format;
        builder.piece_length = Some(1 << log);
        let plan = builder.plan().unwrap();
        let bytes = finish(&plan, &contents);
        let torrent = Metainfo::parse(&bytes).unwrap();
        let info = &torrent.info;
        prop_assert_eq!(info.geometry().piece_count(), plan.piece_count());
        let lone = format == Format::V2 && files.len() == 1 && !files[0].0.contains('/');
        prop_assert_eq!(info.is_single_file(), lone);
        let written: Vec<_> = info.files().iter().filter(|f| !f.attr.pad).collect();
        let seen: Vec<_> = written.iter().map(|f| (f.path.as_str().to_owned(), f.length)).collect();
        prop_assert_eq!(&seen, &sorted);
        prop_assert_eq!(info.total_size(), plan.total_size());
        let sorted: Vec<Vec<u8>> = sorted.iter().map(|(p, l)| data(p.len(), *l)).collect();
        verify(&torrent, &sorted);
    }
}
