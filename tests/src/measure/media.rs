//! CPU time of a media server for each forwarded packet.

use crate::load::{Counts, PUBLISHED_PER_SECOND, Participant, Role};
use crate::servers::MediaServer;
use crate::{Context, Result};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::time::sleep;

const REACHED_WITHIN: Duration = Duration::from_secs(20);
/// After everybody sees video: key frames asked for, bandwidth probed, first reports sent.
const SETTLE: Duration = Duration::from_secs(2);

/// How many people sit where.
#[derive(Debug, Clone, Copy)]
pub struct Shape {
    pub rooms: usize,
    /// Beside the one publisher of each room.
    pub subscribers: usize,
}

/// What one run showed.
#[derive(Debug, Clone, Copy)]
pub struct Run {
    /// CPU microseconds (user and system) for each packet that reached a subscriber.
    pub us_per_packet: f64,
    pub packets_per_second: f64,
    /// Packets that arrived, of those that should have at the publishers' pace.
    pub delivered: f64,
    /// Sequence numbers that never came.
    pub missing: i64,
    /// Packets that came again; they count nowhere else.
    pub repeated: u64,
    pub p50_ms: f64,
    pub p99_ms: f64,
}

/// Fills the rooms, measures for `duration`, empties them.
pub async fn forward(server: &MediaServer<'_>, label: &str, shape: Shape, duration: Duration) -> Result<Run> {
    let counts = Arc::new(Counts::default());
    let mut people = Vec::new();
    let address = server.address();
    for room in 0..shape.rooms {
        let room = format!("{label}-{room}");
        let token = server.token(&room, "publisher").await?;
        people.push(
            Participant::join(&address, &token, Role::Publish)
                .await
                .context("the publisher")?,
        );
        for number in 0..shape.subscribers {
            let token = server.token(&room, &format!("subscriber-{number}")).await?;
            people.push(
                Participant::join(&address, &token, Role::Subscribe(counts.clone()))
                    .await
                    .context("a subscriber")?,
            );
        }
    }
    let run = measure(server, &counts, &people, shape, duration).await;
    for participant in people {
        participant.leave().await;
    }
    run
}

async fn measure(
    server: &MediaServer<'_>,
    counts: &Counts,
    people: &[Participant],
    shape: Shape,
    duration: Duration,
) -> Result<Run> {
    let expected = shape.rooms * shape.subscribers;
    let began = Instant::now();
    while counts.reached() < expected as u64 {
        people.iter().try_for_each(Participant::check)?;
        if began.elapsed() > REACHED_WITHIN {
            return Err(format!("video reached {} of {expected} subscribers", counts.reached()).into());
        }
        sleep(Duration::from_millis(20)).await;
    }
    sleep(SETTLE).await;
    let began = Instant::now();
    let (before, cpu_before) = (counts.seen(), server.process().cpu()?);
    sleep(duration).await;
    let (after, cpu_after) = (counts.seen(), server.process().cpu()?);
    let seconds = began.elapsed().as_secs_f64();
    people.iter().try_for_each(Participant::check)?;
    let seen = after.since(&before);
    if seen.packets == 0 {
        return Err("no packets came through".into());
    }
    Ok(Run {
        us_per_packet: cpu_after.since(&cpu_before) * 1e6 / seen.packets as f64,
        packets_per_second: seen.packets as f64 / seconds,
        delivered: seen.packets as f64 / (seconds * PUBLISHED_PER_SECOND as f64 * expected as f64),
        missing: seen.missing,
        repeated: seen.repeated,
        p50_ms: seen.latency_ms(0.5),
        p99_ms: seen.latency_ms(0.99),
    })
}
