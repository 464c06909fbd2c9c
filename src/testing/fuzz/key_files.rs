//! Any bytes as a node's own keys: the identity's file, and the receiver secrets of its store.

use crate::{
    crypto::{MeshIdentity, ReceiverKeys, age, random::SeededRng, receiver::SECRETS_MAX},
    wire::PublicKey,
};

use super::Script;

pub(super) fn run(data: &[u8]) {
    if let Ok(text) = std::str::from_utf8(data)
        && let Ok(identity) = MeshIdentity::from_pkcs8_pem(text)
    {
        let again = MeshIdentity::from_pkcs8_pem(&identity.to_pkcs8_pem());
        assert!(again.is_ok_and(|again| again.public_key() == identity.public_key()));
    }
    // What is under a passphrase is taken apart before one is asked for.
    let _ = age::check(data, 1 << 16);
    let mut script = Script::new(data);
    let nows = [script.edge(u64::MAX), script.edge(u64::MAX), script.edge(u64::MAX)];
    let state = script.rest();
    let Ok(mut keys) = ReceiverKeys::from_bytes(PublicKey([7; 32]), state) else { return };
    assert!(keys.to_bytes().as_slice() == state, "the state has another spelling");
    // Whatever the disk says and whatever the clock jumps to, it goes on, and what it writes is read.
    let mut rng = SeededRng::new(1);
    for now_unix_s in nows {
        let order = keys.record().order;
        let rotation = keys.rotate(now_unix_s, &mut rng);
        assert!(rotation.issued || rotation.destroyed <= SECRETS_MAX);
        assert!(keys.record().order >= order);
        let _ = keys.next_change_unix_s();
        let again = ReceiverKeys::from_bytes(PublicKey([7; 32]), &keys.to_bytes());
        assert!(again.is_ok_and(|again| again.record().order == keys.record().order));
    }
}
