//! The doors of exports: begin, look, fetch. A clinic's own administrators only: those who run the installation do not see
//! what is in a clinic.

use super::{KEPT, place, store};
use crate::TenantsModule;
use axum::{
    Json,
    body::Body as Bytes,
    extract::{Path, State},
    response::{IntoResponse, Response},
};
use http::{HeaderMap, HeaderValue, StatusCode, header};
use medtech_kernel::{
    Error, Result,
    auth::Principal,
    clock::rfc3339,
    http::{Body, TenantCtx},
};
use serde::{Deserialize, Serialize};
use std::{ops::Range, sync::Arc};
use tokio::io::{AsyncReadExt, AsyncSeekExt};
use uuid::Uuid;

type Shared = State<Arc<TenantsModule>>;

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Ask {
    /// Absent: the archive lies plain on the server's disk until it is fetched.
    passphrase: Option<String>,
}

#[derive(Serialize)]
pub(crate) struct Job {
    id: Uuid,
    state: String,
    sealed: bool,
    asked_by: String,
    asked_at: String,
    /// What is being written at the moment.
    step: String,
    steps_done: i64,
    steps: i64,
    bytes: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    sha256: Option<String>,
    /// Until when it can be fetched.
    #[serde(skip_serializing_if = "Option::is_none")]
    until: Option<String>,
}

impl From<store::Job> for Job {
    fn from(j: store::Job) -> Self {
        Self {
            until: j.ended_at.filter(|_| j.state == "done").map(|at| rfc3339(at + KEPT)),
            id: j.id,
            state: j.state,
            sealed: j.sealed,
            asked_by: j.asked_by,
            asked_at: rfc3339(j.asked_at),
            step: j.step,
            steps_done: j.steps_done,
            steps: j.steps,
            bytes: j.bytes,
            sha256: j.sha256,
        }
    }
}

pub(crate) async fn begin(
    State(this): Shared,
    TenantCtx(tenant): TenantCtx,
    who: Principal,
    Path(id): Path<String>,
    Body(ask): Body<Ask>,
) -> Result<(StatusCode, Json<Job>)> {
    this.own(&who).await?;
    // Another clinic's data is not for those who run the installation either.
    if id != "own" && id != tenant.id.to_string() {
        return Err(Error::not_found("tenant.unknown", "There is no such clinic."));
    }
    who.require_fresh(this.ctx.clock.now_ms())?;
    if ask
        .passphrase
        .as_ref()
        .is_some_and(|p| !(12..=200).contains(&p.chars().count()))
    {
        return Err(Error::unprocessable(
            "tenants.passphrase",
            "A passphrase has 12 to 200 characters.",
        ));
    }
    let job = this.begin_export(&tenant, &who.subject, ask.passphrase).await?;
    Ok((StatusCode::ACCEPTED, Json(job.into())))
}

#[derive(Serialize)]
pub(crate) struct Jobs {
    exports: Vec<Job>,
}

pub(crate) async fn list(State(this): Shared, who: Principal) -> Result<Json<Jobs>> {
    this.own(&who).await?;
    let all = store::list(&this.ctx.db, who.tenant).await?;
    Ok(Json(Jobs {
        exports: all.into_iter().map(Into::into).collect(),
    }))
}

async fn find(this: &TenantsModule, who: &Principal, id: &str) -> Result<store::Job> {
    this.own(who).await?;
    let unknown = || Error::not_found("tenants.export_unknown", "There is no such export.");
    let id = Uuid::try_parse(id).map_err(|_| unknown())?;
    store::one(&this.ctx.db, who.tenant, id).await?.ok_or_else(unknown)
}

pub(crate) async fn one(State(this): Shared, who: Principal, Path(id): Path<String>) -> Result<Json<Job>> {
    find(&this, &who, &id).await.map(|j| Json(j.into()))
}

/// The archive, or a range of it (RFC 9110, 14): a download that broke goes on where it was.
pub(crate) async fn download(
    State(this): Shared,
    who: Principal,
    Path(id): Path<String>,
    headers: HeaderMap,
) -> Result<Response> {
    let job = find(&this, &who, &id).await?;
    who.require_fresh(this.ctx.clock.now_ms())?;
    if job.state != "done" {
        return Err(Error::conflict(
            "tenants.export_not_ready",
            "This export cannot be fetched.",
        ));
    }
    let path = place(&this.ctx, who.tenant, &job);
    let gone = |_| Error::gone("tenants.export_removed", "This export is not kept any more.");
    let mut file = tokio::fs::File::open(path).await.map_err(gone)?;
    let etag = format!("\"{}\"", job.sha256.as_deref().unwrap_or_default());
    let wanted = headers
        .get(header::RANGE)
        .and_then(|v| v.to_str().ok())
        // Of another archive than the one begun, all of it is sent.
        .filter(|_| {
            headers
                .get(header::IF_RANGE)
                .is_none_or(|v| v.as_bytes() == etag.as_bytes())
        });
    let range = match wanted.map(|text| range(text, job.bytes)) {
        None | Some(None) => None,
        Some(Some(Ok(range))) => Some(range),
        Some(Some(Err(()))) => {
            let size = format!("bytes */{}", job.bytes);
            return Ok((StatusCode::RANGE_NOT_SATISFIABLE, [(header::CONTENT_RANGE, size)]).into_response());
        }
    };
    let part = range.clone().unwrap_or(0..job.bytes);
    if part.start == 0 {
        let target = format!("export:{}", job.id);
        this.note(&who, "read", &target, "export fetched".into()).await?;
    }
    file.seek(std::io::SeekFrom::Start(part.start))
        .await
        .map_err(|e| Error::internal("tenants.archive", e))?;
    let length = part.end - part.start;
    let mut response = Bytes::from_stream(pieces(file.take(length))).into_response();
    let tail = if job.sealed { "tar.age" } else { "tar" };
    let h = response.headers_mut();
    let mut put = |name, text: String| {
        if let Ok(value) = HeaderValue::from_str(&text) {
            h.insert(name, value);
        }
    };
    put(
        header::CONTENT_TYPE,
        if job.sealed {
            "application/octet-stream"
        } else {
            "application/x-tar"
        }
        .into(),
    );
    put(header::CONTENT_LENGTH, length.to_string());
    put(header::ACCEPT_RANGES, "bytes".into());
    put(header::ETAG, etag);
    put(
        header::CONTENT_DISPOSITION,
        format!("attachment; filename=\"clinic-{}.{tail}\"", job.id),
    );
    if let Some(range) = range {
        put(
            header::CONTENT_RANGE,
            format!("bytes {}-{}/{}", range.start, range.end - 1, job.bytes),
        );
        *response.status_mut() = StatusCode::PARTIAL_CONTENT;
    }
    Ok(response)
}

/// A range of bytes: `None` when the header is not understood (and is passed over), an error when nothing of it is there.
fn range(text: &str, size: u64) -> Option<Result<Range<u64>, ()>> {
    let (from, to) = text.strip_prefix("bytes=")?.split_once('-')?;
    let range = match (from, to) {
        ("", last) => size.saturating_sub(last.parse().ok()?)..size,
        (from, "") => from.parse().ok()?..size,
        (from, to) => from.parse().ok()?..to.parse::<u64>().ok()?.saturating_add(1).min(size),
    };
    Some(if range.start < range.end { Ok(range) } else { Err(()) })
}

/// A file's bytes as they are asked for.
fn pieces(
    file: tokio::io::Take<tokio::fs::File>,
) -> impl futures_util::Stream<Item = std::io::Result<Vec<u8>>> + Send + 'static {
    futures_util::stream::try_unfold(file, |mut file| async move {
        let mut piece = vec![0; 64 * 1024];
        let n = file.read(&mut piece).await?;
        piece.truncate(n);
        Ok((n > 0).then_some((piece, file)))
    })
}

#[cfg(test)]
mod tests {
    use super::range;

    #[test]
    fn ranges_are_those_of_the_standard() {
        assert_eq!(range("bytes=0-", 10), Some(Ok(0..10)));
        assert_eq!(range("bytes=3-4", 10), Some(Ok(3..5)));
        assert_eq!(range("bytes=3-99", 10), Some(Ok(3..10)));
        assert_eq!(range("bytes=-4", 10), Some(Ok(6..10)));
        assert_eq!(range("bytes=10-", 10), Some(Err(())));
        assert_eq!(range("bytes=5-2", 10), Some(Err(())));
        for odd in ["", "bytes=", "bytes=a-b", "lines=1-2", "bytes=1-2,4-5"] {
            assert_eq!(range(odd, 10), None, "{odd}");
        }
    }
}
