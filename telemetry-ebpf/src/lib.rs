//! What crosses the border between the kernel programs and the agent.
//!
//! Integers, their layout and their limits; no allocation, no I/O, no dependency. The kernel programs in `bin/`
//! write these types, the agent's `bpf` and `signal` modules read them.
#![no_std]
#![allow(
    clippy::cast_possible_truncation,
    clippy::cast_possible_wrap,
    clippy::cast_sign_loss,
    reason = "const functions that also run in the kernel: neither TryFrom nor a panic is to be had there; each is tested over its whole range"
)]

#[macro_use]
mod abi;
pub mod block;
pub mod hist;
pub mod identity;
pub mod net;
pub mod sched;

pub use abi::Abi;
