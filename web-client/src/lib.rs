//! medtech-web-client
