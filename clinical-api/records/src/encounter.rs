//! A visit becomes an Encounter (class VR): a fold over the visit's events, with the true times of everyone. Pure.

use crate::fhirish::{Time, coding, items, reference, text, uri_identifier};
use medtech_kernel::clock::{Millis, parse_rfc3339, rfc3339};
use serde::Deserialize;
use serde_json::{Value, json};
use std::collections::HashMap;
use uuid::Uuid;

const PARTICIPATION: &str = "http://terminology.hl7.org/CodeSystem/v3-ParticipationType";
const ACT: &str = "http://terminology.hl7.org/CodeSystem/v3-ActCode";

/// Someone in a visit.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Person {
    pub subject: String,
    pub name: String,
}

/// From when until when someone was in the consultation; open while they still are.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Interval {
    pub from: Time,
    #[serde(default)]
    pub to: Option<Time>,
}

#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Participant {
    pub subject: String,
    #[serde(default)]
    pub name: String,
    #[serde(default)]
    pub intervals: Vec<Interval>,
}

/// The body of `visit.requested`, `visit.arrived`, `visit.admitted`, `visit.held` and `visit.ended`.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct VisitEvent {
    pub visit_id: Uuid,
    #[serde(default)]
    pub context_ref: Option<String>,
    #[serde(default)]
    pub subject_ref: Option<String>,
    #[serde(default)]
    pub host: Person,
    #[serde(default)]
    pub guest: Person,
    #[serde(default)]
    pub arrived_at: Option<Time>,
    #[serde(default)]
    pub ended_at: Option<Time>,
    #[serde(default)]
    pub participants: Vec<Participant>,
}

impl VisitEvent {
    /// What is known of a visit that nobody has come to yet.
    pub(crate) fn planned(visit_id: Uuid, context_ref: Option<String>, subject_ref: Option<String>) -> Self {
        Self {
            visit_id,
            context_ref,
            subject_ref,
            host: Person::default(),
            guest: Person::default(),
            arrived_at: None,
            ended_at: None,
            participants: Vec::new(),
        }
    }
}

/// What happened to the visit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    Planned,
    Arrived,
    Admitted,
    Held,
    Ended,
}

impl Step {
    pub(crate) fn of(kind: &str) -> Option<Self> {
        Some(match kind {
            "visit.requested" => Self::Planned,
            "visit.arrived" => Self::Arrived,
            "visit.admitted" => Self::Admitted,
            "visit.held" => Self::Held,
            "visit.ended" => Self::Ended,
            _ => return None,
        })
    }

    /// R4 EncounterStatus. A patient who is sent back to wait is on leave from an encounter that has begun; an
    /// encounter in which nobody ever met is cancelled, not finished.
    fn status(self, met: bool) -> &'static str {
        match self {
            Self::Planned => "planned",
            Self::Arrived => "arrived",
            Self::Admitted => "in-progress",
            Self::Held if met => "onleave",
            Self::Held => "arrived",
            Self::Ended if met => "finished",
            Self::Ended => "cancelled",
        }
    }
}

/// The Encounter after `step`, which happened at `at`. `practitioners` names the Practitioner reference of each
/// subject that has one.
pub(crate) fn fold(
    previous: Option<Value>,
    step: Step,
    at: Millis,
    event: &VisitEvent,
    practitioners: &HashMap<String, String>,
) -> Value {
    let at = match step {
        Step::Arrived => event.arrived_at.map_or(at, |t| t.0),
        Step::Ended => event.ended_at.map_or(at, |t| t.0),
        Step::Planned | Step::Admitted | Step::Held => at,
    };
    let mut encounter = previous.unwrap_or_else(|| new(event));
    let ended = (step == Step::Ended).then_some(at);
    let begun = |e: &Value| items(e, "statusHistory").any(|h| text(h, "status") == Some("in-progress"));
    let status = step.status(
        step == Step::Admitted || begun(&encounter) || event.participants.iter().any(|p| !p.intervals.is_empty()),
    );
    transition(&mut encounter, status, at, ended.is_some());
    let participants = participants(event, practitioners, ended);
    if !participants.is_empty() {
        encounter["participant"] = Value::Array(participants);
    }
    if let Some(period) = period(&encounter, event, ended) {
        encounter["period"] = period;
    }
    encounter
}

fn new(event: &VisitEvent) -> Value {
    let mut encounter = json!({
        "resourceType": "Encounter",
        "identifier": [uri_identifier(&format!("urn:uuid:{}", event.visit_id))],
        "status": "planned",
        "statusHistory": [],
        "class": coding(ACT, "VR", "virtual"),
    });
    if let Some(subject) = &event.subject_ref {
        encounter["subject"] = reference(subject);
    }
    if let Some(appointment) = event.context_ref.as_ref().filter(|r| r.starts_with("Appointment/")) {
        encounter["appointment"] = json!([reference(appointment)]);
    }
    encounter
}

/// Closes the status that held until `at` and, unless the encounter is over, opens the new one.
fn transition(encounter: &mut Value, status: &str, at: Millis, over: bool) {
    let mut history: Vec<Value> = items(encounter, "statusHistory").cloned().collect();
    let unchanged = text(encounter, "status") == Some(status) && !history.is_empty();
    if let Some(last) = history.last_mut().filter(|_| !unchanged) {
        let start = last
            .pointer("/period/start")
            .and_then(Value::as_str)
            .and_then(parse_rfc3339)
            .unwrap_or(at);
        last["period"]["end"] = json!(rfc3339(at.max(start)));
    }
    if !unchanged && !over {
        history.push(json!({"status": status, "period": {"start": rfc3339(at)}}));
    }
    // R4 has no empty arrays.
    match encounter.as_object_mut() {
        Some(map) if history.is_empty() => drop(map.shift_remove("statusHistory")),
        _ => encounter["statusHistory"] = Value::Array(history),
    }
    encounter["status"] = json!(status);
}

/// One entry for each stay of each person; a stay still open when the visit ends, ends with it. R4 has no Patient
/// among the individuals of a participant: the patient's stays are of type subject, and `Encounter.subject` says who.
fn participants(event: &VisitEvent, practitioners: &HashMap<String, String>, ended: Option<Millis>) -> Vec<Value> {
    let mut out = Vec::new();
    for person in &event.participants {
        let role = if person.subject == event.guest.subject {
            coding(PARTICIPATION, "SBJ", "subject")
        } else if person.subject == event.host.subject {
            coding(PARTICIPATION, "PPRF", "primary performer")
        } else {
            coding(PARTICIPATION, "PART", "Participation")
        };
        for stay in &person.intervals {
            let start = stay.from.0;
            let mut period = json!({"start": rfc3339(start)});
            if let Some(end) = end_of(stay, ended) {
                period["end"] = json!(rfc3339(end));
            }
            let mut entry = json!({"type": [{"coding": [role]}], "period": period});
            if let Some(practitioner) = practitioners.get(&person.subject) {
                entry["individual"] = json!({"reference": practitioner, "display": person.name});
            } else if person.subject != event.guest.subject {
                entry["individual"] = json!({"display": person.name});
            }
            out.push(entry);
        }
    }
    out
}

fn end_of(stay: &Interval, ended: Option<Millis>) -> Option<Millis> {
    stay.to.map(|t| t.0).or(ended).map(|end| end.max(stay.from.0))
}

/// From the moment the first two could meet (or, short of that, the admission) to the end.
fn period(encounter: &Value, event: &VisitEvent, ended: Option<Millis>) -> Option<Value> {
    let stays = || event.participants.iter().flat_map(|p| &p.intervals);
    let admitted = items(encounter, "statusHistory")
        .find(|h| text(h, "status") == Some("in-progress"))
        .and_then(|h| h.pointer("/period/start")?.as_str())
        .and_then(parse_rfc3339);
    let start = stays()
        .map(|s| s.from.0)
        .min()
        .into_iter()
        .chain(admitted)
        .min()
        .or(event.arrived_at.map(|t| t.0))?;
    let mut period = json!({"start": rfc3339(start)});
    if let Some(ended) = ended {
        let end = stays()
            .filter_map(|s| end_of(s, Some(ended)))
            .max()
            .unwrap_or(ended)
            .max(start)
            .max(ended);
        period["end"] = json!(rfc3339(end));
    }
    Some(period)
}

#[cfg(test)]
mod tests;
