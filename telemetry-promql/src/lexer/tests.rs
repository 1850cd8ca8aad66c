//! Tokens with spans, and the errors of what is none.

use super::*;
use crate::ast::Aggregator;

/// Kinds and spans of all tokens of `text`, comments and end left out.
fn tokens(text: &str) -> Vec<(TokenKind, u32, u32)> {
    let mut lexer = Lexer::new(text);
    let mut tokens = Vec::new();
    loop {
        let token = lexer.next_token();
        match token.kind {
            TokenKind::Eof => return tokens,
            TokenKind::Error => panic!("{text:?}: {:?}", lexer.error()),
            TokenKind::Comment => {}
            kind => tokens.push((kind, token.span.start, token.span.end)),
        }
    }
}

/// The tokens of `text` are of these kinds.
fn check(text: &str, expected: &[TokenKind]) {
    let kinds: Vec<TokenKind> = tokens(text).into_iter().map(|(kind, ..)| kind).collect();
    assert_eq!(kinds, expected, "{text:?}");
}

/// The text has an error that begins at `start`.
fn check_error(text: &str, start: u32, message: &str) {
    let mut lexer = Lexer::new(text);
    loop {
        let token = lexer.next_token();
        match token.kind {
            TokenKind::Error => {
                assert_eq!(lexer.error(), Some(message), "{text:?}");
                assert_eq!((token.span.start, token.span.end as usize), (start, text.len()), "{text:?}");
                assert_eq!(lexer.next_token().kind, TokenKind::Eof, "nothing comes after an error");
                return;
            }
            TokenKind::Eof => panic!("{text:?} has no error"),
            _ => {}
        }
    }
}

#[test]
fn tokens_have_spans_in_bytes() {
    let expected = [
        (TokenKind::Identifier, 0, 3),
        (TokenKind::LeftBrace, 3, 4),
        (TokenKind::String, 5, 11),
        (TokenKind::Assign, 12, 13),
        (TokenKind::String, 14, 17),
        (TokenKind::RightBrace, 18, 19),
        (TokenKind::Op(BinaryOp::Add), 20, 21),
        (TokenKind::Number, 22, 23),
    ];
    assert_eq!(tokens("foo{ \"gün\" = 'x' } + 1"), expected);
}

#[test]
fn operators_are_the_longest_there_are() {
    use BinaryOp::*;
    let ops = |list: &[BinaryOp]| list.iter().copied().map(TokenKind::Op).collect::<Vec<_>>();
    check("+ - * / % ^", &ops(&[Add, Sub, Mul, Div, Mod, Pow]));
    check(
        "== != < <= > >= </ >/",
        &ops(&[Equal, NotEqual, Less, LessEqual, Greater, GreaterEqual, TrimUpper, TrimLower]),
    );
    check("and OR Unless aTaN2", &ops(&[And, Or, Unless, Atan2]));
    check("=@,", &[TokenKind::Assign, TokenKind::At, TokenKind::Comma]);
}

#[test]
fn keywords_are_known_in_any_case() {
    check("SUM", &[TokenKind::Aggregator(Aggregator::Sum)]);
    check("Count_Values", &[TokenKind::Aggregator(Aggregator::CountValues)]);
    check("Group_Left", &[TokenKind::Keyword(Keyword::GroupLeft)]);
    check("iNf NAN", &[TokenKind::Number, TokenKind::Number]);
    check("summ sum_ count_values_", &[TokenKind::Identifier; 3]);
    check("a:b :c sum:", &[TokenKind::MetricIdentifier; 3]);
    check(
        "{sum, by}",
        &[
            TokenKind::LeftBrace,
            TokenKind::Identifier,
            TokenKind::Comma,
            TokenKind::Identifier,
            TokenKind::RightBrace,
        ],
    );
}

#[test]
fn fill_is_a_keyword_only_before_a_parenthesis() {
    check("fill + fill_left", &[TokenKind::Identifier, TokenKind::Op(BinaryOp::Add), TokenKind::Identifier]);
    let called = |keyword| [TokenKind::Keyword(keyword), TokenKind::LeftParen, TokenKind::RightParen];
    check("fill \n ()", &called(Keyword::Fill));
    check("Fill_Left()", &called(Keyword::FillLeft));
    check("fill_right ()", &called(Keyword::FillRight));
}

#[test]
fn numbers_and_durations_are_told_apart() {
    for number in ["0", "1.", ".5", "1e3", "1E-3", "0x1F", "0X_f", "1_000", "1e3_0", "017"] {
        check(number, &[TokenKind::Number]);
    }
    for duration in ["5m", "1h30m", "100ms", "1y2w3d", "5hs"] {
        check(duration, &[TokenKind::Duration]);
    }
}

#[test]
fn bad_numbers_are_quoted_as_far_as_read() {
    check_error("2.5.", 0, "bad number or duration syntax: \"2.5.\"");
    check_error("1 0de", 2, "bad number or duration syntax: \"0de\"");
    check_error("1__0", 0, "bad number or duration syntax: \"1__\"");
    check_error("1_", 0, "bad number or duration syntax: \"1_\"");
    check_error("1e", 0, "bad number or duration syntax: \"1e\"");
    check_error("0x1.5", 0, "bad number or duration syntax: \"0x1.\"");
    check_error("5mx", 0, "bad number or duration syntax: \"5mx\"");
    check_error("1h3", 0, "bad number or duration syntax: \"1h3\"");
}

#[test]
fn brackets_hold_durations() {
    let kinds = [
        TokenKind::LeftBracket,
        TokenKind::Keyword(Keyword::Step),
        TokenKind::LeftParen,
        TokenKind::RightParen,
        TokenKind::Op(BinaryOp::Mul),
        TokenKind::Number,
        TokenKind::Colon,
        TokenKind::Keyword(Keyword::MaxOf),
        TokenKind::RightBracket,
    ];
    check("[ STEP() * 2 : max_of ]", &kinds);
    check_error("a[", 2, "unexpected end of input in duration expression");
    check_error("a[5m", 4, "unclosed left bracket");
    check_error("a[:5m]", 3, "unexpected colon before duration in duration expression");
    check_error("a[5m:1m:]", 7, "unexpected colon ':'");
    check_error("a[5m::]", 5, "unexpected colon ':'");
    check_error("a[5m x]", 5, "unexpected character: 'x', expected ':'");
    check_error("a[x]", 2, "unexpected character in duration expression: 'x'");
    check_error("a[stepp]", 2, "unexpected character in duration expression: 's'");
    check_error("a[5m[", 4, "unexpected left bracket '['");
    check_error("a]", 1, "unexpected right bracket ']'");
}

#[test]
fn strings_end_where_their_quotes_say() {
    for string in [r#""a\"b""#, r"'a\'b'", r"`a\`", "\"\\x41\\101\\u00fc\\U0001F600\"", "`\n`"] {
        check(string, &[TokenKind::String]);
    }
    check_error("\"a", 0, "unterminated quoted string");
    check_error("'a\n'", 0, "unterminated quoted string");
    check_error("`a", 0, "unterminated raw string");
    check_error("'\\", 0, "escape sequence not terminated");
    check_error("'\\x4", 0, "escape sequence not terminated");
    check_error("'\\q'", 0, "unknown escape sequence U+0071 'q'");
    check_error("'\\\"'", 0, "unknown escape sequence U+0022 '\"'");
    check_error("'\\xg0'", 0, "illegal character U+0067 'g' in escape sequence");
    check_error("'\\400'", 0, "escape sequence is an invalid Unicode code point");
    check_error("'\\ud800'", 0, "escape sequence is an invalid Unicode code point");
    check_error("'\\U00110000'", 0, "escape sequence is an invalid Unicode code point");
    check_error("'\u{fffd}'", 0, "invalid UTF-8 rune");
}

#[test]
fn comments_reach_to_the_end_of_the_line() {
    check("a # b ( { [\n c", &[TokenKind::Identifier; 2]);
    check("{ # }\r\n a }", &[TokenKind::LeftBrace, TokenKind::Identifier, TokenKind::RightBrace]);
    check("#", &[]);
}

#[test]
fn what_fits_nowhere_is_named() {
    check_error("a $", 2, "unexpected character: '$'");
    check_error("ü", 0, "unexpected character: 'ü'");
    check_error("a !x", 2, "unexpected character after '!': 'x'");
    check_error("a !", 2, "unexpected character after '!': '\u{fffd}'");
    check_error("a =~ b", 2, "unexpected character after '=': '~'");
    check_error("(a", 2, "unclosed left parenthesis");
    check_error("a)", 2, "unexpected right parenthesis ')'");
    check_error("{a", 2, "unexpected end of input inside braces");
    check_error("{{", 1, "unexpected left brace '{'");
    check_error("{a!b}", 2, "unexpected character after '!' inside braces: 'b'");
    check_error("{1}", 1, "unexpected character inside braces: '1'");
}
