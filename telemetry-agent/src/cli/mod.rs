//! Commands beside running the agent.

mod human;
mod progress;
pub mod query;
pub mod tsdb;
