//! The vocabulary of the project: what a metric is, what a label set is, what a value is.
//!
//! Knows no kernel, no pod, no socket and no file; does no I/O. Every other crate speaks in these types.
#![forbid(unsafe_code)]

pub mod batch;
pub mod clock;
pub mod desc;
pub mod escape;
pub mod histogram;
pub mod labels;
pub mod snapshot;

pub use batch::{Batch, CgroupKey, Hierarchy, Increment, OwnerKey, Row};
pub use desc::{Desc, Kind, Scope, Unit};
pub use histogram::{Histogram, Layout};
pub use labels::{Label, Labels};
pub use snapshot::{Family, Series, Snapshot, Value};

/// Nanoseconds in a second: the kernel counts the former, metrics speak the latter.
pub const NANOS_PER_SECOND: f64 = 1e9;

/// The one place where the kernel's nanoseconds become seconds.
#[must_use]
pub fn seconds(nanos: u64) -> f64 {
    float(nanos) / NANOS_PER_SECOND
}

/// A count as a sample value. Exact up to 2^53, as every value of the exposition formats is.
#[must_use]
#[expect(clippy::cast_precision_loss, reason = "samples are 64-bit floats in every format served")]
pub fn float(count: u64) -> f64 {
    count as f64
}
