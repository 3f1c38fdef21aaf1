//! medtech-signaling

pub mod devices;
pub mod visits;
