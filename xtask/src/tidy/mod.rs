//! `cargo xtask tidy`: the rules of this project that no other tool knows.
//!
//! Each rule is a pure function from text to complaints, and each has a test that shows it failing.
//! This file reads the tree and says which rule sees which file.

mod files;
mod imports;
mod manifests;
mod source;

use std::fmt;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result, bail};

use crate::paths;
use imports::Table;

/// The page with the table of who may import whom.
const ARCHITECTURE: &str = "ARCHITECTURE.md";
/// Folders that are not ours to judge.
const SKIPPED_DIRS: [&str; 3] = ["target", ".git", "node_modules"];

/// One breach of one rule.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Complaint {
    file: String,
    /// Counted from 1; 0 means the file as a whole.
    line: usize,
    what: String,
}

/// A file of the tree, its path relative to the root and with `/`.
#[derive(Debug)]
struct SourceFile {
    path: String,
    text: String,
}

/// Runs every rule and says that they hold.
///
/// # Errors
/// With every breach.
pub fn command() -> Result<()> {
    tidy()?;
    println!("tidy");
    Ok(())
}

/// Runs every rule over the tree.
///
/// # Errors
/// With every breach, or when a file cannot be read.
pub fn tidy() -> Result<()> {
    let files = read_tree(&paths::root())?;
    let complaints = judge(&files);
    if complaints.is_empty() {
        return Ok(());
    }
    let lines: Vec<String> = complaints.iter().map(|complaint| format!("    {complaint}")).collect();
    bail!("{} breaches of the project's rules\n{}", complaints.len(), lines.join("\n"))
}

/// Every complaint about a tree, sorted by file and line.
fn judge(files: &[SourceFile]) -> Vec<Complaint> {
    let mut complaints = Vec::new();
    let table = match files.iter().find(|file| file.path == ARCHITECTURE).map(|file| Table::parse(&file.text))
    {
        Some(Ok(table)) => Some(table),
        Some(Err(error)) => {
            complaints.push(Complaint::whole(ARCHITECTURE, error.to_string()));
            None
        }
        None => {
            complaints.push(Complaint::whole(ARCHITECTURE, "is missing: it says who may import whom"));
            None
        }
    };
    for file in files {
        let path = file.path.as_str();
        if path.ends_with(".rs") {
            complaints.extend(files::check_shape(path, &file.text));
            let code = source::code_only(&file.text);
            complaints.extend(files::check_unsafe(path, &code));
            if let Some(table) = &table {
                complaints.extend(table.check_file(path, &code));
            }
        }
        if path.ends_with("Cargo.toml") {
            complaints.extend(manifests::check_reasons(path, &file.text));
            if let Some(table) = &table {
                complaints.extend(table.check_manifest(path, &file.text));
            }
        }
        complaints.extend(manifests::check_hosts(path, &file.text));
    }
    complaints.sort();
    complaints
}

fn read_tree(root: &Path) -> Result<Vec<SourceFile>> {
    let mut files = Vec::new();
    let mut open = vec![root.to_path_buf()];
    while let Some(dir) = open.pop() {
        for entry in fs::read_dir(&dir).with_context(|| format!("read {}", dir.display()))? {
            let entry = entry?;
            let name = entry.file_name().to_string_lossy().into_owned();
            let kind = entry.file_type()?;
            if kind.is_dir() && !SKIPPED_DIRS.contains(&name.as_str()) {
                open.push(entry.path());
            } else if kind.is_file() {
                let path = entry.path();
                let relative = path.strip_prefix(root).unwrap_or(&path).to_string_lossy().into_owned();
                if !is_judged(&relative) {
                    continue;
                }
                let text = fs::read_to_string(&path).with_context(|| format!("read {relative}"))?;
                files.push(SourceFile { path: relative, text });
            }
        }
    }
    Ok(files)
}

/// Text that some rule reads.
fn is_judged(path: &str) -> bool {
    path.ends_with(".rs") || path == ARCHITECTURE || manifests::names_sources(path)
}

// === impl Complaint ===

impl Complaint {
    fn at(file: &str, line: usize, what: impl Into<String>) -> Self {
        Self { file: file.to_owned(), line, what: what.into() }
    }

    fn whole(file: &str, what: impl Into<String>) -> Self {
        Self::at(file, 0, what)
    }
}

impl fmt::Display for Complaint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.line {
            0 => write!(f, "{}: {}", self.file, self.what),
            line => write!(f, "{}:{line}: {}", self.file, self.what),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAGE: &str = "| module | may import |\n|---|---|\n| `telemetry_model` | nothing of ours |\n| `store` | model |\n| `api` | store, model |\n";

    fn complaints(files: &[(&str, &str)]) -> Vec<String> {
        let file = |(path, text): &(&str, &str)| SourceFile { path: (*path).into(), text: (*text).into() };
        let files: Vec<SourceFile> = files.iter().map(file).collect();
        judge(&files).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn a_tree_that_keeps_the_rules_has_no_complaints() {
        let api = "//! Answers.\nuse crate::store::Latest;\n";
        assert_eq!(complaints(&[(ARCHITECTURE, PAGE), ("telemetry-agent/src/api/mod.rs", api)]), [""; 0]);
    }

    #[test]
    fn a_forbidden_import_is_named_with_its_line() {
        let store = "//! Keeps.\nuse crate::api::Router;\n";
        let found = complaints(&[(ARCHITECTURE, PAGE), ("telemetry-agent/src/store.rs", store)]);
        assert_eq!(found, ["telemetry-agent/src/store.rs:2: `store` may not import `api`"]);
    }

    #[test]
    fn a_tree_without_its_table_is_refused() {
        let found = complaints(&[("telemetry-agent/src/store.rs", "//! Keeps.\n")]);
        assert!(found.concat().contains("is missing"), "{found:?}");
    }
}
