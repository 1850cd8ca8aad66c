//! Regular expressions of matchers: whether they are well formed, and whether they match nothing at all.
//!
//! The language is RE2's as Go has it. The `regex` crate knows a superset; what only it knows is refused here, so that a
//! query that works here works in Prometheus, too.

use regex::RegexBuilder;
use telemetry_model::{MatchOp, Matcher};

/// The most bytes a compiled expression may have.
const COMPILED_BYTES: usize = 1 << 20;

/// How deep groups may nest. RE2 allows 1000; the parser of ours recurses.
const NESTING: u32 = 100;

/// Whether the expression is well formed; the error's text if not.
pub(crate) fn check(pattern: &str) -> Result<(), String> {
    let anchored = format!("^(?s:{pattern})$");
    regex_syntax::ParserBuilder::new()
        .nest_limit(NESTING)
        .build()
        .parse(&anchored)
        .map(|_| ())
        .map_err(|error| describe(&error, &anchored))
}

/// The error as Go has it, as far as the kinds agree.
fn describe(error: &regex_syntax::Error, anchored: &str) -> String {
    let (reason, part) = match error {
        regex_syntax::Error::Parse(error) => reason(error, anchored),
        regex_syntax::Error::Translate(error) => (error.kind().to_string(), anchored),
        _ => ("invalid expression".to_owned(), anchored),
    };
    format!("error parsing regexp: {reason}: `{part}`")
}

/// The reason and the part of the expression that it speaks of.
fn reason<'a>(error: &regex_syntax::ast::Error, anchored: &'a str) -> (String, &'a str) {
    use regex_syntax::ast::ErrorKind;
    let span = error.span();
    let from_start = anchored.get(span.start.offset..).unwrap_or(anchored);
    let part = anchored.get(span.start.offset..span.end.offset).unwrap_or(anchored);
    let (reason, part) = match error.kind() {
        ErrorKind::GroupUnclosed => ("missing closing )", anchored),
        ErrorKind::GroupUnopened => ("unexpected )", anchored),
        ErrorKind::ClassUnclosed => ("missing closing ]", from_start),
        ErrorKind::ClassRangeInvalid => ("invalid character class range", part),
        ErrorKind::RepetitionMissing => ("missing argument to repetition operator", part),
        ErrorKind::EscapeUnexpectedEof => ("trailing backslash at end of expression", ""),
        ErrorKind::EscapeUnrecognized => ("invalid escape sequence", part),
        other => return (other.to_string(), part),
    };
    (reason.to_owned(), part)
}

/// Whether a label that is not there passes.
pub(crate) fn matches_empty(matcher: &Matcher) -> bool {
    let matches = match matcher.op {
        MatchOp::Equal | MatchOp::NotEqual => matcher.value.is_empty(),
        MatchOp::Regex | MatchOp::NotRegex => RegexBuilder::new(&matcher.anchored())
            .size_limit(COMPILED_BYTES)
            .build()
            .is_ok_and(|regex| regex.is_match("")),
    };
    matches == matches!(matcher.op, MatchOp::Equal | MatchOp::Regex)
}
