//! What attribution says of itself, and of the containers and pods that it knows.

use std::sync::Arc;

use telemetry_model::{Desc, Family, Kind, Label, Labels, Scope, Series, Unit, Value, float};

use super::directory::Details;
use super::{Directory, Namer, Names, Stats};

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
    &NESTED,
    &UNNAMED,
    &EXPOSED_UNNAMED,
    &LATE_BOUND,
    &BUNDLES,
    &LATENCY,
    &CONTAINER_INFO,
    &POD_INFO,
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

static NESTED: Desc = gauge(
    "telemetry_agent_attribution_nested_cgroups",
    "Living cgroups below a container's own, whose counts are the container's.",
);
static UNNAMED: Desc = gauge(
    "telemetry_agent_attribution_unnamed",
    "Containers and pods, living or remembered, whose names are not known.",
);
static EXPOSED_UNNAMED: Desc = counter(
    "telemetry_agent_attribution_exposed_unnamed_total",
    &[],
    "1",
    "Containers and pods that were exposed by their ids, because no names came in time.",
);
static LATE_BOUND: Desc = counter(
    "telemetry_agent_attribution_late_bound_total",
    &[],
    "1",
    "Containers and pods whose names came after they were exposed by their ids.",
);
static BUNDLES: Desc = counter(
    "telemetry_agent_attribution_bundle_reads_total",
    &["result"],
    "7: result=named|absent|unreadable|too_large|malformed|no_pod|other_pod",
    "Tries to read the file that a container was started from; all but named leave its names unknown.",
);
static LATENCY: Desc = Desc {
    name: "telemetry_agent_attribution_latency_seconds",
    kind: Kind::Histogram,
    unit: Unit::Seconds,
    help: "Time from the creation of a container's cgroup to its names, of those that were created while the agent ran.",
    scope: Scope::Agent,
    labels: &[],
    bound: "1",
    source: "cgroup_mkdir, the container's file",
};
static CONTAINER_INFO: Desc = Desc {
    name: "kernel_container_info",
    kind: Kind::Info,
    unit: Unit::None,
    help: "Identity of a container, for joins: of several containers of one name the newest.",
    scope: Scope::Node,
    labels: &["namespace", "pod", "container", "container_id", "pod_uid", "image", "qos"],
    bound: "containers",
    source: "cgroup_mkdir, the container's file",
};
static POD_INFO: Desc = Desc {
    name: "kernel_pod_info",
    kind: Kind::Info,
    unit: Unit::None,
    help: "Identity of a pod, for joins: of several pods of one name the newest.",
    scope: Scope::Node,
    labels: &["namespace", "pod", "pod_uid", "qos"],
    bound: "pods",
    source: "cgroup_mkdir, a container's file",
};

/// Everything that is told of one moment.
#[must_use]
pub fn families(directory: &Directory, namer: &Namer) -> Vec<Family> {
    let mut families = counts(&directory.stats());
    let result = |word: &'static str| Labels::fixed(&[("result", word)]);
    let reads = namer.counts().map(|(outcome, count)| Series::number(result(outcome.word()), float(count)));
    families.push(one(&BUNDLES, reads.collect()));
    let latency = Value::Histogram(Arc::clone(namer.latency()));
    families.push(one(&LATENCY, vec![Series { value: latency, ..Series::number(Labels::none(), 0.0) }]));
    let (pods, containers): (Vec<_>, Vec<_>) =
        directory.named().partition(|(names, _)| names.container.is_empty());
    let info = |all: Vec<(&Names, &Details)>, labels: fn(&Names, &Details) -> Labels| {
        all.into_iter().map(|(names, details)| Series::number(labels(names, details), 1.0)).collect()
    };
    families.push(one(&CONTAINER_INFO, info(containers, container_labels)));
    families.push(one(&POD_INFO, info(pods, pod_labels)));
    families
}

fn container_labels(names: &Names, details: &Details) -> Labels {
    let Details { pod_uid, container_id, image, qos, runtime: _ } = details;
    Labels::new(vec![
        Label::new("namespace", names.namespace.to_string()),
        Label::new("pod", names.pod.to_string()),
        Label::new("container", names.container.to_string()),
        Label::new("container_id", container_id.clone()),
        Label::new("pod_uid", pod_uid.clone()),
        Label::new("image", image.clone()),
        Label::new("qos", *qos),
    ])
}

fn pod_labels(names: &Names, details: &Details) -> Labels {
    Labels::new(vec![
        Label::new("namespace", names.namespace.to_string()),
        Label::new("pod", names.pod.to_string()),
        Label::new("pod_uid", details.pod_uid.clone()),
        Label::new("qos", details.qos),
    ])
}

/// The directory's own counts.
fn counts(stats: &Stats) -> Vec<Family> {
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
        none(&NESTED, size(stats.nested)),
        none(&UNNAMED, size(stats.unnamed)),
        none(&EXPOSED_UNNAMED, float(stats.exposed_unnamed_total)),
        none(&LATE_BOUND, float(stats.late_bound_total)),
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
    use std::time::Instant;

    use telemetry_model::{CgroupKey, Hierarchy};

    use super::*;
    use crate::attribute::Config;
    use crate::attribute::bundle::Bundle;

    #[test]
    fn every_declared_metric_is_told_with_its_declared_labels() {
        let now = Instant::now();
        let mut directory = Directory::new(&Config::default());
        let pod = "/kubepods/burstable/pod8a1b2c3d-0000-4000-8000-000000000001";
        for (id, path) in [(7, pod.to_owned()), (8, format!("{pod}/{}", "a".repeat(64)))] {
            let key = CgroupKey { hierarchy: Hierarchy::Unified, id };
            directory.born(key, path.as_bytes(), now, now);
        }
        let names = Names { namespace: "shop".into(), pod: "web".into(), container: "php".into() };
        let bundle = Bundle { names, pod_uid: String::new(), image: String::new() };
        for owner in directory.take_unread() {
            directory.name(owner, &bundle).unwrap();
        }
        let families = families(&directory, &Namer::new(""));
        let told: Vec<_> = families.iter().map(|family| family.desc.name).collect();
        let declared: Vec<_> = METRICS.iter().map(|desc| desc.name).collect();
        assert_eq!(told, declared);
        for family in families {
            assert!(!family.series.is_empty(), "{}", family.desc.name);
            for series in &family.series {
                let mut names: Vec<_> = series.labels.iter().map(|label| label.name.as_ref()).collect();
                let mut declared = family.desc.labels.to_vec();
                names.sort_unstable();
                declared.sort_unstable();
                assert_eq!(names, declared, "{}", family.desc.name);
            }
        }
    }
}
