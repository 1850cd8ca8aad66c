//! Selectors, matchers and lists of labels.

use telemetry_model::{MatchOp, Matcher};

use super::error::Stop;
use super::{Parser, TokenKind};
use crate::ast::{BinaryOp, Span, VectorSelector};
use crate::lexer::{Keyword, Token};
use crate::pattern;
use crate::quote::quoted;

/// The label that holds a metric's name.
pub(crate) const NAME_LABEL: &str = "__name__";

impl Parser<'_> {
    /// A selector without modifiers.
    pub(super) fn selector(&mut self) -> Result<VectorSelector, Stop> {
        let kind = self.peek();
        if Self::names_metric(kind) {
            let name = self.bump();
            return self.selector_of(name);
        }
        if kind == TokenKind::LeftBrace {
            let (matchers, span) = self.braces()?;
            return Ok(plain(None, matchers, span));
        }
        Err(Stop::Syntax)
    }

    /// A selector whose name is consumed.
    pub(super) fn selector_of(&mut self, name: Token) -> Result<VectorSelector, Stop> {
        let (mut matchers, mut span) = (Vec::new(), name.span);
        if self.peek() == TokenKind::LeftBrace {
            let (inside, braces) = self.braces()?;
            matchers = inside;
            span = name.span.to(braces);
        }
        self.height = 1;
        let name = self.text(name.span).to_owned();
        matchers.push(Matcher::new(NAME_LABEL, MatchOp::Equal, name.as_str()));
        Ok(plain(Some(name), matchers, span))
    }

    /// What stands for a selector in a query that is refused.
    pub(super) fn empty_selector(&self, span: Span) -> VectorSelector {
        plain(None, Vec::new(), span)
    }

    /// Whether a token can be a metric's name. Keywords can, but for those that may follow a binary operator.
    pub(super) fn names_metric(kind: TokenKind) -> bool {
        match kind {
            TokenKind::Identifier
            | TokenKind::MetricIdentifier
            | TokenKind::Aggregator(_)
            | TokenKind::Op(BinaryOp::And | BinaryOp::Or | BinaryOp::Unless) => true,
            TokenKind::Keyword(keyword) => !matches!(
                keyword,
                Keyword::Bool | Keyword::On | Keyword::Ignoring | Keyword::GroupLeft | Keyword::GroupRight
            ),
            _ => false,
        }
    }

    /// Matchers in braces.
    fn braces(&mut self) -> Result<(Vec<Matcher>, Span), Stop> {
        let open = self.expect(TokenKind::LeftBrace)?;
        let mut matchers = Vec::new();
        loop {
            if let Some(close) = self.accept(TokenKind::RightBrace) {
                return Ok((matchers, open.span.to(close.span)));
            }
            let limit = self.options.limits.matchers;
            if matchers.len() >= limit {
                let span = self.peek_token().span;
                self.error(span, format!("selector has too many matchers, at most {limit} are allowed"));
                return Err(Stop::Reported);
            }
            matchers.push(self.matcher()?);
            if self.accept(TokenKind::Comma).is_none() && self.peek() != TokenKind::RightBrace {
                return Err(self.explain(Stop::Syntax, "label matching", "\",\" or \"}\""));
            }
        }
    }

    /// One matcher: `label="value"`, or `"metric name"` alone.
    fn matcher(&mut self) -> Result<Matcher, Stop> {
        let label = self.peek_token();
        let is_quoted = match label.kind {
            TokenKind::Identifier => false,
            TokenKind::String => true,
            _ => return Err(self.explain(Stop::Syntax, "label matching", "identifier or \"}\"")),
        };
        self.bump();
        let name = if is_quoted { self.unquote(label) } else { self.text(label.span).to_owned() };
        let op = match self.peek() {
            TokenKind::Assign => MatchOp::Equal,
            TokenKind::Op(BinaryOp::NotEqual) => MatchOp::NotEqual,
            TokenKind::EqualRegex => MatchOp::Regex,
            TokenKind::NotEqualRegex => MatchOp::NotRegex,
            _ if is_quoted => return Ok(Matcher::new(NAME_LABEL, MatchOp::Equal, name)),
            _ => return Err(self.explain(Stop::Syntax, "label matching", "label matching operator")),
        };
        self.bump();
        let value = self.peek_token();
        if value.kind != TokenKind::String {
            return Err(self.explain(Stop::Syntax, "label matching", "string"));
        }
        self.bump();
        let matcher = Matcher::new(name, op, self.unquote(value));
        self.check_regex(&matcher, label.span.to(value.span))?;
        Ok(matcher)
    }

    /// Refuses a regular expression that is none, or one too many.
    fn check_regex(&mut self, matcher: &Matcher, span: Span) -> Result<(), Stop> {
        if !matches!(matcher.op, MatchOp::Regex | MatchOp::NotRegex) {
            return Ok(());
        }
        self.regexes += 1;
        let limit = self.options.limits.regexes;
        if self.regexes > limit {
            self.error(span, format!("query has too many regular expressions, at most {limit} are allowed"));
            return Err(Stop::Reported);
        }
        if let Err(error) = pattern::check(&matcher.value) {
            self.error(span, error);
        }
        Ok(())
    }

    /// Labels in parentheses, behind `by`, `without`, `on`, `ignoring`, `group_left`, `group_right`.
    pub(super) fn grouping_labels(&mut self) -> Result<Vec<String>, Stop> {
        const CONTEXT: &str = "grouping opts";
        if self.accept(TokenKind::LeftParen).is_none() {
            return Err(self.explain(Stop::Syntax, CONTEXT, "\"(\""));
        }
        let mut labels = Vec::new();
        loop {
            if self.accept(TokenKind::RightParen).is_some() {
                return Ok(labels);
            }
            labels.push(self.grouping_label().map_err(|stop| self.explain(stop, CONTEXT, "label"))?);
            if self.accept(TokenKind::Comma).is_none() && self.peek() != TokenKind::RightParen {
                return Err(self.explain(Stop::Syntax, CONTEXT, "\",\" or \")\""));
            }
        }
    }

    /// One label: a name, almost any keyword, or text in quotes.
    fn grouping_label(&mut self) -> Result<String, Stop> {
        let token = self.peek_token();
        let is_label = match token.kind {
            TokenKind::Identifier
            | TokenKind::MetricIdentifier
            | TokenKind::Aggregator(_)
            | TokenKind::String => true,
            TokenKind::Op(BinaryOp::And | BinaryOp::Or | BinaryOp::Unless | BinaryOp::Atan2) => true,
            TokenKind::Keyword(keyword) => keyword != Keyword::Without,
            _ => false,
        };
        if !is_label {
            return Err(Stop::Syntax);
        }
        self.bump();
        let label = if token.kind == TokenKind::String {
            self.unquote(token)
        } else {
            self.text(token.span).to_owned()
        };
        if label.is_empty() {
            self.error(token.span, format!("invalid label name for grouping: {}", quoted(&label)));
        }
        Ok(label)
    }
}

/// A selector without modifiers.
fn plain(name: Option<String>, matchers: Vec<Matcher>, span: Span) -> VectorSelector {
    VectorSelector { name, matchers, offset: None, at: None, extended: None, allow_empty: false, span }
}
