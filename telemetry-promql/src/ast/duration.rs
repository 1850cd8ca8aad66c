//! Lengths of time in the tree: literal ones, and expressions that a query's step and range resolve.

use super::{NumberLiteral, Sign, Span};

/// A length of time in nanoseconds, as Prometheus keeps it: `[0.0001]` is 100 µs, and 0 ms when evaluated.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Nanos(pub i64);

/// A length of time as the query gives it.
#[derive(Clone, Debug, PartialEq)]
pub enum DurationValue {
    /// Known from the text.
    Fixed(Nanos),
    /// To be resolved when the query's step and range are known, by [`DurationExpr::resolve`].
    Expr(Box<DurationExpr>),
}

/// An expression of lengths of time, in seconds: `step() * 2 + 5m`.
#[derive(Clone, Debug, PartialEq)]
pub struct DurationExpr {
    /// What it says.
    pub kind: DurationKind,
    /// Whether parentheses stand around it; kept for printing.
    pub wrapped: bool,
    /// Where it stands. As in Prometheus, of a wrapped one without its parentheses, of `min_of` from its first argument
    /// to its second.
    pub span: Span,
}

/// What a [`DurationExpr`] says.
#[derive(Clone, Debug, PartialEq)]
pub enum DurationKind {
    /// `5m`, `300`
    Number(NumberLiteral),
    /// `step()`: distance of the query's steps; of an instant query, 0.
    Step,
    /// `range()`: from the first to the last step of the query.
    Range,
    /// `-expr`. A plus with a [`DurationExpr::wrapped`] number is how `(5m)` is kept.
    Unary(Sign, Box<DurationExpr>),
    /// `lhs + rhs`, `min_of(lhs, rhs)`
    Binary(DurationOp, Box<DurationExpr>, Box<DurationExpr>),
}

/// What is done with two lengths of time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum DurationOp {
    /// `+`
    Add,
    /// `-`
    Sub,
    /// `*`
    Mul,
    /// `/`
    Div,
    /// `%`, with the sign of the left operand
    Mod,
    /// `^`
    Pow,
    /// `min_of(lhs, rhs)`
    MinOf,
    /// `max_of(lhs, rhs)`
    MaxOf,
}

/// Which lengths of time make sense at a place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AllowedSign {
    /// Ranges and steps.
    Positive,
    /// Offsets.
    Any,
}

/// A duration expression without a sensible value. Prints as Prometheus does, with byte positions: `5:9: division by zero`.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}:{}: {reason}", span.start, span.end)]
pub struct DurationError {
    /// The expression.
    pub span: Span,
    /// What is wrong.
    pub reason: &'static str,
}

// === impl Nanos ===

impl Nanos {
    /// The most seconds that fit, either way.
    pub(crate) const MOST_SECONDS: f64 = 9_223_372_036.854_776;
    /// Nanoseconds of a millisecond.
    const PER_MILLI: i64 = 1_000_000;
    /// Nanoseconds of a second.
    const PER_SECOND: f64 = 1e9;

    /// Of seconds, rounded to the nearest; at the ends of the range the nearest there is.
    #[must_use]
    pub fn from_seconds(seconds: f64) -> Self {
        #[expect(
            clippy::cast_possible_truncation,
            reason = "saturates at the ends of i64, NaN is refused by the parser"
        )]
        Self((seconds * Self::PER_SECOND).round() as i64)
    }

    /// In seconds.
    #[must_use]
    #[expect(
        clippy::cast_precision_loss,
        reason = "exact for the whole milliseconds that literals have, up to 285 years"
    )]
    pub fn seconds(self) -> f64 {
        let seconds = self.0 / 1_000_000_000;
        let rest = self.0 % 1_000_000_000;
        seconds as f64 + rest as f64 / Self::PER_SECOND
    }

    /// Whole milliseconds, rounded towards zero: what evaluation works in.
    #[must_use]
    pub fn millis(self) -> i64 {
        self.0 / Self::PER_MILLI
    }
}

// === impl DurationValue ===

impl DurationValue {
    /// The length of time, with a query's step and range, all in seconds.
    ///
    /// # Errors
    ///
    /// As [`DurationExpr::resolve`]; never for a fixed one.
    pub fn resolve(&self, sign: AllowedSign, step: f64, range: f64) -> Result<Nanos, DurationError> {
        match self {
            Self::Fixed(nanos) => Ok(*nanos),
            Self::Expr(expr) => expr.resolve(sign, step, range),
        }
    }
}

// === impl DurationExpr ===

impl DurationExpr {
    /// The length of time, with a query's step and range in seconds; cut to whole milliseconds.
    ///
    /// # Errors
    ///
    /// If it is no number, not positive where it must be, or does not fit; or if it divides by zero.
    pub fn resolve(&self, sign: AllowedSign, step: f64, range: f64) -> Result<Nanos, DurationError> {
        let seconds = self.seconds(step, range)?;
        let error = |reason| Err(DurationError { span: self.span, reason });
        if !seconds.is_finite() {
            return error("duration is NaN or infinite");
        }
        if seconds <= 0.0 && sign == AllowedSign::Positive {
            return error("duration must be greater than 0");
        }
        if seconds.abs() > Nanos::MOST_SECONDS {
            return error("duration is out of range");
        }
        #[expect(
            clippy::cast_possible_truncation,
            reason = "within the range of nanoseconds, so of milliseconds"
        )]
        let millis = (seconds * 1000.0) as i64;
        Ok(Nanos(millis.saturating_mul(Nanos::PER_MILLI)))
    }

    /// Its value in seconds, whatever it be.
    fn seconds(&self, step: f64, range: f64) -> Result<f64, DurationError> {
        let (op, lhs, rhs) = match &self.kind {
            DurationKind::Number(number) => return Ok(number.value),
            DurationKind::Step => return Ok(step),
            DurationKind::Range => return Ok(range),
            DurationKind::Unary(Sign::Plus, operand) => return operand.seconds(step, range),
            DurationKind::Unary(Sign::Minus, operand) => return Ok(-operand.seconds(step, range)?),
            DurationKind::Binary(op, lhs, rhs) => (op, lhs.seconds(step, range)?, rhs.seconds(step, range)?),
        };
        let error = |reason| Err(DurationError { span: self.span, reason });
        match op {
            DurationOp::Div if rhs == 0.0 => error("division by zero"),
            DurationOp::Mod if rhs == 0.0 => error("modulo by zero"),
            DurationOp::Add => Ok(lhs + rhs),
            DurationOp::Sub => Ok(lhs - rhs),
            DurationOp::Mul => Ok(lhs * rhs),
            DurationOp::Div => Ok(lhs / rhs),
            DurationOp::Mod => Ok(lhs % rhs),
            DurationOp::Pow => Ok(lhs.powf(rhs)),
            DurationOp::MinOf | DurationOp::MaxOf if lhs.is_nan() || rhs.is_nan() => Ok(f64::NAN),
            DurationOp::MinOf => Ok(lhs.min(rhs)),
            DurationOp::MaxOf => Ok(lhs.max(rhs)),
        }
    }
}

// === impl DurationOp ===

impl DurationOp {
    /// As the language writes it.
    #[must_use]
    pub fn symbol(self) -> &'static str {
        match self {
            Self::Add => "+",
            Self::Sub => "-",
            Self::Mul => "*",
            Self::Div => "/",
            Self::Mod => "%",
            Self::Pow => "^",
            Self::MinOf => "min_of",
            Self::MaxOf => "max_of",
        }
    }
}
