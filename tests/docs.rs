//! What the documents say about files and keys is so.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod docs_reference;

use std::{
    fs,
    path::{Path, PathBuf},
};

use quicprochat_mesh::MeshConfig;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Documents of the project, those of directories with their names before them.
fn documents() -> Vec<PathBuf> {
    let mut out = Vec::new();
    for directory in ["", "docs", "docs/adr"] {
        for entry in fs::read_dir(root().join(directory)).unwrap() {
            let path = entry.unwrap().path();
            if path.extension().is_some_and(|e| e == "md") {
                out.push(path);
            }
        }
    }
    out
}

#[test]
fn the_configuration_page_holds_the_file_that_init_writes() {
    let path = root().join("docs/configuration.md");
    let text = fs::read_to_string(&path).unwrap();
    let (head, rest) = text.split_once("```toml\n").unwrap();
    let (block, tail) = rest.split_once("```\n").unwrap();
    let wanted = MeshConfig::commented_toml();
    if block == wanted {
        return;
    }
    if std::env::var_os("QPC_BLESS").is_some() {
        fs::write(&path, format!("{head}```toml\n{wanted}```\n{tail}")).unwrap();
        return;
    }
    panic!("docs/configuration.md is behind the table of keys: QPC_BLESS=1 cargo test --test docs");
}

#[test]
fn the_configuration_page_holds_every_key() {
    docs_reference::check("docs/configuration.md", "keys", &MeshConfig::markdown_table());
}

#[test]
fn the_configuration_page_holds_what_no_key_changes() {
    docs_reference::check("docs/configuration.md", "limits", &docs_reference::limits::markdown());
}

#[test]
fn links_between_documents_lead_somewhere() {
    for document in documents() {
        let text = fs::read_to_string(&document).unwrap();
        for target in text.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            let file = target.split('#').next().unwrap_or("");
            if file.is_empty() || file.contains("://") {
                continue;
            }
            let path = document.parent().unwrap().join(file);
            assert!(path.exists(), "{}: {target} leads nowhere", document.display());
        }
    }
}

/// What a heading is called in a link.
fn anchor(heading: &str) -> String {
    let kept = |c: &char| c.is_alphanumeric() || " -_".contains(*c);
    heading.to_lowercase().chars().filter(kept).map(|c| if c == ' ' { '-' } else { c }).collect()
}

#[test]
fn links_to_headings_lead_to_one() {
    for document in documents() {
        let text = fs::read_to_string(&document).unwrap();
        for target in text.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            let Some((file, wanted)) = target.split_once('#').filter(|(file, _)| !file.contains("://"))
            else {
                continue;
            };
            let path = if file.is_empty() { document.clone() } else { document.parent().unwrap().join(file) };
            let there = fs::read_to_string(path).unwrap();
            let found = there
                .lines()
                .filter(|line| line.starts_with('#'))
                .any(|line| anchor(line.trim_start_matches('#').trim()) == wanted);
            assert!(found, "{}: there is no heading for {target}", document.display());
        }
    }
}

#[test]
fn the_contents_name_every_page() {
    let contents = fs::read_to_string(root().join("docs/README.md")).unwrap();
    for document in documents() {
        let name = document.file_name().unwrap().to_string_lossy().into_owned();
        let is_page = document.parent().is_some_and(|parent| parent.ends_with("docs"));
        assert!(
            !is_page || name == "README.md" || contents.contains(&format!("({name})")),
            "{name} is not in docs/README.md"
        );
    }
}

#[test]
fn the_architecture_names_files_that_exist() {
    let text = fs::read_to_string(root().join("ARCHITECTURE.md")).unwrap();
    for name in text.split('`').skip(1).step_by(2).filter(|name| name.ends_with(".rs")) {
        let places = ["", "src", "src/actors"].map(|place| root().join(place).join(name));
        // A star stands for several.
        assert!(name.contains('*') || places.iter().any(|p| p.exists()), "{name} does not exist");
    }
}
