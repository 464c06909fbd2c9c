//! Ranges, and values that contradict each other.

use std::{collections::BTreeSet, fmt::Display, time::Duration};

use super::{
    BROADCAST_LIFETIME_MAX, DEDUP_ENTRIES_MAX, HealthListen, LINK_THREADS_MAX, LinkThreads,
    MESSAGE_LIFETIME_MAX, MeshConfig, Scheme, format_duration,
};
use crate::wire::limits::{CONTENT_BYTES_MAX, MAX_HOPS_MAX};

/// Receiver keys alive at a time; the store of secrets holds four more, for records outgrown.
const RECEIVER_KEYS_MAX: u32 = 12;

/// One contradiction, laid at one key's door.
pub(crate) struct Finding {
    pub(crate) key: &'static str,
    pub(crate) message: String,
}

/// Everything that is wrong with a configuration whose values are each readable.
pub(crate) fn check(config: &MeshConfig) -> Vec<Finding> {
    let mut findings = Findings(Vec::new());
    ranges(config, &mut findings);
    durations(config, &mut findings);
    addresses(config, &mut findings);
    findings.0
}

struct Findings(Vec<Finding>);

impl Findings {
    fn say(&mut self, key: &'static str, message: impl Display) {
        self.0.push(Finding { key, message: format!("{key}: {message}") });
    }

    fn range<T: PartialOrd + Display>(&mut self, key: &'static str, value: T, least: T, most: T) {
        if value < least || value > most {
            self.say(key, format!("{value} is out of range, {least} to {most}"));
        }
    }

    fn time(&mut self, key: &'static str, value: Duration, least: Duration, most: Duration) {
        if value < least || value > most {
            let [value, least, most] = [value, least, most].map(format_duration);
            self.say(key, format!("{value} is out of range, {least} to {most}"));
        }
    }
}

fn ranges(c: &MeshConfig, findings: &mut Findings) {
    let name = &c.identity.network;
    if name.is_empty() || name.len() > 64 || name.trim() != name || name.chars().any(char::is_control) {
        findings.say("network", "a name has 1 to 64 bytes, no control characters and no space at its ends");
    }
    findings.range("announce.max_hops", c.announce.max_hops, 1, MAX_HOPS_MAX);
    findings.range("routing.message_max_hops", c.routing.message_max_hops, 1, MAX_HOPS_MAX);
    findings.range("routing.routes_max", c.routing.routes_max, 16, 1 << 24);
    findings.range("routing.dedup_entries_max", c.routing.dedup_entries_max, 256, DEDUP_ENTRIES_MAX);
    findings.range("store.mailbox_neighbour_percent", c.store.mailbox_neighbour_percent, 1, 100);
    findings.range("store.mailbox_source_percent", c.store.mailbox_source_percent, 1, 100);
    findings.range("store.mailbox_destination_percent", c.store.mailbox_destination_percent, 1, 100);
    findings.range("store.inbox_strangers_percent", c.store.inbox_strangers_percent, 0, 100);
    findings.range("store.inbox_neighbour_percent", c.store.inbox_neighbour_percent, 1, 100);
    findings.range("store.inbox_source_percent", c.store.inbox_source_percent, 1, 100);
    findings.range("store.inbox_contact_percent", c.store.inbox_contact_percent, 1, 100);
    findings.range("transport.links_max", c.transport.links_max, 1, 1 << 20);
    if let LinkThreads::Exactly(threads) = c.transport.link_threads {
        findings.range("transport.link_threads", threads, 0, LINK_THREADS_MAX);
    }
    findings.range("rate_limit.messages_per_s", c.rate_limit.messages_per_s, 1, u32::MAX);
    let bytes_per_s = c.rate_limit.bytes_per_s;
    // Between the largest frame a second and what no link carries.
    findings.range(
        "rate_limit.bytes_per_s",
        bytes_per_s,
        super::ByteSize(16 << 10),
        super::ByteSize(1 << 50),
    );
    findings.range("rate_limit.budgets_per_address", c.rate_limit.budgets_per_address, 1, u32::MAX);
    findings.range("rate_limit.announces_per_s", c.rate_limit.announces_per_s, 1, u32::MAX);
    // What reads the filter comes with the command line; a program that embeds the node logs its own way.
    #[cfg(feature = "cli")]
    if let Err(error) = crate::telemetry::parse_filter(&c.logging.filter) {
        findings.say("logging.filter", error);
    }
    // What holds one message at all must be able to hold the largest one.
    let largest = super::ByteSize(CONTENT_BYTES_MAX);
    for (key, value) in [("store.outbox_max", c.store.outbox_max), ("store.inbox_max", c.store.inbox_max)] {
        if value < largest {
            findings.say(key, format!("{value} does not hold one message of {largest}"));
        }
    }
    // Each of its two files holds some hundred entries at least.
    if (1..128 * 1024).contains(&c.store.history_max.0) {
        findings.say("store.history_max", format!("{} is less than 128KiB, and not 0B", c.store.history_max));
    }
    if c.store.cache.0 < 64 * 1024 {
        findings.say("store.cache", format!("{} is less than 64KiB, a few pages", c.store.cache));
    }
}

fn durations(c: &MeshConfig, findings: &mut Findings) {
    let ms = Duration::from_millis;
    let day = Duration::from_secs(86_400);
    findings.time("announce.interval", c.announce.interval, ms(100), day);
    findings.time("announce.lifetime", c.announce.lifetime, ms(200), day);
    if c.announce.lifetime < c.announce.interval.saturating_mul(2) {
        findings.say(
            "announce.lifetime",
            format!(
                "{} is less than twice announce.interval ({}): one lost announce would lose the route",
                format_duration(c.announce.lifetime),
                format_duration(c.announce.interval)
            ),
        );
    }
    findings.time("store.order_wait", c.store.order_wait, ms(0), ms(600_000));
    findings.time("store.message_ttl", c.store.message_ttl, ms(10_000), MESSAGE_LIFETIME_MAX);
    findings.time("store.broadcast_ttl", c.store.broadcast_ttl, ms(10_000), BROADCAST_LIFETIME_MAX);
    let c_keys = &c.crypto;
    findings.time("crypto.receiver_key_rotation", c_keys.receiver_key_rotation, day, day * 30);
    findings.time("crypto.receiver_key_sealable", c_keys.receiver_key_sealable, day * 2, day * 90);
    if c_keys.receiver_key_sealable < c_keys.receiver_key_rotation.saturating_mul(2) {
        findings.say(
            "crypto.receiver_key_sealable",
            format!(
                "{} is less than twice crypto.receiver_key_rotation ({})",
                format_duration(c_keys.receiver_key_sealable),
                format_duration(c_keys.receiver_key_rotation)
            ),
        );
    }
    let lives = c_keys.receiver_key_sealable.saturating_add(MESSAGE_LIFETIME_MAX);
    if lives > c_keys.receiver_key_rotation.saturating_mul(RECEIVER_KEYS_MAX) {
        findings.say(
            "crypto.receiver_key_rotation",
            format!(
                "{} keeps more than {RECEIVER_KEYS_MAX} keys alive at a time (each lives {}): rotate less \
                 often, or shorten crypto.receiver_key_sealable",
                format_duration(c_keys.receiver_key_rotation),
                format_duration(lives)
            ),
        );
    }
    findings.time("transport.keepalive", c.transport.keepalive, ms(100), ms(20_000));
    findings.time("transport.dial_timeout", c.transport.dial_timeout, ms(100), ms(120_000));
    let deadline_max = Duration::from_secs(600);
    findings.time("drain.draining", c.drain.draining, ms(0), deadline_max);
    findings.time("drain.persisting", c.drain.persisting, ms(1000), deadline_max);
    findings.time("drain.cleanup", c.drain.cleanup, ms(100), deadline_max);
}

fn addresses(c: &MeshConfig, findings: &mut Findings) {
    let mut seen = BTreeSet::new();
    for url in &c.transport.listen {
        if url.port != 0 && !seen.insert(url) {
            findings.say("transport.listen", format!("{url} is listed twice"));
        }
    }
    if c.discovery.port == 0 {
        findings.say("discovery.port", "0 is no port: all nodes have to use the same");
    }
    for (key, list) in [("peers.allow", &c.peers.allow), ("peers.deny", &c.peers.deny)] {
        let mut seen = BTreeSet::new();
        for address in list {
            if !seen.insert(address) {
                findings.say(key, format!("{address} is listed twice"));
            }
        }
    }
    if let Some(both) = c.peers.allow.iter().find(|address| c.peers.deny.contains(address)) {
        findings.say("peers.allow", format!("{both} stands in peers.deny too: remove it from one of them"));
    }
    let mut dialled = BTreeSet::new();
    for url in &c.transport.peers {
        if !dialled.insert((url.scheme, &url.host, url.port)) {
            findings.say("transport.peers", format!("{url} is listed twice"));
        }
    }
    if let HealthListen::At(health) = c.health.listen {
        let clash = c.listen_urls().into_iter().find(|url| {
            let same_host = url.host.parse().is_ok_and(|ip: std::net::IpAddr| {
                ip == health.ip() || ip.is_unspecified() || health.ip().is_unspecified()
            });
            url.scheme == Scheme::Tcp && url.port != 0 && url.port == health.port() && same_host
        });
        if let Some(url) = clash {
            findings.say(
                "health.listen",
                format!("{health} and {url} want the same TCP port: give one of them another"),
            );
        }
    }
}
