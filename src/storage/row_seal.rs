//! Seals rows that hold message content under keys that can be destroyed.
//!
//! The engine copies on write, so a removed row stays in old pages of its file for an unknown
//! time. Its key does not: every row is sealed under the key of the hour it was written in, keys
//! live in a small file of their own that is replaced as a whole, and a key nothing refers to is
//! dropped from it. What a flash controller keeps of overwritten blocks is out of scope.
//!
//! A sealed row is `hour u32 ‖ nonce 12 ‖ ciphertext ‖ tag 16`, big-endian, ChaCha20-Poly1305,
//! with table name, row key and the row's open header as associated data, so that a row moved
//! elsewhere does not open. Nonces are random: at most a few hundred million rows an hour stay
//! far below the 2^32 that 96 random bits allow a key.

use std::{
    collections::BTreeMap,
    fmt, fs,
    io::{Seek, SeekFrom, Write},
    path::{Path, PathBuf},
};

use chacha20poly1305::{
    ChaCha20Poly1305,
    aead::{Aead, KeyInit, Payload},
};
use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

use super::{
    data_dir::{FILE_MODE, refuse_open_mode, write_atomic},
    disk::Disk,
    error::StoreError,
};

/// Hours since 1970; names a row key.
pub(crate) type KeyHour = u32;

/// Bytes a sealed row has above its content.
pub(crate) const SEAL_BYTES: usize = HOUR_BYTES + NONCE_BYTES + TAG_BYTES;

const HOUR_BYTES: usize = 4;
const NONCE_BYTES: usize = 12;
const TAG_BYTES: usize = 16;
const KEY_BYTES: usize = 32;
const MAGIC: &[u8; 5] = b"QPRK\x01";
const CHECK_BYTES: usize = 8;

/// Where a row is; a row opens only there.
#[derive(Clone, Copy)]
pub(crate) struct RowPlace<'a> {
    /// Name of its table.
    pub table: &'a str,
    /// Its key.
    pub key: &'a [u8],
    /// The part of it that is not sealed.
    pub header: &'a [u8],
}

impl RowPlace<'_> {
    fn associated_data(&self) -> Vec<u8> {
        // Length-framed, so that no two places spell the same bytes.
        let mut out = Vec::with_capacity(self.table.len() + self.key.len() + self.header.len() + 9);
        out.extend_from_slice(self.table.as_bytes());
        out.push(0);
        out.extend_from_slice(&(self.key.len() as u64).to_be_bytes());
        out.extend_from_slice(self.key);
        out.extend_from_slice(self.header);
        out
    }
}

/// Why a row does not open. It costs only itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum UnsealError {
    #[error("too short for a sealed row")]
    Short,
    #[error("its key is destroyed")]
    KeyDestroyed,
    #[error("damaged, or moved from elsewhere")]
    Damaged,
}

/// The row keys and their file.
pub(crate) struct RowKeys {
    path: PathBuf,
    disk: Disk,
    keys: BTreeMap<KeyHour, Zeroizing<[u8; KEY_BYTES]>>,
}

impl fmt::Debug for RowKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RowKeys").field("hours", &self.keys.len()).finish_non_exhaustive()
    }
}

impl RowKeys {
    /// Reads the keys at `path`; a missing file holds none.
    pub(crate) fn open(path: &Path) -> Result<Self, StoreError> {
        Self::open_on(Disk::default(), path)
    }

    /// [`RowKeys::open`] on a disk that may fail.
    pub(crate) fn open_on(disk: Disk, path: &Path) -> Result<Self, StoreError> {
        let bytes = match fs::read(path) {
            Ok(bytes) => Zeroizing::new(bytes),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
                return Ok(Self { path: path.to_owned(), disk, keys: BTreeMap::new() });
            }
            Err(e) => return Err(StoreError::of_io("reading the row keys", path, e)),
        };
        refuse_open_mode(path, FILE_MODE)?;
        let keys = decode(&bytes).ok_or_else(|| StoreError::Corrupt {
            path: path.to_owned(),
            detail: "it is no file of row keys".to_owned(),
        })?;
        Ok(Self { path: path.to_owned(), disk, keys })
    }

    /// All keys of both.
    pub(crate) fn join(mut self, other: Self) -> Self {
        self.keys.extend(other.keys);
        self
    }

    /// Writes the keys to another file.
    pub(crate) fn save_to(&self, path: &Path) -> Result<(), StoreError> {
        write_atomic(path, &encode(&self.keys))
    }

    /// Hours that have a key.
    pub(crate) fn hours(&self) -> impl Iterator<Item = KeyHour> + '_ {
        self.keys.keys().copied()
    }

    /// True if `hour` has a key.
    pub(crate) fn has(&self, hour: KeyHour) -> bool {
        self.keys.contains_key(&hour)
    }

    /// Makes sure that `hour` has a key and that it is durable: a row must never outlive the only
    /// copy of its key in memory.
    pub(crate) fn ensure(&mut self, hour: KeyHour) -> Result<(), StoreError> {
        if self.has(hour) {
            return Ok(());
        }
        let mut key = Zeroizing::new([0u8; KEY_BYTES]);
        getrandom::fill(key.as_mut_slice()).map_err(|e| StoreError::Random(e.to_string()))?;
        self.keys.insert(hour, key);
        self.save().inspect_err(|_| {
            // Where the file has it all the same, it is a key that no row needs.
            self.keys.remove(&hour);
        })
    }

    /// Destroys every key that `keep` does not want, in memory and on disk. Returns how many.
    pub(crate) fn retain(&mut self, keep: impl Fn(KeyHour) -> bool) -> Result<usize, StoreError> {
        let gone: Vec<KeyHour> = self.hours().filter(|hour| !keep(*hour)).collect();
        if gone.is_empty() {
            return Ok(0);
        }
        let kept: Vec<_> = gone.iter().filter_map(|hour| self.keys.remove_entry(hour)).collect();
        if let Err(e) = self.save() {
            // The old file stands, or the disk is not worked on any more; memory has to agree with it.
            self.keys.extend(kept);
            return Err(e);
        }
        Ok(gone.len())
    }

    /// Seals `plain` for `place` under the key of `hour`, which [`RowKeys::ensure`] made.
    pub(crate) fn seal(
        &self,
        hour: KeyHour,
        place: RowPlace<'_>,
        plain: &[u8],
    ) -> Result<Vec<u8>, StoreError> {
        let key =
            self.keys.get(&hour).ok_or_else(|| StoreError::Random(format!("no row key for hour {hour}")))?;
        let mut nonce = [0u8; NONCE_BYTES];
        getrandom::fill(&mut nonce).map_err(|e| StoreError::Random(e.to_string()))?;
        let sealed = cipher(key)
            .encrypt(&nonce.into(), Payload { msg: plain, aad: &place.associated_data() })
            .map_err(|_| StoreError::RowTooLarge { got: plain.len(), limit: super::ROW_BYTES_MAX })?;
        let mut out = Vec::with_capacity(HOUR_BYTES + NONCE_BYTES + sealed.len());
        out.extend_from_slice(&hour.to_be_bytes());
        out.extend_from_slice(&nonce);
        out.extend_from_slice(&sealed);
        Ok(out)
    }

    /// Opens a row sealed for `place`.
    pub(crate) fn unseal(&self, place: RowPlace<'_>, sealed: &[u8]) -> Result<Vec<u8>, UnsealError> {
        let (hour, rest) = sealed.split_first_chunk::<HOUR_BYTES>().ok_or(UnsealError::Short)?;
        let (nonce, msg) = rest.split_first_chunk::<NONCE_BYTES>().ok_or(UnsealError::Short)?;
        let key = self.keys.get(&KeyHour::from_be_bytes(*hour)).ok_or(UnsealError::KeyDestroyed)?;
        cipher(key)
            .decrypt(&(*nonce).into(), Payload { msg, aad: &place.associated_data() })
            .map_err(|_| UnsealError::Damaged)
    }

    fn save(&self) -> Result<(), StoreError> {
        // The file that is replaced still holds destroyed keys in its blocks; an open handle
        // reaches them after the rename.
        let old = fs::OpenOptions::new().write(true).open(&self.path).ok();
        self.disk.write_atomic(&self.path, &encode(&self.keys))?;
        let Some(mut old) = old else { return Ok(()) };
        // Best effort: some file systems write elsewhere whatever one does.
        let overwritten = (|| {
            let len = usize::try_from(old.metadata()?.len()).unwrap_or(0);
            old.seek(SeekFrom::Start(0))?;
            old.write_all(&vec![0u8; len])
        })();
        match overwritten {
            // Nothing depends on these bytes, but a disk that fails a sync is worked on no further.
            Ok(()) => match self.disk.sync_data(&old, "overwriting destroyed row keys") {
                Err(e) if e.is_fatal() => Err(e),
                _ => Ok(()),
            },
            Err(_) => Ok(()),
        }
    }
}

/// The hour whose key sealed a row, if it is one.
pub(crate) fn hour_of(sealed: &[u8]) -> Option<KeyHour> {
    sealed.first_chunk::<HOUR_BYTES>().map(|hour| KeyHour::from_be_bytes(*hour))
}

/// The hour in which `unix_s` lies. After the year 491,000 all hours are one.
pub(crate) fn hour_at(unix_s: u64) -> KeyHour {
    KeyHour::try_from(unix_s / 3600).unwrap_or(KeyHour::MAX)
}

fn cipher(key: &[u8; KEY_BYTES]) -> ChaCha20Poly1305 {
    ChaCha20Poly1305::new(key.into())
}

fn encode(keys: &BTreeMap<KeyHour, Zeroizing<[u8; KEY_BYTES]>>) -> Zeroizing<Vec<u8>> {
    // Sized in one go: a vector that grows would leave copies of keys behind.
    let len = MAGIC.len() + keys.len() * (HOUR_BYTES + KEY_BYTES) + CHECK_BYTES;
    let mut out = Zeroizing::new(Vec::with_capacity(len));
    out.extend_from_slice(MAGIC);
    for (hour, key) in keys {
        out.extend_from_slice(&hour.to_be_bytes());
        out.extend_from_slice(key.as_slice());
    }
    let check = Sha256::digest(&out[..]);
    out.extend_from_slice(check.get(..CHECK_BYTES).unwrap_or_default());
    out
}

fn decode(bytes: &[u8]) -> Option<BTreeMap<KeyHour, Zeroizing<[u8; KEY_BYTES]>>> {
    let (body, check) = bytes.split_last_chunk::<CHECK_BYTES>()?;
    if Sha256::digest(body).get(..CHECK_BYTES)? != check {
        return None;
    }
    let rows = body.strip_prefix(MAGIC.as_slice())?;
    let mut keys = BTreeMap::new();
    for row in rows.chunks(HOUR_BYTES + KEY_BYTES) {
        let (hour, key) = row.split_first_chunk::<HOUR_BYTES>()?;
        let mut owned = Zeroizing::new([0u8; KEY_BYTES]);
        owned.copy_from_slice(key.first_chunk::<KEY_BYTES>().filter(|_| key.len() == KEY_BYTES)?);
        keys.insert(KeyHour::from_be_bytes(*hour), owned);
    }
    Some(keys)
}

/// Reads any bytes as a file of row keys, behind the check that keeps damage out, and as a row that is
/// to be opened with them.
#[cfg(any(test, feature = "testing"))]
pub(crate) fn read_anything(bytes: &[u8]) {
    assert!(decode(bytes).is_none_or(|keys| decode(&encode(&keys)).is_some()));
    let body = [MAGIC.as_slice(), bytes].concat();
    let check = Sha256::digest(&body);
    let file = [&body[..], check.get(..CHECK_BYTES).unwrap_or_default()].concat();
    let Some(keys) = decode(&file) else { return };
    assert!(keys.len() <= bytes.len() / (HOUR_BYTES + KEY_BYTES));
    assert!(
        decode(&encode(&keys)).as_ref() == Some(&keys),
        "what was written is read back as something else"
    );
    let keys = RowKeys { path: PathBuf::new(), disk: Disk::default(), keys };
    let place = RowPlace { table: "inbox", key: b"7", header: b"" };
    let opened = keys.unseal(place, bytes);
    assert!(opened.is_err(), "a row opened that nobody sealed");
    assert_eq!(opened == Err(UnsealError::Short), bytes.len() < HOUR_BYTES + NONCE_BYTES);
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLACE: RowPlace<'static> = RowPlace { table: "inbox", key: b"7", header: b"h" };

    fn keys() -> (tempfile::TempDir, RowKeys) {
        let dir = tempfile::tempdir().unwrap();
        let keys = RowKeys::open(&dir.path().join("row-keys")).unwrap();
        (dir, keys)
    }

    #[test]
    fn a_row_opens_where_it_was_sealed_and_nowhere_else() {
        let (_dir, mut keys) = keys();
        keys.ensure(1).unwrap();
        let sealed = keys.seal(1, PLACE, b"text").unwrap();
        assert_eq!(sealed.len(), 4 + SEAL_BYTES);
        assert_eq!(hour_of(&sealed), Some(1));
        assert_eq!(keys.unseal(PLACE, &sealed).unwrap(), b"text");
        for elsewhere in [
            RowPlace { table: "outbox", ..PLACE },
            RowPlace { key: b"8", ..PLACE },
            RowPlace { header: b"H", ..PLACE },
            RowPlace { key: b"7h", header: b"", ..PLACE },
        ] {
            assert_eq!(keys.unseal(elsewhere, &sealed), Err(UnsealError::Damaged));
        }
    }

    #[test]
    fn every_flipped_bit_and_every_cut_is_noticed() {
        let (_dir, mut keys) = keys();
        keys.ensure(1).unwrap();
        let sealed = keys.seal(1, PLACE, b"text").unwrap();
        for i in 0..sealed.len() {
            let mut bad = sealed.clone();
            bad[i] ^= 1;
            assert!(keys.unseal(PLACE, &bad).is_err(), "byte {i}");
            assert!(keys.unseal(PLACE, &sealed[..i]).is_err(), "cut at {i}");
        }
    }

    #[test]
    fn keys_survive_a_restart_and_destroyed_ones_do_not() {
        let (_dir, mut keys) = keys();
        keys.ensure(1).unwrap();
        keys.ensure(2).unwrap();
        let (first, second) = (keys.seal(1, PLACE, b"a").unwrap(), keys.seal(2, PLACE, b"b").unwrap());
        assert_eq!(keys.retain(|hour| hour == 2).unwrap(), 1);
        let again = RowKeys::open(&keys.path).unwrap();
        for keys in [&keys, &again] {
            assert_eq!(keys.unseal(PLACE, &first), Err(UnsealError::KeyDestroyed));
            assert_eq!(keys.unseal(PLACE, &second).unwrap(), b"b");
        }
    }

    #[test]
    fn the_replaced_file_no_longer_holds_the_keys() {
        let (dir, mut keys) = keys();
        keys.ensure(1).unwrap();
        // A second name keeps the replaced file reachable, as its blocks would be.
        let shadow = dir.path().join("shadow");
        fs::hard_link(&keys.path, &shadow).unwrap();
        assert!(fs::read(&shadow).unwrap().iter().any(|b| *b != 0));
        keys.retain(|_| false).unwrap();
        assert!(fs::read(&shadow).unwrap().iter().all(|b| *b == 0));
    }

    #[test]
    fn a_key_that_could_not_be_saved_is_not_used() {
        let dir = tempfile::tempdir().unwrap();
        let mut keys = RowKeys::open(&dir.path().join("missing/row-keys")).unwrap();
        assert!(keys.ensure(1).is_err());
        assert!(!keys.has(1));
    }

    #[test]
    fn a_damaged_file_of_keys_is_refused_by_name() {
        let (_dir, mut keys) = keys();
        keys.ensure(1).unwrap();
        let good = fs::read(&keys.path).unwrap();
        for i in 0..good.len() {
            let mut bad = good.clone();
            bad[i] ^= 1;
            fs::write(&keys.path, &bad).unwrap();
            assert!(matches!(RowKeys::open(&keys.path), Err(StoreError::Corrupt { .. })), "byte {i}");
            fs::write(&keys.path, &good[..i]).unwrap();
            assert!(matches!(RowKeys::open(&keys.path), Err(StoreError::Corrupt { .. })), "cut at {i}");
        }
    }

    #[cfg(unix)]
    #[test]
    fn keys_that_others_can_read_are_refused() {
        use std::os::unix::fs::PermissionsExt;
        let (_dir, mut keys) = keys();
        keys.ensure(1).unwrap();
        fs::set_permissions(&keys.path, fs::Permissions::from_mode(0o640)).unwrap();
        assert!(matches!(RowKeys::open(&keys.path), Err(StoreError::TooOpen { wanted: 0o600, .. })));
    }
}
