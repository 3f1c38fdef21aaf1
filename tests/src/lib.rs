//! medtech-tests
