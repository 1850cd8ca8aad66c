//! Vectors matched with vectors: series find each other by signatures of their labels, once for all steps; which of
//! them have a value is then a matter of bits.

use std::collections::HashMap;

use super::Evaluator;
use super::binary::{Remarks, changes_metric};
use super::elements::{Remark, element};
use super::frame::{Bits, CellRef, Column, Grid};
use crate::ast::{BinaryOp, Cardinality, VectorMatching};
use crate::budget::Budget;
use crate::error::QueryError;
use crate::labels::{Labels, NAME};
use crate::plan::BinaryNode;
use crate::value::Cell;

/// Which series of both sides belong together.
struct Signatures {
    lhs: Vec<usize>,
    rhs: Vec<usize>,
    count: usize,
}

/// A matching under way. "Many" is the side that may have many series with one signature, or the left one.
struct Match<'a> {
    node: &'a BinaryNode,
    matching: &'a VectorMatching,
    grid: Grid,
    many: &'a [Column],
    one: &'a [Column],
    /// Whether "many" is the right side.
    swapped: bool,
    delayed: bool,
    out: HashMap<(Option<usize>, Option<usize>), Column, ahash::RandomState>,
    order: Vec<(Option<usize>, Option<usize>)>,
    /// Steps at which a signature has found its partner.
    matched: Vec<Bits>,
    /// The same, each result's labels apart: of matches that are not one to one.
    taken: HashMap<(usize, Labels), Bits, ahash::RandomState>,
    remarks: Remarks,
    budget: &'a Budget,
    /// Bytes of results so far.
    bytes: usize,
}

// === impl VectorMatching ===

impl VectorMatching {
    /// Whether a label belongs to the signature.
    fn wants(&self, name: &str) -> bool {
        let is_named = self.labels.iter().any(|known| known == name);
        if self.on { is_named } else { !is_named && name != NAME }
    }
}

// === impl Signatures ===

impl Signatures {
    fn new(matching: &VectorMatching, lhs: &[Column], rhs: &[Column]) -> Self {
        let state = ahash::RandomState::new();
        let mut known: HashMap<u64, Vec<(usize, &Labels)>> = HashMap::new();
        let mut count = 0;
        let mut ordinal = |labels| {
            let of: &Labels = labels;
            let signature = of.signature(&state, |name| matching.wants(name));
            let entries = known.entry(signature).or_default();
            let found = entries.iter().find(|(_, other)| other.agrees(of, |name| matching.wants(name)));
            if let Some((ordinal, _)) = found {
                return *ordinal;
            }
            entries.push((count, labels));
            count += 1;
            count - 1
        };
        let lhs = lhs.iter().map(|column| ordinal(&column.labels)).collect();
        let rhs = rhs.iter().map(|column| ordinal(&column.labels)).collect();
        Self { lhs, rhs, count }
    }

    /// Bytes of what is kept of each signature over the steps, twice a bit a step.
    fn bytes(&self, grid: Grid) -> usize {
        (self.lhs.len() + self.rhs.len() + self.count).saturating_mul(64 + grid.count / 4)
    }
}

/// `and`, `or`, `unless`.
pub(crate) fn sets(
    evaluator: &Evaluator<'_>,
    node: &BinaryNode,
    lhs: Vec<Column>,
    rhs: Vec<Column>,
    grid: Grid,
) -> Result<Vec<Column>, QueryError> {
    let signatures = Signatures::new(&node.matching, &lhs, &rhs);
    let (side, ordinals) = match node.op {
        BinaryOp::Or => (&lhs, &signatures.lhs),
        _ => (&rhs, &signatures.rhs),
    };
    evaluator.grow(signatures.bytes(grid))?;
    let mut present = vec![Bits::none(grid.count); signatures.count];
    for (column, ordinal) in side.iter().zip(ordinals) {
        evaluator.budget.check()?;
        if let Some(bits) = present.get_mut(*ordinal) {
            bits.or(&column.present);
        }
    }
    let masked = |columns: Vec<Column>, ordinals: Vec<usize>, keep: bool| {
        let each = columns.into_iter().zip(ordinals).map(|(mut column, ordinal)| {
            if let Some(bits) = present.get(ordinal) {
                if keep { column.present.and(bits) } else { column.present.and_not(bits) }
            }
            column
        });
        each.collect::<Vec<Column>>()
    };
    Ok(match node.op {
        BinaryOp::And => masked(lhs, signatures.lhs, true),
        BinaryOp::Or => {
            let mut out = lhs;
            out.extend(masked(rhs, signatures.rhs, false));
            out
        }
        _ => masked(lhs, signatures.lhs, false),
    })
}

/// Any other operator.
pub(crate) fn vectors(
    evaluator: &Evaluator<'_>,
    node: &BinaryNode,
    position: usize,
    (lhs, rhs): (Vec<Column>, Vec<Column>),
    grid: Grid,
) -> Result<Vec<Column>, QueryError> {
    let matching = &node.matching;
    let mut signatures = Signatures::new(matching, &lhs, &rhs);
    evaluator.grow(signatures.bytes(grid))?;
    let swapped = matching.cardinality == Cardinality::OneToMany;
    let (many, one) = if swapped { (&rhs, &lhs) } else { (&lhs, &rhs) };
    if swapped {
        std::mem::swap(&mut signatures.lhs, &mut signatures.rhs);
    }
    let mut state = Match {
        node,
        matching,
        grid,
        many,
        one,
        swapped,
        delayed: evaluator.options.delayed_name_removal,
        out: HashMap::default(),
        order: Vec::new(),
        matched: vec![Bits::none(grid.count); signatures.count],
        taken: HashMap::default(),
        remarks: Remarks::new(grid.count),
        budget: evaluator.budget,
        bytes: 0,
    };
    state.check_one_side(&signatures)?;
    let mut partners: Vec<Vec<usize>> = vec![Vec::new(); signatures.count];
    for (at, ordinal) in signatures.rhs.iter().enumerate() {
        if let Some(partners) = partners.get_mut(*ordinal) {
            partners.push(at);
        }
    }
    for (at, ordinal) in signatures.lhs.iter().enumerate() {
        evaluator.budget.check()?;
        state.many_column(at, *ordinal, partners.get(*ordinal).map_or(&[], Vec::as_slice))?;
    }
    state.fill_unmatched(&signatures)?;
    let Match { mut out, order, remarks, .. } = state;
    remarks.note(evaluator, position);
    Ok(order.iter().filter_map(|key| out.remove(key)).collect())
}

// === impl Match ===

impl Match<'_> {
    /// What a value of the "many" side that has no partner is matched with, and the other way round.
    fn fills(&self) -> (Option<f64>, Option<f64>) {
        (self.matching.fill_right, self.matching.fill_left)
    }

    /// The "one" side must have one series of a signature at each step.
    fn check_one_side(&self, signatures: &Signatures) -> Result<(), QueryError> {
        let mut seen = vec![false; signatures.count];
        let twice = signatures
            .rhs
            .iter()
            .any(|ordinal| seen.get_mut(*ordinal).is_some_and(|seen| std::mem::replace(seen, true)));
        if !twice {
            return Ok(());
        }
        let union = |columns: &[Column]| {
            let mut bits = Bits::none(self.grid.count);
            columns.iter().for_each(|column| bits.or(&column.present));
            bits
        };
        let (many, one) = (union(self.many), union(self.one));
        let has_fill = self.matching.fill_left.is_some() || self.matching.fill_right.is_some();
        for step in one.iter().filter(|step| has_fill || many.get(*step)) {
            self.budget.check()?;
            let mut first: Vec<Option<usize>> = vec![None; signatures.count];
            for (at, (column, ordinal)) in self.one.iter().zip(&signatures.rhs).enumerate() {
                if !column.present.get(step) {
                    continue;
                }
                let Some(cell) = first.get_mut(*ordinal) else { continue };
                if let Some(other) = *cell {
                    return Err(self.duplicates(at, other));
                }
                *cell = Some(at);
            }
        }
        Ok(())
    }

    fn duplicates(&self, at: usize, other: usize) -> QueryError {
        let side = if self.swapped { "left" } else { "right" };
        let label = |at: usize| self.one.get(at).map(|column| column.labels.clone()).unwrap_or_default();
        let group = label(at).keep(|name| self.matching.wants(name));
        let (mut first, mut second) = (label(at).to_string(), label(other).to_string());
        if first > second {
            std::mem::swap(&mut first, &mut second);
        }
        QueryError::execution(format!(
            "found duplicate series for the match group {group} on the {side} hand-side of the operation: \
             [{first}, {second}];many-to-many matching not allowed: matching labels must be unique on one side"
        ))
    }

    fn many_column(&mut self, at: usize, ordinal: usize, partners: &[usize]) -> Result<(), QueryError> {
        let Some(column) = self.many.get(at) else { return Ok(()) };
        let mut rest = column.present.clone();
        for partner in partners {
            let Some(other) = self.one.get(*partner) else { continue };
            let mut both = column.present.clone();
            both.and(&other.present);
            rest.and_not(&both);
            if both.any() {
                self.pair((Some(at), Some(*partner)), ordinal, &both)?;
            }
        }
        if self.fills().0.is_some() && rest.any() {
            self.pair((Some(at), None), ordinal, &rest)?;
        }
        Ok(())
    }

    /// Values of the "one" side that found no partner.
    fn fill_unmatched(&mut self, signatures: &Signatures) -> Result<(), QueryError> {
        if self.fills().1.is_none() {
            return Ok(());
        }
        let matched = self.matched.clone();
        for (at, ordinal) in signatures.rhs.iter().enumerate() {
            let (Some(column), Some(matched)) = (self.one.get(at), matched.get(*ordinal)) else { continue };
            let mut rest = column.present.clone();
            rest.and_not(matched);
            if rest.any() {
                self.pair((None, Some(at)), *ordinal, &rest)?;
            }
        }
        Ok(())
    }

    /// Two series, or one and a fill value, at some steps.
    fn pair(
        &mut self,
        key: (Option<usize>, Option<usize>),
        ordinal: usize,
        steps: &Bits,
    ) -> Result<(), QueryError> {
        let many = key.0.and_then(|at| self.many.get(at));
        let one = key.1.and_then(|at| self.one.get(at));
        let (many_fill, one_fill) = (self.fills().1, self.fills().0);
        let signature_of = |column: &Column| column.labels.keep(|name| self.matching.wants(name));
        let (many_labels, one_labels) = match (many, one) {
            (Some(many), Some(one)) => (many.labels.clone(), one.labels.clone()),
            (Some(many), None) => (many.labels.clone(), signature_of(many)),
            (None, Some(one)) => (signature_of(one), one.labels.clone()),
            (None, None) => return Ok(()),
        };
        let labels = self.result_labels(&many_labels, &one_labels);
        self.budget.room(self.bytes.saturating_add(Column::bytes_of(self.grid.count)))?;
        let mut out = Column::empty(labels, self.grid.count);
        out.drop_name = self.node.return_bool;
        let mut done = Bits::none(self.grid.count);
        let (node, swapped) = (self.node, self.swapped);
        for step in steps.iter() {
            let fill = |fill: Option<f64>| fill.map(CellRef::Float);
            let many = many.map_or(fill(many_fill), |column| column.get(step));
            let one = one.map_or(fill(one_fill), |column| column.get(step));
            let (Some(many), Some(one)) = (many, one) else { continue };
            let (lhs, rhs) = if swapped { (one, many) } else { (many, one) };
            let made = element(node.op, lhs, rhs);
            match made.remark {
                Some(Remark::Failed(kind)) => {
                    self.remarks.set(step, kind);
                    continue;
                }
                Some(Remark::Info(kind)) => self.remarks.set(step, kind),
                None => {}
            }
            done.set(step);
            if node.return_bool {
                out.set(step, if made.keep { 1.0 } else { 0.0 });
            } else if made.keep {
                out.put(step, made.cell.unwrap_or(Cell::Float(f64::NAN)));
            }
        }
        // The labels, and the steps at which they are taken.
        self.bytes = self.bytes.saturating_add(out.bytes() + self.grid.count / 8);
        self.budget.room(self.bytes)?;
        self.check_unique(ordinal, &out.labels, &done)?;
        self.order.push(key);
        self.out.insert(key, out);
        Ok(())
    }

    /// No two results may be the same.
    fn check_unique(&mut self, ordinal: usize, labels: &Labels, done: &Bits) -> Result<(), QueryError> {
        if self.matching.cardinality != Cardinality::OneToOne {
            let none = || Bits::none(self.grid.count);
            let taken = self.taken.entry((ordinal, labels.clone())).or_insert_with(none);
            if taken.meets(done) {
                let message = "multiple matches for labels: grouping labels must ensure unique matches";
                return Err(QueryError::execution(message));
            }
            taken.or(done);
        }
        let Some(matched) = self.matched.get_mut(ordinal) else { return Ok(()) };
        if self.matching.cardinality == Cardinality::OneToOne && matched.meets(done) {
            let message =
                "multiple matches for labels: many-to-one matching must be explicit (group_left/group_right)";
            return Err(QueryError::execution(message));
        }
        matched.or(done);
        Ok(())
    }

    fn result_labels(&self, many: &Labels, one: &Labels) -> Labels {
        let drops = changes_metric(self.node.op) || self.node.return_bool && !self.delayed;
        let mut labels = if drops { many.without_metadata() } else { many.clone() };
        if self.matching.cardinality == Cardinality::OneToOne {
            labels = labels
                .keep(|name| self.matching.labels.iter().any(|known| known == name) == self.matching.on);
        }
        for name in &self.matching.include {
            labels = labels.with(name, one.get(name));
        }
        labels
    }
}
