//! QUIC links. Control, interactive and bulk frames ride on three streams a direction, so that a
//! lost packet of a file delays no chat line and no keepalive.
//!
//! A stream's first byte names its class. Streams are opened when their class is first used.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use bytes::{Bytes, BytesMut};
use quinn::{
    ClientConfig, Connection, ConnectionError, Endpoint, EndpointConfig, IdleTimeout, RecvStream, SendStream,
    ServerConfig, TokioRuntime, TransportConfig, VarInt,
    crypto::rustls::{QuicClientConfig, QuicServerConfig},
};
use rustls::pki_types::CertificateDer;
use tokio::{io::AsyncReadExt, task::AbortHandle};

use super::{
    BoxFuture, Direction, Link, LinkInfo, LinkPeer, LinkReceiver, LinkSender, MeshTransport, TransportAddr,
    TransportCapability, TransportError, TransportInfo,
    accept::{Accepted, Deliver, HANDSHAKE_TIMEOUT, accepted, check_peer, listen_error, resolve},
    framing::{FrameBuffer, put_frame},
    tls::{self, TlsIdentity},
};
use crate::wire::{FrameParts, TrafficClass, limits::FRAME_BYTES_MAX};

/// Streams a peer may have open towards us: one a class.
const STREAMS_MAX: u32 = 3;

/// Bytes of one class that the peer may have under way. A window of 1 MiB fills 80 Mbit/s at 100 ms.
const STREAM_WINDOW: u32 = 1024 * 1024;

/// The link layer pings every 15 s, so a connection that is silent this long is dead.
const IDLE_TIMEOUT: Duration = Duration::from_secs(60);

/// How long a closing connection waits for what was written to be acknowledged.
const FLUSH_WITHIN: Duration = Duration::from_secs(1);

/// A QUIC port: one UDP socket that listens and dials.
#[derive(Debug)]
pub struct QuicTransport {
    identity: TlsIdentity,
    endpoint: Endpoint,
    local: TransportAddr,
    accepted: Accepted,
    accepting: AbortHandle,
}

impl QuicTransport {
    /// Listens on `at`; port 0 takes any free one.
    ///
    /// # Errors
    /// The port is in use or cannot be opened.
    pub async fn bind(at: &TransportAddr, identity: TlsIdentity) -> Result<Self, TransportError> {
        let mut last = None;
        for addr in resolve(at).await? {
            match std::net::UdpSocket::bind(addr) {
                Ok(socket) => return Self::start(socket, identity, at),
                Err(error) => last = Some(error),
            }
        }
        let error = last.unwrap_or_else(|| std::io::ErrorKind::AddrNotAvailable.into());
        Err(listen_error(at, error))
    }

    fn start(
        socket: std::net::UdpSocket,
        identity: TlsIdentity,
        at: &TransportAddr,
    ) -> Result<Self, TransportError> {
        let tls_error = |e: quinn::crypto::rustls::NoInitialCipherSuite| TransportError::Tls(e.to_string());
        let transport = Arc::new(transport_config());
        let server = QuicServerConfig::try_from(identity.server()).map_err(tls_error)?;
        let mut server = ServerConfig::with_crypto(Arc::new(server));
        server.transport_config(transport.clone());
        let client = QuicClientConfig::try_from(identity.client()).map_err(tls_error)?;
        let mut client = ClientConfig::new(Arc::new(client));
        client.transport_config(transport);
        let mut endpoint =
            Endpoint::new(EndpointConfig::default(), Some(server), socket, Arc::new(TokioRuntime))
                .map_err(|e| listen_error(at, e))?;
        endpoint.set_default_client_config(client);
        let bound = endpoint.local_addr().map_err(|e| listen_error(at, e))?;
        let (deliver, accepted) = accepted();
        let accepting = tokio::spawn(accept_all(endpoint.clone(), identity.clone(), deliver)).abort_handle();
        Ok(Self { identity, endpoint, local: TransportAddr::socket("quic", bound), accepted, accepting })
    }

    async fn connect(&self, to: &TransportAddr, at: SocketAddr) -> Result<Link, TransportError> {
        let unreachable = |reason: String| TransportError::Unreachable { addr: to.clone(), reason };
        // A dual-stack socket reaches IPv4 peers by their mapped addresses.
        let at = match (at, self.endpoint.local_addr()) {
            (SocketAddr::V4(v4), Ok(SocketAddr::V6(_))) => {
                SocketAddr::new(v4.ip().to_ipv6_mapped().into(), v4.port())
            }
            (at, _) => at,
        };
        let connecting =
            self.endpoint.connect(at, tls::SERVER_NAME).map_err(|e| unreachable(e.to_string()))?;
        let connection = connecting.await.map_err(|e| match e {
            ConnectionError::TransportError(e) => {
                TransportError::Handshake { addr: to.clone(), reason: e.to_string() }
            }
            other => unreachable(describe(&other)),
        })?;
        open(connection, &self.identity, to.clone(), Direction::Out)
    }
}

impl Drop for QuicTransport {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

fn transport_config() -> TransportConfig {
    let mut config = TransportConfig::default();
    config
        .max_concurrent_uni_streams(VarInt::from_u32(STREAMS_MAX))
        .max_concurrent_bidi_streams(VarInt::from_u32(0))
        .stream_receive_window(VarInt::from_u32(STREAM_WINDOW))
        // The streams' windows add up, so that no class can use up another's.
        .receive_window(VarInt::from_u32(STREAM_WINDOW.saturating_mul(STREAMS_MAX)))
        .send_window(u64::from(STREAM_WINDOW) * u64::from(STREAMS_MAX))
        .datagram_receive_buffer_size(None)
        .max_idle_timeout(IdleTimeout::try_from(IDLE_TIMEOUT).ok());
    config
}

async fn accept_all(endpoint: Endpoint, identity: TlsIdentity, deliver: Deliver) {
    while let Some(incoming) = endpoint.accept().await {
        let remote = TransportAddr::socket("quic", incoming.remote_address());
        let identity = identity.clone();
        let handshake = async move {
            let connection = incoming
                .await
                .map_err(|e| TransportError::Handshake { addr: remote.clone(), reason: describe(&e) })?;
            open(connection, &identity, remote, Direction::In)
        };
        deliver.run("quic", handshake).await;
    }
}

fn describe(error: &ConnectionError) -> String {
    match error {
        ConnectionError::ApplicationClosed(close) => String::from_utf8_lossy(&close.reason).into_owned(),
        ConnectionError::TimedOut => "no answer".into(),
        other => other.to_string(),
    }
}

fn open(
    connection: Connection,
    identity: &TlsIdentity,
    remote: TransportAddr,
    direction: Direction,
) -> Result<Link, TransportError> {
    let failed = |reason: String| TransportError::Handshake { addr: remote.clone(), reason };
    let shown = connection
        .peer_identity()
        .and_then(|any| any.downcast::<Vec<CertificateDer<'static>>>().ok())
        .ok_or_else(|| failed("the peer showed no key".into()))?;
    let peer = tls::peer_key(&shown).map_err(|e| failed(e.to_string()))?;
    let mut channel_binding = [0; 32];
    connection
        .export_keying_material(&mut channel_binding, tls::EXPORTER_LABEL, &[])
        .map_err(|_| failed("no channel binding".into()))?;
    if let Err(error) = check_peer(&identity.own(), &peer, &remote) {
        connection.close(VarInt::from_u32(0), b"wrong peer");
        return Err(error);
    }
    Ok(Link {
        peer: LinkPeer::Authenticated(peer),
        info: LinkInfo {
            remote,
            direction,
            mtu_bytes: FRAME_BYTES_MAX,
            capability: TransportCapability::Unconstrained,
            channel_binding,
        },
        tx: Box::new(QuicSender {
            connection: connection.clone(),
            streams: [None, None, None],
            buffer: BytesMut::new(),
        }),
        rx: Box::new(QuicReceiver { connection, unnamed: None, streams: [None, None, None] }),
    })
}

fn broken(error: &ConnectionError) -> TransportError {
    let by_peer =
        matches!(error, ConnectionError::ApplicationClosed(_) | ConnectionError::ConnectionClosed(_));
    TransportError::Closed { reason: describe(error), by_peer }
}

struct QuicSender {
    connection: Connection,
    streams: [Option<SendStream>; 3],
    buffer: BytesMut,
}

impl LinkSender for QuicSender {
    fn send<'a>(
        &'a mut self,
        class: TrafficClass,
        frames: &'a [FrameParts],
    ) -> BoxFuture<'a, Result<(), TransportError>> {
        Box::pin(async move {
            let [control, interactive, bulk] = &mut self.streams;
            let slot = match class {
                TrafficClass::Control => control,
                TrafficClass::Interactive => interactive,
                TrafficClass::Bulk => bulk,
            };
            self.buffer.clear();
            let stream = match slot {
                Some(stream) => stream,
                None => {
                    let stream = self.connection.open_uni().await.map_err(|e| broken(&e))?;
                    // Keepalives and receipts are worth more than what waits behind them.
                    drop(stream.set_priority(-(class as i32)));
                    self.buffer.extend_from_slice(&[class as u8]);
                    slot.insert(stream)
                }
            };
            for frame in frames {
                put_frame(&mut self.buffer, frame)?;
            }
            stream.write_all(&self.buffer).await.map_err(|e| match e {
                quinn::WriteError::ConnectionLost(e) => broken(&e),
                other => TransportError::broken(other),
            })
        })
    }

    fn close<'a>(&'a mut self, reason: &'a str) -> BoxFuture<'a, ()> {
        Box::pin(async move {
            // Closing discards what is not acknowledged, so the streams are ended first.
            let flush = async {
                for stream in self.streams.iter_mut().flatten() {
                    if stream.finish().is_ok() {
                        drop(stream.stopped().await);
                    }
                }
            };
            drop(tokio::time::timeout(FLUSH_WITHIN, flush).await);
            self.connection.close(VarInt::from_u32(0), reason.as_bytes());
        })
    }
}

struct Inbound {
    stream: RecvStream,
    buffer: FrameBuffer,
    ended: bool,
}

struct QuicReceiver {
    connection: Connection,
    /// A stream whose first byte has not come yet.
    unnamed: Option<RecvStream>,
    streams: [Option<Inbound>; 3],
}

/// Reads what there is; pending for ever where the stream is not open or has ended.
async fn fill(inbound: &mut Option<Inbound>) -> Result<(), TransportError> {
    match inbound {
        Some(inbound) if !inbound.ended => {
            let read = inbound.stream.read_buf(inbound.buffer.room()).await;
            inbound.ended = read.map_err(TransportError::broken)? == 0;
            Ok(())
        }
        _ => std::future::pending().await,
    }
}

async fn name(unnamed: &mut Option<RecvStream>) -> Result<u8, TransportError> {
    match unnamed {
        Some(stream) => stream.read_u8().await.map_err(TransportError::broken),
        None => std::future::pending().await,
    }
}

impl QuicReceiver {
    fn classify(&mut self, class: u8) -> Result<(), TransportError> {
        let slot = self.streams.get_mut(usize::from(class));
        match (slot, self.unnamed.take()) {
            (Some(slot @ None), Some(stream)) => {
                *slot = Some(Inbound { stream, buffer: FrameBuffer::default(), ended: false });
                Ok(())
            }
            _ => Err(TransportError::broken("a stream of a class that is open, or of none")),
        }
    }
}

impl LinkReceiver for QuicReceiver {
    fn recv<'a>(&'a mut self, out: &'a mut Vec<Bytes>) -> BoxFuture<'a, Result<(), TransportError>> {
        Box::pin(async move {
            loop {
                for inbound in self.streams.iter_mut().flatten() {
                    inbound.buffer.drain_into(out)?;
                }
                if !out.is_empty() {
                    return Ok(());
                }
                let [control, interactive, bulk] = &mut self.streams;
                let may_accept = self.unnamed.is_none();
                let class = tokio::select! {
                    biased;
                    filled = fill(control) => { filled?; None }
                    filled = fill(interactive) => { filled?; None }
                    filled = fill(bulk) => { filled?; None }
                    class = name(&mut self.unnamed) => Some(class?),
                    stream = self.connection.accept_uni(), if may_accept => {
                        self.unnamed = Some(stream.map_err(|e| broken(&e))?);
                        None
                    }
                };
                if let Some(class) = class {
                    self.classify(class)?;
                }
            }
        })
    }
}

impl MeshTransport for QuicTransport {
    fn info(&self) -> TransportInfo {
        TransportInfo {
            scheme: "quic",
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
                match tokio::time::timeout(HANDSHAKE_TIMEOUT, self.connect(to, at)).await {
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
        self.endpoint.set_server_config(None);
        self.accepting.abort();
        Box::pin(std::future::ready(()))
    }
}
