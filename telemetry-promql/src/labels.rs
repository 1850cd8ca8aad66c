//! Label sets as the engine handles them: sorted, shared, cheap to clone and to reduce.
//!
//! Names and values are shared strings, as the store hands them out, so that grouping ten thousand series copies
//! pointers and no text.

use std::fmt;
use std::hash::{BuildHasher, Hasher};
use std::sync::Arc;

use crate::text::quoted;

/// The label that holds the metric's name.
pub const NAME: &str = "__name__";
/// The label that holds the upper bound of a classic bucket.
pub const BUCKET: &str = "le";
/// The label that holds the metric's type, where types and units are labels.
pub const TYPE: &str = "__type__";
/// The label that holds the metric's unit, where types and units are labels.
pub const UNIT: &str = "__unit__";

/// What a shared text or label set takes beside its content.
const TEXT_BYTES: usize = 32;

/// One name and its value.
pub type Pair = (Arc<str>, Arc<str>);

/// A set of labels, sorted by name, none of them empty. A clone shares the allocation.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Labels(Arc<[Pair]>);

// === impl Labels ===

impl Labels {
    /// Sorts by name, leaves empty values out; of two labels with one name the first stays.
    #[must_use]
    pub fn new(mut pairs: Vec<Pair>) -> Self {
        pairs.retain(|(_, value)| !value.is_empty());
        if !pairs.is_sorted_by(|a, b| a.0 < b.0) {
            pairs.sort_by(|a, b| a.0.cmp(&b.0));
            pairs.dedup_by(|later, first| later.0 == first.0);
        }
        Self(pairs.into())
    }

    /// Shares labels as a store keeps them: sorted by name, none of them empty.
    #[must_use]
    pub fn shared(pairs: &Arc<[Pair]>) -> Self {
        let is_set = pairs.is_sorted_by(|a, b| a.0 < b.0) && pairs.iter().all(|(_, value)| !value.is_empty());
        if is_set { Self(Arc::clone(pairs)) } else { Self::new(pairs.to_vec()) }
    }

    /// From any texts.
    pub fn from_texts<'a>(pairs: impl IntoIterator<Item = (&'a str, &'a str)>) -> Self {
        Self::new(pairs.into_iter().map(|(name, value)| (name.into(), value.into())).collect())
    }

    /// The labels in the order of their names.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(name, value)| (&**name, &**value))
    }

    /// The labels as they are kept.
    #[must_use]
    pub fn pairs(&self) -> &[Pair] {
        &self.0
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The value of a label; empty if there is none.
    #[must_use]
    pub fn get(&self, name: &str) -> &str {
        let found = self.0.binary_search_by(|pair| (*pair.0).cmp(name)).ok();
        found.and_then(|at| self.0.get(at)).map_or("", |pair| &*pair.1)
    }

    /// The metric's name; empty if there is none.
    #[must_use]
    pub fn name(&self) -> &str {
        self.get(NAME)
    }

    /// Bytes of memory, about: texts that nobody else has, as a source's own symbols are had by the source, are counted.
    #[must_use]
    pub fn bytes(&self) -> usize {
        let own = |text: &Arc<str>| if Arc::strong_count(text) == 1 { TEXT_BYTES + text.len() } else { 0 };
        let pairs = self.0.iter().map(|(name, value)| size_of::<Pair>() + own(name) + own(value));
        TEXT_BYTES + pairs.sum::<usize>()
    }

    /// Those labels that `wanted` says yes to.
    #[must_use]
    pub fn keep(&self, wanted: impl Fn(&str) -> bool) -> Self {
        if self.0.iter().all(|(name, _)| wanted(name)) {
            return self.clone();
        }
        Self(self.0.iter().filter(|(name, _)| wanted(name)).cloned().collect())
    }

    /// Without the labels that say what the metric is: name, type and unit.
    #[must_use]
    pub fn without_metadata(&self) -> Self {
        self.keep(|name| !is_metadata(name))
    }

    /// With one label set, or taken out if the value is empty.
    #[must_use]
    pub fn with(&self, name: &str, value: &str) -> Self {
        let mut pairs: Vec<Pair> = self.0.iter().filter(|pair| &*pair.0 != name).cloned().collect();
        if !value.is_empty() {
            let at = pairs.partition_point(|pair| &*pair.0 < name);
            pairs.insert(at, (name.into(), value.into()));
        }
        Self(pairs.into())
    }

    /// A number that equal label sets share, keyed by `state`.
    #[must_use]
    pub fn signature(&self, state: &ahash::RandomState, wanted: impl Fn(&str) -> bool) -> u64 {
        let mut hasher = state.build_hasher();
        for (name, value) in self.0.iter().filter(|(name, _)| wanted(name)) {
            hasher.write(name.as_bytes());
            hasher.write_u8(0xff);
            hasher.write(value.as_bytes());
            hasher.write_u8(0xff);
        }
        hasher.finish()
    }

    /// Whether two sets agree in the labels that `wanted` says yes to.
    #[must_use]
    pub fn agrees(&self, other: &Self, wanted: impl Fn(&str) -> bool) -> bool {
        let ours = self.0.iter().filter(|(name, _)| wanted(name));
        ours.eq(other.0.iter().filter(|(name, _)| wanted(name)))
    }
}

/// Whether a label says what the metric is, and not which of its series this is.
#[must_use]
pub fn is_metadata(name: &str) -> bool {
    name == NAME || name == TYPE || name == UNIT
}

impl fmt::Display for Labels {
    /// As Prometheus prints a label set in its messages: `{__name__="x", job="y"}`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("{")?;
        for (at, (name, value)) in self.iter().enumerate() {
            let comma = if at == 0 { "" } else { ", " };
            let plain = is_plain_name(name);
            match plain {
                true => write!(f, "{comma}{name}={}", quoted(value))?,
                false => write!(f, "{comma}{}={}", quoted(name), quoted(value))?,
            }
        }
        f.write_str("}")
    }
}

/// Whether a label's name needs no quotes.
#[must_use]
pub fn is_plain_name(name: &str) -> bool {
    let mut bytes = name.bytes();
    bytes.next().is_some_and(|first| first.is_ascii_alphabetic() || first == b'_')
        && bytes.all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_sorted_found_and_reduced() {
        let labels = Labels::from_texts([("job", "a"), (NAME, "up"), ("empty", ""), ("app", "x")]);
        assert_eq!(labels.to_string(), r#"{__name__="up", app="x", job="a"}"#);
        assert_eq!((labels.get("job"), labels.get("none"), labels.name()), ("a", "", "up"));
        assert_eq!(labels.without_metadata(), Labels::from_texts([("app", "x"), ("job", "a")]));
        assert_eq!(labels.with("app", "").with("zone", "z").get("zone"), "z");
    }

    #[test]
    fn signatures_agree_where_the_wanted_labels_do() {
        let state = ahash::RandomState::with_seeds(1, 2, 3, 4);
        let (a, b) =
            (Labels::from_texts([("x", "1"), ("y", "2")]), Labels::from_texts([("x", "1"), ("z", "3")]));
        let only_x = |name: &str| name == "x";
        assert_eq!(a.signature(&state, only_x), b.signature(&state, only_x));
        assert!(a.agrees(&b, only_x) && !a.agrees(&b, |_| true));
        assert_ne!(a.signature(&state, |_| true), b.signature(&state, |_| true));
    }
}
