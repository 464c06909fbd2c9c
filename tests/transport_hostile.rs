//! What strangers do to listening sockets: other protocols, garbage, silence, floods, and peers that
//! prove a key and then break the framing. Each is refused by name, and honest peers notice nothing.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{
    collections::HashMap,
    future::Future,
    io,
    net::SocketAddr,
    pin::Pin,
    sync::{Arc, Mutex},
    task::{self, Poll},
    time::Duration,
};

use quicprochat_mesh::{
    crypto::MeshIdentity,
    transport::{
        Link, MeshTransport, QuicOptions, QuicPort, TcpOptions, TcpPort, TlsIdentity, TransportAddr,
        TransportError, tls::ALPN,
    },
    wire::{FrameParts, TrafficClass, limits::FRAME_BYTES_MAX},
};
use rustls::{
    ClientConfig, DigitallySignedStruct, NamedGroup, SignatureScheme,
    client::{
        AlwaysResolvesClientRawPublicKeys,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    },
    crypto::{CryptoProvider, aws_lc_rs},
    pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, ServerName, UnixTime},
    sign::CertifiedKey,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpStream, UdpSocket},
};

const PATIENCE: Duration = Duration::from_secs(180);

async fn within<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, future).await.expect("it takes for ever")
}

fn pkcs8(seed: u8) -> Vec<u8> {
    MeshIdentity::from_seed([seed; 32]).to_pkcs8_der().to_vec()
}

fn tls(seed: u8) -> TlsIdentity {
    TlsIdentity::from_pkcs8(&pkcs8(seed)).unwrap()
}

fn any(scheme: &str) -> TransportAddr {
    format!("{scheme}://127.0.0.1:0").parse().unwrap()
}

async fn tcp_port(options: TcpOptions) -> TcpPort {
    TcpPort::listen(&tls(1), &any("tcp"), options).await.unwrap()
}

async fn quic_port() -> QuicPort {
    QuicPort::listen(&tls(1), &any("quic"), QuicOptions::default()).await.unwrap()
}

fn socket_of(port: &dyn MeshTransport) -> SocketAddr {
    port.info().local.socket_addr().unwrap()
}

/// An honest peer links up and is heard, in spite of whatever goes on.
async fn honest_peers_are_served(port: &dyn MeshTransport) {
    let honest: Box<dyn MeshTransport> = match port.info().scheme {
        "quic" => Box::new(QuicPort::dial_only(&tls(9), QuicOptions::default())),
        _ => Box::new(TcpPort::dial_only(&tls(9), TcpOptions::default())),
    };
    let url = port.info().local;
    let (here, there) = within(async { tokio::join!(honest.dial(&url), port.accept()) }).await;
    let (mut here, mut there) = (here.expect("a link"), there.expect("its other end"));
    within(here.tx.send(TrafficClass::Control, &["hello".as_bytes().to_vec()].map(frame))).await.unwrap();
    let mut got = Vec::new();
    within(there.rx.recv(&mut got)).await.unwrap();
    assert_eq!(got, ["hello"]);
}

fn frame(bytes: Vec<u8>) -> FrameParts {
    FrameParts::whole(bytes)
}

/// Waits until the port has refused `count` handshakes.
async fn refused(port: &dyn MeshTransport, count: u64) {
    within(async {
        while port.stats().handshakes_failed < count {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
    assert_eq!(port.stats().handshakes_failed, count);
    assert_eq!(port.stats().accepted, 0);
}

/// Takes any server, with a raw key or a certificate.
#[derive(Debug)]
struct Gullible {
    raw: bool,
}

impl ServerCertVerifier for Gullible {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ED25519, SignatureScheme::ECDSA_NISTP256_SHA256]
    }

    fn requires_raw_public_keys(&self) -> bool {
        self.raw
    }
}

/// A client that proves key `seed`, if any, and offers `alpn`.
fn client(seed: Option<u8>, raw: bool, alpn: &[&[u8]]) -> ClientConfig {
    client_with(aws_lc_rs::default_provider(), seed, raw, alpn)
}

fn client_with(provider: CryptoProvider, seed: Option<u8>, raw: bool, alpn: &[&[u8]]) -> ClientConfig {
    let provider = Arc::new(provider);
    let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Gullible { raw }));
    let mut config = match seed {
        None => builder.with_no_client_auth(),
        Some(seed) => {
            let der = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(pkcs8(seed)));
            let key = provider.key_provider.load_private_key(der).unwrap();
            let spki = key.public_key().unwrap().to_vec();
            let certified = CertifiedKey::new(vec![CertificateDer::from(spki)], key);
            builder.with_client_cert_resolver(Arc::new(AlwaysResolvesClientRawPublicKeys::new(Arc::new(
                certified,
            ))))
        }
    };
    config.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
    config
}

fn name() -> ServerName<'static> {
    ServerName::try_from("mesh.invalid").unwrap()
}

type ClientStream = tokio_rustls::client::TlsStream<TcpStream>;

async fn tls_client(at: SocketAddr, config: ClientConfig) -> std::io::Result<ClientStream> {
    let tcp = TcpStream::connect(at).await?;
    tokio_rustls::TlsConnector::from(Arc::new(config)).connect(name(), tcp).await
}

/// Reads until the other side ends the connection.
async fn read_out(stream: &mut (impl AsyncReadExt + Unpin)) -> Vec<u8> {
    let mut all = Vec::new();
    // A reset is an end as well.
    let _ = within(stream.read_to_end(&mut all)).await;
    all
}

#[tokio::test]
async fn clients_of_other_protocols_are_refused() {
    let port = tcp_port(TcpOptions::default()).await;
    let at = socket_of(&port);
    let refusals: [(&str, ClientConfig); 4] = [
        ("another protocol", client(Some(2), true, &[b"h2"])),
        ("no protocol at all", client(Some(2), true, &[])),
        ("no key", client(None, true, &[ALPN])),
        ("certificates only", client(None, false, &[ALPN])),
    ];
    for (count, (what, config)) in (1..).zip(refusals) {
        // Some learn it in the handshake, some at their first read.
        if let Ok(mut stream) = within(tls_client(at, config)).await {
            assert_eq!(read_out(&mut stream).await, b"", "{what}");
        }
        refused(&port, count).await;
    }
    honest_peers_are_served(&port).await;
}

#[tokio::test]
async fn garbage_on_a_tcp_port_is_refused() {
    let port = tcp_port(TcpOptions::default()).await;
    let garbage: [&[u8]; 4] = [b"GET / HTTP/1.1\r\n\r\n", &[0xff; 4_096], &[0; 64], b"\x16\x03\x01\xff\xff"];
    for (count, bytes) in (1..).zip(garbage) {
        let mut stream = TcpStream::connect(socket_of(&port)).await.unwrap();
        stream.write_all(bytes).await.unwrap();
        stream.shutdown().await.unwrap();
        read_out(&mut stream).await;
        refused(&port, count).await;
    }
    honest_peers_are_served(&port).await;
}

#[tokio::test]
async fn a_silent_client_is_cut_off_and_disturbs_nobody() {
    let handshake_timeout = Duration::from_millis(700);
    let port = tcp_port(TcpOptions { handshake_timeout, ..TcpOptions::default() }).await;
    let began = tokio::time::Instant::now();
    let mut silent = TcpStream::connect(socket_of(&port)).await.unwrap();
    honest_peers_are_served(&port).await;
    assert_eq!(read_out(&mut silent).await, b"");
    assert!(began.elapsed() >= handshake_timeout, "cut off for another reason");
    within(async {
        while port.stats().handshakes_failed == 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
}

#[tokio::test]
async fn a_flood_of_silent_clients_keeps_no_honest_one_out() {
    let port = tcp_port(TcpOptions { handshakes_max: 8, ..TcpOptions::default() }).await;
    let mut silent = Vec::new();
    for _ in 0..40 {
        silent.push(TcpStream::connect(socket_of(&port)).await.unwrap());
    }
    honest_peers_are_served(&port).await;
    assert!(port.stats().handshakes_evicted >= 32, "{:?}", port.stats());
}

/// A peer that proved its key and speaks bytes of its own choice, and the port's end of the link.
async fn raw_tcp_peer(port: &TcpPort) -> (ClientStream, Link) {
    let dial = tls_client(socket_of(port), client(Some(2), true, &[ALPN]));
    let (stream, link) = within(async { tokio::join!(dial, port.accept()) }).await;
    (stream.unwrap(), link.unwrap())
}

async fn error_of(link: &mut Link) -> TransportError {
    let mut got = Vec::new();
    within(async {
        loop {
            if let Err(error) = link.rx.recv(&mut got).await {
                return error;
            }
        }
    })
    .await
}

#[tokio::test]
async fn a_peer_that_breaks_the_framing_over_tcp_is_cut_with_the_reason() {
    let port = tcp_port(TcpOptions::default()).await;
    let too_large = u16::try_from(FRAME_BYTES_MAX + 1).unwrap().to_be_bytes();
    type IsExpected = fn(&TransportError) -> bool;
    let faults: [(&[u8], IsExpected, bool); 3] = [
        (&too_large, |e| matches!(e, TransportError::FrameTooLarge { from_peer: true, .. }), true),
        (&[0, 0], |e| matches!(e, TransportError::EmptyFrame { from_peer: true }), true),
        // Torn, then gone: that is a broken connection, nobody's fault.
        (&[0, 9, 1], |e| matches!(e, TransportError::Lost { .. }), false),
    ];
    for (bytes, is_expected, blames) in faults {
        let (mut peer, mut link) = raw_tcp_peer(&port).await;
        peer.write_all(&[0, 2, b'o', b'k']).await.unwrap();
        peer.write_all(bytes).await.unwrap();
        peer.flush().await.unwrap();
        if !blames {
            peer.shutdown().await.unwrap();
        }
        let mut got = Vec::new();
        within(link.rx.recv(&mut got)).await.expect("what came before the fault is handed out");
        assert_eq!(got, ["ok"]);
        let error = error_of(&mut link).await;
        assert!(is_expected(&error), "{error:?}");
        assert_eq!((error.is_peer_fault(), error.ends_link()), (blames, true));
        let told = read_out(&mut peer).await;
        if blames {
            // Close mark, code PROTOCOL.
            assert_eq!(told.get(..6), Some(&[0xff, 0xff, 0, 0, 0, 3][..]), "{told:?}");
        }
    }
    honest_peers_are_served(&port).await;
}

#[tokio::test]
async fn the_hybrid_key_exchange_is_what_links_use() {
    let port = tcp_port(TcpOptions::default()).await;
    let (peer, _link) = raw_tcp_peer(&port).await;
    let session = peer.get_ref().1;
    let group = session.negotiated_key_exchange_group().map(|group| group.name());
    assert_eq!(group, Some(NamedGroup::X25519MLKEM768));
    assert_eq!(session.protocol_version(), Some(rustls::ProtocolVersion::TLSv1_3));
}

#[tokio::test]
async fn a_peer_without_the_hybrid_exchange_still_links_and_no_session_resumes() {
    let port = tcp_port(TcpOptions::default()).await;
    let provider =
        CryptoProvider { kx_groups: vec![aws_lc_rs::kx_group::X25519], ..aws_lc_rs::default_provider() };
    let config = client_with(provider, Some(2), true, &[ALPN]);
    let config = Arc::new(config);
    for _ in 0..2 {
        let tcp = TcpStream::connect(socket_of(&port)).await.unwrap();
        let dial = tokio_rustls::TlsConnector::from(Arc::clone(&config)).connect(name(), tcp);
        let (stream, link) = within(async { tokio::join!(dial, port.accept()) }).await;
        let (mut stream, mut link) = (stream.unwrap(), link.unwrap());
        // A byte each way, so that a ticket would have had its time.
        link.tx.send(TrafficClass::Control, &[frame(vec![1])]).await.unwrap();
        let mut got = [0; 3];
        within(stream.read_exact(&mut got)).await.unwrap();
        assert_eq!(stream.get_ref().1.handshake_kind(), Some(rustls::HandshakeKind::Full));
    }
}

fn quic_client(config: ClientConfig) -> quinn::Endpoint {
    let tls = quinn::crypto::rustls::QuicClientConfig::try_from(config).unwrap();
    let mut endpoint = quinn::Endpoint::client(([127, 0, 0, 1], 0).into()).unwrap();
    endpoint.set_default_client_config(quinn::ClientConfig::new(Arc::new(tls)));
    endpoint
}

#[tokio::test]
async fn quic_clients_of_other_protocols_are_refused() {
    let port = quic_port().await;
    let refusals: [(&str, ClientConfig); 3] = [
        ("another protocol", client(Some(2), true, &[b"h3"])),
        ("no key", client(None, true, &[ALPN])),
        ("certificates only", client(None, false, &[ALPN])),
    ];
    for (count, (what, config)) in (1..).zip(refusals) {
        let endpoint = quic_client(config);
        let dial = endpoint.connect(socket_of(&port), "mesh.invalid").unwrap();
        // Some learn it in the handshake, some right after it.
        if let Ok(connection) = within(dial).await {
            let end = within(connection.closed()).await;
            assert!(matches!(end, quinn::ConnectionError::ConnectionClosed(_)), "{what}: {end:?}");
        }
        refused(&port, count).await;
    }
    honest_peers_are_served(&port).await;
}

#[tokio::test]
async fn garbage_datagrams_change_nothing() {
    let port = quic_port().await;
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    for len in [0, 1, 20, 1_200, 1_472] {
        for byte in [0x00, 0x40, 0xc0, 0xff] {
            socket.send_to(&vec![byte; len], socket_of(&port)).await.unwrap();
        }
    }
    honest_peers_are_served(&port).await;
}

async fn raw_quic_peer(port: &QuicPort) -> (quinn::Endpoint, quinn::Connection, Link) {
    let endpoint = quic_client(client(Some(2), true, &[ALPN]));
    let dial = endpoint.connect(socket_of(port), "mesh.invalid").unwrap();
    let (connection, link) = within(async { tokio::join!(dial, port.accept()) }).await;
    (endpoint, connection.unwrap(), link.unwrap())
}

#[tokio::test]
async fn a_peer_that_breaks_the_framing_over_quic_is_cut_with_the_reason() {
    let port = quic_port().await;
    let too_large = [&[1], &u16::try_from(FRAME_BYTES_MAX + 1).unwrap().to_be_bytes()[..]].concat();
    // What is written on each of the peer's streams.
    let faults: [(&[&[u8]], bool); 5] = [
        (&[&too_large], true),
        (&[&[0, 0, 0]], true),
        (&[&[3, 0, 1, 1]], false),
        (&[&[1, 0, 1, 1], &[1, 0, 1, 1]], false),
        // A close record belongs to TCP alone.
        (&[&[0, 0xff, 0xff, 0, 0, 0, 1, 0]], true),
    ];
    for (streams, is_frame_fault) in faults {
        let (_endpoint, peer, mut link) = raw_quic_peer(&port).await;
        let mut held = Vec::new();
        for bytes in streams {
            let mut stream = within(peer.open_uni()).await.unwrap();
            stream.write_all(bytes).await.unwrap();
            held.push(stream);
        }
        let error = error_of(&mut link).await;
        assert!(error.is_peer_fault(), "{error:?}");
        let got_frame_fault =
            matches!(error, TransportError::FrameTooLarge { .. } | TransportError::EmptyFrame { .. });
        assert_eq!(got_frame_fault, is_frame_fault, "{error:?}");
        let end = within(peer.closed()).await;
        let quinn::ConnectionError::ApplicationClosed(close) = end else { panic!("{end:?}") };
        assert_eq!(u64::from(close.error_code), 3);
        assert!(!close.reason.is_empty());
    }
    honest_peers_are_served(&port).await;
}

#[tokio::test]
async fn a_quic_peer_gets_three_streams_and_no_more() {
    let port = quic_port().await;
    let (_endpoint, peer, _link) = raw_quic_peer(&port).await;
    let mut held = Vec::new();
    for class in 0..3u8 {
        let mut stream = within(peer.open_uni()).await.unwrap();
        stream.write_all(&[class]).await.unwrap();
        held.push(stream);
    }
    let moment = Duration::from_millis(300);
    assert!(tokio::time::timeout(moment, peer.open_uni()).await.is_err(), "a fourth stream");
    assert!(tokio::time::timeout(moment, peer.open_bi()).await.is_err(), "a bidirectional stream");
    assert_eq!(peer.max_datagram_size(), None, "datagrams");
}

/// A client's socket that sends the datagrams of each connection from a port of their own and hears
/// nothing: to a server, connections from forged ports.
#[derive(Debug, Default)]
struct ForgedPorts {
    /// By the connection id that the client made up, with the bytes sent.
    ports: Mutex<HashMap<Vec<u8>, (std::net::UdpSocket, u64)>>,
}

/// Destination connection id of a long header (RFC 9000, 17.2).
fn dcid(datagram: &[u8]) -> Vec<u8> {
    let len = usize::from(datagram[5]);
    datagram[6..6 + len].to_vec()
}

impl quinn::AsyncUdpSocket for ForgedPorts {
    fn create_io_poller(self: Arc<Self>) -> Pin<Box<dyn quinn::UdpPoller>> {
        Box::pin(AlwaysWritable)
    }

    fn try_send(&self, transmit: &quinn::udp::Transmit<'_>) -> io::Result<()> {
        let mut ports = self.ports.lock().unwrap();
        let (socket, sent) = ports.entry(dcid(transmit.contents)).or_insert_with(|| {
            let socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
            socket.set_nonblocking(true).unwrap();
            (socket, 0)
        });
        *sent += transmit.contents.len() as u64;
        // As a network does, it loses what there is no room for.
        let _ = socket.send_to(transmit.contents, transmit.destination);
        Ok(())
    }

    fn poll_recv(
        &self,
        _: &mut task::Context<'_>,
        _: &mut [io::IoSliceMut<'_>],
        _: &mut [quinn::udp::RecvMeta],
    ) -> Poll<io::Result<usize>> {
        Poll::Pending
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        Ok(([127, 0, 0, 1], 1).into())
    }
}

#[derive(Debug)]
struct AlwaysWritable;

impl quinn::UdpPoller for AlwaysWritable {
    fn poll_writable(self: Pin<&mut Self>, _: &mut task::Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

/// What a port has been sent, in bytes.
fn heard(socket: &std::net::UdpSocket) -> u64 {
    let mut buffer = [0; 65_536];
    std::iter::from_fn(|| socket.recv(&mut buffer).ok()).map(|bytes| bytes as u64).sum()
}

#[tokio::test]
async fn initials_from_forged_ports_are_answered_sparingly_and_keep_nobody_out() {
    // Each takes a file descriptor of this process, of which some systems give a thousand.
    const FORGED: usize = 500;
    let port = quic_port().await;
    let forged = Arc::new(ForgedPorts::default());
    let tls = quinn::crypto::rustls::QuicClientConfig::try_from(client(Some(2), true, &[ALPN])).unwrap();
    let runtime = Arc::new(quinn::TokioRuntime);
    let mut endpoint =
        quinn::Endpoint::new_with_abstract_socket(Default::default(), None, forged.clone(), runtime).unwrap();
    endpoint.set_default_client_config(quinn::ClientConfig::new(Arc::new(tls)));
    let mut dials = Vec::new();
    for _ in 0..FORGED / 100 {
        dials.extend((0..100).map(|_| endpoint.connect(socket_of(&port), "mesh.invalid").unwrap()));
        // Each batch is answered, or dropped, while honest peers come.
        honest_peers_are_served(&port).await;
    }
    let ports = forged.ports.lock().unwrap();
    assert!(ports.len() >= FORGED, "each from a port of its own: {}", ports.len());
    let mut answered = 0;
    for (socket, sent) in ports.values() {
        let heard = heard(socket);
        assert!(heard <= 3 * sent, "{heard} bytes to one that sent {sent}");
        answered += usize::from(heard > 0);
    }
    assert!(answered > FORGED / 2, "they were Initials that a server answers: {answered}");
}
