//! Commands beside running the agent.

mod human;
pub mod manual;
mod progress;
pub mod query;
mod text;
pub mod top;
pub mod tsdb;
