//! The shapes visits have outside: what clients read, what durable events carry, what requests say.

use super::{
    machine::{self, Interval, Presence, Side},
    media::Rights,
};
use medtech_kernel::clock::{Millis, serde_rfc3339};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// A participant by name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Person {
    pub subject: String,
    pub name: String,
}

/// Body of the durable `visit.requested`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Requested {
    pub visit_id: Uuid,
    pub title: String,
    #[serde(with = "serde_rfc3339")]
    pub start: Millis,
    pub host: Person,
    pub guest: Person,
    #[serde(default)]
    pub subject_ref: Option<String>,
    #[serde(default)]
    pub context_ref: Option<String>,
    /// SHA-256 of the link's token, hexadecimal (base64url is understood too).
    pub link_hash: String,
    /// Absent: a day after the start.
    #[serde(default, with = "serde_rfc3339::option")]
    pub link_expires: Option<Millis>,
}

/// Body of the durable `visit.rescheduled`: what holds from now on.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Rescheduled {
    pub visit_id: Uuid,
    #[serde(with = "serde_rfc3339")]
    pub start: Millis,
    #[serde(with = "serde_rfc3339")]
    pub link_expires: Millis,
    /// Absent: as it is.
    #[serde(default)]
    pub subject_ref: Option<String>,
    /// Absent: as it is.
    #[serde(default)]
    pub guest_name: Option<String>,
}

/// Body of the durable `visit.cancelled`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Cancelled {
    pub visit_id: Uuid,
}

/// Outcome of trying one device.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Probe {
    Ok,
    Denied,
    Missing,
    Skipped,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeviceCheck {
    pub camera: Probe,
    pub microphone: Probe,
    pub speaker: Probe,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Consent {
    pub accepted: bool,
    pub text_version: String,
    pub language: String,
}

/// A visit with everything that is stored of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    pub id: Uuid,
    pub rev: i64,
    pub title: String,
    pub start: Millis,
    pub host: Person,
    pub guest: Person,
    pub subject_ref: Option<String>,
    pub context_ref: Option<String>,
    pub conversation: Option<Uuid>,
    pub check: Option<DeviceCheck>,
    pub consent: Option<Consent>,
    pub host_seen: Option<Millis>,
    pub guest_seen: Option<Millis>,
    /// Others of the clinic who have joined, by name.
    pub colleagues: Vec<Person>,
    pub now: machine::Visit,
}

impl Record {
    /// Which side a subject is on.
    #[must_use]
    pub fn side(&self, subject: &str) -> Option<Side> {
        if subject == self.host.subject {
            Some(Side::Host)
        } else if subject == self.guest.subject {
            Some(Side::Guest)
        } else {
            None
        }
    }

    #[must_use]
    pub fn person(&self, side: Side) -> &Person {
        match side {
            Side::Host => &self.host,
            Side::Guest => &self.guest,
        }
    }

    /// What a side may do in the room now. The host may from the beginning; the guest once past the lobby.
    #[must_use]
    pub fn rights(&self, side: Side) -> Rights {
        match side {
            _ if self.now.state == machine::State::Ended => Rights::NONE,
            Side::Guest if !self.now.state.is_inside() => Rights::NONE,
            Side::Host | Side::Guest => Rights::FULL,
        }
    }

    /// What a colleague may do in the room: as much as the guest, and at no other time.
    #[must_use]
    pub fn colleague_rights(&self) -> Rights {
        self.rights(Side::Guest)
    }

    #[must_use]
    pub fn colleague(&self, subject: &str) -> Option<&Person> {
        self.colleagues.iter().find(|c| c.subject == subject)
    }

    fn participants(&self) -> Vec<Participant> {
        [(&self.host, &self.now.host), (&self.guest, &self.now.guest)]
            .into_iter()
            .map(|(person, presence): (&Person, &Presence)| Participant {
                subject: person.subject.clone(),
                name: person.name.clone(),
                intervals: presence.intervals.iter().copied().map(Into::into).collect(),
            })
            .collect()
    }

    /// What a client reads. `position` is the place in the queue, from 1; the references are for the host's side alone.
    #[must_use]
    pub fn view(&self, for_host: bool, position: Option<i64>, online: bool) -> View {
        View {
            id: self.id,
            rev: self.rev,
            title: self.title.clone(),
            state: self.now.state,
            start: self.start,
            host: self.host.clone(),
            guest: GuestView {
                subject: self.guest.subject.clone(),
                name: self.guest.name.clone(),
                device_check: self.check.clone(),
                consented_at: self.now.consented_at,
                online,
            },
            arrived_at: self.now.arrived_at,
            admitted_at: self.now.admitted_at,
            ended_at: self.now.ended_at,
            cancelled_at: self.now.cancelled_at,
            position,
            conversation_id: self.conversation,
            subject_ref: self.subject_ref.clone().filter(|_| for_host),
            context_ref: self.context_ref.clone().filter(|_| for_host),
            participants: self.participants(),
            colleagues: self.colleagues.clone(),
            may: None,
        }
    }

    /// What durable events say.
    #[must_use]
    pub fn fact(&self) -> Fact {
        Fact {
            visit_id: self.id,
            title: self.title.clone(),
            start: self.start,
            context_ref: self.context_ref.clone(),
            subject_ref: self.subject_ref.clone(),
            conversation_id: self.conversation,
            host: self.host.clone(),
            guest: self.guest.clone(),
            arrived_at: self.now.arrived_at,
            admitted_at: self.now.admitted_at,
            ended_at: self.now.ended_at,
            participants: self.participants(),
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Span {
    #[serde(with = "serde_rfc3339")]
    pub from: Millis,
    #[serde(default, with = "serde_rfc3339::option", skip_serializing_if = "Option::is_none")]
    pub to: Option<Millis>,
}

impl From<Interval> for Span {
    fn from(i: Interval) -> Self {
        Self { from: i.from, to: i.to }
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Participant {
    pub subject: String,
    pub name: String,
    pub intervals: Vec<Span>,
}

#[derive(Clone, Debug, Serialize)]
pub struct GuestView {
    pub subject: String,
    pub name: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub device_check: Option<DeviceCheck>,
    #[serde(with = "serde_rfc3339::option", skip_serializing_if = "Option::is_none")]
    pub consented_at: Option<Millis>,
    pub online: bool,
}

/// A visit as clients read it. Of two views the one with the greater `rev` is the newer.
#[derive(Clone, Debug, Serialize)]
pub struct View {
    pub id: Uuid,
    pub rev: i64,
    pub title: String,
    pub state: machine::State,
    #[serde(with = "serde_rfc3339")]
    pub start: Millis,
    pub host: Person,
    pub guest: GuestView,
    #[serde(with = "serde_rfc3339::option", skip_serializing_if = "Option::is_none")]
    pub arrived_at: Option<Millis>,
    #[serde(with = "serde_rfc3339::option", skip_serializing_if = "Option::is_none")]
    pub admitted_at: Option<Millis>,
    #[serde(with = "serde_rfc3339::option", skip_serializing_if = "Option::is_none")]
    pub ended_at: Option<Millis>,
    #[serde(with = "serde_rfc3339::option", skip_serializing_if = "Option::is_none")]
    pub cancelled_at: Option<Millis>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub position: Option<i64>,
    pub conversation_id: Option<Uuid>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub subject_ref: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub context_ref: Option<String>,
    pub participants: Vec<Participant>,
    /// Others of the clinic who have joined: everyone in the visit sees who they are.
    pub colleagues: Vec<Person>,
    /// What whoever asked may do here; only in answers to people of the clinic.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub may: Option<Vec<May>>,
}

/// What somebody of the clinic may do with a visit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum May {
    /// Admit, send back, end.
    Lead,
    /// Be in the call and the chat.
    Talk,
    /// Become a participant of it, as a colleague.
    Join,
}

/// Body of the durable `visit.arrived`, `visit.admitted`, `visit.held` and `visit.ended`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Fact {
    pub visit_id: Uuid,
    pub title: String,
    #[serde(with = "serde_rfc3339")]
    pub start: Millis,
    pub context_ref: Option<String>,
    pub subject_ref: Option<String>,
    pub conversation_id: Option<Uuid>,
    pub host: Person,
    pub guest: Person,
    #[serde(with = "serde_rfc3339::option")]
    pub arrived_at: Option<Millis>,
    #[serde(with = "serde_rfc3339::option")]
    pub admitted_at: Option<Millis>,
    #[serde(with = "serde_rfc3339::option")]
    pub ended_at: Option<Millis>,
    pub participants: Vec<Participant>,
}

/// The link's hash as the appointment wrote it.
#[must_use]
pub fn parse_hash(text: &str) -> Option<[u8; 32]> {
    use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
    if text.len() == 64 {
        let mut out = [0; 32];
        for (i, byte) in out.iter_mut().enumerate() {
            *byte = u8::from_str_radix(text.get(2 * i..2 * i + 2)?, 16).ok()?;
        }
        return Some(out);
    }
    URL_SAFE_NO_PAD.decode(text.trim_end_matches('=')).ok()?.try_into().ok()
}
