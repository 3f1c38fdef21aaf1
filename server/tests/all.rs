//! The binary from outside: one binary, which is linked once.

mod at_rest;
mod common;
mod papers;
mod privileged;
mod sealed;
