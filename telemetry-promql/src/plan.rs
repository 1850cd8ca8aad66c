//! From the syntax tree to what is evaluated: constants and lengths of time folded, `@` resolved, what does not change
//! from step to step marked, and told to each selector what is made of it.

use std::sync::Arc;

use telemetry_model::{MatchOp, Matcher};

use crate::ast::{
    Aggregate, Aggregator, AllowedSign, At, Binary, BinaryOp, Call, DurationValue, Expr, Extended,
    MatrixSelector, Sign, Subquery, ValueType, VectorMatching, VectorSelector,
};
use crate::error::QueryError;
use crate::functions::FunctionId;
use crate::labels::{Labels, NAME};

/// A part of the plan, and where its text begins.
#[derive(Clone, Debug)]
pub(crate) struct Node {
    pub op: Op,
    pub position: usize,
}

/// What is evaluated.
#[derive(Clone, Debug)]
pub(crate) enum Op {
    Number(f64),
    Text(Arc<str>),
    Select(Selector),
    /// Only as the whole of an instant query: elsewhere ranges stand in [`Over`].
    Range(Box<Range>),
    /// The same at each step.
    Once(Box<Node>),
    Negate(Box<Node>),
    Binary(Box<BinaryNode>),
    Aggregate(Box<AggregateNode>),
    Over(Box<Over>),
    /// Times of the samples that a selector finds, or of the beginnings of their counts.
    Stamps {
        selector: Selector,
        starts: bool,
    },
    Absent {
        arg: Box<Node>,
        labels: Labels,
    },
    Info(Box<InfoNode>),
    Call {
        function: FunctionId,
        args: Vec<Node>,
    },
}

/// Series to be read.
#[derive(Clone, Debug)]
pub(crate) struct Selector {
    pub matchers: Vec<Matcher>,
    /// Absolute milliseconds, in place of a step's time.
    pub at: Option<i64>,
    /// Milliseconds back.
    pub offset: i64,
    pub extended: Option<Extended>,
    pub position: usize,
    /// The function or aggregation right above.
    pub function: &'static str,
    /// The grouping of an aggregation right above; true for `without`.
    pub grouping: Option<(Vec<String>, bool)>,
    /// Whether counts and sums of histograms are all that is asked for.
    pub stats_only: bool,
}

/// Samples of a window.
#[derive(Clone, Debug)]
pub(crate) struct Range {
    pub of: RangeOf,
    /// Milliseconds.
    pub window: i64,
}

/// Where the samples of a window come from.
#[derive(Clone, Debug)]
pub(crate) enum RangeOf {
    Selector(Selector),
    Subquery { inner: Node, step: i64, at: Option<i64>, offset: i64 },
}

/// A function of a range.
#[derive(Clone, Debug)]
pub(crate) struct Over {
    pub function: FunctionId,
    pub name: &'static str,
    pub range: Range,
    /// Its other arguments, in order: numbers.
    pub params: Vec<Node>,
    /// Where remarks about the range point to.
    pub range_position: usize,
    /// What `absent_over_time` answers with.
    pub absent: Labels,
}

/// A binary operation.
#[derive(Clone, Debug)]
pub(crate) struct BinaryNode {
    pub op: BinaryOp,
    pub lhs: Node,
    pub rhs: Node,
    pub matching: VectorMatching,
    pub return_bool: bool,
}

/// An aggregation.
#[derive(Clone, Debug)]
pub(crate) struct AggregateNode {
    pub op: Aggregator,
    pub expr: Node,
    pub param: Option<Node>,
    /// Sorted.
    pub grouping: Vec<String>,
    pub without: bool,
}

/// A call of `info`.
#[derive(Clone, Debug)]
pub(crate) struct InfoNode {
    pub expr: Node,
    /// The second argument's.
    pub matchers: Option<Vec<Matcher>>,
    /// When the info series are looked at.
    pub at: Option<i64>,
    pub offset: i64,
}

/// What the query's times are, milliseconds.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Times {
    pub start: i64,
    pub end: i64,
    /// 0 for an instant query.
    pub step: i64,
    /// Of a subquery that names none.
    pub subquery_step: i64,
}

/// A node, whether it is the same at each step, and whether it is worth to say so.
struct Lowered {
    node: Node,
    is_invariant: bool,
    wrap: bool,
}

/// What stands above a selector.
#[derive(Clone, Copy, Default)]
struct Above<'a> {
    function: &'static str,
    grouping: Option<(&'a [String], bool)>,
    buckets: BucketUse,
}

/// What the operators above need of histograms.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum BucketUse {
    /// All, for all that is known.
    #[default]
    Unknown,
    /// Their counts and sums.
    Stats,
    /// All.
    Needed,
}

/// The plan of a tree.
pub(crate) fn lower(expr: &Expr, times: Times) -> Result<Node, QueryError> {
    Ok(times.lower(expr, Above::default())?.wrapped())
}

// === impl Lowered ===

impl Lowered {
    fn of(op: Op, expr: &Expr, is_invariant: bool, wrap: bool) -> Self {
        Self { node: Node { op, position: expr.span().start as usize }, is_invariant, wrap }
    }

    fn wrapped(self) -> Node {
        if self.wrap { self.node.once() } else { self.node }
    }
}

// === impl BucketUse ===

impl BucketUse {
    /// Below a function.
    fn below(self, function: FunctionId) -> Self {
        use FunctionId as F;
        match function {
            F::HistogramQuantile | F::HistogramQuantiles | F::HistogramFraction => Self::Needed,
            F::HistogramCount | F::HistogramSum | F::HistogramAvg if self == Self::Unknown => Self::Stats,
            _ => self,
        }
    }
}

// === impl Above ===

impl Above<'_> {
    /// Below something that hides what is above, but for the use of buckets.
    fn hidden(self) -> Above<'static> {
        Above { buckets: self.buckets, ..Above::default() }
    }
}

// === impl Node ===

impl Node {
    /// Calls `visit` with this part and all below it.
    pub fn walk(&self, visit: &mut impl FnMut(&Self)) {
        visit(self);
        match &self.op {
            Op::Number(_) | Op::Text(_) | Op::Select(_) | Op::Stamps { .. } => {}
            Op::Range(range) => range.walk(visit),
            Op::Once(inner) | Op::Negate(inner) | Op::Absent { arg: inner, .. } => inner.walk(visit),
            Op::Binary(binary) => {
                binary.lhs.walk(visit);
                binary.rhs.walk(visit);
            }
            Op::Aggregate(aggregate) => {
                aggregate.expr.walk(visit);
                aggregate.param.iter().for_each(|param| param.walk(visit));
            }
            Op::Over(over) => {
                over.range.walk(visit);
                over.params.iter().for_each(|param| param.walk(visit));
            }
            Op::Info(info) => info.expr.walk(visit),
            Op::Call { args, .. } => args.iter().for_each(|arg| arg.walk(visit)),
        }
    }

    fn once(self) -> Self {
        let position = self.position;
        Self { op: Op::Once(Box::new(self)), position }
    }
}

// === impl Range ===

impl Range {
    fn walk(&self, visit: &mut impl FnMut(&Node)) {
        if let RangeOf::Subquery { inner, .. } = &self.of {
            inner.walk(visit);
        }
    }
}

// === impl Times ===

impl Times {
    fn lower(&self, expr: &Expr, above: Above<'_>) -> Result<Lowered, QueryError> {
        let lowered = match expr {
            Expr::Number(number) => Lowered::of(Op::Number(number.value), expr, true, false),
            Expr::String(text) => Lowered::of(Op::Text(text.value.as_str().into()), expr, true, false),
            Expr::Vector(selector) => {
                let selector = self.selector(selector, above)?;
                let fixed = selector.at.is_some();
                Lowered::of(Op::Select(selector), expr, fixed, fixed)
            }
            Expr::Matrix(_) | Expr::Subquery(_) => {
                let range = self.range(expr, above)?;
                let fixed = match &range.of {
                    RangeOf::Selector(selector) => selector.at.is_some(),
                    RangeOf::Subquery { at, .. } => at.is_some(),
                };
                Lowered::of(Op::Range(Box::new(range)), expr, fixed, false)
            }
            Expr::Paren(paren) => return self.lower(&paren.expr, above),
            Expr::Unary(unary) => {
                let inner = self.lower(&unary.expr, above)?;
                match unary.sign {
                    Sign::Plus => return Ok(inner),
                    Sign::Minus => {
                        let op = Op::Negate(Box::new(inner.node));
                        Lowered::of(op, expr, inner.is_invariant, inner.wrap)
                    }
                }
            }
            Expr::Binary(binary) => self.binary(binary, expr, above)?,
            Expr::Aggregate(aggregate) => self.aggregate(aggregate, expr, above)?,
            Expr::Call(call) => self.call(call, expr, above)?,
        };
        Ok(lowered)
    }

    fn seconds(&self) -> (f64, f64) {
        (millis_to_seconds(self.step), millis_to_seconds(self.end.saturating_sub(self.start)))
    }

    fn length(&self, value: &DurationValue, sign: AllowedSign) -> Result<i64, QueryError> {
        let (step, range) = self.seconds();
        let nanos = value.resolve(sign, step, range).map_err(|e| QueryError::bad_data(e.to_string()))?;
        Ok(nanos.millis())
    }

    fn offset(&self, value: Option<&DurationValue>) -> Result<i64, QueryError> {
        value.map_or(Ok(0), |value| self.length(value, AllowedSign::Any))
    }

    fn at(&self, at: Option<At>) -> Option<i64> {
        at.map(|at| match at {
            At::Timestamp(t) => t,
            At::Start => self.start,
            At::End => self.end,
        })
    }

    fn selector(&self, selector: &VectorSelector, above: Above<'_>) -> Result<Selector, QueryError> {
        Ok(Selector {
            matchers: selector.matchers.clone(),
            at: self.at(selector.at),
            offset: self.offset(selector.offset.as_ref())?,
            extended: selector.extended,
            position: selector.span.start as usize,
            function: above.function,
            grouping: above.grouping.map(|(labels, without)| (labels.to_vec(), without)),
            stats_only: above.buckets == BucketUse::Stats,
        })
    }

    fn range(&self, expr: &Expr, above: Above<'_>) -> Result<Range, QueryError> {
        match expr.unwrap_paren() {
            Expr::Matrix(MatrixSelector { selector, range, .. }) => {
                let window = self.length(range, AllowedSign::Positive)?;
                Ok(Range { of: RangeOf::Selector(self.selector(selector, above)?), window })
            }
            Expr::Subquery(subquery) => self.subquery(subquery, above),
            _ => Err(QueryError::internal("a range was expected")),
        }
    }

    fn subquery(&self, subquery: &Subquery, above: Above<'_>) -> Result<Range, QueryError> {
        // Resets between the samples of a subquery are looked for in the buckets.
        let inner = self.lower(&subquery.expr, Above { buckets: BucketUse::Needed, ..above })?;
        let inner = if inner.is_invariant { inner.node.once() } else { inner.node };
        let step = match &subquery.step {
            Some(step) => self.length(step, AllowedSign::Positive)?,
            None => 0,
        };
        let of = RangeOf::Subquery {
            inner,
            step: if step == 0 { self.subquery_step.max(1) } else { step },
            at: self.at(subquery.at),
            offset: self.offset(subquery.offset.as_ref())?,
        };
        Ok(Range { of, window: self.length(&subquery.range, AllowedSign::Positive)? })
    }

    fn binary(&self, binary: &Binary, expr: &Expr, above: Above<'_>) -> Result<Lowered, QueryError> {
        let mut above = above.hidden();
        if matches!(binary.op, BinaryOp::TrimLower | BinaryOp::TrimUpper) {
            above.buckets = BucketUse::Needed;
        }
        let (lhs, rhs) = (self.lower(&binary.lhs, above)?, self.lower(&binary.rhs, above)?);
        let is_invariant = lhs.is_invariant && rhs.is_invariant;
        let (lhs, rhs) = if is_invariant { (lhs.node, rhs.node) } else { (lhs.wrapped(), rhs.wrapped()) };
        let node = BinaryNode {
            op: binary.op,
            lhs,
            rhs,
            matching: binary.matching.clone().unwrap_or_default(),
            return_bool: binary.return_bool,
        };
        Ok(Lowered::of(Op::Binary(Box::new(node)), expr, is_invariant, is_invariant))
    }

    fn aggregate(&self, aggregate: &Aggregate, expr: &Expr, above: Above<'_>) -> Result<Lowered, QueryError> {
        let hidden = above.hidden();
        let above = Above {
            function: aggregate.op.name(),
            grouping: Some((&aggregate.grouping, aggregate.without)),
            buckets: above.buckets,
        };
        let inner = self.lower(&aggregate.expr, above)?;
        let param = match &aggregate.param {
            Some(param) => Some(self.lower(param, hidden)?.wrapped()),
            None => None,
        };
        let mut grouping = aggregate.grouping.clone();
        grouping.sort();
        let node =
            AggregateNode { op: aggregate.op, expr: inner.node, param, grouping, without: aggregate.without };
        Ok(Lowered::of(Op::Aggregate(Box::new(node)), expr, inner.is_invariant, inner.wrap))
    }

    fn call(&self, call: &Call, expr: &Expr, above: Above<'_>) -> Result<Lowered, QueryError> {
        if let Some(value) = self.constant(call.function.id) {
            return Ok(Lowered::of(Op::Number(value), expr, true, false));
        }
        let args: Vec<&Expr> = call.args.iter().map(Expr::unwrap_paren).collect();
        let buckets = above.buckets.below(call.function.id);
        let above = Above { function: call.function.name, grouping: None, buckets };
        if let Some(lowered) = self.special(call, expr, &args, above)? {
            return Ok(lowered);
        }
        let range_at = args.iter().position(|arg| arg.value_type() == ValueType::Matrix);
        let mut lowered = Vec::with_capacity(args.len());
        for arg in &args {
            lowered.push(self.lower(arg, above)?);
        }
        let is_invariant = lowered.iter().all(|arg| arg.is_invariant) && !changes_with_time(call.function.id);
        let nodes = lowered.into_iter().map(|arg| if is_invariant { arg.node } else { arg.wrapped() });
        let mut nodes: Vec<Node> = nodes.collect();
        let Some(range_at) = range_at else {
            let op = Op::Call { function: call.function.id, args: nodes };
            return Ok(Lowered::of(op, expr, is_invariant, is_invariant));
        };
        let Op::Range(range) = nodes.remove(range_at).op else {
            return Err(QueryError::internal("a range was expected"));
        };
        let is_subquery = |arg: &&&Expr| matches!(arg, Expr::Subquery(_));
        let over = Over {
            function: call.function.id,
            name: call.function.name,
            range: *range,
            params: nodes,
            // Upstream puts what a subquery gave in its place, and with it loses where it stood.
            range_position: match args.first().filter(is_subquery) {
                Some(_) => 0,
                None => args.first().map_or(0, |arg| arg.span().start as usize),
            },
            absent: args.first().map_or_else(Labels::default, |arg| absent_labels(arg)),
        };
        Ok(Lowered::of(Op::Over(Box::new(over)), expr, is_invariant, is_invariant))
    }

    /// Functions that look at their arguments' text.
    fn special(
        &self,
        call: &Call,
        expr: &Expr,
        args: &[&Expr],
        above: Above<'_>,
    ) -> Result<Option<Lowered>, QueryError> {
        let lowered = match (call.function.id, args) {
            (id @ (FunctionId::Timestamp | FunctionId::StartTimestamp), [Expr::Vector(selector)]) => {
                let selector = self.selector(selector, above)?;
                // Only `timestamp` is the same at each step; its twin is so, too, but upstream does not say it.
                let fixed = selector.at.is_some();
                let starts = id == FunctionId::StartTimestamp;
                Lowered::of(Op::Stamps { selector, starts }, expr, fixed, fixed)
            }
            (FunctionId::Absent, [arg]) => {
                let inner = self.lower(arg, above)?;
                let (is_invariant, labels) = (inner.is_invariant, absent_labels(arg));
                let op = Op::Absent { arg: Box::new(inner.node), labels };
                Lowered::of(op, expr, is_invariant, is_invariant)
            }
            (FunctionId::Info, [first, rest @ ..]) => {
                let inner = self.lower(first, above)?;
                let (at, offset) = self.info_time(first)?.unwrap_or((None, 0));
                let matchers = match rest.first() {
                    Some(Expr::Vector(selector)) => Some(selector.matchers.clone()),
                    _ => None,
                };
                let is_invariant = inner.is_invariant && matchers.is_none();
                let expr_node = if is_invariant { inner.node } else { inner.wrapped() };
                let node = InfoNode { expr: expr_node, matchers, at, offset };
                Lowered::of(Op::Info(Box::new(node)), expr, is_invariant, is_invariant)
            }
            _ => return Ok(None),
        };
        Ok(Some(lowered))
    }

    fn constant(&self, function: FunctionId) -> Option<f64> {
        match function {
            FunctionId::Start => Some(millis_to_seconds(self.start)),
            FunctionId::End => Some(millis_to_seconds(self.end)),
            FunctionId::Range => Some(millis_to_seconds(self.end.saturating_sub(self.start))),
            FunctionId::Step if self.start == self.end => Some(0.0),
            FunctionId::Step => Some(millis_to_seconds(self.step)),
            _ => None,
        }
    }

    /// The `@` and the offset of the first selector below, those of subqueries around it added.
    fn info_time(&self, expr: &Expr) -> Result<Option<(Option<i64>, i64)>, QueryError> {
        match expr {
            Expr::Vector(selector) => {
                Ok(Some((self.at(selector.at), self.offset(selector.offset.as_ref())?)))
            }
            Expr::Matrix(matrix) => {
                let selector = &matrix.selector;
                Ok(Some((self.at(selector.at), self.offset(selector.offset.as_ref())?)))
            }
            Expr::Number(_) | Expr::String(_) => Ok(None),
            Expr::Subquery(subquery) => {
                let Some((at, offset)) = self.info_time(&subquery.expr)? else { return Ok(None) };
                if at.is_some() {
                    return Ok(Some((at, offset)));
                }
                let more = self.offset(subquery.offset.as_ref())?;
                Ok(Some((self.at(subquery.at), offset.saturating_add(more))))
            }
            Expr::Unary(unary) => self.info_time(&unary.expr),
            Expr::Paren(paren) => self.info_time(&paren.expr),
            Expr::Binary(binary) => match self.info_time(&binary.lhs)? {
                Some(found) => Ok(Some(found)),
                None => self.info_time(&binary.rhs),
            },
            Expr::Aggregate(aggregate) => self.info_time(&aggregate.expr),
            Expr::Call(call) => {
                for arg in &call.args {
                    if let Some(found) = self.info_time(arg)? {
                        return Ok(Some(found));
                    }
                }
                Ok(None)
            }
        }
    }
}

/// Milliseconds as the language's seconds.
#[expect(clippy::cast_precision_loss, reason = "times are far below 2^53 ms; beyond, the nearest is as good")]
pub(crate) fn millis_to_seconds(millis: i64) -> f64 {
    millis as f64 / 1000.0
}

/// Whether a function of what never changes may change.
fn changes_with_time(function: FunctionId) -> bool {
    use FunctionId as F;
    matches!(
        function,
        F::DaysInMonth
            | F::DayOfMonth
            | F::DayOfWeek
            | F::DayOfYear
            | F::Hour
            | F::Minute
            | F::Month
            | F::Year
            | F::PredictLinear
            | F::Time
            | F::Timestamp
    )
}

/// What `absent` says about what is absent: the labels that exactly one matcher names, with `=`.
fn absent_labels(expr: &Expr) -> Labels {
    let matchers = match expr {
        Expr::Vector(selector) => &selector.matchers,
        Expr::Matrix(matrix) => &matrix.selector.matchers,
        _ => return Labels::default(),
    };
    let mut pairs: Vec<(&str, &str)> = Vec::new();
    let mut seen: Vec<&str> = Vec::new();
    for matcher in matchers.iter().filter(|matcher| matcher.name != NAME) {
        if matcher.op == MatchOp::Equal && !seen.contains(&matcher.name.as_str()) {
            pairs.retain(|pair| pair.0 != matcher.name);
            pairs.push((&matcher.name, &matcher.value));
            seen.push(&matcher.name);
        } else {
            pairs.retain(|pair| pair.0 != matcher.name);
        }
    }
    Labels::from_texts(pairs)
}
