//! What was costly to find out, remembered within a bound that a flood cannot turn.
//!
//! A plain least-recently-used memory of n entries is emptied by n newcomers, each used once. Here
//! each use of an entry earns it one more round: room is made from the oldest end, where an entry
//! with uses left pays one of them and goes to the back, and one without goes. So newcomers that
//! are used once push out each other, and what is used at least once a round stays, a round being
//! as many newcomers as the memory has entries.
//!
//! The work for a newcomer is bounded too: after a few entries that are all in use it is the
//! newcomer that is not remembered. Each of its tries took uses from others, so one that keeps
//! coming gets in.

use std::hash::Hash;

use hashlink::LinkedHashMap;

/// Rounds that an entry can earn: who was busy and falls silent is forgotten after so many.
const USES_MAX: u8 = 8;

/// Entries looked at to make room for one.
const PASSES_MAX: usize = 8;

#[derive(Debug)]
struct Slot<V> {
    value: V,
    uses: u8,
}

/// At most so many entries. See the module.
#[derive(Debug)]
pub struct Remembered<K, V> {
    /// Next to be asked for its place first.
    slots: LinkedHashMap<K, Slot<V>>,
    entries_max: usize,
}

impl<K: Eq + Hash, V> Remembered<K, V> {
    /// Remembers nothing yet, and at most `entries_max` later.
    pub fn new(entries_max: usize) -> Self {
        Self { slots: LinkedHashMap::new(), entries_max }
    }

    /// What is remembered of `key`, without counting as a use of it.
    pub fn peek(&self, key: &K) -> Option<&V> {
        self.slots.get(key).map(|slot| &slot.value)
    }

    /// What is remembered of `key`; counts as a use.
    pub fn used(&mut self, key: &K) -> Option<&mut V> {
        let slot = self.slots.get_mut(key)?;
        slot.uses = slot.uses.saturating_add(1).min(USES_MAX);
        Some(&mut slot.value)
    }

    /// Remembers a value, in place of the one before it where there is one. False where everything
    /// that would have had to give way is in use.
    pub fn insert(&mut self, key: K, value: V) -> bool {
        if let Some(slot) = self.slots.get_mut(&key) {
            slot.value = value;
            return true;
        }
        if self.slots.len() >= self.entries_max && !self.make_room() {
            return false;
        }
        self.slots.insert(key, Slot { value, uses: 0 });
        true
    }

    fn make_room(&mut self) -> bool {
        for _ in 0..PASSES_MAX {
            let Some((key, mut slot)) = self.slots.pop_front() else { return false };
            let Some(left) = slot.uses.checked_sub(1) else { return true };
            slot.uses = left;
            self.slots.insert(key, slot);
        }
        false
    }

    /// Keeps what `keep` says, which may change it.
    pub fn retain(&mut self, mut keep: impl FnMut(&K, &mut V) -> bool) {
        self.slots.retain(|key, slot| keep(key, &mut slot.value));
    }

    /// Entries remembered.
    pub fn len(&self) -> usize {
        self.slots.len()
    }

    /// True where there are none.
    pub fn is_empty(&self) -> bool {
        self.slots.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_used_once_pushes_out_nothing_that_is_used() {
        let mut memory = Remembered::new(100);
        memory.insert(0, ());
        for newcomer in 1..100_000u32 {
            // Once in 99 newcomers, which is once a round.
            if newcomer % 99 == 0 {
                assert!(memory.used(&0).is_some(), "forgotten after {newcomer}");
            }
            assert!(memory.insert(newcomer, ()));
            assert!(memory.len() <= 100);
        }
    }

    #[test]
    fn a_flood_used_twice_does_not_either() {
        let mut memory = Remembered::new(100);
        memory.insert(0, ());
        for newcomer in 1..100_000u32 {
            if newcomer % 40 == 0 {
                assert!(memory.used(&0).is_some(), "forgotten after {newcomer}");
            }
            memory.insert(newcomer, ());
            memory.used(&newcomer);
        }
    }

    #[test]
    fn what_falls_silent_makes_room() {
        let mut memory = Remembered::new(10);
        for old in 0..10u32 {
            memory.insert(old, ());
            (0..100).for_each(|_| assert!(memory.used(&old).is_some()));
        }
        // All in use: the newcomer is not remembered, and gets in when it keeps coming.
        assert!(!memory.insert(99, ()));
        let tries = (1..).find(|_| memory.insert(99, ())).unwrap();
        assert!(tries <= 10 * usize::from(USES_MAX) / PASSES_MAX + 1, "{tries}");
        assert!(memory.peek(&99).is_some() && memory.len() == 10);
    }

    #[test]
    fn looking_is_no_use_and_a_newer_value_takes_the_place() {
        let mut memory = Remembered::new(2);
        memory.insert('a', 1);
        memory.insert('b', 1);
        for _ in 0..5 {
            assert_eq!(memory.peek(&'a'), Some(&1));
        }
        assert!(memory.insert('b', 2) && memory.insert('c', 3));
        assert_eq!((memory.peek(&'a'), memory.peek(&'b')), (None, Some(&2)));
        memory.retain(|key, _| *key == 'c');
        assert_eq!((memory.len(), memory.is_empty()), (1, false));
    }
}
