use std::collections::BTreeMap;

use super::Metainfo;
use crate::base::bencode::{put_integer, put_string};

impl Metainfo {
    /// As a `.torrent` file, with the info dictionary as it came. [`Metainfo::parse`] reads it if no piece layer is missing:
    /// see [`Info::missing_layers`](super::Info::missing_layers).
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(self.info.raw().len() + 4096);
        out.push(b'd');
        let key = |out: &mut Vec<u8>, key: &str| put_string(out, key.as_bytes());
        if let Some(first) = self.announce.iter().flatten().next() {
            key(&mut out, "announce");
            put_string(&mut out, first.as_bytes());
        }
        if self.announce.iter().flatten().nth(1).is_some() {
            key(&mut out, "announce-list");
            out.push(b'l');
            for tier in self.announce.iter().filter(|tier| !tier.is_empty()) {
                put_list(&mut out, tier);
            }
            out.push(b'e');
        }
        for (name, text) in [("comment", &self.comment), ("created by", &self.created_by)] {
            if let Some(text) = text {
                key(&mut out, name);
                put_string(&mut out, text.as_bytes());
            }
        }
        if let Some(date) = self.creation_date.and_then(|date| u64::try_from(date).ok()) {
            key(&mut out, "creation date");
            put_integer(&mut out, date);
        }
        if !self.http_seeds.is_empty() {
            key(&mut out, "httpseeds");
            put_list(&mut out, &self.http_seeds);
        }
        key(&mut out, "info");
        out.extend_from_slice(self.info.raw());
        if !self.nodes.is_empty() {
            key(&mut out, "nodes");
            out.push(b'l');
            for (host, port) in &self.nodes {
                out.push(b'l');
                put_string(&mut out, host.as_bytes());
                put_integer(&mut out, (*port).into());
                out.push(b'e');
            }
            out.push(b'e');
        }
        if self.info.info_hash().as_v2().is_some() {
            key(&mut out, "piece layers");
            self.put_layers(&mut out);
        }
        if !self.web_seeds.is_empty() {
            key(&mut out, "url-list");
            put_list(&mut out, &self.web_seeds);
        }
        out.push(b'e');
        out
    }

    /// Those that are known, by root.
    fn put_layers(&self, out: &mut Vec<u8>) {
        let files = self.info.files().iter().enumerate();
        let layers: BTreeMap<[u8; 32], &[[u8; 32]]> =
            files.filter_map(|(n, file)| Some((file.pieces_root?, self.info.piece_layer(n)?))).collect();
        out.push(b'd');
        for (root, layer) in layers {
            put_string(out, &root);
            put_string(out, layer.as_flattened());
        }
        out.push(b'e');
    }
}

fn put_list(out: &mut Vec<u8>, list: &[String]) {
    out.push(b'l');
    list.iter().for_each(|text| put_string(out, text.as_bytes()));
    out.push(b'e');
}

#[cfg(test)]
mod tests {
    use super::super::{Builder, Format, Info, Magnet, Metainfo, SourceFile, merkle};
    use crate::hash::sha1;

    fn torrent(format: Format) -> Vec<u8> {
        let files = [("a", 40_000), ("b", 40_000), ("c", 5)].map(|(name, length)| SourceFile::new([name], length));
        let mut builder = Builder::folder("t", files.to_vec());
        builder.format = format;
        builder.piece_length = Some(16_384);
        builder.announce =
            vec![vec!["http://a.example/".into(), "http://b.example/".into()], vec!["udp://c.example:1".into()]];
        builder.web_seeds = vec!["http://w.example/".into()];
        builder.nodes = vec![("n.example".into(), 6881), ("2001:db8::1".into(), 1)];
        builder.comment = Some("why".into());
        builder.created_by = Some("me".into());
        builder.creation_date = Some(1_700_000_000);
        let plan = builder.plan().unwrap();
        let count = plan.piece_count();
        let v1: Vec<_> = (0..count).map(|n| sha1(&[&n.to_be_bytes()])).collect();
        // The first two files are the same.
        let v2: Vec<_> = (0..count).map(|n| merkle::leaf(&(n % 3).to_be_bytes())).collect();
        let (v1, v2) = match format {
            Format::V1 => (v1, vec![]),
            Format::V2 => (vec![], v2),
            Format::Hybrid => (v1, v2),
        };
        plan.finish(&v1, &v2).unwrap()
    }

    /// What was read is written as it was.
    #[test]
    fn the_same_bytes() {
        for format in [Format::V1, Format::V2, Format::Hybrid] {
            let bytes = torrent(format);
            assert_eq!(Metainfo::parse(&bytes).unwrap().encode(), bytes, "{format:?}");
        }
    }

    #[test]
    fn of_a_magnet_link() {
        for format in [Format::V1, Format::V2, Format::Hybrid] {
            let whole = Metainfo::parse(&torrent(format)).unwrap();
            let magnet = Magnet::parse(&whole.magnet().to_string()).unwrap();
            let info = Info::parse(whole.info.raw(), None).unwrap();
            let found = Metainfo::from_magnet(info, &magnet);
            let read = Metainfo::parse_incomplete(&found.encode()).unwrap();
            assert_eq!(read.info.raw(), whole.info.raw());
            assert_eq!((read.announce.len(), &read.web_seeds), (3, &whole.web_seeds));
            let missing = if format == Format::V1 { 0 } else { 2 };
            assert_eq!(read.info.missing_layers().count(), missing);
            assert_eq!(Metainfo::parse(&found.encode()).is_ok(), missing == 0);
        }
    }
}
