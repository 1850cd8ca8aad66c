//! What the kernel side says of itself: every program's state, every map's size, every loss.

use telemetry_ebpf::identity::Losses;
use telemetry_model::{Desc, Family, Kind, Label, Labels, Series, Unit, float, seconds};

use crate::bpf::Kernel;

/// Everything this module can say.
pub static METRICS: &[&Desc] = &[
    &PROGRAM_INFO,
    &LOADED,
    &ATTACHED,
    &RUN_SECONDS,
    &RUNS,
    &MISSES,
    &MAP_ENTRIES,
    &MAP_CAPACITY,
    &MAP_BYTES,
    &RECORDS,
    &RECORDS_LOST,
    &LOST,
    &SLOW,
    &RECLAIMED,
    &UPDATE_FAILURES,
    &FIELDS_MISSING,
];

const SOURCE: &str = "the kernel side's own counters";

static PROGRAM_INFO: Desc = Desc::of_agent(
    SOURCE,
    "telemetry_agent_bpf_program_info",
    Kind::Info,
    Unit::None,
    &["program", "hook", "variant"],
    "programs",
    "Which program was chosen for a hook on this kernel.",
);
static LOADED: Desc = Desc::of_agent(
    SOURCE,
    "telemetry_agent_bpf_program_loaded",
    Kind::Gauge,
    Unit::None,
    &["program"],
    "programs",
    "Whether the verifier accepted the program.",
);
static ATTACHED: Desc = Desc::of_agent(
    SOURCE,
    "telemetry_agent_bpf_program_attached",
    Kind::Gauge,
    Unit::None,
    &["program", "hook", "variant"],
    "programs",
    "Whether the program is attached; the log says why not.",
);
static RUN_SECONDS: Desc = Desc::of_agent(
    SOURCE,
    "telemetry_agent_bpf_program_run_seconds_total",
    Kind::Counter,
    Unit::Seconds,
    &["program"],
    "programs",
    "Time spent in the program; grows only while the sysctl kernel.bpf_stats_enabled is set.",
);
static RUNS: Desc = Desc::of_agent(
    SOURCE,
    "telemetry_agent_bpf_program_runs_total",
    Kind::Counter,
    Unit::None,
    &["program"],
    "programs",
    "Runs of the program; grows only while the sysctl kernel.bpf_stats_enabled is set.",
);
static MISSES: Desc = Desc::of_agent(
    SOURCE,
    "telemetry_agent_bpf_program_recursion_misses_total",
    Kind::Counter,
    Unit::None,
    &["program"],
    "programs",
    "Events dropped because the program was already running on that CPU.",
);
static MAP_ENTRIES: Desc = Desc::of_agent(
    SOURCE,
    "telemetry_agent_bpf_map_entries",
    Kind::Gauge,
    Unit::None,
    &["map"],
    "2",
    "Entries in use, of the maps that hand out places: slots of owners and cells of the block family.",
);
static MAP_CAPACITY: Desc = Desc::of_agent(
    SOURCE,
    "telemetry_agent_bpf_map_capacity",
    Kind::Gauge,
    Unit::None,
    &["map"],
    "2",
    "Entries possible, of the maps that hand out places.",
);
static MAP_BYTES: Desc = Desc::of_agent(
    SOURCE,
    "telemetry_agent_bpf_map_bytes",
    Kind::Gauge,
    Unit::Bytes,
    &["map"],
    "maps",
    "Kernel memory of the map, as the kernel accounts it at the start.",
);
static RECORDS: Desc = Desc::of_agent(
    SOURCE,
    "telemetry_agent_ringbuf_records_total",
    Kind::Counter,
    Unit::None,
    &["ring"],
    "1",
    "Records written to the ring buffer.",
);
static RECORDS_LOST: Desc = Desc::of_agent(
    SOURCE,
    "telemetry_agent_ringbuf_lost_total",
    Kind::Counter,
    Unit::None,
    &["ring"],
    "1",
    "Records lost because the ring buffer was full; a walk of cgroupfs repairs what they would have said.",
);
static LOST: Desc = Desc::of_agent(
    SOURCE,
    "telemetry_agent_bpf_losses_total",
    Kind::Counter,
    Unit::None,
    &["reason"],
    "9 reasons",
    "Events that were counted elsewhere than they belong, or not at all: no_slot and no_cell are counted under _other, switch_missed drops a wait for a CPU, undated drops a latency, unseen and no_socket_memory drop a connection's totals.",
);
static SLOW: Desc = Desc::of_agent(
    SOURCE,
    "telemetry_agent_bpf_slot_slow_lookups_total",
    Kind::Counter,
    Unit::None,
    &[],
    "1",
    "Lookups of an owner's slot that the cache could not answer; costs time, loses nothing.",
);
static RECLAIMED: Desc = Desc::of_agent(
    SOURCE,
    "telemetry_agent_bpf_slots_reclaimed_total",
    Kind::Counter,
    Unit::None,
    &[],
    "1",
    "Slots of dead cgroups that were given back after their last reading.",
);
static UPDATE_FAILURES: Desc = Desc::of_agent(
    SOURCE,
    "telemetry_agent_bpf_map_update_failures_total",
    Kind::Counter,
    Unit::None,
    &["map"],
    "1",
    "Map updates the kernel refused to the agent; each is tried again.",
);
static FIELDS_MISSING: Desc = Desc::of_agent(
    SOURCE,
    "telemetry_agent_bpf_fields_missing",
    Kind::Gauge,
    Unit::None,
    &[],
    "1",
    "Required struct fields that this kernel's BTF does not have; the log names them.",
);

/// One family for each of the metrics above.
#[must_use]
pub fn families(kernel: &Kernel) -> Vec<Family> {
    let mut families = program_families(kernel);
    families.extend(map_families(kernel));
    families.extend(loss_families(kernel));
    families
}

fn program_families(kernel: &Kernel) -> Vec<Family> {
    let all = |desc, series: &dyn Fn(&crate::bpf::ProgramState) -> Option<Series>| Family {
        desc,
        series: kernel.programs.iter().filter_map(series).collect(),
    };
    let hooked = |state: &crate::bpf::ProgramState| {
        let program = state.program;
        let variant = program.variant;
        Labels::fixed(&[("program", program.name), ("hook", program.hook), ("variant", variant)])
    };
    let runs = |desc, value: &dyn Fn(crate::bpf::ProgramRuns) -> f64| {
        all(desc, &|state| {
            let runs = kernel.runs(state.program.name)?;
            Some(Series::number(Labels::fixed(&[("program", state.program.name)]), value(runs)))
        })
    };
    vec![
        all(&PROGRAM_INFO, &|state| Some(Series::number(hooked(state), 1.0))),
        all(&LOADED, &|state| {
            Some(Series::number(Labels::fixed(&[("program", state.program.name)]), truth(state.loaded)))
        }),
        all(&ATTACHED, &|state| Some(Series::number(hooked(state), truth(state.attached)))),
        runs(&RUN_SECONDS, &|runs| seconds(runs.run_ns)),
        runs(&RUNS, &|runs| float(runs.runs)),
        runs(&MISSES, &|runs| float(runs.recursion_misses)),
    ]
}

fn map_families(kernel: &Kernel) -> Vec<Family> {
    let pair = |desc, slots: usize, cells: usize| Family {
        desc,
        series: [("CG_SLOT", slots), ("BLOCK_INDEX", cells)]
            .map(|(map, count)| Series::number(Labels::fixed(&[("map", map)]), count_of(count)))
            .into(),
    };
    let bytes = kernel
        .maps
        .iter()
        .map(|map| Series::number(Labels::new(vec![Label::new("map", map.name.clone())]), float(map.bytes)));
    let capacity = |count: u32| usize::try_from(count).unwrap_or_default();
    vec![
        pair(&MAP_ENTRIES, kernel.slots.used(), kernel.block.keys.used()),
        pair(&MAP_CAPACITY, capacity(kernel.slots.capacity()), capacity(kernel.block.keys.capacity())),
        Family { desc: &MAP_BYTES, series: bytes.collect() },
    ]
}

/// One of the loss counters.
type Pick = fn(&Losses) -> u64;

fn loss_families(kernel: &Kernel) -> Vec<Family> {
    let sum = |pick: Pick| {
        float((0..kernel.cpus).filter_map(|cpu| kernel.losses.get(cpu)).map(|losses| pick(&losses)).sum())
    };
    let reasons: [(&'static str, Pick); 9] = [
        ("no_slot", |losses| losses.slot_none),
        ("slot_refused", |losses| losses.slot_refused),
        ("id_too_wide", |losses| losses.id_too_wide),
        ("switch_missed", |losses| losses.switch_missed),
        ("no_cell", |losses| losses.block_cell_none),
        ("undated", |losses| losses.block_undated),
        ("no_error_entry", |losses| losses.block_error_lost),
        ("no_socket_memory", |losses| losses.socket_refused),
        ("unseen", |losses| losses.socket_unseen),
    ];
    let lost = reasons.map(|(reason, pick)| Series::number(Labels::fixed(&[("reason", reason)]), sum(pick)));
    let one = |desc, labels: Labels, value| Family { desc, series: vec![Series::number(labels, value)] };
    let ring = || Labels::fixed(&[("ring", "EVENTS")]);
    vec![
        Family { desc: &LOST, series: lost.into() },
        one(&SLOW, Labels::none(), sum(|losses| losses.slot_slow)),
        one(&RECORDS, ring(), sum(|losses| losses.event_sent)),
        one(&RECORDS_LOST, ring(), sum(|losses| losses.event_lost)),
        one(&RECLAIMED, Labels::none(), float(kernel.slots.reclaimed())),
        one(&UPDATE_FAILURES, Labels::fixed(&[("map", "CG_SLOT")]), float(kernel.slots.errors())),
        one(&FIELDS_MISSING, Labels::none(), count_of(kernel.missing_fields.len())),
    ]
}

fn truth(holds: bool) -> f64 {
    f64::from(u8::from(holds))
}

fn count_of(count: usize) -> f64 {
    float(u64::try_from(count).unwrap_or(u64::MAX))
}
