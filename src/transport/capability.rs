//! What a medium can carry, in four steps, and how groups are protected on each.
//!
//! The steps follow from what has to pass, not from technology names. With `rate` the bitrate times
//! the duty cycle:
//!
//! | step                | rate at least | frame at least | because then                                     |
//! |---------------------|---------------|----------------|--------------------------------------------------|
//! | unconstrained       | 1 Mbit/s      | 1,200 bytes    | a hybrid MLS welcome (5,447 bytes) takes < 50 ms |
//! | medium              | 10 kbit/s     | 230 bytes      | a classical MLS welcome (803 bytes) takes < 1 s  |
//! | constrained         | 50 bit/s      | 115 bytes      | a signed MLS-Lite line (108 bytes) fits a frame and takes < 20 s |
//! | severely constrained| less          | less           | an unsigned MLS-Lite line (44 bytes) is what fits |
//!
//! For LoRa at 125 kHz that puts SF7 at 1 % and SF9 at 10 % duty cycle among the constrained, SF12
//! among the severely constrained (`LORA.md` has the airtimes).

use std::fmt;

/// What a medium can carry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum TransportCapability {
    /// The thinnest radio settings.
    SeverelyConstrained,
    /// Radio.
    Constrained,
    /// Slow IP links, fast radio.
    Medium,
    /// The internet, a LAN, memory.
    Unconstrained,
}

impl TransportCapability {
    /// All steps, thinnest first.
    pub const ALL: [TransportCapability; 4] =
        [Self::SeverelyConstrained, Self::Constrained, Self::Medium, Self::Unconstrained];

    /// The step of a medium.
    pub fn classify(profile: &LinkProfile) -> Self {
        let rate_bps = profile.sustained_bps();
        let at_least = |bps, mtu_bytes| rate_bps >= bps && profile.mtu_bytes >= mtu_bytes;
        if at_least(1_000_000, 1_200) {
            Self::Unconstrained
        } else if at_least(10_000, 230) {
            Self::Medium
        } else if at_least(50, 115) {
            Self::Constrained
        } else {
            Self::SeverelyConstrained
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

    /// How group traffic is protected where this step is the thinnest on the way.
    pub fn recommended_crypto(self) -> CryptoMode {
        match self {
            Self::Unconstrained => CryptoMode::MlsHybrid,
            Self::Medium => CryptoMode::MlsClassical,
            Self::Constrained => CryptoMode::MlsLiteSigned,
            Self::SeverelyConstrained => CryptoMode::MlsLiteUnsigned,
        }
    }
}

impl fmt::Display for TransportCapability {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// How group traffic is protected on a link.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum CryptoMode {
    /// MLS with a hybrid post-quantum key exchange.
    MlsHybrid,
    /// MLS with X25519.
    MlsClassical,
    /// A symmetric line under a key exported from the MLS epoch, signed by its sender.
    MlsLiteSigned,
    /// The same without the signature: shown as "group member, unsigned".
    MlsLiteUnsigned,
}

impl fmt::Display for CryptoMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::MlsHybrid => "mls_hybrid",
            Self::MlsClassical => "mls_classical",
            Self::MlsLiteSigned => "mls_lite_signed",
            Self::MlsLiteUnsigned => "mls_lite_unsigned",
        })
    }
}

/// The three numbers a medium is judged by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LinkProfile {
    /// Bits a second while it sends.
    pub bitrate_bps: u64,
    /// Largest frame in bytes.
    pub mtu_bytes: usize,
    /// Share of the time it may send, in thousandths; 1,000 is always.
    pub duty_cycle_permille: u16,
}

impl LinkProfile {
    /// Bits a second over a long time.
    pub fn sustained_bps(&self) -> u64 {
        self.bitrate_bps.saturating_mul(u64::from(self.duty_cycle_permille.min(1_000))) / 1_000
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(bitrate_bps: u64, mtu_bytes: usize, duty_cycle_permille: u16, expected: TransportCapability) {
        let profile = LinkProfile { bitrate_bps, mtu_bytes, duty_cycle_permille };
        assert_eq!(TransportCapability::classify(&profile), expected, "{profile:?}");
    }

    #[test]
    fn media_fall_into_the_documented_steps() {
        use TransportCapability::*;
        check(100_000_000, 16_384, 1_000, Unconstrained);
        check(1_000_000, 1_200, 1_000, Unconstrained);
        check(999_999, 1_200, 1_000, Medium);
        check(1_000_000, 1_199, 1_000, Medium);
        check(10_000, 230, 1_000, Medium);
        check(100_000_000, 229, 1_000, Constrained);
        // LoRa, 125 kHz: SF7 at 1 %, SF9 at 10 %, SF8 at 1 %, SF12 at 10 %.
        check(5_469, 222, 10, Constrained);
        check(1_758, 115, 100, Constrained);
        check(3_125, 222, 10, SeverelyConstrained);
        check(293, 51, 100, SeverelyConstrained);
        check(u64::MAX, usize::MAX, u16::MAX, Unconstrained);
        check(0, 0, 0, SeverelyConstrained);
    }

    #[test]
    fn names_are_those_of_the_command_line() {
        let names = TransportCapability::ALL.map(|c| c.to_string());
        assert_eq!(names, ["severely_constrained", "constrained", "medium", "unconstrained"]);
        let modes = TransportCapability::ALL.map(|c| c.recommended_crypto().to_string());
        assert_eq!(modes, ["mls_lite_unsigned", "mls_lite_signed", "mls_classical", "mls_hybrid"]);
    }

    #[test]
    fn a_better_step_is_greater() {
        assert!(TransportCapability::Unconstrained > TransportCapability::SeverelyConstrained);
    }
}
