//! Block lists in all formats: the same filter whether lines come in this or in the other order, packed or not.

use std::io::Write;
use std::net::IpAddr;

use flate2::Compression;
use flate2::write::GzEncoder;
use gannet::session::read_ip_filter;
use gannet::swarm::ip_filter::{IpFilter, IpFilterBuilder, Line};

use super::tape::Tape;

pub fn run(data: &[u8]) {
    let mut tape = Tape(data);
    let (flags, text) = (tape.byte(), tape.0);
    let lines: Vec<&[u8]> = text.split(|byte| *byte == b'\n').collect();
    let (filter, ranges) = build(lines.iter());
    assert!(filter.len() <= ranges);
    assert_eq!(filter.is_empty(), ranges == 0);
    assert_eq!(build(lines.iter().rev()).0, filter, "it depends on the order");
    assert_eq!(build(lines.iter().chain(&lines)).0, filter, "it depends on how often a range is named");
    // A line alone blocks no more than all together.
    for line in &lines {
        let (alone, _) = build(std::iter::once(line));
        for ip in probes(line) {
            assert!(!alone.blocks(ip) || filter.blocks(ip), "{ip}");
        }
    }
    // Files are written for some inputs only: they cost a hundred times as much.
    if flags & 15 == 0 {
        from_file(text, &filter);
        let mut packer = GzEncoder::new(Vec::new(), Compression::fast());
        packer.write_all(text).unwrap();
        from_file(&packer.finish().unwrap(), &filter);
    }
    if flags & 15 == 1 {
        // Whatever a packed file may hold.
        from_any_file(&[b"\x1f\x8b".as_slice(), text].concat());
    }
}

fn build<'a>(lines: impl Iterator<Item = &'a &'a [u8]>) -> (IpFilter, usize) {
    let mut builder = IpFilterBuilder::default();
    let ranges = lines.filter(|line| builder.add_line(line) == Ok(Line::Range)).count();
    (builder.build().unwrap(), ranges)
}

/// Addresses that may be what the line means.
fn probes(line: &[u8]) -> Vec<IpAddr> {
    let text = String::from_utf8_lossy(line);
    let words = text.split(|c: char| !c.is_ascii_hexdigit() && c != '.' && c != ':');
    words.filter_map(|word| word.parse().ok()).take(8).collect()
}

/// The same from a file, unless the file is refused.
fn from_file(bytes: &[u8], filter: &IpFilter) {
    if let Some(found) = from_any_file(bytes) {
        assert_eq!(found, *filter);
    }
}

fn from_any_file(bytes: &[u8]) -> Option<IpFilter> {
    let path = std::env::temp_dir().join(format!("gannet-fuzz-{}-list", std::process::id()));
    std::fs::write(&path, bytes).unwrap();
    let lists = read_ip_filter(&[&path]);
    std::fs::remove_file(&path).unwrap();
    lists.ok().map(|lists| lists.filter)
}
