//! What bytes mean, for people: every field with its offset, its value and what it says. Behind
//! `qpc wire HEX`.
//!
//! Whether bytes are a message is for the decoders alone to say; this only annotates what they
//! read. Where they refuse, the fields up to the fault are shown, and the fault. Nothing here is
//! on a path that carries messages.

mod annotate;
mod layout;

use std::fmt;

use bytes::Bytes;
use serde::Serialize;

use super::{
    DecodeError, Envelope, EnvelopeKind, Frame, FrameType,
    beacon::Beacon,
    cbor::Reader,
    content::{Chunk, Content, Sealed},
    key_record::SignedKeyRecord,
    receipt::{CannotOpen, Receipt},
    service::{Pong, Probe, TraceReply},
};
use layout::Layout;

/// One annotated item of a message.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Field {
    /// Where the item's head stands, in bytes from the start.
    pub offset: usize,
    /// Bytes of the item, its head included.
    pub bytes: usize,
    /// How deep it lies, 0 for the message itself.
    pub depth: usize,
    /// Name, as in `docs/protocol.md`.
    pub name: String,
    /// Value: a number, hex, or text with its control characters escaped.
    pub value: String,
    /// What the value says, where there is something to say.
    pub meaning: Option<String>,
}

/// Where the bytes of an envelope go.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Sizes {
    /// The envelope, the frame around it not counted.
    pub envelope_bytes: usize,
    /// Its payload.
    pub payload_bytes: usize,
    /// What the envelope adds to its payload.
    pub envelope_overhead_bytes: usize,
    /// What the seal adds to what was sealed, padding not counted; for sealed messages.
    pub seal_overhead_bytes: Option<usize>,
    /// Sealed bytes with their padding; how much of it is the user's only the recipient knows.
    pub sealed_bytes: Option<usize>,
}

/// Why bytes are not a message.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Fault {
    /// Where, for faults that have a place.
    pub offset: Option<usize>,
    /// What is wrong.
    pub error: String,
    /// True where a newer version may have sent it.
    pub is_unknown_version: bool,
}

/// Bytes, explained.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Explained {
    /// What the bytes are: the name of a frame type, or of a payload as `payload NAME`. None where
    /// they are neither.
    pub message: Option<String>,
    /// What else they could be: short payloads look alike.
    pub or: Vec<String>,
    /// How many there are.
    pub bytes: usize,
    /// Every item, outermost first; up to the fault where there is one.
    pub fields: Vec<Field>,
    /// Where the bytes go, for envelopes.
    pub sizes: Option<Sizes>,
    /// Why they are not a message.
    pub fault: Option<Fault>,
}

/// Explains one link frame, or one payload where it is none.
pub fn explain(bytes: &[u8]) -> Explained {
    let shared = Bytes::copy_from_slice(bytes);
    match Frame::decode(&shared) {
        Ok(frame) => explain_frame(&shared, &frame),
        Err(error) => match explain_payload(&shared) {
            Some(mut explained) => {
                if error.is_unknown_version() {
                    explained.or.push("a frame of a newer version".to_owned());
                }
                explained
            }
            None => explain_fault(&shared, &error),
        },
    }
}

fn explain_frame(bytes: &Bytes, frame: &Frame) -> Explained {
    let (layout, sizes) = match frame {
        Frame::Envelope(envelope, _) => (layout::envelope(payload_layout(envelope)), Some(sizes(envelope))),
        _ => (layout::frame(frame.name()), None),
    };
    Explained {
        message: Some(frame.name().to_owned()),
        or: Vec::new(),
        bytes: bytes.len(),
        fields: annotate::fields(bytes, &layout),
        sizes,
        fault: None,
    }
}

/// How an envelope's payload is laid out, where it is what its kind says.
fn payload_layout(envelope: &Envelope) -> Layout {
    let payload = envelope.payload();
    match envelope.header().kind {
        EnvelopeKind::MESSAGE if is_seal(&payload) => layout::inside(layout::seal()),
        EnvelopeKind::CHUNK if Chunk::decode(&payload).is_ok() => layout::inside(layout::chunk()),
        EnvelopeKind::RECEIPT if Receipt::decode(&payload).is_ok() => layout::inside(layout::receipt()),
        EnvelopeKind::CANNOT_OPEN if CannotOpen::decode(&payload).is_ok() => {
            layout::inside(layout::cannot_open())
        }
        EnvelopeKind::BROADCAST if Content::decode_broadcast(&payload).is_ok() => {
            layout::inside(layout::content())
        }
        EnvelopeKind::PING | EnvelopeKind::TRACE if Probe::decode(&payload).is_ok() => {
            layout::inside(layout::probe())
        }
        EnvelopeKind::PONG if Pong::decode(&payload).is_ok() => layout::inside(layout::pong()),
        EnvelopeKind::TRACE_REPLY if TraceReply::decode(&payload).is_ok() => {
            layout::inside(layout::trace_reply())
        }
        _ => layout::opaque(),
    }
}

/// The length of a seal's ciphertext; none where the payload has another shape.
fn seal_ciphertext_bytes(payload: &[u8]) -> Option<usize> {
    let mut reader = Reader::new(payload);
    reader.array(4, 4, "seal").ok()?;
    reader.u32("rk_id").ok()?;
    reader.fixed::<32>("ephemeral").ok()?;
    reader.u32("counter").ok()?;
    let ciphertext = reader.bytes(payload.len(), "ciphertext").ok()?.len();
    reader.finish().ok()?;
    Some(ciphertext)
}

/// Bytes of the AEAD tag that ends a ciphertext.
const AEAD_TAG_BYTES: usize = 16;

fn is_seal(payload: &[u8]) -> bool {
    seal_ciphertext_bytes(payload).is_some_and(|bytes| bytes > AEAD_TAG_BYTES)
}

fn sizes(envelope: &Envelope) -> Sizes {
    let envelope_bytes = envelope.encoded_len();
    let payload = envelope.payload();
    let is_message = envelope.header().kind == EnvelopeKind::MESSAGE;
    let sealed_bytes = seal_ciphertext_bytes(&payload)
        .filter(|bytes| is_message && *bytes > AEAD_TAG_BYTES)
        .map(|bytes| bytes.saturating_sub(AEAD_TAG_BYTES));
    Sizes {
        envelope_bytes,
        payload_bytes: payload.len(),
        envelope_overhead_bytes: envelope_bytes.saturating_sub(payload.len()),
        seal_overhead_bytes: sealed_bytes.map(|sealed| payload.len().saturating_sub(sealed)),
        sealed_bytes,
    }
}

/// A payload's name, whether the bytes are one, and its layout.
type Candidate = (&'static str, bool, fn() -> Layout);

/// A broadcast may be longer than what fits a seal.
fn is_content(bytes: &Bytes, sealed: Option<&Sealed>) -> bool {
    matches!(sealed, Some(Sealed::Content(_))) || Content::decode_broadcast(bytes).is_ok()
}

/// The payloads that can be told from each other well enough to be worth naming.
fn explain_payload(bytes: &Bytes) -> Option<Explained> {
    let sealed = Sealed::decode(bytes).ok();
    let candidates: [Candidate; 11] = [
        ("manifest", matches!(sealed, Some(Sealed::Manifest(_))), layout::manifest),
        ("content", is_content(bytes, sealed.as_ref()), layout::content),
        ("receipt", Receipt::decode(bytes).is_ok(), layout::receipt),
        ("cannot_open", CannotOpen::decode(bytes).is_ok(), layout::cannot_open),
        ("chunk", Chunk::decode(bytes).is_ok(), layout::chunk),
        ("key_record", SignedKeyRecord::decode(bytes).is_ok(), layout::key_record),
        ("seal", is_seal(bytes), layout::seal),
        ("trace_reply", TraceReply::decode(bytes).is_ok(), layout::trace_reply),
        ("pong", Pong::decode(bytes).is_ok(), layout::pong),
        ("probe", Probe::decode(bytes).is_ok(), layout::probe),
        ("beacon", Beacon::decode(bytes).is_ok(), layout::beacon),
    ];
    let mut fitting = candidates.iter().filter(|(_, fits, _)| *fits);
    let (name, _, layout) = fitting.next()?;
    Some(Explained {
        message: Some(titled(name)),
        or: fitting.map(|(name, _, _)| titled(name)).collect(),
        bytes: bytes.len(),
        fields: annotate::fields(bytes, &layout()),
        sizes: None,
        fault: None,
    })
}

/// A beacon is a datagram of its own; all else that is no frame travels in an envelope.
fn titled(name: &str) -> String {
    if name == "beacon" { name.to_owned() } else { format!("payload {name}") }
}

fn explain_fault(bytes: &Bytes, error: &DecodeError) -> Explained {
    // The frame type says what the fields would have been; without one they have no names.
    let mut reader = Reader::new(bytes);
    let frame_type = reader.array(2, 3, "frame").and_then(|_| reader.uint(u64::MAX, "frame type")).ok();
    let layout = match frame_type.and_then(FrameType::from_number) {
        Some(FrameType::EnvelopeV1 | FrameType::EnvelopeV2) => layout::envelope(layout::opaque()),
        Some(kind) => layout::frame(kind.name()),
        None => layout::unknown_frame(),
    };
    Explained {
        message: None,
        or: Vec::new(),
        bytes: bytes.len(),
        fields: annotate::fields(bytes, &layout),
        sizes: None,
        fault: Some(Fault {
            offset: error.offset(),
            error: error.to_string(),
            is_unknown_version: error.is_unknown_version(),
        }),
    }
}

impl fmt::Display for Explained {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = self.message.as_deref().unwrap_or("no message");
        writeln!(f, "{name}, {} bytes", self.bytes)?;
        if !self.or.is_empty() {
            writeln!(f, "could also be: {}", self.or.join(", "))?;
        }
        for field in &self.fields {
            let indent = field.depth.saturating_mul(2);
            write!(f, "{:>6}  {:indent$}{} = {}", field.offset, "", field.name, field.value)?;
            match &field.meaning {
                Some(meaning) => writeln!(f, "  ({meaning})")?,
                None => writeln!(f)?,
            }
        }
        if let Some(sizes) = &self.sizes {
            write!(
                f,
                "sizes: envelope {} = payload {} + {} overhead",
                sizes.envelope_bytes, sizes.payload_bytes, sizes.envelope_overhead_bytes
            )?;
            match (sizes.sealed_bytes, sizes.seal_overhead_bytes) {
                (Some(sealed), Some(overhead)) => {
                    writeln!(f, "; payload = {sealed} sealed + {overhead} overhead")?;
                }
                _ => writeln!(f)?,
            }
        }
        if let Some(fault) = &self.fault {
            let newer = if fault.is_unknown_version { " (perhaps of a newer version)" } else { "" };
            // Errors of the typed decoders may quote what they found.
            writeln!(f, "fault: {}{newer}", annotate::escaped(&fault.error))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::handshake::{CloseReason, Goodbye};

    #[test]
    fn a_frame_shows_its_fields_with_offsets() {
        let frame = Frame::Refuse(crate::wire::control::Refuse {
            packet_id: crate::wire::PacketId([7; 16]),
            reason: crate::wire::control::RefuseReason::Loop,
            retry_after_s: 30,
        });
        let explained = explain(&frame.encode());
        assert_eq!(explained.message.as_deref(), Some("refuse"));
        let reason = explained.fields.iter().find(|f| f.name == "reason").expect("a reason");
        assert_eq!((reason.offset, reason.value.as_str()), (20, "5"));
        assert_eq!(reason.meaning.as_deref(), Some("loop"));
    }

    #[test]
    fn control_characters_of_others_are_escaped() {
        let text = "a\u{1b}[2Jb\nc\u{202e}d".to_owned();
        let frame = Frame::Goodbye(Goodbye { reason: CloseReason::Shutdown, text });
        let shown = explain(&frame.encode()).to_string();
        assert!(shown.contains(r#""a\u{1b}[2Jb\nc\u{202e}d""#), "{shown}");
        assert!(shown.chars().all(|c| c == '\n' || !c.is_control()), "{shown:?}");
    }

    #[test]
    fn a_fault_names_its_place_and_shows_what_came_before() {
        // A credit of a class nobody has.
        let explained = explain(&[0x82, 0x04, 0x82, 0x09, 0x00]);
        let fault = explained.fault.expect("a fault");
        assert_eq!((explained.message, fault.offset), (None, Some(3)));
        assert!(explained.fields.iter().any(|f| f.name == "class" && f.value == "9"));
        let cut = explain(&[0x82, 0x04, 0x82, 0x01]);
        assert_eq!(cut.fault.expect("a fault").offset, Some(4));
    }

    #[test]
    fn frames_of_newer_versions_are_no_noise() {
        let explained = explain(&[0x82, 0x18, 0x63, 0x81, 0x00]);
        assert!(explained.fault.is_some_and(|f| f.is_unknown_version));
        // Two small numbers are a pong's payload, too.
        let explained = explain(&[0x82, 0x18, 0x63, 0x00]);
        assert_eq!(explained.message.as_deref(), Some("payload pong"));
        assert_eq!(explained.or, ["a frame of a newer version"]);
    }

    #[test]
    fn deep_nesting_costs_no_stack() {
        let explained = explain(&vec![0x81; 1 << 20]);
        assert!(explained.fault.is_some());
        assert!(explained.fields.len() < 64);
    }
}
