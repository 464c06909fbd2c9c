//! This node's own rows.

use std::ops::{Bound, ControlFlow};

use super::{
    inbox_cost::{self, Cost, CostHeader},
    requests,
    tables::{
        EARLY_HEADER_BYTES, Fields, INBOX_HEADER_BYTES, OUTBOX_HEADER_BYTES, PARTIAL_HEADER_BYTES, T, join,
        number,
    },
    txn::Txn,
};
use crate::{
    storage::{
        error::StoreError,
        ops::{
            Awaits, Counter, EarlyPage, EarlyRow, InboxCommit, InboxPage, InboxRow, KvPage, LocalCounts,
            LocalOp, LocalOutcome, Namespace, OutboxPage, OutboxRow, PageLimit, PartialPage, PartialRow,
            Strangers,
        },
        quota::{INBOX_ROW_OVERHEAD_BYTES, InboxQuota, Standing},
    },
    wire::{Address, MessageUid, TransferTag, UidPrefix},
};

type Result<V> = std::result::Result<V, StoreError>;

/// Key of the boot epoch in `meta`.
pub(super) const BOOT_EPOCH_KEY: &[u8] = b"boot_epoch";

/// Applies one operation.
pub(super) fn apply(txn: &mut Txn<'_>, op: &LocalOp, quota: &InboxQuota) -> Result<LocalOutcome> {
    match op {
        LocalOp::OutboxPut(row) => outbox_put(txn, row),
        LocalOp::OutboxUpdate { seq, state } => outbox_update(txn, *seq, state),
        LocalOp::OutboxRemove(seq) => Ok(done_or_absent(outbox_remove(txn, &seq.to_be_bytes())?)),
        LocalOp::OutboxPage { after, limit } => outbox_page(txn, *after, *limit),
        LocalOp::InboxCommit(commit) => inbox_commit(txn, commit, quota),
        LocalOp::EarlyRelease { source, uid, force } => early_release(txn, source, uid, *force),
        LocalOp::EarlyPage { after, limit } => early_page(txn, after.as_ref(), *limit),
        LocalOp::FileCommit { commit, tag } => file_commit(txn, commit, tag),
        LocalOp::InboxPage { after, limit } => inbox_page(txn, *after, *limit),
        LocalOp::InboxRemove(seq) => Ok(done_or_absent(remove_entry(txn, &seq.to_be_bytes())?)),
        LocalOp::RequestPage { after, limit } => requests::page(txn, *after, *limit),
        LocalOp::RequestEnter { source, seq } => requests::enter(txn, source, *seq),
        LocalOp::RequestRemove { source, seq } => Ok(done_or_absent(requests::remove(txn, source, *seq)?)),
        LocalOp::ForgetSeen { now_unix_s, rows_max } => forget_seen(txn, *now_unix_s, *rows_max),
        LocalOp::PartialOpen { row, ingress, file_bytes, strangers } => {
            partial_open(txn, row, *ingress, *file_bytes, *strangers, quota)
        }
        LocalOp::PartialPut(row) => partial_put(txn, row),
        LocalOp::PartialRemove { source, tag } => {
            let key = partial_key(source, tag);
            let row = txn.remove_sealed(T::Partial, &key, PARTIAL_HEADER_BYTES)?;
            inbox_cost::release(txn, &key)?;
            Ok(done_or_absent(row))
        }
        LocalOp::PartialPage { after, limit } => partial_page(txn, after.as_ref(), *limit),
        LocalOp::Reserve { counter, count } => reserve(txn, *counter, *count),
        LocalOp::RaiseCounter { counter, at_least } => {
            let next = counter_next(txn, *counter)?;
            if next < *at_least {
                txn.put(T::Counter, &[*counter as u8], &at_least.to_be_bytes())?;
            }
            Ok(LocalOutcome::Done)
        }
        LocalOp::RaiseBootEpoch { at_least } => {
            let epoch = boot_epoch(txn)?.max(*at_least);
            txn.put(T::Meta, BOOT_EPOCH_KEY, &u64::from(epoch).to_be_bytes())?;
            Ok(LocalOutcome::BootEpoch(epoch))
        }
        LocalOp::KvPut { namespace, key, value } => {
            let at = kv_key(*namespace, key);
            if namespace.is_sealed() {
                txn.put_sealed(T::Kv, &at, &[], value)?;
            } else {
                txn.put(T::Kv, &at, value)?;
            }
            Ok(LocalOutcome::Done)
        }
        LocalOp::KvGet { namespace, key } => kv_get(txn, *namespace, key),
        LocalOp::KvRemove { namespace, key } => Ok(done_or_absent(kv_remove(txn, *namespace, key)?)),
        LocalOp::KvClear(namespace) => kv_clear(txn, *namespace),
        LocalOp::KvPage { namespace, after, limit } => kv_page(txn, *namespace, after.as_deref(), *limit),
        LocalOp::Counts => Ok(LocalOutcome::Counts(LocalCounts {
            outbox: txn.rows(T::Outbox)?,
            inbox: txn.inbox_messages()?,
            partials: txn.rows(T::Partial)?,
            seen_messages: txn.rows(T::SeenMessage)?,
            quarantined: txn.rows(T::Quarantine)?,
        })),
    }
}

/// The boot epoch on record, zero before the first start.
pub(super) fn boot_epoch(txn: &Txn<'_>) -> Result<u32> {
    match txn.get(T::Meta, BOOT_EPOCH_KEY)? {
        Some(row) => number(&row)
            .and_then(|epoch| u32::try_from(epoch).ok())
            .ok_or_else(|| txn.corrupt(T::Meta, "the boot epoch is no number")),
        None => Ok(0),
    }
}

fn done_or_absent<V>(row: Option<V>) -> LocalOutcome {
    match row {
        Some(_) => LocalOutcome::Done,
        None => LocalOutcome::Absent,
    }
}

// ---- pages -------------------------------------------------------------------------------------

/// A row as it is stored: its key and what is under it.
pub(super) type RawRow = (Vec<u8>, Vec<u8>);

/// Keys and rows from behind `after` to the end of `to`, as far as `limit` goes, and whether more
/// follow.
pub(super) fn page_of(
    txn: &Txn<'_>,
    t: T,
    from: Bound<&[u8]>,
    to: Bound<&[u8]>,
    limit: PageLimit,
) -> Result<(Vec<RawRow>, bool)> {
    let (mut rows, mut bytes, mut more) = (Vec::new(), 0usize, false);
    txn.scan(t, from, to, |key, row| {
        let full = rows.len() >= limit.rows_max || bytes.saturating_add(row.len()) > limit.bytes_max;
        if full && !rows.is_empty() {
            more = true;
            return ControlFlow::Break(());
        }
        bytes = bytes.saturating_add(row.len());
        rows.push((key.to_vec(), row.to_vec()));
        ControlFlow::Continue(())
    })?;
    Ok((rows, more))
}

fn seq_of(txn: &Txn<'_>, t: T, key: &[u8]) -> Result<u64> {
    number(key).ok_or_else(|| txn.corrupt(t, "a key is no sequence number"))
}

// ---- outbox ------------------------------------------------------------------------------------

fn outbox_put(txn: &mut Txn<'_>, row: &OutboxRow) -> Result<LocalOutcome> {
    let seq = next(&mut txn.heads.outbox_seq);
    let key = seq.to_be_bytes();
    let header = join(&[
        row.uid.as_bytes(),
        row.destination.as_bytes(),
        &row.created_unix_s.to_be_bytes(),
        &row.expires_s.to_be_bytes(),
    ]);
    txn.put_sealed(T::Outbox, &key, &header, &row.body)?;
    outbox_state(txn, &key, &row.state)?;
    Ok(LocalOutcome::Stored { seq })
}

fn outbox_update(txn: &mut Txn<'_>, seq: u64, state: &[u8]) -> Result<LocalOutcome> {
    let key = seq.to_be_bytes();
    if !txn.has(T::Outbox, &key)? {
        return Ok(LocalOutcome::Absent);
    }
    outbox_state(txn, &key, state)?;
    Ok(LocalOutcome::Done)
}

/// Most messages have none: they are delivered before there is anything to say of them.
fn outbox_state(txn: &mut Txn<'_>, key: &[u8], state: &[u8]) -> Result<()> {
    if !state.is_empty() {
        txn.put(T::OutboxState, key, state)?;
    } else if txn.has(T::OutboxState, key)? {
        txn.remove(T::OutboxState, key)?;
    }
    Ok(())
}

fn outbox_remove(txn: &mut Txn<'_>, key: &[u8]) -> Result<Option<Vec<u8>>> {
    outbox_state(txn, key, &[])?;
    txn.remove_sealed(T::Outbox, key, OUTBOX_HEADER_BYTES)
}

fn outbox_page(txn: &mut Txn<'_>, after: Option<u64>, limit: PageLimit) -> Result<LocalOutcome> {
    let from = after.map(u64::to_be_bytes);
    let (rows, more) = page_of(txn, T::Outbox, behind(from.as_ref()), Bound::Unbounded, limit)?;
    let mut page = OutboxPage::default();
    for (key, row) in rows {
        let seq = seq_of(txn, T::Outbox, &key)?;
        page.next = more.then_some(seq);
        match outbox_header(&row).zip(txn.unseal(T::Outbox, &key, &row, OUTBOX_HEADER_BYTES)) {
            Some((read, body)) => {
                let state = txn.get(T::OutboxState, &key)?.unwrap_or_default();
                page.rows.push((seq, OutboxRow { state, body, ..read }));
            }
            None => {
                page.damaged += 1;
                outbox_remove(txn, &key)?;
                txn.quarantine(T::Outbox, &key, &row)?;
            }
        }
    }
    Ok(LocalOutcome::Outbox(page))
}

/// The open part of a row.
pub(super) fn outbox_header(row: &[u8]) -> Option<OutboxRow> {
    let mut f = Fields(row);
    Some(OutboxRow {
        uid: MessageUid(f.take()?),
        destination: Address(f.take()?),
        created_unix_s: f.u64()?,
        expires_s: f.u64()?,
        state: Vec::new(),
        body: Vec::new(),
    })
}

// ---- inbox and duplicate records ---------------------------------------------------------------

fn inbox_commit(txn: &mut Txn<'_>, commit: &InboxCommit, quota: &InboxQuota) -> Result<LocalOutcome> {
    let (cost, standing) = Cost::of(txn, &commit.source, commit.ingress, entry_bytes(commit))?;
    let is_seen = |txn: &Txn<'_>| {
        Ok::<_, StoreError>(txn.get(T::SeenMessage, &message_key(&commit.source, &commit.uid))?.is_some())
    };
    // A duplicate is answered before any refusal: its sender may let go of it.
    if standing == Standing::Stranger && commit.strangers == Strangers::Refuse && !is_seen(txn)? {
        return Ok(LocalOutcome::Unwanted);
    }
    let refused = cost.refused(txn, standing, quota)?;
    let mut full = refused.always;
    if full.is_none()
        && let Some(scope) = refused.if_early
        && may_wait(commit, cost)
        && awaited(txn, &commit.source, &commit.awaits)?.is_some()
    {
        full = Some(scope);
    }
    if let Some(scope) = full
        && !is_seen(txn)?
    {
        return Ok(LocalOutcome::InboxFull(scope));
    }
    inbox_enter(txn, commit, cost, standing)
}

fn file_commit(txn: &mut Txn<'_>, commit: &InboxCommit, tag: &TransferTag) -> Result<LocalOutcome> {
    let reserved = inbox_cost::release(txn, &partial_key(&commit.source, tag))?;
    let entry_bytes = entry_bytes(commit);
    let (cost, standing) = Cost::of(txn, &commit.source, commit.ingress, entry_bytes)?;
    let cost = reserved.map_or(cost, |file| file.and(entry_bytes));
    inbox_enter(txn, commit, cost, standing)
}

fn entry_bytes(commit: &InboxCommit) -> u64 {
    INBOX_ROW_OVERHEAD_BYTES.saturating_add(commit.entry.len() as u64)
}

fn message_key(source: &Address, uid: &MessageUid) -> Vec<u8> {
    join(&[source.as_bytes(), uid.as_bytes()])
}

fn inbox_enter(
    txn: &mut Txn<'_>,
    commit: &InboxCommit,
    cost: Cost,
    standing: Standing,
) -> Result<LocalOutcome> {
    let InboxCommit { uid, source, dedup_until_unix_s: until, entry, .. } = commit;
    let message = message_key(source, uid);
    // A clock set far ahead may have dropped the record of one that is early still.
    if !see(txn, &message, *until)? || txn.get(T::InboxEarly, &message)?.is_some() {
        return Ok(LocalOutcome::Seen);
    }
    let seq = next(&mut txn.heads.inbox_seq);
    // Strangers are refused before a file of theirs begins; one that had begun waits.
    if standing == Standing::Stranger && commit.strangers != Strangers::Enter {
        requests::put(txn, seq, uid, source, cost, entry)?;
        return Ok(LocalOutcome::Requested);
    }
    let stranger = cost.is_stranger();
    if may_wait(commit, cost)
        && let Some(awaits) = awaited(txn, source, &commit.awaits)?
    {
        let header = join(&[&seq.to_be_bytes(), awaits.as_bytes()]);
        txn.put_sealed(T::InboxEarly, &message, &header, entry)?;
        cost.charge(txn, &early_cost_key(&message))?;
        return Ok(LocalOutcome::Early { awaits, stranger });
    }
    put_entry(txn, seq, uid, source, cost, entry)?;
    Ok(LocalOutcome::Committed { seq })
}

/// An entry has what it costs with it, which one row a message less pays for.
pub(super) fn put_entry(
    txn: &mut Txn<'_>,
    seq: u64,
    uid: &MessageUid,
    source: &Address,
    cost: Cost,
    entry: &[u8],
) -> Result<()> {
    let header = join(&[uid.as_bytes(), source.as_bytes(), &cost.to_header()]);
    txn.put_sealed(T::Inbox, &seq.to_be_bytes(), &header, entry)?;
    cost.add(txn)
}

fn remove_entry(txn: &mut Txn<'_>, key: &[u8]) -> Result<Option<Vec<u8>>> {
    let row = txn.remove_sealed(T::Inbox, key, INBOX_HEADER_BYTES)?;
    if let Some((_, source, cost)) = row.as_deref().and_then(entry_header) {
        Cost::of_header(source, &cost).take_back(txn)?;
    }
    Ok(row)
}

/// Uid, source and cost of an entry.
fn entry_header(row: &[u8]) -> Option<(MessageUid, Address, CostHeader)> {
    let mut f = Fields(row);
    Some((MessageUid(f.take()?), Address(f.take()?), f.take()?))
}

// ---- early messages --------------------------------------------------------------------------

fn early_cost_key(message: &[u8]) -> Vec<u8> {
    join(&[&[1], message])
}

/// Whether it waits where it has to wait for something.
fn may_wait(commit: &InboxCommit, cost: Cost) -> bool {
    let Awaits { follows, behind, stranger_waits } = commit.awaits;
    let stranger_waits = stranger_waits && commit.strangers == Strangers::Enter;
    (follows.is_some() || behind.is_some()) && (stranger_waits || !cost.is_stranger())
}

/// What of `awaits` a message of `source` has to wait for.
fn awaited(txn: &Txn<'_>, source: &Address, awaits: &Awaits) -> Result<Option<UidPrefix>> {
    if let Some(follows) = awaits.follows
        && (!has(txn, T::SeenMessage, source, &follows)? || has(txn, T::InboxEarly, source, &follows)?)
    {
        return Ok(Some(follows));
    }
    match awaits.behind {
        Some(behind) if has(txn, T::InboxEarly, source, &behind)? => Ok(Some(behind)),
        _ => Ok(None),
    }
}

/// True where a table by source and uid has one that begins so.
fn has(txn: &Txn<'_>, t: T, source: &Address, prefix: &UidPrefix) -> Result<bool> {
    let of =
        |rest: [u8; MessageUid::LEN - UidPrefix::LEN]| join(&[source.as_bytes(), prefix.as_bytes(), &rest]);
    let (first, last) = (of([0; _]), of([0xff; _]));
    let mut any = false;
    txn.scan(t, Bound::Included(&first), Bound::Included(&last), |_, _| {
        any = true;
        ControlFlow::Break(())
    })?;
    Ok(any)
}

fn early_header(row: &[u8]) -> Option<(u64, UidPrefix)> {
    let mut f = Fields(row);
    f.u64().zip(f.take().map(UidPrefix))
}

fn early_release(txn: &mut Txn<'_>, source: &Address, uid: &MessageUid, force: bool) -> Result<LocalOutcome> {
    let message = message_key(source, uid);
    let Some(row) = txn.get(T::InboxEarly, &message)? else { return Ok(LocalOutcome::Absent) };
    let awaits = Awaits { follows: early_header(&row).map(|(_, awaits)| awaits), ..Awaits::default() };
    if !force && let Some(awaits) = awaited(txn, source, &awaits)? {
        let stranger = inbox_cost::is_strangers(txn, &early_cost_key(&message))?;
        return Ok(LocalOutcome::Early { awaits, stranger });
    }
    let entry = txn.unseal(T::InboxEarly, &message, &row, EARLY_HEADER_BYTES);
    let Some(entry) = entry else {
        early_set_aside(txn, &message, &row)?;
        return Ok(LocalOutcome::Absent);
    };
    txn.remove_sealed(T::InboxEarly, &message, EARLY_HEADER_BYTES)?;
    let cost = inbox_cost::release(txn, &early_cost_key(&message))?;
    let cost = cost.ok_or_else(|| txn.corrupt(T::InboxCost, "an early message has no row"))?;
    let seq = next(&mut txn.heads.inbox_seq);
    put_entry(txn, seq, uid, source, cost, &entry)?;
    Ok(LocalOutcome::Committed { seq })
}

fn early_set_aside(txn: &mut Txn<'_>, message: &[u8], row: &[u8]) -> Result<()> {
    txn.remove_sealed(T::InboxEarly, message, EARLY_HEADER_BYTES)?;
    inbox_cost::release(txn, &early_cost_key(message))?;
    txn.quarantine(T::InboxEarly, message, row)
}

fn early_page(
    txn: &mut Txn<'_>,
    after: Option<&(Address, MessageUid)>,
    limit: PageLimit,
) -> Result<LocalOutcome> {
    let from = after.map(|(source, uid)| message_key(source, uid));
    let (rows, more) = page_of(txn, T::InboxEarly, behind(from.as_ref()), Bound::Unbounded, limit)?;
    let mut page = EarlyPage::default();
    for (key, row) in rows {
        let mut f = Fields(&key);
        let (source, uid) = f
            .take()
            .map(Address)
            .zip(f.take().map(MessageUid))
            .ok_or_else(|| txn.corrupt(T::InboxEarly, "a key is too short"))?;
        page.next = more.then_some((source, uid));
        match early_header(&row) {
            Some((seq, awaits)) => {
                let stranger = inbox_cost::is_strangers(txn, &early_cost_key(&key))?;
                page.rows.push(EarlyRow { source, uid, seq, awaits, stranger });
            }
            None => {
                page.damaged += 1;
                early_set_aside(txn, &key, &row)?;
            }
        }
    }
    Ok(LocalOutcome::Earlies(page))
}

/// Records a message; true if it was not on record. One that was stays on record until the later of
/// both times: it has to outlive every packet that could bring it again. The packets themselves need no
/// record: the seal of one that comes again holds the same uid (ADR 0010).
fn see(txn: &mut Txn<'_>, message: &[u8], until: u64) -> Result<bool> {
    let known = txn.get(T::SeenMessage, message)?;
    if let Some(row) = &known {
        let before = number(row).ok_or_else(|| txn.corrupt(T::SeenMessage, "a time is no number"))?;
        if before >= until {
            return Ok(false);
        }
        txn.remove(T::SeenExpiry, &seen_expiry_key(before, message))?;
    }
    txn.put(T::SeenMessage, message, &until.to_be_bytes())?;
    txn.put(T::SeenExpiry, &seen_expiry_key(until, message), &[])?;
    Ok(known.is_none())
}

fn seen_expiry_key(until: u64, message: &[u8]) -> Vec<u8> {
    join(&[&until.to_be_bytes(), message])
}

fn forget_seen(txn: &mut Txn<'_>, now: u64, rows_max: usize) -> Result<LocalOutcome> {
    let limit = PageLimit { rows_max: rows_max.max(1), bytes_max: usize::MAX };
    let now = now.to_be_bytes();
    let (due, more) = page_of(txn, T::SeenExpiry, Bound::Unbounded, Bound::Excluded(&now), limit)?;
    for (key, _) in &due {
        let mut f = Fields(key);
        f.u64().ok_or_else(|| txn.corrupt(T::SeenExpiry, "a key is too short"))?;
        txn.remove(T::SeenMessage, f.rest())?;
        txn.remove(T::SeenExpiry, key)?;
    }
    Ok(LocalOutcome::Forgotten { rows: due.len(), more })
}

fn inbox_page(txn: &mut Txn<'_>, after: Option<u64>, limit: PageLimit) -> Result<LocalOutcome> {
    let from = after.map(u64::to_be_bytes);
    let (rows, more) = page_of(txn, T::Inbox, behind(from.as_ref()), Bound::Unbounded, limit)?;
    let mut page = InboxPage::default();
    for (key, row) in rows {
        let seq = seq_of(txn, T::Inbox, &key)?;
        page.next = more.then_some(seq);
        match entry_header(&row).zip(txn.unseal(T::Inbox, &key, &row, INBOX_HEADER_BYTES)) {
            Some(((uid, source, _), entry)) => page.rows.push(InboxRow { seq, uid, source, entry }),
            None => {
                page.damaged += 1;
                remove_entry(txn, &key)?;
                txn.quarantine(T::Inbox, &key, &row)?;
            }
        }
    }
    Ok(LocalOutcome::Inbox(page))
}

// ---- files being received ----------------------------------------------------------------------

fn partial_key(source: &Address, tag: &TransferTag) -> Vec<u8> {
    join(&[source.as_bytes(), tag.as_bytes()])
}

fn partial_open(
    txn: &mut Txn<'_>,
    row: &PartialRow,
    ingress: Option<Address>,
    file_bytes: u64,
    strangers: Strangers,
    quota: &InboxQuota,
) -> Result<LocalOutcome> {
    let key = partial_key(&row.source, &row.tag);
    // Two copies of one manifest may come at the same time; the first has reserved the room.
    if txn.get(T::Partial, &key)?.is_none() {
        let bytes = INBOX_ROW_OVERHEAD_BYTES.saturating_add(file_bytes);
        let (cost, standing) = Cost::of(txn, &row.source, ingress, bytes)?;
        if standing == Standing::Stranger && strangers == Strangers::Refuse {
            return Ok(LocalOutcome::Unwanted);
        }
        if let Some(scope) = cost.refused(txn, standing, quota)?.always {
            return Ok(LocalOutcome::InboxFull(scope));
        }
        cost.charge(txn, &key)?;
    }
    partial_put(txn, row)
}

fn partial_put(txn: &mut Txn<'_>, row: &PartialRow) -> Result<LocalOutcome> {
    let key = partial_key(&row.source, &row.tag);
    txn.put_sealed(T::Partial, &key, &row.until_unix_s.to_be_bytes(), &row.state)?;
    Ok(LocalOutcome::Done)
}

fn partial_page(
    txn: &mut Txn<'_>,
    after: Option<&(Address, TransferTag)>,
    limit: PageLimit,
) -> Result<LocalOutcome> {
    let from = after.map(|(source, tag)| partial_key(source, tag));
    let (rows, more) = page_of(txn, T::Partial, behind(from.as_ref()), Bound::Unbounded, limit)?;
    let mut page = PartialPage::default();
    for (key, row) in rows {
        let mut f = Fields(&key);
        let (source, tag) = f
            .take()
            .map(Address)
            .zip(f.take().map(TransferTag))
            .ok_or_else(|| txn.corrupt(T::Partial, "a key is too short"))?;
        page.next = more.then_some((source, tag));
        match Fields(&row).u64().zip(txn.unseal(T::Partial, &key, &row, PARTIAL_HEADER_BYTES)) {
            Some((until_unix_s, state)) => page.rows.push(PartialRow { source, tag, until_unix_s, state }),
            None => {
                page.damaged += 1;
                txn.remove_sealed(T::Partial, &key, PARTIAL_HEADER_BYTES)?;
                inbox_cost::release(txn, &key)?;
                txn.quarantine(T::Partial, &key, &row)?;
            }
        }
    }
    Ok(LocalOutcome::Partials(page))
}

// ---- counters ----------------------------------------------------------------------------------

fn counter_next(txn: &Txn<'_>, counter: Counter) -> Result<u64> {
    match txn.get(T::Counter, &[counter as u8])? {
        Some(row) => number(&row).ok_or_else(|| txn.corrupt(T::Counter, "not a number")),
        None => Ok(1),
    }
}

fn reserve(txn: &mut Txn<'_>, counter: Counter, count: u32) -> Result<LocalOutcome> {
    let first = counter_next(txn, counter)?;
    let Some(next) = first.checked_add(u64::from(count)) else { return Ok(LocalOutcome::Exhausted) };
    txn.put(T::Counter, &[counter as u8], &next.to_be_bytes())?;
    Ok(LocalOutcome::Reserved { first, count })
}

// ---- small values ------------------------------------------------------------------------------

pub(super) fn kv_key(namespace: Namespace, key: &[u8]) -> Vec<u8> {
    join(&[&[namespace as u8], key])
}

fn kv_value(txn: &Txn<'_>, namespace: Namespace, at: &[u8], row: Vec<u8>) -> Option<Vec<u8>> {
    if namespace.is_sealed() { txn.unseal(T::Kv, at, &row, 0) } else { Some(row) }
}

fn kv_remove(txn: &mut Txn<'_>, namespace: Namespace, key: &[u8]) -> Result<Option<Vec<u8>>> {
    let at = kv_key(namespace, key);
    if namespace.is_sealed() { txn.remove_sealed(T::Kv, &at, 0) } else { txn.remove(T::Kv, &at) }
}

fn kv_get(txn: &mut Txn<'_>, namespace: Namespace, key: &[u8]) -> Result<LocalOutcome> {
    let at = kv_key(namespace, key);
    let Some(row) = txn.get(T::Kv, &at)? else { return Ok(LocalOutcome::Value(None)) };
    let value = kv_value(txn, namespace, &at, row.clone());
    if value.is_none() {
        kv_remove(txn, namespace, key)?;
        txn.quarantine(T::Kv, &at, &row)?;
    }
    Ok(LocalOutcome::Value(value))
}

fn kv_clear(txn: &mut Txn<'_>, namespace: Namespace) -> Result<LocalOutcome> {
    let limit = PageLimit { rows_max: usize::MAX, bytes_max: usize::MAX };
    let (from, to) = ([namespace as u8], [namespace as u8 + 1]);
    let (rows, _) = page_of(txn, T::Kv, Bound::Included(&from), Bound::Excluded(&to), limit)?;
    for (at, _) in rows {
        kv_remove(txn, namespace, at.get(1..).unwrap_or_default())?;
    }
    Ok(LocalOutcome::Done)
}

fn kv_page(
    txn: &mut Txn<'_>,
    namespace: Namespace,
    after: Option<&[u8]>,
    limit: PageLimit,
) -> Result<LocalOutcome> {
    let after = after.map(|key| kv_key(namespace, key));
    let (first, to) = ([namespace as u8], [namespace as u8 + 1]);
    let from = after.as_deref().map_or(Bound::Included(first.as_slice()), Bound::Excluded);
    let (rows, more) = page_of(txn, T::Kv, from, Bound::Excluded(&to), limit)?;
    let mut page = KvPage::default();
    for (at, row) in rows {
        let key = at.get(1..).unwrap_or_default().to_vec();
        page.next = more.then(|| key.clone());
        match kv_value(txn, namespace, &at, row.clone()) {
            Some(value) => page.rows.push((key, value)),
            None => {
                page.damaged += 1;
                kv_remove(txn, namespace, &key)?;
                txn.quarantine(T::Kv, &at, &row)?;
            }
        }
    }
    Ok(LocalOutcome::Values(page))
}

// ---- helpers -----------------------------------------------------------------------------------

/// Everything behind `key`, or everything.
pub(super) fn behind<K: AsRef<[u8]>>(key: Option<&K>) -> Bound<&[u8]> {
    key.map_or(Bound::Unbounded, |key| Bound::Excluded(key.as_ref()))
}

/// The next number of a sequence that starts at one.
pub(super) fn next(head: &mut u64) -> u64 {
    *head = head.saturating_add(1);
    *head
}
