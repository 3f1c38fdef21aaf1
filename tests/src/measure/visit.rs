//! From the clinician's "admit" to the first media packet at the patient, who waits connected.

use crate::http::Client;
use crate::load::{Counts, Participant, Role};
use crate::servers::Medtech;
use crate::{Context, Result};
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::time::{sleep, timeout};
use uuid::Uuid;

const TIMES: usize = 5;
const FLOWS_WITHIN: Duration = Duration::from_secs(10);
const LOOK_EVERY: Duration = Duration::from_millis(1);
/// Without a packet for so long, sending has stopped.
const SILENCE: Duration = Duration::from_millis(300);

/// The time in milliseconds, the middle one of several: admitted, sent back to wait, admitted again.
pub async fn admit_to_media(server: &Medtech) -> Result<f64> {
    let mut host = server.client("clinician").await?;
    let (mut guest, visit) = arrive(server).await?;
    let media = |who: &Value| -> Result<String> {
        who.pointer("/token")
            .and_then(Value::as_str)
            .map(str::to_owned)
            .context("no media token")
    };
    let patient = media(&guest.post(&format!("/api/visits/{visit}/media"), &json!({})).await?)?;
    let clinician = media(&host.post(&format!("/api/visits/{visit}/media"), &json!({})).await?)?;
    let address = format!("ws://localhost:{}", server.port);
    let counts = Arc::new(Counts::default());
    let patient = Participant::join(&address, &patient, Role::Subscribe(counts.clone()))
        .await
        .context("the patient")?;
    let clinician = Participant::join(&address, &clinician, Role::Publish)
        .await
        .context("the clinician")?;
    let times = times(&mut host, &visit, &counts, [&patient, &clinician]).await;
    patient.leave().await;
    clinician.leave().await;
    Ok(super::median(times?))
}

async fn times(host: &mut Client, visit: &str, counts: &Counts, people: [&Participant; 2]) -> Result<Vec<f64>> {
    let mut times = Vec::new();
    for _ in 0..TIMES {
        silent(counts).await?;
        counts.forget_first();
        let began = Instant::now();
        host.post(&format!("/api/visits/{visit}/admit"), &json!({})).await?;
        let first = timeout(FLOWS_WITHIN, async {
            loop {
                match counts.first() {
                    Some(at) => return at,
                    None => sleep(LOOK_EVERY).await,
                }
            }
        });
        let first = first.await.context("no media reached the admitted patient")?;
        people.iter().try_for_each(|p| p.check())?;
        times.push(first.saturating_duration_since(began).as_secs_f64() * 1e3);
        host.post(&format!("/api/visits/{visit}/hold"), &json!({})).await?;
    }
    Ok(times)
}

/// A patient who waits must see nothing of the clinician.
async fn silent(counts: &Counts) -> Result<()> {
    timeout(FLOWS_WITHIN, async {
        loop {
            let before = counts.seen().packets;
            sleep(SILENCE).await;
            if counts.seen().packets == before {
                return;
            }
        }
    })
    .await
    .context("a waiting patient went on receiving media")
}

/// The patient's way to the waiting room; the visit's id.
pub async fn arrive(server: &Medtech) -> Result<(Client, String)> {
    let mut nobody = Client::connect(server.port, None).await?;
    let device = json!({"id": Uuid::now_v7(), "name": "bench"});
    let opened = nobody
        .post(
            "/api/visits/open",
            &json!({"link": server.printed_link("patient")?, "device": device}),
        )
        .await?;
    let text = |at: &str| {
        opened
            .pointer(at)
            .and_then(Value::as_str)
            .map(str::to_owned)
            .context(format!("no {at} of an open visit"))
    };
    let (token, visit) = (text("/access_token")?, text("/visit/id")?);
    let mut guest = Client::connect(server.port, Some(&token)).await?;
    let check = json!({"camera": "ok", "microphone": "ok", "speaker": "ok"});
    guest.post(&format!("/api/visits/{visit}/device-check"), &check).await?;
    let consent = json!({"accepted": true, "text_version": "1", "language": "en"});
    guest.post(&format!("/api/visits/{visit}/consent"), &consent).await?;
    Ok((guest, visit))
}
