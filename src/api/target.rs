//! From what a person types to an address: full, by contact name, or by unique prefix.

use crate::{
    api::ApiError,
    wire::{Address, ids::hex},
};

/// Fewest hex digits of an address that are looked up as a prefix: with fewer, two of a few
/// hundred known nodes would soon share one.
pub const PREFIX_DIGITS_MIN: usize = 8;

/// Longest contact name in bytes.
pub const CONTACT_NAME_BYTES_MAX: usize = 64;

/// An address as a person gave it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    /// All 32 hex digits.
    Address(Address),
    /// 8 to 31 hex digits, lower case.
    Prefix(String),
    /// A contact's name.
    Name(String),
}

/// Whom a node knows, to resolve a [`Target`] among. Each list may hold duplicates.
#[derive(Debug, Clone, Copy, Default)]
pub struct Known<'a> {
    /// Contacts by name.
    pub contacts: &'a [(String, Address)],
    /// Nodes at the other end of a link.
    pub links: &'a [Address],
    /// Nodes heard of by announce; only for `trace`, `ping` and `routes`, since anyone can announce
    /// an address with a prefix of their choice.
    pub announced: &'a [Address],
}

impl Target {
    /// Reads `text`. Hex digits are an address or a prefix, everything else a name.
    ///
    /// # Errors
    /// Usage: too few or too many hex digits, a reserved address, or what no contact can be called.
    pub fn parse(text: &str) -> Result<Self, ApiError> {
        let text = text.trim();
        if text.is_empty() {
            return Err(ApiError::usage("an address is 32 hex digits or a contact's name, not nothing"));
        }
        if !looks_hex(text) {
            check_contact_name(text)?;
            return Ok(Self::Name(text.to_owned()));
        }
        if let Ok(address) = text.parse::<Address>() {
            return match address.is_reserved() {
                true => Err(ApiError::usage(format!("{address} is reserved and no node's address"))),
                false => Ok(Self::Address(address)),
            };
        }
        match text.len() {
            n if n < PREFIX_DIGITS_MIN => Err(ApiError::usage(format!(
                "{text} is too short: give at least {PREFIX_DIGITS_MIN} hex digits of the address, or all 32"
            ))),
            n if n > 2 * Address::LEN => Err(ApiError::usage(format!(
                "{text} has {n} hex digits, an address has {}",
                2 * Address::LEN
            ))),
            _ => Ok(Self::Prefix(text.to_ascii_lowercase())),
        }
    }

    /// The lowest address that this may mean by its digits; none for a name.
    pub fn first(&self) -> Option<Address> {
        match self {
            Self::Address(address) => Some(*address),
            Self::Prefix(prefix) => format!("{prefix:0<width$}", width = 2 * Address::LEN).parse().ok(),
            Self::Name(_) => None,
        }
    }

    /// True where the digits of `address` are those that were given.
    pub fn may_mean(&self, address: &Address) -> bool {
        match self {
            Self::Address(one) => one == address,
            Self::Prefix(prefix) => hex(&address.0).starts_with(prefix.as_str()),
            Self::Name(_) => false,
        }
    }

    /// The one address this names among `known`.
    ///
    /// # Errors
    /// Failed: nobody known by that name or prefix, or several with that prefix.
    pub fn resolve(&self, known: &Known<'_>) -> Result<Address, ApiError> {
        match self {
            Self::Address(address) => Ok(*address),
            Self::Name(name) => {
                known.contacts.iter().find(|(n, _)| n == name).map(|(_, a)| *a).ok_or_else(|| {
                    ApiError::failed(format!(
                        "no contact is called {name:?}: see `qpc contact list`, or give the 32 hex digits"
                    ))
                })
            }
            Self::Prefix(prefix) => {
                let all = known.contacts.iter().map(|(_, a)| a).chain(known.links).chain(known.announced);
                let mut found: Vec<Address> =
                    all.filter(|a| hex(&a.0).starts_with(prefix.as_str())).copied().collect();
                found.sort_unstable();
                found.dedup();
                match found.as_slice() {
                    [one] => Ok(*one),
                    [] => Err(ApiError::failed(format!(
                        "no known address begins with {prefix}: give all 32 hex digits"
                    ))),
                    many => Err(ApiError::failed(format!(
                        "{} known addresses begin with {prefix}: give more digits",
                        many.len()
                    ))),
                }
            }
        }
    }
}

/// Whether a person could take `text` for an address: hex digits only.
fn looks_hex(text: &str) -> bool {
    text.bytes().all(|b| b.is_ascii_hexdigit())
}

/// Checks a contact's name: 1 to 64 bytes, no control characters, no spaces at the ends, and not
/// only hex digits, so that a name is never taken for an address or the other way round.
///
/// # Errors
/// Usage, with the rule that is broken.
pub fn check_contact_name(name: &str) -> Result<(), ApiError> {
    let why = if name.is_empty() {
        "is empty"
    } else if name.len() > CONTACT_NAME_BYTES_MAX {
        "is longer than 64 bytes"
    } else if name.trim() != name {
        "begins or ends with a space"
    } else if name.chars().any(char::is_control) {
        "holds control characters"
    } else if name.contains("://") {
        "looks like a URL"
    } else if looks_hex(name) {
        "looks like the hex digits of an address"
    } else {
        return Ok(());
    };
    Err(ApiError::usage(format!("{name:?} is no contact name: it {why}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(first: u8, last: u8) -> Address {
        let mut bytes = [first; 16];
        bytes[15] = last;
        Address(bytes)
    }

    #[test]
    fn full_addresses_names_and_prefixes_are_told_apart() {
        let full = address(0xab, 1);
        assert_eq!(Target::parse(&full.to_string()), Ok(Target::Address(full)));
        assert_eq!(Target::parse("ABABABAB"), Ok(Target::Prefix("abababab".into())));
        assert_eq!(Target::parse("anna"), Ok(Target::Name("anna".into())));
        for wrong in ["", "abab", &"a".repeat(33), &"f".repeat(32), &"0".repeat(32), "a\u{7}nna"] {
            assert!(Target::parse(wrong).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn a_prefix_resolves_only_where_it_is_unique() {
        let (a, b) = (address(0xab, 1), address(0xab, 2));
        let prefix = Target::parse("abababab").unwrap();
        let contacts = [("anna".to_owned(), a)];
        let one = Known { contacts: &contacts, links: &[a], announced: &[] };
        assert_eq!(prefix.resolve(&one), Ok(a), "the same address twice is one");
        let two = Known { announced: &[b], ..one };
        assert!(prefix.resolve(&two).unwrap_err().message.contains("2 known addresses"));
        assert!(prefix.resolve(&Known::default()).unwrap_err().message.contains("no known address"));
        assert_eq!(Target::parse("anna").unwrap().resolve(&one), Ok(a));
    }

    #[test]
    fn what_a_prefix_may_mean_begins_at_its_first_and_ends_where_digits_differ() {
        let prefix = Target::parse("abababab1").unwrap();
        let first = prefix.first().unwrap();
        assert_eq!(first.to_string(), "abababab100000000000000000000000");
        let number = u128::from_be_bytes(first.0);
        let last = number + (1 << (4 * 23)) - 1;
        for (is, number) in [(false, number - 1), (true, number), (true, last), (false, last + 1)] {
            assert_eq!(prefix.may_mean(&Address(number.to_be_bytes())), is, "{number:x}");
        }
        let full = Target::parse(&first.to_string()).unwrap();
        assert_eq!((full.first(), full.may_mean(&first)), (Some(first), true));
        assert_eq!(Target::parse("anna").unwrap().first(), None);
    }

    #[test]
    fn names_that_look_like_addresses_are_refused() {
        for wrong in ["abcdef12", "cafe", "", " anna", "an\nna", "tcp://x", &"n".repeat(65)] {
            assert!(check_contact_name(wrong).is_err(), "{wrong:?}");
        }
        for fine in ["anna", "Jörg Müller", "relay-1", "café"] {
            assert_eq!(check_contact_name(fine), Ok(()), "{fine:?}");
        }
    }
}
