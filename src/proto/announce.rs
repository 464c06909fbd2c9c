//! When this node announces itself, and what it passes on of others.
//!
//! Its own announce is due at the start, a second after its links changed, and every ten minutes.
//! Most announces stay near: 8 links, every fourth 32, every sixteenth 128; whoever is farther
//! away asks for a path. In a mesh of a few dozen nodes one after a change of links goes all the
//! way all the same: it costs little there, and people who watch see it converge at once. Where
//! there are so many nodes that their announces would fill the budget, intervals stretch.
//!
//! Announces of others go on once each under a budget of the whole node. What is over the budget
//! waits and goes on as its origin's newest; so does what a new neighbour is told of the table. Over
//! thin links they go a random while later, and not to neighbours that carried them meanwhile.

mod create;
mod received;

pub use create::{AnnounceParts, create_announce};
pub use received::{AnnounceDedup, Freshness, process_received_announce};

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    time::{Duration, Instant},
};

use crate::wire::{Address, LinkId, limits::MAX_HOPS_MAX};

/// Time between two announces of this node.
pub const ANNOUNCE_INTERVAL: Duration = Duration::from_secs(600);

/// Announces a second that this node passes on, all links together.
pub const ANNOUNCES_PER_SECOND: u32 = 50;

/// Wait after a change of links, so that links that come together make one announce.
const SETTLE: Duration = Duration::from_secs(1);

/// Least time between two announces of this node, whatever its links do.
const SPACING: Duration = Duration::from_secs(10);

/// Destinations up to which a mesh counts as small. Every change of a link is heard by all of them,
/// so the cost of one that flaps grows with this.
const SMALL_MESH: usize = 128;

/// Destinations whose announces, one each interval, take half the budget of a node with the default
/// interval: above, the interval stretches with their number.
const STRETCH_ABOVE: usize = 15_000;

/// How far an interval stretches: routes hold for half an hour, so that one announce may be lost
/// even then.
const STRETCH_TENTHS_MAX: u32 = 14;

/// How long whoever lost a way waits for what is known here: withdrawals have to reach those whose
/// ways led through it, lest it is told of its own lost way.
const ANSWER_AFTER: Duration = Duration::from_secs(1);

/// Origins whose announce may wait to be passed on. A table page at the next link-up, or the
/// origin's next announce, makes up for one that found no room.
const WAITING_MAX: usize = 4096;

/// How long an announce waits at most before it goes on over thin links. Neighbours that heard it
/// together would send it together otherwise; 160 bytes take most of a second at SF9, so that in a
/// spread of some of those most of them hear a copy of another first.
const THIN_SPREAD: Duration = Duration::from_secs(4);

/// Links remembered that brought what waits; where more did, they get a copy each.
const CARRIED_MAX: usize = 32;

/// When this node's own announce is due, and how far it goes.
#[derive(Debug)]
pub struct AnnounceSchedule {
    interval: Duration,
    jitter: Spread,
    made: u64,
    last: Option<Instant>,
    next: Instant,
    links_changed: bool,
}

impl AnnounceSchedule {
    /// The first one is due at `now`. `jitter` is random; it takes up to a tenth off each interval,
    /// so that nodes which started together do not announce together for ever.
    pub fn new(now: Instant, interval: Duration, jitter: u64) -> Self {
        Self { interval, jitter: Spread(jitter), made: 0, last: None, next: now, links_changed: true }
    }

    /// A link came or went: neighbours should hear of it soon.
    pub fn links_changed(&mut self, now: Instant) {
        let earliest = self.last.map_or(now, |last| last + SPACING);
        self.next = self.next.min(earliest.max(now + SETTLE));
        self.links_changed = true;
    }

    /// The hop limit to sign where an announce is due, in a mesh of `destinations`. The next one is
    /// scheduled by that.
    pub fn due(&mut self, now: Instant, destinations: usize) -> Option<u8> {
        if now < self.next {
            return None;
        }
        let by_turn = match self.made {
            turn if turn.is_multiple_of(16) => MAX_HOPS_MAX,
            turn if turn.is_multiple_of(4) => 32,
            _ => 8,
        };
        let goes_far = self.links_changed && destinations <= SMALL_MESH;
        self.links_changed = false;
        self.made = self.made.saturating_add(1);
        self.last = Some(now);
        self.next = now + self.next_interval(destinations);
        Some(if goes_far { MAX_HOPS_MAX } else { by_turn })
    }

    /// When the next one is due.
    pub fn next_wake(&self) -> Instant {
        self.next
    }

    fn next_interval(&mut self, destinations: usize) -> Duration {
        let thousandths = self.jitter.thousandths(100);
        let tenths = destinations.saturating_mul(10) / STRETCH_ABOVE;
        let tenths = u32::try_from(tenths).unwrap_or(u32::MAX).clamp(10, STRETCH_TENTHS_MAX);
        let interval = self.interval * tenths / 10;
        interval.saturating_sub(interval * thousandths / 1000)
    }
}

/// What is sent next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Send {
    /// The newest announce of this origin, over every fast link whose neighbour did not bring it.
    Flood(Address),
    /// The same over every thin link, but not over these: their neighbours have it.
    FloodThin(Address, Vec<LinkId>),
    /// What is known of this origin, to the neighbours that lost their way to it and asked.
    Answer(Address),
    /// The next page of the digest, or the next announce it lacks, to one neighbour.
    Page(LinkId),
}

/// What is to be passed on, under the budget.
#[derive(Debug)]
pub struct FloodQueue {
    allowance: Allowance,
    waiting: VecDeque<Address>,
    is_waiting: BTreeSet<Address>,
    /// The origins that wait for their turn on thin links, with the links that brought the same
    /// announce meanwhile, and in the order of their turns.
    thin: BTreeMap<Address, Vec<LinkId>>,
    thin_due: BTreeSet<(Instant, Address)>,
    spread: Spread,
    /// Origins whose way a neighbour withdrew, by when it is answered, and as a set.
    answers: VecDeque<(Instant, Address)>,
    is_answered: BTreeSet<Address>,
    /// Links that are being told the table.
    pages: BTreeSet<LinkId>,
    last_page: Option<LinkId>,
    refused: u64,
}

/// Random waits. One step of a multiplicative generator each: nothing here has to be hard to guess.
#[derive(Debug)]
struct Spread(u64);

impl Spread {
    /// So many thousandths, below `bound`.
    fn thousandths(&mut self, bound: u32) -> u32 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        u32::try_from((self.0 >> 33) % u64::from(bound.max(1))).unwrap_or(0)
    }
}

impl FloodQueue {
    /// Nothing waits and the budget of `per_second` announces is full. `jitter` is random.
    pub fn new(now: Instant, per_second: u32, jitter: u64) -> Self {
        Self {
            allowance: Allowance::new(now, per_second),
            waiting: VecDeque::new(),
            is_waiting: BTreeSet::new(),
            thin: BTreeMap::new(),
            thin_due: BTreeSet::new(),
            spread: Spread(jitter),
            answers: VecDeque::new(),
            is_answered: BTreeSet::new(),
            pages: BTreeSet::new(),
            last_page: None,
            refused: 0,
        }
    }

    /// Passes `origin`'s newest announce on over all fast links.
    pub fn flood(&mut self, origin: Address) {
        if self.waiting.len() >= WAITING_MAX {
            self.refused = self.refused.saturating_add(1);
        } else if self.is_waiting.insert(origin) {
            self.waiting.push_back(origin);
        }
    }

    /// Passes `origin`'s newest announce on over all thin links, a random while later.
    pub fn flood_thin(&mut self, now: Instant, origin: Address) {
        if let Some(carried) = self.thin.get_mut(&origin) {
            // A newer one in the place of one that waits: nobody has carried that yet.
            carried.clear();
        } else if self.thin.len() >= WAITING_MAX {
            self.refused = self.refused.saturating_add(1);
        } else {
            let due = now + THIN_SPREAD * self.spread.thousandths(1000) / 1000;
            self.thin_due.insert((due, origin));
            self.thin.insert(origin, Vec::new());
        }
    }

    /// `link` brought what waits to be passed on over thin links: its neighbour needs no copy.
    pub fn carried(&mut self, origin: &Address, link: LinkId) {
        if let Some(carried) = self.thin.get_mut(origin)
            && carried.len() < CARRIED_MAX
            && !carried.contains(&link)
        {
            carried.push(link);
        }
    }

    /// A neighbour has no way to `origin` any more: what is known here helps it once all who went
    /// through it have heard that too.
    pub fn answer(&mut self, now: Instant, origin: Address) {
        if self.answers.len() >= WAITING_MAX {
            self.refused = self.refused.saturating_add(1);
        } else if self.is_answered.insert(origin) {
            self.answers.push_back((now + ANSWER_AFTER, origin));
        }
    }

    /// There is something of the table to tell `link`.
    pub fn tell_table(&mut self, link: LinkId) {
        self.pages.insert(link);
    }

    /// The link is gone.
    pub fn link_down(&mut self, link: LinkId) {
        self.pages.remove(&link);
    }

    /// A page was told to `link`; whether there is more.
    pub fn told(&mut self, link: LinkId, is_more: bool) {
        if !is_more {
            self.pages.remove(&link);
        }
    }

    /// What to send now; none where nothing waits or the budget is spent. News come first, then who
    /// lost a way, then each new neighbour in turn.
    pub fn next(&mut self, now: Instant) -> Option<Send> {
        let is_due = self.answers.front().is_some_and(|(at, _)| *at <= now);
        let thin_due = self.thin_due.first().copied().filter(|(at, _)| *at <= now);
        let is_idle = self.waiting.is_empty() && thin_due.is_none() && self.pages.is_empty() && !is_due;
        if is_idle || !self.allowance.take(now) {
            return None;
        }
        if let Some(origin) = self.waiting.pop_front() {
            self.is_waiting.remove(&origin);
            return Some(Send::Flood(origin));
        }
        if let Some(due) = thin_due {
            self.thin_due.remove(&due);
            let carried = self.thin.remove(&due.1).unwrap_or_default();
            return Some(Send::FloodThin(due.1, carried));
        }
        if is_due && let Some((_, origin)) = self.answers.pop_front() {
            self.is_answered.remove(&origin);
            return Some(Send::Answer(origin));
        }
        let after = self.last_page.unwrap_or(LinkId(0));
        let mut rest = self.pages.range(LinkId(after.0.saturating_add(1))..);
        let link = *rest.next().or_else(|| self.pages.first())?;
        self.last_page = Some(link);
        Some(Send::Page(link))
    }

    /// True where nothing waits.
    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty() && self.thin.is_empty() && self.pages.is_empty() && self.answers.is_empty()
    }

    /// When to call [`FloodQueue::next`] again.
    pub fn next_wake(&self) -> Option<Instant> {
        let ready_at = self.allowance.ready_at();
        if !self.waiting.is_empty() || !self.pages.is_empty() {
            return Some(ready_at);
        }
        let answer = self.answers.front().map(|(at, _)| *at);
        let thin = self.thin_due.first().map(|(at, _)| *at);
        answer.into_iter().chain(thin).min().map(|at| at.max(ready_at))
    }

    /// Announces that found no room.
    pub fn refused(&self) -> u64 {
        self.refused
    }
}

/// So many a second, and as many at once after a quiet second.
#[derive(Debug)]
pub(super) struct Allowance {
    per_second: u32,
    /// When the allowance would be full again.
    full_at: Instant,
}

impl Allowance {
    pub(super) fn new(now: Instant, per_second: u32) -> Self {
        Self { per_second: per_second.max(1), full_at: now }
    }

    /// Takes one where there is one.
    pub(super) fn take(&mut self, now: Instant) -> bool {
        self.take_leaving(now, 0)
    }

    /// Takes one where it leaves so many.
    pub(super) fn take_leaving(&mut self, now: Instant, left: u32) -> bool {
        let after = self.full_at.max(now) + self.price();
        let spared = self.price().saturating_mul(left);
        if after.saturating_duration_since(now).saturating_add(spared) > Duration::from_secs(1) {
            return false;
        }
        self.full_at = after;
        true
    }

    /// When there is one.
    pub(super) fn ready_at(&self) -> Instant {
        let spare = Duration::from_secs(1).saturating_sub(self.price());
        self.full_at.checked_sub(spare).unwrap_or(self.full_at)
    }

    fn price(&self) -> Duration {
        Duration::from_secs(1) / self.per_second
    }
}

#[cfg(test)]
mod tests;
