//! What whole-agent tests stand on: the agent as a process, its page, known work in known cgroups, and the kernel's
//! own figures to hold the page to.
//!
//! Knows the agent only from outside: its command line, its page, its exit codes. Used by the test target `kernel`
//! and by the runner of the kernel benchmarks.

pub mod agent;
pub mod bpf;
pub mod cgroup;
pub mod dashboards;
pub mod datagen;
pub mod figure;
pub mod host;
pub mod http;
pub mod kube;
pub mod loopdev;
pub mod netns;
pub mod node;
pub mod own;
pub mod page;
pub mod peer;
pub mod proc;
pub mod prometheus;
pub mod pty;
pub mod python;
pub mod recording;
pub mod remote_write;
pub mod schemathesis;
pub mod sse;
pub mod work;
pub mod workload;
