//! The parser: a query's text to a checked syntax tree, or to errors with Prometheus' texts and positions.
//!
//! Operators are parsed by precedence, everything else by descent. It stops at the first error of syntax; errors of meaning
//! (an unknown function, a second offset) are collected while it goes on, and those of [`crate::check`] come only if there
//! are none before. Recursion, height of the tree and size of the text are bounded, so that no text can exhaust the stack.
//! Called by the query API, the rules and the reader of test scripts.

mod duration;
mod error;
mod expr;
mod modifier;
mod selector;

pub use error::{ParseError, ParseErrors};

use telemetry_model::Matcher;

use crate::ast::{Expr, Span};
use crate::check;
use crate::lexer::{Lexer, Token, TokenKind};
use error::Stop;

/// What the language contains, and how large a query may be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// The functions and aggregators that are marked experimental. Prometheus: `promql-experimental-functions`.
    pub experimental_functions: bool,
    /// Arithmetic on durations, `step()`, `range()`. Prometheus 3.14 has it on.
    pub duration_expressions: bool,
    /// `anchored`, `smoothed`.
    pub extended_range_selectors: bool,
    /// `fill`, `fill_left`, `fill_right`.
    pub fill_modifiers: bool,
    /// How large a query may be.
    pub limits: Limits,
}

/// How large a query may be. Larger ones are errors like all others.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of the text.
    pub text_bytes: usize,
    /// How deep parentheses, calls, signs and powers may nest; at most [`Limits::MOST_NESTING`]. Bounds the parser's stack.
    pub nesting: usize,
    /// How many nodes may lie on the way from the tree's root to its farthest leaf; at most [`Limits::MOST_HEIGHT`]. A
    /// chain `a + b + c` is as high as it is long. Bounds the stack of everything that walks the tree.
    pub height: usize,
    /// Matchers of one selector.
    pub matchers: usize,
    /// Regular expressions of the whole query.
    pub regexes: usize,
}

/// The parser at work.
struct Parser<'a> {
    text: &'a str,
    options: &'a Options,
    lexer: Lexer<'a>,
    /// The next token, if it was looked at already.
    ahead: Option<Token>,
    /// The last token read, looked at or not: what "unexpected" speaks of.
    last: Token,
    /// End of the last token read that may close an expression.
    last_closing: u32,
    errors: Vec<ParseError>,
    /// How deep the recursion is.
    nesting: usize,
    /// Height of the expression parsed last.
    height: usize,
    regexes: usize,
    /// The range refused last because it stands behind something else than a selector.
    refused_matrix: Option<Span>,
}

/// The tree of a query, checked.
///
/// # Errors
///
/// All errors found, in the order in which Prometheus finds them; it prints only the first.
pub fn parse(text: &str, options: &Options) -> Result<Expr, ParseErrors> {
    let mut parser = Parser::new(text, options)?;
    let parsed = parser.query();
    let mut errors = parser.errors;
    if let Ok(mut expr) = parsed
        && errors.is_empty()
    {
        check::check(&mut expr, text, &mut errors);
        if errors.is_empty() {
            return Ok(expr);
        }
    }
    Err(ParseErrors::new(errors))
}

/// The matchers of a selector without modifiers, as the API's `match[]` has it.
///
/// # Errors
///
/// All errors found. A selector that matches everything is none; callers that need more ask [`check::may_match_all`].
pub fn parse_selector(text: &str, options: &Options) -> Result<Vec<Matcher>, ParseErrors> {
    let mut parser = Parser::new(text, options)?;
    let parsed = parser.lone_selector();
    match parsed {
        Ok(matchers) if parser.errors.is_empty() => Ok(matchers),
        _ => Err(ParseErrors::new(parser.errors)),
    }
}

// === impl Options ===

impl Options {
    /// The language as a Prometheus 3.14 without feature flags has it.
    #[must_use]
    pub fn stable() -> Self {
        Self {
            experimental_functions: false,
            duration_expressions: true,
            extended_range_selectors: false,
            fill_modifiers: false,
            limits: Limits::default(),
        }
    }

    /// Everything on, as Prometheus' own test scripts need it.
    #[must_use]
    pub fn all() -> Self {
        Self {
            experimental_functions: true,
            extended_range_selectors: true,
            fill_modifiers: true,
            ..Self::stable()
        }
    }
}

impl Default for Options {
    fn default() -> Self {
        Self::stable()
    }
}

// === impl Limits ===

impl Limits {
    /// The deepest nesting that can be configured. A level takes up to 12 KiB of stack in a debug build, and threads have
    /// 2 MiB.
    pub const MOST_NESTING: usize = 128;
    /// The greatest height that can be configured.
    pub const MOST_HEIGHT: usize = 512;
}

impl Default for Limits {
    fn default() -> Self {
        Self { text_bytes: 16 << 10, nesting: 64, height: 128, matchers: 64, regexes: 32 }
    }
}

// === impl Parser ===

impl<'a> Parser<'a> {
    /// At the start of a text of permitted size.
    fn new(text: &'a str, options: &'a Options) -> Result<Self, ParseErrors> {
        let limit = options.limits.text_bytes;
        if text.len() > limit {
            let message = format!("query is {} bytes long, at most {limit} are allowed", text.len());
            return Err(ParseErrors::new(vec![ParseError::new(Span::default(), message, text)]));
        }
        Ok(Self {
            text,
            options,
            lexer: Lexer::new(text),
            ahead: None,
            last: Token { kind: TokenKind::Eof, span: Span::default() },
            last_closing: 0,
            errors: Vec::new(),
            nesting: 0,
            height: 0,
            regexes: 0,
            refused_matrix: None,
        })
    }

    /// A whole query.
    fn query(&mut self) -> Result<Expr, Stop> {
        if self.peek() == TokenKind::Eof {
            self.error(Span::default(), "no expression found in input");
            return Err(Stop::Reported);
        }
        let parsed = self.expr().and_then(|expr| self.end().map(|()| expr));
        self.at_top(parsed)
    }

    /// A selector and nothing else.
    fn lone_selector(&mut self) -> Result<Vec<Matcher>, Stop> {
        let parsed = self.selector().and_then(|selector| self.end().map(|()| selector.matchers));
        self.at_top(parsed)
    }

    /// The end of the text.
    fn end(&mut self) -> Result<(), Stop> {
        // As in Prometheus, an error of the lexer ends the text here, and is reported already.
        match self.peek() {
            TokenKind::Eof | TokenKind::Error => Ok(()),
            _ => Err(Stop::Syntax),
        }
    }

    /// Reports an error of syntax that nothing further in had words for.
    fn at_top<T>(&mut self, parsed: Result<T, Stop>) -> Result<T, Stop> {
        parsed.map_err(|stop| self.explain(stop, "", ""))
    }

    // --- tokens ---

    /// The kind of the next token. Comments are left out; an error of the lexer is reported when it is met.
    fn peek(&mut self) -> TokenKind {
        self.peek_token().kind
    }

    /// The next token.
    fn peek_token(&mut self) -> Token {
        if let Some(token) = self.ahead {
            return token;
        }
        let mut token = self.lexer.next_token();
        while token.kind == TokenKind::Comment {
            token = self.lexer.next_token();
        }
        match token.kind {
            TokenKind::Error => {
                let message = self.lexer.error().unwrap_or_default().to_owned();
                self.error(token.span, message);
            }
            TokenKind::RightBrace
            | TokenKind::RightParen
            | TokenKind::RightBracket
            | TokenKind::Duration
            | TokenKind::Number => self.last_closing = token.span.end,
            _ => {}
        }
        self.last = token;
        self.ahead = Some(token);
        token
    }

    /// The next token, consumed.
    fn bump(&mut self) -> Token {
        let token = self.peek_token();
        self.ahead = None;
        token
    }

    /// The next token, consumed if it is of this kind.
    fn accept(&mut self, kind: TokenKind) -> Option<Token> {
        (self.peek() == kind).then(|| self.bump())
    }

    /// The next token, which must be of this kind.
    fn expect(&mut self, kind: TokenKind) -> Result<Token, Stop> {
        self.accept(kind).ok_or(Stop::Syntax)
    }

    /// A part of the text.
    fn text(&self, span: Span) -> &'a str {
        let [start, end] = [span.start, span.end].map(|offset| usize::try_from(offset).unwrap_or(usize::MAX));
        self.text.get(start..end).unwrap_or_default()
    }

    // --- errors ---

    /// Reports an error.
    fn error(&mut self, span: Span, message: impl Into<String>) {
        self.errors.push(ParseError::new(span, message, self.text));
    }

    /// Reports an error of syntax in a place that has words for it; others were reported before.
    fn explain(&mut self, stop: Stop, context: &str, expected: &str) -> Stop {
        if stop == Stop::Syntax && self.last.kind != TokenKind::Error {
            let mut message = format!("unexpected {}", self.last.kind.describe(self.text(self.last.span)));
            for (word, text) in [(" in ", context), (", expected ", expected)] {
                if !text.is_empty() {
                    message.push_str(word);
                    message.push_str(text);
                }
            }
            self.error(self.last.span, message);
        }
        Stop::Reported
    }

    // --- bounds ---

    /// Goes one level deeper for as long as `inner` runs.
    fn nested<T>(&mut self, inner: impl FnOnce(&mut Self) -> Result<T, Stop>) -> Result<T, Stop> {
        let limit = self.options.limits.nesting.min(Limits::MOST_NESTING);
        if self.nesting >= limit {
            let span = self.peek_token().span;
            self.error(span, format!("query is nested too deep, at most {limit} levels are allowed"));
            return Err(Stop::Reported);
        }
        self.nesting += 1;
        let result = inner(self);
        self.nesting -= 1;
        result
    }

    /// Takes note of an expression over others, the highest of which is `below` high.
    fn grow(&mut self, below: usize, span: Span) -> Result<(), Stop> {
        self.height = below + 1;
        let limit = self.options.limits.height.min(Limits::MOST_HEIGHT);
        if self.height > limit {
            self.error(
                span,
                format!("query has too many parts in a row or in each other, at most {limit} are allowed"),
            );
            return Err(Stop::Reported);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
