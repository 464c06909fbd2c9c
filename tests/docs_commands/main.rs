//! The commands of the documents work as they stand there.
//!
//! Every fenced block of the kind `sh` or `console` in `README.md` and `docs/*.md` is run, in order,
//! page by page, against real nodes (`shell.rs` says how). An `sh` block has to succeed. A `console`
//! block shows what each command behind `$ ` says: that is compared (`compare.rs` says what is set
//! aside), and the command has to succeed where the next one is not `echo $?`.
//!
//! A block that cannot run here has `<!-- not run: REASON -->` above it. How many there are is
//! [`NOT_RUN`], so that none is added without being seen.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]
#![allow(unreachable_pub, reason = "a test exports nothing")]

mod compare;
mod page;
mod shell;

use std::{
    fs,
    path::{Path, PathBuf},
};

use page::Page;

/// Blocks that are not run, by page.
const NOT_RUN: &[(&str, usize)] = &[("README.md", 3), ("docs/quickstart.md", 1)];

fn pages() -> Vec<(String, PathBuf)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut out = vec![("README.md".to_owned(), root.join("README.md"))];
    for entry in fs::read_dir(root.join("docs")).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|e| e == "md") {
            out.push((format!("docs/{}", path.file_name().unwrap().to_string_lossy()), path));
        }
    }
    out.sort();
    out
}

#[test]
fn blocks_that_are_not_run_are_counted() {
    let mut found = Vec::new();
    for (name, path) in pages() {
        let not_run = Page::read(&path).not_run;
        for (line, reason) in &not_run {
            println!("{name}:{line}: {reason}");
            assert!(!reason.is_empty(), "{name}:{line}: no reason is given");
        }
        if !not_run.is_empty() {
            found.push((name, not_run.len()));
        }
    }
    let wanted: Vec<_> = NOT_RUN.iter().map(|(name, count)| ((*name).to_owned(), *count)).collect();
    assert_eq!(found, wanted, "if one more is right, say so in NOT_RUN");
}

#[test]
fn the_commands_of_every_page_do_what_it_shows() {
    // One page alone, while it is written.
    let only = std::env::var("QPC_DOCS_PAGE").ok();
    let mut wrong = Vec::new();
    let mut steps = 0;
    for (name, path) in pages() {
        let page = Page::read(&path);
        if page.steps.is_empty() || only.as_ref().is_some_and(|only| *only != name) {
            continue;
        }
        steps += page.steps.len();
        wrong.extend(shell::run(&name, &page));
    }
    assert!(steps > 0, "no page has a command");
    assert!(wrong.is_empty(), "{}", wrong.join("\n\n"));
}
