//! What a pod is to a runtime: kubelet's labels, kubelet's cgroup parents, the node's network.

use std::collections::HashMap;
use std::path::PathBuf;

use clap::ValueEnum;
use k8s_cri::v1::{
    ContainerConfig, ContainerMetadata, ImageSpec, LinuxContainerConfig, LinuxContainerResources,
    LinuxContainerSecurityContext, LinuxPodSandboxConfig, LinuxSandboxSecurityContext, NamespaceMode,
    NamespaceOption, PodSandboxConfig, PodSandboxMetadata,
};

use crate::Shape;

/// How a pod's resources are guaranteed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Qos {
    Guaranteed,
    Burstable,
    Besteffort,
}

/// Who makes the cgroups, and so what they are called.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Driver {
    Cgroupfs,
    Systemd,
}

/// One pod.
pub struct Pod {
    pub namespace: String,
    pub name: String,
    pub uid: String,
    pub logs: PathBuf,
    pub shape: Shape,
}

// === impl Pod ===

impl Pod {
    /// The pod as its sandbox is asked for.
    pub fn sandbox(&self) -> PodSandboxConfig {
        let metadata = PodSandboxMetadata {
            name: self.name.clone(),
            uid: self.uid.clone(),
            namespace: self.namespace.clone(),
            attempt: 0,
        };
        let security_context =
            LinuxSandboxSecurityContext { namespace_options: Some(Self::namespaces()), ..Default::default() };
        PodSandboxConfig {
            metadata: Some(metadata),
            log_directory: self.log_directory(),
            labels: self.labels(None),
            linux: Some(LinuxPodSandboxConfig {
                cgroup_parent: self.cgroup_parent(),
                security_context: Some(security_context),
                ..Default::default()
            }),
            ..Default::default()
        }
    }

    /// One of its containers.
    pub fn container(&self, name: &str, command: &[String]) -> ContainerConfig {
        let resources = LinuxContainerResources { cpu_shares: 102, ..Default::default() };
        let security_context = LinuxContainerSecurityContext {
            namespace_options: Some(Self::namespaces()),
            ..Default::default()
        };
        ContainerConfig {
            metadata: Some(ContainerMetadata { name: name.to_owned(), attempt: 0 }),
            image: Some(ImageSpec { image: self.shape.image.clone(), ..Default::default() }),
            command: command.to_vec(),
            labels: self.labels(Some(name)),
            log_path: format!("{name}.log"),
            linux: Some(LinuxContainerConfig {
                resources: Some(resources),
                security_context: Some(security_context),
            }),
            ..Default::default()
        }
    }

    fn log_directory(&self) -> String {
        let folder = format!("{}_{}_{}", self.namespace, self.name, self.uid);
        self.logs.join(folder).display().to_string()
    }

    fn namespaces() -> NamespaceOption {
        NamespaceOption {
            network: NamespaceMode::Node.into(),
            pid: NamespaceMode::Container.into(),
            ..Default::default()
        }
    }

    fn labels(&self, container: Option<&str>) -> HashMap<String, String> {
        let pod = [("namespace", &self.namespace), ("name", &self.name), ("uid", &self.uid)];
        let mut labels: HashMap<String, String> =
            pod.into_iter().map(|(key, value)| (format!("io.kubernetes.pod.{key}"), value.clone())).collect();
        if let Some(container) = container {
            labels.insert("io.kubernetes.container.name".to_owned(), container.to_owned());
        }
        labels
    }

    /// Where kubelet puts a pod's cgroup, with either driver.
    fn cgroup_parent(&self) -> String {
        let Shape { qos, driver, cgroup_root, .. } = &self.shape;
        let class = match qos {
            Qos::Guaranteed => "",
            Qos::Burstable => "burstable",
            Qos::Besteffort => "besteffort",
        };
        match (driver, class) {
            (Driver::Cgroupfs, "") => format!("{cgroup_root}/kubepods/pod{}", self.uid),
            (Driver::Cgroupfs, class) => format!("{cgroup_root}/kubepods/{class}/pod{}", self.uid),
            (Driver::Systemd, class) => {
                let class = if class.is_empty() { String::new() } else { format!("-{class}") };
                format!("kubepods{class}-pod{}.slice", self.uid.replace('-', "_"))
            }
        }
    }
}
