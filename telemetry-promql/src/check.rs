//! The checker: types of operands and arguments, and rules on matching that the grammar does not know.
//!
//! Works on a tree without errors of syntax, in the order in which Prometheus checks, so that the first error is the same.
//! Settles two things in the tree: set operators match many to many, and operands that are not both vectors have no matching.

use telemetry_model::Matcher;

use crate::ast::{
    Aggregate, Aggregator, Binary, Call, Cardinality, Expr, Span, Unary, ValueType, VectorSelector,
};
use crate::functions::{FunctionId, Variadic};
use crate::parse::ParseError;
use crate::pattern;
use crate::quote::quoted;

/// The label that holds a metric's name.
const NAME_LABEL: &str = "__name__";

/// Checks a tree of `text` and appends what is wrong to `errors`.
pub(crate) fn check(expr: &mut Expr, text: &str, errors: &mut Vec<ParseError>) {
    Checker { text, errors }.check(expr);
}

/// Whether matchers may all match a label that is not there, so that they select every series.
#[must_use]
pub fn may_match_all(matchers: &[Matcher]) -> bool {
    matchers.iter().all(pattern::matches_empty)
}

/// The checker at work.
struct Checker<'a> {
    text: &'a str,
    errors: &'a mut Vec<ParseError>,
}

impl Checker<'_> {
    /// Reports an error.
    fn error(&mut self, span: Span, message: impl Into<String>) {
        self.errors.push(ParseError::new(span, message, self.text));
    }

    /// Checks an expression and gives its type.
    fn check(&mut self, expr: &mut Expr) -> ValueType {
        let span = expr.span();
        match expr {
            Expr::Number(_) | Expr::String(_) => {}
            Expr::Vector(node) => self.selector(node),
            Expr::Matrix(node) => self.selector(&node.selector),
            Expr::Paren(node) => {
                self.check(&mut node.expr);
            }
            Expr::Subquery(node) => {
                let found = self.check(&mut node.expr);
                if found != ValueType::Vector {
                    let found = found.name();
                    self.error(
                        span,
                        format!("subquery is only allowed on instant vector, got {found} instead"),
                    );
                }
            }
            Expr::Unary(node) => self.unary(node),
            Expr::Binary(node) => self.binary(node),
            Expr::Aggregate(node) => self.aggregate(node),
            Expr::Call(node) => self.call(node),
        }
        expr.value_type()
    }

    /// Checks an expression that must be of a type.
    fn expect(&mut self, expr: &mut Expr, wanted: ValueType, context: &str) {
        let found = self.check(expr);
        if found != wanted {
            self.wrong_type(expr.span(), wanted, context, found);
        }
    }

    /// Reports a wrong type.
    fn wrong_type(&mut self, span: Span, wanted: ValueType, context: &str, found: ValueType) {
        let (wanted, found) = (wanted.documented(), found.documented());
        self.error(span, format!("expected type {wanted} in {context}, got {found}"));
    }

    /// A sign.
    fn unary(&mut self, node: &mut Unary) {
        let found = self.check(&mut node.expr);
        if !matches!(found, ValueType::Scalar | ValueType::Vector) {
            let only = "unary expression only allowed on expressions of type scalar or instant vector";
            self.error(node.span, format!("{only}, got {}", quoted(found.documented())));
        }
    }

    /// An aggregation.
    fn aggregate(&mut self, node: &mut Aggregate) {
        self.expect(&mut node.expr, ValueType::Vector, "aggregation expression");
        let Some(param) = &mut node.param else { return };
        let wanted = if node.op == Aggregator::CountValues { ValueType::String } else { ValueType::Scalar };
        self.expect(param, wanted, "aggregation parameter");
    }

    /// A binary operation.
    fn binary(&mut self, node: &mut Binary) {
        let (left, right) = (self.check(&mut node.lhs), self.check(&mut node.rhs));
        if node.return_bool && !node.op.is_comparison() {
            self.error(self.operator(node), "bool modifier can only be used on comparison operators");
        }
        let scalars = left == ValueType::Scalar && right == ValueType::Scalar;
        if node.op.is_comparison() && !node.return_bool && scalars {
            self.error(self.operator(node), "comparisons between scalars must use BOOL modifier");
        }
        self.labels(node);
        for (operand, found) in [(&node.lhs, left), (&node.rhs, right)] {
            if !matches!(found, ValueType::Scalar | ValueType::Vector) {
                let only = "binary expression must contain only scalar and instant vector types";
                self.error(operand.span(), only);
            }
        }
        self.matching(node, left == ValueType::Vector && right == ValueType::Vector);
        if (left == ValueType::Scalar || right == ValueType::Scalar) && node.op.is_set() {
            let op = quoted(node.op.symbol());
            self.error(node.span, format!("set operator {op} not allowed in binary scalar expression"));
        }
    }

    /// Labels that both decide about matching and are copied.
    fn labels(&mut self, node: &Binary) {
        let Some(matching) = node.matching.as_ref().filter(|matching| matching.on) else { return };
        for label in &matching.labels {
            for _ in matching.include.iter().filter(|include| *include == label) {
                let label = quoted(label);
                let message = format!("label {label} must not occur in ON and GROUP clause at once");
                self.error(self.operator(node), message);
            }
        }
    }

    /// How vectors match: only vectors, and sets in their own way.
    fn matching(&mut self, node: &mut Binary, vectors: bool) {
        let (span, op) = (node.span, node.op);
        let Some(matching) = node.matching.as_mut() else { return };
        if op.is_set() && matching.cardinality == Cardinality::OneToOne {
            matching.cardinality = Cardinality::ManyToMany;
        }
        let fills = matching.fill_left.is_some() || matching.fill_right.is_some();
        let cardinality = matching.cardinality;
        if !vectors {
            if !matching.labels.is_empty() {
                self.error(span, "vector matching only allowed between instant vectors");
            }
            if fills {
                self.error(span, "filling in missing series only allowed between instant vectors");
            }
            node.matching = None;
        } else if op.is_set() {
            if matches!(cardinality, Cardinality::OneToMany | Cardinality::ManyToOne) {
                self.error(span, format!("no grouping allowed for {} operation", quoted(op.symbol())));
                self.error(span, "set operations must always be many-to-many");
            }
            if fills {
                self.error(span, "filling in missing series not allowed for set operators");
            }
        }
    }

    /// Where the operator and its modifiers stand, without the white space around them. Ends, as in Prometheus, at the last
    /// character, not behind it.
    fn operator(&self, node: &Binary) -> Span {
        let Span { mut start, .. } = Span { start: node.lhs.span().end, end: 0 };
        let mut end = node.rhs.span().start.saturating_sub(1);
        let is_space = |offset: u32| {
            let byte = usize::try_from(offset).ok().and_then(|offset| self.text.as_bytes().get(offset));
            matches!(byte, Some(b' ' | b'\t' | b'\n' | b'\r'))
        };
        while is_space(start) {
            start += 1;
        }
        while is_space(end) && end > start {
            end -= 1;
        }
        Span { start, end }
    }

    /// A call: how many arguments, and their types.
    fn call(&mut self, node: &mut Call) {
        self.count_args(node);
        let function = node.function;
        if function.id == FunctionId::Info {
            self.info(node);
        }
        let context = format!("call to function {}", quoted(function.name));
        for (at, arg) in node.args.iter_mut().enumerate() {
            let wanted = match function.args.get(at) {
                Some(wanted) => *wanted,
                None if function.variadic == Variadic::No => break,
                None => match function.args.last() {
                    Some(wanted) => *wanted,
                    None => break,
                },
            };
            self.expect(arg, wanted, &context);
        }
    }

    /// How many arguments a call has.
    fn count_args(&mut self, node: &Call) {
        let (types, found) = (node.function.args.len(), node.args.len());
        let least = types.saturating_sub(1);
        let (bound, wanted) = match node.function.variadic {
            Variadic::No if found != types => ("", types),
            Variadic::UpTo(_) | Variadic::Any if found < least => ("at least ", least),
            Variadic::UpTo(more) if found > least + usize::from(more) => {
                ("at most ", least + usize::from(more))
            }
            _ => return,
        };
        let name = quoted(node.function.name);
        self.error(node.span, format!("expected {bound}{wanted} argument(s) in call to {name}, got {found}"));
    }

    /// The second argument of `info()`: matchers of labels only, which may all match the empty string.
    fn info(&mut self, node: &mut Call) {
        let span = node.span;
        let Some(selector) = node.args.get_mut(1) else { return };
        let found = selector.value_type();
        if found != ValueType::Vector {
            self.wrong_type(span, ValueType::Vector, "call to function \"info\"", found);
        }
        match selector {
            Expr::Vector(VectorSelector { name: Some(_), span, .. }) => {
                let span = *span;
                self.error(span, "expected label selectors only, got vector selector instead");
            }
            Expr::Vector(selector) => selector.allow_empty = true,
            other => {
                let span = other.span();
                self.error(span, "expected label selectors only");
            }
        }
    }

    /// A selector: one name, and not every series there is.
    fn selector(&mut self, node: &VectorSelector) {
        if let Some(name) = &node.name {
            let inside = node.matchers.split_last().map_or(&[][..], |(_, inside)| inside);
            for matcher in inside.iter().filter(|matcher| matcher.name == NAME_LABEL) {
                let (name, other) = (quoted(name), quoted(&matcher.value));
                self.error(node.span, format!("metric name must not be set twice: {name} or {other}"));
            }
        } else if !node.allow_empty && may_match_all(&node.matchers) {
            self.error(node.span, "vector selector must contain at least one non-empty matcher");
        }
    }
}
