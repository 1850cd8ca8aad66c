//! The engine: a query's text or tree and a source of series in, an answer out.

pub mod dates;

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use crate::budget::Limits;
use crate::error::QueryError;
use crate::source::Source;
use crate::value::Answer;

/// How queries are evaluated.
#[derive(Clone, Debug)]
pub struct Options {
    /// How far an instant selector looks back, milliseconds.
    pub lookback: i64,
    /// The step of a subquery that names none, milliseconds.
    pub subquery_step: i64,
    /// Names are dropped when the query is done, not by each function.
    pub delayed_name_removal: bool,
    /// Functions over counters use the start timestamps of samples.
    pub start_timestamps: bool,
    /// A metric's type is read from its labels.
    pub type_and_unit_labels: bool,
    /// What a query may use.
    pub limits: Limits,
    /// Set to stop the query.
    pub canceled: Arc<AtomicBool>,
}

// === impl Options ===

impl Default for Options {
    fn default() -> Self {
        Self {
            lookback: 5 * 60 * 1000,
            subquery_step: 60 * 1000,
            delayed_name_removal: false,
            start_timestamps: false,
            type_and_unit_labels: false,
            limits: Limits::default(),
            canceled: Arc::default(),
        }
    }
}

/// Evaluates a query at one time, milliseconds.
///
/// # Errors
/// If it cannot be read or evaluated, or meets a limit.
pub fn instant(source: &dyn Source, query: &str, t: i64, options: &Options) -> Result<Answer, QueryError> {
    let _ = (source, query, t, options);
    Err(QueryError::internal("no parser yet"))
}

/// Evaluates a query at `start`, `start + step` and so on up to `end`, milliseconds.
///
/// # Errors
/// If it cannot be read or evaluated, or meets a limit.
pub fn range(
    source: &dyn Source,
    query: &str,
    (start, end, step): (i64, i64, i64),
    options: &Options,
) -> Result<Answer, QueryError> {
    let _ = (source, query, start, end, step, options);
    Err(QueryError::internal("no parser yet"))
}
