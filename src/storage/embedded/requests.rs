//! Messages whose source has to be accepted first: in the inbox's quotas, and in no page of it.

use super::{
    inbox_cost::{Cost, CostHeader},
    local::{behind, next, page_of, put_entry},
    tables::{Fields, REQUEST_HEADER_BYTES, T, join},
    txn::Txn,
};
use crate::{
    storage::{
        error::StoreError,
        ops::{InboxRow, LocalOutcome, PageLimit, RequestPage},
    },
    wire::{Address, MessageUid},
};

type Result<V> = std::result::Result<V, StoreError>;

fn key(source: &Address, seq: u64) -> Vec<u8> {
    join(&[source.as_bytes(), &seq.to_be_bytes()])
}

fn read_key(key: &[u8]) -> Option<(Address, u64)> {
    let mut f = Fields(key);
    f.take().map(Address).zip(f.u64())
}

fn header(row: &[u8]) -> Option<(MessageUid, CostHeader)> {
    let mut f = Fields(row);
    f.take().map(MessageUid).zip(f.take())
}

/// Stores one with what it costs.
pub(super) fn put(
    txn: &mut Txn<'_>,
    seq: u64,
    uid: &MessageUid,
    source: &Address,
    cost: Cost,
    entry: &[u8],
) -> Result<()> {
    let header = join(&[uid.as_bytes(), &cost.to_header()]);
    txn.put_sealed(T::InboxRequest, &key(source, seq), &header, entry)?;
    cost.add(txn)
}

/// Forgets one and takes back what it costs.
pub(super) fn remove(txn: &mut Txn<'_>, source: &Address, seq: u64) -> Result<Option<Vec<u8>>> {
    let row = txn.remove_sealed(T::InboxRequest, &key(source, seq), REQUEST_HEADER_BYTES)?;
    if let Some((_, cost)) = row.as_deref().and_then(header) {
        Cost::of_header(*source, &cost).take_back(txn)?;
    }
    Ok(row)
}

/// Has one enter the inbox, behind all that is there.
pub(super) fn enter(txn: &mut Txn<'_>, source: &Address, seq: u64) -> Result<LocalOutcome> {
    let at = key(source, seq);
    let Some(row) = txn.get(T::InboxRequest, &at)? else { return Ok(LocalOutcome::Absent) };
    let read = header(&row).zip(txn.unseal(T::InboxRequest, &at, &row, REQUEST_HEADER_BYTES));
    remove(txn, source, seq)?;
    let Some(((uid, cost), entry)) = read else {
        txn.quarantine(T::InboxRequest, &at, &row)?;
        return Ok(LocalOutcome::Absent);
    };
    let seq = next(&mut txn.heads.inbox_seq);
    put_entry(txn, seq, &uid, source, Cost::of_header(*source, &cost), &entry)?;
    Ok(LocalOutcome::Committed { seq })
}

/// A page of them.
pub(super) fn page(
    txn: &mut Txn<'_>,
    after: Option<(Address, u64)>,
    limit: PageLimit,
) -> Result<LocalOutcome> {
    let from = after.map(|(source, seq)| key(&source, seq));
    let to = std::ops::Bound::Unbounded;
    let (rows, more) = page_of(txn, T::InboxRequest, behind(from.as_ref()), to, limit)?;
    let mut page = RequestPage::default();
    for (at, row) in rows {
        let place = read_key(&at).ok_or_else(|| txn.corrupt(T::InboxRequest, "a key is too short"))?;
        page.next = more.then_some(place);
        let (source, seq) = place;
        match header(&row).zip(txn.unseal(T::InboxRequest, &at, &row, REQUEST_HEADER_BYTES)) {
            Some(((uid, _), entry)) => page.rows.push(InboxRow { seq, uid, source, entry }),
            None => {
                page.damaged += 1;
                remove(txn, &source, seq)?;
                txn.quarantine(T::InboxRequest, &at, &row)?;
            }
        }
    }
    Ok(LocalOutcome::Requests(page))
}
