//! What owns the rows: applies a batch of submissions and commits it once.

use std::time::Duration;

use super::{
    error::StoreError,
    ops::{LocalOp, LocalOutcome, MailOp, MailOutcome, Patience},
};

/// One submission without its completion.
#[derive(Debug, Clone)]
pub enum Work {
    /// On this node's own state.
    Local(Vec<LocalOp>),
    /// On what is held for others.
    Mail(Vec<MailOp>),
}

impl Work {
    /// As long as all of it may wait ([`LocalOp::patience`]). What is held for others may not: a row that
    /// is to go must not be taken for one that is kept.
    pub fn patience(&self) -> Patience {
        match self {
            Work::Local(ops) => ops.iter().map(LocalOp::patience).min().unwrap_or(Patience::None),
            Work::Mail(_) => Patience::None,
        }
    }

    /// Operations in it.
    pub fn len(&self) -> usize {
        match self {
            Work::Local(ops) => ops.len(),
            Work::Mail(ops) => ops.len(),
        }
    }

    /// True if there is nothing to do.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// Outcomes of one submission, one per operation, in its order.
#[derive(Debug, Clone)]
pub enum WorkDone {
    /// Of a [`Work::Local`].
    Local(Vec<LocalOutcome>),
    /// Of a [`Work::Mail`].
    Mail(Vec<MailOutcome>),
}

/// What became of one submission: all of it is durable, or nothing of it happened.
pub type WorkResult = Result<WorkDone, StoreError>;

/// Owner of the rows. Lives on one thread; every call may block on the disk.
pub trait Engine: Send {
    /// Applies `works` in order, each whole or not at all, and makes all of it durable with one
    /// commit before it returns. One result per submission, in order.
    ///
    /// # Errors
    /// Nothing of the batch stands. The engine is ready for the next batch unless the error
    /// [is fatal](StoreError::is_fatal).
    fn commit(&mut self, works: &[Work]) -> Result<Vec<WorkResult>, StoreError>;

    /// This start's number (see [`super::LocalStore::boot_epoch`]).
    fn boot_epoch(&self) -> u32;

    /// Time spent in syncing so far, for metrics; zero where nothing is synced.
    fn synced(&self) -> SyncTotals {
        SyncTotals::default()
    }

    /// Messages that arrived and were not taken yet as of the last commit, the early ones among them;
    /// zero where nobody counts.
    fn inbox_messages(&self) -> u64 {
        0
    }
}

/// Syncs since the engine was opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct SyncTotals {
    /// How many.
    pub count: u64,
    /// How long all of them took.
    pub time: Duration,
}
