//! A pod as it comes from the server, and what is kept of it.
//!
//! Managed fields, most annotations and the greater part of the specification never become objects: a whole `Pod` takes
//! a hundred times the memory. Whoever may write a pod may write anything into its texts, so each is bounded.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;

use kube::Resource;
use kube::core::ObjectMeta;
use serde::Deserialize;
use telemetry_model::{Pod, PodContainer, Workload};

use crate::workload;

/// Where the server says that a streamed list ends.
const LIST_END: &str = "k8s.io/initial-events-end";
/// What a mirror pod says of the file that its pod was made of: what its cgroup is called by.
const CONFIG_HASH: &str = "kubernetes.io/config.hash";
/// Bytes of a text that are kept.
const TEXT_MAX: usize = 512;
/// Containers of a pod that are kept; the API server accepts more than any kubelet starts.
const CONTAINERS_MAX: usize = 256;
/// Digits of a container's id.
const ID_DIGITS: usize = 64;

/// A pod between the wire and what is kept.
#[derive(Clone, Debug, Deserialize)]
#[serde(from = "Raw")]
pub struct PodObject {
    meta: ObjectMeta,
    pod: Pod,
    labels: BTreeMap<String, String>,
}

#[derive(Deserialize)]
#[serde(default)]
#[derive(Default)]
struct Raw {
    metadata: RawMeta,
    spec: RawSpec,
    status: RawStatus,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct RawMeta {
    name: Option<String>,
    namespace: Option<String>,
    uid: Option<String>,
    resource_version: Option<String>,
    annotations: Option<BTreeMap<String, String>>,
    labels: Option<BTreeMap<String, String>>,
    owner_references: Option<Vec<RawOwner>>,
}

/// What made an object.
#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct RawOwner {
    pub(crate) kind: String,
    pub(crate) name: String,
    pub(crate) controller: Option<bool>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct RawSpec {
    host_network: Option<bool>,
    service_account_name: Option<String>,
    containers: Option<Vec<RawContainer>>,
    init_containers: Option<Vec<RawContainer>>,
    ephemeral_containers: Option<Vec<RawContainer>>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct RawContainer {
    name: String,
    image: Option<String>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct RawStatus {
    #[serde(rename = "podIP")]
    pod_ip: Option<String>,
    container_statuses: Option<Vec<RawContainerStatus>>,
    init_container_statuses: Option<Vec<RawContainerStatus>>,
    ephemeral_container_statuses: Option<Vec<RawContainerStatus>>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct RawContainerStatus {
    name: String,
    #[serde(rename = "containerID")]
    container_id: Option<String>,
    #[serde(rename = "imageID")]
    image_id: Option<String>,
}

/// A text that is kept, cut at a character where it is too long.
pub(crate) fn text(value: &str) -> Arc<str> {
    let mut end = value.len().min(TEXT_MAX);
    while !value.is_char_boundary(end) {
        end -= 1;
    }
    value.get(..end).unwrap_or_default().into()
}

// === impl PodObject ===

impl PodObject {
    /// What is kept, with the labels that were asked for.
    pub(crate) fn into_pod(self, labels: &[String]) -> Pod {
        let wanted = labels.iter().filter_map(|name| {
            let value = self.labels.get(name)?;
            Some((text(name), text(value)))
        });
        let labels = wanted.collect();
        Pod { labels, ..self.pod }
    }

    /// The UID that its cgroup is called by.
    pub(crate) fn cgroup_uid(&self) -> &Arc<str> {
        &self.pod.cgroup_uid
    }
}

impl From<Raw> for PodObject {
    fn from(raw: Raw) -> Self {
        let Raw { metadata, spec, status } = raw;
        let RawMeta { name, namespace, uid, resource_version, annotations, labels, owner_references } =
            metadata;
        let (annotations, labels) = (annotations.unwrap_or_default(), labels.unwrap_or_default());
        let some = |value: &Option<String>| text(value.as_deref().unwrap_or_default());
        let hash = annotations.get(CONFIG_HASH).map(|hash| text(hash));
        let owners = owner_references.unwrap_or_default();
        let pod_name = some(&name);
        let workload: Workload = if hash.is_some() {
            workload::of_static(&pod_name)
        } else {
            workload::of(&pod_name, &owners, &labels)
        };
        let uid_text = some(&uid);
        let pod = Pod {
            cgroup_uid: hash.unwrap_or_else(|| Arc::clone(&uid_text)),
            uid: uid_text,
            namespace: some(&namespace),
            name: pod_name,
            workload,
            ip: some(&status.pod_ip),
            host_network: spec.host_network.unwrap_or(false),
            service_account: some(&spec.service_account_name),
            labels: Vec::new(),
            containers: containers(spec, status),
        };
        let end = annotations.into_iter().filter(|(name, _)| name == LIST_END).collect::<BTreeMap<_, _>>();
        let meta = ObjectMeta {
            name,
            namespace,
            uid,
            resource_version,
            annotations: (!end.is_empty()).then_some(end),
            ..ObjectMeta::default()
        };
        Self { meta, pod, labels }
    }
}

fn containers(spec: RawSpec, status: RawStatus) -> Vec<PodContainer> {
    let lists = [spec.init_containers, spec.containers, spec.ephemeral_containers];
    let states: Vec<RawContainerStatus> =
        [status.init_container_statuses, status.container_statuses, status.ephemeral_container_statuses]
            .into_iter()
            .flatten()
            .flatten()
            .collect();
    let all = lists.into_iter().flatten().flatten().take(CONTAINERS_MAX);
    all.map(|container| {
        let state = states.iter().find(|state| state.name == container.name);
        PodContainer {
            name: text(&container.name),
            id: text(state.and_then(|state| state.container_id.as_deref()).map_or("", id_of)),
            image: text(container.image.as_deref().unwrap_or_default()),
            image_digest: text(state.and_then(|state| state.image_id.as_deref()).map_or("", digest_of)),
        }
    })
    .collect()
}

/// The digits of `containerd://0123…`; nothing of anything else.
fn id_of(id: &str) -> &str {
    let digits = id.rsplit_once("://").map_or("", |(_, digits)| digits);
    let is_id = digits.len() == ID_DIGITS && digits.bytes().all(|byte| byte.is_ascii_hexdigit());
    if is_id { digits } else { "" }
}

/// The digest of `docker.io/library/nginx@sha256:0123…`, or of a bare one.
fn digest_of(id: &str) -> &str {
    let from = id.rfind("sha256:");
    from.and_then(|from| id.get(from..)).unwrap_or_default()
}

impl Resource for PodObject {
    type DynamicType = ();
    type Scope = k8s_openapi::NamespaceResourceScope;

    fn kind(_: &()) -> Cow<'_, str> {
        "Pod".into()
    }

    fn group(_: &()) -> Cow<'_, str> {
        "".into()
    }

    fn version(_: &()) -> Cow<'_, str> {
        "v1".into()
    }

    fn plural(_: &()) -> Cow<'_, str> {
        "pods".into()
    }

    fn meta(&self) -> &ObjectMeta {
        &self.meta
    }

    fn meta_mut(&mut self) -> &mut ObjectMeta {
        &mut self.meta
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::{Value, json};

    const ID: &str = "22ebc6fd6681fe43a65f392647adf215c94c4e263bbbd7cbd4cce0980022bfb7";

    fn pod(value: Value, labels: &[&str]) -> Pod {
        let labels: Vec<String> = labels.iter().map(|name| (*name).to_owned()).collect();
        serde_json::from_value::<PodObject>(value).unwrap().into_pod(&labels)
    }

    fn whole() -> Value {
        json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": {
                "name": "web-7c9d8f-x2x", "namespace": "shop", "uid": "u-1", "resourceVersion": "7",
                "labels": {"app": "web", "pod-template-hash": "7c9d8f", "other": "x"},
                "annotations": {"note": "dropped"},
                "managedFields": [{"manager": "kubectl"}],
                "ownerReferences": [{"kind": "ReplicaSet", "name": "web-7c9d8f", "controller": true}],
            },
            "spec": {
                "nodeName": "n1", "hostNetwork": true, "serviceAccountName": "web",
                "initContainers": [{"name": "init", "image": "busybox:1"}],
                "containers": [{"name": "php", "image": "php:8", "env": [{"name": "A", "value": "b"}]}],
            },
            "status": {
                "podIP": "10.0.0.7",
                "initContainerStatuses": [{"name": "init", "containerID": format!("containerd://{ID}")}],
                "containerStatuses": [
                    {"name": "php", "containerID": "", "imageID": "docker.io/library/php@sha256:ab12"},
                ],
            },
        })
    }

    #[test]
    fn what_is_wanted_of_a_pod_is_kept_and_the_rest_is_not() {
        let pod = pod(whole(), &["app", "absent"]);
        assert_eq!(
            (&*pod.cgroup_uid, &*pod.uid, &*pod.namespace, &*pod.name),
            ("u-1", "u-1", "shop", "web-7c9d8f-x2x")
        );
        assert_eq!((&*pod.ip, pod.host_network, &*pod.service_account), ("10.0.0.7", true, "web"));
        assert_eq!(pod.labels, [("app".into(), "web".into())]);
        assert_eq!((&*pod.workload.kind, &*pod.workload.name), ("deployment", "web"));
        let containers: Vec<_> =
            pod.containers.iter().map(|c| (&*c.name, &*c.id, &*c.image, &*c.image_digest)).collect();
        assert_eq!(containers, [("init", ID, "busybox:1", ""), ("php", "", "php:8", "sha256:ab12")]);
    }

    #[test]
    fn a_mirror_pod_is_called_by_the_hash_of_its_file() {
        let mut value = whole();
        value["metadata"]["annotations"] = json!({"kubernetes.io/config.hash": "abc"});
        value["metadata"]["ownerReferences"] = json!([{"kind": "Node", "name": "n1", "controller": true}]);
        let pod = pod(value, &[]);
        assert_eq!((&*pod.cgroup_uid, &*pod.uid), ("abc", "u-1"));
        assert_eq!((&*pod.workload.kind, &*pod.workload.name), ("staticpod", "web-7c9d8f-x2x"));
    }

    #[test]
    fn the_end_of_a_list_and_the_version_stay_for_the_watch() {
        let object: PodObject = serde_json::from_value(json!({
            "metadata": {"resourceVersion": "9", "annotations": {LIST_END: "true", "a": "b"}},
        }))
        .unwrap();
        assert_eq!(object.meta().resource_version.as_deref(), Some("9"));
        assert_eq!(object.meta().annotations.as_ref().map(BTreeMap::len), Some(1));
    }

    #[test]
    fn nulls_and_absent_parts_are_empty() {
        let value = json!({
            "metadata": {"name": null, "labels": null, "ownerReferences": null},
            "spec": {"containers": null}, "status": {"containerStatuses": null},
        });
        assert_eq!(pod(value, &["a"]).containers, []);
    }

    proptest! {
        #[test]
        fn texts_are_bounded_and_ids_are_ids(name in ".{0,2000}", id in ".{0,80}") {
            let mut value = whole();
            value["metadata"]["name"] = json!(name);
            value["status"]["containerStatuses"][0]["containerID"] = json!(id);
            let pod = pod(value, &[]);
            prop_assert!(pod.name.len() <= TEXT_MAX && name.starts_with(&*pod.name));
            prop_assert!(pod.containers.iter().all(|c| c.id.is_empty() || c.id.len() == ID_DIGITS));
        }
    }
}
