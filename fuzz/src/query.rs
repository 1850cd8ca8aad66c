//! The query language: any text, parsed, printed and evaluated within a budget.

use std::sync::LazyLock;
use std::time::Duration;

use telemetry_promql::budget::Limits;
use telemetry_promql::eval::{Options, instant, range};
use telemetry_promql::format::pretty;
use telemetry_promql::labels::Labels;
use telemetry_promql::parse;
use telemetry_promql::script::Memory;
use telemetry_promql::value::Cell;

const MINUTE: i64 = 60_000;

/// A dozen series for an hour.
static MEMORY: LazyLock<Memory> = LazyLock::new(|| {
    let mut memory = Memory::default();
    let bounds = [("0.1", 0u8), ("1", 1), ("10", 2), ("+Inf", 3)];
    for (name, (le, k)) in
        ["x_total", "y", "h_bucket"].iter().flat_map(|name| bounds.map(move |b| (*name, b)))
    {
        let job = if k % 2 == 0 { "a" } else { "b" };
        let labels = Labels::from_texts([("__name__", name), ("job", job), ("le", le)]);
        let samples = (0..60i32).map(|tick| {
            let value = f64::from(tick * (i32::from(k) + 1) % 37);
            (i64::from(tick) * MINUTE, 0, Cell::Float(value))
        });
        memory.extend(&labels, samples).expect("samples in order are taken");
    }
    memory
});

/// Any text: an error, or a tree whose text is read as the same tree.
pub fn parse(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    for options in [parse::Options::all(), parse::Options::stable()] {
        let Ok(tree) = parse::parse(text, &options) else { continue };
        let printed = tree.to_string();
        if let Ok(again) = parse::parse(&printed, &parse::Options::all()) {
            assert_eq!(again.to_string(), printed, "printed and read again");
        }
        let _ = pretty(&tree);
    }
    let _ = parse::parse_selector(text, &parse::Options::all());
}

/// Any query over a few series: an answer or an error, within its budget.
pub fn evaluate(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let limits = Limits {
        samples: 200_000,
        bytes: 4 << 20,
        points: 20_000,
        time: Duration::from_millis(500),
        ..Limits::default()
    };
    let options = Options {
        limits,
        language: parse::Options::all(),
        delayed_name_removal: bytes.len().is_multiple_of(2),
        ..Options::default()
    };
    let _ = instant(&*MEMORY, text, 30 * MINUTE, &options);
    let _ = range(&*MEMORY, text, (0, 60 * MINUTE, 7 * MINUTE), &options);
}

/// Good queries of every kind.
pub fn queries() -> Vec<Vec<u8>> {
    [
        "sum by (job) (rate(x_total[5m]))",
        "histogram_quantile(0.9, sum by (le) (rate(h_bucket[10m] offset 1m)))",
        "max_over_time(rate(x_total[5m])[30m:1m] @ end())",
        "y{job=~\"a|b\", le!=\"1\"} > bool on (job, le) group_left () x_total",
        "topk(2, y) or label_replace(y, \"z\", \"$1\", \"job\", \"(.*)\")",
        "quantile_over_time(0.5, y[1h]) - -1e3 ^ 2 % 0x1F",
        "count_values without (le) (\"v\", y) unless absent(nothing)",
        "limit_ratio(0.5, y) and on () vector(time())",
        "rate(x_total[5m] anchored) + fill(0) increase(y[2m] smoothed)",
        "{\"y\", \"le\"=\"1\"}[5m:step()] # remark",
        "sort_desc(clamp(y, min_of(1, 2), 30)) * ignoring (le) group_right y",
        "predict_linear(y[10m], 3600) / stddev_over_time(y[10m])",
    ]
    .iter()
    .map(|query| query.as_bytes().to_vec())
    .collect()
}
