//! Tables of queries: their trees with spans, or their errors with positions.

mod constructs;
mod errors;
mod limits;
mod properties;
mod reference;
mod sketch;

use super::*;
use sketch::sketch;

/// A query has a tree, sketched with the text of every node.
fn check(query: &str, expected: &str) {
    match parse(query, &Options::all()) {
        Ok(expr) => assert_eq!(sketch(&expr, query), expected, "{query}"),
        Err(errors) => panic!("{query}: {errors}"),
    }
}

/// A query means the same as another, whose tree it has but for spans and parentheses.
fn check_same(query: &str, other: &str) {
    let [one, two] = [query, other].map(|query| match parse(query, &Options::all()) {
        Ok(expr) => sketch::shape(&expr),
        Err(errors) => panic!("{query}: {errors}"),
    });
    assert_eq!(one, two, "{query} is {other}");
}

/// A query has these errors, each as `start-end message`; the first is printed with its line and column.
fn check_errors_with(options: &Options, query: &str, printed: &str, expected: &[&str]) {
    let errors = match parse(query, options) {
        Ok(expr) => panic!("{query} is {}", sketch(&expr, query)),
        Err(errors) => errors,
    };
    assert_eq!(errors.to_string(), printed, "{query}");
    let print = |error: &ParseError| format!("{}-{} {}", error.span.start, error.span.end, error.message);
    let found: Vec<String> = errors.all().iter().map(print).collect();
    assert_eq!(found, expected, "{query}");
}

/// As [`check_errors_with`], with one error and everything switched on.
fn check_error(query: &str, position: &str, span: &str, message: &str) {
    let printed = format!("{position}: parse error: {message}");
    check_errors_with(&Options::all(), query, &printed, &[&format!("{span} {message}")]);
}
