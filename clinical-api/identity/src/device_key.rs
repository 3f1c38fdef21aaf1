//! A key for what a person's browser keeps on a device: unfinished notes lie there sealed, and are readable only to who is
//! signed in. It is derived, never stored, and the same on every device.

use crate::Identity;
use aws_lc_rs::hmac;
use axum::{Json, extract::State};
use base64::{Engine, engine::general_purpose::STANDARD};
use http::{HeaderName, HeaderValue, header};
use medtech_kernel::{Error, Result, auth::Principal};
use serde::Serialize;
use std::sync::Arc;

#[derive(Serialize)]
pub(crate) struct DeviceKey {
    /// 256 bits in base64.
    key: String,
}

pub(crate) async fn mine(
    State(identity): State<Arc<Identity>>,
    who: Principal,
) -> Result<([(HeaderName, HeaderValue); 1], Json<DeviceKey>)> {
    // A guest of a visit writes too, and what waits to be sent is theirs alone.
    let person = ["user:", "guest:"].iter().any(|kind| who.subject.starts_with(kind));
    if !person || who.grant.client.is_some() {
        return Err(Error::forbidden(
            "identity.not_a_user",
            "This is for people who signed in.",
        ));
    }
    let secret = identity.ctx.root.derive("identity device key 1", who.tenant);
    let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, &secret), who.subject.as_bytes());
    let keep = [(header::CACHE_CONTROL, HeaderValue::from_static("no-store"))];
    Ok((
        keep,
        Json(DeviceKey {
            key: STANDARD.encode(tag),
        }),
    ))
}
