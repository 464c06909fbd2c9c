//! Any bytes as what a destination or a relay answers.

use bytes::Bytes;

use crate::wire::{
    key_record::{KeyRecord, SignedKeyRecord},
    limits::{KEY_RECORD_KEYS_MAX, RECEIPT_BITMAPS_MAX, RECEIPT_IDS_MAX},
    receipt::{CannotOpen, Receipt},
    service::{Pong, Probe, TraceReply},
};

use super::same;

pub(super) fn run(data: &[u8]) {
    let bytes = Bytes::copy_from_slice(data);
    let receipt = Receipt::decode(&bytes);
    if let Ok(receipt) = &receipt {
        assert!(receipt.packet_ids.len() <= RECEIPT_IDS_MAX && receipt.chunks.len() <= RECEIPT_BITMAPS_MAX);
        assert!(receipt.chunks.iter().all(|c| c.bitmap.len() <= (c.total as usize).div_ceil(8)));
    }
    same(data, receipt.map(|receipt| receipt.encode()));
    same(data, CannotOpen::decode(&bytes).map(|answer| answer.encode()));
    let record = SignedKeyRecord::decode(&bytes);
    if let Ok(record) = &record {
        let read = KeyRecord::decode_signed(&record.signed);
        assert!(read.is_ok_and(
            |read| read.keys.len() <= KEY_RECORD_KEYS_MAX && read.encode_signed() == record.signed
        ));
    }
    same(data, record.map(|record| record.encode()));
    same(data, Probe::decode(&bytes).map(|probe| probe.encode()));
    same(data, Pong::decode(&bytes).map(|pong| pong.encode()));
    same(data, TraceReply::decode(&bytes).map(|reply| reply.encode()));
}
