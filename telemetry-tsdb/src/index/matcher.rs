//! Matchers, compiled: what a value must be. Expressions that are a few literals never run as expressions.

use regex::{Regex, RegexBuilder};
use regex_syntax::hir::{Hir, HirKind};
use telemetry_model::{MatchOp, Matcher};

/// Memory a compiled expression may take.
const REGEX_BYTES_MAX: usize = 1 << 20;
/// How deep an expression may nest.
const REGEX_NEST_MAX: u32 = 100;
/// An expression is resolved to at most so many literal values.
const LITERALS_MAX: usize = 64;

/// A matcher that cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct MatcherError(String);

/// A matcher ready to run.
#[derive(Clone, Debug)]
pub struct CompiledMatcher {
    /// The label's name.
    pub name: String,
    /// Whether values that the test accepts are the ones not wanted.
    pub is_negative: bool,
    test: Test,
    matches_empty: bool,
}

#[derive(Clone, Debug)]
enum Test {
    /// One of these.
    OneOf(Vec<String>),
    /// Anything.
    Any,
    /// Anything but the empty value.
    NotEmpty,
    /// What begins so and matches.
    Regex(String, Regex),
}

/// Compiles all matchers of a selector.
///
/// # Errors
/// If an expression is malformed or too large.
pub fn compile(matchers: &[Matcher]) -> Result<Vec<CompiledMatcher>, MatcherError> {
    matchers.iter().map(CompiledMatcher::new).collect()
}

// === impl CompiledMatcher ===

impl CompiledMatcher {
    /// Compiles a matcher.
    ///
    /// # Errors
    /// If the expression is malformed or too large.
    pub fn new(matcher: &Matcher) -> Result<Self, MatcherError> {
        let is_negative = matches!(matcher.op, MatchOp::NotEqual | MatchOp::NotRegex);
        let test = match matcher.op {
            MatchOp::Equal | MatchOp::NotEqual => Test::OneOf(vec![matcher.value.clone()]),
            MatchOp::Regex | MatchOp::NotRegex => match matcher.value.as_str() {
                ".*" => Test::Any,
                ".+" => Test::NotEmpty,
                _ => expression(matcher)?,
            },
        };
        let mut compiled = Self { name: matcher.name.clone(), is_negative, test, matches_empty: false };
        compiled.matches_empty = compiled.matches("");
        Ok(compiled)
    }

    /// Whether a value is wanted.
    #[must_use]
    pub fn matches(&self, value: &str) -> bool {
        self.accepts(value) != self.is_negative
    }

    /// Whether a series without the label is wanted.
    #[must_use]
    pub fn matches_empty(&self) -> bool {
        self.matches_empty
    }

    /// The only values that the test accepts, if they are few and known.
    #[must_use]
    pub fn literals(&self) -> Option<&[String]> {
        match &self.test {
            Test::OneOf(values) => Some(values),
            _ => None,
        }
    }

    /// Whether the test accepts a value, before negation.
    #[must_use]
    pub fn accepts(&self, value: &str) -> bool {
        match &self.test {
            Test::OneOf(values) => values.iter().any(|known| known == value),
            Test::Any => true,
            Test::NotEmpty => !value.is_empty(),
            Test::Regex(prefix, regex) => value.starts_with(prefix.as_str()) && regex.is_match(value),
        }
    }
}

fn expression(matcher: &Matcher) -> Result<Test, MatcherError> {
    let expression = matcher.expression().map_err(|error| MatcherError(error.to_string()))?;
    let fail = |error: &dyn std::fmt::Display| {
        MatcherError(format!("error parsing regexp: {error}: `{}`", matcher.value))
    };
    let mut parser = regex_syntax::ParserBuilder::new();
    let hir = parser
        .nest_limit(REGEX_NEST_MAX)
        .dot_matches_new_line(true)
        .build()
        .parse(&expression.text)
        .map_err(|error| fail(&error))?;
    if let Some(values) = literals(&hir) {
        return Ok(Test::OneOf(values));
    }
    let regex = RegexBuilder::new(&expression.anchored())
        .size_limit(REGEX_BYTES_MAX)
        .nest_limit(REGEX_NEST_MAX + 8)
        .build()
        .map_err(|error| fail(&error))?;
    Ok(Test::Regex(prefix(&hir), regex))
}

/// All strings an expression stands for, if they are few.
fn literals(hir: &Hir) -> Option<Vec<String>> {
    match hir.kind() {
        HirKind::Empty => Some(vec![String::new()]),
        HirKind::Literal(literal) => Some(vec![String::from_utf8(literal.0.to_vec()).ok()?]),
        HirKind::Capture(capture) => literals(&capture.sub),
        HirKind::Alternation(parts) => {
            let mut all = Vec::new();
            for part in parts {
                all.extend(literals(part)?);
                if all.len() > LITERALS_MAX {
                    return None;
                }
            }
            Some(all)
        }
        HirKind::Concat(parts) => {
            let mut all = vec![String::new()];
            for part in parts {
                let tails = literals(part)?;
                if all.len() * tails.len() > LITERALS_MAX {
                    return None;
                }
                all = all
                    .iter()
                    .flat_map(|head| tails.iter().map(move |tail| format!("{head}{tail}")))
                    .collect();
            }
            Some(all)
        }
        HirKind::Class(class) => {
            let class = match class {
                regex_syntax::hir::Class::Unicode(class) => class,
                regex_syntax::hir::Class::Bytes(_) => return None,
            };
            let mut all = Vec::new();
            for range in class.ranges() {
                for c in range.start()..=range.end() {
                    all.push(c.to_string());
                    if all.len() > LITERALS_MAX {
                        return None;
                    }
                }
            }
            Some(all)
        }
        _ => None,
    }
}

/// What every match begins with.
fn prefix(hir: &Hir) -> String {
    match hir.kind() {
        HirKind::Literal(literal) => String::from_utf8(literal.0.to_vec()).unwrap_or_default(),
        HirKind::Capture(capture) => prefix(&capture.sub),
        HirKind::Concat(parts) => {
            let mut all = String::new();
            for part in parts {
                match part.kind() {
                    HirKind::Literal(_) => all.push_str(&prefix(part)),
                    _ => {
                        all.push_str(&prefix(part));
                        break;
                    }
                }
            }
            all
        }
        _ => String::new(),
    }
}
