//! medtech-signaling
