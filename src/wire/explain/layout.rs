//! How each message is laid out: names for its positions. The order is that of `docs/protocol.md`.

use super::super::{
    FrameType, Lifetime,
    announce::Capabilities,
    control::RefuseReason,
    envelope::{EnvelopeKind, Priority},
    handshake::CloseReason,
    receipt::TransferState,
};

/// Says what a number means.
type OfNumber = fn(u64) -> Option<String>;

/// How an item is laid out.
#[derive(Clone)]
pub(super) enum Layout {
    /// Nothing more to say than the value.
    Plain,
    /// Bytes that say nothing to whoever reads the message here.
    Opaque,
    /// A number that means something.
    Number(OfNumber),
    /// Bytes of a fixed purpose.
    Bytes(&'static str),
    /// Many 16-byte ids in one byte string.
    Ids,
    /// Named elements by position.
    Array(Vec<(&'static str, Layout)>),
    /// Any number of elements alike.
    List(&'static str, Box<Layout>),
    /// Named entries by key.
    Map(Vec<(u64, &'static str, Layout)>),
    /// A byte string that holds CBOR.
    Inside(Box<Layout>),
    /// One thing where it is a byte string, another where it is not.
    BytesOr(&'static str, Box<Layout>),
}

use Layout::{Array, Bytes, BytesOr, Ids, List, Map, Number, Opaque, Plain};

pub(super) fn opaque() -> Layout {
    Opaque
}

pub(super) fn inside(layout: Layout) -> Layout {
    Layout::Inside(Box::new(layout))
}

/// A frame of any type but the envelopes.
pub(super) fn frame(name: &'static str) -> Layout {
    Array(vec![("type", Number(frame_type)), (name, body(name)), ("ext", ext())])
}

/// A frame whose type nobody has told us of.
pub(super) fn unknown_frame() -> Layout {
    Array(vec![("type", Number(frame_type)), ("body", Plain), ("ext", Plain)])
}

/// A frame that carries an envelope with such a payload.
pub(super) fn envelope(payload: Layout) -> Layout {
    let signed = Array(vec![
        ("kind and priority", Number(kind_and_priority)),
        ("source", Bytes("who signed it")),
        ("destination", Bytes("who it is for")),
        ("boot_epoch", Plain),
        ("sequence", Plain),
        ("created", Number(unix_s)),
        ("lifetime", Number(lifetime)),
        ("max_hops", Plain),
        ("payload", payload),
    ]);
    let merkle = Array(vec![
        ("form", Plain),
        ("root_signature", Bytes("Ed25519, over the Merkle root")),
        ("index", Plain),
        ("path", Bytes("sibling digests, 32 bytes each, from the leaf up")),
    ]);
    let body = Array(vec![
        ("hop_count", Plain),
        ("signed", inside(signed)),
        ("proof", BytesOr("Ed25519 signature", Box::new(merkle))),
        ("source_key", Bytes("the source's public key, attached by a relay or the source")),
    ]);
    Array(vec![("type", Number(frame_type)), ("envelope", body), ("ext", ext())])
}

fn ext() -> Layout {
    Map(vec![
        (1, "age", Number(|s| Some(format!("{s} s in custody so far")))),
        (2, "flags", Number(flags)),
        (3, "trace_context", Bytes("trace id 16, span id 8, flags 1")),
    ])
}

fn body(name: &str) -> Layout {
    match name {
        "hello" => Array(vec![
            ("version_min", Plain),
            ("version_max", Plain),
            ("network_tag", Bytes("first 8 bytes of SHA-256 over the network's name")),
            ("network_proof", Bytes("HMAC-SHA-256; empty without a network secret")),
            ("features", Plain),
            ("boot_epoch", Plain),
            ("nonce", Bytes("random per link")),
            ("clock", Number(unix_s)),
            ("initial_credit", Array(vec![("control", Plain), ("interactive", Plain), ("bulk", Plain)])),
        ]),
        "goodbye" => Array(vec![
            ("reason", Number(|n| Some(CloseReason::from(u8::try_from(n).ok()?).name().to_owned()))),
            ("text", Plain),
        ]),
        "credit" => Array(vec![("class", Number(class)), ("bytes", Plain)]),
        "key_needed" | "key_request" => Bytes("address"),
        "key_offer" => Bytes("Ed25519 public key"),
        "announce" | "path_reply" => announce(),
        "path_request" => Array(vec![
            ("request_id", Bytes("random")),
            ("destination", Bytes("who is looked for")),
            ("max_hops", Plain),
            ("hop_count", Plain),
            ("newer_than_epoch", Plain),
            ("newer_than_sequence", Plain),
        ]),
        "custody_ack" => Array(vec![("domain", Bytes("who holds them")), ("packet_ids", Ids)]),
        "refuse" => Array(vec![
            ("packet_id", Bytes("which packet")),
            ("reason", Number(|n| Some(RefuseReason::from(u8::try_from(n).ok()?).name().to_owned()))),
            ("retry_after", Number(|s| Some(format!("{s} s")))),
        ]),
        "key_reply" => key_record(),
        "withdraw" => Ids,
        "digest" => Array(vec![
            ("after", Bytes("the range begins behind this address")),
            ("through", Bytes("the last address of the range")),
            (
                "entries",
                Bytes("25 bytes each: address, boot_epoch, sequence, hop_count (255: no way offered)"),
            ),
        ]),
        _ => Plain,
    }
}

fn announce() -> Layout {
    let signed = Array(vec![
        ("public_key", Bytes("whose announce it is")),
        ("boot_epoch", Plain),
        ("sequence", Plain),
        ("capabilities", Number(capabilities)),
        ("lifetime", Number(|s| Some(format!("{s} s")))),
        ("max_hops", Plain),
        ("key_record_hash", Bytes("first 8 bytes; empty where there is none")),
        ("keypackage_hash", Bytes("SHA-256; empty where there is none")),
        ("service_data", Opaque),
    ]);
    Array(vec![
        ("hop_count", Plain),
        ("signed", inside(signed)),
        ("signature", Bytes("Ed25519")),
        ("key_record", key_record()),
    ])
}

pub(super) fn key_record() -> Layout {
    let key =
        Array(vec![("rk_id", Plain), ("suite", Number(suite)), ("x25519", Bytes("public key to seal to"))]);
    let signed = Array(vec![
        ("public_key", Bytes("whose keys these are")),
        ("order", Plain),
        ("not_after", Number(unix_s)),
        ("keys", List("key", Box::new(key))),
    ]);
    Array(vec![("signed", inside(signed)), ("signature", Bytes("Ed25519"))])
}

pub(super) fn seal() -> Layout {
    Array(vec![
        ("rk_id", Plain),
        ("ephemeral", Bytes("the sender's X25519 key")),
        ("counter", Plain),
        ("ciphertext", Opaque),
    ])
}

pub(super) fn receipt() -> Layout {
    let chunks = Array(vec![
        ("tag", Bytes("which file")),
        ("state", Number(transfer_state)),
        ("total", Plain),
        ("bitmap", Bytes("bit i % 8 of byte i / 8 is chunk i")),
    ]);
    Array(vec![("packet_ids", Ids), ("chunks", List("transfer", Box::new(chunks))), ("unwanted", Ids)])
}

pub(super) fn cannot_open() -> Layout {
    Array(vec![
        ("packet_id", Bytes("the packet that could not be opened")),
        ("reason", Number(|n| (n == 0).then(|| "unknown receiver key".to_owned()))),
        ("key_record", key_record()),
    ])
}

pub(super) fn content() -> Layout {
    Array(vec![
        ("uid", Bytes("the message's id")),
        ("type", Number(content_type)),
        ("name", Plain),
        ("sent_at", Number(|ms| Some(format!("ms since 1970: {}", unix_s(ms / 1000)?)))),
        ("bytes", Opaque),
        ("follows", Bytes("the start of the id of the message sent before it")),
    ])
}

pub(super) fn manifest() -> Layout {
    Array(vec![
        ("uid", Bytes("the message's id")),
        ("type", Number(content_type)),
        ("name", Plain),
        ("sent_at", Number(|ms| Some(format!("ms since 1970: {}", unix_s(ms / 1000)?)))),
        ("length", Plain),
        ("sha256", Bytes("over the whole")),
        ("file_key", Bytes("the key of the chunks: a secret")),
    ])
}

pub(super) fn chunk() -> Layout {
    Array(vec![("tag", Bytes("which file")), ("index", Plain), ("total", Plain), ("ciphertext", Opaque)])
}

pub(super) fn probe() -> Layout {
    Array(vec![("nonce", Plain)])
}

pub(super) fn pong() -> Layout {
    Array(vec![("nonce", Plain), ("hops", Plain)])
}

pub(super) fn trace_reply() -> Layout {
    Array(vec![
        ("nonce", Plain),
        ("hop", Plain),
        ("reached", Plain),
        ("transport", Plain),
        ("snr", Number(|n| Some(format!("{n} quarters of a decibel")))),
    ])
}

pub(super) fn beacon() -> Layout {
    let listener = Array(vec![("medium", Number(medium)), ("port", Plain)]);
    Array(vec![
        ("version", Plain),
        ("instance", Bytes("which start of a node")),
        ("ask", Plain),
        ("listeners", List("listener", Box::new(listener))),
        ("nonce", Bytes("random")),
        ("proof", Bytes("HMAC of the network")),
    ])
}

fn medium(number: u64) -> Option<String> {
    match number {
        0 => Some("quic".to_owned()),
        1 => Some("tcp".to_owned()),
        _ => Some("of a newer version".to_owned()),
    }
}

fn frame_type(number: u64) -> Option<String> {
    Some(FrameType::from_number(number).map_or("of a newer version", FrameType::name).to_owned())
}

fn kind_and_priority(number: u64) -> Option<String> {
    let byte = u8::try_from(number).ok()?;
    let kind = EnvelopeKind(byte >> 2);
    let priority = match Priority::from_bits(byte) {
        Priority::Low => "low",
        Priority::Normal => "normal",
        Priority::High => "high",
        Priority::Critical => "critical",
    };
    Some(format!("kind {} {}, priority {priority}", kind.0, kind.name()))
}

fn lifetime(code: u64) -> Option<String> {
    let seconds = Lifetime::from_code(u8::try_from(code).ok()?)?.as_secs();
    Some(format!("{seconds} s"))
}

fn flags(bits: u64) -> Option<String> {
    let names = [(1, "retransmit"), (2, "custody declined")];
    Some(
        names.iter().filter(|(bit, _)| bits & bit != 0).map(|(_, name)| *name).collect::<Vec<_>>().join(", "),
    )
}

fn class(number: u64) -> Option<String> {
    ["control", "interactive", "bulk"].get(usize::try_from(number).ok()?).map(|name| (*name).to_owned())
}

fn capabilities(bits: u64) -> Option<String> {
    Some(Capabilities(u16::try_from(bits).ok()?).names().join(", ")).filter(|names| !names.is_empty())
}

fn suite(number: u64) -> Option<String> {
    (number == 1).then(|| "X25519, HKDF-SHA-256, ChaCha20-Poly1305".to_owned())
}

fn transfer_state(number: u64) -> Option<String> {
    Some(match TransferState::from(u8::try_from(number).ok()?) {
        TransferState::Partial => "partial".to_owned(),
        TransferState::Complete => "complete".to_owned(),
        TransferState::Rejected => "rejected".to_owned(),
        TransferState::ManifestWanted => "manifest wanted".to_owned(),
        TransferState::Other(_) => "of a newer version".to_owned(),
    })
}

fn content_type(number: u64) -> Option<String> {
    match number {
        0 => Some("content".to_owned()),
        1 => Some("manifest".to_owned()),
        _ => None,
    }
}

/// Seconds since 1970 as a date and time in UTC.
fn unix_s(seconds: u64) -> Option<String> {
    let days = i64::try_from(seconds / 86_400).ok()?;
    let of_day = seconds % 86_400;
    // Civil date from days (Gregorian, eras of 400 years beginning on 1 March).
    let shifted = days.checked_add(719_468)?;
    let era = shifted.div_euclid(146_097);
    let day_of_era = shifted.rem_euclid(146_097);
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    let year = year_of_era + era.checked_mul(400)? + i64::from(month <= 2);
    let (hour, minute, second) = (of_day / 3_600, of_day / 60 % 60, of_day % 60);
    Some(format!("{year:04}-{month:02}-{day:02} {hour:02}:{minute:02}:{second:02} UTC"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seconds_are_dates() {
        assert_eq!(unix_s(0).as_deref(), Some("1970-01-01 00:00:00 UTC"));
        assert_eq!(unix_s(951_827_696).as_deref(), Some("2000-02-29 12:34:56 UTC"));
        assert_eq!(unix_s(1_800_000_000).as_deref(), Some("2027-01-15 08:00:00 UTC"));
        assert_eq!(unix_s(u64::from(u32::MAX)).as_deref(), Some("2106-02-07 06:28:15 UTC"));
        // Whatever a peer writes there.
        assert!(unix_s(u64::MAX).is_some());
    }
}
