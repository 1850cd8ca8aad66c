//! What attribution says of itself, and of the containers and pods that it knows.

use std::sync::Arc;

use telemetry_model::{Desc, Family, Kind, Label, Labels, Pod, Scope, Series, Unit, Value, float};

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
    &POD_LABELS,
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
    help: "Identity of a container, for joins: of several containers of one name the newest. What only the API server knows is empty where that is not asked.",
    scope: Scope::Node,
    labels: &[
        "namespace",
        "pod",
        "container",
        "container_id",
        "pod_uid",
        "image",
        "image_digest",
        "qos",
        "workload",
        "workload_type",
    ],
    bound: "containers",
    source: "cgroup_mkdir, the container's file, the API server",
};
static POD_INFO: Desc = Desc {
    name: "kernel_pod_info",
    kind: Kind::Info,
    unit: Unit::None,
    help: "Identity of a pod, for joins: of several pods of one name the newest. What only the API server knows is empty where that is not asked; workload_inferred says that the workload was read off a name.",
    scope: Scope::Node,
    labels: &[
        "namespace",
        "pod",
        "pod_uid",
        "pod_ip",
        "host_network",
        "qos",
        "service_account",
        "workload",
        "workload_type",
        "workload_inferred",
    ],
    bound: "pods",
    source: "cgroup_mkdir, a container's file, the API server",
};
static POD_LABELS: Desc = Desc {
    name: "kernel_pod_labels_info",
    kind: Kind::Info,
    unit: Unit::None,
    help: "Labels of a pod that kubernetes.pod_labels asks for, each as label_ and its name with _ for what no label's name may hold.",
    scope: Scope::Node,
    labels: &["namespace", "pod", "pod_uid", "label_*"],
    bound: "pods",
    source: "the API server",
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
    let described = |details: &Details| directory.description(&details.pod_uid);
    let info = |labels: Vec<Labels>| labels.into_iter().map(|labels| Series::number(labels, 1.0)).collect();
    let of_containers =
        containers.into_iter().map(|(names, details)| container_labels(names, details, described(details)));
    let of_pods = pods.iter().map(|(names, details)| pod_labels(names, details, described(details)));
    families.push(one(&CONTAINER_INFO, info(of_containers.collect())));
    families.push(one(&POD_INFO, info(of_pods.collect())));
    let with_labels = pods.iter().filter_map(|(names, details)| {
        let pod = described(details).filter(|pod| !pod.labels.is_empty())?;
        Some(asked_labels(names, details, &pod.labels))
    });
    families.push(one(&POD_LABELS, info(with_labels.collect())));
    families
}

type Described<'a> = Option<&'a Arc<Pod>>;

/// A text of a description; empty where there is none.
fn text(of: Described<'_>, field: impl Fn(&Pod) -> &str) -> String {
    of.map_or_else(String::new, |pod| field(pod).to_owned())
}

fn container_labels(names: &Names, details: &Details, described: Described<'_>) -> Labels {
    let Details { pod_uid, container_id, image, qos, runtime: _ } = details;
    let digest = |pod: &Pod| {
        let container = pod.containers.iter().find(|container| *container.name == *names.container);
        let digest = container.and_then(|container| container.image_digest);
        digest.map_or_else(String::new, |digest| format!("sha256:{digest}"))
    };
    Labels::new(vec![
        Label::new("namespace", names.namespace.to_string()),
        Label::new("pod", names.pod.to_string()),
        Label::new("container", names.container.to_string()),
        Label::new("container_id", container_id.clone()),
        Label::new("pod_uid", pod_uid.clone()),
        Label::new("image", image.clone()),
        Label::new("image_digest", described.map_or_else(String::new, |pod| digest(pod))),
        Label::new("qos", *qos),
        Label::new("workload", text(described, |pod| &pod.workload.name)),
        Label::new("workload_type", text(described, |pod| &pod.workload.kind)),
    ])
}

fn pod_labels(names: &Names, details: &Details, described: Described<'_>) -> Labels {
    let flag = |is: fn(&Pod) -> bool| described.map_or("", |pod| if is(pod) { "true" } else { "false" });
    Labels::new(vec![
        Label::new("namespace", names.namespace.to_string()),
        Label::new("pod", names.pod.to_string()),
        Label::new("pod_uid", details.pod_uid.clone()),
        Label::new("pod_ip", text(described, |pod| &pod.ip)),
        Label::new("host_network", flag(|pod| pod.host_network)),
        Label::new("qos", details.qos),
        Label::new("service_account", text(described, |pod| &pod.service_account)),
        Label::new("workload", text(described, |pod| &pod.workload.name)),
        Label::new("workload_type", text(described, |pod| &pod.workload.kind)),
        Label::new("workload_inferred", flag(|pod| pod.workload.is_inferred)),
    ])
}

/// Two labels whose names become one keep the first's value.
fn asked_labels(names: &Names, details: &Details, asked: &[(Arc<str>, Arc<str>)]) -> Labels {
    let mut labels = vec![
        Label::new("namespace", names.namespace.to_string()),
        Label::new("pod", names.pod.to_string()),
        Label::new("pod_uid", details.pod_uid.clone()),
    ];
    for (name, value) in asked {
        let name: String = name.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '_' }).collect();
        let name = format!("label_{name}");
        if !labels.iter().any(|label| *label.name == *name) {
            labels.push(Label::new(name, value.to_string()));
        }
    }
    Labels::new(labels)
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
            directory.name(owner, &bundle, now).unwrap();
        }
        let uid = "8a1b2c3d-0000-4000-8000-000000000001";
        let described = Pod {
            namespace: "shop".into(),
            name: "web".into(),
            labels: vec![
                ("app.kubernetes.io/name".into(), "shop".into()),
                ("app-kubernetes-io/name".into(), "x".into()),
            ],
            ..Pod::default()
        };
        directory.describe(Arc::new([(uid.into(), Arc::new(described))].into()), now);
        let families = families(&directory, &Namer::new(""));
        let told: Vec<_> = families.iter().map(|family| family.desc.name).collect();
        let declared: Vec<_> = METRICS.iter().map(|desc| desc.name).collect();
        assert_eq!(told, declared);
        for family in families {
            assert!(!family.series.is_empty(), "{}", family.desc.name);
            for series in &family.series {
                let is_asked = |name: &str| name == "label_app_kubernetes_io_name";
                let names = series.labels.iter().map(|label| label.name.as_ref());
                let mut names: Vec<_> =
                    names.map(|name| if is_asked(name) { "label_*" } else { name }).collect();
                let mut declared = family.desc.labels.to_vec();
                names.sort_unstable();
                declared.sort_unstable();
                assert_eq!(names, declared, "{}", family.desc.name);
            }
        }
    }
}
