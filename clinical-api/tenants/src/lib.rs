//! medtech-tenants
