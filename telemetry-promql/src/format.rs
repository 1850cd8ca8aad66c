//! Printing: a tree as text of one line, as text made pretty, and as JSON.
//!
//! Equal to what Prometheus prints, so that `format_query` and `parse_query` answer the same. What is printed parses to a tree
//! that prints the same.

mod json;
mod line;
mod pretty;

use std::fmt;

use crate::ast::{DurationExpr, Expr};

pub use json::json;
pub use pretty::pretty;

/// Go's `%f`: six decimals.
pub(crate) fn fixed_six(value: f64) -> String {
    if value.is_infinite() {
        return if value > 0.0 { "+Inf".to_owned() } else { "-Inf".to_owned() };
    }
    format!("{value:.6}")
}

/// A number without an exponent, in the fewest digits that read back as it: `FormatFloat(…, 'f', -1, 64)`.
pub(crate) fn plain(value: f64) -> String {
    if value.is_infinite() {
        return if value > 0.0 { "+Inf".to_owned() } else { "-Inf".to_owned() };
    }
    format!("{value}")
}

/// A number as Go's `%v` prints it: with an exponent below 1e-4 and from 1e21 on.
pub(crate) fn general(value: f64) -> String {
    let magnitude = value.abs();
    if value.is_finite() && value != 0.0 && !(1e-4..1e21).contains(&magnitude) {
        let printed = format!("{value:e}");
        if let Some((digits, exponent)) = printed.split_once('e') {
            let (sign, exponent) =
                exponent.strip_prefix('-').map_or(('+', exponent), |exponent| ('-', exponent));
            return format!("{digits}e{sign}{exponent:0>2}");
        }
    }
    plain(value)
}

impl fmt::Display for Expr {
    /// On one line, as Prometheus' `String()`.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut out = String::new();
        line::expr(&mut out, self);
        formatter.write_str(&out)
    }
}

impl fmt::Display for DurationExpr {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut out = String::new();
        line::duration(&mut out, self);
        formatter.write_str(&out)
    }
}

#[cfg(test)]
mod tests;
