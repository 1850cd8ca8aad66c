//! Which series there are, and which of them a selector means.
//!
//! Strings are interned, label sets are numbers, postings are bitmaps. Names of owners bind late: a series refers to
//! its owner, and what becomes known of the owner is true of everything that was ever stored under it. Knows no sample
//! and no disk; called by [`crate::db`] and [`crate::block`].

mod file;
mod head;
mod limits;
mod matcher;
mod owners;
mod postings;
mod symbols;

#[cfg(test)]
mod tests;

use std::sync::Arc;

pub use file::{FileIndex, IndexError};
pub use head::HeadIndex;
pub use limits::{LimitExceeded, Limits};
pub use matcher::{CompiledMatcher, MatcherError, compile};
pub use owners::{AlreadyBound, LOST_OWNER_LABEL, OwnerRef, Owners, OwnersView};

/// The number of a series: never used twice in a data directory.
pub type SeriesId = u32;

/// Label pairs in the order of their names.
pub type LabelPairs = Vec<(Arc<str>, Arc<str>)>;

/// The label that holds a metric's name.
pub const NAME: &str = "__name__";
/// The label of the series that stands in for those beyond a limit.
pub const OVERFLOW: &str = "overflow";

/// A series' own labels and its owner's, merged; of two labels with one name the series' own stays. An owner's label
/// without value is no label.
fn merge(own: LabelPairs, owner: &[(Arc<str>, Arc<str>)]) -> LabelPairs {
    if owner.is_empty() {
        return own;
    }
    let mut all = own;
    for (name, value) in owner {
        if value.is_empty() {
            continue;
        }
        if let Err(at) = all.binary_search_by(|(known, _)| known.as_ref().cmp(name)) {
            all.insert(at, (Arc::clone(name), Arc::clone(value)));
        }
    }
    all
}
