//! The messages of the protocol: commands as clients send them, replies and pushes as they read them, and the codes.

use crate::websocket::frame;
use bytes::Bytes;
use medtech_kernel::Error;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use std::borrow::Cow;

/// Close codes. Below 3500 a client reconnects by itself, from 3500 on it does not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Disconnect(pub(super) u16, pub(super) &'static str);

impl Disconnect {
    pub(super) const SHUTDOWN: Self = Self(3001, "shutdown");
    pub(super) const SERVER_ERROR: Self = Self(3004, "internal server error");
    pub(super) const EXPIRED: Self = Self(3005, "connection expired");
    pub(super) const SLOW: Self = Self(3008, "slow");
    pub(super) const NO_PONG: Self = Self(3012, "no pong");
    pub(super) const INVALID_TOKEN: Self = Self(3500, "invalid token");
    pub(super) const REVOKED: Self = Self(3500, "session revoked");
    pub(super) const BAD_REQUEST: Self = Self(3501, "bad request");
    pub(super) const STALE: Self = Self(3502, "stale");
    pub(super) const TOO_MANY: Self = Self(4429, "too many requests");
}

/// An error of a reply.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct Failure {
    code: u32,
    message: Cow<'static, str>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    temporary: bool,
}

impl Failure {
    const fn fixed(code: u32, message: &'static str, temporary: bool) -> Self {
        Self {
            code,
            message: Cow::Borrowed(message),
            temporary,
        }
    }

    pub(super) const INTERNAL: Self = Self::fixed(100, "internal server error", true);
    pub(super) const UNKNOWN_CHANNEL: Self = Self::fixed(102, "unknown channel", false);
    pub(super) const PERMISSION_DENIED: Self = Self::fixed(103, "permission denied", false);
    pub(super) const METHOD_NOT_FOUND: Self = Self::fixed(104, "method not found", false);
    pub(super) const ALREADY_SUBSCRIBED: Self = Self::fixed(105, "already subscribed", false);
    pub(super) const LIMIT_EXCEEDED: Self = Self::fixed(106, "limit exceeded", false);
    pub(super) const NOT_AVAILABLE: Self = Self::fixed(108, "not available", false);
    pub(super) const TOKEN_EXPIRED: Self = Self::fixed(109, "token expired", false);
    pub(super) const TOO_MANY: Self = Self::fixed(111, "too many requests", true);
    pub(super) const UNRECOVERABLE: Self = Self::fixed(112, "unrecoverable position", false);
}

impl From<&Error> for Failure {
    fn from(e: &Error) -> Self {
        Self {
            code: e.ws_code(),
            message: e.message.clone(),
            temporary: e.is_transient(),
        }
    }
}

/// One command. Exactly one of the requests is present, or none: then it is a pong.
#[derive(Deserialize)]
pub(super) struct Command<'a> {
    #[serde(default)]
    pub(super) id: u32,
    #[serde(borrow)]
    pub(super) connect: Option<Connect<'a>>,
    #[serde(borrow)]
    pub(super) subscribe: Option<Subscribe<'a>>,
    #[serde(borrow)]
    pub(super) unsubscribe: Option<OfChannel<'a>>,
    #[serde(borrow)]
    pub(super) publish: Option<OfChannel<'a>>,
    #[serde(borrow)]
    pub(super) presence: Option<OfChannel<'a>>,
    #[serde(borrow)]
    pub(super) presence_stats: Option<OfChannel<'a>>,
    #[serde(borrow)]
    pub(super) history: Option<History<'a>>,
    #[serde(borrow)]
    pub(super) rpc: Option<Rpc<'a>>,
    #[serde(borrow)]
    pub(super) refresh: Option<Connect<'a>>,
    #[serde(borrow)]
    pub(super) sub_refresh: Option<&'a RawValue>,
    #[serde(borrow)]
    pub(super) send: Option<&'a RawValue>,
    #[serde(borrow)]
    pub(super) ping: Option<&'a RawValue>,
}

#[derive(Deserialize)]
pub(super) struct Connect<'a> {
    #[serde(default, borrow)]
    pub(super) token: Cow<'a, str>,
}

#[derive(Deserialize)]
pub(super) struct Subscribe<'a> {
    #[serde(borrow)]
    pub(super) channel: Cow<'a, str>,
    #[serde(default)]
    pub(super) recover: bool,
    #[serde(default)]
    pub(super) offset: u64,
    #[serde(default, borrow)]
    pub(super) epoch: Cow<'a, str>,
}

#[derive(Deserialize)]
pub(super) struct OfChannel<'a> {
    #[serde(borrow)]
    pub(super) channel: Cow<'a, str>,
}

#[derive(Deserialize)]
pub(super) struct History<'a> {
    #[serde(borrow)]
    pub(super) channel: Cow<'a, str>,
    #[serde(default)]
    pub(super) limit: i64,
    pub(super) since: Option<Position>,
    #[serde(default)]
    pub(super) reverse: bool,
}

/// A place in a channel's stream.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Position {
    #[serde(default)]
    pub(super) offset: u64,
    #[serde(default)]
    pub(super) epoch: String,
}

#[derive(Deserialize)]
pub(super) struct Rpc<'a> {
    #[serde(default, borrow)]
    pub(super) method: Cow<'a, str>,
    #[serde(borrow)]
    pub(super) data: Option<&'a RawValue>,
}

/// A reply: `{"id":..,"{method}":{body}}`. `body` is JSON on one line.
pub(super) fn reply(id: u32, method: &str, body: &str) -> Bytes {
    frame::text(&format!(r#"{{"id":{id},"{method}":{body}}}"#))
}

pub(super) fn failure(id: u32, failure: &Failure) -> Bytes {
    let body = json(failure);
    frame::text(&format!(r#"{{"id":{id},"error":{body}}}"#))
}

/// A push without a publication, for instance `join`.
pub(super) fn push(channel: &str, kind: &str, body: &str) -> Bytes {
    frame::text(&format!(
        r#"{{"push":{{"channel":{},"{kind}":{body}}}}}"#,
        json(channel)
    ))
}

/// A publication as the whole frame, and as the slice of it that a history answer lists.
pub(super) fn publication(channel: &str, data: &str, offset: Option<u64>) -> (Bytes, Bytes) {
    let entry = match offset {
        Some(offset) => format!(r#"{{"data":{data},"offset":{offset}}}"#),
        None => format!(r#"{{"data":{data}}}"#),
    };
    let frame = push(channel, "pub", &entry);
    // The entry is followed by the two braces that close the push.
    let end = frame.len().saturating_sub(2);
    let entry = frame.slice(end.saturating_sub(entry.len())..end);
    (frame, entry)
}

/// Joins entries to a JSON array.
pub(super) fn array<'a>(entries: impl Iterator<Item = &'a Bytes>) -> String {
    let mut out = String::from("[");
    for entry in entries {
        if out.len() > 1 {
            out.push(',');
        }
        // Entries are slices of frames that were made from a `str`.
        out.push_str(&String::from_utf8_lossy(entry));
    }
    out.push(']');
    out
}

/// Serializes what cannot fail: strings, numbers and plain structs.
pub(super) fn json(value: &(impl Serialize + ?Sized)) -> String {
    serde_json::to_string(value).unwrap_or_else(|_| "null".to_owned())
}

/// JSON on one line: the protocol separates messages by newlines. Inside JSON a raw newline can only be white space.
pub(super) fn one_line(json: &str) -> Cow<'_, str> {
    if json.contains(['\n', '\r']) {
        Cow::Owned(json.replace(['\n', '\r'], " "))
    } else {
        Cow::Borrowed(json)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_publication_is_listed_as_it_was_pushed() {
        let (frame, entry) = publication("board:main", r#"{"a":1}"#, Some(7));
        assert_eq!(
            &frame[2..],
            br#"{"push":{"channel":"board:main","pub":{"data":{"a":1},"offset":7}}}"#
        );
        assert_eq!(&entry[..], br#"{"data":{"a":1},"offset":7}"#);
        assert_eq!(
            array([&entry, &entry].into_iter()),
            r#"[{"data":{"a":1},"offset":7},{"data":{"a":1},"offset":7}]"#
        );
    }

    #[test]
    fn a_channel_name_cannot_break_out_of_its_string() {
        let frame = push("x\"\n:y", "join", "{}");
        assert_eq!(&frame[2..], br#"{"push":{"channel":"x\"\n:y","join":{}}}"#);
    }

    #[test]
    fn white_space_newlines_vanish_and_escaped_ones_stay() {
        assert_eq!(one_line("{\n \"a\": \"b\\n\"\r\n}"), "{  \"a\": \"b\\n\"  }");
    }
}
