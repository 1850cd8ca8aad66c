//! `deriv` and `predict_linear`: least squares through the numbers of a window.

use super::kahan::Sum;
use super::window::View;
use crate::plan::millis_to_seconds;

/// The slope, per second.
pub(crate) fn slope(floats: &View<'_, f64>) -> Option<f64> {
    let (first, _) = floats.first()?;
    // Times near zero keep their digits.
    (floats.len() >= 2).then(|| line(floats, first).0)
}

/// Where the line is, so many seconds after `t`.
pub(crate) fn predict(floats: &View<'_, f64>, t: i64, seconds: f64) -> Option<f64> {
    (floats.len() >= 2).then(|| {
        let (slope, at) = line(floats, t);
        slope * seconds + at
    })
}

/// Slope, and the line's value at `zero`.
fn line(floats: &View<'_, f64>, zero: i64) -> (f64, f64) {
    let first = floats.values.first().copied().unwrap_or(f64::NAN);
    if floats.values.iter().skip(1).all(|value| *value == first) {
        return if first.is_infinite() { (f64::NAN, f64::NAN) } else { (0.0, first) };
    }
    let (mut n, mut x, mut y) = (0.0, Sum::default(), Sum::default());
    let (mut xy, mut xx) = (Sum::default(), Sum::default());
    for (t, value) in floats.iter() {
        n += 1.0;
        let at = millis_to_seconds(t.saturating_sub(zero));
        x = x.plus(at);
        y = y.plus(*value);
        xy = xy.plus(at * value);
        xx = xx.plus(at * at);
    }
    let (x, y, xy, xx) = (x.total(), y.total(), xy.total(), xx.total());
    let covariance = xy - x * y / n;
    let variance = xx - x * x / n;
    let slope = covariance / variance;
    (slope, y / n - slope * x / n)
}
