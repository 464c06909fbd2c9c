//! Peers of a node: its links, whom it dials, whom it has no link with.

use super::{MeshNode, ask, service::ms};
use crate::{
    actors::links::{
        AddPeer, BanPeer, DialledLine, ListBans, ListDialled, ListPeers, PeerLine, PeerName, RemovePeer,
        UnbanPeer,
    },
    api::{ApiError, Capability, Direction, Peer, PeerEntry, PeerKind, PeerState},
    error::MeshError,
    storage::{LocalOp, Namespace},
    transport::{TransportAddr, TransportCapability},
    wire::Address,
};

impl MeshNode {
    /// The links.
    ///
    /// # Errors
    /// The node does not run.
    pub async fn peers(&self) -> Result<Vec<PeerLine>, MeshError> {
        ask(&self.0.seats.list_peers, "link registry", ListPeers).await
    }

    /// Whom the node dials, of the configuration and added at run time, and how that goes.
    ///
    /// # Errors
    /// The node does not run.
    pub async fn dialled(&self) -> Result<Vec<DialledLine>, MeshError> {
        ask(&self.0.seats.list_dialled, "link registry", ListDialled).await
    }

    /// Keeps a link to this peer from now on; remembered over restarts.
    ///
    /// # Errors
    /// No port of that scheme; the node does not run.
    pub async fn add_peer(&self, url: TransportAddr) -> Result<(), MeshError> {
        ask(&self.0.seats.add_peer, "link registry", AddPeer(url.clone())).await??;
        self.remember_peer(&url).await
    }

    /// Drops links to this peer and dials it no more. Gives what was dropped.
    ///
    /// # Errors
    /// The node does not run.
    pub async fn remove_peer(&self, peer: PeerName) -> Result<Vec<TransportAddr>, MeshError> {
        let removed = ask(&self.0.seats.remove_peer, "link registry", RemovePeer(peer)).await?;
        for url in &removed {
            self.forget_peer(url).await?;
        }
        Ok(removed)
    }

    /// Has no link with this node from now on, whoever dials; remembered over restarts. Links that stand are
    /// closed, and what was added at run time to dial it is forgotten.
    ///
    /// # Errors
    /// Too many bans; the store; the node does not run.
    pub async fn ban_peer(&self, node: Address) -> Result<(), MeshError> {
        let gone = ask(&self.0.seats.ban_peer, "link registry", BanPeer(node)).await??;
        let put = LocalOp::KvPut { namespace: Namespace::Ban, key: node.0.to_vec(), value: Vec::new() };
        self.kv(put).await?;
        for url in &gone {
            self.forget_peer(url).await?;
        }
        Ok(())
    }

    /// Lifts a ban of run time. False where there was none.
    ///
    /// # Errors
    /// The store; the node does not run.
    pub async fn unban_peer(&self, node: Address) -> Result<bool, MeshError> {
        // First what a restart would read.
        let remove = LocalOp::KvRemove { namespace: Namespace::Ban, key: node.0.to_vec() };
        self.kv(remove).await?;
        ask(&self.0.seats.unban_peer, "link registry", UnbanPeer(node)).await
    }

    /// Whom the configuration says to dial.
    fn configured(&self) -> Vec<TransportAddr> {
        self.live_config().transport.peers.iter().filter_map(|peer| peer.to_string().parse().ok()).collect()
    }

    /// True where the configuration says to dial this node: by its pin, or by where it is linked.
    async fn is_configured(&self, node: &Address) -> Result<bool, ApiError> {
        let configured = self.configured();
        let lines = self.peers().await.map_err(ApiError::failed)?;
        let is_linked_there = |line: &PeerLine| configured.iter().any(|c| c.same_place(&line.info.remote));
        Ok(configured.iter().any(|url| url.pin() == Some(node))
            || lines.iter().any(|line| line.address == *node && is_linked_there(line)))
    }

    /// Drops a peer by its address or URL, unless the configuration names it.
    pub(super) async fn take_peer_out(&self, peer: &str) -> Result<(), ApiError> {
        let node = self;
        let name = match peer.parse::<TransportAddr>() {
            Ok(url) => PeerName::Url(url),
            Err(_) => PeerName::Address(node.resolve(peer, false).await?),
        };
        let configured = self.configured();
        let in_config = match &name {
            PeerName::Url(url) => configured.iter().any(|c| c.same_place(url)),
            PeerName::Address(address) => {
                let lines = node.peers().await.map_err(ApiError::failed)?;
                lines
                    .iter()
                    .any(|l| l.address == *address && configured.iter().any(|c| c.same_place(&l.info.remote)))
            }
        };
        if in_config {
            return Err(ApiError::failed(
                "this peer stands in the configuration: remove it from `peers` there, then `qpc reload`",
            ));
        }
        let removed = node.remove_peer(name).await.map_err(ApiError::failed)?;
        if removed.is_empty() {
            return Err(ApiError::failed(format!("{peer} is no peer of this node; see `qpc peers`")));
        }
        Ok(())
    }

    /// Bans a peer by its address, unless the configuration says to dial it.
    pub(super) async fn ban(&self, peer: &str) -> Result<(), ApiError> {
        let address = self.resolve(peer, false).await?;
        if address == self.address() {
            return Err(ApiError::usage("this is the node itself, which has no link with itself anyway"));
        }
        if self.is_configured(&address).await? {
            return Err(ApiError::failed(
                "the configuration says to dial this peer: remove it from `peers` there, then `qpc reload` \
                 and ban it",
            ));
        }
        self.ban_peer(address).await.map_err(ApiError::failed)
    }

    /// Lifts a ban that `qpc peer ban` made.
    pub(super) async fn lift_ban(&self, peer: &str) -> Result<(), ApiError> {
        let address = self.resolve(peer, false).await?;
        let denied = self.config().peers.deny.contains(&address);
        let was_banned = self.unban_peer(address).await.map_err(ApiError::failed)?;
        match (denied, was_banned) {
            (true, _) => Err(ApiError::failed(
                "the configuration denies this peer: remove it from `peers.deny` there and restart the node",
            )),
            (false, true) => Ok(()),
            (false, false) => Err(ApiError::failed(format!("{address} is not banned; see `qpc peer list`"))),
        }
    }

    /// Whom the node dials, and with whom it has links or none by somebody's word.
    pub(super) async fn peer_list(&self) -> Result<Vec<PeerEntry>, ApiError> {
        let seats = &self.0.seats;
        let dialled = self.dialled().await.map_err(ApiError::failed)?;
        let banned = ask(&seats.list_bans, "link registry", ListBans).await.map_err(ApiError::failed)?;
        let mut out: Vec<PeerEntry> = dialled
            .into_iter()
            .map(|line| PeerEntry {
                kind: match line.origin.name() {
                    "config" => PeerKind::Config,
                    _ => PeerKind::Added,
                },
                address: line.linked.or(line.url.pin().copied()),
                url: Some(line.url.to_string()),
                state: if line.linked.is_some() { PeerState::Linked } else { PeerState::Dialled },
                reason: line.trouble,
            })
            .collect();
        let named = |kind, state| {
            move |address: Address| PeerEntry { kind, address: Some(address), url: None, state, reason: None }
        };
        let lists = &self.config().peers;
        out.extend(banned.into_iter().map(named(PeerKind::Banned, PeerState::Refused)));
        out.extend(lists.deny.iter().copied().map(named(PeerKind::Deny, PeerState::Refused)));
        let linked: Vec<Address> =
            self.peers().await.map_err(ApiError::failed)?.iter().map(|line| line.address).collect();
        out.extend(lists.allow.iter().map(|address| {
            let state = if linked.contains(address) { PeerState::Linked } else { PeerState::Allowed };
            named(PeerKind::Allow, state)(*address)
        }));
        Ok(out)
    }
}

/// The links, as `qpc peers` tells them.
pub(super) async fn peers(node: &MeshNode) -> Result<Vec<Peer>, ApiError> {
    Ok(node.peers().await.map_err(ApiError::failed)?.iter().map(peer).collect())
}

fn peer(line: &PeerLine) -> Peer {
    Peer {
        address: Some(line.address),
        url: line.info.remote.to_string(),
        transport: line.info.remote.scheme().to_owned(),
        direction: match line.info.direction {
            crate::transport::Direction::In => Direction::In,
            crate::transport::Direction::Out => Direction::Out,
        },
        origin: line.origin.name().to_owned(),
        since_s: line.since.as_secs(),
        rtt_ms: line.stats.rtt.map(ms),
        tx_frames: line.stats.tx_frames,
        rx_frames: line.stats.rx_frames,
        tx_bytes: line.stats.tx_bytes,
        rx_bytes: line.stats.rx_bytes,
        capability: match line.info.capability {
            TransportCapability::Unconstrained => Capability::Unconstrained,
            TransportCapability::Medium => Capability::Medium,
            TransportCapability::Constrained => Capability::Constrained,
            TransportCapability::SeverelyConstrained => Capability::SeverelyConstrained,
        },
        rssi_dbm: None,
        snr_db: None,
    }
}
