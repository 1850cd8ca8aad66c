//! Binary operators on two values.

use std::sync::Arc;

use telemetry_model::{NativeHistogram, ResetHint};

use super::arithmetic::Arithmetic;
use super::distribution::{Distribution, End};
use super::frame::CellRef;
use crate::annotations::{Kind, Operation};
use crate::ast::BinaryOp;
use crate::value::Cell;

/// What came of two values.
pub(crate) struct Element {
    /// The value; none if the operation failed.
    pub cell: Option<Cell>,
    /// Whether a filter keeps it.
    pub keep: bool,
    pub remark: Option<Remark>,
}

/// What there is to say about it.
pub(crate) enum Remark {
    /// No value.
    Failed(Kind),
    /// A value all the same.
    Info(Kind),
}

// === impl Element ===

impl Element {
    fn of(cell: Cell) -> Self {
        Self { cell: Some(cell), keep: true, remark: None }
    }

    fn kept_if(cell: Cell, keep: bool) -> Self {
        Self { cell: Some(cell), keep, remark: None }
    }

    fn histogram(made: NativeHistogram) -> Self {
        let mut made = made;
        made.compact();
        Self::of(Cell::Histogram(Arc::new(made)))
    }

    fn wrong_types(left: &'static str, op: BinaryOp, right: &'static str) -> Self {
        let kind = Kind::IncompatibleTypes { left, operator: op.symbol(), right };
        Self { cell: None, keep: false, remark: Some(Remark::Failed(kind)) }
    }
}

/// An operator between two numbers; a comparison gives 0 or 1.
#[inline]
pub(crate) fn number(op: BinaryOp, lhs: f64, rhs: f64) -> f64 {
    let truth = |is: bool| if is { 1.0 } else { 0.0 };
    match op {
        BinaryOp::Add => lhs + rhs,
        BinaryOp::Sub => lhs - rhs,
        BinaryOp::Mul => lhs * rhs,
        BinaryOp::Div => lhs / rhs,
        BinaryOp::Mod => lhs % rhs,
        BinaryOp::Pow => lhs.powf(rhs),
        BinaryOp::Atan2 => lhs.atan2(rhs),
        BinaryOp::Equal => truth(lhs == rhs),
        BinaryOp::NotEqual => truth(lhs != rhs),
        BinaryOp::Less => truth(lhs < rhs),
        BinaryOp::LessEqual => truth(lhs <= rhs),
        BinaryOp::Greater => truth(lhs > rhs),
        BinaryOp::GreaterEqual => truth(lhs >= rhs),
        BinaryOp::TrimUpper | BinaryOp::TrimLower | BinaryOp::And | BinaryOp::Or | BinaryOp::Unless => {
            f64::NAN
        }
    }
}

/// An operator between two values of vectors. A comparison gives the left one.
pub(crate) fn element(op: BinaryOp, lhs: CellRef<'_>, rhs: CellRef<'_>) -> Element {
    match (lhs, rhs) {
        (CellRef::Float(lhs), CellRef::Float(rhs)) => {
            if op.is_comparison() {
                Element::kept_if(Cell::Float(lhs), number(op, lhs, rhs) == 1.0)
            } else if matches!(op, BinaryOp::TrimUpper | BinaryOp::TrimLower) {
                Element::wrong_types("float", op, "float")
            } else {
                Element::of(Cell::Float(number(op, lhs, rhs)))
            }
        }
        (CellRef::Float(lhs), CellRef::Histogram(rhs)) => match op {
            BinaryOp::Mul => scaled(rhs, |made| made.multiply(lhs)),
            _ => Element::wrong_types("float", op, "histogram"),
        },
        (CellRef::Histogram(lhs), CellRef::Float(rhs)) => match op {
            BinaryOp::Mul => scaled(lhs, |made| made.multiply(rhs)),
            BinaryOp::Div => scaled(lhs, |made| made.divide(rhs)),
            BinaryOp::TrimUpper => Element::of(Cell::Histogram(Arc::new(lhs.trim(rhs, End::Upper)))),
            BinaryOp::TrimLower => Element::of(Cell::Histogram(Arc::new(lhs.trim(rhs, End::Lower)))),
            _ => Element::wrong_types("histogram", op, "float"),
        },
        (CellRef::Histogram(lhs), CellRef::Histogram(rhs)) => histograms(op, lhs, rhs),
    }
}

fn scaled(histogram: &NativeHistogram, by: impl Fn(&mut NativeHistogram)) -> Element {
    let mut made = histogram.clone();
    by(&mut made);
    Element::histogram(made)
}

fn histograms(op: BinaryOp, lhs: &Arc<NativeHistogram>, rhs: &NativeHistogram) -> Element {
    let operation = match op {
        BinaryOp::Add => Operation::Addition,
        BinaryOp::Sub => Operation::Subtraction,
        BinaryOp::Equal => return Element::kept_if(Cell::Histogram(Arc::clone(lhs)), lhs.equals(rhs)),
        BinaryOp::NotEqual => return Element::kept_if(Cell::Histogram(Arc::clone(lhs)), !lhs.equals(rhs)),
        _ => return Element::wrong_types("histogram", op, "histogram"),
    };
    let mut made = NativeHistogram::clone(lhs);
    let outcome = if op == BinaryOp::Add { made.add(rhs) } else { made.sub(rhs) };
    let Ok(outcome) = outcome else {
        let kind = Kind::IncompatibleBucketLayout(op.symbol());
        return Element { cell: None, keep: false, remark: Some(Remark::Failed(kind)) };
    };
    if op == BinaryOp::Sub {
        made.reset = ResetHint::Gauge;
    }
    if outcome.reset_collision {
        // Upstream warns, and answers nothing.
        let remark = Some(Remark::Failed(Kind::CounterResetCollision(operation)));
        return Element { cell: None, keep: false, remark };
    }
    let info = Remark::Info(Kind::MismatchedCustomBuckets(operation));
    Element { remark: outcome.bounds_reconciled.then_some(info), ..Element::histogram(made) }
}
