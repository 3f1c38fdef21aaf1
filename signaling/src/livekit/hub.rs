//! The task that owns all rooms.

use std::sync::Arc;
use std::time::Duration;

use livekit_protocol as proto;
use medtech_media_sfu::{Event, Sfu};
use tokio::sync::{mpsc, oneshot};

use super::Clock;
use super::entry::{JoinRequest, Refusal};
use super::events::RoomEvent;
use super::participant::ConnectionId;
use super::state::State;

/// Inputs waiting for the hub. Senders wait when it is full: sockets then read no further, which slows their clients.
pub(super) const INPUTS: usize = 1024;

/// A question or an order, run on the hub's state.
pub(super) type Call = Box<dyn FnOnce(&mut State) + Send>;

pub(super) enum Input {
    Join {
        request: Box<JoinRequest>,
        reply: oneshot::Sender<Result<(), Box<Refusal>>>,
    },
    Request {
        connection: ConnectionId,
        request: Box<proto::SignalRequest>,
    },
    Disconnected {
        connection: ConnectionId,
    },
    Call(Call),
}

/// Runs until all handles are gone or the service shuts down.
pub(super) async fn run(
    engine: Arc<Sfu>,
    mut media: mpsc::Receiver<Event>,
    mut inputs: mpsc::Receiver<Input>,
    events: mpsc::Sender<RoomEvent>,
    clock: Clock,
) {
    let mut state = State::new(engine, events, clock);
    let mut tick = tokio::time::interval(Duration::from_secs(1));
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            input = inputs.recv() => match input {
                Some(Input::Join { request, reply }) => state.join(*request, reply),
                Some(Input::Request { connection, request }) => state.request(connection, *request),
                Some(Input::Disconnected { connection }) => state.disconnected(connection),
                Some(Input::Call(call)) => call(&mut state),
                None => break,
            },
            event = media.recv() => match event {
                Some(event) => state.media(event),
                None => break,
            },
            _ = tick.tick() => state.tick(),
        }
    }
    state.shut_down();
}
