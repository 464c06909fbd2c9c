//! Any bytes as a row of the store, and as its file of row keys.

use crate::storage::{read_any_row, row_seal::read_anything};

pub(super) fn run(data: &[u8]) {
    read_any_row(data);
    read_anything(data);
}
