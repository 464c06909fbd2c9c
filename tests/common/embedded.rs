//! Nodes inside the test's own process: waits, and somebody whose envelopes a test makes itself.

use std::{sync::Arc, time::Duration};

use quicprochat_mesh::{
    MeshIdentity, clock,
    crypto::network_id,
    proto::delivery::compose::{Composer, Sequences, Wanted},
    wire::{Address, Envelope, EnvelopeKind, Lifetime, Priority},
};

/// Real time, on a machine that may be busy.
pub const PATIENCE: Duration = Duration::from_secs(120);

pub async fn within<T>(what: &str, future: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, future).await.unwrap_or_else(|_| panic!("waited for {what}"))
}

/// Looks as often as something may have changed.
pub async fn until<T, F: Future<Output = Option<T>>>(what: &str, mut of: impl FnMut() -> F) -> T {
    let look = async {
        loop {
            if let Some(found) = of().await {
                return found;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    within(what, look).await
}

/// Somebody whose envelopes come over a medium that only the test knows.
pub struct Stranger {
    pub identity: Arc<MeshIdentity>,
    pub composer: Composer,
}

impl Stranger {
    pub fn new(seed: u8) -> Self {
        let identity = Arc::new(MeshIdentity::from_seed([seed; 32]));
        let composer = Composer::new(identity.clone(), network_id("public"), 1, Sequences::default());
        Self { identity, composer }
    }

    pub fn envelope(
        &mut self,
        kind: EnvelopeKind,
        to: Address,
        payload: &[u8],
        lifetime: Lifetime,
    ) -> Envelope {
        let wanted = Wanted {
            kind,
            priority: Priority::Normal,
            destination: to,
            created_unix_s: clock::unix_s(),
            lifetime,
            max_hops: 8,
        };
        let made = self.composer.open(&wanted, payload).unwrap();
        made.envelope.with_source_key(self.identity.public_key())
    }
}
