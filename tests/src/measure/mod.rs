//! What is measured. Each module takes running servers and gives figures; nothing here fails on slowness.

pub mod fhir;
pub mod live;
pub mod media;
pub mod pages;
pub mod start;
pub mod visit;

/// The middle one of several figures.
pub fn median(mut figures: Vec<f64>) -> f64 {
    figures.sort_by(f64::total_cmp);
    figures.get(figures.len() / 2).copied().unwrap_or(f64::NAN)
}
