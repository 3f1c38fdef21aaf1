//! The clinic a request came to, and the address it goes by: the issuer.

use axum::extract::{FromRequestParts, OptionalFromRequestParts};
use http::{header, request::Parts};
use medtech_kernel::{Ctx, Error, Result, Tenant, TenantId, config::Config, http::TenantCtx, tenant::Tenants};

/// A clinic at its public address.
#[derive(Clone, Debug)]
pub(crate) struct Site {
    pub(crate) tenant: Tenant,
    /// Scheme, host and port, without a slash at the end.
    pub(crate) issuer: String,
}

impl Site {
    pub(crate) fn id(&self) -> TenantId {
        self.tenant.id
    }

    /// The base of its FHIR service.
    pub(crate) fn fhir(&self) -> String {
        format!("{}/fhir/R4", self.issuer)
    }

    pub(crate) fn at(&self, path: &str) -> String {
        format!("{}{path}", self.issuer)
    }
}

impl<S: Send + Sync> FromRequestParts<S> for Site {
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self> {
        let TenantCtx(tenant) = TenantCtx::from_request_parts(parts, state).await?;
        let ctx = parts
            .extensions
            .get::<Ctx>()
            .ok_or_else(|| Error::internal("http.no_context", "the context layer is missing"))?;
        let host = parts.headers.get(header::HOST).and_then(|h| h.to_str().ok());
        let host = host.or_else(|| parts.uri.authority().map(http::uri::Authority::as_str));
        let issuer = issuer(&ctx.config, &ctx.tenants, tenant.id, host.unwrap_or_default())?;
        Ok(Self { tenant, issuer })
    }
}

impl<S: Send + Sync> OptionalFromRequestParts<S> for Site {
    type Rejection = std::convert::Infallible;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Option<Self>, Self::Rejection> {
        Ok(<Self as FromRequestParts<S>>::from_request_parts(parts, state)
            .await
            .ok())
    }
}

/// The default clinic goes by the configured address whatever the `Host` header says, so that nobody can make it sign for
/// another name; any other clinic was found by a host name of its own, and goes by that.
fn issuer(config: &Config, tenants: &Tenants, tenant: TenantId, host: &str) -> Result<String> {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | ':' | '[' | ']');
    if host.is_empty() || !host.chars().all(plain) {
        return Err(Error::bad("http.host", "The request's host name is not one."));
    }
    let host = host.to_ascii_lowercase();
    let Some(public) = &config.public_url else {
        return Ok(format!("http://{host}"));
    };
    let public = public.trim_end_matches('/');
    let default = tenants.by_host("").is_some_and(|t| t.id == tenant);
    let scheme = public.split_once("://").map_or("https", |(scheme, _)| scheme);
    Ok(if default {
        public.to_owned()
    } else {
        format!("{scheme}://{host}")
    })
}
