//! What makes a node again that lost its disk: its identity, its contacts, its peers, its
//! configuration, and how often it was started.
//!
//! One JSON object, under a passphrase in the age format ([`crate::crypto::age`]), so that whoever has
//! no `qpc` at hand gets at the identity with `age --decrypt F | jq -r .identity`:
//!
//! ```json
//! {"quicprochat_mesh_backup":1,"created_at":"2026-12-01T09:00:00Z","address":"…","identity":"PEM",
//!  "test":false,"boot_epoch":7,"contacts":[{"name":"anna","address":"…"}],"peers":["quic://…"],
//!  "config":"…"}
//! ```
//!
//! Deliberately absent: receiver secrets, sessions, messages. Who finds a backup, and its passphrase,
//! can be the node, but reads nothing that was sent before. Nothing that would let two nodes go on
//! from one state: what a restored node signs is [`EPOCHS_AHEAD`] starts above the backup.

use std::{borrow::Cow, fs, path::Path, sync::Arc};

use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use super::MeshNode;
use crate::{
    api::{OwnState, Timestamp, check_contact_name},
    clock,
    crypto::{
        MeshIdentity, Passphrase, WorkFactor, age,
        key_file::{IDENTITY_FILE, TEST_MARK, TEST_MARK_TEXT},
        random::os_rng,
    },
    error::MeshError,
    storage::{
        DataDir, EPOCHS_AHEAD, EmbeddedOptions, EmbeddedStore, Engine, KvPage, LocalOp, LocalOutcome,
        Namespace, PageLimit, Work, WorkDone,
        data_dir::{sync_dir, write_atomic},
    },
    wire::Address,
};

/// Largest backup in bytes before encryption.
const BYTES_MAX: usize = 64 << 20;

/// Largest backup as a file; armour adds a third.
pub const BACKUP_FILE_BYTES_MAX: u64 = 96 << 20;

/// Largest configuration that is taken along.
const CONFIG_BYTES_MAX: usize = 1 << 20;

/// Most contacts, and most peers, of one backup.
const ENTRIES_MAX: usize = 1 << 16;

/// Longest URL of a peer.
const PEER_BYTES_MAX: usize = 1024;

/// Version of what is inside.
const VERSION: u32 = 1;

/// Name of the configuration in a data directory.
const CONFIG_NAME: &str = "config.toml";

/// In a data directory while a backup is being restored into it: what is in the store there came from
/// a backup and may be written again.
const UNFINISHED: &str = "import-is-unfinished";

/// A node's identity and what belongs to it.
#[derive(Debug)]
pub struct IdentityBackup {
    /// Who the node is.
    pub identity: MeshIdentity,
    /// True of an identity for tests.
    pub is_test: bool,
    /// When it was made, by the clock of its machine.
    pub created_at: Timestamp,
    /// What else the node was.
    pub state: OwnState,
    /// The text of `config.toml`, where there is one. Files that it names are not taken along.
    pub config: Option<String>,
}

/// What was restored besides the identity.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Restored {
    /// False where the data directory had a `config.toml`, which stays; and where there was none.
    pub config: bool,
}

#[derive(Deserialize)]
struct Versioned {
    quicprochat_mesh_backup: u32,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Raw<'a> {
    quicprochat_mesh_backup: u32,
    created_at: Timestamp,
    address: Address,
    identity: Cow<'a, str>,
    test: bool,
    boot_epoch: u32,
    contacts: Vec<RawContact<'a>>,
    peers: Vec<Cow<'a, str>>,
    config: Option<Cow<'a, str>>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawContact<'a> {
    name: Cow<'a, str>,
    address: Address,
}

impl<'a> From<&'a (String, Address)> for RawContact<'a> {
    fn from((name, address): &'a (String, Address)) -> Self {
        Self { name: name.as_str().into(), address: *address }
    }
}

impl IdentityBackup {
    /// The backup of a node that does not run, whose identity was opened before. Blocks. Where the
    /// node never ran there is nothing but its identity and its configuration.
    ///
    /// # Errors
    /// A node that runs on the directory, a store that cannot be read, a configuration too large.
    pub fn of_stopped(data_dir: &Path, identity: MeshIdentity) -> Result<Self, MeshError> {
        let dir = DataDir::open(data_dir)?;
        let state = match dir.store_path().exists() {
            true => state_of(dir)?,
            false => OwnState::default(),
        };
        Self::with_state(data_dir, identity, state)
    }

    /// The backup of a node that told what it knows ([`MeshNode::own_state`]). Blocks.
    ///
    /// # Errors
    /// A configuration that is too large or cannot be read, more contacts or peers than one backup has.
    pub fn with_state(data_dir: &Path, identity: MeshIdentity, state: OwnState) -> Result<Self, MeshError> {
        let path = data_dir.join(CONFIG_NAME);
        let config = match fs::read(&path) {
            Ok(bytes) if bytes.len() > CONFIG_BYTES_MAX => {
                return Err(refused(format!(
                    "{} is larger than the 1 MiB that a backup takes",
                    path.display()
                )));
            }
            Ok(bytes) => Some(
                String::from_utf8(bytes).map_err(|_| refused(format!("{} is not text", path.display())))?,
            ),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => None,
            Err(error) => return Err(refused(format!("cannot read {}: {error}", path.display()))),
        };
        if state.contacts.len() > ENTRIES_MAX || state.peers.len() > ENTRIES_MAX {
            return Err(refused(format!("a backup has at most {ENTRIES_MAX} contacts and as many peers")));
        }
        let is_test = data_dir.join(TEST_MARK).symlink_metadata().is_ok();
        let created_at = Timestamp(clock::unix_ms());
        Ok(Self { identity, is_test, created_at, state, config })
    }

    /// The backup as a file: binary age. Blocks for as long as `work` says.
    ///
    /// # Errors
    /// No memory for the passphrase.
    pub fn seal(&self, passphrase: &Passphrase, work: WorkFactor) -> Result<Vec<u8>, MeshError> {
        let plaintext = self.to_json()?;
        let sealed = age::encrypt(passphrase, work, &plaintext, &mut os_rng());
        sealed.map_err(|error| refused(format!("cannot write the backup: {error}")))
    }

    /// Opens what [`IdentityBackup::seal`] made, binary or armoured. Blocks for as long as the file
    /// says.
    ///
    /// # Errors
    /// Another passphrase, a file that was changed, or is none.
    pub fn open(passphrase: &Passphrase, file: &[u8]) -> Result<Self, MeshError> {
        let plaintext = age::decrypt(passphrase, file, BYTES_MAX);
        Self::from_json(&plaintext.map_err(|error| refused(error.to_string()))?)
    }

    /// Whether `file` is one that a passphrase may open, before anybody is asked for it.
    ///
    /// # Errors
    /// Something else, a file that is cut off in its header, or too large.
    pub fn check(file: &[u8]) -> Result<(), MeshError> {
        age::check(file, BYTES_MAX).map_err(|error| refused(error.to_string()))
    }

    fn to_json(&self) -> Result<Zeroizing<Vec<u8>>, MeshError> {
        let pem = self.identity.to_pkcs8_pem();
        let raw = Raw {
            quicprochat_mesh_backup: VERSION,
            created_at: self.created_at,
            address: self.identity.address(),
            identity: pem.as_str().into(),
            test: self.is_test,
            boot_epoch: self.state.boot_epoch,
            contacts: self.state.contacts.iter().map(RawContact::from).collect(),
            peers: self.state.peers.iter().map(|peer| peer.as_str().into()).collect(),
            config: self.config.as_deref().map(Into::into),
        };
        let failed = |e: serde_json::Error| refused(format!("cannot write the backup: {e}"));
        // Counted first: a vector that grows leaves copies of the key behind.
        let mut length = Counted(0);
        serde_json::to_writer(&mut length, &raw).map_err(failed)?;
        if length.0 > BYTES_MAX {
            return Err(refused("the backup is larger than the 64 MiB that one may have".into()));
        }
        let mut out = Zeroizing::new(Vec::with_capacity(length.0));
        serde_json::to_writer(&mut *out, &raw).map_err(failed)?;
        Ok(out)
    }

    fn from_json(json: &[u8]) -> Result<Self, MeshError> {
        let none = |_| refused("what is in it is no backup of an identity".into());
        let Versioned { quicprochat_mesh_backup: version } = serde_json::from_slice(json).map_err(none)?;
        if version != VERSION {
            return Err(refused(format!(
                "it is a backup of version {version} and this program reads version {VERSION}: use a newer one"
            )));
        }
        // A message of the parser's could repeat what is in it.
        let raw: Raw<'_> = serde_json::from_slice(json).map_err(|e| {
            refused(format!("the backup is damaged at line {}, column {}", e.line(), e.column()))
        })?;
        let pem = Zeroizing::new(raw.identity.into_owned());
        let identity = MeshIdentity::from_pkcs8_pem(&pem)?;
        let wrong = |what: &str| refused(format!("the backup is damaged: {what}"));
        if identity.address() != raw.address {
            return Err(wrong("its key belongs to another address"));
        }
        if raw.boot_epoch > u32::MAX - 2 * EPOCHS_AHEAD {
            return Err(wrong("it has more starts than a node can make"));
        }
        if raw.contacts.len() > ENTRIES_MAX || raw.peers.len() > ENTRIES_MAX {
            return Err(wrong("it has more contacts or peers than a backup may"));
        }
        if raw.config.as_ref().is_some_and(|config| config.len() > CONFIG_BYTES_MAX) {
            return Err(wrong("its configuration is larger than 1 MiB"));
        }
        let mut contacts = Vec::with_capacity(raw.contacts.len());
        for RawContact { name, address } in raw.contacts {
            if check_contact_name(&name).is_err() || address.is_reserved() {
                return Err(wrong("a contact has a name or an address that none can have"));
            }
            contacts.push((name.into_owned(), address));
        }
        let is_url = |url: &str| {
            url.contains("://") && url.len() <= PEER_BYTES_MAX && url.bytes().all(|b| b.is_ascii_graphic())
        };
        if !raw.peers.iter().all(|url| is_url(url)) {
            return Err(wrong("a peer is no URL"));
        }
        let peers = raw.peers.into_iter().map(|url| url.into_owned()).collect();
        Ok(Self {
            identity,
            is_test: raw.test,
            created_at: raw.created_at,
            state: OwnState { boot_epoch: raw.boot_epoch, contacts, peers },
            config: raw.config.map(|config| config.into_owned()),
        })
    }

    /// Makes `data_dir` the data directory of this node. There may be a `config.toml` in it, which
    /// stays, but no node. The identity comes last, so that what a crash leaves is no node yet, and
    /// restoring it again is possible. Blocks.
    ///
    /// # Errors
    /// A node in the directory, a disk that is full or fails.
    pub fn restore(&self, data_dir: &Path) -> Result<Restored, MeshError> {
        let holds_node = |what: &str| {
            refused(format!(
                "{} holds {what} already, which is never overwritten: choose another --data-dir",
                data_dir.display()
            ))
        };
        // Before the directory is made or locked, so that a refused one is left as it is.
        let identity = data_dir.join(IDENTITY_FILE);
        if identity.symlink_metadata().is_ok() {
            return Err(holds_node("an identity"));
        }
        let dir = DataDir::open(data_dir)?;
        let unfinished = data_dir.join(UNFINISHED);
        let has_store = [dir.store_path(), dir.row_keys_path()].iter().any(|p| p.symlink_metadata().is_ok());
        if has_store && !unfinished.exists() {
            return Err(holds_node("a node's store"));
        }
        write_atomic(&unfinished, b"")?;
        fill_store(dir, &self.state)?;
        let config = match (&self.config, data_dir.join(CONFIG_NAME)) {
            (Some(config), path) if path.symlink_metadata().is_err() => {
                write_atomic(&path, config.as_bytes())?;
                true
            }
            _ => false,
        };
        if self.is_test {
            write_atomic(&data_dir.join(TEST_MARK), TEST_MARK_TEXT.as_bytes())?;
        }
        self.identity.save_new(&identity)?;
        fs::remove_file(&unfinished)
            .map_err(|e| refused(format!("cannot remove {}: {e}", unfinished.display())))?;
        sync_dir(data_dir)?;
        Ok(Restored { config })
    }
}

impl MeshNode {
    /// What a backup of the identity has besides it: contacts, peers added at run time, and the number
    /// of this start.
    ///
    /// # Errors
    /// The store.
    pub async fn own_state(&self) -> Result<OwnState, MeshError> {
        let boot_epoch = match self.kv(LocalOp::RaiseBootEpoch { at_least: 0 }).await? {
            LocalOutcome::BootEpoch(epoch) => epoch,
            _ => 0,
        };
        let contacts = self.contacts().await?.into_iter().map(|c| (c.name, c.address)).collect();
        let peers = self.kv_all(Namespace::Peer).await?;
        let peers = peers.into_iter().filter_map(|(url, _)| String::from_utf8(url).ok()).collect();
        Ok(OwnState { boot_epoch, contacts, peers })
    }
}

/// The same of a store that nobody has open.
fn state_of(dir: DataDir) -> Result<OwnState, MeshError> {
    let mut store = EmbeddedStore::open(Arc::new(dir), EmbeddedOptions::default())?;
    let boot_epoch = store.boot_epoch();
    let contacts = rows(&mut store, Namespace::Contact)?.into_iter().filter_map(|(name, address)| {
        let address = Address(address.as_slice().try_into().ok()?);
        Some((String::from_utf8(name).ok()?, address))
    });
    let contacts = contacts.collect();
    let peers = rows(&mut store, Namespace::Peer)?;
    let peers = peers.into_iter().filter_map(|(url, _)| String::from_utf8(url).ok()).collect();
    store.close()?;
    Ok(OwnState { boot_epoch, contacts, peers })
}

fn fill_store(dir: DataDir, state: &OwnState) -> Result<(), MeshError> {
    let mut store = EmbeddedStore::open(Arc::new(dir), EmbeddedOptions::default())?;
    let at_least = state.boot_epoch.saturating_add(EPOCHS_AHEAD);
    let mut ops = vec![LocalOp::RaiseBootEpoch { at_least }];
    for (name, address) in &state.contacts {
        let (namespace, key) = (Namespace::Contact, name.as_bytes().to_vec());
        ops.push(LocalOp::KvPut { namespace, key, value: address.0.to_vec() });
        let (namespace, key) = (Namespace::Known, address.0.to_vec());
        ops.push(LocalOp::KvPut { namespace, key, value: Vec::new() });
    }
    for url in &state.peers {
        let key = url.as_bytes().to_vec();
        ops.push(LocalOp::KvPut { namespace: Namespace::Peer, key, value: Vec::new() });
    }
    for outcome in store.commit(&[Work::Local(ops)])? {
        outcome?;
    }
    Ok(store.close()?)
}

/// A key and its value.
type Row = (Vec<u8>, Vec<u8>);

fn rows(store: &mut EmbeddedStore, namespace: Namespace) -> Result<Vec<Row>, MeshError> {
    let mut all = Vec::new();
    let mut after = None;
    loop {
        let page = LocalOp::KvPage { namespace, after, limit: PageLimit::default() };
        let mut done = store.commit(&[Work::Local(vec![page])])?;
        let Some(WorkDone::Local(mut outcomes)) = done.pop().transpose()? else { return Ok(all) };
        let Some(LocalOutcome::Values(KvPage { rows, next, .. })) = outcomes.pop() else { return Ok(all) };
        all.extend(rows);
        after = next;
        if after.is_none() {
            return Ok(all);
        }
    }
}

fn refused(why: String) -> MeshError {
    MeshError::Refused(why)
}

/// Counts bytes.
struct Counted(usize);

impl std::io::Write for Counted {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0 = self.0.saturating_add(bytes.len());
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn backup() -> IdentityBackup {
        IdentityBackup {
            identity: MeshIdentity::from_seed([7; 32]),
            is_test: true,
            created_at: Timestamp(1_800_000_000_000),
            state: OwnState {
                boot_epoch: 7,
                contacts: vec![("J\u{f6}rg".into(), Address([2; 16])), ("anna".into(), Address([1; 16]))],
                peers: vec!["quic://example.org:7410".into()],
            },
            config: Some("network = \"x\"\n".into()),
        }
    }

    fn json() -> serde_json::Value {
        serde_json::from_slice(&backup().to_json().unwrap()).unwrap()
    }

    fn read(json: &serde_json::Value) -> Result<IdentityBackup, MeshError> {
        IdentityBackup::from_json(json.to_string().as_bytes())
    }

    #[test]
    fn what_goes_in_comes_out() {
        let there = read(&json()).unwrap();
        let here = backup();
        assert_eq!(there.identity.public_key(), here.identity.public_key());
        assert_eq!((there.is_test, there.created_at), (here.is_test, here.created_at));
        assert_eq!((there.state, there.config), (here.state, here.config));
    }

    #[test]
    fn what_no_backup_has_is_refused_and_never_repeated() {
        let wrong = |path: &str, value: serde_json::Value| {
            let mut changed = json();
            changed[path] = value;
            let text = read(&changed).map(|_| ()).unwrap_err().to_string();
            assert!(!text.contains("PRIVATE") && text.lines().count() == 1, "{path}: {text}");
            text
        };
        use serde_json::json;
        assert!(wrong("quicprochat_mesh_backup", json!(2)).contains("newer"));
        assert!(wrong("identity", json!("-----BEGIN PRIVATE KEY-----")).contains("no Ed25519"));
        assert!(wrong("address", json!("11".repeat(16))).contains("another address"));
        assert!(wrong("boot_epoch", json!(u32::MAX)).contains("more starts"));
        wrong("boot_epoch", json!(-1));
        wrong("contacts", json!([{"name": "cafe", "address": "11".repeat(16)}]));
        wrong("contacts", json!([{"name": "anna", "address": "00".repeat(16)}]));
        wrong("contacts", json!([{"name": "a\u{1b}[2J", "address": "11".repeat(16)}]));
        wrong("contacts", json!([{"name": "anna", "address": "11".repeat(16), "more": 1}]));
        wrong("peers", json!(["quic://a b:1"]));
        wrong("peers", json!(["\u{1b}]0;x://"]));
        wrong("peers", json!([format!("quic://{}:1", "a".repeat(2000))]));
        wrong("config", json!("#".repeat(CONFIG_BYTES_MAX + 1)));
        wrong("more", json!(1));
        for garbage in [&b""[..], b"{", b"[]", b"null", b"\xff\xfe", b"{\"quicprochat_mesh_backup\":1}"] {
            assert!(IdentityBackup::from_json(garbage).is_err());
        }
    }

    #[test]
    fn a_restored_node_starts_above_its_backup_and_an_interrupted_restore_is_repeated() {
        let temp = tempfile::tempdir().unwrap();
        let data = temp.path().join("data");
        // As a crash leaves it: the store is there, the identity is not.
        let dir = DataDir::open(&data).unwrap();
        write_atomic(&data.join(UNFINISHED), b"").unwrap();
        fill_store(dir, &OwnState { boot_epoch: 3, ..OwnState::default() }).unwrap();

        assert_eq!(backup().restore(&data).unwrap(), Restored { config: true });
        assert!(!data.join(UNFINISHED).exists() && data.join(TEST_MARK).exists());
        let again = IdentityBackup::of_stopped(&data, MeshIdentity::from_seed([7; 32])).unwrap();
        assert_eq!(again.state.boot_epoch, 7 + EPOCHS_AHEAD + 1, "the first start after it");
        assert_eq!(
            (&again.state.contacts, &again.state.peers),
            (&backup().state.contacts, &backup().state.peers)
        );
        assert_eq!((again.config, again.is_test), (backup().config, true));

        let refused = backup().restore(&data).unwrap_err().to_string();
        assert!(refused.contains("holds an identity already"), "{refused}");
        fs::remove_file(data.join(IDENTITY_FILE)).unwrap();
        let refused = backup().restore(&data).unwrap_err().to_string();
        assert!(refused.contains("holds a node's store already"), "{refused}");
    }
}
