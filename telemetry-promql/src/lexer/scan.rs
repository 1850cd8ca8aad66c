//! Reading characters, and the tokens that need many of them: comments, quoted text, numbers.
//!
//! The rules for numbers are Prometheus' own, position by position, because errors quote what was read until then.

use super::{Lexer, Scanned, TokenKind, is_alphanumeric};
use crate::ast::Span;
use crate::quote::{code_point, quoted};

impl Lexer<'_> {
    /// The next character, consumed.
    pub(super) fn next(&mut self) -> Option<char> {
        let character = self.peek()?;
        self.position += character.len_utf8();
        Some(character)
    }

    /// The next character.
    pub(super) fn peek(&self) -> Option<char> {
        let byte = *self.text.as_bytes().get(self.position)?;
        if byte.is_ascii() {
            return Some(char::from(byte));
        }
        self.text.get(self.position..)?.chars().next()
    }

    /// Consumes the next character if it is this one.
    pub(super) fn accept(&mut self, wanted: char) -> bool {
        self.accept_if(|character| character == wanted)
    }

    /// Consumes the next character if it is such a one.
    fn accept_if(&mut self, wanted: impl Fn(char) -> bool) -> bool {
        match self.peek() {
            Some(character) if wanted(character) => {
                self.position += character.len_utf8();
                true
            }
            _ => false,
        }
    }

    /// Consumes characters as long as they are such.
    pub(super) fn accept_while(&mut self, wanted: impl Fn(char) -> bool) {
        while self.accept_if(&wanted) {}
    }

    /// Leaves out white space before a token.
    pub(super) fn skip_spaces(&mut self) {
        self.accept_while(is_space);
        self.start = self.position;
    }

    /// Whether, after white space, `(` comes next.
    pub(super) fn paren_follows(&self) -> bool {
        let rest = self.text.get(self.position..).unwrap_or_default();
        rest.trim_start_matches(is_space).starts_with('(')
    }

    /// Positions as a span. A text of 4 GiB or more is refused before it comes here.
    pub(super) fn span(&self, start: usize, end: usize) -> Span {
        let offset = |position| u32::try_from(position).unwrap_or(u32::MAX);
        Span { start: offset(start), end: offset(end) }
    }

    /// A comment, of which the `#` is consumed.
    pub(super) fn comment(&mut self) -> TokenKind {
        self.accept_while(|character| !matches!(character, '\r' | '\n'));
        TokenKind::Comment
    }

    /// Text in single or double quotes, of which the first is consumed.
    pub(super) fn quoted(&mut self, quote: char) -> Scanned {
        loop {
            match self.next() {
                Some('\\') => self.escape(quote)?,
                Some(char::REPLACEMENT_CHARACTER) => return Err("invalid UTF-8 rune".to_owned()),
                None | Some('\n') => return Err("unterminated quoted string".to_owned()),
                Some(character) if character == quote => return Ok(TokenKind::String),
                Some(_) => {}
            }
        }
    }

    /// Text in backquotes, of which the first is consumed.
    pub(super) fn raw_quoted(&mut self) -> Scanned {
        loop {
            match self.next() {
                Some(char::REPLACEMENT_CHARACTER) => return Err("invalid UTF-8 rune".to_owned()),
                None => return Err("unterminated raw string".to_owned()),
                Some('`') => return Ok(TokenKind::String),
                Some(_) => {}
            }
        }
    }

    /// An escape, of which the backslash is consumed.
    fn escape(&mut self, quote: char) -> Result<(), String> {
        let Some(first) = self.next() else { return Err("escape sequence not terminated".to_owned()) };
        let (digits, radix, most) = match first {
            'a' | 'b' | 'f' | 'n' | 'r' | 't' | 'v' | '\\' => return Ok(()),
            _ if first == quote => return Ok(()),
            '0'..='7' => {
                self.position -= 1;
                (3, 8, 255)
            }
            'x' => (2, 16, 255),
            'u' => (4, 16, u32::from(char::MAX)),
            'U' => (8, 16, u32::from(char::MAX)),
            _ => return Err(format!("unknown escape sequence {}", code_point(first))),
        };
        let mut value = 0u32;
        for _ in 0..digits {
            let Some(character) = self.next() else {
                return Err("escape sequence not terminated".to_owned());
            };
            let Some(digit) = character.to_digit(radix) else {
                return Err(format!("illegal character {} in escape sequence", code_point(character)));
            };
            value = value.wrapping_mul(radix).wrapping_add(digit);
        }
        if value > most || (0xd800..0xe000).contains(&value) {
            return Err("escape sequence is an invalid Unicode code point".to_owned());
        }
        Ok(())
    }

    /// Whether a number begins with this character, which is consumed.
    pub(super) fn starts_number(&self, first: char) -> bool {
        first.is_ascii_digit() || first == '.' && self.peek().is_some_and(|next| next.is_ascii_digit())
    }

    /// A number or duration, of which the first character is consumed.
    pub(super) fn number_or_duration(&mut self) -> Scanned {
        self.position = self.start;
        if self.number() {
            return Ok(TokenKind::Number);
        }
        if self.rest_of_duration() {
            return Ok(TokenKind::Duration);
        }
        let read = self.text.get(self.start..self.position).unwrap_or_default();
        Err(format!("bad number or duration syntax: {}", quoted(read)))
    }

    /// Reads a number in any form. Whether it has a value is seen when it is read, see [`super::parse_number`].
    fn number(&mut self) -> bool {
        let begin = self.position;
        let hexadecimal = self.accept('0') && self.accept_if(|character| matches!(character, 'x' | 'X'));
        let digit =
            |character: char| character.is_ascii_digit() || hexadecimal && character.is_ascii_hexdigit();
        if hexadecimal {
            self.accept('_');
        }
        self.accept('.');
        self.accept_if(digit);
        let (mut got_dot, mut got_exponent) = (false, false);
        while let Some(next) = self.peek() {
            match next {
                '.' => {
                    self.accept('.');
                    if got_dot || hexadecimal {
                        return self.bad_after_dot(got_dot);
                    }
                    got_dot = true;
                    if self.accept_if(|character| matches!(character, '_' | '.')) {
                        return false;
                    }
                }
                'e' | 'E' if got_exponent => {
                    self.position += 1;
                    return false;
                }
                'e' | 'E' => {
                    self.position += 1;
                    got_exponent = true;
                    self.accept_if(|character| matches!(character, '+' | '-'));
                    if self.separator_repeats() {
                        return false;
                    }
                }
                '_' => {
                    self.position += 1;
                    if self.separator_repeats() {
                        return false;
                    }
                }
                _ if digit(next) => self.accept_while(digit),
                _ => break,
            }
        }
        self.position > begin && !self.peek().is_some_and(is_alphanumeric)
    }

    /// After a dot that may not be: in a hexadecimal number it takes a separator behind it along.
    fn bad_after_dot(&mut self, repeated: bool) -> bool {
        if !repeated {
            self.accept_if(|character| matches!(character, '_' | '.'));
        }
        false
    }

    /// Whether after `_` or an exponent nothing comes, or what may not (consumed).
    fn separator_repeats(&mut self) -> bool {
        self.accept_if(|character| matches!(character, '.' | '_' | 'e' | 'E')) || self.peek().is_none()
    }

    /// Reads what follows the first number of a duration. Whether units are in order is seen when it is read, see
    /// [`super::parse_duration`].
    fn rest_of_duration(&mut self) -> bool {
        if !self.accept_if(|character| matches!(character, 's' | 'm' | 'h' | 'd' | 'w' | 'y')) {
            return false;
        }
        self.accept('s');
        while self.accept_if(|character| character.is_ascii_digit()) {
            self.accept_while(|character| character.is_ascii_digit());
            if !self.accept_if(|character| matches!(character, 's' | 'm' | 'h' | 'd' | 'w')) {
                return false;
            }
            self.accept('s');
        }
        match self.peek() {
            Some(character) if is_alphanumeric(character) => {
                self.position += 1;
                false
            }
            _ => true,
        }
    }
}

/// White space between tokens.
fn is_space(character: char) -> bool {
    matches!(character, ' ' | '\t' | '\n' | '\r')
}
