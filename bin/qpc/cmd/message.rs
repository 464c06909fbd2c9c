//! `qpc message`: the history of one message.

use quicprochat_mesh::{
    api::{self, Direction, MessageEvent, Request, Timestamp},
    node::IdPrefix,
};

use crate::{
    call,
    cx::Context,
    fail::Failure,
    human,
    ink::{Ink, paint},
    screen::columns,
    table::{Cell, Column, Table},
};

const EXAMPLES: &str = "\
Examples:
  qpc message 8bfc53a0
  qpc message 8bfc53a000030aec3659be716b4d2344 --json";

/// Show how a message stands, and what became of it here
///
/// First what is true now, from the outbox, the inbox or a file on its way; then what happened, oldest
/// first, as far as it is remembered (see store.history_max). The id is the same at sender and receiver,
/// so each of them can be asked for its part.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// Its id, 32 hex digits, or the first 8 of them or more
    #[arg(value_name = "ID")]
    id: IdPrefix,
}

pub async fn run(args: Args, cx: &Context) -> Result<(), Failure> {
    let request = Request::Message { id: args.id.digits().to_owned() };
    call::list(cx, &request, |messages: &[api::Message]| {
        messages.iter().map(|message| tell(message, human::now(), columns())).collect::<Vec<_>>().join("\n")
    })
    .await
}

/// All of it in at most `room` columns.
pub(super) fn tell(message: &api::Message, now: Timestamp, room: Option<usize>) -> String {
    let mut pairs = vec![("id", message.id.to_string()), ("state", state(message))];
    let peer = match (&message.peer_name, message.peer) {
        (Some(name), Some(address)) => format!("{} ({})", human::escape(name), address.short()),
        (None, Some(address)) => address.to_string(),
        (_, None) if message.broadcast => "everyone, not encrypted".into(),
        (_, None) => "not known any more".into(),
    };
    pairs.push((if message.direction == Direction::Out { "to" } else { "from" }, peer));
    if let Some(size) = message.size {
        pairs.push(("size", human::bytes(size)));
    }
    if let Some(priority) = message.priority {
        pairs.push(("priority", priority.as_str().into()));
    }
    if let Some(attempts) = message.attempts.filter(|_| message.expires_s.is_some()) {
        let next = message.next_retry_s.map(|s| format!(", next try in {}", human::span_s(s)));
        pairs.push(("sent", format!("{}{}", times(attempts), next.unwrap_or_default())));
    }
    if let Some(expires_s) = message.expires_s {
        pairs.push(("expires", format!("in {}", human::span_s(expires_s))));
    }
    let mut rows =
        Table::new([Column::number("WHEN"), Column::text("EVENT"), Column::text("").shrinks(0, 8)]);
    for event in &message.history {
        rows.row([
            human::ago(event.at, now).into(),
            Cell::of(Ink::of_fate(&event.event), human::escape(&event.event).replace('_', " ")),
            detail(event).into(),
        ]);
    }
    let history = match message.history.is_empty() {
        true => "nothing of its history is remembered\n".into(),
        false => rows.render(room),
    };
    format!("{}\n{history}", human::fields_within(&pairs, room))
}

/// How it stands, with why.
fn state(message: &api::Message) -> String {
    let ink = Ink::of_fate(&message.state);
    let state = paint(ink, &human::escape(&message.state).replace('_', " "));
    let chunks = message.chunks_done.zip(message.chunks);
    let chunks = chunks.map(|(done, all)| format!("{done} of {all} parts there"));
    // A state that is its own reason is said once.
    let reason = message.reason.as_deref().filter(|reason| *reason != message.state).map(human::escape);
    let rtt = message.rtt_ms.map(|ms| format!("in {}", human::ms(Some(ms))));
    let beside: Vec<_> = [rtt, chunks, reason].into_iter().flatten().collect();
    if beside.is_empty() { state } else { format!("{state} ({})", beside.join(", ")) }
}

fn detail(event: &MessageEvent) -> String {
    let doubt = (!event.clock_trusted).then(|| "clock not trusted".to_owned());
    let parts = [
        event.attempt.map(|attempt| format!("attempt {attempt}")),
        event.chunks_done.zip(event.chunks).map(|(done, all)| format!("{done} of {all} parts")),
        event.size.map(human::bytes),
        event.rtt_ms.map(|ms| human::ms(Some(ms))),
        event.hops.map(|hops| human::number_of(hops.into(), "link")),
        event.reason.as_deref().map(human::escape),
        event.custodian.map(|custodian| format!("kept by {custodian}")),
        doubt,
        event.packet.map(|packet| format!("packet {packet}")),
    ];
    parts.into_iter().flatten().collect::<Vec<_>>().join(", ")
}

fn times(n: u32) -> String {
    match n {
        1 => "once".into(),
        n => format!("{n} times"),
    }
}
