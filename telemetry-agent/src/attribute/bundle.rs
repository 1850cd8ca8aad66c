//! What a container runtime writes about a container before it makes the container's cgroup: the pod it belongs to, its
//! own name and its image.
//!
//! Pure: where the file may be, and what its bytes say. Each runtime's file is the one that it starts the container
//! from, so that it is there before the cgroup is, and nobody needs to be asked. Names are taken only as Kubernetes
//! writes them: a file that says anything else names nobody. [`super::names`] does the reading.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::Names;

/// Bytes of a file that are read at most. Real ones have three to ten thousand.
pub const BYTES_MAX: u64 = 1 << 20;

/// Longest name of a namespace or a container: a DNS label.
const LABEL_BYTES_MAX: usize = 63;
/// Longest name of a pod: a DNS subdomain.
const POD_BYTES_MAX: usize = 253;
/// Longest name of an image; longer ones are left out, as they name nobody.
const IMAGE_BYTES_MAX: usize = 512;

/// One place where a runtime keeps what it knows of a container.
struct Layout {
    /// The runtime, as [`super::path::Parsed::runtime`] calls it.
    runtime: &'static str,
    /// Below the host's root, up to the container's id.
    folder: &'static str,
    /// Below the folder called by the container's id.
    file: &'static str,
    format: Format,
}

/// What a file looks like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// An OCI bundle's `config.json`: names are annotations.
    Oci,
    /// dockerd's `config.v2.json`: names are labels.
    Docker,
}

/// A file that may hold a container's names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// Where it is.
    pub file: PathBuf,
    /// How it is to be read.
    pub format: Format,
}

/// What a file says of a container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bundle {
    /// Pod and container. The container's name is empty for the sandbox, which is the pod's own.
    pub names: Names,
    /// The pod's UID; empty where the runtime's version does not write it.
    pub pod_uid: String,
    /// The image as the pod asked for it; empty where it is not told.
    pub image: String,
}

/// Why a file names nobody.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// It is not what its name promises: half written, damaged, or no JSON.
    Malformed,
    /// It is whole and tells of no pod: a container that nobody's kubelet started.
    NoPod,
}

/// The places of every runtime that is known. Containers of one id are in one of them at most.
const LAYOUTS: [Layout; 6] = [
    Layout::containerd("run/containerd/io.containerd.runtime.v2.task/k8s.io"),
    // k3s and RKE2.
    Layout::containerd("run/k3s/containerd/io.containerd.runtime.v2.task/k8s.io"),
    Layout::containerd("run/k0s/containerd/io.containerd.runtime.v2.task/k8s.io"),
    Layout::containerd("var/snap/microk8s/common/run/containerd/io.containerd.runtime.v2.task/k8s.io"),
    Layout {
        runtime: "crio",
        folder: "run/containers/storage/overlay-containers",
        file: "userdata/config.json",
        format: Format::Oci,
    },
    Layout {
        runtime: "docker",
        folder: "var/lib/docker/containers",
        file: "config.v2.json",
        format: Format::Docker,
    },
];

/// An OCI bundle, as far as it is looked at.
#[derive(Deserialize)]
struct OciFile {
    #[serde(default)]
    annotations: HashMap<String, String>,
}

/// dockerd's file, as far as it is looked at.
#[derive(Deserialize)]
struct DockerFile {
    #[serde(rename = "Config")]
    config: DockerConfig,
}

#[derive(Deserialize)]
struct DockerConfig {
    #[serde(rename = "Image", default)]
    image: String,
    #[serde(rename = "Labels", default)]
    labels: Option<HashMap<String, String>>,
}

// === impl Bundle ===

impl Bundle {
    /// Whether its names are names, as Kubernetes writes them. A pod's own container has none.
    #[must_use]
    pub fn is_plausible(&self) -> bool {
        let Names { namespace, pod, container } = &self.names;
        let is_container = container.is_empty() || is_name(container, LABEL_BYTES_MAX);
        is_name(namespace, LABEL_BYTES_MAX) && is_name(pod, POD_BYTES_MAX) && is_container
    }
}

// === impl Layout ===

impl Layout {
    const fn containerd(folder: &'static str) -> Self {
        Self { runtime: "containerd", folder, file: "config.json", format: Format::Oci }
    }
}

/// Where a container's names may be, the likeliest first. `runtime` is what the cgroup's path says of it, or empty.
pub fn candidates<'a>(
    host_root: &'a Path,
    runtime: &'a str,
    container_id: &'a str,
) -> impl Iterator<Item = Candidate> + 'a {
    let told = LAYOUTS.iter().filter(move |layout| layout.runtime == runtime);
    let others = LAYOUTS.iter().filter(move |layout| layout.runtime != runtime);
    told.chain(others).map(move |layout| Candidate {
        file: host_root.join(layout.folder).join(container_id).join(layout.file),
        format: layout.format,
    })
}

/// Reads a file's bytes.
///
/// # Errors
/// If they name nobody.
pub fn parse(bytes: &[u8], format: Format) -> Result<Bundle, Refusal> {
    match format {
        Format::Oci => {
            let OciFile { annotations } = serde_json::from_slice(bytes).map_err(|_| Refusal::Malformed)?;
            of_containerd(&annotations).or_else(|| of_crio(&annotations)).ok_or(Refusal::NoPod)
        }
        Format::Docker => {
            let DockerFile { config } = serde_json::from_slice(bytes).map_err(|_| Refusal::Malformed)?;
            of_docker(&config).ok_or(Refusal::NoPod)
        }
    }
}

fn of_containerd(annotations: &HashMap<String, String>) -> Option<Bundle> {
    let text = |key: &str| annotations.get(&format!("io.kubernetes.cri.{key}")).map_or("", String::as_str);
    let container = match text("container-type") {
        "sandbox" => "",
        "container" => container_name(text("container-name"))?,
        _ => return None,
    };
    Some(Bundle {
        names: names(text("sandbox-namespace"), text("sandbox-name"), container)?,
        pod_uid: text("sandbox-uid").to_owned(),
        image: image(text("image-name")),
    })
}

fn of_crio(annotations: &HashMap<String, String>) -> Option<Bundle> {
    let text = |key: &str| annotations.get(&format!("io.kubernetes.{key}")).map_or("", String::as_str);
    let container = match text("cri-o.ContainerType") {
        "sandbox" => "",
        "container" => container_name(text("container.name"))?,
        _ => return None,
    };
    Some(Bundle {
        names: names(text("pod.namespace"), text("pod.name"), container)?,
        pod_uid: text("pod.uid").to_owned(),
        image: image(text("cri-o.ImageName")),
    })
}

fn of_docker(config: &DockerConfig) -> Option<Bundle> {
    let labels = config.labels.as_ref()?;
    let text = |key: &str| labels.get(&format!("io.kubernetes.{key}")).map_or("", String::as_str);
    let container = match text("docker.type") {
        "podsandbox" => "",
        "container" => container_name(text("container.name"))?,
        _ => return None,
    };
    Some(Bundle {
        names: names(text("pod.namespace"), text("pod.name"), container)?,
        pod_uid: text("pod.uid").to_owned(),
        image: image(&config.image),
    })
}

fn names(namespace: &str, pod: &str, container: &str) -> Option<Names> {
    let is_whole = is_name(namespace, LABEL_BYTES_MAX) && is_name(pod, POD_BYTES_MAX);
    is_whole.then(|| Names { namespace: namespace.into(), pod: pod.into(), container: container.into() })
}

fn container_name(text: &str) -> Option<&str> {
    is_name(text, LABEL_BYTES_MAX).then_some(text)
}

/// What the API server takes for a name: small letters, digits, `-` and, in a pod's, `.`.
fn is_name(text: &str, bytes_max: usize) -> bool {
    let allowed = |byte: u8| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.');
    !text.is_empty() && text.len() <= bytes_max && text.bytes().all(allowed)
}

/// An image's name as it is, or nothing where it could not be one.
fn image(text: &str) -> String {
    let is_printable = text.bytes().all(|byte| byte.is_ascii_graphic());
    if is_printable && text.len() <= IMAGE_BYTES_MAX { text.to_owned() } else { String::new() }
}

#[cfg(test)]
mod tests;
