//! `qpc init`: an identity and a commented configuration.

use std::{
    fs::{self, File},
    io::{self, Read, stdin},
    path::Path,
};

use quicprochat_mesh::{
    api::{ApiError, Initialised},
    config::MeshConfig,
    crypto::{
        IdentityError, MeshIdentity,
        key_file::{IDENTITY_FILE, TEST_MARK, TEST_MARK_TEXT},
        random::{check_os_rng, os_rng},
    },
    storage::data_dir::{sync_parent, write_atomic},
    wire::ids::unhex,
};

use crate::{cx::Context, cx::path_text, fail::Failure, human, out::note};

/// A seed has 64 hex digits; a line break and some room for spaces around them.
const SEED_TEXT_BYTES_MAX: u64 = 256;

const EXAMPLES: &str = "\
Examples:
  qpc init
  qpc init --data-dir ./n1   a node of its own in a directory
  qpc init --seed @seed.hex  the identity of a seed that was kept";

#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// Make the identity of this 32-byte seed in hex: - reads stdin, @FILE a file; HEX64 on the
    /// command line marks the identity as a test one
    #[arg(long, value_name = "-|@FILE|HEX64")]
    seed: Option<String>,
}

pub fn run(args: Args, cx: &Context) -> Result<(), Failure> {
    let (identity, test) = match args.seed.as_deref() {
        None => {
            check_os_rng().map_err(ApiError::failed)?;
            (MeshIdentity::generate(&mut os_rng()), false)
        }
        Some("-") => (from_seed(stdin().lock(), "stdin")?, false),
        Some(text) => match text.strip_prefix('@') {
            Some(path) => {
                let file = File::open(path)
                    .map_err(|e| ApiError::failed(format!("cannot read the seed {path}: {e}")))?;
                (from_seed(file, path)?, false)
            }
            None => (from_seed(text.as_bytes(), "--seed")?, true),
        },
    };
    create(cx, &identity, test)?;
    let object = Initialised {
        address: identity.address(),
        public_key: identity.public_key(),
        data_dir: path_text(&cx.data_dir),
    };
    cx.out.show(&object, |o| {
        human::fields(&[
            ("address", o.address.to_string()),
            ("public key", o.public_key.to_string()),
            ("data dir", human::escape(&o.data_dir)),
            ("next", "qpc run".into()),
        ])
    })
}

/// Creates what `init` would where the data directory has no identity yet.
pub fn ensure(cx: &Context) -> Result<(), Failure> {
    if cx.data_dir.join(IDENTITY_FILE).symlink_metadata().is_ok() {
        return Ok(());
    }
    check_os_rng().map_err(ApiError::failed)?;
    let identity = MeshIdentity::generate(&mut os_rng());
    create(cx, &identity, false)?;
    note(format!("new identity {} in {}", identity.address(), cx.data_dir.display()));
    Ok(())
}

fn create(cx: &Context, identity: &MeshIdentity, test: bool) -> Result<(), Failure> {
    let path = cx.data_dir.join(IDENTITY_FILE);
    identity.save_new(&path).map_err(|error| match error {
        IdentityError::Exists { .. } => ApiError::failed(format!(
            "{} holds an identity already, which is never overwritten: choose another --data-dir",
            cx.data_dir.display()
        )),
        other => ApiError::failed(other),
    })?;
    if test {
        create_new(&cx.data_dir.join(TEST_MARK), TEST_MARK_TEXT.as_bytes())?;
    }
    // A configuration that was put there before is its author's.
    create_new(&cx.own_config_path(), MeshConfig::commented_toml().as_bytes())
}

/// Writes a file unless there is one. It comes under another name, and gets its own when it is whole.
fn create_new(path: &Path, content: &[u8]) -> Result<(), Failure> {
    if path.symlink_metadata().is_ok() {
        return Ok(());
    }
    let fresh = path.with_added_extension("new");
    let written = write_atomic(&fresh, content).map_err(ApiError::failed).and_then(|()| {
        // Unlike a rename it never takes the place of one that appeared meanwhile.
        let linked = fs::hard_link(&fresh, path);
        // Whatever came of it, the other name goes.
        let removed = fs::remove_file(&fresh);
        match linked {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
            linked => {
                let named = linked.and(removed);
                named.map_err(|e| ApiError::failed(format!("cannot create {}: {e}", path.display())))
            }
        }
    });
    Ok(written.and_then(|()| sync_parent(path).map_err(ApiError::failed))?)
}

/// Whether the identity of a data directory is a test one.
pub fn is_test_identity(data_dir: &Path) -> bool {
    data_dir.join(TEST_MARK).symlink_metadata().is_ok()
}

fn from_seed(reader: impl Read, place: &str) -> Result<MeshIdentity, Failure> {
    let mut text = zeroize::Zeroizing::new(String::with_capacity(SEED_TEXT_BYTES_MAX as usize));
    reader
        .take(SEED_TEXT_BYTES_MAX)
        .read_to_string(&mut text)
        .map_err(|e| ApiError::failed(format!("cannot read the seed from {place}: {e}")))?;
    let seed = unhex::<32>(text.trim())
        .map_err(|e| ApiError::usage(format!("the seed from {place} is not 64 hex digits: {e}")))?;
    Ok(MeshIdentity::from_seed(seed))
}
