//! One message: how it stands here, and what became of it.

use std::collections::BTreeMap;

use super::{InboxMessage, MeshNode, ask, people::readable};
use crate::{
    error::MeshError,
    messages::delivery::{FindMessages, FoundMessages, MessagesTaken},
    proto::delivery::outbox::{Hold, OutboxLine},
    wire::{Address, MessageUid},
};

pub use crate::proto::delivery::{
    history::{HistoryEntry, HistoryEvent, IdPrefix, NoId},
    transfer::ArrivingFile,
};

/// What is known here of one message.
///
/// How it stands is read from the disk's own rows and is true; the history is what is remembered
/// beside, and may lack what is long ago.
#[derive(Debug, Clone)]
pub struct MessageHistory {
    /// The message's id.
    pub id: MessageUid,
    /// Who sent it, for what arrived; none for what was sent from here.
    pub from: Option<Address>,
    /// How it stands.
    pub state: MessageState,
    /// What happened, oldest first; starts of the node meanwhile among it.
    pub events: Vec<HistoryEntry>,
}

/// How a message stands.
#[derive(Debug, Clone)]
pub enum MessageState {
    /// In the outbox.
    Outgoing(OutboxLine),
    /// A file on its way in.
    Arriving(ArrivingFile),
    /// In the inbox, not taken yet.
    Inbox(InboxMessage),
    /// Here, and waits for its sender to be accepted.
    Request(InboxMessage),
    /// Neither: the last event says how it ended, as far as that is remembered.
    Past,
}

impl MessageState {
    /// In one word.
    pub fn name(&self, last: Option<&HistoryEvent>) -> &'static str {
        match self {
            Self::Outgoing(line) => outgoing_state(line),
            Self::Arriving(_) => "arriving",
            Self::Inbox(_) => "in_inbox",
            Self::Request(_) => "requested",
            Self::Past => match last {
                Some(HistoryEvent::Delivered { .. }) => "delivered",
                Some(HistoryEvent::Expired) => "expired",
                Some(HistoryEvent::Rejected) => "rejected",
                Some(HistoryEvent::Cancelled) => "cancelled",
                Some(HistoryEvent::Broadcast { .. }) => "sent",
                Some(HistoryEvent::Taken { .. }) => "taken",
                Some(HistoryEvent::GivenUp { .. }) => "given_up",
                _ => "unknown",
            },
        }
    }
}

/// The `state` of a message in the outbox.
pub(super) fn outgoing_state(line: &OutboxLine) -> &'static str {
    match (line.hold, line.attempts) {
        (Hold::InCustody, _) => "in_custody",
        (Hold::None, 0) => "queued",
        (Hold::None, _) => "sent",
        _ => "waiting",
    }
}

impl MessageHistory {
    /// The last event of its own; a start of the node is none.
    pub fn last(&self) -> Option<&HistoryEvent> {
        self.events.iter().rev().map(|entry| &entry.event).find(|event| **event != HistoryEvent::Started)
    }
}

impl MeshNode {
    /// What is known here of a message, by its id or the first digits of it; empty where nothing is.
    /// More than one where the digits fit several, or where another node sent a message under the id of
    /// one that it got from here.
    ///
    /// # Errors
    /// The node does not run; the disk.
    pub async fn message(&self, id: impl Into<IdPrefix>) -> Result<Vec<MessageHistory>, MeshError> {
        let id = id.into();
        let find = FindMessages(id.ids().clone());
        let found = ask(&self.0.seats.find_messages, "delivery", find).await?;
        let (history, wanted) = (self.0.history.clone(), id.clone());
        let entries = tokio::task::spawn_blocking(move || history.find(&wanted)).await;
        let entries = entries.map_err(|_| MeshError::Stopped("history reader"))??;
        let mut all = Told::default();
        all.tell(entries);
        all.stand(found);
        // The inbox has no order of ids; it is read from end to end only where it may hold the message.
        if all.may_be_in_inbox() {
            let mut after = None;
            loop {
                let (messages, next) = self.inbox(after).await?;
                for message in messages.into_iter().filter(|message| id.ids().contains(&message.id())) {
                    let key = (message.id(), Some(message.from()));
                    all.messages.entry(key).or_default().state = Some(MessageState::Inbox(message));
                }
                after = next;
                if after.is_none() {
                    break;
                }
            }
            let mut after = None;
            loop {
                let page = self.request_page(after).await?;
                let messages = page.rows.into_iter().filter_map(readable);
                for message in messages.filter(|message| id.ids().contains(&message.id())) {
                    let key = (message.id(), Some(message.from()));
                    all.messages.entry(key).or_default().state = Some(MessageState::Request(message));
                }
                after = page.next;
                if after.is_none() {
                    break;
                }
            }
        }
        Ok(all.into_histories())
    }

    /// Tells the history what was taken out of the inbox.
    pub(super) fn note_taken(&self, messages: &[InboxMessage]) {
        let taken = messages.iter().map(|message| (message.id(), message.from())).collect();
        self.0.seats.messages_taken.outlet().offer_gossip("delivery", MessagesTaken(taken));
    }
}

/// Messages by id and, for what arrived, who sent it.
#[derive(Default)]
struct Told {
    messages: BTreeMap<(MessageUid, Option<Address>), Message>,
}

#[derive(Default)]
struct Message {
    state: Option<MessageState>,
    events: Vec<HistoryEntry>,
    /// Starts of the node behind its last event.
    starts: Vec<HistoryEntry>,
}

impl Told {
    fn tell(&mut self, entries: Vec<HistoryEntry>) {
        for entry in entries {
            match entry.id {
                None => self.messages.values_mut().for_each(|message| message.starts.push(entry.clone())),
                Some(id) => {
                    let message = self.messages.entry((id, entry.event.from())).or_default();
                    message.events.append(&mut message.starts);
                    message.events.push(entry);
                }
            }
        }
    }

    fn stand(&mut self, found: FoundMessages) {
        for line in found.outgoing {
            let key = (line.uid, None);
            self.messages.entry(key).or_default().state = Some(MessageState::Outgoing(line));
        }
        for file in found.arriving {
            let key = (file.uid, Some(file.from));
            self.messages.entry(key).or_default().state = Some(MessageState::Arriving(file));
        }
    }

    fn may_be_in_inbox(&self) -> bool {
        let may_be = |((_, from), message): (&(MessageUid, Option<Address>), &Message)| {
            let last = message.events.last().map(|entry| &entry.event);
            from.is_some() && message.state.is_none() && !matches!(last, Some(HistoryEvent::Taken { .. }))
        };
        self.messages.is_empty() || self.messages.iter().any(may_be)
    }

    fn into_histories(self) -> Vec<MessageHistory> {
        let histories = self.messages.into_iter().map(|((id, from), mut message)| {
            let is_over = message.state.is_none();
            if !is_over {
                message.events.append(&mut message.starts);
            }
            let state = message.state.unwrap_or(MessageState::Past);
            MessageHistory { id, from, state, events: message.events }
        });
        histories.collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const UID: MessageUid = MessageUid([1; 16]);
    const FRIEND: Address = Address([2; 16]);

    fn entry(id: Option<MessageUid>, event: HistoryEvent) -> HistoryEntry {
        HistoryEntry { at_unix_ms: 0, clock_untrusted: false, id, event }
    }

    fn names(history: &MessageHistory) -> Vec<&'static str> {
        history.events.iter().map(|entry| entry.event.name()).collect()
    }

    #[test]
    fn each_message_has_its_own_events_and_the_starts_between_them() {
        let start = || entry(None, HistoryEvent::Started);
        let mut told = Told::default();
        told.tell(vec![
            start(),
            entry(Some(UID), HistoryEvent::Accepted { to: FRIEND, size: 1 }),
            start(),
            entry(Some(UID), HistoryEvent::Expired),
            // Somebody else's, under the same id.
            entry(Some(UID), HistoryEvent::Received { from: FRIEND, size: 1, hops: 1, broadcast: false }),
            start(),
        ]);
        assert!(told.may_be_in_inbox());
        let histories = told.into_histories();
        assert_eq!(histories.len(), 2);
        assert_eq!((histories[0].from, names(&histories[0])), (None, vec!["accepted", "started", "expired"]));
        assert_eq!(histories[0].state.name(histories[0].last()), "expired");
        assert_eq!((histories[1].from, names(&histories[1])), (Some(FRIEND), vec!["received"]));
        assert_eq!(histories[1].state.name(histories[1].last()), "unknown", "gone, and nobody noted how");
    }

    #[test]
    fn what_is_still_arriving_shows_the_last_start() {
        let file = ArrivingFile { uid: UID, from: FRIEND, size: 9, hops: 1, done: 1, all: 3 };
        let mut told = Told::default();
        told.tell(vec![
            entry(Some(UID), HistoryEvent::Offered { from: FRIEND, size: 9, hops: 1 }),
            entry(None, HistoryEvent::Started),
        ]);
        told.stand(FoundMessages { outgoing: Vec::new(), arriving: vec![file] });
        assert!(!told.may_be_in_inbox());
        let histories = told.into_histories();
        assert_eq!(names(&histories[0]), ["offered", "started"]);
        assert_eq!(histories[0].state.name(histories[0].last()), "arriving");
    }
}
