//! The clinic a request came to, and the address it goes by: the issuer.

use axum::extract::{FromRequestParts, OptionalFromRequestParts};
use http::{header, request::Parts};
use medtech_kernel::{
    Ctx, Error, Result, Tenant, TenantId,
    http::{TenantCtx, origin},
};

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
        let issuer = origin(&ctx.config, &ctx.tenants, tenant.id, host.unwrap_or_default())?;
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
