//! A receiver for tests: turns, and a store that answers late.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use super::*;

pub(crate) const SOURCE: Address = Address([7; 16]);

pub(crate) enum Op {
    Commit { uid: MessageUid, awaits: Place },
    Release(Enters),
}

/// A receiver: turns, and the store in front of which operations wait.
pub(crate) struct Receiver {
    pub(crate) now: Instant,
    pub(crate) turns: Turns,
    pub(crate) queue: VecDeque<Op>,
    /// Releases under way, and how many of them are answered.
    released: usize,
    answered: usize,
    pub(crate) seen: BTreeSet<MessageUid>,
    early: BTreeMap<MessageUid, UidPrefix>,
    /// All that were ever early, in order of arrival.
    arrivals: Vec<MessageUid>,
    pub(crate) inbox: Vec<MessageUid>,
}

impl Receiver {
    pub(crate) fn new(wait: Duration) -> Self {
        Self {
            now: Instant::now(),
            turns: Turns::new(wait),
            queue: VecDeque::new(),
            released: 0,
            answered: 0,
            seen: BTreeSet::new(),
            early: BTreeMap::new(),
            arrivals: Vec::new(),
            inbox: Vec::new(),
        }
    }

    pub(crate) fn arrives(&mut self, uid: MessageUid, follows: Option<UidPrefix>) {
        let awaits = self.turns.awaits(&SOURCE, follows);
        self.queue.push_back(Op::Commit { uid, awaits });
    }

    fn awaited(&self, awaits: Place) -> Option<UidPrefix> {
        let follows = awaits.follows.filter(|prefix| !self.is_in_inbox(prefix));
        follows.or_else(|| awaits.behind.filter(|prefix| self.is_early(prefix)))
    }

    fn is_early(&self, prefix: &UidPrefix) -> bool {
        let from = self.early.range(MessageUid::first_of(prefix)..).next();
        from.is_some_and(|(uid, _)| uid.prefix() == *prefix)
    }

    /// Whether this one is, or was, in the inbox.
    pub(crate) fn is_in_inbox(&self, prefix: &UidPrefix) -> bool {
        let from = self.seen.range(MessageUid::first_of(prefix)..).next();
        from.is_some_and(|uid| uid.prefix() == *prefix) && !self.is_early(prefix)
    }

    /// The store does its next operation.
    pub(crate) fn works(&mut self) {
        match self.queue.pop_front() {
            Some(Op::Commit { uid, awaits }) => {
                if !self.seen.insert(uid) {
                    return;
                }
                match self.awaited(awaits) {
                    Some(awaits) => {
                        self.early.insert(uid, awaits);
                        self.arrivals.push(uid);
                        self.turns.is_early(self.now, (SOURCE, uid), awaits, false);
                    }
                    None => {
                        self.inbox.push(uid);
                        self.turns.entered((SOURCE, uid));
                    }
                }
            }
            Some(Op::Release(Enters { source, uid, force })) => {
                match self.early.get(&uid).copied() {
                    Some(of)
                        if !force
                            && self.awaited(Place { follows: Some(of), ..Place::default() }).is_some() => {}
                    Some(_) => {
                        self.early.remove(&uid);
                        self.inbox.push(uid);
                        self.turns.entered((source, uid));
                    }
                    None => self.turns.entered((source, uid)),
                }
                self.answered += 1;
                if self.answered == self.released {
                    self.turns.answered();
                }
            }
            None => {}
        }
        self.let_enter();
    }

    fn let_enter(&mut self) {
        let enter = self.turns.enter();
        if !enter.is_empty() {
            (self.released, self.answered) = (enter.len(), 0);
            self.queue.extend(enter.into_iter().map(Op::Release));
        }
    }

    pub(crate) fn settle(&mut self) {
        self.let_enter();
        while !self.queue.is_empty() {
            self.works();
        }
    }

    pub(crate) fn passes(&mut self, time: Duration) {
        self.now += time;
        self.turns.expire(self.now);
        self.settle();
    }

    /// The process ends and starts again; what waited before the store is lost.
    pub(crate) fn restarts(&mut self, wait: Duration) {
        self.turns = Turns::new(wait);
        self.queue.clear();
        for uid in &self.arrivals {
            if let Some(follows) = self.early.get(uid) {
                self.turns.is_early(self.now, (SOURCE, *uid), *follows, false);
            }
        }
        self.turns.ask_again();
        self.settle();
    }
}
