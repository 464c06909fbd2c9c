//! `qpc backup`: a copy of the data directory, of a running node too.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use quicprochat_mesh::{
    api::{ApiError, BackedUp, ErrorClass, Request},
    storage::{BackupReport, DataDir, EmbeddedOptions, EmbeddedStore},
};

use crate::{call, cx::Context, fail::Failure, human, progress::Progress};

const EXAMPLES: &str = "\
Examples:
  qpc backup /mnt/stick/qpc-copy
  qpc backup ./copy --data-dir ./n1  of a node that need not run";

/// Copy the data directory, as it stands at one moment
///
/// The node may run meanwhile. The copy holds everything, its identity and its secrets as well: keep it
/// as safe as the original. It has its name only once it is whole. To put it back, stop the node and move
/// the copy to the place of the data directory. Never run both: they are one and the same node.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// A directory that does not exist yet, or is empty
    #[arg(value_name = "DIR")]
    dir: PathBuf,
}

pub async fn run(args: Args, cx: &Context) -> Result<(), Failure> {
    let dir = std::path::absolute(&args.dir).map_err(ApiError::failed)?;
    let request = Request::Backup { dir: dir.to_string_lossy().into_owned() };
    let mut progress = Progress::new(cx.out.json);
    let partial = partial(&dir);
    let work = async {
        match call::one_unseen(cx, &request).await {
            Err(Failure::Api(error)) if error.class == ErrorClass::NoNode => {
                let data_dir = cx.data_dir.clone();
                let to = dir.clone();
                let copied = tokio::task::spawn_blocking(move || of_stopped(&data_dir, &to)).await;
                let BackupReport { rows, files, bytes } = copied.map_err(ApiError::failed)??;
                Ok(BackedUp { dir: dir.to_string_lossy().into_owned(), rows, files, bytes })
            }
            answered => answered,
        }
    };
    let done: BackedUp = progress.watching(work, async || Some(copied(&partial))).await?;
    cx.out.show(&done, |done| {
        let bytes = human::bytes(done.bytes);
        let (rows, files) = (human::number_of(done.rows, "row"), human::number_of(done.files, "file"));
        format!("{}: {rows} and {files}, {bytes}", human::escape(&done.dir))
    })
}

/// Where a backup grows until it is whole.
fn partial(dir: &Path) -> PathBuf {
    let mut name = dir.file_name().unwrap_or_default().to_owned();
    name.push(".partial");
    dir.with_file_name(name)
}

/// How much of it is there.
fn copied(partial: &Path) -> String {
    fn bytes(dir: &Path) -> u64 {
        let entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
        let size = |entry: std::fs::DirEntry| match entry.metadata() {
            Ok(metadata) if metadata.is_dir() => bytes(&entry.path()),
            Ok(metadata) => metadata.len(),
            // It was there a moment ago.
            Err(_) => 0,
        };
        entries.map(size).sum()
    }
    format!("copying: {} so far", human::bytes(bytes(partial)))
}

/// The same of a node that does not run.
fn of_stopped(data_dir: &Path, to: &Path) -> Result<BackupReport, ApiError> {
    if !data_dir.join("identity.pem").exists() {
        let dir = data_dir.display();
        return Err(ApiError::failed(format!("there is no node in {dir}: no identity.pem")));
    }
    let dir = DataDir::open(data_dir).map_err(ApiError::failed)?;
    let store = EmbeddedStore::open(Arc::new(dir), EmbeddedOptions::default()).map_err(ApiError::failed)?;
    let copied = store.backup_source().copy_to(to).map_err(ApiError::failed);
    store.close().map_err(ApiError::failed)?;
    copied
}
