//! OpenMetrics and Prometheus text, out and in.

use std::fmt::Write as _;
use std::io::Write as _;
use std::process::Stdio;

use super::{Data, START, Said, text_of};

/// Samples, without what is said of families.
fn samples(text: &str) -> Vec<&str> {
    text.lines().filter(|line| !line.starts_with('#')).collect()
}

#[test]
fn what_is_dumped_is_imported_and_dumped_again_the_same() {
    let (data, other) = (Data::filled(), Data::new());
    let first = data.dump();
    assert!(first.ends_with("# EOF\n"));
    let said = "# TYPE work_seconds counter\n# UNIT work_seconds seconds\n# HELP work_seconds Work \\\"done\\\".\\nAll of it.\n";
    assert!(first.contains(said), "{}", &first[..2000]);
    let file = data.path("all.om");
    let written = data.tsdb(&["export", text_of(&file)]).ok();
    assert!(written.contains("9,010 samples of 16 series"), "{written}");
    assert_eq!(std::fs::read_to_string(&file).unwrap(), first, "export and dump are one");
    // Histograms come back as their classic series; those are what is said then.
    other.tsdb(&["import", text_of(&file)]).ok();
    assert_eq!(other.dump(), first);
    let again = other.tsdb(&["import", text_of(&file)]).ok();
    let count = samples(&first).len();
    assert!(again.starts_with("0 samples taken"), "{again}");
    assert!(again.replace(',', "").contains(&format!("{count} were there already")), "{again}");
    assert_eq!(other.dump(), first, "the same import twice changes nothing");
}

#[test]
fn matchers_and_times_choose() {
    let data = Data::filled();
    let to = (START + 30_000) / 1000;
    let from = "2023-11-15T00:00:15Z";
    let text = data.tsdb(&[
        "dump",
        "--match",
        "a=~\"[12]\"",
        "--match",
        "__name__=heat",
        "--from",
        from,
        "--to",
        &to.to_string(),
    ]);
    let expected = ["heat{a=\"1\"} ", "heat{a=\"1\"} ", "heat{a=\"2\"} ", "heat{a=\"2\"} "];
    let text = text.ok();
    let lines = samples(&text);
    assert_eq!(lines.len(), 4, "{text}");
    assert!(lines.iter().zip(expected).all(|(line, begin)| line.starts_with(begin)), "{text}");
    let recent = data.tsdb(&["dump", "--from", "1h"]).ok();
    assert_eq!(samples(&recent).len(), 10, "the log's samples are there, too");
    for (args, word) in [
        (&["dump", "--match", "a"][..], "matcher"),
        (&["dump", "--from", "x"], "time"),
        (&["dump", "--match", "a=~("], "regexp"),
    ] {
        let said = data.tsdb(args);
        assert_eq!(said.code, 64, "{args:?}: {}", said.err);
        assert!(said.err.contains(word), "{}", said.err);
    }
}

#[test]
fn what_does_not_fit_is_counted() {
    let data = Data::new();
    let mut text = String::from("# TYPE a gauge\n");
    for k in 0..5 {
        let _ = writeln!(text, "a {k} {}", START / 1000 + k);
    }
    text.push_str("b 1\nc 1 12345678901234567890\n");
    let _ = writeln!(text, "d{{x=\"{}\"}} 1 {}", "y".repeat(5000), START / 1000);
    let _ = writeln!(text, "e{{x=\"\"}} 1 {} \n# EOF", START / 1000);
    let wrong = data.path("wrong.om");
    std::fs::write(&wrong, &text).unwrap();
    let said = data.tsdb(&["import", text_of(&wrong)]);
    assert_eq!(said.code, 65, "{}", said.err);
    assert!(said.err.contains("wrong.om:10: "), "{}", said.err);
    std::fs::write(&wrong, text.replace(" \n# EOF", "\n# EOF")).unwrap();
    let said = data.tsdb(&["import", text_of(&wrong)]).ok();
    for line in [
        "1 sample taken",
        "1 of them are older than 1d (store.retention)",
        "5 were there already",
        "1 not taken: their labels",
        "1 not taken: they have no time",
        "1 not taken: their time",
    ] {
        assert!(said.contains(line), "{line}: {said}");
    }
    let held = data.db();
    let said = data.tsdb(&["import", text_of(&wrong)]);
    assert_eq!(said.code, 69, "{}", said.err);
    assert!(said.err.contains("stop the agent"), "{}", said.err);
    drop(held);
}

#[test]
fn text_comes_from_standard_input_and_in_the_old_format() {
    let data = Data::new();
    let mut child = data
        .command(&["import", "--format", "text", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let text = format!("# just text\n# TYPE a_total counter\n\na_total{{ b = \"c\", }} 1e3 {START}\n");
    child.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
    let said = Said::of(&child.wait_with_output().unwrap()).ok();
    assert!(said.starts_with("1 sample taken"), "{said}");
    assert_eq!(data.dump(), "# TYPE a counter\na_total{b=\"c\"} 1000 1700006400.000\n# EOF\n");
}

#[test]
fn exemplars_survive_and_lenient_takes_what_families_forbid() {
    let (data, other) = (Data::new(), Data::new());
    let file = data.path("in.om");
    let text = "# TYPE a counter\na_total{x=\"y\"} 1 1700006400.000 # {trace_id=\"\u{e4}\\\"\"} 0.5 1700006399.500\n# EOF\n";
    std::fs::write(&file, text).unwrap();
    for _ in 0..2 {
        data.tsdb(&["import", text_of(&file)]).ok();
        assert_eq!(data.dump(), text);
    }
    std::fs::write(&file, "# TYPE a histogram\na_count 1 1\nb 1 1\na_count 1 2\n").unwrap();
    assert_eq!(other.tsdb(&["import", text_of(&file)]).code, 65);
    let said = other.tsdb(&["import", "--lenient", text_of(&file)]).ok();
    assert!(said.contains("taken"), "{said}");
    assert_eq!(samples(&other.dump()), ["a_count 1 1.000", "a_count 1 2.000", "b 1 1.000"]);
}
