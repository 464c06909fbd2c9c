//! Links over QUIC: TLS by node identity, a stream for each class.
//!
//! One UDP socket listens and dials. Each side opens at most three unidirectional streams, one a
//! class; the first byte of a stream is its class, frames behind 16-bit lengths follow. A class
//! whose reader is slow fills its own window and holds up no other.
//!
//! Memory of one link is bounded by its windows: 128 KiB a stream and three streams, so 384 KiB of
//! received bytes and as many sent and unacknowledged at worst; an idle one holds about 40 KiB. The
//! connection's window is the sum of its streams', so a full stream cannot starve another. 500
//! links that all stand still at both ends are 375 MiB; 128 KiB in flight a class carry 21 Mbit/s
//! at 50 ms round trip.
//!
//! Links within a local network, which may be radio, have a congestion control of their own
//! (`transport/congestion.rs`); those to elsewhere have CUBIC.
//!
//! Keepalive is off: the link layer pings. The idle timeout of 60 s is what is left when it cannot.

mod link;
mod runtime;

use std::{
    any::Any,
    fmt,
    net::{Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket},
    sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError},
    time::Duration,
};

use quinn::{
    AckFrequencyConfig, ConnectError, Connecting, Connection, ConnectionError, Endpoint, EndpointConfig,
    Incoming, TransportConfig, VarInt,
    crypto::rustls::{HandshakeData, QuicClientConfig, QuicServerConfig},
};
use rustls::pki_types::CertificateDer;
use tokio::{task::JoinHandle, time::timeout};

use crate::wire::limits::FRAME_BYTES_MAX;

use self::{
    link::{QuicReceiver, QuicSender, STREAMS, closed},
    runtime::LinkRuntime,
};
use super::{
    BoxFuture, CloseCode, Direction, Link, LinkInfo, LinkPeer, MeshTransport, PortStats, TransportAddr,
    TransportCapability, TransportError, TransportInfo, addr,
    congestion::FlooredCubicConfig,
    dial::{race, resolve},
    gate::{Gate, Ticket},
    inbox::Inbox,
    lanes::{Lane, Lanes},
    tls::{self, TlsIdentity},
};

/// Connection attempts that wait for the accept loop. It only hands them on, so few ever wait.
const INCOMING_MAX: usize = 1_024;

/// Early packets kept for all of them together.
const INCOMING_BYTES_MAX: u64 = 4 * 1024 * 1024;

/// Packets that may go unacknowledged, and for how long, as each side asks of the other (QUIC
/// Acknowledgement Frequency, draft-ietf-quic-ack-frequency). By default every second packet is
/// acknowledged: on a relay that passes on one message a packet, a third of all packets. A loss is
/// still told at once. The time is what a sender waits whose window is smaller than so many packets.
const UNACKNOWLEDGED_MAX: u32 = 9;
const ACK_DELAY_MAX: Duration = Duration::from_millis(5);

/// Bounds of a QUIC port.
#[derive(Debug, Clone)]
pub struct QuicOptions {
    /// Longest handshake, in and out.
    pub handshake_timeout: Duration,
    /// Inbound handshakes under way at once; beyond it the oldest of the network prefix with the
    /// most of them is dropped. From a quarter of it on, newcomers have to show that their address
    /// is theirs first (Retry), which costs them a round trip and us nothing.
    pub handshakes_max: usize,
    /// Silence after which a link is lost.
    pub idle_timeout: Duration,
    /// Received bytes of one class that wait for the reader.
    pub stream_window_bytes: u32,
    /// Where sockets (at home) and connections (each on its link's lane) are driven.
    pub lanes: Lanes,
}

impl Default for QuicOptions {
    fn default() -> Self {
        Self {
            handshake_timeout: Duration::from_secs(10),
            handshakes_max: 256,
            idle_timeout: Duration::from_secs(60),
            stream_window_bytes: 128 * 1024,
            lanes: Lanes::default(),
        }
    }
}

/// A QUIC port. Dropping it stops listening; its links stay until they are closed.
pub struct QuicPort {
    shared: Arc<Shared>,
    local: TransportAddr,
    accepting: Mutex<Option<JoinHandle<()>>>,
}

struct Shared {
    identity: TlsIdentity,
    options: QuicOptions,
    /// For links to elsewhere.
    wide: Arc<TransportConfig>,
    /// For links within a local network.
    near: Arc<TransportConfig>,
    /// For those of them that come in.
    near_server: OnceLock<Arc<quinn::ServerConfig>>,
    inbox: Inbox,
    gate: Arc<Gate>,
    endpoints: Mutex<Endpoints>,
}

/// The port's sockets.
#[derive(Default)]
struct Endpoints {
    listening: Option<Endpoint>,
    /// For addresses the listening socket has no way to: bound to loopback, or to one family.
    dialling_v4: Option<Endpoint>,
    dialling_v6: Option<Endpoint>,
}

impl QuicPort {
    /// Listens at `at` (`quic://HOST:PORT`, port 0 for any free one) and dials.
    ///
    /// # Errors
    /// [`TransportError::PortInUse`] and the other local errors of a listener.
    pub async fn listen(
        identity: &TlsIdentity,
        at: &TransportAddr,
        options: QuicOptions,
    ) -> Result<Self, TransportError> {
        let at = at.clone().with_pin(None);
        let mut failed = TransportError::Unsupported { scheme: addr::QUIC, what: "listen there" };
        for address in resolve(&at).await? {
            match UdpSocket::bind(address) {
                Ok(socket) => return Self::serve(identity, options, socket, &at),
                Err(error) => failed = TransportError::from_io(&at, &error),
            }
        }
        Err(failed)
    }

    /// Dials only.
    pub fn dial_only(identity: &TlsIdentity, options: QuicOptions) -> Self {
        let shared = Arc::new(Shared::new(identity, options));
        let local = TransportAddr::socket(addr::QUIC, (Ipv6Addr::UNSPECIFIED, 0).into());
        Self { shared, local, accepting: Mutex::new(None) }
    }

    fn serve(
        identity: &TlsIdentity,
        options: QuicOptions,
        socket: UdpSocket,
        at: &TransportAddr,
    ) -> Result<Self, TransportError> {
        let io = |error| TransportError::from_io(at, &error);
        let shared = Arc::new(Shared::new(identity, options));
        let bound = socket.local_addr().map_err(io)?;
        let config = shared.server_config()?;
        // The same but for its transport, so that what one gave out the other knows.
        let mut near = config.clone();
        near.transport_config(Arc::clone(&shared.near));
        shared.near_server.get_or_init(|| Arc::new(near));
        let endpoint =
            Endpoint::new(EndpointConfig::default(), Some(config), socket, shared.runtime()).map_err(io)?;
        shared.lock().listening = Some(endpoint.clone());
        let task = tokio::spawn(accept_loop(Arc::clone(&shared), endpoint));
        let local = TransportAddr::socket(addr::QUIC, bound);
        Ok(Self { shared, local, accepting: Mutex::new(Some(task)) })
    }

    /// The sockets live on as long as links use them; strangers are refused from here on.
    fn shut(&self) {
        self.shared.inbox.close();
        if let Some(task) = self.accepting.lock().unwrap_or_else(PoisonError::into_inner).take() {
            task.abort();
        }
        self.shared.gate.clear();
        if let Endpoints { listening: Some(endpoint), .. } = std::mem::take(&mut *self.shared.lock()) {
            endpoint.set_server_config(None);
        }
    }
}

impl Shared {
    fn new(identity: &TlsIdentity, options: QuicOptions) -> Self {
        Self {
            identity: identity.clone(),
            wide: Arc::new(transport_config(&options)),
            near: Arc::new(near_transport_config(&options)),
            near_server: OnceLock::new(),
            inbox: Inbox::new(addr::QUIC),
            gate: Gate::new(options.handshakes_max),
            endpoints: Mutex::default(),
            options,
        }
    }

    fn runtime(&self) -> Arc<LinkRuntime> {
        Arc::new(LinkRuntime { home: self.options.lanes.home() })
    }

    fn lock(&self) -> MutexGuard<'_, Endpoints> {
        self.endpoints.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// For peers that are elsewhere.
    fn server_config(&self) -> Result<quinn::ServerConfig, TransportError> {
        let tls = QuicServerConfig::try_from(self.identity.server_config()?).map_err(no_initial_suite)?;
        let mut config = quinn::ServerConfig::with_crypto(Arc::new(tls));
        config.transport_config(Arc::clone(&self.wide));
        config.max_incoming(INCOMING_MAX);
        config.incoming_buffer_size(INCOMING_BYTES_MAX / 64);
        config.incoming_buffer_size_total(INCOMING_BYTES_MAX);
        Ok(config)
    }

    async fn dial(self: &Arc<Self>, to: &TransportAddr) -> Result<Link, TransportError> {
        let attempt = async { race(resolve(to).await?, |address| self.dial_address(to, address)).await };
        let limit = self.options.handshake_timeout;
        timeout(limit, attempt).await.unwrap_or_else(|_| Err(timed_out(to, limit)))
    }

    async fn dial_address(
        self: &Arc<Self>,
        to: &TransportAddr,
        address: SocketAddr,
    ) -> Result<Link, TransportError> {
        // The socket is at home whatever lane the link is on.
        let endpoint = self.endpoint_towards(to, address)?;
        let (dialler, to) = (Arc::clone(self), to.clone());
        let handshake = |lane| async move { dialler.shake_hands(&endpoint, &to, address, lane).await };
        let shaken = self.options.lanes.enter().run(handshake).await;
        shaken.unwrap_or(Err(TransportError::PortClosed))
    }

    async fn shake_hands(
        &self,
        endpoint: &Endpoint,
        to: &TransportAddr,
        address: SocketAddr,
        lane: Lane,
    ) -> Result<Link, TransportError> {
        let check = self.identity.check(to.pin().copied());
        let tls = self.identity.client_config(Arc::clone(&check))?;
        let tls = QuicClientConfig::try_from(tls).map_err(no_initial_suite)?;
        let config = quinn::ClientConfig::new(Arc::new(tls));
        let connecting = self
            .connect(endpoint, config, address)
            .map_err(|error| TransportError::Io { url: to.clone(), detail: error.to_string() })?;
        let connection = connecting
            .await
            .map_err(|error| check.error_or(to, || handshake_error(to, &error, self.options.idle_timeout)))?;
        self.link(to, connection, Direction::Out, lane)
    }

    fn connect(
        &self,
        endpoint: &Endpoint,
        mut config: quinn::ClientConfig,
        address: SocketAddr,
    ) -> Result<Connecting, ConnectError> {
        let transport = if addr::is_near(address.ip()) { &self.near } else { &self.wide };
        config.transport_config(Arc::clone(transport));
        endpoint.connect_with(config, address, tls::NO_NAME)
    }

    fn accept(&self, incoming: Incoming) -> Result<Connecting, ConnectionError> {
        match self.near_server.get().filter(|_| addr::is_near(incoming.remote_address().ip())) {
            Some(near) => incoming.accept_with(Arc::clone(near)),
            None => incoming.accept(),
        }
    }

    /// The listening socket where it can reach `address`, else one made for it.
    fn endpoint_towards(&self, to: &TransportAddr, address: SocketAddr) -> Result<Endpoint, TransportError> {
        if self.inbox.is_closed() {
            return Err(TransportError::PortClosed);
        }
        let mut endpoints = self.lock();
        if let Some(listening) = &endpoints.listening
            && listening.local_addr().is_ok_and(|local| reaches(local, address))
        {
            return Ok(listening.clone());
        }
        let (slot, any) = if address.is_ipv4() {
            (&mut endpoints.dialling_v4, SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0)))
        } else {
            (&mut endpoints.dialling_v6, SocketAddr::from((Ipv6Addr::UNSPECIFIED, 0)))
        };
        if let Some(endpoint) = slot {
            return Ok(endpoint.clone());
        }
        let endpoint = UdpSocket::bind(any)
            .and_then(|socket| Endpoint::new(EndpointConfig::default(), None, socket, self.runtime()));
        let endpoint = endpoint.map_err(|error| TransportError::from_io(to, &error))?;
        Ok(slot.insert(endpoint).clone())
    }

    async fn greet(&self, incoming: Incoming, ticket: Ticket, lane: Lane) {
        let url = TransportAddr::socket(addr::QUIC, canonical(incoming.remote_address()));
        let limit = self.options.handshake_timeout;
        let handshake = async { self.accept(incoming)?.await };
        let greeted = match timeout(limit, handshake).await {
            Ok(Ok(connection)) => self.link(&url, connection, Direction::In, lane),
            Ok(Err(error)) => Err(handshake_error(&url, &error, self.options.idle_timeout)),
            Err(_) => Err(timed_out(&url, limit)),
        };
        drop(ticket);
        self.inbox.greeted(greeted).await;
    }

    /// The link of a finished handshake with `url`.
    fn link(
        &self,
        url: &TransportAddr,
        connection: Connection,
        direction: Direction,
        lane: Lane,
    ) -> Result<Link, TransportError> {
        let alpn = downcast::<HandshakeData>(connection.handshake_data()).and_then(|data| data.protocol);
        let certificates = downcast::<Vec<CertificateDer<'static>>>(connection.peer_identity());
        let key = tls::proven_key(url, certificates.as_deref(), alpn.as_deref())?;
        let mut channel_binding = [0; 32];
        connection.export_keying_material(&mut channel_binding, tls::CHANNEL_BINDING_LABEL, &[]).map_err(
            |_| TransportError::Handshake { url: url.clone(), detail: "the session exports no keys".into() },
        )?;
        let idle_timeout = self.options.idle_timeout;
        Ok(Link {
            peer: LinkPeer::Authenticated(key),
            info: LinkInfo {
                remote: url.clone(),
                direction,
                mtu_bytes: FRAME_BYTES_MAX,
                capability: TransportCapability::Unconstrained,
                streams_per_class: true,
                channel_binding,
            },
            tx: Box::new(QuicSender::new(connection.clone(), idle_timeout)),
            rx: Box::new(QuicReceiver::new(connection, idle_timeout)),
            lane,
        })
    }
}

async fn accept_loop(shared: Arc<Shared>, endpoint: Endpoint) {
    while let Some(incoming) = endpoint.accept().await {
        let busy = shared.gate.len().saturating_mul(4) >= shared.options.handshakes_max;
        let incoming = if busy && !incoming.remote_address_validated() && incoming.may_retry() {
            match incoming.retry() {
                Ok(()) => continue,
                Err(refused) => refused.into_incoming(),
            }
        } else {
            incoming
        };
        let (greeter, from) = (Arc::clone(&shared), incoming.remote_address().ip());
        let evicted = &shared.inbox.counters.handshakes_evicted;
        let lane = shared.options.lanes.enter();
        shared.gate.admit(from, evicted, lane, |ticket, lane| async move {
            greeter.greet(incoming, ticket, lane).await;
        });
    }
}

fn transport_config(options: &QuicOptions) -> TransportConfig {
    let streams = u8::try_from(STREAMS).unwrap_or(u8::MAX);
    let window = options.stream_window_bytes.max(1);
    // The sum of the streams' windows: none can use up another's.
    let link_window = window.saturating_mul(u32::from(streams));
    let idle = u32::try_from(options.idle_timeout.as_millis()).unwrap_or(u32::MAX);
    let mut acks = AckFrequencyConfig::default();
    acks.ack_eliciting_threshold(VarInt::from_u32(UNACKNOWLEDGED_MAX)).max_ack_delay(Some(ACK_DELAY_MAX));
    let mut config = TransportConfig::default();
    config
        .ack_frequency_config(Some(acks))
        .max_concurrent_bidi_streams(VarInt::from_u32(0))
        .max_concurrent_uni_streams(VarInt::from_u32(streams.into()))
        .stream_receive_window(VarInt::from_u32(window))
        .receive_window(VarInt::from_u32(link_window))
        .send_window(link_window.into())
        .max_idle_timeout(Some(VarInt::from_u32(idle).into()))
        .keep_alive_interval(None)
        .datagram_receive_buffer_size(None);
    config
}

/// Of links within a local network, which may be radio.
fn near_transport_config(options: &QuicOptions) -> TransportConfig {
    let mut config = transport_config(options);
    config.congestion_controller_factory(Arc::new(FlooredCubicConfig::default()));
    config
}

impl MeshTransport for QuicPort {
    fn info(&self) -> TransportInfo {
        TransportInfo {
            scheme: addr::QUIC,
            local: self.local.clone(),
            mtu_bytes: FRAME_BYTES_MAX,
            capability: TransportCapability::Unconstrained,
            shared_medium: false,
        }
    }

    fn dial<'a>(&'a self, to: &'a TransportAddr) -> BoxFuture<'a, Result<Link, TransportError>> {
        Box::pin(self.shared.dial(to))
    }

    fn accept(&self) -> BoxFuture<'_, Result<Link, TransportError>> {
        Box::pin(self.shared.inbox.accept())
    }

    fn discover(&self) -> BoxFuture<'_, Result<Vec<TransportAddr>, TransportError>> {
        let open = !self.shared.inbox.is_closed();
        Box::pin(async move { if open { Ok(Vec::new()) } else { Err(TransportError::PortClosed) } })
    }

    fn stats(&self) -> PortStats {
        self.shared.inbox.stats()
    }

    fn close(&self) -> BoxFuture<'_, ()> {
        self.shut();
        Box::pin(async {})
    }
}

impl Drop for QuicPort {
    fn drop(&mut self) {
        self.shut();
    }
}

impl fmt::Debug for QuicPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "QuicPort({})", self.local)
    }
}

/// True where a socket bound to `local` has a way to `remote`: a wildcard to all of its family, a
/// loopback one to loopback, any other to all but loopback. An IPv6 wildcard takes IPv4 along.
fn reaches(local: SocketAddr, remote: SocketAddr) -> bool {
    let same_family = local.is_ipv4() == remote.is_ipv4();
    if local.ip().is_unspecified() {
        return same_family || local.is_ipv6();
    }
    same_family && local.ip().is_loopback() == remote.ip().is_loopback()
}

fn canonical(address: SocketAddr) -> SocketAddr {
    match address.ip().to_canonical() {
        ip if ip.is_ipv4() => SocketAddr::new(ip, address.port()),
        _ => address,
    }
}

fn varint(code: CloseCode) -> VarInt {
    VarInt::from_u32(code.0)
}

fn downcast<T: 'static>(any: Option<Box<dyn Any>>) -> Option<T> {
    any.and_then(|any| any.downcast().ok()).map(|boxed| *boxed)
}

fn no_initial_suite(error: impl fmt::Display) -> TransportError {
    TransportError::LocalKey { detail: error.to_string() }
}

fn timed_out(url: &TransportAddr, after: Duration) -> TransportError {
    let after_ms = u64::try_from(after.as_millis()).unwrap_or(u64::MAX);
    TransportError::TimedOut { url: url.clone(), after_ms }
}

/// Why a handshake with `url` came to nothing.
fn handshake_error(url: &TransportAddr, error: &ConnectionError, idle_timeout: Duration) -> TransportError {
    let url = url.clone();
    match error {
        ConnectionError::TimedOut => timed_out(&url, idle_timeout),
        ConnectionError::LocallyClosed => TransportError::PortClosed,
        ConnectionError::ApplicationClosed(close) => closed(close),
        // Refused by quinn before any TLS: the port is being closed or has no room.
        ConnectionError::ConnectionClosed(close) if u64::from(close.error_code) == 0x2 => {
            TransportError::Refused { url }
        }
        other => TransportError::Handshake { url, detail: other.to_string() },
    }
}

#[cfg(test)]
mod tests {
    use super::super::congestion::is_floored_cubic;
    use super::*;
    use crate::crypto::MeshIdentity;

    /// A connection between two ports, both ends.
    async fn connected() -> (QuicPort, Connection, Connection) {
        let identity = |n| TlsIdentity::from_pkcs8(&MeshIdentity::from_seed([n; 32]).to_pkcs8_der()).unwrap();
        let at = "quic://127.0.0.1:0".parse().unwrap();
        let port = QuicPort::listen(&identity(1), &at, QuicOptions::default()).await.unwrap();
        // This test accepts in its place.
        port.accepting.lock().unwrap().take().unwrap().abort();
        let endpoint = port.shared.lock().listening.clone().unwrap();
        let dialler = QuicPort::dial_only(&identity(2), QuicOptions::default());
        let tls = dialler.shared.identity.client_config(dialler.shared.identity.check(None)).unwrap();
        let config = quinn::ClientConfig::new(Arc::new(QuicClientConfig::try_from(tls).unwrap()));
        let to = endpoint.local_addr().unwrap();
        let from = dialler.shared.endpoint_towards(&at, to).unwrap();
        let dialled = dialler.shared.connect(&from, config, to).unwrap();
        let accepted = port.shared.accept(endpoint.accept().await.unwrap()).unwrap();
        let (dialled, accepted) = tokio::join!(dialled, accepted);
        (port, dialled.unwrap(), accepted.unwrap())
    }

    #[tokio::test]
    async fn both_ends_of_a_link_within_a_local_network_go_on_under_loss() {
        let (_port, dialled, accepted) = connected().await;
        for end in [dialled, accepted] {
            assert!(is_floored_cubic(end.congestion_state()), "{}", end.remote_address());
        }
    }

    #[tokio::test]
    async fn each_side_asks_the_other_to_acknowledge_less() {
        let (_port, dialled, accepted) = connected().await;
        for (from, to) in [(&dialled, &accepted), (&accepted, &dialled)] {
            let mut stream = from.open_uni().await.unwrap();
            stream.write_all(b"a frame").await.unwrap();
            stream.finish().unwrap();
            assert_eq!(to.accept_uni().await.unwrap().read_to_end(100).await.unwrap(), b"a frame");
        }
        for end in [dialled, accepted] {
            assert!(end.stats().frame_rx.ack_frequency >= 1, "{:?}", end.stats().frame_rx);
        }
    }

    #[test]
    fn a_socket_dials_only_where_it_has_a_way_to() {
        #[track_caller]
        fn check(local: &str, remote: &str, expected: bool) {
            assert_eq!(reaches(local.parse().unwrap(), remote.parse().unwrap()), expected);
        }
        check("[::]:1", "192.0.2.1:1", true);
        check("[::]:1", "[::1]:1", true);
        check("0.0.0.0:1", "127.0.0.1:1", true);
        check("0.0.0.0:1", "[2001:db8::1]:1", false);
        check("127.0.0.1:1", "127.0.0.2:1", true);
        check("127.0.0.1:1", "192.0.2.1:1", false);
        check("192.0.2.1:1", "127.0.0.1:1", false);
        check("192.0.2.1:1", "198.51.100.1:1", true);
    }
}
