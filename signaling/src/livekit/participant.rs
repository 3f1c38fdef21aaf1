//! A participant as the others and its own client see it.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use bytes::Bytes;
use livekit_protocol as proto;
use medtech_media_sfu::{Layer, MediaKind, ParticipantId, TrackId};
use prost::Message;
use proto::participant_info::State as WireState;
use proto::signal_response::Message as Response;
use tokio::sync::mpsc;

use super::grants::Permission;

/// The number of one signalling connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct ConnectionId(pub u64);

/// The sending half of a signalling connection.
#[derive(Debug, Clone)]
pub(super) struct Connection {
    pub id: ConnectionId,
    /// Bounded; a client that does not read is cut, and may resume.
    pub out: mpsc::Sender<Bytes>,
}

#[derive(Debug)]
pub(super) struct Participant {
    pub id: ParticipantId,
    pub sid: String,
    pub identity: String,
    pub name: String,
    pub metadata: String,
    pub attributes: HashMap<String, String>,
    pub permission: Permission,
    pub joined_at: i64,
    pub version: u32,
    pub active: bool,
    pub auto_subscribe: bool,
    /// One peer connection for both directions.
    pub single: bool,
    pub client_protocol: i32,
    pub capabilities: Vec<i32>,
    pub connection: Option<Connection>,
    /// When the signalling connection was lost, unix milliseconds.
    pub lost_at: Option<i64>,
    pub tracks: BTreeMap<TrackId, Published>,
    /// Participants that its client knows of.
    pub sees: BTreeSet<ParticipantId>,
}

/// A track that the participant announced.
#[derive(Debug)]
pub(super) struct Published {
    pub info: proto::TrackInfo,
    /// It has a media section, and the others know it.
    pub live: bool,
}

impl Participant {
    pub(super) fn info(&self) -> proto::ParticipantInfo {
        let state = if self.active {
            WireState::Active
        } else {
            WireState::Joined
        };
        let tracks: Vec<proto::TrackInfo> = if self.permission.can_publish {
            self.tracks
                .values()
                .filter(|t| t.live)
                .map(|t| t.info.clone())
                .collect()
        } else {
            Vec::new()
        };
        proto::ParticipantInfo {
            sid: self.sid.clone(),
            identity: self.identity.clone(),
            name: self.name.clone(),
            state: state.into(),
            is_publisher: !tracks.is_empty(),
            tracks,
            metadata: self.metadata.clone(),
            attributes: self.attributes.clone(),
            joined_at: self.joined_at / 1000,
            joined_at_ms: self.joined_at,
            version: self.version,
            permission: Some(self.permission.to_proto()),
            client_protocol: self.client_protocol,
            capabilities: self.capabilities.clone(),
            ..proto::ParticipantInfo::default()
        }
    }

    /// How it looks to those who lose sight of it.
    pub(super) fn gone_info(&self, reason: proto::DisconnectReason) -> proto::ParticipantInfo {
        proto::ParticipantInfo {
            sid: self.sid.clone(),
            identity: self.identity.clone(),
            state: WireState::Disconnected.into(),
            version: self.version,
            joined_at: self.joined_at / 1000,
            joined_at_ms: self.joined_at,
            disconnect_reason: reason.into(),
            ..proto::ParticipantInfo::default()
        }
    }

    /// Whether this participant's client may know of the other.
    pub(super) fn may_see(&self, other: &Participant) -> bool {
        self.id != other.id && !other.permission.hidden && !self.permission.is_waiting()
    }

    /// Queue a message to the client. A full queue means that it does not read: its connection is given up.
    pub(super) fn send(&mut self, message: Response) {
        let Some(connection) = &self.connection else { return };
        let bytes = encode(message);
        if connection.out.try_send(bytes).is_err() {
            tracing::info!(participant = %self.sid, "signalling connection is closed or does not read");
            self.connection = None;
        }
    }

    pub(super) fn track_by_sid(&self, sid: &str) -> Option<TrackId> {
        self.tracks.iter().find(|(_, t)| t.info.sid == sid).map(|(id, _)| *id)
    }
}

pub(super) fn encode(message: Response) -> Bytes {
    proto::SignalResponse { message: Some(message) }.encode_to_vec().into()
}

/// The media stream that a track belongs to: camera and microphone share one, so that receivers keep them in step.
pub(super) fn stream_of(request: &proto::AddTrackRequest) -> String {
    let wanted: String = request
        .stream
        .chars()
        .filter(|c| c.is_ascii_alphanumeric() || *c == '_')
        .take(24)
        .collect();
    if !wanted.is_empty() {
        return wanted;
    }
    match request.source() {
        proto::TrackSource::ScreenShare | proto::TrackSource::ScreenShareAudio => "screen_share".to_owned(),
        _ => "camera".to_owned(),
    }
}

/// The public description of an announced track.
pub(super) fn track_info(sid: &str, request: &proto::AddTrackRequest) -> proto::TrackInfo {
    let default_mime = match request.r#type() {
        proto::TrackType::Audio => "audio/opus",
        _ => "video/VP8",
    };
    #[expect(deprecated, reason = "clients in use still read these fields")]
    proto::TrackInfo {
        sid: sid.to_owned(),
        r#type: request.r#type,
        name: request.name.clone(),
        muted: request.muted,
        width: request.width,
        height: request.height,
        simulcast: request.layers.len() > 1 || request.simulcast_codecs.len() > 1,
        disable_dtx: request.disable_dtx,
        source: request.source,
        layers: request.layers.clone(),
        mime_type: default_mime.to_owned(),
        codecs: request
            .simulcast_codecs
            .iter()
            .map(|codec| proto::SimulcastCodecInfo {
                mime_type: mime(request.r#type(), &codec.codec),
                cid: codec.cid.clone(),
                layers: if codec.layers.is_empty() {
                    request.layers.clone()
                } else {
                    codec.layers.clone()
                },
                video_layer_mode: codec.video_layer_mode,
                ..proto::SimulcastCodecInfo::default()
            })
            .collect(),
        stereo: request.stereo,
        disable_red: true,
        encryption: request.encryption,
        stream: stream_of(request),
        audio_features: request.audio_features.clone(),
        backup_codec_policy: request.backup_codec_policy,
        packet_trailer_features: request.packet_trailer_features.clone(),
        ..proto::TrackInfo::default()
    }
}

fn mime(kind: proto::TrackType, codec: &str) -> String {
    if codec.contains('/') {
        return codec.to_owned();
    }
    let top = if kind == proto::TrackType::Audio {
        "audio"
    } else {
        "video"
    };
    format!("{top}/{codec}")
}

pub(super) fn media_kind(kind: proto::TrackType) -> Option<MediaKind> {
    match kind {
        proto::TrackType::Audio => Some(MediaKind::Audio),
        proto::TrackType::Video => Some(MediaKind::Video),
        proto::TrackType::Data => None,
    }
}

/// The largest layer of use to a subscriber: by the size of its picture when it tells one, else by the quality asked.
pub(super) fn wanted_layer(info: &proto::TrackInfo, settings: &proto::UpdateTrackSettings) -> Layer {
    if settings.width == 0 || settings.height == 0 {
        return layer_of(settings.quality());
    }
    #[expect(deprecated, reason = "the field that clients fill in")]
    let layers = &info.layers;
    layers
        .iter()
        .filter(|l| l.width >= settings.width || l.height >= settings.height)
        .min_by_key(|l| u64::from(l.width) * u64::from(l.height))
        .map_or(Layer::HIGH, |l| layer_of(l.quality()))
}

fn layer_of(quality: proto::VideoQuality) -> Layer {
    match quality {
        proto::VideoQuality::Low | proto::VideoQuality::Off => Layer(0),
        proto::VideoQuality::Medium => Layer(1),
        proto::VideoQuality::High => Layer(2),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_small_picture_gets_a_small_layer() {
        let layer = |quality: proto::VideoQuality, width, height| proto::VideoLayer {
            quality: quality.into(),
            width,
            height,
            ..proto::VideoLayer::default()
        };
        #[expect(deprecated, reason = "the field that clients fill in")]
        let info = proto::TrackInfo {
            layers: vec![
                layer(proto::VideoQuality::Low, 320, 180),
                layer(proto::VideoQuality::Medium, 640, 360),
                layer(proto::VideoQuality::High, 1280, 720),
            ],
            ..proto::TrackInfo::default()
        };
        let wish = |width, height| proto::UpdateTrackSettings {
            width,
            height,
            ..Default::default()
        };
        assert_eq!(wanted_layer(&info, &wish(200, 112)), Layer(0));
        assert_eq!(wanted_layer(&info, &wish(400, 225)), Layer(1));
        assert_eq!(wanted_layer(&info, &wish(1920, 1080)), Layer(2));
        let by_quality = proto::UpdateTrackSettings {
            quality: proto::VideoQuality::Medium.into(),
            ..Default::default()
        };
        assert_eq!(wanted_layer(&info, &by_quality), Layer(1));
    }
}
