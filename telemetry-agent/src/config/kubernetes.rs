//! What is asked of the API server.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use telemetry_kube::Api;

/// What is asked of the API server, and how.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct KubernetesConfig {
    /// Whether it is asked.
    pub api: Api,
    /// A kubeconfig; empty: the service account of the agent's pod.
    pub kubeconfig: String,
    /// The node's name to the API server; empty: `NODE_NAME`, else the host's.
    pub node: String,
    /// The first question waits for a random time up to this.
    #[serde(with = "crate::human_duration")]
    pub start_delay_max: Duration,
    /// Labels of pods that are told.
    pub pod_labels: Vec<String>,
    /// Whether it is asked whose tokens are and what their owners may.
    pub token_review: bool,
    /// Whom tokens have to be for; none: the API server itself.
    pub token_audiences: Vec<String>,
}

// === impl KubernetesConfig ===

impl Default for KubernetesConfig {
    fn default() -> Self {
        let telemetry_kube::Config { api, kubeconfig, node, start_delay_max, pod_labels } =
            telemetry_kube::Config::default();
        let (token_review, token_audiences) = (false, Vec::new());
        Self { api, kubeconfig, node, start_delay_max, pod_labels, token_review, token_audiences }
    }
}

impl KubernetesConfig {
    /// The same, as the watch takes it.
    #[must_use]
    pub fn watch(&self) -> telemetry_kube::Config {
        let Self { api, kubeconfig, node, start_delay_max, pod_labels, .. } = self.clone();
        telemetry_kube::Config { api, kubeconfig, node, start_delay_max, pod_labels }
    }
}
