//! Names that others choose: cgroup paths, which anybody with a delegated subtree makes, and runtimes' files.

use telemetry_agent::attribute::bundle::{self, Format};
use telemetry_agent::attribute::path::{self, Role};
use telemetry_agent::attribute::{Names, Owner};

const POD: &str = "8a1b2c3d-0000-4000-8000-000000000001";
const CONTAINER: &str = "7ecc1a18b468f31c7d43c7ff6b7278044ab338e0f09a8f2703f562115b3877c3";

/// Any path: one owner, and ids only as Kubernetes and the runtimes write them.
pub fn cgroup_path(bytes: &[u8]) {
    let owner = Owner::of_path(bytes);
    let labels = owner.labels();
    for name in ["namespace", "pod", "container"] {
        assert_eq!(labels.get(name), Some(""), "a path names nobody");
    }
    assert!(labels.iter().all(|label| !label.value.chars().any(char::is_control)), "labels are printable");
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let parsed = path::parse(text);
    let is_hex = |text: &str| text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    assert!(parsed.container_id.is_empty() || parsed.container_id.len() == 64 && is_hex(parsed.container_id));
    let uid = parsed.pod_uid.replace(['-', '_'], "");
    assert!(uid.is_empty() || uid.len() == 32 && is_hex(&uid));
    let has_ids = !(parsed.pod_uid.is_empty() && parsed.container_id.is_empty());
    assert_eq!(parsed.role == Role::Node, !has_ids);
    assert_eq!(matches!(parsed.role, Role::Container | Role::Nested), !parsed.container_id.is_empty());
    if has_ids {
        // Whatever a container makes below its own cgroup is the container's.
        let below = format!("{}/kubepods/pod{POD}/{CONTAINER}", text.trim_end_matches('/'));
        if !parsed.container_id.is_empty() && !parsed.pod_uid.is_empty() {
            assert_eq!(Owner::of_path(below.as_bytes()), Owner::of_path(text.as_bytes()), "{below}");
        }
    }
}

/// Paths of the layouts there are.
pub fn cgroup_paths() -> Vec<Vec<u8>> {
    let slice = POD.replace('-', "_");
    let paths = [
        format!("/kubepods/burstable/pod{POD}/{CONTAINER}"),
        format!("/kubepods/pod{POD}/crio-{CONTAINER}"),
        format!("/kubepods/besteffort/pod7260904bbd08e72e4dff95d9fccd2ee8/{CONTAINER}/init.scope"),
        format!(
            "/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod{slice}.slice/cri-containerd-{CONTAINER}.scope"
        ),
        format!("/kubepods.slice/kubepods-pod{slice}.slice/crio-conmon-{CONTAINER}.scope"),
        format!(
            "/system.slice/containerd.service/kubepods-burstable-pod{slice}.slice:cri-containerd:{CONTAINER}"
        ),
        format!(
            "/system.slice/docker-{CONTAINER}.scope/kubelet.slice/kubelet-kubepods.slice/kubelet-kubepods-pod{slice}.slice"
        ),
        format!("/../../pod{POD}/{CONTAINER}/docker/{CONTAINER}"),
        "/user.slice/user-1000.slice/user@1000.service/app.slice".to_owned(),
    ];
    paths.into_iter().map(String::into_bytes).collect()
}

/// Any file of a runtime: refused, or names as the API server takes them.
pub fn container_file(bytes: &[u8]) {
    for format in [Format::Oci, Format::Docker] {
        let Ok(found) = bundle::parse(bytes, format) else { continue };
        let Names { namespace, pod, container } = &found.names;
        let is_name =
            |text: &str| text.bytes().all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.'));
        assert!(is_name(namespace) && is_name(pod) && is_name(container));
        assert!(!namespace.is_empty() && !pod.is_empty() && pod.len() <= 253);
        assert!(found.image.bytes().all(|byte| byte.is_ascii_graphic()));
    }
}

/// One file of each runtime.
pub fn container_files() -> Vec<Vec<u8>> {
    let containerd = format!(
        r#"{{"ociVersion":"1.0.2","process":{{"args":["a"]}},"annotations":{{"io.kubernetes.cri.container-name":"main","io.kubernetes.cri.container-type":"container","io.kubernetes.cri.image-name":"localhost/test:1","io.kubernetes.cri.sandbox-id":"{CONTAINER}","io.kubernetes.cri.sandbox-name":"web","io.kubernetes.cri.sandbox-namespace":"shop","io.kubernetes.cri.sandbox-uid":"{POD}"}}}}"#
    );
    let crio = format!(
        r#"{{"annotations":{{"io.kubernetes.container.name":"main","io.kubernetes.cri-o.ContainerType":"container","io.kubernetes.cri-o.ImageName":"a/b:1","io.kubernetes.pod.name":"web","io.kubernetes.pod.namespace":"shop","io.kubernetes.pod.uid":"{POD}"}}}}"#
    );
    let docker = format!(
        r#"{{"ID":"x","Config":{{"Image":"sha256:abc","Labels":{{"io.kubernetes.container.name":"main","io.kubernetes.docker.type":"container","io.kubernetes.pod.name":"web","io.kubernetes.pod.namespace":"shop","io.kubernetes.pod.uid":"{POD}"}}}}}}"#
    );
    [containerd, crio, docker].into_iter().map(String::into_bytes).collect()
}
