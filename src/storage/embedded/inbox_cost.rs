//! What the inbox costs: one row an entry and one an open file beside running totals, of all, of all
//! strangers, of each source and of the strangers of each neighbour, so that admission and removal
//! touch what they are about and nothing else.

use super::{
    local::kv_key,
    tables::{Fields, T, join},
    txn::Txn,
};
use crate::{
    storage::{
        error::StoreError,
        ops::{HeldSummary, Namespace},
        quota::{InboxQuota, InboxScope, Standing},
    },
    wire::Address,
};

type Result<V> = std::result::Result<V, StoreError>;

/// Keys in the table of totals: no scope has number 0 with an address so short.
const TOTAL: &[u8] = b"\0inbox";
const TOTAL_STRANGERS: &[u8] = b"\0inbox strangers";

/// Scopes in the table of totals, beside those of what is held for others. Part of the disk format.
const SCOPE_SOURCE: u8 = 4;
const SCOPE_INGRESS: u8 = 5;

/// What an entry or an open file is charged with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Cost {
    /// Charged to the strangers' share too. On record, since a stranger does not stay one.
    stranger: bool,
    bytes: u64,
    /// Charged with it; none in rows from before sources were.
    source: Option<Address>,
    /// Charged with it where it is a stranger's.
    ingress: Option<Address>,
}

impl Cost {
    /// Of `bytes` from `source` over `ingress`, and what that source is to this node.
    pub(super) fn of(
        txn: &Txn<'_>,
        source: &Address,
        ingress: Option<Address>,
        bytes: u64,
    ) -> Result<(Self, Standing)> {
        let is_in =
            |namespace| Ok::<_, StoreError>(txn.get(T::Kv, &kv_key(namespace, source.as_bytes()))?.is_some());
        let standing = if is_in(Namespace::Known)? {
            Standing::Contact
        // Whoever this node wrote to has a key record here.
        } else if is_in(Namespace::KeyRecord)? {
            Standing::Known
        } else {
            Standing::Stranger
        };
        let stranger = standing == Standing::Stranger;
        Ok((Self { stranger, bytes, source: Some(*source), ingress: ingress.filter(|_| stranger) }, standing))
    }

    /// The same with so many bytes more.
    pub(super) fn and(self, bytes: u64) -> Self {
        Self { bytes: self.bytes.saturating_add(bytes), ..self }
    }

    /// The quota that has no room for it.
    pub(super) fn refused(
        self,
        txn: &Txn<'_>,
        standing: Standing,
        quota: &InboxQuota,
    ) -> Result<Option<InboxScope>> {
        for (scope, key) in self.totals() {
            let held = txn.total(&key)?;
            let quota = match scope {
                InboxScope::Ingress => quota.strangers_per_ingress,
                InboxScope::Source => quota.of_source(standing),
                InboxScope::Strangers => quota.strangers,
                InboxScope::All => quota.all,
            };
            if !quota.admits(held.bytes, held.rows, self.bytes) {
                return Ok(Some(scope));
            }
        }
        Ok(None)
    }

    /// Charges it under `key`.
    pub(super) fn charge(self, txn: &mut Txn<'_>, key: &[u8]) -> Result<()> {
        txn.put(T::InboxCost, key, &self.encode())?;
        self.change_totals(txn, |held, bytes| HeldSummary {
            rows: held.rows.saturating_add(1),
            bytes: held.bytes.saturating_add(bytes),
        })
    }

    /// The totals it is charged to, in the order in which their quotas are looked at.
    fn totals(&self) -> impl Iterator<Item = (InboxScope, Vec<u8>)> + use<> {
        let of = |scope: u8, address: Address| join(&[&[scope], address.as_bytes()]);
        [
            self.ingress.map(|address| (InboxScope::Ingress, of(SCOPE_INGRESS, address))),
            self.source.map(|address| (InboxScope::Source, of(SCOPE_SOURCE, address))),
            self.stranger.then(|| (InboxScope::Strangers, TOTAL_STRANGERS.to_vec())),
            Some((InboxScope::All, TOTAL.to_vec())),
        ]
        .into_iter()
        .flatten()
    }

    fn change_totals(self, txn: &mut Txn<'_>, change: fn(HeldSummary, u64) -> HeldSummary) -> Result<()> {
        for (_, key) in self.totals() {
            let held = change(txn.total(&key)?, self.bytes);
            txn.set_total(key, held);
        }
        Ok(())
    }

    fn encode(&self) -> Vec<u8> {
        let address = |address: &Option<Address>| address.map_or(Vec::new(), |address| address.0.to_vec());
        let flags = [u8::from(self.stranger)];
        join(&[&flags, &self.bytes.to_be_bytes(), &address(&self.source), &address(&self.ingress)])
    }

    fn decode(row: &[u8]) -> Option<Self> {
        let mut f = Fields(row);
        let ([flags], bytes) = f.take::<1>().zip(f.u64())?;
        let (source, ingress) = (f.take().map(Address), f.take().map(Address));
        Some(Self { stranger: flags != 0, bytes, source, ingress })
    }
}

/// Takes back what was charged under `key`. None for rows that were there before costs were.
pub(super) fn release(txn: &mut Txn<'_>, key: &[u8]) -> Result<Option<Cost>> {
    let Some(row) = txn.remove(T::InboxCost, key)? else { return Ok(None) };
    let cost = Cost::decode(&row).ok_or_else(|| txn.corrupt(T::InboxCost, "a row is too short"))?;
    cost.change_totals(txn, |held, bytes| HeldSummary {
        rows: held.rows.saturating_sub(1),
        bytes: held.bytes.saturating_sub(bytes),
    })?;
    Ok(Some(cost))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_come_back_as_they_were_and_those_of_before_count_for_all_alone() {
        let (source, ingress) = (Some(Address([1; 16])), Some(Address([2; 16])));
        for (stranger, ingress) in [(true, ingress), (true, None), (false, None)] {
            let cost = Cost { stranger, bytes: 7, source, ingress };
            assert_eq!(Cost::decode(&cost.encode()), Some(cost));
        }
        let before = Cost::decode(&[1, 0, 0, 0, 0, 0, 0, 0, 9]).unwrap();
        assert_eq!((before.stranger, before.bytes, before.source, before.ingress), (true, 9, None, None));
        let scopes: Vec<_> = before.totals().map(|(scope, _)| scope).collect();
        assert_eq!(scopes, [InboxScope::Strangers, InboxScope::All]);
        assert_eq!(Cost::decode(&[1, 0, 0]), None);
    }
}
