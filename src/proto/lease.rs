//! What each neighbour may cost: budgets by identity, handed out in leases.
//!
//! [`Leases`] keeps the budgets. All links of one neighbour share them, and they outlive every
//! link, so that neither a second link nor a reconnect makes a neighbour richer. A link takes a
//! [`Lease`] of messages and bytes, good until a moment, into its [`Allowance`] and spends it
//! without asking anybody. What a lease took is gone from the budget whether it is spent or not:
//! a link that dies with a lease in hand gives nothing back, and time refills the budget as it
//! refills any other.
//!
//! A neighbour is whoever proved a key to the transport; nothing that a frame says (source, kind,
//! network) and no port or address it came from picks another budget.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use super::limit::TokenBucket;
use crate::wire::{Address, limits::FRAME_BYTES_MAX};

/// How long a lease is good for. An idle link lets its lease lapse rather than wake up to renew it.
pub const LEASE_FOR: Duration = Duration::from_secs(1);

/// A lease is this fraction of a second's budget: a busy link asks twenty times a second, and
/// links of one neighbour take turns that short.
const LEASES_PER_S: u64 = 20;

/// The share of a lease that priority critical can use is one in so many.
const CRITICAL_ONE_IN: u64 = 20;

/// Most that one question can need: two of the largest batches a link hands over at once. Every
/// budget holds that much, however low its rate, or a batch could wait for ever.
pub const NEED_MAX: Cost = Cost { messages: 128, bytes: 128 * (FRAME_BYTES_MAX as u64) };

/// Neighbours with a budget of their own. One whose budget is full again is forgotten without
/// loss; beyond the bound newcomers share one budget.
pub const NEIGHBOURS_MAX: usize = 4096;

/// Least time between two searches for neighbours to forget.
const SWEEP_EVERY: Duration = Duration::from_secs(1);

/// Announces, key records and unknown keys of one neighbour that are looked into, a second and at
/// once.
const CHECKS_PER_S: u64 = 200;

/// Checks taken at once.
const CHECKS_LEASE: u64 = 20;

/// What verifications that fail may cost: a failure costs [`FAULT_COST`], since it costs the full
/// price of a check and its sender nothing.
const FAULT_BURST: u64 = 200;
const FAULTS_PER_S: u64 = 20;
const FAULT_COST: u64 = 20;

/// Messages and bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Cost {
    /// Frames.
    pub messages: u64,
    /// Their bytes.
    pub bytes: u64,
}

impl Cost {
    /// The lesser of both in each.
    pub fn min(self, other: Self) -> Self {
        Self { messages: self.messages.min(other.messages), bytes: self.bytes.min(other.bytes) }
    }
}

/// What one neighbour may send, all its links together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LeaseConfig {
    /// Frames a second.
    pub messages_per_s: u64,
    /// Bytes of frames a second.
    pub bytes_per_s: u64,
}

impl Default for LeaseConfig {
    fn default() -> Self {
        Self { messages_per_s: 50_000, bytes_per_s: 100 * 1024 * 1024 }
    }
}

/// Room for so much, until then.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lease {
    /// How much.
    pub room: Cost,
    /// What is left of it lapses then.
    pub until: Instant,
}

/// The answer to a question for a lease.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Grant {
    /// Here it is; at least what was needed.
    Lease(Lease),
    /// Not before so long from now.
    Wait(Duration),
}

/// The budgets of all neighbours.
#[derive(Debug)]
pub struct Leases {
    config: LeaseConfig,
    accounts: BTreeMap<Address, Account>,
    /// Shared by those for whom there is no account.
    crowd: Account,
    /// Budgets begin empty at this moment; none where they begin full.
    resumed_at: Option<Instant>,
    swept_at: Instant,
}

#[derive(Debug)]
struct Account {
    messages: TokenBucket,
    bytes: TokenBucket,
    checks: TokenBucket,
    faults: TokenBucket,
}

impl Leases {
    /// Full budgets for everyone.
    pub fn new(config: LeaseConfig, now: Instant) -> Self {
        Self::with(config, now, None)
    }

    /// Budgets that are empty at `now`: for one that takes over after a crash, which must not
    /// have been worth anybody's while.
    pub fn resumed(config: LeaseConfig, now: Instant) -> Self {
        Self::with(config, now, Some(now))
    }

    fn with(config: LeaseConfig, now: Instant, resumed_at: Option<Instant>) -> Self {
        let crowd = Account::new(&config, now, resumed_at);
        Self { config, accounts: BTreeMap::new(), crowd, resumed_at, swept_at: now }
    }

    /// Room for data: at least `need` (of which [`NEED_MAX`] counts at most), and what a busy link
    /// soon needs beyond it as far as that is there. With nothing needed, whatever is there.
    pub fn data(&mut self, now: Instant, neighbour: &Address, need: Cost) -> Grant {
        let ahead = Cost {
            messages: self.config.messages_per_s / LEASES_PER_S,
            bytes: self.config.bytes_per_s / LEASES_PER_S,
        };
        let account = self.account(now, neighbour);
        let messages = take(&mut account.messages, now, need.messages.min(NEED_MAX.messages), ahead.messages);
        let bytes = take(&mut account.bytes, now, need.bytes.min(NEED_MAX.bytes), ahead.bytes);
        match (messages, bytes) {
            (Ok(messages), Ok(bytes)) => {
                account.messages.charge(now, messages);
                account.bytes.charge(now, bytes);
                Grant::Lease(Lease { room: Cost { messages, bytes }, until: now + LEASE_FOR })
            }
            (messages, bytes) => {
                let wait = |side: Result<u64, Duration>| side.err().unwrap_or(Duration::ZERO);
                Grant::Wait(wait(messages).max(wait(bytes)))
            }
        }
    }

    /// Room for checks of announces, key records and unknown keys; a lease of messages only.
    pub fn checks(&mut self, now: Instant, neighbour: &Address) -> Grant {
        let account = self.account(now, neighbour);
        match take(&mut account.checks, now, 1, CHECKS_LEASE) {
            Ok(messages) => {
                account.checks.charge(now, messages);
                Grant::Lease(Lease { room: Cost { messages, bytes: 0 }, until: now + LEASE_FOR })
            }
            Err(wait) => Grant::Wait(wait),
        }
    }

    /// Something did not verify. False where the neighbour's budget for that is spent.
    pub fn fault(&mut self, now: Instant, neighbour: &Address) -> bool {
        self.account(now, neighbour).faults.charge(now, FAULT_COST)
    }

    /// Neighbours with a budget of their own.
    pub fn len(&self) -> usize {
        self.accounts.len()
    }

    /// True before the first question.
    pub fn is_empty(&self) -> bool {
        self.accounts.is_empty()
    }

    fn account(&mut self, now: Instant, neighbour: &Address) -> &mut Account {
        if !self.accounts.contains_key(neighbour) {
            if self.accounts.len() >= NEIGHBOURS_MAX {
                self.sweep(now);
            }
            if self.accounts.len() >= NEIGHBOURS_MAX {
                return &mut self.crowd;
            }
        }
        let (config, resumed_at) = (&self.config, self.resumed_at);
        self.accounts.entry(*neighbour).or_insert_with(|| Account::new(config, now, resumed_at))
    }

    fn sweep(&mut self, now: Instant) {
        if now.saturating_duration_since(self.swept_at) >= SWEEP_EVERY {
            self.swept_at = now;
            self.accounts.retain(|_, account| !account.is_full(now));
        }
    }
}

impl Account {
    fn new(config: &LeaseConfig, now: Instant, resumed_at: Option<Instant>) -> Self {
        let bucket = |capacity, per_s| match resumed_at {
            None => TokenBucket::new(capacity, per_s, now),
            Some(since) => TokenBucket::empty(capacity, per_s, since),
        };
        Self {
            messages: bucket(config.messages_per_s.max(NEED_MAX.messages), config.messages_per_s),
            bytes: bucket(config.bytes_per_s.max(NEED_MAX.bytes), config.bytes_per_s),
            checks: bucket(CHECKS_PER_S, CHECKS_PER_S),
            faults: bucket(FAULT_BURST, FAULTS_PER_S),
        }
    }

    fn is_full(&mut self, now: Instant) -> bool {
        self.messages.is_full(now)
            && self.bytes.is_full(now)
            && self.checks.is_full(now)
            && self.faults.is_full(now)
    }
}

/// How much to take of one bucket: `need`, and up to `ahead` where more is there; or how long to
/// wait for it.
fn take(bucket: &mut TokenBucket, now: Instant, need: u64, ahead: u64) -> Result<u64, Duration> {
    let there = bucket.available(now);
    if there < need {
        return Err(bucket.ready_in(now, need).unwrap_or(LEASE_FOR));
    }
    Ok(there.min(need.max(ahead)))
}

/// What one link may still spend.
#[derive(Debug)]
pub struct Allowance {
    left: Cost,
    /// The size it had after the last lease, to see when it runs low.
    full: Cost,
    until: Instant,
    /// Nothing more is to be had before.
    dry_until: Instant,
    /// What priority critical may still use, in parts of [`CRITICAL_ONE_IN`].
    critical: Cost,
}

impl Allowance {
    /// Nothing to spend.
    pub fn new(now: Instant) -> Self {
        let (left, full, critical) = (Cost::default(), Cost::default(), Cost::default());
        Self { left, full, until: now, dry_until: now, critical }
    }

    /// There is nothing more for so long. A neighbour that sends on has each of its frames dropped
    /// without a question, which would cost more than what it asks for.
    pub fn run_dry(&mut self, now: Instant, wait: Duration) {
        self.dry_until = now + wait;
    }

    /// True where it makes sense to ask for more.
    pub fn may_ask(&self, now: Instant) -> bool {
        now >= self.dry_until
    }

    /// Adds a lease. What is left of an earlier one that has not lapsed is good as long as this.
    pub fn add(&mut self, now: Instant, lease: Lease) {
        self.lapse(now);
        self.left.messages = self.left.messages.saturating_add(lease.room.messages);
        self.left.bytes = self.left.bytes.saturating_add(lease.room.bytes);
        // The share does not pile up over leases in which nothing critical came, but for one message.
        let share = |left: u64, room: u64, least: u64| left.saturating_add(room).min(room.max(least));
        self.critical.messages = share(self.critical.messages, lease.room.messages, CRITICAL_ONE_IN);
        let largest = CRITICAL_ONE_IN * FRAME_BYTES_MAX as u64;
        self.critical.bytes = share(self.critical.bytes, lease.room.bytes, largest);
        self.full = self.left;
        self.until = lease.until;
    }

    /// Spends `cost` if all of it is there.
    pub fn spend(&mut self, now: Instant, cost: Cost) -> bool {
        self.lapse(now);
        let left = (self.left.messages.checked_sub(cost.messages), self.left.bytes.checked_sub(cost.bytes));
        let (Some(messages), Some(bytes)) = left else { return false };
        self.left = Cost { messages, bytes };
        true
    }

    /// True where it is time to ask for the next lease: a quarter is left.
    pub fn runs_low(&self) -> bool {
        self.left.messages < self.full.messages / 4 || self.left.bytes < self.full.bytes / 4
    }

    /// True where a message of priority critical and so many bytes is within the share; false
    /// where it has to wait in line with the others.
    pub fn spend_critical(&mut self, bytes: u64) -> bool {
        let price = bytes.saturating_mul(CRITICAL_ONE_IN);
        let left =
            (self.critical.messages.checked_sub(CRITICAL_ONE_IN), self.critical.bytes.checked_sub(price));
        let (Some(messages), Some(bytes)) = left else { return false };
        self.critical = Cost { messages, bytes };
        true
    }

    fn lapse(&mut self, now: Instant) {
        if now >= self.until {
            self.left = Cost::default();
        }
    }
}

#[cfg(test)]
mod tests;
