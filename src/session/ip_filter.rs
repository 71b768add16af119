//! Reading block lists from files.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::path::{Path, PathBuf};

use flate2::bufread::MultiGzDecoder;

use crate::error::Error;
use crate::swarm::IpFilter;
use crate::swarm::ip_filter::{IpFilterBuilder, Line, MAX_LINE, TooMany};

/// Bytes of one list, decompressed: the largest around are 30 MB. Beyond it is a gzip bomb, or the wrong file.
const MAX_LIST_LEN: u64 = 256 << 20;

/// What came of reading block lists.
#[derive(Clone, Debug, Default)]
pub struct IpFilterLists {
    /// The filter of all of them together.
    pub filter: IpFilter,
    /// Lines that are in none of the formats, with the file and number of the first.
    pub bad_lines: u64,
    /// Where the first of them is.
    pub first_bad: Option<(PathBuf, u64)>,
}

/// Reads block lists, compressed by gzip or not: eMule's `.dat`, PeerGuardian's text, CIDR; see
/// [`ip_filter`](crate::swarm::ip_filter).
///
/// # Errors
/// [`Error::Disk`] for a file that cannot be read, [`Error::Invalid`] for one that is no list, or too large. Lines that are
/// wrong are counted and passed over, but a file of nothing else is no list: who filters wants to know.
pub fn read_ip_filter(paths: &[impl AsRef<Path>]) -> Result<IpFilterLists, Error> {
    let mut lists = IpFilterLists::default();
    let mut builder = IpFilterBuilder::default();
    for path in paths {
        read_list(path.as_ref(), &mut builder, &mut lists)?;
    }
    lists.filter = builder.build().map_err(|e| Error::Invalid(format!("the IP filter: {e}")))?;
    Ok(lists)
}

fn read_list(path: &Path, builder: &mut IpFilterBuilder, lists: &mut IpFilterLists) -> Result<(), Error> {
    let unreadable = |e: io::Error| {
        // Files can be missing; whatever else goes wrong, the system has words for it.
        let why = if e.kind() == io::ErrorKind::NotFound { "no such file".to_owned() } else { e.to_string() };
        Error::Disk { message: format!("{}: {why}", path.display()), path: Some(path.to_owned()) }
    };
    let no_list = |why: &dyn std::fmt::Display| Error::Invalid(format!("{}: {why}", path.display()));
    let mut file = BufReader::with_capacity(1 << 16, File::open(path).map_err(unreadable)?);
    let magic = file.fill_buf().map_err(unreadable)?;
    let packed = magic.starts_with(b"\x1f\x8b");
    if magic.starts_with(b"PK\x03\x04") {
        return Err(no_list(&"a zip archive; unpack it first"));
    }
    if magic.starts_with(b"\xff\xff\xff\xffP2B") {
        return Err(no_list(&"PeerGuardian's binary format; use the list as text (.p2p)"));
    }
    let text: Box<dyn BufRead> = match packed {
        true => Box::new(BufReader::with_capacity(1 << 16, MultiGzDecoder::new(file))),
        false => Box::new(file),
    };
    // One byte more, to tell a list that is just as long from one that is longer.
    let mut text = text.take(MAX_LIST_LEN + 1);
    let (mut number, mut ranges, bad_before) = (0, 0, lists.bad_lines);
    let mut line = Vec::new();
    while read_line(&mut text, &mut line).map_err(unreadable)? {
        number += 1;
        match builder.add_line(&line).map_err(|e: TooMany| no_list(&e))? {
            Line::Range | Line::Allowed => ranges += 1,
            Line::Remark => {}
            Line::Bad => {
                lists.bad_lines += 1;
                lists.first_bad.get_or_insert_with(|| (path.to_owned(), number));
            }
        }
    }
    if text.limit() == 0 {
        return Err(no_list(&format_args!("more than {} MiB of text, which no list is", MAX_LIST_LEN >> 20)));
    }
    if ranges == 0 && lists.bad_lines > bad_before {
        return Err(no_list(&"no list of addresses: none of its lines is a range"));
    }
    Ok(())
}

/// The next line, with its end. Of one that is too long only the beginning is kept, which is long enough to be refused.
fn read_line(text: &mut impl BufRead, line: &mut Vec<u8>) -> io::Result<bool> {
    line.clear();
    let mut any = false;
    loop {
        let part = text.fill_buf()?;
        if part.is_empty() {
            return Ok(any);
        }
        any = true;
        let end = part.iter().position(|&byte| byte == b'\n');
        let len = end.map_or(part.len(), |end| end + 1);
        let room = (MAX_LINE + 2).saturating_sub(line.len()).min(len);
        line.extend_from_slice(part.get(..room).unwrap_or_default());
        text.consume(len);
        if end.is_some() {
            return Ok(true);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn read(bytes: &[u8]) -> Result<IpFilterLists, Error> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("list");
        std::fs::write(&path, bytes).unwrap();
        read_ip_filter(&[path])
    }

    fn gzip(bytes: &[u8]) -> Vec<u8> {
        let mut packer = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        packer.write_all(bytes).unwrap();
        packer.finish().unwrap()
    }

    #[test]
    fn plain_and_packed() {
        let text =
            b"# mine\r\nwho:1.2.3.0-1.2.3.255\r\nwhat is this\r\n10.0.0.0/8\n001.002.004.000 - 001.002.004.255 , 0 , x";
        // Two members in a row are one file.
        let halves = [gzip(&text[..20]), gzip(&text[20..])].concat();
        for bytes in [text.to_vec(), gzip(text), halves] {
            let lists = read(&bytes).unwrap();
            assert_eq!((lists.filter.len(), lists.bad_lines), (2, 1));
            assert_eq!(lists.first_bad.unwrap().1, 3);
            assert!(lists.filter.blocks([1, 2, 4, 255].into()) && !lists.filter.blocks([1, 2, 5, 0].into()));
        }
        assert!(read(b"").unwrap().filter.is_empty());
        assert!(read(b"# nobody").unwrap().filter.is_empty());
    }

    #[test]
    fn long_lines_are_passed_over() {
        let long = vec![b'x'; 1 << 20];
        let lists = read(&[&long[..], b"\n1.2.3.4\n", &long, b":1.2.3.5-1.2.3.6\n1.2.3.7"].concat()).unwrap();
        assert_eq!((lists.filter.len(), lists.bad_lines), (2, 2));
    }

    #[test]
    fn what_is_no_list_is_an_error() {
        for (bytes, why) in [
            (&b"<html>\n<body>\n"[..], "none of its lines"),
            (b"PK\x03\x04zip", "unpack"),
            (b"\xff\xff\xff\xffP2B\x02", ".p2p"),
        ] {
            assert!(read(bytes).unwrap_err().to_string().contains(why));
        }
        let cut = gzip(&b"1.2.3.4\n".repeat(10_000));
        assert!(matches!(read(&cut[..cut.len() / 2]), Err(Error::Disk { .. })), "half a list is none");
        assert!(matches!(read_ip_filter(&["/nowhere"]), Err(Error::Disk { .. })));
        let bomb = gzip(&vec![0; 257 << 20]);
        assert!(bomb.len() < 4 << 20 && read(&bomb).unwrap_err().to_string().contains("256 MiB"));
    }
}
