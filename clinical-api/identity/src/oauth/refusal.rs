//! What the protocol says when it refuses: the codes of RFC 6749 and its relatives, as JSON.

use axum::{
    Json,
    response::{IntoResponse, Response},
};
use http::{HeaderValue, StatusCode, header};
use medtech_kernel::{Error, error::Kind};
use serde_json::json;
use std::borrow::Cow;

/// An error of the protocol.
#[derive(Debug)]
pub(crate) struct Refusal {
    pub(crate) error: &'static str,
    pub(crate) description: Cow<'static, str>,
    status: StatusCode,
    /// The challenge of an answer 401.
    challenge: Option<&'static str>,
}

pub(crate) type Outcome<T> = Result<T, Refusal>;

impl Refusal {
    pub(crate) fn new(error: &'static str, description: impl Into<Cow<'static, str>>) -> Self {
        Self {
            error,
            description: description.into(),
            status: StatusCode::BAD_REQUEST,
            challenge: None,
        }
    }

    pub(crate) fn request(description: impl Into<Cow<'static, str>>) -> Self {
        Self::new("invalid_request", description)
    }

    /// One text for every reason: whose code it was, or whether there was one, is not told.
    pub(crate) fn grant() -> Self {
        Self::new("invalid_grant", "The code or token is not good.")
    }

    pub(crate) fn client(description: impl Into<Cow<'static, str>>) -> Self {
        Self {
            status: StatusCode::UNAUTHORIZED,
            challenge: Some("Basic realm=\"oauth2\""),
            ..Self::new("invalid_client", description)
        }
    }

    pub(crate) fn status(&self) -> StatusCode {
        self.status
    }

    /// RFC 6750: the access token does not open this.
    pub(crate) fn token() -> Self {
        Self {
            status: StatusCode::UNAUTHORIZED,
            challenge: Some("Bearer error=\"invalid_token\""),
            ..Self::new("invalid_token", "The access token is not good.")
        }
    }

    pub(crate) fn scope() -> Self {
        Self {
            status: StatusCode::FORBIDDEN,
            challenge: Some("Bearer error=\"insufficient_scope\""),
            ..Self::new("insufficient_scope", "The access token was not given for this.")
        }
    }
}

/// Failures of our own keep their status; their text is safe to show.
impl From<Error> for Refusal {
    fn from(e: Error) -> Self {
        let error = match e.kind {
            Kind::Internal => {
                let source = e.source.as_ref().map(tracing::field::display);
                tracing::error!(code = e.code, source, "authorization server failed");
                "server_error"
            }
            Kind::Unavailable | Kind::TooMany => "temporarily_unavailable",
            Kind::Forbidden => "access_denied",
            _ => "invalid_request",
        };
        Self {
            status: e.status(),
            ..Self::new(error, e.message)
        }
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let body = Json(json!({"error": self.error, "error_description": self.description}));
        let mut response = (self.status, body).into_response();
        let headers = response.headers_mut();
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        if let Some(challenge) = self.challenge {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static(challenge));
        }
        response
    }
}
