//! The table as plain text: for pipes, files and scripts. Nothing is cut off.

use std::fmt::Write as _;

use super::usage::{COLUMNS, Usage};
use super::view::View;
use crate::cli::text::columns;

/// Columns of a figure, the gap before it included.
const FIGURE: usize = 8;

/// All rows that the view shows, the node's before them.
#[must_use]
pub fn table(view: &View) -> String {
    let rows = view.rows();
    let node = view.reading.iter().map(|reading| ("(node)", &reading.node));
    let lines: Vec<(&str, &Usage)> = node.chain(rows.iter().map(|row| (&*row.name, &row.usage))).collect();
    let widest = lines.iter().map(|(name, _)| columns(name)).max().unwrap_or(0);
    let mut out = String::new();
    let mut line = |name: &str, figures: [String; COLUMNS.len()]| {
        let gap = widest.saturating_sub(columns(name));
        let _ = write!(out, "{name}{:gap$}", "");
        for figure in figures {
            let _ = write!(out, "{figure:>FIGURE$}");
        }
        out.push('\n');
    };
    line("OWNER", COLUMNS.map(|column| column.title.to_owned()));
    for (name, usage) in lines {
        line(name, COLUMNS.map(|column| (column.text)(usage)));
    }
    out
}
