//! The lexer: a query's text to tokens with byte spans, one at a time.
//!
//! Context decides what a character is: braces hold matchers, brackets hold durations and, up to the first number, nothing
//! else. Errors carry Prometheus' texts. Called by [`crate::parse`]; the values of literals are in functions of their own
//! ([`parse_number`], [`parse_duration`], [`unquote`]) for others to use.

mod literal;
mod scan;
mod token;

pub use literal::{parse_duration, parse_number, print_duration, unquote};
pub use token::{Keyword, Token, TokenKind};

use crate::ast::BinaryOp;
use crate::quote::quoted_char;

/// A text being cut into tokens. After [`TokenKind::Error`] only [`TokenKind::Eof`] follows.
#[derive(Debug)]
pub struct Lexer<'a> {
    text: &'a str,
    /// Where the next token begins.
    start: usize,
    /// What is read up to.
    position: usize,
    state: State,
    /// Open parentheses, of the whole text.
    paren_depth: usize,
    in_braces: bool,
    in_brackets: bool,
    /// Whether the brackets had a colon.
    got_colon: bool,
    /// Whether any brackets had a number; as in Prometheus never taken back.
    got_duration: bool,
    /// Why the last token is an error.
    error: Option<String>,
}

/// Which characters make sense.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// All tokens, or those in braces.
    Plain,
    /// In brackets before the first number.
    Duration,
    /// Nothing: the text is at its end or in error.
    Done,
}

/// A token, or why there is none.
type Scanned = Result<TokenKind, String>;

// === impl Lexer ===

impl<'a> Lexer<'a> {
    /// A lexer at the start of `text`.
    #[must_use]
    pub fn new(text: &'a str) -> Self {
        Self {
            text,
            start: 0,
            position: 0,
            state: State::Plain,
            paren_depth: 0,
            in_braces: false,
            in_brackets: false,
            got_colon: false,
            got_duration: false,
            error: None,
        }
    }

    /// Why the last token was an error.
    #[must_use]
    pub fn error(&self) -> Option<&str> {
        self.error.as_deref()
    }

    /// The next token; [`TokenKind::Eof`] again and again at the end. An error's span reaches to the end of the text.
    pub fn next_token(&mut self) -> Token {
        let scanned = match self.state {
            State::Plain if self.in_braces => self.in_braces(),
            State::Plain => self.plain(),
            State::Duration => self.in_duration(),
            State::Done => {
                self.start = self.position;
                Ok(TokenKind::Eof)
            }
        };
        match scanned {
            Ok(kind) => {
                let token = Token { kind, span: self.span(self.start, self.position) };
                self.start = self.position;
                self.after(kind);
                token
            }
            Err(message) => {
                self.error = Some(message);
                self.state = State::Done;
                Token { kind: TokenKind::Error, span: self.span(self.start, self.text.len()) }
            }
        }
    }

    /// What a token changes about those that follow.
    fn after(&mut self, kind: TokenKind) {
        match kind {
            TokenKind::Eof => self.state = State::Done,
            TokenKind::LeftBrace => self.in_braces = true,
            TokenKind::RightBrace => self.in_braces = false,
            TokenKind::LeftBracket => {
                self.got_colon = false;
                self.in_brackets = true;
                self.state = State::Duration;
                self.skip_spaces();
            }
            TokenKind::RightBracket => {
                self.in_brackets = false;
                self.state = State::Plain;
            }
            TokenKind::Number | TokenKind::Duration if self.state == State::Duration => {
                self.got_duration = true;
                self.state = State::Plain;
            }
            _ => {}
        }
    }

    /// A token outside braces, and in brackets after the first number.
    fn plain(&mut self) -> Scanned {
        self.skip_spaces();
        let Some(character) = self.next() else { return self.end() };
        if let Some(kind) = self.arithmetic(character) {
            return Ok(kind);
        }
        match character {
            '#' => Ok(self.comment()),
            ',' => Ok(TokenKind::Comma),
            '@' => Ok(TokenKind::At),
            '=' | '!' | '<' | '>' => self.comparison(character),
            '"' | '\'' => self.quoted(character),
            '`' => self.raw_quoted(),
            '(' | ')' => self.paren(character),
            '{' => Ok(TokenKind::LeftBrace),
            '[' if self.in_brackets => Err(format!("unexpected left bracket {}", quoted_char(Some('[')))),
            '[' => Ok(TokenKind::LeftBracket),
            ']' if !self.in_brackets => Err(format!("unexpected right bracket {}", quoted_char(Some(']')))),
            ']' => Ok(TokenKind::RightBracket),
            _ if self.starts_number(character) => self.number_or_duration(),
            _ if is_alpha(character) || character == ':' => self.word(character),
            _ => Err(format!("unexpected character: {}", quoted_char(Some(character)))),
        }
    }

    /// A token between braces: matchers.
    fn in_braces(&mut self) -> Scanned {
        self.skip_spaces();
        let Some(character) = self.next() else {
            return Err("unexpected end of input inside braces".to_owned());
        };
        match character {
            '#' => Ok(self.comment()),
            ',' => Ok(TokenKind::Comma),
            '"' | '\'' => self.quoted(character),
            '`' => self.raw_quoted(),
            '=' if self.accept('~') => Ok(TokenKind::EqualRegex),
            '=' => Ok(TokenKind::Assign),
            '!' => match self.next() {
                Some('~') => Ok(TokenKind::NotEqualRegex),
                Some('=') => Ok(TokenKind::Op(BinaryOp::NotEqual)),
                other => Err(format!("unexpected character after '!' inside braces: {}", quoted_char(other))),
            },
            '{' => Err(format!("unexpected left brace {}", quoted_char(Some('{')))),
            '}' => Ok(TokenKind::RightBrace),
            _ if is_alpha(character) => {
                self.accept_while(is_alphanumeric);
                Ok(TokenKind::Identifier)
            }
            _ => Err(format!("unexpected character inside braces: {}", quoted_char(Some(character)))),
        }
    }

    /// A token in brackets before the first number.
    fn in_duration(&mut self) -> Scanned {
        self.skip_spaces();
        let Some(character) = self.next() else {
            return Err("unexpected end of input in duration expression".to_owned());
        };
        if let Some(kind) = self.arithmetic(character) {
            return Ok(kind);
        }
        match character {
            ']' => Ok(TokenKind::RightBracket),
            ':' => {
                self.start = self.position;
                if !self.got_duration {
                    return Err("unexpected colon before duration in duration expression".to_owned());
                }
                if self.got_colon {
                    return Err("unexpected repeated colon in duration expression".to_owned());
                }
                self.start -= 1;
                self.got_colon = true;
                Ok(TokenKind::Colon)
            }
            '(' | ')' => self.paren(character),
            ',' => Ok(TokenKind::Comma),
            _ if self.starts_number(character) => self.number_or_duration(),
            _ => match self.duration_keyword(character) {
                Some(kind) => Ok(kind),
                None => Err(format!(
                    "unexpected character in duration expression: {}",
                    quoted_char(Some(character))
                )),
            },
        }
    }

    /// The end of the text, unless something is open.
    fn end(&self) -> Scanned {
        if self.paren_depth > 0 {
            return Err("unclosed left parenthesis".to_owned());
        }
        if self.in_brackets {
            return Err("unclosed left bracket".to_owned());
        }
        Ok(TokenKind::Eof)
    }

    /// An arithmetic operator of one character.
    fn arithmetic(&self, character: char) -> Option<TokenKind> {
        Some(TokenKind::Op(match character {
            '+' => BinaryOp::Add,
            '-' => BinaryOp::Sub,
            '*' => BinaryOp::Mul,
            '/' => BinaryOp::Div,
            '%' => BinaryOp::Mod,
            '^' => BinaryOp::Pow,
            _ => return None,
        }))
    }

    /// An operator that begins with `=`, `!`, `<` or `>`.
    fn comparison(&mut self, first: char) -> Scanned {
        let second = self.peek();
        let (op, length) = match (first, second) {
            ('=', Some('=')) => (BinaryOp::Equal, 1),
            ('=', Some('~')) => {
                return Err(format!("unexpected character after '=': {}", quoted_char(second)));
            }
            ('=', _) => return Ok(TokenKind::Assign),
            ('!', Some('=')) => (BinaryOp::NotEqual, 1),
            ('!', _) => return Err(format!("unexpected character after '!': {}", quoted_char(second))),
            ('<', Some('=')) => (BinaryOp::LessEqual, 1),
            ('<', Some('/')) => (BinaryOp::TrimUpper, 1),
            ('<', _) => (BinaryOp::Less, 0),
            (_, Some('=')) => (BinaryOp::GreaterEqual, 1),
            (_, Some('/')) => (BinaryOp::TrimLower, 1),
            (_, _) => (BinaryOp::Greater, 0),
        };
        self.position += length;
        Ok(TokenKind::Op(op))
    }

    /// A parenthesis, counted.
    fn paren(&mut self, character: char) -> Scanned {
        if character == '(' {
            self.paren_depth += 1;
            return Ok(TokenKind::LeftParen);
        }
        match self.paren_depth.checked_sub(1) {
            Some(depth) => {
                self.paren_depth = depth;
                Ok(TokenKind::RightParen)
            }
            None => {
                self.start = self.position;
                Err(format!("unexpected right parenthesis {}", quoted_char(Some(')'))))
            }
        }
    }

    /// A keyword or name; in brackets a colon or a keyword of durations.
    fn word(&mut self, first: char) -> Scanned {
        if self.in_brackets {
            if first == ':' {
                if self.got_colon {
                    return Err(format!("unexpected colon {}", quoted_char(Some(':'))));
                }
                self.got_colon = true;
                return Ok(TokenKind::Colon);
            }
            return self.duration_keyword(first).ok_or_else(|| {
                format!(
                    "unexpected character: {}, expected {}",
                    quoted_char(Some(first)),
                    quoted_char(Some(':'))
                )
            });
        }
        self.accept_while(|character| is_alphanumeric(character) || character == ':');
        let word = self.text.get(self.start..self.position).unwrap_or_default();
        Ok(match token::keyword(word) {
            // Only a modifier if its value follows, so that metrics of these names go on working.
            Some(TokenKind::Keyword(Keyword::Fill | Keyword::FillLeft | Keyword::FillRight))
                if !self.paren_follows() =>
            {
                TokenKind::Identifier
            }
            Some(kind) => kind,
            None if word.contains(':') => TokenKind::MetricIdentifier,
            None => TokenKind::Identifier,
        })
    }

    /// A keyword within durations that begins with `first`.
    fn duration_keyword(&mut self, first: char) -> Option<TokenKind> {
        if !matches!(first.to_ascii_lowercase(), 's' | 'r' | 'm') {
            return None;
        }
        self.accept_while(is_alpha);
        let word = self.text.get(self.start..self.position)?;
        match token::keyword(word)? {
            kind @ TokenKind::Keyword(Keyword::Step | Keyword::Range | Keyword::MaxOf | Keyword::MinOf) => {
                Some(kind)
            }
            _ => None,
        }
    }
}

/// Whether a name may begin so.
fn is_alpha(character: char) -> bool {
    character == '_' || character.is_ascii_alphabetic()
}

/// Whether a name may go on so.
fn is_alphanumeric(character: char) -> bool {
    is_alpha(character) || character.is_ascii_digit()
}

#[cfg(test)]
mod tests;
