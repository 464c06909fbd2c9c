//! Messages that arrive while somebody types, and what becomes of those that were sent.

use std::time::Duration;

use quicprochat_mesh::{
    RunningNode, SlashBackend, SlashReply,
    api::{ApiError, DeliveryStatus, Done, InboxItem, Request, SendOutcome},
    control::ReplyFrame,
    slash::Answers,
};

use tokio::time::{Instant, sleep_until};

use super::{editor::Printer, paint::Paint};
use crate::human;

/// Content up to this size is shown; longer texts are for `/recv` and files for `qpc recv`.
const SHOWN_BYTES_MAX: u64 = 4096;

/// Time between two looks for a node that went away.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// A message that is delivered within this time is not said to wait.
const SOON: Duration = Duration::from_secs(1);

/// Messages that are counted; more are "many".
const COUNTED_MAX: usize = 1000;

/// Shows what arrives, for as long as the session lasts. Says once that the node went away, and once
/// that it is back.
pub async fn watch(node: RunningNode, printer: Printer, paint: Paint) {
    let mut is_gone = false;
    loop {
        let ended = watch_once(&node, &printer, paint, &mut is_gone).await;
        if !is_gone {
            is_gone = true;
            let why = ended.err().map_or_else(|| "it ended".to_owned(), |error| error.message);
            let text = format!("the node went away ({}); commands look for it again", human::escape(&why));
            printer.print(&paint.bad(text));
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

async fn watch_once(
    node: &RunningNode,
    printer: &Printer,
    paint: Paint,
    is_gone: &mut bool,
) -> Result<(), ApiError> {
    let request = Request::InboxWatch { content_bytes_max: SHOWN_BYTES_MAX };
    let mut arriving = node.ask(&request, &[]).await?;
    let _: Done = arriving.one().await?;
    if std::mem::take(is_gone) {
        printer.print(&paint.good("the node is back"));
        if let Some(waiting) = waiting(node).await? {
            printer.print(&waiting);
        }
    }
    while let Some(frame) = arriving.next().await? {
        printer.print(&shown(&frame, paint)?);
    }
    Ok(())
}

/// How many messages wait to be read; none where there are none.
pub async fn waiting(node: &RunningNode) -> Result<Option<String>, ApiError> {
    let mut list = node.ask(&Request::InboxList, &[]).await?;
    let mut count = 0usize;
    while count <= COUNTED_MAX && list.next().await?.is_some() {
        count = count.saturating_add(1);
    }
    Ok(match count {
        0 => None,
        1 => Some("1 message waits in the inbox: /recv reads it".into()),
        n if n > COUNTED_MAX => {
            Some(format!("more than {COUNTED_MAX} messages wait in the inbox: /recv reads them"))
        }
        n => Some(format!("{n} messages wait in the inbox: /recv reads them")),
    })
}

/// A message as a line of the conversation.
fn shown(frame: &ReplyFrame, paint: Paint) -> Result<String, ApiError> {
    let item: InboxItem = frame.parse()?;
    let from = item.from_name.as_deref().map_or_else(|| item.from.to_string(), human::escape);
    let everyone = if item.broadcast { " to everyone" } else { "" };
    let is_whole = frame.payload.len() as u64 == item.size;
    let text = std::str::from_utf8(&frame.payload).ok().filter(|_| is_whole);
    let body = match (&item.name, text) {
        (Some(name), _) => {
            let size = human::bytes(item.size);
            paint.faint(format!("file {} ({size}): `qpc recv --save DIR` takes it", human::escape(name)))
        }
        (None, Some(text)) => human::escape_lines(text, "  "),
        (None, None) => paint.faint(format!("{} in the inbox: /recv reads it", human::bytes(item.size))),
    };
    Ok(format!("{}{everyone}: {body}", paint.name(from)))
}

/// Says what becomes of a message that is on its way to `to`: how it ended, and what it waits for where
/// it does not end soon.
pub async fn follow(mut answers: Answers, queued: SendOutcome, to: String, printer: Printer, paint: Paint) {
    let soon = Instant::now() + SOON;
    let (mut reason, mut told) = (queued.reason, None);
    loop {
        let next = {
            let mut next = std::pin::pin!(answers.next());
            loop {
                tokio::select! {
                    next = &mut next => break next,
                    () = sleep_until(soon), if reason != told => {
                        told.clone_from(&reason);
                        let why = told.as_deref().map(human::escape);
                        let why = why.map_or_else(|| "is on its way".into(), |why| format!("waits ({why})"));
                        printer.print(&paint.faint(format!("to {to}: {why}")));
                    }
                }
            }
        };
        // Where the node went away that is said by itself; the message is on its disk.
        let Ok(Some(frame)) = next else { return };
        let Ok(outcome) = frame.parse::<SendOutcome>() else { return };
        match outcome.status {
            DeliveryStatus::Queued => reason = outcome.reason,
            DeliveryStatus::Delivered => {
                let text = SlashReply::Sent(outcome).to_string();
                // The id is for who looks for it; `/outbox` and `qpc message` have it.
                let text = text.split_once(" in ").map_or(text.as_str(), |(_, how)| how);
                printer.print(&paint.faint(format!("to {to}: delivered in {text}")));
            }
            DeliveryStatus::Expired | DeliveryStatus::Failed => {
                let why = SlashReply::Sent(outcome).failure().unwrap_or_default();
                printer.print(&paint.bad(format!("to {to}: {}", human::escape(&why))));
            }
        }
    }
}
