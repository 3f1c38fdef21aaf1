//! What the authority is answered while it looks whether a name leads here: by a handshake (RFC 8737) or by a page
//! (RFC 8555, 8.3). The answers lie in the database, so that every server gives them, whichever is reached.

use super::store;
use aws_lc_rs::digest::{SHA256, digest};
use axum::{
    Router,
    extract::{Path, State},
    response::{IntoResponse, Response},
    routing::get,
};
use http::{StatusCode, header};
use instant_acme::ChallengeType;
use medtech_kernel::{Ctx, Db, Result, clock::Millis, config::AcmeChallenge};
use rustls::{
    ServerConfig,
    crypto::aws_lc_rs::sign::any_supported_type,
    pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer},
    sign::{CertifiedKey, SingleCertAndKey},
    version::{TLS12, TLS13},
};
use std::sync::Arc;

/// The protocol that carries nothing but the proof.
pub(crate) const PROTOCOL: &[u8] = b"acme-tls/1";
/// Where pages of proof lie.
pub(crate) const PAGES: &str = "/.well-known/acme-challenge/";
/// A token has at least 128 bits in base64url; longer than this is none of ours.
const TOKEN: usize = 256;

pub(super) fn kind(way: AcmeChallenge) -> (&'static str, ChallengeType) {
    match way {
        AcmeChallenge::TlsAlpn01 => ("tls-alpn-01", ChallengeType::TlsAlpn01),
        AcmeChallenge::Http01 => ("http-01", ChallengeType::Http01),
    }
}

/// An answer that stands until it is ended.
pub(super) struct Answer<'a> {
    pub(super) way: AcmeChallenge,
    pub(super) host: &'a str,
    pub(super) token: &'a str,
}

impl Answer<'_> {
    fn name(&self) -> &str {
        match self.way {
            AcmeChallenge::TlsAlpn01 => self.host,
            AcmeChallenge::Http01 => self.token,
        }
    }

    pub(super) async fn put(&self, db: &Db, authorization: &str, ends: Millis) -> Result<()> {
        store::put_answer(db, kind(self.way).0, self.name(), authorization, ends).await
    }

    pub(super) async fn end(&self, db: &Db) -> Result<()> {
        store::end_answer(db, kind(self.way).0, self.name()).await
    }
}

/// The handshake that proves a name, if it is asked for just now.
pub(crate) async fn handshake(ctx: &Ctx, host: &str) -> Option<Arc<ServerConfig>> {
    let (kind, now) = (kind(AcmeChallenge::TlsAlpn01).0, ctx.clock.now_ms());
    let answer = store::answer(&ctx.db, kind, host, now).await.ok()??;
    proof(host, &answer)
}

/// A certificate of the name that vouches for itself and carries the digest of the answer (RFC 8737, 3).
fn proof(host: &str, answer: &str) -> Option<Arc<ServerConfig>> {
    let digest = digest(&SHA256, answer.as_bytes());
    let mut params = rcgen::CertificateParams::new(vec![host.to_owned()]).ok()?;
    params.custom_extensions = vec![rcgen::CustomExtension::new_acme_identifier(digest.as_ref())];
    let key = rcgen::KeyPair::generate().ok()?;
    let certificate = params.self_signed(&key).ok()?.der().clone();
    let private = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.serialize_der()));
    // Not from_der: its look at the pair refuses the extension, which is critical and for the authority alone.
    let certified = CertifiedKey::new(vec![certificate], any_supported_type(&private).ok()?);
    let mut config = ServerConfig::builder_with_provider(Arc::new(super::super::provider()))
        .with_protocol_versions(&[&TLS13, &TLS12])
        .ok()?
        .with_no_client_auth()
        .with_cert_resolver(Arc::new(SingleCertAndKey::from(certified)));
    config.alpn_protocols = vec![PROTOCOL.to_vec()];
    Some(Arc::new(config))
}

/// The pages, which are served in clear to everyone: that is what they are for.
pub(crate) fn routes(ctx: Ctx) -> Router {
    Router::new()
        .route("/.well-known/acme-challenge/{token}", get(page))
        .with_state(ctx)
}

async fn page(State(ctx): State<Ctx>, Path(token): Path<String>) -> Result<Response> {
    let is_token = token.len() <= TOKEN && token.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_".contains(&b));
    if ctx.config.tls.acme_directory.is_none() || !is_token {
        return Ok(StatusCode::NOT_FOUND.into_response());
    }
    let (kind, now) = (kind(AcmeChallenge::Http01).0, ctx.clock.now_ms());
    Ok(match store::answer(&ctx.db, kind, &token, now).await? {
        None => StatusCode::NOT_FOUND.into_response(),
        Some(answer) => ([(header::CONTENT_TYPE, "application/octet-stream")], answer).into_response(),
    })
}
