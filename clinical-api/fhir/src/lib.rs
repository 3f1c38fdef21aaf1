//! medtech-fhir
