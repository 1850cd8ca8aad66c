//! Commands beside running the agent.

mod access;
mod human;
mod progress;
pub mod query;
pub mod tsdb;
