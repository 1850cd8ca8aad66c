//! The whole store on a simulated disk, against a model: what was acknowledged is there, equal, once; what is there
//! was written; whatever the disk did.
#![cfg(test)]
#![expect(
    clippy::cast_possible_truncation,
    clippy::cast_possible_wrap,
    reason = "models count with small numbers made here"
)]

mod damage;
mod holes;
mod life;
mod model;
mod plain;
mod readers;
mod refused;
mod snapshots;
mod tiers;
