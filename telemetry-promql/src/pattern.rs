//! Regular expressions of queries: whether they are well formed, compiled, and whether they match nothing at all.
//!
//! The language is RE2's as Go has it; [`telemetry_model::pattern`] puts it into the words of the `regex` crate. Every
//! expression of a query is compiled here, so that each has the same bounds.

use regex::{Captures, Regex, RegexBuilder};
use telemetry_model::pattern::{self, Expression};
use telemetry_model::{MatchOp, Matcher};

/// The most bytes a compiled expression may have: alternatives of a few hundred pods' names are a third of it.
const COMPILED_BYTES: usize = 1 << 20;

/// The most bytes that matching remembers of an expression, each way; it is slower with less, and not wrong.
const CACHE_BYTES: usize = 256 << 10;

/// How deep groups may nest. RE2 allows 1000; the parser of ours recurses.
const NESTING: u32 = 100;

/// An expression ready to run, and what its groups are called.
pub(crate) struct Pattern {
    regex: Regex,
    groups: Vec<Option<String>>,
}

/// Whether the expression is well formed; the error's text if not.
pub(crate) fn check(pattern: &str) -> Result<(), String> {
    let expression = pattern::translate(pattern).map_err(|error| error.to_string())?;
    regex_syntax::ParserBuilder::new()
        .nest_limit(NESTING)
        .build()
        .parse(&expression.text)
        .map(|_| ())
        .map_err(|error| describe(&error, &expression, pattern))
}

/// The error as Go has it. What is left to the crate are scripts that do not exist, and depth.
fn describe(error: &regex_syntax::Error, expression: &Expression, pattern: &str) -> String {
    use regex_syntax::{ast, hir};
    let (reason, part) = match error {
        regex_syntax::Error::Translate(error) => {
            let span = error.span();
            let part = expression.text.get(span.start.offset..span.end.offset).unwrap_or(pattern);
            match error.kind() {
                hir::ErrorKind::UnicodePropertyNotFound | hir::ErrorKind::UnicodePropertyValueNotFound => {
                    ("invalid character class range".to_owned(), part.replace("sc=", ""))
                }
                kind => (kind.to_string(), part.to_owned()),
            }
        }
        regex_syntax::Error::Parse(error) => {
            let reason = match error.kind() {
                ast::ErrorKind::NestLimitExceeded(_) => "expression nests too deeply".to_owned(),
                kind => kind.to_string(),
            };
            (reason, pattern.to_owned())
        }
        _ => ("invalid expression".to_owned(), pattern.to_owned()),
    };
    format!("error parsing regexp: {reason}: `{part}`")
}

/// Compiles an expression, anchored.
///
/// # Errors
/// If it is not well formed, or too large.
pub(crate) fn compile(pattern: &str) -> Result<Pattern, String> {
    let expression = pattern::translate(pattern).map_err(|error| error.to_string())?;
    let regex = RegexBuilder::new(&expression.anchored())
        .size_limit(COMPILED_BYTES)
        .dfa_size_limit(CACHE_BYTES)
        .nest_limit(NESTING + 8)
        .build()
        .map_err(|error| match error {
            regex::Error::CompiledTooBig(_) => {
                format!("error parsing regexp: expression too large: `{pattern}`")
            }
            // Whoever parsed the query has said it better.
            error => check(pattern).err().unwrap_or_else(|| error.to_string()),
        })?;
    Ok(Pattern { regex, groups: expression.groups })
}

/// Whether a label that is not there passes.
pub(crate) fn matches_empty(matcher: &Matcher) -> bool {
    let matches = match matcher.op {
        MatchOp::Equal | MatchOp::NotEqual => matcher.value.is_empty(),
        MatchOp::Regex | MatchOp::NotRegex => {
            compile(&matcher.value).is_ok_and(|pattern| pattern.is_match(""))
        }
    };
    matches == matches!(matcher.op, MatchOp::Equal | MatchOp::Regex)
}

// === impl Pattern ===

impl Pattern {
    /// Whether the whole text matches.
    pub fn is_match(&self, text: &str) -> bool {
        self.regex.is_match(text)
    }

    /// What the groups match, if the whole text matches.
    pub fn captures<'t>(&self, text: &'t str) -> Option<Captures<'t>> {
        self.regex.captures(text)
    }

    /// What the first group of this name matches that takes part; or, if the name is a number, the group of that number.
    pub fn group<'t>(&self, captures: &Captures<'t>, name: &str) -> &'t str {
        let is_number =
            name.bytes().all(|byte| byte.is_ascii_digit()) && (name == "0" || !name.starts_with('0'));
        let found = match name.parse::<usize>() {
            Ok(number) if is_number => captures.get(number),
            _ => {
                let named = self.groups.iter().zip(1..).filter(|(group, _)| group.as_deref() == Some(name));
                named.into_iter().find_map(|(_, number)| captures.get(number))
            }
        };
        found.map_or("", |found| found.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_are_worded_as_go_words_them() {
        let refused = |pattern: &str| check(pattern).unwrap_err();
        assert_eq!(refused("("), "error parsing regexp: missing closing ): `(`");
        assert_eq!(
            refused(r"a\p{Nobody}"),
            r"error parsing regexp: invalid character class range: `\p{Nobody}`"
        );
        let deep = format!("{}a{}", "(".repeat(200), ")".repeat(200));
        assert_eq!(refused(&deep), format!("error parsing regexp: expression nests too deeply: `{deep}`"));
        let large = r"(\pL{100}){10}";
        let error = compile(large).map(|_| ()).unwrap_err();
        assert_eq!(error, format!("error parsing regexp: expression too large: `{large}`"));
    }

    #[test]
    fn groups_are_found_by_number_and_by_name() {
        let pattern = compile("(?:(?P<a>x)|(?P<a>y))(?<1st>z)").unwrap();
        let captures = pattern.captures("yz").unwrap();
        for (name, expected) in
            [("0", "yz"), ("1", ""), ("2", "y"), ("a", "y"), ("1st", "z"), ("01", ""), ("9", ""), ("b", "")]
        {
            assert_eq!(pattern.group(&captures, name), expected, "{name}");
        }
    }

    #[test]
    fn an_absent_label_is_an_empty_one() {
        let passes = |op, value: &str| matches_empty(&Matcher::new("a", op, value));
        assert!(passes(MatchOp::Regex, "x?") && !passes(MatchOp::Regex, ".+"));
        assert!(passes(MatchOp::NotRegex, "x") && !passes(MatchOp::NotRegex, ".*"));
        assert!(passes(MatchOp::NotEqual, "x") && passes(MatchOp::Equal, ""));
    }
}
