//! The media of one node: which port dials which URL, and which link suits a message.

use std::sync::Arc;

use super::{Link, LinkInfo, MeshTransport, TransportAddr, TransportError};

/// The ports of one node.
#[derive(Default)]
pub struct TransportManager {
    ports: Vec<Arc<dyn MeshTransport>>,
}

impl std::fmt::Debug for TransportManager {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.ports.iter().map(|p| p.info().local.to_string())).finish()
    }
}

impl TransportManager {
    /// No ports.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a port.
    pub fn add(&mut self, port: Arc<dyn MeshTransport>) {
        self.ports.push(port);
    }

    /// All ports.
    pub fn ports(&self) -> &[Arc<dyn MeshTransport>] {
        &self.ports
    }

    /// True where a port for that URL exists.
    ///
    /// # Errors
    /// [`TransportError::NoPort`].
    pub fn check(&self, to: &TransportAddr) -> Result<(), TransportError> {
        self.port_for(to).map(|_| ())
    }

    fn port_for(&self, to: &TransportAddr) -> Result<&Arc<dyn MeshTransport>, TransportError> {
        self.ports
            .iter()
            .find(|p| p.info().scheme == to.scheme())
            .ok_or_else(|| TransportError::NoPort { scheme: to.scheme().to_owned() })
    }

    /// Dials a URL over the port of its scheme.
    ///
    /// # Errors
    /// As [`MeshTransport::dial`]; [`TransportError::NoPort`].
    pub async fn dial(&self, to: &TransportAddr) -> Result<Link, TransportError> {
        self.port_for(to)?.dial(to).await
    }
}

/// The link that carries a frame of `bytes` best: the most capable that takes it in one piece, else
/// the one with the largest frames. Earlier links win ties.
pub fn select_for_size<'a, K>(links: impl IntoIterator<Item = (K, &'a LinkInfo)>, bytes: usize) -> Option<K> {
    links
        .into_iter()
        .enumerate()
        .min_by_key(|(n, (_, info))| {
            let fits = info.mtu_bytes >= bytes;
            (!fits, info.capability, std::cmp::Reverse(info.mtu_bytes), *n)
        })
        .map(|(_, (key, _))| key)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::transport::{Direction, TransportCapability};

    fn info(mtu_bytes: usize, capability: TransportCapability) -> LinkInfo {
        LinkInfo {
            remote: TransportAddr::mem("a"),
            direction: Direction::Out,
            mtu_bytes,
            capability,
            channel_binding: [0; 32],
        }
    }

    #[test]
    fn the_most_capable_link_that_fits_is_taken() {
        let radio = info(255, TransportCapability::Constrained);
        let wide = info(16_384, TransportCapability::Unconstrained);
        let slow = info(1_200, TransportCapability::Medium);
        let pick = |bytes| select_for_size([("radio", &radio), ("slow", &slow), ("wide", &wide)], bytes);
        assert_eq!(pick(100), Some("wide"));
        let pick = |bytes| select_for_size([("radio", &radio), ("slow", &slow)], bytes);
        assert_eq!(pick(1_000), Some("slow"));
        assert_eq!(pick(5_000), Some("slow"), "nothing fits: the largest frames");
        assert_eq!(select_for_size::<&str>([], 1), None);
    }
}
