//! Types of single values: how each is read from TOML and from one line of text, and written.

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    ops::Range,
    path::PathBuf,
    str::FromStr,
    time::Duration,
};

use toml::{Spanned, de::DeValue};

use super::{HEALTH_PORT, ListenUrl, MeshConfig, PeerUrl, nearest};
use crate::wire::Address;

/// Sets one key of a configuration from a parsed TOML value, or says what is wrong with it.
pub(crate) type FromToml = fn(&mut MeshConfig, &Spanned<DeValue<'_>>, &mut Vec<ValueProblem>);

/// What is wrong with a value, and where in the document it stands.
#[derive(Debug)]
pub(crate) struct ValueProblem {
    pub(crate) span: Range<usize>,
    pub(crate) message: String,
}

/// A value of a configuration key.
pub(crate) trait ConfigValue: Sized {
    /// What to write, for people: `a duration such as 30s`.
    fn expected() -> String;
    /// Reads a TOML value; pushes at least one problem where it returns none.
    fn from_toml(value: &Spanned<DeValue<'_>>, problems: &mut Vec<ValueProblem>) -> Option<Self>;
    /// Reads the text of an environment variable or a flag.
    fn from_text(text: &str) -> Result<Self, String>;
    /// The TOML spelling; none for an option without a value.
    fn to_toml(&self) -> Option<String>;
}

/// Why a text is no value of its type.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct ParseValueError(pub(crate) String);

/// Pushes that `value` is not what the key wants.
fn wrong<T: ConfigValue>(value: &Spanned<DeValue<'_>>, problems: &mut Vec<ValueProblem>) -> Option<T> {
    let got = match value.get_ref() {
        DeValue::String(_) => "a string",
        DeValue::Integer(_) => "a whole number",
        DeValue::Float(_) => "a number with a point",
        DeValue::Boolean(_) => "true or false",
        DeValue::Datetime(_) => "a date",
        DeValue::Array(_) => "a list",
        DeValue::Table(_) => "a table",
    };
    problems
        .push(ValueProblem { span: value.span(), message: format!("expected {}, got {got}", T::expected()) });
    None
}

/// Writes a TOML string.
fn quote(text: &str) -> String {
    toml::Value::String(text.to_owned()).to_string()
}

/// Values that TOML has as strings.
macro_rules! text_value {
    ($ty:ty, $expected:expr, $parse:expr, $format:expr) => {
        impl ConfigValue for $ty {
            fn expected() -> String {
                $expected.into()
            }

            fn from_toml(value: &Spanned<DeValue<'_>>, problems: &mut Vec<ValueProblem>) -> Option<Self> {
                let DeValue::String(text) = value.get_ref() else { return wrong(value, problems) };
                match Self::from_text(text) {
                    Ok(read) => Some(read),
                    Err(message) => {
                        problems.push(ValueProblem { span: value.span(), message });
                        None
                    }
                }
            }

            fn from_text(text: &str) -> Result<Self, String> {
                #[allow(clippy::redundant_closure_call, reason = "a caller may give a path or a closure")]
                $parse(text)
            }

            fn to_toml(&self) -> Option<String> {
                #[allow(clippy::redundant_closure_call, reason = "a caller may give a path or a closure")]
                Some(quote(&$format(self)))
            }
        }
    };
    ($ty:ty, $expected:expr) => {
        text_value!(
            $ty,
            $expected,
            |t: &str| t.trim().parse::<$ty>().map_err(|e| e.to_string()),
            |v: &$ty| v.to_string()
        );
    };
}

text_value!(String, "a string", |t: &str| Ok(t.to_owned()), |v: &String| v.clone());
text_value!(
    PathBuf,
    "a path in quotes",
    |t: &str| if t.is_empty() { Err("a path is not empty".to_owned()) } else { Ok(PathBuf::from(t)) },
    |v: &PathBuf| v.display().to_string()
);
text_value!(
    Duration,
    "a duration such as \"30s\" (ms, s, m, h, d)",
    |t: &str| parse_duration(t).map_err(|e| e.to_string()),
    |v: &Duration| format_duration(*v)
);
text_value!(Accept, Accept::expected());
text_value!(InboxAccept, InboxAccept::expected());
text_value!(Preset, Preset::expected());
text_value!(Role, Role::expected());
text_value!(LogFormat, LogFormat::expected());
text_value!(HealthListen, "an address such as \"127.0.0.1:7411\", or \"off\"");
text_value!(ListenUrl, "a URL such as \"quic://[::]:7410\"");
text_value!(
    Address,
    "a node's address, 32 hex digits",
    |t: &str| t
        .trim()
        .parse::<Address>()
        .map_err(|e| format!("{t:?} is not a node's address, 32 hex digits: {e}")),
    |v: &Address| v.to_string()
);
text_value!(IpAddr, "an IP address such as \"192.0.2.1\"");
text_value!(PeerUrl, "a URL such as \"quic://relay.example.org:7410\"");

impl ConfigValue for ByteSize {
    fn expected() -> String {
        "a size such as \"64MiB\" (B, KiB, MiB, GiB)".into()
    }

    fn from_toml(value: &Spanned<DeValue<'_>>, problems: &mut Vec<ValueProblem>) -> Option<Self> {
        let DeValue::String(text) = value.get_ref() else { return wrong(value, problems) };
        match Self::from_text(text) {
            Ok(read) => Some(read),
            Err(message) => {
                problems.push(ValueProblem { span: value.span(), message });
                None
            }
        }
    }

    fn from_text(text: &str) -> Result<Self, String> {
        text.parse().map_err(|e: ParseValueError| e.to_string())
    }

    fn to_toml(&self) -> Option<String> {
        Some(quote(&self.to_string()))
    }
}

impl ConfigValue for bool {
    fn expected() -> String {
        "true or false".into()
    }

    fn from_toml(value: &Spanned<DeValue<'_>>, problems: &mut Vec<ValueProblem>) -> Option<Self> {
        match value.get_ref() {
            DeValue::Boolean(read) => Some(*read),
            _ => wrong(value, problems),
        }
    }

    fn from_text(text: &str) -> Result<Self, String> {
        match text.trim() {
            "true" | "1" | "yes" | "on" => Ok(true),
            "false" | "0" | "no" | "off" => Ok(false),
            _ => Err(format!("expected {}, got {text:?}", Self::expected())),
        }
    }

    fn to_toml(&self) -> Option<String> {
        Some(self.to_string())
    }
}

macro_rules! integer_value {
    ($($ty:ty),*) => {$(
        impl ConfigValue for $ty {
            fn expected() -> String {
                format!("a whole number from 0 to {}", <$ty>::MAX)
            }

            fn from_toml(value: &Spanned<DeValue<'_>>, problems: &mut Vec<ValueProblem>) -> Option<Self> {
                let DeValue::Integer(number) = value.get_ref() else { return wrong(value, problems) };
                match <$ty>::from_str_radix(number.as_str(), number.radix()) {
                    Ok(read) => Some(read),
                    Err(_) => {
                        let message = format!("expected {}, got {number}", Self::expected());
                        problems.push(ValueProblem { span: value.span(), message });
                        None
                    }
                }
            }

            fn from_text(text: &str) -> Result<Self, String> {
                text.trim().parse().map_err(|_| format!("expected {}, got {text:?}", Self::expected()))
            }

            fn to_toml(&self) -> Option<String> {
                Some(self.to_string())
            }
        }
    )*};
}

integer_value!(u8, u16, u32);

impl<T: ConfigValue> ConfigValue for Vec<T> {
    fn expected() -> String {
        format!("a list; each element {}", T::expected())
    }

    fn from_toml(value: &Spanned<DeValue<'_>>, problems: &mut Vec<ValueProblem>) -> Option<Self> {
        let DeValue::Array(elements) = value.get_ref() else { return wrong(value, problems) };
        let read: Vec<T> = elements.iter().filter_map(|element| T::from_toml(element, problems)).collect();
        (read.len() == elements.len()).then_some(read)
    }

    fn from_text(text: &str) -> Result<Self, String> {
        text.split(',').map(str::trim).filter(|t| !t.is_empty()).map(T::from_text).collect()
    }

    fn to_toml(&self) -> Option<String> {
        let elements: Vec<String> = self.iter().filter_map(ConfigValue::to_toml).collect();
        Some(format!("[{}]", elements.join(", ")))
    }
}

impl<T: ConfigValue> ConfigValue for Option<T> {
    fn expected() -> String {
        T::expected()
    }

    fn from_toml(value: &Spanned<DeValue<'_>>, problems: &mut Vec<ValueProblem>) -> Option<Self> {
        T::from_toml(value, problems).map(Some)
    }

    fn from_text(text: &str) -> Result<Self, String> {
        T::from_text(text).map(Some)
    }

    fn to_toml(&self) -> Option<String> {
        self.as_ref().and_then(ConfigValue::to_toml)
    }
}

/// Units of a duration, largest first, in milliseconds.
const DURATION_UNITS: [(&str, u64); 5] =
    [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1000), ("ms", 1)];

/// Reads `500ms`, `30s`, `10m`, `2h` or `7d`.
///
/// # Errors
/// No number, no unit or an unknown one, or more than 64 bits of milliseconds.
pub fn parse_duration(text: &str) -> Result<Duration, ParseValueError> {
    let text = text.trim();
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let factor = DURATION_UNITS.iter().find(|(name, _)| *name == unit.trim()).map(|(_, ms)| *ms);
    let ms = number.parse::<u64>().ok().zip(factor).and_then(|(n, factor)| n.checked_mul(factor));
    ms.map(Duration::from_millis).ok_or_else(|| {
        ParseValueError(format!(
            "{text:?} is no duration: write a whole number and ms, s, m, h or d, as in 30s"
        ))
    })
}

/// Writes a duration as [`parse_duration`] reads it, in the largest unit that loses nothing; what
/// is below a millisecond is cut off.
pub fn format_duration(duration: Duration) -> String {
    let ms = u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    if ms == 0 {
        return "0s".into();
    }
    let (unit, factor) = DURATION_UNITS.into_iter().find(|(_, f)| ms.is_multiple_of(*f)).unwrap_or(("ms", 1));
    format!("{}{unit}", ms / factor)
}

/// A number of bytes, written with a binary unit: `64MiB`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct ByteSize(pub u64);

/// Units of a size, largest first.
const SIZE_UNITS: [(&str, u64); 4] = [("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10), ("B", 1)];

impl FromStr for ByteSize {
    type Err = ParseValueError;

    fn from_str(text: &str) -> Result<Self, ParseValueError> {
        let text = text.trim();
        let digits = text.bytes().take_while(u8::is_ascii_digit).count();
        let (number, unit) = text.split_at(digits);
        let factor = SIZE_UNITS.iter().find(|(name, _)| *name == unit.trim()).map(|(_, f)| *f);
        let bytes = number.parse::<u64>().ok().zip(factor).and_then(|(n, factor)| n.checked_mul(factor));
        bytes.map(Self).ok_or_else(|| {
            ParseValueError(format!(
                "{text:?} is no size: write a whole number and B, KiB, MiB or GiB, as in 64MiB"
            ))
        })
    }
}

impl fmt::Display for ByteSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (unit, factor) = match self.0 {
            0 => ("B", 1),
            n => SIZE_UNITS.into_iter().find(|(_, f)| n.is_multiple_of(*f)).unwrap_or(("B", 1)),
        };
        write!(f, "{}{unit}", self.0 / factor)
    }
}

/// Values that are one of a few words.
macro_rules! words {
    ($(#[$doc:meta])* $name:ident { $($(#[$variant_doc:meta])* $variant:ident = $word:literal),* $(,)? }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum $name {
            $($(#[$variant_doc])* $variant,)*
        }

        impl $name {
            /// Every word.
            pub const WORDS: &[&str] = &[$($word),*];

            /// The word.
            pub fn as_str(self) -> &'static str {
                match self {
                    $(Self::$variant => $word,)*
                }
            }

            fn expected() -> String {
                format!("one of {}", Self::WORDS.join(", "))
            }
        }

        impl FromStr for $name {
            type Err = ParseValueError;

            fn from_str(text: &str) -> Result<Self, ParseValueError> {
                match text {
                    $($word => Ok(Self::$variant),)*
                    _ => Err(ParseValueError(match nearest(text, Self::WORDS.iter().copied()) {
                        Some(near) => format!("{text:?} is none of {}: did you mean {near:?}?", Self::WORDS.join(", ")),
                        None => format!("expected {}, got {text:?}", Self::expected()),
                    })),
                }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.as_str())
            }
        }
    };
}

words! {
    /// Whose links are accepted.
    Accept {
        /// Private, link-local and loopback addresses.
        Lan = "lan",
        /// Every address.
        Any = "any",
    }
}

words! {
    /// What all values begin from.
    Preset {
        /// Each key's own default.
        Default = "default",
        /// Small hardware or a thin link: announces rarely, keeps and forwards little.
        Constrained = "constrained",
        /// A machine of one's own that is on now and then: forwards and keeps nothing for others, and
        /// strangers wait to be accepted.
        Personal = "personal",
        /// A server for many: takes links from anywhere and keeps much for others; nobody reads mail there.
        Relay = "relay",
    }
}

words! {
    /// Whose messages enter the inbox.
    InboxAccept {
        /// Everyone's.
        Anyone = "anyone",
        /// Those of contacts and of whom this node wrote to; others wait to be accepted.
        Requests = "requests",
        /// Those of contacts and of whom this node wrote to.
        Contacts = "contacts",
    }
}

words! {
    /// What a node does for others and announces.
    Role {
        /// Forwards messages.
        Relay = "relay",
        /// Keeps messages for nodes that are away.
        Store = "store",
        /// Has a route out of this network.
        Gateway = "gateway",
    }
}

words! {
    /// How log lines look.
    LogFormat {
        /// For people.
        Text = "text",
        /// One JSON object a line.
        Json = "json",
    }
}

/// Threads of links at most: more than any machine this was tried on has cores, and few enough that
/// a slip of the finger starts none by the thousand.
pub const LINK_THREADS_MAX: u32 = 64;

/// Threads of links where nobody says how many: the one actor that all links feed keeps up with no
/// more of them.
const LINK_THREADS_AUTO_MAX: usize = 8;

/// Threads that links run on beside the node's own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum LinkThreads {
    /// As many as the machine has use for.
    #[default]
    Auto,
    /// So many; 0 has links on the node's own thread.
    Exactly(u32),
}

impl LinkThreads {
    /// How many that is on a machine with so many cores. On one or two, all that a message passes
    /// shares a thread: waking another one costs more than it gains. On more, one core is left to the
    /// thread that all links feed.
    pub fn on(self, cores: usize) -> usize {
        match self {
            Self::Auto if cores <= 2 => 0,
            Self::Auto => cores.saturating_sub(1).min(LINK_THREADS_AUTO_MAX),
            Self::Exactly(threads) => threads as usize,
        }
    }
}

impl ConfigValue for LinkThreads {
    fn expected() -> String {
        format!("\"auto\", or a whole number from 0 to {LINK_THREADS_MAX}")
    }

    fn from_toml(value: &Spanned<DeValue<'_>>, problems: &mut Vec<ValueProblem>) -> Option<Self> {
        let (read, got) = match value.get_ref() {
            DeValue::Integer(number) => {
                (Self::from_number(number.as_str(), number.radix()), number.to_string())
            }
            DeValue::String(text) => (Self::from_word(text), format!("{text:?}")),
            _ => return wrong(value, problems),
        };
        if read.is_none() {
            let message = format!("expected {}, got {got}", Self::expected());
            problems.push(ValueProblem { span: value.span(), message });
        }
        read
    }

    fn from_text(text: &str) -> Result<Self, String> {
        let text = text.trim();
        Self::from_word(text)
            .or_else(|| Self::from_number(text, 10))
            .ok_or_else(|| format!("expected {}, got {text:?}", Self::expected()))
    }

    fn to_toml(&self) -> Option<String> {
        Some(match self {
            Self::Auto => quote("auto"),
            Self::Exactly(threads) => threads.to_string(),
        })
    }
}

impl LinkThreads {
    fn from_word(text: &str) -> Option<Self> {
        (text == "auto").then_some(Self::Auto)
    }

    fn from_number(digits: &str, radix: u32) -> Option<Self> {
        u32::from_str_radix(digits, radix).ok().map(Self::Exactly)
    }
}

/// Where the health endpoint listens.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum HealthListen {
    /// Nowhere.
    Off,
    /// On this address.
    At(SocketAddr),
}

impl HealthListen {
    /// The address, none when off.
    pub fn addr(self) -> Option<SocketAddr> {
        match self {
            Self::Off => None,
            Self::At(addr) => Some(addr),
        }
    }
}

impl Default for HealthListen {
    fn default() -> Self {
        Self::At(SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), HEALTH_PORT))
    }
}

impl FromStr for HealthListen {
    type Err = ParseValueError;

    fn from_str(text: &str) -> Result<Self, ParseValueError> {
        if matches!(text, "off" | "none") {
            return Ok(Self::Off);
        }
        // The one name that means the same everywhere; others would need a resolver to check.
        let literal = match text.strip_prefix("localhost:") {
            Some(port) => format!("127.0.0.1:{port}"),
            None => text.to_owned(),
        };
        literal.parse().map(Self::At).map_err(|_| {
            ParseValueError(format!("{text:?} is no address: write IP:PORT, as in 127.0.0.1:7411, or off"))
        })
    }
}

impl fmt::Display for HealthListen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Off => f.write_str("off"),
            Self::At(addr) => addr.fmt(f),
        }
    }
}
