//! An identity on disk: the one file of this layer that touches it.
//!
//! PKCS#8 PEM, mode 0600 in a directory that nobody else may write to. A new file is written
//! under another name, synced, and linked to its own, so that it is there whole or not at all and
//! never takes the place of one that exists; then the directory is synced. Calls block; they are
//! made at start-up.

use std::{
    fs::{self, DirBuilder, File, OpenOptions, Permissions},
    io::{self, Read as _, Write as _},
    os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
};

use zeroize::Zeroizing;

use crate::wire::ids::hex;

use super::{
    error::IdentityError,
    identity::MeshIdentity,
    random::{check_os_rng, os_rng, random_bytes},
};

/// Name of the identity in a data directory.
pub const IDENTITY_FILE: &str = "identity.pem";

/// Largest identity file in bytes; ours takes 119.
const FILE_BYTES_MAX: u64 = 4096;

const FILE_MODE: u32 = 0o600;
const DIR_MODE: u32 = 0o700;
/// What group and others may have of the file: nothing.
const OTHERS: u32 = 0o077;
/// What group and others may not have of its directory: they could put another file in its place.
const OTHERS_WRITE: u32 = 0o022;

impl MeshIdentity {
    /// The identity of a data directory, made with it where there is none. Of two processes that
    /// both make one, both get the one that came first.
    ///
    /// # Errors
    /// As [`MeshIdentity::load`] and [`MeshIdentity::save_new`].
    pub fn load_or_create(dir: &Path) -> Result<Self, IdentityError> {
        let path = dir.join(IDENTITY_FILE);
        match Self::load(&path) {
            Err(IdentityError::Missing { .. }) => {}
            done => return done,
        }
        check_os_rng()?;
        let identity = Self::generate(&mut os_rng());
        match identity.save_new(&path) {
            Ok(()) => Ok(identity),
            Err(IdentityError::Exists { .. }) => Self::load(&path),
            Err(error) => Err(error),
        }
    }

    /// Reads the identity at `path`.
    ///
    /// # Errors
    /// No file, a symbolic link or something else than a file, a file that others may access, a
    /// directory that others may write to, other content.
    pub fn load(path: &Path) -> Result<Self, IdentityError> {
        let named = match fs::symlink_metadata(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(IdentityError::Missing { path: path.into() });
            }
            named => named.map_err(failed("read", path))?,
        };
        if named.is_symlink() {
            return Err(IdentityError::Symlink { path: path.into() });
        }
        if !named.is_file() {
            return Err(IdentityError::NotAFile { path: path.into() });
        }
        let file = File::open(path).map_err(failed("open", path))?;
        let opened = file.metadata().map_err(failed("read", path))?;
        // Swapped for a link between the two calls.
        if (opened.dev(), opened.ino()) != (named.dev(), named.ino()) {
            return Err(IdentityError::Symlink { path: path.into() });
        }
        refuse_others(path, opened.mode(), OTHERS, FILE_MODE)?;
        let dir = directory_of(path);
        let dir_mode = fs::metadata(&dir).map_err(failed("read", &dir))?.mode();
        refuse_others(&dir, dir_mode, OTHERS_WRITE, DIR_MODE)?;

        // Room from the start, since a string that grows leaves copies of its content behind.
        let mut pem = Zeroizing::new(String::with_capacity(FILE_BYTES_MAX as usize));
        let malformed = |detail: String| IdentityError::Malformed { path: path.into(), detail };
        let read = (&file).take(FILE_BYTES_MAX).read_to_string(&mut pem);
        match read {
            Err(error) if error.kind() == io::ErrorKind::InvalidData => {
                return Err(malformed("it is not text".into()));
            }
            read => read.map_err(failed("read", path))?,
        };
        MeshIdentity::from_pkcs8_pem(&pem).map_err(malformed)
    }

    /// Writes the identity to `path`, where there must be nothing, and makes the directory where
    /// there is none. An empty directory is taken over and closed to others.
    ///
    /// # Errors
    /// A file at `path`, a directory that others may write to, a full or failing disk.
    pub fn save_new(&self, path: &Path) -> Result<(), IdentityError> {
        let dir = directory_of(path);
        prepare_directory(&dir)?;
        let suffix = hex(&random_bytes::<8>(&mut os_rng()));
        let fresh = dir.join(format!(".{IDENTITY_FILE}.{suffix}"));
        let written = self.write_fresh(&fresh).and_then(|()| link_new(&fresh, path));
        // Whatever happened, the other name goes; after the link it is the second of two.
        let removed = fs::remove_file(&fresh).map_err(failed("remove", &fresh));
        written.and(removed)?;
        File::open(&dir).and_then(|dir| dir.sync_all()).map_err(failed("sync", &dir))
    }

    fn write_fresh(&self, path: &Path) -> Result<(), IdentityError> {
        let mut options = OpenOptions::new();
        let mut file = options
            .write(true)
            .create_new(true)
            .mode(FILE_MODE)
            .open(path)
            .map_err(failed("create", path))?;
        // The umask may have taken bits away.
        file.set_permissions(Permissions::from_mode(FILE_MODE)).map_err(failed("set the mode of", path))?;
        file.write_all(self.to_pkcs8_pem().as_bytes()).map_err(failed("write", path))?;
        file.sync_all().map_err(failed("sync", path))
    }
}

fn prepare_directory(dir: &Path) -> Result<(), IdentityError> {
    let close =
        || fs::set_permissions(dir, Permissions::from_mode(DIR_MODE)).map_err(failed("set the mode of", dir));
    match fs::metadata(dir) {
        Ok(found) => {
            let empty = fs::read_dir(dir).map_err(failed("read", dir))?.next().is_none();
            if empty { close() } else { refuse_others(dir, found.mode(), OTHERS_WRITE, DIR_MODE) }
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let created = DirBuilder::new().recursive(true).mode(DIR_MODE).create(dir);
            created.map_err(failed("create", dir))?;
            close()?;
            // Its own entry has to outlive a power cut as well.
            let parent = directory_of(dir);
            File::open(&parent).and_then(|parent| parent.sync_all()).map_err(failed("sync", &parent))
        }
        Err(error) => Err(failed("read", dir)(error)),
    }
}

/// Gives `fresh` its final name, unless something has it already. Renaming would overwrite.
fn link_new(fresh: &Path, path: &Path) -> Result<(), IdentityError> {
    fs::hard_link(fresh, path).map_err(|error| match error.kind() {
        io::ErrorKind::AlreadyExists => IdentityError::Exists { path: path.into() },
        _ => failed("create", path)(error),
    })
}

fn refuse_others(path: &Path, mode: u32, refused: u32, wanted: u32) -> Result<(), IdentityError> {
    if mode & refused == 0 {
        Ok(())
    } else {
        Err(IdentityError::TooOpen { path: path.into(), mode: mode & 0o7777, wanted })
    }
}

fn directory_of(path: &Path) -> PathBuf {
    match path.parent() {
        Some(dir) if !dir.as_os_str().is_empty() => dir.into(),
        _ => ".".into(),
    }
}

fn failed(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> IdentityError {
    let path = path.into();
    move |source| IdentityError::Io { action, path, source }
}
