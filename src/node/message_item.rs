//! The history of a message as the control socket tells it.

use std::time::Duration;

use super::{
    HistoryEntry, HistoryEvent, MessageHistory, MessageState,
    service::{Names, api_priority, ms},
};
use crate::api::{Direction, Message, MessageEvent, Timestamp};

/// A message as people and scripts see it: how it stands now, else what its last events say.
pub(super) fn message_item(of: &MessageHistory, names: &Names) -> Message {
    let mut item = Message {
        id: of.id,
        direction: if of.from.is_some() { Direction::In } else { Direction::Out },
        peer: of.from,
        peer_name: None,
        broadcast: false,
        state: of.state.name(of.last()).to_owned(),
        reason: None,
        size: None,
        priority: None,
        attempts: None,
        next_retry_s: None,
        expires_s: None,
        rtt_ms: None,
        hops: None,
        chunks_done: None,
        chunks: None,
        history: of.events.iter().map(message_event).collect(),
    };
    for entry in &of.events {
        match entry.event {
            HistoryEvent::Accepted { to, size } => (item.peer, item.size) = (Some(to), Some(size)),
            HistoryEvent::Broadcast { size, .. } => (item.broadcast, item.size) = (true, Some(size)),
            HistoryEvent::Sent { attempt, .. } => item.attempts = Some(attempt),
            HistoryEvent::Delivered { rtt_us, hops } => {
                item.rtt_ms = rtt_us.map(|us| ms(Duration::from_micros(us)));
                item.hops = Some(hops);
            }
            HistoryEvent::Offered { size, hops, .. } => (item.size, item.hops) = (Some(size), Some(hops)),
            HistoryEvent::Received { size, hops, broadcast, .. } => {
                (item.size, item.hops, item.broadcast) = (Some(size), Some(hops), broadcast);
            }
            _ => {}
        }
    }
    match &of.state {
        MessageState::Outgoing(line) => {
            (item.peer, item.size) = (Some(line.destination), Some(line.size));
            (item.reason, item.priority) = (line.hold.reason(), Some(api_priority(line.priority)));
            item.attempts = Some(line.attempts);
            item.next_retry_s = line.next_retry.map(|wait| wait.as_secs());
            item.expires_s = Some(line.expires.as_secs());
            (item.chunks_done, item.chunks) = line.chunks.unzip();
        }
        MessageState::Arriving(file) => {
            (item.size, item.hops) = (Some(file.size), Some(file.hops));
            (item.chunks_done, item.chunks) = (Some(file.done), Some(file.all));
        }
        MessageState::Inbox(message) | MessageState::Request(message) => {
            (item.size, item.hops) = (Some(message.size()), Some(message.hops()));
            item.broadcast = message.is_broadcast();
        }
        MessageState::Past => {}
    }
    item.peer_name = item.peer.and_then(|peer| names.of_address(&peer));
    item
}

fn message_event(entry: &HistoryEntry) -> MessageEvent {
    let mut event = MessageEvent {
        at: Timestamp(entry.at_unix_ms),
        clock_trusted: !entry.clock_untrusted,
        event: entry.event.name().to_owned(),
        packet: None,
        custodian: None,
        attempt: None,
        reason: None,
        size: None,
        hops: None,
        rtt_ms: None,
        chunks_done: None,
        chunks: None,
    };
    match &entry.event {
        HistoryEvent::Accepted { size, .. } => event.size = Some(*size),
        HistoryEvent::Broadcast { size, packet } => (event.size, event.packet) = (Some(*size), Some(*packet)),
        HistoryEvent::Waiting { reason } => event.reason = Some(reason.clone()),
        HistoryEvent::Sent { packet, attempt } => {
            (event.packet, event.attempt) = (Some(*packet), Some(*attempt));
        }
        HistoryEvent::Refused { packet, reason } => {
            (event.packet, event.reason) = (Some(*packet), Some(reason.clone()));
        }
        HistoryEvent::InCustody { packet, custodian } => {
            (event.packet, event.custodian) = (Some(*packet), *custodian);
        }
        HistoryEvent::SealedAgain { packet } => event.packet = Some(*packet),
        HistoryEvent::Progress { done, all } | HistoryEvent::Arriving { done, all, .. } => {
            (event.chunks_done, event.chunks) = (Some(*done), Some(*all));
        }
        HistoryEvent::Delivered { rtt_us, hops } => {
            event.rtt_ms = rtt_us.map(|us| ms(Duration::from_micros(us)));
            event.hops = Some(*hops);
        }
        HistoryEvent::Offered { size, hops, .. } | HistoryEvent::Received { size, hops, .. } => {
            (event.size, event.hops) = (Some(*size), Some(*hops));
        }
        HistoryEvent::Started
        | HistoryEvent::Expired
        | HistoryEvent::Rejected
        | HistoryEvent::Cancelled
        | HistoryEvent::Taken { .. }
        | HistoryEvent::GivenUp { .. } => {}
    }
    event
}
