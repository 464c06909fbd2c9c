//! What happens in a node, told as it happens: links, routes, messages, refusals, limits.
//!
//! For people who look on and for programs that react; nothing in the node is decided by it. The last
//! events of each class are kept, so that a busy flow of one does not push out another, and whoever
//! follows gets all from there on, or is told how many it missed. What can happen thousands of times a
//! second by the will of others (refusals, limits) is counted, and told once a second.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use serde::{Deserialize, Serialize};
use tokio::sync::broadcast;

use crate::{
    clock,
    wire::{Address, MessageUid},
};

/// Events of one class that are kept.
pub const KEPT_OF_CLASS: usize = 256;

/// Events that a slow follower may be behind before it misses some.
const FOLLOWER_LAG: usize = 1024;

/// Time between two events of the same count.
const COUNT_EVERY: Duration = Duration::from_secs(1);

/// Counts under way; further kinds wait for a free place and are not told.
const COUNTS_MAX: usize = 1024;

/// Something that happened.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Event {
    /// Its place in the order of events, from 1 at the start of the node.
    pub seq: u64,
    /// When, in milliseconds since 1970 by this machine's clock.
    pub at_unix_ms: u64,
    /// What.
    #[serde(flatten)]
    pub kind: EventKind,
}

/// What happened.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
#[non_exhaustive]
pub enum EventKind {
    /// A link to a neighbour is up.
    LinkUp {
        /// Who.
        peer: Address,
        /// Where it was dialled, or where it came from.
        url: String,
        /// `in` or `out`.
        direction: String,
    },
    /// A link is down.
    LinkDown {
        /// Who.
        peer: Address,
        /// As of the event when it came up.
        url: String,
        /// Why, by name.
        reason: String,
        /// What its end said, or the error.
        text: String,
        /// True where the peer closed it.
        by_peer: bool,
    },
    /// There is a way to a destination.
    RouteUp {
        /// Which.
        destination: Address,
    },
    /// There is none any more.
    RouteDown {
        /// Which.
        destination: Address,
    },
    /// A message of this node is on its disk.
    Accepted {
        /// Which.
        id: MessageUid,
        /// Whom for.
        to: Address,
        /// Bytes of content.
        size: u64,
    },
    /// A message arrived and is on this node's disk.
    Received {
        /// Which.
        id: MessageUid,
        /// Who signed it.
        from: Address,
        /// Bytes of content.
        size: u64,
        /// Whether it went to everyone.
        broadcast: bool,
        /// It waits for its sender to be accepted (`qpc requests`).
        request: bool,
    },
    /// A message of this node was delivered, by its destination's signed receipt.
    Delivered {
        /// Which.
        id: MessageUid,
        /// Whom to.
        to: Address,
        /// From the first transmission to the receipt.
        rtt_ms: Option<f64>,
    },
    /// A message of this node ended in another way.
    Ended {
        /// Which.
        id: MessageUid,
        /// Whom for.
        to: Address,
        /// `expired`, `failed` or `cancelled`.
        outcome: String,
    },
    /// Something was refused, so many times since the last event of this kind.
    Refused {
        /// `link` or `message`.
        what: String,
        /// Why, by the name that the metrics have for it.
        reason: String,
        /// How often.
        count: u64,
    },
    /// A neighbour sent more than its budget and was read more slowly, so many times since the last
    /// event of this kind.
    Limited {
        /// Who.
        peer: Address,
        /// How often.
        count: u64,
    },
    /// How pressed the node is: 0 not at all, and the higher the more is refused.
    Pressure {
        /// The level.
        level: u8,
    },
    /// The configuration was read again.
    Reloaded {
        /// Keys that hold with other values from now on.
        changed: Vec<String>,
    },
    /// Whoever follows was too slow and missed events.
    Missed {
        /// How many.
        count: u64,
    },
}

/// Classes share nothing of what is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Class {
    Link,
    Route,
    Message,
    Limit,
}

impl EventKind {
    fn class(&self) -> Class {
        match self {
            Self::LinkUp { .. } | Self::LinkDown { .. } => Class::Link,
            Self::RouteUp { .. } | Self::RouteDown { .. } => Class::Route,
            Self::Accepted { .. } | Self::Received { .. } | Self::Delivered { .. } | Self::Ended { .. } => {
                Class::Message
            }
            Self::Refused { .. }
            | Self::Limited { .. }
            | Self::Pressure { .. }
            | Self::Reloaded { .. }
            | Self::Missed { .. } => Class::Limit,
        }
    }
}

/// What is counted before it is told.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Counted {
    Refused { what: &'static str, reason: &'static str },
    Limited { peer: Address },
}

impl Counted {
    fn event(&self, count: u64) -> EventKind {
        match self {
            Self::Refused { what, reason } => {
                EventKind::Refused { what: (*what).into(), reason: (*reason).into(), count }
            }
            Self::Limited { peer } => EventKind::Limited { peer: *peer, count },
        }
    }
}

#[derive(Debug, Clone, Copy)]
struct Count {
    told_at: Instant,
    since: u64,
}

#[derive(Debug, Default)]
struct Kept {
    last: u64,
    of_class: BTreeMap<Class, VecDeque<Event>>,
    counts: BTreeMap<Counted, Count>,
}

/// The events of one node. Cheap to clone; all clones are one.
#[derive(Debug, Clone)]
pub struct Events(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    kept: Mutex<Kept>,
    followers: broadcast::Sender<Event>,
}

impl Default for Events {
    fn default() -> Self {
        let (followers, _) = broadcast::channel(FOLLOWER_LAG);
        Self(Arc::new(Shared { kept: Mutex::default(), followers }))
    }
}

impl Events {
    /// Tells of something.
    pub fn tell(&self, kind: EventKind) {
        self.tell_locked(&mut self.kept(), kind);
    }

    /// Something was refused, `count` times.
    pub fn refused(&self, what: &'static str, reason: &'static str, count: u64) {
        self.count(Counted::Refused { what, reason }, count);
    }

    /// A neighbour was read more slowly.
    pub fn limited(&self, peer: Address) {
        self.count(Counted::Limited { peer }, 1);
    }

    /// Tells counts whose time has come. Called about once a second.
    pub fn tell_counts(&self) {
        let now = clock::now();
        let kept = &mut *self.kept();
        let mut due = Vec::new();
        kept.counts.retain(|what, count| {
            let is_due = now.saturating_duration_since(count.told_at) >= COUNT_EVERY;
            if is_due && count.since > 0 {
                due.push(what.event(count.since));
                *count = Count { told_at: now, since: 0 };
                return true;
            }
            !is_due
        });
        for kind in due {
            self.tell_locked(kept, kind);
        }
    }

    /// What is kept, oldest first, and everything from there on.
    pub fn follow(&self) -> Follower {
        // Both under the lock, so that nothing falls between them.
        let kept = self.kept();
        let mut recent: Vec<Event> = kept.of_class.values().flatten().cloned().collect();
        recent.sort_unstable_by_key(|event| event.seq);
        Follower { recent: recent.into(), coming: self.0.followers.subscribe() }
    }

    fn count(&self, what: Counted, count: u64) {
        let now = clock::now();
        let kept = &mut *self.kept();
        if let Some(running) = kept.counts.get_mut(&what) {
            running.since = running.since.saturating_add(count);
            return;
        }
        if kept.counts.len() < COUNTS_MAX {
            // The first is told at once.
            let kind = what.event(count);
            kept.counts.insert(what, Count { told_at: now, since: 0 });
            self.tell_locked(kept, kind);
        }
    }

    fn tell_locked(&self, kept: &mut Kept, kind: EventKind) {
        kept.last = kept.last.saturating_add(1);
        let event = Event { seq: kept.last, at_unix_ms: clock::unix_ms(), kind };
        let class = kept.of_class.entry(event.kind.class()).or_default();
        if class.len() >= KEPT_OF_CLASS {
            class.pop_front();
        }
        if self.0.followers.receiver_count() > 0 {
            // Nobody follows any more: fine.
            let _ = self.0.followers.send(event.clone());
        }
        class.push_back(event);
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        // No operation leaves it half changed, so a poisoned lock is taken over.
        self.0.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Gives events one after the other.
#[derive(Debug)]
pub struct Follower {
    recent: VecDeque<Event>,
    coming: broadcast::Receiver<Event>,
}

impl Follower {
    /// The next of those that are past; none once all were given.
    pub fn past(&mut self) -> Option<Event> {
        self.recent.pop_front()
    }

    /// The next event, past or to come; none once the node is gone. Cancel-safe.
    pub async fn next(&mut self) -> Option<Event> {
        if let Some(event) = self.past() {
            return Some(event);
        }
        match self.coming.recv().await {
            Ok(event) => Some(event),
            Err(broadcast::error::RecvError::Lagged(count)) => {
                Some(Event { seq: 0, at_unix_ms: clock::unix_ms(), kind: EventKind::Missed { count } })
            }
            Err(broadcast::error::RecvError::Closed) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn route(n: u64) -> EventKind {
        EventKind::RouteUp { destination: Address(u128::from(n).to_be_bytes()) }
    }

    #[tokio::test(start_paused = true)]
    async fn a_busy_class_pushes_out_no_other_and_nothing_falls_between_past_and_future() {
        let events = Events::default();
        events.tell(EventKind::Pressure { level: 1 });
        (0..KEPT_OF_CLASS as u64 * 2).for_each(|n| events.tell(route(n)));
        let mut follower = events.follow();
        events.tell(EventKind::Pressure { level: 0 });
        let mut seen = Vec::new();
        while let Some(event) = follower.past() {
            seen.push(event);
        }
        assert_eq!(seen.len(), KEPT_OF_CLASS + 1);
        assert_eq!(seen[0].kind, EventKind::Pressure { level: 1 });
        assert!(seen.windows(2).all(|pair| pair[0].seq < pair[1].seq));
        let next = follower.next().await.unwrap();
        assert_eq!((next.kind, next.seq), (EventKind::Pressure { level: 0 }, KEPT_OF_CLASS as u64 * 2 + 2));
    }

    #[tokio::test(start_paused = true)]
    async fn who_is_too_slow_is_told_how_much_it_missed() {
        let events = Events::default();
        let mut follower = events.follow();
        let many = FOLLOWER_LAG as u64 + 10;
        (0..many).for_each(|n| events.tell(route(n)));
        assert_eq!(follower.next().await.unwrap().kind, EventKind::Missed { count: 10 });
        assert_eq!(follower.next().await.unwrap().kind, route(10));
    }

    #[tokio::test(start_paused = true)]
    async fn what_others_can_cause_is_counted_and_told_once_a_second() {
        let events = Events::default();
        let told = |events: &Events| {
            let mut follower = events.follow();
            std::iter::from_fn(|| follower.past()).map(|event| event.kind).collect::<Vec<_>>()
        };
        let refused =
            |count| EventKind::Refused { what: "message".into(), reason: "inbox_full".into(), count };
        (0..1000).for_each(|_| events.refused("message", "inbox_full", 1));
        events.tell_counts();
        assert_eq!(told(&events), [refused(1)], "the first at once");
        tokio::time::advance(COUNT_EVERY).await;
        events.tell_counts();
        assert_eq!(told(&events), [refused(1), refused(999)]);
        // Nothing more happened: nothing is told, and nothing is kept for it.
        tokio::time::advance(COUNT_EVERY).await;
        events.tell_counts();
        assert_eq!(told(&events).len(), 2);
        assert!(events.kept().counts.is_empty());
    }

    #[test]
    fn kinds_of_counts_are_bounded() {
        let events = Events::default();
        (0..COUNTS_MAX as u128 * 2).for_each(|n| events.limited(Address(n.to_be_bytes())));
        assert_eq!(events.kept().counts.len(), COUNTS_MAX);
    }

    #[test]
    fn an_event_is_one_flat_object() {
        let event = Event { seq: 7, at_unix_ms: 5, kind: EventKind::Pressure { level: 2 } };
        let json = serde_json::to_string(&event).unwrap();
        assert_eq!(json, r#"{"seq":7,"at_unix_ms":5,"event":"pressure","level":2}"#);
        assert_eq!(serde_json::from_str::<Event>(&json).unwrap(), event);
    }
}
