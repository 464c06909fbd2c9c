//! Fuzz targets as plain functions: the fuzzer drives them with whatever it likes, and an ordinary
//! test replays the corpus made of the golden vectors.
//!
//! Each checks more than that nothing panics: what is read must be written back as the very bytes
//! it was read from, or the decoder takes two spellings for one message.

use bytes::Bytes;

use crate::wire::{
    DecodeError, Frame,
    cbor::{self, Reader},
    content::{Chunk, Content, Sealed},
    explain::explain,
    key_record::SignedKeyRecord,
    receipt::{CannotOpen, Receipt},
    service::{Pong, Probe, TraceReply},
};

/// A target.
pub type Target = fn(&[u8]);

/// Every target by its name.
pub const TARGETS: [(&str, Target); 3] =
    [("frame_decode", frame_decode), ("content_decode", content_decode), ("receipt_decode", receipt_decode)];

fn same(bytes: &[u8], written: Result<Vec<u8>, DecodeError>) {
    if let Ok(written) = written {
        assert!(written == bytes, "read from {bytes:02x?}, written as {written:02x?}");
    }
}

/// Any bytes as a link frame, and as what `qpc wire` is given.
pub fn frame_decode(data: &[u8]) {
    let bytes = Bytes::copy_from_slice(data);
    let frame = Frame::decode(&bytes);
    // An envelope has no field that its tail does not hold, so attaching and stripping a key must
    // change nothing else.
    if let Ok(Frame::Envelope(envelope, _)) = &frame {
        let stripped = envelope.without_source_key();
        assert!(stripped.signed() == envelope.signed());
        assert!(envelope.signed().starts_with(envelope.associated_data()));
        let forwarded = envelope.with_hop_count(envelope.hop_count().saturating_add(1));
        assert!(forwarded.encoded_len() >= envelope.encoded_len());
    }
    same(data, frame.map(|frame| frame.encode().to_vec()));
    let explained = explain(data).to_string();
    assert!(explained.chars().all(|c| c == '\n' || !c.is_control()));
}

/// Any bytes as what a seal holds, a broadcast, a chunk.
pub fn content_decode(data: &[u8]) {
    let bytes = Bytes::copy_from_slice(data);
    same(data, Sealed::decode(&bytes).map(|sealed| sealed.encode()));
    same(data, Content::decode_broadcast(&bytes).map(|content| content.encode()));
    same(data, Chunk::decode(&bytes).map(|chunk| chunk.encode()));
}

/// Any bytes as what a destination or a relay answers.
pub fn receipt_decode(data: &[u8]) {
    let bytes = Bytes::copy_from_slice(data);
    same(data, Receipt::decode(&bytes).map(|receipt| receipt.encode()));
    same(data, CannotOpen::decode(&bytes).map(|answer| answer.encode()));
    same(data, SignedKeyRecord::decode(&bytes).map(|record| record.encode()));
    same(data, Probe::decode(&bytes).map(|probe| probe.encode()));
    same(data, Pong::decode(&bytes).map(|pong| pong.encode()));
    same(data, TraceReply::decode(&bytes).map(|reply| reply.encode()));
    // The strict walk accepts nothing that a lenient reader of CBOR would not read.
    if cbor::check(data, "item").is_ok() {
        let mut reader = Reader::new(data);
        assert!(reader.skip("item").is_ok() && reader.is_empty());
        assert!(ciborium::from_reader::<ciborium::Value, _>(data).is_ok());
    }
}
