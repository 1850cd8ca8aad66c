//! `/v1/owners`: everybody whose counts there are.

use std::collections::BTreeMap;

use axum::extract::Path;
use axum::extract::rejection::PathRejection;
use axum::response::Response;
use serde::Serialize;
use telemetry_model::{CgroupKey, Hierarchy, Labels, OwnerKind, Pod, RosterEntry};
use utoipa::ToSchema;

use super::ask::{Ask, cursor};
use super::problem::{Code, Problem};

/// The words of `kind`.
const KINDS: [&str; 6] = ["container", "pod", "unit", "kernel", "overflow", "unresolved"];

/// One page of owners, in the order of their ids.
#[derive(Serialize, ToSchema)]
struct OwnerPage {
    owners: Vec<OwnerDetail>,
    /// Where the next page begins; absent on the last.
    #[serde(skip_serializing_if = "Option::is_none")]
    next_cursor: Option<String>,
}

/// Somebody whose counts there are. What is not known is absent.
#[derive(Serialize, ToSchema)]
struct OwnerDetail {
    /// The same after a restart and on every node, for as long as the names are the same.
    #[schema(example = "container~shop~web-7c9~php")]
    id: String,
    #[schema(schema_with = kind_schema)]
    kind: &'static str,
    /// `living`: it has a cgroup. `ended`: it had, and its last counts are still shown.
    #[schema(schema_with = state_schema)]
    state: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    namespace: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pod: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    container: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    unit: Option<String>,
    identity: Identity,
    /// What made the pod, as the API server says.
    #[serde(skip_serializing_if = "Option::is_none")]
    workload: Option<WorkloadDetail>,
    /// The labels that this owner's series have: what to ask for in PromQL.
    series_labels: BTreeMap<String, String>,
    /// The pod's labels in Kubernetes, of those that `kubernetes.pod_labels` asks for.
    pod_labels: BTreeMap<String, String>,
    /// Its living cgroups, 16 at most.
    cgroups: Vec<CgroupDetail>,
    /// How many living cgroups it has.
    cgroup_count: usize,
}

/// By what else it is known.
#[derive(Serialize, ToSchema)]
struct Identity {
    #[serde(skip_serializing_if = "String::is_empty")]
    pod_uid: String,
    /// Of several containers of one name the newest.
    #[serde(skip_serializing_if = "String::is_empty")]
    container_id: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    image: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    image_digest: String,
    /// Kubernetes' word for how the pod's resources are guaranteed.
    #[serde(skip_serializing_if = "str::is_empty")]
    qos: &'static str,
    #[serde(skip_serializing_if = "str::is_empty")]
    runtime: &'static str,
    #[serde(skip_serializing_if = "String::is_empty")]
    service_account: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pod_ip: String,
    /// Whether the pod has the node's network.
    #[serde(skip_serializing_if = "Option::is_none")]
    host_network: Option<bool>,
}

/// What made a pod.
#[derive(Serialize, ToSchema)]
struct WorkloadDetail {
    /// `deployment`, `statefulset`, `daemonset`, `job`, `cronjob`, `staticpod`, `barepod`, or another controller's kind.
    kind: String,
    name: String,
    /// Whether it was read off a name, and not said by the API server.
    is_inferred: bool,
}

/// A cgroup.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub(super) struct CgroupDetail {
    /// `unified`, or the controller of a version 1 hierarchy.
    #[schema(schema_with = hierarchy_schema)]
    hierarchy: &'static str,
    /// The kernel's id, which is the inode number of its directory; as a string, since it may exceed 2^53.
    #[schema(example = "4711")]
    id: String,
}

/// Everybody whose counts there are.
#[utoipa::path(
    get,
    path = "/v1/owners",
    operation_id = "listOwners",
    params(
        ("namespace" = Option<String>, Query, description = "Only owners of this namespace.", max_length = 1024),
        ("pod" = Option<String>, Query, description = "Only owners of this pod.", max_length = 1024),
        ("kind" = Option<String>, Query, description = "Only these kinds, separated by commas.",
            pattern = "^(container|pod|unit|kernel|overflow|unresolved)(,(container|pod|unit|kernel|overflow|unresolved))*$",
            max_length = 1024),
        ("living" = Option<bool>, Query, description = "Only those that have a cgroup now, or only those that have none."),
        ("limit" = Option<u32>, Query, description = "Owners of a page; 100 by default.", minimum = 1, maximum = 1000),
        ("cursor" = Option<String>, Query, description = "`next_cursor` of the page before.",
            pattern = "^([0-9a-f]{2})+$", max_length = 2048),
    ),
    responses((status = 200, description = "A page.", body = OwnerPage)),
)]
pub(super) async fn list(ask: Ask) -> Result<Response, Problem> {
    let params = ask.params(&["namespace", "pod", "kind", "living", "limit", "cursor"])?;
    let (limit, position) = (params.limit()?, params.cursor()?);
    let (kinds, living) = (params.words("kind", &KINDS)?, params.flag("living")?);
    let is_called = |owner: &RosterEntry, name: &str| {
        params.text(name).is_none_or(|wanted| owner.labels.get(name) == Some(wanted))
    };
    let is_wanted = |owner: &RosterEntry| {
        is_called(owner, "namespace")
            && is_called(owner, "pod")
            && kinds.as_ref().is_none_or(|kinds| kinds.contains(&owner.kind.word()))
            && living.is_none_or(|living| owner.is_living == living)
    };
    let roster = ask.shared().latest.roster();
    let begin = roster.owners.partition_point(|owner| owner.id.as_bytes() <= position.as_slice());
    let mut wanted = roster.owners.iter().skip(begin).filter(|owner| is_wanted(owner));
    let owners: Vec<OwnerDetail> = wanted.by_ref().take(limit).map(detail).collect();
    let next_cursor = match (wanted.next(), owners.last()) {
        (Some(_), Some(last)) => Some(cursor(last.id.as_bytes())),
        _ => None,
    };
    let page = OwnerPage { owners, next_cursor };
    ask.reply_page("/v1/owners", &page, page.next_cursor.as_deref())
}

/// One owner.
#[utoipa::path(
    get,
    path = "/v1/owners/{id}",
    operation_id = "getOwner",
    params(("id" = String, Path, description = "Its id.", min_length = 1, max_length = 1024)),
    responses(
        (status = 200, description = "The owner.", body = OwnerDetail),
        (status = 404, description = "Nobody is called so now.", body = Problem, content_type = "application/problem+json"),
    ),
)]
pub(super) async fn one(id: Result<Path<String>, PathRejection>, ask: Ask) -> Result<Response, Problem> {
    ask.params(&[])?;
    let roster = ask.shared().latest.roster();
    let owner = id.ok().and_then(|Path(id)| roster.get(&id));
    let owner = owner.ok_or_else(|| Problem::new(Code::NotFound, "no owner is called so now"))?;
    ask.reply(&detail(owner))
}

fn detail(owner: &RosterEntry) -> OwnerDetail {
    let RosterEntry {
        id,
        kind,
        is_living,
        labels,
        pod_uid,
        container_id,
        image,
        qos,
        runtime,
        pod,
        cgroups,
        cgroup_count,
    } = owner;
    let name = |name: &str| labels.get(name).filter(|value| !value.is_empty()).map(str::to_owned);
    let container = name("container");
    let pod = pod.as_deref();
    OwnerDetail {
        id: id.clone(),
        kind: kind.word(),
        state: if *is_living { "living" } else { "ended" },
        namespace: name("namespace"),
        pod: name("pod"),
        unit: name("unit").filter(|_| *kind == OwnerKind::Unit),
        identity: Identity {
            pod_uid: pod_uid.clone(),
            container_id: container_id.clone(),
            image: image.clone(),
            image_digest: pod
                .map_or_else(String::new, |pod| digest(pod, container.as_deref().unwrap_or_default())),
            qos,
            runtime,
            service_account: pod.map_or_else(String::new, |pod| pod.service_account.to_string()),
            pod_ip: pod.map_or_else(String::new, |pod| pod.ip.to_string()),
            host_network: pod.map(|pod| pod.host_network),
        },
        container,
        workload: pod.map(|pod| WorkloadDetail {
            kind: pod.workload.kind.to_string(),
            name: pod.workload.name.to_string(),
            is_inferred: pod.workload.is_inferred,
        }),
        series_labels: pairs(labels),
        pod_labels: pod.map_or_else(BTreeMap::new, |pod| {
            pod.labels.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect()
        }),
        cgroups: cgroups.iter().map(|key| CgroupDetail::of(*key)).collect(),
        cgroup_count: *cgroup_count,
    }
}

fn digest(pod: &Pod, container: &str) -> String {
    let container = pod.containers.iter().find(|one| *one.name == *container);
    let digest = container.and_then(|container| container.image_digest);
    digest.map_or_else(String::new, |digest| format!("sha256:{digest}"))
}

/// Labels by their names.
pub(super) fn pairs(labels: &Labels) -> BTreeMap<String, String> {
    labels.iter().map(|label| (label.name.to_string(), label.value.to_string())).collect()
}

// === impl CgroupDetail ===

impl CgroupDetail {
    fn of(key: CgroupKey) -> Self {
        let hierarchy = match key.hierarchy {
            Hierarchy::Unified => "unified",
            Hierarchy::Cpu => "cpu",
            Hierarchy::Blkio => "blkio",
        };
        Self { hierarchy, id: key.id.to_string() }
    }
}

/// A word of a closed set.
pub(super) fn words(words: &[&str]) -> utoipa::openapi::schema::Object {
    use utoipa::openapi::schema::{ObjectBuilder, Type};
    ObjectBuilder::new().schema_type(Type::String).enum_values(Some(words.iter().copied())).build()
}

fn kind_schema() -> utoipa::openapi::schema::Object {
    words(&KINDS)
}

fn state_schema() -> utoipa::openapi::schema::Object {
    words(&["living", "ended"])
}

fn hierarchy_schema() -> utoipa::openapi::schema::Object {
    words(&["unified", "cpu", "blkio"])
}
