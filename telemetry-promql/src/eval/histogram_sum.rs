//! Sums and means of native histograms: compensated, and incremental once a sum would overflow.

use telemetry_model::{NativeHistogram, ResetHint};

use super::arithmetic::Arithmetic;

/// Histograms added up so far.
#[derive(Clone, Debug)]
pub(crate) struct HistogramSum {
    value: NativeHistogram,
    rest: Option<NativeHistogram>,
    count: f64,
    is_mean: bool,
    is_incremental: bool,
    is_incompatible: bool,
    resets_seen: bool,
    non_resets_seen: bool,
}

/// What there is to say about one addition.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct SumOutcome {
    pub incompatible: bool,
    pub bounds_reconciled: bool,
}

// === impl HistogramSum ===

impl HistogramSum {
    /// Begins with a histogram.
    pub fn of(first: &NativeHistogram, is_mean: bool) -> Self {
        let mut sum = Self {
            value: first.clone(),
            rest: None,
            count: 1.0,
            is_mean,
            is_incremental: false,
            is_incompatible: false,
            resets_seen: false,
            non_resets_seen: false,
        };
        sum.see(first);
        sum
    }

    fn see(&mut self, histogram: &NativeHistogram) {
        match histogram.reset {
            ResetHint::Reset => self.resets_seen = true,
            ResetHint::NotReset => self.non_resets_seen = true,
            ResetHint::Unknown | ResetHint::Gauge => {}
        }
    }

    /// Whether some histograms said that they begin anew, and others that they do not.
    pub fn has_reset_collision(&self) -> bool {
        self.resets_seen && self.non_resets_seen
    }

    /// Bytes of memory, about.
    pub fn bytes(&self) -> usize {
        let rest = self.rest.as_ref().map_or(0, super::histogram_bytes);
        size_of::<Self>() + super::histogram_bytes(&self.value) + rest
    }

    /// Adds one. After one that does not fit nothing is added any more, and nothing comes of it.
    pub fn add(&mut self, histogram: &NativeHistogram) -> SumOutcome {
        if self.is_incompatible {
            return SumOutcome::default();
        }
        self.see(histogram);
        self.count += 1.0;
        let outcome = if self.is_mean { self.add_to_mean(histogram) } else { self.add_to_sum(histogram) };
        outcome.unwrap_or_else(|()| {
            self.is_incompatible = true;
            SumOutcome { incompatible: true, bounds_reconciled: false }
        })
    }

    fn add_to_sum(&mut self, histogram: &NativeHistogram) -> Result<SumOutcome, ()> {
        let outcome = self.value.kahan_add(histogram, &mut self.rest).map_err(drop)?;
        Ok(SumOutcome { incompatible: false, bounds_reconciled: outcome.bounds_reconciled })
    }

    fn add_to_mean(&mut self, histogram: &NativeHistogram) -> Result<SumOutcome, ()> {
        if !self.is_incremental {
            let (mut value, mut rest) = (self.value.clone(), self.rest.clone());
            let outcome = value.kahan_add(histogram, &mut rest).map_err(drop)?;
            if !value.has_overflow() {
                (self.value, self.rest) = (value, rest);
                return Ok(SumOutcome { incompatible: false, bounds_reconciled: outcome.bounds_reconciled });
            }
            self.is_incremental = true;
            self.value.divide(self.count - 1.0);
            if let Some(rest) = &mut self.rest {
                rest.divide(self.count - 1.0);
            }
        }
        let share = (self.count - 1.0) / self.count;
        if let Some(rest) = &mut self.rest {
            rest.multiply(share);
        }
        self.value.multiply(share);
        let mut part = histogram.clone();
        part.divide(self.count);
        let outcome = self.value.kahan_add(&part, &mut self.rest).map_err(drop)?;
        Ok(SumOutcome { incompatible: false, bounds_reconciled: outcome.bounds_reconciled })
    }

    /// What it comes to; nothing if one did not fit.
    pub fn finish(mut self) -> Option<NativeHistogram> {
        if self.is_incompatible {
            return None;
        }
        if self.is_mean && !self.is_incremental {
            self.value.divide(self.count);
            if let Some(rest) = &mut self.rest {
                rest.divide(self.count);
            }
        }
        if let Some(rest) = &self.rest {
            // It fitted before.
            let _ = self.value.add(rest);
        }
        self.value.compact();
        Some(self.value)
    }
}
