//! Carrying a command out.

use std::time::Duration;

use base64::{Engine, engine::general_purpose::STANDARD};
use serde_json::{Map, Value};
use sha2::Digest as _;
use tokio::time::{Instant, timeout_at};

use super::{
    Answers, SlashBackend, SlashCommand,
    reply::{Party, SlashReply, Taken, WhoAmI},
    table::{COMMANDS, rows_of},
};
use crate::{
    api::{
        ApiError, Contact, DeliveryStatus, Done, InboxItem, Known, MessageId, Peer, Pong, Priority, Received,
        Request, SendOutcome, Status, Target, Trace,
    },
    config::nearest,
    control::ReplyFrame,
    wire::{Address, Digest},
};

/// How long `/msg` waits for the signed receipt before it says that the message is on its way.
const RECEIPT_PATIENCE: Duration = Duration::from_secs(2);

/// How long `/mesh trace` waits for answers.
const TRACE_PATIENCE_MS: u64 = 10_000;

/// `/ping`: how many, from one to the next, and how long each is waited for.
const PINGS: (u32, u64, u64) = (3, 200, 5_000);

/// Content up to this size is read by `/recv`; larger one is for files.
const SHOWN_BYTES_MAX: usize = 64 * 1024;

/// Carries a command out on a node.
///
/// `/recv` leaves what it gives in the inbox until [`confirm_slash`] says that it was shown. `/msg` waits
/// two seconds for the receipt and then answers `queued`: the message goes on. `/to` resolves the address
/// and changes nothing in the node; `/help` and `/quit` ask nobody.
///
/// # Errors
/// No node is there (class `NoNode`), or what the node says against it.
pub async fn execute_slash<B>(backend: &B, command: &SlashCommand) -> Result<SlashReply, ApiError>
where
    B: SlashBackend + ?Sized,
{
    let ask = |request: Request| async move { backend.ask(&request, &[]).await };
    Ok(match command {
        SlashCommand::To { to: None } => SlashReply::Conversation(None),
        SlashCommand::To { to: Some(to) } => {
            SlashReply::Conversation(Some(resolve_target(backend, to).await?))
        }
        SlashCommand::Msg { to, text } => {
            let mut answers = backend.ask(&send_request(to), text.as_bytes()).await?;
            SlashReply::Sent(fate(&mut answers, RECEIPT_PATIENCE).await?)
        }
        SlashCommand::Broadcast { text } => {
            let request = Request::Broadcast { ttl_ms: None, max_hops: None, file_name: None };
            let id: MessageId = backend.ask(&request, text.as_bytes()).await?.one().await?;
            SlashReply::Broadcast(id)
        }
        SlashCommand::Inbox => SlashReply::Inbox(ask(Request::InboxList).await?.all().await?),
        SlashCommand::Recv { count } => SlashReply::Received(take(backend, *count).await?),
        SlashCommand::Outbox => SlashReply::Outbox(ask(Request::OutboxList).await?.all().await?),
        SlashCommand::Contacts => SlashReply::Contacts(ask(Request::ContactList).await?.all().await?),
        SlashCommand::ContactAdd { name, address } => {
            let request = Request::ContactAdd { name: name.clone(), address: address.clone() };
            SlashReply::ContactAdded(ask(request).await?.one().await?)
        }
        SlashCommand::ContactRemove { name } => {
            let request = Request::ContactRemove { name: name.clone() };
            let done: Done = ask(request).await?.one().await?;
            SlashReply::ContactRemoved(done)
        }
        SlashCommand::WhoAmI => {
            let status: Status = ask(Request::Status).await?.one().await?;
            SlashReply::WhoAmI(WhoAmI::of(status))
        }
        SlashCommand::Status => SlashReply::Status(ask(Request::Status).await?.one().await?),
        SlashCommand::Known => SlashReply::Known(ask(Request::Known).await?.all().await?),
        SlashCommand::Ping { to } => {
            let (count, interval_ms, timeout_ms) = PINGS;
            let request = Request::Ping { destination: to.clone(), count, interval_ms, timeout_ms };
            let pongs: Vec<Pong> = ask(request).await?.all().await?;
            SlashReply::Ping(pongs)
        }
        SlashCommand::MeshTrace { to } => {
            let request = Request::Trace { destination: to.clone(), timeout_ms: TRACE_PATIENCE_MS };
            let trace: Trace = ask(request).await?.one().await?;
            SlashReply::Trace(trace)
        }
        SlashCommand::MeshStats => {
            let stats: Map<String, Value> = ask(Request::Stats).await?.one().await?;
            SlashReply::Stats(stats)
        }
        SlashCommand::MeshPeers => SlashReply::Peers(ask(Request::Peers).await?.all().await?),
        SlashCommand::MeshRoutes => {
            SlashReply::Routes(ask(Request::Routes { destination: None }).await?.all().await?)
        }
        SlashCommand::Help { command: None } => SlashReply::Help(COMMANDS.to_vec()),
        SlashCommand::Help { command: Some(command) } => SlashReply::Help(rows_of(command)),
        SlashCommand::Quit => SlashReply::Quit,
    })
}

/// Takes what a reply of `/recv` holds out of the inbox, now that it was shown; does nothing for any
/// other reply. A message that somebody else took meanwhile is no error.
///
/// # Errors
/// The node is gone: what was shown stays in the inbox.
pub async fn confirm_slash<B>(backend: &B, reply: &SlashReply) -> Result<(), ApiError>
where
    B: SlashBackend + ?Sized,
{
    let SlashReply::Received(taken) = reply else { return Ok(()) };
    for message in &taken.messages {
        let mut answers = backend.ask(&Request::InboxAck { id: message.id }, &[]).await?;
        // The node refuses what is not there any more.
        let _ = answers.next().await;
    }
    Ok(())
}

/// The request of one message with the usual priority and lifetime, whose fate is told.
pub fn send_request(to: &str) -> Request {
    Request::Send { to: to.to_owned(), priority: Priority::Normal, ttl_ms: None, wait: true, file_name: None }
}

/// The last that is said about a message within `patience`. That the node goes away meanwhile does not
/// undo what it has on disk.
pub(super) async fn fate(answers: &mut Answers, patience: Duration) -> Result<SendOutcome, ApiError> {
    let deadline = Instant::now() + patience;
    let mut latest: SendOutcome = answers.one().await?;
    while latest.status == DeliveryStatus::Queued {
        match timeout_at(deadline, answers.next()).await {
            Ok(Ok(Some(frame))) => latest = frame.parse()?,
            _ => break,
        }
    }
    latest.progress = None;
    Ok(latest)
}

/// Whom `text` means, as the node resolves it for messages: all digits, a unique prefix among contacts
/// and links, or a contact's name; an unknown name is answered with the nearest one.
///
/// # Errors
/// Nobody, or several; the node.
pub async fn resolve_target<B>(backend: &B, text: &str) -> Result<Party, ApiError>
where
    B: SlashBackend + ?Sized,
{
    let target = Target::parse(text)?;
    let contacts: Vec<Contact> = backend.ask(&Request::ContactList, &[]).await?.all().await?;
    let links: Vec<Address> = match &target {
        Target::Prefix(_) => {
            let peers: Vec<Peer> = backend.ask(&Request::Peers, &[]).await?.all().await?;
            peers.into_iter().filter_map(|peer| peer.address).collect()
        }
        _ => Vec::new(),
    };
    let names: Vec<(String, Address)> = contacts.iter().map(|c| (c.name.clone(), c.address)).collect();
    let known = Known { contacts: &names, links: &links, announced: &[] };
    let address = target.resolve(&known).map_err(|error| match &target {
        Target::Name(name) => match nearest(name, names.iter().map(|(name, _)| name.as_str())) {
            Some(near) => ApiError::new(
                error.class,
                format!("no contact is called {name:?}: did you mean {near:?}? /contacts lists them"),
            ),
            None => ApiError::new(
                error.class,
                format!("no contact is called {name:?}: /contact add NAME ADDRESS makes one"),
            ),
        },
        _ => error,
    })?;
    let name = names.iter().find(|(_, of)| *of == address).map(|(name, _)| name.clone());
    Ok(Party { address, name })
}

/// The oldest messages that can be shown, and how many were passed over because they cannot.
async fn take<B>(backend: &B, count: u32) -> Result<Taken, ApiError>
where
    B: SlashBackend + ?Sized,
{
    let request = Request::Recv { count: Some(u64::from(count)), wait: false, keep: true };
    let mut answers = backend.ask(&request, &[]).await?;
    let mut taken = Taken { messages: Vec::new(), files_left: 0 };
    while let Some(frame) = answers.next().await? {
        match received(&frame)? {
            message if message.name.is_none() && message.text.is_some() => taken.messages.push(message),
            _ => taken.files_left = taken.files_left.saturating_add(1),
        }
        if let Some(number) = frame.ack {
            answers.acknowledge(number).await?;
        }
    }
    Ok(taken)
}

/// A message as `recv` gives it: text where it is short text, else base64 where it is short.
pub(super) fn received(frame: &ReplyFrame) -> Result<Received, ApiError> {
    let item: InboxItem = frame.parse()?;
    let content = &frame.payload;
    let is_short = content.len() <= SHOWN_BYTES_MAX;
    let text = std::str::from_utf8(content).ok().filter(|_| is_short).map(str::to_owned);
    let payload_b64 = (text.is_none() && is_short).then(|| STANDARD.encode(content));
    Ok(Received {
        id: item.id,
        from: item.from,
        from_name: item.from_name,
        broadcast: item.broadcast,
        sent_at: item.sent_at,
        received_at: item.received_at,
        hops: item.hops,
        size: item.size,
        name: item.name,
        text,
        payload_b64,
        file: None,
        sha256: Digest(sha2::Sha256::digest(content).into()),
    })
}
