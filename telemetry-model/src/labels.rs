//! Label sets: cheap to share, equal by content, sorted by name once at construction.

use std::borrow::Cow;
use std::sync::Arc;

/// One name and its value.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Label {
    /// The label's name: `[a-zA-Z_][a-zA-Z0-9_]*`.
    pub name: Cow<'static, str>,
    /// Its value: any UTF-8.
    pub value: Cow<'static, str>,
}

/// A set of labels, sorted by name. A clone shares the allocation.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Labels(Arc<[Label]>);

// === impl Label ===

impl Label {
    /// A label of any two strings.
    pub fn new(name: impl Into<Cow<'static, str>>, value: impl Into<Cow<'static, str>>) -> Self {
        Self { name: name.into(), value: value.into() }
    }
}

// === impl Labels ===

impl Labels {
    /// Sorts by name; of two labels with one name the first stays.
    #[must_use]
    pub fn new(mut labels: Vec<Label>) -> Self {
        labels.sort_by(|a, b| a.name.cmp(&b.name));
        labels.dedup_by(|later, first| later.name == first.name);
        Self(labels.into())
    }

    /// Labels known when the program was written.
    #[must_use]
    pub fn fixed(pairs: &[(&'static str, &'static str)]) -> Self {
        Self::new(pairs.iter().map(|&(name, value)| Label::new(name, value)).collect())
    }

    /// No labels.
    #[must_use]
    pub fn none() -> Self {
        Self::new(Vec::new())
    }

    /// These labels and those of `other`; where both name one, ours stays.
    #[must_use]
    pub fn and(&self, other: &Labels) -> Self {
        Self::new(self.iter().chain(other.iter()).cloned().collect())
    }

    /// The labels in order of their names.
    pub fn iter(&self) -> std::slice::Iter<'_, Label> {
        self.0.iter()
    }

    /// The value of the label `name`.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&str> {
        let at = self.0.binary_search_by(|label| label.name.as_ref().cmp(name)).ok()?;
        self.0.get(at).map(|label| label.value.as_ref())
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl Default for Labels {
    fn default() -> Self {
        Self::none()
    }
}

impl<'a> IntoIterator for &'a Labels {
    type Item = &'a Label;
    type IntoIter = std::slice::Iter<'a, Label>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_sorted_and_found_by_name() {
        let labels = Labels::fixed(&[("zone", "b"), ("app", "a"), ("app", "later")]);
        let names: Vec<_> = labels.iter().map(|label| label.name.as_ref()).collect();
        assert_eq!(names, ["app", "zone"]);
        assert_eq!(labels.get("app"), Some("a"), "the first of two labels with one name stays");
        assert_eq!(labels.get("none"), None);
    }

    #[test]
    fn ours_stays_where_both_name_a_label() {
        let ours = Labels::fixed(&[("a", "1")]);
        assert_eq!(
            ours.and(&Labels::fixed(&[("a", "2"), ("b", "3")])),
            Labels::fixed(&[("a", "1"), ("b", "3")])
        );
    }
}
