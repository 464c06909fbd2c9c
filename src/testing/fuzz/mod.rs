//! Fuzz targets as plain functions: a fuzzer drives them with whatever it likes, and an ordinary test
//! replays the committed corpus (`tests/fuzz_replay.rs`).
//!
//! Two kinds. A *decoder* gets bytes as a stranger or a disk would send them, and checks more than that
//! nothing panics: what is read is written back as the very bytes it was read from, or the decoder takes
//! two spellings for one message; what is accepted is within its limits. A *machine* reads its bytes as
//! a list of things that happen to a core ([`Script`]), and compares the core with a simple model of it,
//! or with what must hold at any time.

mod addresses;
mod admission;
mod beacon_decode;
mod cbor_walk;
mod config_text;
mod content_decode;
mod control_lines;
mod credit_window;
mod custodian;
mod dedup_window;
mod discovery;
mod drain_machine;
mod frame_decode;
mod inbound_payload;
mod journal_lines;
mod key_files;
mod link_machine;
mod mailboxes;
mod outbox;
mod reassembly;
mod receipt_decode;
mod router_core;
mod routing_table;
mod saved_routes;
mod script;
mod slash_text;
mod stored_records;
mod stored_rows;
mod stream_framing;
mod verify_edge;

use crate::wire::DecodeError;

pub(crate) use script::Script;

/// A target.
pub type Target = fn(&[u8]);

/// Targets whose input is bytes that come from outside or from a disk.
pub const DECODERS: [(&str, Target); 17] = [
    ("addresses", addresses::run),
    ("beacon_decode", beacon_decode::run),
    ("cbor_walk", cbor_walk::run),
    ("config_text", config_text::run),
    ("content_decode", content_decode::run),
    ("control_lines", control_lines::run),
    ("frame_decode", frame_decode::run),
    ("inbound_payload", inbound_payload::run),
    ("journal_lines", journal_lines::run),
    ("key_files", key_files::run),
    ("receipt_decode", receipt_decode::run),
    ("saved_routes", saved_routes::run),
    ("slash_text", slash_text::run),
    ("stored_records", stored_records::run),
    ("stored_rows", stored_rows::run),
    ("stream_framing", stream_framing::run),
    ("verify_edge", verify_edge::run),
];

/// Targets whose input is what happens to a core, by one of the rules of [`Script`].
pub const MACHINES: [(&str, Target); 12] = [
    ("admission", admission::run),
    ("credit_window", credit_window::run),
    ("custodian", custodian::run),
    ("dedup_window", dedup_window::run),
    ("drain_machine", drain_machine::run),
    ("link_machine", link_machine::run),
    ("mailboxes", mailboxes::run),
    ("outbox", outbox::run),
    ("reassembly", reassembly::run),
    ("router_core", router_core::run),
    ("routing_table", routing_table::run),
    // The seeds of a machine depend on those before it, so new ones come last.
    ("discovery", discovery::run),
];

/// Every target by its name.
pub fn targets() -> impl Iterator<Item = (&'static str, Target)> {
    DECODERS.into_iter().chain(MACHINES)
}

/// Runs the target of that name.
///
/// # Panics
/// Where there is none, and where the target finds a fault: that is what it is for.
pub fn run(name: &str, data: &[u8]) {
    match targets().find(|(target, _)| *target == name) {
        Some((_, target)) => target(data),
        None => panic!("there is no fuzz target {name}"),
    }
}

/// What was read is written as it was; what was refused names a place inside of it.
fn same(bytes: &[u8], written: Result<Vec<u8>, DecodeError>) {
    match written {
        Ok(written) => assert!(written == bytes, "read from {bytes:02x?}, written as {written:02x?}"),
        Err(error) => {
            assert!(error.offset().is_none_or(|at| at <= bytes.len()), "{error} in {} bytes", bytes.len());
        }
    }
}
