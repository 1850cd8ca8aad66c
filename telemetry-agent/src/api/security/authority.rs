//! Somebody else who knows whose a token is and what its owner may: the API server of a cluster.

use futures_util::future::BoxFuture;
use telemetry_model::Verdict;

/// Who is asked about tokens that no file lists. It bounds what it is asked, and how long that takes.
pub trait Authority: Send + Sync {
    /// Whether the owner of this token may do this: `verb` is what roles call it, `path` is where.
    fn check<'a>(&'a self, token: &'a str, verb: &'a str, path: &'a str) -> BoxFuture<'a, Verdict>;
}
