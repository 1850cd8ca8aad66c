//! The agent on a node of real pods: containerd, runc and podlet, which makes pods as kubelet does.
//!
//! `cargo xtask test` starts the node; `cargo xtask cluster up` does for one's own runs. Tests run one at a time.
#![cfg(test)]

mod names;
mod nested;
mod private;
