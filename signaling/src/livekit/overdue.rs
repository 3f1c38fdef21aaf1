//! What the media engine must hear in any case, kept while its queue is full: what somebody may do, and that they are gone.

use std::collections::BTreeMap;

use medtech_media_sfu::{Command, ParticipantId, Permission, RoomId};

/// Entries kept at most: one for each participant, so more only when that many come and go while the engine stands still.
/// What is beyond is lost and said so.
const MOST: usize = 65_536;

type Who = (RoomId, ParticipantId);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Order {
    Rights(Permission),
    Leave,
}

impl Order {
    /// The order in a command, when it is one that must not be lost.
    pub(super) fn of(command: &Command) -> Option<(Who, Order)> {
        match command {
            Command::SetPermission {
                room,
                participant,
                permission,
            } => Some(((*room, *participant), Order::Rights(*permission))),
            Command::Leave { room, participant } => Some(((*room, *participant), Order::Leave)),
            _ => None,
        }
    }

    fn command(self, (room, participant): Who) -> Command {
        match self {
            Order::Rights(permission) => Command::SetPermission {
                room,
                participant,
                permission,
            },
            Order::Leave => Command::Leave { room, participant },
        }
    }
}

#[derive(Debug, Default)]
pub(super) struct Overdue(BTreeMap<Who, Order>);

impl Overdue {
    /// An older order waits for the same participant: a newer one must not overtake it.
    pub(super) fn waits(&self, who: Who) -> bool {
        self.0.contains_key(&who)
    }

    /// The last order counts. `false`: there is no room left.
    pub(super) fn keep(&mut self, who: Who, order: Order) -> bool {
        let fits = self.0.len() < MOST || self.waits(who);
        if fits {
            self.0.insert(who, order);
        }
        fits
    }

    /// Tries all again; what is refused stays.
    pub(super) fn settle(&mut self, mut send: impl FnMut(Command) -> bool) {
        self.0.retain(|who, order| !send(order.command(*who)));
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::Mutex;
    use std::sync::atomic::{AtomicBool, Ordering};

    use medtech_media_sfu::SfuError;
    use tokio::sync::mpsc;

    use super::super::events::LeaveReason;
    use super::super::grants::Permission as Grant;
    use super::super::participant::Participant;
    use super::super::room::RoomKey;
    use super::super::state::{Engine, State};
    use super::super::{Clock, TenantId};
    use super::*;

    /// An engine whose queue is full when the test says so.
    #[derive(Default)]
    struct Full {
        full: AtomicBool,
        heard: Mutex<Vec<String>>,
    }

    impl Engine for Full {
        fn send(&self, command: Command) -> Result<(), SfuError> {
            if self.full.load(Ordering::Relaxed) {
                return Err(SfuError::Busy);
            }
            let heard = match command {
                Command::SetPermission { permission, .. } => format!("publish {}", permission.can_publish),
                Command::Leave { .. } => "leave".to_owned(),
                _ => return Ok(()),
            };
            self.heard.lock().expect("lock").push(heard);
            Ok(())
        }
    }

    fn somebody(permission: Grant) -> Participant {
        Participant {
            id: ParticipantId(7),
            sid: "PA_7".into(),
            identity: "guest".into(),
            name: String::new(),
            metadata: String::new(),
            attributes: Default::default(),
            permission,
            joined_at: 0,
            version: 1,
            active: true,
            auto_subscribe: true,
            single: true,
            client_protocol: 16,
            capabilities: Vec::new(),
            connection: None,
            lost_at: Some(i64::MAX),
            tracks: Default::default(),
            sees: Default::default(),
        }
    }

    #[tokio::test]
    async fn a_full_engine_hears_of_withdrawn_rights_and_of_who_is_gone_as_soon_as_it_can() {
        let engine = Arc::new(Full::default());
        let (events, _kept) = mpsc::channel(16);
        let mut state = State::new(engine.clone(), events, Clock::manual(0));
        let key = RoomKey {
            tenant: TenantId::from_number(1),
            name: "visit".into(),
        };
        let room = state.open_room(&key);
        let inside = somebody(Grant::full());
        let id = inside.id;
        state
            .rooms
            .get_mut(&room)
            .expect("open")
            .participants
            .insert(id, inside);
        let heard = || std::mem::take(&mut *engine.heard.lock().expect("lock"));

        engine.full.store(true, Ordering::Relaxed);
        assert!(state.set_permission(&key, "guest", Grant::waiting()));
        state.tick();
        assert_eq!(heard(), [""; 0]);
        engine.full.store(false, Ordering::Relaxed);
        // The same once more says nothing new to the rooms, and the engine hears of it nevertheless.
        state.set_permission(&key, "guest", Grant::waiting());
        state.tick();
        assert_eq!(heard(), ["publish false"]);
        state.tick();
        assert_eq!(heard(), [""; 0], "once");

        // Of orders for one participant the last counts, in the order they were given.
        engine.full.store(true, Ordering::Relaxed);
        state.set_permission(&key, "guest", Grant::full());
        engine.full.store(false, Ordering::Relaxed);
        state.set_permission(&key, "guest", Grant::waiting());
        state.tick();
        assert_eq!(heard(), ["publish false"], "nothing older comes after it");

        engine.full.store(true, Ordering::Relaxed);
        state.leave(room, id, LeaveReason::Removed);
        engine.full.store(false, Ordering::Relaxed);
        state.tick();
        assert_eq!(heard(), ["leave"], "a media connection ends with its participant");
    }
}
