//! The agent's parts. ARCHITECTURE.md says which may import which; `app` wires them.

pub mod api;
pub mod app;
pub mod attribute;
pub mod bpf;
pub mod cli;
pub mod config;
pub mod doctor;
pub mod exchange;
pub mod expose;
pub mod host;
pub mod human_duration;
pub mod journal;
pub mod logging;
pub mod pipeline;
pub mod reference;
pub mod signal;
pub mod store;
pub mod sysexits;
