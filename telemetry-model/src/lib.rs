//! The vocabulary of the project: what a metric is, what a label set is, what a value is.
//!
//! Knows no kernel, no pod, no socket and no file; does no I/O. Every other crate speaks in these types.
#![forbid(unsafe_code)]

pub mod access;
pub mod batch;
pub mod clock;
pub mod desc;
pub mod escape;
pub mod histogram;
pub mod labels;
pub mod matcher;
pub mod native;
pub mod pattern;
pub mod pod;
pub mod roster;
pub mod snapshot;

pub use access::Verdict;
pub use batch::{Batch, CgroupKey, Hierarchy, Increment, OwnerKey, Row};
pub use desc::{Desc, Kind, Scope, Unit};
pub use histogram::{Histogram, Layout};
pub use labels::{Label, Labels};
pub use matcher::{MatchOp, Matcher};
pub use native::{Buckets, NativeHistogram, ResetHint};
pub use pod::{Digest, Pod, PodContainer, Pods, Workload};
pub use roster::{OwnerKind, Roster, RosterEntry};
pub use snapshot::{Family, LateOwner, Series, Snapshot, Value};

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

/// The value that ends a series: written once when its source is gone, so that a query does not look further back.
/// A NaN of one bit pattern, the one Prometheus uses; compare bits.
pub const STALE_MARKER: f64 = f64::from_bits(0x7ff0_0000_0000_0002);

/// Whether `value` is the stale marker (and not just any NaN).
#[must_use]
pub fn is_stale(value: f64) -> bool {
    value.to_bits() == STALE_MARKER.to_bits()
}
