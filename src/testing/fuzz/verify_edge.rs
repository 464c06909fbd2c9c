//! Any bytes as what a link receives, up to the check of its signatures: nothing is believed that
//! nobody signed, and what waits for a key waits within its bounds.

use bytes::Bytes;

use crate::{
    clock,
    proto::verify::{HELD_BYTES_MAX, HeldForKey, Verifier, VerifyOutcome},
    wire::{Address, Frame, NetworkId},
};

pub(super) fn run(data: &[u8]) {
    let bytes = Bytes::copy_from_slice(data);
    let Ok(frame) = Frame::decode(&bytes) else { return };
    let mut verifier = Verifier::new(Address([0xee; 16]), NetworkId([7; 16]));
    match frame {
        Frame::Envelope(envelope, ext) => {
            let packet_id = verifier.packet_id(&envelope);
            let is_for_us = verifier.is_for_us(&envelope);
            match verifier.verify(envelope, ext) {
                VerifyOutcome::Verified(packet) => {
                    assert_eq!(verifier.signatures_checked(), 1);
                    assert_eq!(packet.packet_id, packet_id);
                    assert_eq!(packet.destination == Address([0xee; 16]), is_for_us);
                    assert!(!packet.source.is_reserved());
                }
                VerifyOutcome::KeyNeeded { source, envelope, ext } => {
                    assert!(envelope.source_key().is_none() && verifier.signatures_checked() == 0);
                    let now = clock::now();
                    let mut held = HeldForKey::new();
                    for _ in 0..4 {
                        let _ = held.hold(now, source, envelope.clone(), ext);
                    }
                    assert!(held.bytes() <= HELD_BYTES_MAX);
                }
                VerifyOutcome::CameBack(came_back) => {
                    assert_eq!((came_back, verifier.signatures_checked()), (packet_id, 0));
                    assert!(!is_for_us);
                }
                VerifyOutcome::Failed(error) => {
                    assert!(!error.name().is_empty());
                    assert_eq!(verifier.signatures_checked(), 0, "{error}");
                }
            }
        }
        Frame::Announce(announce) | Frame::PathReply(announce) => {
            let has_record = announce.key_record.is_some();
            let verified = verifier.verify_announce(announce.clone());
            if let Ok(inbound) = verified {
                assert_eq!(inbound.key_record.is_some(), has_record);
                assert!(verifier.is_known_good(&announce));
            } else {
                assert!(!verifier.is_known_good(&announce));
            }
        }
        _ => {}
    }
}
