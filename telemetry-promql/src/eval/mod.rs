//! The engine: a query's text or tree and a source of series in, an answer out.
//!
//! Each operator runs once for all steps. Series are read one by one; functions of ranges and aggregations take them as
//! they come, so that what is held grows with the answer and not with what was read.

mod aggregate;
pub(crate) mod arithmetic;
mod binary;
mod changes;
mod classic;
mod compensated;
pub mod dates;
mod distribution;
mod elements;
mod extended;
mod frame;
mod functions;
mod histogram_functions;
mod histogram_over_time;
mod histogram_rate;
mod histogram_sum;
mod info;
mod instant_rate;
mod kahan;
mod matching;
mod over;
mod over_time;
mod pick;
mod quantile;
mod rate;
mod regression;
mod relabel;
mod run;
mod sample;
mod select;
mod shared;
mod stats_only;
mod window;

use std::cell::{Cell, RefCell};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use crate::annotations::Annotations;
use crate::budget::{Budget, Limits};
use crate::error::QueryError;
use crate::plan::{Node, Op};
use crate::source::Source;

use frame::{Column, Frame, Grid, Twins, assemble};

pub(crate) use distribution::Distribution;
pub(crate) use frame::histogram_bytes;
pub use run::{instant, instant_expr, range, range_expr};

/// What a step takes at least while an operator works on it: its time, a value, where its samples begin and end.
const STEP_BYTES: usize = 24;

/// How queries are evaluated.
#[derive(Clone, Debug)]
pub struct Options {
    /// What the language contains.
    pub language: crate::parse::Options,
    /// How far an instant selector looks back, milliseconds.
    pub lookback: i64,
    /// The step of a subquery that names none, milliseconds.
    pub subquery_step: i64,
    /// Names are dropped when the query is done, not by each function.
    pub delayed_name_removal: bool,
    /// Functions over counters use the start timestamps of samples.
    pub start_timestamps: bool,
    /// A metric's type is read from its labels.
    pub type_and_unit_labels: bool,
    /// What a query may use.
    pub limits: Limits,
    /// Set to stop the query.
    pub canceled: Arc<AtomicBool>,
}

/// One query under way.
pub(crate) struct Evaluator<'a> {
    pub source: &'a dyn Source,
    pub options: &'a Options,
    pub budget: &'a Budget,
    /// Threads that may read.
    pub threads: usize,
    pub notes: RefCell<Annotations>,
    /// Bytes of columns that operators above this moment's hold.
    pub held: Cell<usize>,
    pub shared: shared::Shared,
}

// === impl Options ===

impl Default for Options {
    fn default() -> Self {
        Self {
            language: crate::parse::Options::default(),
            lookback: 5 * 60 * 1000,
            subquery_step: 60 * 1000,
            delayed_name_removal: false,
            start_timestamps: false,
            type_and_unit_labels: false,
            limits: Limits::default(),
            canceled: Arc::default(),
        }
    }
}

// === impl Evaluator ===

impl Evaluator<'_> {
    /// The value of a part of the plan at all steps.
    pub fn eval(&self, node: &Node, grid: Grid) -> Result<Frame, QueryError> {
        self.budget.check()?;
        let before = self.held.get();
        // A grid that does not fit is refused before it is filled.
        self.budget.room(grid.count.saturating_mul(STEP_BYTES))?;
        let is_shared = self.shared.has(node);
        let frame = match is_shared.then(|| self.shared.get(node, grid)).flatten() {
            Some(columns) => Frame::Vector(columns),
            None => {
                let frame = self.dispatch(node, grid)?;
                if let (true, Frame::Vector(columns)) = (is_shared, &frame) {
                    self.shared.put(node, grid, columns, self.options.limits.bytes / 4);
                }
                frame
            }
        };
        let bytes = match &frame {
            Frame::Scalar(values) => values.len() * 8,
            Frame::Vector(columns) => columns.iter().map(Column::bytes).sum(),
            Frame::Text(_) => 0,
        };
        self.hold(before.saturating_add(bytes))?;
        Ok(frame)
    }

    fn dispatch(&self, node: &Node, grid: Grid) -> Result<Frame, QueryError> {
        match &node.op {
            Op::Number(value) => Ok(Frame::Scalar(vec![*value; grid.count])),
            Op::Text(text) => Ok(Frame::Text(Arc::clone(text))),
            Op::Select(selector) => self.select(selector, grid),
            Op::Range(_) => Err(QueryError::internal("a range stands alone")),
            Op::Once(inner) => self.once(inner, grid),
            Op::Negate(inner) => self.negate(inner, grid),
            Op::Binary(binary) => self.binary(binary, node.position, grid),
            Op::Aggregate(aggregate) => self.aggregate(aggregate, node.position, grid),
            Op::Over(over) => self.over(over, grid),
            Op::Stamps { selector, starts } => self.stamps(selector, *starts, grid),
            Op::Absent { arg, labels } => self.absent(arg, labels, grid),
            Op::Info(info) => self.info(info, grid),
            Op::Call { function, args } => self.call(*function, args, node.position, grid),
        }
    }

    /// What is the same at each step: once, then copied.
    fn once(&self, inner: &Node, grid: Grid) -> Result<Frame, QueryError> {
        if grid.count == 0 {
            return Ok(Frame::Vector(Vec::new()));
        }
        Ok(match self.eval(inner, Grid { count: 1, ..grid })? {
            Frame::Scalar(values) => {
                Frame::Scalar(vec![values.first().copied().unwrap_or(f64::NAN); grid.count])
            }
            Frame::Vector(columns) => {
                self.grow(columns.len().saturating_mul(Column::bytes_of(grid.count)))?;
                Frame::Vector(columns.into_iter().map(|column| column.spread(grid.count)).collect())
            }
            text => text,
        })
    }

    /// The columns of a vector, as they come.
    pub fn stream(
        &self,
        node: &Node,
        grid: Grid,
        sink: &mut dyn FnMut(Column) -> Result<(), QueryError>,
    ) -> Result<(), QueryError> {
        use crate::functions::FunctionId;
        match &node.op {
            _ if self.shared.has(node) => self.eval(node, grid)?.columns().into_iter().try_for_each(sink),
            Op::Select(selector) => self.select_each(selector, grid, sink),
            // Where names are dropped at once, twins have to be looked for.
            Op::Over(over)
                if self.options.delayed_name_removal && over.function != FunctionId::AbsentOverTime =>
            {
                self.over_each(over, grid, sink)
            }
            Op::Over(over) if over.function != FunctionId::AbsentOverTime => {
                let mut seen = std::collections::HashSet::with_hasher(ahash::RandomState::new());
                self.over_each(over, grid, &mut |column| {
                    self.grow(column.labels.bytes())?;
                    if !seen.insert(column.labels.clone()) {
                        return Err(QueryError::same_labels());
                    }
                    sink(column)
                })
            }
            _ => self.eval(node, grid)?.columns().into_iter().try_for_each(sink),
        }
    }

    /// Says that so many bytes are held from now on.
    pub fn hold(&self, bytes: usize) -> Result<(), QueryError> {
        self.held.set(bytes);
        self.budget.hold(bytes.saturating_add(self.shared.bytes()))
    }

    /// Says that so many bytes more are held, until the present part of the plan is evaluated.
    pub fn grow(&self, bytes: usize) -> Result<(), QueryError> {
        self.hold(self.held.get().saturating_add(bytes))
    }

    /// Without its name: at once, or when the query is done.
    pub fn drop_name(&self, mut column: Column) -> Column {
        column.drop_name = true;
        if !self.options.delayed_name_removal {
            column.labels = column.labels.without_metadata();
        }
        column
    }

    /// What an operator over steps answers with.
    pub fn assembled(&self, columns: Vec<Column>, grid: Grid) -> Result<Frame, QueryError> {
        let twins = match (grid.is_instant(), self.options.delayed_name_removal) {
            (true, true) => Twins::Leave,
            (true, false) => Twins::Refuse,
            (false, _) => Twins::Join,
        };
        Ok(Frame::Vector(assemble(columns, twins)?))
    }
}
