//! Writing received content to a directory: under a safe name, never over a file that is there,
//! never outside, and on disk before the node forgets the original.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

use quicprochat_mesh::api::ApiError;

use crate::human::is_deceptive;

/// Longest name in bytes, so that a number and an ending fit into a file system's 255.
const NAME_BYTES_MAX: usize = 180;

/// Numbers tried where a name is taken.
const TRIES_MAX: u32 = 10_000;

/// Writes `content` into `dir` under a name made from `name`, and returns the path. The file and
/// its name are synced.
pub fn save(dir: &Path, name: &str, content: &[u8]) -> Result<PathBuf, ApiError> {
    let failed = |e: io::Error| {
        ApiError::failed(format!("cannot save into {}: {e}; the message stays in the inbox", dir.display()))
    };
    fs::create_dir_all(dir).map_err(failed)?;
    let path = reserve(dir, &sanitise(name)).map_err(failed)?;
    write(dir, &path, content).map_err(|e| {
        // The reserved name is empty; nothing of value goes.
        let _ = fs::remove_file(&path);
        failed(e)
    })?;
    Ok(path)
}

/// Takes the first free name by creating it, which fails where anything, a link included, is there.
fn reserve(dir: &Path, name: &str) -> io::Result<PathBuf> {
    for number in 1..=TRIES_MAX {
        let path = dir.join(numbered(name, number));
        match OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path) {
            Ok(_) => return Ok(path),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(error),
        }
    }
    Err(io::Error::new(
        io::ErrorKind::AlreadyExists,
        format!("{name} and {TRIES_MAX} numbered names are taken"),
    ))
}

/// Writes beside and renames, so that the name never holds half of the content.
fn write(dir: &Path, path: &Path, content: &[u8]) -> io::Result<()> {
    let mut temp_name = std::ffi::OsString::from(".");
    temp_name.push(path.file_name().unwrap_or_default());
    temp_name.push(".part");
    let temp = dir.join(temp_name);
    match fs::remove_file(&temp) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&temp)?;
    let written =
        file.write_all(content).and_then(|()| file.sync_all()).and_then(|()| fs::rename(&temp, path));
    if written.is_err() {
        let _ = fs::remove_file(&temp);
    }
    written?;
    File::open(dir)?.sync_all()
}

/// `name` for the first, `stem-2.ending` for the second, and so on.
fn numbered(name: &str, number: u32) -> String {
    match (number, name.rsplit_once('.')) {
        (1, _) => name.to_owned(),
        (n, Some((stem, ending))) if !stem.is_empty() => format!("{stem}-{n}.{ending}"),
        (n, _) => format!("{name}-{n}"),
    }
}

/// A file name that stays where it is put: the last part of a path, without control or deceptive
/// characters, without what other systems cannot store, not hidden, not too long, never empty.
pub fn sanitise(name: &str) -> String {
    let last = name.rsplit(['/', '\\']).next().unwrap_or_default();
    let safe: String = last
        .chars()
        .map(|c| match c {
            '<' | '>' | ':' | '"' | '|' | '?' | '*' => '_',
            c if c.is_control() || is_deceptive(c) => '_',
            c => c,
        })
        .collect();
    let trimmed = safe.trim_matches(|c: char| c == '.' || c.is_whitespace());
    let mut end = trimmed.len().min(NAME_BYTES_MAX);
    while !trimmed.is_char_boundary(end) {
        end = end.saturating_sub(1);
    }
    match trimmed.get(..end).map(str::trim_end) {
        Some(name) if !name.is_empty() => name.to_owned(),
        _ => "unnamed".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_cannot_leave_hide_or_deceive() {
        let check = |name: &str, safe: &str| assert_eq!(sanitise(name), safe, "{name:?}");
        check("report.pdf", "report.pdf");
        check("../../etc/passwd", "passwd");
        check("C:\\Users\\x\\a.txt", "a.txt");
        check("..", "unnamed");
        check("", "unnamed");
        check("a/", "unnamed");
        check(".bashrc", "bashrc");
        check("a\u{0}b\n\u{202e}gpj.exe", "a_b__gpj.exe");
        check("con:stream", "con_stream");
        check("ä.txt. ", "ä.txt");
        assert_eq!(sanitise(&"ä".repeat(300)).len(), NAME_BYTES_MAX);
    }

    #[test]
    fn nothing_is_overwritten_or_followed() {
        let root = tempfile::tempdir().unwrap();
        let (dir, outside) = (root.path().join("in"), root.path().join("outside"));
        let first = save(&dir, "a.txt", b"1").unwrap();
        let second = save(&dir, "a.txt", b"2").unwrap();
        assert_eq!((first.clone(), second), (dir.join("a.txt"), dir.join("a-2.txt")));
        assert_eq!(fs::read(first).unwrap(), b"1");
        std::os::unix::fs::symlink(&outside, dir.join("link")).unwrap();
        assert_eq!(save(&dir, "link", b"3").unwrap(), dir.join("link-2"));
        assert!(!outside.exists());
        assert_eq!(fs::read_dir(&dir).unwrap().count(), 4, "no leftovers");
    }
}
