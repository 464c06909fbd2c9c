//! TLS by node identity: one code path for QUIC and TCP.
//!
//! Both ends prove the Ed25519 key that is their identity as a raw public key (RFC 7250): 44 bytes
//! of one fixed shape, no certificates, no names, no dates. TLS 1.3 only, hybrid key exchange
//! X25519MLKEM768 preferred and X25519 accepted, ALPN required on both ends, no session tickets, no
//! resumption, no early data: each link is a fresh proof. The crypto provider is passed
//! explicitly; nothing depends on a process default.

use std::{
    fmt,
    sync::{Arc, OnceLock},
};

use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, DistinguishedName, OtherError, PeerIncompatible,
    ServerConfig, SignatureScheme,
    client::{
        AlwaysResolvesClientRawPublicKeys, Resumption,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    },
    crypto::{CryptoProvider, aws_lc_rs, verify_tls13_signature_with_raw_key},
    pki_types::{
        CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, ServerName, SubjectPublicKeyInfoDer, UnixTime,
    },
    server::{
        AlwaysResolvesServerRawPublicKeys, NoServerSessionStorage,
        danger::{ClientCertVerified, ClientCertVerifier},
    },
    sign::CertifiedKey,
};

use crate::{
    crypto::{CryptoError, VerifyKey, compute_address},
    wire::{Address, PublicKey},
};

use super::{TransportAddr, TransportError};

/// The application protocol both ends have to name.
pub const ALPN: &[u8] = b"quicprochat/mesh/1";

/// Label of the TLS exporter behind [`LinkInfo::channel_binding`](super::LinkInfo::channel_binding).
pub const CHANNEL_BINDING_LABEL: &[u8] = b"EXPORTER-quicprochat-mesh-1";

/// What stands in front of the 32 bytes of an Ed25519 key in its SubjectPublicKeyInfo (RFC 8410):
/// sequence, algorithm 1.3.101.112 without parameters, bit string without unused bits.
const SPKI_PREFIX: [u8; 12] = [0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00];

/// A node's identity as TLS uses it. Cheap to clone; prints its public key only.
#[derive(Clone)]
pub struct TlsIdentity {
    public_key: PublicKey,
    certified: Arc<CertifiedKey>,
    provider: Arc<CryptoProvider>,
}

impl TlsIdentity {
    /// From the node's private key as PKCS#8 DER, with or without the public half.
    ///
    /// # Errors
    /// [`TransportError::LocalKey`] unless it is an Ed25519 key.
    pub fn from_pkcs8(der: &[u8]) -> Result<Self, TransportError> {
        let bad = |detail: String| TransportError::LocalKey { detail };
        let provider = Arc::new(provider());
        let der = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(der));
        // The copy goes straight into the TLS library, which wipes what it keeps.
        let key = provider.key_provider.load_private_key(der.clone_key()).map_err(|e| bad(e.to_string()))?;
        let spki = key.public_key().ok_or_else(|| bad("it has no public half".into()))?;
        let public_key = key_of_spki(&spki).map_err(|refusal| bad(refusal.to_string()))?;
        let certified = CertifiedKey::new(vec![CertificateDer::from(spki.to_vec())], key);
        Ok(Self { public_key, certified: Arc::new(certified), provider })
    }

    /// The public half.
    pub fn public_key(&self) -> PublicKey {
        self.public_key
    }

    /// For the dialling side; `check` judges the key that answers.
    pub(super) fn client_config(&self, check: Arc<PeerCheck>) -> Result<ClientConfig, TransportError> {
        let mut config = ClientConfig::builder_with_provider(Arc::clone(&self.provider))
            .with_protocol_versions(&[&rustls::version::TLS13])
            .map_err(local)?
            .dangerous()
            .with_custom_certificate_verifier(check)
            .with_client_cert_resolver(Arc::new(AlwaysResolvesClientRawPublicKeys::new(Arc::clone(
                &self.certified,
            ))));
        config.alpn_protocols = vec![ALPN.to_vec()];
        config.resumption = Resumption::disabled();
        config.enable_early_data = false;
        // Whoever listens on the way need not learn whom we look for.
        config.enable_sni = false;
        Ok(config)
    }

    /// For the accepting side.
    pub(super) fn server_config(&self) -> Result<ServerConfig, TransportError> {
        let mut config = ServerConfig::builder_with_provider(Arc::clone(&self.provider))
            .with_protocol_versions(&[&rustls::version::TLS13])
            .map_err(local)?
            .with_client_cert_verifier(self.check(None))
            .with_cert_resolver(Arc::new(AlwaysResolvesServerRawPublicKeys::new(Arc::clone(
                &self.certified,
            ))));
        config.alpn_protocols = vec![ALPN.to_vec()];
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.send_tls13_tickets = 0;
        config.max_early_data_size = 0;
        Ok(config)
    }

    /// Judges peers of this identity.
    pub(super) fn check(&self, pin: Option<Address>) -> Arc<PeerCheck> {
        Arc::new(PeerCheck {
            own: self.public_key,
            pin,
            provider: Arc::clone(&self.provider),
            refusal: OnceLock::new(),
        })
    }
}

impl fmt::Debug for TlsIdentity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TlsIdentity({})", self.public_key)
    }
}

/// The server name that is never sent, and means nothing to raw keys.
pub(super) const NO_NAME: &str = "mesh.invalid";

/// The proven key of an established session.
///
/// # Errors
/// [`TransportError::Handshake`] where there is none or the protocol is another; the handshake
/// itself has refused those already, except a client that names no protocol at all.
pub(super) fn proven_key(
    url: &TransportAddr,
    certificates: Option<&[CertificateDer<'_>]>,
    alpn: Option<&[u8]>,
) -> Result<PublicKey, TransportError> {
    let failed = |detail: String| TransportError::Handshake { url: url.clone(), detail };
    if alpn != Some(ALPN) {
        return Err(failed("the peer did not ask for this protocol (ALPN)".into()));
    }
    match certificates {
        Some([spki]) => key_of_spki(spki).map_err(|refusal| failed(refusal.to_string())),
        _ => Err(failed("the peer proved no key".into())),
    }
}

/// Decides whether a key may be on the other end. It proves nothing itself: the signature over the
/// handshake is checked by rustls.
#[derive(Debug)]
pub(super) struct PeerCheck {
    own: PublicKey,
    pin: Option<Address>,
    provider: Arc<CryptoProvider>,
    /// Why the one peer of a dial was refused; the libraries between here and the dial keep less.
    refusal: OnceLock<Refusal>,
}

impl PeerCheck {
    /// The error of a dial to `url` that this check refused, or `otherwise`.
    pub(super) fn error_or(
        &self,
        url: &TransportAddr,
        otherwise: impl FnOnce() -> TransportError,
    ) -> TransportError {
        let url = url.clone();
        match self.refusal.get() {
            None => otherwise(),
            Some(Refusal::Own) => TransportError::SelfDial { url },
            Some(Refusal::Pin { expected, got }) => {
                TransportError::PinMismatch { url, expected: *expected, got: *got }
            }
            Some(refusal) => TransportError::Handshake { url, detail: refusal.to_string() },
        }
    }

    fn judge(&self, end_entity: &[u8], intermediates: &[CertificateDer<'_>]) -> Result<(), Refusal> {
        if !intermediates.is_empty() {
            return Err(Refusal::Intermediates);
        }
        let key = key_of_spki(end_entity)?;
        if key == self.own {
            return Err(Refusal::Own);
        }
        let got = compute_address(&key);
        match self.pin {
            Some(expected) if expected != got => Err(Refusal::Pin { expected, got }),
            _ => Ok(()),
        }
    }

    fn admit(&self, end_entity: &[u8], intermediates: &[CertificateDer<'_>]) -> Result<(), rustls::Error> {
        self.judge(end_entity, intermediates).map_err(|refusal| {
            let error = CertificateError::Other(OtherError(Arc::new(refusal.clone())));
            // Only the first counts: a dial has one peer.
            let _ = self.refusal.set(refusal);
            rustls::Error::InvalidCertificate(error)
        })
    }

    fn verify(
        &self,
        message: &[u8],
        spki: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        if signed.scheme != SignatureScheme::ED25519 {
            return Err(PeerIncompatible::NoSignatureSchemesInCommon.into());
        }
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls13_signature_with_raw_key(
            message,
            &SubjectPublicKeyInfoDer::from(spki.as_ref()),
            signed,
            algorithms,
        )
    }
}

/// What both sides of a handshake check alike: TLS 1.3 signatures by raw Ed25519 keys, nothing else.
macro_rules! raw_keys_of_tls13 {
    () => {
        fn verify_tls12_signature(
            &self,
            _message: &[u8],
            _cert: &CertificateDer<'_>,
            _signed: &DigitallySignedStruct,
        ) -> Result<HandshakeSignatureValid, rustls::Error> {
            Err(rustls::Error::General("TLS 1.2 is not spoken here".into()))
        }

        fn verify_tls13_signature(
            &self,
            message: &[u8],
            cert: &CertificateDer<'_>,
            signed: &DigitallySignedStruct,
        ) -> Result<HandshakeSignatureValid, rustls::Error> {
            self.verify(message, cert, signed)
        }

        fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
            vec![SignatureScheme::ED25519]
        }

        fn requires_raw_public_keys(&self) -> bool {
            true
        }
    };
}

impl ServerCertVerifier for PeerCheck {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _name: &ServerName<'_>,
        _ocsp: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        self.admit(end_entity, intermediates).map(|()| ServerCertVerified::assertion())
    }

    raw_keys_of_tls13!();
}

impl ClientCertVerifier for PeerCheck {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _now: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        self.judge(end_entity, intermediates).map(|()| ClientCertVerified::assertion()).map_err(|refusal| {
            rustls::Error::InvalidCertificate(CertificateError::Other(OtherError(Arc::new(refusal))))
        })
    }

    raw_keys_of_tls13!();
}

/// Why a key is not accepted.
#[derive(Debug, Clone, thiserror::Error)]
enum Refusal {
    #[error("the peer's key is not a raw Ed25519 public key")]
    NotEd25519,
    #[error("{0}")]
    Key(CryptoError),
    #[error("the peer sent a chain of certificates instead of one raw public key")]
    Intermediates,
    #[error("the peer has this node's own key")]
    Own,
    #[error("the peer is {got}, pinned is {expected}")]
    Pin { expected: Address, got: Address },
}

/// The key in a SubjectPublicKeyInfo: canonical, not of small order.
fn key_of_spki(spki: &[u8]) -> Result<PublicKey, Refusal> {
    let bytes = spki.strip_prefix(&SPKI_PREFIX).and_then(|key| key.try_into().ok());
    let key = PublicKey(bytes.ok_or(Refusal::NotEd25519)?);
    VerifyKey::new(&key).map_err(Refusal::Key)?;
    Ok(key)
}

fn provider() -> CryptoProvider {
    CryptoProvider {
        kx_groups: vec![aws_lc_rs::kx_group::X25519MLKEM768, aws_lc_rs::kx_group::X25519],
        ..aws_lc_rs::default_provider()
    }
}

fn local(error: rustls::Error) -> TransportError {
    TransportError::LocalKey { detail: error.to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crypto::MeshIdentity;

    fn identity(seed: u8) -> TlsIdentity {
        TlsIdentity::from_pkcs8(&MeshIdentity::from_seed([seed; 32]).to_pkcs8_der()).unwrap()
    }

    fn spki(key: &[u8]) -> Vec<u8> {
        [&SPKI_PREFIX, key].concat()
    }

    #[test]
    fn the_public_key_is_the_nodes() {
        assert_eq!(identity(7).public_key(), MeshIdentity::from_seed([7; 32]).public_key());
    }

    #[test]
    fn a_key_that_is_none_is_a_local_error_that_shows_nothing_of_it() {
        let error = TlsIdentity::from_pkcs8(b"\x30\x02secret").expect_err("not a key");
        assert!(error.is_local());
        assert!(!error.to_string().contains("secret"), "{error}");
    }

    #[test]
    fn keys_are_judged() {
        let (own, peer) = (identity(1), identity(2).public_key());
        let pin = compute_address(&peer);
        let judge = |pin, der: &[u8], chain: &[CertificateDer<'_>]| own.check(pin).judge(der, chain);
        let good = spki(peer.as_bytes());
        assert!(judge(None, &good, &[]).is_ok());
        assert!(judge(Some(pin), &good, &[]).is_ok());
        assert!(
            matches!(judge(Some(Address([1; 16])), &good, &[]), Err(Refusal::Pin { got, .. }) if got == pin)
        );
        assert!(matches!(
            judge(None, &good, &[CertificateDer::from(good.clone())]),
            Err(Refusal::Intermediates)
        ));
        assert!(matches!(judge(None, &spki(own.public_key().as_bytes()), &[]), Err(Refusal::Own)));
        // The identity point: anybody can sign for it.
        let mut weak = [0; 32];
        weak[0] = 1;
        assert!(matches!(judge(None, &spki(&weak), &[]), Err(Refusal::Key(_))));
        assert!(matches!(judge(None, &spki(&[0xff; 32]), &[]), Err(Refusal::Key(_))));
        for end in 0..good.len() {
            assert!(matches!(judge(None, &good[..end], &[]), Err(Refusal::NotEd25519)), "{end}");
        }
        let long = [&good[..], &[0]].concat();
        assert!(matches!(judge(None, &long, &[]), Err(Refusal::NotEd25519)));
    }

    #[test]
    fn only_ed25519_and_only_the_two_key_exchanges_are_offered() {
        let check = identity(1).check(None);
        assert_eq!(ServerCertVerifier::supported_verify_schemes(&*check), [SignatureScheme::ED25519]);
        assert_eq!(ClientCertVerifier::supported_verify_schemes(&*check), [SignatureScheme::ED25519]);
        let groups: Vec<_> = provider().kx_groups.iter().map(|group| group.name()).collect();
        assert_eq!(groups, [rustls::NamedGroup::X25519MLKEM768, rustls::NamedGroup::X25519]);
    }
}
