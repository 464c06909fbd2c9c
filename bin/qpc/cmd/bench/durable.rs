//! Ends that are whole nodes: outbox, inbox and signed receipts.

use std::{path::Path, time::Duration};

use bytes::Bytes;
use quicprochat_mesh::{
    api::ApiError,
    config::{HealthListen, MeshConfig},
    node::{MeshNode, MeshNodeBuilder, Outbound, RunHandle},
    wire::Address,
};
use tokio::{task::JoinSet, time::sleep};

use super::ends::{Incoming, Outgoing};

/// Starts a node that dials `relay` and listens on loopback only.
async fn start(relay: &str, dir: &Path) -> Result<RunHandle, ApiError> {
    let mut config = MeshConfig::default();
    config.transport.listen = vec!["quic://127.0.0.1:0".parse().map_err(ApiError::failed)?];
    config.transport.peers = vec![relay.parse().map_err(ApiError::failed)?];
    let node = MeshNodeBuilder::new().config(config).health_listen(HealthListen::Off).data_dir(dir);
    let node = node.build().await.map_err(ApiError::failed)?;
    node.run().await.map_err(ApiError::failed)
}

/// A node's outbox.
pub struct Source {
    node: RunHandle,
    destination: Address,
    /// Sends that the disk has not taken yet.
    sending: JoinSet<Result<(), ApiError>>,
}

impl Source {
    /// Starts the node and waits until it knows the way to the sink.
    pub async fn start(relay: &str, sink: &str, dir: &Path) -> Result<Self, ApiError> {
        let destination: Address = sink.parse().map_err(ApiError::failed)?;
        let node = start(relay, dir).await?;
        loop {
            let routes = node.node().routes().await.map_err(ApiError::failed)?;
            if routes.iter().any(|line| line.route.destination == destination) {
                return Ok(Self { node, destination, sending: JoinSet::new() });
            }
            sleep(Duration::from_millis(50)).await;
        }
    }
}

impl Outgoing for Source {
    async fn send(&mut self, payload: &[u8]) -> Result<(), ApiError> {
        let (node, message) = (self.node.node().clone(), Bytes::copy_from_slice(payload));
        let destination = self.destination;
        self.sending.spawn(async move { submit(&node, destination, message).await });
        while let Some(sent) = self.sending.try_join_next() {
            sent.map_err(ApiError::failed)??;
        }
        Ok(())
    }

    async fn flush(&mut self) -> Result<(), ApiError> {
        // The node writes by itself; what is due is that its thread gets its turn.
        tokio::task::yield_now().await;
        Ok(())
    }
}

async fn submit(node: &MeshNode, to: Address, message: Bytes) -> Result<(), ApiError> {
    node.send(Outbound::new(to, message)).await.map(|_| ()).map_err(ApiError::failed)
}

/// A node's inbox.
pub struct Sink {
    node: RunHandle,
    after: Option<u64>,
}

impl Sink {
    /// Starts the node.
    pub async fn start(relay: &str, dir: &Path) -> Result<Self, ApiError> {
        Ok(Self { node: start(relay, dir).await?, after: None })
    }

    /// Where to send to.
    pub fn address(&self) -> String {
        self.node.node().address().to_string()
    }
}

impl Incoming for Sink {
    async fn receive(&mut self, out: &mut Vec<Bytes>) -> Result<(), ApiError> {
        let node = self.node.node();
        // A read may have to wait for the commit under way: one is asked for where one will do.
        let (mut messages, _) = node.inbox(self.after).await.map_err(ApiError::failed)?;
        if messages.is_empty() {
            let first = node.next_message(self.after, true).await.map_err(ApiError::failed)?;
            messages.extend(first);
        }
        let mut contents = Vec::with_capacity(messages.len());
        for message in &messages {
            contents.push(node.content(message).await.map_err(ApiError::failed)?);
        }
        // Nothing is awaited from here on, so that a dropped future has taken all or nothing.
        self.after = messages.last().map(|message| message.seq).or(self.after);
        out.extend(contents);
        Ok(())
    }
}
