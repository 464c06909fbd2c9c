//! What the inbox costs: one row an entry and one an open file beside two running totals, so that
//! admission and removal touch what they are about and nothing else.

use super::{
    local::kv_key,
    tables::{Fields, T, join},
    txn::Txn,
};
use crate::{
    storage::{
        error::StoreError,
        ops::{HeldSummary, Namespace},
        quota::{InboxQuota, InboxScope},
    },
    wire::Address,
};

type Result<V> = std::result::Result<V, StoreError>;

/// Keys in the table of totals: no scope has number 0 with an address so short.
const TOTAL: &[u8] = b"\0inbox";
const TOTAL_STRANGERS: &[u8] = b"\0inbox strangers";

/// What an entry or an open file is charged with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Cost {
    /// Charged to the strangers' share too. On record, since a stranger does not stay one.
    pub(super) stranger: bool,
    pub(super) bytes: u64,
}

impl Cost {
    /// Of `bytes` from `source`.
    pub(super) fn of(txn: &Txn<'_>, source: &Address, bytes: u64) -> Result<Self> {
        // Whoever this node wrote to has a key record here.
        for namespace in [Namespace::KeyRecord, Namespace::Known] {
            if txn.get(T::Kv, &kv_key(namespace, source.as_bytes()))?.is_some() {
                return Ok(Self { stranger: false, bytes });
            }
        }
        Ok(Self { stranger: true, bytes })
    }

    /// The quota that has no room for it.
    pub(super) fn refused(self, txn: &Txn<'_>, quota: &InboxQuota) -> Result<Option<InboxScope>> {
        let all = txn.total(TOTAL)?;
        if !quota.all.admits(all.bytes, all.rows, self.bytes) {
            return Ok(Some(InboxScope::All));
        }
        let strangers = txn.total(TOTAL_STRANGERS)?;
        let fits = !self.stranger || quota.strangers.admits(strangers.bytes, strangers.rows, self.bytes);
        Ok((!fits).then_some(InboxScope::Strangers))
    }

    /// Charges it under `key`.
    pub(super) fn charge(self, txn: &mut Txn<'_>, key: &[u8]) -> Result<()> {
        txn.put(T::InboxCost, key, &join(&[&[u8::from(self.stranger)], &self.bytes.to_be_bytes()]))?;
        self.change_totals(txn, |held, bytes| HeldSummary {
            rows: held.rows.saturating_add(1),
            bytes: held.bytes.saturating_add(bytes),
        })
    }

    fn change_totals(self, txn: &mut Txn<'_>, change: fn(HeldSummary, u64) -> HeldSummary) -> Result<()> {
        let totals = if self.stranger { &[TOTAL, TOTAL_STRANGERS][..] } else { &[TOTAL] };
        for key in totals {
            let held = change(txn.total(key)?, self.bytes);
            txn.set_total(key.to_vec(), held);
        }
        Ok(())
    }
}

/// Takes back what was charged under `key`. None for rows that were there before costs were.
pub(super) fn release(txn: &mut Txn<'_>, key: &[u8]) -> Result<Option<Cost>> {
    let Some(row) = txn.remove(T::InboxCost, key)? else { return Ok(None) };
    let mut f = Fields(&row);
    let cost = f.take::<1>().zip(f.u64()).map(|([stranger], bytes)| Cost { stranger: stranger != 0, bytes });
    let cost = cost.ok_or_else(|| txn.corrupt(T::InboxCost, "a row is too short"))?;
    cost.change_totals(txn, |held, bytes| HeldSummary {
        rows: held.rows.saturating_sub(1),
        bytes: held.bytes.saturating_sub(bytes),
    })?;
    Ok(Some(cost))
}
