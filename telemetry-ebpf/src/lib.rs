//! border
#![no_std]
