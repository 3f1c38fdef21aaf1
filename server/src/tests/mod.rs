//! The whole server in this process, on both engines.

mod first_start;
mod isolation;
mod limits;
