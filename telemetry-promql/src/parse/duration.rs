//! Lengths of time: literal or computed, in brackets and behind `offset`.

use super::error::Stop;
use super::{Parser, TokenKind};
use crate::ast::{
    BinaryOp, DurationExpr, DurationKind, DurationOp, DurationValue, Nanos, NumberLiteral, Sign, Span,
};
use crate::lexer::{Keyword, Token};

impl Parser<'_> {
    /// A length of time that must be positive: a range or a step.
    pub(super) fn positive_duration(&mut self) -> Result<DurationValue, Stop> {
        let expr = self.duration(0)?;
        self.peek();
        if let DurationKind::Number(number) = &expr.kind
            && number.value <= 0.0
        {
            self.error(number.span, "duration must be greater than 0");
        }
        Ok(value(expr))
    }

    /// A length of time behind `offset`. Operators behind a plain one belong to what is around it: `a offset 5m + b` is
    /// a sum, `a offset (5m + step())` is not, and neither is `a offset (5m) + step()`.
    pub(super) fn offset_duration(&mut self) -> Result<DurationValue, Stop> {
        let sign = self.accept_sign();
        let kind = self.peek();
        let open = match (sign, kind) {
            (_, TokenKind::Number | TokenKind::Duration) => {
                let number = self.number_literal()?;
                let number = self.in_range(number, sign);
                return Ok(DurationValue::Fixed(Nanos::from_seconds(number.value)));
            }
            (_, TokenKind::Keyword(_)) => {
                let call = self.duration_call()?;
                let expr = match sign {
                    Some((Sign::Plus, token)) => unary(Sign::Plus, token, call),
                    _ => signed(sign, call),
                };
                self.require_expressions(expr.span);
                return Ok(value(expr));
            }
            (Some(_), TokenKind::LeftParen) => {
                let inner = self.duration_paren_inner()?;
                let span = inner.span;
                let expr = wrap(inner, span);
                return Ok(value(signed(sign, expr)));
            }
            (Some(_), _) => {
                let operand = self.nested(|parser| parser.duration(BinaryOp::Pow.precedence()))?;
                self.apply_sign(sign, operand)
            }
            (None, _) => self.duration_operand()?,
        };
        Ok(value(self.duration_operators(open, 0)?))
    }

    /// A length of time whose operators bind at least as tightly as `least`.
    fn duration(&mut self, least: u8) -> Result<DurationExpr, Stop> {
        let operand = match self.accept_sign() {
            Some(sign) => {
                let operand = self.nested(|parser| parser.duration(BinaryOp::Pow.precedence()))?;
                self.apply_sign(Some(sign), operand)
            }
            None => self.duration_operand()?,
        };
        self.duration_operators(operand, least)
    }

    /// What follows `lhs` and binds at least as tightly as `least`.
    fn duration_operators(&mut self, mut lhs: DurationExpr, least: u8) -> Result<DurationExpr, Stop> {
        loop {
            let token = self.peek_token();
            let (binary, op) = match token.kind {
                TokenKind::Op(op @ BinaryOp::Add) => (op, DurationOp::Add),
                TokenKind::Op(op @ BinaryOp::Sub) => (op, DurationOp::Sub),
                TokenKind::Op(op @ BinaryOp::Mul) => (op, DurationOp::Mul),
                TokenKind::Op(op @ BinaryOp::Div) => (op, DurationOp::Div),
                TokenKind::Op(op @ BinaryOp::Mod) => (op, DurationOp::Mod),
                TokenKind::Op(op @ BinaryOp::Pow) => (op, DurationOp::Pow),
                _ => return Ok(lhs),
            };
            let precedence = binary.precedence();
            if precedence < least {
                return Ok(lhs);
            }
            self.bump();
            let height = self.height;
            let right = if op == DurationOp::Pow { precedence } else { precedence + 1 };
            let rhs = self.nested(|parser| parser.duration(right))?;
            self.grow(height.max(self.height), lhs.span.to(rhs.span))?;
            self.require_expressions(lhs.span);
            lhs = self.combine(op, lhs, rhs, token);
        }
    }

    /// `lhs op rhs`. Division by a literal zero is refused.
    fn combine(
        &mut self,
        op: DurationOp,
        lhs: DurationExpr,
        rhs: DurationExpr,
        token: Token,
    ) -> DurationExpr {
        if let DurationKind::Number(number) = &rhs.kind
            && number.value == 0.0
        {
            match op {
                DurationOp::Div => self.error(token.span, "division by zero"),
                DurationOp::Mod => self.error(token.span, "modulo by zero"),
                _ => return binary(op, lhs, rhs),
            }
            return zero();
        }
        binary(op, lhs, rhs)
    }

    /// A literal, a call, or anything in parentheses.
    fn duration_operand(&mut self) -> Result<DurationExpr, Stop> {
        self.height = 1;
        match self.peek() {
            TokenKind::Number | TokenKind::Duration => {
                let number = self.number_literal()?;
                Ok(literal(self.in_range(number, None)))
            }
            TokenKind::LeftParen => {
                let open = self.peek_token();
                let inner = self.duration_paren_inner()?;
                self.require_expressions(inner.span);
                let span = open.span.to(inner.span);
                Ok(wrap(inner, span))
            }
            _ => {
                let call = self.duration_call()?;
                self.require_expressions(call.span);
                Ok(call)
            }
        }
    }

    /// What parentheses enclose.
    fn duration_paren_inner(&mut self) -> Result<DurationExpr, Stop> {
        self.expect(TokenKind::LeftParen)?;
        let inner = self.nested(|parser| parser.duration(0))?;
        self.expect(TokenKind::RightParen)?;
        Ok(inner)
    }

    /// `step()`, `range()`, `min_of(a, b)`, `max_of(a, b)`.
    fn duration_call(&mut self) -> Result<DurationExpr, Stop> {
        let token = self.peek_token();
        let plain = |kind| (Some(kind), DurationOp::MinOf);
        let (kind, op) = match token.kind {
            TokenKind::Keyword(Keyword::Step) => plain(DurationKind::Step),
            TokenKind::Keyword(Keyword::Range) => plain(DurationKind::Range),
            TokenKind::Keyword(Keyword::MinOf) => (None, DurationOp::MinOf),
            TokenKind::Keyword(Keyword::MaxOf) => (None, DurationOp::MaxOf),
            _ => return Err(Stop::Syntax),
        };
        self.bump();
        self.expect(TokenKind::LeftParen)?;
        if let Some(kind) = kind {
            let span = token.span.to(self.expect(TokenKind::RightParen)?.span);
            return Ok(DurationExpr { kind, wrapped: false, span });
        }
        let lhs = self.nested(|parser| parser.duration(0))?;
        let height = self.height;
        self.expect(TokenKind::Comma)?;
        let rhs = self.nested(|parser| parser.duration(0))?;
        self.expect(TokenKind::RightParen)?;
        self.grow(height.max(self.height), lhs.span.to(rhs.span))?;
        Ok(binary(op, lhs, rhs))
    }

    /// A sign before something that may be a literal, which takes it in.
    fn apply_sign(&mut self, sign: Option<(Sign, Token)>, operand: DurationExpr) -> DurationExpr {
        match operand.kind {
            DurationKind::Number(number) => literal(self.in_range(number, sign)),
            _ => signed(sign, operand),
        }
    }

    /// A literal with its sign, or 0 if it does not fit.
    fn in_range(&mut self, number: NumberLiteral, sign: Option<(Sign, Token)>) -> NumberLiteral {
        let minus = matches!(sign, Some((Sign::Minus, _)));
        let value = if minus { -number.value } else { number.value };
        // What is no number is refused, too; Prometheus takes it for the least number there is.
        if value.is_nan() || value.abs() > Nanos::MOST_SECONDS {
            self.error(sign.map_or(number.span, |(_, token)| token.span), "duration out of range");
            return NumberLiteral { value: 0.0, is_duration: false, span: Span::default() };
        }
        let span = sign.map_or(number.span, |(_, token)| token.span.to(number.span));
        NumberLiteral { value, span, ..number }
    }

    /// Refuses what is more than a literal unless it is switched on.
    fn require_expressions(&mut self, span: Span) {
        if !self.options.duration_expressions {
            self.error(span, "experimental duration expression is not enabled");
        }
    }
}

/// Computed only if it must be.
fn value(expr: DurationExpr) -> DurationValue {
    match expr.kind {
        DurationKind::Number(number) => DurationValue::Fixed(Nanos::from_seconds(number.value)),
        _ => DurationValue::Expr(Box::new(expr)),
    }
}

/// A literal.
fn literal(number: NumberLiteral) -> DurationExpr {
    let span = number.span;
    DurationExpr { kind: DurationKind::Number(number), wrapped: false, span }
}

/// What stands for an expression that is refused.
fn zero() -> DurationExpr {
    literal(NumberLiteral { value: 0.0, is_duration: false, span: Span::default() })
}

/// `-expr`; a plus says nothing.
fn signed(sign: Option<(Sign, Token)>, operand: DurationExpr) -> DurationExpr {
    match sign {
        Some((Sign::Minus, token)) => unary(Sign::Minus, token, operand),
        _ => operand,
    }
}

/// An expression with its sign.
fn unary(sign: Sign, token: Token, operand: DurationExpr) -> DurationExpr {
    let span = token.span.to(operand.span);
    DurationExpr { kind: DurationKind::Unary(sign, Box::new(operand)), wrapped: false, span }
}

/// `lhs op rhs`
fn binary(op: DurationOp, lhs: DurationExpr, rhs: DurationExpr) -> DurationExpr {
    let span = lhs.span.to(rhs.span);
    DurationExpr { kind: DurationKind::Binary(op, Box::new(lhs), Box::new(rhs)), wrapped: false, span }
}

/// An expression in parentheses. A literal becomes an expression by it, with `span`.
fn wrap(inner: DurationExpr, span: Span) -> DurationExpr {
    match inner.kind {
        DurationKind::Number(_) => {
            DurationExpr { kind: DurationKind::Unary(Sign::Plus, Box::new(inner)), wrapped: true, span }
        }
        _ => DurationExpr { wrapped: true, ..inner },
    }
}
