//! How fast the server is ready on an existing data directory, and what it holds when nobody is there.

use crate::Result;
use crate::servers::{Installation, Medtech};
use std::path::Path;
use std::time::Duration;

const STARTS: usize = 3;
/// After it is ready: background work of the start ends.
const IDLE_AFTER: Duration = Duration::from_secs(5);

/// What starting showed.
pub struct Start {
    /// The very first, which creates the demo clinic.
    pub first_s: f64,
    pub existing_s: f64,
    pub idle_mib: f64,
}

/// Gives the running server back for what follows.
pub async fn measure(program: &Path) -> Result<(Start, Medtech)> {
    let (mut server, first) = Installation::new(program)?.start().await?;
    let mut existing = Vec::new();
    for _ in 0..STARTS {
        let (next, took) = server.stop().await.start().await?;
        existing.push(took.as_secs_f64());
        server = next;
    }
    tokio::time::sleep(IDLE_AFTER).await;
    let idle_mib = server.process.rss_kib()? / 1024.0;
    Ok((
        Start {
            first_s: first.as_secs_f64(),
            existing_s: super::median(existing),
            idle_mib,
        },
        server,
    ))
}
