//! How many series there may be, and how large a label.

/// Limits of cardinality.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Series in the head.
    pub series: usize,
    /// Series of one family.
    pub series_per_family: usize,
    /// Owners that are known at once.
    pub owners: usize,
    /// Labels of a series, its name among them.
    pub labels: usize,
    /// Bytes of a label's name.
    pub name_bytes: usize,
    /// Bytes of a label's value.
    pub value_bytes: usize,
}

/// A series that is one too many.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum LimitExceeded {
    /// In all.
    #[error("too many series: the limit is {0}")]
    Series(usize),
    /// Of its family.
    #[error("too many series of one family: the limit is {0}")]
    Family(usize),
    /// Labels of one series.
    #[error("too many labels: the limit is {0}")]
    Labels(usize),
    /// A label's name or value.
    #[error("label too long: the limit is {0} bytes")]
    Length(usize),
    /// Names that are empty, not in order, or there twice.
    #[error("label names must be growing and not empty")]
    Order,
}

// === impl Limits ===

impl Default for Limits {
    fn default() -> Self {
        Self {
            series: 200_000,
            series_per_family: 50_000,
            owners: 100_000,
            labels: 64,
            name_bytes: 256,
            value_bytes: 4096,
        }
    }
}

impl Limits {
    /// Whether a label set is within them.
    ///
    /// # Errors
    /// What it exceeds.
    pub fn check(&self, labels: &[(&str, &str)]) -> Result<(), LimitExceeded> {
        if labels.len() > self.labels {
            return Err(LimitExceeded::Labels(self.labels));
        }
        for (name, value) in labels {
            if name.len() > self.name_bytes {
                return Err(LimitExceeded::Length(self.name_bytes));
            }
            if value.len() > self.value_bytes {
                return Err(LimitExceeded::Length(self.value_bytes));
            }
        }
        let is_sorted = labels.is_sorted_by(|a, b| a.0 < b.0);
        if is_sorted && labels.iter().all(|(name, _)| !name.is_empty()) {
            Ok(())
        } else {
            Err(LimitExceeded::Order)
        }
    }
}
