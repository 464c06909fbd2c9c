//! `qpc bench disk`: how fast the disk itself is, to read a node's figures beside.

use std::{
    fs::File,
    io::Error,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use quicprochat_mesh::api::ApiError;
use serde::Serialize;

use super::{measure::quantile, relay::round};
use crate::{cx::Context, fail::Failure, human};

/// Bytes written before each sync: a page of the store.
const PAGE_BYTES: usize = 4096;

/// Pages that are written in turn. The file has its size before the first sync counts.
const PAGES: u64 = 256;

const EXAMPLES: &str = "\
Examples:
  qpc bench disk /var/lib";

/// Measure how often a disk syncs
///
/// Writes a page and waits until the disk has it, over and over, as a commit of one message at a time
/// would.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// A directory on the disk
    dir: PathBuf,

    /// How long
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u64).range(1..=600))]
    seconds: u64,
}

/// The whole answer.
#[derive(Debug, Serialize)]
struct Answered {
    syncs_per_s: f64,
    sync_p50_ms: f64,
    sync_p99_ms: f64,
    sync_max_ms: f64,
}

pub fn run(args: &Args, cx: &Context) -> Result<(), Failure> {
    let path = args.dir.join(format!("qpc-disk-{}", std::process::id()));
    let took = measure(&path, Duration::from_secs(args.seconds));
    // Whatever it came to, nothing is left behind.
    let _ = std::fs::remove_file(&path);
    let mut took_us = took.map_err(|e| ApiError::failed(format!("cannot sync {}: {e}", path.display())))?;
    let total_us: u64 = took_us.iter().sum();
    let syncs_per_s = round(took_us.len() as f64 * 1e6 / total_us.max(1) as f64, 1);
    took_us.sort_unstable();
    let ms = |per_mille| round(quantile(&took_us, per_mille) as f64 / 1e3, 3);
    let answered =
        Answered { syncs_per_s, sync_p50_ms: ms(500), sync_p99_ms: ms(990), sync_max_ms: ms(1000) };
    cx.out.show(&answered, |a| {
        human::fields(&[
            ("syncs/s", format!("{:.0}", a.syncs_per_s)),
            ("p50", human::ms(Some(a.sync_p50_ms))),
            ("p99", human::ms(Some(a.sync_p99_ms))),
            ("max", human::ms(Some(a.sync_max_ms))),
        ])
    })
}

/// Microseconds of each sync.
fn measure(path: &Path, time: Duration) -> Result<Vec<u64>, Error> {
    let file = File::options().write(true).create_new(true).open(path)?;
    let page = [0x5a; PAGE_BYTES];
    for at in 0..PAGES {
        file.write_all_at(&page, at * PAGE_BYTES as u64)?;
    }
    file.sync_all()?;
    let began = Instant::now();
    let mut took_us = Vec::new();
    while began.elapsed() < time {
        let at = took_us.len() as u64 % PAGES;
        let from = Instant::now();
        file.write_all_at(&page, at * PAGE_BYTES as u64)?;
        file.sync_data()?;
        took_us.push(u64::try_from(from.elapsed().as_micros()).unwrap_or(u64::MAX));
    }
    Ok(took_us)
}
