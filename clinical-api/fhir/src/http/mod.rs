//! FHIR over HTTP at `/fhir/R4`: requests to interactions, replies to responses. Every failure is an OperationOutcome.

mod bundles;
mod interact;
mod searchset;

use crate::{Fhir, outcome::Failure, search::Access, store::By};
use axum::{
    Router,
    body::Bytes,
    extract::{DefaultBodyLimit, Request, State},
    response::{IntoResponse, Response},
    routing::any,
};
use http::{HeaderMap, HeaderValue, StatusCode, header};
use medtech_kernel::{
    Clock, Error, TenantId, clock,
    error::{Code, Kind},
    http::{Acting, TenantCtx, origin},
    id,
};
use serde_json::Value;

/// Largest request body, in bytes.
const LARGEST: usize = 16 << 20;
const FHIR_JSON: &str = "application/fhir+json; charset=utf-8";

/// Who asks, and how far they see.
pub(crate) struct Caller {
    pub(crate) tenant: TenantId,
    pub(crate) subject: String,
    pub(crate) session: uuid::Uuid,
    pub(crate) access: Access,
}

impl Caller {
    pub(crate) fn by(&self) -> By {
        By {
            subject: self.subject.clone(),
            access: self.access.clone(),
        }
    }
}

/// A request without its transport: what a batch entry is, too.
#[derive(Default)]
pub(crate) struct Ask {
    pub(crate) method: String,
    /// Below the base, without a leading slash.
    pub(crate) path: String,
    pub(crate) query: String,
    pub(crate) body: Option<Value>,
    pub(crate) if_match: Option<String>,
    pub(crate) if_none_match: Option<String>,
    pub(crate) if_none_exist: Option<String>,
    /// `Prefer: handling=strict`
    pub(crate) strict: bool,
    /// The address links are made of.
    pub(crate) base: String,
}

/// A response without its transport.
pub(crate) struct Reply {
    pub(crate) status: u16,
    /// JSON.
    pub(crate) body: Option<String>,
    pub(crate) version: Option<i64>,
    pub(crate) updated: Option<i64>,
    pub(crate) location: Option<String>,
}

impl Reply {
    pub(crate) fn of(status: u16, body: impl Into<Option<String>>) -> Self {
        Self {
            status,
            body: body.into(),
            version: None,
            updated: None,
            location: None,
        }
    }
}

impl Fhir {
    /// The routes, to be merged into the server's router. The kernel's context layer must be around them.
    pub fn router(&self) -> Router {
        let path = crate::PATH;
        Router::new()
            .route(path, any(handle))
            .route(&format!("{path}/"), any(handle))
            .route(&format!("{path}/{{*rest}}"), any(handle))
            .layer(DefaultBodyLimit::max(LARGEST))
            .with_state(self.clone())
    }

    /// Waits until every read noted so far stands in the audit trail: before a stop, and in tests.
    pub async fn flush_audit(&self) {
        self.0.reads.flush().await;
    }
}

async fn handle(
    State(fhir): State<Fhir>,
    tenant: Result<TenantCtx, Error>,
    who: Result<Acting, Error>,
    request: Request,
) -> Response {
    let prefer = Prefer::of(request.headers());
    match answer(&fhir, tenant, who, request, &prefer).await {
        Ok(reply) => respond(reply, &prefer),
        Err(failure) => {
            let mut outcome = failure.outcome();
            if let (Kind::Internal, Failure::Kernel(e)) = (failure.kind(), &failure) {
                // The same in the log and in the answer, so that who reports one finds the other.
                let correlation = id::uuid_v7(Clock::system().now_ms()).to_string();
                tracing::error!(
                    correlation,
                    code = e.code,
                    source = e.source.as_ref().map(tracing::field::display),
                    "FHIR request failed"
                );
                if let Some(map) = outcome.as_object_mut() {
                    map.insert("id".to_owned(), correlation.into());
                }
            }
            let mut reply = Reply::of(failure.status(), outcome.to_string());
            if failure.kind() == Kind::Unauthorized {
                reply.status = 401;
            }
            let mut response = respond(reply, &Prefer::default());
            if failure.kind() == Kind::Unavailable {
                let later = medtech_kernel::error::RETRY_SECONDS.into();
                response.headers_mut().insert(header::RETRY_AFTER, later);
            }
            if let Failure::Kernel(e) = &failure {
                response.extensions_mut().insert(Code(e.code));
            }
            response
        }
    }
}

async fn answer(
    fhir: &Fhir,
    tenant: Result<TenantCtx, Error>,
    who: Result<Acting, Error>,
    request: Request,
    prefer: &Prefer,
) -> Result<Reply, Failure> {
    let tenant = tenant?.0.id;
    let (parts, body) = request.into_parts();
    let path = parts
        .uri
        .path()
        .strip_prefix(crate::PATH)
        .unwrap_or("")
        .trim_matches('/')
        .to_owned();
    accepts_json(&parts.headers, parts.uri.query().unwrap_or(""))?;
    let host = parts.headers.get(header::HOST).and_then(|h| h.to_str().ok());
    let host = host.or_else(|| parts.uri.authority().map(http::uri::Authority::as_str));
    let ctx = &fhir.0.ctx;
    // As the caller sees it, and as the tokens for it say it (`aud`, `iss`).
    let origin = origin(&ctx.config, &ctx.tenants, tenant, host.unwrap_or_default())?;
    let base = format!("{origin}{}", crate::PATH);
    if path == "metadata" && parts.method == http::Method::GET {
        return Ok(Reply::of(
            200,
            crate::capability::statement(&origin, ctx.clock.now_ms()).to_string(),
        ));
    }
    let Acting(who) = who?;
    if who.tenant != tenant {
        return Err(Error::unauthorized("auth.tenant", "Please sign in again.").into());
    }
    let access = fhir.access(&who).await?;
    let header = |name: header::HeaderName| parts.headers.get(name).and_then(|v| v.to_str().ok()).map(str::to_owned);
    let bytes = read_body(body).await?;
    let mut ask = Ask {
        method: parts.method.as_str().to_owned(),
        path,
        query: parts.uri.query().unwrap_or("").to_owned(),
        if_match: header(header::IF_MATCH),
        if_none_match: header(header::IF_NONE_MATCH),
        if_none_exist: header(header::HeaderName::from_static("if-none-exist")),
        strict: prefer.strict,
        base,
        ..Ask::default()
    };
    if ask.method == "HEAD" {
        ask.method = "GET".to_owned();
    }
    let kind = header(header::CONTENT_TYPE).unwrap_or_default();
    if ask.method == "POST" && ask.path.ends_with("/_search") {
        let form = std::str::from_utf8(&bytes).map_err(|_| crate::engine::bad("", "the form is not UTF-8"))?;
        if !form.is_empty() && !kind.starts_with("application/x-www-form-urlencoded") {
            return Err(Failure::one(
                Kind::BadRequest,
                "invalid",
                "_search takes application/x-www-form-urlencoded",
            ));
        }
        ask.query = [ask.query.as_str(), form]
            .into_iter()
            .filter(|q| !q.is_empty())
            .collect::<Vec<_>>()
            .join("&");
        ask.path.truncate(ask.path.len() - "/_search".len());
        ask.method = "GET".to_owned();
    } else if matches!(ask.method.as_str(), "POST" | "PUT") {
        let json = kind.is_empty()
            || ["application/fhir+json", "application/json", "text/json"]
                .iter()
                .any(|j| kind.starts_with(j));
        if !json {
            return Err(Failure::one(
                Kind::BadRequest,
                "not-supported",
                "bodies are application/fhir+json",
            ));
        }
        let mut value = serde_json::from_slice(&bytes)
            .map_err(|e| Failure::one(Kind::BadRequest, "structure", format!("not JSON: {e}")))?;
        crate::bundle::rewrite::relative(&mut value, &ask.base);
        ask.body = Some(value);
    }
    let caller = Caller {
        tenant,
        subject: who.subject,
        session: who.session,
        access,
    };
    fhir.interact(&caller, ask).await
}

async fn read_body(body: axum::body::Body) -> Result<Bytes, Failure> {
    axum::body::to_bytes(body, LARGEST).await.map_err(|_| {
        Failure::one(
            Kind::TooLarge,
            "too-long",
            format!("a request holds at most {} MB", LARGEST >> 20),
        )
    })
}

fn accepts_json(headers: &HeaderMap, query: &str) -> Result<(), Failure> {
    let format = crate::search::url::pairs(query)
        .into_iter()
        .find(|(k, _)| k == "_format")
        .map(|(_, v)| v);
    let accept = headers
        .get(header::ACCEPT)
        .and_then(|v| v.to_str().ok())
        .unwrap_or("*/*");
    let fine = match &format {
        Some(f) => f.contains("json"),
        None => accept.contains("json") || accept.contains('*') || accept.is_empty(),
    };
    if fine {
        Ok(())
    } else {
        Err(Failure::one(
            Kind::BadRequest,
            "not-supported",
            "answers are application/fhir+json",
        ))
    }
}

/// RFC 7240, the part FHIR uses.
#[derive(Default)]
struct Prefer {
    strict: bool,
    minimal: bool,
    outcome: bool,
}

impl Prefer {
    fn of(headers: &HeaderMap) -> Self {
        let mut prefer = Self::default();
        for value in headers.get_all("prefer").iter().filter_map(|v| v.to_str().ok()) {
            for part in value.split([',', ';']).map(str::trim) {
                match part {
                    "handling=strict" => prefer.strict = true,
                    "return=minimal" => prefer.minimal = true,
                    "return=OperationOutcome" => prefer.outcome = true,
                    _ => {}
                }
            }
        }
        prefer
    }
}

fn respond(mut reply: Reply, prefer: &Prefer) -> Response {
    // Only the answer to a write (it has a location) may be left out.
    if reply.location.is_some() && reply.status < 300 {
        if prefer.minimal {
            reply.body = None;
        } else if prefer.outcome {
            let issue = crate::Issue::new("informational", "", "stored");
            reply.body = Some(crate::outcome::outcome("information", &[issue]).to_string());
        }
    }
    let status = StatusCode::from_u16(reply.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let mut response = (status, reply.body.unwrap_or_default()).into_response();
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(FHIR_JSON));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    let mut put = |name: header::HeaderName, value: Option<String>| {
        if let Some(value) = value.and_then(|v| HeaderValue::from_str(&v).ok()) {
            headers.insert(name, value);
        }
    };
    put(header::ETAG, reply.version.map(|v| format!("W/\"{v}\"")));
    put(header::LAST_MODIFIED, reply.updated.map(http_date));
    put(header::LOCATION, reply.location);
    if status == StatusCode::UNAUTHORIZED {
        put(header::WWW_AUTHENTICATE, Some("Bearer".to_owned()));
    }
    response
}

/// RFC 9110 date.
fn http_date(at: clock::Millis) -> String {
    jiff::Timestamp::from_millisecond(at).map_or(String::new(), |t| t.strftime("%a, %d %b %Y %H:%M:%S GMT").to_string())
}
