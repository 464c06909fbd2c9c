//! Any bytes as a link frame, and as what `qpc wire` is given.

use bytes::Bytes;

use crate::wire::{
    Envelope, Frame, FrameExt, PublicKey,
    explain::explain,
    limits::{FRAME_BYTES_MAX, MAX_HOPS_MAX, PAYLOAD_BYTES_MAX, TRACE_CONTEXT_BYTES},
};

use super::same;

pub(super) fn run(data: &[u8]) {
    let bytes = Bytes::copy_from_slice(data);
    let frame = Frame::decode(&bytes);
    if frame.is_ok() {
        assert!(data.len() <= FRAME_BYTES_MAX);
    }
    if let Ok(Frame::Envelope(envelope, ext)) = &frame {
        check_envelope(envelope, *ext);
    }
    same(data, frame.map(|frame| frame.encode().to_vec()));
    let explained = explain(data).to_string();
    assert!(explained.chars().all(|c| c == '\n' || !c.is_control()));
}

/// An envelope has no field that its tail does not hold, so what a relay changes of it changes nothing
/// else; and whatever a relay adds, it still fits a frame: what one link took no later one refuses.
fn check_envelope(envelope: &Envelope, ext: FrameExt) {
    let header = envelope.header();
    assert!(envelope.payload().len() <= PAYLOAD_BYTES_MAX);
    assert!(header.max_hops >= 1 && header.max_hops <= MAX_HOPS_MAX);
    assert!(envelope.signed().starts_with(envelope.associated_data()));
    assert!(envelope.without_source_key().signed() == envelope.signed());
    let key = envelope.source_key().unwrap_or(PublicKey([7; 32]));
    let largest = FrameExt {
        age_s: u32::MAX,
        retransmit: true,
        custody_declined: true,
        trace_context: Some([7; TRACE_CONTEXT_BYTES]),
    };
    for (hop_count, ext) in [(envelope.hop_count().saturating_add(1), ext), (u8::MAX, largest)] {
        let forwarded = envelope.with_hop_count(hop_count).with_source_key(key);
        match Frame::decode(&forwarded.to_frame(ext).to_bytes()) {
            Ok(Frame::Envelope(got, got_ext)) => {
                assert!(got.signed() == envelope.signed() && got.payload() == envelope.payload());
                assert_eq!((got.hop_count(), got_ext), (hop_count, ext));
                assert_eq!(got.proof(), envelope.proof());
            }
            other => panic!("an envelope does not survive its next link: {other:?}"),
        }
    }
}
