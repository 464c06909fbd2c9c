//! Tables of the embedded store and the spelling of their rows: the disk format, version 1.
//!
//! Keys and values are bytes, integers big-endian, so that the order of keys is the order of
//! numbers. A place is `3 - priority` 1 and seq 7, so that what is urgent comes first. `hdr` is a row's open part, `sealed` what `row_seal` makes of the rest.
//!
//! ```text
//! meta          name                         → bytes          format, boot epoch, heads
//! counter       counter 1                    → next 8
//! outbox        seq 8                        → uid 16, destination 16, created 8, expires 8, state
//! outbox_body   seq 8                        → sealed body
//! outbox_uid    uid 16                       → seq 8
//! inbox         seq 8                        → hdr: uid 16, source 16; sealed entry
//! inbox_early   source 16, uid 16            → hdr: seq 8, awaits 8; sealed entry
//! seen_packet   packet 16                    → until 8
//! seen_message  source 16, uid 16            → until 8
//! seen_expiry   until 8, kind 1, id          →
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
//! inbox_cost    seq 8, a partial's key, or
//!               1, an early one's key        → stranger 1, bytes 8, source 16, ingress 16 or none
//! ```

use redb::TableDefinition;

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
    OutboxBody = 3 "outbox_body",
    OutboxUid = 4 "outbox_uid",
    Inbox = 5 "inbox",
    SeenPacket = 6 "seen_packet",
    SeenMessage = 7 "seen_message",
    SeenExpiry = 8 "seen_expiry",
    Partial = 9 "partial",
    Kv = 10 "kv",
    Held = 11 "held",
    HeldPacket = 12 "held_packet",
    HeldExpiry = 13 "held_expiry",
    HeldTotal = 14 "held_total",
    RowKeyRefs = 15 "row_key_refs",
    Quarantine = 16 "quarantine",
    InboxCost = 17 "inbox_cost",
    InboxEarly = 18 "inbox_early",
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
pub(super) const INBOX_HEADER_BYTES: usize = 32;
/// Open part of a row of an early message.
pub(super) const EARLY_HEADER_BYTES: usize = 16;
/// Open part of a row of a file being received.
pub(super) const PARTIAL_HEADER_BYTES: usize = 8;
/// Open part of a held row.
pub(super) const HELD_HEADER_BYTES: usize = 68;
/// Open part of an outbox row; its state follows.
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
