//! The query engine over the real store: what it answers from memory, from files fresh and joined, and from tiers.
#![cfg(test)]

mod life;
mod scripts;
mod shelf;
mod tiers;
