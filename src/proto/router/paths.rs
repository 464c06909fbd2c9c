//! Looking for paths: this node's own searches, and its part in those of others.
//!
//! A search asks within 2 links, then 8, then as far as it may; what found nothing is not looked
//! for again for 5 s, and twice as long after each further failure. A request of another node is
//! answered from the table or passed on once; the answer, a signed announce, goes back over the
//! links that asked, and so makes the route on its way. Nothing here knows who it is that looks.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, Instant},
};

use hashlink::LruCache;

use crate::{
    crypto::hash::{prefix, sha256},
    proto::{
        announce::Allowance,
        table::{Order, Update},
        verify::{InboundAnnounce, Verified},
    },
    wire::{Address, Announce, Frame, LinkId, control::PathRequest, limits::MAX_HOPS_MAX},
};

use super::{Output, Router, counters::bump};

/// How far each try of a search goes, and how long it waits for an answer: a round trip over that
/// many links, with room for a link or two that are slow.
const RINGS: [(u8, Duration); 3] =
    [(2, Duration::from_secs(1)), (8, Duration::from_secs(3)), (MAX_HOPS_MAX, Duration::from_secs(10))];

/// Searches of this node at a time, 100 bytes each. An outbox asks again for what did not fit.
const SEARCHES_MAX: usize = 256;

/// What was not found is not looked for again so soon…
const FAILED_FOR: Duration = Duration::from_secs(5);

/// …and after many failures not for so long.
const FAILED_FOR_MAX: Duration = Duration::from_secs(600);

/// A failure that nobody repeated for so long after its wait, or for as long as that, is forgotten;
/// a whole search fits in.
const FORGIVEN_AFTER: Duration = Duration::from_secs(60);

/// Destinations whose failure is remembered.
const FAILURES_MAX: usize = 4096;

/// Request ids remembered, 40 bytes each: those of the last 40 s where ten neighbours ask as much
/// as they may.
const IDS_MAX: usize = 4096;

/// How long the links that asked for a destination are remembered.
const ASKED_FOR: Duration = Duration::from_secs(10);

/// Destinations whose askers are remembered.
const ASKED_MAX: usize = 1024;

/// Links remembered for one destination; each stands for any number of nodes behind it.
const ASKERS_MAX: usize = 8;

/// Least time between two newly numbered announces of this node that requests cause, and between
/// two requests for a newer number of one destination.
const NEWER_SPACING: Duration = Duration::from_secs(10);

/// Requests a second over one link; the neighbour takes no more.
const REQUESTS_PER_SECOND: u32 = 10;

/// Of them, those that are kept for this node's own searches.
const REQUESTS_KEPT: u32 = 2;

/// Origins that are known by a reply, which nobody passes on, and not yet by an announce.
const QUIET_MAX: usize = 1024;

/// What became of the wish for a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PathSearch {
    /// There is one.
    Known,
    /// The neighbours were asked.
    Started,
    /// They were asked before, and the search goes on.
    Running,
    /// It was looked for in vain; not again for so long.
    NotYet {
        /// When another search makes sense.
        retry_after: Duration,
    },
    /// As many searches run as may, or the neighbours were asked as often as they answer.
    Busy,
    /// There is no link to ask over.
    NoLinks,
    /// The address is this node's own, or no node's.
    NotLookedFor,
}

/// A search of this node's.
#[derive(Debug)]
struct Search {
    ring: usize,
    next: Instant,
    newer_than: Option<Order>,
}

/// A search that failed.
#[derive(Debug, Clone, Copy)]
struct Failure {
    until: Instant,
    wait: Duration,
}

/// Links that asked for a destination.
#[derive(Debug)]
struct Asked {
    links: Vec<LinkId>,
    until: Instant,
}

/// What the router remembers of searches.
#[derive(Debug)]
pub(super) struct Paths {
    secret: u64,
    ids_made: u64,
    searches: BTreeMap<Address, Search>,
    wakes: BTreeSet<(Instant, Address)>,
    failures: LruCache<Address, Failure>,
    ids: LruCache<[u8; 8], ()>,
    asked: BTreeMap<Address, Asked>,
    budgets: BTreeMap<LinkId, Allowance>,
    /// The order of the announce that a reply brought.
    quiet: LruCache<Address, Order>,
    /// Destinations whose best way may lead back here.
    suspect: BTreeSet<Address>,
    /// Those of them that something was sent to since the last look.
    used: BTreeSet<Address>,
    newer_asked: LruCache<Address, Instant>,
    /// Links that wait for a newly numbered announce of this node.
    fresh_for: Vec<LinkId>,
    fresh_at: Option<Instant>,
}

impl Paths {
    /// Nothing is looked for. `secret` is random: who could tell the next request id from the last
    /// could tell who asks, and use the id up before it is sent.
    pub(super) fn new(secret: u64) -> Self {
        Self {
            secret,
            ids_made: 0,
            searches: BTreeMap::new(),
            wakes: BTreeSet::new(),
            failures: LruCache::new(FAILURES_MAX),
            ids: LruCache::new(IDS_MAX),
            asked: BTreeMap::new(),
            budgets: BTreeMap::new(),
            quiet: LruCache::new(QUIET_MAX),
            suspect: BTreeSet::new(),
            used: BTreeSet::new(),
            newer_asked: LruCache::new(FAILURES_MAX),
            fresh_for: Vec::new(),
            fresh_at: None,
        }
    }

    /// For the fuzzers: what is remembered beside its bounds, with so many links up.
    #[cfg(any(test, feature = "testing"))]
    pub(super) fn sizes(&self, links: usize) -> [(&'static str, usize, usize); 7] {
        [
            ("searches", self.searches.len(), SEARCHES_MAX),
            ("wakes of searches", self.wakes.len(), self.searches.len()),
            ("failures", self.failures.len(), FAILURES_MAX),
            ("request ids", self.ids.len(), IDS_MAX),
            ("askers", self.asked.len(), ASKED_MAX),
            ("budgets", self.budgets.len(), links),
            ("links that wait for a fresh announce", self.fresh_for.len(), links),
        ]
    }

    /// When the next ring of a search is due.
    pub(super) fn next_wake(&self) -> Option<Instant> {
        self.wakes.first().map(|(at, _)| *at)
    }

    pub(super) fn link_down(&mut self, link: LinkId) {
        self.budgets.remove(&link);
        self.fresh_for.retain(|asker| *asker != link);
    }

    /// Notes that something is sent to `destination`; only of interest where its way is in doubt.
    pub(super) fn note_use(&mut self, destination: &Address) {
        if self.suspect.contains(destination) {
            self.used.insert(*destination);
        }
    }

    /// Whether the best way to `destination` may lead back here.
    pub(super) fn set_suspect(&mut self, destination: Address, is_suspect: bool) {
        if is_suspect {
            self.suspect.insert(destination);
        } else {
            self.suspect.remove(&destination);
            self.used.remove(&destination);
        }
    }

    /// Lets a destination be looked for at once, however often it was in vain.
    pub(super) fn forgive(&mut self, destination: &Address) {
        self.failures.remove(destination);
    }

    /// The links that wait for a newly numbered announce, which is here.
    pub(super) fn take_fresh(&mut self) -> Vec<LinkId> {
        std::mem::take(&mut self.fresh_for)
    }

    /// True where the announce of that order came as a reply so far, and so was not passed on. Asked
    /// once.
    pub(super) fn was_quiet(&mut self, origin: &Address, order: Order) -> bool {
        let is_quiet = self.quiet.peek(origin) == Some(&order);
        if is_quiet {
            self.quiet.remove(origin);
        }
        is_quiet
    }

    fn next_id(&mut self) -> [u8; 8] {
        self.ids_made = self.ids_made.wrapping_add(1);
        let id =
            prefix(&sha256(&[b"path request", &self.secret.to_be_bytes(), &self.ids_made.to_be_bytes()]));
        self.is_new(id);
        id
    }

    /// True the first time an id is seen.
    fn is_new(&mut self, id: [u8; 8]) -> bool {
        self.ids.insert(id, ()).is_none()
    }

    /// Whether one more request may go over `link`: one of this node's own, or another's.
    fn may_send(&mut self, now: Instant, link: LinkId, is_own: bool) -> bool {
        let budget = self.budgets.entry(link).or_insert_with(|| Allowance::new(now, REQUESTS_PER_SECOND));
        budget.take_leaving(now, if is_own { 0 } else { REQUESTS_KEPT })
    }

    fn schedule(&mut self, destination: Address, search: Search) {
        self.wakes.insert((search.next, destination));
        self.searches.insert(destination, search);
    }

    fn take_search(&mut self, destination: &Address) -> Option<Search> {
        let search = self.searches.remove(destination)?;
        self.wakes.remove(&(search.next, *destination));
        Some(search)
    }

    fn fail(&mut self, now: Instant, destination: Address) {
        let before = self.failures.get(&destination).copied();
        // What failed long ago counts no more than what never failed.
        let recent = before.filter(|failure| now < failure.until + failure.wait.max(FORGIVEN_AFTER));
        let wait = recent.map_or(FAILED_FOR, |failure| (failure.wait * 2).min(FAILED_FOR_MAX));
        self.failures.insert(destination, Failure { until: now + wait, wait });
    }

    /// Whoever is on `link` wants to hear of a way to `destination`.
    pub(super) fn remember_asker(&mut self, now: Instant, destination: Address, link: LinkId) {
        if self.asked.len() >= ASKED_MAX && !self.asked.contains_key(&destination) {
            self.asked.retain(|_, asked| asked.until > now);
            if self.asked.len() >= ASKED_MAX {
                return;
            }
        }
        let until = now + ASKED_FOR;
        let asked = self.asked.entry(destination).or_insert_with(|| Asked { links: Vec::new(), until });
        if asked.until <= now {
            asked.links.clear();
        }
        asked.until = until;
        if asked.links.len() < ASKERS_MAX && !asked.links.contains(&link) {
            asked.links.push(link);
        }
    }

    /// The links that asked for `destination` and were not answered yet.
    fn take_askers(&mut self, now: Instant, destination: &Address) -> Vec<LinkId> {
        let asked = self.asked.remove(destination).filter(|asked| asked.until > now);
        asked.map_or_else(Vec::new, |asked| asked.links)
    }
}

impl Router {
    /// Looks for a path to `destination`. Drain the outputs after it.
    pub fn search(&mut self, now: Instant, destination: Address) -> PathSearch {
        if destination == self.own || destination.is_reserved() {
            return PathSearch::NotLookedFor;
        }
        if self.is_reachable(&destination) && !self.table.lacks_feasible(&destination) {
            return PathSearch::Known;
        }
        let doubtful = self.table.order(&destination).filter(|_| self.table.lacks_feasible(&destination));
        self.start_search(now, destination, doubtful)
    }

    /// Forgets the ways to `destination` and how often it was looked for in vain; true where there
    /// was a way. A neighbour stays reachable over its own link. Drain the outputs after it.
    pub fn drop_path(&mut self, destination: Address) -> bool {
        self.paths.forgive(&destination);
        let was_there = self.table.drop_ways(&destination);
        self.refresh(destination);
        was_there
    }

    /// This node has something for a destination without a path.
    pub(super) fn want_path(&mut self, now: Instant, destination: Address) {
        if destination != self.own && !destination.is_reserved() && !self.is_reachable(&destination) {
            self.start_search(now, destination, None);
        }
    }

    fn start_search(&mut self, now: Instant, destination: Address, newer_than: Option<Order>) -> PathSearch {
        if self.links.len() == 0 {
            return PathSearch::NoLinks;
        }
        if self.paths.searches.contains_key(&destination) {
            return PathSearch::Running;
        }
        let failed = self.paths.failures.get(&destination).map(|failure| failure.until);
        if let Some(until) = failed.filter(|until| *until > now) {
            return PathSearch::NotYet { retry_after: until.saturating_duration_since(now) };
        }
        if self.paths.searches.len() >= SEARCHES_MAX {
            bump(&mut self.counters.path_searches_refused);
            return PathSearch::Busy;
        }
        // Nobody within two links has a newer announce than the origin's neighbours had.
        let ring = usize::from(newer_than.is_some());
        if !self.ask_ring(now, destination, ring, newer_than) {
            bump(&mut self.counters.path_searches_refused);
            return PathSearch::Busy;
        }
        bump(&mut self.counters.path_searches);
        PathSearch::Started
    }

    /// Asks all neighbours within one ring; false where none of them would answer now.
    fn ask_ring(
        &mut self,
        now: Instant,
        destination: Address,
        ring: usize,
        newer_than: Option<Order>,
    ) -> bool {
        let Some((max_hops, wait)) = RINGS.get(ring).copied() else { return false };
        let request_id = self.paths.next_id();
        let request = PathRequest { request_id, destination, max_hops, hop_count: 0, newer_than };
        if self.send_request(now, None, request) == 0 {
            return false;
        }
        self.paths.schedule(destination, Search { ring, next: now + wait, newer_than });
        true
    }

    /// Sends a request over every link but the one it came over, as far as their budgets go.
    fn send_request(&mut self, now: Instant, ingress: Option<LinkId>, request: PathRequest) -> usize {
        let mut sent = 0usize;
        for link in self.links.ids() {
            if Some(link) == ingress {
                continue;
            }
            if self.paths.may_send(now, link, ingress.is_none()) {
                sent = sent.saturating_add(1);
                bump(&mut self.counters.path_requests_sent);
                self.outputs.push_back(Output::Control(link, Frame::PathRequest(request)));
            } else {
                bump(&mut self.counters.path_requests_over_budget);
            }
        }
        sent
    }

    /// Carries searches on whose ring found nothing in time.
    pub(super) fn continue_searches(&mut self, now: Instant) {
        while let Some((_, destination)) = self.paths.wakes.first().copied().filter(|(at, _)| *at <= now) {
            let Some(search) = self.paths.take_search(&destination) else { break };
            let next_ring = search.ring.saturating_add(1);
            if next_ring >= RINGS.len() {
                bump(&mut self.counters.path_searches_failed);
                self.paths.fail(now, destination);
            } else if !self.ask_ring(now, destination, next_ring, search.newer_than) {
                // The neighbours were asked as often as they answer: the same ring again, later.
                let next = now + Duration::from_secs(1);
                if self.links.len() > 0 {
                    self.paths.schedule(destination, Search { next, ..search });
                }
            }
        }
    }

    /// Asks the origins of doubtful ways, which something was sent over, for newer announces.
    pub(super) fn ask_for_newer(&mut self, now: Instant) {
        while let Some(destination) = self.paths.used.pop_first() {
            let asked = self.paths.newer_asked.get(&destination).copied();
            if asked.is_some_and(|at| now.saturating_duration_since(at) < NEWER_SPACING) {
                continue;
            }
            self.paths.newer_asked.insert(destination, now);
            let order = self.table.order(&destination);
            self.start_search(now, destination, order);
        }
    }

    /// A neighbour looks for a destination, or passes that on.
    pub(super) fn on_path_request(&mut self, now: Instant, link: LinkId, request: &PathRequest) {
        if !self.links.may_ask_path(now, link) {
            return bump(&mut self.counters.path_requests_over_budget);
        }
        bump(&mut self.counters.path_requests);
        let crossed = request.hop_count.saturating_add(1);
        if crossed > request.max_hops || !self.paths.is_new(request.request_id) {
            return bump(&mut self.counters.path_requests_repeated);
        }
        let destination = request.destination;
        if destination == self.own {
            return self.answer_for_itself(now, link, request.newer_than, crossed);
        }
        if !self.config.relay || destination.is_reserved() {
            return;
        }
        if let Some(announce) = self.held_answer(link, request, crossed) {
            bump(&mut self.counters.path_replies_sent);
            return self.outputs.push_back(Output::Control(link, Frame::PathReply(announce)));
        }
        if crossed < request.max_hops {
            if !self.links.may_pass_on(now, link) {
                return bump(&mut self.counters.path_requests_over_budget);
            }
            self.paths.remember_asker(now, destination, link);
            self.send_request(now, Some(link), PathRequest { hop_count: crossed, ..*request });
        }
    }

    /// The announce held here that answers a request from `link`: of a way that neither leads there
    /// nor may lead back, new enough, and signed for as many links as it has to cross.
    fn held_answer(&mut self, link: LinkId, request: &PathRequest, crossed: u8) -> Option<Announce> {
        let destination = request.destination;
        let order = self.table.order(&destination)?;
        let is_new_enough = request.newer_than.is_none_or(|than| order > than);
        let leads_back =
            self.table.links_of(&destination).contains(&link) || self.table.lacks_feasible(&destination);
        if !is_new_enough || leads_back {
            return None;
        }
        let announce = self.table.announce_to_send(&destination)?;
        (u16::from(announce.hop_count) + u16::from(crossed) <= u16::from(announce.content.max_hops))
            .then_some(announce)
    }

    /// Somebody looks for this node.
    fn answer_for_itself(&mut self, now: Instant, link: LinkId, newer_than: Option<Order>, crossed: u8) {
        let fits = |announce: &&Announce| {
            let content = &announce.content;
            crossed <= content.max_hops && newer_than.is_none_or(|than| content.order() > than)
        };
        if let Some(announce) = self.own_announce.as_ref().filter(fits) {
            bump(&mut self.counters.path_replies_sent);
            return self.outputs.push_back(Output::Control(link, Frame::PathReply(announce.clone())));
        }
        let is_soon = |at: Instant| now.saturating_duration_since(at) < NEWER_SPACING;
        if self.paths.fresh_at.is_some_and(is_soon) {
            return bump(&mut self.counters.path_requests_over_budget);
        }
        self.paths.fresh_at = Some(now);
        self.paths.fresh_for.push(link);
        self.outputs.push_back(Output::AnnounceDue { max_hops: MAX_HOPS_MAX });
    }

    /// An answer to a request came: it makes a route as an announce does, and goes back to those
    /// who asked.
    pub(super) fn on_path_reply(&mut self, now: Instant, link: LinkId, inbound: &Verified<InboundAnnounce>) {
        let origin = inbound.origin;
        let Some(via) = self.via(now, link, &origin) else { return };
        if origin == self.own {
            return self.on_announce(now, link, inbound);
        }
        bump(&mut self.counters.path_replies);
        let update = self.take_announce(now, inbound, &via);
        if matches!(update, Update::Rejected(_)) {
            return;
        }
        self.rerank(now, origin);
        if update == Update::Newer {
            self.paths.quiet.insert(origin, inbound.announce.content.order());
        }
        self.answer_askers(now, Some(link), &origin);
        self.end_search(&origin);
    }

    /// Passes what is known of `origin` now to the links that asked for it.
    pub(super) fn answer_askers(&mut self, now: Instant, from: Option<LinkId>, origin: &Address) {
        // Who asked waits on while there is nothing to say.
        let best = self.table.ways(origin).next().map(|hop| hop.link);
        if best.is_none() || !self.config.relay || self.table.lacks_feasible(origin) {
            return;
        }
        let askers = self.paths.take_askers(now, origin);
        if askers.is_empty() {
            return;
        }
        let Some(announce) = self.table.announce_to_send(origin) else { return };
        let may_have =
            |link: &LinkId| Some(*link) != from && Some(*link) != best && self.links.contains(*link);
        for link in askers.into_iter().filter(may_have) {
            bump(&mut self.counters.path_replies_sent);
            self.outputs.push_back(Output::Control(link, Frame::PathReply(announce.clone())));
        }
    }

    /// The flood of an announce answers those who asked, too.
    pub(super) fn forget_askers(&mut self, now: Instant, origin: &Address) {
        self.paths.take_askers(now, origin);
    }

    /// Ends the search for a destination that has a sound way now.
    pub(super) fn end_search(&mut self, destination: &Address) {
        if self.is_reachable(destination) && !self.table.lacks_feasible(destination) {
            self.paths.take_search(destination);
            self.paths.forgive(destination);
        }
    }
}
