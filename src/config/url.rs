//! URLs of listeners and peers: `quic://HOST:PORT`, `tcp://HOST:PORT`, `quic://HOST:PORT#ADDRESS`.

use std::{fmt, net::Ipv6Addr, str::FromStr};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use crate::wire::Address;

/// How bytes travel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Scheme {
    /// QUIC over UDP.
    Quic,
    /// TLS over TCP.
    Tcp,
}

impl Scheme {
    /// Every scheme, the preferred one first.
    pub const ALL: [Scheme; 2] = [Self::Quic, Self::Tcp];

    /// The word before `://`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Quic => "quic",
            Self::Tcp => "tcp",
        }
    }
}

/// Why a text is no URL of this kind.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ParseUrlError {
    /// No `://`, or another scheme in front of it.
    #[error("{text:?} does not begin with quic:// or tcp://")]
    Scheme {
        /// The text given.
        text: String,
    },
    /// No port, or one that is no number up to 65535.
    #[error("{text:?} has no port: write quic://HOST:PORT")]
    Port {
        /// The text given.
        text: String,
    },
    /// Port 0 where a peer is to be dialled.
    #[error("{text:?} has port 0, where nobody can be dialled")]
    PortZero {
        /// The text given.
        text: String,
    },
    /// No host, characters that no host has, or an IPv6 address without brackets.
    #[error("{text:?} has no valid host: write a name, an IPv4 address, or an IPv6 address in [brackets]")]
    Host {
        /// The text given.
        text: String,
    },
    /// What follows `#` is no address.
    #[error("{text:?}: what follows # is the peer's address, 32 hex digits ({why})")]
    Pin {
        /// The text given.
        text: String,
        /// What is wrong with it.
        why: String,
    },
    /// A `#` where nothing can be pinned.
    #[error("{text:?}: only peers are pinned with #ADDRESS, a listener is not")]
    PinnedListener {
        /// The text given.
        text: String,
    },
}

/// Where to listen.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ListenUrl {
    /// How.
    pub scheme: Scheme,
    /// IP address (IPv6 without brackets) or name.
    pub host: String,
    /// UDP port for QUIC, TCP port for TCP; 0 for any free one.
    pub port: u16,
}

/// Whom to dial.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PeerUrl {
    /// How.
    pub scheme: Scheme,
    /// IP address (IPv6 without brackets) or name, resolved again at each dial.
    pub host: String,
    /// UDP port for QUIC, TCP port for TCP.
    pub port: u16,
    /// The only identity accepted there.
    pub pin: Option<Address>,
}

impl ListenUrl {
    /// `scheme://[::]:port`, all interfaces.
    pub fn unspecified(scheme: Scheme, port: u16) -> Self {
        Self { scheme, host: "::".into(), port }
    }
}

/// Splits scheme, host and port; `text` is the whole for messages.
fn split(text: &str, rest: &str) -> Result<(Scheme, String, u16), ParseUrlError> {
    let owned = || text.to_owned();
    let (scheme, rest) = Scheme::ALL
        .into_iter()
        .find_map(|s| rest.strip_prefix(s.as_str())?.strip_prefix("://").map(|rest| (s, rest)))
        .ok_or_else(|| ParseUrlError::Scheme { text: owned() })?;
    let rest = rest.strip_suffix('/').unwrap_or(rest);
    let (host, port) = match rest.strip_prefix('[') {
        Some(bracketed) => {
            let (host, tail) =
                bracketed.split_once(']').ok_or_else(|| ParseUrlError::Host { text: owned() })?;
            // A zone such as fe80::1%eth0 is part of the address to bind or dial.
            let address = host.split_once('%').map_or(host, |(address, _)| address);
            address.parse::<Ipv6Addr>().map_err(|_| ParseUrlError::Host { text: owned() })?;
            (host, tail.strip_prefix(':').ok_or_else(|| ParseUrlError::Port { text: owned() })?)
        }
        None => rest.rsplit_once(':').ok_or_else(|| ParseUrlError::Port { text: owned() })?,
    };
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
    if !rest.starts_with('[') && (host.is_empty() || host.len() > 253 || !host.chars().all(plain)) {
        return Err(ParseUrlError::Host { text: owned() });
    }
    if port.is_empty() || !port.bytes().all(|b| b.is_ascii_digit()) {
        return Err(ParseUrlError::Port { text: owned() });
    }
    let port = port.parse().map_err(|_| ParseUrlError::Port { text: owned() })?;
    Ok((scheme, host.to_owned(), port))
}

impl FromStr for ListenUrl {
    type Err = ParseUrlError;

    fn from_str(text: &str) -> Result<Self, ParseUrlError> {
        if text.contains('#') {
            return Err(ParseUrlError::PinnedListener { text: text.to_owned() });
        }
        let (scheme, host, port) = split(text, text)?;
        Ok(Self { scheme, host, port })
    }
}

impl FromStr for PeerUrl {
    type Err = ParseUrlError;

    fn from_str(text: &str) -> Result<Self, ParseUrlError> {
        let (rest, pin) = match text.split_once('#') {
            Some((rest, pin)) => (rest, Some(pin)),
            None => (text, None),
        };
        let (scheme, host, port) = split(text, rest)?;
        if port == 0 {
            return Err(ParseUrlError::PortZero { text: text.to_owned() });
        }
        let pin_error = |why: String| ParseUrlError::Pin { text: text.to_owned(), why };
        let pin = pin.map(|pin| pin.parse::<Address>().map_err(|e| pin_error(e.to_string()))).transpose()?;
        if pin.is_some_and(|p| p.is_reserved()) {
            return Err(pin_error("that address is reserved".into()));
        }
        Ok(Self { scheme, host, port, pin })
    }
}

fn write_authority(f: &mut fmt::Formatter<'_>, scheme: Scheme, host: &str, port: u16) -> fmt::Result {
    match host.contains(':') {
        true => write!(f, "{}://[{host}]:{port}", scheme.as_str()),
        false => write!(f, "{}://{host}:{port}", scheme.as_str()),
    }
}

impl fmt::Display for ListenUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_authority(f, self.scheme, &self.host, self.port)
    }
}

impl fmt::Display for PeerUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_authority(f, self.scheme, &self.host, self.port)?;
        match self.pin {
            Some(pin) => write!(f, "#{pin}"),
            None => Ok(()),
        }
    }
}

macro_rules! serde_as_text {
    ($($ty:ty),*) => {$(
        impl Serialize for $ty {
            fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
                s.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $ty {
            fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
                String::deserialize(d)?.parse().map_err(de::Error::custom)
            }
        }
    )*};
}

serde_as_text!(ListenUrl, PeerUrl);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_round_trip() {
        for text in [
            "quic://[::]:7410",
            "tcp://127.0.0.1:0",
            "quic://relay.example.org:443",
            "tcp://[fe80::1%eth0]:1",
        ] {
            assert_eq!(text.parse::<ListenUrl>().unwrap().to_string(), text);
        }
        let pinned = format!("tcp://[::1]:7410#{}", Address([7; 16]));
        let peer: PeerUrl = pinned.parse().unwrap();
        assert_eq!((peer.pin, peer.to_string()), (Some(Address([7; 16])), pinned));
    }

    #[test]
    fn each_fault_is_named() {
        use ParseUrlError::*;
        let peer = |text: &str| text.parse::<PeerUrl>().unwrap_err();
        assert!(matches!(peer("udp://h:1"), Scheme { .. }));
        assert!(matches!(peer("h:1"), Scheme { .. }));
        assert!(matches!(peer("quic://h"), Port { .. }));
        assert!(matches!(peer("quic://h:"), Port { .. }));
        assert!(matches!(peer("quic://h:65536"), Port { .. }));
        assert!(matches!(peer("quic://h:+1"), Port { .. }));
        assert!(matches!(peer("quic://h:0"), PortZero { .. }));
        assert!(matches!(peer("quic://:1"), Host { .. }));
        assert!(matches!(peer("quic://::1:7410"), Host { .. }));
        assert!(matches!(peer("quic://[::1:7410"), Host { .. }));
        assert!(matches!(peer("quic://a b:7410"), Host { .. }));
        assert!(matches!(peer("quic://h:1#abcd"), Pin { .. }));
        assert!(matches!(peer(&format!("quic://h:1#{}", Address::BROADCAST)), Pin { .. }));
        assert!(matches!("quic://h:1#ab".parse::<ListenUrl>().unwrap_err(), PinnedListener { .. }));
    }
}
