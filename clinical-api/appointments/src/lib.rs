//! medtech-appointments
