//! Every construct of the language: the tree it gives, with the text of every node.

use super::*;

#[test]
fn literals() {
    check("1", "number‹1›(1)");
    check(" -.5 ", "number‹-.5›(-0.5)");
    check("- + - 1", "number‹- + - 1›(1)");
    check("0x1f", "number‹0x1f›(31)");
    check("017", "number‹017›(15)");
    check("1_000", "number‹1_000›(1000)");
    check("-Inf", "number‹-Inf›(-inf)");
    check("nan", "number‹nan›(NaN)");
    check("1h30m", "duration‹1h30m›(5400)");
    check("-5m", "duration‹-5m›(-300)");
    check("'a\\n'", "string‹'a\\n'›(\"a\\n\")");
    check("`a\\n`", "string‹`a\\n`›(\"a\\\\n\")");
}

#[test]
fn selectors() {
    check("foo", "vector‹foo›(__name__=\"foo\")");
    check("a:b", "vector‹a:b›(__name__=\"a:b\")");
    check("foo{}", "vector‹foo{}›(__name__=\"foo\")");
    check("foo{a='b',}", "vector‹foo{a='b',}›(a=\"b\",__name__=\"foo\")");
    check(
        "{a=\"b\", c!=\"d\", e=~\"f.*\", g!~`h\\d`}",
        "vector‹{a=\"b\", c!=\"d\", e=~\"f.*\", g!~`h\\d`}›(a=\"b\",c!=\"d\",e=~\"f.*\",g!~\"h\\\\d\")",
    );
    check("{'über metric'}", "vector‹{'über metric'}›(__name__=\"über metric\")");
    check("{'m.n', 'a.b'='c'}", "vector‹{'m.n', 'a.b'='c'}›(__name__=\"m.n\",a.b=\"c\")");
    check("{__name__='x'}", "vector‹{__name__='x'}›(__name__=\"x\")");
}

#[test]
fn keywords_name_metrics_and_labels() {
    for name in [
        "and",
        "or",
        "unless",
        "by",
        "without",
        "offset",
        "sum",
        "TOPK",
        "start",
        "end",
        "step",
        "range",
        "min_of",
        "anchored",
        "smoothed",
        "fill",
        "fill_left",
        "limitk",
    ] {
        check(name, &format!("vector‹{name}›(__name__={name:?})"));
    }
    for label in ["and", "bool", "by", "sum", "offset", "on", "group_left", "atan2", "start", "fill", "inf"] {
        check(&format!("{{{label}='a'}}"), &format!("vector‹{{{label}='a'}}›({label}=\"a\")"));
    }
    let labels =
        "by, on, ignoring, sum, and, atan2, bool, offset, start, step, fill, group_right, a:b, 'c d'";
    let list: Vec<&str> = labels.split(", ").map(|label| label.trim_matches('\'')).collect();
    let query = format!("sum by ({labels}) (a)");
    check(&query, &format!("sum by {list:?}‹{query}›(vector‹a›(__name__=\"a\"))"));
    check(
        "and and and",
        "and many-to-many‹and and and›(vector‹and›(__name__=\"and\"), vector‹and›(__name__=\"and\"))",
    );
}

#[test]
fn modifiers_stand_in_any_order() {
    let name = "__name__=\"a\"";
    check("a offset 5m", &format!("vector‹a offset 5m›({name} offset 5m)"));
    check("a offset -1.5", &format!("vector‹a offset -1.5›({name} offset -1s500ms)"));
    check("a offset 0", &format!("vector‹a offset 0›({name})"));
    check("a @ 1.5", &format!("vector‹a @ 1.5›({name} @Timestamp(1500))"));
    check("a @ -0x10", &format!("vector‹a @ -0x10›({name} @Timestamp(-16000))"));
    check("a @ start()", &format!("vector‹a @ start()›({name} @Start)"));
    check("a @ END ( )", &format!("vector‹a @ END ( )›({name} @End)"));
    check("a smoothed", &format!("vector‹a›({name} smoothed)"));
    let all = format!("{name} anchored offset 5m @Timestamp(1000)");
    for query in ["a[1m] anchored offset 5m @ 1", "a[1m] offset 5m anchored @ 1", "a[1m] @ 1 offset 5m"] {
        let expected = if query.contains("anchored") { all.clone() } else { all.replace(" anchored", "") };
        check(query, &format!("matrix‹{query}›(‹a›{expected}, 1m)"));
    }
    check("a[1m] @ 1 anchored", &format!("matrix‹a[1m] @ 1›(‹a›{name} anchored @Timestamp(1000), 1m)"));
}

#[test]
fn ranges_and_subqueries() {
    let name = "__name__=\"a\"";
    check("a[5]", &format!("matrix‹a[5]›(‹a›{name}, 5s)"));
    check("a{}[ 1h30m ]", &format!("matrix‹a{{}}[ 1h30m ]›(‹a{{}}›{name}, 1h30m)"));
    let inner = format!("vector‹a›({name})");
    check("a[1h:]", &format!("subquery‹a[1h:]›({inner}, 1h)"));
    check("a[1h:5m]", &format!("subquery‹a[1h:5m]›({inner}, 1h, 5m)"));
    let query = "a[1h:5m] offset -1m @ end()";
    check(query, &format!("subquery‹{query}›({inner}, 1h, 5m, offset -1m, @End)"));
    let inner = format!("rate‹rate(a[1m])›(matrix‹a[1m]›(‹a›{name}, 1m))");
    check("rate(a[1m])[1h:]", &format!("subquery‹rate(a[1m])[1h:]›({inner}, 1h)"));
}

#[test]
fn durations_are_computed() {
    let check = |duration: &str, expected: &str| {
        check(&format!("a[{duration}]"), &format!("matrix‹a[{duration}]›(‹a›__name__=\"a\", {expected})"));
    };
    check("5m + 1", "[300 + 1]");
    check("1 + 2 * 3 ^ 4 ^ 5", "[1 + [2 * [3 ^ [4 ^ 5]]]]");
    check("1 - 2 - 3", "[[1 - 2] - 3]");
    check("-2 ^ 2 + 9", "[-[2 ^ 2] + 9]");
    check("(5m)", "(+300)");
    check("(1 + 2) * 3 % 4", "[[([1 + 2]) * 3] % 4]");
    check("STEP() + range()", "[step + range]");
    check("min_of(step(), 5m) / 2", "[[step min_of 300] / 2]");
    check("- -5m", "5m");
    check("+5m", "5m");
    check("max_of(-step(), 1)", "[-step max_of 1]");
}

#[test]
fn offsets_take_only_what_is_theirs() {
    check_same("a offset 5m + b", "(a offset 5m) + b");
    check_same("a offset -5m ^ b", "(a offset -5m) ^ b");
    check_same("a offset step() + b", "(a offset step()) + b");
    check_same("a offset -min_of(1, 2) * b", "(a offset -min_of(1, 2)) * b");
    check_same("a offset -(5m) + b", "(a offset -(5m)) + b");
    check("a offset (5m) + 1", "vector‹a offset (5m) + 1›(__name__=\"a\" offset [(+300) + 1])");
    check("a offset (5m + 1m)", "vector‹a offset (5m + 1m)›(__name__=\"a\" offset ([300 + 60]))");
    check("a offset -(1 + 2)", "vector‹a offset -(1 + 2)›(__name__=\"a\" offset -([1 + 2]))");
    check("a offset +range()", "vector‹a offset +range()›(__name__=\"a\" offset +range)");
}

#[test]
fn operators_bind_as_they_should() {
    check_same("a + b * c ^ d", "a + (b * (c ^ d))");
    check_same("a ^ b ^ c", "a ^ (b ^ c)");
    check_same("a - b - c", "(a - b) - c");
    check_same("a / b atan2 c % d * e", "(((a / b) atan2 c) % d) * e");
    check_same("a or b and c unless d or e", "(a or ((b and c) unless d)) or e");
    check_same("a < b + c == d", "(a < (b + c)) == d");
    check_same("a </ 1 >/ 2 - 3", "(a </ 1) >/ (2 - 3)");
    check_same("-a ^ b", "-(a ^ b)");
    check_same("-a * b", "(-a) * b");
    check_same("-1 ^ 2", "-(1 ^ 2)");
    check_same("2 ^ -a * b", "(2 ^ (-a)) * b");
    check_same("-a offset 5m", "-(a offset 5m)");
}

#[test]
fn binary_operators_match_vectors() {
    let between = |operator: &str, expected: &str| {
        let query = format!("a {operator} b");
        check(&query, &format!("{expected}‹{query}›(vector‹a›(__name__=\"a\"), vector‹b›(__name__=\"b\"))"));
    };
    between("+", "+ one-to-one");
    between("== bool", "== bool one-to-one");
    between("and", "and many-to-many");
    between("+ on (x, 'y z',)", "+ one-to-one on [\"x\", \"y z\"]");
    between("+ ON ()", "+ one-to-one on []");
    between("+ ignoring ()", "+ one-to-one");
    between("+ ignoring (x) group_left", "+ many-to-one ignoring [\"x\"]");
    between("/ on (x) Group_Right (y)", "/ one-to-many on [\"x\"] include [\"y\"]");
    between("> bool on (x) group_left () fill (1)", "> bool many-to-one on [\"x\"] fill Some(1.0) Some(1.0)");
    between("+ fill_left (-1)", "+ one-to-one fill Some(-1.0) None");
    between("+ fill_right (+Inf)", "+ one-to-one fill None Some(inf)");
    between("+ fill_left (1) fill_right (5m)", "+ one-to-one fill Some(1.0) Some(300.0)");
    between("+ fill_right (1) fill_left (2)", "+ one-to-one fill Some(2.0) Some(1.0)");
    check("1 + a", "+‹1 + a›(number‹1›(1), vector‹a›(__name__=\"a\"))");
    check("(1)", "paren‹(1)›(number‹1›(1))");
}

#[test]
fn aggregations() {
    let inner = "vector‹a›(__name__=\"a\")";
    check("sum(a)", &format!("sum‹sum(a)›({inner})"));
    check("sum ( a ) ", &format!("sum‹sum ( a )›({inner})"));
    check("sum by (x) (a)", &format!("sum by [\"x\"]‹sum by (x) (a)›({inner})"));
    check("sum(a) without (x, y)", &format!("sum without [\"x\", \"y\"]‹sum(a) without (x, y)›({inner})"));
    check("sum(a) without ()", &format!("sum without []‹sum(a) without ()›({inner})"));
    check("topk(5, a)", &format!("topk‹topk(5, a)›(number‹5›(5), {inner})"));
    check(
        "count_values('x', a)",
        &format!("count_values‹count_values('x', a)›(string‹'x'›(\"x\"), {inner})"),
    );
    check("limit_ratio(-.5, a)", &format!("limit_ratio‹limit_ratio(-.5, a)›(number‹-.5›(-0.5), {inner})"));
    check("(sum(a))", &format!("paren‹(sum(a))›(sum‹sum(a)›({inner}))"));
}

#[test]
fn calls() {
    let inner = "vector‹a›(__name__=\"a\")";
    check("time()", "time‹time()›()");
    check("abs ( a )", &format!("abs‹abs ( a )›({inner})"));
    check("round(a, 2)", &format!("round‹round(a, 2)›({inner}, number‹2›(2))"));
    check("start() + step()", "+‹start() + step()›(start‹start()›(), step‹step()›())");
    check("min_of(1, range())", "min_of‹min_of(1, range())›(number‹1›(1), range‹range()›())");
    check("info(a)", &format!("info‹info(a)›({inner})"));
    let data = "vector‹{x=~'.*'}›(x=~\".*\" may be empty)";
    check("info(a, {x=~'.*'})", &format!("info‹info(a, {{x=~'.*'}})›({inner}, {data})"));
    check(
        "label_join(a, 'x', ',')",
        &format!("label_join‹label_join(a, 'x', ',')›({inner}, string‹'x'›(\"x\"), string‹','›(\",\"))"),
    );
}

#[test]
fn comments_and_white_space_are_left_out() {
    check(
        "a # first\n + # second\n b",
        "+ one-to-one‹a # first\n + # second\n b›(vector‹a›(__name__=\"a\"), vector‹b›(__name__=\"b\"))",
    );
    check("\t{ # x\n a = 'b' }\r\n", "vector‹{ # x\n a = 'b' }›(a=\"b\")");
}

#[test]
fn a_lone_selector_may_match_everything() {
    let matchers = parse_selector("{a=~'.*'}", &Options::stable()).unwrap();
    assert!(check::may_match_all(&matchers), "callers decide about it");
    let matchers = parse_selector("foo{a!='b'}", &Options::stable()).unwrap();
    assert_eq!(matchers.len(), 2, "the name is the last of the matchers");
    let error = parse_selector("foo offset 5m", &Options::stable()).unwrap_err();
    assert_eq!(error.to_string(), "1:5: parse error: unexpected <offset>");
    let error = parse_selector("", &Options::stable()).unwrap_err();
    assert_eq!(error.to_string(), "unknown position: parse error: unexpected end of input");
}
