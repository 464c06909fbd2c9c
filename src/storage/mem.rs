//! Both stores in memory: the model the embedded store is compared with, and what actors are
//! tested on, with faults on demand. Written the plain way, to be right rather than fast.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    ops::Bound,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use super::{
    Completion, HandedBack, LocalStore, Mailboxes, NotTaken,
    engine::{Engine, Work, WorkDone, WorkResult},
    error::StoreError,
    ops::{
        Awaits, Counter, DestinationUsage, EarlyPage, EarlyRow, HeldPage, HeldRow, HeldSummary, InboxCommit,
        InboxPage, InboxRow, KvPage, LocalCounts, LocalOp, LocalOutcome, MailOp, MailOutcome, MailUsage,
        Namespace, OutboxPage, OutboxRow, PageLimit, PartialPage, PartialRow, RequestPage, Strangers,
    },
    quota::{
        HELD_ROW_OVERHEAD_BYTES, HoldRefusal, INBOX_ROW_OVERHEAD_BYTES, InboxQuota, InboxScope, MailboxQuota,
        Quota, QuotaScope, Standing,
    },
};
use crate::wire::{Address, MessageUid, TransferTag, UidPrefix};

/// The rows in memory.
#[derive(Debug, Clone)]
pub struct MemEngine {
    quota: MailboxQuota,
    inbox_quota: InboxQuota,
    boot_epoch: u32,
    /// What the next start counts from.
    epoch_on_record: u32,
    /// Set while the volume plays nearly full.
    below_reserve: bool,
    outbox_seq: u64,
    inbox_seq: u64,
    held_seq: u64,
    outbox: BTreeMap<u64, OutboxRow>,
    inbox: BTreeMap<u64, InboxRow>,
    inbox_costs: BTreeMap<InboxCostOf, InboxCost>,
    /// With their entries.
    early: BTreeMap<(Address, MessageUid), (EarlyRow, Vec<u8>)>,
    /// What waits for its source to be accepted.
    requests: BTreeMap<(Address, u64), InboxRow>,
    seen_messages: BTreeMap<(Address, MessageUid), u64>,
    partials: BTreeMap<(Address, TransferTag), PartialRow>,
    counters: BTreeMap<Counter, u64>,
    kv: BTreeMap<(Namespace, Vec<u8>), Vec<u8>>,
    held: BTreeMap<u64, HeldRow>,
}

/// What of the inbox costs something.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum InboxCostOf {
    Entry(u64),
    Early(Address, MessageUid),
    Request(Address, u64),
    File(Address, TransferTag),
}

#[derive(Debug, Clone, Copy)]
struct InboxCost {
    /// What its source was when it came.
    stranger: bool,
    bytes: u64,
    source: Address,
    ingress: Option<Address>,
}

impl Default for MemEngine {
    fn default() -> Self {
        Self::new(MailboxQuota::default())
    }
}

impl MemEngine {
    /// An empty store with these quotas, in its first boot epoch.
    pub fn new(quota: MailboxQuota) -> Self {
        Self {
            quota,
            inbox_quota: InboxQuota::default(),
            boot_epoch: 1,
            epoch_on_record: 1,
            below_reserve: false,
            outbox_seq: 0,
            inbox_seq: 0,
            held_seq: 0,
            outbox: BTreeMap::new(),
            inbox: BTreeMap::new(),
            inbox_costs: BTreeMap::new(),
            early: BTreeMap::new(),
            requests: BTreeMap::new(),
            seen_messages: BTreeMap::new(),
            partials: BTreeMap::new(),
            counters: BTreeMap::new(),
            kv: BTreeMap::new(),
            held: BTreeMap::new(),
        }
    }

    /// With these quotas of the inbox.
    pub fn with_inbox_quota(self, inbox_quota: InboxQuota) -> Self {
        Self { inbox_quota, ..self }
    }

    /// What a restart does: a new boot epoch, everything else stays.
    pub fn restart(&mut self) {
        self.epoch_on_record = self.epoch_on_record.saturating_add(1);
        self.boot_epoch = self.epoch_on_record;
    }

    fn below_reserve(&self) -> Option<StoreError> {
        self.below_reserve.then_some(StoreError::BelowReserve { free_bytes: 0, reserve_bytes: 1 << 20 })
    }

    fn work(&mut self, work: &Work) -> WorkResult {
        match work {
            Work::Local(ops) => {
                ops.iter().try_for_each(LocalOp::check_size)?;
                if let Some(e) = self.below_reserve()
                    && ops.iter().any(LocalOp::grows)
                {
                    return Err(e);
                }
                Ok(WorkDone::Local(ops.iter().map(|op| self.local(op)).collect()))
            }
            Work::Mail(ops) => {
                ops.iter().try_for_each(MailOp::check_size)?;
                Ok(WorkDone::Mail(ops.iter().map(|op| self.mail(op)).collect()))
            }
        }
    }

    fn local(&mut self, op: &LocalOp) -> LocalOutcome {
        use LocalOutcome as O;
        match op {
            LocalOp::OutboxPut(row) => {
                self.outbox_seq += 1;
                self.outbox.insert(self.outbox_seq, row.clone());
                O::Stored { seq: self.outbox_seq }
            }
            LocalOp::OutboxUpdate { seq, state } => match self.outbox.get_mut(seq) {
                Some(row) => {
                    row.state.clone_from(state);
                    O::Done
                }
                None => O::Absent,
            },
            LocalOp::OutboxRemove(seq) => match self.outbox.remove(seq) {
                Some(_) => O::Done,
                None => O::Absent,
            },
            LocalOp::OutboxPage { after, limit } => {
                let (rows, next) = page(&self.outbox, behind(*after), *limit, |_, row| row.body.len());
                O::Outbox(OutboxPage { rows, next, damaged: 0 })
            }
            LocalOp::InboxCommit(commit) => {
                let cost = self.inbox_cost(&commit.source, commit.ingress, commit.entry.len() as u64);
                let is_seen = self.seen_messages.contains_key(&(commit.source, commit.uid));
                let is_stranger = self.standing(&commit.source) == Standing::Stranger;
                if is_stranger && commit.strangers == Strangers::Refuse && !is_seen {
                    return O::Unwanted;
                }
                let refuses = self.inbox_refuses(cost, false).or_else(|| {
                    if cost.stranger && !stranger_waits(commit) {
                        return None;
                    }
                    self.awaited(&commit.source, &commit.awaits)?;
                    self.inbox_refuses(cost, true)
                });
                match refuses {
                    Some(scope) if !is_seen => O::InboxFull(scope),
                    _ => self.inbox_enter(commit, cost),
                }
            }
            LocalOp::EarlyRelease { source, uid, force } => {
                let key = (*source, *uid);
                let Some((early, _)) = self.early.get(&key) else { return O::Absent };
                let stranger = early.stranger;
                let awaits = Awaits { follows: Some(early.awaits), ..Awaits::default() };
                if let Some(awaits) = self.awaited(source, &awaits)
                    && !force
                {
                    return O::Early { awaits, stranger };
                }
                let cost = self.inbox_costs.remove(&InboxCostOf::Early(key.0, key.1));
                self.inbox_seq += 1;
                let seq = self.inbox_seq;
                if let Some((_, entry)) = self.early.remove(&key) {
                    self.inbox.insert(seq, InboxRow { seq, uid: *uid, source: *source, entry });
                }
                if let Some(cost) = cost {
                    self.inbox_costs.insert(InboxCostOf::Entry(seq), cost);
                }
                O::Committed { seq }
            }
            LocalOp::EarlyPage { after, limit } => {
                let (rows, next) = page(&self.early, behind(*after), *limit, |_, (_, entry)| entry.len());
                let rows = rows.into_iter().map(|(_, (row, _))| row).collect();
                O::Earlies(EarlyPage { rows, next, damaged: 0 })
            }
            LocalOp::FileCommit { commit, tag } => {
                let mut cost = self.inbox_cost(&commit.source, commit.ingress, commit.entry.len() as u64);
                if let Some(file) = self.inbox_costs.remove(&InboxCostOf::File(commit.source, *tag)) {
                    cost = InboxCost { bytes: cost.bytes + file.bytes, ..file };
                }
                self.inbox_enter(commit, cost)
            }
            LocalOp::InboxPage { after, limit } => {
                let (rows, next) = page(&self.inbox, behind(*after), *limit, |_, row| row.entry.len());
                O::Inbox(InboxPage { rows: rows.into_iter().map(|(_, row)| row).collect(), next, damaged: 0 })
            }
            LocalOp::InboxRemove(seq) => {
                self.inbox_costs.remove(&InboxCostOf::Entry(*seq));
                done_or_absent(self.inbox.remove(seq))
            }
            LocalOp::RequestPage { after, limit } => {
                let (rows, next) = page(&self.requests, behind(*after), *limit, |_, row| row.entry.len());
                let rows = rows.into_iter().map(|(_, row)| row).collect();
                O::Requests(RequestPage { rows, next, damaged: 0 })
            }
            LocalOp::RequestEnter { source, seq } => {
                let Some(row) = self.requests.remove(&(*source, *seq)) else { return O::Absent };
                let cost = self.inbox_costs.remove(&InboxCostOf::Request(*source, *seq));
                self.inbox_seq += 1;
                let seq = self.inbox_seq;
                self.inbox.insert(seq, InboxRow { seq, ..row });
                self.inbox_costs.extend(cost.map(|cost| (InboxCostOf::Entry(seq), cost)));
                O::Committed { seq }
            }
            LocalOp::RequestRemove { source, seq } => {
                self.inbox_costs.remove(&InboxCostOf::Request(*source, *seq));
                done_or_absent(self.requests.remove(&(*source, *seq)))
            }
            LocalOp::ForgetSeen { now_unix_s, rows_max } => self.forget_seen(*now_unix_s, *rows_max),
            LocalOp::PartialOpen { row, ingress, file_bytes, strangers } => {
                let key = (row.source, row.tag);
                if !self.partials.contains_key(&key) {
                    let is_stranger = self.standing(&row.source) == Standing::Stranger;
                    if is_stranger && *strangers == Strangers::Refuse {
                        return O::Unwanted;
                    }
                    let cost = self.inbox_cost(&row.source, *ingress, *file_bytes);
                    if let Some(scope) = self.inbox_refuses(cost, false) {
                        return O::InboxFull(scope);
                    }
                    self.inbox_costs.insert(InboxCostOf::File(key.0, key.1), cost);
                }
                self.partials.insert(key, row.clone());
                O::Done
            }
            LocalOp::PartialPut(row) => {
                self.partials.insert((row.source, row.tag), row.clone());
                O::Done
            }
            LocalOp::PartialRemove { source, tag } => {
                self.inbox_costs.remove(&InboxCostOf::File(*source, *tag));
                done_or_absent(self.partials.remove(&(*source, *tag)))
            }
            LocalOp::PartialPage { after, limit } => {
                let (rows, next) = page(&self.partials, behind(*after), *limit, |_, row| row.state.len());
                O::Partials(PartialPage {
                    rows: rows.into_iter().map(|(_, row)| row).collect(),
                    next,
                    damaged: 0,
                })
            }
            LocalOp::Reserve { counter, count } => {
                let next = self.counters.entry(*counter).or_insert(1);
                let first = *next;
                match first.checked_add(u64::from(*count)) {
                    Some(after) => {
                        *next = after;
                        O::Reserved { first, count: *count }
                    }
                    None => O::Exhausted,
                }
            }
            LocalOp::RaiseCounter { counter, at_least } => {
                let next = self.counters.entry(*counter).or_insert(1);
                *next = (*next).max(*at_least);
                O::Done
            }
            LocalOp::RaiseBootEpoch { at_least } => {
                self.epoch_on_record = self.epoch_on_record.max(*at_least);
                O::BootEpoch(self.epoch_on_record)
            }
            LocalOp::KvPut { namespace, key, value } => {
                self.kv.insert((*namespace, key.clone()), value.clone());
                O::Done
            }
            LocalOp::KvGet { namespace, key } => O::Value(self.kv.get(&(*namespace, key.clone())).cloned()),
            LocalOp::KvRemove { namespace, key } => {
                done_or_absent(self.kv.remove(&(*namespace, key.clone())))
            }
            LocalOp::KvClear(namespace) => {
                self.kv.retain(|(at, _), _| at != namespace);
                O::Done
            }
            LocalOp::KvPage { namespace, after, limit } => {
                let rows: BTreeMap<Vec<u8>, Vec<u8>> = self
                    .kv
                    .iter()
                    .filter(|((at, _), _)| at == namespace)
                    .map(|((_, key), value)| (key.clone(), value.clone()))
                    .collect();
                let (rows, next) = page(&rows, behind(after.clone()), *limit, |_, value| value.len());
                O::Values(KvPage { rows, next, damaged: 0 })
            }
            LocalOp::Counts => O::Counts(LocalCounts {
                outbox: self.outbox.len() as u64,
                inbox: (self.inbox.len() + self.early.len() + self.requests.len()) as u64,
                partials: self.partials.len() as u64,
                seen_messages: self.seen_messages.len() as u64,
                quarantined: 0,
            }),
        }
    }

    fn inbox_enter(&mut self, commit: &InboxCommit, cost: InboxCost) -> LocalOutcome {
        let until = commit.dedup_until_unix_s;
        let message = (commit.source, commit.uid);
        if !see(&mut self.seen_messages, message, until) || self.early.contains_key(&message) {
            return LocalOutcome::Seen;
        }
        self.inbox_seq += 1;
        let seq = self.inbox_seq;
        let entry = commit.entry.clone();
        let row = InboxRow { seq, uid: commit.uid, source: commit.source, entry };
        if self.standing(&commit.source) == Standing::Stranger && commit.strangers != Strangers::Enter {
            self.requests.insert((commit.source, seq), row);
            self.inbox_costs.insert(InboxCostOf::Request(commit.source, seq), cost);
            return LocalOutcome::Requested;
        }
        let stranger = cost.stranger;
        if (stranger_waits(commit) || !stranger)
            && let Some(awaits) = self.awaited(&commit.source, &commit.awaits)
        {
            let row = EarlyRow { source: commit.source, uid: commit.uid, seq, awaits, stranger };
            self.early.insert(message, (row, commit.entry.clone()));
            self.inbox_costs.insert(InboxCostOf::Early(commit.source, commit.uid), cost);
            return LocalOutcome::Early { awaits, stranger };
        }
        self.inbox.insert(seq, row);
        self.inbox_costs.insert(InboxCostOf::Entry(seq), cost);
        LocalOutcome::Committed { seq }
    }

    fn awaited(&self, source: &Address, awaits: &Awaits) -> Option<UidPrefix> {
        let begins = |key: &(Address, MessageUid), prefix| key.0 == *source && key.1.prefix() == prefix;
        let is_seen = |prefix| self.seen_messages.keys().any(|key| begins(key, prefix));
        let is_early = |prefix| self.early.keys().any(|key| begins(key, prefix));
        let follows = awaits.follows.filter(|prefix| !is_seen(*prefix) || is_early(*prefix));
        follows.or_else(|| awaits.behind.filter(|prefix| is_early(*prefix)))
    }

    fn standing(&self, source: &Address) -> Standing {
        let is_in = |namespace| self.kv.contains_key(&(namespace, source.0.to_vec()));
        let is_known = is_in(Namespace::KeyRecord) || is_in(Namespace::Accepted);
        match (is_in(Namespace::Known), is_known) {
            (true, _) => Standing::Contact,
            (false, true) => Standing::Known,
            (false, false) => Standing::Stranger,
        }
    }

    fn inbox_cost(&self, source: &Address, ingress: Option<Address>, content_bytes: u64) -> InboxCost {
        InboxCost {
            stranger: self.standing(source) == Standing::Stranger,
            bytes: INBOX_ROW_OVERHEAD_BYTES.saturating_add(content_bytes),
            source: *source,
            ingress,
        }
    }

    fn inbox_refuses(&self, cost: InboxCost, early: bool) -> Option<InboxScope> {
        let quota = &self.inbox_quota;
        let fits = |quota: Quota, counts: &dyn Fn(&InboxCost) -> bool| {
            let of = self.inbox_costs.values().filter(|held| counts(held));
            let (rows, bytes) = of.fold((0, 0), |(rows, bytes), held| (rows + 1, bytes + held.bytes));
            let quota = if early { quota.of_early() } else { quota };
            quota.admits(bytes, rows, cost.bytes)
        };
        let same_ingress = |held: &InboxCost| held.stranger && held.ingress == cost.ingress;
        let (per_source, is_bound) = (quota.of_source(self.standing(&cost.source)), cost.stranger);
        if is_bound && cost.ingress.is_some() && !fits(quota.strangers_per_ingress, &same_ingress) {
            Some(InboxScope::Ingress)
        } else if !fits(per_source, &|held| held.source == cost.source) {
            Some(InboxScope::Source)
        } else if is_bound && !fits(quota.strangers, &|held| held.stranger) {
            Some(InboxScope::Strangers)
        } else if !fits(quota.all, &|_| true) {
            Some(InboxScope::All)
        } else {
            None
        }
    }

    fn forget_seen(&mut self, now: u64, rows_max: usize) -> LocalOutcome {
        let messages = self.seen_messages.iter().map(|(id, until)| (*until, *id));
        let due: BTreeSet<_> = messages.filter(|(until, _)| *until < now).collect();
        let more = due.len() > rows_max.max(1);
        let mut rows = 0;
        for (_, id) in due.into_iter().take(rows_max.max(1)) {
            rows += 1;
            self.seen_messages.remove(&id);
        }
        LocalOutcome::Forgotten { rows, more }
    }

    fn mail(&mut self, op: &MailOp) -> MailOutcome {
        use MailOutcome as O;
        match op {
            MailOp::Hold(row) => self.hold(row),
            MailOp::Page { destination, after, limit } => {
                let rows: BTreeMap<u64, HeldRow> = self
                    .held
                    .iter()
                    .filter(|(_, row)| row.destination == *destination)
                    .map(|(seq, row)| (*seq, row.clone()))
                    .collect();
                let (rows, next) = page(&rows, behind(*after), *limit, |_, row| row.frame.len());
                let through = rows.last().map(|(place, _)| *place);
                let rows = rows.into_iter().map(|(_, row)| row).collect();
                O::Page(HeldPage { rows, next, through, damaged: 0 })
            }
            MailOp::Remove(ids) => {
                let before = self.held.len();
                self.held.retain(|_, row| !ids.contains(&row.packet_id));
                O::Removed { rows: before - self.held.len() }
            }
            MailOp::RemoveFor { destination, packet_ids } => {
                let before = self.held.len();
                self.held
                    .retain(|_, row| row.destination != *destination || !packet_ids.contains(&row.packet_id));
                O::Removed { rows: before - self.held.len() }
            }
            MailOp::Expire { now_s, rows_max } => {
                let due: BTreeSet<(u64, u64)> = self
                    .held
                    .iter()
                    .filter(|(_, row)| row.expires_s < *now_s)
                    .map(|(seq, row)| (row.expires_s, *seq))
                    .collect();
                let more = due.len() > (*rows_max).max(1);
                let mut rows = 0;
                for (_, seq) in due.into_iter().take((*rows_max).max(1)) {
                    rows += 1;
                    self.held.remove(&seq);
                }
                O::Expired { rows, more }
            }
            MailOp::CheckRoom { .. } => match self.below_reserve() {
                Some(e) => O::Refused(HoldRefusal::Disk(e)),
                None => O::Room,
            },
            MailOp::Usage { destination } => O::Usage(MailUsage {
                total: self.sum(|_| true),
                destination: destination.as_ref().map(|destination| self.usage(destination)),
            }),
            MailOp::Destinations { after, rows_max } => {
                let all: BTreeSet<Address> = self.held.values().map(|row| row.destination).collect();
                let from = after.map_or(Bound::Unbounded, Bound::Excluded);
                let found = all.range((from, Bound::Unbounded)).take((*rows_max).max(1));
                O::Destinations(found.map(|destination| self.usage(destination)).collect())
            }
        }
    }

    fn hold(&mut self, row: &HeldRow) -> MailOutcome {
        if self.held.values().any(|held| held.packet_id == row.packet_id) {
            return MailOutcome::Duplicate;
        }
        if let Some(e) = self.below_reserve() {
            return MailOutcome::Refused(HoldRefusal::Disk(e));
        }
        let bytes = HELD_ROW_OVERHEAD_BYTES.saturating_add(row.frame.len() as u64);
        let fits = |quota: Quota, held: HeldSummary| quota.admits(held.bytes, held.rows, bytes);
        let scope = if !fits(self.quota.per_ingress, self.sum(|held| held.ingress == row.ingress)) {
            Some(QuotaScope::Ingress)
        } else if !fits(self.quota.per_source, self.sum(|held| held.source == row.source)) {
            Some(QuotaScope::Source)
        } else if !fits(self.quota.per_destination, self.sum(|held| held.destination == row.destination)) {
            Some(QuotaScope::Destination)
        } else if !fits(self.quota.global, self.sum(|_| true)) {
            Some(QuotaScope::Global)
        } else {
            None
        };
        if let Some(scope) = scope {
            return MailOutcome::Refused(HoldRefusal::Quota(scope));
        }
        self.held_seq += 1;
        let place = row.place(self.held_seq);
        self.held.insert(place, row.clone());
        MailOutcome::Held { place }
    }

    fn sum(&self, of: impl Fn(&HeldRow) -> bool) -> HeldSummary {
        self.held.values().filter(|row| of(row)).fold(HeldSummary::default(), |sum, row| HeldSummary {
            rows: sum.rows + 1,
            bytes: sum.bytes + HELD_ROW_OVERHEAD_BYTES + row.frame.len() as u64,
        })
    }

    fn usage(&self, destination: &Address) -> DestinationUsage {
        DestinationUsage {
            destination: *destination,
            held: self.sum(|row| row.destination == *destination),
            oldest_held_at_s: HeldRow::class_starts()
                .filter_map(|start| self.held.range(start..).find(|(_, row)| row.destination == *destination))
                .map(|(_, row)| row.held_at_s)
                .min(),
        }
    }
}

impl Engine for MemEngine {
    fn commit(&mut self, works: &[Work]) -> Result<Vec<WorkResult>, StoreError> {
        Ok(works.iter().map(|work| self.work(work)).collect())
    }

    fn boot_epoch(&self) -> u32 {
        self.boot_epoch
    }
}

/// Whether a stranger's message may wait for the one that it follows.
fn stranger_waits(commit: &InboxCommit) -> bool {
    commit.awaits.stranger_waits && commit.strangers == Strangers::Enter
}

fn done_or_absent<V>(row: Option<V>) -> LocalOutcome {
    match row {
        Some(_) => LocalOutcome::Done,
        None => LocalOutcome::Absent,
    }
}

fn behind<K>(after: Option<K>) -> Bound<K> {
    after.map_or(Bound::Unbounded, Bound::Excluded)
}

fn see<K: Ord>(seen: &mut BTreeMap<K, u64>, id: K, until: u64) -> bool {
    match seen.get_mut(&id) {
        Some(before) => {
            *before = until.max(*before);
            false
        }
        None => {
            seen.insert(id, until);
            true
        }
    }
}

/// Rows from `from` on within `limit`, and the key to go on behind if more follow. Only the first
/// bound is exact: stores may count a row's bytes with its header.
fn page<K: Ord + Clone, V: Clone>(
    rows: &BTreeMap<K, V>,
    from: Bound<K>,
    limit: PageLimit,
    bytes_of: impl Fn(&K, &V) -> usize,
) -> (Vec<(K, V)>, Option<K>) {
    let (mut found, mut bytes) = (Vec::new(), 0usize);
    for (key, row) in rows.range((from, Bound::Unbounded)) {
        bytes = bytes.saturating_add(bytes_of(key, row));
        if !found.is_empty() && (found.len() >= limit.rows_max || bytes > limit.bytes_max) {
            let last = found.last().map(|(key, _): &(K, V)| key.clone());
            return (found, last);
        }
        found.push((key.clone(), row.clone()));
    }
    (found, None)
}

// ---- a store for actors' tests -----------------------------------------------------------------

/// A fault to show at a commit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MemFault {
    /// The disk is full; the store goes on afterwards.
    NoSpace,
    /// The disk fails; the store stops for good.
    Io,
}

/// Both stores over one [`MemEngine`]. Submissions are applied at once, on the caller's thread;
/// their completions run at once too, unless [`MemStore::hold_completions`] is on. Clones share
/// the rows, so a clone outlives an actor as a disk would.
#[derive(Clone, Default)]
pub struct MemStore {
    state: Arc<Mutex<MemState>>,
}

#[derive(Default)]
struct MemState {
    engine: MemEngine,
    faults: Vec<MemFault>,
    full: bool,
    out_of_space: bool,
    stopped: bool,
    holding: bool,
    held: Vec<Box<dyn FnOnce() + Send>>,
    commits: usize,
}

impl MemStore {
    /// An empty store with these quotas, in its first boot epoch.
    pub fn new(quota: MailboxQuota) -> Self {
        let store = Self::default();
        store.lock().engine = MemEngine::new(quota);
        store
    }

    /// Sets the quotas of the inbox.
    pub fn set_inbox_quota(&self, quota: InboxQuota) {
        self.lock().engine.inbox_quota = quota;
    }

    /// Makes the next commit fail; several faults are shown one a commit, in order.
    pub fn fail_next(&self, fault: MemFault) {
        self.lock().faults.push(fault);
    }

    /// While set, submissions are handed back as from a full queue.
    pub fn set_full(&self, full: bool) {
        self.lock().full = full;
    }

    /// While set, every submission that takes space fails as on a full disk; others go through.
    pub fn set_out_of_space(&self, out: bool) {
        self.lock().out_of_space = out;
    }

    /// While set, the volume plays nearly full.
    pub fn set_below_reserve(&self, below: bool) {
        self.lock().engine.below_reserve = below;
    }

    /// Keeps completions back, as a slow disk does, until [`MemStore::release`].
    pub fn hold_completions(&self) {
        self.lock().holding = true;
    }

    /// Runs the completions kept back, in order, and keeps none back any more. Returns how many.
    pub fn release(&self) -> usize {
        let held = {
            let mut state = self.lock();
            state.holding = false;
            std::mem::take(&mut state.held)
        };
        let count = held.len();
        held.into_iter().for_each(|done| done());
        count
    }

    /// What a restart of the process does: a new boot epoch; a store that stopped starts again.
    pub fn restart(&self) {
        let mut state = self.lock();
        state.engine.restart();
        state.stopped = false;
    }

    /// Submissions applied so far.
    pub fn commits(&self) -> usize {
        self.lock().commits
    }

    fn lock(&self) -> MutexGuard<'_, MemState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Applies a submission, or says why it is not taken and hands the work back.
    fn apply(&self, work: Work) -> Result<WorkResult, (NotTaken, Work)> {
        let mut state = self.lock();
        if state.stopped {
            return Err((NotTaken::Stopped, work));
        }
        if state.full {
            return Err((NotTaken::Full, work));
        }
        if !state.faults.is_empty() {
            let fault = state.faults.remove(0);
            state.stopped = fault == MemFault::Io;
            return Ok(Err(fault.error()));
        }
        if state.out_of_space && grows(&work) {
            return Ok(Err(MemFault::NoSpace.error()));
        }
        state.commits += 1;
        Ok(state.engine.work(&work))
    }

    fn complete(&self, done: Box<dyn FnOnce() + Send>) {
        let mut state = self.lock();
        if state.holding {
            state.held.push(done);
        } else {
            // Completions may submit again, so none runs under the lock.
            drop(state);
            done();
        }
    }
}

fn grows(work: &Work) -> bool {
    match work {
        Work::Local(ops) => ops.iter().any(LocalOp::grows),
        Work::Mail(ops) => ops.iter().any(MailOp::grows),
    }
}

impl MemFault {
    fn error(self) -> StoreError {
        const DOING: &str = "committing a batch";
        match self {
            MemFault::NoSpace => {
                StoreError::NoSpace { doing: DOING, source: Arc::new(io::ErrorKind::StorageFull.into()) }
            }
            MemFault::Io => {
                StoreError::IoFatal { doing: DOING, source: Arc::new(io::Error::other("injected")) }
            }
        }
    }
}

impl LocalStore for MemStore {
    fn submit(
        &self,
        ops: Vec<LocalOp>,
        done: Completion<LocalOutcome>,
    ) -> Result<(), HandedBack<LocalOp, LocalOutcome>> {
        match self.apply(Work::Local(ops)) {
            Ok(result) => {
                let result = result.and_then(|outcomes| match outcomes {
                    WorkDone::Local(outcomes) => Ok(outcomes),
                    WorkDone::Mail(_) => Err(StoreError::Stopped),
                });
                self.complete(Box::new(move || done(result)));
                Ok(())
            }
            Err((reason, Work::Local(ops))) => Err(HandedBack { reason, ops, done }),
            Err((reason, Work::Mail(_))) => Err(HandedBack { reason, ops: Vec::new(), done }),
        }
    }

    fn boot_epoch(&self) -> u32 {
        self.lock().engine.boot_epoch
    }
}

impl Mailboxes for MemStore {
    fn submit(
        &self,
        ops: Vec<MailOp>,
        done: Completion<MailOutcome>,
    ) -> Result<(), HandedBack<MailOp, MailOutcome>> {
        match self.apply(Work::Mail(ops)) {
            Ok(result) => {
                let result = result.and_then(|outcomes| match outcomes {
                    WorkDone::Mail(outcomes) => Ok(outcomes),
                    WorkDone::Local(_) => Err(StoreError::Stopped),
                });
                self.complete(Box::new(move || done(result)));
                Ok(())
            }
            Err((reason, Work::Mail(ops))) => Err(HandedBack { reason, ops, done }),
            Err((reason, Work::Local(_))) => Err(HandedBack { reason, ops: Vec::new(), done }),
        }
    }
}

impl std::fmt::Debug for MemStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("MemStore").field("commits", &self.commits()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::ask_local;

    fn put() -> Vec<LocalOp> {
        vec![LocalOp::KvPut { namespace: Namespace::Peer, key: b"k".to_vec(), value: b"v".to_vec() }]
    }

    fn peers(store: &MemStore) -> usize {
        store.lock().engine.kv.len()
    }

    #[tokio::test]
    async fn a_full_disk_keeps_nothing_and_goes_on() {
        let store = MemStore::new(MailboxQuota::default());
        store.fail_next(MemFault::NoSpace);
        let refused = ask_local(&store, put()).unwrap().await;
        assert!(matches!(refused, Err(StoreError::NoSpace { .. })));
        assert_eq!(peers(&store), 0);
        assert_eq!(ask_local(&store, put()).unwrap().await.unwrap(), [LocalOutcome::Done]);
        assert_eq!(peers(&store), 1);
    }

    #[tokio::test]
    async fn a_failing_disk_stops_the_store_until_a_restart() {
        let store = MemStore::new(MailboxQuota::default());
        store.fail_next(MemFault::Io);
        let failed = ask_local(&store, put()).unwrap().await;
        assert!(failed.unwrap_err().is_fatal());
        assert_eq!(ask_local(&store, put()).err(), Some(NotTaken::Stopped));
        store.restart();
        assert_eq!(store.boot_epoch(), 2);
        ask_local(&store, put()).unwrap().await.unwrap();
    }

    #[tokio::test]
    async fn completions_wait_while_held_and_a_full_queue_hands_back() {
        let store = MemStore::new(MailboxQuota::default());
        store.hold_completions();
        let answer = ask_local(&store, put()).unwrap();
        assert_eq!(store.commits(), 1);
        store.set_full(true);
        assert_eq!(ask_local(&store, put()).err(), Some(NotTaken::Full));
        assert_eq!(store.release(), 1);
        assert_eq!(answer.await.unwrap(), [LocalOutcome::Done]);
    }
}
