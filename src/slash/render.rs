//! Replies as text for people. Text of others is escaped here and nowhere else.

use std::fmt;

use serde_json::Value;

use super::{
    CommandHelp, Party, SlashReply, Taken,
    text::{bytes, columns, count, escape, escape_lines, ms, span_s},
};
use crate::{
    api::{InboxItem, OutboxItem, Peer, Pong, Received, Route, SendOutcome, Status, Trace},
    wire::Address,
};

impl fmt::Display for SlashReply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&match self {
            Self::Conversation(Some(party)) => format!("lines go to {party} now; /to ends that"),
            Self::Conversation(None) => "lines go to nobody now".into(),
            Self::Sent(outcome) => sent(outcome),
            Self::Broadcast(id) => format!("broadcast {}", id.id),
            Self::Inbox(items) => list(items, "the inbox is empty", inbox_row),
            Self::Received(taken) => received(taken),
            Self::Outbox(items) => list(items, "the outbox is empty", outbox_row),
            Self::Contacts(contacts) => {
                list(contacts, "no contacts: /contact add NAME ADDRESS makes one", |contact| {
                    vec![escape(&contact.name), contact.address.to_string()]
                })
            }
            Self::ContactAdded(contact) => format!("{} is {}", escape(&contact.name), contact.address),
            Self::ContactRemoved(_) => "forgotten".into(),
            Self::WhoAmI(me) => {
                let mut lines = vec![format!("{}  network {}", me.address, escape(&me.network))];
                lines.extend(me.dial.iter().map(|url| format!("dial {}", escape(url))));
                lines.join("\n")
            }
            Self::Status(status) => self::status(status),
            Self::Known(known) => list(known, "nobody was heard yet", |node| {
                let reachable = if node.reachable { "reachable" } else { "not reachable" };
                vec![node.address.to_string(), reachable.into(), escape(&node.capabilities.join(" "))]
            }),
            Self::Ping(pongs) => pongs.iter().map(pong).collect::<Vec<_>>().join("\n"),
            Self::Trace(trace) => self::trace(trace),
            Self::Stats(stats) => {
                let mut rows = Vec::new();
                for (name, value) in stats {
                    flatten(&escape(name), value, &mut rows);
                }
                columns(&rows)
            }
            Self::Peers(peers) => list(peers, "no links: `qpc peer add URL` dials a node", peer_row),
            Self::Routes(routes) => list(routes, "no routes", route_row),
            Self::Help(rows) => help(rows),
            Self::Quit => "bye".into(),
        })
    }
}

impl fmt::Display for Party {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&who(&self.address, self.name.as_deref()))
    }
}

/// A contact's name with the short address behind it, else the whole address.
fn who(address: &Address, name: Option<&str>) -> String {
    match name {
        Some(name) => format!("{} ({})", escape(name), address.short()),
        None => address.to_string(),
    }
}

fn list<T>(items: &[T], none: &str, row: impl Fn(&T) -> Vec<String>) -> String {
    match items.is_empty() {
        true => none.to_owned(),
        false => columns(&items.iter().map(row).collect::<Vec<_>>()),
    }
}

fn sent(outcome: &SendOutcome) -> String {
    let mut line = format!("{} {}", outcome.status.as_str(), outcome.id);
    if outcome.rtt_ms.is_some() {
        line.push_str(&format!(" in {}", ms(outcome.rtt_ms)));
    }
    if let Some(hops) = outcome.hops {
        line.push_str(&format!(" over {}", count(u64::from(hops), "hop")));
    }
    if let Some(reason) = &outcome.reason {
        line.push_str(&format!(" ({})", escape(reason)));
    }
    line
}

fn inbox_row(item: &InboxItem) -> Vec<String> {
    let kind = if item.broadcast { "to everyone, not encrypted" } else { "" };
    let file = item.name.as_deref().map(|name| format!("file {}", escape(name)));
    vec![
        item.id.to_string(),
        who(&item.from, item.from_name.as_deref()),
        bytes(item.size),
        file.unwrap_or_else(|| kind.to_owned()),
    ]
}

fn received(taken: &Taken) -> String {
    let mut lines: Vec<String> = taken.messages.iter().map(message).collect();
    match taken.files_left {
        0 if lines.is_empty() => lines.push("nothing has arrived".into()),
        0 => {}
        n => lines.push(format!("{} left in the inbox: `qpc recv --save DIR` takes them", count(n, "file"))),
    }
    lines.join("\n")
}

/// One message as a line of a conversation.
pub(super) fn message(message: &Received) -> String {
    let from = who(&message.from, message.from_name.as_deref());
    let everyone = if message.broadcast { " to everyone" } else { "" };
    let body = match &message.text {
        Some(text) => escape_lines(text, "  "),
        None => bytes(message.size),
    };
    format!("{from}{everyone}: {body}")
}

fn outbox_row(item: &OutboxItem) -> Vec<String> {
    let reason = item.reason.as_deref().map(|reason| format!(" ({})", escape(reason))).unwrap_or_default();
    vec![
        item.id.to_string(),
        item.to.to_string(),
        bytes(item.size),
        format!("expires in {}", span_s(item.expires_s)),
        format!("{}{reason}", escape(&item.state)),
    ]
}

fn status(status: &Status) -> String {
    let row = |name: &str, value: String| vec![escape(name), value];
    let mut rows = vec![
        row("address", status.address.to_string()),
        row("network", escape(&status.network)),
        row("version", escape(&status.version)),
        row("state", format!("{}, up {}", status.state.as_str(), span_s(status.uptime_s))),
        row("listens on", escape(&status.listen.join("  "))),
        row("health", status.health.as_deref().map_or("off".into(), escape)),
        row("peers", status.peers.to_string()),
        row("routes", status.routes.to_string()),
        row("stored", status.stored.to_string()),
    ];
    for (name, part) in &status.subsystems {
        let detail = part.detail.as_deref().map(|d| format!(" ({})", escape(d))).unwrap_or_default();
        rows.push(row(name, format!("{}{detail}", part.status.as_str())));
    }
    columns(&rows)
}

fn pong(pong: &Pong) -> String {
    let hops = pong.hops.map(|hops| format!(" over {}", count(u64::from(hops), "hop"))).unwrap_or_default();
    match pong.rtt_ms {
        Some(_) => format!("{}: {}{hops}", pong.seq, ms(pong.rtt_ms)),
        None => format!("{}: no answer", pong.seq),
    }
}

fn trace(trace: &Trace) -> String {
    let rows = trace.hops.iter().zip(1u32..).map(|(hop, number)| {
        vec![
            number.to_string(),
            hop.address.map_or("(declined to answer)".into(), |address| address.to_string()),
            hop.transport.as_deref().map_or("-".into(), escape),
            ms(hop.rtt_ms),
        ]
    });
    let mut rows = columns(&rows.collect::<Vec<_>>());
    if !trace.reached {
        let silent = format!("{} did not answer: see /mesh routes", trace.destination);
        rows = [rows, silent].into_iter().filter(|line| !line.is_empty()).collect::<Vec<_>>().join("\n");
    }
    rows
}

fn peer_row(peer: &Peer) -> Vec<String> {
    vec![
        peer.address.map_or("-".into(), |address| address.to_string()),
        escape(&peer.url),
        peer.direction.as_str().into(),
        format!("up {}", span_s(peer.since_s)),
        ms(peer.rtt_ms),
    ]
}

fn route_row(route: &Route) -> Vec<String> {
    vec![
        route.destination.to_string(),
        count(u64::from(route.hops), "hop"),
        format!("by {}", route.next_hop.short()),
        escape(&route.transport),
        format!("expires in {}", span_s(route.expires_s)),
    ]
}

fn help(rows: &[CommandHelp]) -> String {
    let rows: Vec<Vec<String>> = rows.iter().map(|row| vec![row.usage(), row.about.to_owned()]).collect();
    columns(&rows)
}

/// Nested objects as dotted names.
fn flatten(name: &str, value: &Value, rows: &mut Vec<Vec<String>>) {
    match value {
        Value::Object(inner) => {
            for (key, value) in inner {
                flatten(&format!("{name}.{}", escape(key)), value, rows);
            }
        }
        Value::String(text) => rows.push(vec![name.to_owned(), escape(text)]),
        other => rows.push(vec![name.to_owned(), other.to_string()]),
    }
}
