//! What a read may say about counter resets of native histograms.
//!
//! A sample that goes on from the one before says so, and the first of a run says nothing, whatever its producer said:
//! as Prometheus' store does it, and as its tests expect. Called by sources, once for each sample that is read.

use telemetry_model::{NativeHistogram, ResetHint, is_stale};

use crate::eval::arithmetic::Arithmetic;

/// Runs end at multiples of this, milliseconds: Prometheus cuts its chunks there when it runs its tests.
const RUN_MS: i64 = 24 * 60 * 60 * 1000;

/// What to say of a sample. `before` is the series' sample before it and its time, if that is a histogram too.
#[must_use]
pub fn hint(before: Option<(i64, &NativeHistogram)>, t: i64, now: &NativeHistogram) -> ResetHint {
    if now.reset == ResetHint::Gauge {
        return ResetHint::Gauge;
    }
    let goes_on = before.is_some_and(|(then, before)| {
        then.div_euclid(RUN_MS) == t.div_euclid(RUN_MS)
            && before.reset != ResetHint::Gauge
            && !is_stale(before.sum)
            && before.schema == now.schema
            && before.zero_threshold == now.zero_threshold
            && before.custom_bounds == now.custom_bounds
            && !is_reset(now, before)
    });
    if goes_on { ResetHint::NotReset } else { ResetHint::Unknown }
}

/// That a sample goes on is seen, not believed.
fn is_reset(now: &NativeHistogram, before: &NativeHistogram) -> bool {
    match now.reset {
        ResetHint::NotReset => {
            NativeHistogram { reset: ResetHint::Unknown, ..now.clone() }.detect_reset(before)
        }
        ResetHint::Unknown | ResetHint::Reset | ResetHint::Gauge => now.detect_reset(before),
    }
}
