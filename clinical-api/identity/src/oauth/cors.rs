//! Calls from applications in a browser, which come from another origin. No cookie is ever asked for or believed here:
//! everything is by bearer token, and only the origins of registered applications are answered.

use super::{OAuth, issuer::Site, store};
use axum::{
    Router,
    extract::{Request, State},
    middleware::{self, Next},
    response::{IntoResponse, Response},
};
use http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use std::sync::Arc;

const METHODS: &str = "GET, HEAD, POST, PUT, PATCH, DELETE";
const ASKED: &str = "authorization, dpop, content-type, accept, prefer, if-match, if-none-match, if-none-exist, if-modified-since, cache-control, pragma";
const SHOWN: &str = "etag, location, content-location, last-modified, www-authenticate, dpop-nonce";

/// Documents that are for everybody.
pub(super) fn public<S: Clone + Send + Sync + 'static>(routes: Router<S>) -> Router<S> {
    routes.layer(middleware::from_fn(async |request: Request, next: Next| {
        let mut response = next.run(request).await;
        let headers = response.headers_mut();
        headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, HeaderValue::from_static("*"));
        response
    }))
}

impl OAuth {
    /// Lets registered applications call these routes from their own origins.
    pub(crate) fn cors<S: Clone + Send + Sync + 'static>(self: &Arc<Self>, routes: Router<S>) -> Router<S> {
        routes.layer(middleware::from_fn_with_state(self.clone(), cross))
    }

    /// The origin of a request, where it is one we answer.
    async fn origin(&self, site: Option<&Site>, headers: &HeaderMap) -> Option<HeaderValue> {
        let origin = headers.get(header::ORIGIN)?;
        let text = origin.to_str().ok().filter(|t| t.len() < 300 && !t.contains('\0'))?;
        let known = store::is_origin(&self.ctx.db, site?.id(), text).await.ok()?;
        known.then(|| origin.clone())
    }
}

async fn cross(State(oauth): State<Arc<OAuth>>, site: Option<Site>, request: Request, next: Next) -> Response {
    let origin = oauth.origin(site.as_ref(), request.headers()).await;
    let asks_first = request.method() == Method::OPTIONS
        && request.headers().contains_key(header::ORIGIN)
        && request.headers().contains_key(header::ACCESS_CONTROL_REQUEST_METHOD);
    let mut response = if asks_first {
        StatusCode::NO_CONTENT.into_response()
    } else {
        next.run(request).await
    };
    let headers = response.headers_mut();
    headers.append(header::VARY, HeaderValue::from_static("origin"));
    if let Some(origin) = origin {
        headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin);
        headers.insert(header::ACCESS_CONTROL_EXPOSE_HEADERS, HeaderValue::from_static(SHOWN));
        if asks_first {
            headers.insert(header::ACCESS_CONTROL_ALLOW_METHODS, HeaderValue::from_static(METHODS));
            headers.insert(header::ACCESS_CONTROL_ALLOW_HEADERS, HeaderValue::from_static(ASKED));
            headers.insert(header::ACCESS_CONTROL_MAX_AGE, HeaderValue::from_static("600"));
        }
    }
    response
}
