//! Places that are used again, each with a count of its uses.

/// No place: the end of a list.
pub(crate) const NONE: u32 = u32::MAX;

#[derive(Debug)]
enum Entry<T> {
    Full(T),
    Free { next: u32 },
}

#[derive(Debug)]
struct Place<T> {
    generation: u32,
    entry: Entry<T>,
}

/// Values by place. A place's generation grows each time that it is freed, so that the name of a
/// value that is gone never fits the one that took its place.
#[derive(Debug)]
pub(crate) struct Slab<T> {
    places: Vec<Place<T>>,
    free: u32,
    len: usize,
}

impl<T> Slab<T> {
    pub(crate) fn new() -> Self {
        Self { places: Vec::new(), free: NONE, len: 0 }
    }

    pub(crate) fn len(&self) -> usize {
        self.len
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Returns the value's place. The callers' limits keep it far below [`NONE`].
    #[inline]
    pub(crate) fn insert(&mut self, value: T) -> u32 {
        self.len += 1;
        if self.free == NONE {
            let index = self.places.len() as u32;
            self.places.push(Place { generation: 0, entry: Entry::Full(value) });
            return index;
        }
        let index = self.free;
        let place = &mut self.places[index as usize];
        if let Entry::Free { next } = place.entry {
            self.free = next;
        }
        place.entry = Entry::Full(value);
        index
    }

    pub(crate) fn remove(&mut self, index: u32) -> Option<T> {
        let next = self.free;
        match std::mem::replace(self.vacate(index)?, Entry::Free { next }) {
            Entry::Full(value) => Some(value),
            Entry::Free { .. } => None,
        }
    }

    /// As [`remove`](Self::remove), but the value is dropped where it is, and not moved.
    pub(crate) fn free(&mut self, index: u32) {
        let next = self.free;
        if let Some(entry) = self.vacate(index) {
            *entry = Entry::Free { next };
        }
    }

    /// Ends the use of a place; the caller makes its entry a free one.
    fn vacate(&mut self, index: u32) -> Option<&mut Entry<T>> {
        let place = self.places.get_mut(index as usize)?;
        if matches!(place.entry, Entry::Free { .. }) {
            return None;
        }
        place.generation = place.generation.wrapping_add(1);
        self.free = index;
        self.len -= 1;
        Some(&mut place.entry)
    }

    #[inline]
    pub(crate) fn generation(&self, index: u32) -> u32 {
        self.places.get(index as usize).map_or(0, |place| place.generation)
    }

    /// The value of a name: a place and the generation that it had.
    #[inline]
    pub(crate) fn find(&self, index: u32, generation: u32) -> Option<&T> {
        match self.places.get(index as usize)? {
            Place { generation: g, entry: Entry::Full(value) } if *g == generation => Some(value),
            _ => None,
        }
    }

    #[inline]
    pub(crate) fn has(&self, index: u32, generation: u32) -> bool {
        self.find(index, generation).is_some()
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (u32, &T)> {
        self.places.iter().enumerate().filter_map(|(index, place)| match &place.entry {
            Entry::Full(value) => Some((index as u32, value)),
            Entry::Free { .. } => None,
        })
    }

    /// One more than the largest place that was ever used.
    pub(crate) fn end(&self) -> u32 {
        self.places.len() as u32
    }

    #[inline]
    pub(crate) fn get(&self, index: u32) -> Option<&T> {
        match &self.places.get(index as usize)?.entry {
            Entry::Full(value) => Some(value),
            Entry::Free { .. } => None,
        }
    }
}

/// For places that are known to be in use: the lists hold no others.
impl<T> std::ops::Index<u32> for Slab<T> {
    type Output = T;

    #[inline]
    fn index(&self, index: u32) -> &T {
        match &self.places[index as usize].entry {
            Entry::Full(value) => value,
            Entry::Free { .. } => unreachable!("a list holds a place that is free"),
        }
    }
}

impl<T> std::ops::IndexMut<u32> for Slab<T> {
    #[inline]
    fn index_mut(&mut self, index: u32) -> &mut T {
        match &mut self.places[index as usize].entry {
            Entry::Full(value) => value,
            Entry::Free { .. } => unreachable!("a list holds a place that is free"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stale_name_finds_nothing() {
        let mut slab = Slab::new();
        let index = slab.insert('a');
        let generation = slab.generation(index);
        slab.free(index);
        assert_eq!(slab.insert('b'), index, "the place is used again");
        assert_eq!(slab.find(index, generation), None);
        assert_eq!(slab.find(index, slab.generation(index)), Some(&'b'));
        assert_eq!(slab.len(), 1);
    }

    #[test]
    fn freeing_twice_does_nothing() {
        let mut slab = Slab::new();
        let index = slab.insert(1);
        assert_eq!(slab.remove(index), Some(1));
        assert_eq!(slab.remove(index), None);
        slab.free(index);
        assert!(slab.is_empty());
        let (a, b) = (slab.insert(2), slab.insert(3));
        assert_ne!(a, b);
    }
}
