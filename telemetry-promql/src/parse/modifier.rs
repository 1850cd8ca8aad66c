//! What stands behind operands and operators: ranges, `offset`, `@`, `anchored`, and how vectors match.

use super::error::Stop;
use super::{Parser, TokenKind};
use crate::ast::{
    At, Cardinality, DurationValue, Expr, Extended, MatrixSelector, Nanos, Sign, Span, Subquery,
    VectorMatching,
};
use crate::lexer::{Keyword, Token};

/// What may begin a length of time, in errors.
const DURATIONS: &str = "number, duration, step(), or range()";

impl Parser<'_> {
    /// An operand with everything that stands behind it.
    pub(super) fn operand_with_modifiers(&mut self) -> Result<Expr, Stop> {
        let mut expr = self.operand()?;
        loop {
            let token = self.peek_token();
            match token.kind {
                TokenKind::LeftBracket => expr = self.range(expr)?,
                TokenKind::At => self.at(&mut expr)?,
                TokenKind::Keyword(Keyword::Offset) => {
                    self.bump();
                    let offset =
                        self.offset_duration().map_err(|stop| self.explain(stop, "offset", DURATIONS))?;
                    self.set_offset(&mut expr, offset);
                }
                TokenKind::Keyword(Keyword::Anchored) => {
                    self.bump();
                    self.set_extended(&mut expr, Extended::Anchored);
                }
                TokenKind::Keyword(Keyword::Smoothed) => {
                    self.bump();
                    self.set_extended(&mut expr, Extended::Smoothed);
                }
                _ => return Ok(expr),
            }
        }
    }

    // --- ranges and subqueries ---

    /// `[range]` or `[range:step]` behind `expr`.
    fn range(&mut self, expr: Expr) -> Result<Expr, Stop> {
        let open = self.bump();
        let height = self.height;
        let range = self
            .positive_duration()
            .map_err(|stop| self.explain(stop, "subquery or range selector", DURATIONS))?;
        let made = match self.peek() {
            TokenKind::RightBracket => {
                let close = self.bump();
                self.matrix(expr, range, open.span.to(close.span))
            }
            TokenKind::Colon => {
                self.bump();
                self.subquery(expr, range)?
            }
            _ => return Err(self.explain(Stop::Syntax, "subquery or range", "\":\" or \"]\"")),
        };
        self.grow(height, made.span())?;
        Ok(made)
    }

    /// A selector with a range; of anything else an error.
    fn matrix(&mut self, expr: Expr, range: DurationValue, brackets: Span) -> Expr {
        let error = match &expr {
            Expr::Vector(selector) if selector.offset.is_some() => "no offset modifiers allowed before range",
            Expr::Vector(selector) if selector.at.is_some() => "no @ modifiers allowed before range",
            Expr::Vector(_) => "",
            _ => "ranges only allowed for vector selectors",
        };
        if !error.is_empty() {
            self.error(brackets, error);
        }
        let span = expr.span().to(brackets);
        let selector = match expr {
            Expr::Vector(selector) => selector,
            _ => {
                // Modifiers behind it repeat the error.
                self.refused_matrix = Some(span);
                self.empty_selector(span)
            }
        };
        Expr::Matrix(MatrixSelector { selector, range, span })
    }

    /// A subquery, whose colon is consumed.
    fn subquery(&mut self, expr: Expr, range: DurationValue) -> Result<Expr, Stop> {
        const CONTEXT: &str = "subquery selector";
        let mut step = None;
        if self.peek() != TokenKind::RightBracket {
            let expected = "number, duration, step(), range(), or \"]\"";
            step = Some(self.positive_duration().map_err(|stop| self.explain(stop, CONTEXT, expected))?);
        }
        let Some(close) = self.accept(TokenKind::RightBracket) else {
            return Err(self.explain(Stop::Syntax, CONTEXT, "\"]\""));
        };
        let span = expr.span().to(close.span);
        Ok(Expr::Subquery(Subquery { expr: Box::new(expr), range, step, offset: None, at: None, span }))
    }

    // --- modifiers of selectors and subqueries ---

    /// Adds an offset.
    fn set_offset(&mut self, expr: &mut Expr, offset: DurationValue) {
        let span = expr.span();
        if self.refused_matrix == Some(span) {
            return self.error(span, "ranges only allowed for vector selectors");
        }
        let (current, end) = match expr {
            Expr::Vector(node) => (&mut node.offset, &mut node.span.end),
            Expr::Matrix(node) => (&mut node.selector.offset, &mut node.span.end),
            Expr::Subquery(node) => (&mut node.offset, &mut node.span.end),
            _ => return self.refuse_modifier(span, "offset modifier"),
        };
        *end = self.last_closing;
        if current.is_some() {
            self.error(span, "offset may not be set multiple times");
        } else if offset != DurationValue::Fixed(Nanos(0)) {
            *current = Some(offset);
        }
    }

    /// Adds `@` and what follows it.
    fn at(&mut self, expr: &mut Expr) -> Result<(), Stop> {
        self.bump();
        let at = self.at_value().map_err(|stop| self.explain(stop, "@", "timestamp"))?;
        let span = expr.span();
        let at = match at {
            Ok(seconds) => At::Timestamp(self.timestamp(seconds, span)),
            Err(at) => at,
        };
        if self.refused_matrix == Some(span) {
            self.error(span, "ranges only allowed for vector selectors");
            return Ok(());
        }
        let (current, end) = match expr {
            Expr::Vector(node) => (&mut node.at, &mut node.span.end),
            Expr::Matrix(node) => (&mut node.selector.at, &mut node.span.end),
            Expr::Subquery(node) => (&mut node.at, &mut node.span.end),
            _ => {
                self.refuse_modifier(span, "@ modifier");
                return Ok(());
            }
        };
        if current.is_some() {
            self.error(span, "@ <timestamp> may not be set multiple times");
            return Ok(());
        }
        *current = Some(at);
        *end = self.last_closing;
        Ok(())
    }

    /// What follows `@`: seconds, or `start()` or `end()`.
    fn at_value(&mut self) -> Result<Result<f64, At>, Stop> {
        let at = match self.peek() {
            TokenKind::Keyword(Keyword::Start) => At::Start,
            TokenKind::Keyword(Keyword::End) => At::End,
            _ => {
                let sign = self.accept_sign();
                let number = self.number_literal()?;
                return Ok(Ok(negated(sign, number.value)));
            }
        };
        self.bump();
        self.expect(TokenKind::LeftParen)?;
        self.expect(TokenKind::RightParen)?;
        Ok(Err(at))
    }

    /// Seconds as milliseconds. What does not fit is refused.
    fn timestamp(&mut self, seconds: f64, span: Span) -> i64 {
        const MOST: f64 = 9_223_372_036_854_775_807.0;
        if !(seconds > -MOST && seconds < MOST) {
            let printed = crate::format::fixed_six(seconds);
            self.error(span, format!("timestamp out of bounds for @ modifier: {printed}"));
        }
        #[expect(clippy::cast_possible_truncation, reason = "saturates; what does not fit is refused above")]
        let millis = (seconds * 1000.0).round() as i64;
        millis
    }

    /// Adds `anchored` or `smoothed`.
    fn set_extended(&mut self, expr: &mut Expr, extended: Extended) {
        let (name, span) = (extended.name(), expr.span());
        if !self.options.extended_range_selectors {
            return self.error(span, format!("{name} modifier is experimental and not enabled"));
        }
        let selector = match expr {
            Expr::Vector(selector) => selector,
            Expr::Matrix(matrix) => &mut matrix.selector,
            Expr::Subquery(_) => {
                return self.error(span, format!("{name} modifier is not supported for subqueries"));
            }
            _ => return self.error(span, format!("{name} modifier not implemented")),
        };
        if selector.extended.is_some_and(|current| current != extended) {
            self.error(span, "anchored and smoothed modifiers cannot be used together");
        }
        selector.extended = Some(extended);
    }

    /// Refuses a modifier behind something that has no time.
    fn refuse_modifier(&mut self, span: Span, modifier: &str) {
        let before = "must be preceded by an instant vector selector or range vector selector or a subquery";
        self.error(span, format!("{modifier} {before}"));
    }

    // --- modifiers of binary operators ---

    /// `bool`, `on`, `group_left`, `fill` and their like, behind a binary operator.
    pub(super) fn matching(&mut self) -> Result<(VectorMatching, bool), Stop> {
        let mut matching = VectorMatching::default();
        let return_bool = self.accept(TokenKind::Keyword(Keyword::Bool)).is_some();
        if let TokenKind::Keyword(keyword @ (Keyword::On | Keyword::Ignoring)) = self.peek() {
            self.bump();
            matching.on = keyword == Keyword::On;
            matching.labels = self.grouping_labels()?;
            matching.cardinality = match self.peek() {
                TokenKind::Keyword(Keyword::GroupLeft) => Cardinality::ManyToOne,
                TokenKind::Keyword(Keyword::GroupRight) => Cardinality::OneToMany,
                _ => Cardinality::OneToOne,
            };
            if matching.cardinality != Cardinality::OneToOne {
                self.bump();
                if self.peek() == TokenKind::LeftParen || !self.begins_expr() {
                    matching.include = self.grouping_labels()?;
                }
            }
        }
        self.fill(&mut matching)?;
        Ok((matching, return_bool))
    }

    /// `fill(1)`, or `fill_left(1)` and `fill_right(2)`, or one of them.
    fn fill(&mut self, matching: &mut VectorMatching) -> Result<(), Stop> {
        match self.peek() {
            TokenKind::Keyword(Keyword::Fill) => {
                matching.fill_left = Some(self.fill_value()?);
                matching.fill_right = matching.fill_left;
            }
            TokenKind::Keyword(Keyword::FillLeft) => {
                matching.fill_left = Some(self.fill_value()?);
                if self.peek() == TokenKind::Keyword(Keyword::FillRight) {
                    matching.fill_right = Some(self.fill_value()?);
                }
            }
            TokenKind::Keyword(Keyword::FillRight) => {
                matching.fill_right = Some(self.fill_value()?);
                if self.peek() == TokenKind::Keyword(Keyword::FillLeft) {
                    matching.fill_left = Some(self.fill_value()?);
                }
            }
            _ => {}
        }
        Ok(())
    }

    /// A keyword and a number in parentheses.
    fn fill_value(&mut self) -> Result<f64, Stop> {
        self.bump();
        self.expect(TokenKind::LeftParen)?;
        let sign = self.accept_sign();
        let value = negated(sign, self.number_literal()?.value);
        self.expect(TokenKind::RightParen)?;
        Ok(value)
    }
}

/// A value with its sign.
fn negated(sign: Option<(Sign, Token)>, value: f64) -> f64 {
    match sign {
        Some((Sign::Minus, _)) => -value,
        _ => value,
    }
}
