//! The agent's parts. ARCHITECTURE.md says which may import which; `app` wires them.

pub mod api;
pub mod attribute;
pub mod config;
pub mod expose;
pub mod human_duration;
pub mod store;
pub mod sysexits;
