//! `qpc events`: what happens in the node.

use quicprochat_mesh::{
    api::{EventItem, EventKind, Request, Timestamp},
    wire::Address,
};

use crate::{call, cx::Context, fail::Failure, human};

const EXAMPLES: &str = "\
Examples:
  qpc events                                       what happened lately
  qpc events --follow                              and what happens from now on
  qpc events --follow --json | jq -c 'select(.event == \"link_down\")'";

/// Show what happens in the node: links, routes, messages, refusals, limits
///
/// The last of each kind are remembered, not over a restart. What is refused or limited is counted
/// and told once a second.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// Go on until Ctrl-C
    #[arg(long, short)]
    follow: bool,
}

pub async fn run(args: Args, cx: &Context) -> Result<(), Failure> {
    let mut client = call::start(cx, &Request::Events { follow: args.follow }, &[]).await?;
    let mut any = false;
    while let Some(frame) = client.next().await? {
        any = true;
        cx.out.show(&frame.parse::<EventItem>()?, tell)?;
    }
    if !any && !cx.out.json {
        crate::out::note("nothing happened yet; --follow waits for it");
    }
    Ok(())
}

fn tell(item: &EventItem) -> String {
    format!("{}  {}", clock_time(item.at), what(&item.kind))
}

/// The time of day alone: events are of today, or their date is in `--json`.
fn clock_time(at: Timestamp) -> String {
    let text = at.to_string();
    text.get(11..23).unwrap_or(&text).to_owned()
}

fn what(kind: &EventKind) -> String {
    let short = |address: &Address| address.short();
    let size = |bytes: &u64| human::bytes(*bytes);
    match kind {
        EventKind::LinkUp { peer, url, direction } => {
            let arrow = if direction == "in" { "from" } else { "to" };
            format!("link up      {}  {arrow} {}", short(peer), human::escape(url))
        }
        EventKind::LinkDown { peer, url, reason, text, by_peer } => {
            let by = if *by_peer { "by the peer, " } else { "" };
            let text = match text.is_empty() {
                true => String::new(),
                false => format!(": {}", human::escape(text)),
            };
            let (url, reason) = (human::escape(url), human::escape(reason));
            format!("link down    {}  {url} ({by}{reason}{text})", short(peer))
        }
        EventKind::RouteUp { destination } => format!("route up     {}", short(destination)),
        EventKind::RouteDown { destination } => format!("route down   {}", short(destination)),
        EventKind::Accepted { id, to, size: bytes } => {
            format!("accepted     {id}  to {}, {}", short(to), size(bytes))
        }
        EventKind::Received { id, from, size: bytes, broadcast, request } => {
            let kind = match (broadcast, request) {
                (_, true) => ", waits to be accepted",
                (true, false) => ", a broadcast",
                (false, false) => "",
            };
            format!("received     {id}  from {}, {}{kind}", short(from), size(bytes))
        }
        EventKind::Delivered { id, to, rtt_ms } => {
            format!("delivered    {id}  to {} in {}", short(to), human::ms(*rtt_ms))
        }
        EventKind::Ended { id, to, outcome } => {
            format!("{:<11}  {id}  to {}", human::escape(outcome), short(to))
        }
        EventKind::Refused { what, reason, count } => {
            format!("refused      {count} × {}: {}", human::escape(what), human::escape(reason))
        }
        EventKind::Limited { peer, count } => {
            format!("limited      {}  {count} × beyond its budget, read more slowly", short(peer))
        }
        EventKind::Pressure { level } => format!("pressure     level {level}"),
        EventKind::Reloaded { changed } if changed.is_empty() => "reloaded     nothing changed".to_owned(),
        EventKind::Reloaded { changed } => format!("reloaded     {}", human::escape(&changed.join(", "))),
        EventKind::Missed { count } => {
            format!("missed       {count} events: they came faster than they were read")
        }
        other => human::escape(&format!("{other:?}")),
    }
}
