//! The authorization server from outside, by its HTTP doors, on both engines.

mod backend;
mod flow;
pub(crate) mod kit;
mod negative;
mod refresh;
mod rotation;
