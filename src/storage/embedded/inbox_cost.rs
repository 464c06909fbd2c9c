//! What the inbox costs: with each entry, and in one row for each early message and each open file,
//! beside running totals, of all, of all strangers, of each source and of the strangers of each
//! neighbour, so that admission and removal touch what they are about and nothing else.

use super::{
    local::kv_key,
    tables::{Fields, T, join},
    txn::Txn,
};
use crate::{
    storage::{
        error::StoreError,
        ops::{HeldSummary, Namespace},
        quota::{InboxQuota, InboxScope, Quota, Standing},
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

const STRANGER: u8 = 1;
const HAS_INGRESS: u8 = 2;

/// Bytes of [`CostHeader`].
pub(super) const COST_HEADER_BYTES: usize = 25;

/// A cost without its source: flags 1, bytes 8, ingress 16.
pub(super) type CostHeader = [u8; COST_HEADER_BYTES];

/// What an entry or an open file is charged with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Cost {
    /// Charged to the strangers' share too. On record, since a stranger does not stay one.
    stranger: bool,
    bytes: u64,
    source: Address,
    /// Charged with it where it is a stranger's.
    ingress: Option<Address>,
}

/// The first quota that has no room for a message.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Refused {
    /// For any message.
    pub(super) always: Option<InboxScope>,
    /// For one that would have to wait.
    pub(super) if_early: Option<InboxScope>,
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
        } else if is_in(Namespace::KeyRecord)? || is_in(Namespace::Accepted)? {
            Standing::Known
        } else {
            Standing::Stranger
        };
        let stranger = standing == Standing::Stranger;
        Ok((Self { stranger, bytes, source: *source, ingress: ingress.filter(|_| stranger) }, standing))
    }

    /// Whether it is charged to the strangers' share.
    pub(super) fn is_stranger(&self) -> bool {
        self.stranger
    }

    /// The same with so many bytes more.
    pub(super) fn and(self, bytes: u64) -> Self {
        Self { bytes: self.bytes.saturating_add(bytes), ..self }
    }

    /// Which quota has no room for it, and which has none were it early: each total is looked at once.
    pub(super) fn refused(self, txn: &Txn<'_>, standing: Standing, quota: &InboxQuota) -> Result<Refused> {
        let mut refused = Refused::default();
        for (scope, key) in self.totals() {
            let held = txn.total(&key)?;
            let quota = match scope {
                InboxScope::Ingress => quota.strangers_per_ingress,
                InboxScope::Source => quota.of_source(standing),
                InboxScope::Strangers => quota.strangers,
                InboxScope::All => quota.all,
            };
            let is_full = |quota: Quota| !quota.admits(held.bytes, held.rows, self.bytes);
            if is_full(quota) {
                return Ok(Refused { always: Some(scope), if_early: Some(scope) });
            }
            if refused.if_early.is_none() && is_full(quota.of_early()) {
                refused.if_early = Some(scope);
            }
        }
        Ok(refused)
    }

    /// Charges it under `key`.
    pub(super) fn charge(self, txn: &mut Txn<'_>, key: &[u8]) -> Result<()> {
        txn.put(T::InboxCost, key, &self.encode())?;
        self.add(txn)
    }

    /// Charges it where its row has it with it.
    pub(super) fn add(self, txn: &mut Txn<'_>) -> Result<()> {
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
            Some((InboxScope::Source, of(SCOPE_SOURCE, self.source))),
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

    /// Takes back what was charged.
    pub(super) fn take_back(self, txn: &mut Txn<'_>) -> Result<()> {
        self.change_totals(txn, |held, bytes| HeldSummary {
            rows: held.rows.saturating_sub(1),
            bytes: held.bytes.saturating_sub(bytes),
        })
    }

    /// What a row that has it with it says of it; the source is said there anyway.
    pub(super) fn to_header(self) -> CostHeader {
        let flags = (u8::from(self.stranger) * STRANGER) | (u8::from(self.ingress.is_some()) * HAS_INGRESS);
        let mut header = [0; COST_HEADER_BYTES];
        let (at_flags, rest) = header.split_at_mut(1);
        let (at_bytes, at_ingress) = rest.split_at_mut(8);
        at_flags.copy_from_slice(&[flags]);
        at_bytes.copy_from_slice(&self.bytes.to_be_bytes());
        at_ingress.copy_from_slice(&self.ingress.unwrap_or(Address([0; 16])).0);
        header
    }

    /// [`Cost::to_header`] of an entry of `source`.
    pub(super) fn of_header(source: Address, header: &CostHeader) -> Self {
        let mut f = Fields(header);
        let [flags] = f.take().unwrap_or_default();
        let bytes = f.u64().unwrap_or_default();
        let ingress = f.take().map(Address).filter(|_| flags & HAS_INGRESS != 0);
        Self { stranger: flags & STRANGER != 0, bytes, source, ingress }
    }

    fn encode(&self) -> Vec<u8> {
        join(&[self.source.as_bytes(), &self.to_header()])
    }

    fn decode(row: &[u8]) -> Option<Self> {
        let mut f = Fields(row);
        let (source, header) = (Address(f.take()?), f.take()?);
        Some(Self::of_header(source, &header))
    }
}

/// Whether what is charged under `key` is charged to the strangers' share.
pub(super) fn is_strangers(txn: &Txn<'_>, key: &[u8]) -> Result<bool> {
    let Some(row) = txn.get(T::InboxCost, key)? else { return Ok(false) };
    let cost = Cost::decode(&row).ok_or_else(|| txn.corrupt(T::InboxCost, "a row is too short"))?;
    Ok(cost.stranger)
}

/// Takes back what was charged under `key`; none where nothing is.
pub(super) fn release(txn: &mut Txn<'_>, key: &[u8]) -> Result<Option<Cost>> {
    let Some(row) = txn.remove(T::InboxCost, key)? else { return Ok(None) };
    let cost = Cost::decode(&row).ok_or_else(|| txn.corrupt(T::InboxCost, "a row is too short"))?;
    cost.take_back(txn)?;
    Ok(Some(cost))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_come_back_as_they_were() {
        let (source, ingress) = (Address([1; 16]), Some(Address([2; 16])));
        for (stranger, ingress) in [(true, ingress), (true, None), (false, None)] {
            let cost = Cost { stranger, bytes: 7, source, ingress };
            assert_eq!(Cost::decode(&cost.encode()), Some(cost));
            assert_eq!(Cost::of_header(source, &cost.to_header()), cost);
        }
        assert_eq!(Cost::decode(&[1; 40]), None);
    }
}
