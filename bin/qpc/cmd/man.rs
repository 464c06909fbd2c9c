//! `qpc man`: manual pages, one a command.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use clap::CommandFactory;
use clap_mangen::Man;
use quicprochat_mesh::api::ApiError;
use serde::Serialize;

use super::Cli;
use crate::{
    cx::{Context, path_text},
    fail::Failure,
    human,
};

const EXAMPLES: &str = "\
Examples:
  qpc man ~/.local/share/man/man1    then: man qpc-send
  qpc man ./pages --json";

/// Write manual pages
///
/// One page a command, in section 1: qpc.1, qpc-send.1, qpc-contact-add.1, and so on. Makes the
/// directory where there is none, and replaces pages that are there.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// Where to
    #[arg(value_name = "DIR")]
    dir: PathBuf,
}

/// What was written.
#[derive(Serialize)]
struct Written {
    dir: String,
    pages: Vec<String>,
}

pub fn run(args: Args, cx: &Context) -> Result<(), Failure> {
    let dir = std::path::absolute(&args.dir).map_err(ApiError::failed)?;
    let failed =
        |path: &Path, e: &io::Error| ApiError::failed(format!("cannot write {}: {e}", path.display()));
    fs::create_dir_all(&dir).map_err(|e| failed(&dir, &e))?;
    let pages = pages().map_err(ApiError::failed)?;
    for (name, page) in &pages {
        let path = dir.join(name);
        fs::write(&path, page).map_err(|e| failed(&path, &e))?;
    }
    let written = Written { dir: path_text(&dir), pages: pages.into_iter().map(|(name, _)| name).collect() };
    cx.out.show(&written, |w| {
        format!("{} in {}", human::number_of(w.pages.len() as u64, "page"), human::escape(&w.dir))
    })
}

/// All pages by their file names.
fn pages() -> io::Result<Vec<(String, Vec<u8>)>> {
    // It would have a page for the help of each command.
    let mut command = Cli::command().disable_help_subcommand(true);
    command.build();
    let mut pages = Vec::new();
    add(&command, &mut pages)?;
    Ok(pages)
}

fn add(command: &clap::Command, pages: &mut Vec<(String, Vec<u8>)>) -> io::Result<()> {
    let man = Man::new(command.clone());
    let name = command.get_display_name().unwrap_or_else(|| command.get_name());
    let mut page = title(name).into_bytes();
    man.render_name_section(&mut page)?;
    man.render_synopsis_section(&mut page)?;
    man.render_description_section(&mut page)?;
    man.render_options_section(&mut page)?;
    let below: Vec<&clap::Command> = command.get_subcommands().filter(|sub| !sub.is_hide_set()).collect();
    if !below.is_empty() {
        man.render_subcommands_section(&mut page)?;
    }
    if let Some(text) = command.get_after_long_help().or_else(|| command.get_after_help()) {
        page.extend(after(&text.to_string()).into_bytes());
    }
    pages.push((man.get_filename(), page));
    below.into_iter().try_for_each(|sub| add(sub, pages))
}

/// The head of a page; without a date, so that one version's pages are always the same.
fn title(name: &str) -> String {
    // What follows writes apostrophes by this name.
    let apostrophe = ".ie \\n(.g .ds Aq \\(aq\n.el .ds Aq '";
    let name = escape(&name.to_uppercase());
    let source = concat!("qpc ", env!("CARGO_PKG_VERSION"));
    format!("{apostrophe}\n.TH \"{name}\" 1 \"\" \"{source}\" \"QuicProChat Mesh\"\n")
}

/// What stands behind the options: each line that ends with a colon heads a section, lines that are
/// moved in stay as they are.
fn after(text: &str) -> String {
    let mut out = String::new();
    let mut is_fixed = false;
    let mut has_head = false;
    for line in text.lines() {
        let fixed = line.starts_with(' ');
        if is_fixed && !fixed {
            out.push_str(".fi\n");
        }
        match line.strip_suffix(':').filter(|_| !fixed) {
            Some(head) => {
                out.push_str(&format!(".SH {}\n", escape(&head.to_uppercase())));
                has_head = true;
            }
            None if line.is_empty() => out.push_str(if has_head { ".PP\n" } else { "" }),
            None => {
                if !has_head {
                    out.push_str(".SH NOTES\n");
                    has_head = true;
                }
                if fixed && !is_fixed {
                    out.push_str(".nf\n");
                }
                out.push_str(&format!("{}\n", escape(line)));
            }
        }
        is_fixed = fixed;
    }
    if is_fixed {
        out.push_str(".fi\n");
    }
    out
}

/// Text as it is: no request, no escape, hyphens that can be typed.
fn escape(line: &str) -> String {
    let text = line.replace('\\', "\\e").replace('-', "\\-").replace('\'', "\\(aq").replace('`', "\\(ga");
    if text.starts_with('.') { format!("\\&{text}") } else { text }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_command_has_a_page_with_its_examples() {
        let pages = pages().expect("pages");
        let page = |name: &str| {
            let page = pages.iter().find(|(other, _)| other == name).unwrap_or_else(|| panic!("no {name}"));
            String::from_utf8(page.1.clone()).expect("text")
        };
        assert!(page("qpc.1").contains("qpc\\-contact(1)"), "{}", page("qpc.1"));
        let add = page("qpc-contact-add.1");
        for part in [".SH EXAMPLES\n.nf\n  qpc contact add anna", ".SH SYNOPSIS\n\\fBqpc contact add\\fR"] {
            assert!(add.contains(part), "{part} is missing in {add}");
        }
        assert!(!pages.iter().any(|(name, _)| name.contains("strangers")), "what is hidden stays hidden");
    }

    #[test]
    fn text_is_no_request() {
        assert_eq!(after("Say:\n  .x 'a-b' \\"), ".SH SAY\n.nf\n  .x \\(aqa\\-b\\(aq \\e\n.fi\n");
        assert_eq!(after(".a\n\nb"), ".SH NOTES\n\\&.a\n.PP\nb\n");
    }
}
