//! Who may import whom: the table of ARCHITECTURE.md, held against the code.
//!
//! A row says `| names | what they may import |`. Names and words are matched against the names of
//! the first column; a crate `telemetry_x` may be called `x`. In the second column everything up to
//! the first full stop or semicolon counts; `everyone` means every name, ``the `Config` type of each
//! part`` means items whose name ends in `Config`, `over HTTP` means no import at all, and
//! ``The only place that names `x` `` binds the foreign crate `x` to that row's modules.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Result, bail};

use super::source::{is_word, line_of, words};
use super::{Complaint, manifests};

const HEADER: &str = "| module | may import |";
/// The crate whose modules the table speaks of.
const AGENT_SRC: &str = "telemetry-agent/src/";
/// Kernel programs name the kernel half of the same foreign crates.
const KERNEL_SRC: &str = "telemetry-ebpf/";
const OUR_PREFIX: &str = "telemetry_";
/// The file that starts the program, which stands beside `app` and is imported by nobody.
const ROOTS: [&str; 2] = ["main", "lib"];

/// The table.
#[derive(Debug, Default)]
pub struct Table {
    /// By name, whole: `store`, `telemetry_model`.
    rows: BTreeMap<String, Row>,
    /// Foreign crate to the modules that alone may name it.
    only: BTreeMap<String, Vec<String>>,
}

#[derive(Debug, Default, Clone)]
struct Row {
    allowed: BTreeSet<String>,
    everyone: bool,
    configs: bool,
}

/// A path into our own code.
#[derive(Debug, PartialEq, Eq)]
struct Import {
    /// First component: a module of the agent, or one of our crates.
    module: String,
    /// Last component that could be read.
    item: String,
    at: usize,
}

// === impl Table ===

impl Table {
    /// Reads the table out of the page.
    ///
    /// # Errors
    /// When there is none, or it is empty.
    pub fn parse(page: &str) -> Result<Self> {
        let body = page.lines().skip_while(|line| line.trim() != HEADER).skip(2);
        let cells = |line: &str| {
            let (names, rest) = line.trim().strip_prefix('|')?.strip_suffix('|')?.split_once('|')?;
            Some((backticked(names), rest.to_owned()))
        };
        let rows: Vec<(Vec<String>, String)> = body.map_while(cells).collect();
        if rows.is_empty() {
            bail!("has no table that starts with `{HEADER}`");
        }
        let names: BTreeSet<String> = rows.iter().flat_map(|(names, _)| names.iter().cloned()).collect();
        let mut table = Self::default();
        for (modules, cell) in rows {
            let row = Row::parse(&cell, &names);
            let foreign = cell.split_once("only place that names ").map(|(_, rest)| backticked(rest));
            if let Some(foreign) = foreign.and_then(|names| names.into_iter().next()) {
                table.only.entry(foreign).or_default().extend(modules.iter().cloned());
            }
            for module in modules {
                table.rows.insert(module, row.clone());
            }
        }
        Ok(table)
    }

    /// Checks the imports of one file.
    pub fn check_file(&self, path: &str, code: &str) -> Vec<Complaint> {
        let mut complaints = self.check_foreign(path, code);
        let Some(module) = module_of(path) else { return complaints };
        if ROOTS.contains(&module) {
            return complaints;
        }
        let Some(row) = self.rows.get(module) else {
            complaints
                .push(Complaint::whole(path, format!("module `{module}` is not in the table of imports")));
            return complaints;
        };
        for import in imports(path, code) {
            if import.module != module && !row.allows(&import) && self.is_module(&import.module) {
                let what = format!("`{module}` may not import `{}`", import.module);
                complaints.push(Complaint::at(path, line_of(code, import.at), what));
            }
        }
        complaints
    }

    /// Checks which of our crates a manifest depends on. The agent's is the sum of its modules.
    pub fn check_manifest(&self, path: &str, text: &str) -> Vec<Complaint> {
        let folder = path.strip_suffix("/Cargo.toml").unwrap_or_default();
        let Some(row) = self.rows.get(&folder.replace('-', "_")) else { return Vec::new() };
        let mut complaints = Vec::new();
        for (line, dependency) in manifests::dependency_lines(text) {
            let name = dependency.split(['=', '.', ' ']).next().unwrap_or_default().replace('-', "_");
            if name.starts_with(OUR_PREFIX) && !row.everyone && !row.allowed.contains(&name) {
                complaints.push(Complaint::at(path, line, format!("`{folder}` may not depend on `{name}`")));
            }
        }
        complaints
    }

    /// Foreign crates that have one place.
    fn check_foreign(&self, path: &str, code: &str) -> Vec<Complaint> {
        let mut complaints = Vec::new();
        for (foreign, modules) in &self.only {
            let at_home = module_of(path).is_some_and(|module| modules.iter().any(|home| home == module));
            if at_home || path.starts_with(KERNEL_SRC) {
                continue;
            }
            for at in crate_paths(code, foreign) {
                let what = format!("`{foreign}` is named only in `{}`", modules.join("`, `"));
                complaints.push(Complaint::at(path, line_of(code, at), what));
            }
        }
        complaints
    }

    /// False for items that stand in the crate's root, such as an exported macro.
    fn is_module(&self, name: &str) -> bool {
        let item = name.chars().next().is_some_and(char::is_uppercase);
        !item || self.rows.contains_key(name)
    }
}

// === impl Row ===

impl Row {
    fn parse(cell: &str, names: &BTreeSet<String>) -> Self {
        let clause = cell.split(['.', ';']).next().unwrap_or_default();
        let mut row = Self::default();
        if clause.contains("over HTTP") {
            return row;
        }
        row.configs = clause.contains("`Config`");
        for word in clause.split(|c: char| !is_word(c)) {
            row.everyone |= word == "everyone";
            for name in [word.to_owned(), format!("{OUR_PREFIX}{word}")] {
                if names.contains(&name) {
                    row.allowed.insert(name);
                }
            }
        }
        row
    }

    fn allows(&self, import: &Import) -> bool {
        self.everyone
            || self.allowed.contains(&import.module)
            || (self.configs && import.item.ends_with("Config"))
    }
}

fn backticked(text: &str) -> Vec<String> {
    text.split('`').skip(1).step_by(2).map(str::to_owned).collect()
}

/// The agent's module that a file belongs to: the first component below `src`.
fn module_of(path: &str) -> Option<&str> {
    let rest = path.strip_prefix(AGENT_SRC)?;
    Some(rest.split('/').next()?.trim_end_matches(".rs"))
}

/// Every path of a file that starts at the agent's root or at one of our crates.
fn imports(path: &str, code: &str) -> Vec<Import> {
    let mut found = Vec::new();
    for at in words(code, "crate") {
        found.extend(path_after(code, at, at + "crate".len()));
    }
    // `super` leaves the module only when there are as many as the file is deep.
    let depth = path.strip_prefix(AGENT_SRC).map_or(0, |rest| {
        let parts = rest.trim_end_matches("/mod.rs").trim_end_matches(".rs");
        parts.split('/').count()
    });
    let climb = ["super"; 8].get(..depth).unwrap_or_default().join("::");
    for at in words(code, &climb).filter(|at| depth > 0 && brace_depth(code, *at) == 0) {
        let goes_higher = code.get(..at).is_some_and(|before| before.trim_end().ends_with("::"));
        if !goes_higher {
            found.extend(path_after(code, at, at + climb.len()));
        }
    }
    for (at, _) in code.match_indices(OUR_PREFIX) {
        let before = code.get(..at).and_then(|text| text.chars().next_back());
        let name: String = code.get(at..).unwrap_or_default().chars().take_while(|c| is_word(*c)).collect();
        let after = code.get(at + name.len()..).unwrap_or_default();
        if !before.is_some_and(is_word) && after.starts_with("::") {
            let item = name.clone();
            found.push(Import { module: name, item, at });
        }
    }
    found
}

/// What follows a root: `::a::B` or `::{a::B, c}`.
fn path_after(code: &str, at: usize, end: usize) -> Vec<Import> {
    let Some(rest) = code.get(end..).and_then(|rest| rest.trim_start().strip_prefix("::")) else {
        return Vec::new();
    };
    let rest = rest.trim_start();
    let Some(group) = rest.strip_prefix('{') else {
        return import_of(rest, at).into_iter().collect();
    };
    top_level_items(group).into_iter().filter_map(|item| import_of(item, at)).collect()
}

/// First and last name of a path; a group's last name is its only one, or unknown.
fn import_of(path: &str, at: usize) -> Option<Import> {
    let end = path.find(|c: char| !is_word(c) && c != ':' && !c.is_whitespace()).unwrap_or(path.len());
    let plain = path.get(..end)?;
    let mut names = plain.split("::").map(|name| name.split_whitespace().next().unwrap_or_default());
    let module = names.next().filter(|name| !name.is_empty())?.to_owned();
    let mut item = names.last().unwrap_or_default().to_owned();
    if let Some(group) = path.get(end..).and_then(|rest| rest.strip_prefix('{')) {
        let items = top_level_items(group);
        // A group passes as configuration only if all of it does.
        let all_configs =
            items.iter().all(|item| item.split(" as ").next().unwrap_or(item).trim().ends_with("Config"));
        item = if all_configs { "Config".to_owned() } else { String::new() };
    }
    Some(Import { module, item, at })
}

/// The comma-separated items of a group whose opening brace has just been read.
fn top_level_items(group: &str) -> Vec<&str> {
    let mut items = Vec::new();
    let mut depth = 0;
    let mut start = 0;
    for (at, c) in group.char_indices() {
        match c {
            '{' => depth += 1,
            '}' if depth > 0 => depth -= 1,
            '}' | ',' if depth == 0 => {
                items.push(group.get(start..at).unwrap_or_default().trim());
                start = at + 1;
                if c == '}' {
                    break;
                }
            }
            _ => {}
        }
    }
    items.retain(|item| !item.is_empty());
    items
}

fn brace_depth(code: &str, at: usize) -> usize {
    let before = code.get(..at).unwrap_or_default();
    before.matches('{').count().saturating_sub(before.matches('}').count())
}

/// Places that name a foreign crate, or one of its family (`aya`, `aya_obj`), as the root of a path.
fn crate_paths<'a>(code: &'a str, name: &'a str) -> impl Iterator<Item = usize> + 'a {
    code.match_indices(name).map(|(at, _)| at).filter(move |at| {
        let before = code.get(..*at).unwrap_or_default().trim_end();
        let word: String = code.get(*at..).unwrap_or_default().chars().take_while(|c| is_word(*c)).collect();
        let after = code.get(at + word.len()..).unwrap_or_default().trim_start();
        let family = word == name || word.strip_prefix(name).is_some_and(|rest| rest.starts_with('_'));
        let starts_path = !code.get(..*at).unwrap_or_default().ends_with(is_word) && !path_goes_on(before);
        let imported = before.ends_with("use") || before.ends_with("extern crate");
        family && starts_path && (after.starts_with("::") || imported)
    })
}

/// True when what stands before is part of the same path: `crate::kube` is not the crate `kube`.
fn path_goes_on(before: &str) -> bool {
    before.strip_suffix("::").is_some_and(|rest| rest.ends_with(is_word) || rest.ends_with('>'))
}

#[cfg(test)]
mod tests;
