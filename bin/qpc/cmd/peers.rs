//! `qpc peers`: links.

use quicprochat_mesh::api::{Peer, Request};

use crate::{
    call,
    cx::Context,
    fail::Failure,
    human,
    table::{Column, Table},
};

const EXAMPLES: &str = "\
Examples:
  qpc peers         who is linked to this node
  qpc peers --json  everything, with full addresses";

#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {}

pub async fn run(_: Args, cx: &Context) -> Result<(), Failure> {
    let peers: Vec<Peer> = call::all(cx, &Request::Peers).await?;
    cx.out.list(&peers, |peers| {
        if peers.is_empty() {
            return "no links: `qpc peer add URL` dials a node".into();
        }
        table(peers).text()
    })
}

pub(super) fn table(peers: &[Peer]) -> Table {
    let mut table = Table::new([
        Column::id("ADDRESS", 1),
        Column::text("URL").shrinks(2, 14),
        Column::text("DIR"),
        Column::text("ORIGIN").goes(1),
        Column::number("SINCE"),
        Column::number("RTT"),
        Column::number("SENT"),
        Column::number("RECEIVED"),
        Column::text("CAPABILITY").goes(0),
    ]);
    for peer in peers {
        table.row([
            human::or_dash(peer.address).into(),
            human::escape(&peer.url).into(),
            peer.direction.as_str().into(),
            human::escape(&peer.origin).into(),
            human::span_s(peer.since_s).into(),
            human::ms(peer.rtt_ms).into(),
            human::bytes(peer.tx_bytes).into(),
            human::bytes(peer.rx_bytes).into(),
            peer.capability.as_str().into(),
        ]);
    }
    table
}
