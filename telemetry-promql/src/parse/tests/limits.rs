//! No query is too large for the stack.

use super::*;

/// Everything on, limits as changed.
fn with(change: impl Fn(&mut Limits)) -> Options {
    let mut options = Options::all();
    change(&mut options.limits);
    options
}

/// The query has this one error.
fn refused(query: &str, options: &Options, message: &str) {
    let errors = parse(query, options).unwrap_err();
    let first = errors.to_string();
    assert!(first.ends_with(message), "{first}");
}

#[test]
fn the_text_is_bounded() {
    let options = with(|limits| limits.text_bytes = 5);
    assert!(parse("a + b", &options).is_ok());
    refused("a + bb", &options, "query is 6 bytes long, at most 5 are allowed");
    refused(
        &"(".repeat(1_000_000),
        &Options::all(),
        "query is 1000000 bytes long, at most 16384 are allowed",
    );
}

#[test]
fn nesting_is_bounded() {
    let nested = |open: &str, close: &str, depth: usize| open.repeat(depth) + "a" + &close.repeat(depth);
    for (open, close) in [("(", ")"), ("abs(", ")"), ("sum by (b) (", ")"), ("-", ""), ("2 ^ ", "")] {
        assert!(parse(&nested(open, close, 63), &Options::all()).is_ok(), "{open}");
        refused(
            &nested(open, close, 65),
            &Options::all(),
            "query is nested too deep, at most 64 levels are allowed",
        );
    }
    for (open, close) in [("(", ")"), ("-", ""), ("min_of(1, ", ")"), ("step() ^ ", "")] {
        let query = |depth| format!("a[{}5m{}]", open.repeat(depth), close.repeat(depth));
        parse(&query(60), &Options::all()).unwrap();
        refused(&query(65), &Options::all(), "query is nested too deep, at most 64 levels are allowed");
    }
}

#[test]
fn no_depth_exhausts_the_stack() {
    let options = with(|limits| {
        limits.text_bytes = usize::MAX;
        limits.nesting = usize::MAX;
        limits.height = usize::MAX;
    });
    for unit in ["(", "-", "abs(", "sum(", "2^", "a[", "a[(", "a offset -(", "{", "a+", "a offset (1+"] {
        assert!(parse(&unit.repeat(1_000_000), &options).is_err(), "{unit}");
    }
    for unit in ["+a", " or a", "[1m:]", " offset 1m", ",a"] {
        assert!(parse(&("a".to_owned() + &unit.repeat(100_000)), &options).is_err(), "{unit}");
    }
    let duration = format!("a[1{}]", "+1".repeat(100_000));
    assert!(parse(&duration, &options).is_err(), "a long sum of durations");
}

#[test]
fn the_deepest_permitted_tree_can_be_printed_and_dropped() {
    let options = with(|limits| {
        limits.nesting = Limits::MOST_NESTING;
        limits.height = Limits::MOST_HEIGHT;
    });
    let deep = Limits::MOST_NESTING - 1;
    let nested = "(".repeat(deep) + "a" + &")".repeat(deep);
    let long = vec!["a"; Limits::MOST_HEIGHT - 1].join(" + ");
    for query in [nested, long] {
        let expr = parse(&query, &options).unwrap();
        assert_eq!(expr.to_string(), query);
        assert!(crate::format::json(&expr).len() > query.len());
    }
}

#[test]
fn chains_are_bounded() {
    let chain = |length: usize| vec!["a"; length].join(" or ");
    assert!(parse(&chain(128), &Options::all()).is_ok());
    let message = "query has too many parts in a row or in each other, at most 128 are allowed";
    refused(&chain(129), &Options::all(), message);
    refused(&format!("a[1{}]", "+1".repeat(128)), &Options::all(), message);
}

#[test]
fn matchers_and_expressions_are_bounded() {
    let selector = |matcher: &str, count: usize| format!("a{{{}}}", vec![matcher; count].join(","));
    assert!(parse(&selector("b='c'", 64), &Options::all()).is_ok());
    refused(
        &selector("b='c'", 65),
        &Options::all(),
        "selector has too many matchers, at most 64 are allowed",
    );
    assert!(parse(&selector("b=~'c'", 32), &Options::all()).is_ok());
    let twice = format!("{} + {}", selector("b=~'c'", 20), selector("b!~'c'", 20));
    refused(&twice, &Options::all(), "query has too many regular expressions, at most 32 are allowed");
}
