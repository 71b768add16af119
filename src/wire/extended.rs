use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::num::NonZeroU8;

use super::bencoding::{integer, put_integer, put_string, string};
use super::client_name::printable;
use super::{ExtensionError, MAX_METADATA_LEN};
use crate::base::bencode::{Dictionary, Limits};

/// The id of the extended handshake itself (BEP 10).
pub const EXTENDED_HANDSHAKE_ID: u8 = 0;

/// How many requests a peer takes that does not say (`reqq`; libtorrent's default, BEP 10).
pub const DEFAULT_REQUEST_QUEUE: u32 = 250;

/// The most requests that we believe a peer takes, and what we say ourselves.
pub const MAX_REQUEST_QUEUE: u32 = 2_000;

/// The longest `v` that is kept, in characters.
const MAX_CLIENT: usize = 64;

/// An extension of the extension protocol that we know.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Extension {
    /// `ut_metadata`: the info dictionary from peers (BEP 9).
    Metadata,
    /// `ut_pex`: peers tell peers (BEP 11).
    Pex,
    /// `upload_only`: seeds and partial seeds (BEP 21).
    UploadOnly,
    /// `lt_donthave`: a piece is gone again (BEP 54).
    DontHave,
    /// `ut_holepunch`: introductions (BEP 55).
    Holepunch,
}

impl Extension {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::Metadata, Self::Pex, Self::UploadOnly, Self::DontHave, Self::Holepunch];

    /// Its name in the `m` dictionary.
    pub fn name(self) -> &'static str {
        match self {
            Self::Metadata => "ut_metadata",
            Self::Pex => "ut_pex",
            Self::UploadOnly => "upload_only",
            Self::DontHave => "lt_donthave",
            Self::Holepunch => "ut_holepunch",
        }
    }

    /// The id under which peers send it to us: always the same.
    pub fn our_id(self) -> u8 {
        match self {
            Self::Metadata => 1,
            Self::Pex => 2,
            Self::UploadOnly => 3,
            Self::DontHave => 4,
            Self::Holepunch => 5,
        }
    }

    /// What a peer means that sends us a message under `id`.
    pub fn from_our_id(id: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|extension| extension.our_id() == id)
    }
}

/// The `m` dictionary: under which id its sender wants to receive each extension. A later handshake changes what it
/// names and leaves the rest (BEP 10).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ExtensionIds {
    /// By position in [`Extension::ALL`]: not named, switched off (0), or an id.
    ids: [Option<u8>; 5],
}

impl ExtensionIds {
    /// All that we know, under our own ids.
    pub fn ours() -> Self {
        Self { ids: Extension::ALL.map(|extension| Some(extension.our_id())) }
    }

    /// The same, without naming `extension`.
    #[must_use]
    pub fn without(mut self, extension: Extension) -> Self {
        *self.slot(extension) = None;
        self
    }

    /// Under which id `extension` is to be sent; `None` if it is not wanted.
    pub fn id(&self, extension: Extension) -> Option<NonZeroU8> {
        let named = Extension::ALL.into_iter().zip(self.ids).find(|(known, _)| *known == extension);
        named.and_then(|(_, id)| id).and_then(NonZeroU8::new)
    }

    /// Names `extension`; 0 switches it off.
    pub fn set(&mut self, extension: Extension, id: u8) {
        *self.slot(extension) = Some(id);
    }

    fn slot(&mut self, extension: Extension) -> &mut Option<u8> {
        match (extension, &mut self.ids) {
            (Extension::Metadata, [slot, ..])
            | (Extension::Pex, [_, slot, ..])
            | (Extension::UploadOnly, [_, _, slot, ..])
            | (Extension::DontHave, [_, _, _, slot, _])
            | (Extension::Holepunch, [.., slot]) => slot,
        }
    }

    fn merge(&mut self, later: &Self) {
        for (slot, id) in self.ids.iter_mut().zip(later.ids) {
            *slot = id.or(*slot);
        }
    }
}

/// What a peer says about itself (BEP 10), sent after the handshake and again when something changes. All of it optional.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ExtendedHandshake {
    /// Which extensions the sender takes, and under which ids.
    pub m: ExtensionIds,
    /// The client's name and version. Printable when parsed.
    pub v: Option<String>,
    /// The TCP port on which the sender listens, not 0.
    pub p: Option<u16>,
    /// Requests that the sender takes before it drops some, 1 ..= [`MAX_REQUEST_QUEUE`] when parsed.
    pub reqq: Option<u32>,
    /// The address under which the sender sees the receiver.
    pub yourip: Option<IpAddr>,
    /// The sender's own IPv4 address.
    pub ipv4: Option<Ipv4Addr>,
    /// The sender's own IPv6 address.
    pub ipv6: Option<Ipv6Addr>,
    /// Bytes of the info dictionary (BEP 9), 1 ..= [`MAX_METADATA_LEN`] when parsed.
    pub metadata_size: Option<u32>,
    /// Whether the sender would rather have connections encrypted (`e`).
    pub encryption: Option<bool>,
    /// Whether the sender downloads nothing any more (BEP 21).
    pub upload_only: Option<bool>,
}

impl ExtendedHandshake {
    /// Reads the payload of an extended message with id 0. A field that has another type or means nothing is as if it
    /// were absent; bytes behind the dictionary are ignored.
    ///
    /// # Errors
    /// When it is no dictionary, or beyond [`Limits::MESSAGE`].
    pub fn parse(payload: &[u8]) -> Result<Self, ExtensionError> {
        let (fields, _) = Dictionary::parse_prefix(payload, Limits::MESSAGE)?;
        let mut handshake = Self::default();
        for (key, raw) in fields.entries() {
            match key {
                b"e" => handshake.encryption = integer(raw).map(|flag| flag != 0),
                b"m" => handshake.m = extension_ids(raw),
                b"v" => handshake.v = string(raw).and_then(client),
                b"p" => handshake.p = integer(raw).and_then(|p| u16::try_from(p).ok()).filter(|p| *p != 0),
                b"reqq" => {
                    let clamped = integer(raw).map(|reqq| reqq.clamp(1, i128::from(MAX_REQUEST_QUEUE)));
                    handshake.reqq = clamped.and_then(|reqq| u32::try_from(reqq).ok());
                }
                b"yourip" => handshake.yourip = string(raw).and_then(ip),
                b"ipv4" => {
                    handshake.ipv4 = string(raw).and_then(|ip| Some(Ipv4Addr::from(<[u8; 4]>::try_from(ip).ok()?)))
                }
                b"ipv6" => {
                    handshake.ipv6 = string(raw).and_then(|ip| Some(Ipv6Addr::from(<[u8; 16]>::try_from(ip).ok()?)));
                }
                b"metadata_size" => {
                    let size = integer(raw).and_then(|size| u32::try_from(size).ok());
                    handshake.metadata_size = size.filter(|size| (1..=MAX_METADATA_LEN).contains(size));
                }
                b"upload_only" => handshake.upload_only = integer(raw).map(|flag| flag != 0),
                _ => {}
            }
        }
        Ok(handshake)
    }

    /// The payload, in canonical form.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(256);
        out.push(b'd');
        if let Some(flag) = self.encryption {
            put_string(&mut out, b"e");
            put_integer(&mut out, flag.into());
        }
        if let Some(ip) = self.ipv4 {
            put_string(&mut out, b"ipv4");
            put_string(&mut out, &ip.octets());
        }
        if let Some(ip) = self.ipv6 {
            put_string(&mut out, b"ipv6");
            put_string(&mut out, &ip.octets());
        }
        put_string(&mut out, b"m");
        self.encode_ids(&mut out);
        if let Some(size) = self.metadata_size {
            put_string(&mut out, b"metadata_size");
            put_integer(&mut out, size.into());
        }
        if let Some(port) = self.p {
            put_string(&mut out, b"p");
            put_integer(&mut out, port.into());
        }
        if let Some(reqq) = self.reqq {
            put_string(&mut out, b"reqq");
            put_integer(&mut out, reqq.into());
        }
        if let Some(flag) = self.upload_only {
            put_string(&mut out, b"upload_only");
            put_integer(&mut out, flag.into());
        }
        if let Some(v) = &self.v {
            put_string(&mut out, b"v");
            put_string(&mut out, v.as_bytes());
        }
        if let Some(ip) = self.yourip {
            put_string(&mut out, b"yourip");
            match ip {
                IpAddr::V4(ip) => put_string(&mut out, &ip.octets()),
                IpAddr::V6(ip) => put_string(&mut out, &ip.octets()),
            }
        }
        out.push(b'e');
        out
    }

    fn encode_ids(&self, out: &mut Vec<u8>) {
        let mut named: Vec<_> =
            Extension::ALL.into_iter().zip(self.m.ids).filter_map(|(ext, id)| Some((ext.name(), id?))).collect();
        named.sort_unstable();
        out.push(b'd');
        for (name, id) in named {
            put_string(out, name.as_bytes());
            put_integer(out, id.into());
        }
        out.push(b'e');
    }

    /// Takes over what a later handshake of the same peer says; what it does not name stays (BEP 10: "additive").
    pub fn merge(&mut self, later: Self) {
        self.m.merge(&later.m);
        self.v = later.v.or(self.v.take());
        self.p = later.p.or(self.p);
        self.reqq = later.reqq.or(self.reqq);
        self.yourip = later.yourip.or(self.yourip);
        self.ipv4 = later.ipv4.or(self.ipv4);
        self.ipv6 = later.ipv6.or(self.ipv6);
        self.metadata_size = later.metadata_size.or(self.metadata_size);
        self.encryption = later.encryption.or(self.encryption);
        self.upload_only = later.upload_only.or(self.upload_only);
    }
}

/// The ids that can be ids; all others are as if they were not there.
fn extension_ids(raw: &[u8]) -> ExtensionIds {
    let mut ids = ExtensionIds::default();
    let Ok(m) = Dictionary::parse(raw, Limits::MESSAGE) else { return ids };
    for extension in Extension::ALL {
        let id = m.raw(extension.name().as_bytes()).and_then(integer);
        if let Some(id) = id.and_then(|id| u8::try_from(id).ok()) {
            ids.set(extension, id);
        }
    }
    ids
}

fn client(text: &[u8]) -> Option<String> {
    // Cut first: cleaning is for what is shown, not for 64 KiB.
    let text = text.get(..MAX_CLIENT * 4).unwrap_or(text);
    let shown = printable(&String::from_utf8_lossy(text), MAX_CLIENT);
    (!shown.is_empty()).then_some(shown)
}

fn ip(bytes: &[u8]) -> Option<IpAddr> {
    if let Ok(v4) = <[u8; 4]>::try_from(bytes) {
        return Some(IpAddr::from(v4));
    }
    <[u8; 16]>::try_from(bytes).ok().map(IpAddr::from)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn parse(text: &str) -> ExtendedHandshake {
        ExtendedHandshake::parse(text.as_bytes()).unwrap()
    }

    /// From BEP 10, BEP 9 and BEP 21.
    #[test]
    fn examples_of_the_beps() {
        let bytes = b"d1:md11:LT_metadatai1e6:ut_pexi2ee1:pi6881e1:v13:\xc2\xb5Torrent 1.2e";
        let handshake = ExtendedHandshake::parse(bytes).unwrap();
        assert_eq!((handshake.p, handshake.v.as_deref()), (Some(6881), Some("\u{b5}Torrent 1.2")));
        assert_eq!(handshake.m.id(Extension::Pex), NonZeroU8::new(2));
        assert_eq!(handshake.m.id(Extension::Metadata), None);
        let handshake = parse("d1:md11:ut_metadatai3ee13:metadata_sizei31235e11:upload_onlyi1ee");
        assert_eq!(handshake.metadata_size, Some(31_235));
        assert_eq!(handshake.upload_only, Some(true));
    }

    /// E1 and E2: one bad field does not spoil the others.
    #[test]
    fn bad_fields_are_as_if_absent() {
        let bad = [
            "1:mi1e",
            "1:ml6:ut_pexe",
            "1:md6:ut_pexi256ee",
            "1:md6:ut_pexi-1ee",
            "1:md6:ut_pex1:xe",
            "1:pi0e",
            "1:pi65536e",
            "1:pi-1e",
            "1:p4:6881",
            "1:vi1e",
            "1:v0:",
            "1:v2:\x1b\x07",
            "6:yourip3:abc",
            "6:yourip5:abcde",
            "4:ipv416:0123456789abcdef",
            "4:ipv64:abcd",
            "13:metadata_sizei0e",
            "13:metadata_sizei-1e",
            "13:metadata_sizei33554433e",
            "13:metadata_sizei2147483648e",
            "13:metadata_sizei9223372036854775808e",
            "13:metadata_size1:5",
            "4:reqq3:250",
            "11:upload_only1:1",
            "4:reqqle",
            "3:fooli1ei2ee",
        ];
        for field in bad {
            assert_eq!(parse(&format!("d{field}e")), ExtendedHandshake::default(), "{field}");
        }
        let named = parse("d1:md11:lt_donthavei255e6:ut_pexi300e11:ut_metadatai0eee");
        assert_eq!(named.m.id(Extension::DontHave), NonZeroU8::new(255));
        assert_eq!(named.m.id(Extension::Pex), None);
    }

    #[test]
    fn request_queue_is_clamped() {
        for (said, believed) in
            [("0", 1), ("-5", 1), ("1", 1), ("250", 250), ("2001", 2000), ("9223372036854775808", 2000)]
        {
            assert_eq!(parse(&format!("d4:reqqi{said}ee")).reqq, Some(believed));
        }
    }

    #[test]
    fn no_dictionary_no_handshake() {
        let deep = [b"d1:m".as_slice(), &b"l".repeat(1_000)].concat();
        for payload in [b"".as_slice(), b"i1e", b"le", b"d", b"d1:a", b"x", &deep, &[0xff; 100]] {
            assert!(ExtendedHandshake::parse(payload).is_err());
        }
        assert!(ExtendedHandshake::parse(b"de trailing").is_ok());
    }

    #[test]
    fn names_are_cleaned() {
        assert_eq!(ExtendedHandshake::parse(b"d1:v5:a\xff\x1b[bee").unwrap().v.as_deref(), Some("a\u{fffd}[b"));
        let long = [b"d1:v60000:".as_slice(), &[b'x'; 60_000], b"e"].concat();
        assert_eq!(ExtendedHandshake::parse(&long).unwrap().v.map(|v| v.len()), Some(MAX_CLIENT));
    }

    #[test]
    fn later_handshakes_add_and_switch_off() {
        let mut peer = parse("d1:md11:ut_metadatai3e6:ut_pexi1ee4:reqqi500e1:v1:xe");
        peer.merge(parse("d1:md6:ut_pexi0e11:lt_donthavei7ee11:upload_onlyi1ee"));
        assert_eq!(peer.m.id(Extension::Metadata), NonZeroU8::new(3));
        assert_eq!(peer.m.id(Extension::Pex), None);
        assert_eq!(peer.m.id(Extension::DontHave), NonZeroU8::new(7));
        assert_eq!((peer.reqq, peer.v.as_deref(), peer.upload_only), (Some(500), Some("x"), Some(true)));
    }

    #[test]
    fn our_ids_are_distinct_and_read_back() {
        for extension in Extension::ALL {
            assert_eq!(Extension::from_our_id(extension.our_id()), Some(extension));
            assert_eq!(ExtensionIds::ours().id(extension).map(NonZeroU8::get), Some(extension.our_id()));
            assert_eq!(ExtensionIds::ours().without(extension).id(extension), None);
        }
        assert_eq!(Extension::from_our_id(0), None);
    }

    prop_compose! {
        fn handshakes()(
            ids in prop::array::uniform5(any::<Option<u8>>()),
            v in prop::option::of("[a-zA-Z0-9/\u{b5}][a-zA-Z0-9/. \u{b5}]{0,20}[a-z]"),
            p in prop::option::of(1u16..),
            reqq in prop::option::of(1..=MAX_REQUEST_QUEUE),
            (yourip, ipv4, ipv6) in any::<(Option<IpAddr>, Option<Ipv4Addr>, Option<Ipv6Addr>)>(),
            metadata_size in prop::option::of(1..=MAX_METADATA_LEN),
            (encryption, upload_only) in any::<(Option<bool>, Option<bool>)>(),
        ) -> ExtendedHandshake {
            let m = ExtensionIds { ids };
            ExtendedHandshake { m, v, p, reqq, yourip, ipv4, ipv6, metadata_size, encryption, upload_only }
        }
    }

    proptest! {
        #[test]
        fn encoded_and_read_back(handshake in handshakes()) {
            let bytes = handshake.encode();
            prop_assert!(Dictionary::parse(&bytes, Limits::MESSAGE).unwrap().is_canonical());
            prop_assert_eq!(ExtendedHandshake::parse(&bytes).unwrap(), handshake);
        }

        #[test]
        fn any_bytes(bytes in prop::collection::vec(prop::sample::select(b"dlie0123456789:-mpvut_pex".to_vec()), 0..60)) {
            let _ = ExtendedHandshake::parse(&bytes);
        }
    }
}
