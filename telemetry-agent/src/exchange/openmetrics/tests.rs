//! The public cases of the specification, samples of our own, and whatever bytes there are.

use std::path::PathBuf;

use proptest::prelude::*;

use super::check::Checker;
use super::line::parse_line;
use super::write::put_sample;
use super::*;

/// Reads a whole text.
fn parse(text: &[u8], dialect: Dialect) -> Result<usize, (usize, SyntaxError)> {
    let text = std::str::from_utf8(text).map_err(|_| (0, SyntaxError("not UTF-8")))?;
    let mut checker = Checker::new(dialect);
    let mut lines = 0;
    for line in text.strip_suffix('\n').unwrap_or(text).split('\n') {
        lines += 1;
        let parsed = parse_line(line, dialect).map_err(|error| (lines, error))?;
        checker.line(&parsed).map_err(|error| (lines, error))?;
    }
    checker.finish().map_err(|error| (lines, error))?;
    Ok(lines)
}

fn sample(line: &str) -> Sample<'_> {
    match parse_line(line, Dialect::OpenMetrics) {
        Ok(Line::Sample(sample)) => sample,
        other => panic!("{line}: {other:?}"),
    }
}

/// Test data that others publish; nothing of it is in the repository.
fn oracles() -> PathBuf {
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../shared/oracles");
    std::env::var_os("TELEMETRY_ORACLES").map_or(root, PathBuf::from)
}

#[test]
fn every_case_of_the_specification_is_judged_as_it_says() {
    let dir = oracles().join("openmetrics/testdata/parsers");
    let Ok(cases) = std::fs::read_dir(&dir) else {
        eprintln!("skipped: {} is not there (set TELEMETRY_ORACLES)", dir.display());
        return;
    };
    let (mut count, mut wrong) = (0, Vec::new());
    for case in cases {
        let case = case.unwrap().path();
        let about: serde_json::Value =
            serde_json::from_slice(&std::fs::read(case.join("test.json")).unwrap()).unwrap();
        let text = std::fs::read(case.join(about["file"].as_str().unwrap())).unwrap();
        let result = parse(&text, Dialect::OpenMetrics);
        if result.is_ok() != about["shouldParse"].as_bool().unwrap() {
            wrong.push(format!("{}: {result:?}", case.file_name().unwrap().display()));
        }
        count += 1;
    }
    assert!(wrong.is_empty(), "{} of {count}:\n{}", wrong.len(), wrong.join("\n"));
    assert!(count > 0, "no cases in {}", dir.display());
}

#[test]
fn what_the_specification_forbids_is_refused() {
    let check = |lines: &str| parse(format!("{lines}\n# EOF\n").as_bytes(), Dialect::OpenMetrics);
    for bad in [
        "# TYPE a counter\na 1",
        "# TYPE a counter\na_total 1\n# TYPE b gauge\nb 1\na_total 2",
        "# TYPE a histogram\na_bucket{le=\"1\"} 0.5\na_bucket{le=\"+Inf\"} 1",
        "# TYPE a histogram\na_bucket{le=\"NaN\"} 1\na_bucket{le=\"+Inf\"} 1",
        "# TYPE a histogram\na_bucket{le=\"+Inf\"} 1 1\na_count 1 1\na_sum 1 1\na_bucket{le=\"1\"} 1 2",
        "# TYPE a summary\na{quantile=\"0.5\"} 1 2\na_count 1 1\na_sum 1 1",
        "# TYPE a gauge\na{b=\"1\"} 1\na{b=\"2\"} 1\na{b=\"1\"} 2",
        "# TYPE a info\na_info NaN",
        "# TYPE a stateset\na{a=\"x\"} 0.5",
        "a 1 1.0001\na 1 1.0000",
        "a{b=\"c\" } 1",
        "a {b=\"c\"} 1",
        "a{b=\"c\", d=\"e\"} 1",
        "a{b:c=\"d\"} 1",
        "a{=\"d\"} 1",
        "a 1\r",
        "a +nan",
        "a 1e",
        "a 1 # {} 1",
        "#  TYPE a gauge",
        "# TYPE  a gauge",
        "# HELP a b\n# TYPE c gauge\n# TYPE a gauge",
        "# EOF",
    ] {
        assert!(check(bad).is_err(), "{bad}");
    }
    for good in [
        "# TYPE a histogram\na_bucket{le=\"1\"} 0 1\na_bucket{le=\"+Inf\"} 1 1\na_count 1 1\na_sum -0 1\na_bucket{le=\"1\"} 0 2\na_bucket{le=\"+Inf\"} 1 2",
        "# TYPE a_total gauge\na_total 1",
        "a_bucket 0.5\na_count -1\nb 2",
        "# TYPE a gaugehistogram\na_bucket{le=\"-1\"} 1\na_bucket{le=\"+Inf\"} 1\na_gcount 1\na_gsum -3",
        "{\"a.b\",\"c d\"=\"e\"} 1",
        "a nan\nb iNf\nc -INFINITY\nd .5\ne 1.\nf +1E+2",
        "# UNIT a_b_c b_c",
    ] {
        assert_eq!(check(good).map(|_| ()), Ok(()), "{good}");
    }
}

#[test]
fn text_is_read_as_prometheus_does() {
    let check = |text: &str| parse(text.as_bytes(), Dialect::Text).map(|_| ());
    let good = "\n  # a comment\n# HELP a b \\\" c\\nd\n#\tTYPE a  untyped\n\ta { b = \"c\" , } \t1.5e3  1700000000123 \r\nb{}+Inf\n# EOF\nc 1";
    assert_eq!(check(good), Ok(()));
    assert_eq!(check(""), Ok(()), "nothing is no fault");
    for bad in [
        "a 1 1.5",
        "a",
        "# TYPE a b",
        "# TYPE a gauge\n# TYPE a gauge",
        "a 1 # {} 1",
        "a 1 2 3",
        "# TYPE a info",
    ] {
        assert!(check(bad).is_err(), "{bad}");
    }
    let Ok(Line::Sample(read)) = parse_line("a{b=\"c\\\"\\\\\\n\"} 2 -5", Dialect::Text) else { panic!() };
    assert_eq!((read.get("b"), read.t.unwrap().millis()), (Some("c\"\\\n"), Some(-5)));
}

#[test]
fn samples_are_read() {
    let s = sample(
        r#"http_requests_total{method="post",code="a\"b\\c\nd"} 1.5e3 1700000000.1234 # {trace_id="x"} 0.5 1700000001"#,
    );
    let labels: Vec<_> = s.labels.iter().map(|(n, v)| (n.as_ref(), v.as_ref())).collect();
    assert_eq!(labels, [("__name__", "http_requests_total"), ("code", "a\"b\\c\nd"), ("method", "post")]);
    assert_eq!((s.value, s.t), (1500.0, Some(Time(1_700_000_000_123_400_000))));
    assert_eq!(s.exemplar.unwrap().t.unwrap().millis(), Some(1_700_000_001_000));
    let t = |text: &str| sample(&format!("a 1 {text}")).t.unwrap();
    assert_eq!(t("-1.5").millis(), Some(-1500));
    assert_eq!(t("1.0009999999").0, 1_000_999_999);
    assert_eq!(t("1.5e-3").millis(), Some(1));
    assert_eq!(t("12345678901234567890.123").millis(), None, "no time of a store");
}

#[test]
fn comments_are_read() {
    let line = |text| parse_line(text, Dialect::OpenMetrics).unwrap();
    assert_eq!(line("# TYPE a counter"), Line::Type("a".into(), Kind::Counter));
    assert_eq!(line("# HELP a b\\nc \\\"\\t"), Line::Help("a".into(), "b\nc \"\\t".into()));
    assert_eq!(line("# UNIT a_seconds seconds"), Line::Unit("a_seconds".into(), "seconds"));
    assert_eq!(line("# EOF"), Line::Eof);
}

fn label() -> impl Strategy<Value = (String, String)> {
    ("[a-z]{1,4}|\\PC{1,5}", "\\PC{0,8}|[\\\\\"\n]{1,4}")
}

proptest! {
    #[test]
    fn what_is_written_is_read(
        name in "[a-zA-Z_:][a-zA-Z0-9_:]{0,8}|\\PC{1,8}",
        labels in prop::collection::vec(label(), 0..4),
        exemplar in prop::option::of((label(), any::<u64>(), -9_000_000_000_000i64..9_000_000_000_000)),
        bits in any::<u64>(),
        t in -10_000_000_000_000i64..10_000_000_000_000,
    ) {
        let value = f64::from_bits(bits);
        let mut labels: Vec<_> = labels.into_iter().filter(|(n, _)| n != "__name__").collect();
        labels.push(("__name__".into(), name));
        labels.sort();
        labels.dedup_by(|a, b| a.0 == b.0);
        let exemplar = exemplar.map(|((n, v), bits, t)| (vec![(n.into_boxed_str(), v.into_boxed_str())], f64::from_bits(bits), t));
        let mut out = String::new();
        let borrowed = exemplar.as_ref().map(|(labels, value, t)| (labels.as_slice(), *value, *t));
        put_sample(&mut out, labels.iter().map(|(n, v)| (n.as_str(), v.as_str())), value, t, borrowed);
        let read = sample(out.strip_suffix('\n').unwrap());
        let got: Vec<(String, String)> = read.labels.iter().map(|(n, v)| (n.to_string(), v.to_string())).collect();
        prop_assert_eq!(got, labels);
        let same = |a: f64, b: f64| a.to_bits() == b.to_bits() || (a.is_nan() && b.is_nan());
        prop_assert!(same(read.value, value));
        prop_assert_eq!(read.t.unwrap().millis(), Some(t));
        if let Some((labels, value, t)) = exemplar {
            let got = read.exemplar.unwrap();
            prop_assert!(same(got.value, value));
            prop_assert_eq!(got.t.unwrap().millis(), Some(t));
            prop_assert_eq!((&*got.labels[0].0, &*got.labels[0].1), (&*labels[0].0, &*labels[0].1));
        }
    }

    #[test]
    fn any_text_is_read_or_refused(text in prop::collection::vec("\\PC{0,60}|[a-z{}=\",# \\\\0-9.]{0,40}|# (TYPE|HELP|UNIT) [ab] (counter|histogram|x)?|[ab](_bucket|_sum|_total)?(\\{le=\"[0-9+Inf]{1,4}\"\\})? [0-9]{1,3}( # \\{\\} [0-9])?", 0..12)) {
        let text = text.join("\n");
        let _ = parse(text.as_bytes(), Dialect::OpenMetrics);
        let _ = parse(text.as_bytes(), Dialect::Text);
    }
}
