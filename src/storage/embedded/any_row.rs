//! For the fuzzers: any bytes as the open part of every kind of row.

use super::{
    local, mail,
    tables::{HELD_HEADER_BYTES, OUTBOX_HEADER_BYTES, number},
    txn::Heads,
};

/// Reads `row` as whatever it may be, and checks that only its length decides whether it is one.
pub(crate) fn read_any_row(row: &[u8]) {
    assert_eq!(mail::header(row).is_some(), row.len() >= HELD_HEADER_BYTES);
    let outbox = local::outbox_header(row);
    assert_eq!(outbox.is_some(), row.len() >= OUTBOX_HEADER_BYTES);
    let heads = Heads::decode(row);
    assert_eq!(heads.is_some(), row.len() == 32);
    assert!(heads.is_none_or(|heads| heads.encode() == row));
    assert_eq!(number(row).is_some(), row.len() == 8);
}
