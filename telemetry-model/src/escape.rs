//! Names that an attacker may choose, as printable text: injective, so that two names never become one.
//!
//! Cgroup names may hold any byte but `/` and NUL. What is printable stays as it is; every other byte, and the
//! escape sign itself, becomes `%` and two hexadecimal digits. The sign is `%` and not `\` because systemd writes
//! `\x2d` into unit names, which would otherwise double.

use std::borrow::Cow;
use std::fmt::Write as _;

/// Bytes as printable UTF-8; two different inputs never give the same text.
#[must_use]
pub fn printable(bytes: &[u8]) -> Cow<'_, str> {
    if let Ok(text) = std::str::from_utf8(bytes)
        && text.chars().all(stays)
    {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(bytes.len() + 16);
    for chunk in bytes.utf8_chunks() {
        for character in chunk.valid().chars() {
            if stays(character) {
                out.push(character);
            } else {
                escape(character.encode_utf8(&mut [0; 4]).as_bytes(), &mut out);
            }
        }
        escape(chunk.invalid(), &mut out);
    }
    Cow::Owned(out)
}

fn escape(bytes: &[u8], out: &mut String) {
    for byte in bytes {
        // Writing to a String cannot fail.
        let _ = write!(out, "%{byte:02X}");
    }
}

/// Control characters, line separators and what reorders or hides text do not stay.
fn stays(character: char) -> bool {
    !(character == '%'
        || character.is_control()
        || matches!(character,
            '\u{061c}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}'
            | '\u{feff}' | '\u{fff9}'..='\u{fffb}'))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn check(bytes: &[u8], expected: &str) {
        assert_eq!(printable(bytes), expected);
    }

    #[test]
    fn hostile_names_become_printable() {
        check(b"kubelet.service", "kubelet.service");
        check(b"dev-disk-by\\x2duuid.swap", "dev-disk-by\\x2duuid.swap");
        check(b"a\nb", "a%0Ab");
        check(b"\x1b[31m\"'", "%1B[31m\"'");
        check(b"\xff\xfe", "%FF%FE");
        check(b"100%", "100%25");
        check("\u{202e}evil".as_bytes(), "%E2%80%AEevil");
        check("caf\u{e9}".as_bytes(), "caf\u{e9}");
    }

    /// Undoes the escape; what it returns is what went in, so the escape is injective.
    fn undo(text: &str) -> Vec<u8> {
        let mut out = Vec::new();
        let mut rest = text.as_bytes().iter();
        while let Some(&byte) = rest.next() {
            if byte == b'%' {
                let digits: String = rest.by_ref().take(2).map(|&digit| digit as char).collect();
                out.push(u8::from_str_radix(&digits, 16).unwrap());
            } else {
                out.push(byte);
            }
        }
        out
    }

    proptest! {
        #[test]
        fn the_escape_is_injective(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
            let text = printable(&bytes);
            prop_assert_eq!(undo(&text), bytes.clone());
            prop_assert!(text.chars().all(|character| !character.is_control()));
        }
    }
}
