//! Somebody else who knows whose a token is and what its owner may: the API server of a cluster.

use futures_util::future::BoxFuture;

/// Who is asked about tokens that no file lists. It bounds what it is asked, and how long that takes.
pub trait Authority: Send + Sync {
    /// Whether the owner of this token may do this: `verb` is what roles call it, `path` is where.
    fn check<'a>(&'a self, token: &'a str, verb: &'a str, path: &'a str) -> BoxFuture<'a, Verdict>;
}

/// What it says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// He may.
    Allowed,
    /// The token is nobody's, or not for us.
    Unknown,
    /// He may not.
    Forbidden,
    /// Nobody can say now.
    Unavailable,
    /// Too many others ask.
    Busy,
}
