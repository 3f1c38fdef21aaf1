//! medtech-records
