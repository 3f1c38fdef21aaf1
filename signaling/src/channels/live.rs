//! From an event of the bus to the data of a push: `{kind, id, at, ...body}`.

use super::protocol::json;
use medtech_kernel::{bus::Event, clock::rfc3339};
use serde::{Deserialize, de::IgnoredAny};

/// Which of our three names the body already uses: as in a JavaScript spread, the body's own wins.
#[derive(Default, Deserialize)]
struct Taken {
    kind: Option<IgnoredAny>,
    id: Option<IgnoredAny>,
    at: Option<IgnoredAny>,
}

pub(super) fn data(event: &Event) -> String {
    let body = event.body.get().trim();
    let mut head = String::with_capacity(body.len() + 128);
    head.push('{');
    let (taken, rest) = match body.strip_prefix('{') {
        Some(rest) => (
            serde_json::from_str::<Taken>(body).unwrap_or_default(),
            rest.trim_start(),
        ),
        None => (Taken::default(), "}"),
    };
    let mut put = |absent: bool, name: &str, value: String| {
        if absent {
            let comma = if head.len() > 1 { "," } else { "" };
            head.push_str(&format!(r#"{comma}"{name}":{value}"#));
        }
    };
    put(taken.kind.is_none(), "kind", json(&event.kind));
    put(taken.id.is_none(), "id", json(&event.id));
    put(taken.at.is_none(), "at", json(&rfc3339(event.at)));
    if head.len() > 1 && !rest.starts_with('}') {
        head.push(',');
    }
    head.push_str(rest);
    head
}

#[cfg(test)]
mod tests {
    use super::*;
    use medtech_kernel::{Clock, TenantId};
    use serde_json::{Value, json};

    fn pushed(body: &Value) -> Value {
        let clock = Clock::manual(1_700_000_000_123);
        let event = Event::new(&clock, TenantId::from_number(1), "visit.updated", "visit:1", body).unwrap();
        let mut value: Value = serde_json::from_str(&data(&event)).unwrap();
        if value["id"] == json!(event.id) {
            value["id"] = json!("its own");
        }
        value
    }

    #[test]
    fn the_body_is_spread_over_kind_id_and_time() {
        let at = "2023-11-14T22:13:20.123Z";
        let with = |body: Value| pushed(&body);
        assert_eq!(
            with(json!({"v": 1})),
            json!({"kind": "visit.updated", "id": "its own", "at": at, "v": 1})
        );
        assert_eq!(
            with(json!({})),
            json!({"kind": "visit.updated", "id": "its own", "at": at})
        );
        assert_eq!(
            with(json!("not an object")),
            json!({"kind": "visit.updated", "id": "its own", "at": at})
        );
        assert_eq!(
            with(json!({"id": "x", "kind": "y", "at": "z"})),
            json!({"id": "x", "kind": "y", "at": "z"})
        );
        assert_eq!(with(json!({"kind": "reading"}))["kind"], "reading");
    }
}
