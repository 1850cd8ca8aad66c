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
        // What rounding took, found without asking which of the two is larger (Knuth): no branch in a long sum.
        let sum = self.value + value;
        let other = sum - self.value;
        let lost = (self.value - (sum - other)) + (value - other);
        if lost.is_finite() { Self { value: sum, rest: self.rest + lost } } else { self.plus_extreme(value) }
    }

    /// The same where one of the numbers is none, is infinite, or nearly.
    #[cold]
    fn plus_extreme(self, value: f64) -> Self {
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

/// Two sums that take their values together, which a processor does at once.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct TwoSums {
    values: [f64; 2],
    rests: [f64; 2],
}

// === impl TwoSums ===

impl TwoSums {
    /// Adds a value to each. They are finite and no sum of them is not.
    #[inline]
    pub fn add(&mut self, added: [f64; 2]) {
        for ((value, rest), added) in self.values.iter_mut().zip(&mut self.rests).zip(added) {
            let sum = *value + added;
            let other = sum - *value;
            *rest += (*value - (sum - other)) + (added - other);
            *value = sum;
        }
    }

    /// What they come to.
    #[inline]
    pub fn totals(&self) -> [f64; 2] {
        let mut totals = self.values;
        totals.iter_mut().zip(self.rests).for_each(|(total, rest)| *total += rest);
        totals
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
    fn rounding_is_found_without_knowing_which_number_is_larger() {
        let values = [0.1, 1e17, -0.3, 1.0, -1e17, 3e-300, f64::MAX, -f64::MAX, 7.0, f64::MIN_POSITIVE];
        for first in values {
            for second in values {
                let sum = Sum { value: first, rest: 0.25 };
                assert_eq!(sum.plus(second), sum.plus_extreme(second), "{first} and {second}");
            }
        }
        for (first, second) in [(f64::INFINITY, 1.0), (f64::MAX, f64::MAX), (1.0, f64::NEG_INFINITY)] {
            let sum = Sum { value: first, rest: 0.25 }.plus(second);
            assert!(sum.value.is_infinite() && sum.rest == 0.0, "{first} and {second}");
        }
        assert!(Sum::of(f64::INFINITY).plus(f64::NEG_INFINITY).total().is_nan());
    }

    #[test]
    fn a_mean_does_not_overflow() {
        let mut mean = Mean::of(1e308);
        mean.add(1e308);
        mean.add(1e308);
        assert!((mean.total() / 1e308 - 1.0).abs() < 1e-9);
    }
}
