//! With whom this node has links at all: who is banned, by the configuration or at run time, and whether
//! only some are wanted.
//!
//! A ban is about links. What a banned node sent over others is carried like anything: nobody could tell
//! it from what a neighbour of it passes on.

use std::collections::BTreeSet;

use crate::wire::Address;

/// Bans at run time, 16 bytes each on disk and some 30 in memory. Identities are free, so a longer list
/// stops nobody; `peers.allow` does.
pub const BANS_MAX: usize = 16_384;

/// Why there is no link with a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Barred {
    /// It was banned at run time.
    Banned,
    /// `peers.deny` names it.
    Denied,
    /// `peers.allow` names others.
    NotAllowed,
}

impl Barred {
    /// For people, with what undoes it.
    pub fn why(self) -> &'static str {
        match self {
            Self::Banned => "this node bans it (`qpc peer unban`)",
            Self::Denied => "it stands in `peers.deny` of the configuration",
            Self::NotAllowed => "it does not stand in `peers.allow` of the configuration",
        }
    }
}

/// See the module.
#[derive(Debug, Clone, Default)]
pub struct Bans {
    allow: BTreeSet<Address>,
    deny: BTreeSet<Address>,
    banned: BTreeSet<Address>,
}

impl Bans {
    /// The configuration's word, and what was banned in earlier runs.
    pub fn new(
        allow: impl IntoIterator<Item = Address>,
        deny: impl IntoIterator<Item = Address>,
        banned: impl IntoIterator<Item = Address>,
    ) -> Self {
        Self {
            allow: allow.into_iter().collect(),
            deny: deny.into_iter().collect(),
            banned: banned.into_iter().take(BANS_MAX).collect(),
        }
    }

    /// Whether there may be a link with this node.
    ///
    /// # Errors
    /// Why not.
    pub fn admit(&self, node: &Address) -> Result<(), Barred> {
        if self.deny.contains(node) {
            Err(Barred::Denied)
        } else if self.banned.contains(node) {
            Err(Barred::Banned)
        } else if !self.allow.is_empty() && !self.allow.contains(node) {
            Err(Barred::NotAllowed)
        } else {
            Ok(())
        }
    }

    /// Bans a node; false where there are too many bans for another.
    pub fn ban(&mut self, node: Address) -> bool {
        let fits = self.banned.len() < BANS_MAX || self.banned.contains(&node);
        if fits {
            self.banned.insert(node);
        }
        fits
    }

    /// Lifts a ban of run time; false where there was none.
    pub fn unban(&mut self, node: &Address) -> bool {
        self.banned.remove(node)
    }

    /// Who is banned at run time, in order.
    pub fn banned(&self) -> impl Iterator<Item = &Address> {
        self.banned.iter()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(n: u8) -> Address {
        Address([n; 16])
    }

    #[test]
    fn deny_goes_before_a_ban_and_both_before_allow() {
        let mut bans = Bans::new([node(1), node(2)], [node(3)], [node(2)]);
        for (n, expected) in
            [(1, Ok(())), (2, Err(Barred::Banned)), (3, Err(Barred::Denied)), (4, Err(Barred::NotAllowed))]
        {
            assert_eq!(bans.admit(&node(n)), expected, "{n}");
        }
        assert!(bans.unban(&node(2)) && !bans.unban(&node(2)));
        assert_eq!(bans.admit(&node(2)), Ok(()));
        assert!(!bans.unban(&node(3)), "the configuration's word stands");
        assert_eq!(bans.admit(&node(3)), Err(Barred::Denied));
    }

    #[test]
    fn without_a_list_all_are_admitted_but_the_banned() {
        let mut bans = Bans::default();
        assert_eq!(bans.admit(&node(1)), Ok(()));
        assert!(bans.ban(node(1)) && bans.ban(node(1)));
        assert_eq!(bans.admit(&node(1)), Err(Barred::Banned));
        assert_eq!(bans.banned().collect::<Vec<_>>(), [&node(1)]);
    }

    #[test]
    fn there_is_an_end_to_bans() {
        let mut bans = Bans::default();
        let numbered = |n: usize| Address((n as u128).to_be_bytes());
        assert!((0..BANS_MAX).all(|n| bans.ban(numbered(n))));
        assert!(!bans.ban(numbered(BANS_MAX)));
        assert!(bans.ban(numbered(0)), "it is banned already");
    }
}
