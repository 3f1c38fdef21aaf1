//! What a participant may do, in our own words and in the protocol's.

use livekit_protocol as proto;

use super::token::VideoGrant;

/// Rights of a participant in a room.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Permission {
    pub can_publish: bool,
    pub can_subscribe: bool,
    pub can_publish_data: bool,
    pub can_update_metadata: bool,
    /// Others are not told that the participant exists.
    pub hidden: bool,
    /// Sources that may be published; empty means all.
    pub sources: Vec<i32>,
}

impl Permission {
    /// Connected, but neither seen nor heard, nor seeing or hearing anybody.
    #[must_use]
    pub fn waiting() -> Permission {
        Permission {
            can_publish: false,
            can_subscribe: false,
            can_publish_data: false,
            can_update_metadata: false,
            hidden: true,
            sources: Vec::new(),
        }
    }

    /// Takes part with picture, sound and data.
    #[must_use]
    pub fn full() -> Permission {
        Permission {
            can_publish: true,
            can_subscribe: true,
            can_publish_data: true,
            can_update_metadata: false,
            hidden: false,
            sources: Vec::new(),
        }
    }

    /// Whether the participant is kept outside: it is not told about the others either.
    #[must_use]
    pub fn is_waiting(&self) -> bool {
        self.hidden && !self.can_publish && !self.can_subscribe
    }

    pub(super) fn may_publish(&self, source: i32) -> bool {
        self.can_publish && (self.sources.is_empty() || self.sources.contains(&source))
    }

    pub(super) fn from_grant(grant: &VideoGrant) -> Permission {
        Permission {
            can_publish: grant.can_publish.unwrap_or(true),
            can_subscribe: grant.can_subscribe.unwrap_or(true),
            can_publish_data: grant.can_publish_data.or(grant.can_publish).unwrap_or(true),
            can_update_metadata: grant.can_update_own_metadata.unwrap_or(false),
            hidden: grant.hidden,
            sources: grant
                .can_publish_sources
                .iter()
                .filter_map(|s| proto::TrackSource::from_str_name(&s.to_ascii_uppercase()))
                .map(i32::from)
                .collect(),
        }
    }

    pub(super) fn to_grant(&self, room: &str) -> VideoGrant {
        let name = |source: &i32| {
            Some(
                proto::TrackSource::try_from(*source)
                    .ok()?
                    .as_str_name()
                    .to_ascii_lowercase(),
            )
        };
        VideoGrant {
            room_join: true,
            room: room.to_owned(),
            can_publish: Some(self.can_publish),
            can_subscribe: Some(self.can_subscribe),
            can_publish_data: Some(self.can_publish_data),
            can_update_own_metadata: Some(self.can_update_metadata),
            can_publish_sources: self.sources.iter().filter_map(name).collect(),
            hidden: self.hidden,
            ..VideoGrant::default()
        }
    }

    pub(super) fn from_proto(p: &proto::ParticipantPermission) -> Permission {
        Permission {
            can_publish: p.can_publish,
            can_subscribe: p.can_subscribe,
            can_publish_data: p.can_publish_data,
            can_update_metadata: p.can_update_metadata,
            hidden: p.hidden,
            sources: p.can_publish_sources.clone(),
        }
    }

    pub(super) fn to_proto(&self) -> proto::ParticipantPermission {
        proto::ParticipantPermission {
            can_publish: self.can_publish,
            can_subscribe: self.can_subscribe,
            can_publish_data: self.can_publish_data,
            can_update_metadata: self.can_update_metadata,
            hidden: self.hidden,
            can_publish_sources: self.sources.clone(),
            ..proto::ParticipantPermission::default()
        }
    }

    pub(super) fn to_engine(&self) -> medtech_media_sfu::Permission {
        medtech_media_sfu::Permission {
            can_publish: self.can_publish,
            can_subscribe: self.can_subscribe,
            can_publish_data: self.can_publish_data,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grants_survive_the_token() {
        for permission in [Permission::waiting(), Permission::full()] {
            assert_eq!(Permission::from_grant(&permission.to_grant("r")), permission);
        }
        let only_mic = Permission {
            sources: vec![proto::TrackSource::Microphone.into()],
            ..Permission::full()
        };
        assert_eq!(Permission::from_grant(&only_mic.to_grant("r")), only_mic);
        assert!(!only_mic.may_publish(proto::TrackSource::Camera.into()));
    }

    #[test]
    fn an_empty_grant_allows_as_the_protocol_says() {
        let permission = Permission::from_grant(&VideoGrant::default());
        assert!(permission.can_publish && permission.can_subscribe && !permission.hidden);
    }
}
