//! How much of the volume must stay free: below the reserve nothing new is taken, so that
//! receipts, removals and the system itself still work.

use std::{io, path::Path, sync::Arc};

use super::error::StoreError;

const MIB: u64 = 1 << 20;

/// Free and total bytes of a volume, as far as this process may use them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Space {
    /// Bytes free.
    pub free_bytes: u64,
    /// Bytes in all.
    pub total_bytes: u64,
}

/// Asks about the volume of a path. A function, so that a test can fill a disk that is not full.
pub type SpaceProbe = Arc<dyn Fn(&Path) -> io::Result<Space> + Send + Sync>;

/// Bytes that stay free on a volume of `total_bytes`: 5 %, but at least 1 MiB and at most 64 MiB.
pub fn reserve_bytes(total_bytes: u64) -> u64 {
    (total_bytes / 20).clamp(MIB, 64 * MIB)
}

/// Asks the system about the volume that holds `path`.
///
/// # Errors
/// What the system says; of a volume that takes no writes, that.
#[cfg(unix)]
pub fn system_space(path: &Path) -> io::Result<Space> {
    let stat = rustix::fs::statvfs(path)?;
    if stat.f_flag.contains(rustix::fs::StatVfsMountFlags::RDONLY) {
        return Err(io::ErrorKind::ReadOnlyFilesystem.into());
    }
    Ok(Space {
        free_bytes: stat.f_bavail.saturating_mul(stat.f_frsize),
        total_bytes: stat.f_blocks.saturating_mul(stat.f_frsize),
    })
}

/// Where the system cannot be asked, the disk counts as empty and ENOSPC is the only sign.
///
/// # Errors
/// None.
#[cfg(not(unix))]
pub fn system_space(_path: &Path) -> io::Result<Space> {
    Ok(Space { free_bytes: u64::MAX, total_bytes: u64::MAX })
}

/// Refuses when the volume of `path` is below its reserve, or became read-only, as systems make one
/// that fails. A volume that cannot be asked counts as having room: the write itself will tell.
pub(crate) fn check(probe: &SpaceProbe, path: &Path) -> Result<(), StoreError> {
    let Space { free_bytes, total_bytes } = match probe(path) {
        Ok(space) => space,
        Err(e) if e.kind() == io::ErrorKind::ReadOnlyFilesystem => {
            return Err(StoreError::of_io("looking for room", path, e));
        }
        Err(_) => return Ok(()),
    };
    let reserve_bytes = reserve_bytes(total_bytes);
    if free_bytes < reserve_bytes {
        return Err(StoreError::BelowReserve { free_bytes, reserve_bytes });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_reserve_is_a_twentieth_within_bounds() {
        for (total, reserve) in
            [(0, MIB), (16 * MIB, MIB), (100 * MIB, 5 * MIB), (1280 * MIB, 64 * MIB), (u64::MAX, 64 * MIB)]
        {
            assert_eq!(reserve_bytes(total), reserve, "of {total}");
        }
    }

    #[test]
    fn the_system_knows_its_volumes() {
        let dir = tempfile::tempdir().unwrap();
        let space = system_space(dir.path()).unwrap();
        assert!(space.total_bytes > 0 && space.free_bytes <= space.total_bytes, "{space:?}");
    }
}
