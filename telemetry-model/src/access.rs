//! Who may: what is said of somebody who shows a token.

/// What whoever knows tokens says of one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Its owner may.
    Allowed,
    /// It is nobody's, or not for us.
    Unknown,
    /// Its owner may not.
    Forbidden,
    /// Nobody can say now.
    Unavailable,
    /// Too many others ask.
    Busy,
}
