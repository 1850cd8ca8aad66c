//! Prometheus' test notation: data to load, queries to evaluate, answers to expect; and the runner of such scripts.
//!
//! The language is that of `promql/promqltest` of Prometheus 3.14, so that its files and ours are read alike. What an
//! `eval` of one instant expects must come out in four ways, as there: at the instant, as a step of a range query, and
//! both again from other times with `@` on every selector. Called by the crate's tests and by `cargo xtask promqltest`.

mod compare;
mod cursor;
mod distribution;
mod expect;
mod memory;
mod nhcb;
mod notation;
mod read;
mod run;

pub use compare::almost_equal;
pub use distribution::{parse as parse_histogram, print as print_histogram};
pub use memory::{Memory, Stamped, Store};
pub use notation::{Item, SeriesLine};
pub use read::{Command, Eval, Load, Script, ScriptError, read};
pub use run::{Miss, Report, options, run, run_in};
