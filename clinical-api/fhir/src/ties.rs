//! Who treats whom, as resources say it: appointments, encounters, care teams, episodes, referrals, and the practitioner a
//! patient has. Read in the transaction of the write, so that access begins and ends with what gives it. Pure.

use crate::extract::local_reference;
use medtech_kernel::{
    clock::{Millis, parse_rfc3339},
    policy::Treatment,
};
use serde_json::Value;

const DAY: Millis = 86_400_000;
/// Before and after an appointment or an encounter: to prepare, and to finish.
const AROUND: Millis = 7 * DAY;
/// What has no end yet is asked about again after this time: it was written within it, or it is over.
const OPEN: Millis = 30 * DAY;
/// A referral is acted on within this time.
const REFERRAL: Millis = 90 * DAY;
/// Without an end.
const EVER: Millis = i64::MAX / 4;

/// Does a resource of this type ever say who treats whom?
pub(crate) fn says(kind: &str) -> bool {
    KINDS.contains(&kind)
}

/// The types that ever do.
pub(crate) const KINDS: [&str; 6] = [
    "Patient",
    "Appointment",
    "Encounter",
    "CareTeam",
    "EpisodeOfCare",
    "ServiceRequest",
];

/// Who treats whom by this resource, written at `now` on the server at `base`.
pub(crate) fn treatments(kind: &str, id: &str, body: &Value, now: Millis, base: &str) -> Vec<Treatment> {
    let status = body.get("status").and_then(Value::as_str).unwrap_or("active");
    let (from, until) = match kind {
        "Patient" if body.get("active").and_then(Value::as_bool) != Some(false) => (0, EVER),
        "Appointment"
            if !matches!(
                status,
                "proposed" | "cancelled" | "entered-in-error" | "waitlist" | "noshow"
            ) =>
        {
            match (instant(body, "/start"), instant(body, "/end")) {
                (Some(start), end) => (start - AROUND, end.unwrap_or(start) + AROUND),
                _ => return Vec::new(),
            }
        }
        "Encounter" if !matches!(status, "cancelled" | "entered-in-error" | "unknown") => {
            let end = instant(body, "/period/end");
            let start = instant(body, "/period/start").or(end).unwrap_or(now);
            (start - AROUND, end.map_or(now.max(start) + OPEN, |e| e + AROUND))
        }
        "CareTeam" | "EpisodeOfCare" if matches!(status, "active" | "onhold") => (
            instant(body, "/period/start").unwrap_or(0),
            instant(body, "/period/end").map_or(EVER, |e| e + DAY),
        ),
        "ServiceRequest" if status == "active" => {
            let at = instant(body, "/authoredOn").unwrap_or(now);
            (at, at + REFERRAL)
        }
        _ => return Vec::new(),
    };
    let list = |name: &str| body.get(name).and_then(Value::as_array).into_iter().flatten();
    let inside = |name: &'static str, part: &'static str| list(name).filter_map(move |p| p.get(part));
    let (people, patients): (Vec<&Value>, Vec<&Value>) = match kind {
        "Patient" => (list("generalPractitioner").collect(), Vec::new()),
        "Appointment" => (
            inside("participant", "actor").collect(),
            inside("participant", "actor").collect(),
        ),
        "Encounter" => (
            inside("participant", "individual").collect(),
            body.get("subject").into_iter().collect(),
        ),
        "CareTeam" => (
            inside("participant", "member").collect(),
            body.get("subject").into_iter().collect(),
        ),
        "EpisodeOfCare" => (
            body.get("careManager").into_iter().collect(),
            body.get("patient").into_iter().collect(),
        ),
        _ => (list("performer").collect(), body.get("subject").into_iter().collect()),
    };
    let mut patients: Vec<String> = patients
        .into_iter()
        .filter_map(|r| target(r, "Patient", base))
        .collect();
    if kind == "Patient" {
        patients.push(id.to_owned());
    }
    let mut all = Vec::new();
    for person in people.into_iter().filter_map(|r| target(r, "Practitioner", base)) {
        for patient in &patients {
            let one = Treatment {
                who: format!("practitioner:{person}"),
                patient: patient.clone(),
                from,
                until,
            };
            if !all.contains(&one) {
                all.push(one);
            }
        }
    }
    all
}

/// The logical id of a reference to a type of this server. Somebody of another server with the same id is somebody else.
fn target(reference: &Value, kind: &str, base: &str) -> Option<String> {
    let (ty, id) = local_reference(reference.get("reference")?.as_str()?, base)?;
    (ty == kind).then_some(id)
}

/// An instant, or the start of a day in UTC.
fn instant(body: &Value, at: &str) -> Option<Millis> {
    let text = body.pointer(at)?.as_str()?;
    parse_rfc3339(text).or_else(|| parse_rfc3339(&format!("{text}T00:00:00Z")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    const NOW: Millis = 1_772_442_000_000;
    const BASE: &str = "http://x/fhir/R4";

    #[test]
    fn who_lies_on_another_server_is_nobody_here() {
        let actor = |r: &str| json!({"actor": {"reference": r}});
        for (patient, practitioner) in [
            ("https://elsewhere/fhir/R4/Patient/p", "Practitioner/d"),
            ("Patient/p", "https://elsewhere/fhir/R4/Practitioner/d"),
            ("http://x/fhir/R4x/Patient/p", "Practitioner/d"),
        ] {
            let body = json!({"status": "booked", "start": "2026-03-10T10:00:00Z",
                "participant": [actor(patient), actor(practitioner)]});
            assert!(
                treatments("Appointment", "a", &body, NOW, BASE).is_empty(),
                "{patient}, {practitioner}"
            );
        }
    }

    #[test]
    fn an_appointment_gives_access_a_week_around_it_and_none_when_cancelled() {
        let actor = |r: &str| json!({"actor": {"reference": r}});
        let mut a = json!({"status": "booked", "start": "2026-03-10T10:00:00Z", "end": "2026-03-10T10:20:00Z",
            "participant": [actor("Patient/p"), actor("Practitioner/d"), actor("Location/l")]});
        let all = treatments("Appointment", "a", &a, NOW, BASE);
        assert_eq!(all.len(), 1);
        assert_eq!((all[0].who.as_str(), all[0].patient.as_str()), ("practitioner:d", "p"));
        assert_eq!(all[0].until - all[0].from, 14 * DAY + 20 * 60_000);
        for status in ["cancelled", "noshow", "proposed", "entered-in-error"] {
            a["status"] = json!(status);
            assert!(treatments("Appointment", "a", &a, NOW, BASE).is_empty(), "{status}");
        }
    }

    #[test]
    fn encounters_teams_episodes_referrals_and_the_patients_own_practitioner() {
        let (p, d) = (
            json!({"reference": "Patient/p"}),
            json!({"reference": "http://x/fhir/R4/Practitioner/d"}),
        );
        for (kind, body) in [
            (
                "Encounter",
                json!({"status": "in-progress", "subject": p, "participant": [{"individual": d}]}),
            ),
            (
                "CareTeam",
                json!({"status": "active", "subject": p, "participant": [{"member": d}]}),
            ),
            (
                "EpisodeOfCare",
                json!({"status": "active", "patient": p, "careManager": d}),
            ),
            (
                "ServiceRequest",
                json!({"status": "active", "subject": p, "performer": [d]}),
            ),
            ("Patient", json!({"generalPractitioner": [d]})),
        ] {
            let all = treatments(kind, "p", &body, NOW, BASE);
            assert!(all.len() == 1 && all[0].from <= NOW && NOW < all[0].until, "{kind}");
            assert_eq!((all[0].who.as_str(), all[0].patient.as_str()), ("practitioner:d", "p"));
        }
        let over =
            json!({"status": "active", "subject": p, "participant": [{"member": d}], "period": {"end": "2026-02-01"}});
        assert!(treatments("CareTeam", "c", &over, NOW, BASE)[0].until < NOW);
    }
}
