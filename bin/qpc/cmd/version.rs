//! `qpc version`: what this program is.

use quicprochat_mesh::{api::Version, control};

use crate::{cx::Context, fail::Failure};

/// The protocol of links, as TLS negotiates it.
const PROTOCOL: &str = "quicprochat/mesh/1";

const EXAMPLES: &str = "\
Examples:
  qpc version
  qpc version --json";

#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {}

pub fn run(_: Args, cx: &Context) -> Result<(), Failure> {
    let features = [("quic", cfg!(feature = "quic")), ("tcp", cfg!(feature = "tcp"))];
    let version = Version {
        version: env!("CARGO_PKG_VERSION").into(),
        protocol: PROTOCOL.into(),
        control: control::VERSION,
        target: format!("{}-{}", std::env::consts::OS, std::env::consts::ARCH),
        features: features.iter().filter(|(_, on)| *on).map(|(name, _)| name.to_string()).collect(),
    };
    cx.out.show(&version, |v| {
        format!("qpc {} ({}, {}, {})", v.version, v.protocol, v.target, v.features.join(" "))
    })
}
