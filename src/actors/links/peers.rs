//! What operators say of peers: whom to dial no more, whom to have no link with, and how all stand.

use actix::prelude::*;

use super::{CloseLink, LinksActor, Origin};
use crate::{
    error::MeshError,
    messages::message,
    proto::bans::BANS_MAX,
    transport::TransportAddr,
    wire::{Address, handshake::CloseReason},
};

/// What names peers to be removed.
#[derive(Debug, Clone)]
pub enum PeerName {
    /// Everything that leads to this node.
    Address(Address),
    /// This URL.
    Url(TransportAddr),
}

/// Handle to registry: drop these links and dial them no more. Gives the URLs dropped.
#[derive(Debug, Clone)]
pub struct RemovePeer(pub PeerName);
message!(RemovePeer => Vec<TransportAddr>);

/// Handle to registry: have no link with this node, now and later. Gives the URLs that were dialled for it
/// by a word of run time and are no more.
#[derive(Debug, Clone, Copy)]
pub struct BanPeer(pub Address);
message!(BanPeer => Result<Vec<TransportAddr>, MeshError>);

/// Handle to registry: lift a ban of run time. False where there was none.
#[derive(Debug, Clone, Copy)]
pub struct UnbanPeer(pub Address);
message!(UnbanPeer => bool);

/// Handle to registry: who is banned at run time.
#[derive(Debug, Clone, Copy)]
pub struct ListBans;
message!(ListBans => Vec<Address>);

/// Handle to registry: who is dialled, and how that stands.
#[derive(Debug, Clone, Copy)]
pub struct ListDialled;
message!(ListDialled => Vec<DialledLine>);

/// A peer that is dialled, for `qpc peer list`.
#[derive(Debug, Clone)]
pub struct DialledLine {
    /// Where.
    pub url: TransportAddr,
    /// By whose word.
    pub origin: Origin,
    /// Who is linked there.
    pub linked: Option<Address>,
    /// Why nobody is.
    pub trouble: Option<String>,
}

impl LinksActor {
    /// Closes all links with this node; gives their other ends.
    fn close_all(&mut self, node: &Address, reason: CloseReason, text: &str) -> Vec<TransportAddr> {
        let of_node = self.links.values().filter(|entry| entry.peer == *node);
        of_node
            .map(|entry| {
                // One that has not said hello is closed as well.
                if let Some(close) = entry.close.get() {
                    close.do_send(CloseLink { reason, text: text.to_owned() });
                }
                entry.info.remote.clone()
            })
            .collect()
    }
}

impl Handler<RemovePeer> for LinksActor {
    type Result = MessageResult<RemovePeer>;

    fn handle(&mut self, message: RemovePeer, _: &mut Context<Self>) -> Self::Result {
        let mut removed = Vec::new();
        for entry in self.links.values() {
            let named = match &message.0 {
                PeerName::Address(address) => entry.peer == *address,
                PeerName::Url(url) => entry.info.remote.same_place(url),
            };
            if named {
                removed.push(entry.info.remote.clone());
                if let Some(up) = &entry.up {
                    let text = "removed by the operator".to_owned();
                    up.close.do_send(CloseLink { reason: CloseReason::Removed, text });
                }
            }
        }
        if let PeerName::Url(url) = &message.0 {
            // Once, and as it was named: its dialler may have a pin that the link's end has not.
            removed.retain(|end| !end.same_place(url));
            removed.push(url.clone());
        }
        removed.retain(|url| {
            let name = self
                .diallers
                .keys()
                .find(|name| name.parse::<TransportAddr>().is_ok_and(|dialled| dialled.same_place(url)));
            match name.cloned() {
                // Dropping the sender ends the dialler.
                Some(name) => {
                    self.parts.peers.remove(url);
                    self.diallers.remove(&name).is_some()
                }
                None => self.links.values().any(|e| e.info.remote.same_place(url)),
            }
        });
        MessageResult(removed)
    }
}

impl Handler<BanPeer> for LinksActor {
    type Result = Result<Vec<TransportAddr>, MeshError>;

    fn handle(&mut self, BanPeer(node): BanPeer, _: &mut Context<Self>) -> Self::Result {
        if !self.parts.book.ban(node) {
            return Err(MeshError::Refused(format!(
                "{BANS_MAX} nodes are banned, and no more can be: lift some with `qpc peer unban`, or say in \
                 the configuration who may link (`peers.allow`)"
            )));
        }
        let ends = self.close_all(&node, CloseReason::NotAllowed, "banned by the operator");
        let added = self.parts.peers.list().into_iter().filter(|(_, origin)| *origin == Origin::Added);
        let gone: Vec<TransportAddr> = added
            .map(|(url, _)| url)
            .filter(|url| url.pin() == Some(&node) || ends.iter().any(|end| end.same_place(url)))
            .collect();
        for url in &gone {
            self.parts.peers.remove(url);
            // Dropping its sender ends the dialler.
            self.diallers.remove(&url.to_string());
        }
        Ok(gone)
    }
}

impl Handler<UnbanPeer> for LinksActor {
    type Result = bool;

    fn handle(&mut self, UnbanPeer(node): UnbanPeer, _: &mut Context<Self>) -> bool {
        let was_banned = self.parts.book.unban(&node);
        if was_banned {
            for dialled in self.diallers.values() {
                // One of them may have waited for this.
                dialled.retry.notify_one();
            }
        }
        was_banned
    }
}

impl Handler<ListBans> for LinksActor {
    type Result = MessageResult<ListBans>;

    fn handle(&mut self, _: ListBans, _: &mut Context<Self>) -> Self::Result {
        MessageResult(self.parts.book.banned())
    }
}

impl Handler<ListDialled> for LinksActor {
    type Result = MessageResult<ListDialled>;

    fn handle(&mut self, _: ListDialled, _: &mut Context<Self>) -> Self::Result {
        let lines = self.parts.peers.list().into_iter().map(|(url, origin)| {
            let up = self.links.values().filter(|entry| entry.up.is_some());
            let linked = up
                .filter(|entry| entry.info.remote.same_place(&url) || url.pin() == Some(&entry.peer))
                .map(|entry| entry.peer)
                .next();
            let dialled = self.diallers.get(&url.to_string());
            let trouble = dialled.and_then(|dialled| dialled.trouble.borrow().clone());
            DialledLine { url, origin, linked, trouble: trouble.filter(|_| linked.is_none()) }
        });
        MessageResult(lines.collect())
    }
}
