//! Messages that follow each other, as their sender sees them.
//!
//! A destination has what came before its predecessor wait, but for a minute and in so many places
//! ([`Turns`](crate::proto::delivery::Turns)). So a sender does two things for the order of what it sends.
//! It does not go further ahead of a message without an answer than the destination has places
//! ([`Lines::may_go`]). And it does not leave such a message to its timer, whose waits grow beyond that
//! minute, once the destination answers what was sent after it: that one was lost, and goes again at once
//! ([`Lines::lost`], the time-based loss detection of RFC 9002, section 6.1.2, with the receipts for
//! acknowledgements).

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Instant,
};

use super::{LOSSES_MAX, Outbox, backoff};
use crate::wire::{Address, MessageUid, Priority, limits::PAYLOAD_BYTES_MAX};

/// Which message of a destination's lines: its priority, and its number among those of that priority.
pub(super) type Place = (Priority, u64);

#[derive(Debug, Default)]
struct Line {
    next: u64,
    members: BTreeMap<u64, MessageUid>,
    /// Those that the others may not go too far ahead of.
    holding: BTreeSet<u64>,
    /// Those under way: with an answer to anything sent at that time or later, they were lost.
    under_way: BTreeSet<(Instant, u64)>,
}

/// The lines of one destination, one for each priority.
#[derive(Debug, Default)]
pub(super) struct Lines(BTreeMap<Priority, Line>);

impl Lines {
    /// A message comes last in its line.
    pub(super) fn push(&mut self, priority: Priority, uid: MessageUid) -> Place {
        let line = self.0.entry(priority).or_default();
        let number = line.next;
        line.next = line.next.saturating_add(1);
        line.members.insert(number, uid);
        (priority, number)
    }

    /// A message has ended; `lost_by` as it was last said to [`Lines::set_under_way`].
    pub(super) fn remove(&mut self, (priority, number): Place, lost_by: Option<Instant>) {
        self.set_under_way((priority, number), lost_by, None);
        if let Some(line) = self.0.get_mut(&priority) {
            line.members.remove(&number);
            line.holding.remove(&number);
        }
    }

    /// The message before one.
    pub(super) fn before(&self, (priority, number): Place) -> Option<MessageUid> {
        self.0.get(&priority)?.members.range(..number).next_back().map(|(_, uid)| *uid)
    }

    /// The first that has not ended, of the lowest priority there is.
    pub(super) fn first(&self) -> Option<MessageUid> {
        self.0.values().find_map(|line| line.members.values().next().copied())
    }

    /// True where a message is less than `span` ahead of the first that holds its line.
    pub(super) fn may_go(&self, (priority, number): Place, span: u64) -> bool {
        let first = self.0.get(&priority).and_then(|line| line.holding.first());
        first.is_none_or(|first| number.saturating_sub(*first) < span)
    }

    /// Whether a message holds its line.
    pub(super) fn set_holding(&mut self, (priority, number): Place, holds: bool) {
        let Some(line) = self.0.get_mut(&priority) else { return };
        match holds {
            true => line.holding.insert(number),
            false => line.holding.remove(&number),
        };
    }

    /// A message is under way, and lost where something sent `lost_by` then is answered; or it is not.
    /// `before` is what was said of it last.
    pub(super) fn set_under_way(
        &mut self,
        (priority, number): Place,
        before: Option<Instant>,
        lost_by: Option<Instant>,
    ) {
        let Some(line) = self.0.get_mut(&priority) else { return };
        if let Some(before) = before {
            line.under_way.remove(&(before, number));
        }
        if let Some(at) = lost_by {
            line.under_way.insert((at, number));
        }
    }

    /// Those that were lost, as the destination has answered a message of this priority that was sent
    /// then. What has a lower priority may be behind it on the way.
    pub(super) fn lost(&self, answered: Priority, sent_at: Instant) -> Vec<MessageUid> {
        let lines = self.0.range(answered..).map(|(_, line)| line);
        lines
            .flat_map(|line| {
                let lost = line.under_way.range(..=(sent_at, u64::MAX));
                lost.filter_map(|(_, number)| line.members.get(number).copied())
            })
            .collect()
    }
}

impl Outbox {
    /// The destination answered what was sent then: what went before it and has no answer goes again.
    pub(super) fn send_lost_again(&mut self, from: &Address, priority: Priority, sent_at: Instant) {
        let Some(dest) = self.destinations.get(from) else { return };
        let lost = dest.lines.lost(priority, sent_at);
        // One sign of one loss, however much it took.
        if let Some(first) = lost.first() {
            self.halve_window(first, 2 * PAYLOAD_BYTES_MAX);
        }
        for uid in &lost {
            self.begins_anew(uid);
            self.make_ready(uid);
        }
    }

    /// A message waits for an answer, or for its next try, from now on.
    pub(super) fn note_under_way(&mut self, now: Instant, uid: &MessageUid) {
        let Some(entry) = self.entries.get_mut(uid) else { return };
        let Some((dest, place)) = self.destinations.get_mut(&entry.record.destination).zip(entry.place)
        else {
            return;
        };
        let losses = entry.losses.saturating_sub(LOSSES_MAX).saturating_add(1);
        let lost_by = now.checked_add(backoff(&self.config, losses));
        dest.lines.set_under_way(place, entry.lost_by, lost_by);
        entry.lost_by = lost_by;
    }

    pub(super) fn note_not_under_way(&mut self, uid: &MessageUid) {
        let Some(entry) = self.entries.get_mut(uid) else { return };
        if let Some((dest, place)) = self.destinations.get_mut(&entry.record.destination).zip(entry.place) {
            dest.lines.set_under_way(place, entry.lost_by.take(), None);
        }
    }

    /// Others may go ahead of a message as far as they like.
    pub(super) fn lets_others_pass(&mut self, uid: &MessageUid) {
        let Some(entry) = self.entries.get(uid) else { return };
        if let Some((dest, place)) = self.destinations.get_mut(&entry.record.destination).zip(entry.place) {
            dest.lines.set_holding(place, false);
        }
    }
}
