//! What a node is told before it starts, as typed values with units.
//!
//! One table says everything once: each key's place, type, default and explanation stand in
//! [`sections!`](self), which makes the structs, the list of valid keys and the commented
//! `config.toml`. So a key cannot exist in one of them and be missing in another.
//!
//! [`Layers`] puts flags over environment over file over defaults and remembers where each value
//! came from. What is wrong is reported all at once ([`ConfigError`]), each with line, column and
//! the nearest valid key. The environment is read nowhere else.

use std::{net::IpAddr, path::PathBuf, time::Duration};

use crate::wire::Address;

mod check;
mod error;
mod layers;
mod nearest;
pub mod ports;
mod template;
mod url;
mod value;

pub use error::{ConfigError, Place, Problem};
pub(crate) use layers::line_column;
pub use layers::{Entry, Layers, Loaded, Origin};
pub use nearest::nearest;
pub use url::{ListenUrl, ParseUrlError, PeerUrl, Scheme};
pub use value::{
    Accept, ByteSize, HealthListen, InboxAccept, LINK_THREADS_MAX, LinkThreads, LogFormat, ParseValueError,
    Preset, Role, format_duration, parse_duration,
};

use value::ConfigValue;

/// Longest lifetime of any message; receiver keys are kept until the last message for them expired.
pub const MESSAGE_LIFETIME_MAX: Duration = Duration::from_secs(14 * 24 * 3600);

/// Longest lifetime of a broadcast: it is offered again at each link-up, which must end.
pub const BROADCAST_LIFETIME_MAX: Duration = Duration::from_secs(600);

/// Port of QUIC (UDP) and TCP links where none is configured.
pub const MESH_PORT: u16 = 7410;

/// Port of the health endpoint where none is configured.
pub const HEALTH_PORT: u16 = 7411;

/// One key: where it stands, what it means, and how to read, write and compare its value.
pub(crate) struct Key {
    pub(crate) section: &'static str,
    pub(crate) name: &'static str,
    pub(crate) doc: &'static [&'static str],
    pub(crate) expected: fn() -> String,
    pub(crate) from_toml: value::FromToml,
    pub(crate) from_text: fn(&mut MeshConfig, &str) -> Result<(), String>,
    pub(crate) to_toml: fn(&MeshConfig) -> Option<String>,
}

impl Key {
    /// Name with its section, as people refer to it.
    pub(crate) fn path(&self) -> String {
        match self.section {
            "" => self.name.to_owned(),
            section => format!("{section}.{}", self.name),
        }
    }

    /// Environment variable of this key. The few that everyone uses have short names.
    pub(crate) fn env(&self) -> String {
        match (self.section, self.name) {
            ("transport", "listen") => "QPC_LISTEN".into(),
            ("transport", "peers") => "QPC_PEERS".into(),
            ("logging", "filter") => "QPC_LOG".into(),
            _ => format!("QPC_{}", self.path().replace('.', "_").to_ascii_uppercase()),
        }
    }
}

/// Makes a struct a section with defaults, [`MeshConfig`] of all sections, and the table of keys.
macro_rules! sections {
    ($(
        $(#[doc = $section_doc:literal])*
        $section:literal => $field:ident: $Section:ident {
            $( $(#[doc = $doc:literal])* $key:ident: $ty:ty = $default:expr; )*
        }
    )*) => {
        $(
            $(#[doc = $section_doc])*
            #[derive(Debug, Clone, PartialEq, Eq)]
            pub struct $Section {
                $( $(#[doc = $doc])* pub $key: $ty, )*
            }

            impl Default for $Section {
                fn default() -> Self {
                    Self { $( $key: $default, )* }
                }
            }
        )*

        /// All that a node can be told. Build one with [`Default`] or [`MeshConfig::constrained`]
        /// and change fields, or read it with [`Layers`]; [`MeshConfig::validate`] checks it.
        #[derive(Debug, Clone, PartialEq, Eq, Default)]
        pub struct MeshConfig {
            $( $(#[doc = $section_doc])* pub $field: $Section, )*
        }

        /// Sections in the order of the file, each with its explanation.
        pub(crate) static SECTIONS: &[(&str, &[&str])] = &[
            $( ($section, &[$($section_doc),*]), )*
        ];

        /// Every valid key in the order of the file.
        pub(crate) static KEYS: &[Key] = &[$($(
            Key {
                section: $section,
                name: stringify!($key),
                doc: &[$($doc),*],
                expected: <$ty as ConfigValue>::expected,
                from_toml: |config, value, problems| {
                    if let Some(read) = <$ty as ConfigValue>::from_toml(value, problems) {
                        config.$field.$key = read;
                    }
                },
                from_text: |config, text| {
                    config.$field.$key = <$ty as ConfigValue>::from_text(text)?;
                    Ok(())
                },
                to_toml: |config| ConfigValue::to_toml(&config.$field.$key),
            },
        )*)*];
    };
}

/// Port that beacons of LAN discovery go to where none is configured.
pub const DISCOVERY_PORT: u16 = 7412;

/// Packet ids that one generation of the memory against loops can hold: seven eighths of 2^20, the
/// load at which a hash table of 2^20 slots stays one.
pub const DEDUP_ENTRIES_MAX: u32 = (1 << 20) / 8 * 7;

const MIB: u64 = 1024 * 1024;
const MINUTE: u64 = 60;
const HOUR: u64 = 3600;
const DAY: u64 = 86_400;

const fn secs(s: u64) -> Duration {
    Duration::from_secs(s)
}

sections! {
    /// What all values begin from, and which network this node belongs to.
    "" => identity: IdentityConfig {
        /// What the values of keys that are not set begin from: default, constrained (small hardware or
        /// a thin link), personal (a machine that is on now and then) or relay (a server for many).
        /// `qpc config show` says what comes from it.
        preset: Preset = Preset::Default;
        /// Name of the network. Nodes of other names refuse the link.
        network: String = "public".into();
        /// File with a secret that every node of the network holds. Without one, whoever knows the
        /// name can join. A relative path is relative to the data directory.
        network_secret_file: Option<PathBuf> = None;
    }

    /// What this node tells the network about itself.
    "announce" => announce: AnnounceConfig {
        /// Time from one announce to the next.
        interval: Duration = secs(10 * MINUTE);
        /// How long others keep the route; at least twice the interval.
        lifetime: Duration = secs(30 * MINUTE);
        /// The widest ring that announces travel, in links: 1 to 128.
        max_hops: u8 = 128;
        /// What it does for others: relay (forwards), store (keeps messages for nodes that are
        /// away), gateway (has a route out of this network).
        capabilities: Vec<Role> = vec![Role::Relay, Role::Store];
        /// Tells others that its link is thin: they send it less and spare it Merkle paths.
        constrained: bool = false;
    }

    /// The routing table and the memory against loops.
    "routing" => routing: RoutingConfig {
        /// Destinations the table holds.
        routes_max: u32 = 65_536;
        /// Packet ids remembered in each of two generations, 40 bytes each; at most 917504.
        dedup_entries_max: u32 = DEDUP_ENTRIES_MAX;
        /// How far messages of this node travel, in links: 1 to 128.
        message_max_hops: u8 = 64;
    }

    /// What is kept on disk. What was accepted is never evicted: a full store refuses.
    "store" => store: StoreConfig {
        /// Own messages on their way.
        outbox_max: ByteSize = ByteSize(256 * MIB);
        /// Messages that arrived until they are taken, and files on their way in.
        inbox_max: ByteSize = ByteSize(1024 * MIB);
        /// Share of the inbox for all senders together that this node never wrote to and that are
        /// no contacts, in percent.
        inbox_strangers_percent: u8 = 10;
        /// Share of the strangers' share that those can fill who come over one neighbour, in percent.
        inbox_neighbour_percent: u8 = 50;
        /// Share of the inbox that one sender can fill, in percent; of the strangers' share where it
        /// is one of them. It holds a message of the largest size all the same.
        inbox_source_percent: u8 = 25;
        /// Share of the inbox that one contact can fill, in percent.
        inbox_contact_percent: u8 = 50;
        /// How long a message waits unseen for the one its sender sent before it, at most 10m; 0s has
        /// messages appear as they come.
        order_wait: Duration = secs(MINUTE);
        /// Messages kept for other nodes.
        mailbox_max: ByteSize = ByteSize(1024 * MIB);
        /// Share of the mailboxes that one neighbour can fill, in percent. All that connect from one
        /// address (of IPv6: from one /64) are one neighbour here and for the inbox.
        mailbox_neighbour_percent: u8 = 25;
        /// Share of the mailboxes that one sender can fill, in percent.
        mailbox_source_percent: u8 = 10;
        /// Share of the mailboxes that one destination can fill, in percent.
        mailbox_destination_percent: u8 = 5;
        /// Lifetime of a message where `send` names none; at most 14d.
        message_ttl: Duration = secs(DAY);
        /// Lifetime of a broadcast where `broadcast` names none; at most 10m.
        broadcast_ttl: Duration = secs(10 * MINUTE);
        /// What is remembered of what became of messages, for `qpc message`; 0B is nothing.
        history_max: ByteSize = ByteSize(8 * MIB);
        /// Memory of the storage engine.
        cache: ByteSize = ByteSize(16 * MIB);
    }

    /// Who may write to the person at this node. What it forwards for others is none of this; single
    /// senders are blocked with `qpc block`.
    "inbox" => inbox: InboxConfig {
        /// Whose messages enter: anyone (strangers within their share), requests (those of strangers
        /// wait for `qpc requests accept`) or contacts (strangers are refused). A stranger is no
        /// contact, was not accepted, and this node never wrote to it.
        accept: InboxAccept = InboxAccept::Anyone;
    }

    /// The keys that messages to this node are sealed to. Who gets hold of one opens what was
    /// sealed to it, so they are replaced, and destroyed when no message for them can be alive:
    /// 14 days after others may seal to them no longer.
    "crypto" => crypto: CryptoConfig {
        /// Age at which a key is replaced, 1d to 30d.
        receiver_key_rotation: Duration = secs(7 * DAY);
        /// How long others may seal to a key: at least twice the rotation, so that those who hear of
        /// the new one late can still write.
        receiver_key_sealable: Duration = secs(21 * DAY);
    }

    /// Links to other nodes.
    "transport" => transport: TransportConfig {
        /// Where to listen, as quic://HOST:PORT or tcp://HOST:PORT. With none, both on
        /// port 7410 of every address. Port 0 takes any free port.
        listen: Vec<ListenUrl> = vec![];
        /// Whose links are accepted: lan (private and link-local addresses) or any. Without a
        /// value: lan where `listen` is not set, else any.
        accept: Option<Accept> = None;
        /// Whom to dial, and to redial for ever: quic://HOST:PORT or tcp://HOST:PORT. With
        /// #ADDRESS behind it another node at that place is refused.
        peers: Vec<PeerUrl> = vec![];
        /// Links at a time. A further one takes the place of one from the address (of IPv6: the /64) that has
        /// most, or is refused where none has two more.
        links_max: u32 = 1024;
        /// Silence after which a link is asked whether it lives; at most 20s.
        keepalive: Duration = secs(15);
        /// How long dialling may take, handshake included.
        dial_timeout: Duration = secs(10);
        /// Asks the router of the local network (PCP, NAT-PMP) to pass links from outside on to this
        /// node. Whoever can reach the router's address can then try to link; set `accept = any`, or
        /// those from outside are refused. Needs a build with the feature port-mapping.
        port_mapping: bool = false;
        /// The router to ask, for unusual networks. Without a value: the default gateway of IPv4.
        port_mapping_gateway: Option<IpAddr> = None;
        /// Threads that links run on: a number up to 64, or auto. 0 has them on the thread of all
        /// else, so that a message that passes through wakes no other; auto is 0 on one or two
        /// cores, else one thread fewer than cores, at most 8.
        link_threads: LinkThreads = LinkThreads::Auto;
    }

    /// Finding nodes of the same network on the local one, by beacons that say nothing of who sends
    /// them (multicast over UDP).
    "discovery" => discovery: DiscoveryConfig {
        /// Whether to send beacons, and dial who sends them. Without a value: true where `listen` is not
        /// set and the node is not `constrained`. Listeners on loopback are never told of.
        enabled: Option<bool> = None;
        /// The port that beacons go to. All nodes that are to find each other use the same.
        port: u16 = DISCOVERY_PORT;
    }

    /// Whose links are taken and made, by the node's address, which its key proves. `qpc peer ban` adds to
    /// `deny` at run time.
    "peers" => peers: PeersConfig {
        /// With any here, only they.
        allow: Vec<Address> = vec![];
        /// Never they, whatever stands in `allow`.
        deny: Vec<Address> = vec![];
    }

    /// What others may cost.
    "rate_limit" => rate_limit: RateLimitConfig {
        /// Frames a second that one neighbour may send, over all its links. Beyond that its links
        /// are read more slowly.
        messages_per_s: u32 = 50_000;
        /// Bytes of frames a second that one neighbour may send, over all its links.
        bytes_per_s: ByteSize = ByteSize(100 * MIB);
        /// What all neighbours that connect from one address (of IPv6: from one /64) may send together, in
        /// budgets of one neighbour; at least 1.
        budgets_per_address: u32 = 4;
        /// Announces of others passed on a second, all neighbours together.
        announces_per_s: u32 = 50;
    }

    /// The health endpoint (HTTP).
    "health" => health: HealthConfig {
        /// Where it listens, as IP:PORT, or off. Port 0 takes any free port.
        listen: HealthListen = HealthListen::default();
        /// Serves /metricsz also where `listen` is not a loopback address.
        metrics: bool = false;
        /// Host names that requests may carry besides IP addresses and localhost.
        hosts: Vec<String> = vec![];
    }

    /// How long each phase of a clean stop may take.
    "drain" => drain: DrainConfig {
        /// No new work; links finish what they hold and tell peers to route around this node.
        draining: Duration = secs(10);
        /// State goes to disk.
        persisting: Duration = secs(10);
        /// Links and listeners close.
        cleanup: Duration = secs(5);
    }

    /// What is written to stderr.
    "logging" => logging: LoggingConfig {
        /// Levels by module, as error, warn, info, debug or `info,quicprochat_mesh::transport=debug`.
        filter: String = "info".into();
        /// text or json.
        format: LogFormat = LogFormat::Text;
    }
}

/// Names of the keys, as `section.name`, whose values differ, in the order of the file.
pub fn changed_keys(before: &MeshConfig, after: &MeshConfig) -> Vec<String> {
    KEYS.iter().filter(|key| (key.to_toml)(before) != (key.to_toml)(after)).map(Key::path).collect()
}

impl MeshConfig {
    /// A node on small hardware or behind a thin link: announces rarely, keeps and forwards little.
    pub fn constrained() -> Self {
        let mut config = Self::default();
        config.announce.interval = secs(HOUR);
        config.announce.lifetime = secs(24 * HOUR);
        config.announce.capabilities = vec![Role::Relay];
        config.announce.constrained = true;
        config.routing.routes_max = 1024;
        config.routing.dedup_entries_max = 1 << 13;
        config.store.outbox_max = ByteSize(16 * MIB);
        config.store.inbox_max = ByteSize(64 * MIB);
        config.store.mailbox_max = ByteSize(16 * MIB);
        config.store.history_max = ByteSize(MIB);
        config.store.cache = ByteSize(4 * MIB);
        config.discovery.enabled = Some(false);
        config.transport.links_max = 16;
        config.transport.link_threads = LinkThreads::Exactly(0);
        config.rate_limit.messages_per_s = 500;
        config.rate_limit.bytes_per_s = ByteSize(4 * MIB);
        config.rate_limit.announces_per_s = 5;
        config
    }

    /// A machine of one's own that is on now and then: it forwards and keeps nothing for others, and
    /// messages of strangers wait to be accepted.
    pub fn personal() -> Self {
        let mut config = Self::default();
        config.announce.capabilities = vec![];
        config.inbox.accept = InboxAccept::Requests;
        config.store.mailbox_max = ByteSize(16 * MIB);
        config.transport.links_max = 64;
        config
    }

    /// A server for many: takes links from anywhere and keeps much for others. Nobody reads mail there,
    /// so strangers cannot leave any.
    pub fn relay() -> Self {
        let mut config = Self::default();
        config.inbox.accept = InboxAccept::Contacts;
        config.routing.routes_max = 262_144;
        config.store.mailbox_max = ByteSize(16 * 1024 * MIB);
        config.store.cache = ByteSize(64 * MIB);
        config.transport.accept = Some(Accept::Any);
        config.transport.links_max = 8192;
        config
    }

    /// The values of a preset.
    pub fn of(preset: Preset) -> Self {
        let mut config = match preset {
            Preset::Default => Self::default(),
            Preset::Constrained => Self::constrained(),
            Preset::Personal => Self::personal(),
            Preset::Relay => Self::relay(),
        };
        config.identity.preset = preset;
        config
    }

    /// Reads a TOML document over the defaults.
    ///
    /// # Errors
    /// Every wrong key and value of it.
    pub fn from_toml(text: &str) -> Result<Self, ConfigError> {
        Layers::new().text("config.toml", text).load().map(|loaded| loaded.config)
    }

    /// All values as a TOML document, which [`MeshConfig::from_toml`] reads back.
    pub fn to_toml(&self) -> String {
        template::plain(self)
    }

    /// The commented `config.toml` that `qpc init` writes: every key with its meaning and its
    /// default, each commented out.
    pub fn commented_toml() -> String {
        template::commented()
    }

    /// Every key as a Markdown table: what it takes, its default, where [`MeshConfig::constrained`]
    /// differs, and its environment variable. What `docs/configuration.md` holds.
    pub fn markdown_table() -> String {
        template::table()
    }

    /// Checks what no single value shows: ranges and values that contradict each other.
    ///
    /// # Errors
    /// Every contradiction.
    pub fn validate(&self) -> Result<(), ConfigError> {
        let problems: Vec<Problem> = check::check(self)
            .into_iter()
            .map(|finding| Problem { place: Place::Value, message: finding.message, hint: None })
            .collect();
        if problems.is_empty() { Ok(()) } else { Err(ConfigError::Wrong { problems }) }
    }

    /// Where to listen, with the default filled in.
    pub fn listen_urls(&self) -> Vec<ListenUrl> {
        match self.transport.listen.is_empty() {
            true => Scheme::ALL.iter().map(|scheme| ListenUrl::unspecified(*scheme, MESH_PORT)).collect(),
            false => self.transport.listen.clone(),
        }
    }

    /// Whether nodes of the local network are looked for, with the default filled in.
    pub fn discovers(&self) -> bool {
        let is_plain = self.transport.listen.is_empty() && !self.announce.constrained;
        self.discovery.enabled.unwrap_or(is_plain)
    }

    /// Whose links are accepted, with the default filled in.
    pub fn accept(&self) -> Accept {
        let default = if self.transport.listen.is_empty() { Accept::Lan } else { Accept::Any };
        self.transport.accept.unwrap_or(default)
    }
}

#[cfg(test)]
mod tests;
