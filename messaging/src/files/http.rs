//! The tus routes: OPTIONS, POST (creation, with upload), HEAD, PATCH, DELETE.

use super::{
    FileRow, Turn, disk, download,
    tus::{
        ALGORITHMS, CHECKSUM_MISMATCH, Checksum, EXTENSIONS, LOCKED, OFFSET_TYPE, Outcome, Refusal, VERSION,
        WRONG_OFFSET, WRONG_TYPE, http_date, metadata, number, require_version, text,
    },
};
use crate::Messaging;
use axum::{
    Router,
    body::{Body, BodyDataStream},
    extract::{Path, State},
    middleware::map_response,
    response::{IntoResponse, Response},
    routing::{MethodRouter, get, post},
};
use futures_util::StreamExt;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use medtech_kernel::{Error, audit::Origin, auth::Principal, policy::Action};
use std::{sync::Arc, time::Duration};
use uuid::Uuid;

const OFFSET: HeaderName = HeaderName::from_static("upload-offset");
const LENGTH: HeaderName = HeaderName::from_static("upload-length");
const METADATA: HeaderName = HeaderName::from_static("upload-metadata");
const EXPIRES: HeaderName = HeaderName::from_static("upload-expires");

/// A client that sends nothing for so long is gone.
const SILENCE: Duration = Duration::from_secs(60);

pub(crate) fn routes(messaging: Arc<Messaging>) -> Router {
    let creation = || -> MethodRouter<Arc<Messaging>> { post(create).options(options) };
    Router::new()
        .route("/files", creation())
        .route("/files/", creation())
        .route(
            "/files/{id}",
            get(download::get)
                .head(head)
                .patch(patch)
                .delete(delete)
                .post(overridden)
                .options(options),
        )
        .layer(map_response(async |mut response: Response| {
            response
                .headers_mut()
                .insert("tus-resumable", HeaderValue::from_static(VERSION));
            if response.status() == StatusCode::PRECONDITION_FAILED {
                response
                    .headers_mut()
                    .insert("tus-version", HeaderValue::from_static(VERSION));
            }
            response
        }))
        .with_state(messaging)
}

/// What this server can do; asked without a session, and without naming a version.
async fn options(State(m): State<Arc<Messaging>>) -> impl IntoResponse {
    let headers = [
        ("tus-version", VERSION.to_owned()),
        ("tus-extension", EXTENSIONS.to_owned()),
        ("tus-checksum-algorithm", ALGORITHMS.to_owned()),
        ("tus-max-size", m.files.limits.max_file.to_string()),
    ];
    (
        StatusCode::NO_CONTENT,
        headers.map(|(name, value)| (HeaderName::from_static(name), value)),
    )
}

async fn create(State(m): State<Arc<Messaging>>, who: Principal, headers: HeaderMap, body: Body) -> Outcome<Response> {
    require_version(&headers)?;
    if headers.contains_key("upload-defer-length") {
        return Err(Error::bad("file.defer_length", "The length must be known at the start.").into());
    }
    let size = number(&headers, "upload-length")?;
    if size > m.files.limits.max_file {
        return Err(Error::too_large("file.too_large", "The file is larger than this server takes.").into());
    }
    let meta = metadata(text(&headers, "upload-metadata").unwrap_or_default())?;
    m.require(&who, Action::Write, meta.conversation).await?;
    let with_upload = text(&headers, "content-type") == Some(OFFSET_TYPE);
    let file = m.files.create(&who, meta, size).await?;
    let location = format!("/files/{}", file.id);
    let mut response = if with_upload || size == 0 {
        append_detached(m, who, file, 0, headers, body).await?
    } else {
        expiring(&file, StatusCode::CREATED)
    };
    *response.status_mut() = StatusCode::CREATED;
    let location = HeaderValue::from_str(&location).map_err(|e| Error::internal("file.location", e))?;
    response.headers_mut().insert(header::LOCATION, location);
    Ok(response)
}

/// Where the upload stands: what is on the disk for good.
async fn head(
    State(m): State<Arc<Messaging>>,
    who: Principal,
    Path(id): Path<String>,
    headers: HeaderMap,
) -> Outcome<Response> {
    require_version(&headers)?;
    let file = own(&m, &who, &id).await?;
    let offset = match file.sha256 {
        Some(_) => file.size,
        None => {
            let upload = m.files.upload(who.tenant, file.id)?;
            let mut turn = upload.take_turn().await?;
            match m.files.load(who.tenant, &file, &mut turn.partial).await? {
                Some(()) => turn.partial.as_ref().map_or(0, super::partial::Partial::len),
                None => file.size,
            }
        }
    };
    let mut response = expiring(&file, StatusCode::OK);
    let headers = response.headers_mut();
    headers.insert(OFFSET, offset.into());
    headers.insert(LENGTH, file.size.into());
    if let Ok(metadata) = HeaderValue::from_str(&file.metadata) {
        headers.insert(METADATA, metadata);
    }
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    Ok(response)
}

async fn patch(
    State(m): State<Arc<Messaging>>,
    who: Principal,
    Path(id): Path<String>,
    headers: HeaderMap,
    body: Body,
) -> Outcome<Response> {
    require_version(&headers)?;
    if text(&headers, "content-type") != Some(OFFSET_TYPE) {
        return Err(WRONG_TYPE);
    }
    let offset = number(&headers, "upload-offset")?;
    let file = own(&m, &who, &id).await?;
    append_detached(m, who, file, offset, headers, body).await
}

async fn delete(
    State(m): State<Arc<Messaging>>,
    who: Principal,
    Path(id): Path<String>,
    headers: HeaderMap,
) -> Outcome<StatusCode> {
    require_version(&headers)?;
    let file = own(&m, &who, &id).await?;
    let upload = m.files.upload(who.tenant, file.id)?;
    let mut turn = upload.take_turn().await?;
    *turn.partial = None;
    m.files.remove(who.tenant, &file, &who.subject).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// For networks that let only GET and POST through.
async fn overridden(
    state: State<Arc<Messaging>>,
    who: Principal,
    path: Path<String>,
    headers: HeaderMap,
    body: Body,
) -> Response {
    match text(&headers, "x-http-method-override") {
        Some("PATCH") => patch(state, who, path, headers, body).await.into_response(),
        Some("DELETE") => delete(state, who, path, headers).await.into_response(),
        _ => (
            StatusCode::METHOD_NOT_ALLOWED,
            [(header::ALLOW, "GET, HEAD, PATCH, DELETE, OPTIONS")],
        )
            .into_response(),
    }
}

/// An upload of the caller's own, in a conversation they still belong to. To others it does not exist.
async fn own(m: &Messaging, who: &Principal, id: &str) -> Outcome<FileRow> {
    let unknown = || Error::not_found("file.unknown", "There is no such upload.");
    let id = Uuid::try_parse(id).map_err(|_| unknown())?;
    let file = FileRow::find(&m.files.db, who.tenant, id)
        .await?
        .filter(|f| f.owner == who.subject)
        .ok_or_else(unknown)?;
    m.require(who, Action::Write, file.conversation).await?;
    if file.sha256.is_none() && file.expires_at <= m.files.clock.now_ms() {
        return Err(Error::gone("file.expired", "The upload was not finished in time.").into());
    }
    Ok(file)
}

/// Appends in a task of its own: when the client vanishes, the server drops the request's future, and what has come
/// must still be flushed and counted.
async fn append_detached(
    m: Arc<Messaging>,
    who: Principal,
    file: FileRow,
    offset: u64,
    headers: HeaderMap,
    body: Body,
) -> Outcome<Response> {
    let task =
        tokio::spawn(Origin::current().scope(async move { append(&m, &who, &file, offset, &headers, body).await }));
    task.await.map_err(|e| Error::internal("file.append_task", e))?
}

async fn append(
    m: &Messaging,
    who: &Principal,
    file: &FileRow,
    offset: u64,
    headers: &HeaderMap,
    body: Body,
) -> Outcome<Response> {
    let mut checksum = text(headers, "upload-checksum").map(Checksum::parse).transpose()?;
    let announced = match headers.contains_key(header::CONTENT_LENGTH) {
        true => Some(number(headers, "content-length")?),
        false => None,
    };
    if file.sha256.is_some() {
        return if offset == file.size {
            Ok(stands_at(file, offset))
        } else {
            Err(WRONG_OFFSET)
        };
    }
    let upload = m.files.upload(who.tenant, file.id)?;
    let mut turn = upload.take_turn().await?;
    if m.files.load(who.tenant, file, &mut turn.partial).await?.is_none() {
        return if offset == file.size {
            Ok(stands_at(file, offset))
        } else {
            Err(WRONG_OFFSET)
        };
    }
    if turn.partial.as_ref().is_none_or(|p| p.len() != offset) {
        return Err(WRONG_OFFSET);
    }
    let room = file.size - offset.min(file.size);
    if announced.is_some_and(|n| n > room) {
        return Err(too_long());
    }
    let outcome = receive(&mut turn, room, checksum.as_mut(), body.into_data_stream()).await;
    let Some(partial) = turn.partial.as_mut() else {
        return Err(WRONG_OFFSET);
    };
    let holds = checksum.is_none_or(Checksum::holds);
    // What came before a broken connection is kept, unless a checksum was promised for all of it.
    let settled = match &outcome {
        Ok(Received::All) if holds => partial.keep().await.map(Ok),
        Ok(Received::All) => partial.settle().await.map(|()| Err(CHECKSUM_MISMATCH)),
        Ok(Received::Interrupted) => partial.settle().await.map(|()| Err(LOCKED)),
        Ok(Received::TooMuch) => partial.settle().await.map(|()| Err(too_long())),
        Err(_) => partial.settle().await.map(Ok),
    };
    let settled = match (settled, outcome) {
        (Ok(settled), Ok(_)) => settled,
        (Ok(_), Err(Broken::Connection)) => {
            Err(Error::bad("file.interrupted", "The connection broke. Resume with HEAD.").into())
        }
        (Ok(_), Err(Broken::Disk(e))) | (Err(e), _) => {
            // The state in memory may differ from the disk's: the next request reads the file anew.
            *turn.partial = None;
            return Err(disk(e).into());
        }
    };
    let reached = turn.partial.as_ref().map_or(0, super::partial::Partial::len);
    if reached == file.size {
        m.files.finish(who.tenant, file, &mut turn.partial).await?;
    }
    settled.map(|()| stands_at(file, reached))
}

enum Received {
    All,
    /// A later request wants the upload.
    Interrupted,
    TooMuch,
}

enum Broken {
    Connection,
    Disk(std::io::Error),
}

/// Takes the body piece by piece; never more than one piece is in memory.
async fn receive(
    turn: &mut Turn<'_>,
    room: u64,
    mut checksum: Option<&mut Checksum>,
    mut body: BodyDataStream,
) -> Result<Received, Broken> {
    let mut left = room;
    if let (Some(_), Some(partial)) = (&checksum, turn.partial.as_mut()) {
        partial.hold().await.map_err(Broken::Disk)?;
    }
    loop {
        let piece = tokio::select! {
            biased;
            () = turn.is_over() => return Ok(Received::Interrupted),
            piece = tokio::time::timeout(SILENCE, body.next()) => piece,
        };
        let Ok(piece) = piece else {
            return Err(Broken::Connection);
        };
        let bytes = match piece {
            None => return Ok(Received::All),
            Some(Ok(bytes)) => bytes,
            Some(Err(_)) => return Err(Broken::Connection),
        };
        let Some(rest) = left.checked_sub(bytes.len() as u64) else {
            return Ok(Received::TooMuch);
        };
        left = rest;
        if let Some(sum) = checksum.as_deref_mut() {
            sum.update(&bytes);
        }
        if let Some(partial) = turn.partial.as_mut() {
            partial.append(&bytes).await.map_err(Broken::Disk)?;
        }
    }
}

fn too_long() -> Refusal {
    Error::too_large(
        "file.beyond_length",
        "The request holds more bytes than Upload-Length left.",
    )
    .into()
}

fn stands_at(file: &FileRow, offset: u64) -> Response {
    let mut response = expiring(file, StatusCode::NO_CONTENT);
    response.headers_mut().insert(OFFSET, offset.into());
    response
}

/// An empty answer that says until when an unfinished upload is kept.
fn expiring(file: &FileRow, status: StatusCode) -> Response {
    let mut response = status.into_response();
    if file.sha256.is_none()
        && let Some(date) = http_date(file.expires_at).and_then(|d| HeaderValue::from_str(&d).ok())
    {
        response.headers_mut().insert(EXPIRES, date);
    }
    response
}
