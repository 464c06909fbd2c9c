//! The data directory, the identity in it, and the disk below.

use std::{
    fs::{self, OpenOptions},
    io::Write,
    os::unix::fs::{MetadataExt, OpenOptionsExt},
    path::Path,
    time::{Duration, Instant},
};

use quicprochat_mesh::{
    crypto::{IdentityError, MeshIdentity, key_file::IDENTITY_FILE},
    storage::space::{Space, reserve_bytes, system_space},
};

use super::Finding;
use crate::{cmd::init, cx::Context, human};

/// A sync that takes longer is felt in every message: each is on disk before it is acknowledged.
const SYNC_SLOW: Duration = Duration::from_secs(1);

/// Free space below this many reserves is soon none.
const RESERVES: u64 = 4;

/// The data directory: there, private, and this user's.
pub(super) fn data_dir(cx: &Context) -> Vec<Finding> {
    const CHECK: &str = "data_dir";
    let dir = &cx.data_dir;
    let shown = dir.display();
    let found = match fs::metadata(dir) {
        Ok(found) => found,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            let advice = "`qpc init` or `qpc run` makes it; or name another with --data-dir";
            return vec![Finding::warn(CHECK, format!("{shown} does not exist yet"), advice)];
        }
        Err(error) => {
            let advice = "make it readable for this user, or name another with --data-dir";
            return vec![Finding::fail(CHECK, format!("cannot look at {shown}: {error}"), advice)];
        }
    };
    if !found.is_dir() {
        let advice = "move it away, or name another with --data-dir";
        return vec![Finding::fail(CHECK, format!("{shown} is no directory"), advice)];
    }
    let mut findings = Vec::new();
    let user = rustix::process::geteuid().as_raw();
    if found.uid() != user {
        let detail = format!("{shown} belongs to user {} and this is user {user}", found.uid());
        let advice = format!("run qpc as that user, or give it away: chown -R {user} {shown}");
        findings.push(Finding::fail(CHECK, detail, advice));
    }
    let mode = found.mode() & 0o7777;
    if mode & 0o077 != 0 {
        let detail = format!("others may look into {shown} (mode {mode:04o})");
        findings.push(Finding::fail(CHECK, detail, format!("chmod 700 {shown}")));
    }
    if findings.is_empty() {
        findings.push(Finding::ok(CHECK, format!("{shown}, mode {mode:04o}")));
    }
    findings
}

/// The key file: there, private, and a key.
pub(super) fn identity(cx: &Context) -> Vec<Finding> {
    const CHECK: &str = "identity";
    let path = cx.data_dir.join(IDENTITY_FILE);
    let finding = match MeshIdentity::load(&path) {
        Ok(identity) if init::is_test_identity(&cx.data_dir) => Finding::warn(
            CHECK,
            format!("{} is a test identity: its seed was on a command line", identity.address()),
            "use it for tests only; `qpc init` in another data directory makes one that nobody has seen",
        ),
        Ok(identity) => Finding::ok(CHECK, format!("{}, in {}", identity.address(), path.display())),
        Err(IdentityError::UnderPassphrase { .. }) => {
            Finding::ok(CHECK, format!("{} is under a passphrase", path.display()))
        }
        Err(IdentityError::Missing { .. }) => Finding::warn(
            CHECK,
            "there is none yet",
            "`qpc init` or `qpc run` makes one; `qpc identity import` restores one",
        ),
        Err(error) => Finding::fail(CHECK, error.to_string(), advice(&error, &path)),
    };
    vec![finding]
}

fn advice(error: &IdentityError, path: &Path) -> String {
    let shown = path.display();
    match error {
        IdentityError::TooOpen { path, wanted, .. } => format!("chmod {wanted:o} {}", path.display()),
        IdentityError::Malformed { .. } => {
            format!(
                "move {shown} away and restore it: `qpc identity import`, or the copy that `qpc backup` made"
            )
        }
        IdentityError::Io { .. } => format!("make {shown} readable for this user"),
        _ => format!("put the key file itself at {shown}"),
    }
}

/// Room on the disk, and that it takes what is written.
pub(super) fn disk(cx: &Context) -> Vec<Finding> {
    const CHECK: &str = "disk";
    // Before there is a data directory the question is about where it will be.
    let Some(at) = cx.data_dir.ancestors().find(|dir| dir.is_dir()) else { return Vec::new() };
    let shown = at.display();
    let mut findings = vec![match system_space(at) {
        Ok(Space { free_bytes, total_bytes }) => {
            let reserve = reserve_bytes(total_bytes);
            let detail = format!("{} free at {shown}", human::bytes(free_bytes));
            let advice = format!("make room: below {} nothing new is taken", human::bytes(reserve));
            match free_bytes {
                free if free < reserve => Finding::fail(CHECK, detail, advice),
                free if free < reserve.saturating_mul(RESERVES) => Finding::warn(CHECK, detail, advice),
                _ => Finding::ok(CHECK, detail),
            }
        }
        Err(error) => Finding::fail(
            CHECK,
            format!("{shown}: {error}"),
            "mount it writable again; systems make a disk read-only that fails",
        ),
    }];
    if at == cx.data_dir {
        findings.push(sync(at));
    }
    findings
}

/// Writes a file, syncs it and removes it.
fn sync(dir: &Path) -> Finding {
    const CHECK: &str = "sync";
    let path = dir.join(format!(".doctor.{}", std::process::id()));
    let started = Instant::now();
    let written =
        OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path).and_then(|mut file| {
            let written = file.write_all(&[0; 4096]).and_then(|()| file.sync_all());
            // Whatever came of it, the file goes.
            written.and(fs::remove_file(&path))
        });
    let took = started.elapsed();
    match written {
        Err(error) => Finding::fail(
            CHECK,
            format!("cannot write a file in {} and make it durable: {error}", dir.display()),
            "make the directory writable for this user, and look at the system's log for errors of the disk",
        ),
        Ok(()) if took > SYNC_SLOW => Finding::warn(
            CHECK,
            format!("making a file durable took {} ms", took.as_millis()),
            "messages wait for the disk: put the data directory on a faster one, or find out what else keeps it busy",
        ),
        Ok(()) => Finding::ok(CHECK, format!("a file was durable after {} ms", took.as_millis())),
    }
}
