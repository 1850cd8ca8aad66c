//! Texts of others on a terminal: made harmless, measured and cut by the columns they take.

use unicode_width::{UnicodeWidthChar as _, UnicodeWidthStr as _};

/// Names are the measured's to choose: nothing that moves a terminal's cursor, turns its direction or shows as nothing
/// gets through.
#[must_use]
pub fn printable(text: &str) -> String {
    let is_harmless = |character: char| {
        // Separators of lines and paragraphs have a width, and still end a line somewhere.
        character.width().is_some_and(|columns| columns > 0) && !matches!(character, '\u{2028}' | '\u{2029}')
    };
    text.chars().map(|character| if is_harmless(character) { character } else { '\u{fffd}' }).collect()
}

/// Columns that a harmless text takes.
#[must_use]
pub fn columns(text: &str) -> usize {
    text.width()
}

/// At most so many columns of a harmless text: its beginning, `…` and its end, where pods and containers differ.
#[must_use]
pub fn cut(text: &str, most: usize) -> String {
    if columns(text) <= most {
        return text.to_owned();
    }
    let Some(rest) = most.checked_sub(1) else { return String::new() };
    let tail_most = rest / 2;
    let head = taken(text.chars(), rest - tail_most);
    let tail = taken(text.chars().rev(), tail_most);
    format!("{head}…{}", tail.chars().rev().collect::<String>())
}

/// The first characters, as many as have room.
fn taken(characters: impl Iterator<Item = char>, most: usize) -> String {
    let mut used = 0;
    characters
        .take_while(|character| {
            used += character.width().unwrap_or(0);
            used <= most
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn what_moves_the_cursor_or_hides_becomes_a_mark() {
        let check = |text: &str, shown: &str| assert_eq!(printable(text), shown, "{text:?}");
        check("web-1.service", "web-1.service");
        check("a\u{1b}[2Jb\r\n", "a\u{fffd}[2Jb\u{fffd}\u{fffd}");
        check("a\u{202e}b\u{200b}c\u{301}\u{feff}", "a\u{fffd}b\u{fffd}c\u{fffd}\u{fffd}");
        check("\u{9b}31m\u{2028}", "\u{fffd}31m\u{fffd}");
        check("数据库", "数据库");
    }

    #[test]
    fn beginning_and_end_are_kept() {
        let check = |text: &str, most, shown: &str| assert_eq!(cut(text, most), shown);
        check("shop/checkout", 13, "shop/checkout");
        check("shop/checkout", 9, "shop…kout");
        check("数据库服务", 7, "数…务");
        check("shop", 1, "…");
        check("shop", 0, "");
    }

    proptest! {
        #[test]
        fn a_cut_text_has_room(text in "\\PC{0,40}", most in 0usize..50) {
            let text = printable(&text);
            prop_assert!(columns(&cut(&text, most)) <= most, "{text:?}");
        }

        #[test]
        fn nothing_harmful_is_left(text in any::<String>()) {
            let shown = printable(&text);
            prop_assert!(!shown.chars().any(char::is_control));
            prop_assert_eq!(shown.chars().count(), text.chars().count());
        }
    }
}
