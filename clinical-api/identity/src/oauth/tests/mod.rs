//! The authorization server from outside, by its HTTP doors, on both engines.

mod age;
mod backchannel;
mod backend;
mod dpop;
mod flow;
mod hosts;
pub(crate) mod kit;
mod narrow;
mod negative;
mod refresh;
mod rotation;
mod silent;
