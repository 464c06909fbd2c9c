//! One TLS identity for QUIC and TCP: raw public keys (RFC 7250) on both sides, TLS 1.3 only.
//!
//! The node's Ed25519 key is the certificate. There is no name to check and no authority: the key
//! proves itself in the handshake, and whoever dials compares its address with the pin. A hybrid
//! post-quantum key exchange is preferred; tickets, resumption and early data are off, so that no
//! byte of data travels under less than a full handshake.

use std::sync::Arc;

use ed25519_dalek::{VerifyingKey, pkcs8::DecodePublicKey};
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, DistinguishedName, Error as TlsError,
    PeerIncompatible, ServerConfig, SignatureScheme,
    client::{
        AlwaysResolvesClientRawPublicKeys, Resumption,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    },
    crypto::{WebPkiSupportedAlgorithms, verify_tls13_signature_with_raw_key},
    pki_types::{
        CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, ServerName, SubjectPublicKeyInfoDer, UnixTime,
    },
    server::{
        AlwaysResolvesServerRawPublicKeys, NoServerSessionStorage,
        danger::{ClientCertVerified, ClientCertVerifier},
    },
    sign::CertifiedKey,
    version::TLS13,
};

use super::TransportError;
use crate::wire::PublicKey;

/// Application protocol; another one is another network program.
pub const ALPN: &[u8] = b"quicprochat/mesh/1";

/// Label of the exporter that binds hello proofs to one connection.
pub const EXPORTER_LABEL: &[u8] = b"EXPORTER-quicprochat-mesh-1";

/// Name that rustls wants for every server and nobody checks.
pub const SERVER_NAME: &str = "quicprochat.mesh.invalid";

/// The node's identity as TLS uses it, and the configurations made of it.
#[derive(Clone)]
pub struct TlsIdentity {
    own: PublicKey,
    client: Arc<ClientConfig>,
    server: Arc<ServerConfig>,
}

impl std::fmt::Debug for TlsIdentity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TlsIdentity").field("own", &self.own).finish_non_exhaustive()
    }
}

impl TlsIdentity {
    /// From the node's Ed25519 key as PKCS#8 DER.
    ///
    /// # Errors
    /// [`TransportError::Tls`] where the key is none that TLS can use.
    pub fn from_pkcs8(der: &[u8]) -> Result<Self, TransportError> {
        let tls = |e: TlsError| TransportError::Tls(e.to_string());
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(der)).clone_key();
        let signing = provider.key_provider.load_private_key(key).map_err(tls)?;
        let spki = signing
            .public_key()
            .ok_or_else(|| TransportError::Tls("the key has no public half".into()))?
            .into_owned();
        let own = parse_key(spki.as_ref()).map_err(tls)?;
        let certified =
            Arc::new(CertifiedKey::new(vec![CertificateDer::from(spki.as_ref().to_vec())], signing));
        let verifier = Arc::new(RawKeys { algorithms: provider.signature_verification_algorithms });

        let mut client = ClientConfig::builder_with_provider(provider.clone())
            .with_protocol_versions(&[&TLS13])
            .map_err(tls)?
            .dangerous()
            .with_custom_certificate_verifier(verifier.clone())
            .with_client_cert_resolver(Arc::new(AlwaysResolvesClientRawPublicKeys::new(certified.clone())));
        client.alpn_protocols = vec![ALPN.to_vec()];
        client.resumption = Resumption::disabled();
        client.enable_early_data = false;
        client.enable_sni = false;

        let mut server = ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&TLS13])
            .map_err(tls)?
            .with_client_cert_verifier(verifier)
            .with_cert_resolver(Arc::new(AlwaysResolvesServerRawPublicKeys::new(certified)));
        server.alpn_protocols = vec![ALPN.to_vec()];
        server.session_storage = Arc::new(NoServerSessionStorage {});
        server.send_tls13_tickets = 0;
        server.max_early_data_size = 0;

        Ok(Self { own, client: Arc::new(client), server: Arc::new(server) })
    }

    /// This node's key.
    pub fn own(&self) -> PublicKey {
        self.own
    }

    /// For dialling.
    pub fn client(&self) -> Arc<ClientConfig> {
        self.client.clone()
    }

    /// For accepting.
    pub fn server(&self) -> Arc<ServerConfig> {
        self.server.clone()
    }
}

/// The peer's key out of the certificates of a finished handshake.
///
/// # Errors
/// Not exactly one raw Ed25519 key.
pub fn peer_key(certificates: &[CertificateDer<'_>]) -> Result<PublicKey, TlsError> {
    match certificates {
        [one] => parse_key(one),
        _ => Err(TlsError::InvalidCertificate(CertificateError::BadEncoding)),
    }
}

fn parse_key(spki: &[u8]) -> Result<PublicKey, TlsError> {
    let key = VerifyingKey::from_public_key_der(spki)
        .map_err(|_| TlsError::InvalidCertificate(CertificateError::BadEncoding))?;
    // Anybody can sign for a small-order key.
    if key.is_weak() {
        return Err(TlsError::InvalidCertificate(CertificateError::BadSignature));
    }
    Ok(PublicKey(key.to_bytes()))
}

/// Accepts any sound Ed25519 key and checks that the peer holds it.
#[derive(Debug)]
struct RawKeys {
    algorithms: WebPkiSupportedAlgorithms,
}

impl RawKeys {
    fn check(&self, key: &CertificateDer<'_>, more: &[CertificateDer<'_>]) -> Result<(), TlsError> {
        if !more.is_empty() {
            return Err(TlsError::InvalidCertificate(CertificateError::BadEncoding));
        }
        parse_key(key).map(|_| ())
    }

    fn check_signature(
        &self,
        message: &[u8],
        key: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, TlsError> {
        let key = SubjectPublicKeyInfoDer::from(key.as_ref());
        verify_tls13_signature_with_raw_key(message, &key, signed, &self.algorithms)
    }
}

const NO_TLS12: TlsError = TlsError::PeerIncompatible(PeerIncompatible::Tls12NotOffered);

impl ServerCertVerifier for RawKeys {
    fn verify_server_cert(
        &self,
        key: &CertificateDer<'_>,
        more: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, TlsError> {
        self.check(key, more).map(|()| ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, TlsError> {
        Err(NO_TLS12)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        key: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, TlsError> {
        self.check_signature(message, key, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ED25519]
    }

    fn requires_raw_public_keys(&self) -> bool {
        true
    }
}

impl ClientCertVerifier for RawKeys {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        key: &CertificateDer<'_>,
        more: &[CertificateDer<'_>],
        _: UnixTime,
    ) -> Result<ClientCertVerified, TlsError> {
        self.check(key, more).map(|()| ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, TlsError> {
        Err(NO_TLS12)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        key: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, TlsError> {
        self.check_signature(message, key, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ED25519]
    }

    fn requires_raw_public_keys(&self) -> bool {
        true
    }
}
