//! Who may have how much held: refusal at admission, never eviction of what was acknowledged.

use super::error::StoreError;
use crate::wire::limits::CONTENT_BYTES_MAX;

/// Bytes one held row counts above its frame: its header, its share of three indexes and of the
/// pages' slack, so that many small frames cannot outgrow a quota in bytes.
pub const HELD_ROW_OVERHEAD_BYTES: u64 = 256;

/// A bound in bytes and in rows; both hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Quota {
    /// Frames' bytes, each with [`HELD_ROW_OVERHEAD_BYTES`].
    pub bytes_max: u64,
    /// Rows.
    pub rows_max: u64,
}

impl Quota {
    /// What messages may fill of it that wait for another one: an eighth less, so that there is room for
    /// that one to come.
    pub fn of_early(self) -> Self {
        Self { bytes_max: self.bytes_max - self.bytes_max / 8, rows_max: self.rows_max - self.rows_max / 8 }
    }

    /// True if one more row of `bytes` fits beside what is `used` already (bytes, rows).
    pub fn admits(&self, used_bytes: u64, used_rows: u64, bytes: u64) -> bool {
        used_rows < self.rows_max && used_bytes.saturating_add(bytes) <= self.bytes_max
    }
}

/// Quotas of what is held for others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MailboxQuota {
    /// All of it.
    pub global: Quota,
    /// What one neighbour brought.
    pub per_ingress: Quota,
    /// What one source signed, whoever brought it.
    pub per_source: Quota,
    /// What waits for one destination.
    pub per_destination: Quota,
}

impl Default for MailboxQuota {
    /// 1 GiB and a million rows; a quarter of it a neighbour, a tenth a source, 64 MiB a destination:
    /// four of the largest files (THREATS M-11: a neighbour ≤ 25 %, a destination about 5 %).
    fn default() -> Self {
        Self {
            global: Quota { bytes_max: 1 << 30, rows_max: 1_000_000 },
            per_ingress: Quota { bytes_max: 1 << 28, rows_max: 250_000 },
            per_source: Quota { bytes_max: (1 << 30) / 10, rows_max: 100_000 },
            per_destination: Quota { bytes_max: 1 << 26, rows_max: 62_500 },
        }
    }
}

/// Bytes one row of the inbox counts above its content, as [`HELD_ROW_OVERHEAD_BYTES`].
pub const INBOX_ROW_OVERHEAD_BYTES: u64 = 256;

/// Quotas of the inbox: messages until they are taken, and files on their way in with the whole
/// length that their manifests announced.
///
/// A *stranger* is a source that this node never wrote to and that is no contact. Identities cost
/// nothing, so strangers are bounded three times: each one, all that one neighbour brings, and all of
/// them. Whom this node wrote to is bounded by itself alone: a neighbour cannot make such sources up,
/// and a node with one way into the mesh gets all of its mail over one neighbour.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct InboxQuota {
    /// All of it.
    pub all: Quota,
    /// What came from strangers, of all of them together.
    pub strangers: Quota,
    /// What came from strangers over one neighbour.
    pub strangers_per_ingress: Quota,
    /// What one stranger signed.
    pub per_stranger: Quota,
    /// What one source signed that this node wrote to.
    pub per_source: Quota,
    /// What one contact signed.
    pub per_contact: Quota,
}

/// Shares of the inbox in percent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct InboxShares {
    /// Of all strangers together.
    pub strangers: u8,
    /// Of strangers that come over one neighbour, in percent of the strangers' share.
    pub neighbour: u8,
    /// Of one source; of a stranger in percent of the strangers' share.
    pub source: u8,
    /// Of one contact.
    pub contact: u8,
}

impl Default for InboxShares {
    /// A tenth for strangers (THREATS M-11), so that two neighbours and four strangers at least are
    /// needed to fill it; a quarter for a source, a half for a contact.
    fn default() -> Self {
        Self { strangers: 10, neighbour: 50, source: 25, contact: 50 }
    }
}

impl InboxQuota {
    /// `bytes_max` in all, of which everyone gets these shares. Rows follow from bytes: a row for
    /// each KiB. What is one source's or one neighbour's holds a message of the largest size wherever
    /// the whole does: else it could never come.
    pub fn new(bytes_max: u64, shares: InboxShares) -> Self {
        let quota = |bytes_max: u64| Quota { bytes_max, rows_max: bytes_max / 1024 };
        let share = |of: u64, percent: u8| of / 100 * u64::from(percent.min(100));
        let largest = CONTENT_BYTES_MAX.saturating_add(2 * INBOX_ROW_OVERHEAD_BYTES);
        let part = |of: u64, percent: u8| quota(share(of, percent).max(largest).min(of));
        let strangers = share(bytes_max, shares.strangers);
        // Where strangers get nothing, that is what one of them is refused for.
        let of_strangers = if strangers == 0 { bytes_max } else { strangers };
        Self {
            all: quota(bytes_max),
            strangers: quota(strangers),
            strangers_per_ingress: part(of_strangers, shares.neighbour),
            per_stranger: part(of_strangers, shares.source),
            per_source: part(bytes_max, shares.source),
            per_contact: part(bytes_max, shares.contact),
        }
    }

    /// Bounds `all` and `strangers` and nobody by themselves.
    pub fn of_all(all: Quota, strangers: Quota) -> Self {
        Self {
            all,
            strangers,
            strangers_per_ingress: strangers,
            per_stranger: strangers,
            per_source: all,
            per_contact: all,
        }
    }

    /// What one source of this kind may have.
    pub fn of_source(&self, standing: Standing) -> Quota {
        match standing {
            Standing::Stranger => self.per_stranger,
            Standing::Known => self.per_source,
            Standing::Contact => self.per_contact,
        }
    }
}

impl Default for InboxQuota {
    /// 1 GiB.
    fn default() -> Self {
        Self::new(1 << 30, InboxShares::default())
    }
}

/// What a source is to this node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Standing {
    /// Never written to, and no contact.
    Stranger,
    /// This node wrote to it.
    Known,
    /// A contact.
    Contact,
}

/// Which quota of the inbox. In the order in which they are looked at: who fills it is to hear that it
/// is theirs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum InboxScope {
    /// Of the strangers that one neighbour brings.
    Ingress,
    /// Of one source.
    Source,
    /// Of all strangers together.
    Strangers,
    /// Of everything in it.
    All,
}

impl InboxScope {
    /// Label of the counter of what is refused.
    pub fn label(self) -> &'static str {
        match self {
            InboxScope::Ingress => "inbox_neighbour",
            InboxScope::Source => "inbox_source",
            InboxScope::Strangers => "inbox_strangers",
            InboxScope::All => "inbox_full",
        }
    }
}

/// Which quota.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum QuotaScope {
    /// Of everything held.
    Global,
    /// Of the neighbour it came from.
    Ingress,
    /// Of who signed it.
    Source,
    /// Of the destination it is for.
    Destination,
}

/// Why an envelope is not held. The neighbour is told; nothing was stored.
#[derive(Debug, Clone, thiserror::Error)]
pub enum HoldRefusal {
    /// A quota in bytes or rows is used up.
    #[error("the quota of held messages is used up ({0:?})")]
    Quota(QuotaScope),
    /// The volume is nearly full.
    #[error(transparent)]
    Disk(StoreError),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_of_the_inbox_are_what_they_are_called_and_hold_a_message_of_the_largest_size() {
        const MIB: u64 = 1 << 20;
        let large = InboxQuota::new(1000 * MIB, InboxShares::default());
        let mib = |quota: Quota| quota.bytes_max / MIB;
        assert_eq!([large.all, large.strangers, large.strangers_per_ingress].map(mib), [1000, 100, 50]);
        assert_eq!([large.per_stranger, large.per_source, large.per_contact].map(mib), [25, 250, 500]);
        assert_eq!(large.per_source.rows_max, 250 * 1024);

        let small = InboxQuota::new(64 * MIB, InboxShares { source: 1, ..InboxShares::default() });
        assert!(small.per_source.admits(0, 0, CONTENT_BYTES_MAX + INBOX_ROW_OVERHEAD_BYTES));
        assert_eq!(small.per_stranger, small.strangers, "which is less than one such message");
        let none = InboxQuota::new(64 * MIB, InboxShares { strangers: 0, ..InboxShares::default() });
        assert_eq!(none.strangers.bytes_max, 0);
        assert!(none.per_stranger.admits(0, 0, 1000), "it is the strangers' share that refuses");
    }
}
