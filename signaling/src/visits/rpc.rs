//! `visit.admit`, `visit.hold`, `visit.end` and `visit.leave` over the live socket: body `{id}`, answer the visit.

use super::Visits;
use medtech_kernel::{Error, Result, auth::Principal};
use serde::Deserialize;
use serde_json::value::{RawValue, to_raw_value};
use uuid::Uuid;

/// The methods, for the one who registers them.
pub const METHODS: [&str; 4] = ["visit.admit", "visit.hold", "visit.end", "visit.leave"];

#[derive(Deserialize)]
struct Which {
    id: Uuid,
    idempotency_key: Option<String>,
}

/// Answers one call of one of [`METHODS`].
pub async fn handle(visits: &Visits, method: &str, who: &Principal, params: &RawValue) -> Result<Box<RawValue>> {
    let name = match method {
        "visit.admit" => "admit",
        "visit.hold" => "hold",
        "visit.end" => "end",
        "visit.leave" => "leave",
        _ => return Err(Error::not_found("rpc.unknown_method", "There is no such method.")),
    };
    let which: Which =
        serde_json::from_str(params.get()).map_err(|_| Error::bad("rpc.params", "Expected {\"id\": visit id}."))?;
    if which
        .idempotency_key
        .as_ref()
        .is_some_and(|k| k.is_empty() || k.len() > 200)
    {
        return Err(Error::bad(
            "http.idempotency_key",
            "The idempotency key is 1 to 200 characters.",
        ));
    }
    let view = visits.command(who, which.id, name, which.idempotency_key).await?;
    to_raw_value(&view).map_err(|e| Error::internal("visit.json", e))
}
