//! The API server as the one who knows tokens.

use std::sync::Arc;

use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use telemetry_kube::Reviews;

use super::Failure;
use crate::api::security::{Authority, Verdict};
use crate::config::KubernetesConfig;
use crate::sysexits;

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
        let reviewed = self.0.check(token, verb, path);
        let verdict = reviewed.map(|verdict| match verdict {
            telemetry_kube::Verdict::Allowed => Verdict::Allowed,
            telemetry_kube::Verdict::Unknown => Verdict::Unknown,
            telemetry_kube::Verdict::Forbidden => Verdict::Forbidden,
            telemetry_kube::Verdict::Unavailable => Verdict::Unavailable,
            telemetry_kube::Verdict::Busy => Verdict::Busy,
        });
        verdict.boxed()
    }
}
