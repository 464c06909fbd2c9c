//! The links of a router, and what it remembers of each.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, Instant},
};

use hashlink::LruCache;

use crate::{
    crypto::compute_address,
    proto::{announce::Allowance, table::LinkClass},
    wire::{Address, LinkId, PublicKey},
};

use super::LinkInfo;

/// Sources whose key a link is known to have carried, 80 bytes each. The neighbour remembers as
/// many, and asks where it forgot one.
const KEYS_SENT_MAX: usize = 1024;

/// Path requests a second that a neighbour gets answered.
const PATH_REQUESTS_PER_SECOND: u32 = 10;

/// Of them, those that are passed on, of all who come from one address: half of what a link carries, so
/// that others find paths beside one who asks for what is not there.
const PATH_REQUESTS_PASSED_PER_SECOND: u32 = 5;

/// Key questions a second that a neighbour gets answered.
const KEY_QUESTIONS_PER_SECOND: u32 = 100;

/// Least time between two answers to stale announces.
const STALE_ANSWER_SPACING: Duration = Duration::from_secs(10);

/// Neighbours whose questions are counted; who asked longest ago gives way.
const QUESTIONERS_MAX: usize = 16_384;

/// How long a neighbour counts as new, and may fill a small share of the table alone.
const YOUNG_FOR: Duration = Duration::from_secs(5 * 60);

/// One link.
#[derive(Debug)]
pub(super) struct LinkState {
    pub(super) neighbour: Address,
    /// Whose share of the table it uses.
    pub(super) account: Address,
    pub(super) peer: PublicKey,
    pub(super) class: LinkClass,
    pub(super) trusted: bool,
    keys_sent: LruCache<Address, ()>,
    up_since: Instant,
}

/// What a neighbour may ask, over all its links and for a while beyond them: who dials again, or
/// twice, gets no more than who does not.
#[derive(Debug)]
struct Questions {
    path_requests: Allowance,
    key_questions: Allowance,
    stale_answered: Option<Instant>,
}

impl Questions {
    fn new(now: Instant) -> Self {
        Self {
            path_requests: Allowance::new(now, PATH_REQUESTS_PER_SECOND),
            key_questions: Allowance::new(now, KEY_QUESTIONS_PER_SECOND),
            stale_answered: None,
        }
    }
}

impl LinkState {
    /// True the first time an envelope of `source` goes over this link: its key goes along.
    pub(super) fn is_first_of(&mut self, source: &Address) -> bool {
        if self.keys_sent.get(source).is_some() {
            return false;
        }
        self.keys_sent.insert(*source, ());
        true
    }

    /// True where airtime is dear.
    pub(super) fn is_thin(&self) -> bool {
        self.class > LinkClass::Unconstrained
    }

    pub(super) fn is_young(&self, now: Instant) -> bool {
        now.saturating_duration_since(self.up_since) < YOUNG_FOR
    }
}

/// All links that are up.
#[derive(Debug)]
pub(super) struct Links {
    links: BTreeMap<LinkId, LinkState>,
    /// Of them, the thin ones.
    thin: usize,
    /// By neighbour, the best link first.
    neighbours: BTreeMap<Address, BTreeSet<(LinkClass, LinkId)>>,
    questions: LruCache<Address, Questions>,
    /// By account.
    passed: LruCache<Address, Allowance>,
}

impl Links {
    /// None.
    pub(super) fn new() -> Self {
        Self {
            links: BTreeMap::new(),
            thin: 0,
            neighbours: BTreeMap::new(),
            questions: LruCache::new(QUESTIONERS_MAX),
            passed: LruCache::new(QUESTIONERS_MAX),
        }
    }

    /// Adds a link and gives its neighbour's address; none where it is known already.
    pub(super) fn insert(&mut self, now: Instant, info: LinkInfo) -> Option<Address> {
        if self.links.contains_key(&info.link) {
            return None;
        }
        let neighbour = compute_address(&info.peer);
        let state = LinkState {
            neighbour,
            account: info.account.unwrap_or(neighbour),
            peer: info.peer,
            class: info.class,
            trusted: info.trusted,
            keys_sent: LruCache::new(KEYS_SENT_MAX),
            up_since: now,
        };
        self.thin = self.thin.saturating_add(usize::from(state.is_thin()));
        self.links.insert(info.link, state);
        self.neighbours.entry(neighbour).or_default().insert((info.class, info.link));
        Some(neighbour)
    }

    /// Takes a link out and gives its neighbour's address.
    pub(super) fn remove(&mut self, link: LinkId) -> Option<Address> {
        let state = self.links.remove(&link)?;
        self.thin = self.thin.saturating_sub(usize::from(state.is_thin()));
        if let Some(set) = self.neighbours.get_mut(&state.neighbour) {
            set.remove(&(state.class, link));
            if set.is_empty() {
                self.neighbours.remove(&state.neighbour);
            }
        }
        Some(state.neighbour)
    }

    pub(super) fn get(&self, link: LinkId) -> Option<&LinkState> {
        self.links.get(&link)
    }

    pub(super) fn get_mut(&mut self, link: LinkId) -> Option<&mut LinkState> {
        self.links.get_mut(&link)
    }

    pub(super) fn contains(&self, link: LinkId) -> bool {
        self.links.contains_key(&link)
    }

    /// True where a thin link is up.
    pub(super) fn has_thin(&self) -> bool {
        self.thin > 0
    }

    pub(super) fn len(&self) -> usize {
        self.links.len()
    }

    pub(super) fn ids(&self) -> Vec<LinkId> {
        self.links.keys().copied().collect()
    }

    pub(super) fn ids_where(&self, fits: impl Fn(LinkId, &LinkState) -> bool) -> Vec<LinkId> {
        self.links.iter().filter(|(link, state)| fits(**link, state)).map(|(link, _)| *link).collect()
    }

    /// The links to one neighbour, the best first.
    pub(super) fn to_neighbour(&self, neighbour: &Address) -> impl Iterator<Item = LinkId> + '_ {
        self.neighbours.get(neighbour).into_iter().flatten().map(|(_, link)| *link)
    }

    /// The neighbour's key.
    pub(super) fn peer_key(&self, neighbour: &Address) -> Option<PublicKey> {
        let (_, link) = self.neighbours.get(neighbour)?.first()?;
        self.links.get(link).map(|state| state.peer)
    }

    /// Whether a stale announce over its origin's own link is answered now.
    pub(super) fn may_answer_stale(&mut self, now: Instant, link: LinkId) -> bool {
        let Some(questions) = self.questions(now, link) else { return false };
        let is_soon = |at: &Instant| now.saturating_duration_since(*at) < STALE_ANSWER_SPACING;
        if questions.stale_answered.as_ref().is_some_and(is_soon) {
            return false;
        }
        questions.stale_answered = Some(now);
        true
    }

    /// Whether one more path is looked for because this link's neighbour asks.
    pub(super) fn may_ask_path(&mut self, now: Instant, link: LinkId) -> bool {
        self.questions(now, link).is_some_and(|questions| questions.path_requests.take(now))
    }

    /// Whether one more path that is not known here is asked for because this link's neighbour asks.
    pub(super) fn may_pass_on(&mut self, now: Instant, link: LinkId) -> bool {
        let Some(account) = self.links.get(&link).map(|state| state.account) else { return false };
        let fresh = || Allowance::new(now, PATH_REQUESTS_PASSED_PER_SECOND);
        self.passed.entry(account).or_insert_with(fresh).take(now)
    }

    /// Whether one more question of this link's neighbour for a key is answered.
    pub(super) fn may_ask_key(&mut self, now: Instant, link: LinkId) -> bool {
        self.questions(now, link).is_some_and(|questions| questions.key_questions.take(now))
    }

    fn questions(&mut self, now: Instant, link: LinkId) -> Option<&mut Questions> {
        let neighbour = self.links.get(&link)?.neighbour;
        Some(self.questions.entry(neighbour).or_insert_with(|| Questions::new(now)))
    }
}
