//! Sealed files from outside: what is on the disk, what a crash leaves, what somebody puts there: one binary, which is linked once.

mod common;
mod crash;
mod freshness;
mod sealed;
mod tampered;
