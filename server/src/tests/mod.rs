//! The whole server in this process, on both engines.

mod isolation;
mod limits;
