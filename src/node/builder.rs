//! From a configuration to a node that is ready to start: directory, identity, store, keys.

use std::{
    path::{Path, PathBuf},
    sync::{Arc, Mutex, OnceLock},
};

use tokio::sync::{mpsc, watch};

use super::{
    Inner, MeshNode, Seats, ShutdownCoordinator, people,
    reload::{LogFilter, Program, ReadConfig},
    sweep,
    tree::Prepared,
};
use crate::{
    actors::{
        clock_handle::ClockHandle,
        delivery::{HistoryFile, OwnKeys},
        health::HealthHandle,
        maintenance::{CLOCK_MARK_KEY, RECEIVER_SECRETS_KEY},
        welcome_handle::WelcomeHandle,
    },
    clock,
    config::{ConfigError, HealthListen, MeshConfig},
    crypto::{
        MeshIdentity, Passphrase, ReceiverKeys, RotationPolicy, SignatureInput, key_record, network_id,
        random::{self, check_os_rng},
    },
    error::{ErrorContext, MeshError},
    events::Events,
    proto::{
        delivery::welcome::Welcome,
        link::NetworkSecret,
        node_clock::{Mark, NodeTime},
        verify::Verifier,
    },
    storage::{
        BackupSource, BlobDir, DataDir, EmbeddedOptions, EmbeddedStore, Engine, InboxQuota, InboxShares,
        LocalOp, LocalOutcome, LocalStore, Namespace, QueueBounds, StopReason, StoreEvent, StoreThread,
        ask_local, space::system_space,
    },
    telemetry,
    transport::MeshTransport,
    wire::NetworkId,
};

/// File of the history of messages.
const HISTORY_NAME: &str = "history.jsonl";

/// Subsystems that report their health.
const SUBSYSTEMS: [&str; 3] = ["transport", "routing", "store"];

/// Builds a [`MeshNode`].
#[derive(Default)]
pub struct MeshNodeBuilder {
    config: MeshConfig,
    data_dir: Option<PathBuf>,
    identity: Option<MeshIdentity>,
    passphrase: Option<Passphrase>,
    transports: Vec<Arc<dyn MeshTransport>>,
    control_socket: bool,
    program: Option<ShutdownCoordinator>,
    read_config: Option<ReadConfig>,
    log_filter: Option<LogFilter>,
}

impl std::fmt::Debug for MeshNodeBuilder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("MeshNodeBuilder").field("data_dir", &self.data_dir).finish_non_exhaustive()
    }
}

impl MeshNodeBuilder {
    /// A node with the default configuration.
    pub fn new() -> Self {
        Self::default()
    }

    /// With this configuration.
    pub fn config(mut self, config: MeshConfig) -> Self {
        self.config = config;
        self
    }

    /// Keeps everything in this directory; created with mode 0700 where it is missing.
    pub fn data_dir(mut self, dir: impl Into<PathBuf>) -> Self {
        self.data_dir = Some(dir.into());
        self
    }

    /// As this identity instead of the one in the data directory.
    pub fn identity(mut self, identity: MeshIdentity) -> Self {
        self.identity = Some(identity);
        self
    }

    /// Opens the identity in the data directory with this passphrase, where it is under one
    /// ([`MeshIdentity::rewrite`] puts it there).
    pub fn passphrase(mut self, passphrase: Passphrase) -> Self {
        self.passphrase = Some(passphrase);
        self
    }

    /// Attaches a medium of the embedding program's own. It listens and dials beside those of the
    /// configuration.
    pub fn transport(mut self, transport: Arc<dyn MeshTransport>) -> Self {
        self.transports.push(transport);
        self
    }

    /// Where the health endpoint listens.
    pub fn health_listen(mut self, at: HealthListen) -> Self {
        self.config.health.listen = at;
        self
    }

    /// Serves the control socket that `qpc` talks to, in the data directory.
    pub fn control_socket(mut self) -> Self {
        self.control_socket = true;
        self
    }

    /// Says how the configuration is read once more, for `qpc reload`: flags, environment and file as
    /// at the start.
    pub fn reload_with(
        mut self,
        read: impl Fn() -> Result<MeshConfig, ConfigError> + Send + Sync + 'static,
    ) -> Self {
        self.read_config = Some(Box::new(read));
        self
    }

    /// Says how the filter of log lines is changed, for `qpc log-level` and `logging.filter`; the error
    /// is told to who asked.
    pub fn log_filter_with(
        mut self,
        set: impl Fn(&str) -> Result<(), String> + Send + Sync + 'static,
    ) -> Self {
        self.log_filter = Some(Box::new(set));
        self
    }

    /// Makes the program's own tasks, connections and hooks part of the node's drain. A coordinator
    /// serves one node.
    pub fn shutdown(mut self, coordinator: ShutdownCoordinator) -> Self {
        self.program = Some(coordinator);
        self
    }

    /// Opens the data directory, the identity and the store.
    ///
    /// # Errors
    /// A configuration that contradicts itself, a directory that is in use or too open, an identity
    /// under a passphrase that was not given or does not fit, a store that cannot be opened.
    pub async fn build(self) -> Result<MeshNode, MeshError> {
        self.config.validate()?;
        check_os_rng()?;
        // A recorder of the embedding program's gets the numbers then.
        let _ = telemetry::install();
        let dir = self.data_dir.ok_or(MeshError::NoDataDir)?;
        let network = network_id(&self.config.identity.network);
        let network_secret = network_secret(&self.config, &dir)?;

        let opened = {
            let (dir, config) = (dir.clone(), self.config.clone());
            let (identity, passphrase) = (self.identity, self.passphrase);
            tokio::task::spawn_blocking(move || open(&dir, &config, identity, passphrase)).await
        };
        let opened = opened.map_err(|_| MeshError::Stopped("store opener"))??;
        let store: Arc<dyn LocalStore> = Arc::new(opened.thread.handle());
        sweep::contents_without_rows(&*store, &opened.blobs).await;
        let clock = node_clock(&*store).await?;
        let blocked = people::blocked_on_record(&*store).await?;
        let welcome = WelcomeHandle::new(Welcome::new(people::accept(self.config.inbox.accept), blocked));
        let events = Events::default();
        let policy = rotation_policy(&self.config);
        let keys = receiver_keys(&*store, &opened.identity, network, policy, clock.time()).await?;

        // Last of what can be refused: a coordinator of a node that was not built stays free.
        if let Some(program) = &self.program {
            program.take()?;
        }
        let history = HistoryFile::new(dir.join(HISTORY_NAME), self.config.store.history_max.0);
        let (inbox_grown, inbox_seen) = watch::channel(0);
        let verifier = Verifier::new(opened.identity.address(), network);
        let health = HealthHandle::new(SUBSYSTEMS);
        let seats = Seats::vacant();
        let prepared = Prepared {
            config: self.config.clone(),
            data_dir: dir,
            identity: opened.identity.clone(),
            network,
            network_secret,
            store_thread: opened.thread,
            store_events: opened.events,
            blobs: opened.blobs.clone(),
            keys,
            clock: clock.clone(),
            welcome: welcome.clone(),
            events: events.clone(),
            inbox_grown,
            health: health.clone(),
            seats: seats.clone(),
            transports: self.transports,
            control_socket: self.control_socket,
            program: self.program,
        };
        Ok(MeshNode(Arc::new(Inner {
            live: std::sync::RwLock::new(Arc::new(self.config.clone())),
            program: Program { read_config: self.read_config, log_filter: self.log_filter },
            welcome,
            events,
            config: self.config,
            identity: opened.identity,
            health,
            seats,
            store,
            blobs: opened.blobs,
            inbox_grown: inbox_seen,
            history,
            external: watch::Sender::new(Vec::new()),
            clock,
            backup: opened.backup,
            verifier: Mutex::new(verifier),
            taker: Arc::default(),
            started_at: clock::now(),
            prepared: Mutex::new(Some(prepared)),
            listening: OnceLock::new(),
        })))
    }
}

struct Opened {
    identity: Arc<MeshIdentity>,
    thread: StoreThread,
    events: mpsc::UnboundedReceiver<StopReason>,
    blobs: Arc<BlobDir>,
    backup: BackupSource,
}

/// Everything that blocks on the disk.
fn open(
    dir: &Path,
    config: &MeshConfig,
    identity: Option<MeshIdentity>,
    passphrase: Option<Passphrase>,
) -> Result<Opened, MeshError> {
    let data_dir = Arc::new(DataDir::open(dir)?);
    let identity = match identity {
        Some(identity) => identity,
        None => MeshIdentity::load_or_create_under(dir, passphrase.as_ref())?,
    };
    let blobs = BlobDir::open(&data_dir.blobs_path(), Arc::new(system_space))?;
    let options = EmbeddedOptions {
        quota: quota(config),
        inbox_quota: InboxQuota::new(config.store.inbox_max.0, inbox_shares(config)),
        cache_bytes: usize::try_from(config.store.cache.0).unwrap_or(usize::MAX),
        ..EmbeddedOptions::default()
    };
    let engine = EmbeddedStore::open(data_dir, options)?;
    let backup = engine.backup_source();
    metrics::gauge!(telemetry::INBOX).set(engine.inbox_messages() as f64);
    let (stopped, events) = mpsc::unbounded_channel();
    let observer = Box::new(move |event| match event {
        StoreEvent::Batch(stats) => {
            if stats.syncs > 0 {
                metrics::histogram!(telemetry::COMMIT_SECONDS).record(stats.took.as_secs_f64());
                metrics::histogram!(telemetry::COMMIT_BATCH).record(stats.ops as f64);
            }
            metrics::gauge!(telemetry::INBOX).set(stats.inbox_messages as f64);
        }
        StoreEvent::Failed(error) => tracing::error!(%error, "a batch of the store failed"),
        StoreEvent::Stopped(reason) => drop(stopped.send(reason)),
    });
    let thread = StoreThread::start(Box::new(engine), QueueBounds::default(), observer)?;
    // A disk that fails one of them fails both.
    let blobs = Arc::new(blobs.reporting_to(thread.handle()));
    Ok(Opened { identity: Arc::new(identity), thread, events, blobs, backup })
}

fn quota(config: &MeshConfig) -> crate::storage::MailboxQuota {
    let mut quota = crate::storage::MailboxQuota::default();
    let total = config.store.mailbox_max.0;
    let share = |percent: u8| total / 100 * u64::from(percent);
    quota.global.bytes_max = total;
    quota.per_ingress.bytes_max = share(config.store.mailbox_neighbour_percent);
    quota.per_source.bytes_max = share(config.store.mailbox_source_percent);
    quota.per_destination.bytes_max = share(config.store.mailbox_destination_percent);
    quota
}

fn inbox_shares(config: &MeshConfig) -> InboxShares {
    InboxShares {
        strangers: config.store.inbox_strangers_percent,
        neighbour: config.store.inbox_neighbour_percent,
        source: config.store.inbox_source_percent,
        contact: config.store.inbox_contact_percent,
    }
}

fn network_secret(config: &MeshConfig, data_dir: &Path) -> Result<Option<NetworkSecret>, MeshError> {
    let Some(path) = &config.identity.network_secret_file else { return Ok(None) };
    let path = data_dir.join(path);
    let secret = std::fs::read(&path)
        .map_err(|e| MeshError::Refused(format!("cannot read the network secret {}: {e}", path.display())))?;
    let text = secret.trim_ascii();
    if text.len() < 16 {
        return Err(MeshError::Refused(format!(
            "the network secret in {} is too short; give it at least 16 bytes, for instance from `openssl rand -hex 32`",
            path.display()
        )));
    }
    Ok(Some(NetworkSecret::new(text.to_vec())))
}

fn rotation_policy(config: &MeshConfig) -> RotationPolicy {
    RotationPolicy {
        rotate_after_s: config.crypto.receiver_key_rotation.as_secs(),
        sealable_s: config.crypto.receiver_key_sealable.as_secs(),
    }
}

/// The node's clock, with what an earlier start knew of the time.
async fn node_clock(store: &dyn LocalStore) -> Result<ClockHandle, MeshError> {
    let get = LocalOp::KvGet { namespace: Namespace::Identity, key: CLOCK_MARK_KEY.to_vec() };
    let asked = ask_local(store, vec![get]).map_err(|reason| MeshError::Refused(reason.to_string()))?;
    let mark = match asked.await?.pop() {
        Some(LocalOutcome::Value(Some(bytes))) => Mark::decode(&bytes),
        _ => None,
    };
    Ok(ClockHandle::new(mark))
}

/// The receiver secrets of the store, or the first ones, durable before anybody is told of them.
async fn receiver_keys(
    store: &dyn LocalStore,
    identity: &MeshIdentity,
    network: NetworkId,
    policy: RotationPolicy,
    time: NodeTime,
) -> Result<OwnKeys, MeshError> {
    let busy = |reason: crate::storage::NotTaken| MeshError::Refused(reason.to_string());
    let get = LocalOp::KvGet { namespace: Namespace::ReceiverSecret, key: RECEIVER_SECRETS_KEY.to_vec() };
    let held = ask_local(store, vec![get]).map_err(busy)?.await?.pop();
    let now = time.unix_s;
    let mut rng = random::os_rng();
    let (secrets, changed) = match held {
        Some(LocalOutcome::Value(Some(bytes))) => {
            let mut secrets = ReceiverKeys::from_bytes(identity.public_key(), &bytes)
                .context("reading the receiver keys")?;
            secrets.follow(policy);
            // A secret is not destroyed by the word of a clock that may be set back.
            let changed = time.trusted && secrets.next_change_unix_s() <= now;
            if changed {
                secrets.rotate(now, &mut rng);
            }
            (secrets, changed)
        }
        _ => (ReceiverKeys::with_policy(policy, identity.public_key(), now, &mut rng), true),
    };
    if changed {
        let put = LocalOp::KvPut {
            namespace: Namespace::ReceiverSecret,
            key: RECEIVER_SECRETS_KEY.to_vec(),
            value: secrets.to_bytes().to_vec(),
        };
        ask_local(store, vec![put]).map_err(busy)?.await?;
    }
    let record = key_record::sign(identity, &mut SignatureInput::new(network), secrets.record())?;
    Ok(OwnKeys { secrets, record })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::{MailboxQuota, MemStore};

    #[tokio::test]
    async fn receiver_keys_follow_the_configuration() {
        let (identity, network) = (MeshIdentity::from_seed([1; 32]), network_id("test"));
        let store = MemStore::new(MailboxQuota::default());
        let mut config = MeshConfig::default();
        let day = std::time::Duration::from_secs(86_400);
        config.crypto.receiver_key_rotation = day * 3;
        config.crypto.receiver_key_sealable = day * 6;
        config.validate().expect("a valid policy");
        let time = NodeTime { steady_s: 0, unix_s: clock::unix_s(), trusted: true };
        for start in ["first", "second"] {
            let keys = receiver_keys(&store, &identity, network, rotation_policy(&config), time).await;
            let keys = keys.expect("a store in memory");
            let left_s = u64::from(keys.record.record().not_after).saturating_sub(clock::unix_s());
            assert!(left_s.abs_diff(6 * 86_400) < 600, "{start}: {left_s}");
            let until_rotation_s = keys.secrets.next_change_unix_s().saturating_sub(clock::unix_s());
            assert!(until_rotation_s.abs_diff(3 * 86_400) < 600, "{start}: {until_rotation_s}");
        }
        // A clock that nobody believes replaces and destroys nothing, whatever it says.
        let wrong = NodeTime { steady_s: 0, unix_s: clock::unix_s() + 366 * 86_400, trusted: false };
        let policy = rotation_policy(&config);
        let order = async |time| {
            let keys = receiver_keys(&store, &identity, network, policy, time).await;
            keys.expect("a store in memory").record.record().order
        };
        let before = order(time).await;
        assert_eq!(order(wrong).await, before);
        assert!(order(NodeTime { trusted: true, ..wrong }).await > before, "it was due by that clock");
    }
}
