//! Parameters of the protocol: `application/x-www-form-urlencoded`, each at most once (RFC 6749, 3.1 and 3.2).

use super::refusal::{Outcome, Refusal};
use axum::{
    body::Bytes,
    extract::{FromRequest, Request},
};
use http::{HeaderMap, Method, header};
use std::collections::HashMap;
use url::form_urlencoded;

const MOST: usize = 64;

/// Parameters by name. Those sent without a value are as if they were not sent.
#[derive(Clone, Debug, Default)]
pub(crate) struct Form(HashMap<String, String>);

/// The parameters of an address that browsers are sent to: in the query of a GET, in the body of a POST.
pub(crate) struct Visited(pub(crate) Outcome<Form>);

impl<S: Send + Sync> FromRequest<S> for Visited {
    type Rejection = std::convert::Infallible;

    async fn from_request(request: Request, state: &S) -> Result<Self, Self::Rejection> {
        let query = request.uri().query().unwrap_or_default().to_owned();
        if request.method() != Method::POST {
            return Ok(Self(Form::parse(query.as_bytes())));
        }
        let headers = request.headers().clone();
        Ok(Self(match Bytes::from_request(request, state).await {
            Ok(body) => Form::posted(&headers, Some(&query), &body),
            Err(_) => Err(Refusal::request("The parameters are malformed.")),
        }))
    }
}

impl Form {
    pub(crate) fn parse(bytes: &[u8]) -> Outcome<Self> {
        let mut form = HashMap::new();
        for (at, (name, value)) in form_urlencoded::parse(bytes).enumerate() {
            if at >= MOST || name.contains('\0') || value.contains('\0') {
                return Err(Refusal::request("The parameters are malformed."));
            }
            if form.insert(name.into_owned(), value.into_owned()).is_some() {
                return Err(Refusal::request("A parameter was sent twice."));
            }
        }
        form.retain(|_, value| !value.is_empty());
        Ok(Self(form))
    }

    /// Parameters that were checked before, and one more.
    pub(crate) fn of(pairs: impl IntoIterator<Item = (String, String)>, (name, value): (&str, String)) -> Self {
        let mut form: HashMap<String, String> = pairs.into_iter().collect();
        form.insert(name.to_owned(), value);
        Self(form)
    }

    /// Of a POST: the kind of body must be said, and nothing may stand in the address.
    pub(crate) fn posted(headers: &HeaderMap, query: Option<&str>, body: &[u8]) -> Outcome<Self> {
        let kind = headers.get(header::CONTENT_TYPE).and_then(|v| v.to_str().ok());
        let kind = kind.and_then(|k| k.split(';').next()).map(str::trim);
        if !kind.is_some_and(|k| k.eq_ignore_ascii_case("application/x-www-form-urlencoded")) {
            return Err(Refusal::request("The body is application/x-www-form-urlencoded."));
        }
        if query.is_some_and(|q| !q.is_empty()) {
            return Err(Refusal::request("Parameters stand in the body, not in the address."));
        }
        Self::parse(body)
    }

    pub(crate) fn with(mut self, name: &str, value: String) -> Self {
        self.0.insert(name.to_owned(), value);
        self
    }

    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str)
    }

    pub(crate) fn require(&self, name: &'static str) -> Outcome<&str> {
        self.get(name)
            .ok_or_else(|| Refusal::request(format!("The parameter {name} is missing.")))
    }
}
