//! Any bytes as a journal on disk: every line is an entry or is counted, and where the last whole line
//! ends is found whatever the bytes are.

use std::io::Cursor;

use crate::storage::append_log::{Entries, LINE_BYTES_MAX, read_lines, whole_lines};

pub(super) fn run(data: &[u8]) {
    let mut found = Entries::<u64> { entries: Vec::new(), unread: 0 };
    let Ok(()) = read_lines(data, &|_| true, &mut found) else { panic!("memory does not fail") };
    let whole: Vec<&[u8]> = data.split_inclusive(|byte| *byte == b'\n').collect();
    // A line that is too long is counted piece by piece.
    let most = data.len() / LINE_BYTES_MAX as usize;
    let lines = found.entries.len() + found.unread;
    assert!((whole.len()..=whole.len() + most).contains(&lines), "{lines} of {}", whole.len());
    let ends = whole_lines(&mut Cursor::new(data));
    let wanted = data.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at as u64 + 1);
    assert!(ends.is_ok_and(|ends| ends == wanted));
}
