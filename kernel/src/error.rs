//! One error for the whole product, with stable codes, mapped once to HTTP problem documents (RFC 9457) and to
//! the codes of the live channels.

use axum::{
    Json,
    response::{IntoResponse, Response},
};
use http::{HeaderValue, StatusCode, header};
use serde::Serialize;
use std::{borrow::Cow, fmt};

pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What kind of failure: decides the status a client sees.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    BadRequest,
    Unauthorized,
    Forbidden,
    NotFound,
    Gone,
    Conflict,
    PreconditionFailed,
    Unprocessable,
    TooLarge,
    TooMany,
    Unavailable,
    Internal,
}

/// An error: `code` is stable and meant for programs, `message` is safe to show to anyone who may see the answer.
/// The source is for the log alone.
pub struct Error {
    pub kind: Kind,
    pub code: &'static str,
    pub message: Cow<'static, str>,
    pub source: Option<Box<dyn std::error::Error + Send + Sync>>,
}

macro_rules! constructors {
    ($($(#[$doc:meta])* $name:ident => $kind:ident),* $(,)?) => {
        $($(#[$doc])* pub fn $name(code: &'static str, message: impl Into<Cow<'static, str>>) -> Self {
            Self { kind: Kind::$kind, code, message: message.into(), source: None }
        })*
    };
}

impl Error {
    constructors! {
        /// 400: the request is malformed.
        bad => BadRequest,
        /// 401: who asks is not known.
        unauthorized => Unauthorized,
        /// 403: known, and not allowed.
        forbidden => Forbidden,
        /// 404: absent, or not to be known by the one who asks.
        not_found => NotFound,
        /// 410: was here.
        gone => Gone,
        /// 409: clashes with the present state.
        conflict => Conflict,
        /// 412: the version named is not the present one.
        precondition => PreconditionFailed,
        /// 422: well formed, but against the rules.
        unprocessable => Unprocessable,
        /// 413.
        too_large => TooLarge,
        /// 429.
        too_many => TooMany,
        /// 503: try again later.
        unavailable => Unavailable,
    }

    /// 500. The source goes to the log, never to the client.
    pub fn internal(code: &'static str, source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        Self {
            kind: Kind::Internal,
            code,
            message: Cow::Borrowed("Something went wrong on our side. Nothing that was confirmed is lost."),
            source: Some(source.into()),
        }
    }

    /// A tenant's database file is refused as a whole or in part: damaged, changed from outside, or put back; or it is gone,
    /// since the tenant is being deleted. Nothing to keep the other tenants from being served.
    #[must_use]
    pub fn is_refused_file(&self) -> bool {
        matches!(self.code, "db.page_refused" | "db.page_stale" | "db.tenant_erased")
    }

    #[must_use]
    pub fn status(&self) -> StatusCode {
        match self.kind {
            Kind::BadRequest => StatusCode::BAD_REQUEST,
            Kind::Unauthorized => StatusCode::UNAUTHORIZED,
            Kind::Forbidden => StatusCode::FORBIDDEN,
            Kind::NotFound => StatusCode::NOT_FOUND,
            Kind::Gone => StatusCode::GONE,
            Kind::Conflict => StatusCode::CONFLICT,
            Kind::PreconditionFailed => StatusCode::PRECONDITION_FAILED,
            Kind::Unprocessable => StatusCode::UNPROCESSABLE_ENTITY,
            Kind::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Kind::TooMany => StatusCode::TOO_MANY_REQUESTS,
            Kind::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
            Kind::Internal => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }

    /// The code of a live-channel reply: the HTTP status, except where Centrifugo's protocol has its own (100 internal,
    /// 101 unauthorized, 102 unknown channel, 103 permission denied, 107 bad request, 111 too many requests).
    #[must_use]
    pub fn ws_code(&self) -> u32 {
        match self.kind {
            Kind::Internal => 100,
            Kind::Unauthorized => 101,
            Kind::NotFound => 102,
            Kind::Forbidden => 103,
            Kind::BadRequest => 107,
            Kind::TooMany => 111,
            other => u32::from(
                Self {
                    kind: other,
                    code: self.code,
                    message: Cow::Borrowed(""),
                    source: None,
                }
                .status()
                .as_u16(),
            ),
        }
    }

    /// Is trying the same again later of use?
    #[must_use]
    pub fn is_transient(&self) -> bool {
        matches!(self.kind, Kind::Unavailable | Kind::Internal | Kind::TooMany)
    }
}

/// The stable code of a refusal, put beside its answer for whoever counts them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Code(pub &'static str);

/// Seconds after which what is unavailable now may be asked for again.
pub const RETRY_SECONDS: u64 = 5;

/// RFC 9457 body.
#[derive(Serialize)]
struct Problem<'a> {
    r#type: String,
    title: &'a str,
    status: u16,
    detail: &'a str,
    code: &'a str,
    correlation: String,
}

impl IntoResponse for Error {
    fn into_response(self) -> Response {
        let status = self.status();
        let correlation = crate::id::uuid_v7(crate::Clock::system().now_ms()).to_string();
        if self.kind == Kind::Internal {
            tracing::error!(
                correlation,
                code = self.code,
                source = self.source.as_ref().map(tracing::field::display),
                "request failed"
            );
        }
        let problem = Problem {
            r#type: format!("urn:medtech:problem:{}", self.code),
            title: status.canonical_reason().unwrap_or("Error"),
            status: status.as_u16(),
            detail: &self.message,
            code: self.code,
            correlation,
        };
        let mut response = (status, Json(&problem)).into_response();
        response.headers_mut().insert(
            header::CONTENT_TYPE,
            HeaderValue::from_static("application/problem+json"),
        );
        if self.kind == Kind::Unauthorized {
            response
                .headers_mut()
                .insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        if self.kind == Kind::Unavailable {
            response.headers_mut().insert(header::RETRY_AFTER, RETRY_SECONDS.into());
        }
        response.extensions_mut().insert(Code(self.code));
        response
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} {}: {}", self.kind, self.code, self.message)?;
        match &self.source {
            Some(source) => write!(f, " ({source})"),
            None => Ok(()),
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.code, self.message)
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.source.as_ref().map(|s| &**s as &(dyn std::error::Error + 'static))
    }
}
