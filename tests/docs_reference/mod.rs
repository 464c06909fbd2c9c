//! Parts of the documents that are made from the code, between `<!-- generated: NAME -->` and
//! `<!-- end -->`.
#![allow(unreachable_pub, reason = "a test exports nothing")]

pub mod constants;
pub mod limits;

use std::{fs, path::Path};

/// Checks that the part `name` of a page is what the code makes of it; with `QPC_BLESS` set it is
/// written there.
///
/// # Panics
/// It is not, or the page has no such part.
pub fn check(page: &str, name: &str, wanted: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(page);
    let text = fs::read_to_string(&path).unwrap();
    let begin = format!("<!-- generated: {name} -->\n");
    let (head, rest) = text.split_once(&begin).unwrap_or_else(|| panic!("{page} has no part {name}"));
    let (part, tail) =
        rest.split_once("<!-- end -->").unwrap_or_else(|| panic!("{page}: {name} does not end"));
    if part == wanted {
        return;
    }
    if std::env::var_os("QPC_BLESS").is_some() {
        fs::write(&path, format!("{head}{begin}{wanted}<!-- end -->{tail}")).unwrap();
        return;
    }
    panic!("{page} is behind the code ({name}): QPC_BLESS=1 cargo test --test docs");
}
