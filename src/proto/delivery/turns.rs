//! Who has to wait until what was sent before it is here.
//!
//! A message says which one of its sender it follows, where that one had no receipt yet when it was
//! sealed. One that arrives before it is *early*: durable and receipted, but not in the inbox yet. It
//! enters once what it follows has, or when nobody saw that one for [`Turns::new`]'s wait: what is
//! lost on the way, expired or was taken back must not hold the others up for longer, and holds them up
//! once, not each of them.
//!
//! Those that wait for the same missing message, directly or behind each other, stand in one *line*,
//! in order of arrival, which is the order in which they were sent: whoever arrives behind another of
//! its line was sealed after that one had its receipt, or follows it. For if one that was sent earlier
//! were still to come, it would have had no receipt either, and the others would wait for it and not
//! for what it waits for. (`tests` plays this against losses, retries and restarts.)

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    time::{Duration, Instant},
};

use hashlink::LruCache;

use crate::wire::{Address, MessageUid, UidPrefix};

/// Early messages of one source at most: two seconds of the fastest sender. No source has more places
/// than are free either, so that there is always one for the next. Further ones enter as they come.
const OF_SOURCE_MAX: usize = 4096;

/// Early messages of a source that are about to enter, at which it is asked to wait: a store that is slow
/// for a moment takes them in more slowly than others come, and those would soon find no place behind them.
pub const CROWD: usize = OF_SOURCE_MAX / 2;

/// Early messages at most, some 150 bytes each.
const ALL_MAX: usize = 16_384;

/// Early messages of all strangers together at most: who has any number of names takes nobody's order
/// whom this node knows.
const STRANGERS_MAX: usize = ALL_MAX / 4;

/// Messages that were waited for in vain, remembered so that nothing waits for them again.
const GIVEN_UP_MAX: usize = 4096;

/// Messages that enter with one submission.
const AT_ONCE: usize = 128;

/// A message of a source.
pub type Whose = (Address, MessageUid);

/// A message that is not here, by what those say that follow it.
type Awaited = (Address, UidPrefix);

/// What has to be in the inbox before a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Place {
    /// This one, whether it is early or was never here.
    pub follows: Option<UidPrefix>,
    /// And this one, should it be early still.
    pub behind: Option<UidPrefix>,
    /// Whether it is to wait if its source is a stranger, which the store knows.
    pub stranger_waits: bool,
}

/// One that is to enter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Enters {
    /// Who sent it.
    pub source: Address,
    /// The message.
    pub uid: MessageUid,
    /// Whether what it follows is here or not.
    pub force: bool,
}

/// An early message.
#[derive(Debug, Clone, Copy)]
struct Early {
    /// The line it is in.
    root: UidPrefix,
    /// Whether it has one of the strangers' places.
    stranger: bool,
}

#[derive(Debug)]
struct Line {
    /// In the order in which they enter.
    members: VecDeque<MessageUid>,
    /// When they enter without what they wait for; none once they are called.
    deadline: Option<Instant>,
}

/// The early messages of one node; their rows are in the store.
#[derive(Debug)]
pub struct Turns {
    wait: Duration,
    lines: BTreeMap<Awaited, Line>,
    early: BTreeMap<Whose, Early>,
    of_source: BTreeMap<Address, usize>,
    /// How many of them are strangers'.
    strangers: usize,
    deadlines: BTreeSet<(Instant, Awaited)>,
    given_up: LruCache<Awaited, ()>,
    /// Lines whose members enter, one line after the other.
    called: VecDeque<Awaited>,
    /// The last of them by source.
    last_called: BTreeMap<Address, UidPrefix>,
    /// Lines whose first member the store is to be asked about.
    unsure: Vec<Awaited>,
    /// True while some are under way into the inbox.
    entering: bool,
}

impl Turns {
    /// Nobody is early. What is early waits at most for `wait`, counted from when the first message
    /// waited for the same; zero has nothing wait.
    pub fn new(wait: Duration) -> Self {
        Self {
            wait,
            lines: BTreeMap::new(),
            early: BTreeMap::new(),
            of_source: BTreeMap::new(),
            strangers: 0,
            deadlines: BTreeSet::new(),
            given_up: LruCache::new(GIVEN_UP_MAX),
            called: VecDeque::new(),
            last_called: BTreeMap::new(),
            unsure: Vec::new(),
            entering: false,
        }
    }

    /// Messages that are early.
    pub fn len(&self) -> usize {
        self.early.len()
    }

    /// True when nobody is early.
    pub fn is_empty(&self) -> bool {
        self.early.is_empty()
    }

    /// True while so many of a source enter that its next ones are better sent again in a moment.
    pub fn is_crowded(&self, source: &Address) -> bool {
        self.last_called.contains_key(source) && self.of_source.get(source) >= Some(&CROWD)
    }

    /// What a message of `source` that says to follow `follows` is to wait for: the last in the line
    /// it belongs to, if there is one, and whoever is entering. Not what was waited for in vain, and
    /// nothing where too many wait.
    pub fn awaits(&mut self, source: &Address, follows: Option<UidPrefix>) -> Place {
        let of_source = self.of_source.get(source).copied().unwrap_or(0);
        let free = ALL_MAX.saturating_sub(self.early.len());
        if self.wait.is_zero() || of_source >= OF_SOURCE_MAX.min(free) {
            return Place::default();
        }
        // All of its line have their receipts, so nothing that is sent now names them.
        let entering = self.last_called.get(source).and_then(|root| self.last_in(&(*source, *root)));
        let follows = follows.and_then(|follows| {
            let line = (*source, self.line_of(source, &follows).unwrap_or(follows));
            let last = self.last_in(&line);
            last.or_else(|| self.given_up.get(&line).is_none().then_some(follows))
        });
        Place { follows, behind: entering, stranger_waits: self.strangers < STRANGERS_MAX }
    }

    /// The store has a message and says that it is early, what of [`Turns::awaits`] it waits for, and
    /// whether it is a stranger's.
    pub fn is_early(&mut self, now: Instant, (source, uid): Whose, awaits: UidPrefix, stranger: bool) {
        if self.early.contains_key(&(source, uid)) {
            return;
        }
        let root = self.line_of(&source, &awaits).unwrap_or(awaits);
        let awaited = (source, root);
        if !self.lines.contains_key(&awaited) {
            let deadline = now.checked_add(self.wait).filter(|_| self.given_up.get(&awaited).is_none());
            match deadline {
                Some(at) => drop(self.deadlines.insert((at, awaited))),
                None => self.push_called(awaited),
            }
            self.lines.insert(awaited, Line { members: VecDeque::new(), deadline });
        }
        self.early.insert((source, uid), Early { root, stranger });
        self.strangers = self.strangers.saturating_add(usize::from(stranger));
        let of_source = self.of_source.entry(source).or_default();
        *of_source = of_source.saturating_add(1);
        if let Some(line) = self.lines.get_mut(&awaited) {
            line.members.push_back(uid);
        }
        // Those that wait for this one wait now for what it waits for.
        let behind = (source, uid.prefix());
        if behind != awaited
            && self.lines.get(&behind).is_some_and(|line| line.deadline.is_some())
            && let Some(moving) = self.remove_line(&behind)
        {
            for uid in &moving.members {
                if let Some(early) = self.early.get_mut(&(source, *uid)) {
                    early.root = root;
                }
            }
            if let Some(line) = self.lines.get_mut(&awaited) {
                line.members.extend(moving.members);
            }
        }
    }

    /// After a restart, once all that are early are told: has the store say of each line whether what
    /// it waits for is here by now. To be done with before anything new arrives: it might overtake.
    pub fn ask_again(&mut self) {
        let waiting = self.lines.iter().filter(|(_, line)| line.deadline.is_some());
        self.unsure = waiting.map(|(awaited, _)| *awaited).collect();
    }

    /// A message is in the inbox, or its row cannot be read: the line that waits for it is called.
    pub fn entered(&mut self, whose: Whose) {
        let (source, uid) = whose;
        if let Some(Early { root, stranger }) = self.early.remove(&whose) {
            self.strangers = self.strangers.saturating_sub(usize::from(stranger));
            if let Some(of_source) = self.of_source.get_mut(&source) {
                *of_source = of_source.saturating_sub(1);
                if *of_source == 0 {
                    self.of_source.remove(&source);
                }
            }
            let awaited = (source, root);
            // The store let one enter that this did not know to be next: what it follows is here.
            self.call(&awaited);
            if let Some(line) = self.lines.get_mut(&awaited) {
                match line.members.front() == Some(&uid) {
                    true => drop(line.members.pop_front()),
                    false => line.members.retain(|member| *member != uid),
                }
                if line.members.is_empty() {
                    self.remove_line(&awaited);
                }
            }
        }
        self.call(&(source, uid.prefix()));
    }

    /// Gives up waiting for what is overdue.
    pub fn expire(&mut self, now: Instant) {
        while let Some((at, awaited)) = self.deadlines.first().copied()
            && at <= now
        {
            self.deadlines.remove(&(at, awaited));
            self.given_up.insert(awaited, ());
            self.call(&awaited);
        }
    }

    /// When something is due next.
    pub fn next_wake(&self) -> Option<Instant> {
        self.deadlines.first().map(|(at, _)| *at)
    }

    /// The next ones to enter, in this order; none while others are under way. [`Turns::entered`] is
    /// told of those that did, and [`Turns::answered`] that there is an answer.
    pub fn enter(&mut self) -> Vec<Enters> {
        let mut enter = Vec::new();
        if self.entering {
            return enter;
        }
        let asks = self.unsure.len().saturating_sub(AT_ONCE);
        for (source, root) in self.unsure.split_off(asks) {
            let first = self.lines.get(&(source, root)).and_then(|line| line.members.front());
            enter.extend(first.map(|uid| Enters { source, uid: *uid, force: false }));
        }
        while let Some(awaited) = self.called.front()
            && enter.len() < AT_ONCE
        {
            match self.lines.get(awaited) {
                Some(line) => {
                    let source = awaited.0;
                    let room = AT_ONCE.saturating_sub(enter.len());
                    let members = line.members.iter().take(room);
                    enter.extend(members.map(|uid| Enters { source, uid: *uid, force: true }));
                    break;
                }
                None => drop(self.called.pop_front()),
            }
        }
        self.entering = !enter.is_empty();
        enter
    }

    /// The store has answered, or not taken, those that were under way.
    pub fn answered(&mut self) {
        self.entering = false;
    }

    /// The line of an early message that is named by its prefix.
    fn line_of(&self, source: &Address, prefix: &UidPrefix) -> Option<UidPrefix> {
        let from = (*source, MessageUid::first_of(prefix));
        let ((of, uid), early) = self.early.range(from..).next()?;
        (of == source && uid.prefix() == *prefix).then_some(early.root)
    }

    fn call(&mut self, awaited: &Awaited) {
        if let Some(line) = self.lines.get_mut(awaited)
            && let Some(at) = line.deadline.take()
        {
            self.deadlines.remove(&(at, *awaited));
            self.push_called(*awaited);
        }
    }

    fn push_called(&mut self, awaited: Awaited) {
        self.called.push_back(awaited);
        self.last_called.insert(awaited.0, awaited.1);
    }

    fn last_in(&self, line: &Awaited) -> Option<UidPrefix> {
        Some(self.lines.get(line)?.members.back()?.prefix())
    }

    fn remove_line(&mut self, awaited: &Awaited) -> Option<Line> {
        let line = self.lines.remove(awaited)?;
        if let Some(at) = line.deadline {
            self.deadlines.remove(&(at, *awaited));
        }
        if self.last_called.get(&awaited.0) == Some(&awaited.1) {
            self.last_called.remove(&awaited.0);
        }
        // Usually the first.
        if line.deadline.is_none()
            && let Some(at) = self.called.iter().position(|called| called == awaited)
        {
            self.called.remove(at);
        }
        Some(line)
    }
}

#[cfg(test)]
pub(crate) mod receiver;
#[cfg(test)]
mod tests;
