//! A pod as it comes from the server, and what is kept of it.
//!
//! Managed fields, most annotations and the greater part of the specification never become objects: a whole `Pod` takes
//! a hundred times the memory. Whoever may write a pod may write anything into its texts, so each is bounded.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use kube::Resource;
use kube::core::ObjectMeta;
use serde::Deserialize;
use telemetry_model::{Digest, Pod, PodContainer, Workload};

use crate::workload;

/// Where the server says that a streamed list ends.
const LIST_END: &str = "k8s.io/initial-events-end";
/// What a mirror pod says of the file that its pod was made of: what its cgroup is called by.
const CONFIG_HASH: &str = "kubernetes.io/config.hash";
/// Bytes of a text that are kept.
const TEXT_MAX: usize = 512;
/// Shared texts, before those that nobody has any more are let go.
const TEXTS_MAX: usize = 4096;
/// Containers of a pod that are kept; the API server accepts more than any kubelet starts.
const CONTAINERS_MAX: usize = 256;

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

/// Texts that many pods have: each is held once.
#[derive(Debug, Default)]
pub(crate) struct Texts(BTreeSet<Arc<str>>);

// === impl Texts ===

impl Texts {
    fn shared(&mut self, text: Arc<str>) -> Arc<str> {
        if let Some(known) = self.0.get(&text) {
            return Arc::clone(known);
        }
        if self.0.len() >= TEXTS_MAX {
            self.0.retain(|known| Arc::strong_count(known) > 1);
        }
        self.0.insert(Arc::clone(&text));
        text
    }
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
    /// What is kept, with the labels that were asked for. Texts that others have too are held once.
    pub(crate) fn into_pod(self, labels: &[String], texts: &mut Texts) -> Pod {
        let Self { meta: _, mut pod, labels: all } = self;
        let wanted = labels.iter().filter_map(|name| {
            let value = all.get(name)?;
            Some((texts.shared(text(name)), texts.shared(text(value))))
        });
        pod.labels = wanted.collect();
        for shared in
            [&mut pod.namespace, &mut pod.service_account, &mut pod.workload.kind, &mut pod.workload.name]
        {
            *shared = texts.shared(Arc::clone(shared));
        }
        for container in &mut pod.containers {
            container.name = texts.shared(Arc::clone(&container.name));
            container.image = texts.shared(Arc::clone(&container.image));
        }
        pod
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
            id: state.and_then(|state| state.container_id.as_deref()).and_then(id_of),
            image: text(container.image.as_deref().unwrap_or_default()),
            image_digest: state.and_then(|state| state.image_id.as_deref()).and_then(digest_of),
        }
    })
    .collect()
}

/// Of `containerd://0123…`; nothing of anything else.
fn id_of(id: &str) -> Option<Digest> {
    Digest::of_hex(id.rsplit_once("://")?.1)
}

/// Of `docker.io/library/nginx@sha256:0123…`, or of a bare one.
fn digest_of(id: &str) -> Option<Digest> {
    Digest::of_hex(id.rsplit_once("sha256:")?.1)
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
        serde_json::from_value::<PodObject>(value).unwrap().into_pod(&labels, &mut Texts::default())
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
                    {"name": "php", "containerID": "", "imageID": format!("docker.io/library/php@sha256:{ID}")},
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
            pod.containers.iter().map(|c| (&*c.name, c.id, &*c.image, c.image_digest)).collect();
        let id = Digest::of_hex(ID);
        assert!(id.is_some());
        assert_eq!(containers, [("init", id, "busybox:1", None), ("php", None, "php:8", id)]);
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
            prop_assert_eq!(pod.containers[1].id, id.rsplit_once("://").and_then(|(_, id)| Digest::of_hex(id)));
        }
    }
}
