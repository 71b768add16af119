//! Items that anybody can store in the DHT (BEP 44): immutable ones under their hash, mutable ones under a key.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use ed25519_dalek::{Signature, Signer, SigningKey, VerifyingKey};

use super::id::NodeId;
use crate::base::bencode::{Limits, scan};
use crate::hash::sha1;

/// Bytes of a bencoded value (BEP 44).
pub const MAX_VALUE: usize = 1_000;
/// Bytes of a salt (BEP 44).
pub const MAX_SALT: usize = 64;
/// Items that are kept for others.
pub const MAX_ITEMS: usize = 700;
/// How long an item is kept that nobody puts again (BEP 44, "Expiration").
const ITEM_LIFETIME: Duration = Duration::from_secs(2 * 3600);

/// A value with its proof: every `Item` is sound.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Item {
    value: Vec<u8>,
    signed: Option<Signed>,
}

/// What makes an item mutable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Signed {
    /// The public key of its owner.
    pub key: [u8; 32],
    /// Distinguishes the items of one key; empty for most.
    pub salt: Vec<u8>,
    /// Counts its versions.
    pub seq: i64,
    /// Over salt, number and value.
    pub signature: [u8; 64],
}

/// Why something is no item, or is not stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ItemError {
    /// Not one bencoded value in canonical form.
    #[error("the value is not canonical bencode")]
    Value,
    /// More than [`MAX_VALUE`].
    #[error("the value has more than {MAX_VALUE} bytes")]
    TooLong,
    /// More than [`MAX_SALT`].
    #[error("the salt has more than {MAX_SALT} bytes")]
    Salt,
    /// Below zero.
    #[error("the sequence number is negative")]
    Negative,
    /// The signature is not the key's.
    #[error("the signature is wrong")]
    Signature,
    /// What is stored is not the version that was to be replaced.
    #[error("another version is stored than the one to be replaced")]
    Swapped,
    /// A newer version is stored.
    #[error("a newer version is stored")]
    Old,
    /// The store is full of items that belong here rather.
    #[error("no room")]
    Full,
}

impl ItemError {
    /// The code of the error over the wire (BEP 44, "Errors").
    pub(super) fn code(self) -> i64 {
        match self {
            Self::Value | Self::Negative => 203,
            Self::TooLong => 205,
            Self::Signature => 206,
            Self::Salt => 207,
            Self::Swapped => 301,
            Self::Old => 302,
            Self::Full => 202,
        }
    }
}

/// Where a mutable item of `key` with `salt` is stored.
pub fn mutable_target(key: &[u8; 32], salt: &[u8]) -> NodeId {
    NodeId(sha1(&[key, salt]))
}

/// The public half of a secret key.
pub fn public_key(secret: &[u8; 32]) -> [u8; 32] {
    SigningKey::from_bytes(secret).verifying_key().to_bytes()
}

impl Item {
    /// An item that never changes: `value` is bencoded.
    ///
    /// # Errors
    /// [`ItemError::Value`], [`ItemError::TooLong`].
    pub fn immutable(value: &[u8]) -> Result<Self, ItemError> {
        check_value(value)?;
        Ok(Self { value: value.to_vec(), signed: None })
    }

    /// Version `seq` of the item of `secret`, signed here.
    ///
    /// # Errors
    /// As [`Item::immutable`], [`ItemError::Salt`], [`ItemError::Negative`].
    pub fn sign(secret: &[u8; 32], salt: &[u8], seq: i64, value: &[u8]) -> Result<Self, ItemError> {
        check_value(value)?;
        check_head(salt, seq)?;
        let key = SigningKey::from_bytes(secret);
        let signature = key.sign(&signed_bytes(salt, seq, value)).to_bytes();
        let signed = Signed { key: key.verifying_key().to_bytes(), salt: salt.to_vec(), seq, signature };
        Ok(Self { value: value.to_vec(), signed: Some(signed) })
    }

    /// An item that somebody else has signed.
    ///
    /// # Errors
    /// As [`Item::sign`], and [`ItemError::Signature`].
    pub fn verify(signed: Signed, value: &[u8]) -> Result<Self, ItemError> {
        check_value(value)?;
        check_head(&signed.salt, signed.seq)?;
        let key = VerifyingKey::from_bytes(&signed.key).map_err(|_| ItemError::Signature)?;
        let bytes = signed_bytes(&signed.salt, signed.seq, value);
        key.verify_strict(&bytes, &Signature::from_bytes(&signed.signature)).map_err(|_| ItemError::Signature)?;
        Ok(Self { value: value.to_vec(), signed: Some(signed) })
    }

    /// Where it is stored.
    pub fn target(&self) -> NodeId {
        match &self.signed {
            None => NodeId(sha1(&[&self.value])),
            Some(signed) => mutable_target(&signed.key, &signed.salt),
        }
    }

    /// The value, bencoded.
    pub fn value(&self) -> &[u8] {
        &self.value
    }

    /// What makes it mutable, if it is.
    pub fn signed(&self) -> Option<&Signed> {
        self.signed.as_ref()
    }

    /// The version of a mutable item.
    pub fn seq(&self) -> Option<i64> {
        self.signed.as_ref().map(|signed| signed.seq)
    }
}

fn check_value(value: &[u8]) -> Result<(), ItemError> {
    if value.len() > MAX_VALUE {
        return Err(ItemError::TooLong);
    }
    let scan = scan(value, Limits::DHT).map_err(|_| ItemError::Value)?;
    if scan.end == value.len() && scan.canonical { Ok(()) } else { Err(ItemError::Value) }
}

fn check_head(salt: &[u8], seq: i64) -> Result<(), ItemError> {
    match (salt.len() <= MAX_SALT, seq >= 0) {
        (false, _) => Err(ItemError::Salt),
        (_, false) => Err(ItemError::Negative),
        _ => Ok(()),
    }
}

/// What is signed (BEP 44, "Signature Verification").
fn signed_bytes(salt: &[u8], seq: i64, value: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(salt.len() + value.len() + 48);
    if !salt.is_empty() {
        bytes.extend_from_slice(format!("4:salt{}:", salt.len()).as_bytes());
        bytes.extend_from_slice(salt);
    }
    bytes.extend_from_slice(format!("3:seqi{seq}e1:v").as_bytes());
    bytes.extend_from_slice(value);
    bytes
}

/// What is kept for others.
#[derive(Debug, Default)]
pub(super) struct ItemStore {
    items: BTreeMap<NodeId, (Item, Instant)>,
}

impl ItemStore {
    /// Stores an item, a newer version of one, or the same again. `near` is the id whose surroundings we keep: when the
    /// store is full, what lies farthest from it gives way.
    pub(super) fn put(&mut self, now: Instant, item: Item, cas: Option<i64>, near: NodeId) -> Result<(), ItemError> {
        let target = item.target();
        if let Some((stored, _)) = self.items.get(&target)
            && let (Some(old), Some(new)) = (stored.seq(), item.seq())
        {
            if cas.is_some_and(|cas| cas != old) {
                return Err(ItemError::Swapped);
            }
            if new < old || (new == old && stored.value() != item.value()) {
                return Err(ItemError::Old);
            }
        }
        if self.items.len() >= MAX_ITEMS && !self.items.contains_key(&target) {
            let farthest = self.items.keys().max_by_key(|key| key.distance(&near)).copied();
            match farthest {
                Some(far) if far.distance(&near) > target.distance(&near) => self.items.remove(&far),
                _ => return Err(ItemError::Full),
            };
        }
        self.items.insert(target, (item, now));
        Ok(())
    }

    pub(super) fn get(&self, target: &NodeId) -> Option<&Item> {
        self.items.get(target).map(|(item, _)| item)
    }

    pub(super) fn len(&self) -> usize {
        self.items.len()
    }

    pub(super) fn expire(&mut self, now: Instant) {
        self.items.retain(|_, (_, at)| now.saturating_duration_since(*at) < ITEM_LIFETIME);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes<const N: usize>(hex: &str) -> [u8; N] {
        std::array::from_fn(|i| u8::from_str_radix(&hex[2 * i..2 * i + 2], 16).unwrap())
    }

    /// BEP 44, "Test Vectors".
    #[test]
    fn vectors_of_bep_44() {
        let key = bytes("77ff84905a91936367c01360803104f92432fcd904a43511876df5cdf3e7e548");
        let table = [
            (
                "",
                "4a533d47ec9c7d95b1ad75f576cffc641853b750",
                "305ac8aeb6c9c151fa120f120ea2cfb923564e11552d06a5d856091e5e853cff\
                 1260d3f39e4999684aa92eb73ffd136e6f4f3ecbfda0ce53a1608ecd7ae21f01",
            ),
            (
                "foobar",
                "411eba73b6f087ca51a3795d9c8c938d365e32c1",
                "6834284b6b24c3204eb2fea824d82f88883a3d95e8b4a21b8c0ded553d17d17d\
                 df9a8a7104b1258f30bed3787e6cb896fca78c58f8e03b5f18f14951a87d9a08",
            ),
        ];
        for (salt, target, signature) in table {
            let signed = Signed { key, salt: salt.into(), seq: 1, signature: bytes(signature) };
            let item = Item::verify(signed.clone(), b"12:Hello World!").unwrap();
            assert_eq!(item.target().to_string(), target);
            assert_eq!(Item::verify(Signed { seq: 2, ..signed }, b"12:Hello World!"), Err(ItemError::Signature));
        }
        let item = Item::immutable(b"12:Hello World!").unwrap();
        assert_eq!(item.target().to_string(), "e5f96f6f38320f0f33959cb4d3d656452117aadb");
    }

    #[test]
    fn what_is_no_item() {
        let long = [b"996:".as_slice(), &[b'x'; 996]].concat();
        assert!(Item::immutable(&long).is_ok());
        assert_eq!(Item::immutable(&[b"997:".as_slice(), &[b'x'; 997]].concat()), Err(ItemError::TooLong));
        for value in ["d1:b0:1:a0:e", "i01e", "5:abc", "i1ei2e", "", "llllllllllleeeeeeeeeee"] {
            assert_eq!(Item::immutable(value.as_bytes()), Err(ItemError::Value), "{value}");
        }
        assert_eq!(Item::sign(&[1; 32], &[0; 65], 1, b"i1e"), Err(ItemError::Salt));
        assert_eq!(Item::sign(&[1; 32], &[0; 64], -1, b"i1e"), Err(ItemError::Negative));
        let ours = Item::sign(&[1; 32], b"s", 5, b"i1e").unwrap();
        assert_eq!(Item::verify(ours.signed().unwrap().clone(), b"i1e"), Ok(ours));
    }

    #[test]
    fn versions_go_up_only() {
        let (now, near) = (Instant::now(), NodeId([0; 20]));
        let mut store = ItemStore::default();
        let item = |seq, value: &[u8]| Item::sign(&[1; 32], b"", seq, value).unwrap();
        assert_eq!(store.put(now, item(5, b"i1e"), Some(9), near), Ok(()), "nothing to compare with yet");
        assert_eq!(store.put(now, item(4, b"i1e"), None, near), Err(ItemError::Old));
        assert_eq!(store.put(now, item(5, b"i2e"), None, near), Err(ItemError::Old));
        assert_eq!(store.put(now, item(5, b"i1e"), None, near), Ok(()), "the same again keeps it alive");
        assert_eq!(store.put(now, item(6, b"i2e"), Some(4), near), Err(ItemError::Swapped));
        assert_eq!(store.put(now, item(6, b"i2e"), Some(5), near), Ok(()));
        store.expire(now + ITEM_LIFETIME / 2);
        assert_eq!(store.len(), 1);
        store.expire(now + ITEM_LIFETIME);
        assert_eq!(store.len(), 0);
    }

    #[test]
    fn a_full_store_keeps_what_is_near() {
        let (now, near) = (Instant::now(), NodeId([0; 20]));
        let mut store = ItemStore::default();
        let mut refused = 0;
        for i in 0..2_000 {
            let item = Item::immutable(format!("i{i}e").as_bytes()).unwrap();
            refused += usize::from(store.put(now, item, None, near).is_err());
        }
        assert!(store.len() == MAX_ITEMS && refused > 0);
        let farthest = store.items.keys().max().unwrap();
        assert!(farthest.0[0] < 110, "a third of the space holds them: {farthest}");
    }
}
