//! Places that are used again, each with a count of its uses.

/// No place: the end of a list.
pub(crate) const NONE: u32 = u32::MAX;

/// It begins with a cache line: of the many that there are, each that is looked at is fetched from
/// far, and no more of it than needed.
#[derive(Debug)]
#[repr(align(64))]
pub(crate) enum Entry<T> {
    Full(T),
    Free,
}

/// Values by place. A place's generation grows each time that it is freed, so that the name of a
/// value that is gone never fits the one that took its place.
#[derive(Debug)]
pub(crate) struct Slab<T> {
    entries: Vec<Entry<T>>,
    /// As many.
    generations: Vec<u32>,
    /// The places that are free, the last one that was used at the end. Not in the entries: one that
    /// is used again is written, and not waited for to be read.
    free: Vec<u32>,
}

impl<T> Slab<T> {
    #[cfg(test)]
    pub(crate) const ENTRY_SIZE: usize = size_of::<Entry<T>>();

    pub(crate) fn new() -> Self {
        Self { entries: Vec::new(), generations: Vec::new(), free: Vec::new() }
    }

    pub(crate) fn len(&self) -> usize {
        self.entries.len() - self.free.len()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Returns the value's place. The callers' limits keep it far below [`NONE`].
    #[inline]
    pub(crate) fn insert(&mut self, value: T) -> u32 {
        let Some(index) = self.free.pop() else {
            self.entries.push(Entry::Full(value));
            self.generations.push(0);
            return self.entries.len() as u32 - 1;
        };
        let free = std::mem::replace(&mut self.entries[index as usize], Entry::Full(value));
        // There is nothing to drop, which would be looked for.
        std::mem::forget(free);
        index
    }

    pub(crate) fn remove(&mut self, index: u32) -> Option<T> {
        match std::mem::replace(self.vacate(index)?, Entry::Free) {
            Entry::Full(value) => Some(value),
            Entry::Free => None,
        }
    }

    /// As [`remove`](Self::remove), but the value is dropped where it is, and not moved.
    pub(crate) fn free(&mut self, index: u32) {
        if let Some(entry) = self.vacate(index) {
            *entry = Entry::Free;
        }
    }

    /// Ends the use of a place; the caller makes its entry a free one.
    fn vacate(&mut self, index: u32) -> Option<&mut Entry<T>> {
        let entry = self.entries.get_mut(index as usize)?;
        if matches!(entry, Entry::Free) {
            return None;
        }
        let generation = &mut self.generations[index as usize];
        *generation = generation.wrapping_add(1);
        self.free.push(index);
        Some(entry)
    }

    /// A place, which is not looked at.
    #[inline]
    pub(crate) fn place(&self, index: u32) -> Option<&Entry<T>> {
        self.entries.get(index as usize)
    }

    /// The free place that is used after so many others, the next one being after none.
    #[inline]
    pub(crate) fn free_after(&self, others: usize) -> Option<&Entry<T>> {
        let at = self.free.len().checked_sub(others + 1)?;
        self.place(self.free[at])
    }

    #[inline]
    pub(crate) fn generation(&self, index: u32) -> u32 {
        self.generations.get(index as usize).copied().unwrap_or(0)
    }

    /// The value of a name: a place and the generation that it had.
    #[inline]
    pub(crate) fn find(&self, index: u32, generation: u32) -> Option<&T> {
        self.get(index).filter(|_| self.generations[index as usize] == generation)
    }

    #[inline]
    pub(crate) fn has(&self, index: u32, generation: u32) -> bool {
        self.find(index, generation).is_some()
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (u32, &T)> {
        self.entries.iter().enumerate().filter_map(|(index, entry)| match entry {
            Entry::Full(value) => Some((index as u32, value)),
            Entry::Free => None,
        })
    }

    /// One more than the largest place that was ever used.
    pub(crate) fn end(&self) -> u32 {
        self.entries.len() as u32
    }

    #[inline]
    pub(crate) fn get(&self, index: u32) -> Option<&T> {
        match self.entries.get(index as usize)? {
            Entry::Full(value) => Some(value),
            Entry::Free => None,
        }
    }
}

/// For places that are known to be in use: the lists hold no others.
impl<T> std::ops::Index<u32> for Slab<T> {
    type Output = T;

    #[inline]
    fn index(&self, index: u32) -> &T {
        match &self.entries[index as usize] {
            Entry::Full(value) => value,
            Entry::Free => unreachable!("a list holds a place that is free"),
        }
    }
}

impl<T> std::ops::IndexMut<u32> for Slab<T> {
    #[inline]
    fn index_mut(&mut self, index: u32) -> &mut T {
        match &mut self.entries[index as usize] {
            Entry::Full(value) => value,
            Entry::Free => unreachable!("a list holds a place that is free"),
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
