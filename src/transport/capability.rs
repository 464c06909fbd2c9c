//! How much a medium can carry, and which cryptography fits it.

use std::fmt;

use serde::Serialize;

/// Classes of media, from their bitrate, frame size and duty cycle.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum TransportCapability {
    /// Broadband and LAN.
    Unconstrained,
    /// Slow but not thin: cellular, narrow Wi-Fi, packet radio.
    Medium,
    /// Radio whose frames are small or whose airtime is shared.
    Constrained,
    /// Radio at its slowest: a frame takes seconds, or the law allows little of it.
    SeverelyConstrained,
}

/// What groups and seals use on a medium.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum CryptoMode {
    /// MLS with post-quantum suites.
    MlsPostQuantum,
    /// MLS with classical suites.
    MlsClassical,
    /// MLS-Lite, each line signed.
    LiteSigned,
    /// MLS-Lite.
    Lite,
}

impl TransportCapability {
    /// Classifies a medium. `duty_cycle` is the share of time it may send, 1 for always.
    ///
    /// Thresholds: 1 Mbit/s and frames of 1,200 bytes carry anything; 32 kbit/s carries an MLS
    /// commit in seconds; below 1 kbit/s or 1 % airtime of a slow radio a signature is dear.
    pub fn classify(bitrate_bps: u64, mtu_bytes: usize, duty_cycle: f64) -> Self {
        let effective_bps = bitrate_bps as f64 * duty_cycle.clamp(0.0, 1.0);
        if effective_bps >= 1_000_000.0 && mtu_bytes >= 1200 {
            Self::Unconstrained
        } else if effective_bps >= 32_000.0 && mtu_bytes >= 256 {
            Self::Medium
        } else if effective_bps >= 30.0 && mtu_bytes >= 64 {
            Self::Constrained
        } else {
            Self::SeverelyConstrained
        }
    }

    /// What groups use on it.
    pub fn recommended_crypto(self) -> CryptoMode {
        match self {
            Self::Unconstrained => CryptoMode::MlsPostQuantum,
            Self::Medium => CryptoMode::MlsClassical,
            Self::Constrained => CryptoMode::LiteSigned,
            Self::SeverelyConstrained => CryptoMode::Lite,
        }
    }

    /// Name in `qpc peers`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Unconstrained => "unconstrained",
            Self::Medium => "medium",
            Self::Constrained => "constrained",
            Self::SeverelyConstrained => "severely_constrained",
        }
    }
}

impl fmt::Display for TransportCapability {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn media_fall_into_their_classes() {
        let check = |bps, mtu, duty, want| assert_eq!(TransportCapability::classify(bps, mtu, duty), want);
        check(100_000_000, 16_384, 1.0, TransportCapability::Unconstrained);
        check(250_000, 1200, 1.0, TransportCapability::Medium);
        // LoRa SF7, 125 kHz at 1 % and SF12 at 1 %.
        check(5_470, 255, 0.01, TransportCapability::Constrained);
        check(293, 51, 0.01, TransportCapability::SeverelyConstrained);
    }
}
