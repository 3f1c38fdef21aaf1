//! The bodies of a shard's replies.

use super::{
    counters::{Counters, add},
    history::{Stream, page},
    protocol::{self, Failure, Position, json},
    shard::{Channel, Question},
};
use medtech_kernel::clock::Millis;

impl Question {
    pub(super) fn method(&self) -> &'static str {
        match self {
            Self::Presence => "presence",
            Self::PresenceStats => "presence_stats",
            Self::History { .. } => "history",
        }
    }
}

/// The body of a subscribe reply on a positioned channel.
pub(super) fn subscribed(stream: &mut Stream, recover: Option<&Position>, now: Millis, counters: &Counters) -> String {
    let Position { offset, epoch } = stream.position();
    let head = format!(r#""recoverable":true,"positioned":true,"epoch":{}"#, json(&epoch));
    let Some(from) = recover else {
        return format!(r#"{{{head},"offset":{offset}}}"#);
    };
    match stream.recover(from, now) {
        Some(missed) => {
            add(&counters.recovered, 1);
            // The offset recovered from: each publication handed over moves the client's position on.
            let (missed, at) = (protocol::array(missed), from.offset);
            format!(r#"{{{head},"offset":{at},"was_recovering":true,"recovered":true,"publications":{missed}}}"#)
        }
        None => {
            add(&counters.unrecovered, 1);
            format!(r#"{{{head},"offset":{offset},"was_recovering":true}}"#)
        }
    }
}

pub(super) fn answer_of(channel: &mut Channel, what: &Question, now: Millis) -> Result<String, Failure> {
    match what {
        Question::Presence | Question::PresenceStats if !channel.rule.presence => Err(Failure::NOT_AVAILABLE),
        Question::History { .. } if !channel.is_positioned() => Err(Failure::NOT_AVAILABLE),
        Question::Presence => {
            let clients: Vec<String> = channel
                .present()
                .map(|i| format!("{}:{}", json(&i.client), i.json()))
                .collect();
            Ok(format!(r#"{{"presence":{{{}}}}}"#, clients.join(",")))
        }
        Question::PresenceStats => {
            let mut users: Vec<&str> = channel.present().map(|i| i.subject.as_str()).collect();
            let clients = users.len();
            users.sort_unstable();
            users.dedup();
            Ok(format!(r#"{{"num_clients":{},"num_users":{}}}"#, clients, users.len()))
        }
        Question::History { limit, since, reverse } => {
            let Position { offset, epoch } = channel.stream.position();
            // 0 asks for the position alone, a negative limit for all there is.
            let limit = usize::try_from(*limit).unwrap_or(usize::MAX);
            let entries = match (since, reverse) {
                _ if limit == 0 => "[]".to_owned(),
                (since, true) => {
                    let found = channel
                        .stream
                        .backwards(since.as_ref(), now)
                        .ok_or(Failure::UNRECOVERABLE)?;
                    protocol::array(page(found, limit))
                }
                (Some(since), false) => {
                    let found = channel.stream.since(since, now).ok_or(Failure::UNRECOVERABLE)?;
                    protocol::array(page(found, limit))
                }
                (None, false) => protocol::array(page(channel.stream.forwards(now), limit)),
            };
            Ok(format!(
                r#"{{"publications":{entries},"epoch":{},"offset":{offset}}}"#,
                json(&epoch)
            ))
        }
    }
}
