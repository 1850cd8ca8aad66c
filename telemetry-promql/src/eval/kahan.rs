//! Sums that lose nothing worth mentioning: Kahan's, as improved by Neumaier.

/// A sum and what rounding took from it.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Sum {
    pub value: f64,
    pub rest: f64,
}

// === impl Sum ===

impl Sum {
    /// Begins with a value.
    pub fn of(value: f64) -> Self {
        Self { value, rest: 0.0 }
    }

    /// With one value more.
    #[inline]
    #[must_use]
    pub fn plus(self, value: f64) -> Self {
        let sum = self.value + value;
        let rest = if sum.is_infinite() {
            0.0
        } else if self.value.abs() >= value.abs() {
            self.rest + ((self.value - sum) + value)
        } else {
            self.rest + ((value - sum) + self.value)
        };
        Self { value: sum, rest }
    }

    /// What it comes to.
    #[inline]
    pub fn total(self) -> f64 {
        self.value + self.rest
    }
}

/// The mean of values, exact sum first; an incremental mean once the sum would overflow.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Mean {
    sum: Sum,
    pub count: f64,
    is_incremental: bool,
}

// === impl Mean ===

impl Mean {
    /// Begins with a value.
    pub fn of(value: f64) -> Self {
        Self { sum: Sum::of(value), count: 1.0, is_incremental: false }
    }

    /// Adds a value.
    #[inline]
    pub fn add(&mut self, value: f64) {
        self.count += 1.0;
        if !self.is_incremental {
            let next = self.sum.plus(value);
            if !next.value.is_infinite() {
                self.sum = next;
                return;
            }
            self.is_incremental = true;
            let before = self.count - 1.0;
            self.sum = Sum { value: self.sum.value / before, rest: self.sum.rest / before };
        }
        let share = (self.count - 1.0) / self.count;
        let shrunk = Sum { value: share * self.sum.value, rest: share * self.sum.rest };
        self.sum = shrunk.plus(value / self.count);
    }

    /// What it comes to.
    pub fn total(self) -> f64 {
        if self.is_incremental {
            self.sum.total()
        } else {
            self.sum.value / self.count + self.sum.rest / self.count
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_values_survive_between_large_ones() {
        let sum = [1.0, 1e100, 1.0, -1e100].iter().fold(Sum::default(), |sum, v| sum.plus(*v));
        assert_eq!(sum.total(), 2.0);
    }

    #[test]
    fn a_mean_does_not_overflow() {
        let mut mean = Mean::of(1e308);
        mean.add(1e308);
        mean.add(1e308);
        assert!((mean.total() / 1e308 - 1.0).abs() < 1e-9);
    }
}
