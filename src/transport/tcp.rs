//! TCP links: the node's TLS identity over a stream, frames with a length prefix.

use std::net::SocketAddr;

use rustls::pki_types::ServerName;
use tokio::{
    net::{TcpListener, TcpStream},
    task::AbortHandle,
};
use tokio_rustls::{TlsAcceptor, TlsConnector, TlsStream};

use super::{
    BoxFuture, Direction, Link, LinkInfo, LinkPeer, MeshTransport, TransportAddr, TransportCapability,
    TransportError, TransportInfo,
    accept::{Accepted, Deliver, HANDSHAKE_TIMEOUT, accepted, check_peer, listen_error, resolve},
    stream::{StreamReceiver, StreamSender},
    tls::{self, TlsIdentity},
};
use crate::wire::limits::FRAME_BYTES_MAX;

/// A TCP port: one listening socket, and dialling with the same identity.
#[derive(Debug)]
pub struct TcpTransport {
    identity: TlsIdentity,
    local: TransportAddr,
    accepted: Accepted,
    accepting: AbortHandle,
}

impl TcpTransport {
    /// Listens on `at`; port 0 takes any free one.
    ///
    /// # Errors
    /// The port is in use or cannot be opened.
    pub async fn bind(at: &TransportAddr, identity: TlsIdentity) -> Result<Self, TransportError> {
        let mut last = None;
        for addr in resolve(at).await? {
            match TcpListener::bind(addr).await {
                Ok(listener) => return Self::start(listener, identity, at),
                Err(error) => last = Some(error),
            }
        }
        let error = last.unwrap_or_else(|| std::io::ErrorKind::AddrNotAvailable.into());
        Err(listen_error(at, error))
    }

    fn start(
        listener: TcpListener,
        identity: TlsIdentity,
        at: &TransportAddr,
    ) -> Result<Self, TransportError> {
        let bound = listener.local_addr().map_err(|e| listen_error(at, e))?;
        let (deliver, accepted) = accepted();
        let accepting = tokio::spawn(accept_all(listener, identity.clone(), deliver)).abort_handle();
        Ok(Self { identity, local: TransportAddr::socket("tcp", bound), accepted, accepting })
    }
}

impl Drop for TcpTransport {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

async fn accept_all(listener: TcpListener, identity: TlsIdentity, deliver: Deliver) {
    let acceptor = TlsAcceptor::from(identity.server());
    loop {
        match listener.accept().await {
            Ok((stream, from)) => {
                let (acceptor, identity) = (acceptor.clone(), identity.clone());
                let handshake = async move {
                    let remote = TransportAddr::socket("tcp", from);
                    let failed = |e: std::io::Error| TransportError::Handshake {
                        addr: TransportAddr::socket("tcp", from),
                        reason: e.to_string(),
                    };
                    stream.set_nodelay(true).map_err(failed)?;
                    let stream = acceptor.accept(stream).await.map_err(failed)?;
                    open(TlsStream::Server(stream), &identity, remote, Direction::In)
                };
                deliver.run("tcp", handshake).await;
            }
            Err(error) => {
                // Out of file descriptors, most likely: links that close will free some.
                tracing::warn!(%error, "cannot accept TCP connections for now");
                tokio::time::sleep(std::time::Duration::from_millis(100)).await;
            }
        }
    }
}

fn open(
    stream: TlsStream<TcpStream>,
    identity: &TlsIdentity,
    remote: TransportAddr,
    direction: Direction,
) -> Result<Link, TransportError> {
    let failed = |reason: String| TransportError::Handshake { addr: remote.clone(), reason };
    let (_, session) = stream.get_ref();
    let certificates = session.peer_certificates().ok_or_else(|| failed("the peer showed no key".into()))?;
    let peer = tls::peer_key(certificates).map_err(|e| failed(e.to_string()))?;
    if session.alpn_protocol() != Some(tls::ALPN) {
        return Err(failed("the peer speaks another protocol".into()));
    }
    let exported = match &stream {
        TlsStream::Client(s) => s.get_ref().1.export_keying_material([0; 32], tls::EXPORTER_LABEL, None),
        TlsStream::Server(s) => s.get_ref().1.export_keying_material([0; 32], tls::EXPORTER_LABEL, None),
    };
    let channel_binding = exported.map_err(|e| failed(e.to_string()))?;
    check_peer(&identity.own(), &peer, &remote)?;
    let (rx, tx) = tokio::io::split(stream);
    Ok(Link {
        peer: LinkPeer::Authenticated(peer),
        info: LinkInfo {
            remote,
            direction,
            mtu_bytes: FRAME_BYTES_MAX,
            capability: TransportCapability::Unconstrained,
            channel_binding,
        },
        tx: Box::new(StreamSender::new(tx)),
        rx: Box::new(StreamReceiver::new(rx)),
    })
}

async fn connect(to: &TransportAddr, at: SocketAddr, identity: &TlsIdentity) -> Result<Link, TransportError> {
    let unreachable =
        |e: std::io::Error| TransportError::Unreachable { addr: to.clone(), reason: e.to_string() };
    let stream = TcpStream::connect(at).await.map_err(unreachable)?;
    stream.set_nodelay(true).map_err(unreachable)?;
    let failed = |reason: String| TransportError::Handshake { addr: to.clone(), reason };
    let name = ServerName::try_from(tls::SERVER_NAME).map_err(|e| failed(e.to_string()))?;
    let stream = TlsConnector::from(identity.client())
        .connect(name, stream)
        .await
        .map_err(|e| failed(e.to_string()))?;
    open(TlsStream::Client(stream), identity, to.clone(), Direction::Out)
}

impl MeshTransport for TcpTransport {
    fn info(&self) -> TransportInfo {
        TransportInfo {
            scheme: "tcp",
            local: self.local.clone(),
            mtu_bytes: FRAME_BYTES_MAX,
            capability: TransportCapability::Unconstrained,
            shared_medium: false,
        }
    }

    fn dial<'a>(&'a self, to: &'a TransportAddr) -> BoxFuture<'a, Result<Link, TransportError>> {
        Box::pin(async move {
            let mut last = TransportError::Unreachable { addr: to.clone(), reason: "no address".into() };
            for at in resolve(to).await? {
                match tokio::time::timeout(HANDSHAKE_TIMEOUT, connect(to, at, &self.identity)).await {
                    Ok(Ok(link)) => return Ok(link),
                    Ok(Err(error)) => last = error,
                    Err(_) => {
                        last = TransportError::Unreachable {
                            addr: to.clone(),
                            reason: "no answer in 10 s".into(),
                        };
                    }
                }
            }
            Err(last)
        })
    }

    fn accept(&self) -> BoxFuture<'_, Result<Link, TransportError>> {
        Box::pin(self.accepted.next())
    }

    fn close(&self) -> BoxFuture<'_, ()> {
        self.accepting.abort();
        Box::pin(std::future::ready(()))
    }
}
