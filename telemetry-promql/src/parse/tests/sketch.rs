//! A tree as short text for tables of tests.

use crate::ast::{Binary, DurationExpr, DurationKind, DurationValue, Expr, Span, VectorSelector};
use crate::lexer::print_duration;

/// Each node with the part of the query it spans in `‹›`: `add‹a + b›(vector‹a›, vector‹b›)`.
pub(super) fn sketch(expr: &Expr, query: &str) -> String {
    let text = |span: Span| format!("‹{}›", query.get(span.start as usize..span.end as usize).unwrap_or("?"));
    draw(expr, &text)
}

/// Each node without its span, parentheses left out.
pub(super) fn shape(expr: &Expr) -> String {
    draw(expr.unwrap_paren(), &|_| String::new())
}

fn draw(expr: &Expr, text: &dyn Fn(Span) -> String) -> String {
    let at = text(expr.span());
    let inner = |expr: &Expr| {
        let shown = if at.is_empty() { expr.unwrap_paren() } else { expr };
        draw(shown, text)
    };
    match expr {
        Expr::Number(node) if node.is_duration => format!("duration{at}({})", node.value),
        Expr::Number(node) => format!("number{at}({})", node.value),
        Expr::String(node) => format!("string{at}({:?})", node.value),
        Expr::Vector(node) => format!("vector{at}({})", selector(node)),
        Expr::Matrix(node) => {
            let (of, range) = (text(node.selector.span), value(&node.range));
            format!("matrix{at}({of}{}, {range})", selector(&node.selector))
        }
        Expr::Subquery(node) => {
            let mut out = format!("subquery{at}({}, {}", inner(&node.expr), value(&node.range));
            out += &node.step.as_ref().map(|step| format!(", {}", value(step))).unwrap_or_default();
            out +=
                &node.offset.as_ref().map(|offset| format!(", offset {}", value(offset))).unwrap_or_default();
            out += &node.at.map(|at| format!(", @{at:?}")).unwrap_or_default();
            out + ")"
        }
        Expr::Unary(node) => format!("{}{at}({})", node.sign.symbol(), inner(&node.expr)),
        Expr::Binary(node) => format!("{}{at}({}, {})", operator(node), inner(&node.lhs), inner(&node.rhs)),
        Expr::Aggregate(node) => {
            let mut args: Vec<String> = node.param.iter().map(|param| inner(param)).collect();
            args.push(inner(&node.expr));
            let by = if node.without { "without" } else { "by" };
            let labels = if node.grouping.is_empty() && !node.without {
                String::new()
            } else {
                format!(" {by} {:?}", node.grouping)
            };
            format!("{}{labels}{at}({})", node.op.name(), args.join(", "))
        }
        Expr::Call(node) => {
            let args: Vec<String> = node.args.iter().map(inner).collect();
            format!("{}{at}({})", node.function.name, args.join(", "))
        }
        Expr::Paren(node) => format!("paren{at}({})", inner(&node.expr)),
    }
}

fn operator(node: &Binary) -> String {
    let mut out = node.op.symbol().to_owned();
    if node.return_bool {
        out += " bool";
    }
    let Some(matching) = &node.matching else { return out };
    out += &format!(" {}", matching.cardinality.name());
    if matching.on || !matching.labels.is_empty() {
        out += &format!(" {} {:?}", if matching.on { "on" } else { "ignoring" }, matching.labels);
    }
    if !matching.include.is_empty() {
        out += &format!(" include {:?}", matching.include);
    }
    if matching.fill_left.is_some() || matching.fill_right.is_some() {
        out += &format!(" fill {:?} {:?}", matching.fill_left, matching.fill_right);
    }
    out
}

fn selector(node: &VectorSelector) -> String {
    let matchers: Vec<String> = node
        .matchers
        .iter()
        .map(|found| format!("{}{}{:?}", found.name, found.op.symbol(), found.value))
        .collect();
    let mut out = matchers.join(",");
    out += &node.extended.map(|extended| format!(" {}", extended.name())).unwrap_or_default();
    out += &node.offset.as_ref().map(|offset| format!(" offset {}", value(offset))).unwrap_or_default();
    out += &node.at.map(|at| format!(" @{at:?}")).unwrap_or_default();
    out + if node.allow_empty { " may be empty" } else { "" }
}

fn value(value: &DurationValue) -> String {
    match value {
        DurationValue::Fixed(nanos) => print_duration(*nanos),
        DurationValue::Expr(expr) => duration(expr),
    }
}

fn duration(node: &DurationExpr) -> String {
    let drawn = match &node.kind {
        DurationKind::Number(number) => format!("{}", number.value),
        DurationKind::Step => "step".to_owned(),
        DurationKind::Range => "range".to_owned(),
        DurationKind::Unary(sign, operand) => format!("{}{}", sign.symbol(), duration(operand)),
        DurationKind::Binary(op, lhs, rhs) => {
            format!("[{} {} {}]", duration(lhs), op.symbol(), duration(rhs))
        }
    };
    if node.wrapped { format!("({drawn})") } else { drawn }
}
