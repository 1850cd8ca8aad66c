//! A client of the API server: of a kubeconfig, or of the pod's service account.

use std::path::Path;
use std::time::Duration;

use kube::Client;
use kube::config::{KubeConfigOptions, Kubeconfig};

/// From asking to a connection.
const CONNECT_LIMIT: Duration = Duration::from_secs(10);
/// Where a pod finds what it may call itself.
const TOKEN: &str = "/var/run/secrets/kubernetes.io/serviceaccount/token";

/// Why no client can be made.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NoClient {
    #[error("kubeconfig: {0}")]
    Kubeconfig(#[from] kube::config::KubeconfigError),
    #[error("service account: {0}")]
    InCluster(#[from] kube::config::InClusterError),
    #[error("{0}")]
    Client(#[from] kube::Error),
}

/// Whether the agent's pod has a service account's token.
pub(crate) fn has_token() -> bool {
    Path::new(TOKEN).exists()
}

/// A client that tries nothing again by itself: pauses are ours.
pub(crate) async fn connect(kubeconfig: &str) -> Result<Client, NoClient> {
    let mut config = if kubeconfig.is_empty() {
        kube::Config::incluster()?
    } else {
        let file = Kubeconfig::read_from(kubeconfig)?;
        kube::Config::from_custom_kubeconfig(file, &KubeConfigOptions::default()).await?
    };
    config.connect_timeout = Some(CONNECT_LIMIT);
    config.default_retry = false;
    Ok(Client::try_from(config)?)
}
