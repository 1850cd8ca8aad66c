//! What is refused, with the error's text and place.

use super::*;

/// Everything experimental off, durations too.
fn nothing() -> Options {
    Options { duration_expressions: false, ..Options::stable() }
}

#[test]
fn errors_of_syntax_name_what_is_unexpected() {
    let check = check_error;
    check("1+", "1:3", "2-2", "unexpected end of input");
    check("a b", "1:3", "2-3", "unexpected identifier \"b\"");
    check("a a:b", "1:3", "2-5", "unexpected metric identifier \"a:b\"");
    check("* 1", "1:1", "0-1", "unexpected <op:*>");
    check("a @@ 1", "1:4", "3-4", "unexpected <op:@> in @, expected timestamp");
    check("a sum b", "1:3", "2-5", "unexpected <aggr:sum>");
    check("a ON (b) c", "1:3", "2-4", "unexpected <ON>");
    check("a group_left (b) c", "1:3", "2-12", "unexpected <group_left>");
    check("a start", "1:3", "2-7", "unexpected \"start\"");
    check("a 12345678901", "1:3", "2-13", "unexpected number \"1234567890\"...");
    check("a 5m", "1:3", "2-4", "unexpected duration \"5m\"");
    check("a 'b\\n'", "1:3", "2-7", "unexpected string \"'b\\\\n'\"");
    check("a 'long enough to cut'", "1:3", "2-22", "unexpected string \"'long enou\"...");
    check("a = b", "1:3", "2-3", "unexpected \"=\"");
    check("()", "1:2", "1-2", "unexpected \")\"");
    check("(a", "1:3", "2-2", "unclosed left parenthesis");
    check("atan2", "1:1", "0-5", "unexpected <op:atan2>");
    check(
        "a and on (b) group_left = c",
        "1:25",
        "24-25",
        "unexpected \"=\" in grouping opts, expected \"(\"",
    );
    check("a + fill(x) b", "1:10", "9-10", "unexpected identifier \"x\"");
}

#[test]
fn positions_count_lines_and_bytes() {
    check_error("a\n+ b\n  c", "3:3", "8-9", "unexpected identifier \"c\"");
    check_error("{a='ü'} b", "1:10", "9-10", "unexpected identifier \"b\"");
    check_errors_with(
        &Options::all(),
        "",
        "unknown position: parse error: no expression found in input",
        &["0-0 no expression found in input"],
    );
    check_error(" # nothing", "1:1", "0-0", "no expression found in input");
}

#[test]
fn errors_in_selectors_say_what_is_expected() {
    let check = |query: &str, position: &str, span: &str, message: &str| {
        check_error(query, position, span, &format!("unexpected {message}"));
    };
    check("{,}", "1:2", "1-2", "\",\" in label matching, expected identifier or \"}\"");
    check("{='a'}", "1:2", "1-2", "\"=\" in label matching, expected identifier or \"}\"");
    check("{a}", "1:3", "2-3", "\"}\" in label matching, expected label matching operator");
    check("{a=b}", "1:4", "3-4", "identifier \"b\" in label matching, expected string");
    check("{'a'=b}", "1:6", "5-6", "identifier \"b\" in label matching, expected string");
    check("{'a' b}", "1:6", "5-6", "identifier \"b\" in label matching, expected \",\" or \"}\"");
    check("{a='b' or c='d'}", "1:8", "7-9", "identifier \"or\" in label matching, expected \",\" or \"}\"");
    check("{a='b'", "1:7", "6-6", "end of input inside braces");
}

#[test]
fn errors_in_modifiers_say_what_is_expected() {
    let check = |query: &str, position: &str, span: &str, message: &str| {
        check_error(query, position, span, &format!("unexpected {message}"));
    };
    let durations = "number, duration, step(), or range()";
    check("a offset b", "1:10", "9-10", &format!("identifier \"b\" in offset, expected {durations}"));
    check("a[5m b]", "1:6", "5-7", "character: 'b', expected ':'");
    check("a[]", "1:3", "2-3", &format!("\"]\" in subquery or range selector, expected {durations}"));
    check("a[5m 1m]", "1:6", "5-7", "duration \"1m\" in subquery or range, expected \":\" or \"]\"");
    check("a[5m:1m 1m]", "1:9", "8-10", "duration \"1m\" in subquery selector, expected \"]\"");
    check(
        "a[5m:(]",
        "1:7",
        "6-7",
        "\"]\" in subquery selector, expected number, duration, step(), range(), or \"]\"",
    );
    check("a @ b", "1:5", "4-5", "identifier \"b\" in @, expected timestamp");
    check("a @ start", "1:10", "9-9", "end of input in @, expected timestamp");
    check("sum by a (b)", "1:8", "7-8", "identifier \"a\" in grouping opts, expected \"(\"");
    check("sum by (1) (b)", "1:9", "8-9", "number \"1\" in grouping opts, expected label");
    check("sum by (a b) (c)", "1:11", "10-11", "identifier \"b\" in grouping opts, expected \",\" or \")\"");
    check("sum by (without) (c)", "1:9", "8-15", "<without> in grouping opts, expected label");
}

#[test]
fn aggregations_have_words_for_what_is_wrong_in_them() {
    let all = Options::all();
    let none = "no arguments for aggregate expression provided";
    check_errors_with(
        &all,
        "sum(a b)",
        "1:7: parse error: unexpected identifier \"b\" in aggregation",
        &["6-7 unexpected identifier \"b\" in aggregation", &format!("0-0 {none}")],
    );
    check_errors_with(
        &all,
        "sum(rate(",
        "1:10: parse error: unclosed left parenthesis",
        &["9-9 unclosed left parenthesis", &format!("0-0 {none}")],
    );
    check_error("sum()", "1:1", "0-5", none);
    let wrong = "wrong number of arguments for aggregate expression provided";
    check_error("sum(a, b)", "1:1", "0-9", &format!("{wrong}, expected 1, got 2"));
    check_error("1 + topk(a) by (b)", "1:5", "4-18", &format!("{wrong}, expected 2, got 1"));
    check_errors_with(
        &all,
        "topk(a,)",
        "1:7: parse error: trailing commas not allowed in function call args",
        &[
            "6-7 trailing commas not allowed in function call args",
            &format!("0-8 {wrong}, expected 2, got 1"),
        ],
    );
}

#[test]
fn literals_must_have_a_value() {
    let parsing = "error parsing number: strconv.ParseFloat: parsing";
    check_error("1e999", "1:1", "0-5", &format!("{parsing} \"1e999\": value out of range"));
    let long = "0xfffffffffffffffff";
    check_error(long, "1:1", "0-19", &format!("{parsing} \"{long}\": invalid syntax"));
    check_error("a offset 5m1h", "1:10", "9-13", "not a valid duration string: \"5m1h\"");
    check_error("300y", "1:1", "0-4", "duration out of range");
    check_error("a offset 1e10", "1:10", "9-13", "duration out of range");
    check_error("a offset -1e10", "1:10", "9-10", "duration out of range");
    check_error("a offset NaN", "1:10", "9-12", "duration out of range");
    check_error("a[0]", "1:3", "2-3", "duration must be greater than 0");
    check_error("a[-5m]", "1:3", "2-5", "duration must be greater than 0");
    check_error("a[5m:0s]", "1:6", "5-7", "duration must be greater than 0");
    check_errors_with(
        &Options::all(),
        "a[5s/0d]",
        "1:5: parse error: division by zero",
        &["4-5 division by zero", "0-0 duration must be greater than 0"],
    );
    check_error("a offset (1 % 0)", "1:13", "12-13", "modulo by zero");
    check_error("a @ 1e300", "1:1", "0-1", &format!("timestamp out of bounds for @ modifier: {:.6}", 1e300));
    check_error("a @ -Inf", "1:1", "0-1", "timestamp out of bounds for @ modifier: -Inf");
}

#[test]
fn modifiers_need_something_to_modify() {
    let must = "must be preceded by an instant vector selector or range vector selector or a subquery";
    check_error("1 offset 5m", "1:1", "0-1", &format!("offset modifier {must}"));
    check_error("sum(a) @ 5", "1:1", "0-6", &format!("@ modifier {must}"));
    check_error("a offset 1 offset 2", "1:1", "0-10", "offset may not be set multiple times");
    check_error("a @ 1 @ 2", "1:1", "0-5", "@ <timestamp> may not be set multiple times");
    check_error("a @ 1 @ end()", "1:1", "0-5", "@ <timestamp> may not be set multiple times");
    check_error("a offset 5m[1m]", "1:12", "11-15", "no offset modifiers allowed before range");
    check_error("a @ 1 [1m]", "1:7", "6-10", "no @ modifiers allowed before range");
    check_error("(a)[1m]", "1:4", "3-7", "ranges only allowed for vector selectors");
    check_errors_with(
        &Options::all(),
        "1[1m] @ 1 offset 1m",
        "1:2: parse error: ranges only allowed for vector selectors",
        &[
            "1-5 ranges only allowed for vector selectors",
            "0-5 ranges only allowed for vector selectors",
            "0-5 ranges only allowed for vector selectors",
        ],
    );
    check_error(
        "a smoothed anchored",
        "1:1",
        "0-1",
        "anchored and smoothed modifiers cannot be used together",
    );
    check_error("a[1m:] smoothed", "1:1", "0-6", "smoothed modifier is not supported for subqueries");
    check_error("1 anchored", "1:1", "0-1", "anchored modifier not implemented");
}

#[test]
fn functions_must_exist() {
    check_error("nope(a)", "1:1", "0-4", "unknown function with name \"nope\"");
    check_error("1 + Rate(a[1m])", "1:5", "4-8", "unknown function with name \"Rate\"");
    check_error("START()", "1:1", "0-5", "unknown function with name \"START\"");
    check_error("sum by (\"\") (a)", "1:9", "8-10", "invalid label name for grouping: \"\"");
}

#[test]
fn regular_expressions_must_be_well_formed() {
    let error = "error parsing regexp:";
    check_error("a{b=~'('}", "1:3", "2-8", &format!("{error} missing closing ): `(`"));
}

#[test]
fn types_must_fit() {
    let vector = "expected type instant vector in";
    check_error(
        "rate(a)",
        "1:6",
        "5-6",
        "expected type range vector in call to function \"rate\", got instant vector",
    );
    check_error("abs(1)", "1:5", "4-5", &format!("{vector} call to function \"abs\", got scalar"));
    check_error("abs('x')", "1:5", "4-7", &format!("{vector} call to function \"abs\", got string"));
    check_error(
        "label_join(a, 'x', ',', b)",
        "1:25",
        "24-25",
        "expected type string in call to function \"label_join\", got instant vector",
    );
    check_error("sum(a[1m])", "1:5", "4-9", &format!("{vector} aggregation expression, got range vector"));
    check_error("topk('x', a)", "1:6", "5-8", "expected type scalar in aggregation parameter, got string");
    check_error(
        "count_values(1, a)",
        "1:14",
        "13-14",
        "expected type string in aggregation parameter, got scalar",
    );
    check_error("1[5m:]", "1:1", "0-6", "subquery is only allowed on instant vector, got scalar instead");
    check_error(
        "a[5m][5m:]",
        "1:1",
        "0-10",
        "subquery is only allowed on instant vector, got matrix instead",
    );
    let unary = "unary expression only allowed on expressions of type scalar or instant vector";
    check_error("-'x'", "1:1", "0-4", &format!("{unary}, got \"string\""));
    let only = "binary expression must contain only scalar and instant vector types";
    check_error("a + 'x'", "1:5", "4-7", only);
    check_error("a[1m] + a", "1:1", "0-5", only);
}

#[test]
fn calls_must_have_as_many_arguments_as_functions_take() {
    check_error("time(a)", "1:1", "0-7", "expected 0 argument(s) in call to \"time\", got 1");
    check_error("rate()", "1:1", "0-6", "expected 1 argument(s) in call to \"rate\", got 0");
    check_error("round()", "1:1", "0-7", "expected at least 1 argument(s) in call to \"round\", got 0");
    check_error(
        "round(a, 1, 2)",
        "1:1",
        "0-14",
        "expected at most 2 argument(s) in call to \"round\", got 3",
    );
    check_error("abs(a,)", "1:6", "5-6", "trailing commas not allowed in function call args");
}

#[test]
fn the_second_argument_of_info_has_labels_only() {
    check_error("info(a, b)", "1:9", "8-9", "expected label selectors only, got vector selector instead");
    check_error("info(a, (a))", "1:9", "8-11", "expected label selectors only");
    let wrong = "expected type instant vector in call to function \"info\", got scalar";
    check_errors_with(
        &Options::all(),
        "info(a, 1)",
        &format!("1:1: parse error: {wrong}"),
        &[&format!("0-10 {wrong}"), "8-9 expected label selectors only", &format!("8-9 {wrong}")],
    );
}

#[test]
fn vectors_match_by_rules() {
    check_error("1 == 2", "1:3", "2-3", "comparisons between scalars must use BOOL modifier");
    check_error("a  + bool  b", "1:4", "3-8", "bool modifier can only be used on comparison operators");
    check_error("1 and 2", "1:1", "0-7", "set operator \"and\" not allowed in binary scalar expression");
    check_error("a + on (b) 1", "1:1", "0-12", "vector matching only allowed between instant vectors");
    check_error(
        "a + fill (1) 1",
        "1:1",
        "0-14",
        "filling in missing series only allowed between instant vectors",
    );
    check_error("a or fill (1) b", "1:1", "0-15", "filling in missing series not allowed for set operators");
    let twice = "label \"x\" must not occur in ON and GROUP clause at once";
    check_error("a + on (x) group_left (x) b", "1:3", "2-24", twice);
    check_errors_with(
        &Options::all(),
        "a or on (x) group_left (y) b",
        "1:1: parse error: no grouping allowed for \"or\" operation",
        &["0-28 no grouping allowed for \"or\" operation", "0-28 set operations must always be many-to-many"],
    );
}

#[test]
fn selectors_must_select() {
    let empty = "vector selector must contain at least one non-empty matcher";
    for query in ["{}", "{a=''}", "{a=~'.*'}", "{a!='b'}", "{a!~'.+', b=~'x|'}"] {
        check_error(query, "1:1", &format!("0-{}", query.len()), empty);
    }
    for query in ["{a=~'.+'}", "{a!=''}", "{a!~'.*'}", "{a!='b', c='d'}"] {
        assert!(parse(query, &Options::all()).is_ok(), "{query}");
    }
    check_error("a{__name__='b'}", "1:1", "0-15", "metric name must not be set twice: \"a\" or \"b\"");
    check_error("a{'b'}", "1:1", "0-6", "metric name must not be set twice: \"a\" or \"b\"");
}

#[test]
fn experiments_must_be_switched_on() {
    let check =
        |query: &str, printed: &str, errors: &[&str]| check_errors_with(&nothing(), query, printed, errors);
    check(
        "info(a)",
        "1:1: parse error: function \"info\" is not enabled",
        &["0-4 function \"info\" is not enabled"],
    );
    check(
        "step()",
        "1:1: parse error: function \"step\" is not enabled",
        &["0-4 function \"step\" is not enabled"],
    );
    let limitk =
        "limitk() is experimental and must be enabled with --enable-feature=promql-experimental-functions";
    check("limitk(1, a)", &format!("1:1: parse error: {limitk}"), &[&format!("0-12 {limitk}")]);
    let duration = "experimental duration expression is not enabled";
    check("a[5m+1m]", &format!("1:3: parse error: {duration}"), &[&format!("2-4 {duration}")]);
    check("a offset step()", &format!("1:10: parse error: {duration}"), &[&format!("9-15 {duration}")]);
    check("a[(5m)]", &format!("1:4: parse error: {duration}"), &[&format!("3-5 {duration}")]);
    let anchored = "anchored modifier is experimental and not enabled";
    check("a[5m] anchored", &format!("1:1: parse error: {anchored}"), &[&format!("0-5 {anchored}")]);
    let fill = "binop fill modifiers are experimental and not enabled";
    check("a + fill(1) b", &format!("1:1: parse error: {fill}"), &[&format!("0-13 {fill}")]);
    assert!(parse("a[5m + step()]", &Options::stable()).is_ok(), "durations are computed without a flag");
}
