//! The syntax tree: what a query says, with the place in its text where it says so.
//!
//! Made by [`crate::parse`], whose trees are always checked: the evaluator may rely on the types of arguments and operands,
//! on `param` where an aggregator takes one, and on a height of at most `Limits::height`. Knows no series and
//! no time. Every node has a [`Span`] into the query as sent: annotations and errors end in its line and column.

mod duration;
mod operator;

use telemetry_model::Matcher;

pub use duration::{
    AllowedSign, DurationError, DurationExpr, DurationKind, DurationOp, DurationValue, Nanos,
};
pub use operator::{Aggregator, BinaryOp, Sign};

use crate::functions::Function;

/// A part of the query's text, in bytes: `start` inclusive, `end` exclusive.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Span {
    /// First byte.
    pub start: u32,
    /// One past the last byte.
    pub end: u32,
}

/// What an expression evaluates to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ValueType {
    /// One number per step.
    Scalar,
    /// A set of series with one sample each per step: "instant vector".
    Vector,
    /// A set of series with the samples of a window each per step: "range vector".
    Matrix,
    /// A text.
    String,
}

/// An expression: everything that has a value.
#[derive(Clone, Debug, PartialEq)]
pub enum Expr {
    /// `1.5`, `0x1f`, `Inf`, `5m` (300), also with signs before it, which are folded in.
    Number(NumberLiteral),
    /// `"text"`
    String(StringLiteral),
    /// `name{label="value"} offset 5m @ 12`
    Vector(VectorSelector),
    /// `name{label="value"}[5m] offset 5m @ 12`
    Matrix(MatrixSelector),
    /// `(expr)[1h:5m] offset 5m @ 12`
    Subquery(Subquery),
    /// `-expr`, `+expr`
    Unary(Unary),
    /// `lhs + on (label) rhs`
    Binary(Binary),
    /// `sum by (label) (expr)`
    Aggregate(Aggregate),
    /// `rate(expr)`
    Call(Call),
    /// `(expr)`
    Paren(Paren),
}

/// A number. Signs directly before it are part of it: `-1` is one literal, `1 - 1` is two.
#[derive(Clone, Debug, PartialEq)]
pub struct NumberLiteral {
    /// Its value; of a duration, in seconds.
    pub value: f64,
    /// Whether it was written as a duration (`5m`), and so is printed as one.
    pub is_duration: bool,
    /// With its signs.
    pub span: Span,
}

/// A text.
#[derive(Clone, Debug, PartialEq)]
pub struct StringLiteral {
    /// Without quotes, escapes resolved.
    pub value: String,
    /// With its quotes.
    pub span: Span,
}

/// A selector of series, one sample each.
#[derive(Clone, Debug, PartialEq)]
pub struct VectorSelector {
    /// The metric's name where it stands before the braces; a name in quotes inside them is only a matcher. Used for
    /// printing: `matchers` has it, too.
    pub name: Option<String>,
    /// All conditions in the order written; the one on `__name__` from `name` comes last.
    pub matchers: Vec<Matcher>,
    /// How far back from the evaluation time, negative into the future. `None` also for a literal zero.
    pub offset: Option<DurationValue>,
    /// A fixed time in place of the evaluation time.
    pub at: Option<At>,
    /// `anchored` or `smoothed`, also when written behind the range of a matrix selector.
    pub extended: Option<Extended>,
    /// Set for the second argument of `info()`: matchers of labels only, which may all match the empty string.
    pub allow_empty: bool,
    /// Of name, braces and, without a range, modifiers.
    pub span: Span,
}

/// What `@` fixes the evaluation time to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum At {
    /// Milliseconds since 1970.
    Timestamp(i64),
    /// The first step's time of the query: `@ start()`.
    Start,
    /// The last step's time of the query: `@ end()`.
    End,
}

/// How samples at the edges of a window are treated.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Extended {
    /// The last value before the window counts as its first sample.
    Anchored,
    /// Values at both edges are interpolated from the samples around them.
    Smoothed,
}

/// A selector of series, all samples of a window each.
#[derive(Clone, Debug, PartialEq)]
pub struct MatrixSelector {
    /// What it selects; offset and `@` of the whole stand here.
    pub selector: VectorSelector,
    /// Length of the window, positive.
    pub range: DurationValue,
    /// Of the whole, modifiers included.
    pub span: Span,
}

/// An expression evaluated at regular times of a window.
#[derive(Clone, Debug, PartialEq)]
pub struct Subquery {
    /// What is evaluated; an instant vector.
    pub expr: Box<Expr>,
    /// Length of the window, positive.
    pub range: DurationValue,
    /// Distance of the times, positive; `None`: the evaluation interval of the configuration.
    pub step: Option<DurationValue>,
    /// As of a selector.
    pub offset: Option<DurationValue>,
    /// As of a selector.
    pub at: Option<At>,
    /// Of the whole, modifiers included.
    pub span: Span,
}

/// A sign before an expression that is not a number.
#[derive(Clone, Debug, PartialEq)]
pub struct Unary {
    /// Which.
    pub sign: Sign,
    /// A scalar or an instant vector.
    pub expr: Box<Expr>,
    /// From the sign on.
    pub span: Span,
}

/// Two operands and what is done with them.
#[derive(Clone, Debug, PartialEq)]
pub struct Binary {
    /// Which operator.
    pub op: BinaryOp,
    /// Left operand: a scalar or an instant vector.
    pub lhs: Box<Expr>,
    /// Right operand: a scalar or an instant vector.
    pub rhs: Box<Expr>,
    /// How series find each other; there if and only if both operands are instant vectors.
    pub matching: Option<VectorMatching>,
    /// `bool`: a comparison answers 0 or 1 instead of filtering.
    pub return_bool: bool,
    /// From the left operand to the right one.
    pub span: Span,
}

/// How the series of two instant vectors find each other.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct VectorMatching {
    /// How many on a side may have one partner.
    pub cardinality: Cardinality,
    /// `on`: only `labels` decide. Else all but them and the metric's name do.
    pub on: bool,
    /// The labels of `on` or `ignoring`, as written.
    pub labels: Vec<String>,
    /// Labels that `group_left` or `group_right` copies from the "one" side.
    pub include: Vec<String>,
    /// Value of a left sample that a right one has no partner in: `fill`, `fill_left`.
    pub fill_left: Option<f64>,
    /// Value of a right sample that a left one has no partner in: `fill`, `fill_right`.
    pub fill_right: Option<f64>,
}

/// How many series of each side may match one another.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Cardinality {
    /// At most one of each side.
    #[default]
    OneToOne,
    /// Many of the left, one of the right: `group_left`.
    ManyToOne,
    /// One of the left, many of the right: `group_right`.
    OneToMany,
    /// Set operators.
    ManyToMany,
}

/// Many series of an instant vector become fewer.
#[derive(Clone, Debug, PartialEq)]
pub struct Aggregate {
    /// Which.
    pub op: Aggregator,
    /// What is aggregated: an instant vector.
    pub expr: Box<Expr>,
    /// A scalar (or, for `count_values`, a string); there if and only if [`Aggregator::takes_param`].
    pub param: Option<Box<Expr>>,
    /// The labels of `by` or `without`, as written.
    pub grouping: Vec<String>,
    /// `without`: the groups keep all labels but `grouping` and the name. Else they have only `grouping`.
    pub without: bool,
    /// Of the whole, modifiers included.
    pub span: Span,
}

/// A call of a function.
#[derive(Clone, Debug, PartialEq)]
pub struct Call {
    /// Which; an entry of [`crate::functions::FUNCTIONS`].
    pub function: &'static Function,
    /// In order; number and types are as the function wants them.
    pub args: Vec<Expr>,
    /// From the name to the closing parenthesis.
    pub span: Span,
}

/// An expression in parentheses.
#[derive(Clone, Debug, PartialEq)]
pub struct Paren {
    /// What they enclose.
    pub expr: Box<Expr>,
    /// With the parentheses.
    pub span: Span,
}

// === impl Span ===

impl Span {
    /// From this one's start to the end of `other`.
    #[must_use]
    pub fn to(self, other: Span) -> Span {
        Span { start: self.start, end: other.end }
    }

    /// `line:column` of the start in `query`, both from 1, columns in bytes; as Prometheus writes it in errors and
    /// annotations.
    #[must_use]
    pub fn position(self, query: &str) -> String {
        if query.is_empty() {
            return "unknown position".to_owned();
        }
        let start = usize::try_from(self.start).unwrap_or(usize::MAX);
        let Some(before) = query.as_bytes().get(..start) else { return "invalid position".to_owned() };
        let line = before.iter().filter(|byte| **byte == b'\n').count() + 1;
        let column = match before.iter().rposition(|byte| *byte == b'\n') {
            Some(line_break) => start - line_break,
            None => start + 1,
        };
        format!("{line}:{column}")
    }
}

// === impl ValueType ===

impl ValueType {
    /// The name in the HTTP API and the JSON tree: `vector`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Scalar => "scalar",
            Self::Vector => "vector",
            Self::Matrix => "matrix",
            Self::String => "string",
        }
    }

    /// The name in documentation and errors: `instant vector`.
    #[must_use]
    pub fn documented(self) -> &'static str {
        match self {
            Self::Scalar => "scalar",
            Self::Vector => "instant vector",
            Self::Matrix => "range vector",
            Self::String => "string",
        }
    }
}

// === impl Expr ===

impl Expr {
    /// Where it stands.
    #[must_use]
    pub fn span(&self) -> Span {
        match self {
            Self::Number(node) => node.span,
            Self::String(node) => node.span,
            Self::Vector(node) => node.span,
            Self::Matrix(node) => node.span,
            Self::Subquery(node) => node.span,
            Self::Unary(node) => node.span,
            Self::Binary(node) => node.span,
            Self::Aggregate(node) => node.span,
            Self::Call(node) => node.span,
            Self::Paren(node) => node.span,
        }
    }

    /// What it evaluates to.
    #[must_use]
    pub fn value_type(&self) -> ValueType {
        match self {
            Self::Number(_) => ValueType::Scalar,
            Self::String(_) => ValueType::String,
            Self::Vector(_) | Self::Aggregate(_) => ValueType::Vector,
            Self::Matrix(_) | Self::Subquery(_) => ValueType::Matrix,
            Self::Unary(node) => node.expr.value_type(),
            Self::Paren(node) => node.expr.value_type(),
            Self::Call(node) => node.function.returns,
            Self::Binary(node) => {
                let both = (node.lhs.value_type(), node.rhs.value_type());
                if both == (ValueType::Scalar, ValueType::Scalar) {
                    ValueType::Scalar
                } else {
                    ValueType::Vector
                }
            }
        }
    }

    /// The expression inside any number of parentheses.
    #[must_use]
    pub fn unwrap_paren(&self) -> &Expr {
        let mut inner = self;
        while let Self::Paren(paren) = inner {
            inner = &paren.expr;
        }
        inner
    }

    /// Calls `visit` with this expression and all below it, parents first, in the order of the text except that an
    /// aggregation's expression comes before its parameter. Selectors of matrices are visited as part of them only.
    pub fn walk<'a>(&'a self, visit: &mut impl FnMut(&'a Expr)) {
        visit(self);
        match self {
            Self::Number(_) | Self::String(_) | Self::Vector(_) | Self::Matrix(_) => {}
            Self::Subquery(node) => node.expr.walk(visit),
            Self::Unary(node) => node.expr.walk(visit),
            Self::Paren(node) => node.expr.walk(visit),
            Self::Binary(node) => {
                node.lhs.walk(visit);
                node.rhs.walk(visit);
            }
            Self::Aggregate(node) => {
                node.expr.walk(visit);
                if let Some(param) = &node.param {
                    param.walk(visit);
                }
            }
            Self::Call(node) => node.args.iter().for_each(|arg| arg.walk(visit)),
        }
    }

    /// The matchers of every selector, in the order of [`Expr::walk`].
    #[must_use]
    pub fn selectors(&self) -> Vec<&[Matcher]> {
        let mut selectors = Vec::new();
        self.walk(&mut |expr| match expr {
            Expr::Vector(node) => selectors.push(node.matchers.as_slice()),
            Expr::Matrix(node) => selectors.push(node.selector.matchers.as_slice()),
            _ => {}
        });
        selectors
    }
}

// === impl Cardinality ===

impl Cardinality {
    /// As errors and the JSON tree write it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::OneToOne => "one-to-one",
            Self::ManyToOne => "many-to-one",
            Self::OneToMany => "one-to-many",
            Self::ManyToMany => "many-to-many",
        }
    }
}

// === impl Extended ===

impl Extended {
    /// As the language writes it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Anchored => "anchored",
            Self::Smoothed => "smoothed",
        }
    }
}
