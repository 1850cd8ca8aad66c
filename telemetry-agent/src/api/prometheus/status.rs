//! `status/*` and `features`: what the agent is, as far as Prometheus' clients ask.

use std::collections::{BTreeMap, HashMap};
use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::SystemTime;

use serde::Serialize;
use telemetry_model::{MatchOp, Matcher};
use telemetry_promql::budget::Budget;
use telemetry_promql::source::{Hints, Select};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::answer::{Failure, Kind, Success};
use super::{Call, source_failure};

/// The Prometheus whose API this is: clients choose what they send by it.
const COMPATIBLE: &str = "3.14.0";
/// Entries of each list of `status/tsdb`, if none is said, and at most.
const TSDB_ENTRIES: usize = 10;
const TSDB_ENTRIES_MAX: usize = 10_000;

#[derive(Serialize)]
struct BuildInfo {
    version: &'static str,
    revision: &'static str,
    branch: &'static str,
    #[serde(rename = "buildUser")]
    build_user: String,
    #[serde(rename = "buildDate")]
    build_date: &'static str,
    #[serde(rename = "goVersion")]
    go_version: &'static str,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct RuntimeInfo {
    start_time: String,
    #[serde(rename = "CWD")]
    directory: String,
    hostname: String,
    server_time: String,
    reload_config_success: bool,
    last_config_time: String,
    corruption_count: u64,
    goroutine_count: usize,
    #[serde(rename = "GOMAXPROCS")]
    parallelism: usize,
    #[serde(rename = "GOMEMLIMIT")]
    memory_limit: i64,
    #[serde(rename = "GOGC")]
    gc: &'static str,
    #[serde(rename = "GODEBUG")]
    debug: &'static str,
    storage_retention: String,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct TsdbStatus {
    head_stats: HeadStats,
    series_count_by_metric_name: Vec<Entry>,
    label_value_count_by_label_name: Vec<Entry>,
    memory_in_bytes_by_label_name: Vec<Entry>,
    series_count_by_label_value_pair: Vec<Entry>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct HeadStats {
    num_series: usize,
    num_label_pairs: usize,
    chunk_count: usize,
    min_time: i64,
    max_time: i64,
}

#[derive(Serialize)]
struct Entry {
    name: String,
    value: usize,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct BlockInfo {
    ulid: String,
    min_time: i64,
    max_time: i64,
    stats: BlockStats,
    compaction: Compaction,
    version: u32,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct BlockStats {
    num_samples: u64,
    num_series: u64,
    num_bytes: u64,
}

#[derive(Serialize)]
struct Compaction {
    level: u8,
    sources: Vec<String>,
}

/// `status/buildinfo`. The version is that of the API; who it really is stands in `buildUser`.
pub(super) fn build_info(_: Call<'_>) -> Result<Success, Failure> {
    serialized(&BuildInfo {
        version: COMPATIBLE,
        revision: env!("TELEMETRY_REVISION"),
        branch: "",
        build_user: concat!("telemetry-agent ", env!("CARGO_PKG_VERSION")).to_owned(),
        build_date: "",
        go_version: "",
    })
}

/// `status/runtimeinfo`.
pub(super) fn runtime_info(call: Call<'_>) -> Result<Success, Failure> {
    let facts = &call.shared.facts;
    let started = rfc3339(facts.started);
    let tasks = std::fs::read_dir("/proc/self/task").map_or(0, Iterator::count);
    let hostname = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    serialized(&RuntimeInfo {
        start_time: started.clone(),
        directory: std::env::current_dir().unwrap_or_default().display().to_string(),
        hostname: hostname.trim().to_owned(),
        server_time: rfc3339(SystemTime::now()),
        reload_config_success: true,
        last_config_time: started,
        corruption_count: call.shared.db.health().counters.blocks_damaged.load(Ordering::Relaxed),
        goroutine_count: tasks,
        parallelism: std::thread::available_parallelism().map_or(1, usize::from),
        memory_limit: i64::MAX,
        gc: "",
        debug: "",
        storage_retention: facts.flags.get("storage.tsdb.retention.time").cloned().unwrap_or_default(),
    })
}

/// `status/config`: the configuration in force. It is JSON, which is YAML, which clients expect.
pub(super) fn config(call: Call<'_>) -> Result<Success, Failure> {
    serialized(&BTreeMap::from([("yaml", &call.shared.facts.config)]))
}

/// `status/flags`: what clients look for under the names of Prometheus' flags.
pub(super) fn flags(call: Call<'_>) -> Result<Success, Failure> {
    serialized(&call.shared.facts.flags)
}

/// `status/walreplay`: nothing is answered before the log is read, so that it is always done.
pub(super) fn wal_replay(_: Call<'_>) -> Result<Success, Failure> {
    Ok(Success::json(r#"{"min":0,"max":0,"current":0}"#.to_owned()))
}

/// `features`: what the language and the API can do.
pub(super) fn features(call: Call<'_>) -> Result<Success, Failure> {
    let language = &call.options.language;
    let promql = BTreeMap::from([
        ("anchored", language.extended_range_selectors),
        ("at_modifier", true),
        ("delayed_name_removal", call.options.delayed_name_removal),
        ("duration_expr", language.duration_expressions),
        ("experimental_functions", language.experimental_functions),
        ("fill_modifiers", language.fill_modifiers),
        ("negative_offset", true),
        ("smoothed", language.extended_range_selectors),
        ("subqueries", true),
    ]);
    let api = BTreeMap::from([
        ("admin", call.shared.queries.config().admin),
        ("exemplars", true),
        ("label_values_match", true),
        ("query_stats", true),
    ]);
    serialized(&BTreeMap::from([("api", api), ("promql", promql)]))
}

/// `status/tsdb`: where the series are.
pub(super) fn tsdb(call: Call<'_>) -> Result<Success, Failure> {
    let limit = match call.params.get("limit") {
        "" => TSDB_ENTRIES,
        text => {
            let limit = text.parse().ok().filter(|limit| *limit > 0);
            limit.ok_or_else(|| Failure::bad_data("limit must be a positive number"))?
        }
    };
    if limit > TSDB_ENTRIES_MAX {
        return Err(Failure::bad_data(format!("limit must not exceed {TSDB_ENTRIES_MAX}")));
    }
    let stats = call.shared.db.stats();
    let now = call.now();
    // What is in memory: the window that is being written and the one before it.
    let from = now - 2 * telemetry_tsdb::head::WINDOW_MS;
    let every = [Matcher::new("__name__", MatchOp::NotEqual, "")];
    let budget = Budget::new(call.options.limits, Arc::clone(&call.options.canceled));
    let select =
        Select { matchers: &every, from, to: now, hints: Hints { function: "series", ..Hints::default() } };
    let selection = call.source().select(&select, &budget).map_err(source_failure)?;
    let mut by_name: HashMap<&str, usize> = HashMap::new();
    let mut by_pair: HashMap<(&str, &str), usize> = HashMap::new();
    for labels in selection.series() {
        *by_name.entry(labels.name()).or_default() += 1;
        for pair in labels.iter() {
            *by_pair.entry(pair).or_default() += 1;
        }
    }
    let mut values: HashMap<&str, (usize, usize)> = HashMap::new();
    for (name, value) in by_pair.keys() {
        let entry = values.entry(name).or_default();
        entry.0 += 1;
        entry.1 += name.len() + value.len();
    }
    let pairs = by_pair.len();
    serialized(&TsdbStatus {
        head_stats: HeadStats {
            num_series: stats.series,
            num_label_pairs: pairs,
            chunk_count: stats.groups,
            min_time: from,
            max_time: now,
        },
        series_count_by_metric_name: top(by_name.into_iter().map(|(n, c)| (n.to_owned(), c)), limit),
        label_value_count_by_label_name: top(values.iter().map(|(n, c)| ((*n).to_owned(), c.0)), limit),
        memory_in_bytes_by_label_name: top(values.iter().map(|(n, c)| ((*n).to_owned(), c.1)), limit),
        series_count_by_label_value_pair: top(
            by_pair.into_iter().map(|((n, v), c)| (format!("{n}={v}"), c)),
            limit,
        ),
    })
}

/// The greatest, the first by name where they are equal.
fn top(counts: impl Iterator<Item = (String, usize)>, limit: usize) -> Vec<Entry> {
    let mut all: Vec<_> = counts.map(|(name, value)| Entry { name, value }).collect();
    all.sort_by(|a, b| b.value.cmp(&a.value).then_with(|| a.name.cmp(&b.name)));
    all.truncate(limit);
    all
}

/// `status/tsdb/blocks`: the files.
pub(super) fn blocks(call: Call<'_>) -> Result<Success, Failure> {
    let blocks: Vec<_> = call
        .shared
        .db
        .blocks()
        .iter()
        .map(|block| {
            let meta = block.meta();
            BlockInfo {
                ulid: format!("{:026}", meta.id),
                min_time: meta.min_t,
                max_time: meta.max_t,
                stats: BlockStats {
                    num_samples: meta.samples,
                    num_series: meta.series,
                    num_bytes: block.bytes(),
                },
                compaction: Compaction {
                    level: meta.level,
                    sources: meta.sources.iter().map(|id| format!("{id:026}")).collect(),
                },
                version: 1,
            }
        })
        .collect();
    serialized(&BTreeMap::from([("blocks", blocks)]))
}

fn serialized(value: &impl Serialize) -> Result<Success, Failure> {
    let text = serde_json::to_string(value);
    text.map(Success::json).map_err(|error| Failure::new(Kind::Internal, error.to_string()))
}

fn rfc3339(at: SystemTime) -> String {
    OffsetDateTime::from(at).format(&Rfc3339).unwrap_or_default()
}

/// Writes an object with one empty list: what there is none of.
pub(super) fn none(names: &'static [&'static str]) -> Success {
    Success::data(move |out: &mut dyn Write| {
        out.write_all(b"{")?;
        for (at, name) in names.iter().enumerate() {
            let comma = if at > 0 { "," } else { "" };
            write!(out, "{comma}\"{name}\":[]")?;
        }
        out.write_all(b"}")
    })
}
