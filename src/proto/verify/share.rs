//! What a node spends on the signatures of announces and key records, all neighbours together.
//!
//! Each neighbour has a budget of its own ([`crate::proto::lease`]), and fifty of them who use it up
//! would keep a core busy with nodes that nobody writes to, while the messages of others wait for it.
//! So there is one pool for all. What a link brings now and then is looked into however the pool
//! stands: nobody is silenced by those who shout.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Instant,
};

use crate::proto::limit::TokenBucket;

/// Signatures a second of the pool: a fifth of a core at 100 µs an announce, and three times what the
/// announces of a million nodes come to in a mesh where each counts for half an hour.
pub const POOL_PER_S: u64 = 2_000;

/// Signatures of the pool at once: 10 ms of what others wait for.
const POOL_BURST: u64 = 100;

/// What each link has beside it, for its neighbour's own announce and some more.
const LINK_PER_S: u64 = 1;
const LINK_BURST: u64 = 8;

/// The pool. A clone is the same one.
#[derive(Debug, Clone, Default)]
pub(super) struct Pool(Arc<Mutex<Option<TokenBucket>>>);

impl Pool {
    fn with<T>(&self, now: Instant, of: impl FnOnce(&mut TokenBucket) -> T) -> T {
        let mut pool = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        of(pool.get_or_insert_with(|| TokenBucket::new(POOL_BURST, POOL_PER_S, now)))
    }
}

/// What one link may spend: the pool, and a little of its own.
#[derive(Debug)]
pub struct CheckShare {
    pool: Pool,
    own: TokenBucket,
}

impl CheckShare {
    pub(super) fn new(pool: Pool, now: Instant) -> Self {
        Self { pool, own: TokenBucket::new(LINK_BURST, LINK_PER_S, now) }
    }

    /// Whether one more signature may be looked into.
    pub fn has_room(&mut self, now: Instant) -> bool {
        self.own.available(now) > 0 || self.pool.with(now, |pool| pool.available(now) > 0)
    }

    /// So many were. What was known already costs nothing.
    pub fn charge(&mut self, now: Instant, signatures: u64) {
        // The link's own is for when the pool is empty.
        let of_pool = self.pool.with(now, |pool| {
            let of_pool = pool.available(now).min(signatures);
            pool.charge(now, of_pool);
            of_pool
        });
        self.own.charge(now, signatures.saturating_sub(of_pool));
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    /// Signatures looked into at `now`, of so many that came.
    fn checked(share: &mut CheckShare, now: Instant, came: u64) -> u64 {
        let mut checked = 0;
        while checked < came && share.has_room(now) {
            share.charge(now, 1);
            checked += 1;
        }
        checked
    }

    #[test]
    fn links_share_one_pool_and_each_has_a_little_of_its_own() {
        let start = Instant::now();
        let pool = Pool::default();
        let mut links: Vec<_> = (0..50).map(|_| CheckShare::new(pool.clone(), start)).collect();
        // The first one takes the pool, and what it has itself.
        assert_eq!(checked(&mut links[0], start, 10_000), POOL_BURST + LINK_BURST);
        assert_eq!(checked(&mut links[1], start, 10_000), LINK_BURST, "not silenced");
        // A minute in which all of them shout.
        let mut sum = 0;
        for ms in (0..60_000).step_by(50) {
            let now = start + Duration::from_millis(ms);
            sum += links[2..].iter_mut().map(|link| checked(link, now, 10)).sum::<u64>();
        }
        let most = 60 * POOL_PER_S + 48 * (LINK_BURST + 60 * LINK_PER_S);
        assert!((most * 95 / 100..=most).contains(&sum), "{sum} of {most}");
        // One that was silent finds its own untouched, whatever the others do.
        let now = start + Duration::from_secs(60);
        checked(&mut links[2], now, 10_000);
        assert!(checked(&mut links[0], now, 30) >= LINK_BURST);
    }
}
