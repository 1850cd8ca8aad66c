//! The queries, each with its times and what it is held to.

use telemetry_tests::dashboards::USUAL;

use super::data::{END, LONG_END, LONG_START};

/// A query over a range.
#[derive(Clone, Copy)]
pub struct Shape {
    /// As the table calls it.
    pub name: &'static str,
    /// In PromQL.
    pub query: &'static str,
    /// First step, milliseconds.
    pub start: i64,
    /// Last step.
    pub end: i64,
    /// Between two steps.
    pub step: i64,
    /// CPU milliseconds that one answer of ours may take, where such a limit was set.
    pub cpu_ms: Option<f64>,
    /// Whether the peers shall say the same: not where we answer from tiers and a rate sees their rows.
    pub is_exact: bool,
}

const MINUTE: i64 = 60_000;
const HOUR: i64 = 60 * MINUTE;

/// The usual ones, then the worst.
pub const SHAPES: [Shape; 17] = {
    let [a, b, c, d, e, f, g, h, i, j] = USUAL;
    [
        Shape { step: 15_000, cpu_ms: Some(30.0), ..usual(a) },
        usual(b),
        usual(c),
        usual(d),
        usual(e),
        usual(f),
        usual(g),
        usual(h),
        usual(i),
        usual(j),
        Shape {
            cpu_ms: Some(90.0),
            ..hour(
                "sum by (le), rate: 8,400 series, 61 steps",
                "sum by (le) (rate(ebpf_http_request_duration_seconds_bucket[5m]))",
            )
        },
        hour("every series: 20,000", "count by (namespace) ({__name__=~\"container_.+|ebpf_.+\"})"),
        hour(
            "subquery: 31 sub-steps",
            "max_over_time(sum by (namespace) (rate(container_network_receive_bytes_total[5m]))[30m:1m])",
        ),
        hour("predict_linear: 1,200 series", "predict_linear(container_memory_working_set_bytes[15m], 3600)"),
        hour("quantile_over_time: 800 series", "quantile_over_time(0.95, ebpf_runqueue_latency_ratio[15m])"),
        Shape {
            is_exact: true,
            ..long("thirty days: max_over_time", "max by (zone) (max_over_time(long_level[1h]))")
        },
        Shape {
            is_exact: false,
            ..long("thirty days: sum of rates", "sum by (zone) (rate(long_total[1h]))")
        },
    ]
};

/// One of the usual ones.
const fn usual((name, query): (&'static str, &'static str)) -> Shape {
    hour(name, query)
}

/// The last hour, a step a minute.
const fn hour(name: &'static str, query: &'static str) -> Shape {
    Shape { name, query, start: END - HOUR, end: END, step: MINUTE, cpu_ms: None, is_exact: true }
}

/// Thirty days, a step an hour.
const fn long(name: &'static str, query: &'static str) -> Shape {
    Shape {
        name,
        query,
        start: LONG_START + 2 * HOUR,
        end: LONG_END - 2 * HOUR,
        step: HOUR,
        cpu_ms: None,
        is_exact: true,
    }
}
