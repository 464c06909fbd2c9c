//! What neighbours tell each other of paths besides announces: routes that are gone, and what each
//! of them knows.

use super::{
    cbor::{self, Reader},
    error::{CanonicalRule, DecodeError},
    ids::Address,
    limits::{DIGEST_ENTRIES_MAX, WITHDRAW_ADDRESSES_MAX},
};

/// Bytes of one digest entry: address 16, boot epoch 4, sequence 4, hop count 1.
const DIGEST_ENTRY_BYTES: usize = Address::LEN + 9;

/// What a digest entry says in place of a hop count where its sender offers no way.
const NOT_OFFERED: u8 = 255;

/// Largest hop count of a digest entry that is an offer: one link less than any announce may cross.
const OFFERED_HOPS_MAX: u8 = 127;

/// The sender has no way left to these destinations: their addresses, ascending, as one byte
/// string. It speaks for routes through its sender and for nothing else.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Withdraw {
    /// 1…512 addresses, ascending, each once.
    pub addresses: Vec<Address>,
}

impl Withdraw {
    pub(super) fn decode(body: &[u8]) -> Result<Self, DecodeError> {
        let mut r = Reader::new(body);
        let bytes = r.bytes(WITHDRAW_ADDRESSES_MAX.saturating_mul(Address::LEN), "addresses")?;
        r.finish()?;
        let (addresses, rest) = bytes.as_chunks::<{ Address::LEN }>();
        if addresses.is_empty() || !rest.is_empty() {
            return Err(DecodeError::OutOfRange { field: "addresses", offset: 0, got: bytes.len() as u64 });
        }
        let addresses: Vec<Address> = addresses.iter().map(|address| Address(*address)).collect();
        check_ascending(addresses.iter().copied(), 0)?;
        Ok(Self { addresses })
    }

    pub(super) fn encode(&self) -> Vec<u8> {
        let bytes: Vec<u8> = self.addresses.iter().flat_map(|address| address.0).collect();
        let mut out = Vec::with_capacity(bytes.len().saturating_add(3));
        cbor::put_bytes(&mut out, &bytes);
        out
    }
}

/// What the sender holds of one range of addresses: `[after, through, entries]`, the entries as one
/// byte string. The neighbour answers with the announces that are newer or missing here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Digest {
    /// The range begins behind this address.
    pub after: Address,
    /// The last address of the range, above `after`.
    pub through: Address,
    /// What is held in the range, ascending, each address once; at most 512. What is not named is
    /// not held.
    pub entries: Vec<DigestEntry>,
}

/// One origin in a digest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DigestEntry {
    /// Whose announce is held.
    pub origin: Address,
    /// First part of that announce's order.
    pub boot_epoch: u32,
    /// Second part of that announce's order.
    pub sequence: u32,
    /// The hop count with which the sender would pass that announce on, 0…127: a neighbour that
    /// holds the very same announce needs no copy of it to know of this way. None where the sender
    /// holds the announce and offers no way. A claim, as the hop count of an announce is.
    pub hop_count: Option<u8>,
}

impl Digest {
    pub(super) fn decode(body: &[u8]) -> Result<Self, DecodeError> {
        let mut r = Reader::new(body);
        r.array(3, 3, "digest")?;
        let after = Address(r.fixed("after")?);
        let offset = r.offset();
        let through = Address(r.fixed("through")?);
        if through <= after {
            return Err(DecodeError::NotCanonical { offset, rule: CanonicalRule::SortedKeys });
        }
        let offset = r.offset();
        let bytes = r.bytes(DIGEST_ENTRIES_MAX.saturating_mul(DIGEST_ENTRY_BYTES), "entries")?;
        r.finish()?;
        let (chunks, rest) = bytes.as_chunks::<DIGEST_ENTRY_BYTES>();
        if !rest.is_empty() {
            return Err(DecodeError::OutOfRange { field: "entries", offset, got: bytes.len() as u64 });
        }
        let entries =
            chunks.iter().map(|chunk| DigestEntry::read(chunk, offset)).collect::<Result<Vec<_>, _>>()?;
        check_ascending(entries.iter().map(|entry| entry.origin), offset)?;
        let is_inside = |entry: &DigestEntry| entry.origin > after && entry.origin <= through;
        if !entries.iter().all(is_inside) {
            return Err(DecodeError::Shape {
                message: "digest",
                detail: "names addresses outside of its range".into(),
            });
        }
        Ok(Self { after, through, entries })
    }

    pub(super) fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(self.entries.len().saturating_mul(DIGEST_ENTRY_BYTES));
        for entry in &self.entries {
            bytes.extend_from_slice(&entry.origin.0);
            bytes.extend_from_slice(&entry.boot_epoch.to_be_bytes());
            bytes.extend_from_slice(&entry.sequence.to_be_bytes());
            bytes.push(entry.hop_count.unwrap_or(NOT_OFFERED));
        }
        let mut out = Vec::with_capacity(bytes.len().saturating_add(40));
        cbor::put_array(&mut out, 3);
        cbor::put_bytes(&mut out, &self.after.0);
        cbor::put_bytes(&mut out, &self.through.0);
        cbor::put_bytes(&mut out, &bytes);
        out
    }
}

impl DigestEntry {
    fn read(chunk: &[u8; DIGEST_ENTRY_BYTES], offset: usize) -> Result<Self, DecodeError> {
        let [origin @ .., e0, e1, e2, e3, s0, s1, s2, s3, hops] = *chunk;
        let hop_count = match hops {
            NOT_OFFERED => None,
            hops if hops <= OFFERED_HOPS_MAX => Some(hops),
            got => return Err(DecodeError::OutOfRange { field: "hop_count", offset, got: u64::from(got) }),
        };
        Ok(Self {
            origin: Address(origin),
            boot_epoch: u32::from_be_bytes([e0, e1, e2, e3]),
            sequence: u32::from_be_bytes([s0, s1, s2, s3]),
            hop_count,
        })
    }
}

/// One spelling of a set: ascending, each once.
fn check_ascending(addresses: impl Iterator<Item = Address>, offset: usize) -> Result<(), DecodeError> {
    if addresses.is_sorted_by(|a, b| a < b) {
        Ok(())
    } else {
        Err(DecodeError::NotCanonical { offset, rule: CanonicalRule::SortedKeys })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(n: u8) -> Address {
        Address([n; 16])
    }

    fn entry(n: u8, hop_count: Option<u8>) -> DigestEntry {
        DigestEntry { origin: address(n), boot_epoch: 1, sequence: 2, hop_count }
    }

    fn digest(after: u8, through: u8, entries: Vec<DigestEntry>) -> Digest {
        Digest { after: address(after), through: address(through), entries }
    }

    #[test]
    fn a_withdrawal_names_a_set_of_a_bounded_size() {
        let read = |addresses: Vec<Address>| Withdraw::decode(&Withdraw { addresses }.encode());
        assert!(read(vec![]).is_err(), "about nobody");
        assert!(read(vec![address(1), address(2)]).is_ok());
        assert!(read(vec![address(2), address(1)]).is_err(), "out of order");
        assert!(read(vec![address(1), address(1)]).is_err(), "twice");
        let many = |count: u16| {
            (0..count).map(|n| {
                let mut bytes = [0; 16];
                bytes[..2].copy_from_slice(&n.to_be_bytes());
                Address(bytes)
            })
        };
        assert!(read(many(WITHDRAW_ADDRESSES_MAX as u16).collect()).is_ok());
        assert!(read(many(WITHDRAW_ADDRESSES_MAX as u16 + 1).collect()).is_err());
        assert!(
            Withdraw::decode(&cbor::encode(&serde_bytes::Bytes::new(&[1; 17]))).is_err(),
            "half an address"
        );
    }

    #[test]
    fn a_digest_names_what_is_in_its_range() {
        let check = |digest: Digest, is_fine: bool| {
            let read = Digest::decode(&digest.encode());
            assert_eq!(read.is_ok(), is_fine, "{digest:?}: {read:?}");
        };
        check(digest(1, 9, vec![]), true);
        check(digest(1, 9, vec![entry(2, Some(0)), entry(9, None)]), true);
        check(digest(1, 9, vec![entry(1, Some(0))]), false);
        check(digest(1, 9, vec![entry(10, Some(0))]), false);
        check(digest(1, 9, vec![entry(3, Some(0)), entry(2, Some(0))]), false);
        check(digest(1, 9, vec![entry(3, Some(0)), entry(3, Some(1))]), false);
        check(digest(9, 9, vec![]), false);
        check(digest(9, 1, vec![]), false);
    }

    #[test]
    fn a_hop_count_no_announce_can_have_is_refused() {
        for (hops, is_fine) in [(0, true), (127, true), (128, false), (254, false)] {
            let read = Digest::decode(&digest(1, 9, vec![entry(2, Some(hops))]).encode());
            assert_eq!(read.is_ok(), is_fine, "{hops}");
        }
    }
}
