//! medtech-identity
