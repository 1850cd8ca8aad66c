//! Samples as files: OpenMetrics text in and out. Knows the store's series and no metric of ours; called by the
//! command line.

pub mod openmetrics;
pub mod transfer;
