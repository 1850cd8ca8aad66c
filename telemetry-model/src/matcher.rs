//! Label matchers: what a selector asks of a series' labels. Shared by the query language and the store.

use crate::pattern::{self, Expression, PatternError};

/// How a matcher compares.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum MatchOp {
    /// `=`
    Equal,
    /// `!=`
    NotEqual,
    /// `=~`: the whole value matches the regular expression, `.` matches newlines too.
    Regex,
    /// `!~`
    NotRegex,
}

/// One condition on one label; a label that is absent has the empty value.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Matcher {
    /// Label name; the metric's name is `__name__`.
    pub name: String,
    /// How to compare.
    pub op: MatchOp,
    /// With what: text or the expression's source.
    pub value: String,
}

// === impl MatchOp ===

impl MatchOp {
    /// As the language writes it.
    #[must_use]
    pub fn symbol(self) -> &'static str {
        match self {
            Self::Equal => "=",
            Self::NotEqual => "!=",
            Self::Regex => "=~",
            Self::NotRegex => "!~",
        }
    }
}

// === impl Matcher ===

impl Matcher {
    /// A matcher of any parts.
    pub fn new(name: impl Into<String>, op: MatchOp, value: impl Into<String>) -> Self {
        Self { name: name.into(), op, value: value.into() }
    }

    /// The expression in the words of the `regex` crate.
    ///
    /// # Errors
    ///
    /// If it is none.
    pub fn expression(&self) -> Result<Expression, PatternError> {
        pattern::translate(&self.value)
    }
}
