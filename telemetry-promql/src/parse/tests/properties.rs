//! What holds for every text.

use proptest::prelude::*;

use super::*;
use crate::format::{json, pretty};

/// Pieces of queries, sensible and not.
const PIECES: &[&str] = &[
    "foo",
    "a:b",
    "sum",
    "topk",
    "by",
    "without",
    "on",
    "ignoring",
    "group_left",
    "fill",
    "fill_right",
    "bool",
    "offset",
    "@",
    "anchored",
    "smoothed",
    "start",
    "end",
    "step",
    "range",
    "min_of",
    "and",
    "or",
    "unless",
    "atan2",
    "inf",
    "(",
    ")",
    "{",
    "}",
    "[",
    "]",
    ",",
    ":",
    "=",
    "=~",
    "!~",
    "!=",
    "==",
    "<=",
    "</",
    ">/",
    "+",
    "-",
    "*",
    "/",
    "%",
    "^",
    "1",
    "5m",
    "0",
    "1e3",
    "0x1f",
    "5y1hs",
    "\"s\"",
    "'\\x41'",
    "`r`",
    "\"(\"",
    "rate",
    "info",
    "time",
    "label_join",
    "#c\n",
    " ",
    "$",
    "~",
    "ü",
    "\u{fffd}",
    "()",
    "[5m]",
    "[5m:1m]",
    "(foo)",
    "{a=\"b\"}",
    "foo[5m]",
    "sum(foo)",
    "@ start()",
];

/// Whatever the text: a tree that prints to a text with the same tree, or errors within the text.
fn holds(text: &str, options: &Options) {
    match parse(text, options) {
        Ok(expr) => {
            // Infinity is printed with a plus, as in Prometheus. Under `^` it is read as a sign of the whole power.
            if expr.to_string().contains("Inf ^") {
                return;
            }
            let line = again(text, &expr.to_string(), options);
            let lines = again(text, &pretty(&expr), options);
            assert_eq!(line.to_string(), expr.to_string(), "{text:?}");
            assert_eq!(pretty(&line), pretty(&expr), "{text:?}");
            assert_eq!(lines.to_string(), expr.to_string(), "{text:?}");
            assert_eq!(json(&line), json(&lines), "{text:?}");
            expr.walk(&mut |node| inside(text, node.span()));
        }
        Err(errors) => {
            assert!(!errors.all().is_empty(), "{text:?}");
            errors.all().iter().for_each(|error| inside(text, error.span));
        }
    }
}

/// The tree of what a tree was printed as.
fn again(text: &str, printed: &str, options: &Options) -> Expr {
    parse(printed, options).unwrap_or_else(|errors| panic!("{text:?} as {printed:?}: {errors}"))
}

/// A span is a part of the text.
fn inside(text: &str, span: Span) {
    assert!(span.start <= span.end && span.end as usize <= text.len(), "{span:?} of {text:?}");
}

/// Expressions that are well formed, and well typed more often than not.
fn expressions() -> impl Strategy<Value = String> {
    let leaf = prop::sample::select(vec![
        "foo",
        "{a=\"b\"}",
        "foo{a=~\"b.*\",\"c d\"!=\"e\"}",
        "1",
        "-0.5",
        "5m",
        "time()",
        "foo offset 5m",
        "foo @ 1.5",
        "foo offset -(step() + 5m) @ end()",
        "sum(foo) by (a, \"b c\")",
        "rate(foo[5m] smoothed)",
        "0x1f",
        "step() + 1",
        "rate(foo[min_of(5m, range()) * 2] offset 1h)",
        "foo[5m] @ start()",
        "\"s\\n\"",
        "foo anchored @ 7",
    ])
    .prop_map(str::to_owned);
    leaf.prop_recursive(6, 40, 3, |inner| {
        let operator = prop::sample::select(vec![
            "+",
            "- ignoring (a)",
            "* on (a) group_left (b)",
            "/ on () group_right",
            "^",
            "% fill (1)",
            "atan2",
            "==",
            "< bool",
            ">= bool on (a) fill_left (-1) fill_right (2e-7)",
            "and",
            "or on (\"x y\")",
            "unless",
            "</",
            ">/",
        ]);
        let around = prop::sample::select(vec![
            "(§)",
            "-§",
            "+§",
            "sum(§)",
            "avg without (a) (§)",
            "topk by (a) (2, §)",
            "abs(§)",
            "count_values(\"v\", §)",
            "max_over_time((§)[1h:])",
            "(§)[1h:step() ^ 2] offset 1m @ 3",
            "label_replace(§, \"a\", \"$1\", \"b\", \"(.*)\")",
            "info(§, {a=~\".*\"})",
            "quantile(scalar(§), foo)",
            "§[5m:1m]",
        ]);
        prop_oneof![
            (inner.clone(), operator, inner.clone()).prop_map(|(lhs, op, rhs)| format!("{lhs} {op} {rhs}")),
            (around, inner).prop_map(|(around, inner)| around.replace('§', &inner)),
        ]
    })
}

proptest! {
    #[test]
    fn well_formed_queries_print_what_they_say(text in expressions()) {
        holds(&text, &Options::all());
    }

    #[test]
    fn no_tokens_break_the_parser(pieces in prop::collection::vec(prop::sample::select(PIECES), 0..14), space: bool) {
        let text = pieces.join(if space { " " } else { "" });
        holds(&text, &Options::all());
        holds(&text, &Options::stable());
    }

    #[test]
    fn no_text_breaks_the_parser(text in any::<String>()) {
        holds(&text, &Options::all());
        let _ = parse_selector(&text, &Options::all());
    }

    #[test]
    fn no_strings_break_the_parser(text in "[\"'`\\\\a-fA-FxuU0-9{}=~!,. \n\u{fffd}ü]{0,24}") {
        holds(&text, &Options::all());
    }

    #[test]
    fn no_numbers_break_the_parser(text in "[-+0-9a-fxXsmhdwy._eE\\[\\]:() ]{0,16}") {
        holds(&text, &Options::all());
        holds(&format!("foo[{text}]"), &Options::all());
        holds(&format!("foo offset {text}"), &Options::all());
    }
}
