//! Reads a line from left to right.

/// A place in a text.
#[derive(Clone, Copy)]
pub(crate) struct Cursor<'a> {
    rest: &'a str,
}

// === impl Cursor ===

impl<'a> Cursor<'a> {
    pub fn new(text: &'a str) -> Self {
        Self { rest: text }
    }

    pub fn rest(&self) -> &'a str {
        self.rest
    }

    pub fn is_done(&self) -> bool {
        self.rest.is_empty()
    }

    /// Passes blanks; whether there were any.
    pub fn spaces(&mut self) -> bool {
        let before = self.rest.len();
        self.rest = self.rest.trim_start_matches([' ', '\t']);
        self.rest.len() < before
    }

    /// Passes a text if it is next.
    pub fn eat(&mut self, text: &str) -> bool {
        match self.rest.strip_prefix(text) {
            Some(rest) => {
                self.rest = rest;
                true
            }
            None => false,
        }
    }

    /// Passes the characters that `wanted` says yes to.
    pub fn take(&mut self, wanted: impl Fn(char) -> bool) -> &'a str {
        let end = self.rest.find(|character| !wanted(character)).unwrap_or(self.rest.len());
        let (taken, rest) = self.rest.split_at_checked(end).unwrap_or((self.rest, ""));
        self.rest = rest;
        taken
    }

    /// Passes everything up to a text, and the text; nothing if it does not come.
    pub fn until(&mut self, end: &str) -> Option<&'a str> {
        let (taken, rest) = self.rest.split_once(end)?;
        self.rest = rest;
        Some(taken)
    }

    /// A number without sign: decimal, `Inf` or `NaN`. Not hexadecimal, whose `x` means "times" here.
    pub fn number(&mut self) -> Option<f64> {
        let mut ahead = *self;
        let word = ahead.take(|character| character.is_ascii_alphabetic());
        if !word.is_empty() {
            *self = ahead;
            return match word.to_ascii_lowercase().as_str() {
                "inf" => Some(f64::INFINITY),
                "nan" => Some(f64::NAN),
                _ => None,
            };
        }
        let text = self.rest;
        self.take(|character| character.is_ascii_digit() || character == '.');
        let mut exponent = *self;
        if exponent.eat("e") || exponent.eat("E") {
            if !exponent.eat("+") {
                exponent.eat("-");
            }
            if !exponent.take(|character| character.is_ascii_digit()).is_empty() {
                *self = exponent;
            }
        }
        let length = text.len() - self.rest.len();
        let number = text.get(..length)?;
        let is_octal =
            number.len() > 1 && number.starts_with('0') && number.bytes().all(|b| b.is_ascii_digit());
        if is_octal {
            return crate::lexer::parse_number(number).ok();
        }
        number.parse().ok()
    }

    /// A number that may have a sign.
    pub fn signed_number(&mut self) -> Option<f64> {
        if self.eat("-") {
            return self.number().map(|value| -value);
        }
        self.eat("+");
        self.number()
    }

    /// A whole number.
    pub fn count(&mut self) -> Option<usize> {
        self.take(|character| character.is_ascii_digit()).parse().ok()
    }
}
