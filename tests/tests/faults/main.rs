//! The store and the agent against real death: kill -9, power loss, full, lying and read-only disks.
//!
//! A process writes a store on a real directory and tells this one, line by line, what it is about to write, what was
//! taken and what was acknowledged. After each death the store is opened and held to that ledger: all that was
//! acknowledged is there, bit for bit, and nothing is there that was not sent.
#![cfg(test)]
#![expect(
    clippy::cast_possible_truncation,
    clippy::cast_possible_wrap,
    clippy::cast_precision_loss,
    reason = "loads count with small numbers made here"
)]

mod agent;
mod disk;
mod kills;
mod ledger;
mod lies;
mod load;
mod mortal;
mod power;
mod writer;

/// Not a test: the body of every writing process, which is this executable again.
#[test]
fn store_writer() -> anyhow::Result<()> {
    writer::run_if_asked()
}
