//! Payloads of ping and trace: signed, not encrypted.

use super::{cbor, error::DecodeError};

/// Payload of a ping and of a trace: `[nonce]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Probe {
    /// Random; the answers carry it back.
    pub nonce: u64,
}

impl Probe {
    /// Reads the payload.
    pub fn decode(payload: &[u8]) -> Result<Self, DecodeError> {
        let (nonce,) = cbor::decode(payload, 16, "probe")?;
        Ok(Self { nonce })
    }

    /// Writes the payload.
    pub fn encode(&self) -> Vec<u8> {
        cbor::encode(&(self.nonce,))
    }
}

/// Payload of a pong: `[nonce, hops]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pong {
    /// The ping's nonce.
    pub nonce: u64,
    /// Links the ping crossed.
    pub hops: u8,
}

impl Pong {
    /// Reads the payload.
    pub fn decode(payload: &[u8]) -> Result<Self, DecodeError> {
        let (nonce, hops) = cbor::decode(payload, 16, "pong")?;
        Ok(Self { nonce, hops })
    }

    /// Writes the payload.
    pub fn encode(&self) -> Vec<u8> {
        cbor::encode(&(self.nonce, self.hops))
    }
}

/// Longest transport name in a trace reply, in bytes.
const TRANSPORT_BYTES_MAX: usize = 16;

/// Payload of a trace reply: `[nonce, hop, reached, transport, snr_quarter_db]`. Who answers is
/// the envelope's source.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TraceReply {
    /// The trace's nonce.
    pub nonce: u64,
    /// Links the trace had crossed when it arrived, 1 for the first neighbour.
    pub hop: u8,
    /// True from the destination.
    pub reached: bool,
    /// Transport that the trace arrived over.
    pub transport: String,
    /// Signal to noise of that link in quarters of a decibel, on radio.
    pub snr_quarter_db: Option<i16>,
}

impl TraceReply {
    /// Reads the payload.
    pub fn decode(payload: &[u8]) -> Result<Self, DecodeError> {
        let (nonce, hop, reached, transport, snr_quarter_db): (u64, u8, bool, String, Option<i16>) =
            cbor::decode(payload, 48, "trace_reply")?;
        if transport.len() > TRANSPORT_BYTES_MAX {
            return Err(DecodeError::TooLarge {
                field: "transport",
                got: transport.len() as u64,
                limit: TRANSPORT_BYTES_MAX as u64,
            });
        }
        Ok(Self { nonce, hop, reached, transport, snr_quarter_db })
    }

    /// Writes the payload.
    pub fn encode(&self) -> Vec<u8> {
        cbor::encode(&(self.nonce, self.hop, self.reached, &self.transport, self.snr_quarter_db))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_transport_name_has_a_limit() {
        let reply = |transport: &str| TraceReply {
            nonce: 1,
            hop: 2,
            reached: false,
            transport: transport.to_owned(),
            snr_quarter_db: Some(-1),
        };
        assert!(TraceReply::decode(&reply("0123456789abcdef").encode()).is_ok());
        assert!(TraceReply::decode(&reply("0123456789abcdefg").encode()).is_err());
    }

    #[test]
    fn a_ping_is_no_pong() {
        let ping = Probe { nonce: 7 }.encode();
        assert!(Pong::decode(&ping).is_err());
        assert!(Probe::decode(&Pong { nonce: 7, hops: 1 }.encode()).is_err());
    }
}
