//! `qpc identity`: who this node is, backups of that, and the passphrase on it.

use std::{
    fs::{self, File, OpenOptions},
    io::{Read, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

use clap::Subcommand;
use quicprochat_mesh::{
    api::{ApiError, Contact, ErrorClass, OwnState, Request, Status, Timestamp},
    crypto::{MeshIdentity, Passphrase, WorkFactor, key_file::IDENTITY_FILE},
    node::{BACKUP_FILE_BYTES_MAX, IdentityBackup, Restored},
    storage::data_dir::sync_parent,
    wire::{Address, PublicKey},
};
use serde::Serialize;

use super::init;
use crate::{
    call,
    cx::{Context, path_text},
    fail::Failure,
    human,
    out::note,
    secret::{self, PassphraseFile},
};

const EXAMPLES: &str = "\
Examples:
  qpc identity show
  qpc identity export node.age";

const EXPORT_EXAMPLES: &str = "\
Examples:
  qpc identity export node.age
  qpc identity export node.age --passphrase-file secret.txt

Without qpc, `age --decrypt node.age | jq -r .identity` gets at the key.";

const IMPORT_EXAMPLES: &str = "\
Examples:
  qpc identity import node.age
  qpc identity import node.age --passphrase-file secret.txt";

const PASSPHRASE_EXAMPLES: &str = "\
Examples:
  qpc identity passphrase
  qpc identity passphrase --new-passphrase-file new.txt
  qpc identity passphrase --remove";

const SHOW_EXAMPLES: &str = "\
Examples:
  qpc identity show
  qpc identity show --json | jq -r .address";

#[derive(Debug, Subcommand)]
#[command(after_help = EXAMPLES)]
pub enum Command {
    /// Show the node's address, its public key and how its key file is kept
    ///
    /// The node need not run. Of an identity under a passphrase address and key are known to a node
    /// that runs; of one that does not, the passphrase is asked for.
    #[command(after_help = SHOW_EXAMPLES)]
    Show(ShowArgs),
    /// Write a backup of the identity, the contacts and the configuration, under a passphrase
    ///
    /// The file is in the age format, so that `age` opens it as well. It holds what makes this node
    /// again: its key, its contacts, peers added with `qpc peer add`, config.toml. It holds no messages
    /// and none of the secrets that messages were sealed to: who finds it, and the passphrase, can be
    /// this node from then on, but reads nothing that was sent before. Files that config.toml names are
    /// not in it either. The node may run meanwhile.
    #[command(after_help = EXPORT_EXAMPLES)]
    Export(ExportArgs),
    /// Make the node of a backup again, in a data directory without one
    ///
    /// Contacts and peers come back, and config.toml unless there is one. The node starts far above the
    /// starts of the one that was backed up, so that others believe it. Never run both: they are one
    /// and the same node.
    #[command(after_help = IMPORT_EXAMPLES)]
    Import(ImportArgs),
    /// Put the node's key file under a passphrase, change it, or take it off
    ///
    /// From then on the node starts only with the passphrase: `qpc run --passphrase-file F`, or asked
    /// on the terminal. A node that runs goes on. The key was on the disk in the clear before, and
    /// backups and the disk itself may still have it.
    #[command(after_help = PASSPHRASE_EXAMPLES)]
    Passphrase(PassphraseArgs),
}

#[derive(Debug, clap::Args)]
pub struct ShowArgs {
    #[command(flatten)]
    passphrase: PassphraseFile,
}

#[derive(Debug, clap::Args)]
pub struct ExportArgs {
    /// The backup to write; must not exist yet
    #[arg(value_name = "F")]
    file: PathBuf,

    #[command(flatten)]
    passphrase: PassphraseFile,

    /// Passphrase of the identity itself, where it is under one and that is another
    #[arg(long, value_name = "F")]
    identity_passphrase_file: Option<PathBuf>,

    /// What guessing a passphrase costs, 15 (32 MiB of memory) to 18 (256 MiB)
    #[arg(long, value_name = "N", default_value = "18", value_parser = secret::work_factor)]
    work_factor: WorkFactor,
}

#[derive(Debug, clap::Args)]
pub struct ImportArgs {
    /// The backup
    #[arg(value_name = "F")]
    file: PathBuf,

    #[command(flatten)]
    passphrase: PassphraseFile,
}

#[derive(Debug, clap::Args)]
pub struct PassphraseArgs {
    /// Take the passphrase off
    #[arg(long, conflicts_with = "new_passphrase_file")]
    remove: bool,

    #[command(flatten)]
    passphrase: PassphraseFile,

    /// Take the new passphrase from the first line of this file, where there is an old one
    #[arg(long, value_name = "F")]
    new_passphrase_file: Option<PathBuf>,

    /// What guessing a passphrase costs, 15 (32 MiB of memory) to 18 (256 MiB)
    #[arg(long, value_name = "N", default_value = "18", value_parser = secret::work_factor)]
    work_factor: WorkFactor,
}

#[derive(Serialize)]
struct Shown {
    address: Address,
    public_key: PublicKey,
    path: String,
    test: bool,
    passphrase: bool,
}

#[derive(Serialize)]
struct Exported {
    address: Address,
    file: String,
    bytes: u64,
    contacts: usize,
    peers: usize,
    config: bool,
}

#[derive(Serialize)]
struct Imported {
    address: Address,
    public_key: PublicKey,
    data_dir: String,
    created_at: Timestamp,
    contacts: usize,
    peers: usize,
    config: bool,
}

#[derive(Serialize)]
struct UnderPassphrase {
    address: Address,
    path: String,
    passphrase: bool,
}

pub async fn run(command: Command, cx: &Context) -> Result<(), Failure> {
    match command {
        Command::Show(args) => show(args, cx).await,
        Command::Export(args) => export(args, cx).await,
        Command::Import(args) => import(args, cx),
        Command::Passphrase(args) => passphrase(args, cx),
    }
}

async fn show(args: ShowArgs, cx: &Context) -> Result<(), Failure> {
    let path = cx.data_dir.join(IDENTITY_FILE);
    let is_under = MeshIdentity::is_under_passphrase(&path).map_err(ApiError::failed)?;
    let public_key = match (is_under, running_key(cx).await) {
        (true, Some(key)) => key,
        _ => open(cx, args.passphrase.path())?.public_key(),
    };
    let shown = Shown {
        address: quicprochat_mesh::compute_address(&public_key),
        public_key,
        path: path_text(&path),
        test: init::is_test_identity(&cx.data_dir),
        passphrase: is_under,
    };
    cx.out.show(&shown, |s| {
        let kept = match (s.passphrase, s.test) {
            (_, true) => "a test identity: its seed was on a command line",
            (true, _) => "under a passphrase",
            (false, _) => "in the clear; `qpc identity passphrase` puts it under one",
        };
        human::fields(&[
            ("address", s.address.to_string()),
            ("public key", s.public_key.to_string()),
            ("file", human::escape(&s.path)),
            ("kept", kept.into()),
        ])
    })
}

async fn export(args: ExportArgs, cx: &Context) -> Result<(), Failure> {
    // Before anybody types a passphrase.
    if args.file.symlink_metadata().is_ok() {
        return Err(exists(&args.file).into());
    }
    let path = cx.data_dir.join(IDENTITY_FILE);
    let is_under = MeshIdentity::is_under_passphrase(&path).map_err(ApiError::failed)?;
    let (identity, passphrase) = match (is_under, args.identity_passphrase_file.as_deref()) {
        (false, _) => (open(cx, None)?, secret::new(args.passphrase.path(), "the backup")?),
        (true, Some(file)) => (open(cx, Some(file))?, secret::new(args.passphrase.path(), "the backup")?),
        (true, None) => {
            let backups = match args.passphrase.path() {
                Some(file) => Some(secret::new(Some(file), "the backup")?),
                None => None,
            };
            // One passphrase for both is what most have.
            match backups.and_then(|p| Some((MeshIdentity::load_under(&path, Some(&p)).ok()?, p))) {
                Some(both) => both,
                None => (open(cx, None)?, secret::new(args.passphrase.path(), "the backup")?),
            }
        }
    };
    let data_dir = cx.data_dir.clone();
    let backup = match running_state(cx).await? {
        Some((address, _)) if address != identity.address() => {
            let text = format!(
                "the node that runs is {address} and {} holds {}: export neither before that is put right",
                path.display(),
                identity.address()
            );
            return Err(ApiError::failed(text).into());
        }
        Some((_, state)) => IdentityBackup::with_state(&data_dir, identity, state),
        None => IdentityBackup::of_stopped(&data_dir, identity),
    };
    let backup = backup.map_err(ApiError::failed)?;
    let sealed = backup.seal(&passphrase, args.work_factor).map_err(ApiError::failed)?;
    write_new(&args.file, &sealed)?;
    if backup.config.as_deref().is_some_and(names_other_files) {
        note("config.toml names other files, such as the network's secret; they are not in the backup");
    }
    let exported = Exported {
        address: backup.identity.address(),
        file: path_text(&args.file),
        bytes: u64::try_from(sealed.len()).unwrap_or(u64::MAX),
        contacts: backup.state.contacts.len(),
        peers: backup.state.peers.len(),
        config: backup.config.is_some(),
    };
    cx.out.show(&exported, |e| {
        let config = if e.config { ", config.toml" } else { "" };
        format!(
            "{}: {}\nholds {}, {} contacts, {} peers{config}\nrestore it with `qpc identity import`; without its \
             passphrase nobody can",
            human::escape(&e.file),
            human::bytes(e.bytes),
            e.address,
            e.contacts,
            e.peers
        )
    })
}

fn import(args: ImportArgs, cx: &Context) -> Result<(), Failure> {
    if cx.data_dir.join(IDENTITY_FILE).symlink_metadata().is_ok() {
        let text = format!(
            "{} holds an identity already, which is never overwritten: choose another --data-dir",
            cx.data_dir.display()
        );
        return Err(ApiError::failed(text).into());
    }
    let sealed = read_backup(&args.file)?;
    let shown = args.file.display();
    let failed = |e| ApiError::failed(format!("cannot open the backup {shown}: {e}"));
    IdentityBackup::check(&sealed).map_err(failed)?;
    let passphrase = secret::known(args.passphrase.path(), "the backup")?;
    let backup = IdentityBackup::open(&passphrase, &sealed).map_err(failed)?;
    let Restored { config } = backup.restore(&cx.data_dir).map_err(ApiError::failed)?;
    let imported = Imported {
        address: backup.identity.address(),
        public_key: backup.identity.public_key(),
        data_dir: path_text(&cx.data_dir),
        created_at: backup.created_at,
        contacts: backup.state.contacts.len(),
        peers: backup.state.peers.len(),
        config,
    };
    cx.out.show(&imported, |i| {
        human::fields(&[
            ("address", i.address.to_string()),
            ("public key", i.public_key.to_string()),
            ("data dir", human::escape(&i.data_dir)),
            ("backup of", i.created_at.to_string()),
            ("contacts", i.contacts.to_string()),
            ("peers", i.peers.to_string()),
            ("config.toml", if i.config { "restored" } else { "not touched" }.into()),
            ("next", "qpc run; never run the node that was backed up beside it".into()),
        ])
    })
}

fn passphrase(args: PassphraseArgs, cx: &Context) -> Result<(), Failure> {
    let path = cx.data_dir.join(IDENTITY_FILE);
    let is_under = MeshIdentity::is_under_passphrase(&path).map_err(ApiError::failed)?;
    let (given, fresh) = (args.passphrase.path(), args.new_passphrase_file.as_deref());
    let identity = match (is_under, args.remove) {
        (false, true) => {
            let text =
                format!("the identity {} is under no passphrase: there is none to remove", path.display());
            return Err(ApiError::failed(text).into());
        }
        (true, false) if given.is_some() && fresh.is_none() => {
            return Err(ApiError::usage(
                "the identity is under a passphrase already: give the new one with --new-passphrase-file F, or \
                 --remove",
            )
            .into());
        }
        (true, _) => open(cx, given)?,
        (false, false) => open(cx, None)?,
    };
    // Where there is no old one, both flags can only mean the new one.
    let file = if is_under { fresh } else { fresh.or(given) };
    let new: Option<Passphrase> = match args.remove {
        true => None,
        false => Some(secret::new(file, "the identity")?),
    };
    let under = new.as_ref().map(|passphrase| (passphrase, args.work_factor));
    identity.rewrite(&path, under).map_err(ApiError::failed)?;
    let done =
        UnderPassphrase { address: identity.address(), path: path_text(&path), passphrase: new.is_some() };
    cx.out.show(&done, |d| match d.passphrase {
        true => format!(
            "{} is under a passphrase now\nthe node starts with `qpc run --passphrase-file F`, or asks for it",
            human::escape(&d.path)
        ),
        false => format!("{} is in the clear now, readable by its owner alone", human::escape(&d.path)),
    })
}

/// The identity of the data directory; where it is under a passphrase, that is asked for.
pub(super) fn open(cx: &Context, file: Option<&Path>) -> Result<MeshIdentity, Failure> {
    let path = cx.data_dir.join(IDENTITY_FILE);
    let is_under = MeshIdentity::is_under_passphrase(&path).map_err(ApiError::failed)?;
    let passphrase = match is_under {
        true => Some(secret::known(file, "the identity")?),
        false => None,
    };
    Ok(MeshIdentity::load_under(&path, passphrase.as_ref()).map_err(ApiError::failed)?)
}

/// The public key of the node that runs on the data directory, if one does and it can be told.
pub(super) async fn running_key(cx: &Context) -> Option<PublicKey> {
    let status: Status = call::one(cx, &Request::Status).await.ok()?;
    // The record may be an older node's; a key that has the node's address is its key.
    let ready = super::health::record(cx)?;
    (quicprochat_mesh::compute_address(&ready.public_key) == status.address).then_some(ready.public_key)
}

/// Who the node is that runs on the data directory, if one does, and what it knows.
async fn running_state(cx: &Context) -> Result<Option<(Address, OwnState)>, Failure> {
    let status: Status = match call::one(cx, &Request::Status).await {
        Err(Failure::Api(error)) if error.class == ErrorClass::NoNode => return Ok(None),
        answered => answered?,
    };
    let state: OwnState = call::one(cx, &Request::OwnState).await?;
    let contacts: Vec<Contact> = call::all(cx, &Request::ContactList).await?;
    let contacts = contacts.into_iter().map(|c| (c.name, c.address)).collect();
    Ok(Some((status.address, OwnState { contacts, ..state })))
}

/// True where a key of the configuration names a file that is set.
fn names_other_files(config: &str) -> bool {
    config.lines().any(|line| {
        let key = line.split('=').next().unwrap_or_default().trim();
        line.contains('=') && !key.starts_with('#') && key.ends_with("_file")
    })
}

fn exists(path: &Path) -> ApiError {
    ApiError::failed(format!("{} exists and is not overwritten: choose another name", path.display()))
}

/// Writes a new file, mode 0600, durable; what goes wrong leaves none behind.
fn write_new(path: &Path, content: &[u8]) -> Result<(), Failure> {
    let failed = |e: std::io::Error| ApiError::failed(format!("cannot write {}: {e}", path.display()));
    let opened = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path);
    let mut file = opened.map_err(|e| match e.kind() {
        std::io::ErrorKind::AlreadyExists => exists(path),
        _ => failed(e),
    })?;
    let written = file.write_all(content).and_then(|()| file.sync_all()).map_err(failed);
    let written = written.and_then(|()| sync_parent(path).map_err(ApiError::failed));
    if written.is_err() {
        let _ = fs::remove_file(path);
    }
    Ok(written?)
}

fn read_backup(path: &Path) -> Result<Vec<u8>, Failure> {
    let failed = |e: std::io::Error| ApiError::failed(format!("cannot read {}: {e}", path.display()));
    let file = File::open(path).map_err(failed)?;
    if file.metadata().map_err(failed)?.is_dir() {
        return Err(ApiError::failed(format!("{} is a directory: name a backup", path.display())).into());
    }
    let mut bytes = Vec::new();
    file.take(BACKUP_FILE_BYTES_MAX.saturating_add(1)).read_to_end(&mut bytes).map_err(failed)?;
    match u64::try_from(bytes.len()).is_ok_and(|len| len <= BACKUP_FILE_BYTES_MAX) {
        true => Ok(bytes),
        false => Err(ApiError::failed(format!(
            "{} is larger than the {} that a backup may have",
            path.display(),
            human::bytes(BACKUP_FILE_BYTES_MAX)
        ))
        .into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_configuration_that_names_files_is_told_from_one_that_could() {
        assert!(names_other_files("network = \"x\"\n network_secret_file = \"s\"\n"));
        assert!(names_other_files("[http]\napi_token_file=\"t\""));
        assert!(!names_other_files(
            "# network_secret_file = \"s\"\n#network_secret_file=\"s\"\nnetwork=\"my_file\""
        ));
    }
}
