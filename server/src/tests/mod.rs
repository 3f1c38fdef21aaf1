//! The whole server in this process, on both engines.

mod algorithms;
mod first_start;
mod isolation;
mod limits;
