//! What attribution says of itself.

use telemetry_model::{Desc, Family, Kind, Labels, Scope, Series, Unit, float};

use super::Stats;

/// Everything attribution can say.
pub static METRICS: &[&Desc] = &[
    &CGROUPS,
    &TOMBSTONES,
    &OWNERS,
    &LIMITED,
    &WALKS,
    &WALK_FAILURES,
    &WALK_LEFT_OUT,
    &WALK_REPAIRS,
    &UNRESOLVED,
];

static CGROUPS: Desc = gauge(
    "telemetry_agent_attribution_cgroups",
    "Living cgroups whose owner is known, over all hierarchies.",
);
static TOMBSTONES: Desc = gauge(
    "telemetry_agent_attribution_tombstones",
    "Ended cgroups that are still remembered for their last counts.",
);
static OWNERS: Desc = gauge(
    "telemetry_agent_attribution_owners",
    "Owners of living or remembered cgroups, without the kernel, the root and the overflow.",
);
static LIMITED: Desc = counter(
    "telemetry_agent_attribution_limited_total",
    &["limit"],
    "2: limit=paths|tombstones",
    "Cgroups that were not remembered, or forgotten before their time, because a limit was reached.",
);
static WALKS: Desc = counter(
    "telemetry_agent_attribution_walks_total",
    &[],
    "1",
    "Walks over the cgroup tree, the first included.",
);
static WALK_FAILURES: Desc = counter(
    "telemetry_agent_attribution_walk_failures_total",
    &[],
    "1",
    "Walks over the cgroup tree that ended with an error.",
);
static WALK_LEFT_OUT: Desc = gauge(
    "telemetry_agent_attribution_walk_left_out",
    "Cgroups and subtrees that the newest walk left out, because of a limit or of permissions.",
);
static WALK_REPAIRS: Desc = counter(
    "telemetry_agent_attribution_walk_repairs_total",
    &["event"],
    "2: event=birth|death",
    "Births and deaths of cgroups that a walk saw before, or instead of, the kernel's event.",
);
static UNRESOLVED: Desc = counter(
    "telemetry_agent_attribution_unresolved_total",
    &["reason"],
    "2: reason=gone|limit",
    "Counts booked on the unresolved owner, because their cgroup was gone unseen or the directory was full.",
);

/// The families of one reading.
pub(super) fn families(stats: &Stats) -> Vec<Family> {
    let none = |desc, value| one(desc, vec![Series::number(Labels::none(), value)]);
    let pair = |desc, name, values: [(&'static str, u64); 2]| {
        let series = |(value, count)| Series::number(Labels::fixed(&[(name, value)]), float(count));
        one(desc, values.into_iter().map(series).collect())
    };
    vec![
        none(&CGROUPS, size(stats.cgroups)),
        none(&TOMBSTONES, size(stats.tombstones)),
        none(&OWNERS, size(stats.owners)),
        pair(
            &LIMITED,
            "limit",
            [("paths", stats.limited_paths_total), ("tombstones", stats.limited_tombstones_total)],
        ),
        none(&WALKS, float(stats.walks_total)),
        none(&WALK_FAILURES, float(stats.walk_failures_total)),
        none(&WALK_LEFT_OUT, size(stats.walk_left_out)),
        pair(
            &WALK_REPAIRS,
            "event",
            [("birth", stats.repaired_births_total), ("death", stats.repaired_deaths_total)],
        ),
        pair(
            &UNRESOLVED,
            "reason",
            [("gone", stats.unresolved_gone_total), ("limit", stats.unresolved_limit_total)],
        ),
    ]
}

fn one(desc: &'static Desc, series: Vec<Series>) -> Family {
    Family { desc, series }
}

fn size(count: usize) -> f64 {
    u64::try_from(count).map_or(f64::INFINITY, float)
}

const fn gauge(name: &'static str, help: &'static str) -> Desc {
    let source = "the agent's directory of cgroups";
    Desc {
        name,
        kind: Kind::Gauge,
        unit: Unit::None,
        help,
        scope: Scope::Agent,
        labels: &[],
        bound: "1",
        source,
    }
}

const fn counter(
    name: &'static str,
    labels: &'static [&'static str],
    bound: &'static str,
    help: &'static str,
) -> Desc {
    let source = "the agent's directory of cgroups";
    Desc { name, kind: Kind::Counter, unit: Unit::None, help, scope: Scope::Agent, labels, bound, source }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_declared_metric_is_told_with_its_declared_labels() {
        let families = families(&Stats::default());
        let told: Vec<_> = families.iter().map(|family| family.desc.name).collect();
        let declared: Vec<_> = METRICS.iter().map(|desc| desc.name).collect();
        assert_eq!(told, declared);
        for family in families {
            assert!(!family.series.is_empty(), "{}", family.desc.name);
            for series in &family.series {
                let names: Vec<_> = series.labels.iter().map(|label| label.name.as_ref()).collect();
                assert_eq!(names, family.desc.labels, "{}", family.desc.name);
            }
        }
    }
}
