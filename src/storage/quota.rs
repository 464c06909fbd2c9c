//! Who may have how much held: refusal at admission, never eviction of what was acknowledged.

use super::error::StoreError;

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
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct InboxQuota {
    /// All of it.
    pub all: Quota,
    /// What came from sources that this node never wrote to and that are no contacts: whoever
    /// makes identities by the thousand gets no more than this with all of them together.
    pub strangers: Quota,
}

impl InboxQuota {
    /// `bytes_max` in all, of which strangers get that many percent. Rows follow from bytes: a
    /// row for each KiB.
    pub fn new(bytes_max: u64, strangers_percent: u8) -> Self {
        let quota = |bytes_max: u64| Quota { bytes_max, rows_max: bytes_max / 1024 };
        Self {
            all: quota(bytes_max),
            strangers: quota(bytes_max / 100 * u64::from(strangers_percent.min(100))),
        }
    }
}

impl Default for InboxQuota {
    /// 1 GiB, a tenth of it for strangers (THREATS M-11).
    fn default() -> Self {
        Self::new(1 << 30, 10)
    }
}

/// Which quota of the inbox.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum InboxScope {
    /// Of everything in it.
    All,
    /// Of all strangers together.
    Strangers,
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
