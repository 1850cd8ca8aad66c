//! What the engine asks of native histograms.

use telemetry_model::NativeHistogram;

/// What there is to say about an addition or subtraction.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Outcome {
    pub reset_collision: bool,
    pub bounds_reconciled: bool,
}

/// Exponential and custom buckets do not go together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Incompatible;

/// NaN among the observations.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NanRemark {
    QuantileIsNan,
    QuantileIsSkewed,
    FractionLeavesOut,
}

/// Arithmetic of native histograms.
pub(crate) trait Arithmetic: Sized {
    fn multiply(&mut self, by: f64);
    fn divide(&mut self, by: f64);
    fn add(&mut self, other: &Self) -> Result<Outcome, Incompatible>;
    fn sub(&mut self, other: &Self) -> Result<Outcome, Incompatible>;
    fn kahan_add(&mut self, other: &Self, rest: &mut Option<Self>) -> Result<Outcome, Incompatible>;
    fn compact(&mut self);
    fn at_schema(&self, schema: i8) -> Self;
    fn detect_reset(&self, before: &Self) -> bool;
    fn equals(&self, other: &Self) -> bool;
    fn has_overflow(&self) -> bool;
    fn trim(&self, at: f64, upper: bool) -> Self;
    fn to_text(&self) -> String;
    fn quantile(&self, q: f64) -> (f64, Option<NanRemark>);
    fn fraction(&self, lower: f64, upper: f64) -> (f64, Option<NanRemark>);
    fn variance(&self) -> f64;
}

impl Arithmetic for NativeHistogram {
    fn multiply(&mut self, _by: f64) {}
    fn divide(&mut self, _by: f64) {}
    fn add(&mut self, _other: &Self) -> Result<Outcome, Incompatible> {
        Err(Incompatible)
    }
    fn sub(&mut self, _other: &Self) -> Result<Outcome, Incompatible> {
        Err(Incompatible)
    }
    fn kahan_add(&mut self, _other: &Self, _rest: &mut Option<Self>) -> Result<Outcome, Incompatible> {
        Err(Incompatible)
    }
    fn compact(&mut self) {}
    fn at_schema(&self, _schema: i8) -> Self {
        self.clone()
    }
    fn detect_reset(&self, _before: &Self) -> bool {
        false
    }
    fn equals(&self, other: &Self) -> bool {
        self == other
    }
    fn has_overflow(&self) -> bool {
        false
    }
    fn trim(&self, _at: f64, _upper: bool) -> Self {
        self.clone()
    }
    fn to_text(&self) -> String {
        String::new()
    }
    fn quantile(&self, _q: f64) -> (f64, Option<NanRemark>) {
        (f64::NAN, None)
    }
    fn fraction(&self, _lower: f64, _upper: f64) -> (f64, Option<NanRemark>) {
        (f64::NAN, None)
    }
    fn variance(&self) -> f64 {
        f64::NAN
    }
}
