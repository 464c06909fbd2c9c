//! What a node bounds and no key changes, for `docs/configuration.md`.

use std::fmt::Write;

use super::constants::{Value, value};

/// How a value is written.
#[derive(Clone, Copy)]
enum Shown {
    /// A number, or a time where the constant is one.
    Plain,
    Bytes,
    Seconds,
    Milliseconds,
    KiB,
    Percent,
}
use Shown::{Bytes, KiB, Milliseconds, Percent, Plain, Seconds};

/// What is bounded, the file and the constant, and how it is written; by heading.
type Row = (&'static str, &'static str, &'static str, Shown);

const LIMITS: &[(&str, &[Row])] = &[
    (
        "Messages",
        &[
            ("Largest content of a message or file", "wire/limits.rs", "CONTENT_BYTES_MAX", Bytes),
            (
                "Content that travels in one envelope, at most",
                "wire/limits.rs",
                "INLINE_CONTENT_BYTES_MAX",
                Bytes,
            ),
            ("Name of a file", "wire/limits.rs", "FILE_NAME_BYTES_MAX", Bytes),
            ("Lifetime of a message, at most", "config/mod.rs", "MESSAGE_LIFETIME_MAX", Plain),
            ("Lifetime of a broadcast, at most", "config/mod.rs", "BROADCAST_LIFETIME_MAX", Plain),
            ("Payload of a broadcast or envelope", "wire/limits.rs", "PAYLOAD_BYTES_MAX", Bytes),
            ("Links that anything may cross", "wire/limits.rs", "MAX_HOPS_MAX", Plain),
            (
                "Custodians that a message has at a time",
                "proto/delivery/outbox/custody.rs",
                "CUSTODIANS_MAX",
                Plain,
            ),
            (
                "A message in custody is sent again after, at least",
                "proto/delivery/outbox/custody.rs",
                "CUSTODY_RETRY_MIN",
                Plain,
            ),
            (
                "A refused message is tried again after, at most",
                "proto/delivery/outbox/refusals.rs",
                "REFUSED_RETRY_MAX",
                Plain,
            ),
            ("A receipt is gathered with others for", "proto/delivery/receipts.rs", "GATHER_FOR", Plain),
            (
                "Messages that wait for an earlier one, of one sender",
                "proto/delivery/turns.rs",
                "OF_SOURCE_MAX",
                Plain,
            ),
            ("Messages that wait for an earlier one, in all", "proto/delivery/turns.rs", "ALL_MAX", Plain),
        ],
    ),
    (
        "Files on their way in",
        &[
            ("All together", "proto/delivery/transfer.rs", "PARTIAL_BYTES_MAX", Bytes),
            ("From one sender, at a time", "proto/delivery/transfer.rs", "PARTIALS_PER_SOURCE", Plain),
            ("From all strangers, at a time", "proto/delivery/transfer.rs", "STRANGERS_PARTIALS", Plain),
            ("From all strangers together", "proto/delivery/transfer.rs", "STRANGERS_BYTES_MAX", Bytes),
            ("Forgotten without news after", "proto/delivery/transfer.rs", "PARTIAL_IDLE_S", Seconds),
        ],
    ),
    (
        "Keys",
        &[
            (
                "A receiver key is kept after others may seal to it no longer",
                "crypto/receiver.rs",
                "KEPT_AFTER_S",
                Seconds,
            ),
            ("Receiver keys a node keeps", "crypto/receiver.rs", "SECRETS_MAX", Plain),
            ("Messages sealed with one ephemeral key", "crypto/seal.rs", "SESSION_MESSAGES_MAX", Plain),
            ("Age of an ephemeral key", "crypto/seal.rs", "SESSION_AGE_MAX", Plain),
            (
                "Seals that do not open, of one neighbour, at once",
                "proto/delivery/seal_budget.rs",
                "FAILURES_BURST",
                Plain,
            ),
            (
                "Seals that do not open, of one neighbour, a second",
                "proto/delivery/seal_budget.rs",
                "FAILURES_PER_S",
                Plain,
            ),
        ],
    ),
    (
        "Links",
        &[
            ("Frame", "wire/limits.rs", "FRAME_BYTES_MAX", Bytes),
            ("Time to say hello", "proto/link.rs", "HELLO_TIMEOUT", Plain),
            ("Frames before the hello was accepted", "wire/limits.rs", "HANDSHAKE_FRAMES_MAX", Plain),
            ("Queue of each class of a link", "proto/egress.rs", "CLASS_BYTES_MAX", Bytes),
            (
                "Queues of all links, at which all is refused but control",
                "proto/pressure.rs",
                "QUEUED_BYTES_FULL",
                Bytes,
            ),
            ("Frames of a link that are in hand", "actors/link_io.rs", "IN_FLIGHT_MAX", Plain),
            ("A neighbour that was cut is kept out for, at most", "proto/kept_out.rs", "LONGEST", Plain),
            (
                "A peer that refused this node is dialled again after",
                "actors/links/dialler.rs",
                "REFUSED_PAUSE",
                Plain,
            ),
            ("Time for a link's goodbye", "actors/transport.rs", "CLOSE_WITHIN", Plain),
            ("QUIC handshakes under way", "transport/quic.rs", "INCOMING_MAX", Plain),
        ],
    ),
    (
        "Routes",
        &[
            ("Next hops of a destination", "proto/table.rs", "NEXT_HOPS_MAX", Plain),
            (
                "Share of the table that one neighbour can fill",
                "proto/table/shares.rs",
                "SHARE_PERCENT",
                Percent,
            ),
            ("The same in its first five minutes", "proto/table/shares.rs", "YOUNG_SHARE_PERCENT", Percent),
            (
                "A route without a new announce, of a node that is not constrained",
                "proto/table.rs",
                "ROUTE_AGE_MAX",
                Plain,
            ),
            ("What was heard of an origin is remembered for", "proto/table.rs", "ORDER_MEMORY", Plain),
            ("Destinations whose delivery is measured", "proto/ranking.rs", "FLOWS_MAX", Plain),
            ("Searches for a path at a time", "proto/router/paths.rs", "SEARCHES_MAX", Plain),
            (
                "A path that was not found is looked for again after, at first",
                "proto/router/paths.rs",
                "FAILED_FOR",
                Plain,
            ),
            ("The same, at most", "proto/router/paths.rs", "FAILED_FOR_MAX", Plain),
            ("Path requests of a link, a second", "proto/router/links.rs", "PATH_REQUESTS_PER_SECOND", Plain),
            ("A lost route is withdrawn after", "proto/router/withdraw.rs", "FLAP_HOLD", Plain),
            ("Packets kept for another way, in all", "proto/router/kept.rs", "KEPT_BYTES_MAX", Bytes),
            (
                "Announces and key records of strangers looked at, a second, in all",
                "proto/verify/share.rs",
                "POOL_PER_S",
                Plain,
            ),
            ("The same of one neighbour", "proto/lease.rs", "CHECKS_PER_S", Plain),
            (
                "Signatures that fail, of one neighbour, at once: each costs 20 of",
                "proto/lease.rs",
                "FAULT_BURST",
                Plain,
            ),
        ],
    ),
    (
        "Custody",
        &[
            ("Hand-overs under way to one destination", "proto/custody.rs", "WINDOW_BYTES_MAX", Bytes),
            ("Hand-overs under way, in all", "proto/custody.rs", "WINDOWS_BYTES_MAX", Bytes),
            (
                "What each held message counts beside its bytes",
                "storage/quota.rs",
                "HELD_ROW_OVERHEAD_BYTES",
                Bytes,
            ),
        ],
    ),
    (
        "Health endpoint and control socket",
        &[
            ("Connections of the health endpoint", "http/mod.rs", "CONNECTIONS_MAX", Plain),
            ("Head of a request", "http/mod.rs", "HEAD_BYTES_MAX", Bytes),
            ("Time for a request", "http/mod.rs", "PATIENCE", Plain),
            ("Programs on the control socket at a time", "control/server.rs", "CLIENTS_MAX", Plain),
            ("Messages under way to one `recv`", "node/taking.rs", "WINDOW_KIB", KiB),
            ("Name of a contact", "api/target.rs", "CONTACT_NAME_BYTES_MAX", Bytes),
            ("Shortest prefix of an address", "api/target.rs", "PREFIX_DIGITS_MIN", Plain),
        ],
    ),
    (
        "Faults",
        &[
            ("Falls over one message, after which it is set aside", "proto/suspects.rs", "FALLS_MAX", Plain),
            ("Silence of a part after which it counts as failed", "proto/health.rs", "STALE_AFTER", Plain),
            (
                "Size of the store up to which every start verifies all of it",
                "storage/embedded/mod.rs",
                "VERIFIED_BYTES_MAX",
                Bytes,
            ),
            ("Difference at which a clock is not believed", "proto/node_clock.rs", "TOLERANCE_S", Seconds),
            ("Neighbours that confirm a clock", "proto/node_clock.rs", "QUORUM", Plain),
            ("Longest pause of an accept loop without file descriptors", "accept.rs", "PAUSE_MAX", Plain),
            ("A measured way counts as fresh for", "proto/ranking/flow.rs", "FRESH_MS", Milliseconds),
        ],
    ),
];

/// All of it as Markdown.
pub fn markdown() -> String {
    let mut out = String::new();
    for (heading, rows) in LIMITS {
        let _ = writeln!(out, "\n| {heading} | | constant |\n|---|---|---|");
        for (what, file, name, shown) in *rows {
            let _ = writeln!(out, "| {what} | {} | `{name}` in `{file}` |", text(&value(file, name), *shown));
        }
    }
    out.push('\n');
    out
}

fn text(value: &Value, shown: Shown) -> String {
    const SECOND: u128 = 1_000_000_000;
    match shown {
        _ if value.is_time => time(value.number),
        Plain => with_commas(value.number),
        Seconds => time(value.number * SECOND),
        Milliseconds => time(value.number * SECOND / 1000),
        KiB => bytes(value.number * 1024),
        Bytes => bytes(value.number),
        Percent => format!("{} %", value.number),
    }
}

fn time(nanos: u128) -> String {
    let units =
        [("d", 86_400_000_000_000), ("h", 3_600_000_000_000), ("min", 60_000_000_000), ("s", 1_000_000_000)];
    let whole = units.iter().find(|(_, unit)| nanos >= *unit && nanos.is_multiple_of(*unit));
    whole.map_or_else(
        || format!("{} ms", nanos / 1_000_000),
        |(name, unit)| format!("{} {name}", nanos / unit),
    )
}

fn bytes(number: u128) -> String {
    let units = [("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)];
    let whole = units.iter().find(|(_, unit)| number >= *unit && number.is_multiple_of(*unit));
    whole.map_or_else(
        || format!("{} B", with_commas(number)),
        |(name, unit)| format!("{} {name}", number / unit),
    )
}

fn with_commas(number: u128) -> String {
    let digits = number.to_string();
    let mut out = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}
