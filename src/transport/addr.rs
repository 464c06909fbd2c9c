//! URLs of links: `quic://HOST:PORT`, `tcp://HOST:PORT`, `mem://NAME`, each with an optional
//! `#HEX32` that pins the peer's address.

use std::{fmt, net::SocketAddr, str::FromStr};

use crate::wire::Address;

/// Why a text is no URL of a link.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AddrError {
    /// No `://`.
    #[error("`{0}` is no URL; write quic://HOST:PORT or tcp://HOST:PORT")]
    NoScheme(String),
    /// A scheme of a later version.
    #[error("`{scheme}` links are not in this build; it has {}", SCHEMES.join(", "))]
    NotBuilt {
        /// The scheme.
        scheme: String,
    },
    /// A scheme nobody knows.
    #[error("unknown scheme `{scheme}`; it can be {}", SCHEMES.join(", "))]
    UnknownScheme {
        /// The scheme.
        scheme: String,
    },
    /// Host or port is missing or wrong.
    #[error("`{url}`: {reason}")]
    HostPort {
        /// The URL.
        url: String,
        /// What is wrong.
        reason: String,
    },
    /// The pin is no address.
    #[error("`{url}`: the part after # pins a node and is its address, 32 hex digits")]
    Pin {
        /// The URL.
        url: String,
    },
}

/// Schemes this build can open.
const SCHEMES: &[&str] = &["quic", "tcp", "mem"];
/// Schemes of later versions.
const PLANNED: &[&str] = &["serial", "lora-sim"];

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Place {
    HostPort { scheme: &'static str, host: String, port: u16 },
    Mem { name: String },
}

/// Where a link leads.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TransportAddr {
    place: Place,
    pin: Option<Address>,
}

impl TransportAddr {
    /// A host (name or address, IPv6 without brackets) and a port.
    pub fn host_port(scheme: &'static str, host: impl Into<String>, port: u16) -> Self {
        Self { place: Place::HostPort { scheme, host: host.into(), port }, pin: None }
    }

    /// A socket address.
    pub fn socket(scheme: &'static str, at: SocketAddr) -> Self {
        // An IPv4 peer of a dual-stack socket is written as what it is.
        Self::host_port(scheme, at.ip().to_canonical().to_string(), at.port())
    }

    /// A name in a memory network.
    pub fn mem(name: impl Into<String>) -> Self {
        Self { place: Place::Mem { name: name.into() }, pin: None }
    }

    /// The same, pinned.
    pub fn pinned(self, pin: Address) -> Self {
        Self { pin: Some(pin), ..self }
    }

    /// `quic`, `tcp` or `mem`.
    pub fn scheme(&self) -> &'static str {
        match &self.place {
            Place::HostPort { scheme, .. } => scheme,
            Place::Mem { .. } => "mem",
        }
    }

    /// Host and port, where it has them.
    pub fn host_and_port(&self) -> Option<(&str, u16)> {
        match &self.place {
            Place::HostPort { host, port, .. } => Some((host, *port)),
            Place::Mem { .. } => None,
        }
    }

    /// Name in a memory network, where it has one.
    pub fn name(&self) -> Option<&str> {
        match &self.place {
            Place::Mem { name } => Some(name),
            Place::HostPort { .. } => None,
        }
    }

    /// The pinned address.
    pub fn pin(&self) -> Option<Address> {
        self.pin
    }

    /// True where both lead to the same place, whoever is pinned.
    pub fn same_place(&self, other: &Self) -> bool {
        self.place == other.place
    }
}

impl FromStr for TransportAddr {
    type Err = AddrError;

    fn from_str(url: &str) -> Result<Self, AddrError> {
        let (scheme, rest) = url.split_once("://").ok_or_else(|| AddrError::NoScheme(url.to_owned()))?;
        if PLANNED.contains(&scheme) {
            return Err(AddrError::NotBuilt { scheme: scheme.to_owned() });
        }
        let Some(scheme) = SCHEMES.iter().find(|s| **s == scheme) else {
            return Err(AddrError::UnknownScheme { scheme: scheme.to_owned() });
        };
        let (rest, pin) = match rest.split_once('#') {
            Some((rest, pin)) => {
                let pin = pin.parse().map_err(|_| AddrError::Pin { url: url.to_owned() })?;
                (rest, Some(pin))
            }
            None => (rest, None),
        };
        let wrong = |reason: &str| AddrError::HostPort { url: url.to_owned(), reason: reason.to_owned() };
        if *scheme == "mem" {
            if rest.is_empty() {
                return Err(wrong("the name is missing"));
            }
            return Ok(Self { place: Place::Mem { name: rest.to_owned() }, pin });
        }
        let rest = rest.strip_suffix('/').unwrap_or(rest);
        let (host, port) = match rest.strip_prefix('[') {
            Some(v6) => {
                let (host, port) = v6.split_once("]:").ok_or_else(|| wrong("write [IPv6]:PORT"))?;
                host.parse::<std::net::Ipv6Addr>().map_err(|_| wrong("no IPv6 address in the brackets"))?;
                (host, port)
            }
            None => rest.rsplit_once(':').ok_or_else(|| wrong("the port is missing"))?,
        };
        if host.is_empty() {
            return Err(wrong("the host is missing"));
        }
        if host.contains(':') && !rest.starts_with('[') {
            return Err(wrong("an IPv6 address goes in brackets"));
        }
        if host.chars().any(|c| c.is_whitespace() || c.is_control() || c == '/' || c == '@' || c == '?') {
            return Err(wrong("no host name"));
        }
        let port = port.parse().map_err(|_| wrong("the port is a number from 0 to 65535"))?;
        Ok(Self { place: Place::HostPort { scheme, host: host.to_owned(), port }, pin })
    }
}

impl fmt::Display for TransportAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.place {
            Place::HostPort { scheme, host, port } if host.contains(':') => {
                write!(f, "{scheme}://[{host}]:{port}")?;
            }
            Place::HostPort { scheme, host, port } => write!(f, "{scheme}://{host}:{port}")?,
            Place::Mem { name } => write!(f, "mem://{name}")?,
        }
        match &self.pin {
            Some(pin) => write!(f, "#{pin}"),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_round_trip() {
        for url in [
            "quic://127.0.0.1:7410",
            "tcp://[::1]:0",
            "quic://relay.example:7410#00112233445566778899aabbccddeeff",
            "mem://a",
        ] {
            assert_eq!(url.parse::<TransportAddr>().unwrap().to_string(), url);
        }
    }

    #[test]
    fn wrong_urls_say_what_is_wrong() {
        for (url, says) in [
            ("127.0.0.1:7410", "is no URL"),
            ("udp://a:1", "unknown scheme"),
            ("serial:///dev/ttyUSB0", "not in this build"),
            ("quic://a", "port is missing"),
            ("quic://a:70000", "number from 0 to 65535"),
            ("quic://::1:7410", "in brackets"),
            ("quic://[::1]", "[IPv6]:PORT"),
            ("quic://:1", "host is missing"),
            ("quic://a:1#abc", "32 hex digits"),
            ("quic://a b:1", "no host name"),
        ] {
            let error = url.parse::<TransportAddr>().unwrap_err().to_string();
            assert!(error.contains(says), "{url}: {error}");
        }
    }
}
