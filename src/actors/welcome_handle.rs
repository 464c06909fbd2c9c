//! Who may reach the person at this node ([`Welcome`]), shared by delivery and by who changes it.

use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use crate::proto::delivery::welcome::Welcome;

/// What holds now, for whoever has a copy. It outlives the actors.
#[derive(Debug, Clone, Default)]
pub struct WelcomeHandle(Arc<RwLock<Welcome>>);

impl WelcomeHandle {
    /// Of what holds at the start.
    pub fn new(welcome: Welcome) -> Self {
        Self(Arc::new(RwLock::new(welcome)))
    }

    /// What holds now.
    pub fn read(&self) -> RwLockReadGuard<'_, Welcome> {
        // No change leaves it half changed, so a poisoned lock is taken over.
        self.0.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// For who changes it.
    pub fn write(&self) -> RwLockWriteGuard<'_, Welcome> {
        self.0.write().unwrap_or_else(PoisonError::into_inner)
    }
}
