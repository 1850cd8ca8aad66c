//! A tree as one line.

use telemetry_model::{MatchOp, Matcher};

use super::{general, plain};
use crate::ast::{
    Aggregate, At, Binary, Cardinality, DurationExpr, DurationKind, DurationOp, DurationValue, Expr,
    Extended, Nanos, NumberLiteral, Sign, Subquery, VectorMatching, VectorSelector,
};
use crate::lexer::print_duration;
use crate::quote::{push_quoted, quoted};

/// Appends an expression.
pub(super) fn expr(out: &mut String, node: &Expr) {
    match node {
        Expr::Number(node) => number(out, node),
        Expr::String(node) => string(out, &node.value),
        Expr::Vector(node) => {
            selector(out, node);
            at(out, node.at);
            extended(out, node.extended);
            offset(out, node.offset.as_ref());
        }
        Expr::Matrix(node) => {
            selector(out, &node.selector);
            out.push('[');
            duration_value(out, &node.range);
            out.push(']');
            extended(out, node.selector.extended);
            at(out, node.selector.at);
            offset(out, node.selector.offset.as_ref());
        }
        Expr::Subquery(node) => {
            expr(out, &node.expr);
            subquery_suffix(out, node);
        }
        Expr::Unary(node) => {
            out.push_str(node.sign.symbol());
            expr(out, &node.expr);
        }
        Expr::Binary(node) => {
            expr(out, &node.lhs);
            out.push(' ');
            operator(out, node);
            out.push(' ');
            expr(out, &node.rhs);
        }
        Expr::Aggregate(node) => {
            aggregator(out, node);
            out.push('(');
            if let Some(param) = &node.param {
                expr(out, param);
                out.push_str(", ");
            }
            expr(out, &node.expr);
            out.push(')');
        }
        Expr::Call(node) => {
            out.push_str(node.function.name);
            out.push('(');
            for (at, arg) in node.args.iter().enumerate() {
                if at > 0 {
                    out.push_str(", ");
                }
                expr(out, arg);
            }
            out.push(')');
        }
        Expr::Paren(node) => {
            out.push('(');
            expr(out, &node.expr);
            out.push(')');
        }
    }
}

/// Appends a number.
fn number(out: &mut String, node: &NumberLiteral) {
    if !node.is_duration {
        return out.push_str(&plain(node.value));
    }
    // As in Prometheus cut, not rounded, to whole nanoseconds.
    #[expect(clippy::cast_possible_truncation, reason = "durations are read from whole nanoseconds")]
    let nanos = (node.value.abs() * 1e9) as i64;
    if node.value < 0.0 {
        out.push('-');
    }
    out.push_str(&print_duration(Nanos(nanos)));
}

/// Appends text in quotes. The lexer takes U+FFFD for broken UTF-8, so it is escaped.
fn string(out: &mut String, text: &str) {
    if text.contains(char::REPLACEMENT_CHARACTER) {
        out.push_str(&quoted(text).replace(char::REPLACEMENT_CHARACTER, "\\ufffd"));
    } else {
        push_quoted(out, text);
    }
}

/// Appends name and matchers.
fn selector(out: &mut String, node: &VectorSelector) {
    let name = node.name.as_deref().unwrap_or_default();
    out.push_str(name);
    let is_name = |matcher: &Matcher| {
        matcher.name == "__name__"
            && matcher.op == MatchOp::Equal
            && matcher.value == name
            && !name.is_empty()
    };
    let mut matchers: Vec<String> =
        node.matchers.iter().filter(|matcher| !is_name(matcher)).map(print_matcher).collect();
    if matchers.is_empty() {
        return;
    }
    matchers.sort_unstable();
    out.push('{');
    out.push_str(&matchers.join(","));
    out.push('}');
}

/// One matcher.
fn print_matcher(matcher: &Matcher) -> String {
    let mut out = String::new();
    label(&mut out, &matcher.name);
    out.push_str(matcher.op.symbol());
    string(&mut out, &matcher.value);
    out
}

/// Appends a label's name, in quotes if it needs them.
fn label(out: &mut String, name: &str) {
    let classic = name.bytes().all(|byte| byte == b'_' || byte.is_ascii_alphanumeric())
        && name.bytes().next().is_some_and(|first| !first.is_ascii_digit());
    if classic { out.push_str(name) } else { string(out, name) }
}

/// Appends labels in parentheses.
fn labels(out: &mut String, names: &[String]) {
    out.push('(');
    for (at, name) in names.iter().enumerate() {
        if at > 0 {
            out.push_str(", ");
        }
        label(out, name);
    }
    out.push(')');
}

/// Appends an aggregator with its labels.
pub(super) fn aggregator(out: &mut String, node: &Aggregate) {
    out.push_str(node.op.name());
    if !node.without && node.grouping.is_empty() {
        return;
    }
    out.push_str(if node.without { " without " } else { " by " });
    labels(out, &node.grouping);
    out.push(' ');
}

/// Appends a binary operator with its modifiers.
pub(super) fn operator(out: &mut String, node: &Binary) {
    out.push_str(node.op.symbol());
    if node.return_bool {
        out.push_str(" bool");
    }
    if let Some(matching) = &node.matching {
        matching_modifiers(out, matching);
    }
}

/// Appends how vectors match.
fn matching_modifiers(out: &mut String, matching: &VectorMatching) {
    let grouped = matches!(matching.cardinality, Cardinality::ManyToOne | Cardinality::OneToMany);
    if !matching.labels.is_empty() || matching.on || grouped {
        out.push_str(if matching.on { " on " } else { " ignoring " });
        labels(out, &matching.labels);
    }
    if grouped {
        let left = matching.cardinality == Cardinality::ManyToOne;
        out.push_str(if left { " group_left " } else { " group_right " });
        labels(out, &matching.include);
    }
    match (matching.fill_left, matching.fill_right) {
        (Some(left), Some(right)) if left == right => out.push_str(&format!(" fill ({})", general(left))),
        (left, right) => {
            for (name, value) in [("fill_left", left), ("fill_right", right)] {
                if let Some(value) = value {
                    out.push_str(&format!(" {name} ({})", general(value)));
                }
            }
        }
    }
}

/// Appends `[range:step]` and the modifiers.
pub(super) fn subquery_suffix(out: &mut String, node: &Subquery) {
    out.push('[');
    duration_value(out, &node.range);
    out.push(':');
    if let Some(step) = &node.step {
        duration_value(out, step);
    }
    out.push(']');
    at(out, node.at);
    offset(out, node.offset.as_ref());
}

/// Appends `@` and its time.
fn at(out: &mut String, at: Option<At>) {
    match at {
        None => {}
        Some(At::Start) => out.push_str(" @ start()"),
        Some(At::End) => out.push_str(" @ end()"),
        Some(At::Timestamp(millis)) => {
            #[expect(clippy::cast_precision_loss, reason = "as Prometheus prints it")]
            let seconds = millis as f64 / 1000.0;
            out.push_str(&format!(" @ {seconds:.3}"));
        }
    }
}

/// Appends `anchored` or `smoothed`.
fn extended(out: &mut String, extended: Option<Extended>) {
    if let Some(extended) = extended {
        out.push(' ');
        out.push_str(extended.name());
    }
}

/// Appends `offset` and its length.
fn offset(out: &mut String, value: Option<&DurationValue>) {
    if let Some(value) = value {
        out.push_str(" offset ");
        duration_value(out, value);
    }
}

/// Appends a length of time.
fn duration_value(out: &mut String, value: &DurationValue) {
    match value {
        DurationValue::Fixed(nanos) => out.push_str(&print_duration(*nanos)),
        DurationValue::Expr(node) => duration(out, node),
    }
}

/// Appends an expression of lengths of time.
pub(super) fn duration(out: &mut String, node: &DurationExpr) {
    if node.wrapped {
        out.push('(');
    }
    match &node.kind {
        DurationKind::Number(node) => number(out, node),
        DurationKind::Step => out.push_str("step()"),
        DurationKind::Range => out.push_str("range()"),
        DurationKind::Unary(sign, operand) => {
            if *sign == Sign::Minus {
                out.push('-');
            }
            duration(out, operand);
        }
        DurationKind::Binary(op @ (DurationOp::MinOf | DurationOp::MaxOf), lhs, rhs) => {
            out.push_str(op.symbol());
            out.push('(');
            duration(out, lhs);
            out.push_str(", ");
            duration(out, rhs);
            out.push(')');
        }
        DurationKind::Binary(op, lhs, rhs) => {
            duration(out, lhs);
            out.push(' ');
            out.push_str(op.symbol());
            out.push(' ');
            duration(out, rhs);
        }
    }
    if node.wrapped {
        out.push(')');
    }
}

/// An expression on one line.
#[must_use]
pub(super) fn print(node: &Expr) -> String {
    let mut out = String::new();
    expr(&mut out, node);
    out
}
