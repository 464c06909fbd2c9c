//! What became of one message here, event by event, for people who ask.
//!
//! Good to know and promised to nobody: nobody waits for a sync of an entry, the oldest go when there
//! are too many, and nothing is ever decided by them. They hold no content and no file's name.
//!
//! What repeats is noted ever more rarely ([`is_noted`], [`passes_quarter`]): a message that waits for
//! its destination for two weeks must not push the history of all others out.

use std::ops::RangeInclusive;

use serde::{Deserialize, Serialize};

use crate::wire::{Address, MessageUid, PacketId};

/// One line of the history.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HistoryEntry {
    /// When, by the best that was known of the time of day; milliseconds since 1970.
    pub at_unix_ms: u64,
    /// True where the wall clock was not believed then.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub clock_untrusted: bool,
    /// Which message; none for what concerns all of them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<MessageUid>,
    /// What happened.
    #[serde(flatten)]
    pub event: HistoryEvent,
}

/// What can happen to a message at one node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum HistoryEvent {
    /// The node started: what was on its way goes on.
    Started,

    /// It is in the outbox, on disk.
    Accepted {
        /// Who it is for.
        to: Address,
        /// Bytes of its content.
        size: u64,
    },
    /// It went to everyone.
    Broadcast {
        /// Bytes of its content.
        size: u64,
        /// The packet it went in.
        packet: PacketId,
    },
    /// It cannot go at the moment.
    Waiting {
        /// `no_key`, `no_path`.
        reason: String,
    },
    /// It, or a file's manifest, was handed to the router.
    Sent {
        /// The packet it went in.
        packet: PacketId,
        /// How often it was sent by now.
        attempt: u32,
    },
    /// A node on the way, or this one's router, did not take a packet.
    Refused {
        /// Which.
        packet: PacketId,
        /// Why.
        reason: String,
    },
    /// A custodian on the way keeps a packet.
    InCustody {
        /// Which.
        packet: PacketId,
        /// Who keeps it: a custodian, or the cluster it belongs to.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        custodian: Option<Address>,
    },
    /// The destination could not open a packet and sent the key to seal it to.
    SealedAgain {
        /// Which.
        packet: PacketId,
    },
    /// The destination has so much of a file.
    Progress {
        /// Chunks that it has.
        done: u32,
        /// Chunks in all.
        all: u32,
    },
    /// The destination has it, by its signed receipt.
    Delivered {
        /// Microseconds from the first transmission to the receipt.
        rtt_us: Option<u64>,
        /// Links crossed by the receipt.
        hops: u8,
    },
    /// Its time ran out.
    Expired,
    /// The destination refused it for good.
    Rejected,
    /// Its sender took it back.
    Cancelled,

    /// A file begins to arrive.
    Offered {
        /// Who sends it.
        from: Address,
        /// Bytes of its content.
        size: u64,
        /// Links that its manifest crossed.
        hops: u8,
    },
    /// So much of a file is here.
    Arriving {
        /// Who sends it.
        from: Address,
        /// Chunks that are here.
        done: u32,
        /// Chunks in all.
        all: u32,
    },
    /// It is in the inbox, on disk.
    Received {
        /// Who signed it.
        from: Address,
        /// Bytes of its content.
        size: u64,
        /// Links crossed.
        hops: u8,
        /// True when it was sent to everyone.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        broadcast: bool,
    },
    /// It was taken out of the inbox.
    Taken {
        /// Who signed it.
        from: Address,
    },
    /// A file that did not become whole is forgotten.
    GivenUp {
        /// Who sent it.
        from: Address,
    },
}

impl HistoryEvent {
    /// Its name in the history.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Started => "started",
            Self::Accepted { .. } => "accepted",
            Self::Broadcast { .. } => "broadcast",
            Self::Waiting { .. } => "waiting",
            Self::Sent { .. } => "sent",
            Self::Refused { .. } => "refused",
            Self::InCustody { .. } => "in_custody",
            Self::SealedAgain { .. } => "sealed_again",
            Self::Progress { .. } => "progress",
            Self::Delivered { .. } => "delivered",
            Self::Expired => "expired",
            Self::Rejected => "rejected",
            Self::Cancelled => "cancelled",
            Self::Offered { .. } => "offered",
            Self::Arriving { .. } => "arriving",
            Self::Received { .. } => "received",
            Self::Taken { .. } => "taken",
            Self::GivenUp { .. } => "given_up",
        }
    }

    /// Who sent it, for what arrived here: another source may use the id of a message that it got from
    /// this node. None for what this node sent, and for what concerns all messages.
    pub fn from(&self) -> Option<Address> {
        match self {
            Self::Offered { from, .. }
            | Self::Arriving { from, .. }
            | Self::Received { from, .. }
            | Self::Taken { from }
            | Self::GivenUp { from } => Some(*from),
            _ => None,
        }
    }

    /// True where nothing follows it: the message is no longer on its way from here.
    pub fn is_end(&self) -> bool {
        matches!(self, Self::Delivered { .. } | Self::Expired | Self::Rejected | Self::Cancelled)
    }
}

/// True for the attempts that are noted: the first four, then at ever longer distances.
pub fn is_noted(attempt: u32) -> bool {
    attempt <= 4 || attempt.is_power_of_two()
}

/// True where a file of `all` chunks has come past a quarter of itself, short of the whole.
pub fn passes_quarter(before: u32, now: u32, all: u32) -> bool {
    let quarter = |done: u32| u64::from(done).saturating_mul(4).checked_div(u64::from(all)).unwrap_or(0);
    now < all && quarter(now) > quarter(before)
}

/// Message ids as a person gives them: a whole one, or its first digits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IdPrefix {
    /// Lower-case hex digits.
    digits: String,
    ids: RangeInclusive<MessageUid>,
}

/// Fewest digits of a prefix.
const PREFIX_DIGITS_MIN: usize = 8;

/// A text that is neither a message's id nor the beginning of one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a message's id is 32 hex digits, or the first 8 of them or more")]
pub struct NoId;

impl std::str::FromStr for IdPrefix {
    type Err = NoId;

    fn from_str(text: &str) -> Result<Self, NoId> {
        let width = 2 * MessageUid::LEN;
        let fits = (PREFIX_DIGITS_MIN..=width).contains(&text.len());
        if !fits || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return Err(NoId);
        }
        let digits = text.to_ascii_lowercase();
        let first: MessageUid = format!("{digits:0<width$}").parse().map_err(|_| NoId)?;
        let last: MessageUid = format!("{digits:f<width$}").parse().map_err(|_| NoId)?;
        Ok(Self { digits, ids: first..=last })
    }
}

impl From<MessageUid> for IdPrefix {
    fn from(uid: MessageUid) -> Self {
        Self { digits: uid.to_string(), ids: uid..=uid }
    }
}

impl IdPrefix {
    /// The ids that begin so.
    pub fn ids(&self) -> &RangeInclusive<MessageUid> {
        &self.ids
    }

    /// Its digits.
    pub fn digits(&self) -> &str {
        &self.digits
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: Address = Address([1; 16]);

    fn entry(event: HistoryEvent) -> HistoryEntry {
        HistoryEntry { at_unix_ms: 1, clock_untrusted: false, id: Some(MessageUid([0xab; 16])), event }
    }

    #[test]
    fn entries_are_lines_that_people_can_read_and_come_back_as_they_were() {
        let packet = PacketId([2; 16]);
        let events = [
            HistoryEvent::Started,
            HistoryEvent::Accepted { to: A, size: 5 },
            HistoryEvent::Broadcast { size: 5, packet },
            HistoryEvent::Waiting { reason: "no_key".into() },
            HistoryEvent::Sent { packet, attempt: 1 },
            HistoryEvent::Refused { packet, reason: "store_full".into() },
            HistoryEvent::InCustody { packet, custodian: Some(A) },
            HistoryEvent::SealedAgain { packet },
            HistoryEvent::Progress { done: 1, all: 4 },
            HistoryEvent::Delivered { rtt_us: Some(7), hops: 2 },
            HistoryEvent::Delivered { rtt_us: None, hops: 2 },
            HistoryEvent::Expired,
            HistoryEvent::Rejected,
            HistoryEvent::Cancelled,
            HistoryEvent::Offered { from: A, size: 9, hops: 1 },
            HistoryEvent::Arriving { from: A, done: 1, all: 4 },
            HistoryEvent::Received { from: A, size: 9, hops: 1, broadcast: true },
            HistoryEvent::Taken { from: A },
            HistoryEvent::GivenUp { from: A },
        ];
        for event in events {
            let (name, entry) = (event.name(), entry(event));
            let line = serde_json::to_string(&entry).unwrap();
            assert!(line.contains(&format!(r#""event":"{name}""#)), "{line}");
            assert!(line.len() < 256, "{line}");
            assert_eq!(serde_json::from_str::<HistoryEntry>(&line).unwrap(), entry, "{line}");
        }
        let started = HistoryEntry { id: None, clock_untrusted: true, ..entry(HistoryEvent::Started) };
        let line = serde_json::to_string(&started).unwrap();
        assert_eq!(line, r#"{"at_unix_ms":1,"clock_untrusted":true,"event":"started"}"#);
        assert_eq!(serde_json::from_str::<HistoryEntry>(&line).unwrap(), started);
    }

    #[test]
    fn what_repeats_is_noted_ever_more_rarely() {
        let noted: Vec<u32> = (1..=100).filter(|n| is_noted(*n)).collect();
        assert_eq!(noted, [1, 2, 3, 4, 8, 16, 32, 64]);
        let steps = |all: u32| (1..=all).filter(|n| passes_quarter(n - 1, *n, all)).collect::<Vec<_>>();
        assert_eq!(steps(1000), [250, 500, 750]);
        assert_eq!(steps(2), [1]);
        assert_eq!((steps(1), passes_quarter(0, 5, 0)), (vec![], false));
    }

    #[test]
    fn an_id_or_its_first_digits_name_messages() {
        let whole: IdPrefix = "AB".repeat(16).parse().unwrap();
        assert_eq!(whole, IdPrefix::from(MessageUid([0xab; 16])));
        let some: IdPrefix = "abababab0".parse().unwrap();
        assert!(!some.ids().contains(&MessageUid([0xab; 16])));
        let some: IdPrefix = "ababababa".parse().unwrap();
        assert!(some.ids().contains(&MessageUid([0xab; 16])));
        assert_eq!(some.digits(), "ababababa");
        for text in ["", "abababa", "abababag", "ab ababab", &"a".repeat(33), "äbababab"] {
            assert_eq!(text.parse::<IdPrefix>(), Err(NoId), "{text}");
        }
    }
}
