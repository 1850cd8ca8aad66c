//! A tree as JSON, the form that `parse_query` answers and tree views read.
//!
//! Keys are sorted, as Prometheus' are. Written by hand: it is one small document of fixed shape.

use telemetry_model::Matcher;

use super::plain;
use crate::ast::{
    At, DurationExpr, DurationKind, DurationValue, Expr, Extended, Nanos, VectorMatching, VectorSelector,
};
use crate::functions::Function;

/// An expression as JSON.
#[must_use]
pub fn json(node: &Expr) -> String {
    let mut out = String::new();
    expr(&mut out, node);
    out
}

/// Appends an expression.
fn expr(out: &mut String, node: &Expr) {
    let mut object = Object::new(out);
    match node {
        Expr::Number(node) => object.text("type", "numberLiteral").text("val", &plain(node.value)),
        Expr::String(node) => object.text("type", "stringLiteral").text("val", &node.value),
        Expr::Paren(node) => object.with("expr", |out| expr(out, &node.expr)).text("type", "parenExpr"),
        Expr::Unary(node) => object
            .with("expr", |out| expr(out, &node.expr))
            .text("op", node.sign.symbol())
            .text("type", "unaryExpr"),
        Expr::Vector(node) => selector(&mut object, node, None).text("type", "vectorSelector"),
        Expr::Matrix(node) => {
            selector(&mut object, &node.selector, Some(&node.range)).text("type", "matrixSelector")
        }
        Expr::Subquery(node) => object
            .with("expr", |out| expr(out, &node.expr))
            .duration("offset", node.offset.as_ref())
            .duration("range", Some(&node.range))
            .with("startOrEnd", |out| start_or_end(out, node.at))
            .duration("step", node.step.as_ref())
            .with("timestamp", |out| timestamp(out, node.at))
            .text("type", "subquery"),
        Expr::Binary(node) => object
            .raw("bool", &node.return_bool.to_string())
            .with("lhs", |out| expr(out, &node.lhs))
            .with("matching", |out| matching(out, node.matching.as_ref()))
            .text("op", node.op.symbol())
            .with("rhs", |out| expr(out, &node.rhs))
            .text("type", "binaryExpr"),
        Expr::Aggregate(node) => object
            .with("expr", |out| expr(out, &node.expr))
            .with("grouping", |out| texts(out, &node.grouping))
            .text("op", node.op.name())
            .with("param", |out| match &node.param {
                Some(param) => expr(out, param),
                None => out.push_str("null"),
            })
            .text("type", "aggregation")
            .raw("without", &node.without.to_string()),
        Expr::Call(node) => object
            .with("args", |out| list(out, &node.args, expr))
            .with("func", |out| function(out, node.function))
            .text("type", "call"),
    };
    object.end();
}

/// Appends the fields of a selector, with a range or without.
fn selector<'a, 'b>(
    object: &'a mut Object<'b>,
    node: &VectorSelector,
    range: Option<&DurationValue>,
) -> &'a mut Object<'b> {
    object
        .raw("anchored", if node.extended == Some(Extended::Anchored) { "true" } else { "false" })
        .with("matchers", |out| list(out, &node.matchers, matcher))
        .text("name", node.name.as_deref().unwrap_or_default())
        .duration("offset", node.offset.as_ref());
    if range.is_some() {
        object.duration("range", range);
    }
    object
        .raw("smoothed", if node.extended == Some(Extended::Smoothed) { "true" } else { "false" })
        .with("startOrEnd", |out| start_or_end(out, node.at))
        .with("timestamp", |out| timestamp(out, node.at))
}

/// Appends a matcher.
fn matcher(out: &mut String, node: &Matcher) {
    Object::new(out).text("name", &node.name).text("type", node.op.symbol()).text("value", &node.value).end();
}

/// Appends what a function takes and answers.
fn function(out: &mut String, node: &Function) {
    Object::new(out)
        .with("argTypes", |out| list(out, node.args, |out, arg| text(out, arg.name())))
        .text("name", node.name)
        .text("returnType", node.returns.name())
        .raw("variadic", &node.variadic.number().to_string())
        .end();
}

/// Appends how vectors match.
fn matching(out: &mut String, node: Option<&VectorMatching>) {
    let Some(node) = node else { return out.push_str("null") };
    Object::new(out)
        .text("card", node.cardinality.name())
        .with("fillValues", |out| {
            Object::new(out).number("lhs", node.fill_left).number("rhs", node.fill_right).end();
        })
        .with("include", |out| texts(out, &node.include))
        .with("labels", |out| texts(out, &node.labels))
        .raw("on", &node.on.to_string())
        .end();
}

/// Appends an expression of lengths of time.
fn duration(out: &mut String, node: &DurationExpr) {
    let mut object = Object::new(out);
    let (op, lhs, rhs) = match &node.kind {
        DurationKind::Number(number) => {
            object
                .raw("duration", &number.is_duration.to_string())
                .text("type", "numberLiteral")
                .text("val", &plain(number.value));
            return object.end();
        }
        DurationKind::Step => ("step", None, None),
        DurationKind::Range => ("range", None, None),
        DurationKind::Unary(sign, operand) => (sign.symbol(), None, Some(operand)),
        DurationKind::Binary(op, lhs, rhs) => (op.symbol(), Some(lhs), Some(rhs)),
    };
    let side = |out: &mut String, node: Option<&DurationExpr>| match node {
        Some(node) => duration(out, node),
        None => out.push_str("null"),
    };
    object
        .with("lhs", |out| side(out, lhs.map(Box::as_ref)))
        .text("op", op)
        .with("rhs", |out| side(out, rhs.map(Box::as_ref)))
        .text("type", "durationExpr")
        .raw("wrapped", &node.wrapped.to_string())
        .end();
}

/// Appends the time of `@`, in milliseconds.
fn timestamp(out: &mut String, at: Option<At>) {
    match at {
        Some(At::Timestamp(millis)) => out.push_str(&millis.to_string()),
        _ => out.push_str("null"),
    }
}

/// Appends the name of `@`'s function.
fn start_or_end(out: &mut String, at: Option<At>) {
    match at {
        Some(At::Start) => text(out, "start"),
        Some(At::End) => text(out, "end"),
        _ => out.push_str("null"),
    }
}

/// Appends an array of text.
fn texts(out: &mut String, items: &[String]) {
    list(out, items, |out, item| text(out, item));
}

/// Appends an array.
fn list<T>(out: &mut String, items: &[T], mut write: impl FnMut(&mut String, &T)) {
    out.push('[');
    for (at, item) in items.iter().enumerate() {
        if at > 0 {
            out.push(',');
        }
        write(out, item);
    }
    out.push(']');
}

/// Appends text in quotes.
fn text(out: &mut String, text: &str) {
    out.push('"');
    for character in text.chars() {
        match character {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\0'..' ' => out.push_str(&format!("\\u{:04x}", u32::from(character))),
            _ => out.push(character),
        }
    }
    out.push('"');
}

/// An object that is being written.
struct Object<'a> {
    out: &'a mut String,
    /// What comes before the next field.
    before: char,
}

// === impl Object ===

impl<'a> Object<'a> {
    /// An object without fields.
    fn new(out: &'a mut String) -> Self {
        Self { out, before: '{' }
    }

    /// A field, whose value `write` appends.
    fn with(&mut self, key: &str, write: impl FnOnce(&mut String)) -> &mut Self {
        self.out.push(self.before);
        self.before = ',';
        text(self.out, key);
        self.out.push(':');
        write(self.out);
        self
    }

    /// A field of text.
    fn text(&mut self, key: &str, value: &str) -> &mut Self {
        self.with(key, |out| text(out, value))
    }

    /// A field whose value is JSON already.
    fn raw(&mut self, key: &str, value: &str) -> &mut Self {
        self.with(key, |out| out.push_str(value))
    }

    /// A number, or null. JSON has no infinity, nor what is no number: they are null, too.
    fn number(&mut self, key: &str, value: Option<f64>) -> &mut Self {
        let printed = value.filter(|value| value.is_finite()).map_or_else(|| "null".to_owned(), plain);
        self.raw(key, &printed)
    }

    /// A length of time in milliseconds, and beside it the expression if it is one; then the milliseconds are 0.
    fn duration(&mut self, key: &str, value: Option<&DurationValue>) -> &mut Self {
        let (nanos, expr) = match value {
            Some(DurationValue::Fixed(nanos)) => (*nanos, None),
            Some(DurationValue::Expr(expr)) => (Nanos(0), Some(expr)),
            None => (Nanos(0), None),
        };
        self.raw(key, &nanos.millis().to_string());
        self.with(&format!("{key}Expr"), |out| match expr {
            Some(expr) => duration(out, expr),
            None => out.push_str("null"),
        })
    }

    /// Closes it.
    fn end(&mut self) {
        if self.before == '{' {
            self.out.push('{');
        }
        self.out.push('}');
    }
}
