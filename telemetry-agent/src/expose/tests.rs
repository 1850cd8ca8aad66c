//! Pages against goldens, and against a small parser that shares nothing with the writer.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use proptest::prelude::*;
use telemetry_model::clock::Timestamp;
use telemetry_model::{
    Desc, Family, Histogram, Kind, Label, Labels, Layout, Scope, Series, Snapshot, Unit, Value,
};

use super::{Format, fixture};

static LAYOUT: Layout = Layout { schema: 2, low_octave: -4, high_octave: 4 };

static COUNTER: Desc = desc("kernel_cpu_seconds_total", Kind::Counter, Unit::Seconds, "CPU time used.");
static GAUGE: Desc = desc("telemetry_agent_memory_bytes", Kind::Gauge, Unit::Bytes, "Memory now in use.");
static STATE: Desc = desc("telemetry_agent_threads", Kind::Gauge, Unit::None, "Threads of the agent.");
static INFO: Desc =
    desc("telemetry_agent_build_info", Kind::Info, Unit::None, "What the agent was built from.");
static HISTOGRAM: Desc = desc("kernel_wait_seconds", Kind::Histogram, Unit::Seconds, "Time spent waiting.");
static HOSTILE: Desc = desc("hostile_total", Kind::Counter, Unit::None, "Says \"a\\b\"\nand goes on.");

const fn desc(name: &'static str, kind: Kind, unit: Unit, help: &'static str) -> Desc {
    Desc { name, kind, unit, help, scope: Scope::Node, labels: &[], bound: "1", source: "test" }
}

fn page(format: Format, snapshot: &Snapshot) -> String {
    let mut out = Vec::new();
    format.write(snapshot, &mut out);
    String::from_utf8(out).expect("a page is UTF-8")
}

fn counted(labels: &[(&'static str, &'static str)], value: f64) -> Series {
    Series { created: Some(Timestamp(1_700_000_000_250)), ..Series::number(Labels::fixed(labels), value) }
}

/// Compares both formats of one family with the files named after the subject.
fn check_golden(subject: &str, desc: &'static Desc, series: Vec<Series>) {
    let snapshot = Snapshot::new(Timestamp::default(), vec![Family { desc, series }]);
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/golden/exposition");
    for (format, ending) in [(Format::Text, "txt"), (Format::OpenMetrics, "openmetrics")] {
        let path = folder.join(format!("{subject}.{ending}"));
        let page = page(format, &snapshot);
        if std::env::var_os("TELEMETRY_BLESS").is_some_and(|value| value == "1") {
            std::fs::create_dir_all(&folder).unwrap();
            std::fs::write(&path, &page).unwrap();
        }
        let golden = std::fs::read_to_string(&path).unwrap_or_default();
        assert_eq!(page, golden, "{}: TELEMETRY_BLESS=1 rewrites it", path.display());
    }
}

#[test]
fn a_counter_has_its_suffix_and_its_beginning() {
    let other = Series::number(Labels::fixed(&[("mode", "user"), ("unit", "/")]), 1_234_567.5);
    check_golden("counter", &COUNTER, vec![counted(&[("mode", "system"), ("unit", "kernel")], 3.0), other]);
}

#[test]
fn a_gauge_has_a_unit_where_its_name_says_so() {
    check_golden("gauge", &GAUGE, vec![Series::number(Labels::none(), 16_664_629_248.0)]);
    let special = [("a", f64::NAN), ("b", f64::INFINITY), ("c", f64::NEG_INFINITY), ("d", -0.5)];
    let special = special.map(|(name, value)| Series::number(Labels::fixed(&[("case", name)]), value));
    check_golden("gauge_special_values", &STATE, special.into());
    check_golden("gauge_without_unit", &STATE, vec![Series::number(Labels::none(), 12.0)]);
}

#[test]
fn an_info_metric_is_a_gauge_in_the_text_format() {
    check_golden("info", &INFO, vec![Series::number(Labels::fixed(&[("version", "0.1.0")]), 1.0)]);
}

#[test]
fn a_histogram_has_cumulative_buckets_sum_and_count() {
    let mut histogram = Histogram::new(&LAYOUT);
    for value in [0.001, 0.25, 0.26, 3.0, 16.0, 17.0] {
        histogram.observe(value);
    }
    let value = Value::Histogram(Arc::new(histogram));
    let named = Labels::fixed(&[("unit", "sshd.service")]);
    let series = [Labels::none(), named]
        .map(|labels| Series { value: value.clone(), ..counted(&[], 0.0) }.with(labels));
    check_golden("histogram", &HISTOGRAM, series.into());
}

#[test]
fn hostile_labels_and_help_are_escaped() {
    check_golden(
        "escapes",
        &HOSTILE,
        vec![
            counted(&[("a", "quote \" backslash \\ newline \n end")], 1.0),
            counted(&[("a", "\u{1b}[31mred\u{1b}[0m \r\t")], 2.0),
            counted(&[("a", "caf\u{e9} \u{1f600}"), ("b", "")], 3.0),
        ],
    );
}

#[test]
fn an_empty_snapshot_is_an_empty_page() {
    assert_eq!(page(Format::Text, &Snapshot::default()), "");
    assert_eq!(page(Format::OpenMetrics, &Snapshot::default()), "# EOF\n");
    assert_eq!(page(Format::OpenMetricsDraft, &Snapshot::default()), "# EOF\n");
}

#[test]
fn the_fixture_has_as_many_lines_as_asked_for() {
    let page = page(Format::Text, &fixture::snapshot(2000));
    let lines = page.lines().filter(|line| !line.starts_with('#')).count();
    assert!((2000..2000 + fixture::LINES_PER_OWNER).contains(&lines), "{lines} lines");
}

trait With {
    fn with(self, labels: Labels) -> Self;
}

impl With for Series {
    fn with(self, labels: Labels) -> Self {
        Self { labels, ..self }
    }
}

// The independent reader.

#[derive(Debug, PartialEq)]
struct Sample {
    name: String,
    labels: BTreeMap<String, String>,
    value: f64,
}

/// Reads sample lines as the grammar of both formats has them; metadata lines are checked for their shape only.
fn parse(page: &str) -> Vec<Sample> {
    let mut samples = Vec::new();
    // Not `lines`, which would take a carriage return for a part of the line's end.
    for line in page.split_terminator('\n') {
        if let Some(comment) = line.strip_prefix("# ") {
            let word = comment.split(' ').next().unwrap();
            assert!(["HELP", "TYPE", "UNIT", "EOF"].contains(&word), "{line:?}");
        } else {
            samples.push(parse_sample(line));
        }
    }
    samples
}

fn parse_sample(line: &str) -> Sample {
    let mut chars = line.chars().peekable();
    let mut name = String::new();
    while let Some(char) = chars.next_if(|char| char.is_ascii_alphanumeric() || *char == '_') {
        name.push(char);
    }
    let mut labels = BTreeMap::new();
    if chars.next_if_eq(&'{').is_some() {
        loop {
            let label: String = std::iter::from_fn(|| chars.next_if(|char| *char != '=')).collect();
            assert_eq!((chars.next(), chars.next()), (Some('='), Some('"')), "{line:?}");
            let mut value = String::new();
            loop {
                match chars.next().expect("a closing quote") {
                    '"' => break,
                    '\\' => value.push(match chars.next() {
                        Some('n') => '\n',
                        Some(char @ ('\\' | '"')) => char,
                        other => panic!("bad escape {other:?} in {line:?}"),
                    }),
                    char => value.push(char),
                }
            }
            assert_eq!(labels.insert(label, value), None, "a label occurs once: {line:?}");
            match chars.next() {
                Some(',') => {}
                Some('}') => break,
                other => panic!("{other:?} after a label in {line:?}"),
            }
        }
    }
    assert_eq!(chars.next(), Some(' '), "{line:?}");
    let value = match chars.collect::<String>().as_str() {
        "+Inf" => f64::INFINITY,
        "-Inf" => f64::NEG_INFINITY,
        text => text.parse().unwrap_or_else(|_| panic!("no number and no timestamps: {line:?}")),
    };
    Sample { name, labels, value }
}

/// Text of the bytes that break a page if they are not escaped, and of everything else.
fn hostile() -> impl Strategy<Value = String> {
    let nasty =
        prop::sample::select(vec!['\\', '"', '\n', '\r', '\u{1b}', '{', '}', ',', '#', ' ', 'n', '\u{2028}']);
    prop::collection::vec(prop_oneof![nasty, any::<char>()], 0..12).prop_map(String::from_iter)
}

fn hostile_labels() -> impl Strategy<Value = Labels> {
    prop::collection::btree_map("[a-d_][a-z0-9_]{0,4}", hostile(), 0..4)
        .prop_map(|map| Labels::new(map.into_iter().map(|(name, value)| Label::new(name, value)).collect()))
}

fn as_map(labels: &Labels) -> BTreeMap<String, String> {
    labels.iter().map(|label| (label.name.to_string(), label.value.to_string())).collect()
}

proptest! {
    #[test]
    fn a_page_reads_back_as_the_series_that_made_it(
        numbers in prop::collection::btree_map(hostile_labels(), any::<f64>(), 0..8),
        waits in prop::collection::btree_map(hostile_labels(), prop::collection::vec(0_u64..9, LAYOUT.bins()), 0..4),
    ) {
        let numbers: Vec<(Labels, f64)> = numbers.into_iter().collect();
        let series = numbers.iter().map(|(labels, value)| Series::number(labels.clone(), *value)).collect();
        let mut histograms = Vec::new();
        for (labels, bins) in waits {
            let mut histogram = Histogram::new(&LAYOUT);
            histogram.add(bins, 1.5);
            histograms.push((labels, Arc::new(histogram)));
        }
        let waiting = histograms.iter().map(|(labels, histogram)| {
            Series { labels: labels.clone(), value: Value::Histogram(Arc::clone(histogram)), created: None, late: None }
        }).collect();
        let families = vec![Family { desc: &HISTOGRAM, series: waiting }, Family { desc: &HOSTILE, series }];
        let snapshot = Snapshot::new(Timestamp::default(), families);

        for format in [Format::Text, Format::OpenMetrics] {
            let samples = parse(&page(format, &snapshot));
            let (counts, rest): (Vec<_>, Vec<_>) = samples.into_iter().partition(|sample| sample.name == HOSTILE.name);
            prop_assert_eq!(counts.len(), numbers.len());
            for (sample, (labels, value)) in counts.iter().zip(&numbers) {
                prop_assert_eq!(&sample.labels, &as_map(labels));
                prop_assert!(sample.value == *value || (sample.value.is_nan() && value.is_nan()));
            }
            let mut rest = rest.into_iter();
            for (labels, histogram) in &histograms {
                for bucket in histogram.classic() {
                    let mut sample = rest.next().unwrap();
                    let le = sample.labels.remove("le").unwrap();
                    let le = if le == "+Inf" { f64::INFINITY } else { le.parse().unwrap() };
                    prop_assert_eq!((sample.name.as_str(), le), ("kernel_wait_seconds_bucket", bucket.le));
                    prop_assert_eq!(&sample.labels, &as_map(labels));
                    prop_assert_eq!(sample.value, telemetry_model::float(bucket.cumulative));
                }
                let (sum, count) = (rest.next().unwrap(), rest.next().unwrap());
                prop_assert_eq!((sum.name.as_str(), sum.value), ("kernel_wait_seconds_sum", histogram.sum()));
                prop_assert_eq!(&sum.labels, &as_map(labels));
                let observations = telemetry_model::float(histogram.count());
                prop_assert_eq!((count.name.as_str(), count.value), ("kernel_wait_seconds_count", observations));
            }
            prop_assert!(rest.next().is_none());
        }
    }
}
