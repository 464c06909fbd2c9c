//! Messages that came a moment before the one that they follow.
//!
//! A hole is mostly filled within a round trip: a queue on the way was full, or a link was exchanged.
//! What came behind it lies here meanwhile, not stored and so without a receipt, and goes to the store
//! right behind what it follows, written once. Behind a hole that lasts it goes to the store after
//! [`PATIENCE`] and waits there ([`super::turns`]).
//!
//! What is known here of what has come is what came lately. A message that follows another of long ago
//! is delayed by that time, once.

use std::{
    collections::{BTreeMap, VecDeque},
    time::{Duration, Instant},
};

use hashlink::LruCache;

use crate::wire::{Address, MessageUid, UidPrefix};

/// How long a message lies here: some tries of what met a full queue, and far less than its sender
/// waits for the receipt.
pub const PATIENCE: Duration = Duration::from_millis(200);

/// Messages that lie here at most.
const MESSAGES_MAX: usize = 16_384;

/// Bytes of theirs at most: what a window of one sender holds.
const BYTES_MAX: usize = 4 << 20;

/// Messages of which it is known that they have come: more than a window of the smallest.
const RECENT_MAX: usize = 16_384;

type Awaited = (Address, UidPrefix);

/// A message with what is to become of it.
#[derive(Debug)]
pub struct Arriving<T> {
    /// Who sent it.
    pub source: Address,
    /// The message.
    pub uid: MessageUid,
    /// What it says to follow.
    pub follows: Option<UidPrefix>,
    /// Bytes it holds.
    pub bytes: usize,
    /// What is to become of it.
    pub then: T,
}

/// See the module.
#[derive(Debug)]
pub struct Shelf<T> {
    waiting: BTreeMap<Awaited, Vec<Arriving<T>>>,
    /// In order of time; some have been taken meanwhile.
    since: VecDeque<(Instant, Awaited)>,
    recent: LruCache<Awaited, ()>,
    len: usize,
    bytes: usize,
}

impl<T> Default for Shelf<T> {
    fn default() -> Self {
        Self {
            waiting: BTreeMap::new(),
            since: VecDeque::new(),
            recent: LruCache::new(RECENT_MAX),
            len: 0,
            bytes: 0,
        }
    }
}

impl<T> Shelf<T> {
    /// Messages that lie here.
    pub fn len(&self) -> usize {
        self.len
    }

    /// True where none does.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// A message has come: those that go to the store now, in this order. None where it is to lie here.
    pub fn arrives(&mut self, now: Instant, arriving: Arriving<T>) -> Vec<Arriving<T>> {
        if let Some(follows) = arriving.follows {
            let awaited = (arriving.source, follows);
            let has_room = self.len < MESSAGES_MAX && self.bytes.saturating_add(arriving.bytes) <= BYTES_MAX;
            if has_room && self.recent.get(&awaited).is_none() {
                self.len = self.len.saturating_add(1);
                self.bytes = self.bytes.saturating_add(arriving.bytes);
                let waiting = self.waiting.entry(awaited).or_default();
                if waiting.is_empty() {
                    self.since.push_back((now, awaited));
                }
                waiting.push(arriving);
                return Vec::new();
            }
        }
        self.go(vec![arriving])
    }

    /// Those that have been here for long enough.
    pub fn overdue(&mut self, now: Instant) -> Vec<Arriving<T>> {
        let mut out = Vec::new();
        while let Some((since, awaited)) = self.since.front().copied()
            && now.saturating_duration_since(since) >= PATIENCE
        {
            self.since.pop_front();
            let waiting = self.take(&awaited);
            out.extend(self.go(waiting));
        }
        out
    }

    /// When [`Shelf::overdue`] is due next.
    pub fn next_wake(&self) -> Option<Instant> {
        let (since, _) = self.since.front()?;
        since.checked_add(PATIENCE)
    }

    /// These, each with those behind it before the next.
    fn go(&mut self, first: Vec<Arriving<T>>) -> Vec<Arriving<T>> {
        let mut out = Vec::with_capacity(first.len());
        let mut stack = first;
        stack.reverse();
        while let Some(next) = stack.pop() {
            let key = (next.source, next.uid.prefix());
            self.recent.insert(key, ());
            out.push(next);
            let behind = self.take(&key);
            stack.extend(behind.into_iter().rev());
        }
        out
    }

    fn take(&mut self, awaited: &Awaited) -> Vec<Arriving<T>> {
        let taken = self.waiting.remove(awaited).unwrap_or_default();
        self.len = self.len.saturating_sub(taken.len());
        let bytes = taken.iter().map(|arriving| arriving.bytes).fold(0, usize::saturating_add);
        self.bytes = self.bytes.saturating_sub(bytes);
        // Times of what is gone do not pile up.
        while let Some((_, first)) = self.since.front()
            && !self.waiting.contains_key(first)
        {
            self.since.pop_front();
        }
        taken
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOURCE: Address = Address([7; 16]);

    fn message(n: u8, follows: Option<u8>) -> Arriving<u8> {
        let uid = |n| MessageUid([n; 16]);
        Arriving {
            source: SOURCE,
            uid: uid(n),
            follows: follows.map(|n| uid(n).prefix()),
            bytes: 10,
            then: n,
        }
    }

    fn who(out: Vec<Arriving<u8>>) -> Vec<u8> {
        out.into_iter().map(|arriving| arriving.then).collect()
    }

    #[test]
    fn what_comes_behind_a_hole_goes_right_behind_what_fills_it() {
        let now = Instant::now();
        let mut shelf = Shelf::default();
        assert_eq!(who(shelf.arrives(now, message(1, None))), [1]);
        assert_eq!(who(shelf.arrives(now, message(3, Some(2)))), [0u8; 0]);
        assert_eq!(who(shelf.arrives(now, message(4, Some(3)))), [0u8; 0]);
        assert_eq!(who(shelf.arrives(now, message(5, Some(2)))), [0u8; 0]);
        assert_eq!((shelf.len(), shelf.bytes), (3, 30));
        // In the order of their names: each with those behind it.
        assert_eq!(who(shelf.arrives(now, message(2, Some(1)))), [2, 3, 4, 5]);
        assert_eq!(who(shelf.arrives(now, message(6, Some(5)))), [6]);
        assert!(shelf.is_empty() && shelf.bytes == 0 && shelf.next_wake().is_none());
    }

    #[test]
    fn a_hole_that_lasts_is_waited_for_once() {
        let now = Instant::now();
        let mut shelf = Shelf::default();
        assert_eq!(who(shelf.arrives(now, message(3, Some(2)))), [0u8; 0]);
        assert_eq!(who(shelf.arrives(now + PATIENCE / 2, message(4, Some(3)))), [0u8; 0]);
        assert_eq!(shelf.next_wake(), Some(now + PATIENCE));
        assert_eq!(who(shelf.overdue(now + PATIENCE / 2)), [0u8; 0]);
        assert_eq!(who(shelf.overdue(now + PATIENCE)), [3, 4]);
        assert_eq!(who(shelf.arrives(now + PATIENCE, message(5, Some(4)))), [5]);
        assert_eq!(who(shelf.overdue(now + 2 * PATIENCE)), [0u8; 0]);
        assert!(shelf.next_wake().is_none());
    }

    #[test]
    fn what_does_not_fit_goes_at_once() {
        let now = Instant::now();
        let mut shelf = Shelf::default();
        let large = Arriving { bytes: BYTES_MAX, ..message(3, Some(2)) };
        assert_eq!(who(shelf.arrives(now, large)), [0u8; 0]);
        assert_eq!(who(shelf.arrives(now, message(5, Some(4)))), [5]);
        assert_eq!(who(shelf.overdue(now + PATIENCE)), [3]);
        assert_eq!(who(shelf.arrives(now, message(7, Some(6)))), [0u8; 0]);
    }
}
