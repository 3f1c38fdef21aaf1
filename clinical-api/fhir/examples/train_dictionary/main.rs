//! Trains the dictionary with which bodies are compressed, on synthetic resources:
//! `cargo run -p medtech-fhir --example train_dictionary -- clinical-api/fhir/src/dictionary/2.zdict`
//!
//! A dictionary in use is never replaced or deleted: give a new one the next number and list it in `codec.rs`.

mod population;

use serde_json::Value;

/// Largest dictionary, in bytes.
const SIZE: usize = 64 * 1024;

/// The members in the order in which the codec stores them, without what it leaves out.
fn stored(resource: &Value) -> String {
    let mut out = serde_json::Map::new();
    for (key, value) in resource.as_object().into_iter().flatten() {
        if key != "id" {
            out.insert(key.clone(), value.clone());
        }
    }
    Value::Object(out).to_string()
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let path = std::env::args().nth(1).ok_or("give the path of the new dictionary")?;
    if std::fs::metadata(&path).is_ok_and(|m| m.len() > 0) {
        return Err("that dictionary exists; a dictionary is never replaced".into());
    }
    let mut dice = population::Dice(1);
    let samples: Vec<String> = (0..400)
        .flat_map(|n| population::patient(&mut dice, n))
        .map(|r| stored(&r))
        .collect();
    let dictionary = zstd::dict::from_samples(&samples, SIZE)?;
    std::fs::write(&path, &dictionary)?;
    let mut compressor = zstd::bulk::Compressor::with_dictionary(1, &dictionary)?;
    let (mut plain, mut packed) = (0, 0);
    for n in 1000..1050 {
        for resource in population::patient(&mut dice, n) {
            let body = stored(&resource);
            plain += body.len();
            packed += compressor.compress(body.as_bytes())?.len();
        }
    }
    eprintln!(
        "{} samples, {} bytes; unseen bodies shrink to {:.1} %",
        samples.len(),
        dictionary.len(),
        100.0 * packed as f64 / plain as f64
    );
    Ok(())
}
