//! Rows held for others: one row, two indexes, four running totals, so that every operation
//! touches what it is about and nothing else.

use std::ops::{Bound, ControlFlow};

use bytes::Bytes;

use super::{
    local::{next, page_of},
    tables::{Fields, HELD_HEADER_BYTES, T, join},
    txn::Txn,
};
use crate::{
    storage::{
        error::StoreError,
        ops::{DestinationUsage, HeldPage, HeldRow, HeldSummary, MailOp, MailOutcome, MailUsage, PageLimit},
        quota::{HELD_ROW_OVERHEAD_BYTES, HoldRefusal, MailboxQuota, QuotaScope},
        row_seal::SEAL_BYTES,
    },
    wire::{Address, PacketId, Priority},
};

type Result<V> = std::result::Result<V, StoreError>;

/// What admission depends on beside the rows.
pub(super) struct Admission<'a> {
    pub(super) quota: &'a MailboxQuota,
    /// Set while the volume is below its reserve.
    pub(super) refused: Option<&'a StoreError>,
}

/// Applies one operation.
pub(super) fn apply(txn: &mut Txn<'_>, op: &MailOp, admission: &Admission<'_>) -> Result<MailOutcome> {
    match op {
        MailOp::Hold(row) => hold(txn, row, admission),
        MailOp::Page { destination, after, limit } => page(txn, destination, *after, *limit),
        MailOp::Remove(ids) => remove_all(txn, ids, None),
        MailOp::RemoveFor { destination, packet_ids } => remove_all(txn, packet_ids, Some(destination)),
        MailOp::Expire { now_s, rows_max } => expire(txn, *now_s, *rows_max),
        MailOp::Usage { destination } => {
            let destination = match destination {
                Some(destination) => Some(usage(txn, destination)?),
                None => None,
            };
            Ok(MailOutcome::Usage(MailUsage { total: total(txn, QuotaScope::Global, &GLOBAL)?, destination }))
        }
        MailOp::CheckRoom { write } => check_room(txn, *write, admission),
        MailOp::Destinations { after, rows_max } => destinations(txn, after.as_ref(), *rows_max),
    }
}

/// Row of `meta` that [`MailOp::CheckRoom`] changes; its value means nothing.
const ROOM_KEY: &[u8] = b"room";

/// Stands for everyone in the table of totals.
const GLOBAL: Address = Address([0; 16]);

fn hold(txn: &mut Txn<'_>, row: &HeldRow, admission: &Admission<'_>) -> Result<MailOutcome> {
    // A duplicate is answered before any refusal: it is held, and its sender may let go of it.
    if txn.get(T::HeldPacket, row.packet_id.as_bytes())?.is_some() {
        return Ok(MailOutcome::Duplicate);
    }
    if let Some(e) = admission.refused {
        return Ok(MailOutcome::Refused(HoldRefusal::Disk(e.clone())));
    }
    let bytes = HELD_ROW_OVERHEAD_BYTES.saturating_add(row.frame.len() as u64);
    let quota = admission.quota;
    let mut totals = Vec::with_capacity(4);
    for (scope, address, quota) in [
        (QuotaScope::Ingress, &row.ingress, quota.per_ingress),
        (QuotaScope::Source, &row.source, quota.per_source),
        (QuotaScope::Destination, &row.destination, quota.per_destination),
        (QuotaScope::Global, &GLOBAL, quota.global),
    ] {
        let held = total(txn, scope, address)?;
        if !quota.admits(held.bytes, held.rows, bytes) {
            return Ok(MailOutcome::Refused(HoldRefusal::Quota(scope)));
        }
        let held = HeldSummary { rows: held.rows.saturating_add(1), bytes: held.bytes.saturating_add(bytes) };
        totals.push((scope, address, held));
    }
    for (scope, address, held) in totals {
        set_total(txn, scope, address, held);
    }
    let place = row.place(next(&mut txn.heads.held_seq));
    let key = held_key(&row.destination, place);
    let header = join(&[
        row.packet_id.as_bytes(),
        row.source.as_bytes(),
        row.ingress.as_bytes(),
        &row.expires_s.to_be_bytes(),
        &row.held_at_s.to_be_bytes(),
        &row.age_s.to_be_bytes(),
    ]);
    txn.put_sealed(T::Held, &key, &header, &row.frame)?;
    txn.put(T::HeldPacket, row.packet_id.as_bytes(), &key)?;
    txn.put(T::HeldExpiry, &expiry_key(row.expires_s, place), row.destination.as_bytes())?;
    Ok(MailOutcome::Held { place })
}

fn check_room(txn: &mut Txn<'_>, write: bool, admission: &Admission<'_>) -> Result<MailOutcome> {
    if let Some(e) = admission.refused {
        return Ok(MailOutcome::Refused(HoldRefusal::Disk(e.clone())));
    }
    if write {
        let batch = txn.heads.batch.to_be_bytes();
        txn.put(T::Meta, ROOM_KEY, &batch)?;
    }
    Ok(MailOutcome::Room)
}

fn page(
    txn: &mut Txn<'_>,
    destination: &Address,
    after: Option<u64>,
    limit: PageLimit,
) -> Result<MailOutcome> {
    let last = held_key(destination, u64::MAX);
    let first = held_key(destination, after.unwrap_or(0));
    let (rows, more) =
        page_of(txn, T::Held, Bound::Excluded(first.as_slice()), Bound::Included(last.as_slice()), limit)?;
    let mut page = HeldPage::default();
    for (key, row) in rows {
        let place = place_of(txn, &key)?;
        page.next = more.then_some(place);
        page.through = Some(place);
        match read_row(txn, destination, &key, &row) {
            Some(row) => page.rows.push(HeldRow { priority: HeldRow::priority_at(place), ..row }),
            None => {
                page.damaged += 1;
                forget(txn, destination, place)?;
                txn.quarantine(T::Held, &key, &row)?;
            }
        }
    }
    Ok(MailOutcome::Page(page))
}

fn read_row(txn: &Txn<'_>, destination: &Address, key: &[u8], row: &[u8]) -> Option<HeldRow> {
    let header = header(row)?;
    let frame = txn.unseal(T::Held, key, row, HELD_HEADER_BYTES)?;
    Some(HeldRow { destination: *destination, frame: Bytes::from(frame), ..header })
}

pub(super) fn header(row: &[u8]) -> Option<HeldRow> {
    let mut f = Fields(row);
    Some(HeldRow {
        packet_id: PacketId(f.take()?),
        destination: GLOBAL,
        source: Address(f.take()?),
        priority: Priority::default(),
        ingress: Address(f.take()?),
        expires_s: f.u64()?,
        held_at_s: f.u64()?,
        age_s: f.u32()?,
        frame: Bytes::new(),
    })
}

fn remove_all(txn: &mut Txn<'_>, ids: &[PacketId], only_for: Option<&Address>) -> Result<MailOutcome> {
    let mut rows = 0;
    for id in ids {
        rows += usize::from(remove(txn, id, only_for)?);
    }
    Ok(MailOutcome::Removed { rows })
}

/// Removes one envelope; false where it is not held, or is for somebody other than `only_for`.
fn remove(txn: &mut Txn<'_>, id: &PacketId, only_for: Option<&Address>) -> Result<bool> {
    let Some(key) = txn.get(T::HeldPacket, id.as_bytes())? else { return Ok(false) };
    let destination = Fields(&key).take().map(Address);
    let destination = destination.ok_or_else(|| txn.corrupt(T::HeldPacket, "a place is too short"))?;
    if only_for.is_some_and(|only| *only != destination) {
        return Ok(false);
    }
    let place = place_of(txn, &key)?;
    forget(txn, &destination, place)?;
    Ok(true)
}

/// Removes a row, its indexes and its share of the totals.
fn forget(txn: &mut Txn<'_>, destination: &Address, place: u64) -> Result<()> {
    let key = held_key(destination, place);
    let Some(row) = txn.remove_sealed(T::Held, &key, HELD_HEADER_BYTES)? else { return Ok(()) };
    let header = header(&row).ok_or_else(|| txn.corrupt(T::Held, "a row is too short"))?;
    txn.remove(T::HeldPacket, header.packet_id.as_bytes())?;
    txn.remove(T::HeldExpiry, &expiry_key(header.expires_s, place))?;
    let frame_bytes = row.len().saturating_sub(HELD_HEADER_BYTES + SEAL_BYTES) as u64;
    let bytes = HELD_ROW_OVERHEAD_BYTES.saturating_add(frame_bytes);
    for (scope, address) in [
        (QuotaScope::Ingress, &header.ingress),
        (QuotaScope::Source, &header.source),
        (QuotaScope::Destination, destination),
        (QuotaScope::Global, &GLOBAL),
    ] {
        let held = total(txn, scope, address)?;
        let held = HeldSummary { rows: held.rows.saturating_sub(1), bytes: held.bytes.saturating_sub(bytes) };
        set_total(txn, scope, address, held);
    }
    Ok(())
}

fn expire(txn: &mut Txn<'_>, now: u64, rows_max: usize) -> Result<MailOutcome> {
    let limit = PageLimit { rows_max: rows_max.max(1), bytes_max: usize::MAX };
    let now = now.to_be_bytes();
    let (due, more) = page_of(txn, T::HeldExpiry, Bound::Unbounded, Bound::Excluded(&now), limit)?;
    for (key, destination) in &due {
        let mut f = Fields(key);
        let place = f.u64().and_then(|_| f.u64());
        let found = Fields(destination).take().map(Address).zip(place);
        let (destination, place) = found.ok_or_else(|| txn.corrupt(T::HeldExpiry, "a row is too short"))?;
        forget(txn, &destination, place)?;
        // Gone with the row, unless the row itself was gone.
        txn.remove(T::HeldExpiry, key)?;
    }
    Ok(MailOutcome::Expired { rows: due.len(), more })
}

fn usage(txn: &Txn<'_>, destination: &Address) -> Result<DestinationUsage> {
    // Each class is in order of arrival, so the oldest of all is the first of one of them.
    let mut oldest_held_at_s: Option<u64> = None;
    let to = held_key(destination, u64::MAX);
    for start in HeldRow::class_starts() {
        let from = held_key(destination, start);
        txn.scan(T::Held, Bound::Included(&from), Bound::Included(&to), |_, row| {
            let held_at_s = header(row).map(|row| row.held_at_s);
            oldest_held_at_s = [oldest_held_at_s, held_at_s].into_iter().flatten().min();
            ControlFlow::Break(())
        })?;
    }
    let held = total(txn, QuotaScope::Destination, destination)?;
    Ok(DestinationUsage { destination: *destination, held, oldest_held_at_s })
}

fn destinations(txn: &mut Txn<'_>, after: Option<&Address>, rows_max: usize) -> Result<MailOutcome> {
    txn.write_totals()?;
    let limit = PageLimit { rows_max: rows_max.max(1), bytes_max: usize::MAX };
    let scope = scope_byte(QuotaScope::Destination);
    let (first, behind) = ([scope], [scope.saturating_add(1)]);
    let after = after.map(|address| total_key(QuotaScope::Destination, address));
    let from = after.as_deref().map_or(Bound::Included(first.as_slice()), Bound::Excluded);
    let (rows, _) = page_of(txn, T::HeldTotal, from, Bound::Excluded(&behind), limit)?;
    let mut found = Vec::with_capacity(rows.len());
    for (key, _) in rows {
        let mut f = Fields(&key);
        let address = f.take::<1>().and_then(|_| f.take().map(Address));
        let address = address.ok_or_else(|| txn.corrupt(T::HeldTotal, "a key is too short"))?;
        found.push(usage(txn, &address)?);
    }
    Ok(MailOutcome::Destinations(found))
}

// ---- spelling ----------------------------------------------------------------------------------

fn held_key(destination: &Address, place: u64) -> Vec<u8> {
    join(&[destination.as_bytes(), &place.to_be_bytes()])
}

fn place_of(txn: &Txn<'_>, key: &[u8]) -> Result<u64> {
    let mut f = Fields(key);
    f.take::<16>().and_then(|_| f.u64()).ok_or_else(|| txn.corrupt(T::Held, "a key is too short"))
}

fn expiry_key(expires: u64, place: u64) -> Vec<u8> {
    join(&[&expires.to_be_bytes(), &place.to_be_bytes()])
}

/// Part of the disk format.
fn scope_byte(scope: QuotaScope) -> u8 {
    match scope {
        QuotaScope::Global => 0,
        QuotaScope::Ingress => 1,
        QuotaScope::Destination => 2,
        QuotaScope::Source => 3,
    }
}

fn total_key(scope: QuotaScope, address: &Address) -> Vec<u8> {
    join(&[&[scope_byte(scope)], address.as_bytes()])
}

fn total(txn: &Txn<'_>, scope: QuotaScope, address: &Address) -> Result<HeldSummary> {
    txn.total(&total_key(scope, address))
}

fn set_total(txn: &mut Txn<'_>, scope: QuotaScope, address: &Address, held: HeldSummary) {
    txn.set_total(total_key(scope, address), held);
}
