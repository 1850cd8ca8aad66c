//! Histograms with exponential bounds: the native form, and the classic view computed from it.
//!
//! A bin's upper bound is `2^(i / 2^schema)` for an integer `i`, inclusive, as Prometheus' native histograms define.
//! Powers of four are bounds at every schema from -1 up, so the classic view at powers of four is exact.

/// How the bins of a histogram lie: fixed for a family.
#[derive(Debug, PartialEq, Eq)]
pub struct Layout {
    /// Bins an octave as a power of two: 2 means four bins an octave. Never negative here.
    pub schema: u8,
    /// Octave of the first bound: values up to `2^low_octave` are in the zero bin.
    pub low_octave: i32,
    /// Octave of the last bound: values above `2^high_octave` are in the overflow bin.
    pub high_octave: i32,
}

/// A distribution: cumulative over the life of its series.
#[derive(Clone, Debug, PartialEq)]
pub struct Histogram {
    layout: &'static Layout,
    /// Zero bin, the bins between the two bounds, overflow bin.
    bins: Box<[u64]>,
    sum: f64,
}

/// One line of the classic view.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ClassicBucket {
    /// Upper bound, inclusive; infinite for the last.
    pub le: f64,
    /// Observations at or below it.
    pub cumulative: u64,
}

// === impl Layout ===

impl Layout {
    /// Bins between the bounds.
    #[must_use]
    pub const fn inner_bins(&self) -> usize {
        ((self.high_octave - self.low_octave).unsigned_abs() as usize) << self.schema
    }

    /// All bins: those between the bounds, the zero bin and the overflow bin.
    #[must_use]
    pub const fn bins(&self) -> usize {
        self.inner_bins() + 2
    }

    /// The width of the zero bin, in the family's unit.
    #[must_use]
    pub fn zero_threshold(&self) -> f64 {
        f64::from(self.low_octave).exp2()
    }

    /// The native bucket index of the first inner bin: its upper bound is `2^(index / 2^schema)`.
    #[must_use]
    pub const fn first_index(&self) -> i32 {
        (self.low_octave << self.schema) + 1
    }
}

// === impl Histogram ===

impl Histogram {
    /// An empty one.
    #[must_use]
    pub fn new(layout: &'static Layout) -> Self {
        Self { layout, bins: vec![0; layout.bins()].into(), sum: 0.0 }
    }

    /// Where the bins lie.
    #[must_use]
    pub fn layout(&self) -> &'static Layout {
        self.layout
    }

    /// Adds observations bin by bin, and their sum. Bins beyond the layout's are counted as overflow.
    pub fn add(&mut self, bins: impl IntoIterator<Item = u64>, sum: f64) {
        let last = self.bins.len() - 1;
        for (at, count) in bins.into_iter().enumerate() {
            if let Some(bin) = self.bins.get_mut(at.min(last)) {
                *bin = bin.saturating_add(count);
            }
        }
        self.sum += sum;
    }

    /// Adds one observation of a non-negative value. NaN and negative values count in the zero bin.
    pub fn observe(&mut self, value: f64) {
        let at = self.bin_of(value);
        if let Some(bin) = self.bins.get_mut(at) {
            *bin = bin.saturating_add(1);
        }
        self.sum += if value.is_finite() { value } else { 0.0 };
    }

    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a float to integer cast saturates, and the result is clamped to the bins"
    )]
    fn bin_of(&self, value: f64) -> usize {
        if value.is_nan() || value <= self.layout.zero_threshold() {
            return 0;
        }
        let per_octave = f64::from(1_u32 << self.layout.schema);
        let mut bin = ((value.log2() - f64::from(self.layout.low_octave)) * per_octave).ceil() as usize;
        // A logarithm can round across a bound; the bounds themselves decide.
        if bin > 0 && value <= self.upper_bound(bin - 1) {
            bin -= 1;
        } else if value > self.upper_bound(bin) {
            bin += 1;
        }
        bin.min(self.bins.len() - 1)
    }

    /// The inclusive upper bound of a bin; infinite for the overflow bin.
    #[must_use]
    #[expect(clippy::cast_precision_loss, reason = "bins are a few hundred at most")]
    pub fn upper_bound(&self, bin: usize) -> f64 {
        if bin > self.layout.inner_bins() {
            return f64::INFINITY;
        }
        let per_octave = f64::from(1_u32 << self.layout.schema);
        (f64::from(self.layout.low_octave) + bin as f64 / per_octave).exp2()
    }

    /// Zero bin, inner bins, overflow bin.
    #[must_use]
    pub fn bins(&self) -> &[u64] {
        &self.bins
    }

    /// All observations.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.bins.iter().sum()
    }

    /// The sum of the observed values.
    #[must_use]
    pub fn sum(&self) -> f64 {
        self.sum
    }

    /// Cumulative counts at every power of four between the layout's bounds, then at infinity: exact, none estimated.
    pub fn classic(&self) -> impl Iterator<Item = ClassicBucket> + '_ {
        let layout = self.layout;
        // The first power of four at or above the first bound.
        let first = layout.low_octave + (layout.low_octave & 1);
        let mut below = 0_u64;
        let mut next_bin = 0_usize;
        let bounds = (first..=layout.high_octave).step_by(2);
        let lines = bounds.map(move |octave| {
            let end = ((octave - layout.low_octave).unsigned_abs() as usize) << layout.schema;
            below += self.bins.iter().take(end + 1).skip(next_bin).sum::<u64>();
            next_bin = end + 1;
            ClassicBucket { le: f64::from(octave).exp2(), cumulative: below }
        });
        lines.chain(std::iter::once_with(|| ClassicBucket { le: f64::INFINITY, cumulative: self.count() }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    static LAYOUT: Layout = Layout { schema: 2, low_octave: -22, high_octave: 10 };

    #[test]
    fn bounds_are_inclusive_and_powers_of_four_are_bounds() {
        let mut histogram = Histogram::new(&LAYOUT);
        for exponent in -11..=5 {
            histogram.observe(4_f64.powi(exponent));
        }
        let classic: Vec<_> = histogram.classic().collect();
        assert_eq!(classic.len(), 18, "seventeen powers of four and infinity");
        for (at, bucket) in classic.iter().take(17).enumerate() {
            assert_eq!(bucket.cumulative, at as u64 + 1, "4^k counts at le = 4^k, not above: {bucket:?}");
        }
        assert_eq!(classic[17].cumulative, 17);
    }

    #[test]
    fn values_beyond_the_last_bound_count_only_at_infinity() {
        let mut histogram = Histogram::new(&LAYOUT);
        histogram.observe(1025.0);
        let classic: Vec<_> = histogram.classic().collect();
        assert_eq!((classic[16].cumulative, classic[17].cumulative), (0, 1));
    }

    proptest! {
        #[test]
        fn a_value_lies_between_the_bounds_of_its_bin(value in 1e-9_f64..5e3) {
            let histogram = Histogram::new(&LAYOUT);
            let bin = histogram.bin_of(value);
            prop_assert!(value <= histogram.upper_bound(bin));
            prop_assert!(bin == 0 || value > histogram.upper_bound(bin - 1));
        }

        #[test]
        fn the_classic_view_counts_what_was_observed(values in prop::collection::vec(0.0_f64..2e3, 0..200)) {
            let mut histogram = Histogram::new(&LAYOUT);
            values.iter().for_each(|value| histogram.observe(*value));
            for bucket in histogram.classic() {
                let truth = values.iter().filter(|value| **value <= bucket.le).count() as u64;
                prop_assert_eq!(bucket.cumulative, truth, "le={}", bucket.le);
            }
        }
    }
}
