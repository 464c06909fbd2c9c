//! What the control socket asks about people and events, answered.

use super::{MeshNode, service::Names};
use crate::{
    api::{ApiError, Blocked, EventItem, Request, RequestAnswered, SenderRequest, Timestamp},
    control::ReplyTx,
    events::Event,
};

/// Serves what concerns who may reach the person here.
pub(super) async fn serve(node: &MeshNode, request: Request, replies: &ReplyTx) -> Result<(), ApiError> {
    let names = Names::of(node).await?;
    match request {
        Request::Block { address } => {
            let address = node.resolve(&address, true).await?;
            if address == node.address() {
                return Err(ApiError::usage("this is this node's own address"));
            }
            node.block(address).await.map_err(ApiError::failed)?;
            replies.send(Blocked { address, name: names.of_address(&address) }).await?;
        }
        Request::Unblock { address } => {
            let address = match unique_prefix(&address, node.blocked()) {
                Some(address) => address,
                None => node.resolve(&address, true).await?,
            };
            if !node.unblock(address).await.map_err(ApiError::failed)? {
                return Err(ApiError::failed(format!("{address} is not blocked; see `qpc blocked`")));
            }
            replies.send(Blocked { address, name: names.of_address(&address) }).await?;
        }
        Request::BlockedList => {
            for address in node.blocked() {
                replies.send(Blocked { address, name: names.of_address(&address) }).await?;
            }
        }
        Request::RequestList => {
            for of in node.requests().await.map_err(ApiError::failed)? {
                let super::SenderRequest { from, messages, bytes, preview, .. } = of;
                let (first_at, last_at) = (Timestamp(of.first_at_unix_ms), Timestamp(of.last_at_unix_ms));
                replies.send(SenderRequest { from, messages, bytes, first_at, last_at, preview }).await?;
            }
        }
        Request::RequestAnswer { address, accept } => {
            let waiting = node.requests().await.map_err(ApiError::failed)?;
            let from = match unique_prefix(&address, waiting.iter().map(|request| request.from)) {
                Some(from) => from,
                None => node.resolve(&address, true).await?,
            };
            if !waiting.iter().any(|request| request.from == from) {
                return Err(ApiError::failed(format!(
                    "nothing of {from} waits to be accepted; see `qpc requests list`"
                )));
            }
            let messages = match accept {
                true => node.accept(from).await,
                false => node.decline(from).await,
            };
            let messages = messages.map_err(ApiError::failed)?;
            replies.send(RequestAnswered { from, accepted: accept, messages }).await?;
        }
        _ => return Err(ApiError::failed("this is no request about people")),
    }
    Ok(())
}

/// The one of `among` that begins with these digits, where they are at least as many as a prefix needs.
fn unique_prefix(
    text: &str,
    among: impl IntoIterator<Item = crate::wire::Address>,
) -> Option<crate::wire::Address> {
    let target = crate::api::Target::parse(text).ok()?;
    let mut found = among.into_iter().filter(|address| target.may_mean(address));
    let first = found.next()?;
    found.next().is_none().then_some(first)
}

/// Tells what happened, and what happens for as long as the client listens.
pub(super) async fn events(node: &MeshNode, follow: bool, replies: &ReplyTx) -> Result<(), ApiError> {
    let item = |event: Event| EventItem { at: Timestamp(event.at_unix_ms), kind: event.kind };
    let mut events = node.events();
    while let Some(event) = events.past() {
        replies.send(item(event)).await?;
    }
    if !follow {
        return Ok(());
    }
    loop {
        tokio::select! {
            event = events.next() => match event {
                Some(event) => replies.send(item(event)).await?,
                None => return Ok(()),
            },
            () = replies.closed() => return Ok(()),
        }
    }
}
