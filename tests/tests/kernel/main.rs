//! The agent on the real kernel: every family against a truth that is not the agent's.
//!
//! Each test starts an agent of its own, makes work of known size in cgroups of its own, and compares the page with
//! what the kernel says elsewhere. Tests run one at a time: their figures are the machine's.

mod block;
mod identity;
mod lifecycle;
mod network;
mod resources;
mod scheduler;

/// Not a test: the body of every workload process, which is this executable again.
#[test]
fn workload() -> anyhow::Result<()> {
    telemetry_tests::work::run_if_asked().map(drop)
}
