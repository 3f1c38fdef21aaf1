//! Packets of MQTT 3.1.1 and 5 in one shape. The codec reads the bytes; what it leaves unchecked is checked here.

use bytes::{Bytes, BytesMut};
use bytestring::ByteString;
use rmqtt_codec::{MqttCodec, MqttPacket, error::DecodeError, types::Publish, v3, v5, version::ProtocolVersion};
use std::num::NonZeroU16;
use tokio_util::codec::{Decoder, Encoder};

/// Bytes of one packet after its fixed header. A pack of 200 readings is about 12 KiB.
pub(super) const MAX_PACKET: u32 = 64 * 1024;
/// Publications a device may have unacknowledged; past that it is not read.
pub(super) const RECEIVE_MAX: u16 = 200;

/// Which protocol a connection speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Version {
    V3,
    V5,
}

/// Why a packet or a connection is refused; the numbers are MQTT 5 reason codes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Reason {
    Malformed = 0x81,
    Protocol = 0x82,
    BadCredentials = 0x86,
    NotAuthorized = 0x87,
    Busy = 0x89,
    ShuttingDown = 0x8B,
    KeepAlive = 0x8D,
    TakenOver = 0x8E,
    TopicName = 0x90,
    TopicAlias = 0x94,
    TooLarge = 0x95,
    Quota = 0x97,
    Administrative = 0x98,
    Payload = 0x99,
    Retain = 0x9A,
    QoS = 0x9B,
}

/// A refusal: the code, and a sentence for the device's maker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Refusal(pub Reason, pub &'static str);

/// The first packet.
#[derive(Debug)]
pub(super) struct Hello {
    pub client: String,
    /// Seconds; 0: none asked for.
    pub keep_alive: u16,
    pub username: Option<String>,
    pub password: Option<Bytes>,
    pub will: Option<(String, Bytes)>,
    /// Commands the client takes unacknowledged.
    pub receive_max: u16,
}

/// What a client may send after it.
#[derive(Debug)]
pub(super) enum In {
    Hello(Box<Hello>),
    Publish(Box<Publish>),
    Release(NonZeroU16),
    Acknowledged,
    Subscribe(NonZeroU16, Vec<(ByteString, u8)>),
    Unsubscribe(NonZeroU16, Vec<ByteString>),
    Ping,
    /// `true`: the will is to be published all the same.
    Bye(bool),
    Unexpected,
}

/// One answer to a filter of a subscription.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Granted {
    QoS(u8),
    NotAuthorized,
    Wildcard,
}

/// A codec that has learned its version from the first packet.
pub(super) struct Wire {
    codec: MqttCodec,
    pub version: Version,
}

/// What the first bytes are.
pub(super) enum Start {
    More,
    Speaks(Wire),
    /// Not to be served: these bytes, possibly none, are the answer.
    Refuse(&'static [u8]),
}

impl Wire {
    /// Looks at the first bytes of a connection without taking them.
    pub(super) fn start(buf: &mut BytesMut) -> Start {
        if buf.first().is_some_and(|b| *b != 0x10) {
            return Start::Refuse(&[]);
        }
        match (MqttCodec::Version(rmqtt_codec::version::VersionCodec)).decode(buf) {
            Ok(None) if buf.len() < 16 => Start::More,
            Ok(Some((MqttPacket::Version(ProtocolVersion::MQTT3), _))) if level(buf, b"MQTT") == Some(4) => {
                Start::Speaks(Self {
                    codec: MqttCodec::V3(v3::Codec::new(MAX_PACKET)),
                    version: Version::V3,
                })
            }
            Ok(Some((MqttPacket::Version(ProtocolVersion::MQTT5), _))) => Start::Speaks(Self {
                codec: MqttCodec::V5(v5::Codec::new(MAX_PACKET, MAX_PACKET)),
                version: Version::V5,
            }),
            _ => Start::Refuse(wrong_level(buf)),
        }
    }

    /// The next packet, if it has arrived whole.
    pub(super) fn read(&mut self, buf: &mut BytesMut) -> Result<Option<In>, Refusal> {
        match self.codec.decode(buf) {
            Ok(None) => Ok(None),
            Ok(Some((MqttPacket::V3(p), size))) => from_v3(p, size).map(Some),
            Ok(Some((MqttPacket::V5(p), _))) => {
                if let v5::Packet::Connect(c) = &p
                    && let (MqttCodec::V5(codec), Some(max)) = (&mut self.codec, c.max_packet_size)
                {
                    codec.set_max_outbound_size(max.get());
                }
                from_v5(p).map(Some)
            }
            Ok(Some((MqttPacket::Version(_), _))) => Err(Refusal(Reason::Protocol, "unexpected packet")),
            Err(DecodeError::MaxSizeExceeded { .. }) => {
                Err(Refusal(Reason::TooLarge, "the packet is larger than 65536 bytes"))
            }
            Err(_) => Err(Refusal(Reason::Malformed, "the packet is malformed")),
        }
    }

    fn write(&mut self, out: &mut BytesMut, v3: Option<v3::Packet>, v5: Option<v5::Packet>) {
        let packet = match self.version {
            Version::V3 => v3.map(MqttPacket::V3),
            Version::V5 => v5.map(MqttPacket::V5),
        };
        let Some(packet) = packet else { return };
        let before = out.len();
        if let Err(e) = self.codec.encode(packet, out) {
            // Larger than the client takes: it goes without, as the standard says.
            out.truncate(before);
            tracing::debug!(error = %e, "mqtt: packet not sent");
        }
    }

    pub(super) fn welcome(&mut self, out: &mut BytesMut, assigned: Option<&str>, keep_alive: Option<u16>) {
        let v3 = v3::ConnectAck {
            return_code: v3::ConnectAckReason::ConnectionAccepted,
            session_present: false,
        };
        let v5 = v5::ConnectAck {
            session_expiry_interval_secs: Some(0),
            receive_max: NonZeroU16::new(RECEIVE_MAX).unwrap_or(NonZeroU16::MIN),
            max_qos: v5::QoS::AtLeastOnce,
            max_packet_size: Some(MAX_PACKET),
            assigned_client_id: assigned.map(ByteString::from),
            topic_alias_max: 0,
            retain_available: false,
            wildcard_subscription_available: false,
            subscription_identifiers_available: false,
            shared_subscription_available: false,
            server_keepalive_sec: keep_alive,
            ..v5::ConnectAck::default()
        };
        self.write(out, Some(v3::Packet::ConnectAck(v3)), Some(v5.into()));
    }

    /// A refused CONNECT. For 5 written by hand: an error carries none of the properties of success.
    pub(super) fn unwelcome(&mut self, out: &mut BytesMut, Refusal(reason, text): Refusal) {
        match self.version {
            Version::V3 => {
                let code = match reason {
                    Reason::BadCredentials => 4,
                    Reason::Busy | Reason::Quota | Reason::ShuttingDown => 3,
                    Reason::NotAuthorized => 5,
                    // The standard has no code for it: the connection just ends.
                    _ => return,
                };
                out.extend_from_slice(&[0x20, 2, 0, code]);
            }
            Version::V5 => {
                let text = text.as_bytes();
                // All our texts are short; the two lengths below stay in one byte each.
                let (Ok(len), Ok(props)) = (u8::try_from(text.len()), u8::try_from(text.len() + 3)) else {
                    return;
                };
                if props > 120 {
                    out.extend_from_slice(&[0x20, 3, 0, reason as u8, 0]);
                    return;
                }
                out.extend_from_slice(&[0x20, props + 3, 0, reason as u8, props, 0x1F, 0, len]);
                out.extend_from_slice(text);
            }
        }
    }

    /// PUBACK, or PUBREC for QoS 2 (only 3.1.1 gets that far). Refusals exist in 5 alone.
    pub(super) fn acknowledge(
        &mut self,
        out: &mut BytesMut,
        id: NonZeroU16,
        exactly_once: bool,
        refusal: Option<Refusal>,
    ) {
        let v3 = if exactly_once {
            v3::Packet::PublishReceived { packet_id: id }
        } else {
            v3::Packet::PublishAck { packet_id: id }
        };
        let reason_code = match refusal {
            None => v5::PublishAckReason::Success,
            Some(Refusal(Reason::Payload, _)) => v5::PublishAckReason::PayloadFormatInvalid,
            Some(Refusal(Reason::NotAuthorized, _)) => v5::PublishAckReason::NotAuthorized,
            Some(_) => v5::PublishAckReason::UnspecifiedError,
        };
        let reason_string = refusal.map(|r| ByteString::from_static(r.1));
        let v5 = v5::PublishAck {
            packet_id: id,
            reason_code,
            properties: Vec::new(),
            reason_string,
        };
        self.write(out, refusal.is_none().then_some(v3), Some(v5.into()));
    }

    pub(super) fn complete(&mut self, out: &mut BytesMut, id: NonZeroU16) {
        let reason_code = v5::PublishAck2Reason::PacketIdNotFound;
        let v5 = v5::PublishAck2 {
            packet_id: id,
            reason_code,
            properties: Vec::new(),
            reason_string: None,
        };
        self.write(
            out,
            Some(v3::Packet::PublishComplete { packet_id: id }),
            Some(v5::Packet::PublishComplete(v5)),
        );
    }

    pub(super) fn subscribed(&mut self, out: &mut BytesMut, id: NonZeroU16, granted: &[Granted]) {
        let v3 = granted.iter().map(|g| match g {
            Granted::QoS(0) => v3::SubscribeReturnCode::Success(v3::QoS::AtMostOnce),
            Granted::QoS(_) => v3::SubscribeReturnCode::Success(v3::QoS::AtLeastOnce),
            Granted::NotAuthorized | Granted::Wildcard => v3::SubscribeReturnCode::Failure,
        });
        let v5 = granted.iter().map(|g| match g {
            Granted::QoS(0) => v5::SubscribeAckReason::GrantedQos0,
            Granted::QoS(_) => v5::SubscribeAckReason::GrantedQos1,
            Granted::NotAuthorized => v5::SubscribeAckReason::NotAuthorized,
            Granted::Wildcard => v5::SubscribeAckReason::WildcardSubscriptionsNotSupported,
        });
        let v5 = v5::SubscribeAck {
            packet_id: id,
            properties: Vec::new(),
            reason_string: None,
            status: v5.collect(),
        };
        self.write(
            out,
            Some(v3::Packet::SubscribeAck {
                packet_id: id,
                status: v3.collect(),
            }),
            Some(v5.into()),
        );
    }

    pub(super) fn unsubscribed(&mut self, out: &mut BytesMut, id: NonZeroU16, existed: &[bool]) {
        let status = existed.iter().map(|e| match e {
            true => v5::UnsubscribeAckReason::Success,
            false => v5::UnsubscribeAckReason::NoSubscriptionExisted,
        });
        let v5 = v5::UnsubscribeAck {
            packet_id: id,
            properties: Vec::new(),
            reason_string: None,
            status: status.collect(),
        };
        self.write(out, Some(v3::Packet::UnsubscribeAck { packet_id: id }), Some(v5.into()));
    }

    pub(super) fn pong(&mut self, out: &mut BytesMut) {
        self.write(out, Some(v3::Packet::PingResponse), Some(v5::Packet::PingResponse));
    }

    pub(super) fn command(&mut self, out: &mut BytesMut, topic: &str, id: Option<NonZeroU16>, payload: Bytes) {
        let qos = if id.is_some() {
            v3::QoS::AtLeastOnce
        } else {
            v3::QoS::AtMostOnce
        };
        let publish = Publish {
            dup: false,
            retain: false,
            qos,
            topic: topic.into(),
            packet_id: id,
            payload,
            properties: None,
        };
        self.write(
            out,
            Some(v3::Packet::Publish(Box::new(publish.clone()))),
            Some(v5::Packet::Publish(Box::new(publish))),
        );
    }

    /// Says why the connection ends; 3.1.1 cannot.
    pub(super) fn bye(&mut self, out: &mut BytesMut, Refusal(reason, text): Refusal) {
        let Ok(code) = v5::DisconnectReasonCode::try_from(reason as u8) else {
            return;
        };
        let reason_string = Some(ByteString::from_static(text));
        let v5 = v5::Disconnect {
            reason_string,
            ..v5::Disconnect::new(code)
        };
        self.write(out, None, Some(v5.into()));
    }
}

/// The protocol level behind a protocol name near the start of a CONNECT.
fn level(buf: &[u8], name: &[u8]) -> Option<u8> {
    let at = buf.windows(name.len()).take(8).position(|w| w == name)?;
    buf.get(at + name.len()).copied()
}

/// The answer to a CONNECT of a protocol level that is not served.
fn wrong_level(buf: &[u8]) -> &'static [u8] {
    match (level(buf, b"MQTT"), level(buf, b"MQIsdp")) {
        (Some(level), _) if level > 5 => &[0x20, 3, 0, 0x84, 0],
        (Some(_), _) | (_, Some(_)) => &[0x20, 2, 0, 1],
        _ => &[],
    }
}

fn from_v3(packet: v3::Packet, size: u32) -> Result<In, Refusal> {
    let exact = |wanted: usize, found: In| {
        // The codec ignores bytes after the fields.
        if usize::try_from(size).is_ok_and(|s| s == wanted) {
            Ok(found)
        } else {
            Err(Refusal(Reason::Malformed, "trailing bytes"))
        }
    };
    match packet {
        v3::Packet::Connect(c) => {
            let v3::Connect {
                keep_alive,
                last_will,
                client_id,
                username,
                password,
                ..
            } = *c;
            if username.is_none() && password.is_some() {
                return Err(Refusal(Reason::Malformed, "a password without a user name"));
            }
            let size = 12
                + client_id.len()
                + last_will.as_ref().map_or(0, |w| 4 + w.topic.len() + w.message.len())
                + username.as_ref().map_or(0, |u| 2 + u.len())
                + password.as_ref().map_or(0, |p| 2 + p.len());
            let hello = Hello {
                client: client_id.to_string(),
                keep_alive,
                username: username.map(|u| u.to_string()),
                password,
                will: last_will.map(|w| (w.topic.to_string(), w.message)),
                receive_max: 20,
            };
            exact(size, In::Hello(Box::new(hello)))
        }
        v3::Packet::Publish(p) => Ok(In::Publish(p)),
        v3::Packet::PublishRelease { packet_id } => Ok(In::Release(packet_id)),
        v3::Packet::PublishAck { .. } => Ok(In::Acknowledged),
        v3::Packet::Subscribe {
            packet_id,
            topic_filters,
        } if !topic_filters.is_empty() => Ok(In::Subscribe(
            packet_id,
            topic_filters.into_iter().map(|(f, q)| (f, q.value())).collect(),
        )),
        v3::Packet::Unsubscribe {
            packet_id,
            topic_filters,
        } if !topic_filters.is_empty() => Ok(In::Unsubscribe(packet_id, topic_filters)),
        v3::Packet::PingRequest => exact(0, In::Ping),
        v3::Packet::Disconnect => exact(0, In::Bye(false)),
        _ => Ok(In::Unexpected),
    }
}

fn from_v5(packet: v5::Packet) -> Result<In, Refusal> {
    Ok(match packet {
        v5::Packet::Connect(c) => {
            if c.auth_method.is_some() {
                return Err(Refusal(Reason::BadCredentials, "no extended authentication here"));
            }
            In::Hello(Box::new(Hello {
                client: c.client_id.to_string(),
                keep_alive: c.keep_alive,
                username: c.username.map(|u| u.to_string()),
                password: c.password,
                will: c.last_will.map(|w| (w.topic.to_string(), w.message)),
                receive_max: c.receive_max.map_or(20, |m| m.get().min(20)),
            }))
        }
        v5::Packet::Publish(p) => In::Publish(p),
        v5::Packet::PublishRelease(p) => In::Release(p.packet_id),
        v5::Packet::PublishAck(_) => In::Acknowledged,
        v5::Packet::Subscribe(s) if !s.topic_filters.is_empty() => In::Subscribe(
            s.packet_id,
            s.topic_filters.into_iter().map(|(f, o)| (f, o.qos.value())).collect(),
        ),
        v5::Packet::Unsubscribe(u) if !u.topic_filters.is_empty() => In::Unsubscribe(u.packet_id, u.topic_filters),
        v5::Packet::PingRequest => In::Ping,
        v5::Packet::Disconnect(d) => In::Bye(d.reason_code == v5::DisconnectReasonCode::DisconnectWithWillMessage),
        _ => In::Unexpected,
    })
}
