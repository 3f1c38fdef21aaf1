//! medtech-notifications
