//! Commands beside running the agent.

pub mod tsdb;
