//! `qpc peers`: links.

use quicprochat_mesh::api::{Peer, Request};

use crate::{call, cx::Context, fail::Failure, human};

#[derive(Debug, clap::Args)]
pub struct Args {}

pub async fn run(_: Args, cx: &Context) -> Result<(), Failure> {
    let peers: Vec<Peer> = call::all(cx, &Request::Peers).await?;
    cx.out.list(&peers, |peers| {
        if peers.is_empty() {
            return "no links: `qpc peer add URL` dials a node".into();
        }
        let rows: Vec<Vec<String>> = peers
            .iter()
            .map(|p| {
                vec![
                    human::or_dash(p.address),
                    human::escape(&p.url),
                    p.direction.as_str().into(),
                    human::escape(&p.origin),
                    human::span_s(p.since_s),
                    human::ms(p.rtt_ms),
                    human::bytes(p.tx_bytes),
                    human::bytes(p.rx_bytes),
                    p.capability.as_str().into(),
                ]
            })
            .collect();
        human::table(
            &["ADDRESS", "URL", "DIR", "ORIGIN", "SINCE", "RTT", "SENT", "RECEIVED", "CAPABILITY"],
            &rows,
        )
    })
}
