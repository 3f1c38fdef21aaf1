//! LiveKit's room service over Twirp: protobuf or JSON bodies, for servers and SDKs that manage rooms.

use axum::Router;
use axum::body::Bytes;
use axum::extract::{Path, State as Extracted};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use http::{HeaderMap, StatusCode, header};
use livekit_protocol as proto;
use medtech_media_sfu::{DataKind, ParticipantId};
use prost::Message;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::TenantId;
use super::events::LeaveReason;
use super::grants::Permission;
use super::service::{LiveKit, LiveKitError, room_key};
use super::token::Claims;

pub(super) fn router(service: LiveKit) -> Router {
    Router::new()
        .route("/twirp/livekit.RoomService/{method}", post(handle))
        .with_state(service)
}

/// A Twirp error: a code with its HTTP status.
struct Fault(StatusCode, &'static str, String);

impl Fault {
    fn not_found() -> Fault {
        Fault(
            StatusCode::NOT_FOUND,
            "not_found",
            "requested room or participant does not exist".to_owned(),
        )
    }

    fn denied() -> Fault {
        Fault(
            StatusCode::FORBIDDEN,
            "permission_denied",
            "the token does not allow this".to_owned(),
        )
    }
}

impl From<LiveKitError> for Fault {
    fn from(error: LiveKitError) -> Fault {
        match error {
            LiveKitError::NotFound => Fault::not_found(),
            other => Fault(StatusCode::SERVICE_UNAVAILABLE, "unavailable", other.to_string()),
        }
    }
}

impl IntoResponse for Fault {
    fn into_response(self) -> Response {
        let body = serde_json::json!({ "code": self.1, "msg": self.2 }).to_string();
        (self.0, [(header::CONTENT_TYPE, "application/json")], body).into_response()
    }
}

struct Caller {
    service: LiveKit,
    tenant: TenantId,
    claims: Claims,
    json: bool,
    body: Bytes,
}

async fn handle(
    Extracted(service): Extracted<LiveKit>,
    Path(method): Path<String>,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let text = |name| headers.get(name).and_then(|h| h.to_str().ok()).unwrap_or_default();
    let token = text(header::AUTHORIZATION).strip_prefix("Bearer ").unwrap_or_default();
    let (key, claims) = match service.check_token(token) {
        Ok(checked) => checked,
        Err(error) => return Fault(StatusCode::UNAUTHORIZED, "unauthenticated", error.to_string()).into_response(),
    };
    let json = text(header::CONTENT_TYPE).starts_with("application/json");
    let caller = Caller {
        service,
        tenant: key.tenant,
        claims,
        json,
        body,
    };
    let done = match method.as_str() {
        "ListRooms" => caller.list_rooms().await,
        "ListParticipants" => caller.list_participants().await,
        "GetParticipant" => caller.get_participant().await,
        "RemoveParticipant" => caller.remove_participant().await,
        "MutePublishedTrack" => caller.mute_published_track().await,
        "UpdateParticipant" => caller.update_participant().await,
        "UpdateSubscriptions" => caller.update_subscriptions().await,
        "DeleteRoom" => caller.delete_room().await,
        "SendData" => caller.send_data().await,
        _ => Err(Fault(StatusCode::NOT_FOUND, "bad_route", "no such method".to_owned())),
    };
    done.unwrap_or_else(IntoResponse::into_response)
}

impl Caller {
    fn read<T: Message + Default + DeserializeOwned>(&self) -> Result<T, Fault> {
        let malformed = || {
            Fault(
                StatusCode::BAD_REQUEST,
                "malformed",
                "the body cannot be read".to_owned(),
            )
        };
        if self.json {
            let body: &[u8] = if self.body.is_empty() { b"{}" } else { &self.body };
            serde_json::from_slice(body).map_err(|_| malformed())
        } else {
            T::decode(self.body.clone()).map_err(|_| malformed())
        }
    }

    fn reply<T: Message + Serialize>(&self, message: &T) -> Result<Response, Fault> {
        if self.json {
            let body = serde_json::to_string(message)
                .map_err(|e| Fault(StatusCode::INTERNAL_SERVER_ERROR, "internal", e.to_string()))?;
            Ok(([(header::CONTENT_TYPE, "application/json")], body).into_response())
        } else {
            Ok((
                [(header::CONTENT_TYPE, "application/protobuf")],
                message.encode_to_vec(),
            )
                .into_response())
        }
    }

    fn admin(&self, room: &str) -> Result<(), Fault> {
        let grant = &self.claims.video;
        if grant.room_admin && grant.room == room {
            Ok(())
        } else {
            Err(Fault::denied())
        }
    }

    async fn list_rooms(&self) -> Result<Response, Fault> {
        let request: proto::ListRoomsRequest = self.read()?;
        if !self.claims.video.room_list {
            return Err(Fault::denied());
        }
        let tenant = self.tenant;
        let rooms = self
            .service
            .call(move |state| {
                let wanted = |name: &String| request.names.is_empty() || request.names.contains(name);
                let of_tenant = state
                    .rooms
                    .values()
                    .filter(|r| r.key.tenant == tenant && wanted(&r.key.name));
                of_tenant.map(|r| r.info()).collect()
            })
            .await?;
        self.reply(&proto::ListRoomsResponse { rooms })
    }

    async fn list_participants(&self) -> Result<Response, Fault> {
        let request: proto::ListParticipantsRequest = self.read()?;
        self.admin(&request.room)?;
        let participants = self.service.participants(self.tenant, &request.room).await?;
        self.reply(&proto::ListParticipantsResponse { participants })
    }

    async fn get_participant(&self) -> Result<Response, Fault> {
        let request: proto::RoomParticipantIdentity = self.read()?;
        self.admin(&request.room)?;
        let everybody = self.service.participants(self.tenant, &request.room).await?;
        let found = everybody.into_iter().find(|p| p.identity == request.identity);
        self.reply(&found.ok_or_else(Fault::not_found)?)
    }

    async fn remove_participant(&self) -> Result<Response, Fault> {
        let request: proto::RoomParticipantIdentity = self.read()?;
        self.admin(&request.room)?;
        self.service
            .remove(self.tenant, &request.room, &request.identity, LeaveReason::Removed)
            .await?;
        self.reply(&proto::RemoveParticipantResponse {})
    }

    async fn mute_published_track(&self) -> Result<Response, Fault> {
        let request: proto::MuteRoomTrackRequest = self.read()?;
        self.admin(&request.room)?;
        let key = room_key(self.tenant, &request.room);
        let track = self
            .service
            .call(move |state| {
                use proto::signal_response::Message as Signal;
                let room = *state.by_key.get(&key)?;
                let r = state.rooms.get(&room)?;
                let p = r.by_identity(&request.identity)?;
                let (id, track) = (p.id, p.track_by_sid(&request.track_sid)?);
                state.set_muted(room, id, track, request.muted);
                let p = state.participant(room, id)?;
                p.send(Signal::Mute(proto::MuteTrackRequest {
                    sid: request.track_sid,
                    muted: request.muted,
                }));
                Some(p.tracks.get(&track)?.info.clone())
            })
            .await?;
        self.reply(&proto::MuteRoomTrackResponse {
            track: Some(track.ok_or_else(Fault::not_found)?),
        })
    }

    async fn update_participant(&self) -> Result<Response, Fault> {
        let request: proto::UpdateParticipantRequest = self.read()?;
        self.admin(&request.room)?;
        let key = room_key(self.tenant, &request.room);
        let info = self
            .service
            .call(move |state| {
                let room = *state.by_key.get(&key)?;
                let id = state.rooms.get(&room)?.by_identity(&request.identity)?.id;
                if let Some(permission) = &request.permission {
                    state.set_permission(&key, &request.identity, Permission::from_proto(permission));
                }
                let p = state.participant(room, id)?;
                if !request.metadata.is_empty() {
                    p.metadata = request.metadata;
                }
                if !request.name.is_empty() {
                    p.name = request.name;
                }
                p.attributes.extend(request.attributes);
                p.attributes.retain(|_, value| !value.is_empty());
                state.changed(room, id);
                Some(state.participant(room, id)?.info())
            })
            .await?;
        self.reply(&info.ok_or_else(Fault::not_found)?)
    }

    async fn update_subscriptions(&self) -> Result<Response, Fault> {
        let request: proto::UpdateSubscriptionsRequest = self.read()?;
        self.admin(&request.room)?;
        let key = room_key(self.tenant, &request.room);
        let done = self
            .service
            .call(move |state| {
                let room = *state.by_key.get(&key)?;
                let id = state.rooms.get(&room)?.by_identity(&request.identity)?.id;
                let update = proto::UpdateSubscription {
                    track_sids: request.track_sids,
                    subscribe: request.subscribe,
                    participant_tracks: request.participant_tracks,
                };
                state.update_subscription(room, id, &update);
                Some(())
            })
            .await?;
        done.ok_or_else(Fault::not_found)?;
        self.reply(&proto::UpdateSubscriptionsResponse {})
    }

    async fn delete_room(&self) -> Result<Response, Fault> {
        let request: proto::DeleteRoomRequest = self.read()?;
        if !self.claims.video.room_create {
            self.admin(&request.room)?;
        }
        self.service.close_room(self.tenant, &request.room).await?;
        self.reply(&proto::DeleteRoomResponse {})
    }

    async fn send_data(&self) -> Result<Response, Fault> {
        let request: proto::SendDataRequest = self.read()?;
        self.admin(&request.room)?;
        let key = room_key(self.tenant, &request.room);
        let done = self
            .service
            .call(move |state| {
                let room = *state.by_key.get(&key)?;
                let named = &request.destination_identities;
                let to: Vec<ParticipantId> = state
                    .rooms
                    .get(&room)?
                    .participants
                    .values()
                    .filter(|p| !p.permission.is_waiting() && (named.is_empty() || named.contains(&p.identity)))
                    .map(|p| p.id)
                    .collect();
                let kind = match request.kind() {
                    proto::data_packet::Kind::Reliable => DataKind::Reliable,
                    proto::data_packet::Kind::Lossy => DataKind::Lossy,
                };
                let user = proto::UserPacket {
                    payload: request.data,
                    topic: request.topic,
                    nonce: request.nonce,
                    ..proto::UserPacket::default()
                };
                let packet = proto::DataPacket {
                    destination_identities: request.destination_identities,
                    value: Some(proto::data_packet::Value::User(user)),
                    ..proto::DataPacket::default()
                };
                state.send_data(room, to, kind, &packet);
                Some(())
            })
            .await?;
        done.ok_or_else(Fault::not_found)?;
        self.reply(&proto::SendDataResponse {})
    }
}
