//! The engine from outside: one binary, which is linked once.

mod access;
mod common;
mod erase;
mod gate;
mod http;
mod modules;
mod narrative;
mod narrowed;
mod search;
