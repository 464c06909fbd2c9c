//! Randomness: the operating system's and nothing else. No generator of ours is seeded in user
//! space, so a forked, restored or resumed process never repeats one.

use rand_core::{CryptoRng, UnwrapErr};

use super::error::CryptoError;

/// The operating system's generator. It panics where that fails, since no caller can go on
/// without; [`check_os_rng`] at start-up turns the case into an error.
pub type OsRng = UnwrapErr<getrandom::SysRng>;

/// The one source of randomness of a node.
pub fn os_rng() -> OsRng {
    UnwrapErr(getrandom::SysRng)
}

/// Asks the operating system for random bytes once, so that a node without them ends with an
/// error before it makes a key. Where this succeeded later calls do not fail: the kernel's pool,
/// once ready, stays so.
///
/// # Errors
/// [`CryptoError::Randomness`].
pub fn check_os_rng() -> Result<(), CryptoError> {
    getrandom::fill(&mut [0; 32]).map_err(CryptoError::Randomness)
}

/// `N` random bytes.
pub fn random_bytes<const N: usize>(rng: &mut (impl CryptoRng + ?Sized)) -> [u8; N] {
    let mut out = [0; N];
    rng.fill_bytes(&mut out);
    out
}

/// A generator for tests that repeats itself from its seed: SHA-256 over seed and counter. Never
/// part of a node.
#[cfg(any(test, feature = "testing"))]
#[derive(Debug, Clone)]
pub struct SeededRng {
    seed: u64,
    counter: u64,
}

#[cfg(any(test, feature = "testing"))]
impl SeededRng {
    /// Starts the sequence of `seed`.
    pub fn new(seed: u64) -> Self {
        Self { seed, counter: 0 }
    }
}

#[cfg(any(test, feature = "testing"))]
impl rand_core::TryRng for SeededRng {
    type Error = std::convert::Infallible;

    fn try_next_u32(&mut self) -> Result<u32, Self::Error> {
        let mut out = [0; 4];
        self.try_fill_bytes(&mut out)?;
        Ok(u32::from_le_bytes(out))
    }

    fn try_next_u64(&mut self) -> Result<u64, Self::Error> {
        let mut out = [0; 8];
        self.try_fill_bytes(&mut out)?;
        Ok(u64::from_le_bytes(out))
    }

    fn try_fill_bytes(&mut self, out: &mut [u8]) -> Result<(), Self::Error> {
        for chunk in out.chunks_mut(32) {
            let block = super::hash::sha256(&[&self.seed.to_le_bytes(), &self.counter.to_le_bytes()]);
            self.counter = self.counter.wrapping_add(1);
            chunk.iter_mut().zip(block.as_bytes()).for_each(|(to, from)| *to = *from);
        }
        Ok(())
    }
}

#[cfg(any(test, feature = "testing"))]
impl rand_core::TryCryptoRng for SeededRng {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_operating_system_gives_different_bytes_each_time() {
        check_os_rng().unwrap();
        let mut rng = os_rng();
        assert_ne!(random_bytes::<32>(&mut rng), random_bytes::<32>(&mut rng));
    }

    #[test]
    fn a_seeded_sequence_repeats_and_differs_by_seed() {
        let draw = |seed| random_bytes::<100>(&mut SeededRng::new(seed));
        assert_eq!(draw(1), draw(1));
        assert_ne!(draw(1), draw(2));
        assert_ne!(draw(1)[..32], draw(1)[32..64]);
    }
}
