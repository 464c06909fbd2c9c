//! Metric names, the recorder behind them, and the log subscriber.
//!
//! **Metrics.** Every metric of the node stands in one table below: name, kind, unit, help, the
//! section of `qpc stats` it belongs to, and its labels with all the values they may take. Code
//! counts with the constants: `metrics::counter!(telemetry::FRAMES, "transport" => "quic", "direction" => "rx")`.
//! Labels never carry anything from outside (no address, no path, no peer): the set of series is
//! fixed at build time, and [`install`] starts each of them at zero, so that a rate or an alert
//! on something that has not happened yet works.
//!
//! **One recorder a process.** [`install`] sets the process-wide recorder once; more calls do
//! nothing. Several nodes in one process (a program that embeds two, most tests) therefore add up
//! in one set of numbers, as Prometheus means a process by a target. A test that needs numbers of
//! its own counts under [`isolated`] on its own thread. If the embedding program installed a
//! recorder before, that one gets our numbers and [`prometheus_text`] is empty.
//!
//! **Logs.** Spans and events use the field names `peer`, `link`, `packet_id`, `destination`,
//! `phase`, `child`, `reason` and nothing else for these things. Payloads and secrets appear at no
//! level; per-frame lines are TRACE.

use std::collections::BTreeMap;
use std::sync::OnceLock;

use metrics::{Label, Recorder, Unit};
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle, PrometheusRecorder};
use serde::ser::{Serialize, SerializeMap, Serializer};
use serde_json::{Number, Value, json};

/// One line of the table.
#[derive(Debug)]
pub struct Metric {
    /// The full name.
    pub name: &'static str,
    /// What kind of number it is.
    pub kind: MetricKind,
    /// Its unit; none for plain counts.
    pub unit: Option<Unit>,
    /// The section of `qpc stats`.
    pub section: &'static str,
    /// One sentence.
    pub help: &'static str,
    /// Labels with every value they take.
    pub labels: &'static [(&'static str, &'static [&'static str])],
}

/// The kinds of metrics.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MetricKind {
    /// Grows. The name ends in `_total`.
    Counter,
    /// Goes up and down.
    Gauge,
    /// A distribution. Its buckets follow from the unit that its name ends in.
    Histogram,
}

macro_rules! metrics_table {
    ($($constant:ident = $name:literal, $kind:ident, $unit:expr, $section:literal, $help:literal, [$($label:literal: $values:expr),*];)+) => {
        $(#[doc = $help] pub const $constant: &str = $name;)+
        /// Every metric of the node.
        pub const TABLE: &[Metric] = &[$(Metric {
            name: $name,
            kind: MetricKind::$kind,
            unit: $unit,
            section: $section,
            help: $help,
            labels: &[$(($label, $values)),*],
        }),+];
    };
}

const TRANSPORT: &[&str] = &["quic", "tcp", "mem", "other"];
const DIRECTION: &[&str] = &["tx", "rx"];
const DECODE: &[&str] = &["malformed", "not_canonical", "too_large", "unknown_frame"];
const VERIFY: &[&str] = &[
    "reserved_source",
    "own_source",
    "reserved_destination",
    "broadcast_kind",
    "broadcast_lifetime",
    "weak_key",
    "foreign_key",
    "bad_signature",
    "malformed",
    "merkle_path",
    "foreign_key_record",
];
const DROPPED: &[&str] = &["duplicate", "expired", "hop_limit", "no_route", "unsent", "busy", "loop"];
const ANNOUNCE: &[&str] = &["tx", "rx", "refused", "stale"];
const PATHS_EVENTS: &[&str] = &[
    "search",
    "search_failed",
    "search_refused",
    "request_rx",
    "request_tx",
    "request_repeated",
    "request_over_budget",
    "reply_rx",
    "reply_tx",
    "withdrawn",
    "withdrawn_foreign",
    "withdraw_over_budget",
    "withdraw_tx",
    "digest_rx",
    "digest_tx",
    "digest_ignored",
];
const CLOSED: &[&str] = &[
    "shutdown",
    "duplicate",
    "network_mismatch",
    "version_mismatch",
    "not_allowed",
    "protocol_error",
    "unresponsive",
    "rate_limited",
    "removed",
    "too_many_links",
    "other",
];
const MAILBOX: &[&str] =
    &["router", "store", "health", "rate_limiter", "transport", "delivery", "maintenance"];
const ACTOR: &[&str] = &[
    "store",
    "router",
    "delivery",
    "rate_limiter",
    "health",
    "maintenance",
    "transport",
    "listener",
    "link",
    "links",
    "dialler",
    "discovery",
    "port_mapping",
    "http",
    "store watch",
    "program",
];
const FAULTS: &[&str] = &[
    "own_identity",
    "network_tag",
    "network_secret",
    "version",
    "hello_timeout",
    "before_hello",
    "second_hello",
    "undecodable",
    "odd_frames",
    "peer_silent",
    "too_many_faults",
    "credit_overrun",
    "credit_zero",
    "credit_overflow",
    "credit_foreign",
];
const INBOUND: &[&str] = &[
    "decode",
    "seal",
    "key_record",
    "unknown_kind",
    "too_many_files",
    "misfit_chunk",
    "store_busy",
    "probe_budget",
    "inbox_full",
    "inbox_neighbour",
    "inbox_source",
    "inbox_strangers",
    "store_failed",
    "quarantined",
    "seal_budget",
    "unwanted",
];
const BEACONS: &[&str] = &["malformed", "own", "foreign", "source_budget", "budget", "full"];
const LISTENER: &[&str] = &["tcp", "http", "control"];
const OUTCOME: &[&str] = &["delivered", "expired", "failed", "cancelled"];

metrics_table! {
    LINKS = "qpc_links", Gauge, None, "transports", "Links that are up.", ["transport": TRANSPORT];
    LINKS_CLOSED = "qpc_links_closed_total", Counter, None, "transports", "Links that ended, by reason.", ["reason": CLOSED];
    FRAMES = "qpc_link_frames_total", Counter, None, "transports", "Link frames sent and received.", ["transport": TRANSPORT, "direction": DIRECTION];
    BYTES = "qpc_link_bytes_total", Counter, Some(Unit::Bytes), "transports", "Bytes of link frames sent and received.", ["transport": TRANSPORT, "direction": DIRECTION];
    HANDSHAKES_FAILED = "qpc_link_handshake_failures_total", Counter, None, "transports", "Inbound connections that never became links.", ["transport": TRANSPORT];
    ACCEPT_ERRORS = "qpc_accept_errors_total", Counter, None, "transports", "Connections that could not be accepted, for want of file descriptors mostly.", ["listener": LISTENER];
    TURNED_AWAY = "qpc_connections_turned_away_total", Counter, None, "transports", "Connections closed unheard, so that file descriptors are left for the store.", ["listener": LISTENER];
    DIALS_FAILED = "qpc_link_dial_failures_total", Counter, None, "transports", "Dials that led to no link.", [];
    LINK_FAULTS = "qpc_link_faults_total", Counter, None, "transports", "Faults of links and their peers, by kind.", ["reason": FAULTS];
    BEACONS_SENT = "qpc_discovery_beacons_sent_total", Counter, None, "transports", "Beacons called into local networks, one an interface and family.", [];
    BEACONS_HEARD = "qpc_discovery_beacons_heard_total", Counter, None, "transports", "Beacons of this network's other nodes.", [];
    BEACONS_IGNORED = "qpc_discovery_beacons_ignored_total", Counter, None, "transports", "Datagrams that came to the port of beacons and changed nothing, by reason.", ["reason": BEACONS];
    DISCOVERY_DIALS = "qpc_discovery_dials_total", Counter, None, "transports", "Dials of nodes that beacons told of.", [];
    LINKS_REFUSED = "qpc_links_refused_total", Counter, None, "transports", "Connections that were not let in, by reason.", ["reason": &["too_many", "not_lan", "not_started", "faults", "banned"]];
    CONTROL_DROPPED = "qpc_link_control_dropped_total", Counter, None, "transports", "Control frames that a full link did not take.", [];
    LINK_RTT = "qpc_link_rtt_seconds", Histogram, Some(Unit::Seconds), "transports", "Round trips of keepalives.", [];

    DECODE_ERRORS = "qpc_decode_errors_total", Counter, None, "crypto", "Frames that did not decode.", ["reason": DECODE];
    VERIFY_FAILURES = "qpc_verify_failures_total", Counter, None, "crypto", "Envelopes and announces that did not verify.", ["reason": VERIFY];
    VERIFIED = "qpc_verified_total", Counter, None, "crypto", "Signatures of envelopes that were checked and held; one for many where a source batches.", [];
    OPEN_FAILURES = "qpc_open_failures_total", Counter, None, "crypto", "Sealed payloads that could not be opened.", [];

    FORWARDED = "qpc_envelopes_forwarded_total", Counter, None, "routing", "Envelopes passed on to a next hop.", [];
    DELIVERED = "qpc_envelopes_delivered_total", Counter, None, "routing", "Envelopes whose destination is this node.", [];
    ENVELOPES_DROPPED = "qpc_envelopes_dropped_total", Counter, None, "routing", "Envelopes that went no further, by reason.", ["reason": DROPPED];
    DEDUP_HITS = "qpc_dedup_hits_total", Counter, None, "routing", "Envelopes seen before.", [];
    ROUTES = "qpc_routes", Gauge, None, "routing", "Destinations with a usable route.", [];
    ANNOUNCES = "qpc_announces_total", Counter, None, "routing", "Announces sent, accepted and refused.", ["outcome": ANNOUNCE];
    PATHS = "qpc_path_events_total", Counter, None, "routing", "Searches for paths, withdrawals and digests.", ["event": PATHS_EVENTS];
    REROUTED = "qpc_rerouted_total", Counter, None, "routing", "Envelopes that a next hop refused and that went another way.", [];
    PROBES = "qpc_route_probes_total", Counter, None, "routing", "Envelopes that went over another way than the best, to measure it.", [];
    ORIGINS_EVICTED = "qpc_origins_evicted_total", Counter, None, "routing", "Unused origins that gave way to others in the routing table.", [];
    KEY_NEEDED = "qpc_key_requests_total", Counter, None, "routing", "Keys asked of a neighbour for a held envelope.", [];

    KEYS_NEVER_CAME = "qpc_key_requests_unanswered_total", Counter, None, "routing", "Envelopes dropped because the neighbour did not answer with their source's key.", [];

    OUTBOX = "qpc_outbox_messages", Gauge, None, "store", "Own messages without a final receipt.", [];
    INBOX = "qpc_inbox_messages", Gauge, None, "store", "Messages nobody has taken yet.", [];
    INBOX_EARLY = "qpc_inbox_early", Gauge, None, "store", "Messages that wait for the one that their sender sent before.", [];
    HELD = "qpc_held_messages", Gauge, None, "store", "Messages kept for others.", [];
    HELD_BYTES = "qpc_held_bytes", Gauge, Some(Unit::Bytes), "store", "Bytes kept for others.", [];
    COMMIT_SECONDS = "qpc_store_commit_seconds", Histogram, Some(Unit::Seconds), "store", "Time of one synced commit.", [];
    COMMIT_BATCH = "qpc_store_commit_batch_operations", Histogram, Some(Unit::Count), "store", "Operations in one commit.", [];
    STORE_REFUSED = "qpc_store_refused_total", Counter, None, "store", "Messages refused at admission.", ["reason": &["full", "quota", "disk"]];

    HANDED_ON = "qpc_held_handed_on_total", Counter, None, "store", "Messages kept for others that were handed on.", [];
    HELD_EXPIRED = "qpc_held_expired_total", Counter, None, "store", "Messages kept for others whose time ran out.", [];

    MESSAGES_SENT = "qpc_messages_accepted_total", Counter, None, "delivery", "Own messages that are safe in the outbox.", [];
    MESSAGES_ENDED = "qpc_messages_ended_total", Counter, None, "delivery", "Own messages by how they ended.", ["outcome": OUTCOME];
    MESSAGES_RECEIVED = "qpc_messages_received_total", Counter, None, "delivery", "Messages put into the inbox.", [];
    INBOX_DUPLICATES = "qpc_inbox_duplicates_total", Counter, None, "delivery", "Messages that arrived again and were receipted again.", [];
    INBOUND_REFUSED = "qpc_inbound_refused_total", Counter, None, "delivery", "Envelopes for this node that came to nothing.", ["reason": INBOUND];
    ROWS_DAMAGED = "qpc_delivery_rows_damaged_total", Counter, None, "delivery", "Rows of an earlier start that could not be read.", ["kind": &["outbox", "partial"]];
    RECEIPTS_SENT = "qpc_receipts_sent_total", Counter, None, "delivery", "Receipts made.", [];
    HISTORY_DROPPED = "qpc_history_dropped_total", Counter, None, "delivery", "Events that the history of messages lacks: the disk was full or slow.", [];
    DELIVERY_SECONDS = "qpc_delivery_seconds", Histogram, Some(Unit::Seconds), "delivery", "From acceptance to the receipt.", [];

    RATE_LIMITED = "qpc_rate_limited_total", Counter, None, "rate_limits", "Envelopes beyond a budget.", ["budget": &["data", "announce", "failed_verification", "control", "critical"]];
    SHED = "qpc_shed_total", Counter, None, "rate_limits", "Envelopes refused because the node is too pressed, by priority.", ["priority": &["low", "normal", "high", "critical"]];
    PRESSURE_LEVEL = "qpc_pressure_level", Gauge, None, "rate_limits", "How pressed the node is: 0 calm, to 3.", [];

    ACTOR_RESTARTS = "qpc_actor_restarts_total", Counter, None, "actors", "Restarts of supervised actors and tasks.", ["actor": ACTOR];
    QUARANTINED = "qpc_quarantined_total", Counter, None, "actors", "Messages that felled a part of the node and were set aside instead of being tried again, by where.", ["where": &["router", "delivery", "outbox", "partial", "store", "route"]];
    MAILBOX_DROPPED = "qpc_mailbox_dropped_total", Counter, None, "actors", "Gossip dropped because a mailbox was full.", ["mailbox": MAILBOX];
    DRAIN_PHASE = "qpc_drain_phase", Gauge, None, "actors", "0 when not draining, then 1 draining, 2 persisting, 3 cleanup.", [];
    UP = "qpc_up", Gauge, None, "actors", "1 while the process runs.", [];

    HTTP_REQUESTS = "qpc_http_requests_total", Counter, None, "http", "Requests of the health port, by class of status.", ["status": &["2xx", "4xx", "5xx"]];
    HTTP_CUT = "qpc_http_connections_cut_total", Counter, None, "http", "Connections of the health port cut off.", ["reason": &["slow", "crowded"]];
}

/// Seconds from a tenth of a millisecond (a fast disk) to a minute (a radio link).
const BUCKETS_SECONDS: [f64; 13] =
    [0.0001, 0.0003, 0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 60.0];

/// Operations of a commit: powers of two up to what one batch takes.
const BUCKETS_OPERATIONS: [f64; 11] = [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0, 1024.0];

/// Why telemetry could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum TelemetryError {
    /// Another recorder was installed in this process before.
    #[error(
        "another metrics recorder is installed in this process: it gets the numbers, and the metrics page stays empty"
    )]
    RecorderTaken,
    /// The filter does not parse.
    #[error(
        "cannot use the log filter `{filter}`: {reason}; write for example `info` or `warn,quicprochat_mesh=debug`"
    )]
    Filter {
        /// What was given.
        filter: String,
        /// What is wrong with it.
        reason: String,
    },
    /// Another subscriber was installed in this process before.
    #[error("another log subscriber is installed in this process: it gets the events")]
    SubscriberTaken,
}

static HANDLE: OnceLock<Option<PrometheusHandle>> = OnceLock::new();

/// Installs the recorder of this process and starts every series at zero. May be called by every
/// node of a process; the first call does the work.
///
/// # Errors
/// [`TelemetryError::RecorderTaken`], each time; the node works all the same.
pub fn install() -> Result<(), TelemetryError> {
    let handle = HANDLE.get_or_init(|| {
        let recorder = recorder();
        let handle = recorder.handle();
        metrics::set_global_recorder(recorder).ok()?;
        metrics::with_recorder(|recorder| begin(recorder));
        Some(handle)
    });
    handle.as_ref().map(|_| ()).ok_or(TelemetryError::RecorderTaken)
}

/// All metrics in Prometheus' text format; empty before [`install`].
pub fn prometheus_text() -> String {
    installed().map(PrometheusHandle::render).unwrap_or_default()
}

/// All metrics as values; empty before [`install`].
pub fn snapshot() -> MetricsSnapshot {
    MetricsSnapshot::parse(&prometheus_text())
}

/// The metrics of this process, as a handle: all nodes of a process count into the same numbers.
///
/// ```
/// let metrics = quicprochat_mesh::MeshMetrics::install()?;
/// let sent = metrics.snapshot().sum(quicprochat_mesh::telemetry::MESSAGES_SENT);
/// assert!(metrics.prometheus_text().contains("qpc_messages_accepted_total"));
/// # let _ = sent;
/// # Ok::<(), quicprochat_mesh::telemetry::TelemetryError>(())
/// ```
#[derive(Debug, Clone, Copy)]
pub struct MeshMetrics(());

impl MeshMetrics {
    /// [`install`], and the handle to what it installed.
    ///
    /// # Errors
    /// [`TelemetryError::RecorderTaken`] where another recorder gets the numbers.
    pub fn install() -> Result<Self, TelemetryError> {
        install().map(|()| Self(()))
    }

    /// All metrics as values.
    pub fn snapshot(&self) -> MetricsSnapshot {
        snapshot()
    }

    /// All metrics in Prometheus' text format, for a page of the program's own.
    pub fn prometheus_text(&self) -> String {
        prometheus_text()
    }
}

/// Periodic upkeep: moves histogram samples from their buffers into buckets. Call it every few
/// seconds, or the buffers grow until the next scrape.
pub fn run_upkeep() {
    if let Some(handle) = installed() {
        handle.run_upkeep();
    }
}

/// Runs `body` with a recorder of its own and returns what was counted in it. For tests: covers
/// the calling thread only, and only while `body` runs.
pub fn isolated<T>(body: impl FnOnce() -> T) -> (T, MetricsSnapshot) {
    let recorder = recorder();
    begin(&recorder);
    let value = metrics::with_local_recorder(&recorder, body);
    (value, MetricsSnapshot::parse(&recorder.handle().render()))
}

fn installed() -> Option<&'static PrometheusHandle> {
    HANDLE.get().and_then(Option::as_ref)
}

fn recorder() -> PrometheusRecorder {
    let builder = PrometheusBuilder::new()
        .set_buckets_for_metric(Matcher::Suffix("_seconds".to_owned()), &BUCKETS_SECONDS)
        .and_then(|builder| {
            builder.set_buckets_for_metric(Matcher::Suffix("_operations".to_owned()), &BUCKETS_OPERATIONS)
        })
        .expect("the bucket lists are constants and not empty");
    builder.build_recorder()
}

/// Describes and registers everything in the table.
fn begin(recorder: &dyn Recorder) {
    metrics::with_local_recorder(&recorder, || {
        for metric in TABLE {
            metric.describe();
            for labels in metric.series() {
                metric.touch(labels);
            }
        }
        metrics::gauge!(UP).set(1.0);
    });
}

impl Metric {
    fn describe(&self) {
        let unit = self.unit.unwrap_or(Unit::Count);
        match self.kind {
            MetricKind::Counter => metrics::describe_counter!(self.name, unit, self.help),
            MetricKind::Gauge => metrics::describe_gauge!(self.name, unit, self.help),
            MetricKind::Histogram => metrics::describe_histogram!(self.name, unit, self.help),
        }
    }

    fn touch(&self, labels: Vec<Label>) {
        match self.kind {
            MetricKind::Counter => metrics::counter!(self.name, labels).increment(0),
            MetricKind::Gauge => metrics::gauge!(self.name, labels).increment(0.0),
            MetricKind::Histogram => drop(metrics::histogram!(self.name, labels)),
        }
    }

    /// Every combination of label values.
    fn series(&self) -> Vec<Vec<Label>> {
        let mut series = vec![Vec::new()];
        for (label, values) in self.labels {
            series = series
                .iter()
                .flat_map(|so_far| {
                    values.iter().map(move |value| {
                        let mut labels = so_far.clone();
                        labels.push(Label::from_static_parts(label, value));
                        labels
                    })
                })
                .collect();
        }
        series
    }
}

/// The metrics at one moment. Serialises as `qpc stats --json`: sections of metrics (names
/// without `qpc_`), each a number, or numbers by label values joined with `/`, or
/// `{"count","sum"}` for a histogram.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct MetricsSnapshot {
    samples: Vec<Sample>,
}

#[derive(Debug, Clone, PartialEq)]
struct Sample {
    /// As in the text: a histogram has `_count` and `_sum`; its buckets are left out.
    name: String,
    labels: Vec<(String, String)>,
    value: f64,
}

impl MetricsSnapshot {
    /// The value of one series; labels in any order. None when it does not exist.
    pub fn value(&self, name: &str, labels: &[(&str, &str)]) -> Option<f64> {
        let found = self.samples.iter().find(|sample| sample.name == name && sample.has_exactly(labels));
        found.map(|sample| sample.value)
    }

    /// The sum over all series of a metric.
    pub fn sum(&self, name: &str) -> f64 {
        self.samples.iter().filter(|sample| sample.name == name).map(|sample| sample.value).sum()
    }

    /// Reads what the recorder renders. Its only other reader is Prometheus, so lines that do not
    /// look like samples (comments, buckets) are skipped.
    fn parse(text: &str) -> Self {
        Self { samples: text.lines().filter_map(Sample::parse).collect() }
    }

    fn shown(&self, metric: &Metric) -> Value {
        if metric.kind == MetricKind::Histogram {
            let part = |suffix: &str| number(self.sum(&format!("{}{suffix}", metric.name)));
            return json!({ "count": part("_count"), "sum": part("_sum") });
        }
        if metric.labels.is_empty() {
            return number(self.sum(metric.name));
        }
        let samples = self.samples.iter().filter(|sample| sample.name == metric.name);
        samples
            .map(|sample| (sample.key(metric), number(sample.value)))
            .collect::<serde_json::Map<_, _>>()
            .into()
    }
}

impl Serialize for MetricsSnapshot {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut sections: BTreeMap<&str, BTreeMap<&str, Value>> = BTreeMap::new();
        for metric in TABLE {
            let name = metric.name.strip_prefix("qpc_").unwrap_or(metric.name);
            sections.entry(metric.section).or_default().insert(name, self.shown(metric));
        }
        let mut map = serializer.serialize_map(Some(sections.len()))?;
        for (section, metrics) in &sections {
            map.serialize_entry(section, metrics)?;
        }
        map.end()
    }
}

impl Sample {
    fn parse(line: &str) -> Option<Self> {
        if line.starts_with('#') {
            return None;
        }
        let (series, value) = line.rsplit_once(' ')?;
        let (name, labels) = match series.split_once('{') {
            Some((name, rest)) => (name, rest.strip_suffix('}')?),
            None => (series, ""),
        };
        if name.ends_with("_bucket") {
            return None;
        }
        let label = |pair: &str| {
            let (key, value) = pair.split_once('=')?;
            Some((key.to_owned(), value.trim_matches('"').to_owned()))
        };
        let labels = labels.split(',').filter_map(label).collect();
        Some(Self { name: name.to_owned(), labels, value: value.parse().ok()? })
    }

    fn has_exactly(&self, labels: &[(&str, &str)]) -> bool {
        self.labels.len() == labels.len()
            && labels.iter().all(|(key, value)| self.labels.iter().any(|(k, v)| k == key && v == value))
    }

    fn key(&self, metric: &Metric) -> String {
        let value_of =
            |label: &str| self.labels.iter().find(|(key, _)| key == label).map(|(_, value)| &**value);
        metric.labels.iter().filter_map(|(label, _)| value_of(label)).collect::<Vec<_>>().join("/")
    }
}

/// Whole numbers stay whole in JSON. Beyond 2^53 a double has no units left to lose.
fn number(value: f64) -> Value {
    let whole = value.fract() == 0.0 && value.abs() < 9.0e15;
    if whole { Value::from(value as i64) } else { Number::from_f64(value).map_or(Value::Null, Value::Number) }
}

#[cfg(feature = "cli")]
pub(crate) use logging::parse as parse_filter;
#[cfg(feature = "cli")]
pub use logging::{LogFormat, LogHandle, init_logging};

#[cfg(feature = "cli")]
mod logging {
    use std::fmt;

    use tracing_subscriber::layer::SubscriberExt;
    use tracing_subscriber::util::SubscriberInitExt;
    use tracing_subscriber::{Layer, Registry, filter::Targets, reload};

    use super::TelemetryError;

    /// How log lines look.
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    pub enum LogFormat {
        /// For people.
        Text,
        /// One JSON object a line.
        Json,
    }

    /// Changes the filter of a running program.
    #[derive(Clone)]
    pub struct LogHandle(reload::Handle<Targets, Registry>);

    impl LogHandle {
        /// From now on log what `filter` lets through.
        ///
        /// # Errors
        /// [`TelemetryError::Filter`]; the old filter stays.
        pub fn set_filter(&self, filter: &str) -> Result<(), TelemetryError> {
            let refused = |reason: String| TelemetryError::Filter { filter: filter.to_owned(), reason };
            self.0.reload(parse(filter)?).map_err(|error| refused(error.to_string()))
        }
    }

    impl fmt::Debug for LogHandle {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("LogHandle")
        }
    }

    /// Sends log lines that pass `filter` (`info`, `warn,quicprochat_mesh=debug`) to stderr.
    /// Colours only on a terminal, since control characters in a file help nobody.
    ///
    /// # Errors
    /// [`TelemetryError::Filter`] and [`TelemetryError::SubscriberTaken`].
    pub fn init_logging(format: LogFormat, filter: &str) -> Result<LogHandle, TelemetryError> {
        let (filter, handle) = reload::Layer::new(parse(filter)?);
        let lines = tracing_subscriber::fmt::layer().with_writer(std::io::stderr);
        let lines = match format {
            LogFormat::Text => {
                let terminal = std::io::IsTerminal::is_terminal(&std::io::stderr());
                lines.with_ansi(terminal).boxed()
            }
            LogFormat::Json => lines.json().flatten_event(true).boxed(),
        };
        let subscriber = tracing_subscriber::registry().with(filter).with(lines);
        subscriber.try_init().map_err(|_| TelemetryError::SubscriberTaken)?;
        Ok(LogHandle(handle))
    }

    /// Reads levels by module. Spans and fields are no part of it: what reads those brings a regular
    /// expression engine along.
    pub(crate) fn parse(filter: &str) -> Result<Targets, TelemetryError> {
        filter.parse().map_err(|error: tracing_subscriber::filter::ParseError| {
            let (filter, reason) = (filter.to_owned(), error.to_string());
            TelemetryError::Filter { filter, reason }
        })
    }

    #[cfg(test)]
    mod tests {
        use super::*;

        #[test]
        fn a_filter_that_does_not_parse_is_named_with_an_example() {
            let error = parse("quicprochat_mesh=loud").expect_err("no such level").to_string();
            assert!(error.contains("quicprochat_mesh=loud") && error.contains("for example"), "{error}");
            assert!(parse("warn,quicprochat_mesh=debug").is_ok());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_follow_the_conventions_of_prometheus() {
        for metric in TABLE {
            let name = metric.name;
            assert!(name.starts_with("qpc_"), "{name}");
            assert!(name.bytes().all(|b| b.is_ascii_lowercase() || b == b'_'), "{name}");
            assert_eq!(name.ends_with("_total"), metric.kind == MetricKind::Counter, "{name}");
            assert!(metric.help.ends_with('.'), "{name}");
            assert!(metric.series().len() <= 16, "{name} has too many series");
        }
        let mut names: Vec<_> = TABLE.iter().map(|metric| metric.name).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), TABLE.len(), "no name twice");
    }

    #[test]
    fn every_series_starts_at_zero_and_counts() {
        let ((), snapshot) = isolated(|| {
            metrics::counter!(FRAMES, "transport" => "quic", "direction" => "rx").increment(3);
            metrics::gauge!(ROUTES).set(7.0);
            metrics::histogram!(COMMIT_SECONDS).record(0.25);
        });
        let frames = |transport, direction| {
            snapshot.value(FRAMES, &[("transport", transport), ("direction", direction)])
        };
        assert_eq!(frames("quic", "rx"), Some(3.0));
        assert_eq!(frames("tcp", "tx"), Some(0.0));
        assert_eq!(frames("pigeon", "tx"), None);
        assert_eq!(snapshot.value(ROUTES, &[]), Some(7.0));
        assert_eq!(snapshot.value("qpc_store_commit_seconds_count", &[]), Some(1.0));
        assert_eq!(snapshot.sum(FRAMES), 3.0);
        for metric in TABLE.iter().filter(|metric| metric.kind != MetricKind::Histogram) {
            let series = snapshot.samples.iter().filter(|sample| sample.name == metric.name).count();
            assert_eq!(series, metric.series().len(), "{}", metric.name);
        }
    }

    #[test]
    fn the_snapshot_is_an_object_of_sections() {
        let ((), snapshot) = isolated(|| {
            metrics::counter!(FRAMES, "transport" => "quic", "direction" => "rx").increment(3);
            metrics::histogram!(COMMIT_SECONDS).record(0.25);
        });
        let json = serde_json::to_value(&snapshot).expect("plain values");
        assert_eq!(json["transports"]["link_frames_total"]["quic/rx"], 3);
        assert_eq!(json["store"]["store_commit_seconds"], json!({"count": 1, "sum": 0.25}));
        assert_eq!(json["actors"]["up"], 1);
        for section in ["transports", "routing", "store", "crypto", "rate_limits", "actors"] {
            assert!(json[section].is_object(), "{section}");
        }
    }

    #[test]
    fn the_recorder_is_installed_once_for_all_nodes_of_a_process() {
        install().expect("no other recorder in this test binary");
        install().expect("a second node changes nothing");
        metrics::counter!(DEDUP_HITS).increment(2);
        assert!(snapshot().sum(DEDUP_HITS) >= 2.0);
        let text = prometheus_text();
        assert!(text.contains("# TYPE qpc_up gauge\n"), "{text}");
        assert!(text.contains("# HELP qpc_store_commit_seconds Time of one synced commit.\n"), "{text}");
    }
}
