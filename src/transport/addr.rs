//! Where a node can be reached: the URLs of `--listen`, `--peer` and the configuration.
//!
//! `quic://HOST:PORT`, `tcp://HOST:PORT` (IPv6 in brackets) and `mem://NAME`, each with an optional
//! `#HEX32` that pins the peer's [`Address`]. Names are kept as names: they are resolved at each
//! dial, so a peer that moves is found again.

use std::{
    fmt,
    net::{IpAddr, Ipv6Addr, SocketAddr},
    str::FromStr,
};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use crate::wire::{
    Address,
    ids::{ParseIdError, unhex},
};

/// Longest host name (RFC 1035).
const HOST_BYTES_MAX: usize = 253;

/// Longest name on a memory or custom medium.
const NAME_BYTES_MAX: usize = 128;

/// Schemes that later parts of this project add.
const PLANNED: [&str; 2] = ["serial", "lora-sim"];

/// QUIC over UDP.
pub const QUIC: &str = "quic";
/// TLS over TCP.
pub const TCP: &str = "tcp";
/// A medium inside one process.
pub const MEM: &str = "mem";
/// A shared medium inside one process.
pub const MEM_SHARED: &str = "mem-shared";

/// Where on a medium.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Target {
    /// An IP address and port, with the scope of a link-local one.
    Socket(SocketAddr),
    /// A host name, lower case, and port.
    Host {
        /// The name.
        name: String,
        /// The port.
        port: u16,
    },
    /// A name on a medium without hosts.
    Name(String),
}

/// A URL of the mesh: a medium, a place on it, and perhaps who has to be there.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TransportAddr {
    scheme: &'static str,
    target: Target,
    pin: Option<Address>,
}

/// True for private, link-local and loopback addresses.
pub fn is_near(ip: IpAddr) -> bool {
    match ip.to_canonical() {
        IpAddr::V4(v4) => v4.is_private() || v4.is_loopback() || v4.is_link_local(),
        IpAddr::V6(v6) => v6.is_loopback() || v6.is_unique_local() || v6.is_unicast_link_local(),
    }
}

/// What one party usually commands: an IPv4 address, or 64 bits of an IPv6 one.
pub fn party_of(ip: IpAddr) -> IpAddr {
    match ip.to_canonical() {
        IpAddr::V4(v4) => v4.into(),
        IpAddr::V6(v6) => Ipv6Addr::from_bits(v6.to_bits() & (u128::MAX << 64)).into(),
    }
}

impl TransportAddr {
    /// `scheme` at an IP address.
    pub fn socket(scheme: &'static str, at: SocketAddr) -> Self {
        Self { scheme, target: Target::Socket(without_flow(at)), pin: None }
    }

    /// `mem://name`.
    ///
    /// # Errors
    /// [`AddrError::Name`].
    pub fn mem(name: &str) -> Result<Self, AddrError> {
        Self::named(MEM, name)
    }

    /// A name on a medium without hosts.
    ///
    /// # Errors
    /// [`AddrError::Name`] unless `name` is 1 to 128 visible ASCII characters without `#`.
    pub fn named(scheme: &'static str, name: &str) -> Result<Self, AddrError> {
        Ok(Self { scheme, target: parse_name(name)?, pin: None })
    }

    /// Parses a URL whose scheme may also be one of `more`.
    ///
    /// # Errors
    /// [`AddrError`] with what is wrong with it.
    pub fn parse_with(text: &str, more: &[&'static str]) -> Result<Self, AddrError> {
        let (scheme, rest) =
            text.split_once("://").ok_or_else(|| AddrError::NoScheme { text: shown(text) })?;
        let scheme = parse_scheme(scheme, more)?;
        let (place, pin) = match rest.split_once('#') {
            Some((place, pin)) => (place, Some(parse_pin(pin)?)),
            None => (rest, None),
        };
        let target = if has_host(scheme) { parse_host_port(place)? } else { parse_name(place)? };
        Ok(Self { scheme, target, pin })
    }

    /// The medium's name in front of `://`.
    pub fn scheme(&self) -> &'static str {
        self.scheme
    }

    /// The place.
    pub fn target(&self) -> &Target {
        &self.target
    }

    /// The address the peer has to have, if it is pinned.
    pub fn pin(&self) -> Option<&Address> {
        self.pin.as_ref()
    }

    /// The same place pinned to `pin`, or to nobody.
    pub fn with_pin(mut self, pin: Option<Address>) -> Self {
        self.pin = pin;
        self
    }

    /// True for the same place on the same medium, whoever has to be there.
    pub fn same_place(&self, other: &Self) -> bool {
        self.scheme == other.scheme && self.target == other.target
    }

    /// The IP address, where it is one.
    pub fn socket_addr(&self) -> Option<SocketAddr> {
        match self.target {
            Target::Socket(at) => Some(at),
            Target::Host { .. } | Target::Name(_) => None,
        }
    }

    /// The name on a medium without hosts, where it is one.
    pub fn name(&self) -> Option<&str> {
        match &self.target {
            Target::Name(name) => Some(name),
            Target::Socket(_) | Target::Host { .. } => None,
        }
    }
}

impl fmt::Display for TransportAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://", self.scheme)?;
        match &self.target {
            Target::Socket(at) => write!(f, "{at}")?,
            Target::Host { name, port } => write!(f, "{name}:{port}")?,
            Target::Name(name) => f.write_str(name)?,
        }
        self.pin.as_ref().map_or(Ok(()), |pin| write!(f, "#{pin}"))
    }
}

impl fmt::Debug for TransportAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

impl FromStr for TransportAddr {
    type Err = AddrError;

    fn from_str(text: &str) -> Result<Self, AddrError> {
        Self::parse_with(text, &[])
    }
}

impl Serialize for TransportAddr {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for TransportAddr {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        String::deserialize(d)?.parse().map_err(de::Error::custom)
    }
}

/// Why a text is not a URL of the mesh.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AddrError {
    /// Nothing in front of `://`.
    #[error("{text:?} is no URL; write quic://HOST:PORT or tcp://HOST:PORT")]
    NoScheme {
        /// The text.
        text: String,
    },
    /// A scheme that no part of this project knows.
    #[error("unknown scheme {scheme:?}; known are quic and tcp")]
    UnknownScheme {
        /// The scheme.
        scheme: String,
    },
    /// A scheme of a part that this build does not have.
    #[error("{scheme}:// is not in this build; quic:// and tcp:// are")]
    NotInThisBuild {
        /// The scheme.
        scheme: String,
    },
    /// No port, or not a number up to 65535.
    #[error("{text:?} has no valid port; write HOST:PORT, and an IPv6 address as [ADDRESS]:PORT")]
    Port {
        /// What stands in its place.
        text: String,
    },
    /// Not a host name or address.
    #[error("{text:?} is not a host name or an address; write IPv6 addresses in brackets")]
    Host {
        /// What stands in its place.
        text: String,
    },
    /// Not a name on a medium without hosts.
    #[error("{text:?} is not a name; 1 to {NAME_BYTES_MAX} visible ASCII characters without `#` are")]
    Name {
        /// What stands in its place.
        text: String,
    },
    /// The part behind `#` is no address.
    #[error("the pin behind `#` is not a node's address: {0}")]
    Pin(ParseIdError),
}

fn parse_scheme(scheme: &str, more: &[&'static str]) -> Result<&'static str, AddrError> {
    let known = [QUIC, TCP, MEM, MEM_SHARED];
    if let Some(found) = known.iter().chain(more).find(|known| **known == scheme) {
        return Ok(found);
    }
    let scheme = shown(scheme);
    Err(if PLANNED.contains(&scheme.as_str()) {
        AddrError::NotInThisBuild { scheme }
    } else {
        AddrError::UnknownScheme { scheme }
    })
}

fn has_host(scheme: &str) -> bool {
    scheme == QUIC || scheme == TCP
}

fn parse_pin(text: &str) -> Result<Address, AddrError> {
    unhex(text).map(Address).map_err(AddrError::Pin)
}

fn parse_host_port(text: &str) -> Result<Target, AddrError> {
    if let Ok(at) = text.parse() {
        return Ok(Target::Socket(without_flow(at)));
    }
    let port_error = || AddrError::Port { text: shown(text) };
    let host_error = || AddrError::Host { text: shown(text) };
    let (name, port) = text.rsplit_once(':').ok_or_else(port_error)?;
    if name.contains([':', '[', ']']) {
        return Err(host_error());
    }
    // `parse` alone would take a sign.
    if port.is_empty() || !port.bytes().all(|b| b.is_ascii_digit()) {
        return Err(port_error());
    }
    let port = port.parse().map_err(|_| port_error())?;
    if !is_host_name(name) {
        return Err(host_error());
    }
    Ok(Target::Host { name: name.to_ascii_lowercase(), port })
}

/// Letters, digits, hyphens and underscores in labels of 1 to 63, the last not all digits, so that
/// a mistyped IPv4 address is not looked up as a name.
fn is_host_name(name: &str) -> bool {
    let labels = name.strip_suffix('.').unwrap_or(name);
    let is_label = |label: &str| {
        (1..=63).contains(&label.len())
            && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    let last_is_number =
        labels.rsplit('.').next().is_some_and(|last| last.bytes().all(|b| b.is_ascii_digit()));
    name.len() <= HOST_BYTES_MAX && labels.split('.').all(is_label) && !last_is_number
}

fn parse_name(text: &str) -> Result<Target, AddrError> {
    let fits = (1..=NAME_BYTES_MAX).contains(&text.len());
    let visible = text.bytes().all(|b| b.is_ascii_graphic() && b != b'#');
    (fits && visible)
        .then(|| Target::Name(text.to_owned()))
        .ok_or_else(|| AddrError::Name { text: shown(text) })
}

/// Flow labels say nothing about a place and have no spelling in a URL.
fn without_flow(at: SocketAddr) -> SocketAddr {
    match at {
        SocketAddr::V6(mut v6) => {
            v6.set_flowinfo(0);
            v6.into()
        }
        SocketAddr::V4(_) => at,
    }
}

/// Enough of a text for a person to recognise it in an error.
fn shown(text: &str) -> String {
    text.chars().take(80).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[track_caller]
    fn check(text: &str, printed: &str) {
        assert_eq!(text.parse::<TransportAddr>().map(|a| a.to_string()), Ok(printed.to_owned()));
    }

    #[track_caller]
    fn refused(text: &str) -> AddrError {
        text.parse::<TransportAddr>().expect_err(text)
    }

    #[test]
    fn urls_of_the_manual_parse() {
        check("quic://relay.example.org:7410", "quic://relay.example.org:7410");
        check("tcp://192.0.2.7:443", "tcp://192.0.2.7:443");
        check("quic://[2001:db8::1]:7410", "quic://[2001:db8::1]:7410");
        check("quic://[::]:0", "quic://[::]:0");
        check("tcp://[fe80::1%3]:7410", "tcp://[fe80::1%3]:7410");
        check("mem://alice", "mem://alice");
        check("quic://Relay.Example.org.:1", "quic://relay.example.org.:1");
        let pin = "00112233445566778899aabbccddeeff";
        check(&format!("tcp://localhost:1#{pin}"), &format!("tcp://localhost:1#{pin}"));
    }

    #[test]
    fn suffixes_of_one_network_are_one_party() {
        let party = |text: &str| party_of(text.parse().unwrap());
        assert_eq!(party("2001:db8::1"), party("2001:db8::ffff:2"));
        assert_ne!(party("2001:db8::1"), party("2001:db8:0:1::1"));
        assert_eq!(party("::ffff:192.0.2.1"), party("192.0.2.1"));
        assert_ne!(party("192.0.2.1"), party("192.0.2.2"));
    }

    #[test]
    fn faults_are_named() {
        assert!(matches!(refused("relay:7410"), AddrError::NoScheme { .. }));
        assert!(matches!(refused("http://a:1"), AddrError::UnknownScheme { .. }));
        assert!(matches!(refused("serial:///dev/ttyUSB0?sf=7"), AddrError::NotInThisBuild { .. }));
        assert!(matches!(refused("lora-sim://127.0.0.1:9"), AddrError::NotInThisBuild { .. }));
        assert!(matches!(refused("quic://relay"), AddrError::Port { .. }));
        assert!(matches!(refused("quic://relay:"), AddrError::Port { .. }));
        assert!(matches!(refused("quic://relay:+1"), AddrError::Port { .. }));
        assert!(matches!(refused("quic://relay:65536"), AddrError::Port { .. }));
        assert!(matches!(refused("quic://2001:db8::1:7410"), AddrError::Host { .. }));
        assert!(matches!(refused("quic://300.1.1.1:7410"), AddrError::Host { .. }));
        assert!(matches!(refused("quic://:7410"), AddrError::Host { .. }));
        assert!(matches!(refused("quic://a b:7410"), AddrError::Host { .. }));
        assert!(matches!(refused("mem://"), AddrError::Name { .. }));
        assert!(matches!(refused("tcp://a:1#1234"), AddrError::Pin(_)));
        assert!(matches!(refused("tcp://a:1#"), AddrError::Pin(_)));
    }

    #[test]
    fn a_transport_of_ones_own_has_a_scheme_of_its_own() {
        let at = TransportAddr::named("pigeon", "loft-3").unwrap();
        assert_eq!(TransportAddr::parse_with("pigeon://loft-3", &["pigeon"]), Ok(at));
        assert!(matches!(refused("pigeon://loft-3"), AddrError::UnknownScheme { .. }));
    }

    #[test]
    fn a_pin_does_not_make_another_place() {
        let [plain, pinned] = ["tcp://a:1", "tcp://a:1#00112233445566778899aabbccddeeff"]
            .map(|url| url.parse::<TransportAddr>().unwrap());
        assert!(plain.same_place(&pinned) && plain != pinned);
        assert!(!plain.same_place(&"quic://a:1".parse().unwrap()));
    }

    fn target() -> impl Strategy<Value = (&'static str, Target)> {
        let host = prop_oneof![Just(QUIC), Just(TCP)];
        let v4 = any::<([u8; 4], u16)>().prop_map(|(ip, port)| Target::Socket((ip, port).into()));
        let v6 = any::<([u16; 8], u16, u32)>().prop_map(|(ip, port, scope)| {
            Target::Socket(std::net::SocketAddrV6::new(ip.into(), port, 0, scope).into())
        });
        let name = ("[a-z]([a-z0-9_]{0,20})(\\.[a-z][a-z0-9]{0,9}){0,3}", any::<u16>())
            .prop_map(|(name, port)| Target::Host { name, port });
        prop_oneof![
            (host, prop_oneof![v4, v6, name]),
            ("[!-\"$-~]{1,128}").prop_map(|name| (MEM, Target::Name(name))),
        ]
    }

    proptest! {
        #[test]
        fn what_is_printed_parses_to_the_same((scheme, target) in target(), pin in any::<Option<[u8; 16]>>()) {
            let addr = TransportAddr { scheme, target, pin: pin.map(Address) };
            prop_assert_eq!(addr.to_string().parse(), Ok(addr));
        }

        #[test]
        fn no_text_panics(text in "(quic|tcp|mem)://\\PC{0,40}") {
            if let Ok(addr) = text.parse::<TransportAddr>() {
                prop_assert_eq!(addr.to_string().parse(), Ok(addr));
            }
        }
    }
}
