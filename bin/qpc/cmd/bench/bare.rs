//! The baseline: the least a hop can do. Bare quinn between two processes, frames behind 16-bit
//! lengths, and at the relay one strict Ed25519 verification a message with a key decoded once.
//!
//! A frame is public key, signature over the payload, payload. With Merkle proofs it is public key,
//! signature over the root, index, levels, path, payload, and the relay hashes each path and checks
//! each root once. There is no routing, no dedup, no table, no bound on anything: whatever the
//! product does beyond this is what it costs.

use std::{future::Future, net::SocketAddr, sync::Arc};

use bytes::{Buf, BufMut, Bytes, BytesMut};
use ed25519_dalek::{Signature, Signer, SigningKey, VerifyingKey};
use quicprochat_mesh::{
    api::ApiError,
    crypto::{MerkleTree, MeshIdentity, hash::sha256, merkle::root_from_path, random},
    wire::Digest,
};
use quinn::{
    Connection, Endpoint, RecvStream, SendStream,
    crypto::rustls::{QuicClientConfig, QuicServerConfig},
};
use rustls::{
    DigitallySignedStruct, SignatureScheme,
    client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    crypto::{CryptoProvider, aws_lc_rs, verify_tls13_signature_with_raw_key},
    pki_types::{
        CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, ServerName, SubjectPublicKeyInfoDer, UnixTime,
    },
    server::AlwaysResolvesServerRawPublicKeys,
    sign::CertifiedKey,
};
use tokio::sync::watch;

use super::ends::{Answer, BATCH, Incoming, Outgoing, Proof, answer};

const KEY_BYTES: usize = 32;
const SIGNATURE_BYTES: usize = 64;

/// First byte of a connection's stream: who is there.
const SOURCE: u8 = b'S';
const SINK: u8 = b'K';

/// Bytes read or written at once.
const CHUNK_BYTES: usize = 64 * 1024;

/// Takes any raw key: who it is makes no difference to what a message costs.
#[derive(Debug)]
struct AnyKey(Arc<CryptoProvider>);

impl ServerCertVerifier for AnyKey {
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
        Err(rustls::Error::General("TLS 1.2 is not spoken here".into()))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        spki: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let spki = SubjectPublicKeyInfoDer::from(spki.as_ref());
        let algorithms = &self.0.signature_verification_algorithms;
        verify_tls13_signature_with_raw_key(message, &spki, signed, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ED25519]
    }

    fn requires_raw_public_keys(&self) -> bool {
        true
    }
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(aws_lc_rs::default_provider())
}

fn listen() -> Result<Endpoint, ApiError> {
    let provider = provider();
    let der = MeshIdentity::generate(&mut random::os_rng()).to_pkcs8_der();
    let der = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(der.to_vec()));
    let key = provider.key_provider.load_private_key(der).map_err(ApiError::failed)?;
    let spki = key.public_key().ok_or_else(|| ApiError::failed("a key without its public half"))?;
    let certified = CertifiedKey::new(vec![CertificateDer::from(spki.to_vec())], key);
    let tls = rustls::ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(ApiError::failed)?
        .with_no_client_auth()
        .with_cert_resolver(Arc::new(AlwaysResolvesServerRawPublicKeys::new(Arc::new(certified))));
    let tls = QuicServerConfig::try_from(tls).map_err(ApiError::failed)?;
    let config = quinn::ServerConfig::with_crypto(Arc::new(tls));
    Endpoint::server(config, SocketAddr::from(([127, 0, 0, 1], 0))).map_err(ApiError::failed)
}

async fn connect(relay: &str) -> Result<(Endpoint, Connection), ApiError> {
    let relay: SocketAddr = relay.parse().map_err(ApiError::failed)?;
    let provider = provider();
    let tls = rustls::ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(ApiError::failed)?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(AnyKey(provider)))
        .with_no_client_auth();
    let tls = QuicClientConfig::try_from(tls).map_err(ApiError::failed)?;
    let mut endpoint = Endpoint::client(SocketAddr::from(([127, 0, 0, 1], 0))).map_err(ApiError::failed)?;
    endpoint.set_default_client_config(quinn::ClientConfig::new(Arc::new(tls)));
    let connecting = endpoint.connect(relay, "bench.invalid").map_err(ApiError::failed)?;
    Ok((endpoint, connecting.await.map_err(ApiError::failed)?))
}

/// The next frame of a buffer: its whole bytes with the length, where they are all there.
fn next_frame(buffer: &mut BytesMut) -> Option<BytesMut> {
    let length = usize::from(u16::from_be_bytes(*buffer.first_chunk()?)).saturating_add(2);
    (buffer.len() >= length).then(|| buffer.split_to(length))
}

/// Copies frames from the source to the sink until `over`.
pub async fn relay(proof: Proof, over: impl Future<Output = ()>) -> Result<(), ApiError> {
    let endpoint = listen()?;
    answer(&Answer::Ready { at: endpoint.local_addr().map_err(ApiError::failed)?.to_string() })?;
    let accept = async {
        let (sink, has_sink) = watch::channel(None);
        let sink = Arc::new(sink);
        while let Some(incoming) = endpoint.accept().await {
            let Ok(connection) = incoming.await else { continue };
            let (sink, has_sink) = (Arc::clone(&sink), has_sink.clone());
            tokio::spawn(async move {
                // The end of a connection is the end of its part; the driver sees it there.
                let _ = serve(connection, &sink, has_sink, proof).await;
            });
        }
    };
    tokio::select! {
        () = accept => {}
        () = over => {}
    }
    Ok(())
}

async fn serve(
    connection: Connection,
    sink: &watch::Sender<Option<Connection>>,
    mut has_sink: watch::Receiver<Option<Connection>>,
    proof: Proof,
) -> Result<(), ApiError> {
    let mut from = connection.accept_uni().await.map_err(ApiError::failed)?;
    let mut who = [0];
    from.read_exact(&mut who).await.map_err(ApiError::failed)?;
    if who == [SINK] {
        sink.send_replace(Some(connection.clone()));
        connection.closed().await;
        return Ok(());
    }
    let sink = has_sink.wait_for(Option::is_some).await.map_err(ApiError::failed)?.clone();
    let Some(sink) = sink else { return Ok(()) };
    let mut to = sink.open_uni().await.map_err(ApiError::failed)?;
    copy(&mut from, &mut to, proof).await
}

async fn copy(from: &mut RecvStream, to: &mut SendStream, proof: Proof) -> Result<(), ApiError> {
    let mut buffer = BytesMut::new();
    let mut out = BytesMut::new();
    let mut known = Known::default();
    while let Some(chunk) = from.read_chunk(CHUNK_BYTES, true).await.map_err(ApiError::failed)? {
        buffer.extend_from_slice(&chunk.bytes);
        while let Some(frame) = next_frame(&mut buffer) {
            if known.holds(&frame, proof) {
                out.extend_from_slice(&frame);
            }
        }
        to.write_chunk(out.split().freeze()).await.map_err(ApiError::failed)?;
    }
    Ok(())
}

/// What the relay remembers of the source.
#[derive(Default)]
struct Known {
    key: Option<VerifyingKey>,
    root: Option<(Digest, [u8; SIGNATURE_BYTES])>,
}

impl Known {
    fn holds(&mut self, frame: &[u8], proof: Proof) -> bool {
        self.check(frame, proof).unwrap_or(false)
    }

    /// One strict verification, with Merkle proofs one a root; the key is decoded when it changes.
    fn check(&mut self, frame: &[u8], proof: Proof) -> Option<bool> {
        let (_, rest) = frame.split_first_chunk::<2>()?;
        let (key, rest) = rest.split_first_chunk::<KEY_BYTES>()?;
        let (signature, rest) = rest.split_first_chunk::<SIGNATURE_BYTES>()?;
        if self.key.as_ref().is_none_or(|held| held.as_bytes() != key) {
            *self = Self { key: VerifyingKey::from_bytes(key).ok(), root: None };
        }
        let key = self.key.as_ref()?;
        let holds = |message: &[u8]| key.verify_strict(message, &Signature::from_bytes(signature)).is_ok();
        if proof == Proof::Plain {
            return Some(holds(rest));
        }
        let root = root_of(rest)?;
        if self.root.as_ref() == Some(&(root, *signature)) {
            return Some(true);
        }
        let held = holds(root.as_bytes());
        if held {
            self.root = Some((root, *signature));
        }
        Some(held)
    }
}

/// The root of index, levels, path and payload.
fn root_of(rest: &[u8]) -> Option<Digest> {
    let ([index, levels], rest) = rest.split_first_chunk::<2>()?;
    let (path, payload) = rest.split_at_checked(usize::from(*levels).saturating_mul(Digest::LEN))?;
    let leaf = sha256(&[&[0], payload]);
    let path: Vec<Digest> = path.as_chunks().0.iter().map(|sibling| Digest(*sibling)).collect();
    root_from_path(leaf, u32::from(*index), &path)
}

/// Signs payloads and writes them.
pub struct Source {
    key: SigningKey,
    proof: Proof,
    stream: SendStream,
    waiting: Vec<Bytes>,
    _endpoint: Endpoint,
    _connection: Connection,
}

impl Source {
    /// Connects to the relay.
    pub async fn connect(relay: &str, proof: Proof) -> Result<Self, ApiError> {
        let (endpoint, connection) = connect(relay).await?;
        let mut stream = connection.open_uni().await.map_err(ApiError::failed)?;
        stream.write_all(&[SOURCE]).await.map_err(ApiError::failed)?;
        Ok(Self {
            key: SigningKey::from_bytes(&random::random_bytes(&mut random::os_rng())),
            proof,
            stream,
            waiting: Vec::with_capacity(BATCH),
            _endpoint: endpoint,
            _connection: connection,
        })
    }

    fn put(
        &self,
        out: &mut BytesMut,
        signature: &Signature,
        path: &[u8],
        payload: &[u8],
    ) -> Result<(), ApiError> {
        let key = self.key.verifying_key();
        let parts = [&key.as_bytes()[..], &signature.to_bytes()[..], path, payload];
        let length: usize = parts.iter().map(|part| part.len()).sum();
        out.put_u16(u16::try_from(length).map_err(ApiError::failed)?);
        parts.iter().for_each(|part| out.extend_from_slice(part));
        Ok(())
    }
}

impl Outgoing for Source {
    async fn send(&mut self, payload: &[u8]) -> Result<(), ApiError> {
        self.waiting.push(Bytes::copy_from_slice(payload));
        if self.waiting.len() >= BATCH { self.flush().await } else { Ok(()) }
    }

    async fn flush(&mut self) -> Result<(), ApiError> {
        let payloads = std::mem::take(&mut self.waiting);
        if payloads.is_empty() {
            return Ok(());
        }
        let mut out = BytesMut::new();
        match self.proof {
            Proof::Plain => {
                for payload in &payloads {
                    self.put(&mut out, &self.key.sign(payload), &[], payload)?;
                }
            }
            Proof::Merkle => {
                let leaves = payloads.iter().map(|payload| sha256(&[&[0], payload])).collect();
                let tree = MerkleTree::new(leaves).map_err(ApiError::failed)?;
                let signature = self.key.sign(tree.root().as_bytes());
                for (index, payload) in payloads.iter().enumerate() {
                    let siblings = tree.path(index).unwrap_or_default();
                    let mut path = vec![index as u8, siblings.len() as u8];
                    siblings.iter().for_each(|sibling| path.extend_from_slice(sibling.as_bytes()));
                    self.put(&mut out, &signature, &path, payload)?;
                }
            }
        }
        self.stream.write_chunk(out.freeze()).await.map_err(ApiError::failed)
    }
}

/// Reads frames.
pub struct Sink {
    connection: Connection,
    /// From the relay, once it has something.
    stream: Option<RecvStream>,
    buffer: BytesMut,
    proof: Proof,
    _endpoint: Endpoint,
    _said: SendStream,
}

impl Sink {
    /// Connects to the relay.
    pub async fn connect(relay: &str, proof: Proof) -> Result<Self, ApiError> {
        let (endpoint, connection) = connect(relay).await?;
        let mut said = connection.open_uni().await.map_err(ApiError::failed)?;
        said.write_all(&[SINK]).await.map_err(ApiError::failed)?;
        Ok(Self {
            connection,
            stream: None,
            buffer: BytesMut::new(),
            proof,
            _endpoint: endpoint,
            _said: said,
        })
    }
}

impl Incoming for Sink {
    async fn receive(&mut self, out: &mut Vec<Bytes>) -> Result<(), ApiError> {
        let stream = match &mut self.stream {
            Some(stream) => stream,
            None => {
                let stream = self.connection.accept_uni().await.map_err(ApiError::failed)?;
                self.stream.insert(stream)
            }
        };
        while out.is_empty() {
            let chunk = stream.read_chunk(CHUNK_BYTES, true).await.map_err(ApiError::failed)?;
            let chunk = chunk.ok_or_else(|| ApiError::failed("the relay ended its stream"))?;
            self.buffer.extend_from_slice(&chunk.bytes);
            while let Some(mut frame) = next_frame(&mut self.buffer) {
                frame.advance((2 + KEY_BYTES + SIGNATURE_BYTES).min(frame.len()));
                if self.proof == Proof::Merkle {
                    let levels = frame.get(1).copied().map_or(0, usize::from);
                    frame.advance(levels.saturating_mul(Digest::LEN).saturating_add(2).min(frame.len()));
                }
                out.push(frame.freeze());
            }
        }
        Ok(())
    }
}
