//! The runtime's side: the few calls of its interface that make, start, list and remove pods.

use std::path::Path;

use anyhow::{Context as _, Result};
use hyper_util::rt::TokioIo;
use k8s_cri::v1::runtime_service_client::RuntimeServiceClient;
use k8s_cri::v1::{
    ContainerState, ContainerStatusRequest, CreateContainerRequest, ListContainersRequest,
    ListPodSandboxRequest, RemovePodSandboxRequest, RunPodSandboxRequest, StartContainerRequest,
    StopPodSandboxRequest, VersionRequest,
};
use serde_json::{Value, json};
use tokio::net::UnixStream;
use tonic::transport::{Channel, Endpoint, Uri};

use crate::pod::Pod;

/// Where the cgroup hierarchies are.
const CGROUPS: &str = "/sys/fs/cgroup";
/// Levels down to a pod's cgroup: hierarchy, a nested node, kubepods, class.
const DEPTH_MAX: u32 = 5;
/// The label by which a pod is found again.
const UID: &str = "io.kubernetes.pod.uid";

/// A connection to a container runtime. A clone shares it.
#[derive(Clone)]
pub struct Runtime(RuntimeServiceClient<Channel>);

// === impl Runtime ===

impl Runtime {
    /// Over this socket.
    pub async fn connect(socket: &Path) -> Result<Self> {
        let socket = socket.to_owned();
        // The address is never looked at: the connector opens the socket.
        let channel = Endpoint::from_static("http://localhost")
            .connect_with_connector(tower::service_fn(move |_: Uri| {
                let socket = socket.clone();
                async move { Ok::<_, std::io::Error>(TokioIo::new(UnixStream::connect(socket).await?)) }
            }))
            .await?;
        Ok(Self(RuntimeServiceClient::new(channel)))
    }

    fn client(&self) -> RuntimeServiceClient<Channel> {
        self.0.clone()
    }

    pub async fn version(&self) -> Result<Value> {
        let answer = self.client().version(VersionRequest { version: "v1".to_owned() }).await?.into_inner();
        Ok(json!({"runtime": answer.runtime_name, "version": answer.runtime_version}))
    }

    /// Makes a pod's sandbox and tells its id.
    pub async fn run_pod(&self, pod: &Pod) -> Result<String> {
        let request = RunPodSandboxRequest { config: Some(pod.sandbox()), runtime_handler: String::new() };
        let answer = self.client().run_pod_sandbox(request).await;
        let answer = answer.with_context(|| format!("make the sandbox of pod {}", pod.name))?;
        Ok(answer.into_inner().pod_sandbox_id)
    }

    /// Makes a container, without a cgroup yet, and tells its id.
    pub async fn create(&self, pod: &Pod, sandbox: &str, name: &str, command: &[String]) -> Result<String> {
        let request = CreateContainerRequest {
            pod_sandbox_id: sandbox.to_owned(),
            config: Some(pod.container(name, command)),
            sandbox_config: Some(pod.sandbox()),
        };
        let answer = self.client().create_container(request).await;
        let answer = answer.with_context(|| format!("make container {name} of pod {}", pod.name))?;
        Ok(answer.into_inner().container_id)
    }

    pub async fn start(&self, container: &str) -> Result<()> {
        let request = StartContainerRequest { container_id: container.to_owned() };
        self.client().start_container(request).await.with_context(|| format!("start {container}"))?;
        Ok(())
    }

    pub async fn has_ended(&self, container: &str) -> Result<bool> {
        let request = ContainerStatusRequest { container_id: container.to_owned(), verbose: false };
        let status = self.client().container_status(request).await?.into_inner().status;
        let status = status.with_context(|| format!("no status of {container}"))?;
        Ok(status.state == i32::from(ContainerState::ContainerExited))
    }

    pub async fn list(&self) -> Result<Vec<Value>> {
        let answer = self.client().list_containers(ListContainersRequest { filter: None }).await?;
        let containers = answer.into_inner().containers.into_iter();
        let line = |container: k8s_cri::v1::Container| {
            json!({
                "container": container.id,
                "sandbox": container.pod_sandbox_id,
                "state": container.state,
                "labels": container.labels,
            })
        };
        Ok(containers.map(line).collect())
    }

    /// Stops and removes the pod of this UID, or all, and the cgroups that hold them, which a runtime leaves to kubelet.
    pub async fn remove(&self, uid: Option<&str>) -> Result<()> {
        let answer = self.client().list_pod_sandbox(ListPodSandboxRequest { filter: None }).await?;
        let is_wanted = |sandbox: &k8s_cri::v1::PodSandbox| {
            uid.is_none_or(|uid| sandbox.labels.get(UID).is_some_and(|value| value == uid))
        };
        for sandbox in answer.into_inner().items.into_iter().filter(is_wanted) {
            let pod_sandbox_id = sandbox.id;
            let uid = sandbox.labels.get(UID).cloned().unwrap_or_default();
            let stop = StopPodSandboxRequest { pod_sandbox_id: pod_sandbox_id.clone() };
            self.client().stop_pod_sandbox(stop).await.with_context(|| format!("stop {pod_sandbox_id}"))?;
            let remove = RemovePodSandboxRequest { pod_sandbox_id: pod_sandbox_id.clone() };
            self.client()
                .remove_pod_sandbox(remove)
                .await
                .with_context(|| format!("remove {pod_sandbox_id}"))?;
            let names = [format!("pod{uid}"), format!("-pod{}.slice", uid.replace('-', "_"))];
            remove_cgroups(Path::new(CGROUPS), &names, DEPTH_MAX);
        }
        Ok(())
    }
}

/// Removes empty cgroups whose names end like this.
fn remove_cgroups(dir: &Path, names: &[String], depth: u32) {
    for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
        if !entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            continue;
        }
        let name = entry.file_name().to_string_lossy().into_owned();
        if names.iter().any(|end| name.ends_with(end.as_str())) {
            // One that is not empty belongs to another sandbox of the pod.
            let _ = std::fs::remove_dir(entry.path());
        } else if depth > 0 {
            remove_cgroups(&entry.path(), names, depth - 1);
        }
    }
}
