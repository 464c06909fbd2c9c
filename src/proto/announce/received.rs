//! An announce that arrived, for programs that keep a routing table of their own: refused where it
//! is old news, verified, then entered.

use std::time::{Duration, Instant};

use hashlink::LruCache;

use crate::{
    crypto::compute_address,
    proto::{
        table::{ORDER_MEMORY, Order, Reject, RoutingTable, Update, Via},
        verify::{Verifier, VerifyError},
    },
    wire::{Address, Announce},
};

/// How an announce stands to the newest one known of its origin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Freshness {
    /// Nothing as new is remembered.
    Newer,
    /// It is the newest one again: another way to its origin, perhaps.
    Known,
    /// A newer one was here.
    Stale,
}

/// The order of the newest announce of each origin, remembered for a day after it was heard last.
///
/// Bounded: where it is full, the origin not heard for longest is forgotten. Only orders of
/// announces whose signature held belong into it, or anybody could silence anybody else.
///
/// ```
/// use std::time::Instant;
/// use quicprochat_mesh::{AnnounceDedup, Freshness, wire::Address};
///
/// let mut memory = AnnounceDedup::new(1000);
/// let (now, anna) = (Instant::now(), Address([1; 16]));
/// assert_eq!(memory.observe(now, anna, (2, 5)), Freshness::Newer);
/// assert_eq!(memory.observe(now, anna, (2, 5)), Freshness::Known);
/// assert_eq!(memory.observe(now, anna, (1, 9)), Freshness::Stale);
/// ```
#[derive(Debug)]
pub struct AnnounceDedup {
    orders: LruCache<Address, (Order, Instant)>,
    remembered_for: Duration,
}

impl AnnounceDedup {
    /// An empty memory of at most `origins_max` origins, about 64 bytes each.
    pub fn new(origins_max: usize) -> Self {
        Self { orders: LruCache::new(origins_max.max(1)), remembered_for: ORDER_MEMORY }
    }

    /// How an announce stands, remembering nothing: for one whose signature was not checked.
    pub fn judge(&self, now: Instant, origin: &Address, order: Order) -> Freshness {
        match self.orders.peek(origin) {
            Some((known, heard)) if now.saturating_duration_since(*heard) < self.remembered_for => {
                match order.cmp(known) {
                    std::cmp::Ordering::Greater => Freshness::Newer,
                    std::cmp::Ordering::Equal => Freshness::Known,
                    std::cmp::Ordering::Less => Freshness::Stale,
                }
            }
            _ => Freshness::Newer,
        }
    }

    /// How an announce stands, and remembers its order where it is not stale.
    pub fn observe(&mut self, now: Instant, origin: Address, order: Order) -> Freshness {
        let freshness = self.judge(now, &origin, order);
        if freshness != Freshness::Stale {
            self.orders.insert(origin, (order, now));
        }
        freshness
    }

    /// Origins remembered.
    pub fn len(&self) -> usize {
        self.orders.len()
    }

    /// True where none is remembered.
    pub fn is_empty(&self) -> bool {
        self.orders.is_empty()
    }
}

/// Takes an announce that came over `via` into a routing table. What is stale by its own word is
/// refused before its signature is checked, which costs nothing and changes nothing.
///
/// ```
/// # use std::time::{Duration, Instant};
/// # use quicprochat_mesh::{crypto::{SignatureInput, network_id}, proto::verify::Verifier, wire::*};
/// use quicprochat_mesh::{
///     AnnounceDedup, AnnounceParts, MeshIdentity, RoutingTable, create_announce,
///     process_received_announce, proto::table::{LinkClass, Update, Via},
/// };
///
/// # let network = network_id("public");
/// # let (anna, own) = (MeshIdentity::from_seed([1; 32]), MeshIdentity::from_seed([2; 32]));
/// # let parts = AnnounceParts { order: (1, 1), capabilities: Capabilities::default(),
/// #     lifetime: Duration::from_secs(600), max_hops: 8, key_record: None };
/// # let announce = create_announce(&anna, &mut SignatureInput::new(network), &parts);
/// let mut verifier = Verifier::new(own.address(), network);
/// let (now, seed) = (Instant::now(), 7); // a random seed in earnest
/// let (mut memory, mut table) = (AnnounceDedup::new(1000), RoutingTable::new(now, seed, 1000));
/// let via = Via::unmeasured(LinkId(1), LinkClass::Unconstrained, anna.address());
/// let update = process_received_announce(now, &mut verifier, &mut memory, &mut table, announce, &via)?;
/// assert_eq!((update, table.len()), (Update::Newer, 1));
/// # Ok::<(), quicprochat_mesh::MeshError>(())
/// ```
///
/// # Errors
/// As [`Verifier::verify_announce`]; then nothing has changed.
pub fn process_received_announce(
    now: Instant,
    verifier: &mut Verifier,
    memory: &mut AnnounceDedup,
    table: &mut RoutingTable,
    announce: Announce,
    via: &Via,
) -> Result<Update, VerifyError> {
    let claimed = compute_address(&announce.content.public_key);
    if memory.judge(now, &claimed, announce.content.order()) == Freshness::Stale {
        return Ok(Update::Rejected(Reject::Stale));
    }
    let inbound = verifier.verify_announce(announce)?;
    memory.observe(now, inbound.origin, inbound.announce.content.order());
    // Which destinations are in use is for who sends to say: here none is.
    Ok(table.update(now, &inbound, via, &|_| false))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        crypto::{MeshIdentity, SignatureInput, network_id},
        proto::{
            announce::{AnnounceParts, create_announce},
            table::LinkClass,
        },
        wire::{Capabilities, LinkId, Signature},
    };

    const DAY: Duration = Duration::from_secs(24 * 3600);

    fn address(n: u8) -> Address {
        Address([n; 16])
    }

    #[test]
    fn an_order_is_remembered_for_a_day_after_it_was_heard() {
        let mut memory = AnnounceDedup::new(8);
        let start = Instant::now();
        assert!(memory.is_empty());
        assert_eq!(memory.observe(start, address(1), (3, 4)), Freshness::Newer);
        let almost = start + DAY - Duration::from_secs(1);
        assert_eq!(memory.observe(almost, address(1), (3, 3)), Freshness::Stale);
        assert_eq!(memory.observe(almost, address(1), (3, 4)), Freshness::Known);
        // Heard again, and so remembered for another day.
        assert_eq!(memory.judge(almost + DAY / 2, &address(1), (3, 3)), Freshness::Stale);
        assert_eq!(memory.judge(almost + DAY, &address(1), (3, 3)), Freshness::Newer);
        // The boot epoch counts first.
        assert_eq!(memory.observe(almost, address(1), (4, 0)), Freshness::Newer);
    }

    #[test]
    fn a_full_memory_forgets_who_was_not_heard_for_longest() {
        let mut memory = AnnounceDedup::new(2);
        let now = Instant::now();
        for n in [1, 2, 1, 3] {
            memory.observe(now, address(n), (1, 1));
        }
        assert_eq!(memory.len(), 2);
        assert_eq!(memory.judge(now, &address(1), (1, 1)), Freshness::Known);
        assert_eq!(memory.judge(now, &address(2), (1, 1)), Freshness::Newer);
    }

    #[test]
    fn an_announce_is_refused_when_stale_verified_and_entered() {
        let network = network_id("test");
        let (anna, own) = (MeshIdentity::from_seed([1; 32]), MeshIdentity::from_seed([2; 32]));
        let mut input = SignatureInput::new(network);
        let mut make = |order| {
            let parts = AnnounceParts {
                order,
                capabilities: Capabilities(Capabilities::RELAY),
                // Out of range, and so made what it may be.
                lifetime: DAY * 3,
                max_hops: 0,
                key_record: None,
            };
            create_announce(&anna, &mut input, &parts)
        };
        let mut verifier = Verifier::new(own.address(), network);
        let now = Instant::now();
        let (mut memory, mut table) = (AnnounceDedup::new(8), RoutingTable::new(now, 7, 8));
        let via = Via::unmeasured(LinkId(1), LinkClass::Unconstrained, anna.address());
        let mut take =
            |announce| process_received_announce(now, &mut verifier, &mut memory, &mut table, announce, &via);
        let first = make((1, 2));
        assert_eq!((first.content.lifetime_s, first.content.max_hops), (24 * 3600, 1));
        // A forged one of a higher order changes nothing, not even the memory.
        let forged = Announce { signature: Signature([1; 64]), ..make((9, 9)) };
        assert!(take(forged).is_err());
        assert_eq!(take(first.clone()).ok(), Some(Update::Newer));
        assert_eq!(take(first).ok(), Some(Update::Known));
        // Not even looked at: its signature would not hold.
        let stale = Announce { signature: Signature([1; 64]), ..make((1, 1)) };
        assert_eq!(take(stale).ok(), Some(Update::Rejected(Reject::Stale)));
        assert_eq!(table.order(&anna.address()), Some((1, 2)));
    }
}
