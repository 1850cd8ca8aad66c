//! What is wrong with a query, and where.

use std::fmt;

use crate::ast::Span;

/// One thing that is wrong. Prints as Prometheus prints it: `1:5: parse error: unexpected end of input`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ParseError {
    /// Where.
    pub span: Span,
    /// What, without the position.
    pub message: String,
    /// Line and column of the start, see [`Span::position`].
    pub position: String,
}

/// All that is wrong; never empty. Prints the first, as Prometheus does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ParseErrors {
    errors: Vec<ParseError>,
}

/// Why parsing does not go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stop {
    /// The last token read fits nowhere; the innermost place that has words for it reports it.
    Syntax,
    /// It is reported.
    Reported,
}

// === impl ParseError ===

impl ParseError {
    /// An error in `query`.
    #[must_use]
    pub fn new(span: Span, message: impl Into<String>, query: &str) -> Self {
        Self { span, message: message.into(), position: span.position(query) }
    }
}

impl fmt::Display for ParseError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}: parse error: {}", self.position, self.message)
    }
}

impl std::error::Error for ParseError {}

// === impl ParseErrors ===

impl ParseErrors {
    /// Of at least one error.
    pub(super) fn new(errors: Vec<ParseError>) -> Self {
        debug_assert!(!errors.is_empty(), "a query is refused for a reason");
        Self { errors }
    }

    /// All errors in the order they were found.
    #[must_use]
    pub fn all(&self) -> &[ParseError] {
        &self.errors
    }
}

impl fmt::Display for ParseErrors {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.errors.first() {
            Some(first) => first.fmt(formatter),
            None => formatter.write_str("error contains no error message"),
        }
    }
}

impl std::error::Error for ParseErrors {}
