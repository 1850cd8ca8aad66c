//! The embedded time-series store.
//!
//! Timestamps are kept once per group of series that are read together, values in a column a series; everything on
//! disk is a numbered, checksummed record or page. Knows no metric, no pod and no query language; called by the agent's
//! store, its `tsdb` command and the benches.
#![deny(unsafe_code)]

pub mod block;
pub mod codec;
pub mod db;
pub mod fs;
pub mod head;
pub mod index;
pub mod log;
pub mod state;
pub mod wire;
