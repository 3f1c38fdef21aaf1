//! Devices.
pub mod senml;
