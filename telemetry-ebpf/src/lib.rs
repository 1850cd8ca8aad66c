//! What crosses the border between the kernel programs and the agent.
//!
//! Integers, their layout and their limits; no allocation, no I/O, no dependency. The kernel programs in `bin/`
//! write these types, the agent's `bpf` and `signal` modules read them.
#![no_std]

#[macro_use]
mod abi;
pub mod block;
pub mod hist;
pub mod identity;
pub mod net;
pub mod sched;

pub use abi::Abi;
