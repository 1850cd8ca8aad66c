//! Whole-agent tests (being written).
