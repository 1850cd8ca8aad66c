//! Expressions: operators by precedence, operands by descent.

use super::error::Stop;
use super::{Parser, TokenKind};
use crate::ast::{
    Aggregate, Aggregator, Binary, BinaryOp, Call, Expr, NumberLiteral, Paren, Sign, Span, StringLiteral,
    Unary, VectorMatching,
};
use crate::functions::{self, Function, FunctionId, Variadic};
use crate::lexer::{self, Keyword, Token};
use crate::quote::quoted;

/// Stands for functions that do not exist until the query is refused for them.
static UNKNOWN: Function = Function {
    id: FunctionId::Abs,
    name: "",
    args: &[],
    variadic: Variadic::No,
    returns: crate::ast::ValueType::Vector,
    experimental: false,
};

impl Parser<'_> {
    /// A whole expression.
    pub(super) fn expr(&mut self) -> Result<Expr, Stop> {
        self.operators(0)
    }

    /// An expression whose operators bind at least as tightly as `least`.
    fn operators(&mut self, least: u8) -> Result<Expr, Stop> {
        let mut lhs = self.signed()?;
        loop {
            let TokenKind::Op(op) = self.peek() else { return Ok(lhs) };
            let precedence = op.precedence();
            if precedence < least {
                return Ok(lhs);
            }
            self.bump();
            let height = self.height;
            let (matching, return_bool) = self.matching()?;
            // `^` takes the rest first: 2 ^ 3 ^ 2 is 2 ^ (3 ^ 2).
            let rhs = match op {
                BinaryOp::Pow => self.nested(|parser| parser.operators(precedence))?,
                _ => self.operators(precedence + 1)?,
            };
            let span = lhs.span().to(rhs.span());
            self.grow(height.max(self.height), span)?;
            self.require_fill(&matching, span);
            let (lhs_box, rhs) = (Box::new(lhs), Box::new(rhs));
            lhs = Expr::Binary(Binary { op, lhs: lhs_box, rhs, matching: Some(matching), return_bool, span });
        }
    }

    /// Refuses values to fill in unless they are switched on.
    fn require_fill(&mut self, matching: &VectorMatching, span: Span) {
        let used = matching.fill_left.is_some() || matching.fill_right.is_some();
        if used && !self.options.fill_modifiers {
            self.error(span, "binop fill modifiers are experimental and not enabled");
        }
    }

    /// An operand, with a sign or without. A sign binds like `*`, so that -2 ^ 2 is -(2 ^ 2).
    fn signed(&mut self) -> Result<Expr, Stop> {
        let Some((sign, token)) = self.accept_sign() else { return self.operand_with_modifiers() };
        let operand = self.nested(|parser| parser.operators(BinaryOp::Pow.precedence()))?;
        let span = token.span.to(operand.span());
        Ok(match operand {
            Expr::Number(number) => {
                let value = if sign == Sign::Minus { -number.value } else { number.value };
                Expr::Number(NumberLiteral { value, span, ..number })
            }
            operand => {
                self.grow(self.height, span)?;
                Expr::Unary(Unary { sign, expr: Box::new(operand), span })
            }
        })
    }

    /// A sign, consumed.
    pub(super) fn accept_sign(&mut self) -> Option<(Sign, Token)> {
        let sign = match self.peek() {
            TokenKind::Op(BinaryOp::Add) => Sign::Plus,
            TokenKind::Op(BinaryOp::Sub) => Sign::Minus,
            _ => return None,
        };
        Some((sign, self.bump()))
    }

    /// An operand without what may stand behind it.
    pub(super) fn operand(&mut self) -> Result<Expr, Stop> {
        let token = self.peek_token();
        self.height = 1;
        match token.kind {
            TokenKind::Number | TokenKind::Duration => Ok(Expr::Number(self.number_literal()?)),
            TokenKind::String => {
                self.bump();
                let value = self.unquote(token);
                Ok(Expr::String(StringLiteral { value, span: token.span }))
            }
            TokenKind::LeftParen => {
                self.bump();
                let expr = Box::new(self.nested(Self::expr)?);
                let span = token.span.to(self.expect(TokenKind::RightParen)?.span);
                self.grow(self.height, span)?;
                Ok(Expr::Paren(Paren { expr, span }))
            }
            TokenKind::Aggregator(op) => self.aggregate_or_metric(op),
            TokenKind::Identifier => self.call_or_metric(),
            TokenKind::Keyword(
                Keyword::Start
                | Keyword::End
                | Keyword::Step
                | Keyword::Range
                | Keyword::MaxOf
                | Keyword::MinOf,
            ) => self.call_or_metric(),
            _ => self.selector().map(Expr::Vector),
        }
    }

    /// The text of a token in quotes. The lexer lets only well-formed ones through, with an exception or two.
    pub(super) fn unquote(&mut self, token: Token) -> String {
        let literal = self.text(token.span);
        lexer::unquote(literal).unwrap_or_else(|| {
            self.error(token.span, format!("error unquoting string {}: invalid syntax", quoted(literal)));
            String::new()
        })
    }

    /// A number or duration.
    pub(super) fn number_literal(&mut self) -> Result<NumberLiteral, Stop> {
        let token = self.peek_token();
        if !matches!(token.kind, TokenKind::Number | TokenKind::Duration) {
            return Err(Stop::Syntax);
        }
        self.bump();
        let is_duration = token.kind == TokenKind::Duration;
        let text = self.text(token.span);
        let parsed = match is_duration {
            true => lexer::parse_duration(text).map(crate::ast::Nanos::seconds),
            false => lexer::parse_number(text).map_err(|error| format!("error parsing number: {error}")),
        };
        let value = parsed.unwrap_or_else(|message| {
            let infinite = message.ends_with("value out of range");
            self.error(token.span, message);
            if infinite { f64::INFINITY } else { 0.0 }
        });
        Ok(NumberLiteral { value, is_duration, span: token.span })
    }

    /// A name that is a function's if parentheses follow, else a metric's.
    fn call_or_metric(&mut self) -> Result<Expr, Stop> {
        let name = self.bump();
        if self.peek() != TokenKind::LeftParen {
            return self.selector_of(name).map(Expr::Vector);
        }
        let args = self.args()?;
        let called = self.text(name.span);
        let function = functions::function(called);
        match function {
            None => self.error(name.span, format!("unknown function with name {}", quoted(called))),
            Some(function) if function.experimental && !self.options.experimental_functions => {
                self.error(name.span, format!("function {} is not enabled", quoted(called)));
            }
            Some(_) => {}
        }
        let span = Span { start: name.span.start, end: self.last_closing };
        self.grow(self.height, span)?;
        Ok(Expr::Call(Call { function: function.unwrap_or(&UNKNOWN), args, span }))
    }

    /// Arguments in parentheses. The height after it is that of the highest.
    fn args(&mut self) -> Result<Vec<Expr>, Stop> {
        self.expect(TokenKind::LeftParen)?;
        let mut args = Vec::new();
        let mut height = 0;
        if self.accept(TokenKind::RightParen).is_some() {
            self.height = height;
            return Ok(args);
        }
        args.push(self.nested(Self::expr)?);
        loop {
            height = height.max(self.height);
            if self.accept(TokenKind::RightParen).is_some() {
                self.height = height;
                return Ok(args);
            }
            let comma = self.expect(TokenKind::Comma)?;
            if self.begins_expr() {
                args.push(self.nested(Self::expr)?);
            } else {
                self.error(comma.span, "trailing commas not allowed in function call args");
            }
        }
    }

    /// Whether the next token can begin an expression.
    pub(super) fn begins_expr(&mut self) -> bool {
        match self.peek() {
            TokenKind::Number
            | TokenKind::Duration
            | TokenKind::String
            | TokenKind::LeftParen
            | TokenKind::LeftBrace
            | TokenKind::Op(BinaryOp::Add | BinaryOp::Sub) => true,
            kind => Self::names_metric(kind),
        }
    }

    /// An aggregation, or a metric with an aggregator's name.
    fn aggregate_or_metric(&mut self, op: Aggregator) -> Result<Expr, Stop> {
        let name = self.bump();
        match self.peek() {
            TokenKind::LeftParen | TokenKind::Keyword(Keyword::By | Keyword::Without) => {}
            _ => return self.selector_of(name).map(Expr::Vector),
        }
        let mut grouping = None;
        let parsed = self.aggregate_parts(&mut grouping);
        let mut args = match parsed {
            Ok(args) => args,
            Err(stop) => {
                let explained = self.explain(stop, "aggregation", "");
                if stop == Stop::Syntax {
                    let Span { start, .. } = name.span;
                    self.error(
                        Span { start, end: self.last_closing.max(start) },
                        "no arguments for aggregate expression provided",
                    );
                }
                return Err(explained);
            }
        };
        let (grouping, without, end) = grouping.unwrap_or_default();
        let span = Span { start: name.span.start, end };
        self.grow(self.height, span)?;
        self.check_args(op, args.len(), span);
        // With a wrong number of arguments the query is refused already, and it matters not which of them stay.
        let expr = Box::new(args.pop().unwrap_or(Expr::Number(NumberLiteral {
            value: 0.0,
            is_duration: false,
            span,
        })));
        let param = if op.takes_param() { args.pop().map(Box::new) } else { None };
        Ok(Expr::Aggregate(Aggregate { op, expr, param, grouping, without, span }))
    }

    /// Arguments of an aggregation, with `by` or `without` before or behind them: labels, which of both, and the end of all.
    fn aggregate_parts(
        &mut self,
        grouping: &mut Option<(Vec<String>, bool, u32)>,
    ) -> Result<Vec<Expr>, Stop> {
        let mut parts = self.grouping_modifier()?;
        let args = self.args()?;
        let mut end = self.last_closing;
        let height = self.height;
        if parts.is_none() {
            parts = self.grouping_modifier()?;
            if parts.is_some() {
                end = self.last_closing;
            }
        }
        self.height = height;
        let (labels, without) = parts.unwrap_or_default();
        *grouping = Some((labels, without, end));
        Ok(args)
    }

    /// `by (…)` or `without (…)`, if it comes next: the labels, and whether it is the latter.
    fn grouping_modifier(&mut self) -> Result<Option<(Vec<String>, bool)>, Stop> {
        let without = match self.peek() {
            TokenKind::Keyword(Keyword::By) => false,
            TokenKind::Keyword(Keyword::Without) => true,
            _ => return Ok(None),
        };
        self.bump();
        Ok(Some((self.grouping_labels()?, without)))
    }

    /// Refuses a wrong number of arguments of an aggregator.
    fn check_args(&mut self, op: Aggregator, count: usize, span: Span) {
        let wanted = if op.takes_param() { 2 } else { 1 };
        if count == 0 {
            self.error(span, "no arguments for aggregate expression provided");
        } else if op.is_experimental() && !self.options.experimental_functions {
            let flag = "must be enabled with --enable-feature=promql-experimental-functions";
            self.error(span, format!("{}() is experimental and {flag}", op.name()));
        } else if count != wanted {
            let message = "wrong number of arguments for aggregate expression provided";
            self.error(span, format!("{message}, expected {wanted}, got {count}"));
        }
    }
}
