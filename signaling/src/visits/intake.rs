//! Media events taken in until it has worked: what a visit's time is counted from must not fall to a moment's trouble.

use super::{Visits, media::MediaEvent};
use medtech_kernel::{TenantId, error::Kind};
use std::{
    collections::{HashMap, VecDeque},
    time::Duration,
};
use tokio::sync::{mpsc, watch};

/// What failed is tried again this soon.
const AGAIN: Duration = Duration::from_secs(1);
/// Events kept of all rooms. Beyond they are lost and said so; the look every half minute sees who is there.
const LATE: usize = 4096;

/// Events that could not be taken in, in order, by room: one that fails holds back its own room alone.
#[derive(Default)]
struct Late {
    rooms: HashMap<(TenantId, String), VecDeque<MediaEvent>>,
    kept: usize,
}

impl Visits {
    /// Takes in what `told` makes of events, for each room in their order, until there are no more or `stop` turns true.
    pub async fn follow_media<E>(
        self,
        mut events: mpsc::Receiver<E>,
        told: impl Fn(E) -> Option<MediaEvent>,
        mut stop: watch::Receiver<bool>,
    ) {
        let mut late = Late::default();
        let mut again = self.0.ctx.clock.every(AGAIN);
        loop {
            let event = tokio::select! {
                event = events.recv() => match event.map(&told) {
                    Some(Some(event)) => Some(event),
                    Some(None) => continue,
                    None => return,
                },
                () = again.next() => None,
                _ = stop.wait_for(|stop| *stop) => return,
            };
            match event {
                Some(event) => self.take_in(&mut late, event).await,
                None => self.take_in_late(&mut late).await,
            }
        }
    }

    async fn take_in(&self, late: &mut Late, event: MediaEvent) {
        let key = (event.tenant, event.room.clone());
        if !late.rooms.contains_key(&key) {
            match self.on_media_event(event.clone()).await {
                Ok(()) => return,
                Err(e) if !passes(e.kind) => {
                    return tracing::warn!(tenant = %event.tenant, room = event.room, error = ?e, "a room event was not taken in");
                }
                Err(e) => {
                    tracing::warn!(tenant = %event.tenant, room = event.room, error = ?e, "a room event is not taken in yet");
                }
            }
        }
        if late.kept >= LATE {
            return tracing::error!(tenant = %event.tenant, room = event.room, "a room event was lost: too many wait");
        }
        late.kept += 1;
        late.rooms.entry(key).or_default().push_back(event);
    }

    async fn take_in_late(&self, late: &mut Late) {
        for events in late.rooms.values_mut() {
            while let Some(event) = events.front() {
                match self.on_media_event(event.clone()).await {
                    Err(e) if passes(e.kind) => break,
                    Err(e) => {
                        tracing::warn!(tenant = %event.tenant, room = event.room, error = ?e, "a room event was not taken in");
                    }
                    Ok(()) => {}
                }
                events.pop_front();
                late.kept = late.kept.saturating_sub(1);
            }
        }
        late.rooms.retain(|_, events| !events.is_empty());
    }
}

/// Trouble of the store's, not of the event's.
fn passes(kind: Kind) -> bool {
    matches!(kind, Kind::Internal | Kind::Unavailable)
}
