//! Text in quotes as Go's `%q` prints it: what Prometheus' errors and formatted queries contain.

use std::fmt::Write as _;
use std::sync::LazyLock;

use regex_syntax::hir::{Class, ClassUnicode, HirKind};

/// Letters, marks, numbers, punctuation, symbols: what Go prints as it is. The space is apart, the only one of its kind.
static PRINTABLE: LazyLock<Option<ClassUnicode>> = LazyLock::new(|| {
    let hir = regex_syntax::parse(r"[\p{L}\p{M}\p{N}\p{P}\p{S}]").ok()?;
    match hir.into_kind() {
        HirKind::Class(Class::Unicode(class)) => Some(class),
        _ => None,
    }
});

/// Appends `text` in double quotes, with escapes.
pub(crate) fn push_quoted(out: &mut String, text: &str) {
    out.push('"');
    text.chars().for_each(|character| push_escaped(out, character, '"'));
    out.push('"');
}

/// `text` in double quotes, with escapes.
pub(crate) fn quoted(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    push_quoted(&mut out, text);
    out
}

/// A character in single quotes, with escapes; what is beyond the end of the text prints as U+FFFD.
pub(crate) fn quoted_char(character: Option<char>) -> String {
    let mut out = String::from("'");
    push_escaped(&mut out, character.unwrap_or(char::REPLACEMENT_CHARACTER), '\'');
    out.push('\'');
    out
}

/// A character's code point, with the character itself if it can be printed: `U+0071 'q'`.
pub(crate) fn code_point(character: char) -> String {
    let mut out = format!("U+{:04X}", u32::from(character));
    if is_printable(character) {
        let _ = write!(out, " '{character}'");
    }
    out
}

/// Appends one character, escaped if it must be.
fn push_escaped(out: &mut String, character: char, quote: char) {
    let written = match character {
        '\\' => out.write_str("\\\\"),
        _ if character == quote => write!(out, "\\{quote}"),
        _ if is_printable(character) => out.write_char(character),
        '\u{7}' => out.write_str("\\a"),
        '\u{8}' => out.write_str("\\b"),
        '\u{c}' => out.write_str("\\f"),
        '\n' => out.write_str("\\n"),
        '\r' => out.write_str("\\r"),
        '\t' => out.write_str("\\t"),
        '\u{b}' => out.write_str("\\v"),
        '\0'..' ' | '\u{7f}' => write!(out, "\\x{:02x}", u32::from(character)),
        '\u{10000}'.. => write!(out, "\\U{:08x}", u32::from(character)),
        _ => write!(out, "\\u{:04x}", u32::from(character)),
    };
    debug_assert!(written.is_ok(), "strings take everything");
}

/// Whether it is printed as it is.
fn is_printable(character: char) -> bool {
    if character.is_ascii() {
        return matches!(character, ' '..='~');
    }
    let Some(class) = PRINTABLE.as_ref() else { return false };
    class
        .ranges()
        .binary_search_by(|range| {
            if range.end() < character {
                std::cmp::Ordering::Less
            } else if range.start() > character {
                std::cmp::Ordering::Greater
            } else {
                std::cmp::Ordering::Equal
            }
        })
        .is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_quoted_as_go_quotes_it() {
        let check = |text: &str, expected: &str| assert_eq!(quoted(text), expected, "{text:?}");
        check("", r#""""#);
        check("a\"b'c\\d", r#""a\"b'c\\d""#);
        check("\u{7}\u{8}\u{c}\n\r\t\u{b}\0\u{1f}\u{7f}", r#""\a\b\f\n\r\t\v\x00\x1f\x7f""#);
        check("grüße 日本 🌍 \u{301}", "\"grüße 日本 🌍 \u{301}\"");
        check("\u{a0}\u{200b}\u{feff}\u{e000}\u{10ffff}", r#""\u00a0\u200b\ufeff\ue000\U0010ffff""#);
        check("\u{fffd}", "\"\u{fffd}\"");
    }

    #[test]
    fn characters_are_quoted_as_go_quotes_them() {
        assert_eq!(quoted_char(Some('\'')), r"'\''");
        assert_eq!(quoted_char(Some('"')), "'\"'");
        assert_eq!(quoted_char(None), "'\u{fffd}'");
        assert_eq!(code_point('q'), "U+0071 'q'");
        assert_eq!(code_point('\u{1}'), "U+0001");
    }
}
