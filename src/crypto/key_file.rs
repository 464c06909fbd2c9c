//! An identity on disk: the one file of this layer that touches it.
//!
//! PKCS#8 PEM, mode 0600 in a directory that nobody else may write to. A new file is written
//! under another name, synced, and linked to its own, so that it is there whole or not at all and
//! never takes the place of one that exists; then the directory is synced. Calls block; they are
//! made at start-up.
//!
//! The same file may be under a passphrase: the PEM in an armoured age file ([`super::age`]). Only
//! [`MeshIdentity::rewrite`] turns one into the other, on the wish of whoever holds the key.

use std::{
    fs::{self, DirBuilder, File, OpenOptions, Permissions},
    io::{self, Read as _, Write as _},
    os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
};

use zeroize::Zeroizing;

use crate::wire::ids::hex;

use super::{
    age::{self, Passphrase, WorkFactor},
    error::{CryptoError, IdentityError},
    identity::MeshIdentity,
    random::{check_os_rng, os_rng, random_bytes},
};

/// Name of the identity in a data directory.
pub const IDENTITY_FILE: &str = "identity.pem";

/// Name of the file beside it that marks an identity as one for tests: its seed was on a command
/// line, where every user of the machine and the shell's history may have seen it.
pub const TEST_MARK: &str = "identity.test";

/// What is in the mark, for who looks into it.
pub const TEST_MARK_TEXT: &str = "The seed of this identity was on a command line.\n";

/// Largest identity file in bytes; ours takes 119, under a passphrase some 500.
const FILE_BYTES_MAX: u64 = 4096;

const FILE_MODE: u32 = 0o600;
const DIR_MODE: u32 = 0o700;
/// What group and others may have of the file, and of a directory in which one is made: nothing.
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
        Self::load_or_create_under(dir, None)
    }

    /// As [`MeshIdentity::load_or_create`], of one that may be under `passphrase`. One that is made
    /// is under none.
    ///
    /// # Errors
    /// As [`MeshIdentity::load_under`] and [`MeshIdentity::save_new`].
    pub fn load_or_create_under(dir: &Path, passphrase: Option<&Passphrase>) -> Result<Self, IdentityError> {
        let path = dir.join(IDENTITY_FILE);
        match Self::load_under(&path, passphrase) {
            Err(IdentityError::Missing { .. }) => {}
            done => return done,
        }
        check_os_rng()?;
        let identity = Self::generate(&mut os_rng());
        match identity.save_new(&path) {
            Ok(()) => Ok(identity),
            Err(IdentityError::Exists { .. }) => Self::load_under(&path, passphrase),
            Err(error) => Err(error),
        }
    }

    /// Reads the identity at `path`.
    ///
    /// # Errors
    /// No file, a symbolic link or something else than a file, a file that others may access, a
    /// directory that others may write to, one that is under a passphrase, other content.
    pub fn load(path: &Path) -> Result<Self, IdentityError> {
        Self::load_under(path, None)
    }

    /// Reads the identity at `path`, which may be under `passphrase`. One that is under none is read
    /// all the same. Takes the time and memory that the passphrase was given ([`age::WorkFactor`]).
    ///
    /// # Errors
    /// As [`MeshIdentity::load`]; a passphrase that does not open it.
    pub fn load_under(path: &Path, passphrase: Option<&Passphrase>) -> Result<Self, IdentityError> {
        let content = read_private(path)?;
        let opened = match age::is_age(&content) {
            false => content,
            true => {
                let Some(passphrase) = passphrase else {
                    return Err(IdentityError::UnderPassphrase { path: path.into() });
                };
                age::decrypt(passphrase, &content, FILE_BYTES_MAX as usize)
                    .map_err(|source| IdentityError::Unlock { path: path.into(), source })?
            }
        };
        let malformed = |source| IdentityError::Malformed { path: path.into(), source };
        let pem = std::str::from_utf8(&opened)
            .map_err(|_| malformed(CryptoError::PrivateKey { detail: "it is not text".into() }))?;
        MeshIdentity::from_pkcs8_pem(pem).map_err(malformed)
    }

    /// Whether the identity at `path` is under a passphrase.
    ///
    /// # Errors
    /// As [`MeshIdentity::load`], but for the content, which is not looked into.
    pub fn is_under_passphrase(path: &Path) -> Result<bool, IdentityError> {
        read_private(path).map(|content| age::is_age(&content))
    }

    /// Writes the identity over the file at `path`, under a passphrase or in the clear. The file has
    /// its old content or its new one at every instant, power cuts included. What the disk keeps of
    /// the old one is beyond this.
    ///
    /// # Errors
    /// No file at `path`, or one in the clear that holds another identity; memory for the passphrase;
    /// a full or failing disk.
    pub fn rewrite(
        &self,
        path: &Path,
        under: Option<(&Passphrase, WorkFactor)>,
    ) -> Result<(), IdentityError> {
        match Self::load(path) {
            // Whoever calls has opened it, or does not want it any more.
            Err(IdentityError::UnderPassphrase { .. }) => {}
            Ok(there) if there.public_key() == self.public_key() => {}
            Ok(_) => return Err(IdentityError::Exists { path: path.into() }),
            Err(error) => return Err(error),
        }
        let pem = self.to_pkcs8_pem();
        let content = match under {
            None => pem,
            Some((passphrase, work)) => {
                let armored = age::encrypt_armored(passphrase, work, pem.as_bytes(), &mut os_rng());
                let unlock = |source| IdentityError::Unlock { path: path.into(), source };
                Zeroizing::new(armored.map_err(unlock)?)
            }
        };
        let dir = directory_of(path);
        let fresh = fresh_name(&dir);
        let written = write_fresh(&fresh, content.as_bytes())
            .and_then(|()| fs::rename(&fresh, path).map_err(failed("replace", path)));
        if written.is_err() {
            // It may not be there; what went wrong before is what counts.
            let _ = fs::remove_file(&fresh);
        }
        written.and_then(|()| sync(&dir))
    }

    /// Writes the identity to `path`, where there must be nothing, and makes the directory where
    /// there is none. The mode of one that exists is somebody's decision and never changed.
    ///
    /// # Errors
    /// A file at `path`, a directory that others may look into, a full or failing disk.
    pub fn save_new(&self, path: &Path) -> Result<(), IdentityError> {
        let dir = directory_of(path);
        prepare_directory(&dir)?;
        let fresh = fresh_name(&dir);
        let written =
            write_fresh(&fresh, self.to_pkcs8_pem().as_bytes()).and_then(|()| link_new(&fresh, path));
        // Whatever happened, the other name goes; after the link it is the second of two.
        let removed = fs::remove_file(&fresh).map_err(failed("remove", &fresh));
        written.and(removed)?;
        sync(&dir)
    }
}

/// A name for a file that is not whole yet.
fn fresh_name(dir: &Path) -> PathBuf {
    let suffix = hex(&random_bytes::<8>(&mut os_rng()));
    dir.join(format!(".{IDENTITY_FILE}.{suffix}"))
}

fn sync(dir: &Path) -> Result<(), IdentityError> {
    File::open(dir).and_then(|dir| dir.sync_all()).map_err(failed("sync", dir))
}

fn write_fresh(path: &Path, content: &[u8]) -> Result<(), IdentityError> {
    let mut options = OpenOptions::new();
    let mut file =
        options.write(true).create_new(true).mode(FILE_MODE).open(path).map_err(failed("create", path))?;
    // The umask may have taken bits away.
    file.set_permissions(Permissions::from_mode(FILE_MODE)).map_err(failed("set the mode of", path))?;
    file.write_all(content).map_err(failed("write", path))?;
    file.sync_all().map_err(failed("sync", path))
}

/// The content of a file that only its owner may access, at most [`FILE_BYTES_MAX`] of it.
fn read_private(path: &Path) -> Result<Zeroizing<Vec<u8>>, IdentityError> {
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

    // Room from the start, since a vector that grows leaves copies of its content behind.
    let mut content = Zeroizing::new(Vec::with_capacity(FILE_BYTES_MAX as usize));
    (&file).take(FILE_BYTES_MAX).read_to_end(&mut content).map_err(failed("read", path))?;
    Ok(content)
}

fn prepare_directory(dir: &Path) -> Result<(), IdentityError> {
    match fs::metadata(dir) {
        Ok(found) => refuse_others(dir, found.mode(), OTHERS, DIR_MODE),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let created = DirBuilder::new().recursive(true).mode(DIR_MODE).create(dir);
            created.map_err(failed("create", dir))?;
            // The umask may have taken bits away.
            fs::set_permissions(dir, Permissions::from_mode(DIR_MODE))
                .map_err(failed("set the mode of", dir))?;
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

#[cfg(test)]
mod tests {
    use std::{
        os::unix::fs::symlink,
        process::{Command, Stdio},
    };

    use super::*;
    use crate::crypto::sign::untagged;

    fn identity() -> MeshIdentity {
        MeshIdentity::from_seed([5; 32])
    }

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().mode() & 0o7777
    }

    fn set_mode(path: &Path, mode: u32) {
        fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
    }

    fn saved() -> (tempfile::TempDir, PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        set_mode(dir.path(), 0o700);
        let path = dir.path().join(IDENTITY_FILE);
        identity().save_new(&path).unwrap();
        (dir, path)
    }

    fn names(dir: &Path) -> Vec<String> {
        let entries = fs::read_dir(dir).unwrap();
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
    }

    #[test]
    fn an_identity_is_made_once_and_found_again() {
        let dir = tempfile::tempdir().unwrap();
        let data = dir.path().join("a").join("b");
        let made = MeshIdentity::load_or_create(&data).unwrap();
        let found = MeshIdentity::load_or_create(&data).unwrap();
        assert_eq!(found.public_key(), made.public_key());
        assert_eq!(names(&data), [IDENTITY_FILE], "nothing else is left behind");
        assert_eq!((mode(&data), mode(&data.join(IDENTITY_FILE))), (0o700, 0o600));
    }

    #[test]
    fn an_existing_file_is_never_overwritten() {
        let (dir, path) = saved();
        let stranger = MeshIdentity::from_seed([6; 32]);
        assert!(matches!(stranger.save_new(&path), Err(IdentityError::Exists { .. })));
        assert_eq!(MeshIdentity::load(&path).unwrap().address(), identity().address());
        assert_eq!(names(dir.path()), [IDENTITY_FILE]);

        fs::remove_file(&path).unwrap();
        symlink(dir.path().join("elsewhere"), &path).unwrap();
        assert!(matches!(stranger.save_new(&path), Err(IdentityError::Exists { .. })));
        assert_eq!(names(dir.path()), [IDENTITY_FILE], "nothing was written through the link");
    }

    #[test]
    fn of_many_that_create_at_once_all_get_the_same() {
        let dir = tempfile::tempdir().unwrap();
        let data = dir.path().join("data");
        let addresses: Vec<_> = std::thread::scope(|scope| {
            let create = || MeshIdentity::load_or_create(&data).unwrap().address();
            let threads: Vec<_> = (0..8).map(|_| scope.spawn(create)).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        assert!(addresses.iter().all(|address| *address == addresses[0]), "{addresses:?}");
        assert_eq!(names(&data), [IDENTITY_FILE]);
    }

    /// Runs itself under each umask, since a process has only one.
    #[test]
    fn modes_do_not_depend_on_the_umask() {
        const CHILD: &str = "QPC_TEST_UMASK_CHILD";
        if let Some(data) = std::env::var_os(CHILD) {
            identity().save_new(&Path::new(&data).join(IDENTITY_FILE)).unwrap();
            return;
        }
        for umask in ["000", "022", "077", "777"] {
            let dir = tempfile::tempdir().unwrap();
            let data = dir.path().join("data");
            let status = Command::new("sh")
                .args(["-c", "umask \"$0\"; exec \"$@\"", umask])
                .arg(std::env::current_exe().unwrap())
                .args(["--exact", "crypto::key_file::tests::modes_do_not_depend_on_the_umask"])
                .env(CHILD, &data)
                .stdout(Stdio::null())
                .status()
                .unwrap();
            assert!(status.success(), "umask {umask}");
            let path = data.join(IDENTITY_FILE);
            assert_eq!((mode(&data), mode(&path)), (0o700, 0o600), "umask {umask}");
            assert_eq!(MeshIdentity::load(&path).unwrap().address(), identity().address());
        }
    }

    #[test]
    fn a_file_others_may_access_is_refused_with_the_way_out() {
        let (_dir, path) = saved();
        for open in [0o640, 0o604, 0o660, 0o644, 0o601, 0o666] {
            set_mode(&path, open);
            let refused = MeshIdentity::load(&path).unwrap_err().to_string();
            assert!(refused.contains(&format!("chmod 600 {}", path.display())), "{refused}");
            assert!(refused.contains(&format!("{open:04o}")), "{refused}");
        }
        for closed in [0o600, 0o400] {
            set_mode(&path, closed);
            assert!(MeshIdentity::load(&path).is_ok());
        }
    }

    #[test]
    fn a_directory_others_may_write_to_is_refused() {
        let (dir, path) = saved();
        set_mode(dir.path(), 0o775);
        let refused = MeshIdentity::load(&path).unwrap_err().to_string();
        assert!(refused.contains(&format!("chmod 700 {}", dir.path().display())), "{refused}");
        let other = dir.path().join("other.pem");
        assert!(matches!(identity().save_new(&other), Err(IdentityError::TooOpen { .. })));
        set_mode(dir.path(), 0o755);
        assert!(MeshIdentity::load(&path).is_ok());
    }

    #[test]
    fn an_empty_directory_that_others_may_look_into_is_refused_and_left_as_it_is() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(IDENTITY_FILE);
        for open in [0o755, 0o750, 0o711, 0o777] {
            set_mode(dir.path(), open);
            let refused = identity().save_new(&path).unwrap_err().to_string();
            assert!(refused.contains(&format!("chmod 700 {}", dir.path().display())), "{refused}");
            assert_eq!(mode(dir.path()), open);
            assert!(names(dir.path()).is_empty());
        }
        set_mode(dir.path(), 0o700);
        identity().save_new(&path).unwrap();
    }

    #[test]
    fn links_and_other_things_are_refused() {
        let (dir, path) = saved();
        let link = dir.path().join("link.pem");
        symlink(&path, &link).unwrap();
        assert!(matches!(MeshIdentity::load(&link), Err(IdentityError::Symlink { .. })));
        assert!(matches!(MeshIdentity::load(dir.path()), Err(IdentityError::NotAFile { .. })));
        let none = MeshIdentity::load(&dir.path().join("none.pem")).unwrap_err();
        assert!(none.to_string().contains("qpc init"), "{none}");
    }

    #[test]
    fn other_content_is_refused_and_not_repeated() {
        let (_dir, path) = saved();
        let long = "A".repeat(100_000);
        for content in ["", "opensesame", "-----BEGIN PRIVATE KEY-----\nopensesame\n", &long] {
            fs::write(&path, content).unwrap();
            let refused = MeshIdentity::load(&path).unwrap_err();
            assert!(matches!(refused, IdentityError::Malformed { .. }), "{refused:?}");
            assert!(!format!("{refused} {refused:?}").contains("opensesame"));
        }
        fs::write(&path, [0xff; 40]).unwrap();
        assert!(matches!(MeshIdentity::load(&path), Err(IdentityError::Malformed { .. })));
    }

    #[test]
    fn a_passphrase_is_put_on_changed_and_taken_off() {
        let (dir, path) = saved();
        let words = |text: &str| Passphrase::new(Zeroizing::new(text.to_owned())).unwrap();
        let (old, new) = (words("opensesame"), words("another one"));
        let work = WorkFactor::new(WorkFactor::MIN).unwrap();
        let address = |passphrase: Option<&Passphrase>| {
            MeshIdentity::load_under(&path, passphrase).map(|identity| identity.address())
        };
        assert!(!MeshIdentity::is_under_passphrase(&path).unwrap());
        assert_eq!(address(Some(&old)).unwrap(), identity().address(), "none is needed yet");

        identity().rewrite(&path, Some((&old, work))).unwrap();
        assert!(MeshIdentity::is_under_passphrase(&path).unwrap());
        assert_eq!(mode(&path), 0o600);
        let text = fs::read_to_string(&path).unwrap();
        assert!(
            text.starts_with("-----BEGIN AGE ENCRYPTED FILE-----") && !text.contains("PRIVATE"),
            "{text}"
        );
        assert_eq!(address(Some(&old)).unwrap(), identity().address());
        let needed = address(None).unwrap_err();
        assert!(matches!(needed, IdentityError::UnderPassphrase { .. }), "{needed:?}");
        assert!(needed.to_string().contains("--passphrase-file"), "{needed}");
        let wrong = address(Some(&new)).unwrap_err();
        assert!(wrong.to_string().ends_with("identity.pem: the passphrase is wrong"), "{wrong}");
        // Nobody makes another in its place for want of the passphrase.
        assert!(MeshIdentity::load_or_create(dir.path()).is_err());
        assert!(MeshIdentity::load_or_create_under(dir.path(), Some(&old)).is_ok());

        identity().rewrite(&path, Some((&new, work))).unwrap();
        assert!(address(Some(&old)).is_err() && address(Some(&new)).is_ok());
        identity().rewrite(&path, None).unwrap();
        assert_eq!(address(None).unwrap(), identity().address());
        assert_eq!(names(dir.path()), [IDENTITY_FILE], "nothing else is left behind");
    }

    #[test]
    fn a_rewrite_never_takes_the_place_of_another_identity() {
        let (dir, path) = saved();
        let stranger = MeshIdentity::from_seed([6; 32]);
        assert!(matches!(stranger.rewrite(&path, None), Err(IdentityError::Exists { .. })));
        assert_eq!(MeshIdentity::load(&path).unwrap().address(), identity().address());
        let none = dir.path().join("none.pem");
        assert!(matches!(stranger.rewrite(&none, None), Err(IdentityError::Missing { .. })));
    }

    fn openssl(args: &[&str]) -> Vec<u8> {
        let done = Command::new("openssl").args(args).output().expect("openssl is installed");
        assert!(done.status.success(), "{args:?}: {}", String::from_utf8_lossy(&done.stderr));
        done.stdout
    }

    #[test]
    fn openssl_reads_our_file() {
        let (dir, path) = saved();
        let pem = path.to_str().unwrap();
        let public = openssl(&["pkey", "-in", pem, "-pubout", "-outform", "DER"]);
        assert!(public.ends_with(identity().public_key().as_bytes()));
        assert_eq!(openssl(&["pkey", "-in", pem]), fs::read(&path).unwrap());
        assert_eq!(openssl(&["pkey", "-in", pem, "-outform", "DER"]), *identity().to_pkcs8_der());

        // And signs with it what we sign.
        let message = dir.path().join("message");
        fs::write(&message, b"message").unwrap();
        let message = message.to_str().unwrap();
        let signature = openssl(&["pkeyutl", "-sign", "-inkey", pem, "-rawin", "-in", message]);
        assert_eq!(signature, untagged::sign(&[5; 32], b"message").1.as_bytes());
    }

    #[test]
    fn we_read_the_file_of_openssl() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(IDENTITY_FILE);
        let pem = path.to_str().unwrap();
        openssl(&["genpkey", "-algorithm", "ed25519", "-out", pem]);
        set_mode(&path, 0o600);
        let public = openssl(&["pkey", "-in", pem, "-pubout", "-outform", "DER"]);
        let identity = MeshIdentity::load(&path).unwrap();
        assert!(public.ends_with(identity.public_key().as_bytes()));

        openssl(&["genpkey", "-algorithm", "x25519", "-out", pem]);
        set_mode(&path, 0o600);
        assert!(matches!(MeshIdentity::load(&path), Err(IdentityError::Malformed { .. })));
    }
}
