//! Who may see and hear whom, and telling them when that changes.

use livekit_protocol as proto;
use medtech_media_sfu::{Command, ParticipantId, RoomId, TrackId};
use proto::signal_response::Message as Response;

use super::grants::Permission;
use super::room::RoomKey;
use super::state::{State, update};

impl State {
    /// Set what a participant may do, now and whenever it comes back.
    pub(super) fn set_permission(&mut self, key: &RoomKey, identity: &str, permission: Permission) -> bool {
        self.rights
            .insert((key.clone(), identity.to_owned()), permission.clone());
        let Some(room_id) = self.by_key.get(key).copied() else {
            return false;
        };
        let Some(id) = self
            .rooms
            .get(&room_id)
            .and_then(|r| r.by_identity(identity))
            .map(|p| p.id)
        else {
            return false;
        };
        let Some(participant) = self.participant(room_id, id) else {
            return false;
        };
        if participant.permission == permission {
            return true;
        }
        participant.permission = permission.clone();
        let refused: Vec<(TrackId, String)> = participant
            .tracks
            .iter()
            .filter(|(_, t)| permission.can_publish && !permission.may_publish(t.info.source))
            .map(|(id, t)| (*id, t.info.sid.clone()))
            .collect();
        // First stop what must stop, then tell.
        self.engine(Command::SetPermission {
            room: room_id,
            participant: id,
            permission: permission.to_engine(),
        });
        for (track, track_sid) in refused {
            self.remove_track(room_id, id, track);
            if let Some(participant) = self.participant(room_id, id) {
                participant.send(Response::TrackUnpublished(proto::TrackUnpublishedResponse {
                    track_sid,
                }));
            }
        }
        self.changed(room_id, id);
        true
    }

    /// A participant changed: tell its own client and everybody who sees it, or who begins or ceases to.
    pub(super) fn changed(&mut self, room_id: RoomId, id: ParticipantId) {
        let Some(participant) = self.participant(room_id, id) else {
            return;
        };
        participant.version += 1;
        let info = participant.info();
        participant.send(update(info.clone()));
        let Some(room) = self.rooms.get_mut(&room_id) else {
            return;
        };
        for other in room.participants.values_mut().filter(|p| p.sees.contains(&id)) {
            other.send(update(info.clone()));
        }
        self.refresh_sight(room_id);
    }

    /// Bring what everybody knows of everybody in line with what they may know. Rooms are small; sight changes are rare.
    pub(super) fn refresh_sight(&mut self, room_id: RoomId) {
        let mut commands = Vec::new();
        let Some(room) = self.rooms.get_mut(&room_id) else {
            return;
        };
        let ids: Vec<ParticipantId> = room.participants.keys().copied().collect();
        for viewer in &ids {
            for target in ids.iter().filter(|t| *t != viewer) {
                let (Some(v), Some(t)) = (room.participants.get(viewer), room.participants.get(target)) else {
                    continue;
                };
                let (may, does) = (v.may_see(t), v.sees.contains(target));
                if may == does {
                    continue;
                }
                let info = if may {
                    t.info()
                } else {
                    t.gone_info(proto::DisconnectReason::UnknownReason)
                };
                let tracks: Vec<TrackId> = t.tracks.iter().filter(|(_, t)| t.live).map(|(id, _)| *id).collect();
                let subscribe = may && v.auto_subscribe;
                for track in tracks {
                    let (room, participant) = (room_id, *viewer);
                    if subscribe {
                        commands.push(Command::Subscribe {
                            room,
                            participant,
                            track,
                        });
                    } else if !may {
                        commands.push(Command::Unsubscribe {
                            room,
                            participant,
                            track,
                        });
                    }
                }
                if let Some(v) = room.participants.get_mut(viewer) {
                    if may {
                        v.sees.insert(*target);
                    } else {
                        v.sees.remove(target);
                    }
                    v.send(update(info));
                }
            }
        }
        for command in commands {
            self.engine(command);
        }
    }
}
