//! FHIR over HTTP: requests that the server answers for each second of its CPU time.

use crate::http::Client;
use crate::servers::Medtech;
use crate::{Context, Result};
use bytes::Bytes;
use hyper::{Method, StatusCode};
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::task::JoinSet;

const CONNECTIONS: usize = 4;
const WARM_UP: usize = 40;
/// Each kind of request ends at the count or at the time, whichever is first. The counts give each about a second of CPU
/// time.
const CREATES: usize = 4000;
const READS: usize = 40_000;
const SEARCHES: usize = 8000;
const LONGEST: Duration = Duration::from_secs(10);
const FOUND: usize = 10;

/// Requests for each second of CPU time.
pub struct Rates {
    pub create: f64,
    pub read: f64,
    pub search: f64,
}

pub async fn measure(server: &Medtech) -> Result<Rates> {
    let token = server.user_token("clinician").await?;
    let mut client = Client::connect(server.port, Some(&token)).await?;
    let patients = client.get("/fhir/R4/Patient?_count=1").await?;
    let patient = patients
        .pointer("/entry/0/resource/id")
        .and_then(Value::as_str)
        .context("the demo clinic has no patient")?;

    let mut body = observation(patient, 0);
    let made = client.post("/fhir/R4/Observation", &body).await?;
    let id = made
        .get("id")
        .and_then(Value::as_str)
        .context("a created resource has no id")?
        .to_owned();
    let url = format!("/fhir/R4/Observation/{id}");
    body = client.get(&url).await?;
    if body.get("valueQuantity").is_none() {
        return Err("a created resource is read back without its value".into());
    }

    let owner = patient.to_owned();
    let create = rate(server, &token, StatusCode::CREATED, CREATES, move |n| {
        (
            Method::POST,
            "/fhir/R4/Observation".into(),
            Some(observation(&owner, n).to_string().into()),
        )
    });
    let create = create.await.context("create")?;
    let read = rate(server, &token, StatusCode::OK, READS, move |_| {
        (Method::GET, url.clone(), None)
    })
    .await
    .context("read")?;

    let search = format!("/fhir/R4/Observation?patient={patient}&code=http://loinc.org|8867-4&_count={FOUND}");
    let found = client.get(&search).await?;
    let entries = found.get("entry").and_then(Value::as_array).map_or(0, Vec::len);
    if entries != FOUND {
        return Err(format!("the search found {entries} of {FOUND} resources").into());
    }
    let search = rate(server, &token, StatusCode::OK, SEARCHES, move |_| {
        (Method::GET, search.clone(), None)
    })
    .await
    .context("search")?;
    Ok(Rates { create, read, search })
}

/// A heart rate as a wearable's reading becomes one.
fn observation(patient: &str, n: usize) -> Value {
    json!({
        "resourceType": "Observation",
        "status": "final",
        "category": [{"coding": [{"system": "http://terminology.hl7.org/CodeSystem/observation-category", "code": "vital-signs"}]}],
        "code": {"coding": [{"system": "http://loinc.org", "code": "8867-4", "display": "Heart rate"}]},
        "subject": {"reference": format!("Patient/{patient}")},
        "effectiveDateTime": format!("2026-01-{:02}T{:02}:{:02}:{:02}Z", 1 + n / 86_400 % 28, n / 3600 % 24, n / 60 % 60, n % 60),
        "valueQuantity": {"value": 60 + n % 40, "unit": "beats/min", "system": "http://unitsofmeasure.org", "code": "/min"},
    })
}

async fn rate<F>(server: &Medtech, token: &str, wanted: StatusCode, count: usize, request: F) -> Result<f64>
where
    F: Fn(usize) -> (Method, String, Option<Bytes>) + Send + Sync + 'static,
{
    let request = Arc::new(request);
    run(server, token, wanted, request.clone(), WARM_UP).await?;
    let before = server.process.cpu()?;
    let answered = run(server, token, wanted, request, count).await?;
    let cpu = server.process.cpu()?.since(&before);
    Ok(answered as f64 / cpu.max(1e-6))
}

/// Sends `count` requests over several connections; how many were answered as wanted.
async fn run<F>(server: &Medtech, token: &str, wanted: StatusCode, request: Arc<F>, count: usize) -> Result<usize>
where
    F: Fn(usize) -> (Method, String, Option<Bytes>) + Send + Sync + 'static,
{
    let mut connections = JoinSet::new();
    let began = Instant::now();
    for first in 0..CONNECTIONS {
        let (mut client, request) = (Client::connect(server.port, Some(token)).await?, request.clone());
        connections.spawn(async move {
            let mut answered = 0;
            for n in (first..count).step_by(CONNECTIONS) {
                let (method, path, body) = request(n);
                let answer = client.send(method, &path, body).await?;
                if answer.status != wanted {
                    answer.json()?;
                    return Err(format!("{} where {wanted} was due", answer.status).into());
                }
                answered += 1;
                if began.elapsed() > LONGEST {
                    break;
                }
            }
            Result::Ok(answered)
        });
    }
    let mut answered = 0;
    while let Some(connection) = connections.join_next().await {
        answered += connection??;
    }
    Ok(answered)
}
