//! What the kernel says in /proc: the agent's own process, and the totals that our sums are held against.
//!
//! Reading and parsing are apart, so that parsing is tested on strings.

pub mod process;
pub mod totals;
