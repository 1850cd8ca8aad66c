//! Groups: their beginning, their end, their names and flags.

use super::{Group, NESTING_MAX, PatternError, Translator};

/// What may be switched on and off, as the crate calls it, too.
const FLAGS: [char; 4] = ['i', 'm', 's', 'U'];

// === impl Translator ===

impl<'a> Translator<'a> {
    /// A group's start, or flags.
    pub(super) fn open(&mut self) -> Result<(), PatternError> {
        let named = |prefix: &str| self.rest.strip_prefix(prefix).is_some_and(|name| !name.is_empty());
        if !self.rest.starts_with("(?") {
            self.skip(1);
            self.names.push(None);
            return self.enter("(");
        }
        if named("(?P<") || named("(?<") {
            let name = self.capture_name()?;
            self.names.push(Some(name.to_owned()));
            return self.enter("(");
        }
        let (flags, opens) = self.flags()?;
        if opens {
            return self.enter(&format!("(?{flags}:"));
        }
        if !flags.is_empty() {
            self.out.push_str(&format!("(?{flags})"));
        }
        Ok(())
    }

    /// Goes into a group.
    fn enter(&mut self, opening: &str) -> Result<(), PatternError> {
        if self.groups.len() >= NESTING_MAX {
            return Err(PatternError::new("expression nests too deeply", self.pattern));
        }
        let inner = Group { start: self.out.len(), ..Group::default() };
        self.out.push_str(opening);
        let outer = std::mem::replace(&mut self.group, inner);
        self.groups.push(outer);
        Ok(())
    }

    /// A group's end.
    pub(super) fn close(&mut self) -> Result<(), PatternError> {
        let Some(outer) = self.groups.pop() else {
            return Err(PatternError::new("unexpected )", self.pattern));
        };
        self.skip(1);
        let inner = std::mem::replace(&mut self.group, outer);
        self.out.push(')');
        self.operand(inner.start, inner.repeats.max(1));
        Ok(())
    }

    /// `(?P<name>` or `(?<name>`, read: the name.
    fn capture_name(&mut self) -> Result<&'a str, PatternError> {
        let whole = self.rest;
        let Some(end) = whole.find('>') else {
            return Err(PatternError::new("invalid named capture", whole));
        };
        let opening = whole.get(..=end).unwrap_or(whole);
        let name = opening.split_once('<').map_or("", |(_, name)| name.trim_end_matches('>'));
        let is_plain = |character: char| character == '_' || character.is_ascii_alphanumeric();
        if name.is_empty() || !name.chars().all(is_plain) {
            return Err(PatternError::new("invalid named capture", opening));
        }
        self.skip(opening.len());
        Ok(name)
    }

    /// `(?flags)` or `(?flags:`, read: the flags, each once, and whether a group begins.
    fn flags(&mut self) -> Result<(String, bool), PatternError> {
        let whole = self.rest;
        self.skip(2);
        let mut states = [None; FLAGS.len()];
        let (mut negated, mut any) = (false, false);
        while let Some(character) = self.rest.chars().next() {
            self.skip(character.len_utf8());
            match character {
                '-' if !negated => (negated, any) = (true, false),
                ':' | ')' if any || !negated => return Ok((written(states), character == ':')),
                _ => {
                    let found = FLAGS.iter().position(|flag| *flag == character);
                    let Some(state) = found.and_then(|at| states.get_mut(at)) else { break };
                    (*state, any) = (Some(!negated), true);
                }
            }
        }
        Err(PatternError::new("invalid or unsupported Perl syntax", self.read_since(whole)))
    }
}

/// Flags as the crate takes them: none twice.
fn written(states: [Option<bool>; FLAGS.len()]) -> String {
    let with = |wanted| {
        FLAGS.iter().zip(states).filter(move |(_, state)| *state == Some(wanted)).map(|(flag, _)| flag)
    };
    let (mut on, off): (String, String) = (with(true).collect(), with(false).collect());
    if !off.is_empty() {
        on.push('-');
        on.push_str(&off);
    }
    on
}
