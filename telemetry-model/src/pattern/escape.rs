//! Escapes that stand for one character, and characters that must be escaped.

use std::fmt::Write as _;

use super::PatternError;

/// Characters that mean something in the crate's language, in classes or outside them.
const SPECIAL: &str = r"\.+*?()|[]{}^$#&-~";

/// Appends a character that stands for itself.
pub(super) fn push_literal(out: &mut String, character: char) {
    if SPECIAL.contains(character) {
        out.push('\\');
    }
    out.push(character);
}

/// Appends a character of a class.
pub(super) fn push_class_char(out: &mut String, character: char) {
    if character.is_ascii_alphanumeric() || !character.is_ascii() {
        out.push(character);
        return;
    }
    let written = write!(out, "\\x{{{:x}}}", u32::from(character));
    debug_assert!(written.is_ok(), "strings take everything");
}

/// Reads an escape of one character, whose backslash comes first: its code point, which may be half of a surrogate pair, and
/// what follows.
pub(super) fn read(text: &str) -> Result<(u32, &str), PatternError> {
    let mut chars = text.chars();
    chars.next();
    let Some(first) = chars.next() else {
        return Err(PatternError::new("trailing backslash at end of expression", ""));
    };
    let code = match first {
        '1'..='7' if !chars.as_str().starts_with(is_octal) => None,
        '0'..='7' => {
            let mut code = first.to_digit(8).unwrap_or_default();
            for _ in 1..3 {
                let Some(digit) = chars.as_str().chars().next().and_then(|next| next.to_digit(8)) else {
                    break;
                };
                code = code * 8 + digit;
                chars.next();
            }
            Some(code)
        }
        'x' => hexadecimal(&mut chars),
        'a' => Some(7),
        'f' => Some(12),
        'n' => Some(10),
        'r' => Some(13),
        't' => Some(9),
        'v' => Some(11),
        _ if first.is_ascii() && !first.is_ascii_alphanumeric() => Some(u32::from(first)),
        _ => None,
    };
    let rest = chars.as_str();
    let read = text.get(..text.len() - rest.len()).unwrap_or(text);
    code.map(|code| (code, rest)).ok_or_else(|| PatternError::new("invalid escape sequence", read))
}

/// Reads what follows `\x`: two digits, or any number in braces.
fn hexadecimal(chars: &mut std::str::Chars<'_>) -> Option<u32> {
    let first = chars.next()?;
    if first != '{' {
        let second = chars.next()?;
        return Some(first.to_digit(16)? * 16 + second.to_digit(16)?);
    }
    let mut code = None;
    loop {
        let next = chars.next()?;
        if next == '}' {
            return code;
        }
        let value = code.unwrap_or(0u32) * 16 + next.to_digit(16)?;
        if value > u32::from(char::MAX) {
            return None;
        }
        code = Some(value);
    }
}

/// Whether a character is an octal digit.
fn is_octal(character: char) -> bool {
    character.is_digit(8)
}
