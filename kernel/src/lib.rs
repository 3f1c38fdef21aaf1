//! medtech-kernel
