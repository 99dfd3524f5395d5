//! A table whose places are reused, with keys that don't outlive what they were given for.

/// Names an entry. A reused place has another serial number, so an old key finds nothing.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(crate) struct Key {
    pub(crate) index: u32,
    pub(crate) serial: u32,
}

impl Key {
    /// The first key that a table gives.
    pub(crate) const FIRST: Self = Self { index: 0, serial: 1 };

    /// The key in one word: the serial number above, the index below.
    pub(crate) const fn pack(self) -> u64 {
        (self.serial as u64) << 32 | self.index as u64
    }

    pub(crate) fn unpack(word: u64) -> Self {
        Self { index: word as u32, serial: (word >> 32) as u32 }
    }
}

/// Each begins a line of memory, so that those of one entry are no more than it takes.
#[repr(C, align(64))]
struct Place<T> {
    serial: u32,
    value: Option<T>,
}

/// The table. Memory is kept when entries go, so a steady load allocates nothing.
pub(crate) struct Slots<T> {
    places: Vec<Place<T>>,
    free: Vec<u32>,
    len: usize,
}

impl<T> Default for Slots<T> {
    fn default() -> Self {
        Self { places: Vec::new(), free: Vec::new(), len: 0 }
    }
}

impl<T> Slots<T> {
    pub(crate) fn insert(&mut self, value: T) -> Key {
        self.insert_with(|_| value)
    }

    /// Inserts what `make` makes of the key that the entry will have.
    pub(crate) fn insert_with(&mut self, make: impl FnOnce(Key) -> T) -> Key {
        self.len += 1;
        if let Some(index) = self.free.pop()
            && let Some(place) = self.places.get_mut(index as usize)
        {
            let key = Key { index, serial: place.serial };
            place.value = Some(make(key));
            return key;
        }
        let key = Key { index: self.places.len() as u32, serial: 1 };
        self.places.push(Place { serial: 1, value: Some(make(key)) });
        key
    }

    #[inline]
    pub(crate) fn get(&self, key: Key) -> Option<&T> {
        let place = self.places.get(key.index as usize)?;
        if place.serial == key.serial { place.value.as_ref() } else { None }
    }

    #[inline]
    pub(crate) fn get_mut(&mut self, key: Key) -> Option<&mut T> {
        let place = self.places.get_mut(key.index as usize)?;
        if place.serial == key.serial { place.value.as_mut() } else { None }
    }

    pub(crate) fn remove(&mut self, key: Key) -> Option<T> {
        let place = self.places.get_mut(key.index as usize)?;
        if place.serial != key.serial {
            return None;
        }
        let value = place.value.take()?;
        place.serial = place.serial.wrapping_add(1).max(1);
        self.free.push(key.index);
        self.len -= 1;
        Some(value)
    }

    /// The key of the entry in a place.
    #[inline]
    pub(crate) fn key_at(&self, index: u32) -> Option<Key> {
        let place = self.places.get(index as usize).filter(|place| place.value.is_some())?;
        Some(Key { index, serial: place.serial })
    }

    /// The entry in a place, and its key.
    #[inline]
    pub(crate) fn at_mut(&mut self, index: u32) -> Option<(Key, &mut T)> {
        let place = self.places.get_mut(index as usize)?;
        let key = Key { index, serial: place.serial };
        place.value.as_mut().map(|value| (key, value))
    }

    pub(crate) fn len(&self) -> usize {
        self.len
    }

    pub(crate) fn keys(&self) -> Vec<Key> {
        let used = self.places.iter().enumerate().filter(|(_, place)| place.value.is_some());
        used.map(|(index, place)| Key { index: index as u32, serial: place.serial }).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_old_key_finds_nothing_in_a_reused_place() {
        let mut slots = Slots::default();
        let old = slots.insert('a');
        assert_eq!(slots.remove(old), Some('a'));
        let new = slots.insert('b');
        assert_eq!(new.index, old.index);
        assert!(slots.get(old).is_none() && slots.remove(old).is_none());
        assert_eq!(slots.get(new), Some(&'b'));
        assert_eq!(Key::unpack(new.pack()), new);
        assert_eq!(slots.len(), 1);
    }
}
