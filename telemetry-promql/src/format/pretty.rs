//! A tree as text whose long parts are split over lines.

use super::line;
use crate::ast::Expr;

/// The longest part, in bytes, that stays on one line.
const LINE_BYTES: usize = 100;

/// An expression over as many lines as it needs, as Prometheus' `format_query` answers.
#[must_use]
pub fn pretty(node: &Expr) -> String {
    at_level(node, 0)
}

/// An expression, indented by two spaces a level.
fn at_level(node: &Expr, level: usize) -> String {
    let indent = "  ".repeat(level);
    let whole = line::print(node);
    if let Expr::Unary(node) = node {
        let operand = at_level(&node.expr, level);
        return format!("{indent}{}{}", node.sign.symbol(), operand.trim());
    }
    let fits = whole.len() <= LINE_BYTES;
    match node {
        Expr::Subquery(_) if fits => whole,
        Expr::Subquery(node) => {
            let mut out = at_level(&node.expr, level);
            line::subquery_suffix(&mut out, node);
            out
        }
        _ if fits => format!("{indent}{whole}"),
        Expr::Aggregate(node) => {
            let mut out = indent.clone();
            line::aggregator(&mut out, node);
            out.push_str("(\n");
            if let Some(param) = &node.param {
                out.push_str(&at_level(param, level + 1));
                out.push_str(",\n");
            }
            out.push_str(&at_level(&node.expr, level + 1));
            format!("{out}\n{indent})")
        }
        Expr::Binary(node) => {
            let (lhs, rhs) = (at_level(&node.lhs, level + 1), at_level(&node.rhs, level + 1));
            let mut operator = String::new();
            line::operator(&mut operator, node);
            format!("{lhs}\n{indent}{operator}\n{rhs}")
        }
        Expr::Call(node) => {
            let args: Vec<String> = node.args.iter().map(|arg| at_level(arg, level + 1)).collect();
            format!("{indent}{}(\n{}\n{indent})", node.function.name, args.join(",\n"))
        }
        Expr::Paren(node) => format!("{indent}(\n{}\n{indent})", at_level(&node.expr, level + 1)),
        Expr::Number(_) | Expr::String(_) | Expr::Vector(_) | Expr::Matrix(_) | Expr::Unary(_) => {
            format!("{indent}{whole}")
        }
    }
}
