//! What a query says twice is read once: selectors, and functions of their ranges, that stand in several places.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;

use super::frame::{Column, Grid};
use crate::plan::{Node, Op, RangeOf, Selector};

/// A part and the grid it is evaluated on.
type Place = (String, i64, i64, usize);

/// Parts of one query that stand in several places, and what came of them.
#[derive(Default)]
pub(crate) struct Shared {
    /// How often each part stands in the query.
    counts: HashMap<String, usize>,
    made: RefCell<HashMap<Place, Vec<Column>>>,
    bytes: Cell<usize>,
}

/// What tells one selector from another: all but its place and its neighbours.
fn selector_key(selector: &Selector) -> String {
    let Selector { matchers, at, offset, extended, stats_only, .. } = selector;
    format!("{matchers:?} {at:?} {offset} {extended:?} {stats_only}")
}

/// What tells one part from another, if it is of the kind that is shared.
fn key(node: &Node) -> Option<String> {
    match &node.op {
        Op::Select(selector) => Some(selector_key(selector)),
        Op::Over(over) if over.params.is_empty() => match &over.range.of {
            RangeOf::Selector(selector) => {
                let (name, window) = (over.name, over.range.window);
                Some(format!("{name} {window} {}", selector_key(selector)))
            }
            RangeOf::Subquery { .. } => None,
        },
        _ => None,
    }
}

fn place(key: String, grid: Grid) -> Place {
    (key, grid.start, grid.step, grid.count)
}

// === impl Shared ===

impl Shared {
    /// Of a plan.
    pub fn new(plan: &Node) -> Self {
        let mut shared = Self::default();
        plan.walk(&mut |node| {
            if let Some(key) = key(node) {
                *shared.counts.entry(key).or_insert(0) += 1;
            }
        });
        shared.counts.retain(|_, count| *count > 1);
        shared
    }

    /// Whether a part stands in several places.
    pub fn has(&self, node: &Node) -> bool {
        !self.counts.is_empty() && key(node).is_some_and(|key| self.counts.contains_key(&key))
    }

    /// Whether a selector does, and so must not be read for one place only.
    pub fn has_selector(&self, selector: &Selector) -> bool {
        let key = selector_key(selector);
        self.counts.keys().any(|known| known.ends_with(&key))
    }

    /// What came of a part, if it was evaluated before.
    pub fn get(&self, node: &Node, grid: Grid) -> Option<Vec<Column>> {
        self.made.borrow().get(&place(key(node)?, grid)).cloned()
    }

    /// Keeps what came of a part, unless it is larger than `most` bytes: then it is cheaper to read it again.
    pub fn put(&self, node: &Node, grid: Grid, columns: &[Column], most: u64) {
        let bytes: usize = columns.iter().map(Column::bytes).sum();
        if bytes as u64 > most {
            return;
        }
        if let Some(key) = key(node) {
            self.bytes.set(self.bytes.get().saturating_add(bytes));
            self.made.borrow_mut().insert(place(key, grid), columns.to_vec());
        }
    }

    /// Bytes that are kept.
    pub fn bytes(&self) -> usize {
        self.bytes.get()
    }
}
