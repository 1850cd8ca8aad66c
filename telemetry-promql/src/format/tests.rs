//! What is printed, form by form.

use super::{fixed_six, general, json, plain, pretty};
use crate::ast::Expr;
use crate::parse::{Options, parse};

/// The tree of a query.
fn tree(query: &str) -> Expr {
    parse(query, &Options::all()).unwrap_or_else(|errors| panic!("{query}: {errors}"))
}

/// A query prints so on one line.
fn check(query: &str, expected: &str) {
    assert_eq!(tree(query).to_string(), expected, "{query}");
}

/// A query is made pretty so.
fn check_pretty(query: &str, expected: &[&str]) {
    assert_eq!(pretty(&tree(query)), expected.join("\n"), "{query}");
}

#[test]
fn numbers_are_printed_as_go_prints_them() {
    assert_eq!(plain(1e21), "1000000000000000000000");
    assert_eq!(plain(1e-7), "0.0000001");
    assert_eq!(plain(-0.0), "-0");
    assert_eq!(plain(f64::NAN), "NaN");
    assert_eq!(plain(f64::NEG_INFINITY), "-Inf");
    assert_eq!(general(1e21), "1e+21");
    assert_eq!(general(123_456_789_012_345_680_000.0), "123456789012345680000");
    assert_eq!(general(1e-5), "1e-05");
    assert_eq!(general(1.5e-100), "1.5e-100");
    assert_eq!(general(0.0001), "0.0001");
    assert_eq!(general(0.0), "0");
    assert_eq!(fixed_six(f64::INFINITY), "+Inf");
    assert_eq!(fixed_six(1.5), "1.500000");
}

#[test]
fn one_line_has_one_form_for_everything() {
    check(" 1+2 ", "1 + 2");
    check("0x1F", "31");
    check("- 5m", "-5m");
    check("90m", "1h30m");
    check("'a\"\\n'", "\"a\\\"\\n\"");
    check("foo{}", "foo");
    check("foo{b='c',a=~'d'}", "foo{a=~\"d\",b=\"c\"}");
    check("{'m.n', 'a b'='c'}", "{\"a b\"=\"c\",__name__=\"m.n\"}");
    check("{__name__=''  , a='b'}", "{__name__=\"\",a=\"b\"}");
    check("foo offset 60 @ 1.2345", "foo @ 1.235 offset 1m");
    check("foo offset -1h anchored @ start()", "foo @ start() anchored offset -1h");
    check("foo[5m] offset 1m @ end() smoothed", "foo[5m] smoothed @ end() offset 1m");
    check("(a+b)[1h:5m] offset 1m @ 3", "(a + b)[1h:5m] @ 3.000 offset 1m");
    check("a[1h:]", "a[1h:]");
    check("a[5m+2*(1+step())]", "a[5m + 2 * (1 + step())]");
    check("a offset -min_of(5m,range())", "a offset -min_of(5m, range())");
    check("SUM(a)by(b,'c d')", "sum by (b, \"c d\") (a)");
    check("sum(a)without()", "sum without () (a)");
    check("sum(a)by()", "sum(a)");
    check("topk without(a)(5,b)", "topk without (a) (5, b)");
    check("a+on()b", "a + on () b");
    check("a+ignoring()b", "a + b");
    check("a>bool ignoring(x)group_left b", "a > bool ignoring (x) group_left () b");
    check("a/on(x)group_right(y)fill(1)b", "a / on (x) group_right (y) fill (1) b");
    check("a+fill_right(2)fill_left(1e-7)b", "a + fill_left (1e-07) fill_right (2) b");
    check("-a^-b", "-a ^ -b");
    check("c AND a or b", "c and a or b");
}

#[test]
fn what_fits_stays_on_one_line() {
    check_pretty("sum(a)by(b)", &["sum by (b) (a)"]);
    let name = "a".repeat(100);
    check_pretty(&name, &[&name]);
}

#[test]
fn long_parts_are_split() {
    let (a, b) = ("a".repeat(60), "b".repeat(60));
    check_pretty(&format!("{a}+on(x){b}"), &[&format!("  {a}"), "+ on (x)", &format!("  {b}")]);
    check_pretty(
        &format!("sum(rate({a}[5m])/rate({b}[5m]))by(x)"),
        &["sum by (x) (", &format!("    rate({a}[5m])"), "  /", &format!("    rate({b}[5m])"), ")"],
    );
    check_pretty(
        &format!("topk(5,({a}-{b}))"),
        &["topk(", "  5,", "  (", &format!("      {a}"), "    -", &format!("      {b}"), "  )", ")"],
    );
    check_pretty(
        &format!("label_replace({a}, 'x', 'y', 'z', '{b}')"),
        &[
            "label_replace(",
            &format!("  {a},"),
            "  \"x\",",
            "  \"y\",",
            "  \"z\",",
            &format!("  \"{b}\""),
            ")",
        ],
    );
    check_pretty(&format!("-({a}+{b})"), &["-(", &format!("    {a}"), "  +", &format!("    {b}"), ")"]);
}

#[test]
fn subqueries_keep_their_suffix() {
    let (a, b) = ("a".repeat(60), "b".repeat(60));
    check_pretty(
        &format!("max_over_time(({a}+{b})[1h:5m] offset 1m)"),
        &[
            "max_over_time(",
            "  (",
            &format!("      {a}"),
            "    +",
            &format!("      {b}"),
            "  )[1h:5m] offset 1m",
            ")",
        ],
    );
}

#[test]
fn trees_are_json() {
    let check = |query: &str, expected: &str| {
        let expected: String = expected.lines().map(str::trim).collect();
        assert_eq!(json(&tree(query)), expected, "{query}");
    };
    check("1.5", r#"{"type":"numberLiteral","val":"1.5"}"#);
    check(
        "('a\"\n')".replace('\n', "\\n").as_str(),
        r#"{"expr":{"type":"stringLiteral","val":"a\"\n"},"type":"parenExpr"}"#,
    );
    check(
        "-foo{a!~'b'} offset 5m @ 1",
        r#"{"expr":{"anchored":false,"matchers":[{"name":"a","type":"!~","value":"b"},
        {"name":"__name__","type":"=","value":"foo"}],"name":"foo","offset":300000,"offsetExpr":null,"smoothed":false,
        "startOrEnd":null,"timestamp":1000,"type":"vectorSelector"},"op":"-","type":"unaryExpr"}"#,
    );
    check(
        "rate({'x'}[step()+(5m)] smoothed @ end())",
        r#"{"args":[{"anchored":false,"matchers":[{"name":"__name__","type":"=","value":"x"}],"name":"","offset":0,
        "offsetExpr":null,"range":0,"rangeExpr":{"lhs":{"lhs":null,"op":"step","rhs":null,"type":"durationExpr","wrapped":false},
        "op":"+","rhs":{"lhs":null,"op":"+","rhs":{"duration":true,"type":"numberLiteral","val":"300"},"type":"durationExpr",
        "wrapped":true},"type":"durationExpr","wrapped":false},"smoothed":true,"startOrEnd":"end","timestamp":null,
        "type":"matrixSelector"}],"func":{"argTypes":["matrix"],"name":"rate","returnType":"vector","variadic":0},
        "type":"call"}"#,
    );
    check(
        "topk by (x) (1, a > bool on (b) group_left (c) fill_right (2) a)",
        r#"{"expr":{"bool":true,"lhs":{"anchored":false,"matchers":[{"name":"__name__","type":"=","value":"a"}],"name":"a",
        "offset":0,"offsetExpr":null,"smoothed":false,"startOrEnd":null,"timestamp":null,"type":"vectorSelector"},
        "matching":{"card":"many-to-one","fillValues":{"lhs":null,"rhs":2},"include":["c"],"labels":["b"],"on":true},
        "op":">","rhs":{"anchored":false,"matchers":[{"name":"__name__","type":"=","value":"a"}],"name":"a","offset":0,
        "offsetExpr":null,"smoothed":false,"startOrEnd":null,"timestamp":null,"type":"vectorSelector"},"type":"binaryExpr"},
        "grouping":["x"],"op":"topk","param":{"type":"numberLiteral","val":"1"},"type":"aggregation","without":false}"#,
    );
    check(
        "absent_over_time(vector(1)[1h:step()] offset -1m @ start())",
        r#"{"args":[{"expr":{"args":[{"type":"numberLiteral","val":"1"}],"func":{"argTypes":["scalar"],"name":"vector",
        "returnType":"vector","variadic":0},"type":"call"},"offset":-60000,"offsetExpr":null,"range":3600000,
        "rangeExpr":null,"startOrEnd":"start","step":0,"stepExpr":{"lhs":null,"op":"step","rhs":null,"type":"durationExpr",
        "wrapped":false},"timestamp":null,"type":"subquery"}],"func":{"argTypes":["matrix"],"name":"absent_over_time",
        "returnType":"vector","variadic":0},"type":"call"}"#,
    );
}
