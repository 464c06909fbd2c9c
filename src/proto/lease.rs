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
//! network) and no port it came from picks another budget. Keys cost nothing, so those who come from
//! one address, or from 64 bits of an IPv6 one, share a second budget, some times as large: that is
//! what one party can have under any number of names (THREATS A-18).

use std::{
    collections::BTreeMap,
    net::IpAddr,
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

/// Neighbours with a budget of their own, and parties. One whose budget is full again is forgotten
/// without loss; beyond the bound newcomers share one budget.
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
    /// What all neighbours of one party may, in budgets of a neighbour; at least one.
    pub party_budgets: u64,
}

impl Default for LeaseConfig {
    fn default() -> Self {
        Self { messages_per_s: 50_000, bytes_per_s: 100 * 1024 * 1024, party_budgets: 4 }
    }
}

/// Who pays.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Payer {
    /// Who proved a key.
    pub neighbour: Address,
    /// Whose address it comes from; `None` where this node dialled it, or where its medium has none.
    pub party: Option<IpAddr>,
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
    neighbours: Accounts<Address>,
    parties: Accounts<IpAddr>,
}

/// Budgets of one size by whose they are.
#[derive(Debug)]
struct Accounts<K> {
    config: LeaseConfig,
    /// Budgets of a neighbour in each.
    size: u64,
    open: BTreeMap<K, Account>,
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
        Self {
            config,
            neighbours: Accounts::new(config, 1, now, resumed_at),
            parties: Accounts::new(config, config.party_budgets.max(1), now, resumed_at),
        }
    }

    /// Room for data: at least `need` (of which [`NEED_MAX`] counts at most), and what a busy link
    /// soon needs beyond it as far as that is there. With nothing needed, whatever is there.
    pub fn data(&mut self, now: Instant, payer: Payer, need: Cost) -> Grant {
        let ahead = Cost {
            messages: self.config.messages_per_s / LEASES_PER_S,
            bytes: self.config.bytes_per_s / LEASES_PER_S,
        };
        let need = need.min(NEED_MAX);
        let mut accounts = self.accounts(now, payer);
        let mut room =
            Cost { messages: need.messages.max(ahead.messages), bytes: need.bytes.max(ahead.bytes) };
        let mut wait = Duration::ZERO;
        for account in accounts.iter_mut().flatten() {
            match account.data(now, need) {
                Ok(there) => room = room.min(there),
                Err(until) => wait = wait.max(until),
            }
        }
        if !wait.is_zero() {
            return Grant::Wait(wait);
        }
        for account in accounts.iter_mut().flatten() {
            account.messages.charge(now, room.messages);
            account.bytes.charge(now, room.bytes);
        }
        Grant::Lease(Lease { room, until: now + LEASE_FOR })
    }

    /// Room for checks of announces, key records and unknown keys; a lease of messages only.
    pub fn checks(&mut self, now: Instant, payer: Payer) -> Grant {
        let mut accounts = self.accounts(now, payer);
        let (mut messages, mut wait) = (CHECKS_LEASE, Duration::ZERO);
        for account in accounts.iter_mut().flatten() {
            match there(&mut account.checks, now, 1) {
                Ok(there) => messages = messages.min(there),
                Err(until) => wait = wait.max(until),
            }
        }
        if !wait.is_zero() {
            return Grant::Wait(wait);
        }
        for account in accounts.iter_mut().flatten() {
            account.checks.charge(now, messages);
        }
        Grant::Lease(Lease { room: Cost { messages, bytes: 0 }, until: now + LEASE_FOR })
    }

    /// Something did not verify. False where the budget of the neighbour, or of its party, for that is
    /// spent.
    pub fn fault(&mut self, now: Instant, payer: Payer) -> bool {
        // What one may no longer is not charged to the others of its party.
        self.accounts(now, payer).into_iter().flatten().all(|account| account.faults.charge(now, FAULT_COST))
    }

    /// Neighbours with a budget of their own.
    pub fn len(&self) -> usize {
        self.neighbours.open.len()
    }

    /// True before the first question.
    pub fn is_empty(&self) -> bool {
        self.neighbours.open.is_empty()
    }

    fn accounts(&mut self, now: Instant, payer: Payer) -> [Option<&mut Account>; 2] {
        let party = payer.party.map(|party| self.parties.of(now, party));
        [Some(self.neighbours.of(now, payer.neighbour)), party]
    }
}

impl<K: Ord> Accounts<K> {
    fn new(config: LeaseConfig, size: u64, now: Instant, resumed_at: Option<Instant>) -> Self {
        let crowd = Account::new(&config, size, now, resumed_at);
        Self { config, size, open: BTreeMap::new(), crowd, resumed_at, swept_at: now }
    }

    fn of(&mut self, now: Instant, whose: K) -> &mut Account {
        if !self.open.contains_key(&whose) {
            if self.open.len() >= NEIGHBOURS_MAX {
                self.sweep(now);
            }
            if self.open.len() >= NEIGHBOURS_MAX {
                return &mut self.crowd;
            }
        }
        let (config, size, resumed_at) = (&self.config, self.size, self.resumed_at);
        self.open.entry(whose).or_insert_with(|| Account::new(config, size, now, resumed_at))
    }

    fn sweep(&mut self, now: Instant) {
        if now.saturating_duration_since(self.swept_at) >= SWEEP_EVERY {
            self.swept_at = now;
            self.open.retain(|_, account| !account.is_full(now));
        }
    }
}

impl Account {
    fn new(config: &LeaseConfig, size: u64, now: Instant, resumed_at: Option<Instant>) -> Self {
        let bucket = |capacity: u64, per_s: u64| {
            let (capacity, per_s) = (capacity.saturating_mul(size), per_s.saturating_mul(size));
            match resumed_at {
                None => TokenBucket::new(capacity, per_s, now),
                Some(since) => TokenBucket::empty(capacity, per_s, since),
            }
        };
        Self {
            messages: bucket(config.messages_per_s.max(NEED_MAX.messages), config.messages_per_s),
            bytes: bucket(config.bytes_per_s.max(NEED_MAX.bytes), config.bytes_per_s),
            checks: bucket(CHECKS_PER_S, CHECKS_PER_S),
            faults: bucket(FAULT_BURST, FAULTS_PER_S),
        }
    }

    /// What is there, at least `need`; or how long to wait for that.
    fn data(&mut self, now: Instant, need: Cost) -> Result<Cost, Duration> {
        match (there(&mut self.messages, now, need.messages), there(&mut self.bytes, now, need.bytes)) {
            (Ok(messages), Ok(bytes)) => Ok(Cost { messages, bytes }),
            (messages, bytes) => {
                let wait = |side: Result<u64, Duration>| side.err().unwrap_or(Duration::ZERO);
                Err(wait(messages).max(wait(bytes)))
            }
        }
    }

    fn is_full(&mut self, now: Instant) -> bool {
        self.messages.is_full(now)
            && self.bytes.is_full(now)
            && self.checks.is_full(now)
            && self.faults.is_full(now)
    }
}

/// What a bucket has, at least `need`; or how long to wait for that.
fn there(bucket: &mut TokenBucket, now: Instant, need: u64) -> Result<u64, Duration> {
    let there = bucket.available(now);
    if there < need {
        return Err(bucket.ready_in(now, need).unwrap_or(LEASE_FOR));
    }
    Ok(there)
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
