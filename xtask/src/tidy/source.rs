//! Rust text without comments and literals, so that rules see code alone.

/// What the reader stands in.
#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Code,
    Line,
    /// With its depth: block comments nest.
    Block(u32),
    Text,
    /// With the number of `#` that close it.
    Raw(usize),
}

/// The text with every comment and literal blanked out; lines and columns stay where they were.
pub fn code_only(text: &str) -> String {
    let chars: Vec<char> = text.chars().collect();
    let at = |index: usize| chars.get(index).copied().unwrap_or('\0');
    let mut out = String::with_capacity(text.len());
    let mut state = State::Code;
    let mut index = 0;
    while index < chars.len() {
        let (next, taken, shown) = match state {
            State::Code => step_code(&at, index),
            State::Line => (if at(index) == '\n' { State::Code } else { State::Line }, 1, false),
            State::Block(depth) => match (at(index), at(index + 1)) {
                ('/', '*') => (State::Block(depth + 1), 2, false),
                ('*', '/') => (if depth == 1 { State::Code } else { State::Block(depth - 1) }, 2, false),
                _ => (state, 1, false),
            },
            State::Text => match at(index) {
                '\\' => (State::Text, 2, false),
                '"' => (State::Code, 1, false),
                _ => (State::Text, 1, false),
            },
            State::Raw(hashes) => {
                let closes = at(index) == '"' && (1..=hashes).all(|offset| at(index + offset) == '#');
                if closes { (State::Code, hashes + 1, false) } else { (state, 1, false) }
            }
        };
        for offset in 0..taken {
            let c = at(index + offset);
            if index + offset < chars.len() {
                out.push(if shown || c == '\n' { c } else { ' ' });
            }
        }
        index += taken;
        state = next;
    }
    out
}

/// One step in code: the state after it, the characters it takes, and whether they are code.
fn step_code(at: &impl Fn(usize) -> char, index: usize) -> (State, usize, bool) {
    let c = at(index);
    let inside_word = index > 0 && is_word(at(index - 1));
    match c {
        '/' if at(index + 1) == '/' => (State::Line, 2, false),
        '/' if at(index + 1) == '*' => (State::Block(1), 2, false),
        '"' => (State::Text, 1, false),
        'r' | 'b' | 'c' if !inside_word => {
            let prefix = if c != 'r' && at(index + 1) == 'r' { 2 } else { 1 };
            let raw = c == 'r' || prefix == 2;
            let hashes =
                if raw { (0..).take_while(|offset| at(index + prefix + offset) == '#').count() } else { 0 };
            match at(index + prefix + hashes) {
                '"' if raw => (State::Raw(hashes), prefix + hashes + 1, false),
                _ => (State::Code, 1, true),
            }
        }
        // A lifetime has no closing quote; a character has one after itself or its escape.
        '\'' if at(index + 1) == '\\' => {
            let end = (index + 3..index + 14).find(|end| at(*end) == '\'').unwrap_or(index);
            (State::Code, end - index + 1, false)
        }
        '\'' if at(index + 2) == '\'' => (State::Code, 3, false),
        _ => (State::Code, 1, true),
    }
}

/// True for what a name is made of.
pub fn is_word(c: char) -> bool {
    c == '_' || c.is_alphanumeric()
}

/// Every place where `word` stands as a whole word, as byte offsets.
pub fn words<'a>(code: &'a str, word: &'a str) -> impl Iterator<Item = usize> + 'a {
    code.match_indices(word).map(|(at, _)| at).filter(move |at| {
        let before = code.get(..*at).and_then(|text| text.chars().next_back());
        let after = code.get(at + word.len()..).and_then(|text| text.chars().next());
        !before.is_some_and(is_word) && !after.is_some_and(is_word)
    })
}

/// The line of a byte offset, counted from 1.
pub fn line_of(code: &str, at: usize) -> usize {
    code.get(..at).map_or(0, |before| before.matches('\n').count()) + 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comments_and_literals_are_blank_and_code_stays() {
        let check = |text: &str, expected: &str| {
            let found = code_only(text);
            assert_eq!(found.split_whitespace().collect::<Vec<_>>().join(" "), expected, "{text}");
            assert_eq!(found.chars().count(), text.chars().count(), "{text}: columns moved");
        };
        check("a; // crate::x\nb;", "a; b;");
        check("a /* x /* y */ z */ b", "a b");
        check(r#"f("crate::x \" y") + g"#, "f( ) + g");
        check(r##"f(r#"a " b"#) + g"##, "f( ) + g");
        check(r#"f(b"x", br"y\", c"z") + g"#, "f(b , , c ) + g");
        check(r"f('\'', '\u{1f600}', '/', b'\n') + g", "f( , , , b ) + g");
        check("fn f<'a>(x: &'a str) {}", "fn f<'a>(x: &'a str) {}");
        check("r#type + for_r", "r#type + for_r");
    }

    #[test]
    fn words_are_whole() {
        assert_eq!(words("aya::x ayah my_aya aya", "aya").collect::<Vec<_>>(), [0, 19]);
    }

    #[test]
    fn lines_count_from_one() {
        assert_eq!([line_of("a\nb\nc", 0), line_of("a\nb\nc", 4)], [1, 3]);
    }
}
