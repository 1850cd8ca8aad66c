//! The engine from outside: against a naive evaluator, at its limits, on virtual classic series.
#![cfg(test)]

mod classic;
mod differential;
mod limits;
mod memory;
mod naive;
