use super::*;
use proptest::prelude::*;

const HOST: &str = "user:0190a000-0000-7000-8000-000000000001";
const GUEST: &str = "guest:0190a000-0000-7000-8000-000000000002";

fn event(participants: Value) -> VisitEvent {
    serde_json::from_value(json!({
        "visit_id": "0190a000-0000-7000-8000-0000000000aa",
        "context_ref": "Appointment/a1", "subject_ref": "Patient/p1", "conversation_id": "c1",
        "host": {"subject": HOST, "name": "Dr Host"}, "guest": {"subject": GUEST, "name": "Pat Guest"},
        "arrived_at": "2026-03-02T09:00:00Z", "participants": participants,
    }))
    .unwrap()
}

fn practitioners() -> HashMap<String, String> {
    HashMap::from([(HOST.to_owned(), "Practitioner/d1".to_owned())])
}

fn at(text: &str) -> Millis {
    parse_rfc3339(text).unwrap()
}

#[test]
fn a_visit_from_arrival_to_end() {
    let who = practitioners();
    let e = fold(None, Step::Arrived, at("2026-03-02T09:00:01Z"), &event(json!([])), &who);
    assert_eq!((&e["status"], &e["class"]["code"]), (&json!("arrived"), &json!("VR")));
    assert_eq!(
        e["identifier"][0]["value"],
        "urn:uuid:0190a000-0000-7000-8000-0000000000aa"
    );
    let stays = json!([
        {"subject": HOST, "name": "Dr Host", "intervals": [{"from": "2026-03-02T09:04:00Z"}]},
        {"subject": GUEST, "name": "Pat Guest", "intervals": [{"from": "2026-03-02T09:05:00Z"}]},
    ]);
    let e = fold(Some(e), Step::Admitted, at("2026-03-02T09:05:00Z"), &event(stays), &who);
    let e = fold(Some(e), Step::Held, at("2026-03-02T09:07:00Z"), &event(json!([])), &who);
    assert_eq!(e["status"], "onleave");
    let e = fold(
        Some(e),
        Step::Admitted,
        at("2026-03-02T09:08:00Z"),
        &event(json!([])),
        &who,
    );
    let stays = json!([
        {"subject": HOST, "name": "Dr Host", "intervals": [{"from": "2026-03-02T09:04:00Z", "to": "2026-03-02T09:20:30Z"}]},
        {"subject": GUEST, "name": "Pat Guest", "intervals": [
            {"from": "2026-03-02T09:05:00Z", "to": "2026-03-02T09:07:00Z"}, {"from": "2026-03-02T09:08:00Z", "to": null}]},
    ]);
    let e = fold(Some(e), Step::Ended, at("2026-03-02T09:20:31Z"), &event(stays), &who);
    assert_eq!(e["status"], "finished");
    let history: Vec<(&str, &str, &str)> = items(&e, "statusHistory")
        .map(|h| {
            (
                text(h, "status").unwrap(),
                text(&h["period"], "start").unwrap(),
                text(&h["period"], "end").unwrap(),
            )
        })
        .collect();
    assert_eq!(
        history,
        [
            ("arrived", "2026-03-02T09:00:00.000Z", "2026-03-02T09:05:00.000Z"),
            ("in-progress", "2026-03-02T09:05:00.000Z", "2026-03-02T09:07:00.000Z"),
            ("onleave", "2026-03-02T09:07:00.000Z", "2026-03-02T09:08:00.000Z"),
            ("in-progress", "2026-03-02T09:08:00.000Z", "2026-03-02T09:20:31.000Z"),
        ]
    );
    assert_eq!(
        e["period"],
        json!({"start": "2026-03-02T09:04:00.000Z", "end": "2026-03-02T09:20:31.000Z"})
    );
    assert_eq!(e["participant"].as_array().unwrap().len(), 3);
    assert_eq!(e["participant"][0]["individual"]["reference"], "Practitioner/d1");
    assert_eq!(e["participant"][0]["period"]["end"], "2026-03-02T09:20:30.000Z");
    assert_eq!(e["participant"][2]["type"][0]["coding"][0]["code"], "SBJ");
    assert_eq!(
        e["participant"][2]["period"]["end"], "2026-03-02T09:20:31.000Z",
        "an open stay ends with the visit"
    );
}

#[test]
fn a_visit_nobody_came_to_is_cancelled() {
    let mut none = event(json!([]));
    none.arrived_at = None;
    let e = fold(None, Step::Ended, 1_000, &none, &practitioners());
    assert_eq!(e["status"], "cancelled");
    assert!(e.get("statusHistory").is_none() && e.get("participant").is_none());
}

#[test]
fn the_same_step_twice_changes_nothing() {
    let who = practitioners();
    let once = fold(None, Step::Arrived, 5_000, &event(json!([])), &who);
    assert_eq!(
        fold(Some(once.clone()), Step::Arrived, 9_000, &event(json!([])), &who),
        once
    );
}

proptest! {
    /// Whatever the stays: each is one participant with its own times, and the encounter's period holds them all.
    #[test]
    fn times_are_true(stays in prop::collection::vec((0_u8..3, 0_i64..500_000, prop::option::of(0_i64..500_000)), 0..12), ended in 500_000_i64..900_000) {
        let base = at("2026-03-02T09:00:00Z");
        let subjects = [HOST, GUEST, "guest:other"];
        let list: Vec<Value> = subjects.iter().enumerate().map(|(i, s)| {
            let own: Vec<Value> = stays.iter().filter(|(w, _, _)| usize::from(*w) == i)
                .map(|(_, from, long)| json!({"from": rfc3339(base + from), "to": long.map(|l| rfc3339((base + from + l).min(base + ended)))})).collect();
            json!({"subject": s, "name": "x", "intervals": own})
        }).collect();
        let ev = event(Value::Array(list));
        let e = fold(None, Step::Arrived, base, &event(json!([])), &practitioners());
        let e = fold(Some(e), Step::Ended, base + ended, &ev, &practitioners());
        let time = |v: &Value| parse_rfc3339(v.as_str().unwrap()).unwrap();
        prop_assert_eq!(items(&e, "participant").count(), stays.len());
        prop_assert_eq!(text(&e, "status"), Some(if stays.is_empty() { "cancelled" } else { "finished" }));
        let (start, end) = (time(&e["period"]["start"]), time(&e["period"]["end"]));
        prop_assert!(start <= end);
        for p in items(&e, "participant") {
            let (from, to) = (time(&p["period"]["start"]), time(&p["period"]["end"]));
            prop_assert!(start <= from && from <= to && to <= end);
        }
        let mut wanted: Vec<(i64, i64)> = stays.iter().map(|(_, f, l)| (base + f, l.map_or(base + ended, |l| (base + f + l).min(base + ended)))).collect();
        let mut found: Vec<(i64, i64)> = items(&e, "participant").map(|p| (time(&p["period"]["start"]), time(&p["period"]["end"]))).collect();
        wanted.sort_unstable();
        found.sort_unstable();
        prop_assert_eq!(wanted, found);
    }
}
