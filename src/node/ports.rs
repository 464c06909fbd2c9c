//! The media a node opens: what it listens on, and what it only dials with.

#![cfg_attr(
    not(any(feature = "quic", feature = "tcp")),
    expect(unused, reason = "without its own media a node has those that its program brings")
)]

use std::{sync::Arc, time::Duration};

#[cfg(feature = "quic")]
use crate::transport::{QuicOptions, QuicPort};
#[cfg(feature = "tcp")]
use crate::transport::{TcpOptions, TcpPort};
use crate::{
    config::MeshConfig,
    crypto::MeshIdentity,
    error::MeshError,
    transport::{Lanes, MeshTransport, TlsIdentity, TransportAddr, TransportError, TransportManager, addr},
};

/// The ports of one node.
pub(super) struct Ports {
    /// Dials over all of them.
    pub(super) manager: Arc<TransportManager>,
    /// Ports that accept.
    pub(super) listening: Vec<Arc<dyn MeshTransport>>,
    /// Where those listen, with their real ports.
    pub(super) urls: Vec<TransportAddr>,
}

/// Opens every port, with the links of all of them on `lanes`. A scheme that is not listened on gets a
/// port that only dials.
pub(super) async fn bind(
    config: &MeshConfig,
    identity: &MeshIdentity,
    own: Vec<Arc<dyn MeshTransport>>,
    lanes: Lanes,
) -> Result<Ports, MeshError> {
    let tls = TlsIdentity::from_pkcs8(&identity.to_pkcs8_der())?;
    let how = How { tls, handshake_timeout: config.transport.dial_timeout, lanes };
    let mut manager = TransportManager::new();
    let mut listening: Vec<Arc<dyn MeshTransport>> = Vec::new();
    for url in config.listen_urls() {
        let at: TransportAddr = url.to_string().parse()?;
        listening.push(how.open_port(&at).await?);
    }
    listening.extend(own);
    let mut urls = Vec::new();
    for port in &listening {
        urls.push(port.info().local);
        manager.add(port.clone());
    }
    let listens = |scheme: &str| listening.iter().any(|port| port.info().scheme == scheme);
    #[cfg(feature = "quic")]
    if !listens(addr::QUIC) {
        manager.add(Arc::new(QuicPort::dial_only(&how.tls, how.quic())));
    }
    #[cfg(feature = "tcp")]
    if !listens(addr::TCP) {
        manager.add(Arc::new(TcpPort::dial_only(&how.tls, how.tcp())));
    }
    Ok(Ports { manager: Arc::new(manager), listening, urls })
}

/// How ports of a node's own media are opened.
struct How {
    tls: TlsIdentity,
    handshake_timeout: Duration,
    lanes: Lanes,
}

impl How {
    #[cfg(feature = "quic")]
    fn quic(&self) -> QuicOptions {
        let (handshake_timeout, lanes) = (self.handshake_timeout, self.lanes.clone());
        QuicOptions { handshake_timeout, lanes, ..QuicOptions::default() }
    }

    #[cfg(feature = "tcp")]
    fn tcp(&self) -> TcpOptions {
        let (handshake_timeout, lanes) = (self.handshake_timeout, self.lanes.clone());
        TcpOptions { handshake_timeout, lanes, ..TcpOptions::default() }
    }

    async fn open_port(&self, at: &TransportAddr) -> Result<Arc<dyn MeshTransport>, TransportError> {
        match at.scheme() {
            #[cfg(feature = "quic")]
            scheme if scheme == addr::QUIC => {
                Ok(Arc::new(QuicPort::listen(&self.tls, at, self.quic()).await?))
            }
            #[cfg(feature = "tcp")]
            scheme if scheme == addr::TCP => Ok(Arc::new(TcpPort::listen(&self.tls, at, self.tcp()).await?)),
            _ => Err(TransportError::NoPort { url: at.clone(), have: Vec::new() }),
        }
    }
}
