//! Cost of the engine's operations on SQLite, one caller: `cargo run -p medtech-fhir --example measure -- 200`
//! The argument is the number of synthetic patients.
#![allow(clippy::print_stdout, clippy::unwrap_used, reason = "a tool")]

#[path = "train_dictionary/population.rs"]
mod population;

use medtech_fhir::{Access, Fhir};
use medtech_kernel::testkit::World;
use serde_json::{Value, json};
use std::time::Instant;

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let patients: usize = std::env::args().nth(1).map_or(Ok(100), |n| n.parse())?;
    let world = World::sqlite(&[medtech_fhir::MIGRATIONS]).await?;
    let (fhir, tenant, actor) = (Fhir::new(world.ctx.clone()), world.north.id, "user:measure");
    let mut dice = population::Dice(5);
    let (mut resources, mut bytes, mut spent) = (0, 0, 0.0);
    for n in 0..patients {
        let list = if n == 0 {
            population::house()
        } else {
            population::patient(&mut dice, n)
        };
        resources += list.len();
        bytes += list.iter().map(|r| r.to_string().len()).sum::<usize>();
        let entry: Vec<Value> = list
            .iter()
            .map(|r| json!({"resource": r, "request": {"method": "PUT", "url": format!("{}/{}", r["resourceType"].as_str().unwrap(), r["id"].as_str().unwrap())}}))
            .collect();
        let bundle = json!({"resourceType": "Bundle", "type": "transaction", "entry": entry});
        let start = Instant::now();
        fhir.transaction(tenant, actor, bundle).await?;
        spent += start.elapsed().as_secs_f64();
    }
    println!("{resources} resources, {} bytes of JSON each", bytes / resources);
    println!("bundles: {:.0} µs a resource", spent * 1e6 / resources as f64);
    let files: u64 = std::fs::read_dir(world.dir.path().join("db"))?
        .filter_map(|f| Some(f.ok()?.metadata().ok()?.len()))
        .sum();
    println!(
        "disk with write-ahead log: {} bytes a resource",
        files / resources as u64
    );
    let some = patients / 2;
    let start = Instant::now();
    for _ in 0..1000 {
        fhir.read(tenant, &Access::All, "Patient", &format!("pat-{some}"))
            .await?;
    }
    println!("read: {:.1} µs", start.elapsed().as_secs_f64() * 1e3);
    let questions = [
        (
            "Observation",
            format!("patient=pat-{some}&code=http://loinc.org|8867-4&_count=5"),
        ),
        ("Observation", format!("patient=pat-{some}&_count=20")),
        ("Observation", "code=http://loinc.org|8867-4&_count=20".to_owned()),
        ("Observation", "code=8867-4&status=final&_count=20".to_owned()),
        ("Observation", "code=8867-4&date=ge2025-01-01&_count=20".to_owned()),
        ("Observation", "date=2022-05&_count=20".to_owned()),
        ("Observation", "patient.family=smith&code=8867-4&_count=20".to_owned()),
        ("Observation", "_sort=-_lastUpdated&_count=20".to_owned()),
        (
            "Observation",
            "value-quantity=gt100||mg/dL&code=2339-0&_count=20".to_owned(),
        ),
        ("Patient", "family=smith&_count=20".to_owned()),
        ("Patient", "family=smith&gender=male&_count=20".to_owned()),
        ("Patient", format!("identifier=MRN{:06}", some * 7)),
        (
            "Patient",
            "_has:Observation:patient:code=http://loinc.org|8867-4&_count=20".to_owned(),
        ),
        ("Patient", format!("_id=pat-{some}&_revinclude=Observation:patient")),
        ("Patient", "birthdate=ge1980&birthdate=lt1990&_count=20".to_owned()),
    ];
    for (ty, query) in questions {
        let found = fhir.search(tenant, &Access::All, ty, &query).await?;
        let start = Instant::now();
        for _ in 0..50 {
            fhir.search(tenant, &Access::All, ty, &query).await?;
        }
        println!(
            "{ty}?{query}: {:.0} µs, {} + {}",
            start.elapsed().as_secs_f64() * 2e4,
            found.resources.len(),
            found.included.len()
        );
    }
    Ok(())
}
