//! PromQL: the language and its engine.
//!
//! Text becomes tokens, a tree with spans, a checked and typed plan, and operators that each run once for all steps.
//! Knows a [`Source`](source) of series, not the store behind it; called by the query API, the rules and the test runner.
#![forbid(unsafe_code)]

pub mod annotations;
pub mod ast;
pub mod budget;
pub mod check;
pub mod error;
pub mod eval;
pub mod format;
pub mod functions;
pub mod labels;
pub mod lexer;
pub mod parse;
mod pattern;
pub mod plan;
mod quote;
pub mod resets;
pub mod script;
pub mod source;
pub mod text;
pub mod value;
