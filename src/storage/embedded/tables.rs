//! Tables of the embedded store and the spelling of their rows: the disk format, version 2.
//!
//! Keys and values are bytes, integers big-endian, so that the order of keys is the order of
//! numbers. A cost is flags 1 (1 a stranger's, 2 has an ingress), bytes 8, ingress 16. A place is `3 - priority` 1 and seq 7, so that what is urgent comes first. `hdr` is a row's open part, `sealed` what `row_seal` makes of the rest.
//!
//! ```text
//! meta          name                         → bytes          format, boot epoch, heads
//! counter       counter 1                    → next 8
//! outbox        seq 8                        → hdr: uid 16, destination 16, created 8, expires 8;
//!                                              sealed body
//! outbox_state  seq 8                        → state
//! inbox         seq 8                        → hdr: uid 16, source 16, cost 25; sealed entry
//! inbox_early   source 16, uid 16            → hdr: seq 8, awaits 8; sealed entry
//! inbox_request source 16, seq 8             → hdr: uid 16, cost 25; sealed entry
//! seen_message  source 16, uid 16            → until 8
//! seen_expiry   until 8, source 16, uid 16   →
//! partial       source 16, tag 16            → hdr: until 8; sealed state
//! kv            namespace 1, key             → value, sealed in some namespaces
//! held          destination 16, place 8      → hdr: packet 16, source 16, ingress 16, expires 8,
//!                                              held at 8, age 4; sealed frame
//! held_packet   packet 16                    → destination 16, place 8
//! held_expiry   expires 8, place 8           → destination 16
//! held_total    scope 1, address 16          → rows 8, bytes 8
//!               0, "inbox…"                  → the same of the inbox; scopes 4 and 5 of it
//! row_key_refs  hour 4                       → rows 8
//! quarantine    table 1, key                 → the damaged row
//! inbox_cost    a partial's key, or
//!               1, an early one's key        → source 16, cost 25
//! ```

use redb::TableDefinition;

use super::inbox_cost::COST_HEADER_BYTES;

/// Every table is one of bytes, so that one journal can put any of them back.
pub(super) type Definition = TableDefinition<'static, &'static [u8], &'static [u8]>;

macro_rules! tables {
    ($($(#[$doc:meta])* $variant:ident = $number:literal $name:literal,)*) => {
        /// A table. Numbers are part of the disk format (quarantine).
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
        #[repr(u8)]
        pub(super) enum T { $($(#[$doc])* $variant = $number,)* }

        impl T {
            pub(super) const ALL: &'static [T] = &[$(T::$variant,)*];

            pub(super) fn name(self) -> &'static str {
                match self { $(T::$variant => $name,)* }
            }
        }
    };
}

tables! {
    Meta = 0 "meta",
    Counter = 1 "counter",
    Outbox = 2 "outbox",
    OutboxState = 3 "outbox_state",
    Inbox = 4 "inbox",
    SeenMessage = 5 "seen_message",
    SeenExpiry = 6 "seen_expiry",
    Partial = 7 "partial",
    Kv = 8 "kv",
    Held = 9 "held",
    HeldPacket = 10 "held_packet",
    HeldExpiry = 11 "held_expiry",
    HeldTotal = 12 "held_total",
    RowKeyRefs = 13 "row_key_refs",
    Quarantine = 14 "quarantine",
    InboxCost = 15 "inbox_cost",
    InboxEarly = 16 "inbox_early",
    InboxRequest = 17 "inbox_request",
}

impl T {
    pub(super) fn definition(self) -> Definition {
        TableDefinition::new(self.name())
    }

    /// Its place in [`T::ALL`].
    pub(super) fn index(self) -> usize {
        self as usize
    }
}

/// Open part of an inbox row.
pub(super) const INBOX_HEADER_BYTES: usize = 32 + COST_HEADER_BYTES;
/// Open part of a row of a message whose source is not accepted.
pub(super) const REQUEST_HEADER_BYTES: usize = 16 + COST_HEADER_BYTES;
/// Open part of a row of an early message.
pub(super) const EARLY_HEADER_BYTES: usize = 16;
/// Open part of a row of a file being received.
pub(super) const PARTIAL_HEADER_BYTES: usize = 8;
/// Open part of a held row.
pub(super) const HELD_HEADER_BYTES: usize = 68;
/// Open part of an outbox row.
pub(super) const OUTBOX_HEADER_BYTES: usize = 48;

/// Reads a row field by field; `None` once it is too short.
pub(super) struct Fields<'a>(pub(super) &'a [u8]);

impl<'a> Fields<'a> {
    pub(super) fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (head, rest) = self.0.split_first_chunk::<N>()?;
        self.0 = rest;
        Some(*head)
    }

    pub(super) fn u64(&mut self) -> Option<u64> {
        self.take().map(u64::from_be_bytes)
    }

    pub(super) fn u32(&mut self) -> Option<u32> {
        self.take().map(u32::from_be_bytes)
    }

    pub(super) fn rest(self) -> &'a [u8] {
        self.0
    }
}

/// Joins parts into one key or row.
pub(super) fn join(parts: &[&[u8]]) -> Vec<u8> {
    parts.concat()
}

/// Reads a row that is one number.
pub(super) fn number(row: &[u8]) -> Option<u64> {
    row.try_into().ok().map(u64::from_be_bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_is_found_at_its_number() {
        for (i, t) in T::ALL.iter().enumerate() {
            assert_eq!(t.index(), i, "{t:?}");
        }
    }
}
