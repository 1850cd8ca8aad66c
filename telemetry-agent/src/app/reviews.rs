//! The API server as the one who knows tokens.

use std::borrow::Cow;
use std::sync::Arc;

use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use telemetry_kube::Reviews;
use telemetry_model::Verdict;

use super::Failure;
use crate::api::security::Authority;
use crate::config::KubernetesConfig;
use crate::sysexits;

/// What roles have before every path but one. A path below `/api` as it is would be open to each service account of the
/// cluster: Kubernetes lets all who are known to it `get` whatever is below its own `/api` (its role `system:discovery`).
const PREFIX: &str = "/telemetry";
/// The one that means the same all over a cluster, and that whoever scrapes has a role for.
const PAGE: &str = "/metrics";

/// It, through the reviews that are kept.
pub(super) struct ApiServer(Arc<Reviews>);

/// Reviews, if they are wanted.
pub(super) fn of(config: &KubernetesConfig) -> Result<Option<Arc<Reviews>>, Failure> {
    if !config.token_review {
        return Ok(None);
    }
    let reviews = Reviews::new(&config.kubeconfig, config.token_audiences.clone());
    let failed = |what| Failure::new(sysexits::OS_ERROR, format!("kubernetes.token_review: {what}"));
    Ok(Some(Arc::new(reviews.map_err(failed)?)))
}

// === impl ApiServer ===

impl ApiServer {
    pub(super) fn new(reviews: &Arc<Reviews>) -> Self {
        Self(Arc::clone(reviews))
    }
}

impl Authority for ApiServer {
    fn check<'a>(&'a self, token: &'a str, verb: &'a str, path: &'a str) -> BoxFuture<'a, Verdict> {
        async move { self.0.check(token, verb, &in_roles(path)).await }.boxed()
    }
}

/// A path as roles of the cluster have it.
fn in_roles(path: &str) -> Cow<'_, str> {
    if path == PAGE { Cow::Borrowed(path) } else { Cow::Owned(format!("{PREFIX}{path}")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_path_but_the_page_is_one_of_kubernetes_own() {
        for (path, asked) in [
            ("/metrics", "/metrics"),
            ("/metrics/", "/telemetry/metrics/"),
            ("/", "/telemetry/"),
            ("/api/v1/query", "/telemetry/api/v1/query"),
            ("/version", "/telemetry/version"),
        ] {
            assert_eq!(in_roles(path), asked);
        }
    }
}
