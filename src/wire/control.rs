//! Small frames between two neighbours: credit, path requests, custody, refusals.

use serde::{Deserialize, Serialize};

use super::{
    TrafficClass,
    cbor::{self, Reader},
    error::DecodeError,
    ids::{Address, PacketId},
    limits::{CUSTODY_IDS_MAX, MAX_HOPS_MAX},
};

/// Grants the neighbour more bytes of one class: `[class, bytes]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Credit {
    /// Which queue.
    pub class: TrafficClass,
    /// Bytes on top of what was granted before.
    pub bytes: u32,
}

impl Credit {
    pub(super) fn decode(body: &[u8]) -> Result<Self, DecodeError> {
        let (class, bytes): (u8, u32) = cbor::decode(body, 8, "credit")?;
        let class = TrafficClass::ALL.get(usize::from(class)).copied().ok_or(DecodeError::OutOfRange {
            field: "class",
            offset: 1,
            got: u64::from(class),
        })?;
        Ok(Self { class, bytes })
    }

    pub(super) fn encode(&self) -> Vec<u8> {
        cbor::encode(&(self.class as u8, self.bytes))
    }
}

/// Looks for a destination: `[request_id, destination, max_hops, hop_count]`, or with
/// `newer_than_epoch, newer_than_sequence` behind. Never names who asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PathRequest {
    /// Random, so that a request is passed on once.
    pub request_id: [u8; 8],
    /// Who is looked for.
    pub destination: Address,
    /// How far to look, 1…128 links.
    pub max_hops: u8,
    /// Links crossed so far.
    pub hop_count: u8,
    /// Boot epoch and sequence: only an announce of a higher order is of use to who asks, since no
    /// way that is known of this one is sure not to lead back.
    pub newer_than: Option<(u32, u32)>,
}

impl PathRequest {
    pub(super) fn decode(body: &[u8]) -> Result<Self, DecodeError> {
        let mut r = Reader::new(body);
        let start = r.offset();
        let elements = r.array(4, 6, "path_request")?;
        if elements == 5 {
            return Err(DecodeError::OutOfRange { field: "path_request", offset: start, got: elements });
        }
        let request_id = r.fixed("request_id")?;
        let destination = Address(r.fixed("destination")?);
        let offset = r.offset();
        let max_hops = r.u8(MAX_HOPS_MAX, "max_hops")?;
        if max_hops == 0 {
            return Err(DecodeError::OutOfRange { field: "max_hops", offset, got: 0 });
        }
        let hop_count = r.u8(u8::MAX, "hop_count")?;
        let newer_than = match elements {
            6 => Some((r.u32("newer_than_epoch")?, r.u32("newer_than_sequence")?)),
            _ => None,
        };
        r.finish()?;
        Ok(Self { request_id, destination, max_hops, hop_count, newer_than })
    }

    pub(super) fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(40);
        cbor::put_array(&mut out, if self.newer_than.is_some() { 6 } else { 4 });
        cbor::put_bytes(&mut out, &self.request_id);
        cbor::put_bytes(&mut out, &self.destination.0);
        cbor::put_uint(&mut out, u64::from(self.max_hops));
        cbor::put_uint(&mut out, u64::from(self.hop_count));
        if let Some((boot_epoch, sequence)) = self.newer_than {
            cbor::put_uint(&mut out, u64::from(boot_epoch));
            cbor::put_uint(&mut out, u64::from(sequence));
        }
        out
    }
}

/// These packets are durably held until receipt, hand-over or expiry: `[domain, packet_ids]`, the
/// ids as one byte string. Never clears an outbox; tells the origin to retry less often.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CustodyAck {
    /// Who holds them: the custodian's address, or its cluster's name. A hand-over inside one
    /// domain is no new custody.
    pub domain: Address,
    /// Which packets, at most 256.
    pub packet_ids: Vec<PacketId>,
}

impl CustodyAck {
    pub(super) fn decode(body: &[u8]) -> Result<Self, DecodeError> {
        let (domain, ids): (Address, serde_bytes::ByteBuf) =
            cbor::decode(body, CUSTODY_IDS_MAX * 16 + 32, "custody_ack")?;
        Ok(Self { domain, packet_ids: split_ids(&ids, CUSTODY_IDS_MAX)? })
    }

    pub(super) fn encode(&self) -> Vec<u8> {
        cbor::encode(&(self.domain, serde_bytes::Bytes::new(&join_ids(&self.packet_ids))))
    }
}

/// Writes packet ids as one byte string.
pub(super) fn join_ids(ids: &[PacketId]) -> Vec<u8> {
    ids.iter().flat_map(|id| id.0).collect()
}

/// Reads packet ids out of one byte string.
pub(super) fn split_ids(bytes: &[u8], most: usize) -> Result<Vec<PacketId>, DecodeError> {
    let (ids, rest) = bytes.as_chunks::<16>();
    if !rest.is_empty() || ids.len() > most {
        return Err(DecodeError::OutOfRange { field: "packet_ids", offset: 0, got: bytes.len() as u64 });
    }
    Ok(ids.iter().map(|id| PacketId(*id)).collect())
}

/// Why a neighbour did not take a packet. Numbers are never used again for something else.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "u8", into = "u8")]
pub enum RefuseReason {
    /// It knows no way to the destination and does not store.
    NoRoute,
    /// Its queue to the next hop is full.
    Congested,
    /// Its store is full, or the destination's share of it is.
    StoreFull,
    /// The packet's hop limit is reached.
    HopLimit,
    /// The packet has expired.
    Expired,
    /// The packet came around in a loop.
    Loop,
    /// It drains.
    Draining,
    /// The neighbour's budget is spent.
    RateLimited,
    /// A reason of a newer version.
    Other(u8),
}

impl From<u8> for RefuseReason {
    fn from(number: u8) -> Self {
        use RefuseReason::*;
        match number {
            0 => NoRoute,
            1 => Congested,
            2 => StoreFull,
            3 => HopLimit,
            4 => Expired,
            5 => Loop,
            6 => Draining,
            7 => RateLimited,
            other => Other(other),
        }
    }
}

impl From<RefuseReason> for u8 {
    fn from(reason: RefuseReason) -> u8 {
        use RefuseReason::*;
        match reason {
            NoRoute => 0,
            Congested => 1,
            StoreFull => 2,
            HopLimit => 3,
            Expired => 4,
            Loop => 5,
            Draining => 6,
            RateLimited => 7,
            Other(number) => number,
        }
    }
}

impl RefuseReason {
    /// Name in logs, metrics and the outbox listing.
    pub fn name(self) -> &'static str {
        use RefuseReason::*;
        match self {
            NoRoute => "no_route",
            Congested => "congested",
            StoreFull => "store_full",
            HopLimit => "hop_limit",
            Expired => "expired",
            Loop => "loop",
            Draining => "draining",
            RateLimited => "rate_limited",
            Other(_) => "other",
        }
    }
}

/// A packet that was not taken: `[packet_id, reason, retry_after_s]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Refuse {
    /// Which packet.
    pub packet_id: PacketId,
    /// Why.
    pub reason: RefuseReason,
    /// When another try makes sense, in seconds; clamped to an hour by whoever reads it.
    pub retry_after_s: u16,
}

impl Refuse {
    pub(super) fn decode(body: &[u8]) -> Result<Self, DecodeError> {
        let (packet_id, reason, retry_after_s): (PacketId, RefuseReason, u16) =
            cbor::decode(body, 32, "refuse")?;
        Ok(Self { packet_id, reason, retry_after_s })
    }

    pub(super) fn encode(&self) -> Vec<u8> {
        cbor::encode(&(self.packet_id, self.reason, self.retry_after_s))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_whole_and_counted() {
        assert_eq!(split_ids(&[0; 32], 2).map(|ids| ids.len()), Ok(2));
        assert!(split_ids(&[0; 33], 3).is_err());
        assert!(split_ids(&[0; 48], 2).is_err());
    }

    #[test]
    fn reasons_keep_their_numbers() {
        for number in 0..=u8::MAX {
            assert_eq!(u8::from(RefuseReason::from(number)), number);
        }
        assert_eq!(RefuseReason::from(7), RefuseReason::RateLimited);
        assert_eq!(RefuseReason::from(8), RefuseReason::Other(8));
    }

    #[test]
    fn a_class_nobody_has_is_refused() {
        assert!(Credit::decode(&[0x82, 0x02, 0x00]).is_ok());
        assert!(Credit::decode(&[0x82, 0x03, 0x00]).is_err());
    }

    #[test]
    fn a_path_request_without_hops_is_refused() {
        let request = |max_hops| PathRequest {
            request_id: [0; 8],
            destination: Address([1; 16]),
            max_hops,
            hop_count: 0,
            newer_than: None,
        };
        for (max_hops, is_fine) in [(0, false), (1, true), (128, true), (129, false)] {
            assert_eq!(PathRequest::decode(&request(max_hops).encode()).is_ok(), is_fine, "{max_hops}");
        }
    }
}
