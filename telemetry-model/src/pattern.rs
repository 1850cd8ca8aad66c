//! Regular expressions of matchers: RE2's language, as Prometheus has it, put into the words of the `regex` crate.
//!
//! The two languages look alike and differ in what a user meets: `{id}` is text in RE2, `\d`, `\w`, `\s` and `\b` are ASCII,
//! `[` within a class is text, `\Q…\E` quotes; and what only the crate knows (`a**`, `(?x)`, set operations) is an error in
//! RE2. Reads the whole expression once, keeps no tree, knows no Unicode tables: whether a script of that name exists, the
//! crate says. Called through [`Matcher`](crate::Matcher) by whoever compiles one, and by `label_replace`.

mod class;
mod escape;
mod group;

use std::fmt;

/// The most times a part may be repeated, nested counts multiplied.
const REPEAT_MAX: u32 = 1000;

/// How deep groups may nest; RE2's own limit.
const NESTING_MAX: usize = 1000;

/// Why a text is no expression. Prints as Prometheus prints it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PatternError {
    /// What is wrong.
    pub reason: &'static str,
    /// The part of the expression it is about.
    pub part: String,
}

/// An expression in the words of the `regex` crate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Expression {
    /// Not anchored; to be compiled with `.` matching newlines, see [`Expression::anchored`].
    pub text: String,
    /// What each capturing group is called, the first group first. Groups have numbers only in `text`: RE2 takes names that
    /// begin with digits, and one name for several groups.
    pub groups: Vec<Option<String>>,
}

/// Puts an expression into the words of the `regex` crate.
///
/// # Errors
///
/// If RE2 refuses it. The crate may still refuse the result: scripts of unknown names, too large expressions.
pub fn translate(pattern: &str) -> Result<Expression, PatternError> {
    let mut translator = Translator {
        pattern,
        rest: pattern,
        out: String::with_capacity(pattern.len() + 8),
        names: Vec::new(),
        groups: Vec::new(),
        group: Group::default(),
        repeated_from: None,
    };
    translator.run()?;
    Ok(Expression { text: translator.out, groups: translator.names })
}

/// A translation at work.
struct Translator<'a> {
    pattern: &'a str,
    /// What is to be read.
    rest: &'a str,
    out: String,
    /// What the capturing groups so far are called.
    names: Vec<Option<String>>,
    /// Groups around the present one.
    groups: Vec<Group>,
    group: Group,
    /// What was to be read before the repetition that has just been read.
    repeated_from: Option<&'a str>,
}

/// A group that is open.
#[derive(Default)]
struct Group {
    /// Where it begins in the output.
    start: usize,
    /// What a repetition would repeat, if anything.
    operand: Option<Operand>,
    /// The most times anything within is repeated.
    repeats: u32,
}

/// What can be repeated.
#[derive(Clone, Copy)]
struct Operand {
    /// Where it stands in the output.
    start: usize,
    end: usize,
    /// Whether it ends with a repetition, so that another one would be read as a part of that.
    is_repeated: bool,
    /// How often it is repeated at most, nested counts multiplied; 1 if not at all.
    repeats: u32,
}

// === impl Expression ===

impl Expression {
    /// As Prometheus compiles it: anchored at both ends, `.` matching newlines.
    #[must_use]
    pub fn anchored(&self) -> String {
        format!("^(?s:{})$", self.text)
    }
}

// === impl PatternError ===

impl PatternError {
    /// An error about a part of an expression.
    fn new(reason: &'static str, part: &str) -> Self {
        Self { reason, part: part.to_owned() }
    }
}

impl fmt::Display for PatternError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "error parsing regexp: {}: `{}`", self.reason, self.part)
    }
}

impl std::error::Error for PatternError {}

// === impl Translator ===

impl<'a> Translator<'a> {
    /// Reads everything.
    fn run(&mut self) -> Result<(), PatternError> {
        while let Some(first) = self.rest.chars().next() {
            let before = self.rest;
            let repeated_from = self.repeated_from.take();
            match first {
                '(' => self.open()?,
                '|' => {
                    self.skip(1);
                    self.out.push('|');
                    self.group.operand = None;
                }
                ')' => self.close()?,
                '^' | '$' | '.' => {
                    self.skip(1);
                    self.atom(first.encode_utf8(&mut [0; 4]));
                }
                '[' => {
                    let (class, rest) = class::translate(self.rest)?;
                    self.rest = rest;
                    self.atom(&class);
                }
                '*' | '+' | '?' => {
                    self.skip(1);
                    self.repeat(before, repeated_from, None)?;
                }
                '{' => match counts(self.rest) {
                    Some((least, most, rest)) => {
                        self.rest = rest;
                        if least > REPEAT_MAX || most.is_some_and(|most| most > REPEAT_MAX || least > most) {
                            return Err(PatternError::new("invalid repeat count", self.read_since(before)));
                        }
                        self.repeat(before, repeated_from, Some((least, most)))?;
                    }
                    None => {
                        self.skip(1);
                        self.literal('{');
                    }
                },
                '\\' => self.backslash()?,
                _ => {
                    self.skip(first.len_utf8());
                    self.literal(first);
                }
            }
        }
        match self.groups.is_empty() {
            true => Ok(()),
            false => Err(PatternError::new("missing closing )", self.pattern)),
        }
    }

    /// Leaves bytes behind.
    fn skip(&mut self, bytes: usize) {
        self.rest = self.rest.get(bytes..).unwrap_or_default();
    }

    /// What was read since `before` was to be read.
    fn read_since(&self, before: &'a str) -> &'a str {
        before.get(..before.len().saturating_sub(self.rest.len())).unwrap_or(before)
    }

    /// Writes something that can be repeated.
    fn atom(&mut self, translated: &str) {
        let start = self.out.len();
        self.out.push_str(translated);
        self.operand(start, 1);
    }

    /// Writes one character that stands for itself.
    fn literal(&mut self, character: char) {
        let start = self.out.len();
        escape::push_literal(&mut self.out, character);
        self.operand(start, 1);
    }

    /// Takes note of what was written last, from `start` on.
    fn operand(&mut self, start: usize, repeats: u32) {
        self.group.repeats = self.group.repeats.max(repeats);
        self.group.operand = Some(Operand { start, end: self.out.len(), is_repeated: false, repeats });
    }

    /// A repetition, of which all but `?` is read. `before` was to be read before it, `repeated_from` before the one directly
    /// before it.
    fn repeat(
        &mut self,
        before: &'a str,
        repeated_from: Option<&'a str>,
        counts: Option<(u32, Option<u32>)>,
    ) -> Result<(), PatternError> {
        if self.rest.starts_with('?') {
            self.skip(1);
        }
        if let Some(from) = repeated_from {
            return Err(PatternError::new("invalid nested repetition operator", self.read_since(from)));
        }
        let read = self.read_since(before);
        let Some(operand) = self.group.operand else {
            return Err(PatternError::new("missing argument to repetition operator", read));
        };
        let mut repeats = operand.repeats;
        if let Some((least, most)) = counts {
            match most.unwrap_or(least) {
                0 if most.is_some() => repeats = 1,
                0 => {}
                count => repeats = repeats.saturating_mul(count),
            }
            if repeats > REPEAT_MAX && (least >= 2 || most.is_some_and(|most| most >= 2)) {
                return Err(PatternError::new("invalid repeat count", read));
            }
        }
        // Flags may stand between the operand and its repetition: a(?i)* repeats a, and a+(?i)? what a+ matches.
        let flags = self.out.split_off(operand.end);
        if operand.is_repeated {
            self.out.insert_str(operand.start, "(?:");
            self.out.push(')');
        }
        self.out.push_str(read);
        self.operand(operand.start, repeats);
        if let Some(made) = &mut self.group.operand {
            made.is_repeated = true;
        }
        self.out.push_str(&flags);
        self.repeated_from = Some(before);
        Ok(())
    }

    /// What a backslash begins.
    fn backslash(&mut self) -> Result<(), PatternError> {
        match self.rest.chars().nth(1) {
            Some('A' | 'z') => {
                let anchor = self.rest.get(..2).unwrap_or_default();
                self.skip(2);
                self.atom(anchor);
            }
            Some('b') => {
                self.skip(2);
                self.atom("(?-u:\\b)");
            }
            Some('B') => {
                self.skip(2);
                self.atom("(?-u:\\B)");
            }
            Some('C') => return Err(PatternError::new("invalid escape sequence", "\\C")),
            Some('Q') => {
                self.skip(2);
                let (quoted, rest) = self.rest.split_once("\\E").unwrap_or((self.rest, ""));
                quoted.chars().for_each(|character| self.literal(character));
                self.rest = rest;
            }
            _ => {
                if let Some((class, rest)) = class::shorthand(self.rest)? {
                    self.rest = rest;
                    self.atom(&format!("[{class}]"));
                    return Ok(());
                }
                let (code, rest) = escape::read(self.rest)?;
                self.rest = rest;
                match char::from_u32(code) {
                    Some(character) => self.literal(character),
                    // Half of a surrogate pair: no text has it.
                    None => self.atom(class::NOTHING),
                }
            }
        }
        Ok(())
    }
}

/// `{2}`, `{2,}` or `{2,3}`: the least, the most, and what follows. Counts too great to matter are cut.
fn counts(text: &str) -> Option<(u32, Option<u32>, &str)> {
    let (least, rest) = count(text.strip_prefix('{')?)?;
    if let Some(rest) = rest.strip_prefix('}') {
        return Some((least, Some(least), rest));
    }
    let rest = rest.strip_prefix(',')?;
    if let Some(rest) = rest.strip_prefix('}') {
        return Some((least, None, rest));
    }
    let (most, rest) = count(rest)?;
    Some((least, Some(most), rest.strip_prefix('}')?))
}

/// A number without leading zeros, and what follows.
fn count(text: &str) -> Option<(u32, &str)> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, rest) = text.split_at_checked(digits)?;
    if number.is_empty() || number.len() > 1 && number.starts_with('0') {
        return None;
    }
    Some((number.parse().unwrap_or(u32::MAX), rest))
}

#[cfg(test)]
mod tests;
