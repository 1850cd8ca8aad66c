//! Expressions in both languages, and those that RE2 refuses.

use super::translate;

/// The expression translates so.
fn check(pattern: &str, expected: &str) {
    let made = translate(pattern).map(|expression| expression.text);
    assert_eq!(made.as_deref(), Ok(expected), "{pattern}");
}

/// The expression is refused with this text.
fn refused(pattern: &str, expected: &str) {
    let error = translate(pattern).expect_err(pattern);
    assert_eq!(error.to_string(), format!("error parsing regexp: {expected}"), "{pattern}");
}

#[test]
fn what_is_the_same_stays() {
    for pattern in
        ["", "foo", "a|b|", "(a)(?:b)", "^a.*b+?$", "a{2}b{3,}c{4,5}?", "(?i)a(?s-m:b)", "(a)*", "ü+"]
    {
        check(pattern, pattern);
    }
}

#[test]
fn braces_that_count_nothing_are_text() {
    check("{id}", r"\{id\}");
    check("a{,3}", r"a\{,3\}");
    check("a{01}", r"a\{01\}");
    check("a{2", r"a\{2");
    check("{", r"\{");
}

#[test]
fn shorthands_are_ascii() {
    check(r"\d\W", "[[0-9]][[^0-9A-Za-z_]]");
    check(r"[\s-]", r"[[\t\n\x0C\r ]\x{2d}]");
    check(r"\ba\B", r"(?-u:\b)a(?-u:\B)");
    check(r"\pL\P{^Greek}[\pN]", r"[\p{gc=L}][\p{sc=Greek}][\p{gc=N}]");
    check(r"\p{Lowercase_Letter}\P{^any}", r"[\p{gc=Lowercase_Letter}][\p{any}]");
    check(r"\p{Cs}[\P{Cs}]", r"[[^\x{0}-\x{10ffff}]][\x{0}-\x{10ffff}]");
    check("[[:alpha:][:^digit:]]", "[[:alpha:][:^digit:]]");
}

#[test]
fn classes_have_no_operations() {
    check("[[a]]", r"[\x{5b}a]\]");
    check("[a&&b]", r"[a\x{26}\x{26}b]");
    check("[]a]", r"[\x{5d}a]");
    check("[^]a-]", r"[^\x{5d}a\x{2d}]");
    check(r"[\]-a~~]", r"[\x{5d}-a\x{7e}\x{7e}]");
}

#[test]
fn escapes_are_those_of_re2() {
    check(r"\Qa.b\E*c", r"a\.b*c");
    check(r"\Q(", r"\(");
    check(r"\07\x41\x{1F600}\-\_\ ", "\u{7}A\u{1f600}\\-_ ");
    check(r"\x{d800}[\x{d800}-\x{e000}]", "[^\\x{0}-\\x{10ffff}][\u{e000}]");
    check(r"#&~", r"\#\&\~");
}

#[test]
fn a_repetition_repeats_what_stands_before_the_flags() {
    check("a(?i)*b", "a*(?i)b");
    check("(?)a", "a");
    check(r"a+\Q\E?", "(?:a+)?");
    check("(b)a+(?i)?c", "(b)(?:a+)?(?i)c");
    check(r"(a)*\Q\E{2}?", "(?:(a)*){2}?");
}

#[test]
fn flags_may_be_said_twice() {
    check("(?ii)a", "(?i)a");
    check("(?is-i)a", "(?s-i)a");
    check("(?U:a)", "(?U:a)");
    check("(?:a)", "(?:a)");
}

#[test]
fn groups_keep_their_names_and_lose_them_in_the_text() {
    let made = translate("(?P<n>a)(?<1>b)(?:c)(d)(?P<n>e)").unwrap();
    assert_eq!(made.text, "(a)(b)(?:c)(d)(e)");
    let names: Vec<Option<&str>> = made.groups.iter().map(Option::as_deref).collect();
    assert_eq!(names, [Some("n"), Some("1"), None, Some("n")]);
    assert_eq!(translate("a|b").unwrap().anchored(), "^(?s:a|b)$");
}

#[test]
fn what_re2_refuses_is_refused() {
    refused("(", "missing closing ): `(`");
    refused("a)b", "unexpected ): `a)b`");
    refused("*", "missing argument to repetition operator: `*`");
    refused("a|+?b", "missing argument to repetition operator: `+?`");
    refused("(*)", "missing argument to repetition operator: `*`");
    refused("a**", "invalid nested repetition operator: `**`");
    refused("a*{2}?b", "invalid nested repetition operator: `*{2}?`");
    refused("a{1001}", "invalid repeat count: `{1001}`");
    refused("a{3,2}", "invalid repeat count: `{3,2}`");
    refused("(a{100}){11}", "invalid repeat count: `{11}`");
    refused("[a", "missing closing ]: `[a`");
    refused("x[z-a]", "invalid character class range: `z-a`");
    refused("[[:nope:]]", "invalid character class range: `[:nope:]`");
    refused(r"\p", r"invalid character class range: `\p`");
    for name in ["sc=Greek", "Grek", "Dash", "", "^"] {
        let class = format!(r"\p{{{name}}}");
        refused(&class, &format!("invalid character class range: `{class}`"));
    }
    refused("\\", "trailing backslash at end of expression: ``");
    refused(r"a\8", r"invalid escape sequence: `\8`");
    refused(r"\1", r"invalid escape sequence: `\1`");
    refused(r"\C", r"invalid escape sequence: `\C`");
    refused(r"\x{110000}", r"invalid escape sequence: `\x{110000`");
    refused(r"[\b]", r"invalid escape sequence: `\b`");
    refused(r"\é", r"invalid escape sequence: `\é`");
    refused("(?x)a", "invalid or unsupported Perl syntax: `(?x`");
    refused("(?=a)", "invalid or unsupported Perl syntax: `(?=`");
    refused("(?i-)a", "invalid or unsupported Perl syntax: `(?i-)`");
    refused("(?P<a-b>c)", "invalid named capture: `(?P<a-b>`");
    refused("(?P<a", "invalid named capture: `(?P<a`");
    refused(&"(".repeat(2000), &format!("expression nests too deeply: `{}`", "(".repeat(2000)));
}
