//! medtech-messaging
