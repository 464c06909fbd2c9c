//! What a node must not forget, on a disk that may fill, fail or lose power.
//!
//! Two traits, both of batches with completion events, so that nobody waits on a disk:
//!
//! - [`LocalStore`]: what belongs to this node: outbox, inbox with its duplicate records, files on
//!   their way in, counters, and small values by [`Namespace`]. Always embedded.
//! - [`Mailboxes`]: what is held for others, under quotas. Embedded here; a cluster may keep it
//!   elsewhere, which is why it is a trait of its own.
//!
//! A *submission* is a vector of operations applied in order, whole or not at all, and answered
//! once: after its effects are durable, with one outcome per operation, or with the
//! [`StoreError`] that kept all of it from happening. Submissions that wait together share one
//! transaction and one fsync (`group_commit`). Reads are operations too: they see every
//! operation before them, in their own submission and in earlier ones, and are answered after
//! those are durable.
//!
//! ```text
//! actors ── try submit ──▶ group_commit ── batch ──▶ Engine: embedded (redb) | mem (tests)
//!    ▲                        (one thread)              │
//!    └───────────── completion, after the fsync ◀───────┘
//! ```
//!
//! Large contents live beside the engine as files (`blob`). Rows that hold message content are
//! sealed under keys that are destroyed when their messages are gone (`row_seal`).
//!
//! Beside it a journal for people (`append_log`), which nothing depends on.
//!
//! Deliberately absent: packets, routes, actors, and any decision about *what* to keep or retry.

pub mod append_log;
pub mod blob;
pub mod data_dir;
mod disk;
mod embedded;
mod engine;
mod error;
#[cfg(any(test, feature = "testing"))]
pub mod faults;
mod group_commit;
mod lock;
mod mem;
mod ops;
mod quota;
pub(crate) mod row_seal;
pub mod space;

use std::{fmt, pin::Pin};

pub use append_log::AppendLog;
pub use blob::{BlobDir, BlobKind, BlobName};
pub use data_dir::DataDir;
pub use disk::{Disk, DiskCall};
#[cfg(any(test, feature = "testing"))]
pub(crate) use embedded::read_any_row;
pub use embedded::{
    BackupReport, BackupSource, CACHE_BYTES, EPOCHS_AHEAD, EmbeddedOptions, EmbeddedStore, OpenFile,
};
pub use engine::{Engine, SyncTotals, Work, WorkDone, WorkResult};
pub use error::StoreError;
pub use group_commit::{BatchStats, Observer, QueueBounds, StopReason, StoreEvent, StoreHandle, StoreThread};
pub use mem::{MemEngine, MemFault, MemStore};
pub use ops::{
    Awaits, Counter, DestinationUsage, EarlyPage, EarlyRow, HeldPage, HeldRow, HeldSummary, InboxCommit,
    InboxPage, InboxRow, KV_KEY_BYTES_MAX, KvPage, LocalCounts, LocalOp, LocalOutcome, MailOp, MailOutcome,
    MailUsage, Namespace, OutboxPage, OutboxRow, PageLimit, PartialPage, PartialRow, Patience, ROW_BYTES_MAX,
    RequestPage, Strangers,
};
pub use quota::{
    HELD_ROW_OVERHEAD_BYTES, HoldRefusal, INBOX_ROW_OVERHEAD_BYTES, InboxQuota, InboxScope, InboxShares,
    MailboxQuota, Quota, QuotaScope,
};

/// Called once with what became of a submission, on the thread that owns the store: it must not
/// block; sending a message is what it is for.
pub type Completion<Outcome> = Box<dyn FnOnce(Result<Vec<Outcome>, StoreError>) + Send>;

/// Why a submission was not taken. Nothing of it happened and its completion was not called.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NotTaken {
    /// As many operations or bytes wait as may wait. Try again after any completion.
    #[error("the store's queue is full")]
    Full,
    /// The store was shut down or failed for good; its owner was told why.
    #[error("the store has stopped")]
    Stopped,
}

/// A submission handed back: the operations and the completion, for another try.
pub struct HandedBack<Op, Outcome> {
    /// Why.
    pub reason: NotTaken,
    /// The operations, untouched.
    pub ops: Vec<Op>,
    /// The completion, not called.
    pub done: Completion<Outcome>,
}

impl<Op, Outcome> fmt::Debug for HandedBack<Op, Outcome> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HandedBack").field("reason", &self.reason).field("ops", &self.ops.len()).finish()
    }
}

/// Durable state of this node.
pub trait LocalStore: Send + Sync {
    /// Queues `ops` as one submission and returns at once. `done` is called exactly once if this
    /// returns `Ok`, and never if it does not.
    ///
    /// # Errors
    /// Hands everything back when the queue is full or the store has stopped.
    fn submit(
        &self,
        ops: Vec<LocalOp>,
        done: Completion<LocalOutcome>,
    ) -> Result<(), HandedBack<LocalOp, LocalOutcome>>;

    /// This start's number: one more than that of any earlier start on this data directory,
    /// durable before the store was opened. The high half of every announce's order. A later
    /// [`LocalOp::RaiseBootEpoch`] answers with the raised number; this one stays.
    fn boot_epoch(&self) -> u32;
}

/// Envelopes held for nodes that cannot be reached now.
pub trait Mailboxes: Send + Sync {
    /// Queues `ops` as one submission and returns at once, as [`LocalStore::submit`] does.
    ///
    /// # Errors
    /// Hands everything back when the queue is full or the store has stopped.
    fn submit(
        &self,
        ops: Vec<MailOp>,
        done: Completion<MailOutcome>,
    ) -> Result<(), HandedBack<MailOp, MailOutcome>>;
}

/// A submission's answer as a future.
pub type Answer<Outcome> = Pin<Box<dyn Future<Output = Result<Vec<Outcome>, StoreError>> + Send>>;

/// Submits to `store` and returns the answer as a future. Dropping the future does not undo the
/// submission.
///
/// # Errors
/// [`NotTaken`], at once; the future yields what the completion got.
pub fn ask_local(store: &dyn LocalStore, ops: Vec<LocalOp>) -> Result<Answer<LocalOutcome>, NotTaken> {
    let (done, answer) = answer_pair();
    store.submit(ops, done).map_err(|back| back.reason)?;
    Ok(answer)
}

/// Submits to `mailboxes` and returns the answer as a future, as [`ask_local`] does.
///
/// # Errors
/// [`NotTaken`], at once; the future yields what the completion got.
pub fn ask_mail(mailboxes: &dyn Mailboxes, ops: Vec<MailOp>) -> Result<Answer<MailOutcome>, NotTaken> {
    let (done, answer) = answer_pair();
    mailboxes.submit(ops, done).map_err(|back| back.reason)?;
    Ok(answer)
}

fn answer_pair<Outcome: Send + 'static>() -> (Completion<Outcome>, Answer<Outcome>) {
    let (tx, rx) = tokio::sync::oneshot::channel();
    // The asker may have gone; the submission stands all the same.
    let done: Completion<Outcome> = Box::new(move |result| drop(tx.send(result)));
    (done, Box::pin(async move { rx.await.unwrap_or(Err(StoreError::Stopped)) }))
}
