//! Any bytes as a saved announce: with a mark of this node's, as its own disk has them, and without.

use std::{sync::LazyLock, time::Duration};

use crate::{
    crypto::{MeshIdentity, OwnSeal, own_seal::MARK_BYTES},
    proto::{
        router::{SavedRow, row_seal},
        verify::Verifier,
    },
    wire::{Address, NetworkId},
};

use super::Script;

const NETWORK: NetworkId = NetworkId([7; 16]);

static SEAL: LazyLock<OwnSeal> = LazyLock::new(|| row_seal(&MeshIdentity::from_seed([3; 32]), NETWORK));

pub(super) fn run(data: &[u8]) {
    let mut script = Script::new(data);
    let (is_marked, now_s) = (script.bool(), script.edge(u64::MAX));
    let body = script.rest();
    let mut row = body.to_vec();
    if is_marked {
        row.extend(SEAL.mark(body));
    }
    let Some(read) = SavedRow::decode(&row, &SEAL) else { return };
    let written = read.encode(&SEAL);
    let marked = row.len().saturating_sub(MARK_BYTES);
    assert!(written.get(..marked) == row.get(..marked), "the row has another spelling");
    assert!(!is_marked || written == row);
    // A year from now or never: what is made of it ends within what its origin signed.
    let longest = Duration::from_secs(u64::from(crate::wire::announce::ANNOUNCE_LIFETIME_S_MAX));
    assert!(read.ends_in(now_s).is_none_or(|ends_in| ends_in <= longest));
    // Nobody else's row is believed without its signature.
    let mut verifier = Verifier::new(Address([0xee; 16]), NETWORK);
    let verified = read.verify(&mut verifier).is_ok();
    assert!(verified == is_marked || verifier.signatures_checked() > 0 || written == row);
}
