//! Live channels.
