//! Binary operators: between numbers, between a vector and a number, and between vectors whose series find each other
//! by their labels.

use super::elements::{Remark, element, number};
use super::frame::{Bits, CellRef, Column, Frame, Grid};
use super::{Evaluator, matching};
use crate::annotations::Kind;
use crate::ast::BinaryOp;
use crate::error::QueryError;
use crate::plan::BinaryNode;
use crate::value::Cell;

/// The last remark of each step: as upstream, one a step and operator.
pub(crate) struct Remarks {
    last: Vec<Option<Kind>>,
    steps: usize,
}

// === impl Remarks ===

impl Remarks {
    pub fn new(steps: usize) -> Self {
        Self { last: Vec::new(), steps }
    }

    pub fn set(&mut self, step: usize, kind: Kind) {
        if self.last.is_empty() {
            self.last.resize(self.steps, None);
        }
        if let Some(last) = self.last.get_mut(step) {
            *last = Some(kind);
        }
    }

    pub fn note(self, evaluator: &Evaluator<'_>, position: usize) {
        self.last.into_iter().flatten().for_each(|kind| evaluator.note(kind, position));
    }
}

/// Whether the result is another metric than the operands.
pub(crate) fn changes_metric(op: BinaryOp) -> bool {
    use BinaryOp::{Add, Atan2, Div, Mod, Mul, Pow, Sub};
    matches!(op, Add | Sub | Div | Mul | Pow | Mod | Atan2)
}

// === impl Evaluator ===

impl Evaluator<'_> {
    /// Any binary operation.
    pub fn binary(&self, node: &BinaryNode, position: usize, grid: Grid) -> Result<Frame, QueryError> {
        let lhs = self.eval(&node.lhs, grid)?;
        let rhs = self.eval(&node.rhs, grid)?;
        match (lhs, rhs) {
            (Frame::Scalar(lhs), Frame::Scalar(rhs)) => {
                let both = lhs.into_iter().zip(rhs);
                Ok(Frame::Scalar(both.map(|(lhs, rhs)| number(node.op, lhs, rhs)).collect()))
            }
            (Frame::Vector(lhs), Frame::Scalar(rhs)) => {
                self.with_scalar(node, position, grid, (lhs, &rhs), Side::Right)
            }
            (Frame::Scalar(lhs), Frame::Vector(rhs)) => {
                self.with_scalar(node, position, grid, (rhs, &lhs), Side::Left)
            }
            (Frame::Vector(lhs), Frame::Vector(rhs)) => {
                let columns = if node.op.is_set() {
                    matching::sets(self, node, lhs, rhs, grid)?
                } else {
                    matching::vectors(self, node, position, (lhs, rhs), grid)?
                };
                self.assembled(columns, grid)
            }
            _ => Err(QueryError::internal("a text cannot be an operand")),
        }
    }

    fn with_scalar(
        &self,
        node: &BinaryNode,
        position: usize,
        grid: Grid,
        (columns, scalar): (Vec<Column>, &[f64]),
        side: Side,
    ) -> Result<Frame, QueryError> {
        let mut remarks = Remarks::new(grid.count);
        let mut out = Vec::with_capacity(columns.len());
        let mut made = 0_usize;
        for mut column in columns {
            self.budget.check()?;
            let is_trim = matches!(node.op, BinaryOp::TrimLower | BinaryOp::TrimUpper);
            match column.histograms {
                None if !is_trim => floats_with_scalar(node, &mut column, scalar, side),
                _ => {
                    column = any_with_scalar(node, &column, scalar, side, &mut remarks);
                    // The histograms that it is made of may be had by others, too.
                    made = made.saturating_add(column.bytes());
                    self.budget.room(made)?;
                }
            }
            if changes_metric(node.op) || node.return_bool {
                column = self.drop_name(column);
            }
            out.push(column);
        }
        remarks.note(self, position);
        self.assembled(out, grid)
    }
}

/// On which side the number stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Side {
    Left,
    Right,
}

/// A column of numbers only: no look at each step's kind.
fn floats_with_scalar(node: &BinaryNode, column: &mut Column, scalar: &[f64], side: Side) {
    let is_filter = node.op.is_comparison() && !node.return_bool;
    let mut out = Bits::none(column.values.len());
    for (step, (value, scalar)) in column.values.iter_mut().zip(scalar).enumerate() {
        let (lhs, rhs) = if side == Side::Right { (*value, *scalar) } else { (*scalar, *value) };
        let made = number(node.op, lhs, rhs);
        if is_filter {
            if made == 1.0 {
                out.set(step);
            }
        } else {
            *value = made;
        }
    }
    if is_filter {
        column.present.and(&out);
    }
}

fn any_with_scalar(
    node: &BinaryNode,
    column: &Column,
    scalar: &[f64],
    side: Side,
    remarks: &mut Remarks,
) -> Column {
    let mut out = Column::empty(column.labels.clone(), column.values.len());
    out.drop_name = column.drop_name;
    for step in column.present.iter() {
        let (Some(cell), Some(scalar)) = (column.get(step), scalar.get(step)) else { continue };
        let scalar = CellRef::Float(*scalar);
        let (lhs, rhs) = if side == Side::Right { (cell, scalar) } else { (scalar, cell) };
        let made = element(node.op, lhs, rhs);
        if let Some(Remark::Failed(kind)) = made.remark {
            remarks.set(step, kind);
            continue;
        }
        if node.return_bool {
            out.set(step, if made.keep { 1.0 } else { 0.0 });
        } else if made.keep {
            // A comparison keeps the vector's value, on whichever side it stands.
            match cell {
                CellRef::Float(value) if node.op.is_comparison() => out.set(step, value),
                CellRef::Histogram(histogram) if node.op.is_comparison() => {
                    out.set_histogram(step, std::sync::Arc::clone(histogram));
                }
                _ => out.put(step, made.cell.unwrap_or(Cell::Float(0.0))),
            }
        }
    }
    out
}
