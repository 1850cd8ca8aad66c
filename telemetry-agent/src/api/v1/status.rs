//! `/v1/status`: what the agent is, what it counts, what it lost, and whether its books balance.
//!
//! Figures are those of the newest tick, the same that `/metrics` has.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use axum::response::Response;
use serde::Serialize;
use telemetry_model::{OwnerKind, Series, Snapshot, Value};
use utoipa::ToSchema;

use super::ask::Ask;
use super::owners::words;
use super::problem::Problem;
use super::{Facts, ProgramFact, ProgramState, time};
use crate::api::Check;

/// Counters of what was counted elsewhere than it belongs, or not at all.
const LOSSES: [&str; 8] = [
    "telemetry_agent_bpf_losses_total",
    "telemetry_agent_ringbuf_lost_total",
    "telemetry_agent_attribution_unresolved_total",
    "telemetry_agent_attribution_limited_total",
    "telemetry_agent_cardinality_limited_series_total",
    "telemetry_agent_store_ticks_missed_total",
    "telemetry_agent_store_samples_lost_total",
    "telemetry_agent_store_series_overflowed_total",
];

/// The state of the agent.
#[derive(Serialize, ToSchema)]
struct Status {
    version: &'static str,
    revision: &'static str,
    kernel_release: String,
    started_at: String,
    /// When the figures were read: the newest tick. Absent before the first.
    #[serde(skip_serializing_if = "Option::is_none")]
    as_of: Option<String>,
    /// From the start to `as_of`.
    uptime_seconds: f64,
    tick_seconds: f64,
    /// Whether the process does its work at all.
    is_live: bool,
    /// Whether every check holds.
    is_ready: bool,
    checks: Vec<CheckDetail>,
    families: Vec<FamilyDetail>,
    /// Struct fields that programs need and this kernel does not have.
    fields_missing: Vec<String>,
    /// Everything that was counted elsewhere than it belongs, or not at all, since the start; zeros are left out.
    losses: Vec<Loss>,
    /// Our sum over owners divided by the kernel's own total; absent while that is too small to divide by.
    ledgers: Vec<Ledger>,
    owners: OwnerCounts,
    store: StoreDetail,
    events: EventsDetail,
    kubernetes: KubernetesDetail,
}

/// A condition.
#[derive(Serialize, ToSchema)]
struct CheckDetail {
    name: &'static str,
    holds: bool,
    /// Why it does not.
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
}

/// A family of signals and the programs that feed it.
#[derive(Serialize, ToSchema)]
struct FamilyDetail {
    name: &'static str,
    /// `counting`: every program is attached. `partial`: some are. `failed`: the kernel refused all. `off`: the
    /// configuration leaves it out.
    #[schema(schema_with = family_state_schema)]
    state: &'static str,
    programs: Vec<ProgramDetail>,
}

/// A kernel program.
#[derive(Serialize, ToSchema)]
struct ProgramDetail {
    name: &'static str,
    /// The tracepoint, or where in the network stack.
    hook: &'static str,
    variant: &'static str,
    #[schema(schema_with = program_state_schema)]
    state: &'static str,
    /// Why the kernel refused it.
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
}

/// Something that was lost.
#[derive(Serialize, ToSchema)]
struct Loss {
    /// The counter; its help says what it means.
    metric: &'static str,
    labels: BTreeMap<String, String>,
    count: f64,
}

/// A sum that is compared with the kernel's.
#[derive(Serialize, ToSchema)]
struct Ledger {
    name: String,
    ratio: f64,
}

/// How many owners are known.
#[derive(Serialize, ToSchema)]
struct OwnerCounts {
    living: usize,
    /// Ended, and their last counts are still shown.
    ended: usize,
    containers: usize,
    pods: usize,
    units: usize,
}

/// The store.
#[derive(Serialize, ToSchema)]
struct StoreDetail {
    /// `durable`, `memory_only` by choice, `degraded` while the disk refuses; absent before the first tick.
    #[serde(skip_serializing_if = "Option::is_none")]
    mode: Option<String>,
    series: f64,
    samples_appended: f64,
    memory_bytes: f64,
    disk_bytes: f64,
    /// Time of the newest sample that survives a loss of power.
    #[serde(skip_serializing_if = "Option::is_none")]
    durable_through: Option<String>,
}

/// The journal.
#[derive(Serialize, ToSchema)]
struct EventsDetail {
    /// Whether events are written and can be read.
    is_open: bool,
    /// The id of the newest event.
    newest_id: u64,
    kept: f64,
    kept_bytes: f64,
    /// Events that were never written.
    lost: f64,
    /// Clients that are told events as they happen.
    streams: f64,
}

/// The watch of this node's pods.
#[derive(Serialize, ToSchema)]
struct KubernetesDetail {
    /// `off`, `waiting`, `listing`, `watching`; absent before the first tick.
    #[serde(skip_serializing_if = "Option::is_none")]
    watch: Option<String>,
    pods: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    heard_at: Option<String>,
    failures: f64,
}

/// What the agent is, what it counts, what it lost.
#[utoipa::path(
    get,
    path = "/v1/status",
    operation_id = "getStatus",
    responses((status = 200, description = "The state, as of the newest tick.", body = Status)),
)]
pub(super) async fn status(ask: Ask) -> Result<Response, Problem> {
    ask.params(&[])?;
    let shared = ask.shared();
    let snapshot = shared.latest.get();
    let live = shared.health.live();
    let checks = shared.health.ready();
    let Facts { started, version, revision, kernel_release, tick, programs, fields_missing } = &shared.facts;
    let started = started.unwrap_or(UNIX_EPOCH);
    let as_of = (!snapshot.families.is_empty()).then_some(snapshot.at.0);
    let now = as_of.unwrap_or_else(|| time::millis(SystemTime::now()));
    let uptime = u64::try_from(now.saturating_sub(time::millis(started))).unwrap_or_default();
    let status = Status {
        version,
        revision,
        kernel_release: kernel_release.clone(),
        started_at: time::format(time::millis(started)),
        as_of: as_of.map(time::format),
        uptime_seconds: Duration::from_millis(uptime).as_secs_f64(),
        tick_seconds: tick.as_secs_f64(),
        is_live: live.is_ok(),
        is_ready: checks.iter().all(|check| check.outcome.is_ok()),
        checks: checks.into_iter().map(CheckDetail::of).collect(),
        families: families(programs),
        fields_missing: fields_missing.clone(),
        losses: losses(&snapshot),
        ledgers: ledgers(&snapshot),
        owners: owners(&shared.latest.roster()),
        store: store(&snapshot),
        events: EventsDetail {
            is_open: shared.journal.is_open(),
            newest_id: shared.journal.newest(),
            kept: sum(&snapshot, "telemetry_agent_events_kept"),
            kept_bytes: sum(&snapshot, "telemetry_agent_events_kept_bytes"),
            lost: sum(&snapshot, "telemetry_agent_events_lost_total"),
            streams: sum(&snapshot, "telemetry_agent_events_streams"),
        },
        kubernetes: kubernetes(&snapshot),
    };
    ask.reply(&status)
}

fn families(programs: &[ProgramFact]) -> Vec<FamilyDetail> {
    let mut families: Vec<FamilyDetail> = Vec::new();
    for program in programs {
        let detail = ProgramDetail::of(program);
        match families.iter_mut().find(|family| family.name == program.family) {
            Some(family) => family.programs.push(detail),
            None => {
                families.push(FamilyDetail { name: program.family, state: "", programs: vec![detail] });
            }
        }
    }
    for family in &mut families {
        let are = |state: &str| family.programs.iter().filter(|program| program.state == state).count();
        family.state = match (are("attached"), are("disabled"), family.programs.len()) {
            (attached, _, all) if attached == all => "counting",
            (0, disabled, all) if disabled == all => "off",
            (0, _, _) => "failed",
            _ => "partial",
        };
    }
    families
}

fn losses(snapshot: &Snapshot) -> Vec<Loss> {
    let of = |metric: &'static str| {
        series(snapshot, metric).iter().filter_map(move |series| {
            let count = number(series);
            (count > 0.0).then(|| Loss { metric, labels: super::owners::pairs(&series.labels), count })
        })
    };
    LOSSES.into_iter().flat_map(of).collect()
}

fn ledgers(snapshot: &Snapshot) -> Vec<Ledger> {
    let ratios = series(snapshot, "telemetry_agent_audit_ratio").iter();
    ratios
        .map(|series| Ledger {
            name: series.labels.get("ledger").unwrap_or_default().to_owned(),
            ratio: number(series),
        })
        .collect()
}

fn owners(roster: &telemetry_model::Roster) -> OwnerCounts {
    let count = |is: &dyn Fn(&telemetry_model::RosterEntry) -> bool| {
        roster.owners.iter().filter(|owner| is(owner)).count()
    };
    OwnerCounts {
        living: count(&|owner| owner.is_living),
        ended: count(&|owner| !owner.is_living),
        containers: count(&|owner| owner.kind == OwnerKind::Container),
        pods: count(&|owner| owner.kind == OwnerKind::Pod),
        units: count(&|owner| owner.kind == OwnerKind::Unit),
    }
}

fn store(snapshot: &Snapshot) -> StoreDetail {
    StoreDetail {
        mode: chosen(snapshot, "telemetry_agent_store_mode", "mode"),
        series: sum(snapshot, "telemetry_agent_store_series"),
        samples_appended: sum(snapshot, "telemetry_agent_store_samples_appended_total"),
        memory_bytes: sum(snapshot, "telemetry_agent_store_memory_bytes"),
        disk_bytes: sum(snapshot, "telemetry_agent_store_disk_bytes"),
        durable_through: moment(sum(snapshot, "telemetry_agent_durable_through_timestamp_seconds")),
    }
}

fn kubernetes(snapshot: &Snapshot) -> KubernetesDetail {
    KubernetesDetail {
        watch: chosen(snapshot, "telemetry_agent_kube_watch_state", "state"),
        pods: sum(snapshot, "telemetry_agent_kube_pods"),
        heard_at: moment(sum(snapshot, "telemetry_agent_kube_last_event_timestamp_seconds")),
        failures: sum(snapshot, "telemetry_agent_kube_failures_total"),
    }
}

fn series<'a>(snapshot: &'a Snapshot, family: &str) -> &'a [Series] {
    snapshot.family(family).map_or(&[], |family| family.series.as_slice())
}

fn number(series: &Series) -> f64 {
    match &series.value {
        Value::Number(value) => *value,
        Value::Histogram(_) => 0.0,
    }
}

fn sum(snapshot: &Snapshot, family: &str) -> f64 {
    series(snapshot, family).iter().map(number).sum()
}

/// Which of a family's states holds.
fn chosen(snapshot: &Snapshot, family: &str, label: &str) -> Option<String> {
    let holds = series(snapshot, family).iter().find(|series| number(series) > 0.0)?;
    holds.labels.get(label).map(str::to_owned)
}

/// Seconds since 1970 as a time; 0 means never.
fn moment(seconds: f64) -> Option<String> {
    (seconds > 0.0).then(|| time::parse(&seconds.to_string()).map(time::format)).flatten()
}

// === impl CheckDetail ===

impl CheckDetail {
    fn of(check: Check) -> Self {
        let Check { name, outcome } = check;
        Self { name, holds: outcome.is_ok(), reason: outcome.err() }
    }
}

// === impl ProgramDetail ===

impl ProgramDetail {
    fn of(program: &ProgramFact) -> Self {
        let ProgramFact { family: _, name, hook, variant, state } = program;
        let (state, reason) = match state {
            ProgramState::Attached => ("attached", None),
            ProgramState::Disabled => ("disabled", None),
            ProgramState::Failed(reason) => ("failed", Some(reason.clone())),
        };
        Self { name, hook, variant, state, reason }
    }
}

fn family_state_schema() -> utoipa::openapi::schema::Object {
    words(&["counting", "partial", "failed", "off"])
}

fn program_state_schema() -> utoipa::openapi::schema::Object {
    words(&["attached", "disabled", "failed"])
}
