//! The parameters with which a client opens its signalling connection: a protobuf `JoinRequest` packed into the query
//! (one peer connection, `/rtc/v1`), or plain query parameters (two peer connections, `/rtc`).

use std::collections::HashMap;
use std::io::Read;

use base64::Engine;
use base64::engine::general_purpose::{URL_SAFE, URL_SAFE_NO_PAD};
use livekit_protocol as proto;
use prost::Message;
use proto::wrapped_join_request::Compression;

/// A join request with all its offers stays far below this, unpacked.
const MAX_JOIN_REQUEST: u64 = 1 << 20;

/// What the client said about itself and its wishes.
#[derive(Debug, Clone, Default)]
pub(super) struct JoinParams {
    /// The client uses one peer connection for both directions.
    pub single: bool,
    pub auto_subscribe: bool,
    /// Resume the session of this participant SID.
    pub resume: Option<String>,
    pub publisher_offer: Option<proto::SessionDescription>,
    pub add_tracks: Vec<proto::AddTrackRequest>,
    pub client_protocol: i32,
    pub capabilities: Vec<i32>,
}

#[derive(Debug, thiserror::Error)]
pub(super) enum JoinError {
    #[error("join_request is required")]
    Missing,
    #[error("join_request cannot be read")]
    Malformed,
    #[error("join_request is too large")]
    TooLarge,
}

/// `v1`: the address demands a packed request.
pub(super) fn parse(query: &HashMap<String, String>, v1: bool) -> Result<JoinParams, JoinError> {
    match query.get("join_request").filter(|r| !r.is_empty()) {
        Some(packed) => unpack(packed),
        None if v1 => Err(JoinError::Missing),
        None => Ok(plain(query)),
    }
}

fn plain(query: &HashMap<String, String>) -> JoinParams {
    let flag = |name: &str| query.get(name).is_some_and(|v| v == "1" || v == "true");
    JoinParams {
        single: false,
        auto_subscribe: !query.contains_key("auto_subscribe") || flag("auto_subscribe"),
        resume: flag("reconnect").then(|| query.get("sid").cloned().unwrap_or_default()),
        client_protocol: query
            .get("client_protocol")
            .and_then(|v| v.parse().ok())
            .unwrap_or_default(),
        ..JoinParams::default()
    }
}

fn unpack(packed: &str) -> Result<JoinParams, JoinError> {
    let trimmed = packed.trim_end_matches('=');
    let bytes = URL_SAFE_NO_PAD
        .decode(trimmed)
        .or_else(|_| URL_SAFE.decode(packed))
        .map_err(|_| JoinError::Malformed)?;
    let wrapped = proto::WrappedJoinRequest::decode(&*bytes).map_err(|_| JoinError::Malformed)?;
    let bytes = match wrapped.compression() {
        Compression::None => wrapped.join_request,
        Compression::Gzip => {
            let mut out = Vec::new();
            flate2::read::GzDecoder::new(&*wrapped.join_request)
                .take(MAX_JOIN_REQUEST + 1)
                .read_to_end(&mut out)
                .map_err(|_| JoinError::Malformed)?;
            out
        }
    };
    if bytes.len() as u64 > MAX_JOIN_REQUEST {
        return Err(JoinError::TooLarge);
    }
    let request = proto::JoinRequest::decode(&*bytes).map_err(|_| JoinError::Malformed)?;
    let settings = request.connection_settings.unwrap_or_default();
    let client = request.client_info.unwrap_or_default();
    Ok(JoinParams {
        single: true,
        auto_subscribe: settings.auto_subscribe,
        resume: request.reconnect.then_some(request.participant_sid),
        publisher_offer: request.publisher_offer,
        add_tracks: request.add_track_requests,
        client_protocol: client.client_protocol,
        capabilities: client.capabilities,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    fn packed(compression: Compression, join_request: Vec<u8>) -> HashMap<String, String> {
        let wrapped = proto::WrappedJoinRequest {
            compression: compression.into(),
            join_request,
        };
        HashMap::from([("join_request".to_owned(), URL_SAFE.encode(wrapped.encode_to_vec()))])
    }

    fn gzip(bytes: &[u8]) -> Vec<u8> {
        let mut out = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        out.write_all(bytes).unwrap();
        out.finish().unwrap()
    }

    #[test]
    fn a_packed_request_is_read() {
        let request = proto::JoinRequest {
            reconnect: true,
            participant_sid: "PA_1".into(),
            connection_settings: Some(proto::ConnectionSettings {
                auto_subscribe: true,
                ..Default::default()
            }),
            ..Default::default()
        }
        .encode_to_vec();
        for query in [
            packed(Compression::Gzip, gzip(&request)),
            packed(Compression::None, request.clone()),
        ] {
            let params = parse(&query, true).unwrap();
            assert!(params.single && params.auto_subscribe);
            assert_eq!(params.resume.as_deref(), Some("PA_1"));
        }
    }

    #[test]
    fn hostile_requests_are_refused() {
        assert!(matches!(parse(&HashMap::new(), true), Err(JoinError::Missing)));
        let bomb = packed(Compression::Gzip, gzip(&vec![0; 8 << 20]));
        assert!(matches!(parse(&bomb, true), Err(JoinError::TooLarge)));
        for text in ["%%%", "AAAA", "_-_-_-"] {
            let query = HashMap::from([("join_request".to_owned(), text.to_owned())]);
            let _ = parse(&query, true);
        }
    }

    #[test]
    fn plain_parameters_are_read() {
        let query: HashMap<String, String> = [("reconnect", "1"), ("sid", "PA_2"), ("auto_subscribe", "0")]
            .map(|(k, v)| (k.into(), v.into()))
            .into();
        let params = parse(&query, false).unwrap();
        assert!(!params.single && !params.auto_subscribe);
        assert_eq!(params.resume.as_deref(), Some("PA_2"));
    }
}
