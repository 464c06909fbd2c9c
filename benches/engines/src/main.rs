//! Measures embedded engines side by side on one disk, for docs/adr/0001-store-engine.md.
//!
//! `engines-bench DIR` prints commits a second and what opening costs; DIR must be on the disk in
//! question and is left empty. `engines-bench opens DIR ROWS` prints the second table alone, for
//! another size. `engines-bench nospace DIR` fills a small volume mounted at DIR and shows
//! what is left of the commits that failed. The other commands are what it runs as children.
//!
//! Each message is a row of 300 bytes under (destination 16, sequence 8) and an index entry under
//! a random 16-byte packet id: the smallest shape that can refuse duplicates. Each commit is
//! durable before the next starts.

mod engines;

use std::{
    error::Error,
    fs,
    io::{BufRead, BufReader, Write},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use engines::{ENGINES, Message, open};

type Result<V> = std::result::Result<V, Box<dyn Error>>;

const BATCHES: [usize; 3] = [1, 64, 256];
const CELL: Duration = Duration::from_secs(4);

fn main() -> Result<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    match args.as_slice() {
        ["commits", engine, dir, batch] => commits(engine, Path::new(dir), batch.parse()?),
        ["load", engine, dir, rows] => load(engine, Path::new(dir), rows.parse()?),
        ["write", engine, dir] => write_until_killed(engine, Path::new(dir)),
        ["open", engine, dir] => time_open(engine, Path::new(dir)),
        ["nospace", dir] => no_space(Path::new(dir)),
        ["opens", dir, rows] => opens(Path::new(dir), rows.parse()?),
        [dir] => {
            all_commits(Path::new(dir))?;
            opens(Path::new(dir), 100_000)
        }
        _ => Err("usage: engines-bench DIR | opens DIR ROWS | nospace DIR".into()),
    }
}

fn all_commits(dir: &Path) -> Result<()> {
    fs::create_dir_all(dir)?;
    println!("| engine | batch | commits/s | rows/s | commit p50 ms | p99 ms |");
    println!("|---|---|---|---|---|---|");
    // Round robin, twice: a disk that slows down in between slows everyone down.
    for round in 0..2 {
        for batch in BATCHES {
            raw_append(&dir.join("raw"), batch, round)?;
            for engine in ENGINES {
                child(&["commits", engine, &fresh(dir, engine)?, &batch.to_string()])?;
            }
        }
    }
    println!();
    Ok(())
}

/// What it costs to open a store of `rows` messages, closed in good order or killed.
fn opens(dir: &Path, rows: u64) -> Result<()> {
    fs::create_dir_all(dir)?;
    println!("| engine | rows | closed | open and read one ms | RSS after MiB | peak RSS MiB | files MiB |");
    println!("|---|---|---|---|---|---|---|");
    for engine in ENGINES {
        let at = fresh(dir, engine)?;
        child(&["load", engine, &at, &rows.to_string()])?;
        print!("| {engine} | {rows} | cleanly ");
        std::io::stdout().flush()?;
        child(&["open", engine, &at])?;
        println!(" {:.1} |", mib(size_of(Path::new(&at))));

        // Killed in the middle of further commits.
        let mut writer = spawn(&["write", engine, &at])?;
        let mut lines = BufReader::new(writer.stdout.take().ok_or("no stdout")?).lines();
        for _ in 0..200 {
            lines.next().ok_or("the writer ended by itself")??;
        }
        writer.kill()?;
        writer.wait()?;
        print!("| {engine} | {rows} | kill -9 ");
        std::io::stdout().flush()?;
        child(&["open", engine, &at])?;
        println!(" {:.1} |", mib(size_of(Path::new(&at))));
    }
    fs::remove_dir_all(dir)?;
    Ok(())
}

/// Synced commits for a while.
fn commits(engine: &str, dir: &Path, batch: usize) -> Result<()> {
    let mut store = open(engine, dir)?;
    let mut took = Vec::new();
    let (mut next, start) = (0u64, Instant::now());
    while start.elapsed() < CELL {
        let messages = messages(next, batch);
        next += batch as u64;
        let commit = Instant::now();
        store.commit(&messages)?;
        took.push(commit.elapsed());
    }
    report(engine, batch, start.elapsed(), took);
    store.close()
}

/// What no engine can beat: the rows' bytes appended to one file, and the file synced.
fn raw_append(path: &Path, batch: usize, round: usize) -> Result<()> {
    let mut file = fs::File::create(path)?;
    let bytes = vec![round as u8; 300 * batch];
    let mut took = Vec::new();
    let start = Instant::now();
    while start.elapsed() < CELL {
        let commit = Instant::now();
        file.write_all(&bytes)?;
        file.sync_data()?;
        took.push(commit.elapsed());
    }
    report("append + fdatasync", batch, start.elapsed(), took);
    drop(file);
    fs::remove_file(path)?;
    Ok(())
}

fn report(engine: &str, batch: usize, elapsed: Duration, mut took: Vec<Duration>) {
    took.sort();
    let at = |share: f64| took[((took.len() - 1) as f64 * share) as usize].as_secs_f64() * 1e3;
    let commits = took.len() as f64 / elapsed.as_secs_f64();
    let rows = commits * batch as f64;
    println!("| {engine} | {batch} | {commits:.0} | {rows:.0} | {:.2} | {:.2} |", at(0.5), at(0.99));
}

fn load(engine: &str, dir: &Path, rows: u64) -> Result<()> {
    let mut store = open(engine, dir)?;
    for first in (0..rows).step_by(256) {
        store.commit(&messages(first, 256))?;
    }
    store.close()
}

fn write_until_killed(engine: &str, dir: &Path) -> Result<()> {
    let mut store = open(engine, dir)?;
    for first in (1u64 << 40..).step_by(8) {
        store.commit(&messages(first, 8))?;
        println!("{first}");
    }
    Ok(())
}

fn time_open(engine: &str, dir: &Path) -> Result<()> {
    let start = Instant::now();
    let mut store = open(engine, dir)?;
    if !store.has(&message(77))? {
        return Err("a committed row is missing".into());
    }
    let took = start.elapsed().as_secs_f64() * 1e3;
    print!("| {took:.1} | {:.1} | {:.1} |", memory("VmRSS")?, memory("VmHWM")?);
    std::io::stdout().flush()?;
    store.close()
}

/// Fills a small volume with commits of several sizes; after each that failed opens the store
/// again and looks whether it is there all the same.
fn no_space(volume: &Path) -> Result<()> {
    for batch in [1usize, 16, 64, 256] {
        let (dir, ballast) = (volume.join("db"), volume.join("ballast"));
        fs::create_dir_all(&dir)?;
        let mut store = Some(open("redb", &dir)?);
        let (mut next, mut acked, mut failed, mut standing, mut cannot_open) = (0u64, 0u64, 0, 0, 0);
        while failed < 20 && next < 1 << 20 {
            let batch = messages(next, batch);
            let result = match store.as_mut() {
                Some(store) => store.commit(&batch),
                None => Err("closed".into()),
            };
            match result {
                Ok(()) => acked = next + batch.len() as u64,
                Err(_) => {
                    failed += 1;
                    drop(store.take());
                    match open("redb", &dir) {
                        Ok(mut again) => {
                            standing += u32::from(again.has(&batch[0])?);
                            store = Some(again);
                        }
                        Err(_) => cannot_open += 1,
                    }
                }
            }
            next += batch.len() as u64;
        }
        drop(store.take());
        let mut store = open("redb", &dir)?;
        let lost = (0..acked.min(1000)).filter(|n| !store.has(&message(*n)).unwrap_or(false)).count();
        println!(
            "redb, batch {batch}: {failed} commits failed, {standing} of them stand after a reopen, {cannot_open} reopens failed, {lost} of the first {} acknowledged rows lost",
            acked.min(1000)
        );
        drop(store);
        fs::remove_dir_all(&dir)?;
        let _ = fs::remove_file(&ballast);
    }
    Ok(())
}

// ---- messages ----------------------------------------------------------------------------------

fn messages(first: u64, count: usize) -> Vec<Message> {
    (first..first + count as u64).map(message).collect()
}

/// Message `n`: one of 1,000 destinations, an id and a body that look random.
fn message(n: u64) -> Message {
    let mut state = n.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let mut random = || {
        state ^= state >> 12;
        state ^= state << 25;
        state ^= state >> 27;
        state.wrapping_mul(0x2545_f491_4f6c_dd1d)
    };
    let mut id = [0u8; 16];
    id[..8].copy_from_slice(&random().to_be_bytes());
    id[8..].copy_from_slice(&n.to_be_bytes());
    let mut key = [0u8; 24];
    key[..8].copy_from_slice(&(random() % 1000).wrapping_mul(0x9e37_79b9_7f4a_7c15).to_be_bytes());
    key[16..].copy_from_slice(&n.to_be_bytes());
    let body = (0..38).flat_map(|_| random().to_be_bytes()).take(300).collect();
    Message { key, id, body }
}

// ---- processes ---------------------------------------------------------------------------------

fn spawn(args: &[&str]) -> Result<Child> {
    Ok(Command::new(std::env::current_exe()?).args(args).stdout(Stdio::piped()).spawn()?)
}

/// Runs a command in a process of its own, so that memory is its own, and shows what it prints.
fn child(args: &[&str]) -> Result<()> {
    let out = spawn(args)?.wait_with_output()?;
    std::io::stdout().write_all(&out.stdout)?;
    std::io::stdout().flush()?;
    if !out.status.success() {
        return Err(format!("{args:?}: {}", out.status).into());
    }
    Ok(())
}

fn fresh(dir: &Path, engine: &str) -> Result<String> {
    let at: PathBuf = dir.join(engine.replace(' ', "-"));
    if at.exists() {
        fs::remove_dir_all(&at)?;
    }
    fs::create_dir_all(&at)?;
    Ok(at.to_str().ok_or("DIR is no UTF-8")?.to_owned())
}

/// A line of /proc/self/status in MiB.
fn memory(what: &str) -> Result<f64> {
    let status = fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find(|line| line.starts_with(what)).ok_or("no such line")?;
    let kib: f64 = line.split_whitespace().nth(1).ok_or("no number")?.parse()?;
    Ok(kib / 1024.0)
}

fn size_of(dir: &Path) -> u64 {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    entries
        .map(|entry| match entry.metadata() {
            Ok(meta) if meta.is_dir() => size_of(&entry.path()),
            Ok(meta) => meta.len(),
            Err(_) => 0,
        })
        .sum()
}

fn mib(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}
