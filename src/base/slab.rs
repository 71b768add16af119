/// Names a source of one torrent: a connection with a peer, or a lane of a web seed. Never reused: a key kept too long
/// finds nothing, not somebody else.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct PeerKey {
    slot: u32,
    generation: u32,
}

impl PeerKey {
    /// The place in tables that run beside the slab. May be reused once the peer is gone.
    pub fn slot(self) -> usize {
        self.slot as usize
    }
}

/// Values under generational keys: constant-time insert, remove and look-up.
#[derive(Debug)]
pub struct Slab<T> {
    slots: Vec<(u32, Option<T>)>,
    free: Vec<u32>,
    /// Slots whose keys stand for something that is kept elsewhere.
    reserved: usize,
}

impl<T> Default for Slab<T> {
    fn default() -> Self {
        Self { slots: Vec::new(), free: Vec::new(), reserved: 0 }
    }
}

impl<T> Slab<T> {
    /// Puts `value` in and names it.
    pub fn insert(&mut self, value: T) -> PeerKey {
        if let Some(slot) = self.free.pop() {
            let (generation, place) = &mut self.slots[slot as usize];
            *place = Some(value);
            return PeerKey { slot, generation: *generation };
        }
        let slot = u32::try_from(self.slots.len()).unwrap_or(u32::MAX);
        self.slots.push((0, Some(value)));
        PeerKey { slot, generation: 0 }
    }

    /// A key that no value here has or will have, for good: it names something that is kept elsewhere.
    pub fn reserve(&mut self) -> PeerKey {
        let slot = u32::try_from(self.slots.len()).unwrap_or(u32::MAX);
        self.slots.push((0, None));
        self.reserved += 1;
        PeerKey { slot, generation: 0 }
    }

    /// Takes the value out.
    pub fn remove(&mut self, key: PeerKey) -> Option<T> {
        let (generation, place) = self.slots.get_mut(key.slot())?;
        if *generation != key.generation {
            return None;
        }
        let value = place.take()?;
        *generation = generation.wrapping_add(1);
        self.free.push(key.slot);
        Some(value)
    }

    /// The value, if it is still there.
    pub fn at(&self, key: PeerKey) -> Option<&T> {
        let (generation, place) = self.slots.get(key.slot())?;
        place.as_ref().filter(|_| *generation == key.generation)
    }

    /// The value, if it is still there, to be changed.
    pub fn at_mut(&mut self, key: PeerKey) -> Option<&mut T> {
        let (generation, place) = self.slots.get_mut(key.slot())?;
        place.as_mut().filter(|_| *generation == key.generation)
    }

    /// All values with their keys, by slot.
    pub fn iter(&self) -> impl Iterator<Item = (PeerKey, &T)> {
        (0u32..).zip(&self.slots).filter_map(|(slot, (generation, place))| {
            place.as_ref().map(|value| (PeerKey { slot, generation: *generation }, value))
        })
    }

    /// All values with their keys, by slot, to be changed.
    pub fn iter_mut(&mut self) -> impl Iterator<Item = (PeerKey, &mut T)> {
        (0u32..).zip(&mut self.slots).filter_map(|(slot, (generation, place))| {
            let key = PeerKey { slot, generation: *generation };
            place.as_mut().map(|value| (key, value))
        })
    }

    /// All keys, by slot.
    pub fn keys(&self) -> Vec<PeerKey> {
        self.iter().map(|(key, _)| key).collect()
    }

    /// How many values.
    pub fn len(&self) -> usize {
        self.slots.len() - self.free.len() - self.reserved
    }

    /// Whether there is no value.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stale_keys_find_nothing() {
        let mut slab = Slab::default();
        let a = slab.insert("a");
        let b = slab.insert("b");
        assert_eq!(slab.remove(a), Some("a"));
        let c = slab.insert("c");
        assert_eq!(c.slot(), a.slot());
        assert_eq!((slab.at(a), slab.at(b), slab.at(c)), (None, Some(&"b"), Some(&"c")));
        assert_eq!(slab.remove(a), None);
        assert_eq!(slab.len(), 2);
        assert_eq!(slab.keys(), [c, b]);
        let elsewhere = slab.reserve();
        let d = slab.insert("d");
        assert_eq!(slab.at(elsewhere), None);
        assert_eq!(slab.remove(elsewhere), None);
        assert_ne!(d.slot(), elsewhere.slot());
        assert_eq!((slab.len(), slab.keys()), (3, vec![c, b, d]));
    }
}
